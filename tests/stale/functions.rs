//! Answers that depend on the clock or on functions of the user's are never kept, however well they hide it.

use heliosproxy::catalog::builtin::SAFE_STABLE;
use heliosproxy::statement::Statement;
use heliosproxy::wire::message::special_time::contains_special_time_word;

use crate::harness::{Client, Options, Stage};

async fn never_cached(stage: &Stage, client: &Client, sql: &str) {
    for _ in 0..4 {
        stage.misses(sql, || client.text(sql)).await;
    }
}

/// A literal of every kind that says `text`, and `text` itself in other spellings.
fn literals(text: &str) -> Vec<String> {
    let doubled = text.replace('\'', "''");
    let octal: String = text.bytes().map(|byte| format!("\\{byte:03o}")).collect();
    vec![
        format!("'{doubled}'"),
        format!("E'{octal}'"),
        format!("$x${text}$x$"),
        format!("'{}'", doubled.to_uppercase()),
        format!("'{}'\n'{}'", &doubled[..1], &doubled[1..]),
    ]
}

/// What date/time input makes of the words, asked of the server: everything that it takes and that comes out as the present
/// time or a day around it says so by one of the words.
#[tokio::test]
async fn the_server_takes_no_word_for_the_clock_that_is_not_known() {
    let direct = Stage::new().await.direct().await;
    direct
        .run(
            "CREATE TYPE pair AS (a timestamptz, b int);
             CREATE FUNCTION is_clock(sql text) RETURNS boolean LANGUAGE plpgsql AS $$
             DECLARE said text;
             BEGIN
                 EXECUTE 'SELECT (' || sql || ')::text' INTO said;
                 RETURN said ~ format('%s|%s|%s|%s', current_date - 1, current_date, current_date + 1, localtime);
             EXCEPTION WHEN others THEN RETURN NULL;
             END $$",
        )
        .await;
    let words = "now today tomorrow yesterday allballs epoch infinity current invalid zulu tod nowx xnow todayy now_ noon midnight \
        monday dow doy j2451187 abstime utc est";
    let frames = [
        ("", ""),
        (" ", "\t"),
        ("", " 12:00"),
        ("12:00 ", ""),
        ("", "12:00"),
        ("12:00", ""),
        ("", ","),
        ("", "@12:00"),
        ("", " UTC"),
        ("{", "}"),
        ("{\"", "\"}"),
        ("{\"\\", "\"}"),
        ("[", ",]"),
        ("(,", ")"),
        ("{[", ",)}"),
        ("(", ",)"),
        ("(\"\"\"", "\"\"\",)"),
        ("{\"(\\\"", "\\\",)\"}"),
        ("2024-01-01 ", ""),
        ("", "+1"),
        ("", "-1"),
        ("", "."),
    ];
    let types = "date time timetz timestamp timestamptz interval date[] timestamptz[] daterange tstzrange tsmultirange pair pair[]";
    let (mut special, mut constant) = (0, 0);
    for word in words.split_whitespace() {
        for (before, after) in frames {
            let text = format!("{before}{word}{after}");
            let said = contains_special_time_word(text.as_bytes());
            let casts: Vec<String> = types.split(' ').map(|kind| format!("is_clock($q$'{text}'::{kind}$q$)")).collect();
            let answer = &direct.text(&format!("SELECT {}", casts.join(", "))).await[0];
            for (kind, is_clock) in types.split(' ').zip(answer) {
                match is_clock.as_deref() {
                    Some("t") => {
                        special += 1;
                        assert!(said, "{text:?}::{kind} is the clock's");
                        for literal in literals(&text) {
                            let statement = Statement::analyse(format!("SELECT {literal}::{kind}").as_bytes());
                            assert!(statement.parts[0].facts.special_time_literal, "{literal}::{kind}");
                        }
                    }
                    Some(_) => constant += 1,
                    None => {}
                }
            }
            if matches!(word, "allballs" | "epoch" | "infinity") {
                assert!(!said, "{text:?} is constant");
            }
        }
    }
    assert!(special > 200 && constant > 20, "{special} inputs that say the time, {constant} that do not");
}

