//! Every metric of the proxy, looked up once and kept: counting costs one atomic addition and no hashing of names.
//!
//! The recorder is owned, not global: each [`Metrics`] has its own figures.

mod labels;

use metrics::{Counter, Gauge, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use super::histogram::DurationHistogram;
use super::process::Process;
use super::snapshot::Snapshot;
use crate::guard::State as BreakerState;
pub use labels::{Access, BYPASS_REASONS, Class, ErrorKind, Eviction, Operation, Path, Pin, Scope, Side, State};

/// The proxy's metrics. Clone-free: share it by `Arc`.
pub struct Metrics {
    handle: PrometheusHandle,
    connections: [[Gauge; State::ALL.len()]; Side::ALL.len()],
    queries: [Counter; Class::ALL.len()],
    query_duration: [DurationHistogram; Path::ALL.len()],
    cache_accesses: [Counter; Access::ALL.len()],
    cache_bypass: [Counter; BYPASS_REASONS.len()],
    cache_evictions: [Counter; Eviction::ALL.len()],
    cache_invalidations: [Counter; Scope::ALL.len()],
    operation_errors: [[Counter; ErrorKind::ALL.len()]; Operation::ALL.len()],
    operation_duration: [DurationHistogram; Operation::ALL.len()],
    pins: [Counter; Pin::ALL.len()],
    retry_attempts: [Counter; 2],
    breaker_state_changes: [Counter; BreakerState::ALL.len()],
    breaker_state: [Gauge; BreakerState::ALL.len()],
    /// Bytes that cached results may take.
    pub cache_limit_bytes: Gauge,
    /// Bytes held by cached results.
    pub cache_bytes: Gauge,
    /// Results in the cache.
    pub cache_entries: Gauge,
}

impl Metrics {
    pub fn new() -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        let names = Names(&recorder);
        names.describe();
        Self {
            handle: recorder.handle(),
            connections: Side::ALL.map(|side| {
                State::ALL.map(|state| {
                    names.gauge("heliosdb_connections", &[("side", side.label()), ("state", state.label())])
                })
            }),
            queries: Class::ALL.map(|class| names.counter("heliosdb_queries_total", &[("class", class.label())])),
            query_duration: Default::default(),
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
            operation_duration: Default::default(),
            pins: Pin::ALL.map(|pin| names.counter("heliosdb_pins_total", &[("reason", pin.label())])),
            retry_attempts: ["false", "true"].map(|success| {
                let labels = [("operation", Operation::Connect.label()), ("success", success)];
                names.counter("heliosdb_retry_attempts_total", &labels)
            }),
            breaker_state_changes: BreakerState::ALL.map(|state| {
                let labels = [("service", "upstream"), ("state", state.label())];
                names.counter("heliosdb_circuit_breaker_state_changes_total", &labels)
            }),
            breaker_state: BreakerState::ALL.map(|state| {
                let labels = [("service", "upstream"), ("state", state.label())];
                let gauge = names.gauge("heliosdb_circuit_breaker_state", &labels);
                gauge.set(f64::from(state == BreakerState::Closed));
                gauge
            }),
            cache_limit_bytes: names.gauge("heliosdb_cache_limit_bytes", &[]),
            cache_bytes: names.gauge("heliosdb_cache_bytes", &[]),
            cache_entries: names.gauge("heliosdb_cache_entries", &[]),
        }
    }

    pub fn connections(&self, side: Side, state: State) -> &Gauge {
        &self.connections[side as usize][state as usize]
    }

    pub fn queries(&self, class: Class) -> &Counter {
        &self.queries[class as usize]
    }

    pub fn query_duration(&self, path: Path) -> &DurationHistogram {
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

    pub fn operation_duration(&self, operation: Operation) -> &DurationHistogram {
        &self.operation_duration[operation as usize]
    }

    /// Sessions that were tied to a shared connection.
    pub fn pins(&self, reason: Pin) -> &Counter {
        &self.pins[reason as usize]
    }

    /// Attempts to connect beyond the first.
    pub fn retry_attempts(&self, success: bool) -> &Counter {
        &self.retry_attempts[usize::from(success)]
    }

    /// The circuit breaker has changed its state.
    pub fn breaker_is(&self, state: BreakerState) {
        self.breaker_state_changes[state as usize].increment(1);
        for (gauge, of) in self.breaker_state.iter().zip(BreakerState::ALL) {
            gauge.set(f64::from(of == state));
        }
    }

    /// All of them as they are now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.render())
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        let version = env!("CARGO_PKG_VERSION");
        text.push_str("# HELP heliosdb_build_info The proxy's version; always 1\n# TYPE heliosdb_build_info gauge\n");
        text.push_str(&format!("heliosdb_build_info{{version=\"{version}\"}} 1\n"));
        if let Some(process) = Process::now() {
            process.render(&mut text);
        }
        let mut histograms =
            |name: &str, help: &str, series: &mut dyn Iterator<Item = (String, &DurationHistogram)>| {
                text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} histogram\n"));
                series.for_each(|(label, histogram)| histogram.render(name, &label, &mut text));
            };
        histograms(
            "heliosdb_query_duration_seconds",
            "Seconds from a statement's arrival to the end of its answer, by where the answer came from",
            &mut Path::ALL.into_iter().map(|path| (format!(r#"path="{}""#, path.label()), self.query_duration(path))),
        );
        histograms(
            "heliosdb_operation_duration_seconds",
            "Seconds that the proxy's own work upstream took",
            &mut Operation::ALL
                .into_iter()
                .map(|of| (format!(r#"operation="{}""#, of.label()), self.operation_duration(of))),
        );
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
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

    fn describe(&self) {
        let gauge = |name: &'static str, unit, text: &'static str| {
            self.0.describe_gauge(name.into(), Some(unit), text.into());
        };
        let counter = |name: &'static str, text: &'static str| {
            self.0.describe_counter(name.into(), Some(Unit::Count), text.into());
        };
        gauge("heliosdb_connections", Unit::Count, "Connections now, by side and by whether they run something");
        counter("heliosdb_queries_total", "Statements from clients, by what they do");
        counter("heliosdb_cache_accesses_total", "Statements that hit the cache, missed it, or were not for it");
        counter("heliosdb_cache_bypass_total", "Statements that were not for the cache, by the reason");
        counter("heliosdb_cache_evictions_total", "Results dropped from the cache, by the reason");
        counter("heliosdb_cache_invalidations_total", "Invalidations by writes, by how much each of them took");
        gauge("heliosdb_circuit_breaker_state", Unit::Count, "1 for the state that the circuit breaker is in");
        gauge("heliosdb_cache_limit_bytes", Unit::Bytes, "Bytes that cached results may take");
        gauge("heliosdb_cache_bytes", Unit::Bytes, "Bytes held by cached results");
        gauge("heliosdb_cache_entries", Unit::Count, "Results in the cache");
        counter(
            "heliosdb_pins_total",
            "Times that a session was tied to a shared connection, by what it had left there",
        );
        counter("heliosdb_retry_attempts_total", "Attempts beyond the first, by operation and outcome");
        counter(
            "heliosdb_circuit_breaker_state_changes_total",
            "Changes of the circuit breaker's state, by the new one",
        );
        counter("heliosdb_operation_errors_total", "Failures of the proxy's own work upstream, by operation and kind");
    }
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::from_static_parts(name, value)).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests;
