//! What is no protocol costs nobody but the client that sent it.

use crate::harness::raw::{Batch, Raw};
use crate::harness::{Options, Stage};

/// Bytes to a fresh connection: the proxy ends it, and goes on serving others without having grown.
async fn ends(stage: &Stage, bytes: &[u8]) {
    let mut raw = Raw::open(stage.proxy.port).await;
    let _ = tokio::io::AsyncWriteExt::write_all(&mut raw.stream, bytes).await;
    raw.until_closed().await;
}

async fn serves(stage: &Stage) {
    assert_eq!(stage.client().await.one("SELECT 1").await, "1");
    assert!(stage.proxy.memory_kb("VmHWM") < 64 * 1024, "{} kB", stage.proxy.memory_kb("VmHWM"));
}

#[tokio::test]
async fn garbage_before_start_up() {
    let stage = Stage::new().await;
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0; 8],
        &[0xff; 64],
        &[0, 0, 0, 4],
        &[0, 0, 0, 3, 0, 3, 0, 0],
        &[0x7f, 0xff, 0xff, 0xff, 0, 3, 0, 0],
        &[0x80, 0, 0, 0, 0, 3, 0, 0],
        &[0, 0, 0, 8, 0, 3, 0, 0],
        &[0, 0, 0, 9, 0, 3, 0, 0, 1],
        &[0, 0, 0, 14, 0, 3, 0, 0, b'u', b's', b'e', b'r', 0, b'x'],
        &[0x16, 0x03, 0x01, 0x00, 0x05, 1, 2, 3, 4, 5],
    ] {
        ends(&stage, bytes).await;
    }
    serves(&stage).await;
}

#[tokio::test]
async fn a_start_up_packet_above_ten_kilobytes_is_refused() {
    let stage = Stage::new().await;
    let long = "x".repeat(20_000);
    ends(
        &stage,
        &crate::harness::raw::startup(
            crate::harness::raw::PROTOCOL_3_0,
            &[("user", "postgres"), ("application_name", &long)],
        ),
    )
    .await;
    serves(&stage).await;
}

#[tokio::test]
async fn many_ssl_requests_do_not_go_on_for_ever() {
    let stage = Stage::new().await;
    let requests = [0, 0, 0, 8, 4, 210, 22, 47].repeat(1000);
    ends(&stage, &requests).await;
    serves(&stage).await;
}

#[tokio::test]
async fn a_client_that_never_starts_is_ended() {
    let stage = Stage::with(Options::default().key("server.startup_timeout_secs", 1)).await;
    let mut silent = Raw::open(stage.proxy.port).await;
    let mut slow = Raw::open(stage.proxy.port).await;
    slow.send(&[0, 0, 0, 50, 0, 3]).await;
    silent.until_closed().await;
    slow.until_closed().await;
    serves(&stage).await;
}

#[tokio::test]
async fn lying_lengths_and_unknown_messages_end_their_session_only() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let neighbour = stage.client().await;
    for bytes in [
        &b"Q\xff\xff\xff\xff"[..],
        b"Q\x00\x00\x00\x03",
        b"Q\x00\x00\x00\x00",
        b"P\x7f\xff\xff\xff",
        b"B\x40\x00\x00\x00",
        b"~\x00\x00\x00\x04",
        b"\x00\x00\x00\x00\x04",
        b"d\xff\x00\x00\x00",
        b"X\x00\x00\x00\x04",
    ] {
        let mut raw = stage.raw().await;
        raw.send(bytes).await;
        let frames = raw.until_closed().await;
        assert!(frames.len() <= 2, "{bytes:?}: {frames:?}");
    }
    assert_eq!(neighbour.one("SELECT v FROM t").await, "1");
    serves(&stage).await;
}

#[tokio::test]
async fn malformed_bodies_are_the_servers_errors_or_end_the_session() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let bodies: [&[u8]; 10] = [
        b"",
        b"\0",
        b"\0\0",
        b"x",
        b"SELECT 1",
        b"\0\0\xff\xff",
        b"\0\0\0\x01",
        b"\0\0\0\x00\x7f\xff",
        b"S",
        b"\0SELECT v FROM t\0\x7f\xff",
    ];
    for tag in [b'Q', b'P', b'B', b'D', b'E', b'C', b'F', b'H', b'S', b'd', b'c', b'f', b'p'] {
        for body in bodies {
            let mut raw = stage.raw().await;
            raw.send_batch(Batch::new().message(tag, body).sync()).await;
            // Either an answer up to ReadyForQuery or the end; never silence, never the end of the proxy.
            loop {
                match raw.frame().await {
                    Some(frame) if frame.tag == b'Z' => break,
                    Some(frame) if frame.tag == b'R' => break,
                    Some(_) => {}
                    None => break,
                }
            }
        }
    }
    serves(&stage).await;
}

#[tokio::test]
async fn malformed_messages_before_authentication_end_their_connection() {
    let stage = Stage::with(Options::default().arg("--auth").arg("scram")).await;
    let startup = crate::harness::raw::startup(
        crate::harness::raw::PROTOCOL_3_0,
        &[("user", "postgres"), ("database", &stage.database)],
    );
    for message in [
        &b"p\x00\x00\x00\x03"[..],
        b"p\x00\x00\x00\x04",
        b"p\xff\xff\xff\xff",
        b"p\x00\x00\x00\x05x",
        b"Q\x00\x00\x00\x04",
        b"p\x00\x00\x27\x20xxxx",
        b"p\x00\x00\x00\x18SCRAM-SHA-256\0\xff\xff\xff\xffxx",
    ] {
        let mut raw = Raw::open(stage.proxy.port).await;
        raw.send(&startup).await;
        raw.send(message).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut raw.stream).await;
        let frames = raw.until_closed().await;
        assert!(frames.iter().all(|frame| matches!(frame.tag, b'R' | b'E')), "{message:?}: {frames:?}");
        assert!(!frames.iter().any(|frame| frame.tag == b'R' && frame.body == [0; 4]), "let in: {message:?}");
    }
    assert!(stage.proxy.memory_kb("VmHWM") < 64 * 1024);
}

#[tokio::test]
async fn half_a_message_and_then_the_end() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    for bytes in
        [&b"Q\x00\x00\x00\x20UPDATE t SET"[..], b"Q\x00", b"P\x00\x00\x01\x00\x00SELECT", b"B\x00\x10\x00\x00\x00\x00"]
    {
        let mut raw = stage.raw().await;
        raw.send(bytes).await;
        drop(raw);
    }
    let direct = stage.direct().await;
    let gone = "SELECT count(*) < 4 FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'";
    direct.until("the server's connections of vanished clients are closed", gone).await;
    serves(&stage).await;
    assert_eq!(direct.one("SELECT v FROM t").await, "1");
}

#[tokio::test]
async fn text_after_a_terminator_in_a_query_is_no_second_query() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let batch = || Batch::new().message(b'Q', b"SELECT v FROM t\0DELETE FROM t\0");
    for _ in 0..3 {
        let wanted = direct.ask(batch()).await;
        assert_eq!(proxied.ask(batch()).await, wanted);
    }
    assert_eq!(direct.query("SELECT count(*) FROM t").await[1].text(), "1");
}
