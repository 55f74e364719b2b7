//! One validity counter, and the array of those that rows share.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Bits of a counter's word that count marks: a million writes in flight at once.
const MARK_BITS: u32 = 20;
const ONE_VERSION: u64 = 1 << MARK_BITS;
const MARKS: u64 = ONE_VERSION - 1;

/// `version << 20 | marks`.
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

    pub(super) fn mark(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn bump_and_unmark(&self) {
        self.0.fetch_add(ONE_VERSION - 1, Ordering::SeqCst);
    }

    /// Takes a mark away as if it had never been there: what it stood for did not happen.
    pub(super) fn unmark(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    /// Something happened that was covered by a mark elsewhere.
    pub(super) fn bump(&self) {
        self.0.fetch_add(ONE_VERSION, Ordering::SeqCst);
    }
}

/// Counters that values of columns are spread over. Two values on one stripe share their invalidations, which costs hits
/// and never exactness; so the memory is bounded whatever is read and written.
#[derive(Debug)]
pub struct Stripes {
    count: usize,
    /// Made when a read first needs it.
    counters: OnceLock<Box<[Counter]>>,
    hasher: RandomState,
}

/// The number of a stripe.
pub type Stripe = u32;

impl Stripes {
    /// `count` counters of eight bytes, at least one and at most 2^32.
    pub fn new(count: usize) -> Self {
        Self { count: count.clamp(1, u32::MAX as usize), counters: OnceLock::new(), hasher: RandomState::new() }
    }

    /// Where a value of a column is counted; `value` is its canonical form.
    pub(super) fn of(&self, table: u32, attribute: i16, value: &[u8]) -> Stripe {
        let hash = self.hasher.hash_one((table, attribute, value));
        (hash % self.count as u64) as Stripe
    }

    fn counter(&self, stripe: Stripe) -> &Counter {
        let counters = self.counters.get_or_init(|| (0..self.count).map(|_| Counter::default()).collect());
        &counters[stripe as usize % counters.len()]
    }
}

/// A counter, wherever it is kept.
#[derive(Debug, Clone)]
pub enum CounterRef {
    Own(Arc<Counter>),
    Striped(Arc<Stripes>, Stripe),
}

impl std::ops::Deref for CounterRef {
    type Target = Counter;

    fn deref(&self) -> &Counter {
        match self {
            Self::Own(counter) => counter,
            Self::Striped(stripes, stripe) => stripes.counter(*stripe),
        }
    }
}
