//! Waiting for a state, never for a time.

use std::future::Future;
use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon. Generous, since a loaded machine is no failure.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Pause between two looks at a state.
const PAUSE: Duration = Duration::from_millis(4);

/// Polls until `condition` holds; fails the test, naming `what`, when it does not within the deadline.
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "this did not happen within {DEADLINE:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// Awaits `future`; fails the test, naming `what`, when it takes longer than the deadline.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("no answer within {DEADLINE:?}: {what}"),
    }
}
