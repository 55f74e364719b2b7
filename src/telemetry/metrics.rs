//! Every metric of the proxy, looked up once and kept: counting costs one atomic addition and no hashing of names.
//!
//! They belong to a collector; each has its own figures, and the process's is the global one.

mod labels;
pub mod names;

use std::sync::Arc;

use metrics::{Counter, Gauge};

use super::collector::{Labels, MetricsCollector};
use super::histogram::DurationHistogram;
use super::process::Process;
use super::snapshot::Snapshot;
use super::timer::Timer;
use crate::guard::State as BreakerState;
use names::Name;

pub use labels::{
    Access, BYPASS_REASONS, Class, ErrorKind, Eviction, Operation, Outcome, Path, Pin, Scope, Side, State, Unsplit,
};

/// The proxy's metrics. Clone-free: share it by `Arc`.
pub struct Metrics {
    collector: Arc<MetricsCollector>,
    connections: [[Gauge; State::ALL.len()]; Side::ALL.len()],
    queries: [Counter; Class::ALL.len()],
    query_duration: [Arc<DurationHistogram>; Path::ALL.len()],
    cache_accesses: [Counter; Access::ALL.len()],
    cache_bypass: [Counter; BYPASS_REASONS.len()],
    cache_evictions: [Counter; Eviction::ALL.len()],
    cache_invalidations: [Counter; Scope::ALL.len()],
    operation_errors: [[Counter; ErrorKind::ALL.len()]; Operation::ALL.len()],
    operation_duration: [Arc<DurationHistogram>; Operation::ALL.len()],
    pins: [Counter; Pin::ALL.len()],
    retry_attempts: [Counter; 2],
    statement_retries: [Counter; 2],
    admission_waits: [Counter; 2],
    breaker_state_changes: [Counter; BreakerState::ALL.len()],
    breaker_state: [Gauge; BreakerState::ALL.len()],
    /// Bytes that cached results may take.
    pub cache_limit_bytes: Gauge,
    unsplit: [Counter; Unsplit::ALL.len()],
    parallel_duration: [Arc<DurationHistogram>; Outcome::ALL.len()],
    streaming_duration: [Arc<DurationHistogram>; Outcome::ALL.len()],
    /// Rows of streamed results, and batches.
    pub streaming_rows: Counter,
    pub streaming_batches: Counter,
    /// Bytes held by cached results.
    pub cache_bytes: Gauge,
    /// Results in the cache.
    pub cache_entries: Gauge,
    /// Answers that were older than they should have been, while the server was not available.
    pub cache_stale: Counter,
}

impl Metrics {
    /// With a collector of their own.
    pub fn new() -> Self {
        Self::on(Arc::default())
    }

