//! SHOW CACHE TOP: the statements that the cache does most for.

use super::Desk;
use super::command::{Arguments, Command};
use super::table::{Row, float, int, text};
use crate::cache::ledger::Figures;

/// Rows at most.
const MOST: usize = 100;

pub(super) const COMMAND: Command = Command {
    words: "SHOW CACHE TOP",
    follows: "[BY SAVED | HITS | BYTES]",
    help: "The 100 statements that the cache saves most of the server's time on (or hits most, or sends most bytes of)",
    changes: false,
    columns: &[
        text("statement"),
        int("hits"),
        int("runs"),
        float("hit_ratio"),
        float("saved_ms"),
        int("bytes"),
        float("run_avg_ms"),
        text("query"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            let order = order(&arguments).ok_or_else(|| COMMAND.usage())?;
            Ok(rows(desk, order))
        })
    },
};

/// What the first row has most of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Saved,
    Hits,
    Bytes,
}

fn order(arguments: &Arguments) -> Option<By> {
    match arguments.texts()[..] {
        [] | ["by", "saved"] => Some(By::Saved),
        ["by", "hits"] => Some(By::Hits),
        ["by", "bytes"] => Some(By::Bytes),
        _ => None,
    }
}

pub(super) fn rows(desk: &Desk, by: By) -> Vec<Row> {
    let pages = desk.shared.ledger.pages();
    let mut pages: Vec<_> = pages.iter().map(|page| (page, page.figures())).filter(|(_, seen)| seen.hits > 0).collect();
    pages.sort_by_key(|(page, seen)| {
        let most = match by {
            By::Saved => seen.saved.as_micros(),
            By::Hits => u128::from(seen.hits),
            By::Bytes => u128::from(seen.bytes),
        };
        (std::cmp::Reverse(most), page.id.to_string())
    });
    pages.truncate(MOST);
    let row = |(page, seen): (&std::sync::Arc<crate::cache::ledger::Page>, Figures)| {
        vec![
            page.id.to_string().into(),
            seen.hits.into(),
            seen.runs.into(),
            (seen.hits as f64 / (seen.hits + seen.runs) as f64).into(),
            milliseconds(seen.saved).into(),
            seen.bytes.into(),
            average(&seen).into(),
            page.text.as_ref().into(),
        ]
    };
    pages.into_iter().map(row).collect()
}

pub(super) fn milliseconds(duration: std::time::Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// Milliseconds that the upstream takes; none if it has not been asked.
pub(super) fn average(seen: &Figures) -> Option<f64> {
    (seen.runs > 0).then(|| milliseconds(seen.run_time) / seen.runs as f64)
}
