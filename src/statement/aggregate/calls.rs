//! The aggregates in a text that can be put together from parts.

use super::Span;
use crate::statement::lexer::{Kind, Token};
use crate::statement::literal;

/// An aggregate that can be put together from what it is for parts of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AggregateFunction {
    /// `count(*)`, `count(x)`: the sum of the parts.
    Count,
    Sum,
    /// The sum of all divided by their count.
    Avg,
    Min,
    Max,
    /// `bool_and`, `every`
    BoolAnd,
    BoolOr,
    BitAnd,
    BitOr,
}

impl AggregateFunction {
    /// By the name that PostgreSQL has for it.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "count" => Self::Count,
            "sum" => Self::Sum,
            "avg" => Self::Avg,
            "min" => Self::Min,
            "max" => Self::Max,
            "bool_and" | "every" => Self::BoolAnd,
            "bool_or" => Self::BoolOr,
            "bit_and" => Self::BitAnd,
            "bit_or" => Self::BitOr,
            _ => return None,
        })
    }

    /// The name with its schema.
    pub fn qualified(self) -> &'static str {
        match self {
            Self::Count => "pg_catalog.count",
            Self::Sum => "pg_catalog.sum",
            Self::Avg => "pg_catalog.avg",
            Self::Min => "pg_catalog.min",
            Self::Max => "pg_catalog.max",
            Self::BoolAnd => "pg_catalog.bool_and",
            Self::BoolOr => "pg_catalog.bool_or",
            Self::BitAnd => "pg_catalog.bit_and",
            Self::BitOr => "pg_catalog.bit_or",
        }
    }
}

/// One call of an aggregate.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub function: AggregateFunction,
    /// The name as it is called by: `every` shows as such in a plan.
    pub name: String,
    pub distinct: bool,
    /// From its name to its last parenthesis.
    pub span: Span,
    /// Without DISTINCT.
    pub arguments: Span,
    /// From FILTER to its last parenthesis.
    pub filter: Option<Span>,
}

impl Call {
    /// All calls in a part of the text; `None` if one of them is of no form that can be put together.
    pub fn all(tokens: &[Token<'_>], span: Span) -> Option<Vec<Self>> {
        let (mut at, mut calls) = (span.start, Vec::new());
        while at < span.end {
            match Self::at(tokens, at) {
                None => at += 1,
                Some(call) => {
                    let call = call?;
                    at = call.span.end;
                    calls.push(call);
                }
            }
        }
        Some(calls)
    }

    /// `None` if none is called here, `Some(None)` if it is of no such form.
    fn at(tokens: &[Token<'_>], at: usize) -> Option<Option<Self>> {
        let token = tokens.get(at).filter(|token| matches!(token.kind, Kind::Word | Kind::Quoted))?;
        tokens.get(at + 1).filter(|next| next.is_punctuation("("))?;
        let name = literal::identifier(token)?;
        let function = AggregateFunction::named(&name)?;
        Some(Self::called(tokens, at, function, name))
    }

    fn called(tokens: &[Token<'_>], at: usize, function: AggregateFunction, name: String) -> Option<Self> {
        // With the schema before it is not followed.
        if at.checked_sub(1).is_some_and(|before| tokens[before].is_punctuation(".")) {
            return None;
        }
        let close = closing(tokens, at + 1)?;
        let distinct = tokens[at + 2].is_word("distinct");
        let arguments = at + 2 + usize::from(distinct || tokens[at + 2].is_word("all"))..close;
        let filter = match tokens.get(close + 1..close + 3) {
            Some([filter, open]) if filter.is_word("filter") && open.is_punctuation("(") => {
                Some(close + 1..closing(tokens, close + 2)? + 1)
            }
            _ => None,
        };
        let end = filter.as_ref().map_or(close + 1, |filter| filter.end);
        let inner = &tokens[at + 1..end];
        let is_refused = arguments.is_empty()
            || (distinct && filter.is_some())
            || inner.iter().any(|token| token.is_word("order"))
            || (at + 2..end).any(|inside| Self::at(tokens, inside).is_some());
        (!is_refused).then_some(Self { function, name, distinct, span: at..end, arguments, filter })
    }
}

/// The parenthesis that closes the one at `open`.
fn closing(tokens: &[Token<'_>], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.is_punctuation("(") {
            depth += 1;
        } else if token.is_punctuation(")") {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                return Some(at);
            }
        }
    }
    None
}
