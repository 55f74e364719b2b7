//! Every command that changes rows.

use crate::harness::Stage;

use super::scenario::given;

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)";
const READ: &str = "SELECT id, v FROM t ORDER BY id";

#[tokio::test]
async fn update_insert_and_delete() {
    given(TABLE).read(READ).write(&["UPDATE t SET v = 9 WHERE id = 1"]).await;
    given(TABLE).read(READ).write(&["INSERT INTO t VALUES (3, 3)"]).await;
    given(TABLE).read(READ).write(&["DELETE FROM t WHERE id = 2"]).await;
}

#[tokio::test]
async fn a_write_with_returning() {
    given(TABLE).read(READ).write(&["UPDATE t SET v = 9 RETURNING id"]).await;
}

#[tokio::test]
async fn a_write_under_comments_and_odd_case() {
    given(TABLE).read(READ).write(&["/* SELECT */ -- x\n uPdAtE \"t\" SET v = 9"]).await;
}

#[tokio::test]
async fn a_write_by_a_prepared_statement_with_parameters() {
    given(TABLE)
        .read(READ)
        .write_by(async |writer| {
            let update = writer.prepare("UPDATE t SET v = $1 WHERE id = $2").await.unwrap();
            writer.execute(&update, &[&7, &1]).await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn a_prepared_write_that_runs_again() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    let update = writer.prepare("UPDATE t SET v = v + 1 WHERE id = 1").await.unwrap();
    for value in ["2", "3", "4"] {
        stage.cached(&reader, READ).await;
        writer.execute(&update, &[]).await.unwrap();
        assert_eq!(reader.text(READ).await[0][1].as_deref(), Some(value));
    }
}

#[tokio::test]
async fn truncate() {
    given(TABLE).read(READ).write(&["TRUNCATE t"]).await;
}

#[tokio::test]
async fn truncate_cascade_empties_referencing_tables() {
    given(&format!("{TABLE}; CREATE TABLE child (t int REFERENCES t); INSERT INTO child VALUES (1)"))
        .read("SELECT * FROM child")
        .write(&["TRUNCATE t CASCADE"])
        .await;
}

#[tokio::test]
async fn copy_from() {
    given(TABLE)
        .read(READ)
        .write_by(async |writer| {
            let sink = writer.copy_in::<_, bytes::Bytes>("COPY t FROM STDIN").await.unwrap();
            let mut sink = std::pin::pin!(sink);
            std::future::poll_fn(|context| futures_util::Sink::poll_ready(sink.as_mut(), context)).await.unwrap();
            futures_util::Sink::start_send(sink.as_mut(), bytes::Bytes::from_static(b"3\t3\n")).unwrap();
            sink.finish().await.unwrap();
        })
        .await;
}

#[tokio::test]
async fn merge() {
    given(&format!("{TABLE}; CREATE TABLE source (id int, v int); INSERT INTO source VALUES (1, 10), (3, 30)"))
        .read(READ)
        .write(&["MERGE INTO t USING source s ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v
                  WHEN NOT MATCHED THEN INSERT VALUES (s.id, s.v)"])
        .await;
}

#[tokio::test]
async fn insert_on_conflict() {
    given(TABLE).read(READ).write(&["INSERT INTO t VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET v = excluded.v"]).await;
}

#[tokio::test]
async fn a_data_modifying_cte_in_a_select() {
    given(TABLE).read(READ).write(&["WITH x AS (UPDATE t SET v = 9 RETURNING id) SELECT count(*) FROM x"]).await;
    given(TABLE).read(READ).write(&["WITH x AS (DELETE FROM t WHERE id = 1) SELECT 1"]).await;
}

#[tokio::test]
async fn a_data_modifying_cte_is_never_answered_from_the_cache() {
    let stage = Stage::setup(TABLE).await;
    let client = stage.client().await;
    for value in 1..6 {
        let sql = "WITH x AS (UPDATE t SET v = v + 1 WHERE id = 1 RETURNING v) SELECT v FROM x";
        assert_eq!(client.one(sql).await, (value + 1).to_string());
    }
}

#[tokio::test]
async fn explain_analyze_of_a_write() {
    given(TABLE).read(READ).write(&["EXPLAIN ANALYZE UPDATE t SET v = 9"]).await;
}

#[tokio::test]
async fn several_statements_in_one_simple_query() {
    given(TABLE).read(READ).write(&["SELECT 1; UPDATE t SET v = 9; SELECT 2"]).await;
}

#[tokio::test]
async fn select_into_and_create_table_as_make_new_rows() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    for making in ["SELECT id, v INTO made FROM t", "CREATE TABLE made AS SELECT id, v + 100 AS v FROM t"] {
        writer.run(making).await;
        let read = "SELECT v FROM made ORDER BY id";
        assert_eq!(stage.cached(&reader, read).await, stage.direct().await.text(read).await, "{making}");
        writer.run("DROP TABLE made").await;
        assert_eq!(reader.fails(read).await, "42P01", "a dropped table was answered from the cache");
    }
}

#[tokio::test]
async fn a_write_that_fails_changes_nothing_and_hides_nothing() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    let before = stage.cached(&reader, READ).await;
    assert_eq!(writer.fails("INSERT INTO t VALUES (1, 5)").await, "23505");
    assert_eq!(reader.text(READ).await, before);
    writer.run("INSERT INTO t VALUES (5, 5)").await;
    assert_eq!(reader.text(READ).await.len(), 3);
}

#[tokio::test]
async fn a_text_that_ends_in_an_error_may_have_committed_before_it() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    assert_eq!(writer.fails("BEGIN; UPDATE t SET v = 8; COMMIT; SELECT no_such_column").await, "42703");
    assert_eq!(reader.text(READ).await, stage.direct().await.text(READ).await);
    assert_eq!(reader.text(READ).await[0][1].as_deref(), Some("8"));
}

#[tokio::test]
async fn a_write_to_another_table_leaves_the_entry_alone() {
    let stage = Stage::setup(&format!("{TABLE}; CREATE TABLE other (v int)")).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, READ).await;
    // The first write may make the proxy learn what it writes.
    writer.run("INSERT INTO other VALUES (1)").await;
    stage.cached(&reader, READ).await;
    writer.run("INSERT INTO other VALUES (2)").await;
    let hits = stage.proxy.hits().await;
    reader.text(READ).await;
    assert_eq!(stage.proxy.hits().await, hits + 1, "a write to another table made this entry useless");
}

#[tokio::test]
async fn rows_changed_behind_the_proxy_are_seen_after_the_time_to_live() {
    let options = crate::harness::Options::default().key("cache.default_ttl_secs", 2);
    let stage = Stage::with(options).await;
    let direct = stage.direct().await;
    direct.run(TABLE).await;
    let reader = stage.client().await;
    let before = stage.cached(&reader, READ).await;
    direct.run("UPDATE t SET v = 9").await;
    // Only an answer from memory can still be the old one: this is the proof that the cache answers.
    assert_eq!(reader.text(READ).await, before, "not an answer from the cache");
    crate::harness::wait_until("the entry is too old", async || reader.text(READ).await != before).await;
    assert_eq!(reader.text(READ).await, direct.text(READ).await);
}
