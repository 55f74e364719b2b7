//! The cache on the query path: whether a read may be served, from what, and what becomes of its recording.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::Session;
use super::block::Status;
use crate::cache::entry::{Entry, Recording};
use crate::cache::flight::{Lead, Turn, Waiting};
use crate::cache::key::{CacheKey, KeyHasher, request_key};
use crate::cache::store::{Eviction, Lookup};
use crate::cache::verdict::Bypass;
use crate::cache::versions::{Dependencies, Quiet};
use crate::catalog::analysis::{Analysis, AnalysisKey};
use crate::statement::{Part, Statement};
use crate::telemetry::metrics::{Access, Eviction as EvictionLabel};

/// One read that may be answered from the cache.
#[derive(Debug, Clone)]
pub struct ReadRequest {
    pub statement: Arc<Statement>,
    pub types: Vec<u32>,
    /// Digest of statement, parameters and formats: the key but for the session's context.
    pub tail: [u8; 32],
    /// A RowDescription is part of the answer.
    pub described: bool,
    /// How many result formats were listed, if they are all the same: the key takes them for one, and more than one must match
    /// the result's width.
    pub equal_formats: usize,
    /// A parameter holds a word like 'now'.
    pub special_time_parameter: bool,
}

/// What to do with a read.
pub enum Plan {
    Serve(Arc<Entry>),
    Wait(Waiting),
    Relay(Option<Box<Fill>>),
}

/// A read on its way that may become an entry.
pub struct Fill {
    pub recording: Recording,
    pub request: ReadRequest,
    /// The statement's text, for its analysis.
    pub text: bytes::Bytes,
    pub basis: Basis,
    pub started: Instant,
}

/// What the entry will rest on.
pub enum Basis {
    /// The statement is known to be cacheable.
    Known { key: CacheKey, dependencies: Dependencies, _lead: Lead },
    /// It has to be analysed first, which is done after its answer. `None` if something was being written: then it is only
    /// analysed.
    Tentative { quiet: Option<Quiet> },
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fill").field("request", &self.request.tail).finish_non_exhaustive()
    }
}

impl ReadRequest {
    pub fn key(&self, context: &[u8; 32]) -> CacheKey {
        let mut hasher = KeyHasher::new();
        hasher.field(context).field(&self.tail);
        CacheKey(hasher.finish())
    }

    /// The digest of everything but the session's context.
    pub fn tail(statement: &Statement, types: &[u32], bind: impl FnOnce(&mut Sha256)) -> [u8; 32] {
        request_key(&[0; 32], &statement.digest, types, bind).0
    }
}

/// Feeds what a simple Query implies: no parameters, all results as text.
pub fn simple_query_formats(hasher: &mut Sha256) {
    // The same bytes that Bind's canonical form has for no parameters and all-text results.
    let bind = crate::wire::message::Bind::decode(&[0; 8]);
    if let Ok(bind) = bind {
        bind.hash_parameters(hasher);
        bind.hash_result_formats(hasher);
    }
}

/// The key under which the analysis of a statement is remembered.
pub fn analysis_key(part: &Part, types: &[u32], context: &[u8; 32], epoch: u64) -> AnalysisKey {
    let mut hasher = Sha256::new();
    hasher.update(part.shape);
    hasher.update(context);
    for oid in types {
        hasher.update(oid.to_be_bytes());
    }
    AnalysisKey { digest: hasher.finalize().into(), epoch }
}

impl Session {
    /// Decides about a read. `may_wait` is false if it has waited for an identical one before.
    pub(super) fn plan(&mut self, request: &ReadRequest, text: &[u8], may_wait: bool) -> Plan {
        match self.consider(request, text, may_wait) {
            Ok(plan) => plan,
            Err((bypass, fill)) => {
                self.count_bypass(bypass);
                Plan::Relay(fill.then(|| self.tentative(request, text)).flatten().map(Box::new))
            }
        }
    }

