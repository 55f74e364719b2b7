//! How long something takes, added to a histogram when it is over, however it ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::histogram::DurationHistogram;

#[derive(Debug)]
pub struct Timer {
    started: Instant,
    histogram: Arc<DurationHistogram>,
}

impl Timer {
    pub fn start(histogram: Arc<DurationHistogram>) -> Self {
        Self { started: Instant::now(), histogram }
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Ends it now.
    pub fn stop(self) -> Duration {
        self.elapsed()
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.histogram.record(self.started.elapsed());
    }
}

/// Runs an expression and adds its time to `heliosdb_operation_duration_seconds{operation="..."}` of the global metrics, also if
/// it is left early.
///
/// ```
/// let rows = heliosproxy::time_operation!("example", { 6 * 7 });
/// assert_eq!(rows, 42);
/// let text = heliosproxy::monitoring::global_metrics().export_prometheus();
/// assert!(text.contains("heliosdb_operation_duration_seconds_count{operation=\"example\"} 1"));
/// ```
#[macro_export]
macro_rules! time_operation {
    ($operation:literal, $body:expr) => {{
        static HISTOGRAM: std::sync::LazyLock<std::sync::Arc<$crate::telemetry::histogram::DurationHistogram>> =
            std::sync::LazyLock::new(|| $crate::monitoring::operation_duration($operation));
        let _timer = $crate::monitoring::Timer::start(HISTOGRAM.clone());
        $body
    }};
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_counts_once_whether_it_is_stopped_or_dropped() {
        let histogram = Arc::new(DurationHistogram::default());
        let stopped = Timer::start(histogram.clone()).stop();
        drop(Timer::start(histogram.clone()));
        assert_eq!(histogram.counts().map(|(_, count)| count).sum::<u64>(), 2);
        assert!(stopped < Duration::from_secs(60));
    }
}
