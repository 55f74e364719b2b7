//! One function for each thing that happens, into the global metrics under the proxy's own names.
//!
//! They look their series up each time, which a query path that is hot should not: it keeps handles.

use std::time::Duration;

use super::{global_metrics, operation_duration};
use crate::telemetry::collector::Labels;
use crate::telemetry::metrics::Outcome;
use crate::telemetry::metrics::names::{self, Name};

fn count(name: Name, labels: Labels<'_>, by: u64) {
    global_metrics().counter(name.0, name.1, labels).increment(by);
}

fn time(name: Name, labels: Labels<'_>, took: Duration) {
    global_metrics().histogram(name.0, name.1, labels).record(took);
}

/// A streamed result is complete.
pub fn record_streaming_query(rows: u64, batches: u64, took: Duration) {
    count(names::STREAMING_ROWS, &[], rows);
    count(names::STREAMING_BATCHES, &[], batches);
    time(names::STREAMING_DURATION, &[("outcome", Outcome::Complete.label())], took);
}

/// A parallel scan is complete.
pub fn record_parallel_query(took: Duration) {
    time(names::PARALLEL_DURATION, &[("outcome", Outcome::Complete.label())], took);
}

pub fn record_cache_access(hit: bool) {
    count(names::CACHE_ACCESSES, &[("result", if hit { "hit" } else { "miss" })], 1);
}

/// `reason` is one of the proxy's: capacity, ttl, invalid.
pub fn record_cache_eviction(reason: &'static str) {
    count(names::CACHE_EVICTIONS, &[("reason", reason)], 1);
}

pub fn record_circuit_breaker_state_change(service: &'static str, state: crate::guard::State) {
    count(names::BREAKER_CHANGES, &[("service", service), ("state", state.label())], 1);
}

/// An attempt beyond the first.
pub fn record_retry_attempt(operation: &'static str, success: bool) {
    let success = if success { "true" } else { "false" };
    count(names::RETRY_ATTEMPTS, &[("operation", operation), ("success", success)], 1);
}

/// An operation is over; `kind` says how it failed if it did.
pub fn record_operation(operation: &'static str, took: Duration, failure: Option<&'static str>) {
    operation_duration(operation).record(took);
    if let Some(kind) = failure {
        count(names::OPERATION_ERRORS, &[("operation", operation), ("kind", kind)], 1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// The names of the labels of every series, by the metric's name.
    fn labels(text: &str) -> BTreeMap<String, BTreeSet<Vec<String>>> {
        let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with("heliosdb_")) {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0.to_owned()));
            found.entry(name.to_owned()).or_default().insert(names.filter(|name| name != "le").collect());
        }
        found
    }

    #[test]
    fn everything_joins_the_series_of_the_proxy() {
        // In one collector, as in the proxy's own process.
        let _proxy = crate::telemetry::metrics::Metrics::on(global_metrics().clone());
        record_streaming_query(1000, 10, Duration::from_millis(5));
        record_parallel_query(Duration::from_millis(5));
        record_cache_access(true);
        record_cache_eviction("capacity");
        record_circuit_breaker_state_change("other", crate::guard::State::Open);
        record_retry_attempt("other", false);
        record_operation("other", Duration::from_millis(1), Some("io"));
        let text = global_metrics().export_prometheus();
        for series in [
            "heliosdb_streaming_query_rows_total 1000",
            "heliosdb_streaming_query_batches_total 10",
            "heliosdb_streaming_query_duration_seconds_count{outcome=\"complete\"} 1",
            "heliosdb_parallel_query_duration_seconds_count{outcome=\"complete\"} 1",
            "heliosdb_cache_accesses_total{result=\"hit\"} 1",
            "heliosdb_cache_evictions_total{reason=\"capacity\"} 1",
            "heliosdb_circuit_breaker_state_changes_total{service=\"other\",state=\"open\"} 1",
            "heliosdb_retry_attempts_total{operation=\"other\",success=\"false\"} 1",
            "heliosdb_operation_duration_seconds_count{operation=\"other\"} 1",
            "heliosdb_operation_errors_total{operation=\"other\",kind=\"io\"} 1",
        ] {
            assert!(text.lines().any(|line| line == series), "{series} in\n{text}");
        }
        for (name, labels) in labels(&text) {
            assert_eq!(labels.len(), 1, "{name} has series with other labels than its others: {labels:?}");
        }
    }
}
