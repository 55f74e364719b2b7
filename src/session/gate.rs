//! PAUSE and RESUME: while the gate is closed no session begins anything new.
//!
//! **Invariant.** A session that is in a transaction, or has a request on its way, goes on until that is over; its next request,
//! and the login of a new client, wait. What waits stays in the client's socket and in a buffer that has a bound. The gate does
//! not stay closed for ever: it opens by itself when its time is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::activity::{Activity, Doing};
use super::{Session, Shared};

/// Between two looks whether everybody rests. Whoever had begun just before the gate closed shows by the first.
const LOOK: Duration = Duration::from_millis(20);
/// How long sessions have to give back their connections; those that are tied to one, or do not share theirs, keep it.
const GIVING_BACK: Duration = Duration::from_millis(500);

#[derive(Debug, Default)]
pub struct Gate {
    closed: AtomicBool,
    /// Counts how often it was closed.
    closings: AtomicU64,
    opened: Notify,
}

/// Opens the gate again unless it has closed for good: whoever waits for the others to rest may give up.
struct Closing<'a> {
    shared: &'a Shared,
    done: bool,
}

impl Gate {
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Ends when it is open.
    pub(super) async fn opened(&self) {
        loop {
            let mut opened = std::pin::pin!(self.opened.notified());
            // From here on an opening is noticed; looking before would miss one that comes in between.
            opened.as_mut().enable();
            if !self.is_closed() {
                return;
            }
            opened.await;
        }
    }
}

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if !self.done {
            resume(self.shared);
        }
    }
}

/// Closes the gate for at most `hold`, and ends when nothing runs any more. False if that has not come about within `hold`: then
/// the gate is open again, as it is if this is dropped.
pub async fn pause(shared: &Arc<Shared>, hold: Duration) -> bool {
    let closing = shared.gate.closings.fetch_add(1, Ordering::AcqRel) + 1;
    shared.gate.closed.store(true, Ordering::Release);
    let mut guard = Closing { shared, done: false };
    // Those that may have left something in their connection find out whether they have, and give it back if not.
    shared.sessions.for_each(super::Control::wake);
    let none = async |is_so: fn(&Activity) -> bool| {
        loop {
            tokio::time::sleep(LOOK).await;
            if !shared.sessions.list().iter().any(|(_, control)| is_so(&control.activity)) {
                return;
            }
        }
    };
    if tokio::time::timeout(hold, none(|activity| activity.doing() != Doing::Idle)).await.is_err() {
        return false;
    }
    let is_holding = |activity: &Activity| activity.backend() != 0 && activity.pin().is_none();
    let _ = tokio::time::timeout(GIVING_BACK, none(is_holding)).await;
    guard.done = true;
    let later = shared.clone();
    shared.runtime.spawn(async move {
        tokio::time::sleep(hold).await;
        if later.gate.closings.load(Ordering::Acquire) == closing && later.gate.is_closed() {
            tracing::warn!(seconds = hold.as_secs(), "the pause is over without a RESUME");
            resume(&later);
        }
    });
    true
}

/// Opens the gate and wakes everybody who waits.
pub fn resume(shared: &Shared) {
    shared.gate.closed.store(false, Ordering::Release);
    shared.gate.opened.notify_waiters();
    shared.sessions.for_each(super::Control::wake);
}

impl Session {
    /// The client's next request would begin something new, and nothing new begins now.
    pub(super) fn is_held_back(&self) -> bool {
        self.shared.gate.is_closed()
            && self.block.status() == super::Status::Idle
            && !self.pipeline.owes_client()
            && self.open.is_none()
            && self.request_passing == 0
            && !self.splitting.is_starting()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_opening_is_never_missed() {
        let gate = Arc::new(Gate::default());
        gate.opened().await;
        gate.closed.store(true, Ordering::Release);
        let waiting = tokio::spawn({
            let gate = gate.clone();
            async move { gate.opened().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        gate.closed.store(false, Ordering::Release);
        gate.opened.notify_waiters();
        waiting.await.unwrap();
    }
}
