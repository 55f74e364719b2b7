//! Writes that the text of the statement does not show.

use super::scenario::given;

const LOGGED: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1);
    CREATE TABLE log (v int); INSERT INTO log VALUES (0);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN NULL; END'";
const READ_LOG: &str = "SELECT count(*) FROM log";

#[tokio::test]
async fn a_row_trigger_writes_another_table() {
    given(&format!("{LOGGED}; CREATE TRIGGER g AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()"))
        .read(READ_LOG)
        .write(&["UPDATE t SET v = 2"])
        .await;
}

#[tokio::test]
async fn a_statement_trigger_writes_even_when_no_row_changes() {
    given(&format!("{LOGGED}; CREATE TRIGGER g AFTER UPDATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()"))
        .read(READ_LOG)
        .write(&["UPDATE t SET v = 2 WHERE false"])
        .await;
}

#[tokio::test]
async fn a_truncate_trigger_writes_another_table() {
    given(&format!("{LOGGED}; CREATE TRIGGER g AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION note()"))
        .read(READ_LOG)
        .write(&["TRUNCATE t"])
        .await;
}

#[tokio::test]
async fn a_trigger_on_a_partition_writes_another_table() {
    given(
        "CREATE TABLE p (id int) PARTITION BY LIST (id); CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
         CREATE TABLE log (v int);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN NULL; END';
         CREATE TRIGGER g AFTER INSERT ON p1 FOR EACH ROW EXECUTE FUNCTION note()",
    )
    .read(READ_LOG)
    .write(&["INSERT INTO p VALUES (1)"])
    .await;
}

#[tokio::test]
async fn a_deferred_constraint_trigger_writes_at_commit() {
    given(&format!(
        "{LOGGED}; CREATE CONSTRAINT TRIGGER g AFTER UPDATE ON t DEFERRABLE INITIALLY DEFERRED
         FOR EACH ROW EXECUTE FUNCTION note()"
    ))
    .read(READ_LOG)
    .write(&["BEGIN", "UPDATE t SET v = 2", "COMMIT"])
    .await;
}

#[tokio::test]
async fn a_trigger_fired_by_a_foreign_keys_cascade_writes_a_third_table() {
    given(&format!(
        "{LOGGED}; CREATE TABLE child (t int REFERENCES t ON DELETE CASCADE); INSERT INTO child VALUES (1);
         CREATE TRIGGER g AFTER DELETE ON child FOR EACH ROW EXECUTE FUNCTION note()"
    ))
    .read(READ_LOG)
    .write(&["DELETE FROM t"])
    .await;
}

#[tokio::test]
async fn foreign_keys_cascade_over_two_tables() {
    let setup = "CREATE TABLE a (id int PRIMARY KEY);
        CREATE TABLE b (id int PRIMARY KEY REFERENCES a ON DELETE CASCADE ON UPDATE CASCADE);
        CREATE TABLE c (id int REFERENCES b ON DELETE CASCADE ON UPDATE CASCADE);
        INSERT INTO a VALUES (1); INSERT INTO b VALUES (1); INSERT INTO c VALUES (1)";
    given(setup).read("SELECT * FROM c").write(&["DELETE FROM a"]).await;
    given(setup).read("SELECT * FROM c").write(&["UPDATE a SET id = 2"]).await;
}

#[tokio::test]
async fn foreign_keys_set_null_and_set_default() {
    for action in ["SET NULL", "SET DEFAULT"] {
        given(&format!(
            "CREATE TABLE a (id int PRIMARY KEY); INSERT INTO a VALUES (0), (1);
             CREATE TABLE b (id int DEFAULT 0 REFERENCES a ON DELETE {action}); INSERT INTO b VALUES (1)"
        ))
        .read("SELECT * FROM b")
        .write(&["DELETE FROM a WHERE id = 1"])
        .await;
    }
}

#[tokio::test]
async fn a_rule_writes_another_table() {
    given(&format!("{LOGGED}; CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO log VALUES (2)"))
        .read(READ_LOG)
        .write(&["INSERT INTO t VALUES (2, 2)"])
        .await;
    given(&format!("{LOGGED}; CREATE RULE r AS ON UPDATE TO t DO INSTEAD DELETE FROM log"))
        .read(READ_LOG)
        .write(&["UPDATE t SET v = 2"])
        .await;
}

#[tokio::test]
async fn an_instead_of_trigger_on_a_view_writes_a_table() {
    given(
        "CREATE TABLE t (v int); CREATE VIEW w AS SELECT v + 1 AS v FROM t;
         CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (new.v); RETURN new; END';
         CREATE TRIGGER g INSTEAD OF INSERT ON w FOR EACH ROW EXECUTE FUNCTION f()",
    )
    .read("SELECT count(*) FROM t")
    .write(&["INSERT INTO w VALUES (1)"])
    .await;
}

