//! Settings that change how values are written or read.

use crate::harness::raw::{Batch, Raw};
use crate::harness::{Stage, client::TextRows};

use super::differ::differ;

const TIMES: &str = "CREATE TABLE t (z timestamptz, d date, i interval, b bytea, f float8, m money, n numeric, x xml);
    INSERT INTO t VALUES ('2024-02-03 04:05:06+00', '2024-02-03', '1 year 2 days 3 hours', '\\x00ff41', 1.0/3, '1234.5', 1.50,
        '<a/>')";

#[tokio::test]
async fn time_zone() {
    differ(TIMES, &["SET TimeZone = 'UTC'"], &["SET TimeZone = 'Asia/Tokyo'"], "SELECT z FROM t").await;
    differ(TIMES, &[], &["SET TIME ZONE 'America/New_York'"], "SELECT z::date FROM t").await;
    differ(TIMES, &[], &["SET TIME ZONE INTERVAL '+08:00' HOUR TO MINUTE"], "SELECT z FROM t").await;
    differ(TIMES, &[], &["SET TIME ZONE -7"], "SELECT extract(hour FROM z) FROM t").await;
}

#[tokio::test]
async fn date_style() {
    differ(TIMES, &[], &["SET DateStyle = 'SQL, DMY'"], "SELECT d FROM t").await;
    differ(
        TIMES,
        &["SET datestyle TO 'ISO, DMY'"],
        &["SET datestyle TO 'ISO, MDY'"],
        "SELECT d, '01/02/2024'::date FROM t",
    )
    .await;
    differ(TIMES, &[], &["SET datestyle = German"], "SELECT z::text FROM t").await;
}

#[tokio::test]
async fn output_formats() {
    differ(TIMES, &[], &["SET IntervalStyle = iso_8601"], "SELECT i FROM t").await;
    differ(TIMES, &[], &["SET bytea_output = 'escape'"], "SELECT b FROM t").await;
    differ(TIMES, &[], &["SET extra_float_digits = -5"], "SELECT f FROM t").await;
    differ(TIMES, &[], &["SET extra_float_digits = 0"], "SELECT f::text FROM t").await;
    differ(TIMES, &[], &["SET xmlbinary = hex"], "SELECT xmlelement(name a, b) FROM t").await;
}

#[tokio::test]
async fn lc_monetary() {
    // The cluster has only the C locale and its UTF-8 variant for certain: the setting must be told apart, whatever it prints.
    let stage = Stage::setup(TIMES).await;
    let direct = stage.direct().await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT m FROM t").await;
    client.run("SET lc_monetary = 'C.UTF-8'").await;
    direct.run("SET lc_monetary = 'C.UTF-8'").await;
    assert_eq!(client.text("SELECT m FROM t").await, direct.text("SELECT m FROM t").await);
}

#[tokio::test]
async fn settings_that_change_what_the_text_means() {
    differ(
        TIMES,
        &["SET standard_conforming_strings = on"],
        &["SET standard_conforming_strings = off"],
        r"SELECT 'a\\b', d FROM t",
    )
    .await;
    differ(
        TIMES,
        &[],
        &["SET transform_null_equals = on"],
        "SELECT count(*) FROM t WHERE (NULL = NULL) OR d = NULL OR n IS NULL OR (x::text = NULL) IS NOT NULL",
    )
    .await;
    differ(TIMES, &[], &["SET array_nulls = off"], "SELECT '{NULL,a}'::text[], d FROM t").await;
}

#[tokio::test]
async fn settings_read_by_the_query_itself() {
    differ(
        TIMES,
        &["SET app.tenant = 'a'"],
        &["SET app.tenant = 'b'"],
        "SELECT current_setting('app.tenant'), d FROM t",
    )
    .await;
    differ(
        "CREATE TABLE t (v text); INSERT INTO t VALUES ('a'), ('b');
         CREATE VIEW w AS SELECT v FROM t WHERE v = current_setting('app.tenant')",
        &["SET app.tenant = 'a'"],
        &["SET app.tenant = 'b'"],
        "SELECT v FROM w",
    )
    .await;
    differ(
        TIMES,
        &["SET application_name = 'one'"],
        &["SET application_name = 'two'"],
        "SELECT current_setting('application_name'), d FROM t",
    )
    .await;
}

