//! The connections to the upstream on behalf of clients: how many there may be, whose turn it is, and who may take which.
//!
//! **Invariant.** A live connection holds exactly one [`Permit`] and is in exactly one place: with a session, in its [`Slot`], in
//! the list of idle ones (mode `session`), or in the hands of whoever opens or closes it. There are never more permits than
//! `pool.max_upstream_connections`, nor more of one user or into one database than is allowed. What is in a slot or in the list is clean.
//!
//! Shared connections that are alike (equal [`PoolKey`]s) are a group, and so are the dedicated ones of one user into one database. In a group clients are served in the order in which they came.
//! Between groups a connection that is idle gives way to whoever waits elsewhere, if he may have one more then, and one that is wanted
//! in its own group too gives way to a group that has at least two fewer, so that no group starves and none closes and opens in turns.
//!
//! The lock on the state is taken only when a connection changes hands, is opened or closed, or somebody waits.

mod clean;
mod group;
mod kind;
mod slot;
mod turns;
mod wait;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::backend::{Backend, is_quiet, register};
use super::login::{Connection, UpstreamSecret};
use crate::config;
use crate::wire::startup::StartupMessage;

use clean::clean;
use group::{Group, Waiter};
use kind::Name;
pub use kind::{Kind, Owner, PoolKey, Recipe};
pub use slot::{Holder, NOBODY, Slot, TenantId};
pub use wait::{PoolFull, Waiting};

/// How long `DISCARD ALL` may take.
const CLEANING: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub struct Pool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Clients that wait. Looked at without the lock whenever a connection comes back.
    waiting: AtomicUsize,
    tenants: AtomicU64,
    /// Counts the times that what new connections begin with has changed.
    generation: AtomicU64,
    /// How many [`KeepsNone`] there are.
    keeps_none: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limits: Limits,
    permits: usize,
    /// The same of each user, and into each database, that has any.
    by_user: HashMap<Name, usize>,
    by_database: HashMap<Name, usize>,
    tickets: u64,
    slots: u64,
    groups: HashMap<Kind, Group>,
    /// Dedicated connections that were cleaned.
    idle: VecDeque<Idle>,
}

#[derive(Debug, Clone)]
struct Limits {
    connections: usize,
    /// Of one user, and into one database; 0 for no other bound than `connections`.
    per_user: usize,
    per_database: usize,
    /// In one group of shared ones; 0 for no other bound than `connections`.
    size: usize,
    min_size: usize,
    max_idle: usize,
    idle_timeout: Duration,
}

/// The right to one upstream connection.
#[derive(Debug)]
pub struct Permit {
    /// `None` once it has been taken back.
    pool: Option<Arc<Inner>>,
    kind: Kind,
    slot: Option<u64>,
}

/// While there is one, connections whose clients have left are closed.
#[derive(Debug)]
pub struct KeepsNone(Arc<Inner>);

/// What one who waited gets.
#[derive(Debug)]
pub enum Grant {
    /// A connection that is there.
    Backend(Arc<Slot>, Box<Backend>),
    /// The right to open one.
    Permit(Permit),
}

/// Connections that are closed when this is dropped, which must not be done under the lock: their permits need it.
#[derive(Debug, Default)]
struct Doomed {
    shared: Vec<Backend>,
    idle: Option<Idle>,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    permit: Permit,
    key: PoolKey,
    since: Instant,
}

impl From<&config::Pool> for Limits {
    fn from(pool: &config::Pool) -> Self {
        Self {
            connections: pool.max_upstream_connections,
            per_user: pool.max_connections_per_user,
            per_database: pool.max_connections_per_database,
            size: pool.size,
            min_size: pool.min_size,
            max_idle: pool.max_idle,
            idle_timeout: Duration::from_secs(pool.idle_timeout_secs),
        }
    }
}

impl Pool {
    pub fn new(config: &config::Pool) -> Self {
        let state = State {
            limits: config.into(),
            permits: 0,
            by_user: HashMap::new(),
            by_database: HashMap::new(),
            tickets: 0,
            slots: 0,
            groups: HashMap::new(),
            idle: VecDeque::new(),
        };
        Self(Arc::new(Inner {
            waiting: AtomicUsize::new(0),
            tenants: AtomicU64::new(NOBODY),
            generation: AtomicU64::new(0),
            keeps_none: AtomicUsize::new(0),
            state: Mutex::new(state),
        }))
    }

    /// The configuration has changed.
    pub fn set_limits(&self, config: &config::Pool) {
        let mut state = self.0.state();
        state.limits = config.into();
        state.serve(&self.0);
        drop(state);
        self.sweep();
    }

