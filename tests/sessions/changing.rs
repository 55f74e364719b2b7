//! What is different every time is asked every time.

use crate::harness::Stage;

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, s text, d text); INSERT INTO t VALUES (1, 'now', 'today');
    CREATE SEQUENCE q; CREATE TYPE pair AS (a int, b int);
    CREATE FUNCTION volatile_one() RETURNS int LANGUAGE sql VOLATILE AS 'SELECT 1';
    CREATE FUNCTION hidden_clock() RETURNS timestamptz LANGUAGE sql STABLE AS 'SELECT clock_timestamp()';
    CREATE VIEW clock AS SELECT id, now() AS n FROM t; CREATE VIEW dice AS SELECT random() AS r, id FROM t;
    CREATE VIEW deep AS SELECT * FROM clock;
    CREATE FUNCTION bump() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN nextval(''q''); END'";

/// None of these may ever be answered from the cache, in either protocol, although a read of the same table is.
async fn never_cached(reads: &[&str]) {
    let stage = Stage::setup(SETUP).await;
    let client = stage.client().await;
    let control = "SELECT id FROM t";
    for _ in 0..2 {
        for read in reads {
            for _ in 0..3 {
                stage.misses(read, async || client.text(read).await).await;
                stage.misses(read, async || client.one_batch(read).await).await;
                stage.misses(read, async || client.binary(read).await).await;
            }
        }
        // By now the proxy has had the time to learn about all of them, and does cache.
        stage.cached(&client, control).await;
    }
}

#[tokio::test]
async fn the_clock() {
    never_cached(&[
        "SELECT now(), id FROM t",
        "SELECT NOW (), id FROM t",
        "SELECT pg_catalog.now(), id FROM t",
        "SELECT \"now\"(), id FROM t",
        "SELECT CURRENT_TIMESTAMP, id FROM t",
        "SELECT current_date, id FROM t",
        "SELECT localtime(0), id FROM t",
        "SELECT id FROM t WHERE clock_timestamp() > '2000-01-01'",
        "SELECT statement_timestamp(), transaction_timestamp(), timeofday(), id FROM t",
        "SELECT age(timestamp '2000-01-01'), id FROM t",
        "SELECT id FROM t ORDER BY now()",
        "SELECT * FROM clock",
        "SELECT id FROM deep",
    ])
    .await;
}

#[tokio::test]
async fn the_clock_in_the_text_of_a_constant() {
    never_cached(&[
        "SELECT 'today'::date, id FROM t",
        "SELECT date 'tomorrow', id FROM t",
        "SELECT timestamp 'now', id FROM t",
        "SELECT CAST('yesterday' AS timestamptz), id FROM t",
        "SELECT ' NOW '::timestamptz, id FROM t",
        "SELECT '{today,tomorrow}'::date[], id FROM t",
        "SELECT id FROM t WHERE 'now' > timestamp '2000-01-01'",
        "SELECT id FROM t WHERE timestamp '2000-01-01' < $$now$$",
        "SELECT id FROM t WHERE timestamp '2000-01-01' < E'n\\x6fw'",
        "SELECT '[today,infinity)'::daterange, id FROM t",
    ])
    .await;
}

#[tokio::test]
async fn the_clock_in_the_text_of_a_column() {
    never_cached(&[
        "SELECT s::timestamptz, id FROM t",
        "SELECT CAST(s AS timestamp), id FROM t",
        "SELECT d::date, id FROM t",
        "SELECT (s || '')::timestamptz, id FROM t",
        "SELECT ARRAY[d]::date[], id FROM t",
        "SELECT id FROM t WHERE d::date > '2000-01-01'",
    ])
    .await;
}

#[tokio::test]
async fn chance() {
    never_cached(&[
        "SELECT random(), id FROM t",
        "SELECT gen_random_uuid(), id FROM t",
        "SELECT id FROM t ORDER BY random()",
        "SELECT r FROM dice",
        "SELECT id FROM t TABLESAMPLE BERNOULLI (50)",
    ])
    .await;
}

