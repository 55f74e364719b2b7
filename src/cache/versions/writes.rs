//! What a write may write, and the marks that say so.

use std::sync::Arc;

use super::counter::{Counter, CounterRef, Stripe};
use super::table::{Attribute, Table};

/// Stripes of one column that a set of writes names at most; beyond it counts as unknown.
const MOST_STRIPES: usize = 256;

/// What a write may write.
#[derive(Debug, Clone)]
pub enum WriteSet {
    Everything,
    /// Each table once.
    Tables(Vec<TableWrite>),
}

/// What of one table a write may write.
#[derive(Debug, Clone)]
pub struct TableWrite {
    pub table: Arc<Table>,
    /// The columns whose values, in the rows written, before and after, are known: they are among those on these stripes.
    /// Of any other column they may be anything.
    pub proven: Vec<(Attribute, Vec<Stripe>)>,
}

impl TableWrite {
    /// Any row, any values.
    pub fn any_row(table: Arc<Table>) -> Self {
        Self { table, proven: Vec::new() }
    }

    /// Whether everything that `other` marks is marked by this one too, or covered by something wider.
    fn covers(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.table, &other.table)
            && self.proven.iter().all(|(attribute, stripes)| {
                other.stripes(*attribute).is_some_and(|theirs| theirs.iter().all(|stripe| stripes.contains(stripe)))
            })
    }

    fn merge(&mut self, other: &Self) {
        self.proven.retain_mut(|(attribute, stripes)| {
            let Some(theirs) = other.stripes(*attribute) else { return false };
            for stripe in theirs {
                if !stripes.contains(stripe) {
                    stripes.push(*stripe);
                }
            }
            stripes.len() <= MOST_STRIPES
        });
    }

    fn stripes(&self, attribute: Attribute) -> Option<&[Stripe]> {
        self.proven.iter().find(|(of, _)| *of == attribute).map(|(_, stripes)| stripes.as_slice())
    }

    /// The first of two steps, see [`Table::is_followed`].
    pub(super) fn mark_table(&self, marked: &mut Vec<CounterRef>) {
        mark(CounterRef::Own(self.table.any.clone()), marked);
    }

    /// The second: looks for columns.
    pub(super) fn mark_columns(&self, marked: &mut Vec<CounterRef>) {
        self.table.for_each_column(|column| match self.stripes(column.attribute) {
            Some(stripes) => stripes.iter().for_each(|stripe| mark(self.table.striped(*stripe), marked)),
            None => mark(CounterRef::Own(column.unknown.clone()), marked),
        });
    }
}

fn mark(counter: CounterRef, marked: &mut Vec<CounterRef>) {
    counter.mark();
    marked.push(counter);
}

impl WriteSet {
    pub fn nothing() -> Self {
        Self::Tables(Vec::new())
    }

    /// Any row of these tables.
    pub fn any_row_of(tables: impl IntoIterator<Item = Arc<Table>>) -> Self {
        Self::Tables(tables.into_iter().map(TableWrite::any_row).collect())
    }

    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Tables(tables) if tables.is_empty())
    }

    /// Whether everything in `other` is in this one too.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Everything, _) => true,
            (Self::Tables(_), Self::Everything) => false,
            (Self::Tables(mine), Self::Tables(theirs)) => {
                theirs.iter().all(|write| mine.iter().any(|known| known.covers(write)))
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Everything, _) => {}
            (_, Self::Everything) => *self = Self::Everything,
            (Self::Tables(mine), Self::Tables(theirs)) => {
                for write in theirs {
                    match mine.iter_mut().find(|known| Arc::ptr_eq(&known.table, &write.table)) {
                        Some(known) => known.merge(write),
                        None => mine.push(write.clone()),
                    }
                }
            }
        }
    }

    /// Marks `activity` first of all, then what this says.
    pub(super) fn mark(&self, activity: &Arc<Counter>, everything: &Arc<Counter>) -> Marks {
        let mut counters = vec![CounterRef::Own(activity.clone())];
        activity.mark();
        match self {
            Self::Everything => {
                everything.mark();
                counters.push(CounterRef::Own(everything.clone()));
                return Marks { counters, everything: true };
            }
            Self::Tables(tables) => {
                for write in tables {
                    write.mark_table(&mut counters);
                    write.mark_columns(&mut counters);
                }
            }
        }
        Marks { counters, everything: false }
    }
}

/// Marks that are set. They must be [settled](Marks::settle) once the write's outcome is known; until then they stay, even if
/// this value is lost, which costs hits and never exactness.
#[derive(Debug)]
#[must_use = "marks stay set until they are settled"]
pub struct Marks {
    counters: Vec<CounterRef>,
    /// They are of `activity` and of everything.
    everything: bool,
}

impl Marks {
    /// The write is over (committed, rolled back, or its backend is gone): bumps and unmarks.
    pub fn settle(self) {
        // `activity` was marked first and goes last; `any` of a table outlives the marks of its columns.
        for counter in self.counters.iter().rev() {
            counter.bump_and_unmark();
        }
    }

    pub fn are_of_everything(&self) -> bool {
        self.everything
    }

    /// As [`settle`](Self::settle), where everything was marked and it is known by now that only `tables` were written: these
    /// are bumped while the mark still covers them, and what rests on others is valid again.
    pub fn settle_narrowed(self, tables: &[Arc<Table>]) {
        match self.counters.as_slice() {
            [activity, everything] if self.everything => {
                tables.iter().for_each(|table| table.bump());
                everything.unmark();
                activity.bump_and_unmark();
            }
            _ => self.settle(),
        }
    }
}
