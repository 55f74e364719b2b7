//! Rows in the order of sort keys: each range is a lane of a sorter's.

use bytes::BytesMut;

use super::super::link::{LinkError, Run};
use super::super::sorter::{Merged, ParallelSorter};

/// Merged at a time.
const MERGED_BYTES: usize = 64 * 1024;

pub struct Merge {
    sorter: ParallelSorter,
    /// Merged, and to be taken.
    ready: BytesMut,
    open: usize,
    complete: bool,
}

impl Merge {
    pub fn new(sorter: ParallelSorter) -> Self {
        Self { sorter, ready: BytesMut::new(), open: 0, complete: false }
    }

    /// Nobody takes anything any more.
    pub fn clear(&mut self) {
        self.ready.clear();
        self.sorter.clear();
    }

    /// Adds rows, if there is room for them. True if the client may wait for them.
    pub fn put(&mut self, lane: usize, run: Run) -> Result<bool, Run> {
        if !self.sorter.has_room(lane) {
            return Err(run);
        }
        self.sorter.put(lane, run.bytes);
        Ok(self.ready.is_empty())
    }

    /// A lane has no more rows. True if the client may wait for that.
    pub fn complete(&mut self, lane: usize) -> bool {
        self.sorter.finish(lane);
        self.ready.is_empty()
    }

    /// Merges what is there, if the client has taken what was. True if that has made room.
    pub fn advance(&mut self) -> Result<bool, LinkError> {
        if !self.ready.is_empty() || self.complete {
            return Ok(false);
        }
        let before = self.sorter.bytes();
        self.ready.reserve(MERGED_BYTES);
        self.complete = self.sorter.merge(&mut self.ready, MERGED_BYTES)? == Merged::Complete;
        self.open = self.sorter.open();
        Ok(self.sorter.bytes() < before)
    }

    pub fn take(&mut self) -> Option<Run> {
        let bytes = std::mem::take(&mut self.ready);
        (!bytes.is_empty()).then_some(Run { bytes, open: self.open })
    }

    pub fn has_rows(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn is_complete(&self) -> bool {
        self.complete && self.ready.is_empty()
    }

    pub fn rows(&self) -> u64 {
        self.sorter.rows()
    }
}
