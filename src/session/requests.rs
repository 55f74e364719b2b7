//! What the client sends: reads are looked up, everything else is relayed, and its effects are taken note of first.
//!
//! A message longer than `server.max_inspect_bytes` is passed on in pieces and taken to write anything.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;

use super::Session;
use super::cycle::{End, Replay};
use super::lookup::{Attempt, Plan, ReadRequest, Wait};
use super::naming::{NO_STATEMENT, Named, put_renamed};
use super::notes::Judged;
use super::pipeline::{Origin, Request};
use super::prepared::{Asked, Portal, Prepared, Standing};
use super::span::Span;
use crate::cache::admission::Pass;
use crate::cache::entry::Entry;
use crate::statement::Statement;
use crate::telemetry::metrics::{Access, Class as QueryClass, Path};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{self, FrameError, HEADER_BYTES, Header, backend, frontend};
use crate::wire::message::{Bind, Close, Describe, Execute, Query, Target, encode};

/// A portal's and a statement's name fit into so many bytes, with what stands before them.
const NAMES_BYTES: usize = 1024;

/// What the pipeline is told of a client's message.
pub(super) type ClientRequest = Request<Option<Asked>, Box<Span>>;

/// What becomes of the front of the input.
enum Taken {
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

/// An extended query that is all there: `[Parse] Bind [Describe portal] Execute Sync` on the unnamed portal.
struct Batch<'a> {
    parse: Option<Arc<Prepared>>,
    prepared: Arc<Prepared>,
    bind: (&'a [u8], Bind<'a>),
    described: bool,
    /// Its bytes in the input.
    length: usize,
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

