//! What the server says without being asked.

use crate::harness::raw::{Batch, tags};
use crate::harness::{Options, Stage, wait_until};

#[tokio::test]
async fn a_notification_reaches_an_idle_listener() {
    let stage = Stage::new().await;
    let mut listener = stage.raw().await;
    let mut sender = stage.raw().await;
    listener.query("LISTEN news").await;
    sender.query("NOTIFY news, 'hello'").await;
    let frame = listener.frame().await.expect("a notification");
    assert_eq!(frame.tag, b'A');
    assert!(frame.body.ends_with(b"news\0hello\0"), "{frame:?}");
    let pid = i32::from_be_bytes(frame.body[..4].try_into().unwrap());
    assert_eq!(pid, sender.key().0, "the pid of a notification is the one that its sender was told");
}

#[tokio::test]
async fn a_session_hears_its_own_notification_with_its_own_pid() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    raw.query("LISTEN own").await;
    let mut frames = raw.query("NOTIFY own").await;
    if !frames.iter().any(|frame| frame.tag == b'A') {
        frames.push(raw.frame().await.expect("a notification"));
    }
    let heard = frames.iter().find(|frame| frame.tag == b'A').expect("a notification");
    assert_eq!(i32::from_be_bytes(heard.body[..4].try_into().unwrap()), raw.key().0);
    let pid = raw.query("SELECT pg_backend_pid()").await[1].text();
    assert_eq!(pid, raw.key().0.to_string(), "the pid that the client was told is the one that SQL shows");
}

#[tokio::test]
async fn a_listener_whose_reads_are_cached_still_hears() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let (listener, sender) = (stage.client().await, stage.client().await);
    listener.run("LISTEN news").await;
    stage.cached(&listener, "SELECT v FROM t").await;
    for round in 0..5 {
        listener.one("SELECT v FROM t").await;
        sender.run(&format!("NOTIFY news, '{round}'")).await;
        wait_until("the notification", async || listener.notifications().len() == round + 1).await;
    }
    listener.run("UNLISTEN *").await;
    sender.run("NOTIFY news, 'not heard'").await;
    listener.one("SELECT v FROM t").await;
    assert_eq!(listener.notifications().len(), 5);
}

#[tokio::test]
async fn a_parameter_changed_by_a_reload_is_told_to_the_client() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    // A backend tells of it with its next command. No other test of this binary depends on IntervalStyle.
    let direct = stage.direct().await;
    for (change, told) in [("SET IntervalStyle = 'iso_8601'", "iso_8601"), ("RESET IntervalStyle", "postgres")] {
        direct.run(&format!("ALTER SYSTEM {change}")).await;
        direct.run("SELECT pg_reload_conf()").await;
        let told = format!("IntervalStyle\0{told}\0");
        let heard = async || {
            let frames = raw.query("SELECT random()").await;
            frames.iter().any(|frame| frame.tag == b'S' && frame.body == told.as_bytes())
        };
        wait_until("the client is told", heard).await;
    }
}

#[tokio::test]
async fn the_end_of_an_idle_backend_is_told_to_its_client() {
    // A shared one is replaced without a word.
    let stage = Stage::with(Options::default().key("pool.mode", "session")).await;
    let mut raw = stage.raw().await;
    let pid = raw.key().0;
    stage.direct().await.run(&format!("SELECT pg_terminate_backend({pid})")).await;
    let frames = raw.until_closed().await;
    assert_eq!(tags(&frames), "E", "{frames:?}");
    assert_eq!(frames[0].field('C').as_deref(), Some("57P01"));
}

#[tokio::test]
async fn an_idle_in_transaction_timeout_is_told_to_its_client() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    raw.query("SET idle_in_transaction_session_timeout = 1").await;
    raw.send_batch(Batch::new().query("BEGIN")).await;
    let frames = raw.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("25P03"), "{frames:?}");
}
