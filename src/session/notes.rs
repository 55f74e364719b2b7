//! What a request may do, taken note of before it is sent.
//!
//! **Invariant.** No byte that may write is put into the upstream's buffer before what it may write is marked or collected. What
//! that is, is told by the settings under which it runs: while anything that may change them is sent and not answered, or stands
//! before it in its own text, they are not known.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::Session;
use super::block::{Status, Timing};
use super::effects::{Effects, Transaction};
use super::jobs::Analyse;
use super::span::Span;
use super::traces::{Pin, Trace};
use crate::cache::versions::WriteSet;
use crate::catalog::Classified;
use crate::catalog::analysis::AnalysisKey;
use crate::statement::{Class, DiscardTarget, SessionCommand, Statement};
use crate::telemetry::metrics::{Class as QueryClass, Scope};
use crate::wire::message::Bind;

/// Statements that wait for their analysis, per session.
const WAITING_ANALYSES: usize = 8;

/// The effects of a request, and the promise that they are judged by the model in use.
pub struct Judged {
    pub effects: Effects,
    classified: Option<Classified>,
}

impl Judged {
    pub fn is_opaque(&self) -> bool {
        matches!(self.effects.writes, WriteSet::Everything)
    }
}

impl Session {
    /// What a text may do that is sent now, with what is known of it.
    pub(super) fn judge(&mut self, statement: &Arc<Statement>, types: &[u32], bind: Option<&Bind<'_>>) -> Judged {
        let context = self.context_of_next().copied();
        self.judge_under(context.as_ref(), statement, types, bind)
    }

    /// Digest of the settings under which what is sent next will be analysed, if they are known.
    pub(super) fn context_of_next(&self) -> Option<&[u8; 32]> {
        self.context.digest().filter(|_| !self.settings_move)
    }

    /// What a text may do whose names were, or are, resolved under the settings of this digest.
    pub(super) fn judge_under(
        &mut self,
        context: Option<&[u8; 32]>,
        statement: &Arc<Statement>,
        types: &[u32],
        bind: Option<&Bind<'_>>,
    ) -> Judged {
        if !self.tracking {
            return self.judge_untracked(statement);
        }
        if statement.parts.iter().all(|part| part.class == Class::Replication) {
            // It runs no code of the database's, and a stream is answered when it ends, perhaps never.
            return Judged { effects: Effects::none(QueryClass::Utility), classified: None };
        }
        if !self.can_be_read(statement) {
            return self.judge_opaque();
        }
        // The bytes of its parameters are no values that can be compared with others'.
        let bind = bind.filter(|_| self.context.is_plain_utf8());
        let database = self.visit.database();
        // First of all: from here on no newer model is used until the request is answered.
        let classified = database.classify();
        let epoch = classified.epoch;
        let model = database.latest_model();
        let mut context = context.filter(|_| model.is_some());
        let effects = match statement.parts.as_slice() {
            [] => Effects::none(QueryClass::Utility),
            [part] => {
                let known = &mut self.known;
                let analysis = context.and_then(|context| known.analysis(database, statement, types, context, epoch));
                let mut effects = Effects::of(part, analysis.as_deref(), model.as_deref(), bind);
                if self.sharing.is_some() {
                    effects.trace = Trace::of(part, analysis.as_deref(), model.as_deref());
                    // Functions and views may be others by now.
                    effects.trace.doubt |= database.in_doubt();
                }
                effects
            }
            parts => {
                let mut sum = Effects::none(QueryClass::Utility);
                for (number, part) in parts.iter().enumerate() {
                    let key = context.map(|context| AnalysisKey::new(part, types, context, epoch));
                    let analysis = key.and_then(|key| database.analysis(&key));
                    let mut effects = Effects::of(part, analysis.as_deref(), model.as_deref(), bind);
                    effects.trace = Trace::of(part, analysis.as_deref(), model.as_deref());
                    effects.trace.doubt |= self.sharing.is_some() && database.in_doubt();
                    context = context.filter(|_| !self.moves_settings(&effects));
                    match number {
                        0 => sum = effects,
                        _ => sum.merge(effects),
                    }
                }
                sum
            }
        };
        Judged { effects, classified: Some(classified) }
    }

    /// What is said of the text holds for this session.
    fn can_be_read(&self, statement: &Statement) -> bool {
        self.context.is_plain_utf8() || statement.is_plain_ascii()
    }

    /// Whether what is sent next may run under other settings than now.
    fn moves_settings(&self, effects: &Effects) -> bool {
        let ends = !matches!(effects.transaction, Transaction::Kept | Transaction::Begins { .. });
        effects.settings.may_change() || (ends && self.context.has_changed_in_block())
    }

    /// Nobody asks what it writes, only what it leaves in a shared connection.
    fn judge_untracked(&self, statement: &Statement) -> Judged {
        let mut effects = Effects::none(QueryClass::Unknown);
        if self.sharing.is_some() {
            let model = self.visit.database().model();
            for part in &statement.parts {
                effects.trace.merge(Trace::of(part, None, model.as_deref()));
                // Whoever comes after it must not go by the old catalogue.
                effects.doubts_catalog |= may_change_catalog(&part.class);
                effects.deallocates |= may_deallocate(&part.class);
            }
        }
        Judged { effects, classified: None }
    }

