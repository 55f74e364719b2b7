//! How long a client may do nothing, and a query may run.

use crate::harness::raw::{Batch, Frame, tags};
use crate::harness::{Options, Stage, wait_until, within};

fn code(frames: &[Frame]) -> Option<String> {
    frames.iter().find(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'))
}

#[tokio::test]
async fn a_client_that_does_nothing_is_told_and_ended() {
    let stage = Stage::with(Options::default().key("server.client_idle_timeout_secs", 1)).await;
    let mut idle = stage.raw().await;
    idle.query("SELECT 1").await;
    let busy = stage.client().await;
    let ended = tokio::spawn(async move { within("the end", idle.until_closed()).await });
    // One whose requests are all answered from memory is not idle either.
    while !ended.is_finished() {
        assert_eq!(busy.one("SELECT 1").await, "1");
    }
    let frames = ended.await.unwrap();
    assert_eq!((tags(&frames).as_str(), code(&frames).as_deref()), ("E", Some("57P05")), "{frames:?}");
    assert_eq!(busy.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_transaction_that_does_nothing_is_ended_and_rolled_back() {
    let stage = Stage::with(Options::default().key("server.idle_in_transaction_timeout_secs", 1)).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let mut outside = stage.raw().await;
    outside.query("SELECT 1").await;
    let (mut inside, mut failed) = (stage.raw().await, stage.raw().await);
    for raw in [&mut inside, &mut failed] {
        raw.query("BEGIN").await;
    }
    inside.query("UPDATE t SET v = 2").await;
    failed.query("SELECT 1/0").await;
    for raw in [&mut inside, &mut failed] {
        let frames = within("the end", raw.until_closed()).await;
        assert_eq!(code(&frames).as_deref(), Some("25P03"), "{frames:?}");
    }
    direct.run("UPDATE t SET v = v + 10").await;
    assert_eq!(direct.one("SELECT v FROM t").await, "11");
    assert_eq!(tags(&outside.query("SELECT 1").await), "TDCZ", "outside of a transaction it may be idle");
}

#[tokio::test]
async fn a_query_that_takes_too_long_is_cancelled_and_the_next_one_is_not() {
    let stage = Stage::with(Options::default().key("server.query_timeout_secs", 1)).await;
    let mut raw = stage.raw().await;
    for sent in [Batch::new().query("SELECT pg_sleep(3600)"), Batch::one_batch("SELECT pg_sleep(3600)")] {
        // The next one is here before the first is cancelled.
        raw.send_batch(sent).await;
        raw.send_batch(Batch::new().query("SELECT 1")).await;
        let frames = raw.until_ready().await;
        assert_eq!(code(&frames).as_deref(), Some("57014"), "{frames:?}");
        let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
        assert_eq!(error.field('M').as_deref(), Some("canceling statement due to query timeout"));
        assert_eq!(error.field('S').as_deref(), Some("ERROR"));
        let next = raw.until_ready().await;
        assert_eq!(tags(&next), "TDCZ", "{next:?}");
    }
    let direct = stage.direct().await;
    let runs = "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%sleep(3600)%' AND state = 'active' AND pid <> pg_backend_pid()";
    direct.until("it runs no more", runs).await;
}

#[tokio::test]
async fn a_client_that_cancels_by_itself_is_told_so() {
    let stage = Stage::with(Options::default().key("server.query_timeout_secs", 3600)).await;
    let mut raw = stage.raw().await;
    let (pid, key) = raw.key();
    raw.send_batch(Batch::new().query("SELECT pg_sleep(3600)")).await;
    let direct = stage.direct().await;
    direct
        .until(
            "it sleeps",
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()",
        )
        .await;
    crate::harness::raw::cancel(stage.proxy.port, pid, &key).await;
    let frames = raw.until_ready().await;
    let error = frames.iter().find(|frame| frame.tag == b'E').unwrap();
    assert_eq!(error.field('M').as_deref(), Some("canceling statement due to user request"));
}

#[tokio::test]
async fn a_copy_whose_client_stalls_is_ended() {
    let stage = Stage::with(Options::default().key("server.query_timeout_secs", 1)).await;
    stage.direct().await.run("CREATE TABLE t (v int)").await;
    let mut raw = stage.raw().await;
    raw.send_batch(Batch::new().query("COPY t FROM STDIN")).await;
    raw.until('G').await;
    let frames = within("the end", raw.until_closed()).await;
    assert_eq!(code(&frames).as_deref(), Some("57014"), "{frames:?}");
    assert_eq!(stage.direct().await.one("SELECT count(*) FROM t").await, "0");
}

#[tokio::test]
async fn a_limit_can_be_set_while_clients_are_connected() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[server]\nquery_timeout_secs = 0\n").unwrap();
    let stage = Stage::with(Options::default().arg("--config").arg(file.display())).await;
    let mut raw = stage.raw().await;
    raw.send_batch(Batch::new().query("SELECT pg_sleep(3600)")).await;
    std::fs::write(&file, "[server]\nquery_timeout_secs = 1\n").unwrap();
    stage.proxy.signal("HUP");
    assert_eq!(code(&raw.until_ready().await).as_deref(), Some("57014"));
    std::fs::write(&file, "[server]\nclient_idle_timeout_secs = 1\n").unwrap();
    stage.proxy.signal("HUP");
    assert_eq!(code(&within("the end", raw.until_closed()).await).as_deref(), Some("57P05"));
    wait_until("it is not counted any more", async || {
        stage.proxy.metric(r#"heliosdb_connections{side="client""#).await == 0.0
    })
    .await;
}
