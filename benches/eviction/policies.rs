//! The caches that are compared, behind one trait: the store with each of its strategies, quick_cache, and a plain LRU.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use heliosproxy::cache::entry::{Entry, Recording};
use heliosproxy::cache::key::{CacheKey, request_key};
use heliosproxy::cache::store::{Clock, Lookup, Store};
use heliosproxy::cache::versions::Versions;
use heliosproxy::config::EvictionStrategy;

use super::traces::{Outcome, Trace};

/// What one cache saved over one trace, as shares of the whole.
#[derive(Debug, Clone, Copy)]
pub struct Saved {
    pub requests: f64,
    pub bytes: f64,
    pub time: f64,
}

pub const NAMES: [&str; 6] = ["time_aware_lru", "lru", "lfu", "lru_with_size", "quick_cache", "exact lru"];

/// Plays a trace to the cache of that name.
pub fn play(name: &str, budget: usize, trace: &Trace, outcomes: &[Outcome]) -> Saved {
    match name {
        "quick_cache" => run(&mut Quick::new(budget), trace, outcomes),
        "exact lru" => run(&mut ExactLru::new(budget), trace, outcomes),
        "lru" => run(&mut Ours::new(budget, EvictionStrategy::Lru), trace, outcomes),
        "lfu" => run(&mut Ours::new(budget, EvictionStrategy::Lfu), trace, outcomes),
        "lru_with_size" => run(&mut Ours::new(budget, EvictionStrategy::LruWithSize), trace, outcomes),
        _ => run(&mut Ours::new(budget, EvictionStrategy::TimeAwareLru), trace, outcomes),
    }
}

/// Asks for a result; a miss puts it in.
trait Cache {
    fn hit(&mut self, result: u32, outcome: Outcome) -> bool;
}

fn run(cache: &mut impl Cache, trace: &Trace, outcomes: &[Outcome]) -> Saved {
    let (mut all, mut saved) = ([0.0; 3], [0.0; 3]);
    for result in &trace.requests {
        let outcome = outcomes[*result as usize];
        let gain = [1.0, outcome.size as f64, outcome.cost];
        let hit = cache.hit(*result, outcome);
        for of in 0..3 {
            all[of] += gain[of];
            saved[of] += if hit { gain[of] } else { 0.0 };
        }
    }
    Saved { requests: saved[0] / all[0], bytes: saved[1] / all[1], time: saved[2] / all[2] }
}

struct Ours {
    store: Store,
    clock: Arc<AtomicU64>,
    versions: Versions,
}

impl Ours {
    fn new(budget: usize, strategy: EvictionStrategy) -> Self {
        let clock = Arc::new(AtomicU64::new(0));
        let store = Store::with_clock(budget, usize::MAX, strategy, Clock::Manual(clock.clone()));
        Self { store, clock, versions: Versions::default() }
    }
}

impl Cache for Ours {
    fn hit(&mut self, result: u32, outcome: Outcome) -> bool {
        self.clock.fetch_add(1, Ordering::Relaxed);
        let key = key(result);
        if matches!(self.store.get(&key), Lookup::Hit(_)) {
            return true;
        }
        let entry = entry(outcome.size, Duration::from_secs_f64(outcome.cost), &self.versions);
        self.store.insert(key, entry);
        false
    }
}

fn key(result: u32) -> CacheKey {
    request_key(&[0; 32], &[0; 32], &[result + 1], |_| {})
}

fn entry(size: usize, cost: Duration, versions: &Versions) -> Entry {
    let mut recording = Recording::new(usize::MAX);
    recording.frame(b'C', size);
    recording.extend(&vec![b'C'; size]);
    let dependencies = versions.observe([]).expect("nothing is in flight");
    Entry::new(recording, dependencies, 0, Duration::from_secs(1 << 30), cost).expect("whole")
}

/// What a result weighs for the others: what our own entry of it would, and a place in a table.
fn weight(size: usize) -> usize {
    const ENTRY_AND_PLACE: usize = 340;
    size + ENTRY_AND_PLACE
}

#[derive(Clone)]
struct BySize;

impl quick_cache::Weighter<u32, usize> for BySize {
    fn weight(&self, _: &u32, size: &usize) -> u64 {
        weight(*size) as u64
    }
}

struct Quick(quick_cache::sync::Cache<u32, usize, BySize>);

impl Quick {
    fn new(budget: usize) -> Self {
        Self(quick_cache::sync::Cache::with_weighter(budget / 2000, budget as u64, BySize))
    }
}

impl Cache for Quick {
    fn hit(&mut self, result: u32, outcome: Outcome) -> bool {
        let hit = self.0.get(&result).is_some();
        if !hit {
            self.0.insert(result, outcome.size);
        }
        hit
    }
}

struct ExactLru {
    budget: usize,
    bytes: usize,
    tick: u64,
    last: HashMap<u32, (u64, usize)>,
    order: BTreeMap<u64, u32>,
}

impl ExactLru {
    fn new(budget: usize) -> Self {
        Self { budget, bytes: 0, tick: 0, last: HashMap::new(), order: BTreeMap::new() }
    }
}

impl Cache for ExactLru {
    fn hit(&mut self, result: u32, outcome: Outcome) -> bool {
        self.tick += 1;
        let before = self.last.insert(result, (self.tick, outcome.size));
        self.order.insert(self.tick, result);
        if let Some((tick, _)) = before {
            self.order.remove(&tick);
            return true;
        }
        self.bytes += weight(outcome.size);
        while self.bytes > self.budget {
            let Some((_, oldest)) = self.order.pop_first() else { break };
            let (_, size) = self.last.remove(&oldest).expect("in the order, so in the map");
            self.bytes -= weight(size);
        }
        false
    }
}
