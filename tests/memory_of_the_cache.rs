//! What the store says it takes is what the allocator gives it: `cache.max_memory_mb` bounds real memory.
//!
//! One test, alone in its process: the allocator counts everything that anybody allocates.

#![expect(clippy::expect_used, reason = "a test")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ffi::c_void;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use heliosproxy::cache::entry::{Entry, Recording};
use heliosproxy::cache::key::{CacheKey, request_key};
use heliosproxy::cache::store::{Lookup, Store};
use heliosproxy::cache::versions::{TableOid, TableRead, Versions};
use heliosproxy::config::EvictionStrategy;

struct Counting;

static TAKEN: AtomicUsize = AtomicUsize::new(0);

/// Bytes of a block with the allocator's own header.
#[expect(unsafe_code, reason = "the allocator alone knows how much it gave")]
fn block(pointer: *mut u8) -> usize {
    if pointer.is_null() {
        return 0;
    }
    // SAFETY: callers pass a live block of the system's allocator, which on this platform is the C library's.
    unsafe { libc::malloc_usable_size(pointer.cast::<c_void>()) + size_of::<usize>() }
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract; the counting touches no block.
#[expect(unsafe_code, reason = "an allocator that counts")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is handed on.
        let pointer = unsafe { System.alloc(layout) };
        TAKEN.fetch_add(block(pointer), Ordering::Relaxed);
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(block(pointer), Ordering::Relaxed);
        // SAFETY: the caller's promise is handed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let before = block(pointer);
        // SAFETY: the caller's promise is handed on.
        let moved = unsafe { System.realloc(pointer, layout, size) };
        if !moved.is_null() {
            TAKEN.fetch_add(block(moved), Ordering::Relaxed);
            TAKEN.fetch_sub(before, Ordering::Relaxed);
        }
        moved
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn key(number: u32) -> CacheKey {
    request_key(&[0; 32], &[0; 32], &[number + 1], |_| {})
}

/// A result of about this size that came in pieces and depends on two tables, or on a value of one.
fn entry(versions: &Versions, number: u32, size: usize) -> Entry {
    let mut recording = Recording::new(usize::MAX);
    let row = vec![b'D'; 100.min(size)];
    for _ in 0..size / row.len() {
        recording.frame(b'D', row.len());
        recording.extend(&row);
    }
    recording.frame(b'C', 13);
    recording.extend(&[b'C'; 13]);
    let (table, other) = (versions.table(TableOid(1)), versions.table(TableOid(2)));
    let column = table.column(1);
    let reads = if number.is_multiple_of(2) {
        vec![TableRead { table: &table, pin: Some((&column, vec![table.stripe(1, &number.to_be_bytes())])) }]
    } else {
        vec![TableRead::any_row(&table), TableRead::any_row(&other)]
    };
    let dependencies = versions.observe(reads).expect("nothing is in flight");
    Entry::new(recording, dependencies, 0, Duration::from_secs(3600), Duration::from_millis(1)).expect("whole")
}

type SizeOf = fn(u32) -> usize;

/// Sizes of point reads, of pages of a list, of reports, and of everything.
const SIZES: [(&str, SizeOf); 4] = [
    ("small", |number| 30 + number as usize * 7 % 100),
    ("medium", |number| 500 + number as usize * 7919 % 5000),
    ("large", |number| 50_000 + number as usize * 7919 % 500_000),
    ("mixed", |number| 30 << (number as usize * 7919 % 13)),
];

#[test]
fn accounted_bytes_are_real_bytes() {
    const BUDGET: usize = 16 << 20;
    let versions = Versions::default();
    // What every store shares is there before anything is measured: it has its own bound.
    drop(entry(&versions, 0, 100));
    // Long enough from the start: what the report takes must not count.
    let mut report = String::with_capacity(1 << 14);
    for strategy in [EvictionStrategy::TimeAwareLru, EvictionStrategy::Lru] {
        for (name, size) in SIZES {
            let before = TAKEN.load(Ordering::Relaxed);
            let store = Store::new(BUDGET, usize::MAX, strategy);
            let empty = TAKEN.load(Ordering::Relaxed) - before;
            assert!(empty < BUDGET / 100, "an empty store takes {empty} bytes");
            let mut evicted = 0;
            let mut number = 0;
            // Half full, full, and after everything has been replaced a few times.
            for share in [BUDGET / 2, BUDGET * 9 / 10, BUDGET * 3] {
                let mut come = 0;
                while come < share && store.bytes() < share {
                    let entry = entry(&versions, number, size(number));
                    come += entry.bytes();
                    evicted += store.insert(key(number), entry);
                    // What is served is shared, which takes a few bytes of its own.
                    if let (0, Lookup::Hit(hit)) = (number % 3, store.get(&key(number))) {
                        drop(hit.shared_frames(true));
                    }
                    number += 1;
                }
                let real = TAKEN.load(Ordering::Relaxed) - before;
                let accounted = store.bytes();
                let error = real as f64 / accounted as f64 - 1.0;
                writeln!(
                    report,
                    "{strategy:?}, {name}: {} entries, {accounted} bytes accounted, {real} real: {:+.1} %",
                    store.entries(),
                    error * 100.0
                )
                .expect("a string takes it");
                assert!(error.abs() < 0.1, "{strategy:?}, {name}: {accounted} bytes accounted, {real} real");
                assert!(real < BUDGET + BUDGET / 10);
            }
            assert!(evicted > 0, "the store was full");
            drop(store);
            assert_eq!(TAKEN.load(Ordering::Relaxed), before, "everything was given back");
        }
    }
    println!("{report}");
}
