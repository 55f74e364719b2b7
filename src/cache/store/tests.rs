use std::time::Duration;

use super::score::{Use, score};
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

fn sum(store: &Store, of: impl Fn(&Shard) -> usize) -> usize {
    store.shards.iter().map(|shard| of(&lock(shard))).sum()
}

fn all_bytes(shard: &Shard) -> usize {
    shard.table_bytes() + shard.slots().iter().map(|slot| slot.entry.bytes()).sum::<usize>()
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
        assert_eq!(
            (sum(&store, |shard| shard.slots().len()), sum(&store, all_bytes)),
            (store.entries(), store.bytes())
        );
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
    assert_eq!((store.entries(), store.bytes()), (0, sum(&store, Shard::table_bytes)));
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

/// A store of one shard and the hand of its clock.
fn at_will(max_entries: usize, strategy: EvictionStrategy) -> (Store, Arc<AtomicU64>) {
    let time = Arc::new(AtomicU64::new(0));
    (Store::with_clock(BYTES_A_SHARD, max_entries, strategy, Clock::Manual(time.clone())), time)
}

#[test]
fn what_has_expired_is_kept_for_as_long_as_somebody_asks_for_and_only_while_it_is_valid() {
    let (store, time) = at_will(10, EvictionStrategy::TimeAwareLru);
    let versions = Versions::default();
    let age = Duration::from_secs(60);
    store.keep_old(age);
    store.insert(key(1), entry_for(&versions, 10, Duration::from_secs(1), Duration::ZERO));
    store.insert(key(2), entry_for(&versions, 10, Duration::from_secs(1), Duration::ZERO));
    time.store(59_999, Ordering::Relaxed);
    assert!(matches!(store.get(&key(1)), Lookup::Absent));
    assert!(store.get_old(&key(1), age).is_some());
    time.store(60_000, Ordering::Relaxed);
    assert!(store.get_old(&key(1), age).is_none());
    assert!(matches!(store.get(&key(1)), Lookup::Gone(Eviction::Expired)));
    time.store(59_999, Ordering::Relaxed);
    versions.mark(&WriteSet::any_row_of([versions.table(TableOid(1))])).settle();
    assert!(store.get_old(&key(2), age).is_none());
    assert!(matches!(store.get(&key(2)), Lookup::Gone(_)));
}

#[test]
fn the_ttl_counts_from_the_fill_however_often_an_entry_is_used() {
    let (store, time) = at_will(10, EvictionStrategy::TimeAwareLru);
    store.insert(key(1), entry_for(&Versions::default(), 10, Duration::from_millis(1000), Duration::ZERO));
    for now in (0..1000).step_by(100).chain([999]) {
        time.store(now, Ordering::Relaxed);
        assert!(hit(&store, 1), "at {now}");
    }
    time.store(1000, Ordering::Relaxed);
    assert!(matches!(store.get(&key(1)), Lookup::Gone(Eviction::Expired)));
}

#[test]
fn what_is_past_its_use_goes_before_anything_else() {
    let versions = Versions::default();
    for strategy in ALL {
        let (store, time) = at_will(3, strategy);
        let (short, hour) = (Duration::from_millis(10), Duration::from_secs(3600));
        store.insert(key(1), entry_for(&versions, 10, short, Duration::from_secs(100)));
        (0..100).for_each(|_| assert!(hit(&store, 1)));
        time.store(10, Ordering::Relaxed);
        for number in 2..4 {
            store.insert(key(number), entry_for(&Versions::default(), 100, hour, short));
        }
        // Of three entries a sample of sixteen misses one once in five hundred times; the numbers are always the same.
        assert_eq!(store.insert(key(4), entry_for(&Versions::default(), 100, hour, short)), 1);
        assert!(matches!(store.get(&key(1)), Lookup::Absent), "{strategy:?}");

        versions.mark(&WriteSet::Everything).settle();
        assert!((2..5).all(|number| hit(&store, number)), "{strategy:?}: others are untouched");
    }
}

#[test]
fn each_strategy_prefers_what_its_name_says() {
    const HALF_LIFE: f32 = 5000.0;
    let hour = Duration::from_secs(3600);
    let versions = Versions::default();
    let used = |size, cost, touches: &[u64]| {
        let mut usage = Use::new(&entry_for(&versions, size, hour, Duration::from_millis(cost)), 0);
        touches.iter().for_each(|now| usage.touch(*now, HALF_LIFE));
        usage
    };
    let cheap = used(1000, 1, &[]);
    let costly = used(1000, 500, &[]);
    let large = used(100_000, 1, &[]);
    let popular = used(1000, 1, &[0; 10]);
    let recent = used(1000, 1, &[900]);
    let prefers = |strategy, kept: &Use, gone: &Use| {
        score(strategy, kept, 1000, HALF_LIFE) > score(strategy, gone, 1000, HALF_LIFE)
    };
    assert!(prefers(EvictionStrategy::Lru, &recent, &popular));
    assert!(prefers(EvictionStrategy::Lfu, &popular, &recent));
    assert!(prefers(EvictionStrategy::LruWithSize, &cheap, &large));
    for gone in [&cheap, &large] {
        assert!(prefers(EvictionStrategy::TimeAwareLru, &costly, gone));
    }
    assert!(prefers(EvictionStrategy::TimeAwareLru, &popular, &cheap));
    assert!(prefers(EvictionStrategy::TimeAwareLru, &recent, &cheap));
}

#[test]
fn a_popularity_that_is_over_is_forgotten() {
    let versions = Versions::default();
    let result = entry_for(&versions, 1000, Duration::from_secs(3600), Duration::from_millis(1));
    let (mut once, now) = (Use::new(&result, 0), Use::new(&result, 100_000));
    (0..50).for_each(|tick| once.touch(tick, 1000.0));
    let worth = |usage| score(EvictionStrategy::TimeAwareLru, usage, 100_000, 1000.0);
    assert!(worth(&now) > worth(&once));
}

#[test]
fn what_comes_back_is_not_taken_for_a_stranger() {
    let (store, _) = at_will(1, EvictionStrategy::TimeAwareLru);
    let frequency = |number| {
        let shard = store.shard(&key(number));
        shard.place(&key(number)).map(|place| shard.slots()[place].frequency())
    };
    store.insert(key(1), entry(10));
    (0..3).for_each(|_| assert!(hit(&store, 1)));
    store.insert(key(2), entry(10));
    assert_eq!(frequency(1), None);
    store.insert(key(1), entry(10));
    assert!(frequency(1).is_some_and(|uses| uses > 4.0), "{:?}", frequency(1));
}

#[test]
fn tables_that_many_small_entries_needed_are_given_back() {
    let (store, time) = at_will(usize::MAX, EvictionStrategy::TimeAwareLru);
    for number in 0..500 {
        store.insert(key(number), entry_for(&Versions::default(), 10, Duration::from_millis(1), Duration::ZERO));
    }
    let many = sum(&store, Shard::table_bytes);
    time.store(1, Ordering::Relaxed);
    assert!((0..500).all(|number| !hit(&store, number)));
    let few = sum(&store, Shard::table_bytes);
    assert!(few * 4 < many, "{few} of {many} bytes");
    assert_eq!(few, store.bytes());
}
