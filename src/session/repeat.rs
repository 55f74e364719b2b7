//! Reads that are asked again on another connection when theirs is lost before the client was told anything.
//!
//! **Invariant.** Only what has no effect but its answer is repeated: a read by itself, outside of a transaction block, of which the
//! server's analysis proves that it runs nothing that could write or draw; on a shared connection that holds nothing of the
//! session's. How an answer opens (before its first row) is kept back, and so are the last words of a backend that ends: the client
//! gets all of one answer, and nothing of another.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::Session;
use super::block::Status;
use super::cycle::Side;
use super::notes::Judged;
use super::pipeline::Pipeline;
use super::requests::Turn;
use crate::statement::Statement;
use crate::upstream::lookout::{Loss, last_words};
use crate::wire::error::sqlstate;
use crate::wire::frame::{HEADER_BYTES, backend};

/// A read that may be asked again.
#[derive(Debug)]
pub struct Repeat {
    /// The client's messages.
    request: Bytes,
    /// What the client has not been told yet.
    opening: BytesMut,
}

/// Whether a whole frame says nothing that another connection could not say otherwise: it stands before the first row, or is the
/// last of a backend that ends.
pub fn is_opening(frame: &[u8]) -> bool {
    let Some((tag, body)) = frame.first().zip(frame.get(HEADER_BYTES..)) else { return false };
    match *tag {
        backend::PARSE_COMPLETE | backend::BIND_COMPLETE | backend::ROW_DESCRIPTION => true,
        backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE => last_words(body).is_some(),
        _ => false,
    }
}

/// Whether a read may be asked for the `attempt`th time after its connection ended with these words. Whoever ends a connection
/// without a word may have died of that very read, which is not tried a third time.
fn may_follow(words: Option<&str>, attempt: u32, max_attempts: u32) -> bool {
    let passes = match words {
        Some(sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN | sqlstate::CANNOT_CONNECT_NOW) => true,
        Some(_) => false,
        None => attempt <= 2,
    };
    passes && attempt <= max_attempts
}

impl Session {
    /// Whether a read that is about to be sent may be asked again if need be.
    pub(super) fn may_repeat(&mut self, statement: &Arc<Statement>, types: &[u32], judged: &Judged) -> bool {
        let alone = self.block.status() == Status::Idle && self.open.is_none() && !self.pipeline.owes_client();
        if self.sharing.is_none() || !self.repeats_reads || !alone || !judged.effects.writes.is_empty() {
            return false;
        }
        let database = self.visit.database();
        let (Some(context), epoch) = (self.context.digest().filter(|_| !self.settings_move), database.epoch()) else {
            return false;
        };
        let analysis = self.known.analysis(database, statement, types, context, epoch);
        analysis.is_some_and(|analysis| analysis.read.is_ok()) && !database.in_doubt()
    }

    /// The read that may be repeated is being sent in these messages.
    pub(super) fn keep_for_repeat(&mut self, request: &[u8]) {
        let request = Bytes::copy_from_slice(request);
        self.repeat = Some(Box::new(Repeat { request, opening: BytesMut::new() }));
    }

    /// The client is told something: from here on nothing is repeated.
    pub(super) fn answer_begins(&mut self) {
        if let Some(repeat) = self.repeat.take() {
            self.client.output.extend_from_slice(&repeat.opening);
        }
    }

    /// Passes on what the upstream has said, or keeps it back.
    pub(super) fn tell(&mut self, frames: &[u8]) {
        match &mut self.repeat {
            Some(repeat) => repeat.opening.extend_from_slice(frames),
            None => self.client.output.extend_from_slice(frames),
        }
    }

    /// The client's request has been answered: if it was repeated, that has helped.
    pub(super) fn repeated(&mut self) {
        if std::mem::take(&mut self.repetitions) > 0 {
            self.shared.metrics.statement_retries(true).increment(1);
        }
    }

