//! The crate's own client.

use heliosproxy::stream::{StreamingError, StreamingQueryClient};
use serde_json::json;

use super::socket::StreamStage;

#[tokio::test]
async fn a_stream_is_read_to_its_end() {
    let stage = StreamStage::new("CREATE TABLE t AS SELECT generate_series(1, 2500) AS id; ANALYZE t").await;
    let mut client = StreamingQueryClient::connect(&stage.address()).await.unwrap();
    assert!(matches!(client.next_batch().await, Err(StreamingError::NoStream)));
    for _ in 0..2 {
        let columns = client.start_stream("SELECT id FROM t WHERE id > $1 ORDER BY id", &[json!(0)]).await.unwrap();
        assert_eq!((columns[0].name.as_str(), columns[0].type_name.as_str()), ("id", "int4"));
        assert!(client.get_total_rows().is_some());
        let (mut rows, mut batches) = (Vec::new(), 0);
        while let Some(batch) = client.next_batch().await.unwrap() {
            batches += 1;
            rows.extend(batch);
        }
        assert_eq!((batches, client.get_total_rows()), (3, Some(2500)));
        assert!(rows.iter().zip(1..).all(|(row, id)| row == &[json!(id)]));
        assert!(client.next_batch().await.unwrap().is_none());
    }
    client.close().await.unwrap();
}

#[tokio::test]
async fn a_stream_is_stopped_and_another_one_started() {
    let stage = StreamStage::new("").await;
    let mut client = StreamingQueryClient::connect(&stage.address()).await.unwrap();
    client.start_stream("SELECT g FROM generate_series(1, 10000000) g", &[]).await.unwrap();
    assert!(client.next_batch().await.unwrap().is_some());
    assert!(matches!(client.start_stream("SELECT 1", &[]).await, Err(StreamingError::Busy)));
    client.stop().await.unwrap();
    stage.until_idle().await;
    assert!(client.next_batch().await.unwrap().is_none());
    client.start_stream("SELECT 1", &[]).await.unwrap();
    assert_eq!(client.next_batch().await.unwrap().unwrap(), [[json!(1)]]);
    client.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_told_apart() {
    let stage = StreamStage::new("").await;
    let mut client = StreamingQueryClient::connect(&stage.address()).await.unwrap();
    let error = client.start_stream("SELECT no_such", &[]).await.unwrap_err();
    assert!(matches!(&error, StreamingError::Query { sqlstate, .. } if sqlstate == "42703"), "{error}");
    client.start_stream("SELECT 1 / (1500 - g) FROM generate_series(1, 2000) g", &[]).await.unwrap();
    let error = loop {
        match client.next_batch().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream has not failed"),
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, StreamingError::Query { sqlstate, .. } if sqlstate == "22012"), "{error}");
    let refused = StreamingQueryClient::connect_with_token(&stage.address(), "no such token").await.err().unwrap();
    assert!(matches!(&refused, StreamingError::Refused { status: 401, .. }), "{refused}");
    for address in ["http://127.0.0.1/stream", "nothing", "ws:///stream"] {
        let error = StreamingQueryClient::connect(address).await.err().unwrap();
        assert!(matches!(&error, StreamingError::Address(_)), "{address}: {error}");
    }
}
