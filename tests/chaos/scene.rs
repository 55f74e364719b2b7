//! A server of its own to harm, a proxy in front of it, and what must be true when the harm is over.

use crate::harness::raw::{PROTOCOL_3_0, Raw, startup};
use crate::harness::{Client, Cluster, Options, Stage, wait_until, within};

pub const OPENED: &str = r#"heliosdb_circuit_breaker_state_changes_total{service="upstream",state="open"}"#;
pub const CLOSED: &str = r#"heliosdb_circuit_breaker_state_changes_total{service="upstream",state="closed"}"#;

/// A server that no other test uses. What it has acknowledged it keeps, whatever kills its processes.
pub async fn fragile_server() -> &'static Cluster {
    let cluster = tokio::task::spawn_blocking(|| Cluster::start(false)).await.expect("a server");
    let cluster: &'static Cluster = Box::leak(Box::new(cluster));
    let admin = cluster.connect("postgres").await;
    admin.run("ALTER SYSTEM SET synchronous_commit = on").await;
    admin.run("SELECT pg_reload_conf()").await;
    cluster
}

/// A proxy that is quick to give up and to try again.
pub fn quick() -> Options {
    Options::default()
        .key("upstream.connect_timeout_secs", 1)
        .key("retry.max_attempts", 1)
        .key("pool.idle_timeout_secs", 1)
        .key("breaker.timeout_ms", 3_600_000)
}

pub async fn scene(options: Options) -> Stage {
    Stage::on(fragile_server().await, options).await
}

/// The SQLSTATE with which a new client is refused, and the hint; `None` if it is let in.
pub async fn refusal(stage: &Stage) -> Option<(String, String)> {
    let mut raw = Raw::open(stage.proxy.port).await;
    raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)])).await;
    loop {
        match within("an answer to a start-up packet", raw.frame()).await {
            Some(frame) if frame.tag == b'E' => {
                return Some((frame.field('C').unwrap_or_default(), frame.field('H').unwrap_or_default()));
            }
            Some(frame) if frame.tag == b'Z' => return None,
            Some(_) => {}
            None => panic!("closed without a word"),
        }
    }
}

/// Waits until new clients are let in and served: one who shares connections may be let in without any.
pub async fn recovered(stage: &Stage) -> Client {
    let client = std::cell::RefCell::new(None);
    wait_until("clients are let in again", async || match Client::try_connect(&stage.config()).await {
        Ok(connected) if connected.simple_query("SELECT 1").await.is_ok() => {
            client.replace(Some(connected));
            true
        }
        _ => false,
    })
    .await;
    client.into_inner().unwrap()
}

/// Nobody is connected any more: as the proxy counts, and as the server does.
pub async fn nothing_leaks(stage: &Stage) {
    wait_until("no client is counted", async || {
        stage.proxy.metric(r#"heliosdb_connections{side="client""#).await == 0.0
    })
    .await;
    for state in ["active", "idle"] {
        let gauge = format!(r#"heliosdb_connections{{side="upstream",state="{state}"}}"#);
        wait_until("no upstream connection is counted", async || stage.proxy.metric(&gauge).await == 0.0).await;
    }
    let backends = "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend'
        AND datname = current_database() AND pid <> pg_backend_pid() AND application_name <> 'heliosproxy'";
    stage.direct().await.until("the server has no client but the proxy itself", backends).await;
}
