//! How streams end: stopped, with a client that is gone, with the proxy.

use serde_json::json;

use super::socket::StreamStage;
use crate::harness::{Options, wait_until};

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000000) g";
/// The rows are more than the client takes.
const LONG: &str = "SELECT g, repeat('x', 1000) FROM generate_series(1, 1000000) g";

#[tokio::test]
async fn a_stream_that_is_stopped_runs_no_more() {
    let stage = StreamStage::new("CREATE TABLE t AS SELECT generate_series(1, 200000) AS id; ANALYZE t").await;
    let direct = stage.stage.direct().await;
    let mut socket = stage.socket().await;
    for sql in [ENDLESS, LONG, "SELECT id, repeat('x', 1000) FROM t", "SELECT pg_sleep(3600)"] {
        socket.start("q", sql, &[]).await;
        socket.hear_type("StreamStarted").await;
        socket.stop("q").await;
        let end = loop {
            let message = socket.hear().await;
            if message["type"] != "DataBatch" {
                break message;
            }
        };
        assert_eq!((&end["type"], &end["sqlstate"]), (&json!("StreamError"), &json!("57014")), "{sql}: {end}");
        // The client hears it when it is true.
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streams' \
            AND datname = current_database() AND state <> 'idle' AND query NOT LIKE 'DISCARD%'";
        assert_eq!(direct.one(busy).await, "0", "{sql}");
        assert_eq!(socket.run("SELECT 1", &[]).await.rows, [json!([1])], "{sql}");
    }
    // What is not there, or not any more, needs no stopping.
    socket.stop("q").await;
    assert_eq!(socket.run("SELECT 1", &[]).await.rows, [json!([1])]);
}

#[tokio::test]
async fn one_stream_is_stopped_and_the_others_go_on() {
    let stage = StreamStage::new("").await;
    let mut socket = stage.socket().await;
    let holder = stage.stage.direct().await;
    holder.run("SELECT pg_advisory_lock(7)").await;
    socket.start("stays", "SELECT 1 FROM pg_advisory_lock_shared(7)", &[]).await;
    socket.start("goes", ENDLESS, &[]).await;
    for _ in 0..2 {
        socket.hear_type("StreamStarted").await;
    }
    socket.stop("goes").await;
    let ended = socket.hear_type("StreamError").await;
    assert_eq!((&ended["query_id"], &ended["sqlstate"]), (&json!("goes"), &json!("57014")));
    holder.run("SELECT pg_advisory_unlock(7)").await;
    assert_eq!(socket.hear_type("DataBatch").await["query_id"], "stays");
    assert_eq!(socket.hear_type("StreamCompleted").await["query_id"], "stays");
}

#[tokio::test]
async fn a_client_that_leaves_leaves_nothing_behind() {
    let stage = StreamStage::new("").await;
    for sql in [ENDLESS, LONG] {
        let mut socket = stage.socket().await;
        socket.start("q", sql, &[]).await;
        socket.hear_type("StreamStarted").await;
        drop(socket);
        stage.until_idle().await;
    }
    let closed = stage.socket().await;
    let mut raw = closed.0;
    raw.close(None).await.unwrap();
}

#[tokio::test]
async fn a_client_that_is_dead_is_noticed() {
    let stage = StreamStage::with(Options::default().key("stream.heartbeat_interval_ms", 100), "").await;
    for sql in [ENDLESS, LONG] {
        // It neither reads nor answers.
        let mut dead = stage.socket().await;
        dead.start("q", sql, &[]).await;
        wait_until("the dead client's session has ended", async || {
            stage.stage.proxy.metric("heliosdb_connections{side=\"client\"}").await == 0.0
        })
        .await;
        stage.until_idle().await;
        drop(dead);
    }
}

#[tokio::test]
async fn a_client_that_answers_is_not_taken_for_dead() {
    let stage = StreamStage::with(Options::default().key("stream.heartbeat_interval_ms", 500), "").await;
    let mut socket = stage.socket().await;
    socket.start("q", "SELECT pg_sleep(2)", &[]).await;
    socket.hear_type("StreamStarted").await;
    // Longer than a client is waited for that says nothing: it answers while it waits.
    socket.hear_type("DataBatch").await;
    socket.hear_type("StreamCompleted").await;
}