#[tokio::test]
async fn a_setting_changed_by_a_function_counts() {
    differ(TIMES, &[], &["SELECT set_config('TimeZone', 'Asia/Tokyo', false)"], "SELECT z FROM t").await;
    differ(TIMES, &[], &["DO $$ BEGIN PERFORM set_config('datestyle', 'German', false); END $$"], "SELECT d FROM t")
        .await;
    differ(
        &format!(
            "{TIMES}; CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_config('bytea_output', 'escape', false); RETURN 1; END $$"
        ),
        &[],
        &["SELECT f()"],
        "SELECT b FROM t",
    )
    .await;
    differ(TIMES, &[], &["UPDATE pg_settings SET setting = 'German' WHERE name = 'DateStyle'"], "SELECT d FROM t")
        .await;
    differ(
        TIMES,
        &[],
        &["PREPARE s AS SELECT set_config('TimeZone', 'Asia/Tokyo', false)", "EXECUTE s"],
        "SELECT z FROM t",
    )
    .await;
}

#[tokio::test]
async fn set_local_lasts_for_its_transaction() {
    let stage = Stage::setup(TIMES).await;
    let (client, other) = (stage.client().await, stage.client().await);
    let utc = stage.cached(&client, "SELECT z FROM t").await;
    client.run("BEGIN").await;
    client.run("SET LOCAL TimeZone = 'Asia/Tokyo'").await;
    let tokyo: TextRows = vec![vec![Some("2024-02-03 13:05:06+09".into())]];
    for _ in 0..4 {
        assert_eq!(client.text("SELECT z FROM t").await, tokyo);
        assert_eq!(other.text("SELECT z FROM t").await, utc);
    }
    client.run("COMMIT").await;
    for _ in 0..4 {
        assert_eq!(client.text("SELECT z FROM t").await, utc, "SET LOCAL outlived its transaction");
    }
}

#[tokio::test]
async fn a_set_that_is_rolled_back_never_was() {
    let stage = Stage::setup(TIMES).await;
    let client = stage.client().await;
    let utc = stage.cached(&client, "SELECT z FROM t").await;
    client.run("BEGIN").await;
    client.run("SET TimeZone = 'Asia/Tokyo'").await;
    assert_ne!(client.text("SELECT z FROM t").await, utc);
    client.run("ROLLBACK").await;
    assert_eq!(client.text("SELECT z FROM t").await, utc);
    client.run("BEGIN; SAVEPOINT s; SET TimeZone = 'Asia/Tokyo'; ROLLBACK TO s; COMMIT").await;
    assert_eq!(client.text("SELECT z FROM t").await, utc);
    client.run("BEGIN; SET TimeZone = 'Asia/Tokyo'; COMMIT").await;
    assert_ne!(client.text("SELECT z FROM t").await, utc);
}

const TWO_SCHEMAS: &str = "CREATE SCHEMA one; CREATE TABLE one.t (s text); INSERT INTO one.t VALUES ('one');
    CREATE SCHEMA two; CREATE TABLE two.t (s text); INSERT INTO two.t VALUES ('two');
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = one', current_database()); END $$";

fn row(value: &str) -> TextRows {
    vec![vec![Some(value.into())]]
}

