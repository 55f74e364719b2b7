//! What an entry is worth.

use super::ghosts::Trace;
use crate::cache::entry::Entry;
use crate::config::EvictionStrategy;

/// What the use counts for an entry of which nothing is known yet: many results are read once and never again.
const FIRST_USE: f32 = 0.5;
/// An entry that has been idle for so many half-lives divided by its frequency counts half: it is three to four times the
/// usual time between two of its uses, and perhaps there will be none.
const PATIENCE: f32 = 5.0;

/// How an entry has been used, in ticks of its shard's clock, and what a use of it saves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Use {
    last: u64,
    uses: u32,
    /// Uses, each of which counts half as much with every half-life that passes, as of the last use.
    frequency: f32,
    bytes: f32,
    /// Seconds of upstream time.
    cost: f32,
}

impl Use {
    pub fn new(entry: &Entry, now: u64) -> Self {
        let cost = entry.cost().as_secs_f32() + 1e-6;
        Self { last: now, uses: 1, frequency: FIRST_USE, bytes: entry.bytes() as f32, cost }
    }

    pub fn touch(&mut self, now: u64, half_life: f32) {
        self.uses = self.uses.saturating_add(1);
        self.frequency = 1.0 + decayed(self.frequency, now - self.last, half_life);
        self.last = now;
    }

    /// Takes up where an entry of the same key left.
    pub fn remember(&mut self, trace: Option<Trace>, half_life: f32) {
        if let Some(trace) = trace {
            self.frequency = 1.0 + decayed(trace.frequency, self.last.saturating_sub(trace.last), half_life);
        }
    }

    pub fn trace(&self) -> Trace {
        Trace { frequency: self.frequency, last: self.last }
    }
}

fn decayed(frequency: f32, idle: u64, half_life: f32) -> f32 {
    frequency * (-(idle as f32) / half_life).exp2()
}

/// How much an entry is worth keeping; the lowest goes first. `half_life` is in ticks.
pub(super) fn score(strategy: EvictionStrategy, usage: &Use, now: u64, half_life: f32) -> f64 {
    let idle = now - usage.last;
    let recency = -(idle as f64 + 1.0);
    match strategy {
        EvictionStrategy::Lru => recency,
        // Equal counts fall back to recency.
        EvictionStrategy::Lfu => f64::from(usage.uses) + recency / 1e15,
        EvictionStrategy::LruWithSize => recency * f64::from(usage.bytes),
        EvictionStrategy::TimeAwareLru => {
            let frequency = decayed(usage.frequency, idle, half_life);
            // Upstream time saved a byte if uses go on as before, which is the less likely the longer one is overdue.
            let overdue = usage.frequency * idle as f32 / (PATIENCE * half_life);
            let rate = frequency / (1.0 + overdue * overdue);
            f64::from(rate * usage.cost / usage.bytes)
        }
    }
}
