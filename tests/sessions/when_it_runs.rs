//! Where a write goes is told by the settings that hold when it runs, not by those that held when the client sent it.

use crate::harness::raw::Batch;
use crate::harness::{Raw, Stage};

const UPDATE: &str = "UPDATE t SET v = v + 1";
const READ: &str = "SELECT v FROM two.t";

/// Two tables of the same name, and a session by whose settings `t` is the first of them, which the proxy knows.
async fn stage() -> (Stage, Raw) {
    let stage = Stage::setup(
        "CREATE SCHEMA one; CREATE TABLE one.t (v int); INSERT INTO one.t VALUES (1);
         CREATE SCHEMA two; CREATE TABLE two.t (v int); INSERT INTO two.t VALUES (1)",
    )
    .await;
    let mut writer = stage.raw().await;
    // Its settings have been read before it changes them.
    stage.until_hit("a read of the writer", async || writer.query(READ).await).await;
    writer.query("SET search_path = one").await;
    let reader = stage.client().await;
    // Until a write of the one leaves what was read of the other alone.
    stage
        .until_hit("a read beside a write of another table", async || {
            writer.query(UPDATE).await;
            writer.ask(batch(UPDATE)).await;
            reader.text(READ).await
        })
        .await;
    (stage, writer)
}

fn batch(sql: &str) -> Batch {
    Batch::new().parse("", sql).bind("", "", &[]).execute("", 0).sync()
}

/// What is read after the write must be what it wrote.
async fn shows(stage: &Stage, what: &str, write: impl AsyncFnOnce()) {
    let reader = stage.client().await;
    let before = stage.cached(&reader, READ).await;
    write().await;
    assert_ne!(reader.text(READ).await, before, "stale after {what}");
}

#[tokio::test]
async fn a_set_and_a_write_in_one_text() {
    let (stage, mut writer) = stage().await;
    shows(&stage, "one text", async || {
        writer.query(&format!("SET search_path = two; {UPDATE}")).await;
    })
    .await;
    writer.query("SET search_path = one").await;
    shows(&stage, "one text that goes back", async || {
        writer.query(&format!("BEGIN; SET LOCAL search_path = two; {UPDATE}; COMMIT")).await;
    })
    .await;
}

#[tokio::test]
async fn a_write_that_is_sent_before_the_set_is_answered() {
    let (stage, mut writer) = stage().await;
    shows(&stage, "a pipeline of simple queries", async || {
        let pipeline = Batch::new().query("SET search_path = two").query(UPDATE);
        writer.send_batch(pipeline).await;
        writer.until_ready().await;
        writer.until_ready().await;
    })
    .await;
    writer.query("SET search_path = one").await;
    shows(&stage, "a pipeline of batches", async || {
        let pipeline = Batch::new().parse("", "SET search_path = two").bind("", "", &[]).execute("", 0).sync();
        writer.send_batch(pipeline.parse("", UPDATE).bind("", "", &[]).execute("", 0).sync()).await;
        writer.until_ready().await;
        writer.until_ready().await;
    })
    .await;
    writer.query("SET search_path = one").await;
    shows(&stage, "one batch", async || {
        let both = Batch::new().parse("", "SET search_path = two").bind("", "", &[]).execute("", 0);
        writer.ask(both.parse("", UPDATE).bind("", "", &[]).execute("", 0).sync()).await;
    })
    .await;
    writer.query("SET search_path = one").await;
    shows(&stage, "a set by a function", async || {
        let both =
            Batch::new().parse("", "SELECT set_config('search_path', 'two', false)").bind("", "", &[]).execute("", 0);
        writer.ask(both.parse("", UPDATE).bind("", "", &[]).execute("", 0).sync()).await;
    })
    .await;
}

#[tokio::test]
async fn a_portal_that_was_bound_before_the_set() {
    let (stage, mut writer) = stage().await;
    shows(&stage, "a portal of the old settings", async || {
        writer.query("BEGIN; SET LOCAL search_path = two").await;
        writer.ask(Batch::new().parse("", UPDATE).bind("p", "", &[]).sync()).await;
        writer.query("SET LOCAL search_path = one").await;
        writer.ask(Batch::new().execute("p", 0).sync()).await;
        writer.query("COMMIT").await;
    })
    .await;
}

#[tokio::test]
async fn a_rollback_takes_the_settings_back_before_the_next_write() {
    let (stage, mut writer) = stage().await;
    writer.query("SET search_path = two").await;
    shows(&stage, "a rollback in the same text", async || {
        writer.query(&format!("BEGIN; SET search_path = one; ROLLBACK; {UPDATE}")).await;
    })
    .await;
    shows(&stage, "a pipelined rollback", async || {
        writer.query("BEGIN; SET search_path = one").await;
        writer.send_batch(Batch::new().query("ROLLBACK").query(UPDATE)).await;
        writer.until_ready().await;
        writer.until_ready().await;
    })
    .await;
    shows(&stage, "a rollback to a savepoint", async || {
        writer.query("BEGIN; SAVEPOINT s; SET search_path = one").await;
        writer.query("ROLLBACK TO s").await;
        writer.query(UPDATE).await;
        writer.query("COMMIT").await;
    })
    .await;
}
