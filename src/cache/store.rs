//! The byte-budgeted store and its eviction.
//!
//! **Invariant.** `bytes` and `entries` are the sums over all shards, and after an insert both are within their bounds. A
//! lookup returns only entries that are valid and not expired at the time of the lookup.
//!
//! One sampled mechanism serves four strategies: of a few entries picked at random the one with the lowest score goes.
//! Sampling needs no list to be kept in order on a hit, so a hit writes two relaxed atomics and takes one short lock.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::entry::{Entry, Millis};
use super::key::CacheKey;
use crate::config::EvictionStrategy;

const SHARDS: usize = 64;
/// Entries compared for one eviction; Redis found 5 to 10 close to the exact policy.
const SAMPLE: usize = 8;

pub struct Store {
    shards: Box<[Mutex<Shard>]>,
    bytes: AtomicUsize,
    entries: AtomicUsize,
    max_bytes: usize,
    max_entries: usize,
    strategy: EvictionStrategy,
    born: Instant,
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

#[derive(Default)]
struct Shard {
    places: HashMap<CacheKey, usize, BuildHasherDefault<KeyPrefix>>,
    slots: Vec<(CacheKey, Arc<Entry>)>,
}

/// A cache key is uniformly distributed already; its first bytes are hash enough.
#[derive(Default)]
struct KeyPrefix(u64);

impl Hasher for KeyPrefix {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(prefix) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*prefix);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Store {
    /// `max_bytes` and `max_entries` bound the whole store.
    pub fn new(max_bytes: usize, max_entries: usize, strategy: EvictionStrategy) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        let (bytes, entries) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { shards, bytes, entries, max_bytes, max_entries, strategy, born: Instant::now() }
    }

    pub fn now(&self) -> Millis {
        self.born.elapsed().as_millis() as Millis
    }

    /// A valid entry for `key`, if there is one. An expired or invalid one is dropped.
    pub fn get(&self, key: &CacheKey) -> Lookup {
        let mut shard = self.shard(key);
        let Some(&place) = shard.places.get(key) else { return Lookup::Absent };
        let entry = shard.slots[place].1.clone();
        let now = self.now();
        let reason = if entry.expired(now) {
            Eviction::Expired
        } else if !entry.valid() {
            Eviction::Invalid
        } else {
            drop(shard);
            entry.touch(now);
            return Lookup::Hit(entry);
        };
        self.remove(&mut shard, place);
        Lookup::Gone(reason)
    }

    /// Puts `entry` in, in place of an older one, and returns how many others had to go for it.
    pub fn insert(&self, key: CacheKey, entry: Entry) -> usize {
        let bytes = entry.bytes();
        if bytes > self.max_bytes || self.max_entries == 0 {
            return 0;
        }
        {
            let mut shard = self.shard(&key);
            if let Some(&place) = shard.places.get(&key) {
                self.remove(&mut shard, place);
            }
            let place = shard.slots.len();
            shard.slots.push((key, Arc::new(entry)));
            shard.places.insert(key, place);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.entries.fetch_add(1, Ordering::Relaxed);
        }
        self.shrink(&key)
    }

    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    /// Evicts until the store is within its bounds; never the entry that has just come in, unless it is alone.
    fn shrink(&self, newcomer: &CacheKey) -> usize {
        let mut evicted = 0;
        while self.bytes() > self.max_bytes || self.entries() > self.max_entries {
            // Shards fill evenly (the key is a hash), so one of them, with its neighbours while it is empty, is sample enough.
            let start = rand::random_range(0..SHARDS);
            let gone = (0..SHARDS).any(|offset| {
                let mut shard = lock(&self.shards[(start + offset) % SHARDS]);
                let Some(place) = self.worst(&shard, newcomer) else { return false };
                self.remove(&mut shard, place);
                true
            });
            if !gone {
                return evicted;
            }
            evicted += 1;
        }
        evicted
    }

    fn worst(&self, shard: &Shard, newcomer: &CacheKey) -> Option<usize> {
        if shard.slots.is_empty() {
            return None;
        }
        let now = self.now();
        let sample = (0..SAMPLE).map(|_| rand::random_range(0..shard.slots.len()));
        sample
            .filter(|&place| shard.slots[place].0 != *newcomer)
            .map(|place| (place, score(self.strategy, &shard.slots[place].1, now)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(place, _)| place)
    }

    fn remove(&self, shard: &mut Shard, place: usize) {
        let (key, entry) = shard.slots.swap_remove(place);
        shard.places.remove(&key);
        if let Some((moved, _)) = shard.slots.get(place) {
            shard.places.insert(*moved, place);
        }
        self.bytes.fetch_sub(entry.bytes(), Ordering::Relaxed);
        self.entries.fetch_sub(1, Ordering::Relaxed);
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, Shard> {
        // The map inside the shard uses the first bytes.
        lock(&self.shards[key.0[31] as usize % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How much an entry is worth keeping; the lowest goes first. An entry past its use goes before any other.
fn score(strategy: EvictionStrategy, entry: &Entry, now: Millis) -> f64 {
    if entry.expired(now) || !entry.valid() {
        return f64::NEG_INFINITY;
    }
    let idle = (now.saturating_sub(entry.last_used()) + 1) as f64;
    let size = entry.bytes() as f64;
    let uses = f64::from(entry.uses());
    match strategy {
        EvictionStrategy::Lru => -idle,
        // Equal counts fall back to recency.
        EvictionStrategy::Lfu => uses - idle / 1e15,
        EvictionStrategy::LruWithSize => -idle * size,
        // Upstream time saved per byte and per time since the last use: GreedyDual-Size-Frequency (Cherkasova, 1998) with
        // the clock replaced by idle time.
        EvictionStrategy::TimeAwareLru => uses * (entry.cost().as_secs_f64() + 1e-6) / (size * idle),
    }
}

#[cfg(test)]
mod tests;
