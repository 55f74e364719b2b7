//! DDL: the same text means something else afterwards.

use crate::harness::{Client, Options, Stage};

use super::scenario::given;

const TABLE: &str = "CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 1)";

#[tokio::test]
async fn alter_table_changes_what_a_star_means() {
    given(TABLE).read("SELECT * FROM t").write(&["ALTER TABLE t ADD COLUMN extra text DEFAULT 'x'"]).await;
    given(TABLE).read("SELECT * FROM t").write(&["ALTER TABLE t DROP COLUMN id"]).await;
}

#[tokio::test]
async fn alter_column_type_changes_the_answer() {
    given(TABLE).read("SELECT v FROM t").write(&["ALTER TABLE t ALTER v TYPE numeric USING v + 0.5"]).await;
}

#[tokio::test]
async fn a_table_dropped_and_made_again_is_another_table() {
    given(TABLE)
        .read("SELECT v FROM t")
        .write(&["DROP TABLE t", "CREATE TABLE t (id int, v int)", "INSERT INTO t VALUES (1, 77)"])
        .await;
}

#[tokio::test]
async fn two_tables_that_swap_their_names_swap_their_rows() {
    given(&format!("{TABLE}; CREATE TABLE fresh (id int, v int); INSERT INTO fresh VALUES (1, 2)"))
        .read("SELECT v FROM t")
        .write(&["BEGIN; ALTER TABLE t RENAME TO old; ALTER TABLE fresh RENAME TO t; COMMIT"])
        .await;
}

#[tokio::test]
async fn two_schemas_that_swap_their_names_swap_their_tables() {
    given(
        "CREATE SCHEMA s; CREATE TABLE s.t (v int); INSERT INTO s.t VALUES (1);
         CREATE SCHEMA n; CREATE TABLE n.t (v int); INSERT INTO n.t VALUES (2)",
    )
    .read("SELECT v FROM s.t")
    .write(&["BEGIN", "ALTER SCHEMA s RENAME TO o", "ALTER SCHEMA n RENAME TO s", "COMMIT"])
    .await;
}

#[tokio::test]
async fn a_new_table_that_comes_first_in_the_search_path_is_the_one_that_is_read() {
    given("CREATE TABLE public.t (v int); INSERT INTO public.t VALUES (1); CREATE SCHEMA postgres")
        .read("SELECT v FROM t")
        .write(&["CREATE TABLE postgres.t AS SELECT 2 AS v"])
        .await;
}

#[tokio::test]
async fn a_function_that_is_replaced_answers_as_its_new_body_says() {
    // Not cached: that a function of the user's is immutable is only what its author says.
    let function = |body: &str| {
        format!("CREATE OR REPLACE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 + {body}'")
    };
    let stage = Stage::setup(&format!("{TABLE}; {}", function("1"))).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    let read = "SELECT f(v) FROM t WHERE id = 1";
    for _ in 0..3 {
        assert_eq!(reader.one(read).await, "2");
    }
    writer.run(&function("2")).await;
    assert_eq!(reader.one(read).await, "3");
}

#[tokio::test]
async fn drop_cascade_takes_the_views_with_it() {
    let stage = Stage::setup(&format!("{TABLE}; CREATE VIEW w AS SELECT v FROM t")).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, "SELECT v FROM w").await;
    writer.run("DROP TABLE t CASCADE").await;
    assert_eq!(reader.fails("SELECT v FROM w").await, "42P01", "a dropped view was answered from the cache");
    assert!(reader.query("SELECT v FROM w", &[]).await.is_err(), "a dropped view was answered from the cache");
}

#[tokio::test]
async fn an_enum_label_that_is_renamed_is_shown_under_its_new_name() {
    given("CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE TABLE t (m mood); INSERT INTO t VALUES ('sad')")
        .read("SELECT m::text FROM t")
        .write(&["ALTER TYPE mood RENAME VALUE 'sad' TO 'low'"])
        .await;
}

