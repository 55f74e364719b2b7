//! Errors, cancel requests, clients and servers that vanish: a split read ends as one would, and leaves nothing behind.

use super::stage::{Answer, NUMBERS, ended, options, skipped, stage};
use crate::harness::raw::{Batch, cancel, tags};
use crate::harness::{Client, Raw, Stage, wait_until};

/// A table of some 40 MB, which no socket buffer holds.
pub(super) const LARGE: &str =
    "CREATE TABLE large AS SELECT n, repeat('x', 2000) AS t FROM generate_series(1, 20000) n; ANALYZE large";

/// All connections of this database but the asking one and the clients' own are idle, outside a transaction.
pub(super) async fn until_quiet(stage: &Stage, direct: &Client) {
    let sql = format!(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid() AND state <> 'idle'",
        stage.database
    );
    direct.until("nothing runs any more", &sql).await;
}

/// A cancel request for what this client runs, which ends by it.
pub(super) async fn cancelled(stage: &Stage, raw: &mut Raw) {
    let (pid, key) = raw.key();
    cancel(stage.proxy.port, pid, &key).await;
    let answer = raw.until_ready().await;
    let error = answer.iter().find(|frame| frame.tag == b'E').expect("it was cancelled");
    assert_eq!(error.field('C').as_deref(), Some("57014"));
}

#[tokio::test]
async fn an_error_of_one_row_is_the_statements_error() {
    let stage = stage(options(), NUMBERS).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    // The first row, one in the middle, and the last.
    for n in [1, 10_000, 20_000] {
        let sql = format!("SELECT 1 / (n - {n}), t FROM numbers");
        for batch in [Batch::new().query(&sql), Batch::one_batch(&sql)] {
            let answer = Answer::of(raw.ask(batch.clone()).await);
            assert_eq!(answer, Answer::of(direct.ask(batch).await));
            assert_eq!(answer.others.iter().find(|frame| frame.tag == b'E').unwrap().body, b"22012");
        }
    }
    assert!(ended(&stage, "failed").await + skipped(&stage, "failed").await > 0);
    until_quiet(&stage, &stage.direct().await).await;
    assert_eq!(tags(&raw.query("SELECT n FROM numbers WHERE n = 1").await), "TDCZ");
}

#[tokio::test]
async fn a_cancel_request_ends_it_on_all_connections_and_hits_nothing_else() {
    let stage = stage(options(), LARGE).await;
    let mut raw = stage.raw().await;
    let direct = stage.direct().await;
    for _ in 0..3 {
        raw.send_batch(Batch::new().query("SELECT * FROM large")).await;
        raw.until('D').await;
        cancelled(&stage, &mut raw).await;
        assert_eq!(tags(&raw.query("SELECT 1").await), "TDCZ");
        assert_eq!(tags(&raw.query("SELECT n FROM large WHERE n = 1").await), "TDCZ");
    }
    assert_eq!(ended(&stage, "cancelled").await, 3);
    until_quiet(&stage, &direct).await;
}

#[tokio::test]
async fn a_statement_timeout_holds_for_the_whole() {
    let stage = stage(options(), LARGE).await;
    let mut raw = stage.raw().await;
    raw.query("SET statement_timeout = '1s'").await;
    raw.send_batch(Batch::new().query("SELECT * FROM large")).await;
    let first = raw.frame().await.expect("the beginning of an answer");
    // The client takes nothing until the time is up, as the proxy counts.
    wait_until("its time is up", async || {
        let direct = stage.direct().await;
        direct.one("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%\"large\".ctid%' AND state <> 'idle' AND pid <> pg_backend_pid()").await == "0"
    })
    .await;
    let answer = raw.until_ready().await;
    let error = answer.iter().chain([&first]).find(|frame| frame.tag == b'E').expect("its time was up");
    assert_eq!(error.field('C').as_deref(), Some("57014"));
    assert_eq!(tags(&raw.query("SELECT n FROM large WHERE n = 1").await), "TDCZ");
}

