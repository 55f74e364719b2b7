//! What a session sets is its own, on whatever connection it runs.

use super::{sharing, stage};
use crate::harness::raw::Raw;
use crate::harness::{Client, Stage, wait_until};

/// What the two clients see of the settings below.
async fn seen(client: &Client) -> Vec<String> {
    let mut seen = Vec::new();
    for sql in [
        "SHOW TimeZone",
        "SHOW search_path",
        "SHOW work_mem",
        "SHOW application_name",
        "SELECT coalesce(current_setting('app.tenant', true), '')",
        "SELECT current_user",
        "SHOW statement_timeout",
    ] {
        seen.push(client.one(sql).await);
    }
    seen
}

#[tokio::test]
async fn settings_stay_with_their_session() {
    let stage = stage(1).await;
    stage.direct().await.run("CREATE ROLE pool_settings_role; CREATE SCHEMA s").await;
    let (one, two) = (stage.client().await, stage.client().await);
    let fresh = seen(&two).await;
    one.run("SET TimeZone = 'Asia/Tokyo'").await;
    one.run("SET search_path = s, public").await;
    one.run("SET work_mem = '7MB'").await;
    one.run("SET application_name = 'it''s \\ one'").await;
    one.run("SET app.tenant = 'a''b\\c'").await;
    one.run("SET ROLE pool_settings_role").await;
    one.run("SET statement_timeout = 12345").await;
    let own =
        ["Asia/Tokyo", "s, public", "7MB", "it's \\ one", "a'b\\c", "pool_settings_role", "12345ms"].map(String::from);
    for _ in 0..3 {
        assert_eq!(seen(&two).await, fresh);
        assert_eq!(seen(&one).await, own);
    }
    one.run("RESET ALL; RESET ROLE").await;
    for _ in 0..2 {
        assert_eq!(seen(&two).await, fresh);
        assert_eq!(seen(&one).await, fresh);
    }
    assert!(stage.proxy.metric("heliosdb_operation_duration_seconds_count{operation=\"handover\"}").await > 0.0);
}

#[tokio::test]
async fn what_a_transaction_sets_ends_as_it_does() {
    let stage = stage(1).await;
    let (one, two) = (stage.client().await, stage.client().await);
    let (zone, other) = ("SHOW TimeZone", "SELECT 2");
    one.run("BEGIN; SET TimeZone = 'Asia/Tokyo'; ROLLBACK").await;
    two.one(other).await;
    assert_eq!(one.one(zone).await, "UTC");
    one.run("BEGIN; SET LOCAL TimeZone = 'Asia/Tokyo'; COMMIT").await;
    two.one(other).await;
    assert_eq!(one.one(zone).await, "UTC");
    one.run("BEGIN").await;
    one.run("SAVEPOINT a; SET TimeZone = 'Asia/Tokyo'; ROLLBACK TO a; SET TimeZone = 'Asia/Baku'").await;
    one.run("COMMIT").await;
    assert_eq!(two.one(zone).await, "UTC");
    assert_eq!(one.one(zone).await, "Asia/Baku");
    one.run("SELECT set_config('TimeZone', 'Asia/Kabul', true)").await;
    two.one(other).await;
    assert_eq!(one.one(zone).await, "Asia/Baku");
    one.run("SELECT set_config('TimeZone', 'Asia/Kabul', false)").await;
    assert_eq!(two.one(zone).await, "UTC");
    assert_eq!(one.one(zone).await, "Asia/Kabul");
    one.run("DISCARD ALL").await;
    two.one(other).await;
    assert_eq!(one.one(zone).await, "UTC");
}

#[tokio::test]
async fn a_function_that_sets_something_is_believed_to() {
    let stage = stage(1).await;
    stage
        .direct()
        .await
        .run(
            "CREATE FUNCTION moves() RETURNS int LANGUAGE plpgsql AS
             $$ BEGIN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); RETURN 1; END $$",
        )
        .await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("DO $$ BEGIN SET TimeZone = 'Asia/Baku'; END $$").await;
    assert_eq!(two.one("SHOW TimeZone").await, "UTC");
    assert_eq!(one.one("SHOW TimeZone").await, "Asia/Baku");
}

/// The names in the ParameterStatus messages of an answer.
async fn reported(raw: &mut Raw, sql: &str) -> Vec<String> {
    let frames = raw.query(sql).await;
    let statuses = frames.iter().filter(|frame| frame.tag == b'S');
    statuses.map(|frame| String::from_utf8_lossy(&frame.body).replace('\0', "=")).collect()
}

#[tokio::test]
async fn a_client_is_told_of_its_own_settings_only() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    assert_eq!(reported(&mut one, "SET TimeZone = 'Asia/Tokyo'").await, ["TimeZone=Asia/Tokyo="]);
    for _ in 0..2 {
        assert_eq!(reported(&mut two, "SELECT 1").await, [""; 0]);
        assert_eq!(reported(&mut one, "SELECT 1").await, [""; 0]);
    }
    assert_eq!(reported(&mut two, "SET TimeZone = 'Asia/Tokyo'").await, ["TimeZone=Asia/Tokyo="]);
    assert_eq!(reported(&mut one, "SET TimeZone = 'UTC'").await, ["TimeZone=UTC="]);
}

#[tokio::test]
async fn cached_answers_follow_the_session_and_not_the_connection() {
    let stage: Stage = stage(1).await;
    stage
        .direct()
        .await
        .run(
            "CREATE SCHEMA a; CREATE SCHEMA b; CREATE TABLE a.t AS SELECT 'a' AS v; CREATE TABLE b.t AS SELECT 'b' AS v;
             CREATE TABLE times AS SELECT '2020-01-01 00:00+00'::timestamptz AS at",
        )
        .await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("SET search_path = a, public").await;
    two.run("SET search_path = b, public").await;
    one.run("SET TimeZone = 'Asia/Tokyo'").await;
    for _ in 0..20 {
        assert_eq!(one.one("SELECT v FROM t").await, "a");
        assert_eq!(two.one("SELECT v FROM t").await, "b");
        assert_eq!(one.one("SELECT at FROM times").await, "2020-01-01 09:00:00+09");
        assert_eq!(two.one("SELECT at FROM times").await, "2020-01-01 00:00:00+00");
    }
    assert!(stage.proxy.hits().await > 0, "{}", stage.proxy.cache_counters().await);
}

#[tokio::test]
async fn defaults_that_were_changed_past_the_proxy_are_the_newcomers() {
    let stage = Stage::with(sharing(3).key("catalog.refresh_secs", 1)).await;
    let old = stage.client().await;
    let zone = old.one("SHOW TimeZone").await;
    stage.direct().await.run(&format!("ALTER DATABASE {} SET TimeZone = 'Asia/Tokyo'", stage.database)).await;
    wait_until("newcomers begin with it", async || stage.client().await.one("SHOW TimeZone").await == "Asia/Tokyo")
        .await;
    assert_eq!(old.one("SHOW TimeZone").await, zone);
}