    /// The extended query at the front, if the cache may answer it. Only reads are kept back until their Sync is here.
    fn batch<'a>(&mut self, frames: &mut Frames<'a>) -> Option<Batch<'a>> {
        let parse = match frames.next(frontend::PARSE) {
            Some(body) => Some(Arc::new(self.decode_parse(body)?)),
            None => None,
        };
        if parse.as_ref().is_some_and(|parse| !parse.statement.is_single_read() || self.prepared.is_taken(&parse.name))
        {
            return None;
        }
        let body = frames.next(frontend::BIND)?;
        let bind = Bind::decode(body).ok()?;
        let prepared = match &parse {
            Some(parse) => Some(parse).filter(|parse| parse.name == bind.statement)?.clone(),
            None => self.prepared.get(bind.statement).filter(|prepared| prepared.statement.is_single_read())?.clone(),
        };
        if !bind.portal.is_empty() {
            return None;
        }
        let described = match frames.next(frontend::DESCRIBE).map(Describe::decode) {
            Some(Ok(Describe { kind: Target::Portal, name: b"" })) => true,
            Some(_) => return None,
            None => false,
        };
        if !matches!(Execute::decode(frames.next(frontend::EXECUTE)?), Ok(Execute { portal: b"", max_rows: None })) {
            return None;
        }
        frames.next(frontend::SYNC)?;
        Some(Batch { parse, prepared, bind: (body, bind), described, length: frames.at })
    }

    /// A read by the extended protocol. `None` if it may write after all, and is relayed message by message.
    fn read_batch(&mut self, batch: Batch<'_>, input: &[u8]) -> Option<Taken> {
        let Prepared { text, types, statement, .. } = &*batch.prepared;
        let standing = self.standing();
        // A named statement is the upstream's to make: it may be refused, and it is used again.
        let stands = match &batch.parse {
            Some(parse) => parse.name.is_empty(),
            None => standing.is_some() && self.prepared.standing(&batch.prepared.name) == standing,
        };
        let request =
            ReadRequest { statement, text, types, bind: Some(batch.bind), described: batch.described, stands };
        let taken = match self.plan(&request) {
            Plan::Wait(waiting) => {
                self.wait_for(waiting);
                Taken::Waits
            }
            Plan::Pause => Taken::Waits,
            Plan::Serve(entry) => {
                self.answer_bind(batch.parse, standing);
                self.serve(&entry, batch.described);
                Taken::Served(batch.length)
            }
            Plan::Split(split) => {
                self.answer_bind(batch.parse, standing);
                self.replay_split(split, batch.described);
                Taken::Served(batch.length)
            }
            Plan::Relay(_) if !self.attach() => Taken::Waits,
            // Message by message: what the connection lacks is asked for first.
            Plan::Relay(_) if batch.parse.is_none() && !self.stands_as_prepared(&batch.prepared.name) => return None,
            Plan::Relay(fill) => {
                let judged = self.judge(statement, types, None);
                if fill.is_none() && judged.is_opaque() {
                    // Message by message, but the cache has been asked.
                    let (page, trace) = (self.page(statement, text).cloned(), self.trace_of_relayed());
                    let span = self.opened();
                    (span.page, span.trace) = (page, trace);
                    return None;
                }
                // A name is taken once it was sent.
                let names = batch.parse.as_ref().is_some_and(|parse| !parse.name.is_empty());
                let repeats = !names && self.may_repeat(statement, types, &judged);
                let renamed = batch.prepared.id.filter(|_| self.renames());
                match batch.parse {
                    Some(parse) => {
                        if let Some(id) = renamed {
                            self.prepare_as(id);
                        }
                        self.prepared.sent(parse.clone(), standing);
                        self.push_parse(Some(parse.clone()));
                        if renamed.is_some() {
                            let asked = Asked { prepared: parse, again: false };
                            self.pipeline.push(Origin::Injected, Request::Shape(Some(asked)));
                        }
                    }
                    None => self.send_if_unsent(&batch.prepared.name),
                }
                self.prepared
                    .bind(Bytes::new(), Some(Portal { prepared: batch.prepared.clone(), bind: None, context: None }));
                self.push(Request::Bind);
                if batch.described {
                    self.push(Request::Describe);
                }
                let mut span = Box::<Span>::default();
                (span.fill, span.pass) = (fill, self.attempt.pass.take());
                (span.page, span.trace) = (self.page(statement, text).cloned(), self.trace_of_relayed());
                span.executes = standing.map(|standing| (batch.prepared.clone(), standing));
                self.take_note(&mut span, judged, Some(statement));
                self.push(Request::Execute);
                self.push_span(span, Request::Sync);
                if repeats {
                    self.keep_for_repeat(&input[..batch.length]);
                }
                match renamed {
                    Some(id) => {
                        self.put_all_renamed(&input[..batch.length], &id.name());
                        Taken::Served(batch.length)
                    }
                    None => Taken::Relayed(batch.length),
                }
            }
        };
        Some(taken)
    }

    /// Answers Bind, and Parse if it was sent along, in the upstream's place.
    fn answer_bind(&mut self, parse: Option<Arc<Prepared>>, standing: Option<Standing>) {
        if let Some(parse) = parse {
            self.client.output.extend_from_slice(&[backend::PARSE_COMPLETE, 0, 0, 0, 4]);
            self.prepared.answered(parse, standing);
        }
        self.client.output.extend_from_slice(&[backend::BIND_COMPLETE, 0, 0, 0, 4]);
    }

    /// Passes whole messages on, with this name in place of the statement's.
    fn put_all_renamed(&mut self, mut messages: &[u8], name: &[u8]) {
        let out = &mut self.upstream.output;
        while let Ok(Some(header)) = frame::peek(messages) {
            let (message, rest) = messages.split_at(header.total);
            match Named::find(header.tag, &message[HEADER_BYTES..]) {
                Some(named) => {
                    put_renamed(out, header, message, named, name);
                    if header.tag == frontend::PARSE {
                        let _ = encode::describe(out, Target::Statement, name);
                    }
                }
                None => out.extend_from_slice(message),
            }
            messages = rest;
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
        let statement = self.shared.statements.get(text);
        let mut fill = None;
        if statement.is_single_read() {
            let request =
                ReadRequest { statement: &statement, text, types: &[], bind: None, described: true, stands: true };
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
        self.parse_unsent(&statement);
        let asked = self.ask_before_commit(&statement);
        let judged = self.judge(&statement, &[], None);
        self.wish_for_analyses(&statement, text, &[]);
        if self.may_repeat(&statement, &[], &judged) {
            self.keep_for_repeat(&input[..header.total]);
        }
        let mut span = self.open.take().unwrap_or_default();
        (span.fill, span.pass, span.witness) = (fill, self.attempt.pass.take(), asked);
        span.page = match statement.is_single_read() {
            true => self.page(&statement, text).cloned(),
            false => self.page_of_relayed(&statement, text),
        };
        span.trace = self.trace_of_relayed();
        let told = span.trace.as_ref().filter(|trace| trace.is_told() && !statement.parts.is_empty());
        let told = told.map(|trace| *trace.context());
        let taken = self.relay_query(header, judged, Some(&statement), span);
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

    fn wait_for(&mut self, wait: Wait) {
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
    fn serve(&mut self, entry: &Entry, described: bool) {
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

/// Goes over whole frames at the front of the input.
struct Frames<'a> {
    input: &'a [u8],
    at: usize,
    /// Bytes that are needed to go on; 0 if it ended for another reason.
    needed: usize,
    /// Of all frames together.
    limit: usize,
}

impl<'a> Frames<'a> {
    /// The body of the next frame if it is of this type.
    fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.needed > 0 {
            return None;
        }
        let rest = self.input.get(self.at..)?;
        let needed = match frame::peek(rest) {
            Ok(Some(header)) if header.tag != tag => return None,
            Ok(Some(header)) if header.total <= rest.len() => {
                self.at += header.total;
                return rest.get(HEADER_BYTES..header.total);
            }
            Ok(Some(header)) => header.total,
            // Not even a header: if its type is there already it may say that this is another message.
            Ok(None) if rest.first().is_some_and(|first| *first != tag) => return None,
            Ok(None) => HEADER_BYTES,
            Err(_) => return None,
        };
        if self.at + needed <= self.limit {
            self.needed = self.at + needed;
        }
        None
    }
}

fn violation(error: FrameError) -> End {
    End::Told(ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string()))
}
