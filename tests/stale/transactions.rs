//! Transactions: nothing shows before COMMIT, everything after, and nothing of the inside is kept.

use crate::harness::Stage;
use crate::harness::raw::{Batch, tags};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)";
const READ: &str = "SELECT v FROM t";

#[tokio::test]
async fn a_write_shows_after_commit_and_not_before() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET v = 2").await;
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, "1", "an uncommitted row was shown");
        assert_eq!(writer.one(READ).await, "2", "a transaction must read its own writes");
        assert_eq!(writer.binary(READ).await, [[Some(2_i32.to_be_bytes().to_vec())]]);
    }
    writer.run("COMMIT").await;
    assert_eq!(reader.one(READ).await, "2");
    assert_eq!(stage.cached(&reader, READ).await, [[Some("2".to_string())]]);
}

#[tokio::test]
async fn a_read_of_a_transaction_that_rolls_back_is_never_kept() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    for end in ["ROLLBACK", "ABORT", "SELECT 1/0; COMMIT"] {
        writer.run("BEGIN").await;
        writer.run("UPDATE t SET v = 2").await;
        for _ in 0..3 {
            assert_eq!(writer.one(READ).await, "2");
            writer.one_batch(READ).await;
        }
        if end.starts_with("SELECT") {
            writer.fails("SELECT 1/0").await;
            writer.run("COMMIT").await;
        } else {
            writer.run(end).await;
        }
        for _ in 0..3 {
            assert_eq!(reader.one(READ).await, "1", "after {end}");
            assert_eq!(writer.one(READ).await, "1", "after {end}");
        }
    }
}

#[tokio::test]
async fn a_transaction_that_has_not_written_may_use_the_cache_and_sees_what_others_commit() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    reader.run("BEGIN").await;
    assert_eq!(reader.one(READ).await, "1");
    writer.run("UPDATE t SET v = 2").await;
    assert_eq!(reader.one(READ).await, "2", "READ COMMITTED shows what others have committed");
    reader.run("COMMIT").await;
}

#[tokio::test]
async fn a_snapshot_transaction_never_reads_newer_or_older_rows_than_its_snapshot() {
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        let stage = Stage::setup(TABLE).await;
        let (reader, snapshot, writer) = (stage.client().await, stage.client().await, stage.client().await);
        stage.cached(&reader, READ).await;
        snapshot.run(&format!("BEGIN ISOLATION LEVEL {level}")).await;
        assert_eq!(snapshot.one(READ).await, "1");
        writer.run("UPDATE t SET v = 2").await;
        stage.cached(&reader, READ).await;
        for _ in 0..3 {
            assert_eq!(snapshot.one(READ).await, "1", "{level}: newer than the snapshot");
            assert_eq!(reader.one(READ).await, "2", "{level}: an old snapshot's answer was kept");
        }
        snapshot.run("COMMIT").await;
        assert_eq!(snapshot.one(READ).await, "2");
    }
}

#[tokio::test]
async fn isolation_set_by_other_means_counts_too() {
    for (open, close) in [
        ("SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ; BEGIN", "COMMIT"),
        ("SET default_transaction_isolation = 'repeatable read'; START TRANSACTION", "END"),
        ("BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", "COMMIT"),
        ("BEGIN; SET LOCAL transaction_isolation TO 'repeatable read'", "COMMIT"),
        ("SELECT set_config('default_transaction_isolation', 'repeatable read', false); BEGIN", "COMMIT"),
    ] {
        let stage = Stage::setup(TABLE).await;
        let (reader, snapshot, writer) = (stage.client().await, stage.client().await, stage.client().await);
        stage.cached(&reader, READ).await;
        // Statement by statement: the isolation level cannot be set in the implicit transaction of a whole text.
        for sql in open.split("; ") {
            snapshot.run(sql).await;
        }
        assert_eq!(snapshot.one(READ).await, "1", "{open}");
        writer.run("UPDATE t SET v = 2").await;
        stage.cached(&reader, READ).await;
        assert_eq!(snapshot.one(READ).await, "1", "newer than the snapshot: {open}");
        snapshot.run(close).await;
        assert_eq!(snapshot.one(READ).await, "2", "{open}");
    }
}

#[tokio::test]
async fn a_snapshot_that_is_older_than_a_cached_entry_is_respected() {
    let stage = Stage::setup(TABLE).await;
    let (reader, snapshot, writer) = (stage.client().await, stage.client().await, stage.client().await);
    snapshot.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    // Takes the snapshot without touching the table.
    snapshot.text("SELECT count(*) FROM pg_class").await;
    writer.run("UPDATE t SET v = 2").await;
    stage.cached(&reader, READ).await;
    assert_eq!(snapshot.one(READ).await, "1", "the cache answered with rows newer than the snapshot");
    snapshot.run("COMMIT").await;
}

#[tokio::test]
async fn savepoints_undo_a_part() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN").await;
    writer.run("SAVEPOINT a").await;
    writer.run("UPDATE t SET v = 2").await;
    assert_eq!(writer.one(READ).await, "2");
    writer.run("ROLLBACK TO a").await;
    assert_eq!(writer.one(READ).await, "1");
    assert_eq!(reader.one(READ).await, "1");
    writer.run("UPDATE t SET v = 3").await;
    writer.run("RELEASE a").await;
    assert_eq!(reader.one(READ).await, "1");
    writer.run("COMMIT").await;
    assert_eq!(reader.one(READ).await, "3");
}

