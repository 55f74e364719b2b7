//! The normal form of a text: comments and white space out, unquoted words in lower case, everything else byte for byte.
//!
//! Two texts with equal normal forms have equal token sequences (words compared as PostgreSQL folds them), so they mean
//! the same. Because: a normal form is the text's tokens with one space between them, and no token's extent depends on
//! anything but its own bytes and the byte after it; a space there ends every token that is not quoted, and quoted ones
//! end at their own delimiter. The one exception, a string that continues on the next line, keeps a new line between
//! its pieces, which a space between two separate strings never is. So cutting a normal form gives back the tokens.

use sha2::{Digest, Sha256};

use super::lexer::{Kind, Token};

/// Starts a placeholder in a shape. No token starts with it.
const PLACEHOLDER: u8 = 0x01;

/// The normal form of these tokens.
pub fn normal_form(tokens: &[Token<'_>]) -> Vec<u8> {
    let mut out = Vec::with_capacity(tokens.iter().map(|token| token.text.len() + 1).sum());
    for token in tokens {
        if !out.is_empty() {
            out.push(b' ');
        }
        push_token(&mut out, token);
    }
    out
}

/// SHA-256 of the normal form in which every literal is a placeholder for its kind.
pub fn shape(tokens: &[Token<'_>]) -> [u8; 32] {
    let mut out = Vec::with_capacity(tokens.iter().map(|token| token.text.len().min(64) + 1).sum());
    for token in tokens {
        if !out.is_empty() {
            out.push(b' ');
        }
        if token.kind.is_literal() {
            out.extend_from_slice(&[PLACEHOLDER, placeholder(token)]);
        } else {
            push_token(&mut out, token);
        }
    }
    Sha256::digest(&out).into()
}

/// The normal form with `?` for every literal, cut after `longest` bytes: what may be shown of a statement. No more of it is read
/// than that takes.
pub fn shape_text<'a, E>(tokens: impl Iterator<Item = Result<Token<'a>, E>>, longest: usize) -> Result<String, E> {
    let mut out = Vec::new();
    for token in tokens {
        let token = token?;
        if !out.is_empty() {
            out.push(b' ');
        }
        if token.kind.is_literal() {
            out.push(b'?');
        } else {
            push_token(&mut out, &token);
        }
        if out.len() > longest {
            break;
        }
    }
    // They change nothing.
    while let Some(rest) = out.strip_suffix(b";") {
        out.truncate(rest.trim_ascii_end().len());
    }
    let mut text = String::from_utf8_lossy(&out).into_owned();
    if text.len() > longest {
        text.truncate((0..=longest).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0));
        text.push_str(" ...");
    }
    Ok(text)
}

fn push_token(out: &mut Vec<u8>, token: &Token<'_>) {
    if token.kind == Kind::Word {
        out.extend(token.text.iter().map(u8::to_ascii_lowercase));
        return;
    }
    for (index, piece) in token.pieces().enumerate() {
        if index > 0 {
            out.push(b'\n');
        }
        out.extend_from_slice(piece);
    }
}

/// Literals with the same placeholder have the same type before anything is known about their surroundings.
fn placeholder(token: &Token<'_>) -> u8 {
    match token.kind {
        Kind::NationalString => b'n',
        Kind::BitString => b'b',
        Kind::HexString => b'x',
        Kind::Decimal | Kind::Exponent => b'd',
        Kind::Integer => match integer(token.text) {
            Some(value) if i32::try_from(value).is_ok() => b'4',
            Some(_) => b'8',
            None => b'd',
        },
        _ => b's',
    }
}

/// The value of an integer literal that fits into a bigint.
fn integer(text: &[u8]) -> Option<i64> {
    let (radix, digits) = match text {
        [b'0', b'x' | b'X', digits @ ..] => (16, digits),
        [b'0', b'o' | b'O', digits @ ..] => (8, digits),
        [b'0', b'b' | b'B', digits @ ..] => (2, digits),
        digits => (10, digits),
    };
    digits.iter().filter(|&&byte| byte != b'_').try_fold(0i64, |value, &byte| {
        let digit = char::from(byte).to_digit(radix)?;
        value.checked_mul(i64::from(radix))?.checked_add(i64::from(digit))
    })
}
