//! The connections that work on split statements: how many there may be, and which idle ones are used again.
//!
//! **Invariant.** A link holds exactly one permit of `parallel.max_connections`, whether it works or is idle. An idle one owes
//! nothing, is in no transaction, and has the settings of its key.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    /// How many [`KeepsNoLink`] there are.
    keeps_none: Arc<AtomicUsize>,
}

/// While there is one, links are closed when their work is done.
#[derive(Debug)]
pub struct KeepsNoLink(Arc<AtomicUsize>);

impl Drop for KeepsNoLink {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
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
        Self { max_connections, permits, idle: Mutex::default(), idle_timeout, keeps_none: Arc::default() }
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
        let mut idle = self.idle();
        // Under the lock: whoever lets none be kept closes after that what is idle.
        if self.keeps_none.load(Ordering::SeqCst) == 0 {
            idle.push_back(Idle { link, permit, key, since: Instant::now() });
        }
    }

    pub fn idle_connections(&self) -> usize {
        self.idle().len()
    }

    pub fn max_connections(&self) -> usize {
        self.max_connections
    }

    /// Closes idle links, and those that would become idle while the answer lives.
    pub fn keep_none(&self) -> KeepsNoLink {
        self.keeps_none.fetch_add(1, Ordering::SeqCst);
        let idle = std::mem::take(&mut *self.idle());
        drop(idle);
        KeepsNoLink(self.keeps_none.clone())
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use tokio::net::UnixStream;

    use super::*;
    use crate::upstream::login::Connection;
    use crate::upstream::peer::{Address, Peer};
    use crate::wire::startup::{FirstPacket, put_startup};
    use crate::wire::stream::Stream;

    fn key() -> LinkKey {
        let mut raw = BytesMut::new();
        put_startup(&mut raw, 196_608, [(&b"user"[..], &b"u"[..])]);
        let Ok(FirstPacket::Startup(startup)) = FirstPacket::decode(raw.freeze()) else { panic!("no start-up packet") };
        LinkKey { account: PoolKey::new(&startup, &UpstreamSecret::None, 0), settings: [0; 32] }
    }

    #[tokio::test]
    async fn a_link_that_becomes_idle_while_none_is_kept_is_closed() {
        let pool = LinkPool::new(1, Duration::MAX);
        let mut servers = Vec::new();
        let mut work = || {
            let (ours, theirs) = UnixStream::pair().unwrap();
            servers.push(theirs);
            let connection = Connection {
                stream: Stream::Unix(ours),
                peer: Peer { name: String::new(), address: Address::Unix(String::new()) },
                buffer: BytesMut::new(),
                parameters: Vec::new(),
                pid: 1,
                secret: Bytes::new(),
                notices: Vec::new(),
            };
            let permit = pool.permit().expect("the one there is");
            pool.give_back(Link::new(connection), key(), permit);
            pool.idle_connections()
        };
        assert_eq!(work(), 1);
        let none = pool.keep_none();
        assert_eq!((pool.idle_connections(), work()), (0, 0));
        drop(none);
        assert_eq!(work(), 1);
    }
}
