//! Tokens of a SQL text, as PostgreSQL's own scanner cuts it (`src/backend/parser/scan.l`, PostgreSQL 16) under
//! `standard_conforming_strings = on` and in an encoding whose bytes below 0x80 are always ASCII, as every server encoding's are.
//!
//! The invariant: tokens are in order, do not overlap, and lie in the text; what lies between them is white space and
//! comments only; and cutting the text anywhere but between tokens would change its meaning. A text that some supported
//! version of PostgreSQL cuts differently, or refuses to cut, is an error here: junk after a number, an unterminated
//! literal, a vertical tab (white space since 16, an error before).

use thiserror::Error;

/// What a token is. Prefixes and quotes are part of the token's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// An unquoted identifier or a key word.
    Word,
    /// `"..."`
    Quoted,
    /// `U&"..."`, its escapes not decoded.
    UnicodeQuoted,
    /// `'...'`
    String,
    /// `E'...'`
    EscapeString,
    /// `N'...'`
    NationalString,
    /// `U&'...'`, its escapes not decoded.
    UnicodeString,
    /// `$tag$...$tag$`
    DollarString,
    /// `B'...'`
    BitString,
    /// `X'...'`
    HexString,
    /// Digits, with a base prefix or underscores as in PostgreSQL 16.
    Integer,
    /// A number with a decimal point.
    Decimal,
    /// A number with an exponent.
    Exponent,
    /// `$1`
    Parameter,
    Operator,
    /// `( ) [ ] , ; : . .. :: := =>`
    Punctuation,
}

impl Kind {
    /// A string constant whose content is text (not a bit string).
    pub fn is_text_literal(self) -> bool {
        matches!(
            self,
            Self::String | Self::EscapeString | Self::NationalString | Self::UnicodeString | Self::DollarString
        )
    }

    /// Any constant that is written out, whatever its type.
    pub fn is_literal(self) -> bool {
        self.is_text_literal()
            || matches!(self, Self::BitString | Self::HexString | Self::Integer | Self::Decimal | Self::Exponent)
    }

    /// Adjacent literals of these kinds, with a new line between them, are one literal.
    fn continues(self) -> bool {
        matches!(
            self,
            Self::String
                | Self::EscapeString
                | Self::NationalString
                | Self::UnicodeString
                | Self::BitString
                | Self::HexString
        )
    }
}

/// One token: a slice of the text and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub kind: Kind,
    pub start: usize,
    pub text: &'a [u8],
}

impl<'a> Token<'a> {
    pub fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Whether it is this key word (`word` in lower case), unquoted.
    pub fn is_word(&self, word: &str) -> bool {
        self.kind == Kind::Word && self.text.eq_ignore_ascii_case(word.as_bytes())
    }

    pub fn is_any_word(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is_word(word))
    }

    pub fn is_punctuation(&self, text: &str) -> bool {
        self.kind == Kind::Punctuation && self.text == text.as_bytes()
    }

    /// The quoted pieces of a string that continues over lines: the first with its prefix, the others from quote to
    /// quote. Any other token is its own only piece.
    pub fn pieces(&self) -> Pieces<'a> {
        Pieces { rest: self.text, kind: self.kind, first: true }
    }
}

/// See [`Token::pieces`].
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    rest: &'a [u8],
    kind: Kind,
    first: bool,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut self.rest);
        if !self.kind.continues() {
            return Some(whole);
        }
        let start = if std::mem::take(&mut self.first) { 0 } else { continuation(whole, 0).unwrap_or(0) };
        let open = start + whole[start..].iter().position(|&byte| byte == b'\'').unwrap_or(0);
        let end = closing_quote(whole, open + 1, b'\'', self.kind == Kind::EscapeString).unwrap_or(whole.len());
        self.rest = &whole[end..];
        Some(&whole[start..end])
    }
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum LexError {
    #[error("unterminated {what} at byte {at}")]
    Unterminated { what: &'static str, at: usize },
    #[error("a zero-length quoted identifier at byte {at}")]
    EmptyIdentifier { at: usize },
    #[error("trailing junk after a number or parameter at byte {at}")]
    Junk { at: usize },
    #[error("unexpected byte 0x{byte:02x} at byte {at}")]
    Byte { byte: u8, at: usize },
}

/// All tokens of a text.
pub fn tokens(text: &[u8]) -> Result<Vec<Token<'_>>, LexError> {
    Lexer::new(text).collect()
}

/// Yields tokens until the end of the text or the first error.
#[derive(Debug)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    failed: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0, failed: false }
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Result<Token<'a>, LexError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let cut = skip_gap(self.text, self.at).and_then(|start| {
            if start == self.text.len() {
                return Ok(None);
            }
            let (kind, end) = cut(self.text, start)?;
            Ok(Some(Token { kind, start, text: &self.text[start..end] }))
        });
        match cut {
            Ok(None) => None,
            Ok(Some(token)) => {
                self.at = token.end();
                Some(Ok(token))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

/// The insides of the outermost block comments of a gap between tokens.
pub(super) fn block_comments(gap: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            match gap.get(at..)? {
                [] => return None,
                [b'-', b'-', ..] => at = line_end(gap, at),
                [b'/', b'*', ..] => {
                    let start = at + 2;
                    at = comment_end(gap, at).ok()?;
                    return gap.get(start..at - 2);
                }
                _ => at += 1,
            }
        }
    })
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c')
}

