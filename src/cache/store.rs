//! The byte-budgeted store and its eviction.
//!
//! **Invariant.** `bytes` and `entries` are the sums over all shards, the shards' own tables included, and after an insert
//! both are within their bounds. A lookup returns only entries that are valid and not expired at the time of the lookup.
//!
//! One sampled mechanism serves four strategies: of a few entries picked at random, and the one that came last, that with
//! the lowest score goes. Sampling needs no list to be kept in order on a hit, so a hit takes one short lock.

mod ghosts;
mod score;
mod shard;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::shard::Shard;
use super::entry::{Entry, Millis};
use super::key::CacheKey;
use super::ledger::ShapeId;
use crate::config::EvictionStrategy;

/// Shards at most; a small store has fewer, so that each holds enough entries to choose from.
const MOST_SHARDS: usize = 64;
const BYTES_A_SHARD: usize = 256 << 10;

pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    bytes: AtomicUsize,
    entries: AtomicUsize,
    max_bytes: usize,
    max_entries: usize,
    /// Times that something was flushed.
    flushes: AtomicU64,
    /// Milliseconds from its fill for which an entry is kept though it has expired.
    kept: AtomicU64,
    clock: Clock,
}

/// Where the store has the time from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// Real time since a moment.
    Since(Instant),
    /// Whatever somebody sets: tests and simulations.
    Manual(Arc<AtomicU64>),
}

/// Why an entry left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    Capacity,
    Expired,
    Invalid,
}

/// What a lookup found.
#[derive(Debug)]
pub enum Lookup {
    Hit(Arc<Entry>),
    /// There was an entry and it is gone now.
    Gone(Eviction),
    Absent,
}

impl Clock {
    pub fn now(&self) -> Millis {
        match self {
            Self::Since(moment) => moment.elapsed().as_millis() as Millis,
            Self::Manual(time) => time.load(Ordering::Relaxed),
        }
    }
}

impl Store {
    /// `max_bytes` and `max_entries` bound the whole store.
    pub fn new(max_bytes: usize, max_entries: usize, strategy: EvictionStrategy) -> Self {
        Self::with_clock(max_bytes, max_entries, strategy, Clock::Since(Instant::now()))
    }

    pub fn with_clock(max_bytes: usize, max_entries: usize, strategy: EvictionStrategy, clock: Clock) -> Self {
        let count = (max_bytes / BYTES_A_SHARD).clamp(1, MOST_SHARDS) as u64;
        let shards = (0..count).map(|seed| Mutex::new(Shard::new(strategy, seed))).collect();
        let (bytes, entries) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self {
            shards,
            bytes,
            entries,
            max_bytes,
            max_entries,
            flushes: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            clock,
        }
    }

    pub fn now(&self) -> Millis {
        self.clock.now()
    }

    /// For how long from their fill entries are kept for [`get_old`](Self::get_old), if the bounds allow it.
    pub fn keep_old(&self, age: Duration) {
        self.kept.store(age.as_millis() as u64, Ordering::Relaxed);
    }

    /// A valid entry for `key`, if there is one. An expired or invalid one is dropped.
    pub fn get(&self, key: &CacheKey) -> Lookup {
        let now = self.now();
        let mut shard = self.shard(key);
        let Some(place) = shard.look_up(key) else { return Lookup::Absent };
        let entry = shard.entry(place);
        let reason = if entry.expired(now) {
            if entry.valid() && entry.age(now) < Duration::from_millis(self.kept.load(Ordering::Relaxed)) {
                // Its successor takes its place.
                return Lookup::Absent;
            }
            Eviction::Expired
        } else if !entry.valid() {
            Eviction::Invalid
        } else {
            let entry = entry.clone();
            shard.touch(place);
            return Lookup::Hit(entry);
        };
        let gone = self.remove(&mut shard, place);
        drop(shard);
        drop(gone);
        Lookup::Gone(reason)
    }

    /// A valid entry for `key` that is younger than `oldest`, whether it has expired or not. None is dropped.
    pub fn get_old(&self, key: &CacheKey, oldest: Duration) -> Option<Arc<Entry>> {
        let now = self.now();
        let mut shard = self.shard(key);
        let place = shard.look_up(key)?;
        let entry = shard.entry(place);
        (entry.valid() && entry.age(now) < oldest).then(|| entry.clone())
    }

