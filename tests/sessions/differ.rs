//! Two sessions, the same text, and what each should see.

use crate::harness::{Client, Stage};

/// The superuser runs `setup`. Two sessions each run their own statements, then read the same. Each must see what a direct
/// session with the same statements sees, in every protocol, also when the other's answer has just been cached. The answers
/// of the two must differ in text format, or the test would prove nothing.
pub async fn differ(setup: &str, first: &[&str], second: &[&str], read: &str) {
    let stage = Stage::setup(setup).await;
    let (a, direct_a) = (session(stage.client().await, first).await, session(stage.direct().await, first).await);
    let (b, direct_b) = (session(stage.client().await, second).await, session(stage.direct().await, second).await);
    let (expected_a, expected_b) = (direct_a.text(read).await, direct_b.text(read).await);
    assert_ne!(expected_a, expected_b, "these sessions should see different rows: {read}");

    for _ in 0..2 {
        assert_eq!(warm(&stage, &a, read).await, expected_a, "{first:?}: {read}");
        assert_eq!(warm(&stage, &b, read).await, expected_b, "{second:?} got the rows of {first:?}: {read}");
    }
    for _ in 0..2 {
        assert_eq!(a.text(read).await, expected_a, "{first:?}: {read}");
        assert_eq!(b.text(read).await, expected_b, "{second:?}: {read}");
        for (client, direct, who) in [(&a, &direct_a, first), (&b, &direct_b, second)] {
            let expected = direct.binary(read).await;
            assert_eq!(client.binary(read).await, expected, "{who:?}, extended: {read}");
            assert_eq!(client.one_batch(read).await, expected, "{who:?}, in one batch: {read}");
        }
    }
}

async fn session(client: Client, statements: &[&str]) -> Client {
    for sql in statements {
        client.run(sql).await;
    }
    client
}

/// Reads until the session's own answer is a cached one, if the proxy caches for such a session at all. It need not: what
/// counts is that nobody gets another's rows.
async fn warm(stage: &Stage, client: &Client, read: &str) -> crate::harness::client::TextRows {
    let mut rows = client.text(read).await;
    for _ in 0..8 {
        let before = stage.proxy.hits().await;
        rows = client.text(read).await;
        if stage.proxy.hits().await > before {
            break;
        }
    }
    rows
}
