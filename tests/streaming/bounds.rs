//! Batches, the rows that are under way, and the memory that this takes.

use serde_json::{Value, json};

use super::socket::StreamStage;
use crate::harness::{Options, wait_until};

fn small() -> Options {
    Options::default().key("stream.batch_size", 10).key("stream.buffer_size", 20)
}

#[tokio::test]
async fn rows_come_in_batches() {
    let stage = StreamStage::with(small(), "CREATE TABLE t AS SELECT generate_series(1, 15) AS id; ANALYZE t").await;
    let mut socket = stage.socket().await;
    // The planner expects 15 rows of the first, which fit, and 100 of the second, which need a portal.
    for (sql, batches) in [
        ("SELECT id FROM t", vec![(10, false), (5, true)]),
        ("SELECT id FROM t WHERE id <= 10", vec![(10, false), (0, true)]),
        (
            "SELECT g FROM generate_series(1, 34) g, generate_series(1, 100) h WHERE h = 1",
            vec![(10, false), (10, false), (10, false), (4, true)],
        ),
        (
            "SELECT g FROM generate_series(1, 100) g WHERE g <= 30",
            vec![(10, false), (10, false), (10, false), (0, true)],
        ),
    ] {
        let run = socket.run(sql, &[]).await;
        assert_eq!(run.batches, batches, "{sql}");
        let wanted: Vec<Value> = (1..=run.rows.len()).map(|id| json!([id])).collect();
        assert_eq!(run.rows, wanted, "{sql}");
        assert_eq!(run.end["total_rows"], run.rows.len());
    }
}

#[tokio::test]
async fn a_batch_that_is_not_full_is_sent_after_a_while() {
    let stage = StreamStage::new("").await;
    let holder = stage.stage.direct().await;
    // With a plan of few rows, which are asked for at once, and one of many, which need a portal.
    for rows in ["generate_series(1, 1)", "generate_series(1, 100000)"] {
        holder.run("SELECT pg_advisory_lock(7)").await;
        let mut socket = stage.socket().await;
        // The server sends what it has when its buffer of 8 KB is full: the long row pushes the first one out.
        let sql = format!(
            "SELECT 1, '' UNION ALL SELECT 2, repeat('x', 20000)
             UNION ALL SELECT {rows}, '' FROM (SELECT pg_advisory_lock_shared(7)) l"
        );
        socket.start("q", &sql, &[]).await;
        socket.hear_type("StreamStarted").await;
        let batch = socket.hear_type("DataBatch").await;
        assert_eq!((&batch["rows"], &batch["is_final"]), (&json!([[1, ""]]), &json!(false)));
        holder.run("SELECT pg_advisory_unlock(7)").await;
        assert_eq!(socket.hear_type("DataBatch").await["rows"][0][0], 2);
    }
}

#[tokio::test]
async fn no_more_rows_are_fetched_than_the_client_takes() {
    let stage = StreamStage::with(
        small(),
        "CREATE SEQUENCE fetched; CREATE TABLE t AS SELECT generate_series(1, 3000) AS id; ANALYZE t",
    )
    .await;
    let direct = stage.stage.direct().await;
    let mut socket = stage.socket().await;
    // The client reads nothing: what is fetched are two batches more than fit into the sockets' buffers.
    socket.start("q", "SELECT nextval('fetched'), repeat('x', 100000) FROM t", &[]).await;
    let fetched = async || direct.one("SELECT last_value FROM fetched").await.parse::<u64>().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'streams' \
        AND datname = current_database() AND wait_event = 'ClientRead' AND query LIKE '%fetched%'";
    let (mut last, mut steady) = (0, 0);
    wait_until("the stream stands still", async || {
        let now = fetched().await;
        let stands = now == last && now >= 20 && direct.one(waits).await == "1";
        (last, steady) = (now, if stands { steady + 1 } else { 0 });
        steady > 20
    })
    .await;
    assert!(last < 500, "{last} rows were fetched for a client that reads nothing");
    let mut rows = 0;
    loop {
        let message = socket.hear().await;
        match message["type"].as_str() {
            Some("DataBatch") => rows += message["rows"].as_array().unwrap().len(),
            Some("StreamStarted") => {}
            _ => {
                assert_eq!(message["total_rows"], 3000, "{message}");
                break;
            }
        }
    }
    assert_eq!((rows, fetched().await), (3000, 3000));
}

#[tokio::test]
async fn a_large_result_takes_little_memory() {
    let stage =
        StreamStage::new("CREATE TABLE t AS SELECT i AS id, repeat('x', 1000) AS v FROM generate_series(1, 150000) i")
            .await;
    stage.stage.direct().await.run("ANALYZE t").await;
    let mut socket = stage.socket().await;
    let mut bytes = 0;
    socket.start("q", "SELECT * FROM t", &[]).await;
    loop {
        let message = socket.hear().await;
        match message["type"].as_str() {
            Some("DataBatch") => bytes += message.to_string().len(),
            Some("StreamStarted") => {}
            _ => {
                assert_eq!(message["total_rows"], 150_000, "{message}");
                break;
            }
        }
    }
    assert!(bytes > 150_000_000);
    let peak = stage.stage.proxy.memory_kb("VmHWM");
    assert!(peak < 80_000, "{peak} kB for a stream of {bytes} bytes");
}

#[tokio::test]
async fn many_streams_share_a_socket() {
    let stage = StreamStage::with(Options::default().key("stream.max_concurrent_streams", 20), "").await;
    let mut socket = stage.socket().await;
    let holder = stage.stage.direct().await;
    holder.run("SELECT pg_advisory_lock(7)").await;
    for number in 0..20 {
        let sql = "SELECT $1::int + g * 0 FROM generate_series(1, 2500) g, pg_advisory_lock_shared(7) l";
        socket.start(&number.to_string(), sql, &[json!(number)]).await;
    }
    let mut started = 0;
    while started < 20 {
        started += usize::from(socket.hear().await["type"] == "StreamStarted");
    }
    // One more than there may be.
    socket.start("more", "SELECT 1", &[]).await;
    let refused = socket.hear_type("StreamError").await;
    assert_eq!((&refused["query_id"], &refused["sqlstate"]), (&json!("more"), &json!("53300")));
    holder.run("SELECT pg_advisory_unlock(7)").await;
    let (mut rows, mut completed) = (vec![0; 20], 0);
    while completed < 20 {
        let message = socket.hear().await;
        let number: usize = message["query_id"].as_str().unwrap().parse().unwrap();
        match message["type"].as_str() {
            Some("DataBatch") => {
                let batch = message["rows"].as_array().unwrap();
                assert!(batch.iter().all(|row| row == &json!([number])));
                rows[number] += batch.len();
            }
            Some("StreamCompleted") => completed += 1,
            _ => panic!("{message}"),
        }
    }
    assert_eq!(rows, [2500; 20]);
    let proxy = &stage.stage.proxy;
    assert_eq!(proxy.metric("heliosdb_streaming_query_rows_total").await as u64, 50_000);
    assert!(proxy.metric("heliosdb_streaming_query_batches_total").await >= 60.0);
    let complete = "heliosdb_streaming_query_duration_seconds_count{outcome=\"complete\"}";
    assert_eq!(proxy.metric(complete).await as u64, 20);
}
