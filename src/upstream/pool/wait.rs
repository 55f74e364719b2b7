//! A place in the queue for a connection.
//!
//! **Invariant.** Whoever leaves the queue takes nothing with him: a place that is given up is removed, and what was given to it
//! in the meantime goes to the next.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::time::timeout;

use super::{Grant, Inner, Kind, NOBODY};
use crate::wire::error::{ErrorResponse, sqlstate};

#[derive(Debug, Error)]
#[error("no upstream connection became free in {0:?}")]
pub struct PoolFull(Duration);

impl PoolFull {
    pub fn to_error_response(&self) -> ErrorResponse {
        ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
            .detail(self.to_string())
            .hint("All connections that the proxy may open for this user and database are in use: see [pool] in its configuration.")
    }
}

#[derive(Debug)]
pub struct Waiting {
    pool: Arc<Inner>,
    kind: Kind,
    ticket: u64,
    /// `None` once it has given what it had to give.
    receive: Option<Receiver<Grant>>,
}

impl Waiting {
    pub(super) fn new(pool: Arc<Inner>, kind: Kind, ticket: u64, receive: Receiver<Grant>) -> Self {
        Self { pool, kind, ticket, receive: Some(receive) }
    }

    /// What was there at once.
    pub fn now(mut self) -> Result<Grant, Self> {
        match self.receive.as_mut().map(Receiver::try_recv) {
            Some(Ok(grant)) => {
                self.receive = None;
                Ok(grant)
            }
            _ => Err(self),
        }
    }

    /// Waits its turn, for at most `bound`.
    pub async fn turn(mut self, bound: Duration) -> Result<Grant, PoolFull> {
        let Some(receive) = self.receive.as_mut() else { return Err(PoolFull(bound)) };
        match timeout(bound, receive).await {
            Ok(Ok(grant)) => {
                self.receive = None;
                Ok(grant)
            }
            _ => Err(PoolFull(bound)),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(mut receive) = self.receive.take() else { return };
        let mut state = self.pool.state();
        if let Some(group) = state.groups.get_mut(&self.kind) {
            if let Ok(place) = group.queue.binary_search_by_key(&self.ticket, |waiter| waiter.ticket) {
                group.queue.remove(place);
                self.pool.waiting.fetch_sub(1, Ordering::SeqCst);
            }
            if group.permits == 0 && !group.is_hungry() {
                state.groups.remove(&self.kind);
            }
        }
        drop(state);
        // Nothing is given any more: that is done under the lock.
        match receive.try_recv() {
            Ok(Grant::Backend(slot, backend)) => self.pool.park(&slot, backend, NOBODY, Duration::MAX),
            Ok(Grant::Permit(permit)) => drop(permit),
            Err(TryRecvError::Empty | TryRecvError::Closed) => {}
        }
    }
}
