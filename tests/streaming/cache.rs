//! Streams and the result cache.

use serde_json::{Value, json};

use super::socket::StreamStage;

#[tokio::test]
async fn a_stream_is_answered_from_the_cache_until_a_write() {
    let stage = StreamStage::new("CREATE TABLE t AS SELECT generate_series(1, 3000) AS id; ANALYZE t").await;
    let mut socket = stage.socket().await;
    let sql = "SELECT id FROM t WHERE id > $1 ORDER BY id";
    let wanted: Vec<Value> = (11..=3000).map(|id| json!([id])).collect();
    let run = stage.stage.until_hit(sql, async || socket.run(sql, &[json!(10)]).await).await;
    assert_eq!(run.rows, wanted);
    assert_eq!(run.batches, [(1000, false), (1000, false), (990, true)]);
    // Another socket's stream shares the entry.
    let mut other = stage.socket().await;
    let before = stage.stage.proxy.hits().await;
    assert_eq!(other.run(sql, &[json!(10)]).await.rows, wanted);
    assert_eq!(stage.stage.proxy.hits().await, before + 1);
    // And a stream's write invalidates it.
    assert_eq!(other.run("DELETE FROM t WHERE id > 2000", &[]).await.end["type"], "StreamCompleted");
    assert_eq!(socket.run(sql, &[json!(10)]).await.rows, wanted[..1990]);
}
