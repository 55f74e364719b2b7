//! SHOW STATS: what has been asked since the start, and how long the answers took.

use super::Desk;
use super::command::Command;
use super::table::{Row, Value, float, int};
use crate::telemetry::metrics::Path;

pub(super) const COMMAND: Command = Command {
    words: "SHOW STATS",
    follows: "",
    help: "Statements, hits, quantiles of the answers' times in milliseconds since the start; connections to the server now",
    changes: false,
    columns: &[
        int("uptime_secs"),
        int("clients"),
        int("queries"),
        int("reads"),
        int("writes"),
        int("cache_hits"),
        int("cache_misses"),
        int("cache_bypasses"),
        float("hit_ratio"),
        float("cache_p50_ms"),
        float("cache_p99_ms"),
        float("upstream_p50_ms"),
        float("upstream_p99_ms"),
        int("servers"),
        int("servers_idle"),
        int("max_servers"),
        int("waiting_clients"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

pub(super) fn rows(desk: &Desk) -> Vec<Row> {
    let (metrics, pool) = (&desk.shared.metrics, &desk.shared.pool);
    let seen = metrics.snapshot();
    let class = |class: &str| seen.count(&format!("heliosdb_queries_total{{class=\"{class}\"}}"));
    let access = |result: &str| seen.count(&format!("heliosdb_cache_accesses_total{{result=\"{result}\"}}"));
    let quantile = |path, q| Value::from(metrics.query_duration(path).quantile(q).map(|seconds| seconds * 1000.0));
    vec![vec![
        desk.uptime_secs().into(),
        desk.shared.seats.taken().into(),
        (seen.sum("heliosdb_queries_total") as u64).into(),
        class("read").into(),
        (class("write") + class("ddl")).into(),
        access("hit").into(),
        access("miss").into(),
        access("bypass").into(),
        hit_ratio(access("hit"), access("miss"), access("bypass")).into(),
        quantile(Path::Cache, 0.5),
        quantile(Path::Cache, 0.99),
        quantile(Path::Upstream, 0.5),
        quantile(Path::Upstream, 0.99),
        pool.limit().saturating_sub(pool.free()).into(),
        (seen.get("heliosdb_connections{side=\"upstream\",state=\"idle\"}") as u64).into(),
        pool.limit().into(),
        pool.waiting().into(),
    ]]
}

/// Of all reads that could have been hits or not; none if there were none.
pub(super) fn hit_ratio(hits: u64, misses: u64, bypasses: u64) -> Option<f64> {
    let all = hits + misses + bypasses;
    (all > 0).then(|| hits as f64 / all as f64)
}
