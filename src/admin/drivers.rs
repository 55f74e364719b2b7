//! What drivers and tools say to every server, answered so that they go on: settings, transactions, and a few questions.
//!
//! Nothing here changes anything but the transaction status that the client is told.

use super::table::{Column, Value, int, text};
use crate::config::{self, Config};
use crate::statement::lexer::{Kind, Token};
use crate::statement::literal;
use crate::wire::error::{ErrorResponse, sqlstate};

/// The version that the admin database claims to be: drivers decide by it how to speak.
pub const SERVER_VERSION: &str = concat!("15.0 (HeliosProxy ", env!("CARGO_PKG_VERSION"), ")");

/// The settings that are told at the start, and shown.
pub const REPORTED: &[(&str, &str)] = &[
    ("server_version", SERVER_VERSION),
    ("server_encoding", "UTF8"),
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO, MDY"),
    ("IntervalStyle", "postgres"),
    ("TimeZone", "UTC"),
    ("integer_datetimes", "on"),
    ("standard_conforming_strings", "on"),
    ("is_superuser", "off"),
];

/// Shown, but not told at the start.
const SHOWN: &[(&str, &str)] = &[
    ("server_version_num", "150000"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_read_only", "off"),
    ("transaction_isolation", "read committed"),
    ("transaction_read_only", "off"),
    ("search_path", ""),
    ("application_name", ""),
    ("extra_float_digits", "1"),
    ("statement_timeout", "0"),
    ("max_identifier_length", "63"),
];

/// First words of what is acknowledged and ignored.
const IGNORED: &[&str] = &["reset", "discard", "deallocate", "close", "unlisten", "savepoint", "release"];

#[derive(Debug, Clone)]
pub enum Courtesy {
    Begin,
    Commit,
    Rollback,
    /// Acknowledged under this tag.
    Ignored(String),
    /// One value.
    Answer {
        columns: [Column; 1],
        value: Value,
        tag: &'static str,
    },
}

impl Courtesy {
    pub fn columns(&self) -> &[Column] {
        match self {
            Self::Answer { columns, .. } => columns,
            _ => &[],
        }
    }

    pub fn tag(&self) -> &str {
        match self {
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Rollback => "ROLLBACK",
            Self::Ignored(tag) => tag,
            Self::Answer { tag, .. } => tag,
        }
    }

    /// It ends a transaction, also one that has failed.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback)
    }
}

