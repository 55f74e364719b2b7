//! Which reply belongs to which request: the protocol's bookkeeping, without I/O.
//!
//! **Invariant.** The queue holds, in order, what the upstream has been sent and has not finished answering. Requests that the
//! upstream is going to skip (after an error, up to the next Sync) are not in it. It is empty exactly when the upstream owes
//! nothing, so a connection is idle when the queue is empty and the last ReadyForQuery said idle.
//!
//! The rules are those of `PostgresMain` (src/backend/tcop/postgres.c): an error in an extended message skips everything up
//! to Sync, a simple Query included; a Sync that arrives in COPY-in mode is dropped.

use std::collections::VecDeque;

use crate::wire::frame::backend;

/// Who waits for the replies of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The client: its replies are forwarded.
    Client,
    /// The proxy, on the client's behalf within a client's batch: success is swallowed, an error is the client's.
    Injected,
    /// The proxy, at the end of the client's own transaction: success is collected, an error is the client's.
    Witness,
    /// The proxy for itself: everything is collected.
    Own,
}

/// A request that was sent upstream. `S` is what a ParseComplete confirms, `B` belongs to a span that ends with ReadyForQuery.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<S, B> {
    Parse(S),
    Bind,
    Describe,
    /// The proxy describes a statement, to see what its result looks like.
    Shape(S),
    Execute,
    Close,
    /// CopyDone or CopyFail: answered by nothing, it ends the time in which Sync is dropped.
    CopyEnd,
    Sync(B),
    Query(B),
    FunctionCall(B),
}

#[derive(Debug)]
struct Item<S> {
    /// The payload of a span is in `spans`.
    request: Request<S, ()>,
    origin: Origin,
}

impl<S, B> Request<S, B> {
    fn is_span(&self) -> bool {
        matches!(self, Self::Sync(_) | Self::Query(_) | Self::FunctionCall(_))
    }

    /// Takes the span's payload out.
    fn split(self) -> (Request<S, ()>, Option<B>) {
        match self {
            Self::Parse(statement) => (Request::Parse(statement), None),
            Self::Bind => (Request::Bind, None),
            Self::Describe => (Request::Describe, None),
            Self::Shape(statement) => (Request::Shape(statement), None),
            Self::Execute => (Request::Execute, None),
            Self::Close => (Request::Close, None),
            Self::CopyEnd => (Request::CopyEnd, None),
            Self::Sync(span) => (Request::Sync(()), Some(span)),
            Self::Query(span) => (Request::Query(()), Some(span)),
            Self::FunctionCall(span) => (Request::FunctionCall(()), Some(span)),
        }
    }
}

/// What to do with a frame from the upstream.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply<S, B> {
    pub route: Route,
    pub event: Option<Event<S, B>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Forward,
    Swallow,
    Collect,
}

/// What a frame has completed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<S, B> {
    /// The statement exists upstream now.
    Parsed(S),
    /// The statement is described by this frame.
    Described(S),
    /// An error; the rest of its span is skipped. The statements are those whose Parse was skipped.
    Failed(Vec<S>),
    /// ReadyForQuery: the span is over, and so are those before it whose own end was skipped or dropped.
    Ready { skipped: Vec<B>, span: B },
}

#[derive(Debug)]
pub struct Pipeline<S, B> {
    queue: VecDeque<Item<S>>,
    /// The payloads of the spans that end in `queue`, in the same order.
    spans: VecDeque<B>,
    /// How many requests in `queue` are the proxy's own.
    own: usize,
    /// The upstream skips messages until a Sync that has not been sent yet.
    skipping: bool,
    /// The upstream reads COPY data for an extended query.
    copying_in: bool,
    /// Spans whose Sync was dropped; they end with the next one.
    orphans: Vec<B>,
    /// A frame came that no request explains. Nothing is certain from then on.
    confused: bool,
}

impl<S, B> Default for Pipeline<S, B> {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            spans: VecDeque::new(),
            own: 0,
            skipping: false,
            copying_in: false,
            orphans: Vec::new(),
            confused: false,
        }
    }
}

