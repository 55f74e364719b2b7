//! A SELECT from one table whose rows are put into groups: what it is asked for ranges of the table's blocks, and how the answers
//! are put together again.
//!
//! **Invariant.** An [`Aggregation`] is an understanding of a text, and only the server knows whether it is right. So it can be
//! checked: [`canonical`](Aggregation::canonical) is the statement with everything that was understood written out. If the
//! server makes the same plan of it, each aggregate and each key stands where it was thought to stand, and means what it was
//! thought to mean. [`residue`](Aggregation::residue) is what is left without them; if the server takes it, there is no other
//! aggregate, no window function and no function of sets in it.

mod calls;
mod clauses;
mod rewrite;

use std::ops::Range;

use super::facts::Facts;
use super::lexer::{Kind, Token};
use super::literal;
use super::predicates::OnlyTable;
pub use calls::AggregateFunction;
use calls::Call;
use clauses::Clauses;
pub use rewrite::Sort;

/// The prefix of all names that are made up; a statement that has it itself is not followed.
const PREFIX: &str = "heliosproxy";

/// Where something stands among the tokens.
type Span = Range<usize>;

/// See the module.
#[derive(Debug)]
pub struct Aggregation<'t, 'a> {
    tokens: &'t [Token<'a>],
    clauses: Clauses,
    table: OnlyTable,
    items: Vec<Item>,
    /// The grouping expressions; for a plain DISTINCT the whole list.
    keys: Vec<Span>,
    /// The aggregates of the list, HAVING and ORDER BY, in their order, with the columns that they are made from.
    calls: Vec<(Call, Made)>,
    columns: Vec<Column>,
}

/// An expression of the list.
#[derive(Debug)]
struct Item {
    expression: Span,
    alias: Option<String>,
}

/// A column of the partial result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub role: Role,
    sql: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Rows with equal values are of one group, or of one part of it.
    Key,
    /// Put together from parts by this function.
    Part(AggregateFunction),
}

/// From which columns of the partial result an aggregate is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    /// The same function of the values of a key, each taken once.
    OfKey(usize),
    Of(usize),
    Average {
        sum: usize,
        count: usize,
    },
}

impl<'t, 'a> Aggregation<'t, 'a> {
    /// `None` if the text is not of this form.
    pub fn of(tokens: &'t [Token<'a>], facts: &Facts) -> Option<Self> {
        if facts.odd || facts.locks_rows || facts.names.iter().any(|name| name.name.starts_with(PREFIX)) {
            return None;
        }
        Self::of_known(tokens)
    }

    /// The same for tokens of which an analysis has said that they are of this form.
    pub fn of_known(tokens: &'t [Token<'a>]) -> Option<Self> {
        let (clauses, table) = Clauses::of(tokens)?;
        let items = list(tokens, clauses.list.clone())?;
        let mut this = Self { tokens, clauses, table, items, keys: vec![], calls: vec![], columns: vec![] };
        let calls = this.find_calls()?;
        this.keys = this.find_keys(&calls)?;
        if this.keys.is_empty() && calls.is_empty() {
            return None;
        }
        for key in this.keys.clone() {
            this.column(Role::Key, format!("( {} )", this.join(key)));
        }
        // Keys come first.
        for call in calls.iter().filter(|call| call.distinct) {
            this.column(Role::Key, format!("( {} )", this.join(call.arguments.clone())));
        }
        if this.columns.len() > this.keys.len() + 1 {
            // Parts by two such keys would be as many as the rows.
            return None;
        }
        for call in calls {
            let made = this.made(&call);
            this.calls.push((call, made));
        }
        Some(this)
    }

    /// The table's name as the statement has it, quoted.
    pub fn table(&self) -> &str {
        &self.table.name
    }

    /// The columns of the partial result, keys first.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    fn made(&mut self, call: &Call) -> Made {
        let arguments = self.join(call.arguments.clone());
        if call.distinct {
            return Made::OfKey(self.column(Role::Key, format!("( {arguments} )")));
        }
        let filter = call.filter.clone().map_or(String::new(), |filter| format!(" {}", self.join(filter)));
        let mut part = |function: AggregateFunction| {
            self.column(Role::Part(function), format!("{} ( {arguments} ){filter}", function.qualified()))
        };
        match call.function {
            AggregateFunction::Avg => {
                let sum = part(AggregateFunction::Sum);
                Made::Average { sum, count: part(AggregateFunction::Count) }
            }
            function => Made::Of(part(function)),
        }
    }

    /// The number of the column that is computed so; a new one if there is none yet.
    fn column(&mut self, role: Role, sql: String) -> usize {
        let column = Column { role, sql };
        if let Some(known) = self.columns.iter().position(|known| *known == column) {
            return known;
        }
        self.columns.push(column);
        self.columns.len() - 1
    }

    fn find_calls(&self) -> Option<Vec<Call>> {
        let mut calls = Vec::new();
        for span in [Some(&self.clauses.list), self.clauses.having.as_ref(), self.clauses.order.as_ref()] {
            calls.extend(Call::all(self.tokens, span.cloned().unwrap_or_default())?);
        }
        Some(calls)
    }

    /// The expressions by which rows are put into groups, each once.
    fn find_keys(&self, calls: &[Call]) -> Option<Vec<Span>> {
        let found: Vec<Span> = match &self.clauses.group {
            Some(group) => {
                let items = split(self.tokens, group.clone())?;
                items.into_iter().map(|item| self.group_key(item)).collect::<Option<_>>()?
            }
            None if self.clauses.distinct && calls.is_empty() => {
                self.items.iter().map(|item| item.expression.clone()).collect()
            }
            None => return Some(Vec::new()),
        };
        let mut keys: Vec<Span> = Vec::new();
        for key in found {
            if !Call::all(self.tokens, key.clone())?.is_empty() {
                return None;
            }
            if !keys.iter().any(|known| self.matches(known, key.start) == Some(key.end)) {
                keys.push(key);
            }
        }
        Some(keys)
    }

    /// What an item of GROUP BY stands for: a place in the list, a name that the list gives, or an expression.
    fn group_key(&self, item: Span) -> Option<Span> {
        let tokens = &self.tokens[item.clone()];
        let [only] = tokens else {
            // Sets of keys.
            let is_list = tokens[0].is_punctuation("(") && split(self.tokens, item.start + 1..item.end - 1)?.len() > 1;
            return (!is_list).then_some(item);
        };
        match only.kind {
            Kind::Integer => {
                let place: usize = std::str::from_utf8(only.text).ok()?.parse().ok()?;
                Some(self.items.get(place.checked_sub(1)?)?.expression.clone())
            }
            Kind::Word | Kind::Quoted => {
                let name = literal::identifier(only)?;
                let named = self.items.iter().find(|item| item.alias.as_ref() == Some(&name));
                // A column of that name would go before it; whether there is one is seen when the understanding is checked.
                Some(named.map_or(item, |item| item.expression.clone()))
            }
            _ => None,
        }
    }

    /// Where the expression ends that begins at `at`, if it is `key`, whether its columns are qualified or not.
    fn matches(&self, key: &Span, at: usize) -> Option<usize> {
        if at.checked_sub(1).is_some_and(|before| self.tokens[before].is_punctuation(".")) {
            return None;
        }
        let (mut here, mut there) = (at, key.start);
        while there < key.end {
            (here, there) = (self.past_qualifier(here), self.past_qualifier(there));
            if !is_same(self.tokens.get(here)?, self.tokens.get(there)?) {
                return None;
            }
            (here, there) = (here + 1, there + 1);
        }
        // A name is only the beginning of something else.
        let goes_on = self.tokens.get(here).is_some_and(|next| next.is_punctuation(".") || next.is_punctuation("("));
        (!goes_on).then_some(here)
    }

    fn past_qualifier(&self, at: usize) -> usize {
        let is_qualifier =
            |token: &Token<'_>| literal::identifier(token).is_some_and(|name| quoted(&name) == self.table.qualifier);
        match self.tokens.get(at..at + 2) {
            Some([name, dot]) if dot.is_punctuation(".") && is_qualifier(name) => at + 2,
            _ => at,
        }
    }

    /// The text of these tokens, without comments.
    fn join(&self, span: Span) -> String {
        join(self.tokens.get(span).unwrap_or_default())
    }
}

