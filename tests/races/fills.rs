//! A read that is still on its way when a write happens, and the other way round.
//!
//! What holds a statement inside the server is a lock: reads wait for a table, writes for a row.

use crate::harness::Stage;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1);
    CREATE TABLE gate (id int); INSERT INTO gate VALUES (1)";
const READ: &str = "SELECT v FROM t";
/// Waits for a lock on `gate` when that is held, after its snapshot would have been taken for a plain read of `t`.
const GATED_READ: &str = "SELECT t.v, (SELECT count(*) FROM gate) AS gates FROM t";

#[tokio::test]
async fn a_write_that_commits_while_a_fill_waits_upstream_leaves_no_stale_entry() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer, gate) = (stage.client().await, stage.client().await, stage.direct().await);
    // The text is known to the proxy and was cacheable before, so that the fill below is a real one.
    stage.cached(&reader, GATED_READ).await;
    writer.run("UPDATE t SET v = 2").await;

    gate.run("BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE").await;
    let watch = stage.direct().await;
    let (during, ()) = tokio::join!(reader.text(GATED_READ), async {
        watch.until_blocked("%gates FROM t").await;
        writer.run("UPDATE t SET v = 3").await;
        gate.run("COMMIT").await;
    });
    let during = during[0][0].as_deref().unwrap();
    assert!(["2", "3"].contains(&during), "{during} was never true");
    for _ in 0..3 {
        assert_eq!(
            reader.text(GATED_READ).await[0][0].as_deref(),
            Some("3"),
            "an entry filled across a write was kept"
        );
    }
}

#[tokio::test]
async fn a_fill_whose_rows_are_on_their_way_when_the_write_commits_is_not_kept() {
    // The result is larger than every buffer on the way, and the client does not read: the server has taken its snapshot and
    // is still sending when the write commits.
    let stage = Stage::with(crate::harness::Options::default().key("cache.max_entry_bytes", 64 << 20)).await;
    let direct = stage.direct().await;
    direct
        .run(
            "CREATE TABLE t (id int, v int, filler text);
             INSERT INTO t SELECT i, 1, repeat('x', 1000) FROM generate_series(1, 20000) i",
        )
        .await;
    let read = "SELECT v, filler FROM t";
    let (mut slow, writer, reader) = (stage.raw().await, stage.client().await, stage.client().await);
    stage.cached(&reader, read).await;
    writer.run("UPDATE t SET v = 2").await;

    slow.send_batch(crate::harness::raw::Batch::new().query(read)).await;
    let first = slow.frame().await.expect("the row description");
    assert_eq!(first.tag, b'T');
    direct
        .until(
            "the server is in the middle of sending",
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'",
        )
        .await;
    writer.run("UPDATE t SET v = 3").await;
    let rows = slow.until_ready().await;
    assert_eq!(rows[0].text(), "2", "the slow reader's snapshot is older than the write");
    for _ in 0..2 {
        assert_eq!(reader.text(read).await[0][0].as_deref(), Some("3"), "an entry filled across a write was kept");
    }
}

#[tokio::test]
async fn a_fill_that_starts_while_a_write_is_in_flight_is_not_kept() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer, blocker) = (stage.client().await, stage.client().await, stage.direct().await);
    let watch = stage.direct().await;
    stage.cached(&reader, READ).await;

    blocker.run("BEGIN; SELECT * FROM t WHERE id = 1 FOR UPDATE").await;
    let ((), ()) = tokio::join!(writer.run("UPDATE t SET v = 2"), async {
        watch.until_blocked("UPDATE t SET v = 2").await;
        for _ in 0..4 {
            assert_eq!(reader.one(READ).await, "1", "the write has not happened yet");
            reader.one_batch(READ).await;
        }
        blocker.run("COMMIT").await;
    });
    for _ in 0..2 {
        assert_eq!(reader.one(READ).await, "2", "an entry filled while a write was in flight was kept");
    }
}

