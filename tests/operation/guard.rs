//! A server that cannot be reached is neither hammered nor hidden.

use crate::harness::fault::FaultRelay;
use crate::harness::raw::{Frame, PROTOCOL_3_0, Raw, startup};
use crate::harness::{Client, Options, Proxy, cluster, wait_until, within};

const OPENED: &str = r#"heliosdb_circuit_breaker_state_changes_total{service="upstream",state="open"}"#;
const CLOSED: &str = r#"heliosdb_circuit_breaker_state_changes_total{service="upstream",state="closed"}"#;
const FAILED_RETRIES: &str = r#"heliosdb_retry_attempts_total{operation="connect",success="false"}"#;
const GOOD_RETRIES: &str = r#"heliosdb_retry_attempts_total{operation="connect",success="true"}"#;

/// A proxy whose way to the server can be cut.
async fn behind_a_relay(options: Options) -> (FaultRelay, Proxy) {
    let relay = FaultRelay::to(cluster().port).await;
    let upstream = format!("postgres://postgres@127.0.0.1:{}/postgres", relay.port);
    let options = options.key("auth.mode", "trust").key("auth.auth_query", "").upstream(upstream);
    let proxy = Proxy::start(cluster(), "postgres", &options).await;
    (relay, proxy)
}

async fn refusal(proxy: &Proxy) -> Frame {
    let mut raw = Raw::open(proxy.port).await;
    raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", "postgres")])).await;
    within("a refusal", raw.until_closed()).await.pop().unwrap_or_else(|| panic!("closed without a word"))
}

#[tokio::test]
async fn a_server_that_is_away_for_a_moment_is_waited_for() {
    let options = Options::default()
        .key("retry.max_attempts", 100)
        .key("retry.initial_delay_ms", 50)
        .key("retry.multiplier", 1.0)
        .key("breaker.failure_threshold", 1000);
    let (relay, proxy) = behind_a_relay(options).await;
    relay.cut();
    let port = proxy.port;
    let client = tokio::spawn(async move { Client::connect(port, "postgres", "postgres").await });
    wait_until("it was tried again, in vain", async || proxy.metric(FAILED_RETRIES).await >= 1.0).await;
    relay.mend();
    let client = within("a connection", client).await.unwrap();
    assert_eq!(client.one("SELECT 1").await, "1");
    assert!(proxy.metric(GOOD_RETRIES).await >= 1.0);
    assert_eq!(proxy.metric(OPENED).await, 0.0);
}

#[tokio::test]
async fn the_breaker_refuses_at_once_until_the_server_is_seen_again() {
    let options = Options::default()
        // Each client opens a connection.
        .key("pool.mode", "session")
        .key("retry.max_attempts", 1)
        .key("breaker.failure_threshold", 3)
        .key("breaker.timeout_ms", 3_600_000)
        .key("breaker.success_threshold", 2);
    let (relay, proxy) = behind_a_relay(options).await;
    relay.cut();
    for _ in 0..3 {
        let code = refusal(&proxy).await.field('C').unwrap_or_default();
        assert!(code.starts_with("08"), "{code}");
    }
    assert_eq!(proxy.metric(OPENED).await, 1.0);
    let refused = refusal(&proxy).await;
    assert_eq!(refused.field('C').as_deref(), Some("57P03"));
    assert!(refused.field('H').is_some_and(|hint| hint.contains("tries again in at most")), "{refused:?}");

    // It would stay open for an hour; that the proxy itself reaches the server ends that.
    relay.mend();
    let config = || {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(proxy.port).user("postgres").dbname("postgres");
        config
    };
    wait_until("clients are let in again", async || Client::try_connect(&config()).await.is_ok()).await;
    wait_until("the breaker is closed", async || {
        Client::try_connect(&config()).await.is_ok() && proxy.metric(CLOSED).await >= 1.0
    })
    .await;
}

#[tokio::test]
async fn a_client_is_refused_by_the_attempt_that_finds_the_breaker_open() {
    let options = Options::default()
        .key("retry.max_attempts", 100)
        .key("retry.initial_delay_ms", 1)
        .key("retry.max_delay_ms", 1)
        .key("breaker.failure_threshold", 3)
        .key("breaker.timeout_ms", 3_600_000);
    let (relay, proxy) = behind_a_relay(options).await;
    relay.cut();
    for _ in 0..3 {
        assert_eq!(refusal(&proxy).await.field('C').as_deref(), Some("57P03"));
    }
    assert_eq!(proxy.metric(FAILED_RETRIES).await, 2.0, "three attempts of the first client, and none of the others");
}

#[tokio::test]
async fn the_clients_own_errors_open_nothing() {
    let (_relay, proxy) = behind_a_relay(Options::default().key("breaker.failure_threshold", 1)).await;
    for _ in 0..3 {
        let mut raw = Raw::open(proxy.port).await;
        raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", "there is no such database")])).await;
        let frames = within("a refusal", raw.until_closed()).await;
        assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("3D000"), "{frames:?}");
    }
    assert_eq!(proxy.metric(OPENED).await, 0.0);
    assert_eq!(proxy.metric(FAILED_RETRIES).await, 0.0);
}
