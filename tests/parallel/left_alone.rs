//! What is not proven to be splittable is relayed, and answers as ever.

use super::stage::{NUMBERS, ended, options, skipped, stage, unsplit, why};
use crate::harness::Options;
use crate::harness::raw::{Batch, tags};

const SETUP: &str = "
    CREATE TABLE indexed AS SELECT n, n % 10 AS m FROM generate_series(1, 5000) n;
    CREATE INDEX ON indexed (n); ANALYZE indexed;
    CREATE TABLE parent (n int); CREATE TABLE child () INHERITS (parent);
    INSERT INTO child SELECT generate_series(1, 5000);
    CREATE TABLE parts (n int) PARTITION BY RANGE (n);
    CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (9999);
    INSERT INTO parts SELECT generate_series(1, 5000);
    CREATE TABLE keyed (n int PRIMARY KEY, m int) PARTITION BY RANGE (n);
    CREATE TABLE keyed1 PARTITION OF keyed FOR VALUES FROM (0) TO (9999);
    INSERT INTO keyed SELECT n, n FROM generate_series(1, 5000) n;
    CREATE TABLE crumbs (n int) PARTITION BY LIST (n);
    DO $$ BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE crumb%s PARTITION OF crumbs FOR VALUES IN (%s)', i, i); END LOOP; END $$;
    INSERT INTO crumbs SELECT n % 300 + 1 FROM generate_series(1, 30000) n;
    CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE TABLE remote (n int) PARTITION BY RANGE (n);
    CREATE TABLE remote1 PARTITION OF remote FOR VALUES FROM (0) TO (9999);
    CREATE FOREIGN TABLE remote2 PARTITION OF remote FOR VALUES FROM (9999) TO (99999) SERVER files OPTIONS (filename '/dev/null');
    INSERT INTO remote1 SELECT generate_series(1, 5000);
    CREATE TABLE guarded (n int) PARTITION BY RANGE (n);
    CREATE TABLE guarded1 PARTITION OF guarded FOR VALUES FROM (0) TO (9999); ALTER TABLE guarded1 ENABLE ROW LEVEL SECURITY;
    INSERT INTO guarded SELECT generate_series(1, 5000);
    CREATE VIEW seen AS SELECT * FROM numbers;
    CREATE FUNCTION own(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
    CREATE FUNCTION many(int) RETURNS SETOF int LANGUAGE sql STABLE AS 'SELECT n FROM numbers WHERE n < $1';
    CREATE TABLE secret AS SELECT n FROM generate_series(1, 5000) n; ALTER TABLE secret ENABLE ROW LEVEL SECURITY;
    CREATE UNLOGGED TABLE shadow AS SELECT n FROM generate_series(1, 5000) n;
    ANALYZE";

#[tokio::test]
async fn what_is_no_plain_scan_of_one_table_is_relayed() {
    let stage = stage(options(), &format!("{NUMBERS}; {SETUP}")).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    for sql in [
        "SELECT 1",
        "SELECT n FROM numbers LIMIT 10",
        "SELECT n, row_number() OVER () FROM numbers",
        "SELECT n FROM numbers UNION ALL SELECT n FROM numbers",
        "SELECT a.n FROM numbers a, numbers b WHERE a.n = b.n",
        "SELECT n FROM numbers WHERE n IN (SELECT n FROM indexed)",
        "SELECT (SELECT 1) FROM numbers",
        "SELECT generate_series(1, 2) FROM numbers",
        "SELECT n FROM numbers WHERE false",
        "SELECT n FROM numbers FOR SHARE",
        "SELECT n FROM numbers TABLESAMPLE system (100)",
        "SELECT n FROM indexed WHERE n = 5",
        "SELECT n FROM ONLY parts",
        "SELECT n FROM remote",
        "SELECT n FROM guarded",
        "SELECT n FROM keyed WHERE n < 100",
        "SELECT n FROM crumbs",
        "SELECT n FROM seen",
        "SELECT n FROM many(100) AS many (n)",
        "SELECT own(n) FROM numbers",
        "SELECT n FROM secret",
        "SELECT relname FROM pg_class WHERE relname = 'numbers'",
        "SELECT n > extract(epoch from now()) FROM numbers",
        "SELECT random() < 2 FROM numbers",
        "SELECT current_user FROM numbers WHERE n < 5",
        "/* helios: noparallel */ SELECT n FROM numbers",
        "/* helios: parallel=1 */ SELECT n FROM numbers",
        "SELECT n FROM nowhere",
        "SELECT nothing FROM numbers",
        "SELECT n FROM numbers; SELECT n FROM numbers",
        "COPY numbers TO STDOUT",
    ] {
        for _ in 0..2 {
            let answer = unsplit(&stage, sql, raw.query(sql)).await;
            let mut expected = direct.query(sql).await;
            let mut answer: Vec<_> = answer.into_iter().collect();
            answer.sort_by(|a, b| (a.tag, &a.body).cmp(&(b.tag, &b.body)));
            expected.sort_by(|a, b| (a.tag, &a.body).cmp(&(b.tag, &b.body)));
            assert_eq!(answer, expected, "{sql}");
        }
    }
    // What is near to it and is split, so that the list above means something.
    for sql in [
        "SELECT n FROM indexed WHERE n > 0 AND m = 3",
        "SELECT n FROM ONLY shadow",
        "SELECT n FROM parent",
        "SELECT n FROM parts",
        "SELECT n FROM keyed WHERE m < 100",
    ] {
        let before = stage.proxy.metric("heliosdb_parallel_query_duration_seconds_count").await;
        raw.query(sql).await;
        assert_eq!(stage.proxy.metric("heliosdb_parallel_query_duration_seconds_count").await, before + 1.0, "{sql}");
    }
}

#[tokio::test]
async fn transactions_pipelines_and_row_limits_are_relayed() {
    let stage = stage(options(), NUMBERS).await;
    let mut raw = stage.raw().await;
    let sql = "SELECT n FROM numbers WHERE n <> 3";
    unsplit(&stage, "in a block", async {
        raw.query("BEGIN").await;
        assert_eq!(raw.query(sql).await.last().unwrap().body, b"T");
        raw.query("COMMIT").await;
        raw.query("BEGIN ISOLATION LEVEL REPEATABLE READ").await;
        raw.query(sql).await;
        raw.query("ROLLBACK").await;
    })
    .await;
    unsplit(&stage, "with a row limit", async {
        let limited = Batch::new().parse("", sql).bind("", "", &[]).execute("", 10).sync();
        assert!(tags(&raw.ask(limited).await).ends_with("sZ"));
    })
    .await;
    unsplit(&stage, "with two statements before one Sync", async {
        let two = Batch::new().parse("", sql).bind("", "", &[]).execute("", 0).bind("", "", &[]).execute("", 0).sync();
        assert!(tags(&raw.ask(two).await).ends_with("CZ"));
    })
    .await;
    unsplit(&stage, "with temporary tables about", async {
        raw.query("CREATE TEMP TABLE numbers (n int)").await;
        assert_eq!(tags(&raw.query(sql).await), "TCZ");
    })
    .await;
}

#[tokio::test]
async fn without_the_users_secret_or_switched_off_nothing_is_split() {
    for (key, value, reason) in [("auth.mode", "relay", "login"), ("parallel.enabled", "false", "")] {
        let stage = stage(options().key(key, value), NUMBERS).await;
        let mut raw = stage.raw().await;
        unsplit(&stage, key, async {
            for _ in 0..3 {
                raw.query("SELECT n FROM numbers").await;
            }
        })
        .await;
        assert_eq!(skipped(&stage, "login").await > 0, reason == "login");
    }
}

#[tokio::test]
async fn small_tables_and_cheap_plans_are_left_alone_and_nothing_is_asked_twice() {
    let stage = stage(options().key("parallel.min_table_mb", 64), NUMBERS).await;
    let mut raw = stage.raw().await;
    let asked = "heliosdb_operation_duration_seconds_count{operation=\"plan_scan\"}";
    let before = stage.proxy.metric(asked).await;
    for at in 0..5 {
        unsplit(&stage, "small", raw.query(&format!("SELECT t FROM numbers WHERE n > {at}"))).await;
    }
    assert_eq!(stage.proxy.metric(asked).await, before + 1.0);
    assert!(skipped(&stage, "small").await >= 4);
    let defaults = Options::default().key("auth.mode", "trust").key("parallel.enabled", "true");
    let defaults = super::stage::stage(defaults, NUMBERS).await;
    let mut raw = defaults.raw().await;
    unsplit(&defaults, "by default", raw.query("SELECT t FROM numbers")).await;
}

#[tokio::test]
async fn a_rule_keeps_a_table_from_being_split_and_a_hint_beats_it() {
    let rules = r#"[{ table = "numbers", parallel = false }]"#;
    let setup = format!("{NUMBERS}; CREATE TABLE others AS TABLE numbers; ANALYZE others");
    let stage = stage(options().key("cache.rules", rules), &setup).await;
    let mut raw = stage.raw().await;
    let before = skipped(&stage, "rule").await;
    // Not from the cache: there, reads that differ in a literal differ.
    for at in 0..3 {
        unsplit(&stage, "numbers", raw.query(&format!("SELECT t FROM numbers WHERE n > {at}"))).await;
    }
    assert!(skipped(&stage, "rule").await >= before + 2);
    for sql in ["SELECT t FROM others", "/* helios: parallel=2 */ SELECT t FROM numbers"] {
        let before = ended(&stage, "complete").await;
        raw.query(sql).await;
        assert_eq!(ended(&stage, "complete").await, before + 1, "{sql}: {}", why(&stage).await);
    }
}
