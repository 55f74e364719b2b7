//! All databases that clients have used, on whichever server.
//!
//! **Invariant.** For each address and name there is but one [`Database`]. When connections begin to go to another address, because of a
//! failover or because a name means another machine, every database of the old one sleeps. Should connections go there again it wakes.
//! While they are held back, all of them are, those included that are entered in the meantime.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use tracing::warn;

use super::database::Database;
use crate::cache::versions::Stripes;
use crate::upstream::peer::Address;

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
    held_back: bool,
    /// For good.
    retired: bool,
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
        let Known { databases, made, held_back, .. } = &mut *known;
        let database = databases.entry((server.clone(), name.to_owned())).or_insert_with(|| {
            *made += 1;
            let database = Database::new(*made, name.to_owned(), server.clone(), self.stripes.clone());
            if *held_back {
                database.hold_back();
            }
            Arc::new(database)
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

    /// Another process of the proxy may pass writes that this one does not see: nothing is served or recorded from now on.
    pub fn hold_back(&self) {
        let mut known = self.known();
        known.held_back = true;
        known.databases.values().for_each(|database| database.hold_back());
    }

    /// The same for good: what this process has seen is over.
    pub fn retire(&self) {
        self.known().retired = true;
        self.hold_back();
    }

    /// There is no such process any more.
    pub fn go_ahead(&self) {
        let mut known = self.known();
        if known.retired {
            return;
        }
        known.held_back = false;
        known.databases.values().for_each(|database| database.go_ahead());
    }

    /// Nobody who was lost may still write where connections go.
    pub fn are_settled(&self) -> bool {
        self.known().databases.values().all(|database| database.is_asleep() || database.is_settled())
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
    use crate::cache::limbo::{BackendPid, Orphan};
    use crate::cache::versions::{Marks, TableOid, TableRead, WriteSet};

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
        assert_ne!(old.database().number, new.database().number, "their entries have different keys");
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
    fn while_others_may_write_nothing_is_served_or_recorded_and_nothing_from_before_afterwards() {
        let databases = Databases::new(64);
        let early = databases.enter("app", &server("here"));
        let versions = &early.database().versions;
        let before = versions.observe([]).expect("nothing is in flight");
        databases.hold_back();
        databases.hold_back();
        assert!(!before.hold() && versions.observe([]).is_none());
        let late = databases.enter("other", &server("here"));
        assert!(late.database().versions.observe([]).is_none(), "one that is entered later is held back, too");
        // A failover there and back changes nothing of that.
        databases.go_to(&server("there"));
        databases.go_to(&server("here"));
        assert!(versions.observe([]).is_none());
        databases.go_ahead();
        assert!(early.database().in_doubt(), "the catalogue is looked at first");
        assert!(!before.hold());
        assert!(versions.observe([]).is_some_and(|now| now.hold()));
        assert!(late.database().versions.observe([]).is_some());

        databases.retire();
        databases.go_ahead();
        assert!(versions.observe([]).is_none());
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
