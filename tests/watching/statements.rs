//! What the cache does for each statement, and why it does nothing for some.

use std::collections::HashMap;

use crate::harness::raw::{Batch, cancel};
use crate::harness::{Client, Options, Stage, wait_until};

fn options() -> Options {
    Options::default().arg("--auth").arg("trust").key("admin.users", "admin")
}

async fn admin(stage: &Stage) -> Client {
    Client::connect(stage.proxy.port, "admin", "helios").await
}

/// The row of a table whose last column, the query, is this.
async fn row_of(admin: &Client, command: &str, query: &str) -> Option<Vec<String>> {
    let rows = admin.text(command).await;
    let row = rows.into_iter().find(|row| row.last().and_then(Option::as_deref) == Some(query))?;
    Some(row.into_iter().map(Option::unwrap_or_default).collect())
}

/// Property and values of CACHE EXPLAIN.
async fn explained(admin: &Client, command: &str) -> HashMap<String, Vec<String>> {
    let mut properties: HashMap<String, Vec<String>> = HashMap::new();
    for row in admin.text(command).await {
        properties.entry(row[0].clone().unwrap()).or_default().push(row[1].clone().unwrap());
    }
    properties
}

#[tokio::test]
async fn the_top_counts_every_hit_of_a_statement_whatever_its_values_and_shows_none_of_them() {
    let stage =
        Stage::setup_with(options(), "CREATE TABLE t (k text PRIMARY KEY, v int); INSERT INTO t VALUES ('secret', 7)")
            .await;
    let (admin, client) = (admin(&stage).await, stage.client().await);
    stage.cached(&client, "SELECT v FROM t WHERE k = 'secret'").await;
    stage.cached(&client, "select v from T where k = 'other secret'").await;
    for _ in 0..5 {
        client.one("SELECT v FROM t WHERE k = 'secret'").await;
        client.one_batch("SELECT v FROM t WHERE k = 'secret'").await;
    }
    let hits = stage.proxy.hits().await;
    let query = "select v from t where k = ?";
    for command in ["SHOW CACHE TOP", "SHOW CACHE TOP BY HITS", "SHOW CACHE TOP BY BYTES", "SHOW CACHE TOP BY SAVED"] {
        let row = row_of(&admin, command, query).await.expect("the only statement with hits");
        assert_eq!(row[1].parse::<u64>().unwrap(), hits, "{command}: hits");
        assert!(row[2].parse::<u64>().unwrap() >= 2, "{command}: runs in {row:?}");
        assert!(row[4].parse::<f64>().unwrap() > 0.0, "{command}: time saved in {row:?}");
        assert!(row[5].parse::<u64>().unwrap() > hits, "{command}: bytes in {row:?}");
    }
    for command in ["SHOW CACHE TOP", "SHOW CACHE ADVICE"] {
        let all = format!("{:?}", admin.text(command).await);
        assert!(!all.contains("secret"), "{all}");
    }
    assert_eq!(admin.fails("SHOW CACHE TOP BY LUCK").await, "42601");
}

