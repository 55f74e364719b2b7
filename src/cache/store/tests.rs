use std::time::Duration;

use super::*;
use crate::cache::entry::Recording;
use crate::cache::versions::{TableOid, TableRead, Versions, WriteSet};

const ALL: [EvictionStrategy; 4] =
    [EvictionStrategy::Lru, EvictionStrategy::Lfu, EvictionStrategy::LruWithSize, EvictionStrategy::TimeAwareLru];

fn key(number: u32) -> CacheKey {
    super::super::key::request_key(&[0; 32], &[0; 32], &[number + 1], |_| {})
}

fn entry_for(versions: &Versions, size: usize, ttl: Duration, cost: Duration) -> Entry {
    let mut recording = Recording::new(usize::MAX);
    recording.frame(b'C', size);
    recording.extend(&vec![b'C'; size]);
    let dependencies =
        versions.observe([TableRead::any_row(&versions.table(TableOid(1)))]).expect("nothing is in flight");
    Entry::new(recording, dependencies, 0, ttl, cost).expect("whole")
}

fn entry(size: usize) -> Entry {
    entry_for(&Versions::default(), size, Duration::from_secs(3600), Duration::from_millis(1))
}

fn hit(store: &Store, number: u32) -> bool {
    matches!(store.get(&key(number)), Lookup::Hit(_))
}

#[test]
fn the_byte_budget_and_the_entry_limit_hold_under_every_strategy() {
    for strategy in ALL {
        let store = Store::new(100_000, 50, strategy);
        for number in 0..500 {
            store.insert(key(number), entry(500 + number as usize * 7 % 3000));
            assert!(store.bytes() <= 100_000 && store.entries() <= 50, "{strategy:?}");
            assert!(hit(&store, number), "{strategy:?}: the newcomer stays");
        }
        let slots: usize = store.shards.iter().map(|shard| lock(shard).slots.len()).sum();
        let bytes: usize =
            store.shards.iter().flat_map(|s| lock(s).slots.iter().map(|e| e.1.bytes()).collect::<Vec<_>>()).sum();
        assert_eq!((slots, bytes), (store.entries(), store.bytes()));
    }
}

#[test]
fn an_entry_larger_than_the_budget_is_not_taken() {
    let store = Store::new(1000, 10, EvictionStrategy::Lru);
    store.insert(key(1), entry(2000));
    assert_eq!((store.entries(), store.bytes()), (0, 0));
}

#[test]
fn an_expired_entry_is_no_hit_and_leaves() {
    let store = Store::new(1 << 20, 10, EvictionStrategy::Lru);
    store.insert(key(1), entry_for(&Versions::default(), 10, Duration::ZERO, Duration::ZERO));
    assert!(matches!(store.get(&key(1)), Lookup::Gone(Eviction::Expired)));
    assert_eq!((store.entries(), store.bytes()), (0, 0));
}

#[test]
fn an_invalid_entry_is_no_hit_and_leaves() {
    let versions = Versions::default();
    let store = Store::new(1 << 20, 10, EvictionStrategy::Lru);
    store.insert(key(1), entry_for(&versions, 10, Duration::from_secs(60), Duration::ZERO));
    assert!(hit(&store, 1));
    versions.mark(&WriteSet::any_row_of([versions.table(TableOid(1))])).settle();
    assert!(matches!(store.get(&key(1)), Lookup::Gone(Eviction::Invalid)));
    assert!(matches!(store.get(&key(1)), Lookup::Absent));
}

#[test]
fn each_strategy_prefers_what_its_name_says() {
    let hour = Duration::from_secs(3600);
    let versions = Versions::default();
    let cheap = entry_for(&versions, 1000, hour, Duration::from_millis(1));
    let costly = entry_for(&versions, 1000, hour, Duration::from_millis(500));
    let large = entry_for(&versions, 100_000, hour, Duration::from_millis(1));
    let popular = entry_for(&versions, 1000, hour, Duration::from_millis(1));
    (0..10).for_each(|_| popular.touch(0));
    let recent = entry_for(&versions, 1000, hour, Duration::from_millis(1));
    recent.touch(900);

    let prefers = |strategy, kept: &Entry, gone: &Entry| score(strategy, kept, 1000) > score(strategy, gone, 1000);
    assert!(prefers(EvictionStrategy::Lru, &recent, &popular));
    assert!(prefers(EvictionStrategy::Lfu, &popular, &recent));
    assert!(prefers(EvictionStrategy::LruWithSize, &cheap, &large));
    for gone in [&cheap, &large] {
        assert!(prefers(EvictionStrategy::TimeAwareLru, &costly, gone));
    }
    assert!(prefers(EvictionStrategy::TimeAwareLru, &popular, &cheap));
    assert!(prefers(EvictionStrategy::TimeAwareLru, &recent, &cheap));
}
