//! Health, figures and the status page over HTTP.

use serde_json::Value;

use crate::harness::fault::FaultRelay;
use crate::harness::{Client, Options, Proxy, Stage, cluster, http, wait_until};

async fn json(proxy: &Proxy, path: &str) -> (u16, Value) {
    let (status, body) = http::get(proxy.http, path).await.expect("the proxy answers");
    (status, serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
}

#[tokio::test]
async fn stats_are_the_tables_of_the_admin_database() {
    let setup = "CREATE TABLE t (v int); INSERT INTO t VALUES (1)";
    let stage =
        Stage::setup_with(Options::default().arg("--auth").arg("trust").key("admin.users", "admin"), setup).await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM t").await;
    // The first time it is not known yet why not.
    for _ in 0..3 {
        client.text("SELECT random() FROM t").await;
    }
    let (status, stats) = json(&stage.proxy, "/stats").await;
    assert_eq!(status, 200);
    assert_eq!(stats["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(stats["health"]["status"], "healthy");
    assert_eq!(stats["pools"][0]["database"], stage.database.as_str());
    assert_eq!(stats["top"][0]["query"], "select v from t");
    assert_eq!(stats["advice"][0]["reason"], "function");
    assert!(stats["process"]["resident_bytes"].as_u64() > Some(1 << 20));
    let answers: u64 = stats["latency"]["cache"].as_array().unwrap().iter().map(|pair| pair[1].as_u64().unwrap()).sum();
    assert_eq!(Some(answers), stats["stats"]["cache_hits"].as_u64(), "every hit is in a bucket");
    assert_eq!(stats["metrics"][r#"heliosdb_cache_accesses_total{result="hit"}"#].as_f64(), Some(answers as f64));
    let admin = Client::connect(stage.proxy.port, "admin", "helios").await;
    let hits = admin.text("SHOW STATS").await[0][5].clone();
    assert_eq!(hits, Some(answers.to_string()), "the same in both places");
}

#[tokio::test]
async fn health_tells_every_component_and_the_worst_decides() {
    let relay = FaultRelay::to(cluster().port).await;
    let options = Options::default().upstream(format!("postgres://postgres@127.0.0.1:{}/postgres", relay.port));
    let proxy = Proxy::start(cluster(), "postgres", &options).await;
    let (status, health) = json(&proxy, "/health").await;
    assert_eq!((status, health["status"].as_str()), (200, Some("healthy")));
    let components = health["components"].as_array().unwrap();
    for name in ["upstream", "catalog", "breaker", "cache", "pools", "server"] {
        let found = components.iter().find(|component| component["name"] == name);
        assert_eq!(found.unwrap_or_else(|| panic!("no {name}"))["status"], "healthy", "{name}");
    }
    relay.cut();
    wait_until("unhealthy", async || json(&proxy, "/health").await.0 == 503).await;
    let (_, health) = json(&proxy, "/health").await;
    assert_eq!(health["status"], "unhealthy");
    relay.mend();
    wait_until("healthy again", async || json(&proxy, "/health").await.1["status"] == "healthy").await;
}

#[tokio::test]
async fn a_full_pool_is_degraded_and_clients_are_still_sent_here() {
    let stage = Stage::with(Options::default().key("pool.max_upstream_connections", 1)).await;
    let client = stage.client().await;
    client.run("SELECT 1").await;
    wait_until("degraded", async || json(&stage.proxy, "/health").await.1["status"] == "degraded").await;
    assert_eq!(json(&stage.proxy, "/health").await.0, 200);
    assert_eq!(json(&stage.proxy, "/health/ready").await.0, 200);
}

#[tokio::test]
async fn the_page_is_served_and_may_load_nothing_from_elsewhere() {
    let stage = Stage::new().await;
    let (status, page) = http::get(stage.proxy.http, "/").await.unwrap();
    assert_eq!(status, 200);
    assert!(page.starts_with("<!doctype html>") && page.contains("fetch('stats'"));
    let head = http::head(stage.proxy.http, "/").await.to_lowercase();
    assert!(
        head.contains("content-security-policy: default-src 'none'") && head.contains("script-src 'sha256-"),
        "{head}"
    );
    assert!(head.contains("content-type: text/html"), "{head}");
}