#[tokio::test]
async fn a_client_that_vanishes_or_stalls_leaves_nothing_running() {
    let stage = stage(options().key("parallel.stall_timeout_secs", 1), LARGE).await;
    let direct = stage.direct().await;
    let mut vanishing = stage.raw().await;
    vanishing.send_batch(Batch::new().query("SELECT * FROM large")).await;
    vanishing.until('D').await;
    drop(vanishing);
    until_quiet(&stage, &direct).await;

    let mut stalling = stage.raw().await;
    stalling.send_batch(Batch::new().query("SELECT * FROM large")).await;
    stalling.until('D').await;
    until_quiet(&stage, &direct).await;
    let rest = stalling.until_closed().await;
    assert!(!rest.iter().any(|frame| frame.tag == b'Z'), "it was ended");
}

#[tokio::test]
async fn a_lost_connection_ends_the_statement_and_not_the_session() {
    let stage = stage(options(), LARGE).await;
    let mut raw = stage.raw().await;
    let direct = stage.direct().await;
    raw.send_batch(Batch::new().query("SELECT * FROM large")).await;
    raw.until('D').await;
    let kill = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE query LIKE '%\"large\".ctid%' AND pid <> pg_backend_pid()
                AND datname = current_database()";
    assert_ne!(direct.one(kill).await, "0");
    let answer = raw.until_ready().await;
    let error = answer.iter().find(|frame| frame.tag == b'E').expect("it has failed");
    assert!(["57P01", "08006"].contains(&error.field('C').as_deref().unwrap()), "{error:?}");
    assert_eq!(tags(&raw.query("SELECT n FROM large WHERE n = 1").await), "TDCZ");
    assert_eq!(ended(&stage, "failed").await, 1);
}

/// Groups that take so long that something can happen in between.
fn slow(times: u32) -> String {
    format!("SELECT n % 3, count(*) FROM large WHERE repeat(t, {times}) NOT LIKE '%y%' GROUP BY 1 ORDER BY 1")
}

const WORKING: &str = "FROM pg_stat_activity WHERE query LIKE '%\"large\".ctid%' AND pid <> pg_backend_pid() \
     AND datname = current_database() AND state = 'active'";

#[tokio::test]
async fn groups_end_before_their_first_row_as_one_connection_would() {
    let stage = stage(options().key("cache.max_entry_bytes", 1), LARGE).await;
    let mut raw = stage.raw().await;
    let direct = stage.direct().await;
    let is_working = format!("SELECT count(*) > 1 {WORKING}");
    let expected = stage.raw_direct().await.query(&slow(1)).await;

    raw.send_batch(Batch::new().query(&slow(400))).await;
    direct.until("it is split", &is_working).await;
    let (pid, key) = raw.key();
    cancel(stage.proxy.port, pid, &key).await;
    let answer = raw.until_ready().await;
    assert_eq!(tags(&answer), "EZ");
    assert_eq!(answer[0].field('C').as_deref(), Some("57014"));
    until_quiet(&stage, &direct).await;

    let mut vanishing = stage.raw().await;
    vanishing.send_batch(Batch::new().query(&slow(400))).await;
    direct.until("it is split", &is_working).await;
    drop(vanishing);
    until_quiet(&stage, &direct).await;

    raw.query("SET statement_timeout = '300ms'").await;
    let answer = raw.query(&slow(400)).await;
    assert_eq!(answer[0].field('C').as_deref(), Some("57014"));
    raw.query("RESET statement_timeout").await;
    until_quiet(&stage, &direct).await;

    let failed = skipped(&stage, "failed").await;
    raw.send_batch(Batch::new().query(&slow(100))).await;
    let kill = format!("SELECT count(pg_terminate_backend(pid)) > 0 {WORKING}");
    direct.until("it is split, and a connection of it is ended", &kill).await;
    assert_eq!(raw.until_ready().await, expected, "it has run unsplit");
    assert_eq!(skipped(&stage, "failed").await, failed + 1);
    until_quiet(&stage, &direct).await;
}

