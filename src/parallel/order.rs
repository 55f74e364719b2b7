//! Rows of several workers, put back into the order of the table's blocks.
//!
//! **Invariant.** What is taken is the ranges one after the other, each whole and in its own order. Rows that are not yet due
//! never take more than the budget; those of the range that is due never more than [`DUE_BYTES`] beyond it. A worker that finds
//! no room waits, and so does its server; the worker whose range is due always finds room once the client has taken what there
//! is, so nobody waits for ever.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, watch};

use super::link::{LinkError, Run, Stop};
use crate::telemetry::metrics::Unsplit;

/// Rows of the range that is due that may wait for the client.
const DUE_BYTES: usize = 512 * 1024;

/// What the client gets next.
#[derive(Debug)]
pub enum Item {
    /// Rows, or parts of long ones.
    Rows(BytesMut),
    /// Everything was taken: so many rows.
    Complete(u64),
    Failed(Failure),
}

/// Why there will be nothing more.
#[derive(Debug)]
pub struct Failure {
    /// An ErrorResponse frame.
    pub frame: Bytes,
    /// A part of a row has been taken whose rest will not come: nothing can be said to the client any more.
    pub in_row: bool,
    /// It is what the client has asked for: it is not to be tried in another way.
    pub is_final: bool,
    /// Why it is not split, if nothing has been taken yet.
    pub reason: Unsplit,
}

pub(super) struct Ordered {
    state: Mutex<State>,
    client: AtomicWaker,
    room: Notify,
    stop: watch::Sender<bool>,
    budget: usize,
}

/// Where the rows of one range go.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub ordered: &'a Ordered,
    pub range: usize,
}

impl Place<'_> {
    /// Adds rows, when there is room for them.
    pub async fn put(&self, run: Run) -> Result<(), LinkError> {
        self.ordered.put(self.range, run).await
    }
}

#[derive(Default)]
struct State {
    /// RowDescription, when it is known.
    description: Option<Bytes>,
    /// How many ranges there are, when that is known.
    count: Option<usize>,
    /// The range that is due.
    due: usize,
    /// From the one that is due on.
    ranges: VecDeque<Range>,
    /// Bytes in those that are not due.
    early: usize,
    rows: u64,
    /// The last row taken is not whole.
    in_row: bool,
    failure: Option<Failure>,
    /// The client has found nothing to take since somebody asked.
    starved: bool,
}

#[derive(Default)]
struct Range {
    runs: VecDeque<Run>,
    bytes: usize,
    complete: bool,
}

impl Ordered {
    pub fn new(budget: usize) -> Self {
        let stop = watch::Sender::new(false);
        Self { state: Mutex::default(), client: AtomicWaker::new(), room: Notify::new(), stop, budget }
    }

