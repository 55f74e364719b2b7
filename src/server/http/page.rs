//! The status page: one file without anything from elsewhere, which asks `/stats` for what it shows.

use std::sync::LazyLock;

use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const PAGE: &str = include_str!("page.html");

/// Nothing may be loaded or run but what the page itself has, whatever texts it shows.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let script = between(PAGE, "<script>", "</script>").unwrap_or_default();
    let hash = STANDARD.encode(Sha256::digest(script));
    format!(
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{hash}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
});

pub(super) async fn show() -> Response {
    let headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY.as_str()),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, PAGE).into_response()
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Option<&'a str> {
    Some(text.split_once(start)?.1.split_once(end)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_brings_everything_itself() {
        assert!(between(PAGE, "<script>", "</script>").is_some_and(|script| script.contains("fetch('stats'")));
        assert_eq!(PAGE.matches("<script").count(), 1);
        for outside in
            ["src=", "href=\"http", "//cdn", "@import", "url(http", "innerHTML", "insertAdjacentHTML", "onclick="]
        {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
