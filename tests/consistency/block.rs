//! What a client has done in a transaction block that is still open.

use super::cells::{Adds, Bounds, Cell, Span, add};

pub struct Block {
    /// Added in this block, and seen by nobody else yet.
    own: Adds,
    /// What had been added when each savepoint was set.
    savepoints: Vec<Adds>,
    /// REPEATABLE READ: everything is read as it was at the first statement.
    is_repeatable: bool,
    snapshot: Option<Bounds>,
    /// When that can have been taken, going by what was read.
    taken: Span,
}

impl Block {
    pub fn new(is_repeatable: bool) -> Self {
        Self { own: Adds::new(), savepoints: Vec::new(), is_repeatable, snapshot: None, taken: Span::ALWAYS }
    }

    pub fn is_repeatable(&self) -> bool {
        self.is_repeatable
    }

    /// What it commits.
    pub fn adds(&self) -> &Adds {
        &self.own
    }

    pub fn own(&self, cell: Cell) -> i64 {
        self.own.get(&cell).copied().unwrap_or_default()
    }

    pub fn wrote(&mut self, adds: &Adds) {
        add(&mut self.own, adds);
    }

    /// A statement was sent and answered between these bounds, which fixes the snapshot if it was the first.
    pub fn ran(&mut self, bounds: &Bounds) {
        if self.is_repeatable {
            self.snapshot.get_or_insert_with(|| bounds.clone());
        }
    }

    /// What a read may show in this block that outside may show these.
    pub fn bounds(&self, outside: Bounds) -> Bounds {
        self.snapshot.as_ref().unwrap_or(&outside).raised_by(&self.own)
    }

    /// A read has shown a cell's committed value: the snapshot will not show another.
    pub fn saw(&mut self, cell: Cell, committed: i64) {
        if let Some(snapshot) = &mut self.snapshot {
            snapshot.low.set(cell, committed);
            snapshot.high.set(cell, committed);
        }
    }

    /// A read's snapshot was taken in this span; if that is the whole block's, what is left of it.
    pub fn narrowed(&mut self, span: Span) -> Span {
        if !self.is_repeatable {
            return span;
        }
        self.taken = self.taken.and(span);
        self.taken
    }

    pub fn savepoint(&mut self) {
        self.savepoints.push(self.own.clone());
    }

    pub fn has_savepoint(&self) -> bool {
        !self.savepoints.is_empty()
    }

    pub fn rollback_to_savepoint(&mut self) {
        self.own = self.savepoints.last().cloned().unwrap_or_default();
    }

    pub fn release(&mut self) {
        self.savepoints.pop();
    }
}
