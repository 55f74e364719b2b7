//! The cache on the query path: whether a read may be served, from what, and what becomes of its recording.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Session;
use super::block::Status;
use super::split::Split;
use super::verdict::{Terms, Verdict};
use crate::cache::admission::{self, Pass};
use crate::cache::entry::{Entry, Origin, Recording};
use crate::cache::flight::{Lead, Turn, Waiting};
use crate::cache::key::{CacheKey, request_key};
use crate::cache::ledger::{Page, ShapeId};
use crate::cache::store::{Eviction, Lookup};
use crate::cache::verdict::Bypass;
use crate::cache::versions::{Dependencies, Quiet};
use crate::catalog::analysis::Analysis;
use crate::guard::State;
use crate::statement::Statement;
use crate::telemetry::export::Trace;
use crate::telemetry::metrics::{Access, Eviction as EvictionLabel};
use crate::telemetry::trace::SpanContext;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::message::Bind;

/// One read that may be answered from the cache, as it stands in the client's messages.
pub struct ReadRequest<'a> {
    pub statement: &'a Arc<Statement>,
    pub text: &'a [u8],
    /// Parameter types as Parse declares them.
    pub types: &'a [u32],
    /// The body of Bind; `None` for a simple Query, which means no parameters and all results as text.
    pub bind: Option<(&'a [u8], Bind<'a>)>,
    /// A RowDescription is part of the answer.
    pub described: bool,
    /// What its client may have been told of its result before is what others are told now.
    pub stands: bool,
}

/// What to do with a read.
pub enum Plan {
    Serve(Arc<Entry>),
    /// Several connections answer it: their first rows are there.
    Split(Box<Split>),
    /// Look at it again when what was asked, or begun, is there.
    Pause,
    /// The same when this is over.
    Wait(Wait),
    Relay(Option<Box<Fill>>),
}

/// What a read waits for.
pub enum Wait {
    /// The answer to an identical one.
    Flight(Waiting),
    /// Its turn to go upstream.
    Turn(admission::Waiting),
}

/// What the request at the front of the client's input has been through already.
#[derive(Default)]
pub struct Attempt {
    /// It has waited for an identical one.
    pub(super) flight: bool,
    /// It has waited for its turn.
    pub(super) turn: bool,
    /// The right to go upstream. It is kept while a connection is awaited: whoever has a connection waits for no pass.
    pub(super) pass: Option<Pass>,
    /// It is counted among those that the cache has not answered.
    counted: bool,
    /// It was decided whether it is traced.
    pub(super) is_traced: bool,
    pub(super) trace: Option<Box<Trace>>,
}

/// A read on its way that may become an entry.
pub struct Fill {
    pub recording: Recording,
    pub origin: Origin,
    pub basis: Basis,
    pub started: Instant,
}

/// What the entry will rest on.
pub enum Basis {
    /// The statement is known to be cacheable.
    Known { key: CacheKey, ttl: Duration, dependencies: Dependencies, _lead: Lead },
    /// It has to be analysed first, which is done after its answer.
    Tentative(Tentative),
}

/// A read of which nothing is known yet.
pub struct Tentative {
    pub statement: Arc<Statement>,
    pub text: Bytes,
    pub types: Vec<u32>,
    /// The body of its Bind.
    bind: Option<Bytes>,
    /// `None` if something was being written: then it is only analysed.
    quiet: Option<Quiet>,
    /// That it is a part of.
    pub trace: Option<SpanContext>,
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fill").field("recording", &self.recording).finish_non_exhaustive()
    }
}

impl ReadRequest<'_> {
    pub(super) fn key(&self, context: &[u8; 32]) -> CacheKey {
        key(context, self.statement, self.types, self.bind.as_ref().map(|(_, bind)| bind))
    }

    pub(super) fn has_special_time_parameter(&self) -> bool {
        self.bind.is_some_and(|(_, bind)| bind.parameters_contain_special_time_word())
    }

    /// Whether the entry can answer the request as PostgreSQL would. The key takes result formats that are all the same for
    /// one; if several were listed they must be as many as the result has columns.
    fn fits(&self, entry: &Entry) -> bool {
        let equal_formats = self.bind.map_or(0, |(_, bind)| bind.result_formats.number_if_equal());
        (!self.described || entry.is_described())
            && (equal_formats <= 1 || entry.columns().is_some_and(|columns| columns == equal_formats))
    }
}

fn key(context: &[u8; 32], statement: &Statement, types: &[u32], bind: Option<&Bind<'_>>) -> CacheKey {
    request_key(context, &statement.digest, types, |hasher| {
        let bind = bind.unwrap_or(&Bind::EMPTY);
        bind.hash_parameters(hasher);
        bind.hash_result_formats(hasher);
    })
}

