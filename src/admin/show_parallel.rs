//! SHOW PARALLEL: reads that were split over several connections, and what that takes now.

use super::Desk;
use super::command::Command;
use super::table::{Row, boolean, float, int};
use crate::telemetry::metrics::Outcome;

pub(super) const COMMAND: Command = Command {
    words: "SHOW PARALLEL",
    follows: "",
    help: "Reads split over several connections: how many, how they ended, their times in milliseconds, what they hold now",
    changes: false,
    columns: &[
        boolean("enabled"),
        int("complete"),
        int("failed"),
        int("cancelled"),
        int("not_split"),
        float("p50_ms"),
        float("p99_ms"),
        int("connections_working"),
        int("connections_idle"),
        int("max_connections"),
        int("memory_mb"),
        int("max_memory_mb"),
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
    let (config, metrics, used) = (&shared.config.load().parallel, &shared.metrics, shared.parallel.usage());
    let ended = |outcome| metrics.parallel_duration(outcome).counts().map(|(_, count)| count).sum::<u64>();
    let quantile = |part| metrics.parallel_duration(Outcome::Complete).quantile(part).map(|seconds| seconds * 1000.0);
    vec![vec![
        config.enabled.into(),
        ended(Outcome::Complete).into(),
        ended(Outcome::Failed).into(),
        ended(Outcome::Cancelled).into(),
        (metrics.snapshot().sum("heliosdb_parallel_skipped_total") as u64).into(),
        quantile(0.5).into(),
        quantile(0.99).into(),
        used.working.into(),
        used.idle.into(),
        used.max_connections.into(),
        used.memory_mb.into(),
        used.max_memory_mb.into(),
    ]]
}
