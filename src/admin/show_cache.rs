//! SHOW CACHE: what the cache holds, and why results have left it.

use super::Desk;
use super::command::Command;
use super::show_stats::hit_ratio;
use super::table::{Row, boolean, float, int};

const MEBIBYTE: usize = 1024 * 1024;

pub(super) const COMMAND: Command = Command {
    words: "SHOW CACHE",
    follows: "",
    help: "What the cache holds, its hits, and why results have left it",
    changes: false,
    columns: &[
        boolean("enabled"),
        int("entries"),
        int("max_entries"),
        int("bytes"),
        int("max_bytes"),
        int("hits"),
        int("misses"),
        int("bypasses"),
        float("hit_ratio"),
        int("evicted_capacity"),
        int("evicted_ttl"),
        int("evicted_invalid"),
        int("invalidations_table"),
        int("invalidations_everything"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

pub(super) fn rows(desk: &Desk) -> Vec<Row> {
    let shared = &desk.shared;
    let config = shared.config.load();
    let seen = shared.metrics.snapshot();
    let labelled = |name: &str, label: &str, value: &str| seen.count(&format!("{name}{{{label}=\"{value}\"}}"));
    let access = |result| labelled("heliosdb_cache_accesses_total", "result", result);
    let eviction = |reason| labelled("heliosdb_cache_evictions_total", "reason", reason);
    let invalidation = |scope| labelled("heliosdb_cache_invalidations_total", "scope", scope);
    vec![vec![
        shared.caching.into(),
        shared.store.entries().into(),
        config.cache.max_entries.into(),
        shared.store.bytes().into(),
        (config.cache.max_memory_mb * MEBIBYTE).into(),
        access("hit").into(),
        access("miss").into(),
        access("bypass").into(),
        hit_ratio(access("hit"), access("miss"), access("bypass")).into(),
        eviction("capacity").into(),
        eviction("ttl").into(),
        eviction("invalid").into(),
        invalidation("table").into(),
        invalidation("everything").into(),
    ]]
}
