//! What the proxy's parts cost by size: batches of streams, keys, lookups, evictions, ranges of split scans, the guard.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use heliosproxy::cache::entry::{Entry, Recording};
use heliosproxy::cache::key::{CacheKey, request_key};
use heliosproxy::cache::store::{Lookup, Store};
use heliosproxy::cache::versions::{TableOid, TableRead, Versions};
use heliosproxy::config::EvictionStrategy;
use heliosproxy::guard::{CircuitBreaker, CircuitBreakerConfig, Fault, RetryConfig};
use heliosproxy::parallel::{AggregateFunction, ChunkLimits, Chunks, ParallelAggregator, PartColumn, TableSize};
use heliosproxy::statement::Statement;
use heliosproxy::stream::{Batch, ValueType};
use heliosproxy::wire::frame::HEADER_BYTES;
use heliosproxy::wire::message::backend::data_row;
use heliosproxy::wire::message::{Bind, encode};

/// The body of a DataRow with four values: int4, numeric, text, timestamptz.
fn row() -> (Vec<ValueType>, BytesMut) {
    let values = [&b"4711"[..], b"1234.50", b"a note of thirty characters...", b"2024-02-29 12:34:56.789+00"];
    let mut body = BytesMut::new();
    body.put_u16(values.len() as u16);
    for value in values {
        body.put_u32(value.len() as u32);
        body.put_slice(value);
    }
    let types = [23, 1700, 25, 1184].map(|oid| ValueType::built_in(oid).expect("a common type"));
    (types.to_vec(), body)
}

/// Rows of the server that become one batch of JSON.
fn streaming(c: &mut Criterion) {
    let (types, row) = row();
    let mut group = c.benchmark_group("streaming batch");
    for rows in [100, 1000, 10_000] {
        group.throughput(Throughput::Elements(rows));
        group.bench_with_input(BenchmarkId::from_parameter(rows), &rows, |b, rows| {
            let mut batch = Batch::new("query");
            b.iter(|| {
                for _ in 0..*rows {
                    batch.push(&types, &data_row(black_box(&row)).expect("well-formed"));
                }
                batch.finish(false)
            });
        });
    }
}

/// What identifies a result: the statement's digest, once for each text, and what is bound, each time.
fn keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("key");
    for conditions in [1, 10, 100] {
        let conditions: Vec<String> = (0..conditions).map(|n| format!("c{n} = {n}")).collect();
        let text = format!("SELECT a, b FROM t WHERE {}", conditions.join(" AND "));
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(BenchmarkId::new("digest of a text, bytes", text.len()), |b| {
            b.iter(|| Statement::analyse(black_box(text.as_bytes())).digest)
        });
    }
    for count in [0, 1, 10, 100] {
        let mut message = BytesMut::new();
        let parameters = (0..count).map(|_| Some(&b"12345678"[..]));
        encode::bind(&mut message, b"", b"", &[], parameters, &[]).expect("it fits");
        group.throughput(Throughput::Bytes(message.len() as u64));
        group.bench_function(BenchmarkId::new("of a request, parameters", count), |b| {
            b.iter(|| {
                let bind = Bind::decode(black_box(&message[HEADER_BYTES..])).expect("well-formed");
                request_key(&[1; 32], &[2; 32], &[], |hasher| {
                    bind.hash_parameters(hasher);
                    bind.hash_result_formats(hasher);
                })
            })
        });
    }
}

fn key(number: usize) -> CacheKey {
    request_key(&[0; 32], &[0; 32], &[number as u32 + 1], |_| {})
}

fn entry(versions: &Versions) -> Entry {
    let mut recording = Recording::new(usize::MAX);
    recording.frame(b'C', 300);
    recording.extend(&[b'C'; 300]);
    let table = versions.table(TableOid(1));
    let dependencies = versions.observe([TableRead::any_row(&table)]).expect("nothing is in flight");
    Entry::new(recording, dependencies, 0, Duration::from_secs(3600), Duration::from_millis(1)).expect("whole")
}

/// A hit, validity checked, and a miss.
fn lookups(c: &mut Criterion) {
    let versions = Versions::default();
    let mut group = c.benchmark_group("lookup");
    for entries in [100, 1000, 10_000] {
        let store = Store::new(1 << 30, 2 * entries, EvictionStrategy::TimeAwareLru);
        let keys: Vec<CacheKey> = (0..2 * entries).map(key).collect();
        for key in &keys[..entries] {
            store.insert(*key, entry(&versions));
        }
        let mut next = 0;
        let mut looked = |from: usize| {
            next = (next + 7919) % entries;
            store.get(black_box(&keys[from + next]))
        };
        assert!(matches!(looked(0), Lookup::Hit(_)) && matches!(looked(entries), Lookup::Absent));
        group.bench_function(BenchmarkId::new("hit", entries), |b| b.iter(|| looked(0)));
        group.bench_function(BenchmarkId::new("miss", entries), |b| b.iter(|| looked(entries)));
    }
}