/// What these tokens say, if it is such a thing.
pub fn courtesy(tokens: &[Token<'_>], config: &Config) -> Option<Result<Courtesy, ErrorResponse>> {
    let [first, rest @ ..] = tokens else { return None };
    if first.is_any_word(&["begin", "start"]) {
        return Some(Ok(Courtesy::Begin));
    }
    if first.is_any_word(&["commit", "end"]) {
        return Some(Ok(Courtesy::Commit));
    }
    if first.is_any_word(&["rollback", "abort"]) {
        let to_savepoint = rest.iter().any(|token| token.is_word("to"));
        return Some(Ok(if to_savepoint { Courtesy::Ignored("ROLLBACK".into()) } else { Courtesy::Rollback }));
    }
    if first.is_any_word(IGNORED) {
        return Some(Ok(Courtesy::Ignored(String::from_utf8_lossy(first.text).to_uppercase())));
    }
    if first.is_word("set") {
        return set(rest, config);
    }
    if first.is_word("show") {
        return show(rest, config).map(Ok);
    }
    if first.is_word("select") {
        return select(rest).map(Ok);
    }
    None
}

/// SET of a setting that a server has and the proxy does not. `None` for the proxy's own keys.
fn set(rest: &[Token<'_>], config: &Config) -> Option<Result<Courtesy, ErrorResponse>> {
    let rest = match rest {
        [scope, rest @ ..] if scope.is_any_word(&["session", "local"]) => rest,
        rest => rest,
    };
    let name = name(rest);
    if name.contains('.') && config::settings(config).iter().any(|setting| setting.key == name) {
        return None;
    }
    let value = rest.last().and_then(literal::content);
    let is_utf8 = value.as_ref().is_none_or(|value| {
        let value = value.to_ascii_lowercase();
        matches!(&value[..], b"utf8" | b"utf-8" | b"unicode" | b"sql_ascii" | b"")
    });
    if name == "client_encoding" && !is_utf8 {
        let message = "the admin database speaks UTF8 only";
        return Some(Err(ErrorResponse::error(sqlstate::FEATURE_NOT_SUPPORTED, message)));
    }
    Some(Ok(Courtesy::Ignored("SET".into())))
}

/// SHOW of a setting, the proxy's keys included. `None` for the tables.
fn show(rest: &[Token<'_>], config: &Config) -> Option<Courtesy> {
    let asked = match rest {
        [a, b, c] if a.is_word("transaction") && b.is_word("isolation") && c.is_word("level") => {
            "transaction_isolation".into()
        }
        [a, b] if a.is_word("time") && b.is_word("zone") => "timezone".into(),
        rest => name(rest),
    };
    let known = REPORTED.iter().chain(SHOWN).find(|(name, _)| name.eq_ignore_ascii_case(&asked));
    let value = match known {
        Some((name, value)) => (*name, Value::from(*value)),
        None => {
            let setting = config::settings(config).into_iter().find(|setting| setting.key == asked)?;
            ("value", setting.value.into())
        }
    };
    Some(Courtesy::Answer { columns: [text(value.0)], value: value.1, tag: "SHOW" })
}

/// A few questions without a table in them.
fn select(rest: &[Token<'_>]) -> Option<Courtesy> {
    let rest = match rest {
        [schema, dot, rest @ ..] if schema.is_word("pg_catalog") && dot.is_punctuation(".") => rest,
        rest => rest,
    };
    let answer = |column: Column, value: Value| Courtesy::Answer { columns: [column], value, tag: "SELECT 1" };
    match rest {
        [one] if one.kind == Kind::Integer && one.text == b"1" => Some(answer(int("?column?"), 1u64.into())),
        [function, parentheses @ ..]
            if parentheses.iter().all(|token| token.is_punctuation("(") || token.is_punctuation(")")) =>
        {
            if function.is_word("version") {
                let version = concat!("PostgreSQL 15.0 compatible: HeliosProxy ", env!("CARGO_PKG_VERSION"));
                Some(answer(text("version"), version.into()))
            } else if function.is_word("current_database") {
                Some(answer(text("current_database"), crate::session::ADMIN_DATABASE.into()))
            } else if function.is_word("current_schema") {
                Some(answer(text("current_schema"), Value::Null))
            } else {
                None
            }
        }
        _ => None,
    }
}

/// `a` or `a.b` at the front, in lower case.
fn name(tokens: &[Token<'_>]) -> String {
    let part = |token: &Token<'_>| literal::identifier(token).unwrap_or_default();
    match tokens {
        [section, dot, key, ..] if dot.is_punctuation(".") => format!("{}.{}", part(section), part(key)),
        [name, ..] => part(name),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::lexer::tokens;

    fn said(text: &str) -> Option<Result<String, String>> {
        let courtesy = courtesy(&tokens(text.as_bytes()).unwrap(), &Config::default())?;
        Some(courtesy.map(|courtesy| courtesy.tag().to_owned()).map_err(|error| error.code.to_owned()))
    }

    fn shown(text: &str) -> Option<Value> {
        match courtesy(&tokens(text.as_bytes()).unwrap(), &Config::default())? {
            Ok(Courtesy::Answer { value, .. }) => Some(value),
            _ => None,
        }
    }

    #[test]
    fn what_drivers_say_at_the_start_is_answered() {
        for (text, tag) in [
            ("SET client_encoding TO 'UTF8'", "SET"),
            ("set client_encoding = utf8", "SET"),
            ("SET extra_float_digits = 3", "SET"),
            ("SET application_name = 'PostgreSQL JDBC Driver'", "SET"),
            ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET"),
            ("SET datestyle TO 'ISO'", "SET"),
            ("BEGIN", "BEGIN"),
            ("START TRANSACTION ISOLATION LEVEL READ COMMITTED", "BEGIN"),
            ("COMMIT", "COMMIT"),
            ("ROLLBACK", "ROLLBACK"),
            ("ROLLBACK TO SAVEPOINT x", "ROLLBACK"),
            ("DISCARD ALL", "DISCARD"),
            ("SHOW standard_conforming_strings", "SHOW"),
            ("SELECT 1", "SELECT 1"),
        ] {
            assert_eq!(said(text), Some(Ok(tag.into())), "{text}");
        }
        assert_eq!(said("SET client_encoding TO 'LATIN1'"), Some(Err("0A000".into())));
        assert_eq!(shown("SHOW TRANSACTION ISOLATION LEVEL"), Some("read committed".into()));
        assert_eq!(shown("SHOW server_version"), Some(SERVER_VERSION.into()));
        assert_eq!(shown("SHOW cache.max_entries"), Some("10000".into()));
        assert!(
            matches!(shown("SELECT pg_catalog.version()"), Some(Value::Text(text)) if text.starts_with("PostgreSQL 15"))
        );
    }

    #[test]
    fn commands_and_keys_of_the_proxy_are_left_alone() {
        for text in ["SHOW POOLS", "SHOW CACHE", "SET cache.default_ttl_secs = 5", "SELECT * FROM t", "KILL 1", "SHOW"]
        {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