/// The server does not report search_path: what has become of it is told by the statements alone.
#[tokio::test]
async fn a_setting_that_nobody_reports_follows_its_block() {
    let stage = Stage::setup(TWO_SCHEMAS).await;
    let (client, other) = (stage.client().await, stage.client().await);
    other.run("SET search_path = two").await;
    assert_eq!(stage.cached(&client, "SELECT s FROM t").await, row("one"));
    assert_eq!(stage.cached(&other, "SELECT s FROM t").await, row("two"));
    let expect = async |after: &[&str], value: &str| {
        client.run("DISCARD ALL").await;
        for statement in after {
            // Some of them fail, which is part of it.
            let _ = client.batch_execute(statement).await;
        }
        for _ in 0..3 {
            assert_eq!(client.text("SELECT s FROM t").await, row(value), "{after:?}");
        }
        let _ = client.batch_execute("ROLLBACK").await;
    };
    expect(&["BEGIN; SET search_path = two; ROLLBACK"], "one").await;
    expect(&["BEGIN; SET search_path = two; COMMIT"], "two").await;
    expect(&["SET search_path = two; SELECT 1/0"], "one").await;
    expect(&["SET search_path = two; COMMIT; SELECT 1/0"], "two").await;
    expect(&["BEGIN; SET search_path = two"], "two").await;
    expect(&["BEGIN", "SET search_path = two"], "two").await;
    expect(&["BEGIN", "SET search_path = two", "ROLLBACK"], "one").await;
    expect(&["BEGIN", "SET search_path = two", "COMMIT"], "two").await;
    expect(&["BEGIN", "SET search_path = two", "SELECT 1/0", "COMMIT"], "one").await;
    expect(&["BEGIN", "SET LOCAL search_path = two"], "two").await;
    expect(&["BEGIN", "SET LOCAL search_path = two", "COMMIT"], "one").await;
    expect(&["BEGIN", "SET search_path = two", "SET LOCAL search_path = one", "COMMIT"], "two").await;
    expect(&["BEGIN", "SET search_path = two", "RESET search_path", "COMMIT"], "one").await;
    expect(&["BEGIN", "SET search_path = two", "SAVEPOINT s", "ROLLBACK TO s"], "two").await;
    expect(&["BEGIN", "SAVEPOINT s", "SET search_path = two", "ROLLBACK TO s"], "one").await;
    expect(&["BEGIN", "SAVEPOINT s", "SET search_path = two", "ROLLBACK TO s", "COMMIT"], "one").await;
    expect(&["BEGIN", "SAVEPOINT s", "SET search_path = two", "RELEASE s", "COMMIT"], "two").await;
    expect(&["BEGIN", "SAVEPOINT s; SET search_path = two; ROLLBACK TO s", "COMMIT"], "one").await;
    expect(&["BEGIN", "SAVEPOINT s", "SET search_path = two", "SELECT 1/0", "ROLLBACK TO s", "COMMIT"], "one").await;
    expect(&["BEGIN", "SET search_path = two", "ROLLBACK AND CHAIN", "COMMIT"], "one").await;
    expect(&["BEGIN", "SET search_path = two; COMMIT; BEGIN", "ROLLBACK"], "two").await;
}

#[tokio::test]
async fn a_block_with_settings_of_its_own_uses_the_cache() {
    let stage = Stage::setup(TWO_SCHEMAS).await;
    let client = stage.client().await;
    assert_eq!(stage.cached(&client, "SELECT s FROM t").await, row("one"));
    // By now the proxy knows with what settings such sessions begin.
    let other = stage.client().await;
    other.run("SET search_path = two").await;
    assert_eq!(stage.cached(&other, "SELECT s FROM t").await, row("two"));
    client.run("BEGIN").await;
    client.run("SET LOCAL search_path = two").await;
    let read = async || client.text("SELECT s FROM t").await;
    assert_eq!(stage.until_hit("in the block", read).await, row("two"));
    client.run("COMMIT").await;
    assert_eq!(stage.until_hit("after it", read).await, row("one"));
}

#[tokio::test]
async fn reset_and_discard_all_go_back() {
    let stage = Stage::setup(TIMES).await;
    let client = stage.client().await;
    let utc = stage.cached(&client, "SELECT z FROM t").await;
    for back in ["RESET TimeZone", "RESET ALL", "SET TimeZone TO DEFAULT", "DISCARD ALL", "SET TIME ZONE LOCAL"] {
        client.run("SET TimeZone = 'Asia/Tokyo'").await;
        assert_ne!(client.text("SELECT z FROM t").await, utc, "before {back}");
        client.run(back).await;
        assert_eq!(client.text("SELECT z FROM t").await, utc, "after {back}");
    }
}

#[tokio::test]
async fn settings_from_the_start_up_packet_the_database_and_the_role_count() {
    let stage = Stage::setup(TIMES).await;
    let client = stage.client().await;
    let utc = stage.cached(&client, "SELECT z FROM t").await[0][0].clone().unwrap();
    let login = [("user", "postgres"), ("database", stage.database.as_str())];
    for more in
        [("options", "-c TimeZone=Asia/Tokyo"), ("TimeZone", "Asia/Tokyo"), ("options", "--timezone=Asia/Tokyo")]
    {
        let mut raw = Raw::ready_with(stage.proxy.port, &[&login[..], &[more]].concat()).await;
        for _ in 0..3 {
            let frames = raw.query("SELECT z FROM t").await;
            assert_eq!(frames[1].text(), "2024-02-03 13:05:06+09", "{more:?}");
        }
    }
    assert_eq!(client.one("SELECT z FROM t").await, utc);
    stage.direct().await.run(&format!("ALTER DATABASE {} SET TimeZone = 'Asia/Tokyo'", stage.database)).await;
    let late = stage.client().await;
    assert_eq!(late.one("SELECT z FROM t").await, "2024-02-03 13:05:06+09");
    assert_eq!(client.one("SELECT z FROM t").await, utc);
}

