//! What becomes of the clients of the older process.

use super::scene::{Scene, until_alone};
use crate::harness::raw::{Batch, cancel, tags};
use crate::harness::wait_until;

const SETUP: &str = "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)";

#[tokio::test]
async fn a_cancel_request_reaches_the_query_in_the_older_process() {
    let mut scene = Scene::shared(SETUP).await;
    let blocker = scene.stage.direct().await;
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut waiting = scene.stage.raw().await;
    waiting.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    scene.stage.direct().await.until_blocked("UPDATE%").await;
    let (pid, key) = waiting.key();
    let mut old = scene.upgrade().await;
    let mut wrong = key.clone();
    wrong[0] ^= 1;
    cancel(scene.stage.proxy.port, pid, &wrong).await;
    cancel(scene.stage.proxy.port, pid, &key).await;
    let frames = waiting.until_ready().await;
    assert_eq!(tags(&frames), "EZ");
    assert_eq!(frames[0].field('C').as_deref(), Some("57014"));
    assert_eq!(tags(&waiting.query("SELECT 1").await), "TDCZ", "the session goes on");
    drop(waiting);
    assert_eq!(old.ended().await, Some(0));
}

#[tokio::test]
async fn idle_clients_stay_until_their_time_is_over() {
    let mut scene = Scene::shared(SETUP).await;
    let mut idle = scene.stage.raw().await;
    let mut old = scene.upgrade().await;
    assert_eq!(tags(&idle.query("SELECT 1").await), "TDCZ");
    assert_eq!(tags(&idle.query("BEGIN").await), "CZ");
    assert_eq!(tags(&idle.query("UPDATE t SET v = 2").await), "CZ");
    assert_eq!(tags(&idle.query("COMMIT").await), "CZ");
    // The time over, or a signal: the same.
    old.signal("TERM");
    let frames = idle.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
    assert_eq!(old.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
    assert_eq!(scene.stage.client().await.one("SELECT v FROM t").await, "2");
}

#[tokio::test]
async fn after_the_takeover_timeout_they_are_told() {
    let mut scene = Scene::new(crate::harness::Options::default().key("server.takeover_timeout_secs", 0), SETUP).await;
    let mut idle = scene.stage.raw().await;
    let mut old = scene.upgrade().await;
    let frames = idle.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
    assert_eq!(old.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
}

#[tokio::test]
async fn connections_that_nobody_has_any_more_are_left_to_the_newer_process() {
    let mut scene = Scene::shared(SETUP).await;
    let (stays, leaves) = (scene.stage.client().await, scene.stage.client().await);
    stays.run("SELECT 1").await;
    leaves.run("SELECT 1").await;
    let pid = leaves.backend_pid().await;
    drop(leaves);
    let _old = scene.upgrade().await;
    let direct = scene.stage.direct().await;
    direct.until("it is closed", &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}")).await;
    stays.run("SELECT 1").await;
}

#[tokio::test]
async fn health_and_metrics_are_those_of_the_newer_process() {
    let mut scene = Scene::shared(SETUP).await;
    let client = scene.stage.client().await;
    let old = scene.upgrade().await;
    let http = scene.stage.proxy.http;
    wait_until("the newer process says what it waits for", async || {
        let answer = crate::harness::http::get(http, "/health").await;
        answer.is_some_and(|(code, text)| code == 200 && text.contains("older process has ended"))
    })
    .await;
    drop((client, old));
    wait_until("it says that it is alone", async || {
        let answer = crate::harness::http::get(http, "/health").await;
        answer.is_some_and(|(code, text)| code == 200 && text.contains("no older process is left"))
    })
    .await;
}
