//! How the rows of a split read take the place of the upstream's, and how that ends.
//!
//! **Invariant.** The client gets whole rows, and in the end either a CommandComplete with their number or an error, whatever
//! becomes of the connections that work on it.

use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::time::sleep;

use super::Session;
use super::cycle::{End, Replay};
use super::lookup::Basis;
use super::split::{Split, Stall};
use crate::parallel::{Failure, Item};
use crate::telemetry::metrics::{Class as QueryClass, Outcome, Path};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::backend;

impl Session {
    /// The client is answered by a split read, whose first rows are there.
    pub(super) fn replay_split(&mut self, mut split: Box<Split>, described: bool) {
        split.trace = self.attempt.trace.take();
        if let Some(trace) = &mut split.trace {
            trace.did("upstream");
        }
        if let Some(description) = split.rows.description() {
            if let Some(fill) = &mut split.fill {
                fill.recording.frame(backend::ROW_DESCRIPTION, description.len());
                fill.recording.extend(&description);
            }
            if described {
                self.client.output.extend_from_slice(&description);
            }
        }
        self.replay = Some(Replay::Split(split));
    }

    /// Moves the next rows of a split read to the client's buffer, which is empty.
    pub(super) fn refill_from_split(&mut self, mut split: Box<Split>, cx: &mut Context<'_>) -> Result<(), End> {
        split.stall = None;
        if let Some(failure) = split.failure.take() {
            return self.fail_split(&mut split, failure);
        }
        while self.client.output.len() < self.buffer_bytes {
            match split.rows.poll_take(cx) {
                Poll::Pending => {
                    split.pending = true;
                    break;
                }
                Poll::Ready(Item::Rows(rows)) => {
                    split.pending = false;
                    if let Some(fill) = &mut split.fill {
                        fill.recording.rows(&rows);
                    }
                    if self.client.output.is_empty() {
                        self.client.output = rows;
                    } else {
                        self.client.output.extend_from_slice(&rows);
                    }
                }
                Poll::Ready(Item::Complete(rows)) => {
                    self.complete_split(split, rows);
                    return Ok(());
                }
                Poll::Ready(Item::Failed(failure)) => return self.fail_split(&mut split, failure),
            }
        }
        self.replay = Some(Replay::Split(split));
        Ok(())
    }

    fn complete_split(&mut self, mut split: Box<Split>, rows: u64) {
        let mut complete = BytesMut::new();
        let tag = format!("SELECT {rows}\0");
        complete.put_u8(backend::COMMAND_COMPLETE);
        complete.put_u32(tag.len() as u32 + 4);
        complete.put_slice(tag.as_bytes());
        self.client.output.extend_from_slice(&complete);
        self.put_ready();
        if let Some(mut fill) = split.fill.take() {
            fill.recording.frame(backend::COMMAND_COMPLETE, complete.len());
            fill.recording.extend(&complete);
            if let Basis::Known { .. } = fill.basis {
                self.store_known(*fill);
            }
        }
        self.count_split(&mut split, Outcome::Complete);
    }

    fn fail_split(&mut self, split: &mut Split, failure: Failure) -> Result<(), End> {
        self.count_split(split, if failure.is_final { Outcome::Cancelled } else { Outcome::Failed });
        if failure.in_row {
            tracing::warn!(
                pid = self.pid(),
                "a split statement failed in the middle of a row: its client is disconnected"
            );
            return Err(End::Client);
        }
        self.client.output.extend_from_slice(&failure.frame);
        self.put_ready();
        Ok(())
    }

    fn put_ready(&mut self) {
        let ready = [backend::READY_FOR_QUERY, 0, 0, 0, 5, self.block.status().byte()];
        self.client.output.extend_from_slice(&ready);
    }

    fn count_split(&self, split: &mut Split, outcome: Outcome) {
        let (metrics, took) = (&self.shared.metrics, split.started.elapsed());
        metrics.queries(QueryClass::Read).increment(1);
        self.control.activity.answered();
        self.control.activity.rests(self.block.status());
        metrics.query_duration(Path::Parallel).record(took);
        metrics.parallel_duration(outcome).record(took);
        if let Some(page) = &split.page {
            page.ran(took);
        }
        let failed = outcome != Outcome::Complete;
        let (page, sent) = (split.page.as_deref(), split.sent.as_deref());
        self.log_if_slow(page, sent, QueryClass::Read, Path::Parallel, failed, took);
        if let Some(mut trace) = split.trace.take() {
            trace.did("merge");
            self.finish_trace(*trace, Path::Parallel, split.page.as_ref(), failed);
        }
    }

    /// A split read has been begun and is not answered.
    pub(super) fn is_splitting(&self) -> bool {
        self.splitting.is_starting() || matches!(self.replay, Some(Replay::Split(_)))
    }

    /// Ends the split read that runs with this error. False if none does.
    pub(super) fn end_split(&self, error: &ErrorResponse) -> bool {
        let replayed = match &self.replay {
            Some(Replay::Split(split)) => Some(&split.rows),
            _ => None,
        };
        let Some(rows) = replayed.or(self.splitting.starting.as_ref().map(|split| &split.rows)) else { return false };
        rows.cancel(error);
        true
    }

    /// Carries out a cancel request, if a split read is what it is for.
    pub(super) fn cancel_split(&self) -> bool {
        let error = ErrorResponse::error(sqlstate::QUERY_CANCELED, "canceling statement due to user request");
        let cancelled = self.end_split(&error);
        if cancelled {
            drop(self.control.take_cancels());
        }
        cancelled
    }

    /// Ends a client that takes nothing of a split read for too long.
    pub(super) fn watch_stall(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let left = self.client.output.len();
        let Some(Replay::Split(split)) = &mut self.replay else { return Ok(()) };
        if left == 0 {
            return Ok(());
        }
        let limit = Duration::from_secs(self.shared.config.load().parallel.stall_timeout_secs);
        let stall = split.stall.get_or_insert_with(|| Stall { left, clock: Box::pin(sleep(limit)) });
        while stall.clock.as_mut().poll(cx).is_ready() {
            if stall.left == left {
                let message = format!("terminating connection because it took no rows for {} seconds", limit.as_secs());
                return Err(End::Told(ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, message)));
            }
            *stall = Stall { left, clock: Box::pin(sleep(limit)) };
        }
        Ok(())
    }
}
