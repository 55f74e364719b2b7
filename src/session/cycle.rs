//! The loop that moves a session's bytes: one task, two sockets, bounded buffers in between.
//!
//! **Invariant.** Reading from one side stops when the buffer towards the other side is full, and only then; writing is tried
//! whenever there is something to write. Neither side can therefore block the other for longer than it blocks itself, and a
//! batch larger than all socket buffers passes as it would without the proxy.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Session;
use super::spare;
use super::split::Split;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::stream::Stream;

/// Room for a read where nothing is left of the last one.
const READ_BYTES: usize = 16 * 1024;
/// Free space that a read is given at least.
const LEAST_READ_BYTES: usize = READ_BYTES / 4;

/// One side of the session: what has been read from a stream and what is to be written to it. It does not own the stream, since
/// the upstream's may change.
#[derive(Debug, Default)]
pub struct Side {
    /// Read and not yet dealt with.
    pub input: BytesMut,
    /// To be written.
    pub output: BytesMut,
    /// Written, but perhaps not through TLS yet.
    unflushed: bool,
    /// Nothing more comes from it.
    pub closed: bool,
    /// The task is woken when there is more to read. A side whose stream is another one begins without.
    armed: bool,
}

/// What the client is answered in the upstream's place, a buffer at a time.
#[derive(Debug)]
pub enum Replay {
    /// A cached result, and what comes after it.
    Recorded {
        frames: Bytes,
        tail: Bytes,
    },
    Split(Box<Split>),
}

/// Why a session ends.
#[derive(Debug)]
pub enum End {
    /// The client said Terminate, or is gone.
    Client,
    /// The upstream closed its connection; what it sent last has been passed on.
    Upstream,
    /// We end it, and tell the client why.
    Told(ErrorResponse),
    /// The same, in a message as it is.
    Passed(Bytes),
}

impl Side {
    pub fn with_buffers(input: BytesMut, output: BytesMut) -> Self {
        Self { input, output, ..Self::default() }
    }

    /// Before it is used.
    fn equip(&mut self) {
        spare::equip(&mut self.input);
        spare::equip(&mut self.output);
    }

    /// Nothing happens for a while.
    fn strip(&mut self) {
        spare::strip(&mut self.input, READ_BYTES);
        spare::strip(&mut self.output, READ_BYTES);
    }