impl<S, B> Pipeline<S, B> {
    /// Takes note of a request that is being sent. Returns its payload if the upstream is going to skip it.
    pub fn push(&mut self, origin: Origin, request: Request<S, B>) -> Option<Request<S, B>> {
        match request {
            Request::Sync(span) if self.copying_in => {
                self.orphans.push(span);
                return None;
            }
            Request::Sync(_) => self.skipping = false,
            Request::CopyEnd if self.queue.is_empty() => return None,
            Request::CopyEnd => self.copying_in = false,
            _ if self.skipping => return Some(request),
            _ => {}
        }
        let (request, span) = request.split();
        if let Some(span) = span {
            self.spans.push_back(span);
        }
        self.own += usize::from(origin == Origin::Own);
        self.queue.push_back(Item { request, origin });
        None
    }

    /// Nothing is owed by the upstream.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && !self.skipping
    }

    /// Whether the upstream is working for the proxy itself at the moment.
    pub fn at_own(&self) -> bool {
        self.queue.front().is_some_and(|item| item.origin == Origin::Own)
    }

    /// Whether the upstream is describing a statement for the proxy.
    pub fn at_shape(&self) -> bool {
        self.queue.front().is_some_and(|item| matches!(item.request, Request::Shape(_)))
    }

    /// Whether a request of the client is unanswered.
    pub fn owes_client(&self) -> bool {
        self.queue.len() > self.own
    }

    /// Whether requests are outstanding beyond the batch that is being sent.
    pub fn has_spans(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Whether requests of the client's are outstanding beyond the batch that is being sent.
    pub fn has_client_spans(&self) -> bool {
        self.spans.len() > self.own
    }

    /// Whether one request of the client's is unanswered, or one batch up to its Sync, and no more.
    pub fn owes_client_one(&self) -> bool {
        let certain = self.orphans.is_empty() && !self.skipping && !self.confused;
        certain && self.owes_client() && self.spans.len() == self.own + 1
    }

    /// The upstream skips what it is sent, up to a Sync that is still to come.
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    pub fn is_confused(&self) -> bool {
        self.confused
    }

    /// The span that the reply at hand belongs to, for notes along the way.
    pub fn current_span(&mut self) -> Option<&mut B> {
        self.spans.front_mut()
    }

    /// All spans that have not ended, and what their connection's loss leaves open.
    pub fn into_spans(self) -> impl Iterator<Item = B> {
        self.orphans.into_iter().chain(self.spans)
    }

    /// Takes note of a frame from the upstream.
    pub fn reply(&mut self, tag: u8) -> Reply<S, B> {
        let origin = self.queue.front().map_or(Origin::Client, |item| item.origin);
        let plain = Reply { route: route(origin, tag), event: None };
        match tag {
            backend::NOTICE_RESPONSE => plain,
            backend::NOTIFICATION_RESPONSE => Reply { route: Route::Forward, event: None },
            // What the proxy does to a setting concerns nobody.
            backend::PARAMETER_STATUS if self.at_own() => Reply { route: Route::Swallow, event: None },
            backend::PARAMETER_STATUS => Reply { route: Route::Forward, event: None },
            backend::ERROR_RESPONSE => Reply { event: self.failed(), ..plain },
            backend::READY_FOR_QUERY => Reply { event: self.ready(), ..plain },
            _ => Reply { event: self.progress(tag), ..plain },
        }
    }

    fn progress(&mut self, tag: u8) -> Option<Event<S, B>> {
        let Some(item) = self.queue.front() else {
            self.confused = true;
            return None;
        };
        let ends = match (&item.request, tag) {
            (Request::Query(_) | Request::FunctionCall(_), _) => false,
            // What the proxy asks for itself is only told apart by its Syncs.
            (Request::Sync(_), _) if item.origin == Origin::Own => false,
            (Request::Parse(_), backend::PARSE_COMPLETE)
            | (Request::Bind, backend::BIND_COMPLETE)
            | (Request::Close, backend::CLOSE_COMPLETE)
            | (Request::Describe | Request::Shape(_), backend::ROW_DESCRIPTION | backend::NO_DATA)
            | (
                Request::Execute,
                backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE | backend::PORTAL_SUSPENDED,
            ) => true,
            (Request::Describe | Request::Shape(_), backend::PARAMETER_DESCRIPTION)
            | (
                Request::Execute,
                backend::DATA_ROW | backend::COPY_DATA | backend::COPY_DONE | backend::COPY_OUT_RESPONSE,
            ) => false,
            (Request::Execute, backend::COPY_IN_RESPONSE | backend::COPY_BOTH_RESPONSE) => {
                self.drop_syncs_before_copy_end();
                false
            }
            _ => {
                self.confused = true;
                false
            }
        };
        if !ends {
            return None;
        }
        let item = self.queue.pop_front()?;
        if matches!(item.request, Request::Execute) {
            self.copying_in = false;
        }
        self.pop_copy_ends();
        match item.request {
            Request::Parse(statement) => Some(Event::Parsed(statement)),
            Request::Shape(statement) => Some(Event::Described(statement)),
            _ => None,
        }
    }

    fn failed(&mut self) -> Option<Event<S, B>> {
        match self.queue.front().map(|item| &item.request) {
            // Not in answer to anything: the connection is about to end.
            None => return None,
            Some(Request::Query(_) | Request::FunctionCall(_) | Request::Sync(_)) => {
                return Some(Event::Failed(Vec::new()));
            }
            Some(_) => {}
        }
        self.copying_in = false;
        let mut skipped = Vec::new();
        loop {
            match self.queue.pop_front() {
                None => {
                    self.skipping = true;
                    break;
                }
                Some(item) if matches!(item.request, Request::Sync(_)) => {
                    self.queue.push_front(item);
                    break;
                }
                Some(Item { request: Request::Parse(statement), .. }) => skipped.push(statement),
                Some(item) if item.request.is_span() => self.orphans.extend(self.spans.pop_front()),
                Some(_) => {}
            }
        }
        Some(Event::Failed(skipped))
    }

    fn ready(&mut self) -> Option<Event<S, B>> {
        if !self.queue.front().is_some_and(|item| item.request.is_span()) {
            // With nothing outstanding it is the second answer to a Sync that COPY dropped after all.
            self.confused |= !self.queue.is_empty();
            return None;
        }
        let item = self.queue.pop_front()?;
        self.own -= usize::from(item.origin == Origin::Own);
        let span = self.spans.pop_front()?;
        self.copying_in = false;
        self.pop_copy_ends();
        Some(Event::Ready { skipped: std::mem::take(&mut self.orphans), span })
    }

    /// The upstream has entered COPY-in mode: it drops every Sync up to the end of the data.
    fn drop_syncs_before_copy_end(&mut self) {
        let end = self.queue.iter().position(|item| matches!(item.request, Request::CopyEnd));
        self.copying_in = end.is_none();
        let kept = self.queue.split_off(end.unwrap_or(self.queue.len()));
        // Between an Execute and the end of its data there is nothing with a span but Syncs.
        for item in std::mem::take(&mut self.queue) {
            match item.request {
                Request::Sync(()) => self.orphans.extend(self.spans.pop_front()),
                _ => self.queue.push_back(item),
            }
        }
        self.queue.extend(kept);
    }

    fn pop_copy_ends(&mut self) {
        while matches!(self.queue.front(), Some(Item { request: Request::CopyEnd, .. })) {
            self.queue.pop_front();
        }
    }
}

fn route(origin: Origin, tag: u8) -> Route {
    match origin {
        Origin::Client => Route::Forward,
        Origin::Injected | Origin::Witness if matches!(tag, backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE) => {
            Route::Forward
        }
        Origin::Injected => Route::Swallow,
        Origin::Witness | Origin::Own => Route::Collect,
    }
}

#[cfg(test)]
mod tests;
