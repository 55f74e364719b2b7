//! A cancel request reaches the query of the client that it names, and no other.

use super::stage;
use crate::harness::raw::{Batch, cancel};

#[tokio::test]
async fn a_cancel_hits_its_own_query_on_a_shared_connection() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    let watch = stage.direct().await;
    for round in 0..10 {
        one.send_batch(Batch::new().query("SELECT pg_sleep(60)")).await;
        let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%sleep(60)' AND state = 'active' AND pid <> pg_backend_pid()";
        watch.until("it runs", running).await;
        two.send_batch(Batch::new().query(&format!("SELECT {round}"))).await;
        let (pid, key) = one.key();
        cancel(stage.proxy.port, pid, &key).await;
        let frames = one.until_ready().await;
        let error = frames.iter().find(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'));
        assert_eq!(error.as_deref(), Some("57014"), "{frames:?}");
        assert_eq!(two.until_ready().await[1].text(), round.to_string());
    }
}

#[tokio::test]
async fn a_late_cancel_hits_nobody() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    for round in 0..50 {
        one.query("SELECT 1").await;
        two.send_batch(Batch::new().query(&format!("SELECT {round}, pg_sleep(0.002)"))).await;
        let (pid, key) = one.key();
        cancel(stage.proxy.port, pid, &key).await;
        let frames = two.until_ready().await;
        assert_eq!(frames[1].text(), round.to_string(), "{frames:?}");
    }
}

#[tokio::test]
async fn a_cancel_that_races_with_the_end_of_its_query_hits_nobody_else() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    for round in 0..60 {
        let (pid, key) = one.key();
        one.send_batch(Batch::new().query("SELECT pg_sleep(0.001)")).await;
        let others = async {
            for _ in 0..3 {
                let frames = two.query(&format!("SELECT {round}")).await;
                assert_eq!(frames[1].text(), round.to_string(), "{frames:?}");
            }
        };
        futures_util::future::join(cancel(stage.proxy.port, pid, &key), others).await;
        let frames = one.until_ready().await;
        let code = frames.iter().find(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'));
        assert!(code.is_none() || code.as_deref() == Some("57014"), "{frames:?}");
    }
}
