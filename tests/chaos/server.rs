//! What may happen to a server.

use super::load::{Load, TABLE};
use super::scene::{CLOSED, OPENED, nothing_leaks, quick, recovered, refusal, scene};
use crate::harness::raw::Batch;
use crate::harness::{Client, http, wait_until, within};

#[tokio::test]
async fn restarts_in_a_row_under_load_lose_nothing_and_repeat_nothing() {
    let stage = scene(quick().key("breaker.failure_threshold", 5)).await;
    stage.direct().await.run(TABLE).await;
    let load = Load::start(&stage, 6);
    for mode in [&["-m", "fast"], &["-m", "immediate"], &["-m", "fast"], &["-m", "immediate"]] {
        load.progress(5).await;
        stage.cluster.turn("restart", mode).await;
    }
    load.progress(5).await;
    let reader = recovered(&stage).await;
    load.settle(&stage.direct().await).await;
    let direct = stage.direct().await;
    for id in 0..6 {
        let read = format!("SELECT n FROM counters WHERE id = {id}");
        assert_eq!(stage.cached(&reader, &read).await, direct.text(&read).await);
    }
    drop((reader, direct));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_backend_killed_in_the_middle_of_a_write_takes_nothing_acknowledged_along() {
    let stage = scene(quick().key("breaker.failure_threshold", 1000)).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1); CREATE TABLE gate ()").await;
    let reader = stage.client().await;
    stage.cached(&reader, "SELECT v FROM t").await;
    reader.run("UPDATE t SET v = 2").await;
    let (mut writer, blocker) = (stage.raw().await, stage.direct().await);
    blocker.run("BEGIN; LOCK TABLE gate").await;
    writer.send_batch(Batch::new().query("BEGIN; UPDATE t SET v = 3; TABLE gate; COMMIT")).await;
    let pid = "SELECT pid FROM pg_stat_activity WHERE query LIKE '%TABLE gate%' AND wait_event_type = 'Lock'";
    wait_until("the writer waits", async || !direct.text(pid).await.is_empty()).await;
    let pid = direct.one(pid).await;
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();

    within("the writer's end", writer.until_closed()).await;
    // The server ends everybody else too (57P02) and recovers.
    wait_until("the reader is told", async || reader.simple_query("SELECT 1").await.is_err()).await;
    let fresh = recovered(&stage).await;
    for _ in 0..3 {
        assert_eq!(fresh.one("SELECT v FROM t").await, "2", "what was not acknowledged and not committed is not there");
    }
    stage.cached(&fresh, "SELECT v FROM t").await;
    drop((fresh, reader, direct, blocker));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_crash_opens_the_breaker_and_one_look_at_the_server_closes_it() {
    // Without a cache: a backend that dies in the middle of sending something, be it to the proxy itself, says nothing.
    let options = quick().dedicated().key("breaker.failure_threshold", 3).key("breaker.success_threshold", 1);
    let stage = scene(options.key("cache.enabled", false)).await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut raw = stage.raw().await;
        raw.query("SELECT 1").await;
        clients.push(raw);
    }
    stage.cluster.turn("stop", &["-m", "immediate"]).await;
    for mut client in clients {
        let frames = within("the end", client.until_closed()).await;
        let code = frames.last().and_then(|frame| frame.field('C'));
        assert_eq!(code.as_deref(), Some("57P01"), "in the server's own words: {frames:?}");
    }
    wait_until("running sessions have opened it", async || {
        let _ = refusal(&stage).await;
        stage.proxy.metric(OPENED).await >= 1.0
    })
    .await;
    let (code, hint) = refusal(&stage).await.expect("a refusal");
    assert_eq!(code, "57P03");
    assert!(hint.contains("tries again in at most"), "{hint}");
    wait_until("not ready", async || http::get(stage.proxy.http, "/health/ready").await.unwrap().0 != 200).await;
    stage.cluster.turn("start", &[]).await;
    let client = recovered(&stage).await;
    assert_eq!(client.one("SELECT 1").await, "1");
    assert_eq!(stage.proxy.metric(CLOSED).await, 1.0);
    drop(client);
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn an_administrator_who_ends_backends_opens_nothing() {
    let stage = scene(quick().key("breaker.failure_threshold", 1)).await;
    let direct = stage.direct().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut raw = stage.raw().await;
        raw.query("SET application_name = 'victim'").await;
        raw.send_batch(Batch::new().query("SELECT pg_sleep(3600)")).await;
        clients.push(raw);
    }
    let asleep = "SELECT count(*) = 3 FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    direct.until("all of them sleep", asleep).await;
    direct.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'").await;
    for mut client in clients {
        let frames = within("the end", client.until_closed()).await;
        assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
    }
    // The proxy's own work on an idle client's connection does not keep the words from it either.
    for _ in 0..20 {
        let mut raw = stage.raw().await;
        raw.query("SET application_name = 'victim'").await;
        raw.send_batch(Batch::new().query("SELECT count(*) FROM pg_class")).await;
        direct.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'").await;
        let frames = within("the end", raw.until_closed()).await;
        let code = frames.last().filter(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'));
        assert_eq!(code.as_deref(), Some("57P01"), "{frames:?}");
    }
    // A function of the client's may raise what it likes.
    let client = stage.client().await;
    let raise = "DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '57P02'; END $$";
    assert_eq!(client.fails(raise).await, "57P02");
    client.fails("SELECT 1/0").await;
    assert_eq!(stage.proxy.metric(OPENED).await, 0.0);
    drop((client, direct));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_server_that_hangs_keeps_nobody_waiting_who_can_be_told() {
    let stage =
        scene(quick().dedicated().key("breaker.failure_threshold", 2).key("breaker.success_threshold", 1)).await;
    let mut inside = stage.raw().await;
    inside.query("CREATE TABLE t AS SELECT 1 AS v").await;
    stage.cluster.signal_all("STOP");
    inside.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    let mut codes = Vec::new();
    while codes.last().is_none_or(|code| code != "57P03") {
        codes.push(within("a refusal", refusal(&stage)).await.expect("nobody is let in").0);
    }
    assert!(codes.len() > 1 && codes[..codes.len() - 1].iter().all(|code| code.starts_with("08")), "{codes:?}");
    wait_until("not ready", async || http::get(stage.proxy.http, "/health/ready").await.unwrap().0 != 200).await;
    stage.cluster.signal_all("CONT");
    inside.until_ready().await;
    let client = recovered(&stage).await;
    assert_eq!(client.one("SELECT v FROM t").await, "2");
    assert!(stage.proxy.metric(CLOSED).await >= 1.0);
    drop((client, inside));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_query_that_a_hanging_server_does_not_cancel_ends_its_client_and_hides_nothing() {
    let stage = scene(quick().key("server.query_timeout_secs", 1)).await;
    let reader = stage.client().await;
    reader.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    stage.cached(&reader, "SELECT v FROM t").await;
    let mut writer = stage.raw().await;
    writer.query("SELECT 1").await;
    stage.cluster.signal_all("STOP");
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    let frames = within("the end", writer.until_closed()).await;
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap_or_else(|| panic!("no error: {frames:?}"));
    assert_eq!((error.field('C').as_deref(), error.field('S').as_deref()), (Some("57014"), Some("FATAL")));
    stage.cluster.signal_all("CONT");
    // It may still happen, or be cancelled.
    let fresh = recovered(&stage).await;
    let direct = stage.direct().await;
    let over = "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'UPDATE%'";
    direct.until("the write is over", over).await;
    assert_eq!(fresh.one("SELECT v FROM t").await, direct.one("SELECT v FROM t").await);
    assert_eq!(stage.cached(&fresh, "SELECT v FROM t").await, direct.text("SELECT v FROM t").await);
    drop((fresh, reader, direct));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_left_alone_until_it_has_one() {
    let options = quick().key("breaker.failure_threshold", 3).key("breaker.success_threshold", 1);
    let stage = scene(options).await;
    let inside = stage.client().await;
    inside.run("CREATE TABLE t AS SELECT 1 AS v").await;
    // Up to the last one: superusers get those that are reserved for them.
    let mut others = Vec::new();
    while let Ok(client) = Client::try_connect(&direct(stage.cluster.port)).await {
        others.push(client);
    }
    let mut codes = Vec::new();
    while codes.last().is_none_or(|code| code != "57P03") {
        codes.push(refusal(&stage).await.expect("nobody is let in").0);
    }
    assert!(codes[..codes.len() - 1].iter().all(|code| code == "53300"), "{codes:?}");
    assert_eq!(inside.one("SELECT v FROM t").await, "1", "who is in is served");
    drop(others);
    let client = recovered(&stage).await;
    assert_eq!(client.one("SELECT v FROM t").await, "1");
    assert!(stage.proxy.metric(CLOSED).await >= 1.0);
    drop((client, inside));
    nothing_leaks(&stage).await;
}

fn direct(port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
    config
}
