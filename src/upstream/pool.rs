//! Upstream connections of session-mode clients: how many there may be, and which idle ones are used again.
//!
//! **Invariant.** A live connection holds exactly one [`Permit`] and belongs to exactly one of: a session, the idle list. There
//! are never more permits than `pool.max_upstream_connections`. A connection comes into the idle list only clean: everything
//! answered, no transaction, `DISCARD ALL` done; and only under the key of what it was opened with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::backend::Backend;
use super::login::{Connection, UpstreamSecret};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{self, HEADER_BYTES, backend};
use crate::wire::message::backend::ParameterStatus;
use crate::wire::startup::StartupMessage;
use crate::wire::stream::Stream;

/// How long `DISCARD ALL` may take.
const CLEANING: Duration = Duration::from_secs(5);

pub struct Pool {
    permits: Arc<Semaphore>,
    max_connections: usize,
    idle: Mutex<VecDeque<Idle>>,
    max_idle: AtomicUsize,
    idle_timeout: Duration,
}

/// The right to one upstream connection.
#[derive(Debug)]
pub struct Permit(#[expect(dead_code, reason = "held for its Drop")] OwnedSemaphorePermit);

/// Connections with equal keys are alike: same user, database and start-up parameters, opened with the same secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolKey([u8; 32]);

#[derive(Debug, Error)]
#[error("no upstream connection became free in {0:?}")]
pub struct PoolFull(Duration);

struct Idle {
    connection: Connection,
    permit: Permit,
    key: PoolKey,
    since: Instant,
}

impl PoolFull {
    pub fn to_error_response(&self) -> ErrorResponse {
        ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
            .detail(self.to_string())
            .hint("All of the proxy's pool.max_upstream_connections are in use.")
    }
}

impl PoolKey {
    pub fn new(startup: &StartupMessage, secret: &UpstreamSecret) -> Self {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        field(&startup.protocol.to_be_bytes());
        let mut parameters: Vec<&(Bytes, Bytes)> = startup.parameters.iter().collect();
        parameters.sort();
        for (name, value) in parameters {
            field(name);
            field(value);
        }
        match secret {
            UpstreamSecret::None => field(b"none"),
            UpstreamSecret::Password(password) => field(password.as_bytes()),
            UpstreamSecret::Md5(hash) => field(hash.as_bytes()),
            UpstreamSecret::Scram(keys) => field(&keys.client_key),
        }
        Self(hasher.finalize().into())
    }
}

impl Pool {
    pub fn new(max_connections: usize, max_idle: usize, idle_timeout: Duration) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(max_connections.min(Semaphore::MAX_PERMITS))),
            max_connections: max_connections.min(Semaphore::MAX_PERMITS),
            idle: Mutex::default(),
            max_idle: AtomicUsize::new(max_idle),
            idle_timeout,
        }
    }

    pub fn set_max_idle(&self, max_idle: usize) {
        self.max_idle.store(max_idle, Ordering::Relaxed);
        self.sweep();
    }

    /// Waits its turn for at most `wait`. An idle connection of somebody else's gives way.
    pub async fn acquire(&self, wait: Duration) -> Result<Permit, PoolFull> {
        if self.permits.available_permits() == 0 {
            // Dropped outside the lock's scope, and with it its permit.
            drop(self.idle().pop_front());
        }
        match timeout(wait, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Permit(permit)),
            _ => Err(PoolFull(wait)),
        }
    }

    /// An idle connection that is as good as a new one.
    pub fn take(&self, key: &PoolKey) -> Option<(Connection, Permit)> {
        self.sweep();
        loop {
            let mut idle = self.idle();
            let place = idle.iter().rposition(|idle| idle.key == *key)?;
            let found = idle.remove(place)?;
            drop(idle);
            if is_quiet(&found.connection.stream) {
                return Some((found.connection, found.permit));
            }
        }
    }

    /// Takes back a connection on which nothing is outstanding. It is cleaned and kept, or closed.
    pub async fn give_back(&self, backend: Backend, key: PoolKey) {
        let (mut connection, permit) = backend.into_parts();
        if timeout(CLEANING, clean(&mut connection)).await.is_ok_and(|cleaned| cleaned.is_some()) {
            let since = Instant::now();
            self.idle().push_back(Idle { connection, permit, key, since });
        }
        self.sweep();
    }

    /// Connections that may still be opened.
    pub fn free(&self) -> usize {
        self.permits.available_permits()
    }

    /// Connections that there may be.
    pub fn limit(&self) -> usize {
        self.max_connections
    }

    /// Idle connections at present.
    pub fn idle_connections(&self) -> usize {
        self.idle().len()
    }

    /// Closes what is idle for too long or too many.
    pub fn sweep(&self) {
        let mut idle = self.idle();
        let max = self.max_idle.load(Ordering::Relaxed);
        while idle.len() > max || idle.front().is_some_and(|oldest| oldest.since.elapsed() >= self.idle_timeout) {
            idle.pop_front();
        }
    }

    fn idle(&self) -> MutexGuard<'_, VecDeque<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing has come from the server since the connection was cleaned: not its end, nor a notice that it is ending.
fn is_quiet(stream: &Stream) -> bool {
    let nothing =
        |result: std::io::Result<usize>| result.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
    // The sockets are non-blocking.
    let peek = |socket: socket2::SockRef<'_>| nothing(socket.peek(&mut [std::mem::MaybeUninit::uninit()]));
    match stream {
        Stream::Tcp(tcp) => peek(tcp.into()),
        Stream::Unix(unix) => peek(unix.into()),
        Stream::FromClient(tls) => is_quiet(tls.get_ref().0),
        Stream::ToUpstream(tls) => is_quiet(tls.get_ref().0),
    }
}

/// Runs `DISCARD ALL`. `None` if the connection is not clean afterwards.
async fn clean(connection: &mut Connection) -> Option<()> {
    const DISCARD: &[u8] = b"Q\0\0\0\x10DISCARD ALL\0";
    connection.stream.write_all(DISCARD).await.ok()?;
    connection.stream.flush().await.ok()?;
    loop {
        while let Some(header) = frame::peek(&connection.buffer).ok()? {
            if connection.buffer.len() < header.total {
                break;
            }
            let frame = connection.buffer.split_to(header.total).freeze();
            let body = frame.slice(HEADER_BYTES..);
            match header.tag {
                backend::PARAMETER_STATUS => {
                    let status = ParameterStatus::decode(&body).ok()?;
                    let value = body.slice_ref(status.value);
                    match connection.parameters.iter_mut().find(|(name, _)| *name == *status.name) {
                        Some(known) => known.1 = value,
                        None => connection.parameters.push((body.slice_ref(status.name), value)),
                    }
                }
                backend::COMMAND_COMPLETE | backend::NOTICE_RESPONSE | backend::NOTIFICATION_RESPONSE => {}
                backend::READY_FOR_QUERY if &body[..] == b"I" => return connection.buffer.is_empty().then_some(()),
                _ => return None,
            }
        }
        if connection.buffer.len() > 64 * 1024 || connection.stream.read_buf(&mut connection.buffer).await.ok()? == 0 {
            return None;
        }
    }
}

#[cfg(test)]
mod tests;