    /// In a collector that others may use too.
    pub fn on(collector: Arc<MetricsCollector>) -> Self {
        let counter = |name: Name, labels: Labels<'_>| collector.counter(name.0, name.1, labels);
        let gauge = |name: Name, labels: Labels<'_>| collector.gauge(name.0, name.1, labels);
        let histogram = |name: Name, labels: Labels<'_>| collector.histogram(name.0, name.1, labels);
        let retries = |operation| {
            ["false", "true"]
                .map(|success| counter(names::RETRY_ATTEMPTS, &[("operation", operation), ("success", success)]))
        };
        Self {
            connections: Side::ALL.map(|side| {
                State::ALL.map(|state| gauge(names::CONNECTIONS, &[("side", side.label()), ("state", state.label())]))
            }),
            queries: Class::ALL.map(|class| counter(names::QUERIES, &[("class", class.label())])),
            query_duration: Path::ALL.map(|path| histogram(names::QUERY_DURATION, &[("path", path.label())])),
            cache_accesses: Access::ALL.map(|access| counter(names::CACHE_ACCESSES, &[("result", access.label())])),
            cache_bypass: BYPASS_REASONS.map(|reason| counter(names::CACHE_BYPASS, &[("reason", reason)])),
            cache_evictions: Eviction::ALL.map(|reason| counter(names::CACHE_EVICTIONS, &[("reason", reason.label())])),
            cache_invalidations: Scope::ALL
                .map(|scope| counter(names::CACHE_INVALIDATIONS, &[("scope", scope.label())])),
            operation_errors: Operation::ALL.map(|operation| {
                ErrorKind::ALL.map(|kind| {
                    let labels = [("operation", operation.label()), ("kind", kind.label())];
                    counter(names::OPERATION_ERRORS, &labels)
                })
            }),
            operation_duration: Operation::ALL
                .map(|operation| histogram(names::OPERATION_DURATION, &[("operation", operation.label())])),
            pins: Pin::ALL.map(|pin| counter(names::PINS, &[("reason", pin.label())])),
            retry_attempts: retries(Operation::Connect.label()),
            statement_retries: retries("statement"),
            admission_waits: ["late", "admitted"].map(|result| counter(names::ADMISSION_WAITS, &[("result", result)])),
            breaker_state_changes: BreakerState::ALL.map(|state| {
                let labels = [("service", "upstream"), ("state", state.label())];
                counter(names::BREAKER_CHANGES, &labels)
            }),
            breaker_state: BreakerState::ALL.map(|state| {
                let labels = [("service", "upstream"), ("state", state.label())];
                let gauge = gauge(names::BREAKER_STATE, &labels);
                gauge.set(f64::from(state == BreakerState::Closed));
                gauge
            }),
            unsplit: Unsplit::ALL.map(|reason| counter(names::PARALLEL_SKIPPED, &[("reason", reason.label())])),
            parallel_duration: Outcome::ALL
                .map(|outcome| histogram(names::PARALLEL_DURATION, &[("outcome", outcome.label())])),
            streaming_duration: Outcome::ALL
                .map(|outcome| histogram(names::STREAMING_DURATION, &[("outcome", outcome.label())])),
            streaming_rows: counter(names::STREAMING_ROWS, &[]),
            streaming_batches: counter(names::STREAMING_BATCHES, &[]),
            cache_limit_bytes: gauge(names::CACHE_LIMIT_BYTES, &[]),
            cache_bytes: gauge(names::CACHE_BYTES, &[]),
            cache_entries: gauge(names::CACHE_ENTRIES, &[]),
            cache_stale: counter(names::CACHE_STALE, &[]),
            collector,
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

    /// Counts the time until it is dropped.
    pub fn time(&self, operation: Operation) -> Timer {
        Timer::start(self.operation_duration[operation as usize].clone())
    }

    /// A miss has waited for its turn, and got it or not.
    pub fn admission_waits(&self, admitted: bool) -> &Counter {
        &self.admission_waits[usize::from(admitted)]
    }

    /// Reads that were asked again, by whether that has led to an answer.
    pub fn statement_retries(&self, success: bool) -> &Counter {
        &self.statement_retries[usize::from(success)]
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

    pub fn unsplit(&self, reason: Unsplit) -> &Counter {
        &self.unsplit[reason as usize]
    }

    pub fn parallel_duration(&self, outcome: Outcome) -> &DurationHistogram {
        &self.parallel_duration[outcome as usize]
    }

    pub fn streaming_duration(&self, outcome: Outcome) -> &DurationHistogram {
        &self.streaming_duration[outcome as usize]
    }

    /// Everything in Prometheus's text format.
    pub fn render(&self) -> String {
        let mut text = self.collector.export_prometheus();
        let version = env!("CARGO_PKG_VERSION");
        text.push_str("# HELP heliosdb_build_info The proxy's version; always 1\n# TYPE heliosdb_build_info gauge\n");
        text.push_str(&format!("heliosdb_build_info{{version=\"{version}\"}} 1\n"));
        if let Some(process) = Process::now() {
            process.render(&mut text);
        }
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

#[cfg(test)]
mod tests;
