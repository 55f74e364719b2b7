//! Messages of any size in bounded memory.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::raw::Batch;
use crate::harness::{Stage, within};

/// The proxy's own bound is below this; a whole message of the tests here is above it.
const MEMORY_KB: u64 = 64 * 1024;
const SIZE: usize = 100 << 20;

#[tokio::test]
async fn a_row_of_100_megabytes() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    raw.send_batch(Batch::new().query(&format!("SELECT repeat('x', {SIZE})"))).await;
    within("the rows", async {
        loop {
            let mut header = [0; 5];
            raw.stream.read_exact(&mut header).await.unwrap();
            let length = u64::from(u32::from_be_bytes([header[1], header[2], header[3], header[4]])) - 4;
            let read = tokio::io::copy(&mut (&mut raw.stream).take(length), &mut tokio::io::sink()).await.unwrap();
            assert_eq!(read, length, "the message {} ended early", header[0] as char);
            match header[0] {
                b'D' => assert_eq!(length as usize, SIZE + 6),
                b'E' => panic!("an error instead of the row"),
                b'Z' => break,
                _ => {}
            }
        }
    })
    .await;
    let memory = stage.proxy.memory_kb("VmHWM");
    assert!(memory < MEMORY_KB, "{memory} kB for a row of {SIZE} bytes");
    assert_eq!(raw.query("SELECT 1").await[1].text(), "1");
}

#[tokio::test]
async fn a_parameter_of_100_megabytes() {
    let stage = Stage::new().await;
    let mut raw = stage.raw().await;
    let value = vec![b'x'; SIZE];
    let batch = Batch::new().parse("", "SELECT length($1::text)").bind("", "", &[Some(&value)]).execute("", 0).sync();
    let frames = raw.ask(batch).await;
    assert_eq!(frames[2].text(), SIZE.to_string());
    let memory = stage.proxy.memory_kb("VmHWM");
    assert!(memory < MEMORY_KB, "{memory} kB for a parameter of {SIZE} bytes");
}

#[tokio::test]
async fn a_statement_text_of_ten_megabytes() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM t").await;
    let mut raw = stage.raw().await;
    let filler = "x".repeat(10 << 20);
    assert_eq!(raw.query(&format!("SELECT length('{filler}')")).await[1].text(), (10 << 20).to_string());
    // Too long to look into: it may write anything.
    raw.query(&format!("UPDATE t SET v = 2 WHERE '{filler}' <> ''")).await;
    assert_eq!(client.one("SELECT v FROM t").await, "2");
    let batch = Batch::new()
        .parse("", &format!("UPDATE t SET v = 3 WHERE '{filler}' <> ''"))
        .bind("", "", &[])
        .execute("", 0)
        .sync();
    raw.ask(batch).await;
    assert_eq!(client.one("SELECT v FROM t").await, "3");
}

#[tokio::test]
async fn a_write_with_a_parameter_too_long_to_look_into() {
    let stage = Stage::setup("CREATE TABLE t (id int, v text); INSERT INTO t VALUES (1, 'x')").await;
    let client = stage.client().await;
    let read = "SELECT count(*) FROM t WHERE v = 'x'";
    stage.cached(&client, read).await;
    let mut raw = stage.raw().await;
    let value = vec![b'x'; 3 << 20];
    let batch = Batch::new().parse("", "UPDATE t SET v = $1").bind("", "", &[Some(&value)]).execute("", 0).sync();
    raw.ask(batch).await;
    assert_eq!(client.one(read).await, "0");
}

#[tokio::test]
async fn a_pipeline_larger_than_every_socket_buffer_in_both_directions() {
    // The client sends all before it reads: whoever only reads from the client, or only writes to it, blocks for ever.
    const REQUESTS: usize = 3_000;
    let stage = Stage::setup("CREATE TABLE t (v text); INSERT INTO t VALUES (repeat('y', 4000))").await;
    for read in ["SELECT v, $1::text FROM t", "SELECT v, $1::text, random() FROM t"] {
        let raw = stage.raw().await;
        let filler = vec![b'z'; 4000];
        let one = Batch::new().parse("", read).bind("", "", &[Some(&filler)]).execute("", 0).sync();
        let (mut from, mut to) = tokio::io::split(raw.stream);
        let sending = async {
            for _ in 0..REQUESTS {
                to.write_all(&one.0).await?;
            }
            to.flush().await
        };
        let receiving = async {
            let mut answered = 0;
            while answered < REQUESTS {
                let mut header = [0; 5];
                from.read_exact(&mut header).await?;
                let length = u64::from(u32::from_be_bytes([header[1], header[2], header[3], header[4]])) - 4;
                tokio::io::copy(&mut (&mut from).take(length), &mut tokio::io::sink()).await?;
                assert_ne!(header[0], b'E', "an error in the pipeline");
                answered += usize::from(header[0] == b'Z');
            }
            Ok::<_, io::Error>(())
        };
        // The client starts to read only when it can send no more, or has sent all.
        within("a large pipeline", async { tokio::try_join!(sending, receiving) }).await.unwrap();
    }
    let memory = stage.proxy.memory_kb("VmHWM");
    assert!(memory < MEMORY_KB, "{memory} kB for a pipeline");
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_a_bounded_buffer() {
    let stage = Stage::setup("CREATE TABLE t AS SELECT repeat('x', 1000) AS v FROM generate_series(1, 100000)").await;
    let mut slow = stage.raw().await;
    slow.send_batch(Batch::new().query("SELECT v FROM t")).await;
    let direct = stage.direct().await;
    let blocked =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'";
    direct.until("the server waits for its slow client", blocked).await;
    assert!(stage.proxy.memory_kb("VmHWM") < MEMORY_KB);
    assert_eq!(stage.client().await.one("SELECT 1").await, "1", "others are served meanwhile");
}
