//! Who a client is and what its session does, for people to look at.
//!
//! **Invariant.** Only the session itself writes its [`Activity`]; whoever reads it sees values that were true a moment ago. So
//! writing costs a plain store and no session waits for anybody who looks.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::time::Instant;

use super::block::Status;
use crate::telemetry::metrics::Pin;

/// What does not change while a client is connected.
#[derive(Debug)]
pub struct Who {
    pub database: String,
    pub user: String,
    /// As it was at the start.
    pub application_name: String,
    /// `None` for a Unix socket.
    pub address: Option<SocketAddr>,
    pub tls: bool,
    pub since: Instant,
}

/// What a session does.
#[derive(Debug, Default)]
pub struct Activity {
    state: AtomicU8,
    /// The upstream backend that works for it; 0 for none.
    backend: AtomicI32,
    /// A [`Pin`] and one; 0 for none.
    pin: AtomicU8,
    queries: AtomicU64,
    hits: AtomicU64,
}

/// Whether something runs for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Doing {
    Idle,
    Active,
    IdleInTransaction,
}

impl Doing {
    pub fn label(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Active => "active",
            Self::IdleInTransaction => "idle in transaction",
        }
    }
}

impl Activity {
    pub fn doing(&self) -> Doing {
        match self.state.load(Ordering::Relaxed) {
            1 => Doing::Active,
            2 => Doing::IdleInTransaction,
            _ => Doing::Idle,
        }
    }

    pub fn backend(&self) -> i32 {
        self.backend.load(Ordering::Relaxed)
    }

    /// What keeps its connection from being shared.
    pub fn pin(&self) -> Option<Pin> {
        let number = self.pin.load(Ordering::Relaxed).checked_sub(1)?;
        Pin::ALL.get(usize::from(number)).copied()
    }

    pub(super) fn is_tied(&self, pin: Option<Pin>) {
        self.pin.store(pin.map_or(0, |pin| pin as u8 + 1), Ordering::Relaxed);
    }

    /// Requests that were answered.
    pub fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed) + self.hits()
    }

    /// Those of them that were answered from the cache.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    pub(super) fn works_on(&self, backend: i32) {
        self.backend.store(backend, Ordering::Relaxed);
    }

    /// A request is on its way to the upstream.
    pub(super) fn begins(&self) {
        self.state.store(Doing::Active as u8, Ordering::Relaxed);
    }

    /// The upstream has answered everything it was sent.
    pub(super) fn rests(&self, status: Status) {
        let doing = if status == Status::Idle { Doing::Idle } else { Doing::IdleInTransaction };
        self.state.store(doing as u8, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        increment(&self.queries);
    }

    pub(super) fn hit(&self) {
        increment(&self.hits);
    }
}

/// Nobody else writes it, so it need not be one atomic step.
fn increment(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

#[cfg(test)]
impl Default for Who {
    fn default() -> Self {
        let (database, user, application_name) = Default::default();
        Self { database, user, application_name, address: None, tls: false, since: Instant::now() }
    }
}
