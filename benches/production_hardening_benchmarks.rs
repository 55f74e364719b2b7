//! What watching and guarding cost: metrics, exports, traces, the breaker, retries, health and timers.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use heliosproxy::guard::{CircuitBreaker, CircuitBreakerConfig, Fault, RetryConfig};
use heliosproxy::monitoring::{
    HealthCheck, HealthChecker, HealthStatus, MetricsCollector, SpanContext, Timer, TracedOperation,
};

/// Kept handles, as the proxy uses them.
fn metrics(c: &mut Criterion) {
    let collector = MetricsCollector::new();
    let mut group = c.benchmark_group("metrics");
    let counter = collector.counter("c_total", "C", &[("kind", "a")]);
    group.bench_function("counter", |b| b.iter(|| counter.increment(black_box(1))));
    let gauge = collector.gauge("g", "G", &[]);
    group.bench_function("gauge", |b| b.iter(|| gauge.set(black_box(7.0))));
    let histogram = collector.histogram("h_seconds", "H", &[]);
    group.bench_function("histogram", |b| b.iter(|| histogram.record(black_box(Duration::from_micros(700)))));
}

/// Looking a series up each time, which a hot path does not do.
fn labelled_lookups(c: &mut Criterion) {
    let collector = MetricsCollector::new();
    let labels: &[(&str, &str)] = &[("operation", "connect"), ("success", "true")];
    let mut group = c.benchmark_group("labelled lookups");
    group.bench_function("counter", |b| b.iter(|| collector.counter("c_total", "C", black_box(labels)).increment(1)));
    group.bench_function("histogram", |b| {
        b.iter(|| collector.histogram("h_seconds", "H", black_box(labels)).record(Duration::from_micros(7)))
    });
}

/// One thread's updates while another one makes the same.
fn concurrent_updates(c: &mut Criterion) {
    let collector = MetricsCollector::new();
    let (counter, histogram) = (collector.counter("c_total", "C", &[]), collector.histogram("h_seconds", "H", &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let other = std::thread::spawn({
        let (counter, histogram, stop) = (counter.clone(), histogram.clone(), stop.clone());
        move || {
            while !stop.load(Ordering::Relaxed) {
                counter.increment(1);
                histogram.record(Duration::from_micros(7));
            }
        }
    });
    let mut group = c.benchmark_group("concurrent updates");
    group.bench_function("counter", |b| b.iter(|| counter.increment(black_box(1))));
    group.bench_function("histogram", |b| b.iter(|| histogram.record(black_box(Duration::from_micros(7)))));
    stop.store(true, Ordering::Relaxed);
    other.join().expect("it ends when told");
}

/// All metrics of a proxy, as a scrape gets them.
fn export(c: &mut Criterion) {
    let collector = Arc::new(MetricsCollector::new());
    let _proxy = heliosproxy::telemetry::metrics::Metrics::on(collector.clone());
    let mut group = c.benchmark_group("export");
    group.bench_function("prometheus", |b| b.iter(|| collector.export_prometheus()));
    group.bench_function("json", |b| b.iter(|| collector.export_json()));
}

fn spans(c: &mut Criterion) {
    const COMMENT: &[u8] = b"SELECT 1 /*traceparent='00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'*/";
    let mut group = c.benchmark_group("spans");
    let root = TracedOperation::new("root");
    group.bench_function("operation", |b| b.iter(|| TracedOperation::new("query")));
    group.bench_function("child", |b| b.iter(|| root.child("upstream")));
    group.bench_function("write a traceparent", |b| b.iter(|| root.context().traceparent()));
    group.bench_function("read one from a comment", |b| b.iter(|| SpanContext::of_comment(black_box(COMMENT))));
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

fn breaker(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let mut group = c.benchmark_group("breaker");
    let closed = CircuitBreaker::new(CircuitBreakerConfig::default());
    group.bench_function("state", |b| b.iter(|| black_box(&closed).state()));
    group.bench_function("a call through a closed one", |b| {
        b.iter(|| runtime.block_on(closed.call(async { Ok::<_, Broken>(black_box(7)) })).is_ok())
    });
    let open = CircuitBreaker::new(CircuitBreakerConfig { failure_threshold: 1, ..CircuitBreakerConfig::default() });
    open.failed();
    group.bench_function("a call that an open one refuses", |b| {
        b.iter(|| runtime.block_on(open.call(async { Ok::<_, Broken>(black_box(7)) })).is_err())
    });
}

fn jitter(c: &mut Criterion) {
    let mut group = c.benchmark_group("backoff");
    let drawn = RetryConfig::default();
    group.bench_function("with jitter", |b| b.iter(|| drawn.delay(black_box(3))));
    let fixed = RetryConfig { jitter: false, ..RetryConfig::default() };
    group.bench_function("without", |b| b.iter(|| fixed.delay(black_box(3))));
}

fn health(c: &mut Criterion) {
    let mut checker = HealthChecker::default();
    for name in ["upstream", "catalog", "breaker", "cache", "pools", "server"] {
        checker.add(HealthCheck::new(name, || (HealthStatus::Healthy, "as it should be".into())));
    }
    c.bench_function("health/six components", |b| b.iter(|| checker.check()));
}

fn timers(c: &mut Criterion) {
    let histogram = MetricsCollector::new().histogram("h_seconds", "H", &[]);
    let mut group = c.benchmark_group("timers");
    group.bench_function("timer", |b| b.iter(|| Timer::start(histogram.clone()).stop()));
    group.bench_function("time_operation!", |b| {
        b.iter(|| heliosproxy::time_operation!("bench", Ok::<_, Infallible>(black_box(7))))
    });
}

criterion_group! {
    name = production_hardening;
    config = Criterion::default().sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    targets = metrics, labelled_lookups, concurrent_updates, export, spans, breaker, jitter, health, timers
}
criterion_main!(production_hardening);
