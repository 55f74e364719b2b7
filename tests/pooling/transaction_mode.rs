//! Mode `transaction`: nothing keeps a connection, and nothing that a session leaves is found by another.

use super::sharing;
use crate::harness::Stage;

#[tokio::test]
async fn state_is_lost_and_never_found() {
    let options = sharing(1).key("pool.mode", "transaction").key("pool.wait_timeout_secs", 5);
    let stage = Stage::with(options).await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("CREATE TEMP TABLE mine (v int)").await;
    one.run("LISTEN news").await;
    one.run("SELECT pg_advisory_lock(7)").await;
    one.run("PREPARE p AS SELECT 1").await;
    one.run("SET TimeZone = 'Asia/Tokyo'").await;
    assert_eq!(two.one("SHOW TimeZone").await, "UTC");
    assert_eq!(two.one("SELECT count(*) FROM pg_listening_channels()").await, "0");
    assert_eq!(two.one("SELECT pg_try_advisory_lock(7)").await, "t");
    assert_eq!(two.fails("SELECT * FROM mine").await, "42P01");
    assert_eq!(two.fails("EXECUTE p").await, "26000");
    assert_eq!(one.one("SHOW TimeZone").await, "Asia/Tokyo", "settings are not lost");
    assert_eq!(one.fails("SELECT * FROM mine").await, "42P01");
}