/// An insert into a full store.
fn evictions(c: &mut Criterion) {
    let versions = Versions::default();
    let mut group = c.benchmark_group("eviction");
    for strategy in
        [EvictionStrategy::Lru, EvictionStrategy::Lfu, EvictionStrategy::LruWithSize, EvictionStrategy::TimeAwareLru]
    {
        let store = Store::new(1 << 30, 10_000, strategy);
        let mut number = 0;
        let mut insert = || {
            number += 1;
            store.insert(key(number), entry(&versions))
        };
        for _ in 0..20_000 {
            insert();
        }
        group.bench_function(format!("{strategy:?}"), |b| b.iter(&mut insert));
    }
}

const LIMITS: ChunkLimits = ChunkLimits { min_pages: 256, max_pages: 8192, memory_pages: 1 << 20 };

/// A table of 8 GiB, cut for so many connections, and dealt out to them.
fn partitions(c: &mut Criterion) {
    let size = TableSize { files: vec![1 << 20], all_pages: 1 << 20 };
    let mut group = c.benchmark_group("ranges");
    for workers in [2, 4, 8, 16] {
        group.bench_with_input(BenchmarkId::new("cut and dealt, connections", workers), &workers, |b, workers| {
            b.iter(|| {
                let chunks = Chunks::stealing(black_box(&size), LIMITS, *workers);
                let dealt = (0..).map_while(|turn| chunks.next(turn % workers));
                dealt.map(|chunk| u64::from(chunks.blocks(chunk).0)).sum::<u64>()
            })
        });
    }
}

/// Ranges of unequal cost, read by two threads: every other one takes nineteen times as long, as where a table has empty stretches.
fn work_stealing(c: &mut Criterion) {
    const WORKERS: usize = 2;
    let size = TableSize { files: vec![256 * 24], all_pages: 256 * 24 };
    let work = |chunks: &Chunks| {
        let done = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..WORKERS {
                let done = &done;
                scope.spawn(move || {
                    while let Some(chunk) = chunks.next(worker) {
                        let steps = if chunk % WORKERS == 0 { 95_000 } else { 5000 };
                        done.fetch_add((0..steps).map(black_box).sum(), Ordering::Relaxed);
                    }
                });
            }
        });
        done.into_inner()
    };
    let mut group = c.benchmark_group("unequal ranges, two workers");
    let dealt = |stealing| match stealing {
        true => Chunks::stealing(&size, LIMITS, WORKERS),
        false => Chunks::in_turn(&size, LIMITS, WORKERS),
    };
    for (name, stealing) in [("work stealing", true), ("in turn", false)] {
        assert_eq!(dealt(stealing).count(), 24);
        group.bench_function(name, |b| {
            b.iter_batched(|| dealt(stealing), |chunks| work(&chunks), BatchSize::SmallInput)
        });
    }
}

/// Partial groups of several connections, put together: each brings the same 1,000, with a key, a count and a sum.
fn aggregation(c: &mut Criterion) {
    const GROUPS: i32 = 1000;
    const INT4: u32 = 23;
    const INT8: u32 = 20;
    let columns = [
        PartColumn::key(INT4, -1),
        PartColumn::part(AggregateFunction::Count, INT8, false),
        PartColumn::part(AggregateFunction::Sum, INT8, false),
    ];
    let columns: Vec<PartColumn> =
        columns.into_iter().collect::<Option<_>>().expect("columns that can be put together");
    let row = |group: i32| {
        let mut body = BytesMut::new();
        body.put_u16(3);
        body.put_u32(4);
        body.put_i32(group);
        for part in [1, i64::from(group)] {
            body.put_u32(8);
            body.put_i64(part);
        }
        body
    };
    let rows: Vec<BytesMut> = (0..GROUPS).map(row).collect();
    let mut bench = c.benchmark_group("aggregation");
    for workers in [2, 4, 8, 16] {
        bench.throughput(Throughput::Elements(workers * GROUPS as u64));
        bench.bench_with_input(BenchmarkId::new("partial groups, connections", workers), &workers, |b, workers| {
            b.iter(|| {
                let mut groups = ParallelAggregator::new(columns.clone(), 1 << 20);
                for row in (0..*workers).flat_map(|_| &rows) {
                    groups.add(black_box(row)).expect("it fits");
                }
                groups.into_arrays()
            })
        });
    }
}

#[derive(Debug)]
struct Broken;

impl Fault for Broken {
    fn is_upstream_fault(&self) -> bool {
        true
    }

    fn is_retryable(&self) -> bool {
        true
    }
}

/// A call that is ready at once: by itself, and through a closed breaker.
fn breaker(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = c.benchmark_group("breaker overhead");
    let call = || async { Ok::<_, Broken>(black_box(7)) };
    group.bench_function("without", |b| b.iter(|| runtime.block_on(call()).is_ok()));
    let closed = CircuitBreaker::new(CircuitBreakerConfig::default());
    group.bench_function("with", |b| b.iter(|| runtime.block_on(closed.call(call())).is_ok()));
}

fn backoff(c: &mut Criterion) {
    let config = RetryConfig { max_attempts: 10, ..RetryConfig::default() };
    c.bench_function("backoff/ten delays with jitter", |b| {
        b.iter(|| (1..=10).map(|attempt| config.delay(black_box(attempt))).sum::<Duration>())
    });
}

criterion_group! {
    name = quick_wins;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = streaming, keys, lookups, evictions, partitions, work_stealing, aggregation, breaker, backoff
}
criterion_main!(quick_wins);
