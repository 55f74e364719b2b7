//! The transaction block as the proxy sees it, and the marks of what it wrote.
//!
//! **Invariant.** What a block has written is either collected here and not sent for commit yet, or marked. Marks are settled
//! only at a ReadyForQuery that says idle: until then the writes may still become visible.

use crate::cache::versions::{Marks, Versions, WriteSet};

/// The status byte of ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Idle,
    InBlock,
    Failed,
}

impl Status {
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'I' => Some(Self::Idle),
            b'T' => Some(Self::InBlock),
            b'E' => Some(Self::Failed),
            _ => None,
        }
    }

    pub fn byte(self) -> u8 {
        match self {
            Self::Idle => b'I',
            Self::InBlock => b'T',
            Self::Failed => b'E',
        }
    }
}

#[derive(Debug)]
pub struct Block {
    status: Status,
    /// READ COMMITTED, begun in plain words, and nothing in it since that would change what a read sees.
    plain: bool,
    /// Written, not marked: nothing that may commit it has been sent.
    collected: WriteSet,
    /// Marked by requests that are answered, in a block that goes on.
    held: Writes,
    /// The collected writes may have changed the catalogue.
    collected_doubts: bool,
    /// The epoch by whose catalogue the block's requests were judged so far.
    collected_epoch: Option<u64>,
}

/// The marks of one request, or of several.
#[derive(Debug, Default)]
#[must_use]
pub struct Writes {
    pub marks: Vec<Marks>,
    /// They may have changed the catalogue: a doubt is raised before they are settled.
    pub doubts_catalog: bool,
}

impl Writes {
    pub fn merge(&mut self, other: Self) {
        self.marks.extend(other.marks);
        self.doubts_catalog |= other.doubts_catalog;
    }
}

/// How long a request's writes stay collected before they are marked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timing {
    /// The request is inside a block for certain and does not end it.
    InsideBlock,
    /// It may commit.
    MayCommit,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            status: Status::Idle,
            plain: false,
            collected: WriteSet::nothing(),
            held: Writes::default(),
            collected_doubts: false,
            collected_epoch: None,
        }
    }
}

impl Block {
    pub fn status(&self) -> Status {
        self.status
    }

    /// Whether a read may be answered from the cache, or recorded, now.
    pub fn allows_cache(&self) -> bool {
        match self.status {
            Status::Idle => true,
            Status::InBlock => self.plain && self.collected.is_empty() && self.held.marks.is_empty(),
            Status::Failed => false,
        }
    }

    /// Whether the block may have written anything, all of which is still collected: it began after the last transaction's
    /// end, and nothing in it could have ended it.
    pub fn is_opaque(&self) -> bool {
        self.status == Status::InBlock && self.held.marks.is_empty() && matches!(self.collected, WriteSet::Everything)
    }

    /// Takes note of writes that are about to be sent. Returns what had to be marked for the request that carries them.
    ///
    /// `epoch` is that of the catalogue by which they were judged: what was collected in an earlier one is not trusted.
    pub fn write(
        &mut self,
        versions: &Versions,
        writes: &WriteSet,
        doubts_catalog: bool,
        timing: Timing,
        epoch: u64,
    ) -> Writes {
        if self.collected_epoch.is_some_and(|collected| collected != epoch) {
            self.collected = WriteSet::Everything;
            self.collected_doubts = true;
        }
        self.collected.merge(writes);
        self.collected_doubts |= doubts_catalog;
        if self.status != Status::Idle || !self.collected.is_empty() {
            self.collected_epoch = Some(epoch);
        }
        if timing == Timing::InsideBlock || self.collected.is_empty() {
            return Writes::default();
        }
        self.collected_epoch = None;
        let collected = std::mem::replace(&mut self.collected, WriteSet::nothing());
        Writes { marks: vec![versions.mark(&collected)], doubts_catalog: std::mem::take(&mut self.collected_doubts) }
    }

    /// The block no longer is what its BEGIN said.
    pub fn distrust(&mut self) {
        self.plain = false;
    }

    /// ReadyForQuery after requests that carried `writes`. `begun` says that they began a block, and whether a plain one.
    ///
    /// Returns the writes whose transactions are over.
    pub fn ready(&mut self, status: Status, begun: Option<bool>, writes: Writes) -> Writes {
        self.held.merge(writes);
        let before = std::mem::replace(&mut self.status, status);
        if status == Status::Idle {
            self.plain = false;
            self.collected = WriteSet::nothing();
            self.collected_doubts = false;
            self.collected_epoch = None;
            return std::mem::take(&mut self.held);
        }
        self.plain = match before {
            Status::Idle => begun.unwrap_or(false),
            Status::InBlock | Status::Failed => self.plain && begun.is_none(),
        };
        Writes::default()
    }

