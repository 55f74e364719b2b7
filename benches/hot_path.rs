//! What a request costs inside the proxy, part by part. The system calls around it cost about 18 microseconds a transaction; these
//! parts must stay small beside that.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use heliosproxy::cache::entry::{Entry, Recording};
use heliosproxy::cache::key::{CacheKey, request_key};
use heliosproxy::cache::ledger::{Bookmarks, Ledger};
use heliosproxy::cache::store::Store;
use heliosproxy::cache::versions::{TableOid, TableRead, Versions, WriteSet};
use heliosproxy::config::{EvictionStrategy, Tracing};
use heliosproxy::statement::{Statement, Statements};
use heliosproxy::telemetry::export::Tracer;
use heliosproxy::wire::frame;
use heliosproxy::wire::message::{Bind, encode};

const PGBENCH: &[u8] = b"SELECT abalance FROM pgbench_accounts WHERE aid = 4711;";
const REPORT: &[u8] =
    b"SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice * (1 - l_discount)) \
    AS sum_disc_price, avg(l_discount) AS avg_disc, count(*) AS count_order FROM lineitem WHERE l_shipdate <= \
    date '1998-12-01' - interval '90' day GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus";

/// A text is analysed once; from then on it is found.
fn statements(c: &mut Criterion) {
    let mut group = c.benchmark_group("statement");
    for (name, text) in [("pgbench", PGBENCH), ("report", REPORT)] {
        group.bench_function(format!("analyse {name}"), |b| b.iter(|| Statement::analyse(black_box(text))));
        let memo = Statements::new();
        memo.get(text);
        group.bench_function(format!("find {name}"), |b| b.iter(|| memo.get(black_box(text))));
    }
}

/// Every lookup hashes the parameters.
fn keys(c: &mut Criterion) {
    let mut group = c.benchmark_group("key");
    for count in [1, 10] {
        let mut message = BytesMut::new();
        let parameters = (0..count).map(|_| Some(&b"12345678"[..]));
        encode::bind(&mut message, b"", b"statement", &[], parameters, &[]).expect("it fits");
        group.bench_function(format!("of a Bind with {count} parameters"), |b| {
            b.iter(|| {
                let bind = Bind::decode(black_box(&message[frame::HEADER_BYTES..])).expect("well-formed");
                request_key(&[1; 32], &[2; 32], &[23], |hasher| {
                    bind.hash_parameters(hasher);
                    bind.hash_result_formats(hasher);
                })
            })
        });
    }
}

fn key(number: u32) -> CacheKey {
    request_key(&[0; 32], &[0; 32], &[number + 1], |_| {})
}

fn entry(versions: &Versions) -> Entry {
    let mut recording = Recording::new(usize::MAX);
    recording.frame(b'C', 300);
    recording.extend(&[b'C'; 300]);
    let dependencies =
        versions.observe([TableRead::any_row(&versions.table(TableOid(1)))]).expect("nothing is in flight");
    Entry::new(recording, dependencies, 0, Duration::from_secs(3600), Duration::from_millis(1)).expect("whole")
}

/// A hit among ten thousand entries, alone and beside another thread that does the same; and an insert that evicts.
fn store(c: &mut Criterion) {
    const ENTRIES: u32 = 10_000;
    let mut group = c.benchmark_group("store");
    let versions = Versions::default();
    let full = Arc::new(Store::new(1 << 30, ENTRIES as usize, EvictionStrategy::TimeAwareLru));
    let keys: Vec<CacheKey> = (0..ENTRIES).map(key).collect();
    for key in &keys {
        full.insert(*key, entry(&versions));
    }
    let mut next = 0;
    let mut one = || {
        next = (next + 7919) % keys.len();
        full.get(black_box(&keys[next]))
    };
    group.bench_function("hit", |b| b.iter(&mut one));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let other = std::thread::spawn({
        let (full, keys, stop) = (full.clone(), keys.clone(), stop.clone());
        move || {
            for key in keys.iter().cycle() {
                black_box(full.get(key));
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
            }
        }
    });
    group.bench_function("hit, two threads", |b| b.iter(&mut one));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    other.join().expect("it ends when told");

    for strategy in
        [EvictionStrategy::Lru, EvictionStrategy::Lfu, EvictionStrategy::LruWithSize, EvictionStrategy::TimeAwareLru]
    {
        let full = Store::new(1 << 30, 1000, strategy);
        let mut number = 0;
        group.bench_function(format!("insert that evicts, {strategy:?}"), |b| {
            b.iter(|| {
                number += 1;
                full.insert(key(number), entry(&versions))
            })
        });
    }
}

