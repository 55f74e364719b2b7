//! Identical misses at the same time.

use crate::harness::{Options, Stage, wait_until};

const SETUP: &str = "CREATE TABLE t (id int, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 10) i";
const READ: &str = "SELECT sum(v) FROM t";
const WAITING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query LIKE 'SELECT sum%'";

#[tokio::test]
async fn identical_misses_wait_for_the_first_one() {
    const CLIENTS: usize = 8;
    let stage = Stage::with(Options::default().key("cache.single_flight_wait_ms", 15_000)).await;
    let direct = stage.direct().await;
    direct.run(SETUP).await;
    // The server's log counts what reaches it.
    direct.run(&format!("ALTER DATABASE {} SET log_statement = 'all'", stage.database)).await;
    let (gate, writer) = (stage.direct().await, stage.client().await);
    let clients = futures_util::future::join_all((0..CLIENTS).map(|_| stage.client())).await;
    for client in &clients {
        stage.cached(client, READ).await;
    }
    writer.run("UPDATE t SET v = v + 1").await;

    let before = executions(&stage);
    gate.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    let answers = futures_util::future::join_all(clients.iter().map(|client| client.one(READ)));
    let (answers, ()) = tokio::join!(answers, async {
        direct.until("the first miss is upstream", WAITING).await;
        gate.run("COMMIT").await;
    });
    assert!(answers.iter().all(|answer| answer == "65"), "{answers:?}");
    assert_eq!(executions(&stage) - before, 1, "identical misses went upstream together");
}

/// How often the server has been asked [`READ`].
fn executions(stage: &Stage) -> usize {
    let log = std::fs::read_to_string(stage.cluster.dir.join("postgresql.log")).unwrap();
    log.lines().filter(|line| line.contains("statement: SELECT sum(v)") || line.contains(">: SELECT sum(v)")).count()
}

#[tokio::test]
async fn a_miss_that_waited_too_long_goes_upstream_itself() {
    const CLIENTS: usize = 3;
    let stage = Stage::with(Options::default().key("cache.single_flight_wait_ms", 50)).await;
    let direct = stage.direct().await;
    direct.run(SETUP).await;
    let (gate, writer) = (stage.direct().await, stage.client().await);
    let clients = futures_util::future::join_all((0..CLIENTS).map(|_| stage.client())).await;
    for client in &clients {
        stage.cached(client, READ).await;
    }
    writer.run("UPDATE t SET v = v + 1").await;

    gate.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    let answers = futures_util::future::join_all(clients.iter().map(|client| client.one(READ)));
    let (answers, ()) = tokio::join!(answers, async {
        wait_until("every miss is upstream", async || direct.one(WAITING).await == CLIENTS.to_string()).await;
        gate.run("COMMIT").await;
    });
    assert!(answers.iter().all(|answer| answer == "65"), "{answers:?}");
}

#[tokio::test]
async fn the_first_of_identical_misses_may_fail_or_leave_without_harm_to_the_others() {
    let stage = Stage::with(Options::default().key("cache.single_flight_wait_ms", 15_000)).await;
    let direct = stage.direct().await;
    direct.run(SETUP).await;
    let (gate, writer, second) = (stage.direct().await, stage.client().await, stage.client().await);
    let mut first = stage.raw().await;
    stage.until_hit(READ, async || first.query(READ).await).await;
    stage.cached(&second, READ).await;
    writer.run("UPDATE t SET v = v + 1").await;

    gate.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    first.send_batch(crate::harness::raw::Batch::new().query(READ)).await;
    direct.until("the first miss is upstream", WAITING).await;
    let (answer, ()) = tokio::join!(second.one(READ), async {
        // The first one's query is ended by somebody, the second one must still get its rows.
        direct.run(&format!("SELECT pg_cancel_backend({})", first.key().0)).await;
        let frames = first.until_ready().await;
        assert_eq!(frames[0].field('C').as_deref(), Some("57014"), "{frames:?}");
        gate.run("COMMIT").await;
    });
    assert_eq!(answer, "65");
}

#[tokio::test]
async fn the_first_of_identical_misses_may_vanish() {
    let stage = Stage::with(Options::default().key("cache.single_flight_wait_ms", 15_000)).await;
    let direct = stage.direct().await;
    direct.run(SETUP).await;
    let (gate, writer, second) = (stage.direct().await, stage.client().await, stage.client().await);
    let mut first = stage.raw().await;
    stage.until_hit(READ, async || first.query(READ).await).await;
    stage.cached(&second, READ).await;
    writer.run("UPDATE t SET v = v + 1").await;
    gate.run("BEGIN; LOCK TABLE t IN ACCESS EXCLUSIVE MODE").await;
    first.send_batch(crate::harness::raw::Batch::new().query(READ)).await;
    direct.until("the first miss is upstream", WAITING).await;
    drop(first);
    let (answer, ()) = tokio::join!(second.one(READ), async {
        gate.run("COMMIT").await;
    });
    assert_eq!(answer, "65");
}

