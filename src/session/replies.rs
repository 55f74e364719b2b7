//! What the upstream sends: frames are forwarded as they are, by their headers alone, and recorded where a read is.

use bytes::Buf;

use super::Session;
use super::block::{Status, Writes};
use super::cycle::End;
use super::effects::{Settings, SettingsAction, Transaction};
use super::jobs::Job;
use super::limits::query_timeout;
use super::lookup::Basis;
use super::naming;
use super::pipeline::{Event, Route};
use super::repeat::is_opening;
use super::span::Span;
use super::witness::Trust;
use crate::telemetry::metrics::Path;
use crate::upstream::lookout::{is_fatal, last_words};
use crate::wire::error::{ErrorResponse, field, sqlstate};
use crate::wire::frame::{self, HEADER_BYTES, Header, backend};
use crate::wire::message::backend::ParameterStatus;

/// Longest ParameterStatus, NotificationResponse or ReadyForQuery that is believed.
const CONTROL_BYTES: usize = 64 * 1024;
/// Replies to the proxy's own requests that are kept.
const OWN_BYTES: usize = 4 * 1024 * 1024;

impl Session {
    /// Deals with what the upstream has sent.
    pub(super) fn replies(&mut self) -> Result<(), End> {
        if self.upstream.input.is_empty() || self.client.output.len() >= self.buffer_bytes || self.replay.is_some() {
            return Ok(());
        }
        let mut input = std::mem::take(&mut self.upstream.input);
        let result = self.take_replies(&mut input);
        self.upstream.input = input;
        result
    }

    fn take_replies(&mut self, input: &mut bytes::BytesMut) -> Result<(), End> {
        // Frames from the front up to `run` are forwarded, in one piece.
        let mut run = 0;
        // What the client is told in place of the frame at hand.
        let mut reworded = None;
        self.reply_needed = 0;
        loop {
            let rest = &input[run..];
            if rest.is_empty() {
                break;
            }
            let (length, route) = if self.reply_passing.0 > 0 {
                let length = self.reply_passing.0.min(rest.len());
                self.reply_passing.0 -= length;
                if let Some(recording) = self.recording() {
                    recording.extend(&rest[..length]);
                }
                (length, self.reply_passing.1)
            } else {
                let Some(header) = frame::peek(rest).map_err(broken)? else {
                    self.reply_needed = HEADER_BYTES;
                    break;
                };
                let error = header.tag == backend::ERROR_RESPONSE && header.total <= CONTROL_BYTES;
                let shape = header.tag == backend::ROW_DESCRIPTION && self.pipeline.at_shape();
                if is_control(header.tag) || error || shape {
                    if header.total > if shape { OWN_BYTES } else { CONTROL_BYTES } {
                        return Err(broken("a control message of the server is too long"));
                    }
                    if rest.len() < header.total {
                        self.reply_needed = header.total;
                        break;
                    }
                }
                if header.tag == backend::NOTIFICATION_RESPONSE {
                    self.translate_notification(&mut input[run..]);
                }
                let rest = &input[run..];
                let length = header.total.min(rest.len());
                let mut route = self.reply(header, &rest[..length])?;
                if error {
                    reworded = self.reworded(&rest[HEADER_BYTES..length]);
                    if reworded.is_some() {
                        route = Route::Swallow;
                    }
                }
                if self.repeat.is_some() {
                    let whole = length == header.total;
                    let says_more = route == Route::Forward && !(whole && is_opening(&rest[..length]));
                    if says_more || reworded.is_some() {
                        self.answer_begins();
                    }
                }
                self.reply_passing = (header.total - length, route);
                (length, route)
            };
            match route {
                Route::Forward => run += length,
                Route::Swallow | Route::Collect => {
                    self.tell(&input[..run]);
                    if route == Route::Collect {
                        self.collect(&input[run..run + length])?;
                    }
                    if let Some(error) = reworded.take() {
                        error.encode(&mut self.client.output);
                    }
                    input.advance(run + length);
                    run = 0;
                }
            }
        }
        if run == input.len() && self.client.output.is_empty() && self.repeat.is_none() {
            std::mem::swap(input, &mut self.client.output);
        } else {
            self.tell(&input[..run]);
            input.advance(run);
        }
        self.after_replies();
        Ok(())
    }

