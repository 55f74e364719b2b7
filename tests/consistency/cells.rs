//! Counters that only grow, and what is known about each.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

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

/// The moments at which a snapshot can have been taken.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub from: Duration,
    pub to: Duration,
}

impl Span {
    pub const ALWAYS: Self = Self { from: Duration::ZERO, to: Duration::MAX };

    /// Both, which is nothing if `from` is behind `to` afterwards.
    pub fn and(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), to: self.to.min(other.to) }
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
    /// When the lowest possible value came to be this or more.
    low_since: BTreeMap<i64, Duration>,
    /// When the highest possible value came to be this or more, and has been since.
    high_since: BTreeMap<i64, Duration>,
}

impl Known {
    fn low(&self) -> i64 {
        self.told.max(self.seen)
    }

    /// Changes the counts at this moment.
    fn change(&mut self, now: Duration, change: impl FnOnce(&mut Self)) {
        let (low, high) = (self.low(), self.may);
        change(self);
        self.low_since.extend((low + 1..=self.low()).map(|value| (value, now)));
        self.high_since.extend((high + 1..=self.may).map(|value| (value, now)));
        self.high_since.split_off(&(self.may + 1));
    }
}

/// What is known about every cell. Whoever writes says so here before and after, whoever reads asks here before and after.
pub struct Register {
    start: Instant,
    cells: Mutex<Vec<Known>>,
}

impl Register {
    pub fn new() -> Self {
        let cells = vec![Known::default(); Family::ALL.len() * EACH as usize];
        Self { start: Instant::now(), cells: Mutex::new(cells) }
    }

    /// The time, for everything that is compared.
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The least that a read may show which is sent after this.
    pub fn low(&self) -> Levels {
        Levels(self.lock().iter().map(Known::low).collect())
    }

    /// The most that a read may show whose reply came before this.
    pub fn high(&self) -> Levels {
        Levels(self.lock().iter().map(|known| known.may).collect())
    }

    /// When a cell can have had this committed value.
    pub fn span(&self, cell: Cell, value: i64) -> Span {
        let known = self.lock();
        let known = &known[cell.slot()];
        Span {
            from: known.high_since.get(&value).copied().unwrap_or(Span::ALWAYS.from),
            to: known.low_since.get(&(value + 1)).copied().unwrap_or(Span::ALWAYS.to),
        }
    }

    /// What may commit these additions is about to be sent.
    pub fn sending(&self, adds: &Adds) {
        for (&cell, amount) in adds {
            self.change(cell, |known| known.may += amount);
        }
    }

    /// Of the additions `sent`, the client was told that just these are committed.
    pub fn told(&self, sent: &Adds, committed: &Adds) {
        for (&cell, amount) in sent {
            let committed = committed.get(&cell).copied().unwrap_or_default();
            self.change(cell, |known| {
                known.may += committed - amount;
                known.told += committed;
            });
        }
    }

    /// An answer has shown this.
    pub fn seen(&self, cell: Cell, value: i64) {
        // Between a commit and its message to the other processes, these see the old function: only being told counts.
        if cell.family != Family::Function {
            self.change(cell, |known| known.seen = known.seen.max(value));
        }
    }

    /// Nobody reads or writes, and this is the value.
    pub fn settle(&self, cell: Cell, value: i64) {
        self.lock()[cell.slot()] = Known { told: value, seen: value, may: value, ..Known::default() };
    }

    fn change(&self, cell: Cell, change: impl FnOnce(&mut Known)) {
        self.lock()[cell.slot()].change(self.now(), change);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Known>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_that_were_never_current_together_share_no_moment() {
        let register = Register::new();
        let [a, b] = [Family::Point.cell(0), Family::Point.cell(1)];
        for cell in [a, b] {
            let one = Adds::from([(cell, 1)]);
            register.sending(&one);
            register.told(&one, &one);
        }
        let share = |of_a, of_b| {
            let both = register.span(a, of_a).and(register.span(b, of_b));
            both.from <= both.to
        };
        assert!(share(0, 0) && share(1, 0) && share(1, 1));
        assert!(!share(0, 1), "a was told to be 1 before b's write was sent");
    }

    #[test]
    fn what_was_refused_was_never_current() {
        let register = Register::new();
        let cell = Family::Point.cell(0);
        let one = Adds::from([(cell, 1)]);
        register.sending(&one);
        register.told(&one, &Adds::new());
        let refused = register.now();
        register.sending(&one);
        assert!(register.span(cell, 1).from >= refused);
        assert_eq!(register.span(cell, 0).to, Duration::MAX);
    }
}
