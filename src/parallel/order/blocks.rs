//! Rows in the order of the table's blocks.
//!
//! **Invariant.** What is taken is the ranges one after the other, each whole and in its own order. Rows that are not yet due
//! never take more than the budget; those of the range that is due never more than [`DUE_BYTES`] beyond it, and for these there is
//! always room once the client has taken what there is.

use std::collections::VecDeque;

use super::super::link::Run;

/// Rows of the range that is due that may wait for the client.
pub const DUE_BYTES: usize = 512 * 1024;

pub struct Blocks {
    /// How many ranges there are, when that is known.
    pub count: Option<usize>,
    /// Rows of the ranges that are complete.
    pub rows: u64,
    /// The range that is due.
    due: usize,
    /// From the one that is due on.
    ranges: VecDeque<Range>,
    /// Bytes in those that are not due.
    early: usize,
    budget: usize,
}

#[derive(Default)]
struct Range {
    runs: VecDeque<Run>,
    bytes: usize,
    complete: bool,
}

impl Blocks {
    pub fn new(budget: usize) -> Self {
        Self { count: None, rows: 0, due: 0, ranges: VecDeque::new(), early: 0, budget }
    }

    /// Nobody takes anything any more.
    pub fn clear(&mut self) {
        self.ranges.clear();
        self.early = 0;
    }

    /// Adds rows, if there is room for them. True if the client may wait for them.
    pub fn put(&mut self, range: usize, run: Run) -> Result<bool, Run> {
        let bytes = run.bytes.len();
        let is_due = range == self.due;
        let has_room = if is_due {
            self.ranges.front().is_none_or(|due| due.bytes < DUE_BYTES)
        } else {
            self.early + bytes <= self.budget
        };
        if !has_room {
            return Err(run);
        }
        if !is_due {
            self.early += bytes;
        }
        let slot = self.range(range);
        slot.bytes += bytes;
        slot.runs.push_back(run);
        Ok(is_due)
    }

    /// A range has no more rows. True if the client may wait for that.
    pub fn complete(&mut self, range: usize, rows: u64) -> bool {
        self.rows += rows;
        self.range(range).complete = true;
        range == self.due
    }

    /// Goes on to the next range when the one that is due has been taken. True if there is room that there was not.
    pub fn pass_over(&mut self) -> bool {
        let before = self.due;
        while self.ranges.front().is_some_and(|due| due.complete && due.runs.is_empty()) {
            self.ranges.pop_front();
            self.due += 1;
            self.early -= self.ranges.front().map_or(0, |due| due.bytes);
        }
        self.due > before
    }

    pub fn take(&mut self) -> Option<Run> {
        let due = self.ranges.front_mut()?;
        let run = due.runs.pop_front()?;
        due.bytes -= run.bytes.len();
        Some(run)
    }

    pub fn has_rows(&self) -> bool {
        self.ranges.front().is_some_and(|due| !due.runs.is_empty())
    }

    pub fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.due >= count)
    }

    /// Whether rows that are not due fill half of the budget.
    pub fn is_ahead(&self) -> bool {
        self.early > self.budget / 2
    }

    fn range(&mut self, range: usize) -> &mut Range {
        // A range is taken only when it is complete, so this one is not before the one that is due.
        let place = range.saturating_sub(self.due);
        if self.ranges.len() <= place {
            self.ranges.resize_with(place + 1, Range::default);
        }
        &mut self.ranges[place]
    }
}