#[tokio::test]
async fn advice_says_of_every_read_that_is_not_cached_why() {
    let setup = "CREATE TABLE t (v int); INSERT INTO t VALUES (7);
        CREATE TABLE guarded (v int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
        CREATE FUNCTION mine(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'";
    let stage = Stage::setup_with(options(), setup).await;
    let (admin, client) = (admin(&stage).await, stage.client().await);
    let cases = [
        ("SELECT random() FROM t", "select random ( ) from t", "function"),
        ("SELECT mine(v) FROM t", "select mine ( v ) from t", "function"),
        ("SELECT v, now() FROM t", "select v , now ( ) from t", "function"),
        ("SELECT current_date FROM t", "select current_date from t", "context"),
        ("SELECT v FROM t FOR UPDATE", "select v from t for update", "row_locks"),
        ("SELECT * FROM guarded", "select * from guarded", "row_security"),
        ("SELECT relname FROM pg_class LIMIT 1", "select relname from pg_class limit ?", "relation"),
        ("SELECT 1", "select ?", "no_relation"),
        ("/* helios: nocache */ SELECT v FROM t", "select v from t", "hint"),
    ];
    for (text, _, _) in cases {
        for _ in 0..4 {
            client.text(text).await;
        }
        client.one_batch(text).await;
    }
    for (text, query, reason) in cases {
        let row = row_of(&admin, "SHOW CACHE ADVICE", query).await.unwrap_or_else(|| panic!("no advice on {text}"));
        assert_eq!(row[5], reason, "{text}: {row:?}");
        assert_eq!(row[1], "5", "{text}: every run counts: {row:?}");
        assert!(row[2].parse::<f64>().unwrap() > 0.0 && !row[7].is_empty(), "{text}: {row:?}");
    }
}

#[tokio::test]
async fn a_read_whose_results_are_never_asked_for_again_is_found() {
    let stage = Stage::setup_with(options(), "CREATE TABLE t (k int PRIMARY KEY)").await;
    let (admin, client) = (admin(&stage).await, stage.client().await);
    for k in 0..20 {
        client.text(&format!("SELECT k FROM t WHERE k = {k}")).await;
    }
    let row = row_of(&admin, "SHOW CACHE ADVICE", "select k from t where k = ?").await.unwrap();
    assert_eq!((row[1].as_str(), row[5].as_str()), ("20", "seldom_hit"));
}

#[tokio::test]
async fn flushing_a_statement_leaves_the_others() {
    let stage = Stage::setup_with(options(), "CREATE TABLE t (v int, w int); INSERT INTO t VALUES (1, 1)").await;
    let (admin, client, direct) = (admin(&stage).await, stage.client().await, stage.direct().await);
    stage.cached(&client, "SELECT v FROM t").await;
    stage.cached(&client, "SELECT w FROM t").await;
    let id = row_of(&admin, "SHOW CACHE TOP", "select v from t").await.unwrap()[0].clone();
    direct.run("UPDATE t SET v = 2, w = 2").await;
    assert_eq!(admin.one(&format!("FLUSH CACHE STATEMENT {id}")).await, "1");
    assert_eq!(client.one("SELECT v FROM t").await, "2");
    assert_eq!(client.one("SELECT w FROM t").await, "1", "still from the cache");
    assert_eq!(admin.one(&format!("FLUSH CACHE STATEMENT '{id}'")).await, "1", "the new result");
    assert_eq!(admin.fails("FLUSH CACHE STATEMENT xyz").await, "42601");
    stage.cached(&client, "SELECT v FROM t").await;
}

#[tokio::test]
async fn whoever_comes_after_a_pause_finds_what_is_cached() {
    let options = options().key("log.level", "info,heliosproxy::catalog=debug");
    let stage = Stage::setup_with(options, "CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM t").await;
    drop(client);
    let closed = format!("no sessions left, control connection closed database={}", stage.database);
    wait_until("an idle database", async || stage.proxy.log_text().contains(&closed)).await;
    let hits = stage.proxy.hits().await;
    assert_eq!(stage.client().await.one("SELECT v FROM t").await, "1");
    assert_eq!(stage.proxy.hits().await, hits + 1, "the first statement of the first client");
}

#[tokio::test]
async fn explain_says_what_a_statement_depends_on_and_why_another_is_not_cached() {
    let setup = "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE VIEW w AS SELECT v FROM t; CREATE SEQUENCE s;
        CREATE TABLE guarded (v int); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY";
    let stage = Stage::setup_with(options().key("log.level", "info,heliosproxy::catalog=debug"), setup).await;
    let admin = admin(&stage).await;
    let by_key = explained(&admin, "CACHE EXPLAIN 'SELECT v FROM t WHERE id = 7'").await;
    assert_eq!(by_key["verdict"], ["cacheable"], "{by_key:?}");
    assert_eq!(by_key["reads"], ["public.t"]);
    assert_eq!(by_key["depends_on"], ["writes of public.t that concern the values of id in the statement"]);
    assert_eq!(by_key["key"][0].len(), 8);
    assert_eq!(by_key["query"], ["select v from t where id = ?"]);
    let view = explained(&admin, "SHOW CACHE EXPLAIN 'SELECT * FROM w'").await;
    let mut reads = view["reads"].clone();
    reads.sort();
    assert_eq!(reads, ["public.t", "public.w"]);
    assert!(view["depends_on"].contains(&"writes of any row of public.t".into()), "{view:?}");
    for (text, reason) in [
        ("SELECT random() FROM t", "function"),
        ("SELECT nextval(''s'') FROM t", "function"),
        ("SELECT current_date FROM t", "context"),
        ("SELECT v FROM t FOR UPDATE", "row_locks"),
        ("SELECT * FROM guarded", "row_security"),
        ("INSERT INTO t VALUES (1, 1)", "not_read"),
        ("SELECT 1; SELECT 2", "not_read"),
        ("/* helios: nocache */ SELECT v FROM t", "hint"),
    ] {
        let found = explained(&admin, &format!("CACHE EXPLAIN '{text}'")).await;
        assert_eq!(found["reason"], [reason], "{text}: {found:?}");
        assert!(!found["advice"][0].is_empty());
    }
    let calls = explained(&admin, "CACHE EXPLAIN 'SELECT now(), lower(''x''), random() FROM t'").await;
    assert_eq!(calls["not_trusted"], ["now", "random"]);
    let direct = stage.direct().await;
    assert_eq!(direct.one("SELECT count(*) FROM t").await, "0", "nothing was run");
    assert_eq!(direct.one("SELECT is_called FROM s").await, "f", "nothing was run");
    assert_eq!(admin.fails("CACHE EXPLAIN 'SELECT * FROM nothing_of_the_kind'").await, "22023");
    assert_eq!(admin.fails("CACHE EXPLAIN 'SELECT 1' IN no_such_database").await, "22023");
    assert_eq!(admin.fails("CACHE EXPLAIN SELECT 1").await, "42601");
    let elsewhere = explained(&admin, "CACHE EXPLAIN 'SELECT 1 FROM pg_class' IN postgres").await;
    assert_eq!(elsewhere["reason"], ["relation"]);
    // Nobody has been there for a while: the catalogue is read again, and not given as the reason.
    let closed = format!("no sessions left, control connection closed database={}", stage.database);
    wait_until("an idle database", async || stage.proxy.log_text().contains(&closed)).await;
    let later = explained(&admin, "CACHE EXPLAIN 'SELECT v FROM t WHERE id = 7'").await;
    assert_eq!(later["verdict"], ["cacheable"], "{later:?}");
}

#[tokio::test]
async fn while_the_catalogue_cannot_be_known_nothing_is_analysed_in_vain() {
    const READ: &str = "SELECT v FROM t WHERE k = 1";
    let stage = Stage::setup_with(options(), "CREATE TABLE t AS SELECT 1 AS k, 2 AS v").await;
    let (client, mut sleeper) = (stage.client().await, stage.raw().await);
    stage.cached(&client, READ).await;
    sleeper.send_batch(Batch::new().query("SELECT pg_sleep(3600)")).await;
    let direct = stage.direct().await;
    let sleeps =
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    direct.until("it sleeps", sleeps).await;
    // Until the sleeper is answered the model of what is there now is not used.
    client.run("CREATE INDEX ON t (v)").await;
    wait_until("the change is noticed", async || stage.proxy.log_text().contains("cache bypassed until")).await;
    let analyses = r#"heliosdb_operation_duration_seconds_count{operation="analyse"}"#;
    let bypasses = r#"heliosdb_cache_accesses_total{result="bypass"}"#;
    let (analysed, bypassed) = (stage.proxy.metric(analyses).await, stage.proxy.metric(bypasses).await);
    for _ in 0..50 {
        assert_eq!(client.one(READ).await, "2");
    }
    assert_eq!(stage.proxy.metric(bypasses).await, bypassed + 50.0);
    assert_eq!(stage.proxy.metric(analyses).await, analysed);
    let (pid, key) = sleeper.key();
    cancel(stage.proxy.port, pid, &key).await;
    stage.cached(&client, READ).await;
}
