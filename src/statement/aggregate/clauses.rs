//! The clauses of `SELECT [DISTINCT] list FROM table [WHERE] [GROUP BY] [HAVING] [ORDER BY] [LIMIT] [OFFSET]`.

use super::Span;
use crate::statement::lexer::{Kind, Token};
use crate::statement::predicates::{OnlyTable, only_table};
use crate::statement::scan;

/// Words at which the text is something else, or too much, beside those of every SELECT from one table.
const REFUSED: [&str; 8] =
    ["window", "collate", "grouping", "rollup", "cube", "variadic", "json_arrayagg", "json_objectagg"];

/// In the order in which they may come.
const CLAUSES: [&str; 8] = ["from", "where", "group", "having", "order", "limit", "offset", "fetch"];

/// All that may stand behind ORDER BY: constants and parameters.
const TAIL: [&str; 10] = ["limit", "offset", "all", "null", "row", "rows", "fetch", "first", "next", "only"];

#[derive(Debug)]
pub(super) struct Clauses {
    pub distinct: bool,
    pub list: Span,
    pub from: Span,
    /// Without the words that begin them.
    pub condition: Option<Span>,
    pub group: Option<Span>,
    pub having: Option<Span>,
    pub order: Option<Span>,
    /// LIMIT and what follows, or OFFSET, or FETCH.
    pub tail: Option<Span>,
}

impl Clauses {
    /// With the table that it names.
    pub fn of(tokens: &[Token<'_>]) -> Option<(Self, OnlyTable)> {
        let begins = Self::begins(tokens)?;
        let end_of =
            |at: usize| begins.iter().map(|(_, begin)| *begin).find(|begin| *begin > at).unwrap_or(tokens.len());
        let find = |word: &str| begins.iter().find(|(known, _)| *known == word).map(|(_, begin)| *begin);
        // What follows a clause's words, of which there are so many.
        let clause = |word: &str, words: usize| match find(word) {
            None => Some(None),
            Some(at) => {
                let span = at + words..end_of(at);
                let is_by = words == 1 || tokens.get(at + 1).is_some_and(|by| by.is_word("by"));
                (is_by && span.start < span.end).then_some(Some(span))
            }
        };
        let distinct = tokens.get(1)?.is_word("distinct");
        let start = 1 + usize::from(distinct || tokens[1].is_word("all"));
        let from = clause("from", 1)??;
        let (condition, group, having) = (clause("where", 1)?, clause("group", 2)?, clause("having", 1)?);
        let order = clause("order", 2)?;
        let tail = CLAUSES[5..].iter().filter_map(|word| find(word)).min().map(|at| at..tokens.len());
        let list = start..from.start - 1;
        let is_distinct_on = distinct && tokens.get(start).is_some_and(|on| on.is_word("on"));
        let has_modes = group.as_ref().is_some_and(|group| tokens[group.start].is_any_word(&["all", "distinct"]));
        let bounded = tail.clone().is_none_or(|tail| order.is_some() && is_bound(&tokens[tail]));
        if list.is_empty() || is_distinct_on || has_modes || !bounded {
            return None;
        }
        let table = only_table(&tokens[from.clone()])?;
        Some((Self { distinct, list, from, condition, group, having, order, tail }, table))
    }

    /// Where each clause begins.
    fn begins(tokens: &[Token<'_>]) -> Option<Vec<(&'static str, usize)>> {
        if !tokens.first()?.is_word("select") {
            return None;
        }
        let (mut depth, mut begins) = (0usize, Vec::<(&'static str, usize)>::new());
        for (at, token) in tokens.iter().enumerate().skip(1) {
            if token.is_punctuation("(") || token.is_punctuation("[") {
                depth += 1;
            } else if token.is_punctuation(")") || token.is_punctuation("]") {
                depth = depth.checked_sub(1)?;
            } else if token.is_any_word(&scan::REFUSED) || token.is_any_word(&REFUSED) {
                return None;
            }
            if depth > 0 {
                continue;
            }
            let before = &tokens[at - 1];
            let Some(number) = CLAUSES.iter().position(|word| token.is_word(word)) else { continue };
            if number == 0 && before.is_word("distinct") && at > 2 {
                // IS DISTINCT FROM
                continue;
            }
            // As a label it is no clause; who writes that is not followed.
            if before.is_punctuation(".") || before.is_word("as") {
                return None;
            }
            let is_later = |(known, _): &(&str, usize)| CLAUSES.iter().position(|word| word == known) < Some(number);
            // LIMIT and OFFSET may come either way.
            if number < 5 && !begins.last().is_none_or(is_later) {
                return None;
            }
            begins.push((CLAUSES[number], at));
        }
        (depth == 0).then_some(begins)
    }
}

fn is_bound(tail: &[Token<'_>]) -> bool {
    tail.iter().all(|token| matches!(token.kind, Kind::Integer | Kind::Parameter) || token.is_any_word(&TAIL))
}
