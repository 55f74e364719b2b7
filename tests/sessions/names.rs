//! The same name, another table.

use crate::harness::{Client, Stage};

use super::differ::differ;

const SCHEMAS: &str = "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'in a' AS v;
    CREATE TABLE b.t AS SELECT 'in b' AS v; CREATE TABLE public.t AS SELECT 'in public' AS v;
    CREATE FUNCTION a.f() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'a' $$;
    CREATE FUNCTION b.f() RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'b' $$";

#[tokio::test]
async fn search_path() {
    differ(SCHEMAS, &["SET search_path = a"], &["SET search_path = b"], "SELECT v FROM t").await;
    differ(SCHEMAS, &[], &["SET search_path TO b, public"], "SELECT v FROM t").await;
    differ(SCHEMAS, &[], &["SET SCHEMA 'a'"], "SELECT v FROM t").await;
    differ(SCHEMAS, &["SET search_path = a"], &["SET search_path = b"], "SELECT f()").await;
    differ(SCHEMAS, &[], &["SELECT set_config('search_path', 'a', false)"], "SELECT v FROM t").await;
    differ(SCHEMAS, &["SET search_path = \"a\""], &["SET search_path = 'A', 'b'"], "SELECT v FROM t").await;
}

#[tokio::test]
async fn a_search_path_that_names_the_user_depends_on_the_user() {
    let stage = Stage::new().await;
    let user = format!("u_{}", stage.database);
    let setup = format!(
        "CREATE ROLE {user} SUPERUSER LOGIN; CREATE SCHEMA {user}; CREATE TABLE {user}.t AS SELECT 'own' AS v;
         CREATE TABLE public.t AS SELECT 'public' AS v"
    );
    stage.direct().await.run(&setup).await;
    let (postgres, own) = (stage.client().await, stage.client_as(&user).await);
    for _ in 0..4 {
        assert_eq!(postgres.one("SELECT v FROM t").await, "public");
        assert_eq!(own.one("SELECT v FROM t").await, "own");
    }
    postgres.run(&format!("SET ROLE {user}")).await;
    assert_eq!(postgres.one("SELECT v FROM t").await, "own", "$user follows SET ROLE");
}

#[tokio::test]
async fn a_temporary_table_shadows_a_real_one_for_its_own_session_only() {
    let stage = Stage::setup("CREATE TABLE t AS SELECT 'real' AS v").await;
    let (own, other) = (stage.client().await, stage.client().await);
    stage.cached(&own, "SELECT v FROM t").await;
    for making in [
        "CREATE TEMP TABLE t AS SELECT 'temporary' AS v",
        "SELECT 'temporary' AS v INTO TEMPORARY t",
        "CREATE TABLE pg_temp.t AS SELECT 'temporary' AS v",
        "DO $$ BEGIN CREATE TEMP TABLE t AS SELECT 'temporary' AS v; END $$",
        "CREATE TEMP VIEW t AS SELECT 'temporary' AS v",
    ] {
        own.run(making).await;
        for _ in 0..4 {
            assert_eq!(own.one("SELECT v FROM t").await, "temporary", "{making}");
            assert_eq!(other.one("SELECT v FROM t").await, "real", "{making}");
        }
        own.run(if making.contains("VIEW") { "DROP VIEW pg_temp.t" } else { "DROP TABLE pg_temp.t" }).await;
        for _ in 0..4 {
            assert_eq!(own.one("SELECT v FROM t").await, "real", "after dropping what {making:?} made");
        }
    }
}

#[tokio::test]
async fn what_a_session_with_a_temporary_table_writes_says_nothing_about_the_others() {
    let stage = Stage::setup("CREATE TABLE t (id int, v int); INSERT INTO t VALUES (1, 1)").await;
    let (reader, shadowed, writer) = (stage.client().await, stage.client().await, stage.client().await);
    let read = "SELECT v FROM t";
    for write in ["UPDATE t SET v = v + 1", "UPDATE t SET v = v + 1 WHERE id = 1", "INSERT INTO t VALUES (2, 2)"] {
        shadowed.run("CREATE TEMP TABLE t (id int, v int)").await;
        // Often enough for the proxy to have learnt what it writes, if it does.
        for _ in 0..4 {
            shadowed.run(write).await;
            shadowed.text("SELECT count(*) FROM t").await;
        }
        let before = stage.cached(&reader, read).await;
        writer.run(write).await;
        assert_ne!(reader.text(read).await, before, "stale after {write} by a session without the temporary table");
        let before = stage.cached(&reader, read).await;
        shadowed.run("DROP TABLE pg_temp.t").await;
        shadowed.run(write).await;
        assert_ne!(reader.text(read).await, before, "stale after {write} by a session that dropped it");
    }
}

#[tokio::test]
async fn a_temporary_table_that_vanishes_with_its_transaction_uncovers_the_real_one() {
    let stage = Stage::setup("CREATE TABLE t AS SELECT 'real' AS v").await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM t").await;
    for end in ["ROLLBACK", "COMMIT"] {
        client.run("BEGIN").await;
        client.run("CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 'temporary' AS v").await;
        assert_eq!(client.one("SELECT v FROM t").await, "temporary");
        client.run(end).await;
        assert_eq!(client.one("SELECT v FROM t").await, "real", "after {end}");
    }
    client.run("CREATE TEMP TABLE t AS SELECT 'temporary' AS v").await;
    client.run("DISCARD TEMP").await;
    assert_eq!(client.one("SELECT v FROM t").await, "real", "after DISCARD TEMP");
}

#[tokio::test]
async fn databases() {
    let stage = Stage::setup("CREATE TABLE t AS SELECT 'first' AS v").await;
    let second = stage.cluster.database().await;
    stage.cluster.connect(&second).await.run("CREATE TABLE t AS SELECT 'second' AS v").await;
    let first_client = stage.client().await;
    let second_client = Client::connect(stage.proxy.port, "postgres", &second).await;
    for _ in 0..4 {
        assert_eq!(first_client.one("SELECT v FROM t").await, "first");
        assert_eq!(second_client.one("SELECT v FROM t").await, "second");
    }
    second_client.run("UPDATE t SET v = 'changed'").await;
    assert_eq!(second_client.one("SELECT v FROM t").await, "changed");
    assert_eq!(first_client.one("SELECT v FROM t").await, "first");
}
