//! One database of the upstream, as the cache sees it.
//!
//! **Invariant.** Whoever uses a [`Database`], its sessions and its watcher, is connected to the same address, and for each address
//! and name there is but one. When connections begin to go to another address, because of a failover or because a name means
//! another machine, every database of the old one *sleeps*: everything in it is marked, so none of its entries is served and
//! nothing is recorded, whatever its last sessions still read from the old server, or write there. Should connections go there
//! again it wakes: the mark is settled, so nothing from before is valid, and what lost backends may still write stays marked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, watch};
use tracing::warn;

use super::analysis::{Analysis, AnalysisKey};
use super::fingerprint::Fingerprint;
use super::model::Model;
use crate::cache::limbo::{BackendPid, Limbo, Orphan};
use crate::cache::versions::{Marks, Stripes, Versions, WriteSet};
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
    pub name: String,
    /// Of the server that it is in.
    pub server: Address,
    pub versions: Versions,
    pub(super) limbo: Limbo,
    /// Of everything, while it sleeps.
    asleep: Mutex<Option<Marks>>,
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
    visits: AtomicUsize,
    pub(super) watched: AtomicBool,
    /// The fingerprint under which the present epoch began, as far as it was ever read.
    pub(super) fingerprint: Mutex<Option<Fingerprint>>,
    first: watch::Sender<bool>,
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
    fn new(number: u64, name: String, server: Address, stripes: Arc<Stripes>) -> Self {
        Self {
            name,
            server,
            versions: Versions::new(stripes),
            limbo: Limbo::default(),
            asleep: Mutex::new(None),
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

    /// A backend was lost, and nobody could see what has become of its writes: the watcher looks after it.
    pub fn lost(&self, backend: BackendPid, orphan: Orphan) {
        self.limbo.add(backend, orphan);
        if self.is_asleep() {
            self.widen_limbo();
        }
        self.wake.notify_one();
    }

    /// Connections go to another server.
    fn fall_asleep(&self) {
        self.asleep().get_or_insert_with(|| self.versions.mark(&WriteSet::Everything));
        self.widen_limbo();
        self.wake.notify_one();
    }

    /// Connections go to this server again.
    fn wake_up(&self) {
        if let Some(marks) = self.asleep().take() {
            marks.settle();
        }
    }

    pub(super) fn is_asleep(&self) -> bool {
        self.asleep().is_some()
    }

    /// What lost backends may write is marked as everything: nobody may be able to ask their server again, and databases of other
    /// servers share the stripes.
    fn widen_limbo(&self) {
        self.limbo.replace_marks(|| self.versions.mark(&WriteSet::Everything));
    }

    fn asleep(&self) -> MutexGuard<'_, Option<Marks>> {
        self.asleep.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Where connections go, for those who ask often; `None` before the first one. Changed only while `known` is locked.
    server: ArcSwapOption<Address>,
    known: Mutex<Known>,
    stripes: Arc<Stripes>,
}

#[derive(Default)]
struct Known {
    databases: HashMap<(Address, String), Arc<Database>>,
    /// How many were ever made.
    made: u64,
}

/// A session's stay in a database: while there is one, the catalogue is watched.
pub struct Visit(Arc<Database>);

impl Databases {
    /// `stripes` is the number of counters that all of them share for values of columns.
    pub fn new(stripes: usize) -> Self {
        Self { server: ArcSwapOption::empty(), known: Mutex::default(), stripes: Arc::new(Stripes::new(stripes)) }
    }

    /// Enters `name` on a connection to `server`; the caller starts a watcher if [`Visit::needs_watcher`] says so. From then on
    /// connections are taken to go to that server.
    pub fn enter(&self, name: &str, server: &Address) -> Visit {
        let mut known = self.known();
        self.change_to(server, &mut known);
        let Known { databases, made, .. } = &mut *known;
        let database = databases.entry((server.clone(), name.to_owned())).or_insert_with(|| {
            *made += 1;
            Arc::new(Database::new(*made, name.to_owned(), server.clone(), self.stripes.clone()))
        });
        database.visits.fetch_add(1, Ordering::SeqCst);
        database.leave_now.store(false, Ordering::SeqCst);
        Visit(database.clone())
    }

    /// A connection was opened to `server`: that is where connections go.
    pub fn go_to(&self, server: &Address) {
        self.change_to(server, &mut self.known());
    }

    /// Where connections go; `None` before the first one.
    pub fn server(&self) -> Option<Address> {
        self.server.load().as_deref().cloned()
    }

    /// Whether a connection to `server` goes where connections go.
    pub fn are_at(&self, server: &Address) -> bool {
        self.server.load().as_deref().is_none_or(|present| present == server)
    }

    /// Those of the server that connections go to.
    pub fn all(&self) -> Vec<Arc<Database>> {
        self.known().databases.values().filter(|database| self.are_at(&database.server)).cloned().collect()
    }

    /// Somebody has dropped, renamed or copied a database, or tried to: any name may mean another one now. Connections to
    /// databases without clients are closed at once, since they are in the way.
    pub fn may_have_changed(&self) {
        for database in self.known().databases.values() {
            database.doubt();
            if database.visitors() == 0 {
                database.leave_now.store(true, Ordering::SeqCst);
                database.wake.notify_one();
            }
        }
    }
}

impl Databases {
    fn change_to(&self, server: &Address, known: &mut Known) {
        let old = self.server.load();
        if old.as_deref() == Some(server) || *server == Address::Nowhere {
            return;
        }
        if let Some(old) = old.as_deref() {
            warn!(%old, new = %server, "connections go to another server: cached results are void");
        }
        known.databases.values().for_each(|database| database.fall_asleep());
        self.server.store(Some(Arc::new(server.clone())));
        // Nobody is in it, and nothing that it knows would be missed.
        known.databases.retain(|_, database| database.visitors() > 0 || !database.limbo.waiting().is_empty());
        known.databases.values().filter(|database| database.server == *server).for_each(|database| database.wake_up());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::versions::{TableOid, TableRead};

    fn server(name: &str) -> Address {
        Address::Unix(name.to_owned())
    }

    #[test]
    fn what_rests_on_another_server_is_never_served_again() {
        let databases = Databases::new(64);
        let old = databases.enter("app", &server("old"));
        let same = databases.enter("app", &server("old"));
        assert!(Arc::ptr_eq(old.database(), same.database()));
        let versions = &old.database().versions;
        let table = versions.table(TableOid(1));
        let observe = || versions.observe([TableRead::any_row(&table)]);
        let before = observe().expect("nothing is in flight");
        let quiet = versions.quiet().expect("nothing is in flight");

        let new = databases.enter("app", &server("new"));
        assert!(!Arc::ptr_eq(old.database(), new.database()));
        assert!(old.database().is_asleep() && !new.database().is_asleep());
        assert!(!before.hold(), "an entry");
        assert!(observe().is_none(), "a fill that begins");
        assert!(versions.observe_since(quiet, []).is_none(), "a fill that began before");
        // What its sessions write settles, and changes nothing of that.
        versions.mark(&WriteSet::Everything).settle();
        assert!(observe().is_none() && !before.hold());
        assert!(databases.are_at(&server("new")) && !databases.are_at(&server("old")));
        assert_eq!(databases.all().len(), 1);
    }

    #[test]
    fn who_stayed_on_a_server_that_is_gone_to_again_is_heard_by_those_who_come() {
        let databases = Databases::new(64);
        let stayed = databases.enter("app", &server("old"));
        let versions = &stayed.database().versions;
        let before = versions.observe([]).expect("nothing is in flight");
        drop(databases.enter("app", &server("new")));
        let back = databases.enter("app", &server("old"));
        assert!(Arc::ptr_eq(stayed.database(), back.database()), "they invalidate the same entries");
        assert!(!stayed.database().is_asleep());
        assert!(!before.hold(), "what has happened in between nobody has seen");
        assert!(versions.observe([]).is_some_and(|now| now.hold()));
    }

    #[test]
    fn nothing_is_kept_of_servers_that_nobody_is_on() {
        let databases = Databases::new(64);
        for number in 0..10 {
            drop(databases.enter("app", &server(&number.to_string())));
        }
        assert_eq!(databases.known().databases.len(), 1);
    }

    #[test]
    fn writes_lost_on_another_server_stay_marked_there_and_nowhere_else() {
        let databases = Databases::new(1);
        let old = databases.enter("app", &server("old"));
        let versions = &old.database().versions;
        let table = versions.table(TableOid(1));
        let any_row = || versions.mark(&WriteSet::any_row_of([table.clone()]));
        old.database().lost(BackendPid(1), Orphan { marks: vec![any_row()], doubts_catalog: false });
        let new = databases.enter("app", &server("new"));
        old.database().lost(BackendPid(2), Orphan { marks: vec![any_row()], doubts_catalog: false });
        assert!(new.database().versions.quiet().is_some());
        drop(old);

        // It was the network: the server is there again, and so may be the backends.
        let back = databases.enter("app", &server("old"));
        let database = back.database();
        assert_eq!(database.limbo.waiting(), [BackendPid(1), BackendPid(2)]);
        assert!(database.versions.observe([]).is_none());
        for pid in [1, 2] {
            database.limbo.gone(BackendPid(pid)).into_iter().flat_map(|orphan| orphan.marks).for_each(Marks::settle);
        }
        assert!(database.versions.observe([TableRead::any_row(&table)]).is_some());
    }
}
