//! What is remembered about requests until their ReadyForQuery.

use std::sync::Arc;
use std::time::Instant;

use super::block::{Timing, Writes};
use super::effects::{Effects, Settings, Transaction};
use super::jobs::Job;
use super::lookup::Fill;
use super::prepared::{Prepared, Standing};
use super::slow::Sent;
use super::witness::Asked;
use crate::cache::admission::Pass;
use crate::cache::ledger::Page;
use crate::cache::versions::{Marks, WriteSet};
use crate::catalog::Classified;
use crate::parallel::KeepsNoLink;
use crate::statement::Statement;
use crate::telemetry::export::Trace;
use crate::telemetry::metrics::Class as QueryClass;
use crate::upstream::pool::KeepsNone;

/// The requests that one ReadyForQuery answers.
#[derive(Debug)]
pub struct Span {
    pub started: Instant,
    pub class: QueryClass,
    pub writes: Writes,
    pub settings: Settings,
    pub transaction: Transaction,
    /// Texts that may have deallocated prepared statements.
    pub deallocates: Vec<Arc<Statement>>,
    pub concerns_databases: bool,
    /// Others' databases must not look used.
    pub keeps_none: Option<(KeepsNone, KeepsNoLink)>,
    pub concerns_defaults: bool,
    /// An ErrorResponse was among the replies.
    pub failed: bool,
    /// Where the time that it takes is added.
    pub page: Option<Arc<Page>>,
    pub trace: Option<Box<Trace>>,
    /// What the client has sent, if that is logged.
    pub sent: Option<Box<Sent>>,
    /// The read that is being recorded.
    pub fill: Option<Box<Fill>>,
    /// The right of a miss to be on its way, if that is limited.
    pub pass: Option<Pass>,
    /// The prepared read that it is, and under what it is sent.
    pub executes: Option<(Arc<Prepared>, Standing)>,
    /// The proxy's own request: what to do with the replies.
    pub job: Option<Job>,
    pub own: bool,
    /// Where it was asked what it has written.
    pub witness: Option<Asked>,
    /// Something in it may commit by itself.
    pub commits_itself: bool,
    /// Keep newer models waiting until it is answered.
    pub classified: Vec<Classified>,
    /// What is marked for it already, for a pipeline that writes the same again and again.
    covered: Covered,
}

#[derive(Debug)]
struct Covered {
    writes: WriteSet,
    doubts_catalog: bool,
    timing: Timing,
}

impl Default for Span {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            class: QueryClass::Utility,
            writes: Writes::default(),
            settings: Settings::Kept,
            transaction: Transaction::Kept,
            deallocates: Vec::new(),
            concerns_databases: false,
            keeps_none: None,
            concerns_defaults: false,
            failed: false,
            page: None,
            trace: None,
            sent: None,
            fill: None,
            pass: None,
            executes: None,
            job: None,
            own: false,
            witness: None,
            commits_itself: false,
            classified: Vec::new(),
            covered: Covered { writes: WriteSet::nothing(), doubts_catalog: false, timing: Timing::InsideBlock },
        }
    }
}

impl Span {
    pub fn own(job: Option<Job>) -> Self {
        Self { own: true, job, ..Self::default() }
    }

    /// Whether everything is marked for it.
    pub fn is_opaque(&self) -> bool {
        self.writes.marks.iter().any(Marks::are_of_everything)
    }

    /// Whether a request with these effects needs no marks beyond those of the requests before it in this span.
    pub fn covers(&self, effects: &Effects, timing: Timing, epoch: u64) -> bool {
        self.classified.last().is_some_and(|classified| classified.epoch == epoch)
            && self.covered.timing == timing
            && self.covered.writes.covers(&effects.writes)
            && (self.covered.doubts_catalog || !effects.doubts_catalog)
    }

    /// `marked` is what had to be marked for a request with these effects.
    pub fn cover(&mut self, marked: Writes, effects: &Effects, timing: Timing, classified: Classified) {
        self.writes.merge(marked);
        if self.covered.timing != timing {
            self.covered = Covered { writes: WriteSet::nothing(), doubts_catalog: false, timing };
        }
        self.covered.writes.merge(&effects.writes);
        self.covered.doubts_catalog |= effects.doubts_catalog;
        self.classified.push(classified);
    }

    /// Adds what another request of the span may do; its writes are added by the caller.
    pub fn add(&mut self, effects: &Effects, statement: Option<&Arc<Statement>>) {
        self.class = effects.class;
        self.settings = self.settings.and(&effects.settings);
        self.transaction = self.transaction.and(effects.transaction);
        self.concerns_databases |= effects.concerns_databases;
        self.concerns_defaults |= effects.concerns_defaults;
        self.commits_itself |= effects.commits_itself;
        if effects.deallocates {
            self.deallocates.extend(statement.cloned());
        }
    }
}