#[tokio::test]
async fn ddl_that_is_rolled_back_never_was() {
    let stage = Stage::setup(TABLE).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    writer.run("BEGIN").await;
    writer.run("ALTER TABLE t RENAME v TO w").await;
    assert_eq!(writer.text("SELECT w FROM t").await, [[Some("1".to_string())]]);
    writer.run("ROLLBACK").await;
    assert_eq!(stage.cached(&reader, "SELECT v FROM t").await, [[Some("1".to_string())]]);
    assert_eq!(writer.fails("SELECT w FROM t").await, "42703", "the answer of a rolled back transaction was kept");
}

/// What is in the catalogue of the second is the same to the last bit.
#[tokio::test]
async fn a_database_made_again_from_the_same_template_is_another_one() {
    let stage = Stage::with(Options::default().key("log.level", "heliosproxy::catalog=debug")).await;
    let (template, made) = (format!("{}_template", stage.database), format!("{}_made", stage.database));
    let direct = stage.direct().await;
    direct.run(&format!("CREATE DATABASE {template}")).await;
    Client::connect(stage.cluster.port, "postgres", &template).await.run(TABLE).await;
    let admin = stage.client().await;
    let read = "SELECT v FROM t";
    for way in ["DROP DATABASE", "DROP DATABASE (FORCE)", "ALTER DATABASE", ""] {
        admin.run(&format!("CREATE DATABASE {made} TEMPLATE {template}")).await;
        let looks = || stage.proxy.log_text().matches(&format!("looked at the catalogue database={made} ")).count();
        let before = looks();
        let client = Client::connect(stage.proxy.port, "postgres", &made).await;
        // Before it does anything, which would make the proxy cautious.
        crate::harness::wait_until("the catalogue is known", async || looks() > before).await;
        let first = stage.cached(&client, read).await;
        assert_eq!(first, [[Some("1".to_string())]], "the rows of the database before, after {way}");
        client.run("UPDATE t SET v = 2").await;
        assert_eq!(stage.cached(&client, read).await, [[Some("2".to_string())]]);
        match way {
            "DROP DATABASE (FORCE)" => admin.run(&format!("DROP DATABASE {made} WITH (FORCE)")).await,
            "DROP DATABASE" => {
                drop(client);
                admin.run(&format!("DROP DATABASE {made}")).await;
            }
            "ALTER DATABASE" => {
                drop(client);
                admin.run(&format!("ALTER DATABASE {made} RENAME TO {made}_old")).await;
            }
            _ => admin.run(&format!("DROP DATABASE {made} WITH (FORCE)")).await,
        }
    }
    direct.run(&format!("DROP DATABASE {made}_old")).await;
    direct.run(&format!("DROP DATABASE {template}")).await;
}

#[tokio::test]
async fn ddl_behind_the_proxy_is_found_by_polling() {
    let stage = Stage::with(Options::default().key("catalog.refresh_secs", 1)).await;
    let direct = stage.direct().await;
    direct.run(TABLE).await;
    let reader = stage.client().await;
    let before = stage.cached(&reader, "SELECT * FROM t").await;
    direct.run("ALTER TABLE t ADD COLUMN extra int DEFAULT 5").await;
    crate::harness::wait_until("the new column is seen", async || reader.text("SELECT * FROM t").await != before).await;
}

#[tokio::test]
async fn a_trigger_added_behind_the_proxy_is_found_by_polling() {
    let stage = Stage::with(Options::default().key("catalog.refresh_secs", 1)).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1); CREATE TABLE log (v int)").await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    writer.run("UPDATE t SET v = 2").await;
    direct
        .run(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS
                 'BEGIN INSERT INTO log VALUES (new.v); RETURN new; END';
             CREATE TRIGGER g AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        )
        .await;
    crate::harness::wait_until("a write by the trigger is seen", async || {
        let before = stage.cached(&reader, "SELECT count(*) FROM log").await;
        writer.run("UPDATE t SET v = v + 1").await;
        reader.text("SELECT count(*) FROM log").await != before
    })
    .await;
}
