//! Where a shared connection stays between two transactions.
//!
//! **Invariant.** A slot belongs to one connection for as long as that lives. The connection in it is clean: everything answered,
//! no transaction, and nothing of its last user's in it but what [`Backend`] says. It goes back to its last user, its
//! tenant, for the cost of one lock that nobody else wants, unless somebody else has taken it in between, which makes him
//! the tenant.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::ThreadId;
use std::time::Instant;

use crate::upstream::backend::Backend;

/// Whoever uses a shared connection. Nobody is 0.
pub type TenantId = u64;

pub const NOBODY: TenantId = 0;

/// A tenant that keeps an idle connection, since it may hold state of his.
pub trait Holder: Send + Sync {
    /// Others wait for it: he should find out, and give it back if it holds none.
    fn is_wanted(&self);
}

#[derive(Debug)]
pub struct Slot {
    pub(super) id: u64,
    place: Mutex<Place>,
}

struct Place {
    tenant: TenantId,
    backend: Option<Box<Backend>>,
    since: Instant,
    holder: Option<Arc<dyn Holder>>,
}

/// What is known of a connection that waits in its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parked {
    pub is_free: bool,
    pub is_near: bool,
    pub since: Instant,
}

impl Slot {
    pub(super) fn new(id: u64) -> Self {
        let place = Place { tenant: NOBODY, backend: None, since: Instant::now(), holder: None };
        Self { id, place: Mutex::new(place) }
    }

    /// The tenant's own connection, if nobody else has taken it.
    pub fn take_home(&self, tenant: TenantId) -> Option<Box<Backend>> {
        let mut place = self.place();
        if place.tenant == tenant { place.backend.take() } else { None }
    }

    /// Gives a connection that is nobody's to this tenant. Its pid.
    pub(super) fn adopt(&self, tenant: TenantId) -> Option<i32> {
        let mut place = self.place();
        let pid = place.backend.as_ref().filter(|_| place.tenant == NOBODY)?.pid;
        place.tenant = tenant;
        Some(pid)
    }

    /// The tenant is gone. His connection, if it cannot be a newcomer's.
    pub(super) fn vacate(&self, tenant: TenantId) -> Option<Box<Backend>> {
        let mut place = self.place();
        if place.tenant != tenant {
            return None;
        }
        place.tenant = NOBODY;
        place.backend.take_if(|backend| backend.has_temporary_schema)
    }

    /// Takes a connection that is nobody's.
    pub(super) fn take_vacant(&self) -> Option<Box<Backend>> {
        let mut place = self.place();
        if place.tenant == NOBODY { place.backend.take() } else { None }
    }

    /// The tenant keeps the connection, but is asked when somebody wants it.
    pub fn hold(&self, holder: Arc<dyn Holder>) {
        self.place().holder = Some(holder);
    }

    pub(super) fn put(&self, mut backend: Box<Backend>, tenant: TenantId) {
        let mut place = self.place();
        let now = Instant::now();
        backend.rests(now);
        place.tenant = tenant;
        place.backend = Some(backend);
        place.since = now;
        place.holder = None;
    }

    pub(super) fn take(&self) -> Option<Box<Backend>> {
        let mut place = self.place();
        let backend = place.backend.take()?;
        place.tenant = NOBODY;
        Some(backend)
    }

    /// Whether a connection is here to be taken, as seen from `thread`.
    pub(super) fn parked(&self, thread: ThreadId) -> Option<Parked> {
        let place = self.place();
        let backend = place.backend.as_ref()?;
        Some(Parked { is_free: place.tenant == NOBODY, is_near: backend.thread() == thread, since: place.since })
    }

    /// Takes the connection if it has ended, or `unused` says that it was here for too long.
    pub(super) fn take_stale(&self, unused: impl Fn(Instant) -> bool) -> Option<Box<Backend>> {
        let mut place = self.place();
        let since = place.since;
        place.backend.take_if(|backend| unused(since) || !backend.is_quiet())
    }

    pub(super) fn holder(&self) -> Option<Arc<dyn Holder>> {
        self.place().holder.take()
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("tenant", &self.tenant).field("is_here", &self.backend.is_some()).finish()
    }
}