    /// `Err` says why the cache is not used, and whether the answer is worth recording until the reason is gone.
    fn consider(&mut self, request: &ReadRequest, text: &[u8], may_wait: bool) -> Result<Plan, (Bypass, bool)> {
        let never = |bypass| (bypass, false);
        let [part] = request.statement.parts.as_slice() else { return Err(never(Bypass::NotRead)) };
        if !request.statement.is_single_read() {
            return Err(never(Bypass::NotRead));
        }
        if !self.caching {
            return Err(never(Bypass::Disabled));
        }
        if self.pipeline.owes_client() || self.open.is_some() {
            return Err(never(Bypass::Pipelined));
        }
        if !self.block.allows_cache() {
            return Err(never(Bypass::Transaction));
        }
        if !self.context.is_plain_utf8() {
            return Err(never(Bypass::Encoding));
        }
        if request.special_time_parameter || part.facts.context_keyword || part.facts.special_time_literal {
            return Err(never(Bypass::Context));
        }
        let Some(context) = self.context.digest().copied() else { return Err((Bypass::Settings, true)) };
        if let Some(baseline) = self.context.baseline() {
            if baseline.temporary {
                return Err(never(Bypass::Temporary));
            }
            if !baseline.read_committed {
                return Err(never(Bypass::Transaction));
            }
        }
        let database = self.visit.database();
        if database.model().is_none() {
            return Err((Bypass::Catalog, true));
        }
        let analysis = database
            .analysis(&analysis_key(part, &request.types, &context, database.epoch()))
            .ok_or((Bypass::Undecided, true))?;
        let tables = analysis.read.as_ref().map_err(|bypass| never(*bypass))?;

        let key = request.key(&context);
        match self.shared.store.get(&key) {
            Lookup::Hit(entry) if fits(request, &entry) => return Ok(Plan::Serve(entry)),
            Lookup::Hit(_) | Lookup::Absent => {}
            Lookup::Gone(reason) => self.count_eviction(reason, 1),
        }
        let Some(dependencies) = database.versions.observe(tables) else { return Err(never(Bypass::InFlight)) };
        match self.shared.flights.board(key) {
            Turn::Lead(lead) => {
                self.count_access(Access::Miss);
                let basis = Basis::Known { key, dependencies, _lead: lead };
                Ok(Plan::Relay(Some(Box::new(self.fill(request, text, basis)))))
            }
            // In a block it might wait for somebody who waits for its locks.
            Turn::Follow(waiting) if may_wait && self.block.status() == Status::Idle => Ok(Plan::Wait(waiting)),
            Turn::Follow(_) => {
                self.count_access(Access::Miss);
                Ok(Plan::Relay(None))
            }
        }
    }

    fn tentative(&self, request: &ReadRequest, text: &[u8]) -> Option<Fill> {
        let quiet = self.visit.database().versions.quiet();
        // Jobs run between transactions only.
        (self.block.status() == Status::Idle).then(|| self.fill(request, text, Basis::Tentative { quiet }))
    }

    fn fill(&self, request: &ReadRequest, text: &[u8], basis: Basis) -> Fill {
        let recording = Recording::new(self.max_entry_bytes);
        let text = bytes::Bytes::copy_from_slice(text);
        Fill { recording, request: request.clone(), text, basis, started: Instant::now() }
    }

    /// The recorded read is complete and its statement's analysis is known.
    pub(super) fn store(&self, fill: Fill, analysis: Option<(&Analysis, u64)>) {
        let cost = fill.started.elapsed();
        let (key, dependencies) = match fill.basis {
            Basis::Known { key, dependencies, _lead } => (key, dependencies),
            Basis::Tentative { quiet } => {
                let Some(context) = self.context.digest() else { return };
                let Some((Ok(tables), epoch)) = analysis.map(|(analysis, epoch)| (analysis.read.as_ref(), epoch))
                else {
                    return;
                };
                let database = self.visit.database();
                // The analysis belongs to this epoch; nothing is recorded on a catalogue that is in doubt.
                if database.model().is_none_or(|model| model.epoch != epoch) {
                    return;
                }
                let versions = &database.versions;
                let Some(dependencies) = quiet.and_then(|quiet| versions.observe_since(quiet, tables)) else { return };
                (fill.request.key(context), dependencies)
            }
        };
        let store = &self.shared.store;
        let ttl = Duration::from_secs(self.shared.config.load().cache.default_ttl_secs);
        if let Some(entry) = Entry::new(fill.recording, dependencies, store.now(), ttl, cost) {
            let evicted = store.insert(key, entry);
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

/// Whether the entry can answer the request as PostgreSQL would.
fn fits(request: &ReadRequest, entry: &Entry) -> bool {
    (!request.described || entry.described().is_some())
        && (request.equal_formats <= 1 || entry.columns().is_some_and(|columns| columns == request.equal_formats))
}