    /// Takes note of one frame, of which at least the beginning is here.
    fn reply(&mut self, header: Header, bytes: &[u8]) -> Result<Route, End> {
        let body = &bytes[HEADER_BYTES.min(bytes.len())..];
        let reply = self.pipeline.reply(header.tag);
        if reply.route == Route::Forward
            && let Some(recording) = self.recording()
        {
            match header.tag {
                backend::PARSE_COMPLETE | backend::BIND_COMPLETE | backend::READY_FOR_QUERY => {}
                backend::NOTIFICATION_RESPONSE => {}
                tag => {
                    recording.frame(tag, header.total);
                    recording.extend(bytes);
                }
            }
        }
        let mut route = reply.route;
        if header.tag == backend::PARAMETER_STATUS {
            if self.sharing.is_none() {
                // The proxy's own work changes nothing for good here: what is told in the middle of it comes from elsewhere.
                route = Route::Forward;
            }
            if let Ok(status) = ParameterStatus::decode(body) {
                self.reported(&status, route);
            }
        }
        if matches!(header.tag, backend::ERROR_RESPONSE | backend::NOTICE_RESPONSE)
            && let Some(code) = last_words(body)
        {
            self.last_words = Some(code.into());
            // They are the client's to hear, also in the middle of the proxy's own work.
            route = Route::Forward;
            // The client knows that it is over: nothing is asked or answered any more, however long the connection takes to end.
            self.upstream.closed |= is_fatal(body);
        }
        match reply.event {
            None => {}
            Some(Event::Parsed(_) | Event::Described(None)) => {}
            Some(Event::Described(Some(asked))) => self.described(&asked, header.tag, body),
            Some(Event::Failed(statements)) => {
                self.learning_shape = false;
                for asked in statements.into_iter().flatten() {
                    self.refuse(&asked);
                }
                match self.pipeline.current_span() {
                    Some(span) => span.failed = true,
                    None => {
                        if let Some(open) = &mut self.open {
                            open.failed = true;
                        }
                    }
                }
            }
            Some(Event::Ready { skipped, span }) => {
                let status = body.first().and_then(|byte| Status::from_byte(*byte));
                let status = status.ok_or_else(|| broken("the server reported an unknown transaction status"))?;
                let own = span.own;
                self.last_words = None;
                self.ready(status, own, skipped.into_iter().chain([span]));
            }
        }
        if self.pipeline.is_confused() {
            self.tracking_lost();
        }
        Ok(route)
    }

    /// What the client is told in place of an error that the proxy has brought about.
    fn reworded(&self, body: &[u8]) -> Option<ErrorResponse> {
        let code = field(body, b'C')?;
        if self.overdue && code == sqlstate::QUERY_CANCELED.as_bytes() {
            return Some(query_timeout());
        }
        (self.sharing.is_some() && naming::refuses_changed(body)).then(naming::changed)
    }

