//! Reads by the extended protocol that are all there at once: the cache may answer them as a whole.

use std::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::lookup::{Plan, ReadRequest};
use super::naming::{Named, put_renamed};
use super::pipeline::{Origin, Request};
use super::prepared::{Asked, Portal, Prepared, Standing};
use super::requests::Taken;
use super::span::Span;
use crate::wire::frame::{self, HEADER_BYTES, backend, frontend};
use crate::wire::message::{Bind, Describe, Execute, Target, encode};

/// An extended query that is all there: `[Parse] Bind [Describe portal] Execute Sync` on the unnamed portal.
pub(super) struct Batch<'a> {
    parse: Option<Arc<Prepared>>,
    prepared: Arc<Prepared>,
    bind: (&'a [u8], Bind<'a>),
    described: bool,
    /// Its bytes in the input.
    length: usize,
}

impl Session {
    /// The extended query at the front, if the cache may answer it. Only reads are kept back until their Sync is here.
    pub(super) fn batch<'a>(&mut self, frames: &mut Frames<'a>) -> Option<Batch<'a>> {
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
    pub(super) fn read_batch(&mut self, batch: Batch<'_>, input: &[u8]) -> Option<Taken> {
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
                span.sent = self.sent(text, Some(batch.bind.0));
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
}

/// Goes over whole frames at the front of the input.
pub(super) struct Frames<'a> {
    pub(super) input: &'a [u8],
    pub(super) at: usize,
    /// Bytes that are needed to go on; 0 if it ended for another reason.
    pub(super) needed: usize,
    /// Of all frames together.
    pub(super) limit: usize,
}

impl<'a> Frames<'a> {
    /// The body of the next frame if it is of this type.
    pub(super) fn next(&mut self, tag: u8) -> Option<&'a [u8]> {
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