#[tokio::test]
async fn a_shutdown_waits_for_streams_and_says_goodbye() {
    let mut stage = StreamStage::new("").await;
    let holder = stage.stage.direct().await;
    holder.run("SELECT pg_advisory_lock(7)").await;
    let (mut busy, mut idle) = (stage.socket().await, stage.socket().await);
    busy.start("q", "SELECT 1 FROM pg_advisory_lock(7)", &[]).await;
    busy.hear_type("StreamStarted").await;
    stage.stage.proxy.signal("TERM");
    assert_eq!(idle.hear().await, json!({"close": 1001}));
    busy.start("late", "SELECT 1", &[]).await;
    assert_eq!(busy.hear_type("StreamError").await["sqlstate"], "57P03");
    holder.run("SELECT pg_advisory_unlock(7)").await;
    assert_eq!(busy.hear_type("DataBatch").await["rows"], json!([[1]]));
    busy.hear_type("StreamCompleted").await;
    assert_eq!(busy.hear().await, json!({"close": 1001}));
    assert_eq!(stage.stage.proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_shutdown_that_cannot_wait_tells_why_streams_end() {
    let mut stage = StreamStage::with(Options::default().key("server.shutdown_timeout_secs", 0), "").await;
    let mut socket = stage.socket().await;
    socket.start("q", ENDLESS, &[]).await;
    socket.hear_type("StreamStarted").await;
    stage.stage.proxy.signal("TERM");
    assert_eq!(socket.hear_type("StreamError").await["sqlstate"], "57P01");
    assert_eq!(socket.hear().await, json!({"close": 1001}));
    assert_eq!(stage.stage.proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_backend_that_is_ended_ends_its_stream_and_no_other() {
    let stage = StreamStage::new("").await;
    let direct = stage.stage.direct().await;
    let mut socket = stage.socket().await;
    socket.start("q", ENDLESS, &[]).await;
    socket.hear_type("StreamStarted").await;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'streams' \
        AND datname = current_database() AND query LIKE 'SELECT count%'";
    wait_until("the backend works", async || direct.one(end).await == "1").await;
    assert_eq!(socket.hear_type("StreamError").await["sqlstate"], "57P01");
    assert_eq!(socket.run("SELECT 1", &[]).await.rows, [json!([1])]);
}

#[tokio::test]
async fn a_session_that_ends_while_nothing_is_streamed_costs_no_stream() {
    let stage = StreamStage::new("").await;
    let direct = stage.stage.direct().await;
    let mut socket = stage.socket().await;
    for _ in 0..2 {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() \
            AND application_name = 'streams'";
        direct.one(end).await;
        if std::env::var_os("TEST_POOL_MODE").is_none() {
            wait_until("the session has ended", async || {
                stage.stage.proxy.metric("heliosdb_connections{side=\"client\"}").await == 0.0
            })
            .await;
        }
        assert_eq!(socket.run("SELECT 1", &[]).await.rows, [json!([1])]);
    }
}

#[tokio::test]
async fn what_is_not_understood_closes_the_socket() {
    let stage = StreamStage::new("").await;
    for (message, code) in
        [(json!({"type": "Dance"}), 1008), (json!({"type": "StartStream", "query_id": "q"}), 1008), (json!([1]), 1008)]
    {
        let mut socket = stage.socket().await;
        socket.say(message.clone()).await;
        assert_eq!(socket.hear().await, json!({"close": code}), "{message}");
    }
    let mut socket = stage.socket().await;
    socket.start("q", ENDLESS, &[]).await;
    socket.start("q", "SELECT 1", &[]).await;
    loop {
        let message = socket.hear().await;
        if message["type"].is_null() {
            assert_eq!(message, json!({"close": 1008}));
            break;
        }
    }
    stage.until_idle().await;
}
