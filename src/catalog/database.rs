//! One database of the upstream, as the cache sees it.
//!
//! **Invariant.** Whoever uses a [`Database`], its sessions and its watcher, is connected to the same address. While it *sleeps* or is
//! *held back* everything in it is marked, so none of its entries is served and nothing is recorded, whatever its sessions read or
//! write. When that is over the mark is settled, so nothing from before is valid; what lost backends may still write stays marked.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};

use super::analysis::{Analysis, AnalysisKey};
use super::fingerprint::Fingerprint;
use super::model::Model;
use crate::cache::limbo::{BackendPid, Limbo, Orphan};
use crate::cache::versions::{Hold, Stripes, Versions, WriteSet};
use crate::upstream::peer::Address;

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
    /// No other database has it, be it of the same name on another server.
    pub number: u64,
    pub name: String,
    /// Of the server that it is in.
    pub server: Address,
    pub versions: Versions,
    pub(super) limbo: Limbo,
    /// While connections go to another server.
    asleep: Hold,
    /// While another process of the proxy may pass writes that this one does not see.
    held_back: Hold,
    /// Counts the changes of the catalogue, from a number that no epoch of another database has.
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
    pub(super) visits: AtomicUsize,
    pub(super) watched: AtomicBool,
    /// The fingerprint under which the present epoch began, as far as it was ever read.
    pub(super) fingerprint: Mutex<Option<Fingerprint>>,
    first: watch::Sender<bool>,
    /// Says when the catalogue was looked at.
    looks: watch::Sender<()>,
    pub(super) wake: Notify,
    pub(super) leave_now: AtomicBool,
    attendance: Mutex<Option<Attendance>>,
}

/// A control connection to a database.
#[derive(Debug, Clone)]
pub struct Attendance {
    since: Instant,
    /// False once it has ended.
    lives: Arc<AtomicBool>,
}

impl Attendance {
    pub(super) fn begins() -> Self {
        Self { since: Instant::now(), lives: Arc::new(AtomicBool::new(true)) }
    }

    pub fn ends(&self) {
        self.lives.store(false, Ordering::SeqCst);
    }
}

impl Database {
    /// The `number`th that is made.
    pub(super) fn new(number: u64, name: String, server: Address, stripes: Arc<Stripes>) -> Self {
        Self {
            number,
            name,
            server,
            versions: Versions::new(stripes),
            limbo: Limbo::default(),
            asleep: Hold::default(),
            held_back: Hold::default(),
            epoch: AtomicU64::new(number << 32),
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
            looks: watch::Sender::new(()),
            wake: Notify::new(),
            leave_now: AtomicBool::new(false),
            attendance: Mutex::new(None),
        }
    }

    pub(super) fn attend(&self, attendance: Attendance) {
        *self.attendance.lock().unwrap_or_else(PoisonError::into_inner) = Some(attendance);
    }

    /// Whether one and the same control connection has lived since then: the server was not stopped in between.
    pub fn is_attended_since(&self, instant: Instant) -> bool {
        let attendance = self.attendance.lock().unwrap_or_else(PoisonError::into_inner);
        attendance.as_ref().is_some_and(|present| present.since <= instant && present.lives.load(Ordering::SeqCst))
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

    /// Whether nothing has been seen that speaks against the epoch, though nobody may be looking at present.
    pub fn is_undoubted(&self) -> bool {
        !self.in_doubt() && !self.is_asleep()
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
        self.looks.send_replace(());
    }

    /// Nobody is left: the next session is a first one again.
    pub(super) fn is_left(&self) {
        self.first.send_replace(false);
    }

    /// Ends when a model has been read since the first of the present sessions came.
    pub async fn first_model(&self) {
        // The sender lives as long as the database.
        let _ = self.first.subscribe().wait_for(|ready| *ready).await;
    }

    /// Ends at a moment at which the model is the present one, and nobody doubts it.
    pub async fn certainty(&self) {
        let _ = self.looks.subscribe().wait_for(|()| self.is_certain()).await;
    }

    pub(super) fn publish(&self, model: Option<Model>) {
        let ready = model.is_some();
        self.model.store(model.map(Arc::new));
        if ready {
            self.first.send_replace(true);
        }
    }

    /// Whether [`latest_model`](Self::latest_model) would return one.
    pub fn has_model(&self) -> bool {
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

    /// A backend was lost, and nobody could see what has become of its writes: the watcher looks after it.
    pub fn lost(&self, backend: BackendPid, orphan: Orphan) {
        self.limbo.add(backend, orphan);
        if self.is_asleep() {
            self.widen_limbo();
        }
        self.wake.notify_one();
    }

    /// Connections go to another server.
    pub(super) fn fall_asleep(&self) {
        self.asleep.set(&self.versions);
        self.widen_limbo();
        self.wake.notify_one();
    }

    /// Connections go to this server again.
    pub(super) fn wake_up(&self) {
        self.asleep.lift();
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep.is_set()
    }

    /// Others may write, or change the catalogue, unseen from now on.
    pub(super) fn hold_back(&self) {
        self.held_back.set(&self.versions);
    }

    /// Nobody can any more. What has become of the catalogue is looked at before anything is served.
    pub(super) fn go_ahead(&self) {
        self.doubt();
        self.held_back.lift();
        self.wake.notify_one();
    }

    /// No write is on its way whose connection was lost.
    pub(super) fn is_settled(&self) -> bool {
        self.limbo.waiting().is_empty()
    }

    /// What lost backends may write is marked as everything: nobody may be able to ask their server again, and databases of other
    /// servers share the stripes.
    fn widen_limbo(&self) {
        self.limbo.replace_marks(|| self.versions.mark(&WriteSet::Everything));
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
