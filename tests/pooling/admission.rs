//! Clients that wait for their turn to go upstream keep no connection from those who have it.

use super::sharing;
use crate::harness::raw::{Batch, tags};
use crate::harness::{Stage, within};

/// Waits of either kind end by themselves only long after the test's deadline.
#[tokio::test]
async fn turns_and_connections_are_never_waited_for_crosswise() {
    let options = sharing(2).key("cache.max_misses", 1).key("cache.miss_wait_ms", 3_600_000);
    let options = options.key("cache.single_flight_wait_ms", 3_600_000).key("pool.wait_timeout_secs", 3600);
    let stage = Stage::with(options).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t AS SELECT g AS id, 0 AS v FROM generate_series(1, 1000) g").await;
    // It has one of the two connections for itself.
    let mut tied = stage.raw().await;
    tied.query("LISTEN here").await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(stage.raw().await);
    }
    clients.push(tied);
    let asking = clients.iter_mut().enumerate().map(|(number, raw)| async move {
        for round in 0..40 {
            let id = (number * 7 + round * 3) % 50 + 1;
            let read = format!("SELECT id FROM t WHERE id = {id}");
            let frames = raw.query(&read).await;
            assert_eq!((tags(&frames).as_str(), frames[1].text()), ("TDCZ", id.to_string()));
            if round % 4 == 0 {
                // Its locks are what the others' writes wait for.
                raw.query("BEGIN").await;
                raw.query(&format!("UPDATE t SET v = v + 1 WHERE id = {}", id % 5 + 1)).await;
                raw.query(&format!("SELECT id FROM t WHERE id = {}", id + 100)).await;
                raw.query("COMMIT").await;
            }
            // A pipeline whose read comes behind a write that holds a lock.
            let batch =
                Batch::new().query("BEGIN").query("UPDATE t SET v = 0 WHERE id = 1").query(&read).query("COMMIT");
            raw.send_batch(batch).await;
            for _ in 0..4 {
                raw.until_ready().await;
            }
        }
    });
    within("everybody is answered", futures_util::future::join_all(asking)).await;
}
