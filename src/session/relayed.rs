//! Messages that are relayed one by one: what is remembered of each before it is passed on.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::Session;
use super::pipeline::{Origin, Request};
use super::prepared::{Portal, Prepared, Standing};
use super::requests::ClientRequest;
use super::span::Span;
use crate::wire::message::{Bind, Execute, Parse, encode};

impl Session {
    pub(super) fn relay_parse(&mut self, body: Option<&[u8]>) {
        self.opened();
        let prepared = if self.tracking { body.and_then(|body| self.decode_parse(body)).map(Arc::new) } else { None };
        match &prepared {
            Some(prepared) => self.prepared.sent(prepared.clone(), self.standing()),
            // Its name may be any: what we knew is not certain any more.
            None => self.prepared.deallocate(|_| true),
        }
        self.push(Request::Parse(prepared));
    }

    pub(super) fn relay_bind(&mut self, body: Option<&[u8]>) {
        self.opened();
        match body.filter(|_| self.tracking).and_then(|body| Some((body, Bind::decode(body).ok()?))) {
            Some((body, bind)) => {
                self.send_if_unsent(bind.statement);
                let context = self.context_of_next().copied();
                let portal = self.prepared.get(bind.statement).map(|prepared| Portal {
                    prepared: prepared.clone(),
                    bind: prepared.statement.is_told_by_parameters().then(|| Bytes::copy_from_slice(body)),
                    context,
                });
                self.prepared.bind(Bytes::copy_from_slice(bind.portal), portal);
            }
            // A portal of unknown name and statement: no portal is certain any more.
            _ => self.prepared.end_portals(),
        }
        self.push(Request::Bind);
    }

    pub(super) fn relay_execute(&mut self, body: Option<&[u8]>) {
        self.opened();
        let execute = body.filter(|_| self.tracking).and_then(|body| Execute::decode(body).ok());
        let portal = execute.and_then(|execute| self.prepared.portal(execute.portal)).cloned();
        let judged = match &portal {
            Some(Portal { prepared, bind, context }) => {
                self.wish_for_analyses(&prepared.statement, &prepared.text, &prepared.types);
                // It could be decoded before.
                let bind = bind.as_deref().and_then(|body| Bind::decode(body).ok());
                self.judge_under(context.as_ref(), &prepared.statement, &prepared.types, bind.as_ref())
            }
            None => self.judge_opaque(),
        };
        let mut span = self.open.take().unwrap_or_default();
        if let Some(Portal { prepared, .. }) = &portal
            && span.page.is_none()
        {
            span.page = self.page_of_relayed(&prepared.statement, &prepared.text);
        }
        self.take_note(&mut span, judged, portal.as_ref().map(|portal| &portal.prepared.statement));
        self.open = Some(span);
        self.push(Request::Execute);
    }

    /// A message of an extended batch is being relayed: the batch is open until its Sync.
    pub(super) fn opened(&mut self) {
        self.open.get_or_insert_default();
    }

    pub(super) fn push(&mut self, request: ClientRequest) {
        self.pipeline.push(Origin::Client, request);
    }

    pub(super) fn push_span(&mut self, span: Box<Span>, request: fn(Box<Span>) -> ClientRequest) {
        self.control.activity.begins();
        // What the upstream is going to skip ends with the batch that is being skipped.
        if let Some(Request::Query(span) | Request::FunctionCall(span)) =
            self.pipeline.push(Origin::Client, request(span))
        {
            self.open = Some(span);
        }
    }

    /// Passes the first `length` bytes on, as far as they are here.
    pub(super) fn forward(&mut self, length: usize) {
        let here = length.min(self.client.input.len());
        if here == self.client.input.len() && self.upstream.output.is_empty() {
            std::mem::swap(&mut self.client.input, &mut self.upstream.output);
        } else {
            self.upstream.output.extend_from_slice(&self.client.input[..here]);
            self.client.input.advance(here);
        }
        self.request_passing = length - here;
    }

    /// Before something refers to `name` upstream: sends its Parse if only the cache has seen it.
    pub(super) fn send_if_unsent(&mut self, name: &[u8]) {
        if let Some(prepared) = self.prepared.take_unsent(name) {
            self.inject(prepared);
        }
    }

    fn inject(&mut self, prepared: Arc<Prepared>) {
        // It was decoded from a message, so it fits into one.
        let _ = encode::parse(&mut self.upstream.output, &prepared.name, &prepared.text, &prepared.types);
        self.pipeline.push(Origin::Injected, Request::Parse(Some(prepared)));
    }

    /// Under which a statement is parsed or executed that is sent now.
    pub(super) fn standing(&self) -> Option<Standing> {
        Some(Standing { epoch: self.visit.database().epoch(), context: *self.context_of_next()? })
    }

    pub(super) fn decode_parse(&self, body: &[u8]) -> Option<Prepared> {
        let parse = Parse::decode(body).ok()?;
        Some(Prepared {
            name: Bytes::copy_from_slice(parse.name),
            text: Bytes::copy_from_slice(parse.text),
            types: parse.types().collect(),
            statement: self.shared.statements.get(parse.text),
        })
    }
}
