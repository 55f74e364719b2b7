//! Cancel requests.

use crate::harness::raw::{Batch, Raw, cancel};
use crate::harness::{Stage, wait_until};

const SLEEP: &str = "SELECT pg_sleep(3600)";
const SLEEPING: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'";

async fn asleep(stage: &Stage, count: usize) {
    let direct = stage.direct().await;
    wait_until("queries sleep", async || direct.one(SLEEPING).await == count.to_string()).await;
}

#[tokio::test]
async fn a_cancel_with_the_sessions_own_key_ends_its_query() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    let (pid, key) = raw.key();
    assert_eq!(key.len(), 4, "protocol 3.0 has keys of four bytes");
    raw.send_batch(Batch::new().query(SLEEP)).await;
    asleep(&stage, 1).await;
    cancel(stage.proxy.port, pid, &key).await;
    let frames = raw.until_ready().await;
    assert_eq!(frames.iter().find(|frame| frame.tag == b'E').unwrap().field('C').as_deref(), Some("57014"));
    assert_eq!(raw.query("SELECT 1").await[1].text(), "1", "the session goes on");
}

#[tokio::test]
async fn a_drivers_cancel_token_works() {
    let stage = Stage::new().await;
    let client = stage.client().await;
    let token = client.cancel_token();
    let (code, ()) = tokio::join!(client.fails(SLEEP), async {
        asleep(&stage, 1).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(code, "57014");
}

#[tokio::test]
async fn a_cancel_hits_no_other_client_and_a_wrong_key_hits_nobody() {
    let stage = Stage::new().await;
    let (mut target, mut other) = (stage.raw().await, stage.raw().await);
    target.send_batch(Batch::new().query(SLEEP)).await;
    other.send_batch(Batch::new().query(SLEEP)).await;
    asleep(&stage, 2).await;
    let (pid, key) = target.key();
    let (other_pid, other_key) = other.key();
    assert_ne!((pid, &key), (other_pid, &other_key));
    let mut wrong = key.clone();
    wrong[0] ^= 1;
    cancel(stage.proxy.port, pid, &wrong).await;
    cancel(stage.proxy.port, pid, &other_key).await;
    cancel(stage.proxy.port, other_pid, &key).await;
    cancel(stage.proxy.port, 0, &key).await;
    // The last one is right, and it is the only one that does anything.
    cancel(stage.proxy.port, pid, &key).await;
    assert!(target.until_ready().await.iter().any(|frame| frame.tag == b'E'));
    asleep(&stage, 1).await;
    let (pid, key) = other.key();
    cancel(stage.proxy.port, pid, &key).await;
    other.until_ready().await;
}

#[tokio::test]
async fn the_keys_are_the_proxys_own() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    let (pid, key) = raw.key();
    raw.send_batch(Batch::new().query(SLEEP)).await;
    asleep(&stage, 1).await;
    // The server does not know the key that the client was given.
    cancel(stage.cluster.port, pid, &key).await;
    asleep(&stage, 1).await;
    cancel(stage.proxy.port, pid, &key).await;
    raw.until_ready().await;
}

#[tokio::test]
async fn a_cancel_of_an_idle_session_does_not_hit_its_next_query() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let mut raw = stage.raw().await;
    let (pid, key) = raw.key();
    for _ in 0..20 {
        raw.query("SELECT v FROM t").await;
        cancel(stage.proxy.port, pid, &key).await;
    }
    // A cancel is a race in PostgreSQL itself: one that is on its way may hit the query that starts just then. When it has been
    // delivered to an idle backend it is gone.
    wait_until("queries succeed", async || raw.query("SELECT random()").await[0].tag == b'T').await;
    assert_eq!(raw.query("SELECT v FROM t").await[1].text(), "1");
}

#[tokio::test]
async fn a_cancel_of_a_session_that_has_gone_hits_nobody() {
    let stage = Stage::new().await;
    let gone = stage.raw().await;
    let (pid, key) = gone.key();
    drop(gone);
    let mut next = stage.raw().await;
    next.send_batch(Batch::new().query(SLEEP)).await;
    asleep(&stage, 1).await;
    cancel(stage.proxy.port, pid, &key).await;
    asleep(&stage, 1).await;
    let (pid, key) = next.key();
    cancel(stage.proxy.port, pid, &key).await;
    next.until_ready().await;
}

#[tokio::test]
async fn cancel_requests_of_wrong_lengths_hit_nobody_and_are_dropped() {
    let stage = Stage::new().await;
    for packet in [
        &[0, 0, 0, 8, 4, 210, 22, 46][..],
        &[0, 0, 0, 12, 4, 210, 22, 46, 0, 0, 0, 1],
        &[0, 0, 0, 15, 4, 210, 22, 46, 0, 0, 0, 1, 1, 2, 3],
    ] {
        let mut raw = Raw::open(stage.proxy.port).await;
        raw.send(packet).await;
        raw.until_closed().await;
    }
    assert_eq!(stage.client().await.one("SELECT 1").await, "1");
}