#[tokio::test]
async fn a_read_caused_by_a_released_lock_sees_the_write_that_held_it() {
    // Another client learns of the commit not from the proxy but from the lock that the commit releases. Nothing says that the
    // writer has been told by then.
    let stage = Stage::setup(TABLE).await;
    let (reader, writer, waiter) = (stage.client().await, stage.client().await, stage.direct().await);
    let watch = stage.direct().await;
    for round in 2..8 {
        stage.cached(&reader, READ).await;
        writer.run("BEGIN").await;
        writer.run(&format!("UPDATE t SET v = {round}")).await;
        let ((), ()) = tokio::join!(
            async {
                waiter.run("BEGIN; SELECT v FROM t WHERE id = 1 FOR UPDATE").await;
                assert_eq!(
                    reader.one(READ).await,
                    round.to_string(),
                    "the lock was released and the old row was served"
                );
                waiter.run("COMMIT").await;
            },
            async {
                watch.until_blocked("%FOR UPDATE").await;
                writer.run("COMMIT").await;
            }
        );
    }
}

#[tokio::test]
async fn a_read_caused_by_a_notification_sees_what_its_sender_wrote() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer, listener) = (stage.client().await, stage.client().await, stage.direct().await);
    listener.run("LISTEN news").await;
    for round in 2..8 {
        stage.cached(&reader, READ).await;
        let seen = listener.notifications().len();
        let write = format!("BEGIN; UPDATE t SET v = {round}; NOTIFY news, '{round}'; COMMIT");
        let ((), ()) = tokio::join!(writer.run(&write), async {
            crate::harness::wait_until("the notification", async || listener.notifications().len() > seen).await;
            assert_eq!(reader.one(READ).await, round.to_string(), "notified of a write and served the row before it");
        });
    }
}

#[tokio::test]
async fn a_write_in_a_transaction_that_waits_at_its_commit_marks_what_it_wrote() {
    // A deferred constraint trigger waits for a lock inside COMMIT: the write is neither visible nor undone.
    let stage = Stage::setup(&format!(
        "{TABLE}; CREATE FUNCTION waits() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN LOCK TABLE gate IN SHARE MODE; RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER c AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION waits()"
    ))
    .await;
    let (reader, writer, gate, watch) =
        (stage.client().await, stage.client().await, stage.direct().await, stage.direct().await);
    stage.cached(&reader, READ).await;
    gate.run("BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE").await;
    writer.run("BEGIN").await;
    writer.run("UPDATE t SET v = 2").await;
    let ((), ()) = tokio::join!(writer.run("COMMIT"), async {
        watch.until_blocked("COMMIT").await;
        for _ in 0..3 {
            assert_eq!(reader.one(READ).await, "1");
        }
        gate.run("COMMIT").await;
    });
    assert_eq!(reader.one(READ).await, "2");
}

#[tokio::test]
async fn many_readers_and_a_writer_never_see_a_value_go_back() {
    let stage = Stage::setup(TABLE).await;
    let writer = stage.client().await;
    let readers = futures_util::future::join_all((0..6).map(|_| stage.client())).await;
    let written = std::cell::Cell::new(1);
    let done = std::cell::Cell::new(false);
    let reading = futures_util::future::join_all(readers.iter().enumerate().map(|(at, reader)| {
        let (written, done) = (&written, &done);
        async move {
            let mut last = 0;
            while !done.get() {
                // What has been confirmed to the writer before the read is sent must show.
                let least = written.get();
                let value = if at % 2 == 0 {
                    reader.one(READ).await.parse().unwrap()
                } else {
                    i32::from_be_bytes(reader.one_batch(READ).await[0][0].as_deref().unwrap().try_into().unwrap())
                };
                assert!(value >= least, "read {value} after {least} had been committed");
                assert!(value >= last, "read {value} after having read {last}");
                last = value;
            }
        }
    }));
    let writing = async {
        for value in 2..200 {
            writer.run(&format!("UPDATE t SET v = {value}")).await;
            written.set(value);
        }
        done.set(true);
    };
    tokio::join!(reading, writing);
}
