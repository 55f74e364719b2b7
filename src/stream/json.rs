//! Values as JSON, out of the text that PostgreSQL writes.
//!
//! **Invariant.** Whatever the text, what is appended is one JSON value, but for `json` and `jsonb`, whose text the server has
//! checked. A text that is not as its type promises becomes a string.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::time;
use super::types::{Kind, ValueType};

/// The largest integer up to which all are exact in a double (ECMA-262, `Number.MAX_SAFE_INTEGER`).
const MOST_EXACT: u64 = (1 << 53) - 1;

/// Deeper arrays than PostgreSQL has (`MAXDIM`).
const MOST_DIMENSIONS: usize = 6;

/// Appends a value; `None` is NULL.
pub fn put(out: &mut String, of: &ValueType, text: Option<&[u8]>) {
    let Some(text) = text else { return out.push_str("null") };
    // The session's client_encoding is UTF8; only a database that checks nothing (SQL_ASCII) sends anything else.
    let text = String::from_utf8_lossy(text);
    if !of.is_array {
        return put_scalar(out, of.kind, &text);
    }
    let before = out.len();
    if put_array(out, of.kind, &text).is_none() {
        out.truncate(before);
        put_string(out, &text);
    }
}

/// Appends a string with its quotes.
pub fn put_string(out: &mut String, text: &str) {
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= b' ' && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            control => out.push_str(&format!("\\u{control:04x}")),
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

fn put_scalar(out: &mut String, kind: Kind, text: &str) {
    match kind {
        Kind::Text => put_string(out, text),
        Kind::Integer if is_integer(text) => out.push_str(text),
        Kind::BigInteger if is_integer(text) && is_exact(text) => out.push_str(text),
        Kind::Float if is_number(text) => out.push_str(text),
        Kind::Bool if text == "t" => out.push_str("true"),
        Kind::Bool if text == "f" => out.push_str("false"),
        Kind::Json => out.push_str(text),
        Kind::Bytea => match text.strip_prefix("\\x").and_then(unhex) {
            Some(bytes) => {
                out.push('"');
                STANDARD.encode_string(bytes, out);
                out.push('"');
            }
            None => put_string(out, text),
        },
        Kind::Date => put_string(out, &time::date(text)),
        Kind::Timestamp => put_string(out, &time::timestamp(text)),
        Kind::TimeTz => put_string(out, &time::time_tz(text)),
        Kind::Integer | Kind::BigInteger | Kind::Float | Kind::Bool => put_string(out, text),
    }
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits.len() == 1 || digits.as_bytes()[0] != b'0')
}

fn is_exact(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number.unsigned_abs() <= MOST_EXACT)
}

