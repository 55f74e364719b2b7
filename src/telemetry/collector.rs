//! Counters, gauges and histograms by name, and all of them as text or JSON.
//!
//! A handle is looked up once and kept: using it costs an atomic addition. Equal names and labels are the same series. The number
//! of series is what the callers make it, so labels are texts of the program, never of a client.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::histogram::DurationHistogram;
use super::snapshot::Snapshot;

/// Names and values of a series' labels.
pub type Labels<'a> = &'a [(&'static str, &'static str)];

pub struct MetricsCollector {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    histograms: Mutex<BTreeMap<&'static str, Histograms>>,
}

/// All histograms of one name, by their labels as they are written.
struct Histograms {
    help: &'static str,
    series: BTreeMap<String, Arc<DurationHistogram>>,
}

const METADATA: Metadata<'static> = Metadata::new("heliosproxy", Level::INFO, None);

/// The collector of this process: what the proxy's `/metrics` shows.
pub fn global_metrics() -> &'static Arc<MetricsCollector> {
    static GLOBAL: LazyLock<Arc<MetricsCollector>> = LazyLock::new(Arc::default);
    &GLOBAL
}

impl MetricsCollector {
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        Self { handle: recorder.handle(), recorder, histograms: Mutex::default() }
    }

    pub fn counter(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Counter {
        self.recorder.describe_counter(name.into(), None, help.into());
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    pub fn gauge(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Gauge {
        self.recorder.describe_gauge(name.into(), None, help.into());
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    /// Of durations, in buckets from microseconds to a minute. Its name should end in `_seconds`.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: Labels<'_>) -> Arc<DurationHistogram> {
        let written = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect::<Vec<_>>().join(",");
        let mut histograms = self.histograms();
        let named = histograms.entry(name).or_insert_with(|| Histograms { help, series: BTreeMap::new() });
        named.series.entry(written).or_default().clone()
    }

    /// Everything in Prometheus's text format.
    pub fn export_prometheus(&self) -> String {
        let mut text = self.handle.render();
        for (name, Histograms { help, series }) in self.histograms().iter() {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
            series.iter().for_each(|(labels, histogram)| histogram.render(name, labels, &mut text));
        }
        text
    }

    /// Everything as an object with a member for each series, but for the buckets of histograms.
    pub fn export_json(&self) -> serde_json::Value {
        Snapshot::of(&self.export_prometheus()).json()
    }

    fn histograms(&self) -> MutexGuard<'_, BTreeMap<&'static str, Histograms>> {
        self.histograms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MetricsCollector {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for MetricsCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricsCollector").finish_non_exhaustive()
    }
}

fn key(name: &'static str, labels: Labels<'_>) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn equal_names_and_labels_are_one_series_in_both_exports() {
        let collector = MetricsCollector::new();
        collector.counter("jobs_total", "Jobs", &[("kind", "a")]).increment(2);
        collector.counter("jobs_total", "Jobs", &[("kind", "a")]).increment(3);
        collector.gauge("depth", "Depth", &[]).set(7.0);
        for _ in 0..2 {
            collector.histogram("job_seconds", "Time", &[("kind", "a")]).record(Duration::from_millis(500));
        }
        collector.histogram("idle_seconds", "Time", &[]).record(Duration::from_secs(1));
        let text = collector.export_prometheus();
        for line in [
            "# HELP jobs_total Jobs",
            "# TYPE jobs_total counter",
            "jobs_total{kind=\"a\"} 5",
            "depth 7",
            "# TYPE job_seconds histogram",
            "job_seconds_bucket{kind=\"a\",le=\"0.5\"} 2",
            "job_seconds_count{kind=\"a\"} 2",
            "idle_seconds_bucket{le=\"1\"} 1",
            "idle_seconds_sum 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let json = collector.export_json();
        assert_eq!(json["jobs_total{kind=\"a\"}"], 5.0);
        assert_eq!(json["job_seconds_sum{kind=\"a\"}"], 1.0);
    }

    #[test]
    fn threads_that_count_at_once_lose_nothing() {
        let collector = Arc::new(MetricsCollector::new());
        let count = || {
            let counter = collector.counter("n_total", "N", &[]);
            let histogram = collector.histogram("n_seconds", "N", &[]);
            for _ in 0..1000 {
                counter.increment(1);
                histogram.record(Duration::from_micros(1));
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(count))));
        let text = collector.export_prometheus();
        assert!(text.contains("n_total 4000") && text.contains("n_seconds_count 4000"), "{text}");
    }
}