    /// It may do anything.
    pub(super) fn judge_opaque(&self) -> Judged {
        if !self.tracking {
            let effects = Effects { trace: Trace::unknown(), ..Effects::none(QueryClass::Unknown) };
            return Judged { effects, classified: None };
        }
        let classified = Some(self.visit.database().classify());
        Judged { effects: Effects::opaque(QueryClass::Unknown), classified }
    }

    /// Marks or collects what is about to be written and adds the rest of the effects to the span.
    pub(super) fn take_note(&mut self, span: &mut Span, judged: Judged, statement: Option<&Arc<Statement>>) {
        let Judged { mut effects, classified } = judged;
        if !self.by_table && !effects.writes.is_empty() {
            effects.writes = WriteSet::Everything;
        }
        if effects.concerns_databases {
            span.keeps_none.get_or_insert_with(|| (self.shared.pool.keep_none(), self.shared.parallel.keep_none()));
        }
        self.settings_move |= self.moves_settings(&effects);
        let rolls_back = effects.transaction == Transaction::RollsBack && span.classified.is_empty();
        span.add(&effects, statement);
        self.leave_trace(&mut effects);
        let Some(classified) = classified else {
            span.writes.doubts_catalog |= effects.doubts_catalog;
            return;
        };
        let inside = match span.transaction {
            // The only request of its span: what was collected is dropped.
            _ if rolls_back => self.block.status() != Status::Idle,
            Transaction::Kept | Transaction::Changed => self.block.status() == Status::InBlock,
            // What runs in one request with BEGIN, before or after it, is committed with the block.
            Transaction::Begins { .. } => true,
            Transaction::Commits | Transaction::RollsBack | Transaction::Ends => false,
        };
        let timing = if inside && !self.pipeline.has_client_spans() { Timing::InsideBlock } else { Timing::MayCommit };
        if !span.covers(&effects, timing, classified.epoch) {
            let versions = &self.visit.database().versions;
            let marked = self.block.write(versions, &effects.writes, effects.doubts_catalog, timing, classified.epoch);
            span.cover(marked, &effects, timing, classified);
        }
        if !effects.writes.is_empty() {
            let scope = match effects.writes {
                WriteSet::Everything => Scope::Everything,
                WriteSet::Tables(_) => Scope::Table,
            };
            self.shared.metrics.cache_invalidations(scope).increment(1);
        }
    }

    /// Takes note of what the request may leave in a shared connection.
    fn leave_trace(&mut self, effects: &mut Effects) {
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) else { return };
        let mut trace = std::mem::take(&mut effects.trace);
        let matters = &self.shared.sequences_matter;
        if trace.recalls {
            matters.store(true, Ordering::Relaxed);
        }
        if trace.recalls || (trace.draws && matters.load(Ordering::Relaxed)) {
            trace.lasting = trace.lasting.or(Some(Pin::Sequence));
        }
        backend.drew_sequence |= trace.draws;
        if trace.drops_statements || effects.deallocates {
            backend.parsed.clear();
        }
        let before = sharing.traces.pin();
        sharing.traces.add(trace);
        if let Some(pin) = sharing.traces.pin().filter(|pin| before != Some(*pin) && !sharing.loses_state) {
            self.shared.metrics.pins(pin).increment(1);
        }
    }

    /// Writes whose targets are not known yet are analysed when the connection is idle.
    pub(super) fn wish_for_analyses(&mut self, statement: &Arc<Statement>, text: &[u8], types: &[u32]) {
        if !self.caching || !self.can_be_read(statement) {
            return;
        }
        let context = self.context.digest().copied();
        let database = self.visit.database().clone();
        if !database.has_model() {
            return;
        }
        for (number, part) in statement.parts.iter().enumerate() {
            let target = match (&part.class, &part.copy_target) {
                (Class::Write, _) if !part.facts.creates_relation => None,
                (Class::CopyIn, Some(target)) => Some(target),
                _ => continue,
            };
            let known = context.is_some_and(|context| {
                database.analysis(&AnalysisKey::new(part, types, &context, database.epoch())).is_some()
            });
            if known || self.analyses.len() >= WAITING_ANALYSES {
                continue;
            }
            let sql = match target {
                None => Bytes::copy_from_slice(part.text_of(text)),
                // What COPY writes is what a DELETE would lock: the table, its children, and what refers to it.
                Some(target) => Bytes::from([b"DELETE FROM ", &target[..]].concat()),
            };
            let analyse = Analyse::new(statement.clone(), number, sql, types.to_vec());
            if !self.analyses.iter().any(|waiting| waiting.same_as(&analyse)) {
                self.analyses.push_back(analyse);
            }
        }
    }
}

fn may_change_catalog(class: &Class) -> bool {
    matches!(class, Class::Ddl | Class::Do | Class::Call | Class::Execute | Class::Unknown)
}

fn may_deallocate(class: &Class) -> bool {
    matches!(class, Class::Discard(DiscardTarget::All) | Class::Session(SessionCommand::Deallocate))
}