    /// Tells when everything is to stop.
    pub fn stop_signal(&self) -> Stop {
        self.stop.subscribe()
    }

    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// The client is gone, or does not want it any more.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.room.notify_waiters();
        // Nobody will take them.
        let mut state = self.state();
        state.ranges.clear();
        state.early = 0;
    }

    /// What the rows look like, and how many ranges they come in.
    pub fn begin(&self, description: Bytes, count: usize) {
        let mut state = self.state();
        state.description = Some(description);
        state.count = Some(count);
        drop(state);
        self.client.wake();
    }

    /// There will be nothing more. The first failure counts.
    pub fn fail(&self, frame: Bytes, is_final: bool) {
        self.fail_for(Failure { frame, in_row: false, is_final, reason: Unsplit::Failed });
    }

    /// The same for a failure of one of those that work on it.
    pub fn fail_by(&self, error: LinkError) {
        let reason = error.reason();
        self.fail_for(Failure { frame: error.into_frame(), in_row: false, is_final: false, reason });
    }

    fn fail_for(&self, failure: Failure) {
        let mut state = self.state();
        if state.failure.is_none() {
            state.failure = Some(failure);
        }
        drop(state);
        self.stop();
        self.client.wake();
    }

    async fn put(&self, range: usize, mut run: Run) -> Result<(), LinkError> {
        loop {
            // Registered before the state is looked at: a place that becomes free in between is not missed.
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            match self.try_put(range, run) {
                Ok(()) => return Ok(()),
                Err(refused) => run = refused,
            }
            if self.is_stopped() {
                return Err(LinkError::Stopped);
            }
            room.await;
        }
    }

    fn try_put(&self, range: usize, run: Run) -> Result<(), Run> {
        let mut state = self.state();
        if self.is_stopped() {
            return Err(run);
        }
        let bytes = run.bytes.len();
        let is_due = range == state.due;
        let has_room = if is_due {
            state.ranges.front().is_none_or(|due| due.bytes < DUE_BYTES)
        } else {
            state.early + bytes <= self.budget
        };
        if !has_room {
            return Err(run);
        }
        if !is_due {
            state.early += bytes;
        }
        let slot = state.range(range);
        slot.bytes += bytes;
        slot.runs.push_back(run);
        drop(state);
        if is_due {
            self.client.wake();
        }
        Ok(())
    }

    /// A range has no more rows; it had so many.
    pub fn complete(&self, range: usize, rows: u64) {
        let mut state = self.state();
        state.rows += rows;
        state.range(range).complete = true;
        let is_due = range == state.due;
        drop(state);
        if is_due {
            self.client.wake();
        }
    }

    pub fn description(&self) -> Option<Bytes> {
        self.state().description.clone()
    }

    /// Ready when there is something to take.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.register(cx.waker());
        let mut state = self.state();
        state.pass_over(&self.room);
        let ready =
            state.failure.is_some() || (state.description.is_some() && (state.is_complete() || state.has_rows()));
        if ready {
            return Poll::Ready(());
        }
        state.starved = true;
        Poll::Pending
    }

    pub fn take_failure(&self) -> Option<Failure> {
        self.state().failure.take()
    }

    /// Takes what comes next.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Item> {
        self.client.register(cx.waker());
        let mut state = self.state();
        if let Some(failure) = state.failure.take() {
            return Poll::Ready(Item::Failed(Failure { in_row: state.in_row, ..failure }));
        }
        state.pass_over(&self.room);
        if state.is_complete() {
            return Poll::Ready(Item::Complete(state.rows));
        }
        let run = state.ranges.front_mut().and_then(|due| {
            let run = due.runs.pop_front()?;
            due.bytes -= run.bytes.len();
            Some(run)
        });
        let Some(run) = run else {
            state.starved = true;
            return Poll::Pending;
        };
        state.in_row = run.open > 0;
        drop(state);
        self.room.notify_waiters();
        Poll::Ready(Item::Rows(run.bytes))
    }

    /// Whether the client has had to wait for rows since this was asked last.
    pub fn was_starved(&self) -> bool {
        std::mem::take(&mut self.state().starved)
    }

    /// Whether rows that are not due fill half of the budget.
    pub fn is_ahead(&self) -> bool {
        self.state().early > self.budget / 2
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn range(&mut self, range: usize) -> &mut Range {
        // A range is taken only when it is complete, so this one is not before the one that is due.
        let place = range.saturating_sub(self.due);
        if self.ranges.len() <= place {
            self.ranges.resize_with(place + 1, Range::default);
        }
        &mut self.ranges[place]
    }

    /// Goes on to the next range when the one that is due has been taken.
    fn pass_over(&mut self, room: &Notify) {
        while self.ranges.front().is_some_and(|due| due.complete && due.runs.is_empty()) {
            self.ranges.pop_front();
            self.due += 1;
            self.early -= self.ranges.front().map_or(0, |due| due.bytes);
            room.notify_waiters();
        }
    }

    fn has_rows(&self) -> bool {
        self.ranges.front().is_some_and(|due| !due.runs.is_empty())
    }

    fn is_complete(&self) -> bool {
        self.count.is_some_and(|count| self.due >= count)
    }
}

#[cfg(test)]
mod tests;
