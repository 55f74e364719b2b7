//! What the client sends: reads are looked up, everything else is relayed, and its effects are taken note of first.
//!
//! A message longer than `server.max_inspect_bytes` is passed on in pieces and taken to write anything.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;

use super::Session;
use super::batch::{Batch, Frames};
use super::cycle::{End, Replay};
use super::lookup::{Attempt, Plan, ReadRequest, Wait};
use super::naming::{NO_STATEMENT, Named, put_renamed};
use super::notes::Judged;
use super::pipeline::Request;
use super::prepared::Asked;
use super::span::Span;
use crate::cache::admission::Pass;
use crate::cache::entry::Entry;
use crate::statement::Statement;
use crate::telemetry::metrics::{Access, Class as QueryClass, Path};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{self, FrameError, HEADER_BYTES, Header, backend, frontend};
use crate::wire::message::{Bind, Close, Describe, Execute, Query, Target};

/// A portal's and a statement's name fit into so many bytes, with what stands before them.
const NAMES_BYTES: usize = 1024;

/// What the pipeline is told of a client's message.
pub(super) type ClientRequest = Request<Option<Asked>, Box<Span>>;

/// What becomes of the front of the input.
pub(super) enum Taken {
    /// Nothing yet: so many bytes are needed.
    Needs(usize),
    /// Nothing yet: an identical miss is awaited, or the first rows of a split read, or what was asked about it.
    Waits,
    /// So many bytes go upstream, as far as they are here.
    Relayed(usize),
    /// So many bytes are answered, or were passed on with another name.
    Served(usize),
    /// The same of a message that may not be all here.
    Renamed(usize),
}

/// What waiting has come to.
pub(super) enum Turn {
    /// An identical miss is answered, or takes too long.
    Landed,
    /// It is its turn, or that takes too long.
    Given(Option<Pass>),
    /// It is time to ask again.
    Rested,
}

/// What stands at the front of the input.
enum Front<'a> {
    Needs(usize),
    /// One message that is relayed.
    Single(Header),
    /// The same, if it is not taken as a whole.
    Read(Header, Batch<'a>),
}

impl Session {
    /// Deals with what the client has sent.
    pub(super) fn requests(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        while self.accepts_requests(cx)? && self.request()? {}
        Ok(())
    }

    /// Not while the upstream works for us, a cached result is on its way, somebody else's miss, a cancel, the first rows of a split
    /// read or a statement's shape are awaited, or a buffer is full.
    fn accepts_requests(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        if self.is_held_back() || !self.poll_attaching(cx)? || self.splitting.poll_start(cx).is_pending() {
            return Ok(false);
        }
        if let Some(waiting) = &mut self.waiting {
            let Poll::Ready(turn) = waiting.as_mut().poll(cx) else { return Ok(false) };
            self.waiting = None;
            match turn {
                Turn::Landed => self.attempt.flight = true,
                Turn::Rested => {}
                Turn::Given(pass) => {
                    self.attempt.turn = true;
                    self.attempt.pass = pass;
                }
            }
        }
        if let Some(cancelling) = &mut self.cancelling {
            if cancelling.poll_unpin(cx).is_pending() {
                return Ok(false);
            }
            self.cancelling = None;
        }
        if self.pipeline.at_own() && !self.client.input.is_empty() {
            // It has begun to wait for an answer: query_timeout_secs counts.
            self.control.activity.begins();
        }
        Ok(!self.client.input.is_empty()
            && !self.upstream.closed
            && !self.learning_shape
            && self.gives_up.is_none()
            && !self.pipeline.at_own()
            && self.replay.is_none()
            && self.client.output.len() < self.buffer_bytes
            && self.upstream.output.len() < self.buffer_bytes)
    }

