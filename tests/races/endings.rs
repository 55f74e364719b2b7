//! Somebody vanishes in the middle of a write.

use crate::harness::fault::FaultRelay;
use crate::harness::raw::Batch;
use crate::harness::{Options, Stage, cluster, wait_until};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)";
const READ: &str = "SELECT v FROM t";

/// Waits until the server shows the committed value, then reads through the proxy.
async fn reads_fresh(stage: &Stage, reader: &crate::harness::Client, expected: &str) {
    let direct = stage.direct().await;
    wait_until("the write is committed", async || direct.one(READ).await == expected).await;
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, expected, "stale after somebody vanished");
        reader.one_batch(READ).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_while_its_update_waits() {
    let stage = Stage::setup(TABLE).await;
    let (reader, blocker) = (stage.client().await, stage.direct().await);
    let watch = stage.direct().await;
    stage.cached(&reader, READ).await;
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    watch.until_blocked("UPDATE%").await;
    drop(writer);
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, "1");
    }
    blocker.run("COMMIT").await;
    // The server does not look at its client while it waits: the update commits.
    reads_fresh(&stage, &reader, "2").await;
}

#[tokio::test]
async fn a_client_that_vanishes_while_its_commit_waits() {
    let stage = Stage::setup(&format!(
        "{TABLE}; CREATE TABLE gate (id int); CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN LOCK TABLE gate IN SHARE MODE; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION waits()"
    ))
    .await;
    let (reader, gate, watch) = (stage.client().await, stage.direct().await, stage.direct().await);
    stage.cached(&reader, READ).await;
    gate.run("BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE").await;
    let mut writer = stage.raw().await;
    writer.query("BEGIN").await;
    writer.query("UPDATE t SET v = 2").await;
    writer.send_batch(Batch::new().query("COMMIT")).await;
    watch.until_blocked("COMMIT").await;
    drop(writer);
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, "1");
    }
    gate.run("COMMIT").await;
    reads_fresh(&stage, &reader, "2").await;
}

#[tokio::test]
async fn a_client_that_vanishes_inside_a_transaction_has_written_nothing() {
    let stage = Stage::setup(TABLE).await;
    let (reader, direct) = (stage.client().await, stage.direct().await);
    stage.cached(&reader, READ).await;
    let mut writer = stage.raw().await;
    writer.query("BEGIN").await;
    writer.query("UPDATE t SET v = 2").await;
    writer.query(READ).await;
    drop(writer);
    let gone = "SELECT count(*) = 0 FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
        WHERE c.relname = 't' AND l.mode = 'RowExclusiveLock'";
    direct.until("the transaction is rolled back", gone).await;
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, "1");
    }
    // And nothing stays marked for ever.
    stage.cached(&reader, READ).await;
}

#[tokio::test]
async fn a_client_that_vanishes_behind_a_pipelined_write() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    stage.cached(&reader, READ).await;
    let mut writer = stage.raw().await;
    let write = Batch::new().parse("", "UPDATE t SET v = 2").bind("", "", &[]).execute("", 0).sync();
    writer.send_batch(write).await;
    drop(writer);
    // It may or may not have reached the server; what the server says counts.
    let direct = stage.direct().await;
    let idle = "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'UPDATE%'
        AND state <> 'idle'";
    direct.until("the write has ended", idle).await;
    wait_until("reader and server agree", async || reader.one(READ).await == direct.one(READ).await).await;
    reader.run("UPDATE t SET v = 3").await;
    assert_eq!(reader.one(READ).await, "3");
}

#[tokio::test]
async fn the_writers_backend_is_terminated_in_the_middle() {
    let stage = Stage::setup(TABLE).await;
    let (reader, blocker, admin) = (stage.client().await, stage.direct().await, stage.direct().await);
    stage.cached(&reader, READ).await;
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    admin.until_blocked("UPDATE%").await;
    admin.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'UPDATE%'").await;
    let frames = writer.until_closed().await;
    assert_eq!(frames[0].field('C').as_deref(), Some("57P01"), "the client is told what the server said: {frames:?}");
    blocker.run("COMMIT").await;
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, "1");
    }
    stage.cached(&reader, READ).await;
    reader.run("UPDATE t SET v = 3").await;
    assert_eq!(reader.one(READ).await, "3");
}

/// A proxy whose way to the server can be cut. The service account's connections take the same way.
async fn behind_a_relay() -> (Stage, FaultRelay) {
    let relay = FaultRelay::to(cluster().port).await;
    let database = cluster().database().await;
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", relay.port);
    let proxy = crate::harness::Proxy::start(cluster(), &database, &Options::default().upstream(url)).await;
    let stage = Stage { database, proxy, cluster: cluster() };
    stage.direct().await.run(TABLE).await;
    (stage, relay)
}

#[tokio::test]
async fn the_connection_to_the_server_is_cut_while_an_update_waits_and_then_commits() {
    let (stage, relay) = behind_a_relay().await;
    let (reader, blocker, watch) = (stage.client().await, stage.direct().await, stage.direct().await);
    stage.cached(&reader, READ).await;
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    watch.until_blocked("UPDATE%").await;
    relay.cut();
    let frames = writer.until_closed().await;
    let code = frames.first().and_then(|frame| frame.field('C'));
    assert!(code.is_none_or(|code| code.starts_with("08") || code == "57P01"), "an honest error: {frames:?}");
    relay.mend();
    // Nobody knows whether the update has happened, until the server says that its backend is gone.
    let fresh = stage.client().await;
    for _ in 0..3 {
        assert_eq!(fresh.one(READ).await, "1");
    }
    blocker.run("COMMIT").await;
    reads_fresh(&stage, &fresh, "2").await;
    wait_until("the cache works again", async || {
        let before = stage.proxy.hits().await;
        assert_eq!(fresh.one(READ).await, "2");
        stage.proxy.hits().await > before
    })
    .await;
}

#[tokio::test]
async fn the_connection_to_the_server_is_cut_behind_a_fill() {
    let (stage, relay) = behind_a_relay().await;
    let reader = stage.client().await;
    stage.cached(&reader, READ).await;
    relay.cut();
    // The entry is still true as far as anybody can know: nobody can write through this proxy now. Either answer is honest.
    if let Ok(rows) = reader.simple_query(READ).await {
        assert!(!rows.is_empty());
    }
    relay.mend();
    stage.direct().await.run("SELECT 1").await;
    let fresh = stage.client().await;
    fresh.run("UPDATE t SET v = 2").await;
    assert_eq!(fresh.one(READ).await, "2");
}

#[tokio::test]
async fn a_proxy_that_starts_again_remembers_nothing() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    stage.cached(&reader, READ).await;
    stage.direct().await.run("UPDATE t SET v = 2").await;
    let Stage { database, proxy, cluster } = stage;
    drop(proxy);
    let stage =
        Stage { proxy: crate::harness::Proxy::start(cluster, &database, &Options::default()).await, database, cluster };
    assert_eq!(stage.client().await.one(READ).await, "2");
}