/// Tokens, with a space between them, which changes nothing.
fn join(tokens: &[Token<'_>]) -> String {
    let texts: Vec<_> = tokens.iter().map(|token| String::from_utf8_lossy(token.text)).collect();
    texts.join(" ")
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn is_same(one: &Token<'_>, other: &Token<'_>) -> bool {
    let is_name = |token: &Token<'_>| matches!(token.kind, Kind::Word | Kind::Quoted);
    if is_name(one) && is_name(other) {
        return literal::identifier(one) == literal::identifier(other);
    }
    one.kind == other.kind && one.text == other.text
}

/// Words with which an expression may end; all others are labels if an expression stands before them.
const NO_LABELS: [&str; 22] = [
    "null",
    "true",
    "false",
    "unknown",
    "end",
    "isnull",
    "notnull",
    "precision",
    "varying",
    "zone",
    "document",
    "normalized",
    "year",
    "month",
    "day",
    "hour",
    "minute",
    "second",
    "asc",
    "desc",
    "first",
    "last",
];

fn list(tokens: &[Token<'_>], span: Span) -> Option<Vec<Item>> {
    split(tokens, span)?.into_iter().map(|item| labelled(tokens, item)).collect()
}

/// An item of the list, without its label.
fn labelled(tokens: &[Token<'_>], item: Span) -> Option<Item> {
    let whole = &tokens[item.clone()];
    let is_star = |token: &Token<'_>| token.kind == Kind::Operator && token.text == b"*";
    let (last, before) = (whole.last()?, whole.len().checked_sub(2).map(|before| &whole[before]));
    if is_star(last) {
        return None;
    }
    let is_name = |token: &Token<'_>| matches!(token.kind, Kind::Word | Kind::Quoted);
    let label = match before {
        Some(before) if is_name(last) && before.is_word("as") => 2,
        Some(before) if is_name(last) && !last.is_any_word(&NO_LABELS) => {
            let ends = is_name(before)
                || before.is_punctuation(")")
                || before.is_punctuation("]")
                || before.kind == Kind::Parameter
                || before.kind.is_literal();
            usize::from(ends)
        }
        _ => 0,
    };
    let expression = item.start..item.end - label;
    if expression.is_empty() {
        return None;
    }
    Some(Item { expression, alias: (label > 0).then(|| literal::identifier(last)).flatten() })
}

/// Cuts at the commas that are in no parentheses. Nothing between two of them is no text of this form.
fn split(tokens: &[Token<'_>], span: Span) -> Option<Vec<Span>> {
    let (mut depth, mut start, mut pieces) = (0usize, span.start, Vec::new());
    for at in span.clone() {
        let token = tokens.get(at)?;
        if token.is_punctuation("(") || token.is_punctuation("[") {
            depth += 1;
        } else if token.is_punctuation(")") || token.is_punctuation("]") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && token.is_punctuation(",") {
            pieces.push(start..at);
            start = at + 1;
        }
    }
    pieces.push(start..span.end);
    (depth == 0 && pieces.iter().all(|piece| !piece.is_empty())).then_some(pieces)
}

#[cfg(test)]
mod tests;
