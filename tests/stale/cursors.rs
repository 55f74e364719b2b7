//! Cursors and portals: reads and writes that take several steps.

use crate::harness::Stage;
use crate::harness::raw::{Batch, tags};

use super::scenario::given;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)";

#[tokio::test]
async fn a_cursor_with_hold_keeps_its_rows_and_others_see_new_ones() {
    given(TABLE)
        .prepare("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT v FROM t ORDER BY id; COMMIT")
        .read("SELECT v FROM t ORDER BY id")
        .write_by(async |writer| {
            writer.run("UPDATE t SET v = v * 10").await;
            assert_eq!(
                writer.text("FETCH ALL FROM c").await[0][0].as_deref(),
                Some("1"),
                "a held cursor keeps its rows"
            );
        })
        .await;
}

#[tokio::test]
async fn a_cursor_with_hold_whose_function_writes_does_so_at_commit() {
    given(&format!(
        "{TABLE}; CREATE FUNCTION writes(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = 9; RETURN 1; END';
         CREATE TABLE small (id int); INSERT INTO small VALUES (1)"
    ))
    .prepare("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT writes(id) FROM small")
    .read("SELECT v FROM t ORDER BY id")
    .write(&["COMMIT"])
    .await;
}

#[tokio::test]
async fn fetch_moves_on_and_is_never_answered_twice() {
    let stage = Stage::setup(TABLE).await;
    let client = stage.client().await;
    client.run("BEGIN; DECLARE c CURSOR FOR SELECT v FROM t ORDER BY id").await;
    for value in ["1", "2", "3"] {
        assert_eq!(client.one("FETCH 1 FROM c").await, value);
    }
    client.run("COMMIT").await;
}

#[tokio::test]
async fn an_update_where_current_of_a_cursor() {
    given(TABLE)
        .prepare("BEGIN; DECLARE c CURSOR FOR SELECT v FROM t ORDER BY id FOR UPDATE; FETCH 1 FROM c")
        .read("SELECT v FROM t ORDER BY id")
        .write(&["UPDATE t SET v = 9 WHERE CURRENT OF c", "COMMIT"])
        .await;
}

#[tokio::test]
async fn a_suspended_portal_is_not_a_whole_result() {
    let stage = Stage::setup(TABLE).await;
    let mut raw = stage.raw().await;
    let part = || Batch::new().parse("", "SELECT v FROM t ORDER BY id").bind("", "", &[]).execute("", 2).sync();
    for _ in 0..4 {
        assert_eq!(tags(&raw.ask(part()).await), "12DDsZ");
    }
    let all = Batch::new().parse("", "SELECT v FROM t ORDER BY id").bind("", "", &[]).execute("", 0).sync();
    for _ in 0..4 {
        assert_eq!(tags(&raw.ask(all.clone()).await), "12DDDCZ", "two of three rows were taken for all");
    }
}

#[tokio::test]
async fn a_write_with_returning_fetched_in_slices_counts_as_a_write() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    let read = "SELECT v FROM t ORDER BY id";
    let before = stage.cached(&reader, read).await;
    let mut raw = stage.raw().await;
    let batch = Batch::new().parse("", "UPDATE t SET v = v + 10 RETURNING v").bind("", "", &[]).execute("", 1).sync();
    assert_eq!(tags(&raw.ask(batch).await), "12DsZ");
    assert_ne!(reader.text(read).await, before, "the update committed with its Sync, and the old rows were served");
}

#[tokio::test]
async fn a_pipeline_of_a_write_and_a_read_shows_its_own_write() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    let read = "SELECT v FROM t WHERE id = 1";
    stage.cached(&reader, read).await;
    let mut raw = stage.raw().await;
    let pipeline = Batch::new()
        .parse("", read)
        .bind("", "", &[])
        .execute("", 0)
        .parse("", "UPDATE t SET v = v + 10 WHERE id = 1")
        .bind("", "", &[])
        .execute("", 0)
        .parse("", read)
        .bind("", "", &[])
        .execute("", 0)
        .sync();
    let frames = raw.ask(pipeline).await;
    assert_eq!(tags(&frames), "12DC12C12DCZ");
    assert_eq!((frames[2].text(), frames[9].text()), ("1".into(), "11".into()), "a pipeline must see its own write");
    assert_eq!(reader.one(read).await, "11");
}

#[tokio::test]
async fn a_pipeline_that_fails_behind_its_write_has_written_nothing() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    let read = "SELECT v FROM t WHERE id = 1";
    let before = stage.cached(&reader, read).await;
    let mut raw = stage.raw().await;
    let pipeline = Batch::new()
        .parse("", "UPDATE t SET v = v + 10 WHERE id = 1")
        .bind("", "", &[])
        .execute("", 0)
        .parse("", read)
        .bind("", "", &[])
        .execute("", 0)
        .parse("", "SELECT 1/0")
        .bind("", "", &[])
        .execute("", 0)
        .sync();
    let frames = raw.ask(pipeline).await;
    let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row before the error");
    assert_eq!(row.text(), "11");
    for _ in 0..3 {
        assert_eq!(reader.text(read).await, before, "rows that were rolled back were kept");
    }
}

#[tokio::test]
async fn two_writes_in_one_pipeline_with_a_sync_each_are_two_writes() {
    let stage = Stage::setup(TABLE).await;
    let reader = stage.client().await;
    let read = "SELECT sum(v) FROM t";
    stage.cached(&reader, read).await;
    let mut raw = stage.raw().await;
    let one = |value: &str| {
        Batch::new().parse("", &format!("UPDATE t SET v = {value}")).bind("", "", &[]).execute("", 0).sync()
    };
    raw.send_batch(one("5").bytes(&one("7").0)).await;
    raw.until_ready().await;
    raw.until_ready().await;
    assert_eq!(reader.one(read).await, "21");
}