    /// One request, or a piece of one. False if more bytes are needed.
    fn request(&mut self) -> Result<bool, End> {
        if self.request_passing > 0 {
            self.forward(self.request_passing);
            return Ok(true);
        }
        // The input is taken out so that it can be read while the session changes.
        let input = std::mem::take(&mut self.client.input);
        let taken = self.take(&input);
        self.client.input = input;
        self.request_needed = 0;
        let taken = taken?;
        if !matches!(taken, Taken::Needs(_) | Taken::Waits) {
            self.attempt = Attempt::default();
        }
        match taken {
            Taken::Needs(bytes) => {
                self.request_needed = bytes;
                Ok(false)
            }
            // Once more around, to poll what is awaited.
            Taken::Waits => Ok(true),
            Taken::Relayed(length) => {
                self.forward(length);
                Ok(true)
            }
            Taken::Served(length) => {
                self.client.input.advance(length);
                Ok(true)
            }
            Taken::Renamed(length) => {
                let here = length.min(self.client.input.len());
                self.client.input.advance(here);
                self.request_passing = length - here;
                Ok(true)
            }
        }
    }

    fn take(&mut self, input: &[u8]) -> Result<Taken, End> {
        match self.front(input)? {
            Front::Needs(bytes) => Ok(Taken::Needs(bytes)),
            Front::Read(header, batch) => match self.read_batch(batch, input) {
                Some(taken) => Ok(taken),
                None => self.single(header, input),
            },
            Front::Single(header) => self.single(header, input),
        }
    }

