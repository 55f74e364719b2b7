//! Constants as they are written, and parameters.

use super::super::lexer::{Kind, Token};
use super::super::literal;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constant {
    /// A string, with the type that it is cast to.
    Text {
        content: Vec<u8>,
        cast: Option<String>,
    },
    /// Digits with their sign.
    Integer {
        digits: Vec<u8>,
        cast: Option<String>,
    },
    Bool(bool),
    Null,
    /// `$n`, counted from 1, whatever it is cast to: its own type tells what it is.
    Parameter(u16),
}

/// Types that may stand before a string constant: `date '2020-01-01'`.
const PREFIX_TYPES: [&str; 10] =
    ["date", "text", "uuid", "bool", "boolean", "int", "integer", "bigint", "int4", "int8"];

impl Constant {
    /// The constant that these tokens are, all of them.
    pub fn of(tokens: &[Token<'_>]) -> Option<Self> {
        match tokens {
            [prefix, string] if prefix.is_any_word(&PREFIX_TYPES) && string.kind.is_text_literal() => {
                Self::text(string, literal::identifier(prefix))
            }
            [value @ .., colons, name] if colons.is_punctuation("::") && name.kind == Kind::Word => {
                Self::cast(value, literal::identifier(name)?)
            }
            [value @ .., colons, one, two]
                if colons.is_punctuation("::") && one.is_word("character") && two.is_word("varying") =>
            {
                Self::cast(value, "character varying".into())
            }
            _ => Self::plain(tokens),
        }
    }

    fn plain(tokens: &[Token<'_>]) -> Option<Self> {
        match tokens {
            [one] if one.kind == Kind::Integer => Some(Self::Integer { digits: one.text.to_vec(), cast: None }),
            [minus, one] if minus.kind == Kind::Operator && minus.text == b"-" && one.kind == Kind::Integer => {
                Some(Self::Integer { digits: [b"-", one.text].concat(), cast: None })
            }
            [one] if one.kind == Kind::Parameter => {
                Some(Self::Parameter(std::str::from_utf8(&one.text[1..]).ok()?.parse().ok()?))
            }
            [one] if one.is_word("true") => Some(Self::Bool(true)),
            [one] if one.is_word("false") => Some(Self::Bool(false)),
            [one] if one.is_word("null") => Some(Self::Null),
            // N'' is a bpchar, to which trailing blanks mean nothing.
            [one] if one.kind.is_text_literal() && one.kind != Kind::NationalString => Self::text(one, None),
            _ => None,
        }
    }

    fn text(token: &Token<'_>, cast: Option<String>) -> Option<Self> {
        // An escape beyond ASCII is not decoded to what it means.
        if token.kind == Kind::EscapeString && token.text.contains(&b'\\') || token.kind == Kind::NationalString {
            return None;
        }
        Some(Self::Text { content: literal::content(token)?.into_owned(), cast })
    }

    fn cast(value: &[Token<'_>], to: String) -> Option<Self> {
        match Self::plain(value)? {
            Self::Text { content, cast: None } => Some(Self::Text { content, cast: Some(to) }),
            Self::Integer { digits, cast: None } => Some(Self::Integer { digits, cast: Some(to) }),
            value @ (Self::Parameter(_) | Self::Null) => Some(value),
            _ => None,
        }
    }

    pub(super) fn weight(&self) -> usize {
        const HEAP: usize = 64;
        match self {
            Self::Text { content, .. } => HEAP + content.len(),
            Self::Integer { digits, .. } => HEAP + digits.len(),
            _ => size_of::<Self>(),
        }
    }
}
