//! Validity: counters that writes bump and entries remember.
//!
//! **Invariant.** A [`Counter`] is one atomic word, `version << 20 | marks`. A write adds a mark *before* it is sent
//! upstream and, once its outcome is known, bumps the version and takes the mark away in one atomic step. A reader observes
//! the word *before* its query is sent; the observation counts only if there is no mark. The result is valid while the word
//! is exactly the one observed.
//!
//! Why that is exact: let a write W become visible to others at time `c`. W's mark was set before `c` and goes, together
//! with the bump, after `c`. An observation before the mark differs from every word after it (marked, or bumped), so a result
//! read before `c` is never served after the mark was set. An observation while marked does not exist. An observation
//! after the bump belongs to a query that is sent after `c` and therefore sees W. One word leaves no gap between the two
//! halves of the check, so no order of loads has to be argued about.
//!
//! **Which counters.** A read of a table depends on the table's `any`, which every write of it bumps; or, if only rows with
//! certain values in one column can be in its result, on the stripes of these values and the column's `unknown`. A
//! write bumps the stripes of the values that it takes out of and puts into the column if it can prove them, else `unknown`.
//! So whatever changes a row that the read sees, or will see, bumps something that the read depends on.

mod counter;
mod hold;
mod table;
mod writes;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use smallvec::SmallVec;

pub use counter::{Counter, CounterRef, Seen, Stripe, Stripes};
pub use hold::Hold;
pub use table::{Attribute, Column, Table};
pub use writes::{Marks, TableWrite, WriteSet};

/// Stripes where nobody says otherwise.
pub const DEFAULT_STRIPES: usize = 1 << 20;

/// A relation's `pg_class.oid`, unique within its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableOid(pub u32);

/// All counters of one database.
#[derive(Debug)]
pub struct Versions {
    /// Every entry of the database depends on it.
    everything: Arc<Counter>,
    /// Marked and bumped by every write whatever it touches; tells whether *nothing at all* happened in a span of time.
    activity: Arc<Counter>,
    tables: RwLock<HashMap<TableOid, Arc<Table>>>,
    stripes: Arc<Stripes>,
}

/// What a read sees of one table.
#[derive(Debug, Clone)]
pub struct TableRead<'a> {
    pub table: &'a Table,
    /// Only rows whose value in this column is on one of these stripes. `None` for any row.
    pub pin: Option<(&'a Column, Vec<Stripe>)>,
}

/// What an entry was filled under. Those of a read by key of one table lie in the entry itself, so that a hit fetches less.
#[derive(Debug, Clone)]
pub struct Dependencies(SmallVec<[(CounterRef, Seen); 3]>);

/// A span of time in which nothing was written, as far as it is still true.
#[derive(Debug, Clone, Copy)]
pub struct Quiet(Seen);

impl Versions {
    /// `stripes` may be shared with other databases.
    pub fn new(stripes: Arc<Stripes>) -> Self {
        Self { everything: Arc::default(), activity: Arc::default(), tables: RwLock::default(), stripes }
    }

    /// The counters of one table, made on first use.
    pub fn table(&self, oid: TableOid) -> Arc<Table> {
        if let Some(table) = self.tables.read().unwrap_or_else(PoisonError::into_inner).get(&oid) {
            return table.clone();
        }
        let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
        tables.entry(oid).or_insert_with(|| Arc::new(Table::new(oid, self.stripes.clone()))).clone()
    }

    /// The counters of a table, if anything ever asked for them.
    pub fn known_table(&self, oid: TableOid) -> Option<Arc<Table>> {
        self.tables.read().unwrap_or_else(PoisonError::into_inner).get(&oid).cloned()
    }

    /// Observes everything that a read depends on; `None` while a write to any of it is in flight.
    pub fn observe<'a>(&self, reads: impl IntoIterator<Item = TableRead<'a>>) -> Option<Dependencies> {
        let mut seen = SmallVec::new();
        let mut observe = |counter: CounterRef| counter.observe().map(|word| seen.push((counter, word)));
        observe(CounterRef::Own(self.everything.clone()))?;
        for TableRead { table, pin } in reads {
            match pin {
                None => observe(CounterRef::Own(table.any.clone()))?,
                Some((column, stripes)) => {
                    if !table.is_followed(column) {
                        return None;
                    }
                    observe(CounterRef::Own(column.unknown.clone()))?;
                    stripes.into_iter().try_for_each(|stripe| observe(table.striped(stripe)))?;
                }
            }
        }
        // What it takes is accounted for.
        seen.shrink_to_fit();
        Some(Dependencies(seen))
    }

    /// Starts a span in which nothing is written; `None` if something is in flight now.
    pub fn quiet(&self) -> Option<Quiet> {
        self.activity.observe().map(Quiet)
    }

    /// Observes on behalf of a query that was sent when `quiet` began. `None` if anything was written since.
    pub fn observe_since<'a>(
        &self,
        quiet: Quiet,
        reads: impl IntoIterator<Item = TableRead<'a>>,
    ) -> Option<Dependencies> {
        // A write marks `activity` first and bumps it last: if it still holds after the tables were observed, no table
        // was marked at any moment since the span began.
        let dependencies = self.observe(reads)?;
        self.activity.holds(quiet.0).then_some(dependencies)
    }

    /// Marks what a write may write.
    pub fn mark(&self, writes: &WriteSet) -> Marks {
        writes.mark(&self.activity, &self.everything)
    }
}

impl Default for Versions {
    fn default() -> Self {
        Self::new(Arc::new(Stripes::new(DEFAULT_STRIPES)))
    }
}

impl<'a> TableRead<'a> {
    pub fn any_row(table: &'a Table) -> Self {
        Self { table, pin: None }
    }
}

impl Dependencies {
    pub fn hold(&self) -> bool {
        self.0.iter().all(|(counter, seen)| counter.holds(*seen))
    }

    /// Bytes that the list takes of the heap beyond itself, for memory accounting.
    pub fn bytes(&self) -> usize {
        if self.0.spilled() { size_of_val(&*self.0) } else { 0 }
    }
}

#[cfg(test)]
mod tests;
