//! What is answered from memory while the server cannot be reached.

use super::scene::{OPENED, quick, recovered, refusal};
use crate::harness::fault::FaultRelay;
use crate::harness::raw::{Batch, Frame, Raw};
use crate::harness::{Options, Proxy, Stage, cluster, wait_until};

async fn behind_a_relay(options: Options) -> (Stage, FaultRelay) {
    let relay = FaultRelay::to(cluster().port).await;
    let database = cluster().database().await;
    let options = options
        .key("auth.mode", "trust")
        .key("auth.auth_query", "")
        .key("pool.mode", "auto")
        .key("breaker.failure_threshold", 1)
        .key("breaker.success_threshold", 1)
        .key("cache.default_ttl_secs", 1)
        .upstream(format!("postgres://postgres@127.0.0.1:{}/{database}", relay.port));
    let proxy = Proxy::start(cluster(), &database, &options).await;
    (Stage { database, proxy, cluster: cluster() }, relay)
}

fn notice(frames: &[Frame]) -> Option<String> {
    frames.iter().find(|frame| frame.tag == b'N').and_then(|frame| frame.field('M'))
}

/// Opens the breaker: whoever needs a connection is told that there is none.
async fn outage(stage: &Stage, relay: &FaultRelay) {
    relay.cut();
    wait_until("the breaker is open", async || {
        let mut raw = match refusal(stage).await {
            Some(_) => return stage.proxy.metric(OPENED).await >= 1.0,
            None => stage.raw().await,
        };
        raw.send_batch(Batch::new().query("SELECT count(*) FROM pg_class")).await;
        raw.until_closed().await;
        stage.proxy.metric(OPENED).await >= 1.0
    })
    .await;
}

/// Has `read` cached, for clients like those that will ask.
async fn warm(stage: &Stage, raw: &mut Raw, read: &str) {
    stage.until_hit(read, async || raw.query(read).await).await;
}

/// Clients that were there before.
async fn audience(stage: &Stage) -> Vec<Raw> {
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(stage.raw().await);
    }
    clients
}

/// What a client gets that asks until the answer is marked as old, or is no answer.
async fn ask(mut raw: Raw, read: &str) -> Vec<Frame> {
    loop {
        raw.send_batch(Batch::new().query(read)).await;
        let mut frames = Vec::new();
        while let Some(frame) = raw.frame().await {
            let ends = frame.tag == b'Z';
            frames.push(frame);
            if ends {
                break;
            }
        }
        if notice(&frames).is_some() || frames.last().is_none_or(|frame| frame.tag != b'Z') {
            return frames;
        }
    }
}

#[tokio::test]
async fn what_has_expired_is_served_and_marked_and_what_was_written_is_not() {
    let options = quick().key("cache.serve_stale_on_open", true).key("cache.max_stale_secs", 3600);
    let (stage, relay) = behind_a_relay(options).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t AS SELECT 1 AS v; CREATE TABLE u AS SELECT 1 AS v").await;
    let client = recovered(&stage).await;
    let mut raw = stage.raw().await;
    // Once it is known what the write writes.
    wait_until("a write of the one leaves the other alone", async || {
        warm(&stage, &mut raw, "SELECT v FROM t").await;
        let before = stage.proxy.hits().await;
        client.run("UPDATE u SET v = 1").await;
        raw.query("SELECT v FROM t").await;
        stage.proxy.hits().await > before
    })
    .await;
    warm(&stage, &mut raw, "SELECT v FROM u").await;
    warm(&stage, &mut raw, "SELECT v FROM t").await;
    client.run("UPDATE u SET v = 2").await;
    let mut clients = audience(&stage).await;

    outage(&stage, &relay).await;
    let frames = ask(clients.pop().unwrap(), "SELECT v FROM t").await;
    let words = notice(&frames).unwrap_or_else(|| panic!("not marked: {frames:?}"));
    assert!(words.contains("the server is not available") && words.contains("seconds old"), "{words}");
    assert!(frames.iter().any(|frame| frame.tag == b'D' && frame.text() == "1"), "{frames:?}");
    assert!(stage.proxy.metric("heliosdb_cache_stale_total").await >= 1.0);

    let frames = ask(clients.pop().unwrap(), "SELECT v FROM u").await;
    let code = frames.last().filter(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'));
    assert_eq!(code.as_deref(), Some("57P03"), "what a write has changed is not known: {frames:?}");

    direct.run("UPDATE t SET v = 3").await;
    relay.mend();
    let fresh = recovered(&stage).await;
    wait_until("nothing is stale any more", async || fresh.one("SELECT v FROM t").await == "3").await;
    assert_eq!(fresh.one("SELECT v FROM u").await, "2");
}

#[tokio::test]
async fn nothing_old_is_served_unless_somebody_asked_for_it() {
    let (stage, relay) = behind_a_relay(quick()).await;
    stage.direct().await.run("CREATE TABLE t AS SELECT 1 AS v").await;
    let mut raw = stage.raw().await;
    warm(&stage, &mut raw, "SELECT v FROM t").await;
    let mut clients = audience(&stage).await;
    outage(&stage, &relay).await;
    let frames = ask(clients.pop().unwrap(), "SELECT v FROM t").await;
    assert_eq!(notice(&frames), None);
    let code = frames.last().filter(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'));
    assert_eq!(code.as_deref(), Some("57P03"), "{frames:?}");
}
