//! One shard of the store: its entries, what is known of their use, and what was known of those that left.
//!
//! **Invariant.** `places` maps each key in `slots` to its place there and holds nothing else; the youngest entry that has not
//! been moved by a removal is in the last slot.

use std::sync::Arc;

use super::ghosts::Ghosts;
use super::score::{Use, score};
use crate::cache::entry::{Entry, Millis, allocated};
use crate::cache::key::{CacheKey, KeyMap};
use crate::config::EvictionStrategy;

/// Entries compared for one eviction, besides the youngest.
const SAMPLE: usize = 16;
/// How many of them are asked at most whether they are still valid, which fetches what they depend on into the processor's
/// cache: one fewer each time that all were, down to one.
const MOST_ASKED: usize = 4;
/// Tables of fewer places are not worth shrinking.
const SMALL: usize = 64;

/// Aligned so that two threads at neighbouring shards do not share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Shard {
    places: KeyMap<u32>,
    slots: Vec<Slot>,
    ghosts: Ghosts,
    strategy: EvictionStrategy,
    /// Counts the lookups: the clock of recency and frequency, which so mean the same at every load.
    clock: u64,
    random: Random,
    /// How many are asked the next time.
    asked: usize,
}

/// What a comparison of entries needs stands here, so that the entry itself need not be fetched.
#[derive(Debug)]
pub(super) struct Slot {
    pub key: CacheKey,
    pub entry: Arc<Entry>,
    expires: Millis,
    usage: Use,
}

#[cfg(test)]
impl Slot {
    pub fn frequency(&self) -> f32 {
        self.usage.trace().frequency
    }
}

impl Shard {
    pub fn new(strategy: EvictionStrategy, seed: u64) -> Self {
        let (places, slots, ghosts) = (KeyMap::default(), Vec::new(), Ghosts::default());
        Self { places, slots, ghosts, strategy, clock: 0, random: Random(seed), asked: MOST_ASKED }
    }

    /// Where `key` is. Ticks the clock.
    pub fn look_up(&mut self, key: &CacheKey) -> Option<usize> {
        self.clock += 1;
        self.place(key)
    }

    pub fn place(&self, key: &CacheKey) -> Option<usize> {
        self.places.get(key).map(|place| *place as usize)
    }

    pub fn entry(&self, place: usize) -> &Arc<Entry> {
        &self.slots[place].entry
    }

    pub fn entry_at(&self, place: usize) -> Option<&Arc<Entry>> {
        self.slots.get(place).map(|slot| &slot.entry)
    }

    /// Notes a hit.
    pub fn touch(&mut self, place: usize) {
        let life = self.half_life();
        self.slots[place].usage.touch(self.clock, life);
    }

    /// Puts a key in that is not there.
    pub fn push(&mut self, key: CacheKey, entry: Arc<Entry>) {
        let mut usage = Use::new(&entry, self.clock);
        if self.strategy == EvictionStrategy::TimeAwareLru {
            usage.remember(self.ghosts.recall(&key), self.half_life());
        }
        self.places.insert(key, self.slots.len() as u32);
        self.slots.push(Slot { key, expires: entry.expires(), entry, usage });
        if self.strategy == EvictionStrategy::TimeAwareLru {
            self.ghosts.keep_pace(self.slots.capacity());
        }
    }

    pub fn remove(&mut self, place: usize) -> Arc<Entry> {
        let slot = self.slots.swap_remove(place);
        self.places.remove(&slot.key);
        if let Some(moved) = self.slots.get(place) {
            self.places.insert(moved.key, place as u32);
        }
        if self.strategy == EvictionStrategy::TimeAwareLru {
            self.ghosts.put(&slot.key, slot.usage.trace());
        }
        if self.slots.capacity() > SMALL && self.slots.len() < self.slots.capacity() / 4 {
            self.slots.shrink_to(self.slots.len() * 2);
            self.places.shrink_to(self.slots.len() * 2);
            self.ghosts.keep_pace(self.slots.capacity());
        }
        slot.entry
    }

    /// The place of the entry that is worth least, of a few and the youngest; never `spared`.
    pub fn worst(&mut self, spared: Option<usize>, now: Millis) -> Option<usize> {
        let last = self.slots.len().checked_sub(1)?;
        let mut sample = [last; SAMPLE + 1];
        for place in &mut sample[1..] {
            *place = self.random.below(self.slots.len());
        }
        // All are looked at before any is weighed: what is fetched from memory for one does not wait for the others.
        let seen = sample.map(|place| (self.slots[place].expires, self.slots[place].usage));
        let half_life = self.half_life();
        // An entry past its use goes before any other.
        let scores = seen.map(|(expires, usage)| match now >= expires {
            true => f64::NEG_INFINITY,
            false => score(self.strategy, &usage, self.clock, half_life),
        });
        let candidates = || sample.iter().copied().zip(scores).filter(|(place, _)| Some(*place) != spared);
        let invalid = candidates().take(self.asked).find(|(place, _)| !self.slots[*place].entry.valid());
        self.asked = if invalid.is_some() { MOST_ASKED } else { (self.asked - 1).max(1) };
        let worst = invalid.or_else(|| candidates().min_by(|(_, one), (_, other)| one.total_cmp(other)));
        worst.map(|(place, _)| place)
    }

    /// A number that decides nothing but what is sampled.
    pub fn random(&mut self, below: usize) -> usize {
        self.random.below(below)
    }

    /// What the tables take, as the allocator sees it.
    pub fn table_bytes(&self) -> usize {
        // The standard map keeps a power of two of buckets, an eighth of them free, and a byte for each and 16 more.
        let buckets = match self.places.capacity() {
            0 => 0,
            capacity @ 1..8 => (capacity + 1).next_power_of_two(),
            capacity => (capacity * 8 / 7).next_power_of_two(),
        };
        let map = if buckets == 0 { 0 } else { allocated(buckets * (size_of::<(CacheKey, u32)>() + 1) + 16) };
        map + allocated(self.slots.capacity() * size_of::<Slot>()) + self.ghosts.bytes()
    }

    /// Lookups after which a use counts half: ten for each entry. Fewer forget what is read now and then, more keep what was
    /// read until yesterday (measured, see docs/eviction.md).
    fn half_life(&self) -> f32 {
        (self.slots.len().max(8) * 10) as f32
    }

    #[cfg(test)]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }
}

/// SplitMix64 (Steele, Lea, Flood, 2014): a few instructions, where the quality of the numbers decides nothing but a sample.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        // The upper half of the product is spread evenly enough.
        ((u128::from(mixed) * bound as u128) >> 64) as usize
    }
}
