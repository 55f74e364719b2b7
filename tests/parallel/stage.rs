//! A proxy that splits whatever can be split, however small.

use std::future::Future;

use crate::harness::raw::{Batch, Frame};
use crate::harness::{Options, Raw, Stage, cluster, http};

/// Everything is split over three connections, a few blocks at a time.
pub fn options() -> Options {
    Options::default()
        .key("auth.mode", "trust")
        .key("parallel.enabled", "true")
        .key("parallel.max_parallelism", 3)
        .key("parallel.adaptive_parallelism", "false")
        .key("parallel.min_rows_for_parallel", 0)
        .key("parallel.cost_threshold", 0)
        .key("parallel.min_table_mb", 0)
        .key("parallel.min_chunk_pages", 1)
        .key("parallel.max_chunk_pages", 4)
}

/// A stage on which `setup` has been run. Its database compiles nothing: the planner guesses that small tables are large.
pub async fn stage(options: Options, setup: &str) -> Stage {
    let stage = Stage::on(cluster(), options).await;
    stage.direct().await.run(&format!("ALTER DATABASE {} SET jit = off", stage.database)).await;
    stage.direct().await.run(setup).await;
    stage.direct().await.run("CREATE TABLE nothing (n int)").await;
    until_the_catalogue_is_known(&stage).await;
    stage
}

/// A table of 20,000 rows in about 200 blocks.
pub const NUMBERS: &str =
    "CREATE TABLE numbers AS SELECT n, 'text ' || n AS t, n % 7 AS m FROM generate_series(1, 20000) n; ANALYZE numbers";

/// Waits until the proxy has read the catalogue: before it splits nothing.
pub async fn until_the_catalogue_is_known(stage: &Stage) {
    let mut raw = stage.raw().await;
    loop {
        let before = skipped(stage, "catalog").await;
        raw.query("SELECT now() FROM nothing").await;
        if skipped(stage, "catalog").await == before {
            return;
        }
    }
}

const ENDED: &str = "heliosdb_parallel_query_duration_seconds_count";

/// Split statements that have ended in this way: `complete`, `failed` or `cancelled`.
pub async fn ended(stage: &Stage, outcome: &str) -> u64 {
    stage.proxy.metric(&format!("{ENDED}{{outcome=\"{outcome}\"}}")).await as u64
}

/// Reads that were not split for this reason.
pub async fn skipped(stage: &Stage, reason: &str) -> u64 {
    stage.proxy.metric(&format!("heliosdb_parallel_skipped_total{{reason=\"{reason}\"}}")).await as u64
}

/// What an answer says, but for the order of its rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    pub rows: Vec<Vec<u8>>,
    /// Everything else, in order.
    pub others: Vec<Frame>,
}

impl Answer {
    pub fn of(frames: Vec<Frame>) -> Self {
        let (rows, mut others): (Vec<_>, Vec<_>) = frames.into_iter().partition(|frame| frame.tag == b'D');
        let mut rows: Vec<_> = rows.into_iter().map(|frame| frame.body).collect();
        rows.sort();
        // Of an error only what it is: where in the server's source it comes from is nobody's business.
        for frame in others.iter_mut().filter(|frame| frame.tag == b'E') {
            frame.body = frame.field('C').unwrap_or_default().into_bytes();
        }
        // Rows that came before an error are as many as it happened to be.
        if others.iter().any(|frame| frame.tag == b'E') {
            rows.clear();
            others.retain(|frame| frame.tag != b'T');
        }
        Self { rows, others }
    }
}

/// Asks both and compares; fails if the proxy's answer was not split.
pub async fn same(stage: &Stage, raw: &mut Raw, direct: &mut Raw, batch: Batch) -> Answer {
    let before = ended(stage, "complete").await;
    let answer = Answer::of(raw.ask(batch.clone()).await);
    assert_eq!(answer, Answer::of(direct.ask(batch).await));
    let now = ended(stage, "complete").await;
    assert_eq!(now, before + 1, "it was not split: {}", why(stage).await);
    answer
}

/// All counters of reads that were not split, for a failed test to show.
pub async fn why(stage: &Stage) -> String {
    let (_, text) = http::get(stage.proxy.http, "/metrics").await.unwrap_or_default();
    let counted = |line: &&str| line.starts_with("heliosdb_parallel_skipped_total") && !line.ends_with(" 0");
    text.lines().filter(counted).collect::<Vec<_>>().join("\n")
}

/// Runs `work` and fails if anything was split meanwhile.
pub async fn unsplit<T>(stage: &Stage, what: &str, work: impl Future<Output = T>) -> T {
    let before = stage.proxy.metric(ENDED).await;
    let result = work.await;
    assert_eq!(stage.proxy.metric(ENDED).await, before, "it was split: {what}");
    result
}