const FUNCTIONS: &str = "CREATE TABLE t (v int); INSERT INTO t VALUES (1);
    CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = v + 1; RETURN 1; END';
    CREATE FUNCTION writes_sql() RETURNS void LANGUAGE sql AS 'UPDATE t SET v = v + 1';
    CREATE FUNCTION writes_dynamically(text) RETURNS int LANGUAGE plpgsql AS
        'BEGIN EXECUTE format(''UPDATE %I SET v = v + 1'', $1); RETURN 1; END';
    CREATE FUNCTION lies() RETURNS int STABLE LANGUAGE sql AS 'SELECT writes()';
    CREATE PROCEDURE proc() LANGUAGE plpgsql AS 'BEGIN UPDATE t SET v = v + 1; COMMIT; UPDATE t SET v = v + 1; END';
    CREATE OPERATOR !!! (RIGHTARG = int, FUNCTION = by_operator);
    CREATE VIEW sly AS SELECT writes() AS w";

fn functions() -> String {
    FUNCTIONS.replace(
        "CREATE OPERATOR",
        "CREATE FUNCTION by_operator(int) RETURNS int LANGUAGE sql AS 'SELECT writes()'; CREATE OPERATOR",
    )
}

#[tokio::test]
async fn a_function_in_a_select_writes() {
    for call in [
        "SELECT writes()",
        "SELECT * FROM writes()",
        "SELECT writes_sql()",
        "SELECT writes_dynamically('t')",
        "SELECT public.\"writes\"()",
        "SELECT 1 WHERE writes() = 1",
        "WITH x AS MATERIALIZED (SELECT writes() AS w) SELECT w FROM x",
        "VALUES (writes())",
    ] {
        given(&functions()).read("SELECT v FROM t").write(&[call]).await;
    }
}

#[tokio::test]
async fn a_function_behind_an_operator_or_a_view_writes() {
    given(&functions()).read("SELECT v FROM t").write(&["SELECT !!! 1"]).await;
    given(&functions()).read("SELECT v FROM t").write(&["SELECT * FROM sly"]).await;
    given(&functions()).read("SELECT v FROM t").write(&["SELECT lies()"]).await;
}

#[tokio::test]
async fn a_function_that_writes_is_called_every_time() {
    let stage = crate::harness::Stage::setup(&functions()).await;
    let client = stage.client().await;
    for calls in 1..5 {
        client.text("SELECT writes()").await;
        client.binary("SELECT * FROM sly").await;
        assert_eq!(
            client.one("SELECT v FROM t").await,
            (1 + 2 * calls).to_string(),
            "a call was answered from the cache"
        );
    }
}

#[tokio::test]
async fn do_and_call_write() {
    given(&functions()).read("SELECT v FROM t").write(&["DO 'BEGIN UPDATE t SET v = 5; END'"]).await;
    given(&functions()).read("SELECT v FROM t").write(&["CALL proc()"]).await;
}

#[tokio::test]
async fn an_sql_prepared_statement_writes_when_it_is_executed() {
    given(&functions())
        .prepare("PREPARE u AS UPDATE t SET v = v + 1; PREPARE s AS SELECT writes()")
        .read("SELECT v FROM t")
        .write(&["EXECUTE u"])
        .await;
    given(&functions()).prepare("PREPARE s AS SELECT writes()").read("SELECT v FROM t").write(&["EXECUTE s"]).await;
}

#[tokio::test]
async fn a_function_call_message_writes() {
    use crate::harness::{Stage, raw::Batch};
    let stage = Stage::setup(&functions()).await;
    let reader = stage.client().await;
    let oid: u32 = stage.direct().await.one("SELECT 'writes()'::regprocedure::oid").await.parse().unwrap();
    let before = stage.cached(&reader, "SELECT v FROM t").await;
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 0, 0, 0, 0, 0]);
    stage.raw().await.ask(Batch::new().message(b'F', &body)).await;
    assert_ne!(
        reader.text("SELECT v FROM t").await,
        before,
        "a function call message wrote, and the old rows were served"
    );
}

#[tokio::test]
async fn a_generated_column_and_a_domain_check_that_calls_a_function_are_no_hiding_place() {
    given(
        "CREATE TABLE log (v int);
         CREATE FUNCTION sneaks(int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN true; END';
         CREATE TABLE t (v int CHECK (sneaks(v)), d int DEFAULT 1)",
    )
    .read(READ_LOG)
    .write(&["INSERT INTO t (v) VALUES (1)"])
    .await;
}

#[tokio::test]
async fn a_column_default_that_calls_a_function_writes() {
    given(
        "CREATE TABLE log (v int);
         CREATE FUNCTION next() RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES (1); RETURN 1; END';
         CREATE TABLE t (id int DEFAULT next(), v int)",
    )
    .read(READ_LOG)
    .write(&["INSERT INTO t (v) VALUES (1)"])
    .await;
}

#[tokio::test]
async fn a_read_with_a_filter_pushed_through_a_view_with_a_writing_function() {
    given(
        "CREATE TABLE log (v int); CREATE TABLE t (v int); INSERT INTO t VALUES (1);
         CREATE FUNCTION sneaks(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN INSERT INTO log VALUES ($1); RETURN $1; END';
         CREATE VIEW w AS SELECT sneaks(v) AS v FROM t",
    )
    .read(READ_LOG)
    .write(&["SELECT v FROM w"])
    .await;
}
