//! Durations in fixed buckets: recording one is two relaxed additions, and no sample is kept.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets: microseconds, and as Prometheus writes them in seconds.
const BOUNDS: [(u64, &str); 21] = [
    (10, "0.00001"),
    (25, "0.000025"),
    (50, "0.00005"),
    (100, "0.0001"),
    (250, "0.00025"),
    (500, "0.0005"),
    (1_000, "0.001"),
    (2_500, "0.0025"),
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
    (30_000_000, "30"),
    (60_000_000, "60"),
];

#[derive(Debug, Default)]
pub struct DurationHistogram {
    /// One for each bound, and one for what is longer.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl DurationHistogram {
    pub fn record(&self, duration: Duration) {
        // Bounds are inclusive: a part of a microsecond counts as a whole one.
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let microseconds = nanoseconds.div_ceil(1000);
        let bucket = BOUNDS.partition_point(|(bound, _)| *bound < microseconds);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Appends its series in Prometheus's text format; `label` is `name="value"`.
    pub fn render(&self, name: &str, label: &str, out: &mut String) {
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}_bucket{{{label},le=\"{bound}\"}} {count}");
        }
        let sum = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        let _ = writeln!(out, "{name}_sum{{{label}}} {sum}\n{name}_count{{{label}}} {count}");
    }
}
