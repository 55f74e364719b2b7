//! Counters that only grow, and what is known about each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Cells of each family, numbered from 0.
pub const EACH: i64 = 6;

/// Tables that show the same cells. `schema.rs` says how each shows them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Family {
    Point,
    Pair,
    Account,
    Move,
    Half,
    Stock,
    Log,
    Trigger,
    Rule,
    Cascade,
    Toggle,
    Part,
    Inherit,
    Staged,
    Function,
}

impl Family {
    pub const ALL: [Self; 15] = [
        Self::Point,
        Self::Pair,
        Self::Account,
        Self::Move,
        Self::Half,
        Self::Stock,
        Self::Log,
        Self::Trigger,
        Self::Rule,
        Self::Cascade,
        Self::Toggle,
        Self::Part,
        Self::Inherit,
        Self::Staged,
        Self::Function,
    ];

    pub fn cell(self, id: i64) -> Cell {
        Cell { family: self, id }
    }

    pub fn cells(self) -> impl Iterator<Item = Cell> {
        (0..EACH).map(move |id| self.cell(id))
    }

    /// Whether a transaction's snapshot covers it. TRUNCATE, REFRESH and changed definitions show through older snapshots.
    pub fn keeps_to_snapshots(self) -> bool {
        !matches!(self, Self::Staged | Self::Function)
    }

    /// Whether a transaction block sees what others commit meanwhile. PostgreSQL locks no function, so a block that has its locks
    /// already may go on with an old definition.
    pub fn is_current_in_blocks(self) -> bool {
        self != Self::Function
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    pub family: Family,
    pub id: i64,
}

impl Cell {
    fn slot(self) -> usize {
        self.family as usize * EACH as usize + self.id as usize
    }
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.family, self.id)
    }
}

/// What a write adds to which cells.
pub type Adds = BTreeMap<Cell, i64>;

/// Adds `more` to `adds`.
pub fn add(adds: &mut Adds, more: &Adds) {
    for (&cell, amount) in more {
        *adds.entry(cell).or_default() += amount;
    }
}

/// One number for each cell.
#[derive(Clone)]
pub struct Levels(Vec<i64>);

impl Levels {
    pub fn of(&self, cell: Cell) -> i64 {
        self.0[cell.slot()]
    }

    pub fn set(&mut self, cell: Cell, value: i64) {
        self.0[cell.slot()] = value;
    }
}

/// What a read may show: no cell below `low`, none above `high`.
#[derive(Clone)]
pub struct Bounds {
    pub low: Levels,
    pub high: Levels,
}

impl Bounds {
    /// As a transaction sees them that has added this much itself.
    pub fn raised_by(&self, own: &Adds) -> Self {
        let mut raised = self.clone();
        for (&cell, amount) in own {
            raised.low.set(cell, self.low.of(cell) + amount);
            raised.high.set(cell, self.high.of(cell) + amount);
        }
        raised
    }
}

#[derive(Clone, Default)]
struct Known {
    /// Added by writes whose client was told that they are committed.
    told: i64,
    /// The highest value, less the reader's own additions, in any answer.
    seen: i64,
    /// Added by writes that may be committed: the told ones, those on their way, and those whose outcome nobody knows.
    may: i64,
}

/// What is known about every cell. Whoever writes says so here before and after, whoever reads asks here before and after.
pub struct Register(Mutex<Vec<Known>>);

impl Register {
    pub fn new() -> Self {
        Self(Mutex::new(vec![Known::default(); Family::ALL.len() * EACH as usize]))
    }

    /// The least that a read may show which is sent after this.
    pub fn low(&self) -> Levels {
        Levels(self.lock().iter().map(|known| known.told.max(known.seen)).collect())
    }

    /// The most that a read may show whose reply came before this.
    pub fn high(&self) -> Levels {
        Levels(self.lock().iter().map(|known| known.may).collect())
    }

    /// What may commit these additions is about to be sent.
    pub fn sending(&self, adds: &Adds) {
        let mut known = self.lock();
        for (cell, amount) in adds {
            known[cell.slot()].may += amount;
        }
    }

    /// Of the additions `sent`, the client was told that just these are committed.
    pub fn told(&self, sent: &Adds, committed: &Adds) {
        let mut known = self.lock();
        for (cell, amount) in sent {
            known[cell.slot()].may -= amount;
        }
        for (cell, amount) in committed {
            known[cell.slot()].may += amount;
            known[cell.slot()].told += amount;
        }
    }

    /// An answer has shown this.
    pub fn seen(&self, cell: Cell, value: i64) {
        // Between a commit and its message to the other processes, these see the old function: only being told counts.
        if cell.family != Family::Function {
            let mut known = self.lock();
            let known = &mut known[cell.slot()];
            known.seen = known.seen.max(value);
        }
    }

    /// Nobody writes, and this is the value.
    pub fn settle(&self, cell: Cell, value: i64) {
        self.lock()[cell.slot()] = Known { told: value, seen: value, may: value };
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
