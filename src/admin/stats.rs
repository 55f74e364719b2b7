//! The same figures as one JSON object, for `/stats` and the status page.

use serde_json::{Value, json};

use super::command::Command;
use super::table::{self, Row};
use super::{
    Desk, show_breakers, show_cache, show_cache_advice, show_cache_top, show_parallel, show_parallel_skipped,
    show_pools, show_stats,
};
use crate::telemetry::histogram::DurationHistogram;
use crate::telemetry::metrics::Path;
use crate::telemetry::process::Process;

impl Desk {
    /// The tables of the admin database that change all the time, the times of answers by bucket, and every metric.
    pub fn stats(&self) -> Value {
        let metrics = &self.shared.metrics;
        let all = |command: &Command, rows: &[Row]| table::json(command.columns, rows);
        let first = |command: &Command, rows: &[Row]| match all(command, rows) {
            Value::Array(mut rows) if !rows.is_empty() => rows.swap_remove(0),
            _ => Value::Null,
        };
        let process = Process::now().unwrap_or_default();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_secs": self.uptime_secs(),
            "uptime_ms": self.started.elapsed().as_millis() as u64,
            "stats": first(&show_stats::COMMAND, &show_stats::rows(self)),
            "cache": first(&show_cache::COMMAND, &show_cache::rows(self)),
            "pools": all(&show_pools::COMMAND, &show_pools::rows(self)),
            "breakers": all(&show_breakers::COMMAND, &show_breakers::rows(self)),
            "parallel": first(&show_parallel::COMMAND, &show_parallel::rows(self)),
            "parallel_skipped": all(&show_parallel_skipped::COMMAND, &show_parallel_skipped::rows(self)),
            "top": all(&show_cache_top::COMMAND, &show_cache_top::rows(self, show_cache_top::By::Saved)),
            "advice": all(&show_cache_advice::COMMAND, &show_cache_advice::rows(self)),
            "process": { "resident_bytes": process.resident_bytes, "cpu_seconds": process.cpu_seconds },
            "latency": {
                "cache": buckets(metrics.query_duration(Path::Cache)),
                "upstream": buckets(metrics.query_duration(Path::Upstream)),
                "parallel": buckets(metrics.query_duration(Path::Parallel)),
            },
            "metrics": metrics.snapshot().json(),
        })
    }
}

/// Pairs of a bound in microseconds, `null` for none, and how many were no longer.
fn buckets(histogram: &DurationHistogram) -> Value {
    histogram.counts().map(|(bound, count)| json!([bound, count])).collect()
}
