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

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Bits of a counter's word that count marks: a million writes in flight at once.
const MARK_BITS: u32 = 20;
const ONE_VERSION: u64 = 1 << MARK_BITS;
const MARKS: u64 = ONE_VERSION - 1;

/// A relation's `pg_class.oid`, unique within its database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableOid(pub u32);

/// The validity counter of one table, or of everything in a database.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// A counter's word without marks, as a reader saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen(u64);

impl Counter {
    /// The present version, or `None` while a write is in flight.
    pub fn observe(&self) -> Option<Seen> {
        let word = self.0.load(Ordering::SeqCst);
        (word & MARKS == 0).then_some(Seen(word))
    }

    /// Whether nothing has been marked or bumped since `seen`.
    pub fn holds(&self, seen: Seen) -> bool {
        self.0.load(Ordering::SeqCst) == seen.0
    }

    fn mark(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn bump_and_unmark(&self) {
        self.0.fetch_add(ONE_VERSION - 1, Ordering::SeqCst);
    }
}

/// All counters of one database.
#[derive(Debug, Default)]
pub struct Versions {
    /// Every entry of the database depends on it.
    everything: Arc<Counter>,
    /// Marked and bumped by every write whatever it touches; tells whether *nothing at all* happened in a span of time.
    activity: Arc<Counter>,
    tables: RwLock<HashMap<TableOid, Arc<Counter>>>,
}

/// What an entry was filled under.
#[derive(Debug, Clone)]
pub struct Dependencies(Box<[(Arc<Counter>, Seen)]>);

/// A span of time in which nothing was written, as far as it is still true.
#[derive(Debug, Clone, Copy)]
pub struct Quiet(Seen);

impl Versions {
    /// The counter of one table, made on first use.
    pub fn table(&self, oid: TableOid) -> Arc<Counter> {
        if let Some(counter) = self.tables.read().unwrap_or_else(PoisonError::into_inner).get(&oid) {
            return counter.clone();
        }
        self.tables.write().unwrap_or_else(PoisonError::into_inner).entry(oid).or_default().clone()
    }

    /// Observes everything that a read of `tables` depends on; `None` while a write to any of it is in flight.
    pub fn observe(&self, tables: &[Arc<Counter>]) -> Option<Dependencies> {
        let mut seen = Vec::with_capacity(tables.len() + 1);
        for counter in std::iter::once(&self.everything).chain(tables) {
            seen.push((counter.clone(), counter.observe()?));
        }
        Some(Dependencies(seen.into()))
    }

    /// Starts a span in which nothing is written; `None` if something is in flight now.
    pub fn quiet(&self) -> Option<Quiet> {
        self.activity.observe().map(Quiet)
    }

    /// Observes `tables` on behalf of a query that was sent when `quiet` began. `None` if anything was written since.
    pub fn observe_since(&self, quiet: Quiet, tables: &[Arc<Counter>]) -> Option<Dependencies> {
        // A write marks `activity` first and bumps it last: if it still holds after the tables were observed, no table
        // was marked at any moment since the span began.
        let dependencies = self.observe(tables)?;
        self.activity.holds(quiet.0).then_some(dependencies)
    }

    /// Marks what a write may write.
    pub fn mark(&self, writes: &WriteSet) -> Marks {
        let mut counters = vec![self.activity.clone()];
        match writes {
            WriteSet::Everything => counters.push(self.everything.clone()),
            WriteSet::Tables(tables) => counters.extend(tables.iter().cloned()),
        }
        for counter in &counters {
            counter.mark();
        }
        Marks { counters }
    }
}

impl Dependencies {
    pub fn hold(&self) -> bool {
        self.0.iter().all(|(counter, seen)| counter.holds(*seen))
    }

    /// Heap bytes of the list, for memory accounting.
    pub fn bytes(&self) -> usize {
        self.0.len() * size_of::<(Arc<Counter>, Seen)>()
    }
}

/// What a write may write.
#[derive(Debug, Clone)]
pub enum WriteSet {
    Everything,
    Tables(Vec<Arc<Counter>>),
}

impl WriteSet {
    pub fn nothing() -> Self {
        Self::Tables(Vec::new())
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
                theirs.iter().all(|counter| mine.iter().any(|known| Arc::ptr_eq(known, counter)))
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        match (&mut *self, other) {
            (Self::Everything, _) => {}
            (_, Self::Everything) => *self = Self::Everything,
            (Self::Tables(mine), Self::Tables(theirs)) => {
                for counter in theirs {
                    if !mine.iter().any(|known| Arc::ptr_eq(known, counter)) {
                        mine.push(counter.clone());
                    }
                }
            }
        }
    }
}

/// Marks that are set. They must be [settled](Marks::settle) once the write's outcome is known; until then they stay, even if
/// this value is lost, which costs hits and never exactness.
#[derive(Debug)]
#[must_use = "marks stay set until they are settled"]
pub struct Marks {
    counters: Vec<Arc<Counter>>,
}

impl Marks {
    /// The write is over (committed, rolled back, or its backend is gone): bumps and unmarks.
    pub fn settle(self) {
        // `activity` was marked first and goes last.
        for counter in self.counters.iter().rev() {
            counter.bump_and_unmark();
        }
    }
}

#[cfg(test)]
mod tests;
