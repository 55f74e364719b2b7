//! Durations in fixed buckets: recording one is two relaxed additions, and no sample is kept.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets: microseconds, and as Prometheus writes them in seconds.
const BOUNDS: [(u64, &str); 26] = [
    (1, "0.000001"),
    (2, "0.000002"),
    (5, "0.000005"),
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
    (120_000_000, "120"),
    (300_000_000, "300"),
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

    /// How many were recorded by bucket: the bound in microseconds, and how many are no longer than it and longer than the bound
    /// before. The last one has no bound.
    pub fn counts(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = BOUNDS.iter().map(|(bound, _)| Some(*bound)).chain([None]);
        bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)))
    }

    /// The time in seconds below which this part (0 to 1) of what was recorded lies, evenly spread within its bucket as
    /// Prometheus assumes it. `None` if nothing was recorded.
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let counts = self.buckets.each_ref().map(|bucket| bucket.load(Ordering::Relaxed));
        let total: u64 = counts.iter().sum();
        let rank = part * total as f64;
        let (mut below, mut lower) = (0, 0);
        for (bucket, count) in counts.into_iter().enumerate() {
            // What is longer than all bounds is at least the last of them.
            let upper = BOUNDS.get(bucket).map_or(lower, |(bound, _)| *bound);
            if count > 0 && (below + count) as f64 >= rank {
                let within = (rank - below as f64).max(0.0) / count as f64;
                return Some((lower as f64 + (upper - lower) as f64 * within) / 1e6);
            }
            (below, lower) = (below + count, upper);
        }
        None
    }

    /// Appends its series in Prometheus's text format; `labels` are `name="value"` with commas between, or nothing.
    pub fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let mut count = 0;
        let bounds = BOUNDS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.load(Ordering::Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}");
        }
        let sum = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        let _ = writeln!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let histogram = DurationHistogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        for _ in 0..99 {
            histogram.record(Duration::from_micros(80));
        }
        histogram.record(Duration::from_secs(1000));
        let median = histogram.quantile(0.5).expect("something was recorded");
        assert!(median > 0.00005 && median <= 0.0001, "{median}");
        assert_eq!(histogram.quantile(1.0), Some(300.0));
    }
}