#[tokio::test]
async fn client_encoding() {
    let stage = Stage::setup("CREATE TABLE t (v text); INSERT INTO t VALUES ('\u{e9}')").await;
    let utf8 = stage.client().await;
    assert_eq!(stage.cached(&utf8, "SELECT v FROM t").await, [[Some("\u{e9}".to_string())]]);
    let login = [("user", "postgres"), ("database", stage.database.as_str()), ("client_encoding", "LATIN1")];
    let mut latin = Raw::ready_with(stage.proxy.port, &login).await;
    for _ in 0..4 {
        let frames = latin.query("SELECT v FROM t").await;
        assert_eq!(frames[1].values(), [Some(vec![0xe9])], "UTF-8 was sent to a LATIN1 client");
    }
    let mut changing = stage.raw().await;
    changing.query("SET client_encoding = 'LATIN1'").await;
    for _ in 0..4 {
        assert_eq!(changing.query("SELECT v FROM t").await[1].values(), [Some(vec![0xe9])]);
    }
    changing.query("SET NAMES 'UTF8'").await;
    assert_eq!(changing.query("SELECT v FROM t").await[1].values(), [Some("\u{e9}".as_bytes().to_vec())]);
    assert_eq!(utf8.one("SELECT v FROM t").await, "\u{e9}");
}

/// What is plain ASCII means the same in every encoding: such sessions do not invalidate what they do not write.
#[tokio::test]
async fn a_client_of_another_encoding_writes_what_it_says_and_no_more() {
    let stage = Stage::setup(
        "CREATE TABLE t (k text PRIMARY KEY, v int); INSERT INTO t VALUES ('\u{e9}', 1), ('e', 1);
         CREATE TABLE other (v int); INSERT INTO other VALUES (1)",
    )
    .await;
    let reader = stage.client().await;
    let login = [("user", "postgres"), ("database", stage.database.as_str()), ("client_encoding", "LATIN1")];
    let mut latin = Raw::ready_with(stage.proxy.port, &login).await;
    let (accented, untouched) = ("SELECT v FROM t WHERE k = '\u{e9}'", "SELECT v FROM other");
    stage.cached(&reader, untouched).await;
    latin.query("SELECT count(*) FROM t").await;
    assert!(stage.until_hit(untouched, async || reader.text(untouched).await).await.len() == 1);
    let insert = "INSERT INTO t VALUES ($1, 5) ON CONFLICT (k) DO UPDATE SET v = t.v + 1";
    let (by_text, by_parameter) = (b"UPDATE t SET v = v + 1 WHERE k = '\xe9'".as_slice(), &b"\xe9"[..]);
    for _ in 0..4 {
        let before = stage.cached(&reader, accented).await;
        latin.send_batch(Batch::new().message(b'Q', &[by_text, b"\0"].concat())).await;
        latin.until_ready().await;
        assert_ne!(reader.text(accented).await, before, "stale after a write whose text is LATIN1");
        let before = stage.cached(&reader, accented).await;
        let batch = Batch::new().parse("", insert).bind("", "", &[Some(by_parameter)]).execute("", 0).sync();
        latin.ask(batch).await;
        assert_ne!(reader.text(accented).await, before, "stale after a write whose parameter is LATIN1");
    }
    // By now it is known what that writes.
    stage.cached(&reader, untouched).await;
    let batch = Batch::new().parse("", insert).bind("", "", &[Some(by_parameter)]).execute("", 0).sync();
    latin.ask(batch).await;
    latin.query("SELECT count(*) FROM t").await;
    let hits = stage.proxy.hits().await;
    reader.text(untouched).await;
    assert_eq!(stage.proxy.hits().await, hits + 1, "a session in LATIN1 has invalidated another table");
}