    /// Somebody new who may be a tenant.
    pub fn tenant(&self) -> TenantId {
        self.0.tenants.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Connections that are opened from now on begin with other settings: whoever logs in from now on gets none of the old ones.
    pub fn begin_generation(&self) {
        self.0.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// The kind of connection that a client needs who logs in now.
    pub fn key(&self, startup: &StartupMessage, secret: &UpstreamSecret) -> PoolKey {
        PoolKey::new(startup, secret, self.0.generation.load(Ordering::SeqCst))
    }

    /// Whether somebody waits for a connection.
    pub fn is_wanted(&self) -> bool {
        self.0.waiting.load(Ordering::SeqCst) > 0
    }

    /// Asks for a dedicated connection, or a shared one of this group: the turn may have come at once.
    pub fn ask(&self, kind: Kind) -> Waiting {
        let (give, receive) = oneshot::channel();
        let mut state = self.0.state();
        state.tickets += 1;
        let ticket = state.tickets;
        let group = state.groups.entry(kind).or_default();
        group.queue.push_back(Waiter::new(ticket, give));
        self.0.waiting.fetch_add(1, Ordering::SeqCst);
        let doomed = state.feed(kind, &self.0);
        let holders =
            if state.groups.get(&kind).is_some_and(Group::is_hungry) { state.holders(&kind) } else { Vec::new() };
        drop(state);
        // What they hold is given back under the lock.
        drop(doomed);
        holders.iter().for_each(|holder| holder.is_wanted());
        Waiting::new(self.0.clone(), kind, ticket, receive)
    }

    /// The right to a dedicated connection, when it is this client's turn.
    pub async fn acquire(&self, owner: Owner, wait: Duration) -> Result<Permit, PoolFull> {
        let grant = match self.ask(Kind::Dedicated(owner)).now() {
            Ok(grant) => grant,
            Err(waiting) => waiting.turn(wait).await?,
        };
        match grant {
            Grant::Permit(permit) => Ok(permit),
            // There are no slots in such a group.
            Grant::Backend(_, backend) => Ok(backend.into_parts().1),
        }
    }

    /// How connections of this group are opened, if there are any.
    pub fn recipe(&self, key: &PoolKey) -> Option<Arc<Recipe>> {
        let state = self.0.state();
        state.groups.get(&Kind::Shared(*key)).filter(|group| group.permits > 0)?.recipe.clone()
    }

    /// A connection of this group that was nobody's gets a tenant, who may know its pid.
    pub fn adopt(&self, key: &PoolKey) -> Option<(Arc<Slot>, TenantId, i32)> {
        let tenant = self.tenant();
        let state = self.0.state();
        let mut slots = state.groups.get(&Kind::Shared(*key))?.slots.iter();
        slots.find_map(|slot| Some((slot.clone(), tenant, slot.adopt(tenant)?)))
    }

    /// A connection of this group has been opened: its slot.
    pub fn admit(&self, permit: &mut Permit, recipe: Arc<Recipe>) -> Arc<Slot> {
        let mut state = self.0.state();
        state.slots += 1;
        let slot = Arc::new(Slot::new(state.slots));
        permit.slot = Some(state.slots);
        if let Some(group) = state.groups.get_mut(&permit.kind) {
            group.slots.push(slot.clone());
            group.recipe = Some(recipe);
        }
        slot
    }

    /// A clean connection comes back. Its tenant finds it again if nobody else needs it.
    pub fn park(&self, slot: &Arc<Slot>, backend: Box<Backend>, tenant: TenantId, lifetime: Duration) {
        self.0.park(slot, backend, tenant, lifetime);
    }

    /// Takes back a dedicated connection on which nothing is outstanding. It is cleaned and kept, or closed.
    pub async fn give_back(&self, backend: Backend, key: PoolKey) {
        let (mut connection, permit) = backend.into_parts();
        let Connection { stream, buffer, parameters, .. } = &mut connection;
        let report = |name: &[u8], value: &[u8]| {
            parameters.retain(|(known, _)| known != name);
            parameters.push((Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
        };
        let cleaned = timeout(CLEANING, clean(stream, buffer, report)).await;
        if cleaned.is_ok_and(|cleaned| cleaned.is_some()) && self.0.keeps_none.load(Ordering::SeqCst) == 0 {
            let since = Instant::now();
            self.0.state().idle.push_back(Idle { connection, permit, key, since });
        }
        self.sweep();
    }

    /// An idle dedicated connection that is as good as a new one, driven by the present thread, and since when it is idle.
    pub fn take(&self, key: &PoolKey) -> Option<(Connection, Permit, Instant)> {
        self.sweep();
        loop {
            let mut state = self.0.state();
            let place = state.idle.iter().rposition(|idle| idle.key == *key)?;
            let mut found = state.idle.remove(place)?;
            drop(state);
            let stream = &mut found.connection.stream;
            if is_quiet(stream) && register(stream).is_ok() {
                return Some((found.connection, found.permit, found.since));
            }
        }
    }

    /// Takes back a shared connection on which nothing is outstanding, but whose last user has left state in it.
    pub async fn give_back_dirty(&self, slot: &Arc<Slot>, mut backend: Box<Backend>, lifetime: Duration) {
        let Backend { stream, input, reported, .. } = &mut *backend;
        let cleaned = timeout(CLEANING, clean(stream, input, |name, value| reported.report(name, value))).await;
        if cleaned.is_ok_and(|cleaned| cleaned.is_some()) {
            backend.is_discarded();
            self.park(slot, backend, NOBODY, lifetime);
        }
    }

    /// Less than half of the connections that there may be are open.
    pub fn has_room(&self) -> bool {
        let state = self.0.state();
        state.permits * 2 < state.limits.connections
    }

    /// Connections that may still be opened.
    pub fn free(&self) -> usize {
        let state = self.0.state();
        state.limits.connections.saturating_sub(state.permits)
    }

    /// Clients that wait for one.
    pub fn waiting(&self) -> usize {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// Connections that there may be.
    pub fn limit(&self) -> usize {
        self.0.state().limits.connections
    }

    /// Idle connections at present.
    pub fn idle_connections(&self) -> usize {
        let state = self.0.state();
        let here = std::thread::current().id();
        let slots = state.groups.values().flat_map(|group| &group.slots);
        state.idle.len() + slots.filter(|slot| slot.parked(here).is_some()).count()
    }

    /// Keeps no connection whose client has left for as long as the answer lives. To the server they are still somebody's who is
    /// in his database, which can then neither be dropped, renamed nor copied.
    pub fn keep_none(&self) -> KeepsNone {
        self.0.keeps_none.fetch_add(1, Ordering::SeqCst);
        self.close_vacant();
        KeepsNone(self.0.clone())
    }

    /// The tenant will not come back: what he has left in his slot is nobody's.
    pub fn vacate(&self, slot: &Slot, tenant: TenantId) {
        drop(slot.vacate(tenant));
        if self.0.keeps_none.load(Ordering::SeqCst) > 0 {
            self.close_vacant();
        }
    }

    fn close_vacant(&self) {
        let mut state = self.0.state();
        let idle = std::mem::take(&mut state.idle);
        let slots = state.groups.values().flat_map(|group| &group.slots);
        let vacant: Vec<_> = slots.filter_map(|slot| slot.take_vacant()).collect();
        drop(state);
        // They give their permits back under the lock.
        drop((idle, vacant));
    }

    /// Closes what has ended, is idle for too long, or too many.
    pub fn sweep(&self) {
        let mut state = self.0.state();
        let limits = state.limits.clone();
        let mut idle = Vec::new();
        let overdue = |since: Instant| since.elapsed() >= limits.idle_timeout;
        while state.idle.len() > limits.max_idle || state.idle.front().is_some_and(|oldest| overdue(oldest.since)) {
            idle.extend(state.idle.pop_front());
        }
        let mut stale = Vec::new();
        for group in state.groups.values() {
            let mut spare = group.permits.saturating_sub(limits.min_size);
            for slot in &group.slots {
                let unused = |since: Instant| spare > 0 && overdue(since);
                if let Some(backend) = slot.take_stale(unused) {
                    spare = spare.saturating_sub(1);
                    stale.push(backend);
                }
            }
        }
        drop(state);
        // They give their permits back under the lock.
        drop((idle, stale));
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn park(self: &Arc<Self>, slot: &Arc<Slot>, backend: Box<Backend>, tenant: TenantId, lifetime: Duration) {
        if backend.age() >= lifetime || (tenant == NOBODY && self.keeps_none.load(Ordering::SeqCst) > 0) {
            return;
        }
        let kind = backend.permit().kind;
        slot.put(backend, tenant);
        // Whoever begins to wait from here on finds it in its slot.
        if self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let mut state = self.state();
        let doomed = state.feed(kind, self);
        drop(state);
        drop(doomed);
    }
}

impl Drop for KeepsNone {
    fn drop(&mut self) {
        self.0.keeps_none.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(pool) = self.pool.take() else { return };
        let mut state = pool.state();
        state.give_back(&self.kind);
        if let Some(group) = state.groups.get_mut(&self.kind) {
            group.permits -= 1;
            group.slots.retain(|slot| Some(slot.id) != self.slot);
            if group.permits == 0 && !group.is_hungry() {
                state.groups.remove(&self.kind);
            }
        }
        state.serve(&pool);
    }
}

#[cfg(test)]
mod tests;
