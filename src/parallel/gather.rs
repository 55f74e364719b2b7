//! Partial groups of several workers, put together in the order of the table's blocks.
//!
//! **Invariant.** The rows of a range are added when those of all ranges before it have been: which of several equal values a
//! group shows is decided as if one connection had read the table from its beginning. Neither what waits nor what is put together
//! takes more than a share of the budget; who would need more ends the statement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::aggregate::{AggregateError, ParallelAggregator};
use super::grouping::Merging;
use super::link::LinkError;
use crate::telemetry::metrics::Unsplit;

/// What a row that waits takes besides its bytes.
const ROW_BYTES: usize = size_of::<Bytes>();

pub(super) struct Gather {
    state: Mutex<State>,
    /// Bytes of rows that wait.
    waiting: AtomicUsize,
    /// How many these may be.
    most: usize,
}

struct State {
    /// The range that is due.
    due: usize,
    early: BTreeMap<usize, Vec<Bytes>>,
    /// `None` when they have been taken.
    groups: Option<ParallelAggregator>,
}

/// The rows of a range, until it is complete.
pub(super) struct RangeRows<'a> {
    gather: &'a Gather,
    range: usize,
    rows: Vec<Bytes>,
    bytes: usize,
}

impl Gather {
    pub fn new(merging: &Merging, budget: usize) -> Self {
        // What is put together is once more written out as a request.
        let groups = merging.aggregator(budget / 4);
        let state = State { due: 0, early: BTreeMap::new(), groups: Some(groups) };
        Self { state: Mutex::new(state), waiting: AtomicUsize::new(0), most: budget / 4 }
    }

    pub fn rows(&self, range: usize) -> RangeRows<'_> {
        RangeRows { gather: self, range, rows: Vec::new(), bytes: 0 }
    }

    /// Everything, when all ranges are complete, of which there are so many.
    pub fn finish(&self, ranges: usize) -> Result<ParallelAggregator, LinkError> {
        let mut state = self.state();
        if state.due != ranges {
            return Err(LinkError::Protocol("a range is missing"));
        }
        state.groups.take().ok_or(LinkError::Protocol("the groups have been taken"))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RangeRows<'_> {
    pub fn keep(&mut self, row: Bytes) -> Result<(), LinkError> {
        let bytes = row.len() + ROW_BYTES;
        self.bytes += bytes;
        if self.gather.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes > self.gather.most {
            return Err(LinkError::Unfit(Unsplit::Groups));
        }
        self.rows.push(row);
        Ok(())
    }

    /// There are no more.
    pub fn complete(mut self) -> Result<(), LinkError> {
        let mut state = self.gather.state();
        state.early.insert(self.range, std::mem::take(&mut self.rows));
        let State { due, early, groups } = &mut *state;
        let Some(groups) = groups else { return Ok(()) };
        while let Some(rows) = early.remove(due) {
            *due += 1;
            let mut bytes = 0;
            for row in rows {
                bytes += row.len() + ROW_BYTES;
                groups.add(&row).map_err(|error| match error {
                    AggregateError::TooLarge => LinkError::Unfit(Unsplit::Groups),
                    AggregateError::Overflow | AggregateError::Malformed => LinkError::Unfit(Unsplit::Failed),
                })?;
            }
            self.gather.waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(())
    }
}