#[tokio::test]
async fn a_write_before_a_savepoint_survives_the_rollback_to_it() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET v = 2").await;
    writer.run("SAVEPOINT a").await;
    writer.fails("SELECT 1/0").await;
    writer.run("ROLLBACK TO SAVEPOINT a").await;
    assert_eq!(writer.one(READ).await, "2");
    writer.run("COMMIT").await;
    assert_eq!(reader.one(READ).await, "2");
}

#[tokio::test]
async fn commit_and_chain_ends_one_transaction_and_starts_another() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
    writer.run("UPDATE t SET v = 2").await;
    writer.run("COMMIT AND CHAIN").await;
    assert_eq!(reader.one(READ).await, "2", "COMMIT AND CHAIN commits");
    assert_eq!(writer.one(READ).await, "2");
    reader.run("UPDATE t SET v = 3").await;
    for _ in 0..3 {
        assert_eq!(reader.one(READ).await, "3");
    }
    assert_eq!(writer.one(READ).await, "2", "the chained transaction has the same isolation level");
    writer.run("ROLLBACK AND CHAIN").await;
    assert_eq!(writer.one(READ).await, "3");
    writer.run("COMMIT").await;
}

#[tokio::test]
async fn a_prepared_transaction_writes_when_anybody_commits_it() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer, other) = (stage.client().await, stage.client().await, stage.client().await);
    let name = format!("gid-{}", stage.database);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET v = 2").await;
    writer.run(&format!("PREPARE TRANSACTION '{name}'")).await;
    assert_eq!(stage.cached(&reader, READ).await, [[Some("1".to_string())]], "prepared is not committed");
    other.run(&format!("COMMIT PREPARED '{name}'")).await;
    assert_eq!(reader.one(READ).await, "2");
}

#[tokio::test]
async fn a_prepared_transaction_that_is_rolled_back_leaves_the_old_rows() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    let name = format!("gid-{}", stage.database);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN; UPDATE t SET v = 2").await;
    writer.run(&format!("PREPARE TRANSACTION '{name}'")).await;
    writer.run(&format!("ROLLBACK PREPARED '{name}'")).await;
    assert_eq!(reader.one(READ).await, "1");
    assert_eq!(stage.cached(&reader, READ).await, [[Some("1".to_string())]]);
}

#[tokio::test]
async fn a_transaction_in_one_simple_query() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    writer.run("BEGIN; UPDATE t SET v = 2; COMMIT; BEGIN; UPDATE t SET v = 3").await;
    assert_eq!(reader.one(READ).await, "2", "the first transaction of the text has committed");
    assert_eq!(writer.one(READ).await, "3");
    writer.run("ROLLBACK; SELECT 1").await;
    assert_eq!(reader.one(READ).await, "2");
}

#[tokio::test]
async fn a_transaction_over_the_extended_protocol() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    stage.cached(&reader, READ).await;
    let mut raw = stage.raw().await;
    let step = |sql: &str| Batch::new().parse("", sql).bind("", "", &[]).execute("", 0).sync();
    raw.ask(step("BEGIN")).await;
    assert_eq!(tags(&raw.ask(step("UPDATE t SET v = 2")).await), "12CZ");
    assert_eq!(reader.one(READ).await, "1");
    let frames = raw.ask(step(READ)).await;
    assert_eq!(frames[2].text(), "2", "a transaction must read its own writes");
    assert_eq!(frames.last().unwrap().body, b"T");
    raw.ask(step("COMMIT")).await;
    assert_eq!(reader.one(READ).await, "2");
}

#[tokio::test]
async fn a_transaction_pipelined_in_one_batch() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    stage.cached(&reader, READ).await;
    let mut raw = stage.raw().await;
    let mut batch = Batch::new();
    for sql in ["BEGIN", "UPDATE t SET v = 2", "COMMIT", READ] {
        batch = batch.parse("", sql).bind("", "", &[]).execute("", 0);
    }
    let frames = raw.ask(batch.sync()).await;
    assert_eq!(frames.iter().find(|frame| frame.tag == b'D').expect("a row").text(), "2");
    assert_eq!(reader.one(READ).await, "2");
}

#[tokio::test]
async fn a_read_inside_an_aborted_transaction_is_refused_as_the_server_refuses_it() {
    let stage = Stage::setup(TABLE).await;
    let client = stage.client().await;
    stage.cached(&client, READ).await;
    client.run("BEGIN").await;
    client.fails("SELECT 1/0").await;
    assert_eq!(client.fails(READ).await, "25P02", "an aborted transaction was answered from the cache");
    assert!(client.query_typed(READ, &[]).await.is_err(), "an aborted transaction was answered from the cache");
    client.run("ROLLBACK").await;
    assert_eq!(client.one(READ).await, "1");
}

#[tokio::test]
async fn the_statuses_of_a_cached_read_are_those_of_its_transaction() {
    let stage = Stage::setup(TABLE).await;
    let client = stage.client().await;
    stage.cached(&client, READ).await;
    let mut raw = stage.raw().await;
    assert_eq!(raw.query(READ).await.last().unwrap().body, b"I");
    raw.query("BEGIN").await;
    assert_eq!(raw.query(READ).await.last().unwrap().body, b"T");
    raw.query("COMMIT").await;
    assert_eq!(raw.query(READ).await.last().unwrap().body, b"I");
}

#[tokio::test]
async fn a_read_only_transaction_refuses_a_write_and_still_reads() {
    let stage = Stage::setup(TABLE).await;
    let client = stage.client().await;
    stage.cached(&client, READ).await;
    client.run("BEGIN READ ONLY").await;
    assert_eq!(client.one(READ).await, "1");
    assert_eq!(client.fails("UPDATE t SET v = 2").await, "25006");
    client.run("ROLLBACK").await;
}
