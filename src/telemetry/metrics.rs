//! Every metric of the proxy, looked up once and kept: counting costs one atomic addition and no hashing of names.
//!
//! The recorder is owned, not global: each [`Metrics`] has its own figures.

mod labels;

use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use labels::{Access, BYPASS_REASONS, Class, ErrorKind, Eviction, Operation, Path, Scope, Side, State};

/// How often [`Metrics::run_upkeep`] must run: the exporter keeps every sample of a histogram until then.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Upper bounds of the histograms' buckets in seconds, 10 microseconds to 60 seconds.
const BUCKETS: [f64; 21] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// The proxy's metrics. Clone-free: share it by `Arc`.
pub struct Metrics {
    handle: PrometheusHandle,
    connections: [[Gauge; State::ALL.len()]; Side::ALL.len()],
    queries: [Counter; Class::ALL.len()],
    query_duration: [Histogram; Path::ALL.len()],
    cache_accesses: [Counter; Access::ALL.len()],
    cache_bypass: [Counter; BYPASS_REASONS.len()],
    cache_evictions: [Counter; Eviction::ALL.len()],
    cache_invalidations: [Counter; Scope::ALL.len()],
    operation_errors: [[Counter; ErrorKind::ALL.len()]; Operation::ALL.len()],
    operation_duration: [Histogram; Operation::ALL.len()],
    /// Bytes held by cached results.
    pub cache_bytes: Gauge,
    /// Results in the cache.
    pub cache_entries: Gauge,
}

impl Metrics {
    pub fn new() -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new().set_buckets(&BUCKETS)?.build_recorder();
        let names = Names(&recorder);
        names.describe();
        Ok(Self {
            handle: recorder.handle(),
            connections: Side::ALL.map(|side| {
                State::ALL.map(|state| {
                    names.gauge("heliosdb_connections", &[("side", side.label()), ("state", state.label())])
                })
            }),
            queries: Class::ALL.map(|class| names.counter("heliosdb_queries_total", &[("class", class.label())])),
            query_duration: Path::ALL
                .map(|path| names.histogram("heliosdb_query_duration_seconds", &[("path", path.label())])),
            cache_accesses: Access::ALL
                .map(|access| names.counter("heliosdb_cache_accesses_total", &[("result", access.label())])),
            cache_bypass: BYPASS_REASONS
                .map(|reason| names.counter("heliosdb_cache_bypass_total", &[("reason", reason)])),
            cache_evictions: Eviction::ALL
                .map(|reason| names.counter("heliosdb_cache_evictions_total", &[("reason", reason.label())])),
            cache_invalidations: Scope::ALL
                .map(|scope| names.counter("heliosdb_cache_invalidations_total", &[("scope", scope.label())])),
            operation_errors: Operation::ALL.map(|operation| {
                ErrorKind::ALL.map(|kind| {
                    let labels = [("operation", operation.label()), ("kind", kind.label())];
                    names.counter("heliosdb_operation_errors_total", &labels)
                })
            }),
            operation_duration: Operation::ALL.map(|operation| {
                names.histogram("heliosdb_operation_duration_seconds", &[("operation", operation.label())])
            }),
            cache_bytes: names.gauge("heliosdb_cache_bytes", &[]),
            cache_entries: names.gauge("heliosdb_cache_entries", &[]),
        })
    }

    pub fn connections(&self, side: Side, state: State) -> &Gauge {
        &self.connections[side as usize][state as usize]
    }

    pub fn queries(&self, class: Class) -> &Counter {
        &self.queries[class as usize]
    }

    pub fn query_duration(&self, path: Path) -> &Histogram {
        &self.query_duration[path as usize]
    }

    pub fn cache_accesses(&self, access: Access) -> &Counter {
        &self.cache_accesses[access as usize]
    }

    /// By index into [`BYPASS_REASONS`]; an index past its end counts as the last.
    pub fn bypass(&self, reason: usize) -> &Counter {
        &self.cache_bypass[reason.min(BYPASS_REASONS.len() - 1)]
    }

    pub fn cache_evictions(&self, reason: Eviction) -> &Counter {
        &self.cache_evictions[reason as usize]
    }

    pub fn cache_invalidations(&self, scope: Scope) -> &Counter {
        &self.cache_invalidations[scope as usize]
    }

    pub fn operation_errors(&self, operation: Operation, kind: ErrorKind) -> &Counter {
        &self.operation_errors[operation as usize][kind as usize]
    }

    pub fn operation_duration(&self, operation: Operation) -> &Histogram {
        &self.operation_duration[operation as usize]
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Sorts the histograms' samples into their buckets and frees them. Must run every [`UPKEEP_INTERVAL`].
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Registers and describes metrics at one recorder.
struct Names<'a>(&'a PrometheusRecorder);

const METADATA: Metadata<'static> = Metadata::new("heliosproxy", Level::INFO, None);

impl Names<'_> {
    fn counter(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Counter {
        self.0.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Gauge {
        self.0.register_gauge(&key(name, labels), &METADATA)
    }

    fn histogram(&self, name: &'static str, labels: &[(&'static str, &'static str)]) -> Histogram {
        self.0.register_histogram(&key(name, labels), &METADATA)
    }

    fn describe(&self) {
        let gauge = |name: &'static str, unit, text: &'static str| {
            self.0.describe_gauge(name.into(), Some(unit), text.into());
        };
        let counter = |name: &'static str, text: &'static str| {
            self.0.describe_counter(name.into(), Some(Unit::Count), text.into());
        };
        let histogram = |name: &'static str, text: &'static str| {
            self.0.describe_histogram(name.into(), Some(Unit::Seconds), text.into());
        };
        gauge("heliosdb_connections", Unit::Count, "Connections now, by side and by whether they run something");
        counter("heliosdb_queries_total", "Statements from clients, by what they do");
        histogram(
            "heliosdb_query_duration_seconds",
            "Seconds from a statement's arrival to the end of its answer, by where the answer came from",
        );
        counter("heliosdb_cache_accesses_total", "Statements that hit the cache, missed it, or were not for it");
        counter("heliosdb_cache_bypass_total", "Statements that were not for the cache, by the reason");
        counter("heliosdb_cache_evictions_total", "Results dropped from the cache, by the reason");
        counter("heliosdb_cache_invalidations_total", "Invalidations by writes, by how much each of them took");
        gauge("heliosdb_cache_bytes", Unit::Bytes, "Bytes held by cached results");
        gauge("heliosdb_cache_entries", Unit::Count, "Results in the cache");
        counter("heliosdb_operation_errors_total", "Failures of the proxy's own work upstream, by operation and kind");
        histogram("heliosdb_operation_duration_seconds", "Seconds that the proxy's own work upstream took");
    }
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
