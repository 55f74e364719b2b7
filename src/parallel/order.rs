//! Rows of several workers on their way to the client, in the order of the table's blocks or in that of sort keys.
//!
//! **Invariant.** Rows take no more memory than the budget and a little. A worker that finds no room waits, and so does its server; the
//! worker on whose rows the client waits always finds room, so nobody waits for ever. What is taken, and in which order: see
//! [`Blocks`] and [`Merge`].

mod blocks;
mod merge;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use tokio::sync::{Notify, watch};

use self::blocks::Blocks;
use self::merge::Merge;
use super::link::{LinkError, Run, Stop};
use super::sorter::ParallelSorter;
use crate::telemetry::metrics::Unsplit;

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

struct State {
    /// RowDescription, when it is known.
    description: Option<Bytes>,
    source: Source,
    /// The last row taken is not whole.
    in_row: bool,
    failure: Option<Failure>,
    /// The client has found nothing to take since somebody asked.
    starved: bool,
}

/// Where rows wait, and which of them is next.
enum Source {
    Blocks(Blocks),
    Merge(Merge),
}

impl Ordered {
    pub fn new(budget: usize) -> Self {
        let stop = watch::Sender::new(false);
        let source = Source::Blocks(Blocks::new(budget));
        let state = State { description: None, source, in_row: false, failure: None, starved: false };
        Self { state: Mutex::new(state), client: AtomicWaker::new(), room: Notify::new(), stop }
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
        match &mut self.state().source {
            Source::Blocks(blocks) => blocks.clear(),
            Source::Merge(merge) => merge.clear(),
        }
    }

    /// What the rows look like, and how many ranges they come in.
    pub fn begin(&self, description: Bytes, count: usize) {
        let mut state = self.state();
        state.description = Some(description);
        if let Source::Blocks(blocks) = &mut state.source {
            blocks.count = Some(count);
        }
        drop(state);
        self.client.wake();
    }

    /// The same for ranges that are sorted, each a lane of the sorter's. Nothing has been put yet.
    pub fn begin_sorted(&self, description: Bytes, sorter: ParallelSorter) {
        let mut state = self.state();
        state.description = Some(description);
        state.source = Source::Merge(Merge::new(sorter));
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
        let is_awaited = match &mut state.source {
            Source::Blocks(blocks) => blocks.put(range, run)?,
            Source::Merge(merge) => merge.put(range, run)?,
        };
        drop(state);
        if is_awaited {
            self.client.wake();
        }
        Ok(())
    }

    /// A range has no more rows; it had so many.
    pub fn complete(&self, range: usize, rows: u64) {
        let is_awaited = match &mut self.state().source {
            Source::Blocks(blocks) => blocks.complete(range, rows),
            Source::Merge(merge) => merge.complete(range),
        };
        if is_awaited {
            self.client.wake();
        }
    }

    pub fn description(&self) -> Option<Bytes> {
        self.state().description.clone()
    }

    /// Ready when there is something to take.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.register(cx.waker());
        let mut state = self.advance();
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
        let mut state = self.advance();
        if let Some(failure) = state.failure.take() {
            return Poll::Ready(Item::Failed(Failure { in_row: state.in_row, ..failure }));
        }
        if state.is_complete() {
            return Poll::Ready(Item::Complete(state.rows()));
        }
        let Some(run) = state.take() else {
            state.starved = true;
            return Poll::Pending;
        };
        state.in_row = run.open > 0;
        drop(state);
        self.room.notify_waiters();
        Poll::Ready(Item::Rows(run.bytes))
    }

    /// Goes on to what is to be taken next.
    fn advance(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        if state.failure.is_some() {
            return state;
        }
        let advanced = match &mut state.source {
            Source::Blocks(blocks) => Ok(blocks.pass_over()),
            Source::Merge(merge) => merge.advance(),
        };
        match advanced {
            Ok(false) => {}
            Ok(true) => self.room.notify_waiters(),
            Err(error) => {
                drop(state);
                self.fail_by(error);
                state = self.state();
            }
        }
        state
    }

    /// Whether the client has had to wait for rows since this was asked last.
    pub fn was_starved(&self) -> bool {
        std::mem::take(&mut self.state().starved)
    }

    /// Whether rows that are not due fill half of the budget.
    pub fn is_ahead(&self) -> bool {
        match &self.state().source {
            Source::Blocks(blocks) => blocks.is_ahead(),
            Source::Merge(_) => false,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_rows(&self) -> bool {
        match &self.source {
            Source::Blocks(blocks) => blocks.has_rows(),
            Source::Merge(merge) => merge.has_rows(),
        }
    }

    fn is_complete(&self) -> bool {
        match &self.source {
            Source::Blocks(blocks) => blocks.is_complete(),
            Source::Merge(merge) => merge.is_complete(),
        }
    }

    fn rows(&self) -> u64 {
        match &self.source {
            Source::Blocks(blocks) => blocks.rows,
            Source::Merge(merge) => merge.rows(),
        }
    }

    fn take(&mut self) -> Option<Run> {
        match &mut self.source {
            Source::Blocks(blocks) => blocks.take(),
            Source::Merge(merge) => merge.take(),
        }
    }
}

#[cfg(test)]
mod tests;