    /// Everything that is marked, when the connection is lost.
    pub fn abandon(self) -> Writes {
        self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::versions::TableOid;

    fn table(versions: &Versions) -> WriteSet {
        WriteSet::any_row_of([versions.table(TableOid(1))])
    }

    fn settle(writes: Writes) -> usize {
        writes.marks.into_iter().map(Marks::settle).count()
    }

    fn begin(block: &mut Block) {
        assert_eq!(settle(block.ready(Status::InBlock, Some(true), Writes::default())), 0);
    }

    #[test]
    fn writes_of_a_block_are_marked_when_it_may_commit_and_settled_when_it_is_over() {
        let versions = Versions::default();
        let mut block = Block::default();
        begin(&mut block);
        assert!(block.allows_cache());
        let inside = block.write(&versions, &table(&versions), false, Timing::InsideBlock, 1);
        assert!(inside.marks.is_empty());
        assert!(!block.allows_cache(), "it must read its own writes");
        assert!(versions.quiet().is_some(), "nobody else sees them yet");
        let commit = block.write(&versions, &WriteSet::nothing(), false, Timing::MayCommit, 1);
        assert!(versions.quiet().is_none());
        assert_eq!(settle(block.ready(Status::Idle, None, commit)), 1);
        assert!(versions.quiet().is_some() && block.allows_cache());
    }

    #[test]
    fn a_rolled_back_block_that_was_never_marked_disturbs_nobody() {
        let versions = Versions::default();
        let mut block = Block::default();
        begin(&mut block);
        let inside = block.write(&versions, &table(&versions), false, Timing::InsideBlock, 1);
        assert_eq!(settle(block.ready(Status::Idle, None, inside)), 0);
        assert!(block.allows_cache());
    }

    #[test]
    fn marks_stay_while_the_block_goes_on() {
        let versions = Versions::default();
        let mut block = Block::default();
        let write = block.write(&versions, &table(&versions), true, Timing::MayCommit, 1);
        // Pipelined behind a BEGIN: it was in a block after all.
        assert_eq!(settle(block.ready(Status::InBlock, Some(true), write)), 0);
        assert!(versions.quiet().is_none());
        let end = block.ready(Status::Idle, None, Writes::default());
        assert!(end.doubts_catalog);
        assert_eq!(settle(end), 1);
    }

    #[test]
    fn a_pipelined_write_is_not_settled_by_the_commit_before_it() {
        let versions = Versions::default();
        let mut block = Block::default();
        let first = block.write(&versions, &table(&versions), false, Timing::MayCommit, 1);
        let second = block.write(&versions, &table(&versions), true, Timing::MayCommit, 1);
        let over = block.ready(Status::Idle, None, first);
        assert!(!over.doubts_catalog);
        assert_eq!(settle(over), 1);
        assert!(versions.quiet().is_none(), "the second is still on its way");
        assert_eq!(settle(block.ready(Status::Idle, None, second)), 1);
    }

    #[test]
    fn writes_collected_under_an_older_catalogue_may_be_anything() {
        let versions = Versions::default();
        let everything = versions.observe([]).expect("nothing is in flight");
        let mut block = Block::default();
        begin(&mut block);
        let _ = block.write(&versions, &table(&versions), false, Timing::InsideBlock, 1);
        let commit = block.write(&versions, &WriteSet::nothing(), false, Timing::MayCommit, 2);
        assert!(!everything.hold() && commit.doubts_catalog);
        settle(commit);
    }

    #[test]
    fn only_a_plain_begin_from_idle_makes_a_block_that_may_use_the_cache() {
        for (begun, allowed) in [(None, false), (Some(false), false), (Some(true), true)] {
            let mut block = Block::default();
            let _ = block.ready(Status::InBlock, begun, Writes::default());
            assert_eq!(block.allows_cache(), allowed);
            let _ = block.ready(Status::Failed, None, Writes::default());
            assert!(!block.allows_cache());
        }
        let mut block = Block::default();
        begin(&mut block);
        block.distrust();
        assert!(!block.allows_cache());
    }
}