    fn front<'a>(&mut self, input: &'a [u8]) -> Result<Front<'a>, End> {
        let Some(first) = frame::peek(input).map_err(violation)? else { return Ok(Front::Needs(HEADER_BYTES)) };
        if first.total > self.max_inspect_bytes || first.tag == frontend::COPY_DATA {
            // The name of its statement is at its beginning.
            let beginning = if self.sharing.is_some() { NAMES_BYTES.min(first.total) } else { 0 };
            return Ok(if input.len() < beginning { Front::Needs(beginning) } else { Front::Single(first) });
        }
        if input.len() < first.total {
            return Ok(Front::Needs(first.total));
        }
        let extended = matches!(first.tag, frontend::PARSE | frontend::BIND);
        if !self.tracking || self.open.is_some() || !extended {
            return Ok(Front::Single(first));
        }
        let mut frames = Frames { input, at: 0, needed: 0, limit: self.max_inspect_bytes };
        match self.batch(&mut frames) {
            Some(batch) => Ok(Front::Read(first, batch)),
            None if frames.needed > 0 => Ok(Front::Needs(frames.needed)),
            None => Ok(Front::Single(first)),
        }
    }

    /// Relays one message. Its body is empty here if it is too long to be looked at.
    fn single(&mut self, header: Header, input: &[u8]) -> Result<Taken, End> {
        let body = input.get(HEADER_BYTES..header.total).filter(|_| header.total <= self.max_inspect_bytes);
        if let Some(taken) = self.take_without_upstream(header) {
            return Ok(taken);
        }
        let message = &input[..header.total.min(input.len())];
        let named = match self.sharing {
            Some(_) => Named::find(header.tag, &message[HEADER_BYTES..]),
            None => None,
        };
        let name = named.map(|named| named.name);
        if let Some(name) = name.filter(|_| header.tag != frontend::PARSE)
            && !self.has_statement(name)
        {
            return Ok(Taken::Waits);
        }
        let mut renamed = None;
        match header.tag {
            frontend::QUERY => return Ok(self.query(header, body, input)),
            frontend::PARSE | frontend::BIND => {
                let asked = self.commit_alone(input).and_then(|statement| self.ask_before_commit(&statement));
                renamed = match header.tag {
                    frontend::PARSE => self.relay_parse(body, name),
                    _ => self.relay_bind(body, named.map(|named| named.portal), name),
                };
                if let Some(open) = self.open.as_mut().filter(|_| asked.is_some()) {
                    open.witness = asked;
                }
            }
            frontend::DESCRIBE => {
                self.opened();
                if let Some(Ok(Describe { kind: Target::Statement, name })) = body.map(Describe::decode) {
                    renamed = self.renamed(name);
                    self.send_if_unsent(name);
                }
                self.push(Request::Describe);
            }
            frontend::EXECUTE => self.relay_execute(body),
            frontend::CLOSE => {
                self.opened();
                if let Some(Ok(Close { kind: Target::Statement, name })) = body.map(Close::decode) {
                    self.prepared.forget(name);
                }
                self.push(Request::Close);
            }
            frontend::SYNC => {
                let mut span = self.open.take().unwrap_or_default();
                self.ask_before_sync(&mut span);
                self.push_span(span, Request::Sync);
            }
            frontend::FUNCTION_CALL => {
                let mut span = self.open.take().unwrap_or_default();
                let judged = self.judge_opaque();
                self.take_note(&mut span, judged, None);
                self.push_span(span, Request::FunctionCall);
            }
            frontend::COPY_DONE | frontend::COPY_FAIL => self.push(Request::CopyEnd),
            frontend::FLUSH | frontend::COPY_DATA | frontend::PASSWORD => {}
            frontend::TERMINATE => return Err(End::Client),
            unknown => return Err(violation(FrameError::UnknownTag(unknown))),
        }
        if let (Some(id), Some(named)) = (renamed, named) {
            let name = match header.tag != frontend::PARSE && self.shape_has_changed(named.name) {
                true => NO_STATEMENT,
                false => &id.name()[..],
            };
            put_renamed(&mut self.upstream.output, header, message, named, name);
            if header.tag == frontend::PARSE
                && let Some(prepared) = self.prepared.get(named.name).cloned()
            {
                self.ask_shape(Asked { prepared, again: false });
            }
            return Ok(Taken::Renamed(header.total));
        }
        Ok(Taken::Relayed(header.total))
    }

    /// What needs no connection, or has to wait for one. A Query is looked up first.
    fn take_without_upstream(&mut self, header: Header) -> Option<Taken> {
        if self.backend.is_some() || matches!(header.tag, frontend::QUERY | frontend::TERMINATE) {
            return None;
        }
        match header.tag {
            frontend::FLUSH => Some(Taken::Served(header.total)),
            frontend::SYNC if header.total == HEADER_BYTES => {
                self.client.output.extend_from_slice(&[
                    backend::READY_FOR_QUERY,
                    0,
                    0,
                    0,
                    5,
                    self.block.status().byte(),
                ]);
                Some(Taken::Served(header.total))
            }
            _ if self.attach() => None,
            _ => Some(Taken::Waits),
        }
    }

    /// A simple Query; without a body if it is too long to be looked at.
    fn query(&mut self, header: Header, body: Option<&[u8]>, input: &[u8]) -> Taken {
        let follows = self.tracking || self.sharing.is_some();
        let query = body.filter(|_| follows).and_then(|body| Query::decode(body).ok());
        let Some(Query { text }) = query else {
            if !self.attach() {
                return Taken::Waits;
            }
            let judged = self.judge_opaque();
            let span = self.open.take().unwrap_or_default();
            return self.relay_query(header, judged, None, span);
        };
        let statement = match self.in_front.take() {
            Some((seen, statement)) if *seen == *text => statement,
            _ => self.shared.statements.get(text),
        };
        let taken = self.query_of(&statement, header, text, input);
        if matches!(taken, Taken::Waits) {
            self.in_front = Some((text.into(), statement));
        }
        taken
    }

    fn query_of(&mut self, statement: &Arc<Statement>, header: Header, text: &[u8], input: &[u8]) -> Taken {
        let mut fill = None;
        if statement.is_single_read() {
            let request = ReadRequest { statement, text, types: &[], bind: None, described: true, stands: true };
            match self.plan(&request) {
                Plan::Wait(waiting) => {
                    self.wait_for(waiting);
                    return Taken::Waits;
                }
                Plan::Pause => return Taken::Waits,
                Plan::Serve(entry) => {
                    self.serve(&entry, true);
                    return Taken::Served(header.total);
                }
                Plan::Split(split) => {
                    self.replay_split(split, true);
                    return Taken::Served(header.total);
                }
                Plan::Relay(relayed) => fill = relayed,
            }
        }
        if !self.attach() {
            return Taken::Waits;
        }
        self.begin_trace(text);
        self.parse_unsent(statement);
        let asked = self.ask_before_commit(statement);
        let judged = self.judge(statement, &[], None);
        self.wish_for_analyses(statement, text, &[]);
        if self.may_repeat(statement, &[], &judged) {
            self.keep_for_repeat(&input[..header.total]);
        }
        let mut span = self.open.take().unwrap_or_default();
        (span.fill, span.pass, span.witness) = (fill, self.attempt.pass.take(), asked);
        span.page = match statement.is_single_read() {
            true => self.page(statement, text).cloned(),
            false => self.page_of_relayed(statement, text),
        };
        span.trace = self.trace_of_relayed();
        span.sent = self.sent(text, None);
        let told = span.trace.as_ref().filter(|trace| trace.is_told() && !statement.parts.is_empty());
        let told = told.map(|trace| *trace.context());
        let taken = self.relay_query(header, judged, Some(statement), span);
        match told {
            Some(context) if self.tell_trace(text, &context) => Taken::Served(header.total),
            _ => taken,
        }
    }

    /// The statement of an extended batch that is nothing but a COMMIT, in a block that has written what nobody could tell.
    fn commit_alone(&mut self, input: &[u8]) -> Option<Arc<Statement>> {
        if !self.block.is_opaque() || self.open.is_some() {
            return None;
        }
        let mut frames = Frames { input, at: 0, needed: 0, limit: self.max_inspect_bytes };
        let parsed = frames.next(frontend::PARSE).map(|body| self.decode_parse(body));
        let bind = Bind::decode(frames.next(frontend::BIND)?).ok()?;
        let statement = match parsed {
            Some(parsed) => parsed.filter(|parsed| parsed.name == bind.statement)?.statement,
            None => self.prepared.get(bind.statement)?.statement.clone(),
        };
        let _ = frames.next(frontend::DESCRIBE);
        let execute = Execute::decode(frames.next(frontend::EXECUTE)?).ok()?;
        frames.next(frontend::SYNC).filter(|_| execute.portal == bind.portal)?;
        Some(statement)
    }

    fn relay_query(
        &mut self,
        header: Header,
        judged: Judged,
        statement: Option<&Arc<Statement>>,
        mut span: Box<Span>,
    ) -> Taken {
        self.take_note(&mut span, judged, statement);
        // The upstream drops its unnamed statement (exec_simple_query).
        self.prepared.forget(b"");
        if let Some(sharing) = &mut self.sharing {
            sharing.long_unnamed = false;
        }
        self.push_span(span, Request::Query);
        Taken::Relayed(header.total)
    }

    pub(super) fn wait_for(&mut self, wait: Wait) {
        let config = self.shared.config.load();
        let bound = Duration::from_millis(match wait {
            Wait::Flight(_) => config.cache.single_flight_wait_ms,
            Wait::Turn(_) => config.cache.miss_wait_ms,
        });
        let metrics = self.shared.metrics.clone();
        // Whoever is late goes to the upstream all the same.
        self.waiting = Some(match wait {
            Wait::Flight(waiting) => Box::pin(async move {
                let _ = tokio::time::timeout(bound, waiting.landed()).await;
                Turn::Landed
            }),
            Wait::Turn(waiting) => Box::pin(async move {
                let pass = tokio::time::timeout(bound, waiting.turn()).await.ok().flatten();
                metrics.admission_waits(pass.is_some()).increment(1);
                Turn::Given(pass)
            }),
        });
    }

    /// Answers from the cache: the recorded frames and ReadyForQuery.
    pub(super) fn serve(&mut self, entry: &Entry, described: bool) {
        let started = std::time::Instant::now();
        let frames = entry.frames(described);
        let ready = [backend::READY_FOR_QUERY, 0, 0, 0, 5, self.block.status().byte()];
        if frames.len() <= self.buffer_bytes {
            self.client.output.extend_from_slice(frames);
            self.client.output.extend_from_slice(&ready);
        } else {
            let (frames, tail) = (entry.shared_frames(described), Bytes::copy_from_slice(&ready));
            self.replay = Some(Replay::Recorded { frames, tail });
        }
        self.repeated();
        let metrics = &self.shared.metrics;
        self.count_access(Access::Hit);
        if !self.pipeline.owes_client() {
            self.control.activity.rests(self.block.status());
        }
        self.control.activity.hit();
        metrics.queries(QueryClass::Read).increment(1);
        metrics.query_duration(Path::Cache).record(started.elapsed());
    }
}

fn violation(error: FrameError) -> End {
    End::Told(ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string()))
}
