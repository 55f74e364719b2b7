//! Which rows of its tables a statement concerns, as far as equalities with constants tell. Pure: from the tokens alone.
//!
//! **Invariant.** A pin `column = values` is reported only if every row of that table that can be in the result (or that is
//! written) has one of the values in that column, whatever else the statement says. What is not understood to the last token is
//! not reported, and nothing here decides which relation a name means: that is for the catalogue, which also has to see to it
//! that the statement names the relation only once.
//!
//! Why a conjunct of the outermost WHERE says so whatever the joins are: WHERE filters the joined rows, and `=`, `IN` and
//! `= ANY` are strict, so a row that an outer join has filled up with NULLs does not pass either. Whether such a row exists may
//! depend on other rows of the table, but it is filtered all the same. Aggregates, windows, DISTINCT and LIMIT come after
//! WHERE. Sub-selects see other rows only if they name the table again.

mod clauses;
mod conjuncts;
mod constant;

pub(super) use clauses::{OnlyTable, only_table};
pub use constant::Constant;

use super::facts::Facts;
use super::lexer::{Kind, Token};
use super::literal;

/// The equalities that hold for the rows of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Predicates {
    /// The tables that the outermost FROM names, or the target of a write.
    tables: Vec<TableReference>,
    /// There is nothing else in FROM: a column without a qualifier is that table's.
    alone: bool,
    pins: Vec<Pin>,
    pub change: Change,
}

/// What a statement does with the rows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Change {
    /// It reads them.
    #[default]
    None,
    Delete,
    /// Columns that are assigned to, each with its new value if that is constant.
    Update(Vec<(String, Option<Constant>)>),
    Insert(Insertion),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insertion {
    /// The columns that are listed; `None` for all, in their order.
    pub columns: Option<Vec<String>>,
    /// What is put into them; `None` for what is not constant.
    pub rows: Vec<Vec<Option<Constant>>>,
    pub conflict: Conflict,
}

/// What an INSERT does about a row that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// It fails or leaves it alone.
    Leaves,
    Updates {
        /// The columns that row has the proposed values in; empty if it is not told by plain columns.
        equal: Vec<String>,
        assigned: Vec<(String, Assigned)>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assigned {
    Constant(Constant),
    /// `EXCLUDED.` the column itself.
    Proposed,
    Computed,
}

/// The values that a column is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Values {
    /// `=` or `IN`.
    Listed(Vec<Constant>),
    /// `= ANY ($n)`: the elements of an array parameter.
    AnyOf(u16),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TableReference {
    /// Without its schema.
    name: String,
    /// What columns are qualified with; `None` if they have been renamed.
    qualifier: Option<String>,
    /// How often the statement has this name, but for qualifiers of columns.
    mentions: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pin {
    qualifier: Option<String>,
    column: String,
    values: Values,
}

impl Predicates {
    /// `None` if there is nothing to say.
    pub fn of(tokens: &[Token<'_>], facts: &Facts) -> Option<Self> {
        if facts.odd {
            return None;
        }
        let mut predicates = clauses::predicates(tokens)?;
        for table in &mut predicates.tables {
            table.mentions = mentions(tokens, &table.name);
        }
        Some(predicates)
    }

    /// The values that pin `column` of the relation called `table`, if the statement names that exactly once.
    pub fn pin(&self, table: &str, column: &str) -> Option<&Values> {
        let mut named = self.tables.iter().filter(|reference| reference.name == table);
        let (Some(reference), None) = (named.next(), named.next()) else { return None };
        let qualifier = reference.qualifier.as_deref().filter(|_| reference.mentions == 1)?;
        let is_its = |pin: &&Pin| {
            pin.column == column && pin.qualifier.as_deref().map_or(self.alone, |written| written == qualifier)
        };
        self.pins.iter().find(is_its).map(|pin| &pin.values)
    }

    /// Whether the statement names `table` exactly once, where a table is read or written.
    pub fn names_once(&self, table: &str) -> bool {
        matches!(self.tables.as_slice(), [only] if only.name == table && only.mentions == 1)
    }

    /// Bytes on the heap, about.
    pub(super) fn weight(&self) -> usize {
        let values = |values: &Values| match values {
            Values::Listed(list) => list.iter().map(Constant::weight).sum::<usize>(),
            Values::AnyOf(_) => 0,
        };
        let rows = match &self.change {
            Change::Insert(insertion) => insertion.rows.iter().flatten().flatten().map(Constant::weight).sum(),
            Change::Update(columns) => columns.len() * 96,
            _ => 0,
        };
        size_of::<Self>()
            + self.tables.len() * 128
            + self.pins.iter().map(|pin| 128 + values(&pin.values)).sum::<usize>()
            + rows
    }
}

/// How often a name stands where it may name a relation: a qualifier is followed by a dot.
fn mentions(tokens: &[Token<'_>], name: &str) -> usize {
    let is_qualifier = |at: usize| tokens.get(at + 1).is_some_and(|next| next.is_punctuation("."));
    (0..tokens.len())
        .filter(|&at| matches!(tokens[at].kind, Kind::Word | Kind::Quoted) && !is_qualifier(at))
        .filter(|&at| literal::folded(&tokens[at]).as_deref() == Some(name))
        .count()
}

#[cfg(test)]
mod tests;