impl Session {
    /// Decides about a read.
    pub(super) fn plan(&mut self, request: &ReadRequest<'_>) -> Plan {
        if let Some(plan) = self.resume_split() {
            return plan;
        }
        self.begin_trace(request.text);
        let (fill, bypass) = match self.consider(request) {
            Ok(Plan::Relay(fill)) => (fill, None),
            Ok(plan) => {
                if let Plan::Serve(entry) = &plan {
                    let page = self.page(request.statement, request.text);
                    if let Some(page) = page {
                        page.hit(entry.frames(request.described).len(), entry.cost());
                    }
                    if self.attempt.trace.is_some() {
                        let page = self.page(request.statement, request.text).cloned();
                        self.trace_hit(page.as_ref());
                    }
                }
                return plan;
            }
            Err(bypass) if self.asks_about_split(request, Some(bypass)) => return Plan::Pause,
            // Worth recording if the reason is likely gone when the answer is here.
            Err(bypass) => (bypass.is_passing().then(|| self.tentative(request)).flatten().map(Box::new), Some(bypass)),
        };
        if fill.is_some()
            && let Some(waiting) = self.queue_up(request)
        {
            return Plan::Wait(Wait::Turn(waiting));
        }
        self.count_unanswered(request, bypass);
        self.split_or_relay(request, bypass, fill)
    }

    /// The wait of a miss for its turn, if it has to wait.
    ///
    /// Nobody waits who may have what others need before they can give their turn back: locks, or a connection of the pool's.
    fn queue_up(&mut self, request: &ReadRequest<'_>) -> Option<admission::Waiting> {
        if self.attempt.turn || self.attempt.pass.is_some() {
            return None;
        }
        let outside = self.block.status() == Status::Idle && !self.pipeline.owes_client() && self.open.is_none();
        let tied = self.backend.is_some() && self.sharing.as_ref().is_some_and(|sharing| !sharing.is_free());
        if !outside || tied {
            return None;
        }
        match self.shared.admission.enter(request.statement.parts.first()?.shape)? {
            Ok(pass) => {
                self.attempt.pass = Some(pass);
                None
            }
            Err(waiting) => Some(waiting),
        }
    }

    /// The cache does not answer this read: `bypass` is why it was not even asked.
    fn count_unanswered(&mut self, request: &ReadRequest<'_>, bypass: Option<Bypass>) {
        if std::mem::replace(&mut self.attempt.counted, true) {
            return;
        }
        if let Some(page) = self.page(request.statement, request.text) {
            match bypass {
                None => page.asked(),
                Some(bypass) => page.bypassed(bypass),
            }
        }
        match bypass {
            None => self.count_access(Access::Miss),
            Some(bypass) => self.count_bypass(bypass),
        }
    }

    /// `Err` says why the cache is not used.
    fn consider(&mut self, request: &ReadRequest<'_>) -> Result<Plan, Bypass> {
        let Verdict { outcome, analysis } = self.verdict(request);
        let Terms { key, ttl } = outcome?;
        let plan = analysis.as_ref().ok_or(Bypass::Undecided)?.read.as_ref().map_err(|bypass| *bypass)?;
        let store = &self.shared.store;
        if let Some(oldest) = self.oldest_now()
            && let Some(entry) = store.get_old(&key, oldest).filter(|entry| request.stands && request.fits(entry))
        {
            self.note_age(&entry, ttl);
            return Ok(Plan::Serve(entry));
        }
        match store.get(&key) {
            Lookup::Hit(entry) if request.stands && request.fits(&entry) && entry.is_younger(ttl, || store.now()) => {
                return Ok(Plan::Serve(entry));
            }
            Lookup::Hit(_) | Lookup::Absent => {}
            Lookup::Gone(reason) => self.count_eviction(reason, 1),
        }
        if self.asks_about_split(request, None) {
            return Ok(Plan::Pause);
        }
        let bind = request.bind.as_ref().map(|(_, bind)| bind);
        let part = request.statement.parts.first().ok_or(Bypass::NotRead)?;
        let dependencies = self.visit.database().versions.observe(plan.reads(part, bind)).ok_or(Bypass::InFlight)?;
        match self.shared.flights.board(key) {
            Turn::Lead(lead) => {
                let basis = Basis::Known { key, ttl, dependencies, _lead: lead };
                Ok(Plan::Relay(Some(Box::new(self.fill(request.statement, basis)))))
            }
            // In a block it might wait for somebody who waits for its locks.
            Turn::Follow(waiting) if !self.attempt.flight && request.stands && self.block.status() == Status::Idle => {
                // Others may go in the meantime.
                self.attempt.pass = None;
                Ok(Plan::Wait(Wait::Flight(waiting)))
            }
            Turn::Follow(_) => Ok(Plan::Relay(None)),
        }
    }

    /// How old an answer may be if a read would need a connection, none can be had, and old answers are allowed then.
    pub(super) fn oldest_now(&self) -> Option<Duration> {
        self.oldest_on_open.filter(|_| self.backend.is_none() && self.shared.lookout.breaker.state() != State::Closed)
    }

    /// Tells the client that what it gets is older than it would be otherwise.
    fn note_age(&mut self, entry: &Entry, ttl: Duration) {
        let age = entry.age(self.shared.store.now());
        if age < ttl && !entry.expired(self.shared.store.now()) {
            return;
        }
        self.shared.metrics.cache_stale.increment(1);
        let message = format!("the server is not available; this result is {} seconds old", age.as_secs());
        ErrorResponse::notice(sqlstate::WARNING, message).encode(&mut self.client.output);
    }

