//! A cold cache does not send everything to the server at once.

use crate::harness::raw::{Batch, Raw, tags};
use crate::harness::{Options, Stage, wait_until};

const TABLE: &str = "CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 100) g";
/// Each waits for a lock, so that it is under way until the test says.
const RUNNING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT id FROM t%' AND wait_event_type = 'Lock'
    AND datname = current_database()";
const ADMITTED: &str = r#"heliosdb_admission_waits_total{result="admitted"}"#;
const LATE: &str = r#"heliosdb_admission_waits_total{result="late"}"#;

/// Clients that ask different questions of one shape, all of which wait for a lock on the table.
async fn ask(stage: &Stage, clients: usize) -> Vec<Raw> {
    let mut asking = Vec::new();
    for id in 1..=clients {
        let mut raw = stage.raw().await;
        raw.query("SELECT 1").await;
        raw.send_batch(Batch::new().query(&format!("SELECT id FROM t WHERE id = {id}"))).await;
        asking.push(raw);
    }
    asking
}

#[tokio::test]
async fn misses_wait_for_their_turn_and_all_get_it() {
    let options = Options::default().key("cache.max_misses_per_statement", 2).key("cache.miss_wait_ms", 600_000);
    let stage = Stage::with(options).await;
    let (direct, blocker) = (stage.direct().await, stage.direct().await);
    direct.run(TABLE).await;
    let bystander = stage.client().await;
    bystander.run("CREATE TABLE other AS SELECT 1 AS v").await;
    blocker.run("BEGIN; LOCK TABLE t").await;
    let asking = ask(&stage, 6).await;
    direct.until("as many as may are under way", &format!("SELECT ({RUNNING}) = 2")).await;
    // Others are not held up by them: not another shape, not a write, not a transaction.
    assert_eq!(bystander.one("SELECT v FROM other").await, "1");
    bystander.run("UPDATE other SET v = 2").await;
    let mut inside = stage.raw().await;
    inside.query("BEGIN").await;
    inside.send_batch(Batch::new().query("SELECT id FROM t WHERE id = 50")).await;
    direct.until("a transaction does not wait", &format!("SELECT ({RUNNING}) = 3")).await;
    blocker.run("COMMIT").await;
    for (id, mut raw) in (1..).zip(asking) {
        let frames = raw.until_ready().await;
        assert_eq!((tags(&frames).as_str(), frames[1].text()), ("TDCZ", id.to_string()));
    }
    inside.until_ready().await;
    assert_eq!(stage.proxy.metric(ADMITTED).await, 4.0);
    assert_eq!(stage.proxy.metric(LATE).await, 0.0);
}

#[tokio::test]
async fn who_waits_too_long_goes_all_the_same_and_who_leaves_frees_his_place() {
    let options = Options::default().key("cache.max_misses", 1).key("cache.miss_wait_ms", 50);
    let stage = Stage::with(options).await;
    let (direct, blocker) = (stage.direct().await, stage.direct().await);
    direct.run(TABLE).await;
    blocker.run("BEGIN; LOCK TABLE t").await;
    let mut asking = ask(&stage, 4).await;
    direct.until("all are under way in the end", &format!("SELECT ({RUNNING}) = 4")).await;
    wait_until("three were late", async || stage.proxy.metric(LATE).await == 3.0).await;
    asking.pop();
    blocker.run("COMMIT").await;
    for mut raw in asking {
        assert_eq!(tags(&raw.until_ready().await), "TDCZ");
    }
    // Nothing is counted that is over: the next one does not wait.
    let client = stage.client().await;
    let before = stage.proxy.metric(LATE).await + stage.proxy.metric(ADMITTED).await;
    assert_eq!(client.one("SELECT id FROM t WHERE id = 60").await, "60");
    assert_eq!(stage.proxy.metric(LATE).await + stage.proxy.metric(ADMITTED).await, before);
}
