//! Traces of statements: begun when one is looked at, finished when it is answered.
//!
//! While no traces are wanted all that is done is to look whether they are.

use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::jobs::Job;
use super::lookup::{Basis, Fill};
use crate::cache::ledger::Page;
use crate::telemetry::export::{Ending, Trace};
use crate::telemetry::metrics::Path;
use crate::telemetry::trace::SpanContext;
use crate::wire::message::encode;

impl Session {
    /// The statement at the front of the input has this text. Once for each.
    pub(super) fn begin_trace(&mut self, text: &[u8]) {
        if let Some(tracer) = &self.shared.tracer
            && !std::mem::replace(&mut self.attempt.is_traced, true)
        {
            self.attempt.trace = tracer.begin(text);
        }
    }

    /// The statement at the front goes upstream: the cache has had its say.
    pub(super) fn trace_of_relayed(&mut self) -> Option<Box<Trace>> {
        let mut trace = self.attempt.trace.take()?;
        trace.did("cache");
        Some(trace)
    }

    /// The statement at the front is answered from the cache.
    pub(super) fn trace_hit(&mut self, page: Option<&Arc<Page>>) {
        if let Some(trace) = self.trace_of_relayed() {
            self.finish_trace(*trace, Path::Cache, page, false);
        }
    }

    pub(super) fn finish_trace(&self, trace: Trace, path: Path, page: Option<&Arc<Page>>, failed: bool) {
        let who = &self.control.who;
        let query = page.map(|page| &*page.text);
        trace.finish(&Ending { path: path.label(), failed, query, database: &who.database, user: &who.user });
    }

    /// A relayed request has been answered. What is asked because of it belongs to its trace.
    pub(super) fn trace_answered(
        &self,
        mut trace: Trace,
        page: Option<&Arc<Page>>,
        failed: bool,
        fill: &mut Option<Box<Fill>>,
    ) {
        trace.did("upstream");
        if let Some(Fill { basis: Basis::Tentative(tentative), .. }) = fill.as_deref_mut() {
            tentative.trace = Some(*trace.context());
        }
        self.finish_trace(trace, Path::Upstream, page, failed);
    }

    /// The proxy's own question has been answered: for a statement that waits for it, or for one that has been answered.
    pub(super) fn trace_job(&mut self, job: &Job, took: Duration) {
        let Some(tracer) = &self.shared.tracer else { return };
        let name = job.operation().label();
        if let Some(context) = job.trace() {
            tracer.late(context, name, took);
        } else if let Some(trace) = &mut self.attempt.trace {
            trace.did(name);
        }
    }

    /// Puts a Query into the upstream's buffer that tells which trace it belongs to. False if it is to be passed on as it is.
    pub(super) fn tell_trace(&mut self, text: &[u8], context: &SpanContext) -> bool {
        let before = self.upstream.output.len();
        let told = [text, context.comment().as_bytes()].concat();
        let is_encoded = encode::query(&mut self.upstream.output, &told).is_ok();
        if !is_encoded {
            self.upstream.output.truncate(before);
        }
        is_encoded
    }
}
