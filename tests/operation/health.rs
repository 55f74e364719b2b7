//! Health and metrics.

use crate::harness::fault::FaultRelay;
use crate::harness::raw::{Batch, PROTOCOL_3_0, Raw, startup};
use crate::harness::{Options, Proxy, Stage, cluster, http, port, wait_until};

#[tokio::test]
async fn live_and_ready_say_so() {
    let stage = Stage::new().await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(http::get(stage.proxy.http, path).await.unwrap().0, 200, "{path}");
    }
    assert_eq!(http::get(stage.proxy.http, "/no/such/page").await.unwrap().0, 404);
}

#[tokio::test]
async fn a_server_that_is_down_is_a_clear_error_and_not_ready() {
    let nobody = port::free();
    let options = Options::default().upstream(format!("postgres://postgres@127.0.0.1:{nobody}/postgres"));
    let proxy = Proxy::spawn(cluster(), "postgres", &options);
    wait_until("the proxy lives", async || matches!(http::get(proxy.http, "/health/live").await, Some((200, _)))).await;
    assert_ne!(http::get(proxy.http, "/health/ready").await.unwrap().0, 200);
    wait_until("the proxy listens", async || tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await.is_ok())
        .await;
    let mut raw = Raw::open(proxy.port).await;
    raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres")])).await;
    let frames = raw.until_closed().await;
    let code = frames.last().and_then(|frame| frame.field('C')).unwrap_or_else(|| panic!("no error: {frames:?}"));
    assert!(code.starts_with("08") || code == "57P03", "{frames:?}");
}

#[tokio::test]
async fn ready_follows_the_server() {
    let relay = FaultRelay::to(cluster().port).await;
    let options = Options::default().upstream(format!("postgres://postgres@127.0.0.1:{}/postgres", relay.port));
    let proxy = Proxy::start(cluster(), "postgres", &options).await;
    relay.cut();
    wait_until("not ready", async || http::get(proxy.http, "/health/ready").await.unwrap().0 != 200).await;
    assert_eq!(http::get(proxy.http, "/health/live").await.unwrap().0, 200);
    relay.mend();
    wait_until("ready again", async || http::get(proxy.http, "/health/ready").await.unwrap().0 == 200).await;
}

#[tokio::test]
async fn the_metrics_count_what_happens() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM t").await;
    client.run("UPDATE t SET v = 2").await;
    client.text("SELECT v FROM t").await;
    for name in [
        "heliosdb_connections",
        "heliosdb_queries_total",
        "heliosdb_cache_accesses_total{result=\"hit\"}",
        "heliosdb_cache_accesses_total{result=\"miss\"}",
        "heliosdb_cache_invalidations_total",
        "heliosdb_query_duration_seconds_count",
    ] {
        assert!(stage.proxy.metric(name).await >= 1.0, "{name} has not counted");
    }
    stage.cached(&client, "SELECT v FROM t").await;
    for gauge in ["heliosdb_cache_entries", "heliosdb_cache_bytes"] {
        wait_until(gauge, async || stage.proxy.metric(gauge).await >= 1.0).await;
    }
}

#[tokio::test]
async fn with_no_cache_nothing_is_ever_cached() {
    let stage = Stage::with(Options::default().arg("--no-cache")).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v int); INSERT INTO t VALUES (0)").await;
    let client = stage.client().await;
    for value in 1..6 {
        direct.run(&format!("UPDATE t SET v = {value}")).await;
        assert_eq!(client.one("SELECT v FROM t").await, value.to_string());
        client.one_batch("SELECT v FROM t").await;
    }
    assert_eq!(stage.proxy.hits().await, 0);
}

#[tokio::test]
async fn a_database_that_is_dropped_around_a_lost_write_is_not_waited_for() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (0)").await;
    let mut raw = stage.raw().await;
    raw.query("SELECT v FROM t").await;
    raw.send_batch(Batch::new().query("UPDATE t SET v = 1; SELECT pg_sleep(3600)")).await;
    let asleep =
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    stage.direct().await.until("it sleeps", asleep).await;
    drop(raw);
    let admin = stage.cluster.connect("postgres").await;
    admin.run(&format!("DROP DATABASE {} WITH (FORCE)", stage.database)).await;
    wait_until("the proxy waits for nobody there", async || {
        let (_, health) = http::get(stage.proxy.http, "/health").await.unwrap();
        let health: serde_json::Value = serde_json::from_str(&health).unwrap();
        let catalog = health["components"].as_array().unwrap().iter().find(|component| component["name"] == "catalog");
        let catalog = catalog.unwrap();
        catalog["status"] == "healthy" && catalog["text"].as_str().unwrap().contains("was dropped")
    })
    .await;
}
