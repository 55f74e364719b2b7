//! The catalogue changes while something that was sent before is still unanswered.

use crate::harness::raw::{Batch, Raw};
use crate::harness::{Stage, wait_until};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)";
const READ: &str = "SELECT v FROM t";

async fn says(stage: &Stage, words: &str) {
    wait_until(&format!("the log says {words:?}"), async || stage.proxy.log_text().contains(words)).await;
}

#[tokio::test]
async fn a_replication_stream_does_not_keep_the_cache_bypassed() {
    let stage = Stage::setup(&format!("{TABLE}; CREATE PUBLICATION p FOR ALL TABLES")).await;
    let parameters = [("user", "postgres"), ("database", stage.database.as_str()), ("replication", "database")];
    let mut stream = Raw::ready_with(stage.proxy.port, &parameters).await;
    let slot = format!("s{}", stage.database.bytes().filter(u8::is_ascii_digit).map(char::from).collect::<String>());
    stream.query(&format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT")).await;
    let start = format!("START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names 'p')");
    stream.send_batch(Batch::new().query(&start)).await;
    stream.until('W').await;

    let client = stage.client().await;
    stage.cached(&client, READ).await;
    for round in 0..3 {
        client.run(&format!("CREATE TABLE new{round} ()")).await;
        stage.cached(&client, READ).await;
    }
}

#[tokio::test]
async fn a_lost_write_is_settled_while_an_old_query_runs() {
    let stage = Stage::setup(TABLE).await;
    let (client, blocker, direct) = (stage.client().await, stage.direct().await, stage.direct().await);
    stage.cached(&client, READ).await;
    let mut long = stage.raw().await;
    direct.run("SELECT pg_advisory_lock(1)").await;
    long.send_batch(Batch::new().query("SELECT pg_advisory_lock(1)")).await;
    direct.until_blocked("SELECT pg_advisory_lock%").await;
    client.run("CREATE TABLE new ()").await;
    client.one(READ).await;
    says(&stage, "the catalogue has changed").await;

    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    direct.until_blocked("UPDATE%").await;
    drop(writer);
    // Otherwise its answer may come before its end is noticed, and nothing is lost.
    let clients = r#"heliosdb_connections{side="client",state="active"}"#;
    wait_until("only the two others are left", async || stage.proxy.metric(clients).await == 2.0).await;
    blocker.run("COMMIT").await;
    says(&stage, "its writes are settled").await;

    // What the old query may do under the new catalogue is not known: nothing is served until it has done it.
    for _ in 0..3 {
        stage.misses(READ, || client.one(READ)).await;
    }
    direct.run("SELECT pg_advisory_unlock(1)").await;
    long.until_ready().await;
    assert_eq!(stage.cached(&client, READ).await, direct.text(READ).await);
}

#[tokio::test]
async fn the_catalogue_changes_twice_while_an_old_query_runs() {
    let stage = Stage::setup(TABLE).await;
    let (client, direct) = (stage.client().await, stage.direct().await);
    stage.cached(&client, READ).await;
    let mut long = stage.raw().await;
    direct.run("SELECT pg_advisory_lock(1)").await;
    long.send_batch(Batch::new().query("SELECT pg_advisory_lock(1)")).await;
    direct.until_blocked("SELECT pg_advisory_lock%").await;
    client.run("CREATE TABLE one ()").await;
    client.one(READ).await;
    says(&stage, "the catalogue has changed").await;
    // Its control connection is lost, and the new one finds the catalogue changed once more.
    direct
        .run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name LIKE 'heliosproxy%'",
        )
        .await;
    says(&stage, "control connection lost").await;
    client.run("CREATE TABLE two ()").await;
    for _ in 0..20 {
        stage.misses(READ, || client.one(READ)).await;
    }
    direct.run("SELECT pg_advisory_unlock(1)").await;
    long.until_ready().await;
    stage.cached(&client, READ).await;
}