    fn tentative(&self, request: &ReadRequest<'_>) -> Option<Fill> {
        // Jobs run between transactions only.
        if self.block.status() != Status::Idle {
            return None;
        }
        let model = self.visit.database().latest_model();
        if model.is_some_and(|model| request.statement.parts.iter().any(|part| model.may_write(part))) {
            return None;
        }
        let tentative = Tentative {
            statement: request.statement.clone(),
            text: Bytes::copy_from_slice(request.text),
            types: request.types.to_vec(),
            bind: request.bind.map(|(body, _)| Bytes::copy_from_slice(body)),
            quiet: self.visit.database().versions.quiet(),
            trace: None,
        };
        Some(self.fill(request.statement, Basis::Tentative(tentative)))
    }

    fn fill(&self, statement: &Statement, basis: Basis) -> Fill {
        let shape = statement.parts.first().map_or_else(ShapeId::default, |part| ShapeId::of(&part.shape));
        let origin = Origin { shape, flushes: self.shared.store.flushes() };
        let recording = Recording::new(self.max_entry_bytes);
        Fill { recording, origin, basis, started: Instant::now() }
    }

    /// Where the figures of a statement are kept. Not for a session in whose texts literals may end elsewhere.
    pub(super) fn page(&mut self, statement: &Arc<Statement>, text: &[u8]) -> Option<&Arc<Page>> {
        if !self.context.is_plain_utf8() {
            return None;
        }
        self.bookmarks.page(&self.shared.ledger, statement, text)
    }

    /// The same for a text that is relayed as it is; if it is a read, the cache was not asked for it.
    pub(super) fn page_of_relayed(&mut self, statement: &Arc<Statement>, text: &[u8]) -> Option<Arc<Page>> {
        let [part] = statement.parts.as_slice() else { return None };
        let reason = match &part.facts {
            facts if facts.locks_rows => Bypass::RowLocks,
            facts if facts.odd => Bypass::NotRead,
            _ => Bypass::Shape,
        };
        let page = self.page(statement, text)?;
        if page.is_read {
            page.bypassed_by_form(reason);
        }
        Some(page.clone())
    }

    /// A recorded read of a known statement is complete.
    pub(super) fn store_known(&self, fill: Fill) {
        if let Basis::Known { key, ttl, dependencies, _lead } = fill.basis {
            self.store(fill.recording, fill.origin, Terms { key, ttl }, dependencies, fill.started);
        }
    }

    /// A recorded read is complete, and the analysis of its statement, which belongs to `epoch`, is known now.
    pub(super) fn store_tentative(&self, fill: Fill, analysis: &Analysis, epoch: u64) {
        let Basis::Tentative(tentative) = fill.basis else { return };
        let (Some(context), Ok(plan)) = (self.context.digest(), &analysis.read) else { return };
        let database = self.visit.database();
        // Nothing is recorded on a catalogue that is in doubt.
        if database.model().is_none_or(|model| model.epoch != epoch) {
            return;
        }
        let (Some(quiet), Some(part)) = (tentative.quiet, tentative.statement.parts.first()) else { return };
        // It could be decoded before.
        let Ok(bind) = tentative.bind.as_deref().map(Bind::decode).transpose() else { return };
        let key = key(context, &tentative.statement, &tentative.types, bind.as_ref());
        let dependencies = database.versions.observe_since(quiet, plan.reads(part, bind.as_ref()));
        let ttl = self.ttl(&tentative.statement, &tentative.text, analysis);
        if let (Some(dependencies), Ok(ttl)) = (dependencies, ttl) {
            self.store(fill.recording, fill.origin, Terms { key, ttl }, dependencies, fill.started);
        }
    }

    fn store(&self, recording: Recording, origin: Origin, terms: Terms, dependencies: Dependencies, started: Instant) {
        let cost = started.elapsed();
        let store = &self.shared.store;
        if let Some(entry) = Entry::new(recording, dependencies, store.now(), terms.ttl, cost) {
            let evicted = store.insert(terms.key, entry.from(origin));
            self.count_eviction(Eviction::Capacity, evicted);
        }
    }

    pub(super) fn count_access(&self, access: Access) {
        if self.count_accesses {
            self.shared.metrics.cache_accesses(access).increment(1);
        }
    }

    pub(super) fn count_bypass(&self, bypass: Bypass) {
        self.count_access(Access::Bypass);
        if self.count_accesses {
            self.shared.metrics.bypass(bypass as usize).increment(1);
        }
    }

    pub(super) fn count_eviction(&self, reason: Eviction, count: usize) {
        let label = match reason {
            Eviction::Capacity => EvictionLabel::Capacity,
            Eviction::Expired => EvictionLabel::Ttl,
            Eviction::Invalid => EvictionLabel::Invalid,
        };
        if count > 0 {
            self.shared.metrics.cache_evictions(label).increment(count as u64);
        }
    }
}
