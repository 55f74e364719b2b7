//! One database of the upstream, as the cache sees it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use super::analysis::{Analysis, AnalysisKey};
use super::model::Model;
use crate::cache::limbo::Limbo;
use crate::cache::versions::{Stripes, Versions, WriteSet};

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
    /// Requests on their way, by the parity of the epoch whose model judged them.
    classified: [AtomicUsize; 2],
    analyses: quick_cache::sync::Cache<AnalysisKey, Arc<Analysis>>,
    baselines: quick_cache::sync::Cache<(u64, [u8; 32]), Baseline>,
    visits: AtomicUsize,
    pub(super) watched: AtomicBool,
    /// The fingerprint under which the present epoch began, as far as it was ever read.
    pub(super) fingerprint: Mutex<Option<String>>,
    first: watch::Sender<bool>,
    pub(super) wake: Notify,
    pub(super) leave_now: AtomicBool,
}

impl Database {
    fn new(name: String, stripes: Arc<Stripes>) -> Self {
        Self {
            name,
            versions: Versions::new(stripes),
            limbo: Limbo::default(),
            epoch: AtomicU64::new(0),
            doubts: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            model: ArcSwapOption::empty(),
            classified: Default::default(),
            analyses: quick_cache::sync::Cache::new(ANALYSES),
            baselines: quick_cache::sync::Cache::new(BASELINES),
            visits: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            fingerprint: Mutex::new(None),
            first: watch::Sender::new(false),
            wake: Notify::new(),
            leave_now: AtomicBool::new(false),
        }
    }

    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// The model of the present epoch, if no doubt is open: what may be served and recorded rests on it. Otherwise the
    /// watcher is told that somebody wants it.
    pub fn model(&self) -> Option<Arc<Model>> {
        let model = self.latest_model().filter(|_| !self.in_doubt());
        if model.is_none() {
            self.wake.notify_one();
        }
        model
    }

    /// Whether [`model`](Self::model) would return one.
    pub fn is_certain(&self) -> bool {
        let certain = !self.in_doubt() && self.has_model();
        if !certain {
            self.wake.notify_one();
        }
        certain
    }

    /// The model of the present epoch, even in doubt: what a request may write is told from it, while a [`Classified`] is held.
    pub fn latest_model(&self) -> Option<Arc<Model>> {
        self.model.load_full().filter(|model| model.epoch == self.epoch())
    }

    /// Takes note that a request is about to be judged by the present model. Until it is answered, no newer model is used.
    pub fn classify(self: &Arc<Self>) -> Classified {
        loop {
            let epoch = self.epoch();
            let classified = Classified { database: self.clone(), epoch };
            self.classified[classified.parity()].fetch_add(1, Ordering::SeqCst);
            if self.epoch() == epoch {
                return classified;
            }
        }
    }

    /// Nothing that was judged before the present epoch is on its way any more.
    pub(super) fn is_past_answered(&self) -> bool {
        self.classified[(self.epoch() + 1) as usize % 2].load(Ordering::SeqCst) == 0
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

    pub fn in_doubt(&self) -> bool {
        self.doubts() != self.settled.load(Ordering::SeqCst)
    }

    /// The catalogue was looked at after `doubts` had been raised.
    pub(super) fn settle_doubts(&self, doubts: u64) {
        self.settled.store(doubts, Ordering::SeqCst);
    }

    /// Ends when a model has been read for the first time.
    pub async fn first_model(&self) {
        // The sender lives as long as the database.
        let _ = self.first.subscribe().wait_for(|ready| *ready).await;
    }

    pub(super) fn publish(&self, model: Option<Model>) {
        let ready = model.is_some();
        self.model.store(model.map(Arc::new));
        if ready {
            self.first.send_replace(true);
        }
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

    /// A write has ended in limbo: the watcher looks after it.
    pub fn limbo_has_grown(&self) {
        self.wake.notify_one();
    }

    pub fn visitors(&self) -> usize {
        self.visits.load(Ordering::SeqCst)
    }
}

/// A request that is judged by the model of `epoch` and on its way.
///
/// It may run code that a newer catalogue has and the model does not know. What it writes then is covered by the end of the
/// epoch only if it is over before the next model is used, so the watcher waits for it. That holds for what looks like a
/// read too: a function that it calls is looked up when it is called, and may write by then. Nor would it do to judge it
/// again by the next model, which has not seen what the catalogue was in between.
pub struct Classified {
    database: Arc<Database>,
    pub epoch: u64,
}

impl Classified {
    fn parity(&self) -> usize {
        self.epoch as usize % 2
    }
}

impl std::fmt::Debug for Classified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Classified").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

impl Drop for Classified {
    fn drop(&mut self) {
        let left = self.database.classified[self.parity()].fetch_sub(1, Ordering::SeqCst) - 1;
        if left == 0 && self.database.epoch() != self.epoch {
            self.database.wake.notify_one();
        }
    }
}

/// All databases that clients have used.
pub struct Databases {
    by_name: Mutex<HashMap<String, Arc<Database>>>,
    stripes: Arc<Stripes>,
}

/// A session's stay in a database: while there is one, the catalogue is watched.
pub struct Visit(Arc<Database>);

impl Databases {
    /// `stripes` is the number of counters that all of them share for values of columns.
    pub fn new(stripes: usize) -> Self {
        Self { by_name: Mutex::default(), stripes: Arc::new(Stripes::new(stripes)) }
    }

    /// Enters `name`; the caller starts a watcher if [`Visit::needs_watcher`] says so.
    pub fn enter(&self, name: &str) -> Visit {
        let mut map = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        let database = map
            .entry(name.to_owned())
            .or_insert_with(|| Arc::new(Database::new(name.to_owned(), self.stripes.clone())));
        database.visits.fetch_add(1, Ordering::SeqCst);
        database.leave_now.store(false, Ordering::SeqCst);
        Visit(database.clone())
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Database>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Somebody has dropped, renamed or copied a database, or tried to: any name may mean another one now. Connections to
    /// databases without clients are closed at once, since they are in the way.
    pub fn may_have_changed(&self) {
        for database in self.by_name.lock().unwrap_or_else(PoisonError::into_inner).values() {
            database.doubt();
            if database.visitors() == 0 {
                database.leave_now.store(true, Ordering::SeqCst);
                database.wake.notify_one();
            }
        }
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
