//! Messages that are relayed one by one: what is remembered of each before it is passed on.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use super::Session;
use super::pipeline::{Origin, Request};
use super::prepared::{Asked, Portal, Prepared, Standing};
use super::requests::ClientRequest;
use super::span::Span;
use super::traces::Trace;
use crate::upstream::parsed::StatementId;
use crate::wire::message::{Bind, Execute};

impl Session {
    /// `name` is known even of one that is too long. Returns the name that the statement has upstream, if it is another.
    pub(super) fn relay_parse(&mut self, body: Option<&[u8]>, name: Option<&[u8]>) -> Option<StatementId> {
        self.opened();
        let mut renamed = None;
        if let Some(sharing) = self.sharing.as_mut().filter(|_| name == Some(b"")) {
            sharing.long_unnamed = false;
        }
        let follows = self.tracking || self.sharing.is_some();
        let prepared = if follows { body.and_then(|body| self.decode_parse(body)).map(Arc::new) } else { None };
        if let Some(prepared) = &prepared {
            self.parse_unsent_in_batch(&prepared.statement);
            match prepared.id.filter(|_| self.renames()) {
                Some(_) if self.prepared.is_taken(&prepared.name) => self.occupy(&prepared.name),
                Some(id) => {
                    self.prepare_as(id);
                    renamed = Some(id);
                }
                None => {}
            }
            self.prepared.sent(prepared.clone(), self.standing());
        } else {
            self.relay_unknown_parse(name);
        }
        self.push_parse(prepared);
        renamed
    }

    /// A Parse that is too long to be looked into, or that the upstream will refuse.
    fn relay_unknown_parse(&mut self, name: Option<&[u8]>) {
        match name.filter(|_| self.sharing.is_some()) {
            Some(b"") => {
                self.prepared.forget(b"");
                if let Some(sharing) = &mut self.sharing {
                    sharing.long_unnamed = true;
                }
            }
            Some(name) => {
                self.prepared.forget(name);
                self.keep_long_statement();
            }
            // Its name may be any: what we knew is not certain any more.
            None => self.prepared.deallocate(|_| true),
        }
    }

    pub(super) fn push_parse(&mut self, prepared: Option<Arc<Prepared>>) {
        let asked = prepared.map(|prepared| Asked { prepared, again: false });
        if let Some(Request::Parse(Some(asked))) = self.pipeline.push(Origin::Client, Request::Parse(asked)) {
            self.refuse(&asked);
        }
    }

    /// The names of portal and statement are known even of one that is too long.
    pub(super) fn relay_bind(
        &mut self,
        body: Option<&[u8]>,
        portal: Option<&[u8]>,
        name: Option<&[u8]>,
    ) -> Option<StatementId> {
        self.opened();
        let renamed = name.and_then(|name| self.renamed(name));
        if let Some(name) = name.filter(|_| self.sharing.is_some()) {
            self.send_if_unsent(name);
        }
        let follows = self.tracking || self.sharing.is_some();
        match body.filter(|_| follows).and_then(|body| Some((body, Bind::decode(body).ok()?))) {
            Some((body, bind)) => {
                self.send_if_unsent(bind.statement);
                let context = self.context_of_next().copied();
                let logs = self.logs_parameters();
                let portal = self.prepared.get(bind.statement).map(|prepared| {
                    let keeps = logs || prepared.statement.is_told_by_parameters();
                    Portal { prepared: prepared.clone(), bind: keeps.then(|| Bytes::copy_from_slice(body)), context }
                });
                self.prepared.bind(Bytes::copy_from_slice(bind.portal), portal);
            }
            _ => self.relay_unknown_bind(portal, name),
        }
        self.push(Request::Bind);
        renamed
    }

    /// A Bind that is too long to be looked into, or that the upstream will refuse.
    fn relay_unknown_bind(&mut self, portal: Option<&[u8]>, name: Option<&[u8]>) {
        let known = name.and_then(|name| self.prepared.get(name)).cloned();
        match portal.zip(known).filter(|_| self.sharing.is_some()) {
            Some((portal, prepared)) => {
                let context = self.context_of_next().copied();
                let bound = Portal { prepared, bind: None, context };
                self.prepared.bind(Bytes::copy_from_slice(portal), Some(bound));
            }
            // A portal of unknown name and statement: no portal is certain any more.
            None => self.prepared.end_portals(),
        }
    }

    pub(super) fn relay_execute(&mut self, body: Option<&[u8]>) {
        self.opened();
        let follows = self.tracking || self.sharing.is_some();
        let execute = body.filter(|_| follows).and_then(|body| Execute::decode(body).ok());
        let portal = execute.and_then(|execute| self.prepared.portal(execute.portal)).cloned();
        let judged = match &portal {
            Some(Portal { prepared, bind, context }) => {
                self.wish_for_analyses(&prepared.statement, &prepared.text, &prepared.types);
                let bind = bind.as_deref().filter(|_| prepared.statement.is_told_by_parameters());
                // It could be decoded before.
                let bind = bind.and_then(|body| Bind::decode(body).ok());
                self.judge_under(context.as_ref(), &prepared.statement, &prepared.types, bind.as_ref())
            }
            None => {
                let mut judged = self.judge_opaque();
                judged.effects.trace = Trace::of_portal();
                judged
            }
        };
        let mut span = self.open.take().unwrap_or_default();
        if let Some(Portal { prepared, .. }) = &portal
            && span.page.is_none()
        {
            span.page = self.page_of_relayed(&prepared.statement, &prepared.text);
        }
        if let Some(Portal { prepared, .. }) = &portal
            && span.trace.is_none()
        {
            self.begin_trace(&prepared.text);
            span.trace = self.attempt.trace.take();
        }
        if let Some(Portal { prepared, bind, .. }) = &portal
            && span.sent.is_none()
        {
            span.sent = self.sent(&prepared.text, bind.as_deref());
        }
        self.take_note(&mut span, judged, portal.as_ref().map(|portal| &portal.prepared.statement));
        self.open = Some(span);
        self.push(Request::Execute);
    }

    /// A message of an extended batch is being relayed: the batch is open until its Sync.
    pub(super) fn opened(&mut self) -> &mut Span {
        self.open.get_or_insert_default()
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

    /// Under which a statement is parsed or executed that is sent now.
    pub(super) fn standing(&self) -> Option<Standing> {
        Some(Standing { epoch: self.visit.database().epoch(), context: *self.context_of_next()? })
    }
}