#[tokio::test]
async fn where_no_other_connection_can_be_had_it_runs_unsplit() {
    let stage = stage(options(), NUMBERS).await;
    let direct = stage.direct().await;
    let mut raw = stage.raw().await;
    raw.query("SELECT 1").await;
    direct
        .run(&format!(
            "ALTER DATABASE {} CONNECTION LIMIT 0; CREATE ROLE limited LOGIN; GRANT SELECT ON numbers TO limited",
            stage.database
        ))
        .await;
    direct
        .run(&format!("ALTER DATABASE {} CONNECTION LIMIT -1; ALTER ROLE limited CONNECTION LIMIT 1", stage.database))
        .await;
    let mut limited = Raw::ready(stage.proxy.port, "limited", &stage.database).await;
    let answer = limited.query("SELECT n FROM numbers").await;
    assert_eq!(answer.iter().filter(|frame| frame.tag == b'D').count(), 20_000);
    assert_eq!(skipped(&stage, "failed").await, 1);
    assert_eq!(ended(&stage, "complete").await, 0);
}

#[tokio::test]
async fn a_waiting_ddl_does_not_block_it() {
    let stage = stage(options().key("parallel.adaptive_parallelism", "true"), LARGE).await;
    let (mut raw, mut ddl) = (stage.raw().await, stage.raw_direct().await);
    let direct = stage.direct().await;
    raw.send_batch(Batch::new().query("SELECT * FROM large")).await;
    raw.until('D').await;
    ddl.send_batch(Batch::new().query("ALTER TABLE large ALTER COLUMN t SET STORAGE external")).await;
    direct.until_blocked("ALTER TABLE%").await;
    // Now the client takes what there is, and more connections are wanted. Who waited for a lock behind the ALTER would wait for
    // ever: the ALTER waits for the leader, and that for its followers.
    let answer = raw.until_ready().await;
    assert_eq!(answer.iter().filter(|frame| frame.tag == b'D').count(), 19_999);
    assert_eq!(tags(&ddl.until_ready().await), "CZ");
    assert_eq!(ended(&stage, "complete").await, 1);
    until_quiet(&stage, &direct).await;
}

#[tokio::test]
async fn a_table_that_is_locked_by_somebody_is_waited_for_as_ever() {
    let stage = stage(options().key("cache.max_entry_bytes", 1), NUMBERS).await;
    let (mut raw, mut holder) = (stage.raw().await, stage.raw_direct().await);
    let direct = stage.direct().await;
    raw.query("SELECT n FROM numbers").await;
    holder.query("BEGIN; LOCK TABLE numbers; DELETE FROM numbers WHERE n > 10000").await;
    raw.send_batch(Batch::new().query("SELECT n FROM numbers")).await;
    direct.until_blocked("LOCK TABLE%").await;
    holder.query("COMMIT").await;
    // The snapshot is younger than the lock.
    let answer = raw.until_ready().await;
    assert_eq!(answer.iter().filter(|frame| frame.tag == b'D').count(), 10_000);
    assert_eq!(ended(&stage, "complete").await, 2);
}

#[tokio::test]
async fn a_database_can_be_dropped_when_its_clients_have_left() {
    let stage = stage(options(), NUMBERS).await;
    let admin = stage.client().await;
    let made = format!("{}_made", stage.database);
    admin.run(&format!("CREATE DATABASE {made} TEMPLATE template0")).await;
    let mut raw = Raw::ready(stage.proxy.port, "postgres", &made).await;
    raw.query(NUMBERS).await;
    wait_until("it is split", async || {
        raw.query("SELECT n FROM numbers").await;
        ended(&stage, "complete").await > 0
    })
    .await;
    drop(raw);
    admin.run(&format!("DROP DATABASE {made}")).await;
}