    /// Reads what is there, as far as there is room: in the end the side is armed, or the stream has ended, or neither.
    fn read(&mut self, stream: &mut Stream, cx: &mut Context<'_>) {
        // Back to the buffer's front: the same few cache lines in every round.
        if self.input.is_empty() || self.room() < LEAST_READ_BYTES {
            spare::equip(&mut self.input);
            self.input.reserve(READ_BYTES);
        }
        loop {
            match pin!(stream.read_buf(&mut self.input)).poll(cx) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => {}
                Poll::Ready(_) => {
                    self.closed = true;
                    return;
                }
                Poll::Pending => {
                    self.armed = true;
                    return;
                }
            }
            if self.room() < LEAST_READ_BYTES {
                return;
            }
        }
    }

    fn room(&self) -> usize {
        self.input.capacity() - self.input.len()
    }

    /// It may have more to say, and nobody is waiting for it.
    fn is_unheard(&self) -> bool {
        !self.armed && !self.closed
    }

    /// Writes as much as the socket takes. Ready when everything is written.
    fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            match std::pin::Pin::new(&mut *stream).poll_write(cx, &self.output) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    if written == self.output.len() {
                        // Stays at the buffer's front, where it is warm.
                        self.output.clear();
                    } else {
                        self.output.advance(written);
                    }
                    self.unflushed = stream.is_tls();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if self.unflushed {
            ready!(std::pin::Pin::new(stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes everything that is left.
    pub async fn flush(&mut self, stream: &mut Stream) -> io::Result<()> {
        stream.write_all_buf(&mut self.output).await?;
        stream.flush().await
    }
}

impl Replay {
    /// More of it can be had, as far as is known.
    fn is_ready(&self) -> bool {
        match self {
            Self::Recorded { .. } => true,
            Self::Split(split) => split.is_ready(),
        }
    }
}

impl Session {
    /// Runs until the session ends.
    pub(super) async fn cycle(&mut self) -> End {
        std::future::poll_fn(|cx| self.poll_cycle(cx)).await
    }

    fn poll_cycle(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        self.control.register(cx.waker());
        self.client.equip();
        loop {
            match self.turn(cx) {
                Ok(true) => {}
                Ok(false) => break,
                Err(end) => return Poll::Ready(end),
            }
        }
        self.client.strip();
        self.upstream.strip();
        Poll::Pending
    }

    /// One round over everything that can go on. False if whatever happens next wakes the task.
    fn turn(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        self.obey()?;
        // In the order in which bytes travel, so that what is read is written in the same round.
        self.read_upstream(cx)?;
        self.read_client(cx)?;
        self.replies()?;
        self.requests(cx)?;
        self.refill(cx)?;
        self.write_upstream(cx)?;
        let parted = self.part();
        self.write_client(cx)?;
        self.watch_stall(cx)?;
        Ok(parted || self.can_go_on())
    }

    /// Whether something that was held up earlier in this round can go on now, though no socket will say so. What it misses hangs.
    fn can_go_on(&self) -> bool {
        let client_has_room = self.client.output.len() < self.buffer_bytes && self.replay.is_none();
        let upstream_has_room = self.upstream.output.len() < self.buffer_bytes;
        let reply = !self.upstream.input.is_empty() && self.reply_needed == 0 && client_has_room;
        let request = !self.client.input.is_empty()
            && self.request_needed == 0
            && self.waiting.is_none()
            && !self.is_attaching()
            && self.cancelling.is_none()
            && !self.learning_shape
            && !self.upstream.closed
            && !self.is_held_back()
            && !self.splitting.is_starting()
            && !self.pipeline.at_own()
            && client_has_room
            && upstream_has_room;
        let refill = self.client.output.is_empty() && self.replay.as_ref().is_some_and(Replay::is_ready);
        let read_upstream = self.backend.is_some() && self.upstream.is_unheard() && !self.upstream_is_held();
        let read_client = self.client.is_unheard() && !self.client_is_held();
        let ended = self.upstream.closed && self.upstream_is_spent();
        let gone = self.client.closed && (!self.pipeline.at_own() || self.farewell.is_none());
        reply || request || refill || read_upstream || read_client || ended || gone || self.is_called()
    }

    /// The client has all that the upstream has said, as far as it is whole.
    fn upstream_is_spent(&self) -> bool {
        self.client.output.is_empty()
            && self.replay.is_none()
            && (self.upstream.input.is_empty() || self.reply_needed > self.upstream.input.len())
    }

    /// No room for more of what the upstream says.
    fn upstream_is_held(&self) -> bool {
        self.client.output.len() + self.upstream.input.len() >= self.buffer_bytes.max(self.reply_needed)
    }

    /// No room for more of what the client says.
    fn client_is_held(&self) -> bool {
        self.client.input.len() >= self.buffer_bytes.max(self.request_needed)
            || self.upstream.output.len() >= self.buffer_bytes
    }

    /// Whether [`obey`](Self::obey) has something to do.
    fn is_called(&self) -> bool {
        (self.control.is_shutting_down() && self.is_idle())
            || self.gives_up.is_some()
            || (self.control.wants_cancel()
                && !self.pipeline.at_own()
                && (self.pipeline.owes_client() || self.client.input.is_empty() || self.is_splitting()))
    }

    /// What other tasks have asked of this session.
    fn obey(&mut self) -> Result<(), End> {
        if let Some(error) = self.gives_up.take() {
            return Err(End::Told(error));
        }
        if self.control.must_end_now() || (self.control.is_shutting_down() && self.is_idle()) {
            return Err(End::Told(terminated()));
        }
        if let Some(exceeded) = self.control.take_exceeded().filter(|_| self.limited) {
            self.exceeded(exceeded)?;
        }
        if self.control.wants_cancel() && !self.pipeline.at_own() {
            if self.pipeline.owes_client() {
                let askers = self.control.take_cancels();
                self.send_cancel(askers);
            } else if self.cancel_split() {
                // Its connections are told.
            } else if self.client.input.is_empty() {
                // Nothing runs, and nothing is about to.
                drop(self.control.take_cancels());
            }
        }
        Ok(())
    }

    fn write_upstream(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        let Some(backend) = &mut self.backend else { return Ok(()) };
        if let Poll::Ready(Err(_)) = self.upstream.poll_write(&mut backend.stream, cx) {
            // It may have said why before it closed: what can be read still is, then the read side ends the session.
            self.upstream.output.clear();
        }
        Ok(())
    }

    fn write_client(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        match self.client.poll_write(&mut self.client_stream, cx) {
            Poll::Ready(Err(_)) => Err(End::Client),
            _ => Ok(()),
        }
    }

    fn read_upstream(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.upstream.closed {
            return if self.upstream_is_spent() && !self.ask_again() { Err(End::Upstream) } else { Ok(()) };
        }
        self.upstream.armed = false;
        let held = self.upstream_is_held();
        if let Some(backend) = self.backend.as_mut().filter(|_| !held) {
            self.upstream.read(&mut backend.stream, cx);
        }
        Ok(())
    }

    fn read_client(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if self.client.closed {
            return self.let_client_go(cx);
        }
        self.client.armed = false;
        if !self.client_is_held() {
            self.client.read(&mut self.client_stream, cx);
        }
        Ok(())
    }

    /// The client is gone. What the proxy itself has asked is waited for: others profit from the answer.
    fn let_client_go(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if !self.pipeline.at_own() {
            return Err(End::Client);
        }
        let farewell = self.farewell.get_or_insert_with(|| Box::pin(tokio::time::sleep(super::FAREWELL)));
        match farewell.as_mut().poll(cx) {
            Poll::Ready(()) => Err(End::Client),
            Poll::Pending => Ok(()),
        }
    }

    /// Moves the next piece of a cached result, or of a split read, to the client's buffer when that is empty.
    fn refill(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        if !self.client.output.is_empty() {
            // It may be the split read that has woken the task, and it does so but once: it is looked at when there is room.
            if let Some(Replay::Split(split)) = &mut self.replay {
                split.look_again();
            }
            return Ok(());
        }
        match self.replay.take() {
            None => {}
            Some(Replay::Split(split)) => self.refill_from_split(split, cx)?,
            Some(Replay::Recorded { mut frames, tail }) => {
                let piece = frames.split_to(frames.len().min(self.buffer_bytes));
                self.client.output.extend_from_slice(&piece);
                if frames.is_empty() {
                    self.client.output.extend_from_slice(&tail);
                } else {
                    self.replay = Some(Replay::Recorded { frames, tail });
                }
            }
        }
        Ok(())
    }
}

/// Somebody has ended the session.
pub(super) fn terminated() -> ErrorResponse {
    let message = "terminating connection due to administrator command";
    ErrorResponse::fatal(sqlstate::ADMIN_SHUTDOWN, message)
}