/// What a hit costs the figures of its statement: alone, and beside another thread with hits of the same one.
fn ledger(c: &mut Criterion) {
    let mut group = c.benchmark_group("ledger");
    let ledger = Arc::new(Ledger::new(1000));
    let statement = Arc::new(Statement::analyse(PGBENCH));
    let hit = |bookmarks: &mut Bookmarks, ledger: &Ledger, statement: &Arc<Statement>| {
        if let Some(page) = bookmarks.page(ledger, black_box(statement), PGBENCH) {
            page.hit(black_box(100), Duration::from_micros(200));
        }
    };
    let mut bookmarks = Bookmarks::default();
    group.bench_function("hit", |b| b.iter(|| hit(&mut bookmarks, &ledger, &statement)));
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let other = std::thread::spawn({
        let (ledger, statement, stop) = (ledger.clone(), statement.clone(), stop.clone());
        move || {
            let mut bookmarks = Bookmarks::default();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                hit(&mut bookmarks, &ledger, &statement);
            }
        }
    });
    group.bench_function("hit, two threads", |b| b.iter(|| hit(&mut bookmarks, &ledger, &statement)));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    other.join().expect("it ends when told");
}

/// What a read observes and what a write does to it.
fn versions(c: &mut Criterion) {
    let versions = Versions::default();
    let tables = vec![versions.table(TableOid(1)), versions.table(TableOid(2))];
    let mut group = c.benchmark_group("versions");
    group.bench_function("observe two tables", |b| {
        b.iter(|| versions.observe(black_box(&tables).iter().map(|table| TableRead::any_row(table))))
    });
    let seen = versions.observe(tables.iter().map(|table| TableRead::any_row(table))).expect("nothing is in flight");
    group.bench_function("check", |b| b.iter(|| black_box(&seen).hold()));
    let writes = WriteSet::any_row_of(tables);
    group.bench_function("mark and settle", |b| b.iter(|| versions.mark(black_box(&writes)).settle()));
}

/// A relayed row costs the look at its header.
fn frames(c: &mut Criterion) {
    let mut buffer = Vec::new();
    while buffer.len() < 64 * 1024 {
        buffer.extend_from_slice(b"D\0\0\0\x68");
        buffer.extend_from_slice(&[0; 100]);
    }
    let mut group = c.benchmark_group("frames");
    group.throughput(Throughput::Bytes(buffer.len() as u64));
    group.bench_function("scan 64 kB of rows of 100 bytes", |b| {
        b.iter(|| {
            let (mut at, mut rows) = (0, 0);
            while let Ok(Some(header)) = frame::peek(black_box(&buffer[at..])) {
                at += header.total;
                rows += 1;
            }
            rows
        })
    });
}

/// What the look for a trace adds to each statement: while no traces are wanted, and while one is wanted of none that does not ask for it.
fn tracing(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tracer = |endpoint: &str| {
        let config = Tracing { endpoint: endpoint.into(), sample_ratio: 0.0, ..Tracing::default() };
        Tracer::new(&config, runtime.handle().clone()).expect("a tracer")
    };
    let mut group = c.benchmark_group("tracing");
    for (name, tracer) in [("off", tracer("")), ("on, sampling none", tracer("http://127.0.0.1:9"))] {
        assert_eq!(tracer.is_none(), name == "off");
        group.bench_function(name, |b| {
            b.iter(|| black_box(&tracer).as_ref().and_then(|tracer| tracer.begin(black_box(PGBENCH))))
        });
    }
}

criterion_group! {
    name = hot_path;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = statements, keys, store, ledger, versions, frames, tracing
}
criterion_main!(hot_path);