    /// On a shared connection the client is told what concerns it, and only that.
    fn reported(&mut self, status: &ParameterStatus<'_>, route: Route) {
        if let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) {
            backend.reported.report(status.name, status.value);
            if route != Route::Forward {
                return;
            }
            sharing.told.report(status.name, status.value);
        }
        self.context.report(status.name, status.value);
    }

    /// Clients know each other by the pids that they were told.
    fn translate_notification(&self, message: &mut [u8]) {
        let field = message.get_mut(HEADER_BYTES..).and_then(|body| body.first_chunk_mut::<4>());
        if let Some(field) = field {
            *field = self.shared.aliases.told(i32::from_be_bytes(*field)).to_be_bytes();
        }
    }

    /// The recording of the read whose result is being sent.
    fn recording(&mut self) -> Option<&mut crate::cache::entry::Recording> {
        if !self.tracking {
            return None;
        }
        self.pipeline.current_span().and_then(|span| span.fill.as_mut()).map(|fill| &mut fill.recording)
    }

    fn collect(&mut self, bytes: &[u8]) -> Result<(), End> {
        if self.own_replies.len() + bytes.len() > OWN_BYTES {
            return Err(broken("a catalogue answer of the server is too long"));
        }
        self.own_replies.extend_from_slice(bytes);
        Ok(())
    }

    /// ReadyForQuery: what its requests did is decided.
    fn ready(&mut self, status: Status, own: bool, spans: impl Iterator<Item = Box<Span>>) {
        let before = self.block.status();
        let mut writes = Writes::default();
        let mut begun = None;
        let mut follow = None;
        let mut witness = None;
        for mut span in spans.map(|span| *span) {
            if !span.own {
                self.settle_settings(&span, before, status);
            }
            witness = span.witness.and_then(|asked| self.witness(asked, span.failed));
            writes.merge(span.writes);
            match span.transaction {
                Transaction::Begins { plain } => begun = Some(plain),
                Transaction::Changed => self.block.distrust(),
                Transaction::Kept | Transaction::Commits | Transaction::RollsBack | Transaction::Ends => {}
            }
            if span.concerns_databases {
                self.shared.databases.may_have_changed();
            }
            if span.concerns_defaults {
                self.shared.pool.begin_generation();
            }
            if !span.failed
                && let Some((prepared, standing)) = &span.executes
            {
                self.prepared.executed(prepared, *standing);
            }
            if !span.failed && !span.deallocates.is_empty() {
                for statement in span.deallocates {
                    let mentions = |name: &[u8]| {
                        std::str::from_utf8(name).is_ok_and(|name| statement.parts.iter().any(|part| part.names(name)))
                    };
                    let discards = statement.parts.iter().any(|part| part.names("discard"));
                    self.prepared.deallocate(|name| discards || mentions(name));
                }
                let named = self.prepared.has_named();
                if let Some(sharing) = &mut self.sharing {
                    sharing.own_names &= named;
                }
            }
            if let Some(job) = span.job {
                let duration = self.shared.metrics.operation_duration(job.operation());
                let took = span.started.elapsed();
                duration.record(took);
                self.trace_job(&job, took);
                match job {
                    // What was sent along with it may be answered in the same breath.
                    Job::Witness | Job::ForgetSequences => self.finish_job(job),
                    job => self.finished = Some(job),
                }
            }
            if !span.own {
                self.control.activity.answered();
                self.repeated();
                self.shared.metrics.queries(span.class).increment(1);
                let took = span.started.elapsed();
                self.shared.metrics.query_duration(Path::Upstream).record(took);
                if let Some(page) = &span.page {
                    page.ran(took);
                }
                self.log_if_slow(
                    span.page.as_deref(),
                    span.sent.as_deref(),
                    span.class,
                    Path::Upstream,
                    span.failed,
                    took,
                );
                if let Some(trace) = span.trace {
                    self.trace_answered(*trace, span.page.as_ref(), span.failed, &mut span.fill);
                }
                follow = span.fill.filter(|_| !span.failed);
            }
        }
        if own {
            return;
        }
        self.overdue = false;
        if !self.pipeline.owes_client() {
            self.control.activity.rests(status);
        }
        let over = self.block.ready(status, begun, writes);
        match witness {
            // The transaction that was asked about is over.
            Some(witness) if status == Status::Idle => self.settle_witnessed(over, &witness),
            _ => self.settle(over),
        }
        if status == Status::Idle {
            self.prepared.end_portals();
            self.transaction_ended();
        }
        self.follow = follow;
    }

    /// Raises the doubts, then settles the marks: nothing that rests on the old catalogue is believed in between.
    fn settle(&self, writes: Writes) {
        if writes.doubts_catalog {
            self.visit.database().doubt();
        }
        for marks in writes.marks {
            marks.settle();
        }
    }

    /// What has become of the settings in a span that found the block in one status and left it in another.
    fn settle_settings(&mut self, span: &Span, before: Status, after: Status) {
        if span.settings != Settings::Kept {
            self.splitting.settings = None;
        }
        match &span.settings {
            Settings::Kept => {}
            Settings::Unknown => self.context.forget(),
            Settings::Applied(action) => {
                if matches!(action, SettingsAction::Set(_) | SettingsAction::DiscardAll) {
                    // The role may be another one.
                    self.witness_trust = Trust::Untried;
                }
                let alone = before == Status::Idle && after == Status::Idle && span.transaction == Transaction::Kept;
                let inside = after != Status::Idle
                    && match span.transaction {
                        Transaction::Begins { .. } => before == Status::Idle,
                        Transaction::Kept | Transaction::Changed => before != Status::Idle,
                        Transaction::Commits | Transaction::RollsBack | Transaction::Ends => false,
                    };
                match action {
                    // One that was refused, or undone along with what failed after it.
                    _ if span.failed && (alone || inside) => {}
                    SettingsAction::Set(action) if alone => self.context.apply(action),
                    SettingsAction::Set(action) if inside => self.context.apply_in_block(action),
                    SettingsAction::DiscardAll if alone => {
                        self.context.discard_all();
                        if let Some(sharing) = &mut self.sharing {
                            sharing.traces.discard();
                        }
                    }
                    SettingsAction::DiscardTemporary if alone => self.context.discard_temporary(),
                    SettingsAction::Savepoint if inside => self.context.savepoint(),
                    SettingsAction::RollbackToSavepoint if inside => self.context.rolled_back_to_savepoint(),
                    _ => self.context.forget(),
                }
            }
        }
        if before != Status::Idle && after == Status::Idle {
            let committed = match span.transaction {
                Transaction::RollsBack if !span.failed => Some(false),
                Transaction::Commits if !span.failed => Some(before == Status::InBlock),
                _ => None,
            };
            self.context.end_block(committed);
        }
    }

    /// Between the client's requests: what a reply has made possible.
    fn after_replies(&mut self) {
        if self.reply_passing.0 == 0 {
            self.tell_news();
        }
        if let Some(job) = self.finished.take() {
            self.finish_job(job);
        }
        let fill = self.follow.take();
        if !self.pipeline.is_empty() || self.open.is_some() {
            return;
        }
        self.settings_move = false;
        if let Some(fill) = fill {
            match fill.basis {
                Basis::Known { .. } => self.store_known(*fill),
                Basis::Tentative(_) if self.block.status() == Status::Idle => self.follow_up(fill),
                Basis::Tentative(_) => {}
            }
        }
        if self.pipeline.is_empty() && self.block.status() == Status::Idle && !self.is_ending() {
            self.start_next_job();
        }
    }

    /// The replies do not fit the requests: from here on nothing is known of this session, and what it may have written
    /// stays marked until its backend is gone.
    fn tracking_lost(&mut self) {
        if !self.tracking {
            return;
        }
        self.tracking = false;
        tracing::warn!(pid = self.pid(), "unexpected reply of the server: this session bypasses the cache");
        let marks = self.visit.database().versions.mark(&crate::cache::versions::WriteSet::Everything);
        let lost = Writes { marks: vec![marks], doubts_catalog: true };
        self.lost.merge(lost);
    }
}

fn is_control(tag: u8) -> bool {
    matches!(tag, backend::READY_FOR_QUERY | backend::PARAMETER_STATUS | backend::NOTIFICATION_RESPONSE)
}

fn broken(error: impl std::fmt::Display) -> End {
    let message = format!("protocol violation by the upstream server: {error}");
    End::Told(ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, message))
}