    /// The same, but it has not helped.
    pub(super) fn repeated_in_vain(&self) {
        if self.repetitions > 0 {
            self.shared.metrics.statement_retries(false).increment(1);
        }
    }

    /// The upstream connection has ended. True if what was outstanding will be asked again: it is at the front of the client's
    /// input, as if it had not been looked at yet.
    pub(super) fn ask_again(&mut self) -> bool {
        let Some(repeat) = self.repeat.take() else { return false };
        let config = self.shared.config.load();
        if !self.can_ask_again(config.retry.max_attempts) {
            self.client.output.extend_from_slice(&repeat.opening);
            return false;
        }
        let words = self.last_words.take();
        tracing::info!(
            pid = self.pid(),
            words,
            "the upstream connection was lost: a read is asked again on another one"
        );
        self.shared.lookout.lost(&Loss { last_words: words.as_deref(), owed: true });
        self.repeated_in_vain();
        self.repetitions += 1;
        self.lose_connection();
        let mut input = BytesMut::with_capacity(repeat.request.len() + self.client.input.len());
        input.extend_from_slice(&repeat.request);
        input.extend_from_slice(&self.client.input);
        self.client.input = input;
        self.request_needed = 0;
        let delay = config.retry.delay(self.repetitions);
        self.waiting = Some(Box::pin(async move {
            tokio::time::sleep(delay).await;
            Turn::Rested
        }));
        true
    }

    fn can_ask_again(&self, max_attempts: u32) -> bool {
        let alone = self.pipeline.owes_client_one() && self.open.is_none() && self.block.status() == Status::Idle;
        let whole =
            self.request_passing == 0 && self.reply_passing.0 == 0 && self.tracking && self.lost.marks.is_empty();
        let wanted = !self.overdue
            && self.cancelling.is_none()
            && !self.control.wants_cancel()
            && self.cancels.iter().all(tokio::task::JoinHandle::is_finished)
            && !self.is_ending();
        let free = self.sharing.as_ref().is_some_and(|sharing| sharing.is_free());
        alone && whole && wanted && free && may_follow(self.last_words.as_deref(), self.repetitions + 2, max_attempts)
    }

    /// Forgets the connection, on which nothing of the session's was but the read.
    fn lose_connection(&mut self) {
        drop(self.uninstall());
        self.upstream = Side::default();
        self.pipeline = Pipeline::default();
        self.prepared.move_out();
        self.prepared.end_portals();
        self.cancels.clear();
        self.own_replies.clear();
        self.reply_needed = 0;
        self.settings_move = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::error::ErrorResponse;

    #[test]
    fn last_words_and_what_comes_before_the_rows_are_kept_back() {
        let frame = |error: ErrorResponse| {
            let mut frame = BytesMut::new();
            error.encode(&mut frame);
            frame
        };
        assert!(is_opening(b"1\0\0\0\x04") && is_opening(b"2\0\0\0\x04") && is_opening(b"T\0\0\0\x06\0\0"));
        assert!(is_opening(&frame(ErrorResponse::fatal("57P01", "terminating"))));
        assert!(!is_opening(&frame(ErrorResponse::error("57014", "canceled"))));
        assert!(!is_opening(b"D\0\0\0\x06\0\0") && !is_opening(b"C\0\0\0\x04") && !is_opening(b"Z\0\0\0\x05I"));
    }

    #[test]
    fn a_read_that_may_have_killed_its_backend_is_tried_twice_and_no_more() {
        assert!(may_follow(None, 2, 5) && !may_follow(None, 3, 5));
        assert!(may_follow(Some("57P01"), 5, 5) && !may_follow(Some("57P01"), 6, 5));
        assert!(may_follow(Some("57P02"), 2, 2) && !may_follow(Some("57P02"), 2, 1));
        assert!(!may_follow(Some("57P05"), 2, 5) && !may_follow(Some("53200"), 2, 5));
    }
}
