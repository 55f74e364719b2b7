//! Two processes at once: neither hides from its clients what has been written through the other.

use super::scene::{Scene, until_alone};
use crate::harness::raw::Batch;
use crate::harness::wait_until;

const SETUP: &str = "CREATE TABLE t (k int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)";
const READ: &str = "SELECT v FROM t WHERE k = 1";

#[tokio::test]
async fn neither_serves_from_its_cache_while_both_have_clients() {
    let mut scene = Scene::shared(SETUP).await;
    let old_client = scene.stage.client().await;
    assert_eq!(scene.stage.cached(&old_client, READ).await, [[Some("1".to_owned())]]);
    let mut old = scene.upgrade().await;
    let new_client = scene.stage.client().await;
    for v in (2..20).step_by(2) {
        new_client.run(&format!("UPDATE t SET v = {v} WHERE k = 1")).await;
        assert_eq!(old_client.one(READ).await, v.to_string());
        assert_eq!(new_client.one(READ).await, v.to_string());
        old_client.run(&format!("UPDATE t SET v = {} WHERE k = 1", v + 1)).await;
        assert_eq!(new_client.one(READ).await, (v + 1).to_string());
        assert_eq!(old_client.one(READ).await, (v + 1).to_string());
    }
    assert_eq!(scene.stage.proxy.hits().await, 0);
    assert!(old.is_running(), "its client has not left");
    drop(old_client);
    assert_eq!(old.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
    assert_eq!(scene.stage.cached(&new_client, READ).await, [[Some("19".to_owned())]]);
}

#[tokio::test]
async fn a_trigger_that_was_made_through_the_other_process_is_known_when_the_cache_is_used_again() {
    let mut scene = Scene::shared(SETUP).await;
    scene.options = scene.options.clone().key("catalog.refresh_secs", 3600);
    let old_client = scene.stage.client().await;
    let mut old = scene.upgrade().await;
    let new_client = scene.stage.client().await;
    new_client.run("UPDATE t SET v = v WHERE k = 1").await;
    old_client
        .run(
            "CREATE TABLE log (n int); INSERT INTO log VALUES (0);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE log SET n = n + 1; RETURN NEW; END $$;
             CREATE TRIGGER note AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()",
        )
        .await;
    drop(old_client);
    assert_eq!(old.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
    let read = "SELECT n FROM log";
    assert_eq!(scene.stage.cached(&new_client, read).await, [[Some("0".to_owned())]]);
    new_client.run("UPDATE t SET v = v WHERE k = 1").await;
    assert_eq!(new_client.one(read).await, "1");
}

/// The old process has told its client that it is over, but nobody knows yet what has become of his last write.
#[tokio::test]
async fn a_write_that_the_old_process_has_lost_is_waited_for() {
    let mut scene = Scene::shared(SETUP).await;
    let (blocker, watch) = (scene.stage.direct().await, scene.stage.direct().await);
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = scene.stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    watch.until_blocked("UPDATE%").await;
    let mut old = scene.upgrade().await;
    let reader = scene.stage.client().await;
    old.signal("TERM");
    wait_until("it waits for its transaction", async || old.log_text().contains("shutting down")).await;
    old.signal("TERM");
    let frames = writer.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
    for _ in 0..20 {
        assert_eq!(reader.one(READ).await, "1");
    }
    assert_eq!(scene.stage.proxy.hits().await, 0);
    assert!(old.is_running());
    blocker.run("COMMIT").await;
    assert_eq!(old.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
    assert_eq!(scene.stage.cached(&reader, READ).await, [[Some("2".to_owned())]]);
}

#[tokio::test]
async fn who_takes_over_twice_waits_for_both() {
    let mut scene = Scene::shared(SETUP).await;
    let first_client = scene.stage.client().await;
    let mut first = scene.upgrade().await;
    let mut second = scene.upgrade().await;
    wait_until("the second has no clients", async || second.log_text().contains("shutting down")).await;
    // That one is killed changes nothing of it.
    second.signal("KILL");
    second.ended().await;
    let client = scene.stage.client().await;
    for v in 2..20 {
        first_client.run(&format!("UPDATE t SET v = {v} WHERE k = 1")).await;
        assert_eq!(client.one(READ).await, v.to_string());
    }
    assert_eq!(scene.stage.proxy.hits().await, 0);
    drop(first_client);
    assert_eq!(first.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
    scene.stage.cached(&client, READ).await;
}

#[tokio::test]
async fn who_comes_while_the_old_process_ends_by_itself_waits_too() {
    let mut scene = Scene::shared(SETUP).await;
    let mut writer = scene.stage.raw().await;
    writer.query("BEGIN").await;
    writer.query("UPDATE t SET v = 2").await;
    scene.stage.proxy.signal("TERM");
    wait_until("it ends", async || scene.stage.proxy.log_text().contains("shutting down")).await;
    let mut old = scene.upgrade().await;
    let reader = scene.stage.client().await;
    for _ in 0..20 {
        assert_eq!(reader.one(READ).await, "1");
    }
    assert_eq!(scene.stage.proxy.hits().await, 0);
    writer.send_batch(Batch::new().query("COMMIT")).await;
    writer.until_closed().await;
    assert_eq!(old.ended().await, Some(0));
    until_alone(&scene.stage.proxy).await;
    assert_eq!(scene.stage.cached(&reader, READ).await, [[Some("2".to_owned())]]);
}