    /// Puts `entry` in, in place of an older one, and returns how many others had to go for it.
    pub fn insert(&self, key: CacheKey, entry: Entry) -> usize {
        let bytes = entry.bytes();
        if bytes > self.max_bytes || self.max_entries == 0 {
            return 0;
        }
        let now = self.now();
        let entry = Arc::new(entry);
        let mut shard = self.shard(&key);
        // Under the lock: whoever flushes counts first and comes to this shard then.
        if entry.origin().flushes != self.flushes() {
            return 0;
        }
        let replaced = shard.place(&key).map(|place| self.remove(&mut shard, place));
        // The first victim is of the newcomer's own shard, under the same lock: there the newcomer before this one is on
        // trial, so that what is read but once does not crowd out what is read often.
        let victim = if self.bytes() + bytes > self.max_bytes || self.entries() + 1 > self.max_entries {
            shard.worst(None, now).map(|place| self.remove(&mut shard, place))
        } else {
            None
        };
        self.accounted(&mut shard, |shard| shard.push(key, entry));
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.entries.fetch_add(1, Ordering::Relaxed);
        let start = shard.random(self.shards.len());
        drop(shard);
        // Freeing takes longer than all the rest: not under the lock.
        let evicted = usize::from(victim.is_some());
        drop((replaced, victim));
        evicted + self.shrink(&key, start, now)
    }

    /// Drops what is invalid already and would otherwise stay until it is looked up or evicted; returns how many.
    pub fn drop_invalid(&self) -> usize {
        self.drop_where(|entry| !entry.valid())
    }

    /// Drops the results of one shape of statement, and keeps none that was asked for before; returns how many it had. A result
    /// of another shape that is on its way is not kept either, which costs a miss.
    pub fn flush(&self, shape: ShapeId) -> usize {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.drop_where(|entry| entry.origin().shape == shape)
    }

    /// How often something was flushed, to be asked before a result is.
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::SeqCst)
    }

    fn drop_where(&self, is_to_go: impl Fn(&Entry) -> bool) -> usize {
        let mut dropped = 0;
        for shard in &self.shards {
            let mut shard = lock(shard);
            let mut gone = Vec::new();
            let mut place = 0;
            while let Some(entry) = shard.entry_at(place) {
                if is_to_go(entry) {
                    // The last one takes its place.
                    gone.push(self.remove(&mut shard, place));
                } else {
                    place += 1;
                }
            }
            drop(shard);
            dropped += gone.len();
        }
        dropped
    }

    /// Bytes that the entries and their tables take, as the allocator counts.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Evicts until the store is within its bounds; the entry that has just come in goes only when it is alone.
    fn shrink(&self, newcomer: &CacheKey, mut start: usize, now: Millis) -> usize {
        let mut evicted = 0;
        while self.bytes() > self.max_bytes || self.entries() > self.max_entries {
            // Shards fill evenly (the key is a hash), so one of them, with its neighbours while it is empty, is sample enough.
            let victim = (0..self.shards.len()).find_map(|offset| {
                let mut shard = lock(&self.shards[(start + offset) % self.shards.len()]);
                let spared = shard.place(newcomer);
                let place = shard.worst(spared, now)?;
                start = shard.random(self.shards.len());
                Some(self.remove(&mut shard, place))
            });
            if victim.is_none() {
                let mut shard = self.shard(newcomer);
                let alone = shard.place(newcomer).map(|place| self.remove(&mut shard, place));
                drop(shard);
                drop(alone);
                return evicted;
            }
            evicted += 1;
        }
        evicted
    }

    fn remove(&self, shard: &mut Shard, place: usize) -> Arc<Entry> {
        let entry = self.accounted(shard, |shard| shard.remove(place));
        self.bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
        entry
    }

    /// Takes note of what an act does to the size of the shard's tables.
    fn accounted<T>(&self, shard: &mut Shard, act: impl FnOnce(&mut Shard) -> T) -> T {
        let before = shard.table_bytes();
        let result = act(shard);
        let after = shard.table_bytes();
        if after > before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else if after < before {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        result
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard> {
        // The map inside the shard uses the first bytes.
        lock(&self.shards[key.0[31] as usize % self.shards.len()])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