#[tokio::test]
async fn sequences_locks_and_other_effects() {
    never_cached(&[
        "SELECT nextval('q'), id FROM t",
        "SELECT setval('q', 100), id FROM t",
        "SELECT bump(), id FROM t",
        "SELECT volatile_one(), id FROM t",
        "SELECT hidden_clock(), id FROM t",
        "SELECT last_value FROM q",
        "SELECT id FROM t FOR UPDATE",
        "SELECT id FROM t FOR NO KEY UPDATE SKIP LOCKED",
        "SELECT id FROM (SELECT id FROM t FOR SHARE) s",
        "SELECT pg_advisory_unlock_all(), id FROM t",
        "SELECT set_config('app.x', 'y', false), id FROM t",
        "SELECT pg_backend_pid(), id FROM t",
        "SELECT txid_current(), id FROM t",
        "SELECT pg_sleep(0), id FROM t",
        "SELECT pg_notify('c', 'x'), id FROM t",
    ])
    .await;
}

#[tokio::test]
async fn the_state_of_the_server() {
    never_cached(&[
        "SELECT count(*) FROM pg_stat_activity",
        "SELECT count(*) FROM pg_class",
        "SELECT relname FROM pg_catalog.pg_class WHERE relname = 't'",
        "SELECT count(*) FROM information_schema.tables",
        "SELECT pg_relation_size('t'), id FROM t",
        "SELECT pg_table_size('t'::regclass), id FROM t",
        "SELECT pg_is_in_recovery(), id FROM t",
        "SELECT to_regclass('t')::text, id FROM t",
        "SELECT version(), inet_server_port(), id FROM t",
    ])
    .await;
}

#[tokio::test]
async fn reads_of_other_kinds_of_relations() {
    let stage = Stage::setup(
        "CREATE EXTENSION file_fdw; CREATE SERVER s FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE f (line text) SERVER s OPTIONS (filename '/proc/uptime');
         CREATE TABLE t (id int); CREATE VIEW w AS SELECT line FROM f",
    )
    .await;
    let client = stage.client().await;
    for _ in 0..2 {
        for read in ["SELECT line FROM f", "SELECT line FROM w", "SELECT id FROM t, w"] {
            for _ in 0..3 {
                stage.misses(read, async || client.text(read).await).await;
                stage.misses(read, async || client.one_batch(read).await).await;
            }
        }
        stage.cached(&client, "SELECT id FROM t").await;
    }
}

#[tokio::test]
async fn an_uncacheable_name_in_a_comment_or_a_string_disables_nothing() {
    let stage = Stage::setup(SETUP).await;
    let client = stage.client().await;
    for read in [
        "SELECT id /* now() */ FROM t",
        "SELECT id FROM t -- random()",
        "SELECT id FROM t WHERE s <> 'random()'",
        "SELECT id AS \"nextval\" FROM t",
    ] {
        stage.cached(&client, read).await;
    }
}

#[tokio::test]
async fn stable_parameters_are_part_of_the_question() {
    let stage =
        Stage::setup("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'one'), (2, 'two'), (12, 'twelve')")
            .await;
    let client = stage.client().await;
    let statement = client.prepare("SELECT v FROM t WHERE id = $1").await.unwrap();
    for _ in 0..4 {
        for (id, expected) in [(1, "one"), (2, "two"), (12, "twelve")] {
            let row = client.query_one(&statement, &[&id]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), expected);
        }
    }
    let two = client.prepare("SELECT $1 || $2, count(*) FROM t").await.unwrap();
    for _ in 0..4 {
        for (a, b) in [("a", "bc"), ("ab", "c"), ("abc", ""), ("", "abc")] {
            let row = client.query_one(&two, &[&a, &b]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), "abc");
        }
    }
    let text = client.prepare("SELECT concat($1::text, '|', $2::text), count(*) FROM t").await.unwrap();
    for _ in 0..4 {
        for (a, b) in [("a", Some("bc")), ("ab", Some("c")), ("a", None), ("a", Some(""))] {
            let row = client.query_one(&text, &[&a, &b]).await.unwrap();
            assert_eq!(row.get::<_, String>(0), format!("{a}|{}", b.unwrap_or_default()));
        }
    }
}

#[tokio::test]
async fn a_parameter_that_says_now_is_not_a_constant() {
    use crate::harness::raw::Batch;
    let stage = Stage::setup(SETUP).await;
    let client = stage.client().await;
    let mut raw = stage.raw().await;
    let batch = || {
        Batch::new().parse("", "SELECT $1::timestamptz, id FROM t").bind("", "", &[Some(b"now")]).execute("", 0).sync()
    };
    for _ in 0..2 {
        for _ in 0..4 {
            stage.misses("a parameter that says now", async || raw.ask(batch()).await).await;
        }
        stage.cached(&client, "SELECT id FROM t").await;
    }
}
