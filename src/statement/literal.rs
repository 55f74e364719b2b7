//! What a string constant or a quoted identifier says once its quotes and escapes are gone.

use std::borrow::Cow;

use super::lexer::{Kind, Token};
use crate::wire::message::special_time::contains_special_time_word;

/// Whether a text literal may make date/time input depend on the clock. An escape that cannot be decoded may.
pub fn may_name_current_time(token: &Token<'_>) -> bool {
    if !token.kind.is_text_literal() {
        return false;
    }
    content(token).is_none_or(|content| contains_special_time_word(&content))
}

/// The content of a text literal; `None` for `U&''`, whose escape character is written elsewhere, and for broken escapes.
pub fn content<'a>(token: &Token<'a>) -> Option<Cow<'a, [u8]>> {
    match token.kind {
        Kind::UnicodeString => None,
        Kind::DollarString => {
            let tag = token.text[1..].iter().position(|&byte| byte == b'$')? + 2;
            token.text.get(tag..token.text.len().checked_sub(tag)?).map(Cow::Borrowed)
        }
        Kind::EscapeString => {
            let mut out = Vec::new();
            for (index, piece) in token.pieces().enumerate() {
                unescape(&piece[1 + usize::from(index == 0)..piece.len() - 1], &mut out)?;
            }
            Some(Cow::Owned(out))
        }
        Kind::String | Kind::NationalString => {
            let mut out = Vec::new();
            for piece in token.pieces() {
                let open = piece.iter().position(|&byte| byte == b'\'')?;
                undouble(&piece[open + 1..piece.len() - 1], b'\'', &mut out);
            }
            Some(Cow::Owned(out))
        }
        _ => None,
    }
}

/// The name an identifier token means, folded and cut to 63 bytes as PostgreSQL does. `None` where we cannot tell:
/// `U&""` and bytes that are not UTF-8.
pub fn identifier(token: &Token<'_>) -> Option<String> {
    folded(token).map(Cow::into_owned)
}

/// The same for a look at it: most are written as they are folded.
pub fn folded<'a>(token: &Token<'a>) -> Option<Cow<'a, str>> {
    let name = match token.kind {
        Kind::Word if !token.text.iter().any(u8::is_ascii_uppercase) => Cow::Borrowed(str::from_utf8(token.text).ok()?),
        Kind::Word => Cow::Owned(String::from_utf8(token.text.to_ascii_lowercase()).ok()?),
        Kind::Quoted => {
            let mut out = Vec::with_capacity(token.text.len());
            undouble(&token.text[1..token.text.len() - 1], b'"', &mut out);
            Cow::Owned(String::from_utf8(out).ok()?)
        }
        _ => return None,
    };
    const LONGEST: usize = 63;
    if name.len() <= LONGEST {
        return Some(name);
    }
    let end = (0..=LONGEST).rev().find(|&end| name.is_char_boundary(end)).unwrap_or(0);
    Some(Cow::Owned(name[..end].to_owned()))
}

fn undouble(text: &[u8], quote: u8, out: &mut Vec<u8>) {
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        out.push(byte);
        if byte == quote {
            bytes.next();
        }
    }
}

/// Decodes the inside of one piece of `E''`. Non-ASCII code points become a `?`: only words of ASCII letters are looked for.
fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte == b'\'' {
            at += 1;
        }
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let escape = *text.get(at)?;
        at += 1;
        match escape {
            b'b' => out.push(0x08),
            b'f' => out.push(0x0c),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'0'..=b'7' => {
                let (value, end) = digits(text, at - 1, 8, 3);
                out.push(value as u8);
                at = end;
            }
            b'x' if text.get(at).is_some_and(u8::is_ascii_hexdigit) => {
                let (value, end) = digits(text, at, 16, 2);
                out.push(value as u8);
                at = end;
            }
            b'u' | b'U' => {
                let length = if escape == b'u' { 4 } else { 8 };
                let (value, end) = digits(text, at, 16, length);
                if end != at + length {
                    return None;
                }
                out.push(u8::try_from(value).ok().filter(u8::is_ascii).unwrap_or(b'?'));
                at = end;
            }
            other => out.push(other),
        }
    }
    Some(())
}

/// The value of at most `longest` digits and where they end.
fn digits(text: &[u8], start: usize, radix: u32, longest: usize) -> (u32, usize) {
    let mut value = 0u32;
    let mut at = start;
    while at < start + longest {
        let Some(digit) = text.get(at).and_then(|&byte| char::from(byte).to_digit(radix)) else { break };
        value = value.wrapping_mul(radix).wrapping_add(digit);
        at += 1;
    }
    (value, at)
}
