//! What may happen between the proxy and a server.

use std::time::Duration;

use super::load::{Load, TABLE};
use super::scene::nothing_leaks;
use crate::harness::fault::{FaultRelay, Weather};
use crate::harness::raw::Batch;
use crate::harness::{Options, Proxy, Stage, cluster, wait_until, within};

/// A stage whose proxy reaches its server through a relay.
async fn behind_a_relay(options: Options) -> (Stage, FaultRelay) {
    let relay = FaultRelay::to(cluster().port).await;
    let database = cluster().database().await;
    let url = format!("postgres://postgres@127.0.0.1:{}/{database}", relay.port);
    let options = options.key("retry.max_attempts", 1).key("breaker.success_threshold", 1);
    let options = options.key("pool.idle_timeout_secs", 1).upstream(url);
    let proxy = Proxy::start(cluster(), &database, &options).await;
    (Stage { database, proxy, cluster: cluster() }, relay)
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_of_rows_is_no_result() {
    let (stage, relay) = behind_a_relay(Options::default()).await;
    stage.direct().await.run("CREATE TABLE t AS SELECT g, repeat('x', 100) FROM generate_series(1, 20000) g").await;
    let client = super::scene::recovered(&stage).await;
    let mut raw = stage.raw().await;
    for _ in 0..2 {
        raw.query("SELECT count(*) FROM t").await;
    }
    relay.cut_after(300_000);
    raw.send_batch(Batch::new().query("SELECT * FROM t")).await;
    let frames = within("the end", raw.until_closed()).await;
    assert!(frames.iter().all(|frame| !matches!(frame.tag, b'C' | b'Z')), "half a result was said to be one");
    relay.mend();
    drop(client);
    let fresh = super::scene::recovered(&stage).await;
    for _ in 0..3 {
        assert_eq!(fresh.text("SELECT * FROM t").await.len(), 20_000);
    }
    drop((fresh, raw));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn nothing_comes_after_the_last_words_of_a_backend() {
    let options = Options::default().arg("--auth").arg("trust").key("pool.mode", "auto");
    let (stage, relay) = behind_a_relay(options).await;
    let mut raw = stage.raw().await;
    // The proxy keeps its connection: it does not know what this has left.
    raw.query("DO 'BEGIN END'").await;
    relay.turn(Weather::Endless);
    let clients = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
        AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND application_name <> 'heliosproxy'";
    assert_eq!(stage.direct().await.text(clients).await.len(), 1);
    let frames = within("the end", raw.until_closed()).await;
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(frames[0].field('C').as_deref(), Some("57P01"));
    relay.cut();
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn cuts_under_load_lose_nothing_and_repeat_nothing() {
    let (stage, relay) = behind_a_relay(Options::default()).await;
    stage.direct().await.run(TABLE).await;
    let load = Load::start(&stage, 4);
    for bytes in [0, 100, 1_000, 5_000, 20_000] {
        load.progress(5).await;
        relay.cut_after(bytes);
        wait_until("it is cut", async || relay.is_cut()).await;
        relay.mend();
    }
    load.progress(5).await;
    let reader = super::scene::recovered(&stage).await;
    load.settle(&stage.direct().await).await;
    let direct = stage.direct().await;
    for id in 0..4 {
        let read = format!("SELECT n FROM counters WHERE id = {id}");
        assert_eq!(stage.cached(&reader, &read).await, direct.text(&read).await);
    }
}

#[tokio::test]
async fn a_write_lost_in_a_frozen_network_leaves_nothing_stale() {
    let (stage, relay) = behind_a_relay(Options::default().dedicated().key("upstream.connect_timeout_secs", 1)).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let reader = super::scene::recovered(&stage).await;
    stage.cached(&reader, "SELECT v FROM t").await;
    let mut writer = stage.raw().await;
    writer.query("SELECT 1").await;
    // The server hears the write, and nobody hears the server.
    let blocker = stage.direct().await;
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    direct.until_blocked("UPDATE%").await;
    relay.turn(Weather::Frozen);
    blocker.run("COMMIT").await;
    direct.until("the write is committed", "SELECT v = 2 FROM t").await;
    let (code, _) = within("a refusal", super::scene::refusal(&stage)).await.expect("nobody is let in");
    assert!(code.starts_with("08"), "{code}");
    relay.cut();
    within("the writer's end", writer.until_closed()).await;
    relay.mend();
    let fresh = super::scene::recovered(&stage).await;
    for _ in 0..3 {
        assert_eq!(fresh.one("SELECT v FROM t").await, "2");
    }
    assert_eq!(stage.cached(&fresh, "SELECT v FROM t").await, direct.text("SELECT v FROM t").await);
    drop((fresh, reader, direct, blocker));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_network_that_crawls_changes_no_byte() {
    let (stage, relay) = behind_a_relay(Options::default()).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t AS SELECT g, md5(g::text) FROM generate_series(1, 2000) g").await;
    let client = super::scene::recovered(&stage).await;
    relay.turn(Weather::Slow(777, Duration::from_micros(200)));
    let read = "SELECT * FROM t ORDER BY 1";
    let expected = direct.text(read).await;
    for _ in 0..2 {
        assert_eq!(client.text(read).await, expected);
    }
    drop((client, direct));
    nothing_leaks(&stage).await;
}