/// What PostgreSQL writes of a finite floating-point number is a JSON number.
fn is_number(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e'))
        && text.trim_start_matches('-').starts_with(|first: char| first.is_ascii_digit())
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// `{1,NULL,"a b"}`, nested, perhaps with bounds in front: `[0:1]={7,8}`. `None` if it is nothing of the kind.
fn put_array(out: &mut String, kind: Kind, text: &str) -> Option<()> {
    let braces = match text.starts_with('[') {
        true => text.split_once('=')?.1,
        false => text,
    };
    let mut rest = braces;
    put_elements(out, kind, &mut rest, 0)?;
    rest.is_empty().then_some(())
}

fn put_elements(out: &mut String, kind: Kind, rest: &mut &str, depth: usize) -> Option<()> {
    if depth == MOST_DIMENSIONS {
        return None;
    }
    *rest = rest.strip_prefix('{')?;
    out.push('[');
    if let Some(after) = rest.strip_prefix('}') {
        *rest = after;
        out.push(']');
        return Some(());
    }
    loop {
        if rest.starts_with('{') {
            put_elements(out, kind, rest, depth + 1)?;
        } else if let Some(quoted) = rest.strip_prefix('"') {
            let (element, after) = unquote(quoted)?;
            put_scalar(out, kind, &element);
            *rest = after;
        } else {
            let end = rest.find([',', '}'])?;
            match &rest[..end] {
                "NULL" => out.push_str("null"),
                element => put_scalar(out, kind, element),
            }
            *rest = &rest[end..];
        }
        if let Some(after) = rest.strip_prefix(',') {
            out.push(',');
            *rest = after;
        } else {
            *rest = rest.strip_prefix('}')?;
            out.push(']');
            return Some(());
        }
    }
}

/// What stands before the closing quote, and what comes after it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut content = String::new();
    let mut rest = quoted;
    loop {
        let at = rest.find(['"', '\\'])?;
        content.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if rest.as_bytes()[at] == b'"' {
            return Some((content, after));
        }
        let escaped = after.chars().next()?;
        content.push(escaped);
        rest = &after[escaped.len_utf8()..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn json(oid: u32, text: &str) -> String {
        let mut out = String::new();
        put(&mut out, &ValueType::built_in(oid).unwrap(), Some(text.as_bytes()));
        out
    }

    #[test]
    fn numbers_that_json_readers_hold_exactly_are_numbers() {
        assert_eq!(json(23, "-42"), "-42");
        assert_eq!(json(20, "9007199254740991"), "9007199254740991");
        assert_eq!(json(20, "9007199254740992"), r#""9007199254740992""#);
        assert_eq!(json(20, "-9223372036854775808"), r#""-9223372036854775808""#);
        assert_eq!(json(1700, "1.50"), r#""1.50""#);
        assert_eq!(json(701, "1e-07"), "1e-07");
        assert_eq!(json(701, "-0"), "-0");
        for text in ["NaN", "Infinity", "-Infinity"] {
            assert_eq!(json(701, text), format!("\"{text}\""));
        }
    }

    #[test]
    fn other_types() {
        assert_eq!(json(16, "t"), "true");
        assert_eq!(json(17, "\\x00ff10"), r#""AP8Q""#);
        assert_eq!(json(3802, r#"{"a": [1, null]}"#), r#"{"a": [1, null]}"#);
        assert_eq!(json(1184, "2024-01-31 12:00:00+00"), r#""2024-01-31T12:00:00+00:00""#);
        assert_eq!(json(25, "a\"b\\c\n\u{1}ä"), "\"a\\\"b\\\\c\\n\\u0001ä\"");
    }

    #[test]
    fn arrays_are_arrays() {
        assert_eq!(json(1007, "{}"), "[]");
        assert_eq!(json(1007, "{1,NULL,3}"), "[1,null,3]");
        assert_eq!(json(1007, "{{1,2},{3,4}}"), "[[1,2],[3,4]]");
        assert_eq!(json(1007, "[0:1]={7,8}"), "[7,8]");
        assert_eq!(json(1009, r#"{a,"b c","NULL","d\"e\\"}"#), r#"["a","b c","NULL","d\"e\\"]"#);
        assert_eq!(json(3807, r#"{"{\"a\": 1}",NULL}"#), r#"[{"a": 1},null]"#);
        assert_eq!(json(1007, "no array"), r#""no array""#);
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_json_value(text in "\\PC*|[{},\"\\\\0-9a-zNUL-]*", array: bool, which in 0..9_usize) {
            let kind = [Kind::Bool, Kind::Integer, Kind::BigInteger, Kind::Float, Kind::Bytea, Kind::Date, Kind::Timestamp,
                Kind::TimeTz, Kind::Text][which];
            // What the server writes of a float is known to be a number.
            prop_assume!(kind != Kind::Float || text.parse::<f64>().is_ok() || !is_number(&text));
            prop_assume!(kind != Kind::Float || !array);
            let mut out = String::new();
            put(&mut out, &ValueType { name: "t".into(), kind, is_array: array }, Some(text.as_bytes()));
            prop_assert!(serde_json::from_str::<Value>(&out).is_ok(), "{}", out);
        }

        #[test]
        fn strings_come_back(text: String) {
            let mut out = String::new();
            put_string(&mut out, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), text);
        }
    }
}