#[tokio::test]
async fn errors_are_never_stored() {
    let stage = Stage::setup(SETUP).await;
    let (client, writer) = (stage.client().await, stage.client().await);
    let read = "SELECT 10 / (v - 1) FROM t WHERE id = 1";
    for _ in 0..4 {
        stage.misses("an error", async || assert_eq!(client.fails(read).await, "22012")).await;
        assert!(client.query_typed(read, &[]).await.is_err());
    }
    writer.run("UPDATE t SET v = 2 WHERE id = 1").await;
    assert_eq!(client.one(read).await, "10");
    // Some rows, then an error: neither a part of them nor the error is kept.
    let partial = "SELECT 10 / (v - 7) FROM t ORDER BY id";
    for _ in 0..4 {
        stage.misses("rows before an error", async || assert_eq!(client.fails(partial).await, "22012")).await;
    }
}

#[tokio::test]
async fn a_result_cut_short_by_a_cancel_or_a_timeout_is_never_stored() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t SELECT generate_series(1, 3000)").await;
    let client = stage.client().await;
    let read = "SELECT count(*) FROM t a, t b";
    client.run("SET statement_timeout = 1").await;
    for _ in 0..3 {
        assert_eq!(client.fails(read).await, "57014");
    }
    client.run("SET statement_timeout = 0").await;
    assert_eq!(client.one(read).await, "9000000");
}

#[tokio::test]
async fn a_result_with_a_notice_is_never_stored() {
    let stage = Stage::setup(
        "CREATE TABLE t (v int); INSERT INTO t VALUES (1);
         CREATE FUNCTION speaks(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
             $$ BEGIN RAISE NOTICE 'heard'; RETURN $1; END $$",
    )
    .await;
    let mut raw = stage.raw().await;
    for _ in 0..5 {
        let frames = raw.query("SELECT speaks(v) FROM t").await;
        assert!(frames.iter().any(|frame| frame.tag == b'N'), "the notice is missing: {frames:?}");
    }
}

#[tokio::test]
async fn a_result_larger_than_an_entry_may_be_is_relayed_whole() {
    let stage = Stage::with(Options::default().key("cache.max_entry_bytes", 10_000)).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v text); INSERT INTO t SELECT repeat('x', 100) FROM generate_series(1, 1000)").await;
    let client = stage.client().await;
    for _ in 0..4 {
        let rows = stage.misses("a large result", async || client.text("SELECT v FROM t").await).await;
        assert_eq!(rows.len(), 1000);
    }
    stage.cached(&client, "SELECT v FROM t LIMIT 10").await;
}

#[tokio::test]
async fn the_store_keeps_its_bounds() {
    let options = Options::default().key("cache.max_entries", 20);
    let stage = Stage::with(options).await;
    stage.direct().await.run(SETUP).await;
    let client = stage.client().await;
    for id in 0..100 {
        let sql = format!("SELECT v, {id} FROM t WHERE id = {}", id % 10 + 1);
        for _ in 0..2 {
            assert_eq!(client.text(&sql).await, [[Some((id % 10 + 1).to_string()), Some(id.to_string())]]);
        }
    }
    stage.cached(&client, READ).await;
    wait_until("the number of entries is told", async || stage.proxy.metric("heliosdb_cache_entries").await >= 1.0)
        .await;
    let entries = stage.proxy.metric("heliosdb_cache_entries").await;
    assert!(entries <= 20.0, "{entries} entries with max_entries = 20");
    assert!(stage.proxy.metric("heliosdb_cache_evictions_total").await > 0.0);
}

#[tokio::test]
async fn every_eviction_strategy_answers_correctly_beyond_its_bounds() {
    for strategy in ["lru", "lfu", "lru_with_size", "time_aware_lru"] {
        let options = Options::default().key("cache.max_entries", 5).key("cache.eviction_strategy", strategy);
        let stage = Stage::with(options).await;
        stage.direct().await.run(SETUP).await;
        let client = stage.client().await;
        for round in 0..3 {
            for id in 1..=10 {
                assert_eq!(
                    client.one(&format!("SELECT v FROM t WHERE id = {id}")).await,
                    id.to_string(),
                    "{strategy} {round}"
                );
            }
        }
        stage.cached(&client, READ).await;
    }
}
