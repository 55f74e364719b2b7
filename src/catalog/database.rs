//! One database of the upstream, as the cache sees it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use super::analysis::{Analysis, AnalysisKey};
use super::model::Model;
use crate::cache::limbo::Limbo;
use crate::cache::versions::{Versions, WriteSet};

/// Analyses kept per database.
const ANALYSES: usize = 20_000;
/// Session baselines kept per database.
const BASELINES: usize = 2_000;

/// What `pg_settings` said about a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Baseline {
    pub fingerprint: [u8; 32],
    /// Its transactions are READ COMMITTED unless they say otherwise.
    pub read_committed: bool,
    /// It has temporary objects.
    pub temporary: bool,
}

pub struct Database {
    pub name: String,
    pub versions: Versions,
    pub limbo: Limbo,
    /// Counts the changes of the catalogue.
    epoch: AtomicU64,
    /// Counts the times somebody ran what may have changed the catalogue.
    doubts: AtomicU64,
    /// The doubts that a look at the catalogue's fingerprint has settled.
    settled: AtomicU64,
    model: ArcSwapOption<Model>,
    analyses: quick_cache::sync::Cache<AnalysisKey, Arc<Analysis>>,
    baselines: quick_cache::sync::Cache<(u64, [u8; 32]), Baseline>,
    visits: AtomicUsize,
    pub(super) watched: AtomicBool,
    /// The fingerprint under which the present epoch began, as far as it was ever read.
    pub(super) fingerprint: Mutex<Option<String>>,
    pub(super) wake: Notify,
    pub(super) leave_now: AtomicBool,
}

impl Database {
    fn new(name: String) -> Self {
        Self {
            name,
            versions: Versions::default(),
            limbo: Limbo::default(),
            epoch: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            model: ArcSwapOption::empty(),
            analyses: quick_cache::sync::Cache::new(ANALYSES),
            baselines: quick_cache::sync::Cache::new(BASELINES),
            visits: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            fingerprint: Mutex::new(None),
            wake: Notify::new(),
            leave_now: AtomicBool::new(false),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The model of the present epoch, if no doubt is open. Otherwise the watcher is told that somebody wants it.
    pub fn model(&self) -> Option<Arc<Model>> {
        let model = self.model.load_full().filter(|model| model.epoch == self.epoch() && !self.in_doubt());
        if model.is_none() {
            self.wake.notify_one();
        }
        model
    }

    /// Something ran that may have changed the catalogue: nobody uses the model until its fingerprint was looked at.
    ///
    /// Call it before the marks of what ran are settled.
    pub fn doubt(&self) {
        self.doubts.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn doubts(&self) -> u64 {
        self.doubts.load(Ordering::SeqCst)
    }

    pub(super) fn in_doubt(&self) -> bool {
        self.doubts() != self.settled.load(Ordering::SeqCst)
    }

    /// The catalogue was looked at after `doubts` had been raised.
    pub(super) fn settle_doubts(&self, doubts: u64) {
        self.settled.store(doubts, Ordering::SeqCst);
    }

    pub(super) fn publish(&self, model: Option<Model>) {
        self.model.store(model.map(Arc::new));
    }

    pub(super) fn has_model(&self) -> bool {
        self.model.load().as_ref().is_some_and(|model| model.epoch == self.epoch())
    }

    /// The catalogue has changed: ends the epoch and with it every entry. Only the watcher says so.
    pub(super) fn catalog_changed(&self) -> u64 {
        let epoch = self.epoch.fetch_add(1, Ordering::SeqCst) + 1;
        self.versions.mark(&WriteSet::Everything).settle();
        epoch
    }

    pub fn analysis(&self, key: &AnalysisKey) -> Option<Arc<Analysis>> {
        self.analyses.get(key)
    }

    pub fn remember(&self, key: AnalysisKey, analysis: Arc<Analysis>) {
        self.analyses.insert(key, analysis);
    }

    /// The settings fingerprint of a session that has just begun as `start` says, if one like it was read in this epoch.
    pub fn baseline(&self, start: &[u8; 32]) -> Option<Baseline> {
        self.baselines.get(&(self.epoch(), *start))
    }

    pub fn remember_baseline(&self, epoch: u64, start: [u8; 32], baseline: Baseline) {
        self.baselines.insert((epoch, start), baseline);
    }

    pub fn visitors(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// All databases that clients have used.
#[derive(Default)]
pub struct Databases(Mutex<HashMap<String, Arc<Database>>>);

/// A session's stay in a database: while there is one, the catalogue is watched.
pub struct Visit(Arc<Database>);

impl Databases {
    /// Enters `name`; the caller starts a watcher if [`Visit::needs_watcher`] says so.
    pub fn enter(&self, name: &str) -> Visit {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let database = map.entry(name.to_owned()).or_insert_with(|| Arc::new(Database::new(name.to_owned())));
        database.visits.fetch_add(1, Ordering::SeqCst);
        database.leave_now.store(false, Ordering::SeqCst);
        Visit(database.clone())
    }

    /// Somebody is about to drop, rename or copy a database: connections to databases without clients are closed at once.
    pub fn leave_unvisited(&self) {
        for database in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            if database.visitors() == 0 {
                database.leave_now.store(true, Ordering::SeqCst);
                database.wake.notify_one();
            }
        }
    }

    pub fn all(&self) -> Vec<Arc<Database>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

impl Visit {
    pub fn database(&self) -> &Arc<Database> {
        &self.0
    }

    /// True for exactly one caller while no watcher runs; that one must start it.
    pub fn needs_watcher(&self) -> bool {
        !self.0.watched.swap(true, Ordering::SeqCst)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.0.visits.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.wake.notify_one();
        }
    }
}