#[tokio::test]
async fn the_settings_that_stable_functions_depend_on_are_read() {
    let direct = Stage::new().await.direct().await;
    for name in SAFE_STABLE.iter().flat_map(|stable| stable.settings) {
        // The contexts that the session's fingerprint is made of.
        let sql = format!(
            "SELECT count(*) FROM pg_settings WHERE name = '{name}'
             AND context IN ('user', 'superuser', 'superuser-backend', 'backend')"
        );
        assert_eq!(direct.one(&sql).await, "1", "{name}");
    }
    for name in SAFE_STABLE.iter().flat_map(|stable| stable.names) {
        let sql = format!("SELECT count(*) FILTER (WHERE provolatile = 'v') FROM pg_proc WHERE proname = '{name}'");
        assert_eq!(direct.one(&sql).await, "0", "{name} has a volatile form");
    }
}

#[tokio::test]
async fn a_time_with_time_zone_depends_on_the_date() {
    let stage = Stage::setup(
        "CREATE TABLE plain (v int, at timestamptz); INSERT INTO plain VALUES (1, now());
         CREATE TABLE times (t time); INSERT INTO times VALUES ('12:00');
         CREATE TABLE zoned (z timetz); INSERT INTO zoned VALUES ('12:00+02');
         CREATE TYPE holds AS (z timetz); CREATE TABLE nested (h holds[]); INSERT INTO nested VALUES (NULL);
         CREATE VIEW shifted AS SELECT t AT TIME ZONE 'America/New_York' AS z FROM times",
    )
    .await;
    let client = stage.client().await;
    client.run("SET TimeZone = 'America/New_York'").await;
    for sql in [
        "SELECT '12:00'::timetz, v FROM plain",
        "SELECT CAST('12:00' AS time with time zone), v FROM plain",
        "SELECT time(3) with time zone '12:00', v FROM plain",
        "SELECT \"timetz\"(t) FROM times",
        "SELECT t::pg_catalog.timetz FROM times",
        "SELECT t AT TIME ZONE 'America/New_York' FROM times",
        "SELECT v, time '12:00' AT TIME ZONE 'America/New_York' FROM plain",
        "SELECT v, make_time(12, 0, 0) AT TIME ZONE 'America/New_York' FROM plain",
        "SELECT z FROM shifted",
        "SELECT count(*) FROM zoned WHERE z = '12:00'",
        "SELECT h FROM nested",
    ] {
        never_cached(&stage, &client, sql).await;
    }
    for sql in [
        "SELECT at AT TIME ZONE 'America/New_York' FROM plain",
        "SELECT at::timestamp with time zone, timestamp without time zone '2024-01-01' FROM plain",
        "SELECT t, t::time FROM times",
    ] {
        stage.cached(&client, sql).await;
    }
}

#[tokio::test]
async fn a_domain_whose_check_may_change_its_mind_is_not_trusted() {
    let stage = Stage::setup(
        "CREATE TABLE t (v int); INSERT INTO t VALUES (1);
         CREATE FUNCTION fine(int) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1 > 0; END';
         CREATE DOMAIN plain AS int CHECK (VALUE > 0);
         CREATE DOMAIN checked AS int CHECK (fine(VALUE));
         CREATE DOMAIN dated AS date CHECK (VALUE < CURRENT_DATE);
         CREATE DOMAIN over AS checked; CREATE TYPE holds AS (c checked);
         CREATE TABLE row_type (c over); INSERT INTO row_type VALUES (1)",
    )
    .await;
    let client = stage.client().await;
    for sql in [
        "SELECT v::checked FROM t",
        "SELECT CAST(v AS over) FROM t",
        "SELECT '{1}'::over[], v FROM t",
        "SELECT ROW(v)::holds FROM t",
        "SELECT ROW(v)::row_type FROM t",
        "SELECT public.over '1', v FROM t",
        "SELECT '2000-01-01'::dated, v FROM t",
    ] {
        never_cached(&stage, &client, sql).await;
    }
    stage.cached(&client, "SELECT v::plain FROM t").await;
    // What a row holds was checked when it was written.
    stage.cached(&client, "SELECT c FROM row_type").await;
}

