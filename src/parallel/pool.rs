//! The connections that work on split statements: how many there may be, and which idle ones are used again.
//!
//! **Invariant.** A link holds exactly one permit of `parallel.max_connections`, whether it works or is idle. An idle one owes
//! nothing, is in no transaction, and has the settings of its key.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::link::Link;
use crate::upstream::login::UpstreamSecret;
use crate::upstream::pool::PoolKey;

/// How to log in as a client's user: with its own start-up parameters, and what it has proved to know.
pub struct Account {
    /// Equal for accounts whose connections are alike.
    pub key: PoolKey,
    pub protocol: u32,
    pub parameters: Vec<(Bytes, Bytes)>,
    pub secret: UpstreamSecret,
}

/// Links with equal keys are alike: the same account, and the same settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkKey {
    pub account: PoolKey,
    /// Of [`SessionSettings`](super::SessionSettings).
    pub settings: [u8; 32],
}

pub struct LinkPool {
    max_connections: usize,
    permits: Arc<Semaphore>,
    idle: Mutex<VecDeque<Idle>>,
    idle_timeout: Duration,
}

/// The right to one connection.
#[derive(Debug)]
pub struct LinkPermit(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

struct Idle {
    link: Link,
    permit: LinkPermit,
    key: LinkKey,
    since: Instant,
}

impl LinkPool {
    pub fn new(max_connections: usize, idle_timeout: Duration) -> Self {
        let max_connections = max_connections.min(Semaphore::MAX_PERMITS);
        let permits = Arc::new(Semaphore::new(max_connections));
        Self { max_connections, permits, idle: Mutex::default(), idle_timeout }
    }

    /// An idle link that is as good as a new one.
    pub fn take(&self, key: &LinkKey) -> Option<(Link, LinkPermit)> {
        loop {
            let mut idle = self.idle();
            let place = idle.iter().rposition(|idle| idle.key == *key)?;
            let found = idle.remove(place)?;
            drop(idle);
            if found.link.is_quiet() {
                return Some((found.link, found.permit));
            }
        }
    }

    /// The right to a new link, if one is left; an idle link of another kind gives way. Nobody waits: there is always the
    /// session's own connection.
    pub fn permit(&self) -> Option<LinkPermit> {
        loop {
            if let Ok(permit) = self.permits.clone().try_acquire_owned() {
                return Some(LinkPermit(permit));
            }
            // Dropped outside the lock's scope, and with it its permit.
            let oldest = self.idle().pop_front();
            drop(oldest?);
        }
    }

    /// Links that could be had now.
    pub fn available(&self) -> usize {
        self.permits.available_permits() + self.idle().len()
    }

    pub fn give_back(&self, link: Link, key: LinkKey, permit: LinkPermit) {
        self.idle().push_back(Idle { link, permit, key, since: Instant::now() });
    }

    pub fn idle_connections(&self) -> usize {
        self.idle().len()
    }

    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    pub fn close_idle(&self) {
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
    }

    /// Closes what is idle for too long.
    pub fn sweep(&self) {
        let mut idle = self.idle();
        while idle.front().is_some_and(|oldest| oldest.since.elapsed() >= self.idle_timeout) {
            idle.pop_front();
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