fn is_newline(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_word_part(byte: u8) -> bool {
    is_word_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_operator_part(byte: u8) -> bool {
    b"~!@#^&|`?+-*/%<>=".contains(&byte)
}

/// The end of the white space and comments that start at `at`.
fn skip_gap(text: &[u8], mut at: usize) -> Result<usize, LexError> {
    loop {
        match text[at..] {
            [byte, ..] if is_space(byte) => at += 1,
            [b'-', b'-', ..] => at = line_end(text, at),
            [b'/', b'*', ..] => at = comment_end(text, at)?,
            _ => return Ok(at),
        }
    }
}

fn line_end(text: &[u8], at: usize) -> usize {
    text[at..].iter().position(|&byte| is_newline(byte)).map_or(text.len(), |length| at + length)
}

/// The end of a `/* */` comment; they nest.
fn comment_end(text: &[u8], start: usize) -> Result<usize, LexError> {
    let mut depth = 0usize;
    let mut at = start;
    loop {
        match text[at..] {
            [b'/', b'*', ..] => {
                depth += 1;
                at += 2;
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Ok(at);
                }
            }
            [_, ..] => at += 1,
            [] => return Err(LexError::Unterminated { what: "comment", at: start }),
        }
    }
}

/// The kind and the end of the token that starts at `start`, which is inside the text and in no gap.
fn cut(text: &[u8], start: usize) -> Result<(Kind, usize), LexError> {
    let rest = &text[start..];
    match *rest {
        [b'\'', ..] => string(text, start, start, Kind::String),
        [b'e' | b'E', b'\'', ..] => string(text, start, start + 1, Kind::EscapeString),
        [b'b' | b'B', b'\'', ..] => string(text, start, start + 1, Kind::BitString),
        [b'x' | b'X', b'\'', ..] => string(text, start, start + 1, Kind::HexString),
        [b'n' | b'N', b'\'', ..] => string(text, start, start + 1, Kind::NationalString),
        [b'u' | b'U', b'&', b'\'', ..] => string(text, start, start + 2, Kind::UnicodeString),
        [b'u' | b'U', b'&', b'"', ..] => quoted(text, start, start + 2, Kind::UnicodeQuoted),
        [b'"', ..] => quoted(text, start, start, Kind::Quoted),
        [b'$', ..] => dollar(text, start),
        [first, ..] if is_word_start(first) => {
            Ok((Kind::Word, start + rest.iter().take_while(|&&byte| is_word_part(byte)).count()))
        }
        [first, ..] if first.is_ascii_digit() => number(text, start),
        [b'.', second, ..] if second.is_ascii_digit() => number(text, start),
        [b':', b':' | b'=', ..] | [b'.', b'.', ..] => Ok((Kind::Punctuation, start + 2)),
        [b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.', ..] => Ok((Kind::Punctuation, start + 1)),
        [first, ..] if is_operator_part(first) => Ok(operator(text, start)),
        [byte, ..] => Err(LexError::Byte { byte, at: start }),
        [] => Err(LexError::Byte { byte: 0, at: start }),
    }
}

/// A string constant whose first quote is at `open`, with all its continuations.
fn string(text: &[u8], start: usize, open: usize, kind: Kind) -> Result<(Kind, usize), LexError> {
    let unterminated = LexError::Unterminated { what: "string", at: start };
    let mut open = open;
    loop {
        let end = closing_quote(text, open + 1, b'\'', kind == Kind::EscapeString).ok_or(unterminated)?;
        match continuation(text, end) {
            Some(next) => open = next,
            None => return Ok((kind, end)),
        }
    }
}

/// Past the quote that closes what was opened before `at`; a doubled quote does not close.
fn closing_quote(text: &[u8], mut at: usize, quote: u8, escapes: bool) -> Option<usize> {
    loop {
        match text.get(at)? {
            b'\\' if escapes => at += 2,
            &byte if byte == quote => match text.get(at + 1) {
                Some(&next) if next == quote => at += 2,
                _ => return Some(at + 1),
            },
            _ => at += 1,
        }
    }
}

/// Where the next quote of a continued string is: after white space and `--` comments that hold at least one new line.
fn continuation(text: &[u8], mut at: usize) -> Option<usize> {
    let mut newline = false;
    loop {
        match text[at..] {
            [byte, ..] if is_space(byte) => {
                newline |= is_newline(byte);
                at += 1;
            }
            [b'-', b'-', ..] => at = line_end(text, at),
            [b'\'', ..] if newline => return Some(at),
            _ => return None,
        }
    }
}

fn quoted(text: &[u8], start: usize, open: usize, kind: Kind) -> Result<(Kind, usize), LexError> {
    let unterminated = LexError::Unterminated { what: "quoted identifier", at: start };
    let end = closing_quote(text, open + 1, b'"', false).ok_or(unterminated)?;
    if end == open + 2 {
        return Err(LexError::EmptyIdentifier { at: start });
    }
    Ok((kind, end))
}

/// A parameter or a dollar-quoted string.
fn dollar(text: &[u8], start: usize) -> Result<(Kind, usize), LexError> {
    let rest = &text[start + 1..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > 0 {
        return ends_clean(text, Kind::Parameter, start, start + 1 + digits);
    }
    let tag = rest.iter().take_while(|&&byte| is_word_part(byte) && byte != b'$').count();
    if rest.get(tag) != Some(&b'$') {
        return Err(LexError::Byte { byte: b'$', at: start });
    }
    let delimiter = &text[start..start + tag + 2];
    let body = start + delimiter.len();
    find(&text[body..], delimiter)
        .map(|offset| (Kind::DollarString, body + offset + delimiter.len()))
        .ok_or(LexError::Unterminated { what: "dollar-quoted string", at: start })
}

/// The first place of `needle`, which starts and ends with `$` and holds no other.
fn find(text: &[u8], needle: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(offset) = text[at..].iter().position(|&byte| byte == b'$') {
        at += offset;
        if text[at..].starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn number(text: &[u8], start: usize) -> Result<(Kind, usize), LexError> {
    let based: Option<fn(&u8) -> bool> = match text[start..] {
        [b'0', b'x' | b'X', ..] => Some(u8::is_ascii_hexdigit),
        [b'0', b'o' | b'O', ..] => Some(|byte| (b'0'..=b'7').contains(byte)),
        [b'0', b'b' | b'B', ..] => Some(|byte| matches!(byte, b'0' | b'1')),
        _ => None,
    };
    if let Some(is_digit) = based {
        let mut at = start + 2;
        while let Some(end) = one_digit(text, at, is_digit) {
            at = end;
        }
        if at == start + 2 {
            return Err(LexError::Junk { at: start });
        }
        return ends_clean(text, Kind::Integer, start, at);
    }
    let mut kind = Kind::Integer;
    let mut at = digits(text, start);
    // `1..2` is a range: an integer, two dots, an integer.
    if text.get(at) == Some(&b'.') && text.get(at + 1) != Some(&b'.') {
        kind = Kind::Decimal;
        at = digits(text, at + 1);
    }
    if let [b'e' | b'E', tail @ ..] = &text[at..] {
        let sign = usize::from(matches!(tail, [b'+' | b'-', ..]));
        let end = digits(text, at + 1 + sign);
        if end == at + 1 + sign {
            return Err(LexError::Junk { at: start });
        }
        kind = Kind::Exponent;
        at = end;
    }
    ends_clean(text, kind, start, at)
}

/// Past decimal digits; single underscores may stand between them.
fn digits(text: &[u8], mut at: usize) -> usize {
    if text.get(at).is_some_and(u8::is_ascii_digit) {
        at += 1;
        while let Some(end) = one_digit(text, at, u8::is_ascii_digit) {
            at = end;
        }
    }
    at
}

/// Past one digit with or without an underscore before it.
fn one_digit(text: &[u8], at: usize, is_digit: fn(&u8) -> bool) -> Option<usize> {
    let digit = at + usize::from(text.get(at) == Some(&b'_'));
    text.get(digit).filter(|byte| is_digit(byte)).map(|_| digit + 1)
}

/// PostgreSQL 15 refuses a name directly after a number; before, it began a new token. We refuse.
fn ends_clean(text: &[u8], kind: Kind, start: usize, end: usize) -> Result<(Kind, usize), LexError> {
    match text.get(end) {
        Some(&byte) if is_word_start(byte) => Err(LexError::Junk { at: start }),
        _ => Ok((kind, end)),
    }
}

/// The longest run of operator characters, less a comment's start and less a trailing `+` or `-` that SQL reads as a sign.
fn operator(text: &[u8], start: usize) -> (Kind, usize) {
    let run = text[start..].iter().take_while(|&&byte| is_operator_part(byte)).count();
    let run = &text[start..start + run];
    let comment = run.windows(2).position(|pair| pair == b"--" || pair == b"/*");
    let mut run = &run[..comment.unwrap_or(run.len())];
    let is_sign = |byte: &u8| matches!(byte, b'+' | b'-');
    if run.len() > 1 && run.last().is_some_and(is_sign) && !run.iter().any(|byte| b"~!@#^&|`?%".contains(byte)) {
        let kept = run.iter().rposition(|byte| !is_sign(byte)).map_or(1, |last| last + 1);
        run = &run[..kept];
    }
    let kind = if run == b"=>" { Kind::Punctuation } else { Kind::Operator };
    (kind, start + run.len())
}

#[cfg(test)]
pub(super) mod tests;
