//! The same conversation with the server and with the proxy.

use crate::harness::Stage;
use crate::harness::raw::{Batch, Frame, Raw, tags};

/// One step of a conversation: what is sent, and what is awaited before the next one.
pub enum Step {
    /// Sent; nothing is awaited.
    Send(Batch),
    /// Sent; the answer up to the next ReadyForQuery is awaited.
    Ask(Batch),
    /// Read up to the first message of this type.
    Until(char),
}

/// What the other side said.
pub async fn converse(raw: &mut Raw, steps: &[Step]) -> Vec<Frame> {
    let mut heard = Vec::new();
    for step in steps {
        match step {
            Step::Send(batch) => raw.send(&batch.0).await,
            Step::Ask(batch) => heard.extend(raw.ask(batch.clone()).await),
            Step::Until(tag) => heard.extend(raw.until(*tag).await),
        }
    }
    heard
}

/// Asserts that proxy and server answer alike, five times over on one connection each: the later rounds may come from the
/// cache. `expected` are the types of the first round's messages, which says what the test is about.
pub async fn same(stage: &Stage, steps: &[Step], expected: &str) {
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    for round in 0..5 {
        let wanted = converse(&mut direct, steps).await;
        if round == 0 {
            assert_eq!(tags(&wanted), expected, "the test expects another conversation with the server: {wanted:#?}");
        }
        let heard = converse(&mut proxied, steps).await;
        assert_eq!(tags(&heard), tags(&wanted), "round {round}: {heard:#?}");
        assert_eq!(heard, wanted, "round {round}");
    }
}

/// One request up to its ReadyForQuery.
pub async fn same_answer(stage: &Stage, batch: Batch, expected: &str) {
    same(stage, &[Step::Ask(batch)], expected).await;
}