#[tokio::test]
async fn a_domain_writes_by_its_default_and_by_its_check() {
    let setup = "CREATE TABLE log (n int); INSERT INTO log VALUES (0); CREATE TABLE other (v int);
        CREATE FUNCTION counts(int) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN UPDATE log SET n = n + 1; RETURN true; END';
        CREATE FUNCTION next() RETURNS int LANGUAGE plpgsql AS 'BEGIN UPDATE log SET n = n + 1; RETURN 1; END';
        CREATE DOMAIN defaulted AS int DEFAULT next(); CREATE DOMAIN checked AS int CHECK (counts(VALUE));
        CREATE TYPE holds AS (c checked, d int); CREATE TABLE by_default (a int, d defaulted);
        CREATE TABLE by_check (a int, h holds[]); INSERT INTO other VALUES (1)";
    for write in ["INSERT INTO by_default (a) VALUES (1)", "INSERT INTO by_check VALUES (1, '{\"(1,2)\"}')"] {
        let stage = Stage::setup(setup).await;
        let (client, writer) = (stage.client().await, stage.client().await);
        // The first of its shape is followed by its analysis.
        for _ in 0..3 {
            stage.cached(&client, "SELECT n FROM log").await;
            let before: i32 = client.one("SELECT n FROM log").await.parse().unwrap();
            writer.run(write).await;
            assert_eq!(client.one("SELECT n FROM log").await, (before + 1).to_string(), "{write}");
        }
    }
}

const FUNCTIONS: &str = "CREATE TABLE t (v int); INSERT INTO t VALUES (1);
    CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1';
    CREATE FUNCTION mixed(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION mixed(text) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 1; END';
    CREATE FUNCTION lower(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION near(int, int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN $1 - $2 < 9; END';
    CREATE OPERATOR ~=~ (FUNCTION = near, LEFTARG = int, RIGHTARG = int)";
const WITH_FUNCTIONS: [&str; 3] =
    ["SELECT twice(v) FROM t", "SELECT t.twice FROM (SELECT v AS twice FROM t) t", "SELECT v FROM t WHERE v ~=~ 2"];

#[tokio::test]
async fn functions_of_the_users_are_not_trusted_for_what_they_say() {
    let stage = Stage::setup(FUNCTIONS).await;
    let client = stage.client().await;
    for sql in WITH_FUNCTIONS {
        never_cached(&stage, &client, sql).await;
    }
}

#[tokio::test]
async fn they_are_if_the_configuration_says_so() {
    let stage = Stage::with(Options::default().key("cache.trust_immutable_functions", "true")).await;
    stage.direct().await.run(FUNCTIONS).await;
    let client = stage.client().await;
    for sql in WITH_FUNCTIONS {
        stage.cached(&client, sql).await;
    }
    // Any overload outside pg_catalog that is not declared so counts, since which is meant is not asked.
    for sql in ["SELECT mixed(v) FROM t", "SELECT lower('A'), v FROM t", "SELECT random(), v FROM t"] {
        never_cached(&stage, &client, sql).await;
    }
    // A new body voids what was computed by the old one.
    client.run("CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 3 * $1'").await;
    assert_eq!(client.one(WITH_FUNCTIONS[0]).await, "3");
    assert_eq!(stage.cached(&client, WITH_FUNCTIONS[0]).await[0][0].as_deref(), Some("3"));
    // What `=` means is too much to be trusted with.
    client.run("CREATE OPERATOR public.= (FUNCTION = near, LEFTARG = int, RIGHTARG = int)").await;
    client.run("SET search_path = public, pg_catalog").await;
    never_cached(&stage, &client, "SELECT v FROM t WHERE v = 2").await;
}
