//! How a session comes to an upstream connection: when it is its turn, and guarded against an upstream that is not well.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tracing::info;

use super::Shared;
use crate::guard::{BreakerError, retry_with_backoff};
use crate::telemetry::metrics::{ErrorKind, Operation};
use crate::upstream::backend::Backend;
use crate::upstream::connect::{ConnectError, bounded, refused};
use crate::upstream::health;
use crate::upstream::login::{Connection, login};
use crate::upstream::open::{self, OpenError};
use crate::upstream::pool::{Grant, Kind, Permit, PoolKey, Recipe, Slot, Waiting};
use crate::wire::error::ErrorResponse;
use crate::wire::stream::Stream;

/// A shared connection and its slot, or the ErrorResponse with which the client is to be told that there is none.
pub type Obtained = Result<(Arc<Slot>, Box<Backend>), Bytes>;

/// Connects, more than once if need be, and not at all while the circuit breaker is open. No attempt takes longer than
/// `upstream.connect_timeout_secs`.
pub async fn guarded<T, F: Future<Output = Result<T, ConnectError>>>(
    shared: &Shared,
    connect: impl Fn() -> F,
) -> Result<T, BreakerError<ConnectError>> {
    let Shared { lookout, metrics, config, target, .. } = shared;
    let attempts = AtomicU32::new(0);
    let attempt = || async {
        let started = Instant::now();
        let connected = bounded(target, connect()).await;
        metrics.operation_duration(Operation::Connect).record(started.elapsed());
        if attempts.fetch_add(1, Ordering::Relaxed) > 0 {
            metrics.retry_attempts(connected.is_ok()).increment(1);
        }
        connected
    };
    retry_with_backoff(&config.load().retry, || lookout.breaker.call(attempt())).await
}

/// What the client is told when connecting has failed: the upstream's own words, if it has said any.
pub fn refusal(shared: &Shared, error: BreakerError<ConnectError>) -> Bytes {
    let count = |kind| shared.metrics.operation_errors(Operation::Connect, kind).increment(1);
    let error = match refused(error) {
        Ok(error) => error,
        Err(response) => {
            count(ErrorKind::Limit);
            return frame(&response);
        }
    };
    match error {
        ConnectError::Open(error) => {
            count(ErrorKind::Io);
            info!(%error, "no connection to the upstream");
            frame(&error.to_error_response())
        }
        ConnectError::Login(error) => {
            count(ErrorKind::Server);
            error.into_frame().unwrap_or_else(|error| frame(&error))
        }
    }
}

pub fn frame(error: &ErrorResponse) -> Bytes {
    let mut out = BytesMut::new();
    error.encode(&mut out);
    out.freeze()
}

/// Waits its turn for a shared connection that works, and opens it if need be.
pub async fn obtain(shared: Arc<Shared>, key: PoolKey, recipe: Arc<Recipe>, waiting: Waiting) -> Obtained {
    let bound = Duration::from_secs(shared.config.load().pool.wait_timeout_secs);
    let mut grant = waiting.turn(bound).await.map_err(|full| frame(&full.to_error_response()))?;
    loop {
        match grant {
            // Of those who wait few come to this: the others are spared the room for it.
            Grant::Permit(permit) => return Box::pin(open_shared(&shared, permit, &recipe)).await,
            Grant::Backend(slot, backend) => {
                if let Some(backend) = usable(&shared, backend)
                    && let Some(backend) = checked(&shared, backend).await
                {
                    return Ok((slot, backend));
                }
            }
        }
        let waiting = shared.pool.ask(Kind::Shared(key));
        grant = waiting.turn(bound).await.map_err(|full| frame(&full.to_error_response()))?;
    }
}

/// The connection, driven by the present thread, if its server is still there, and still the one that connections go to. Otherwise
/// it is closed.
pub fn usable(shared: &Shared, mut backend: Box<Backend>) -> Option<Box<Backend>> {
    let usable = shared.databases.are_at(&backend.peer.address) && backend.comes_here().is_ok();
    usable.then_some(backend)
}

/// Whether a connection has been idle for so long that its server is to be asked before it is used.
pub fn needs_check(shared: &Shared, idle: Duration) -> bool {
    let after = shared.config.load().pool.check_after_idle_ms;
    after > 0 && idle >= Duration::from_millis(after)
}

/// Whether the server at the other end of a connection that was idle answers, if it has to be asked.
pub async fn is_alive(shared: &Shared, stream: &mut Stream, input: &mut BytesMut, idle: Duration) -> bool {
    if !needs_check(shared, idle) {
        return true;
    }
    let bound = Duration::from_millis(shared.config.load().pool.check_timeout_ms);
    let answers = health::answers(stream, input, bound).await;
    if !answers {
        info!(?idle, "a connection that was idle does not answer any more, and is closed");
        shared.lookout.doubt();
    }
    answers
}

async fn checked(shared: &Shared, mut backend: Box<Backend>) -> Option<Box<Backend>> {
    let idle = backend.idle_for();
    let Backend { stream, input, .. } = &mut *backend;
    is_alive(shared, stream, input, idle).await.then_some(backend)
}

/// The connection, if its server answers, or another one.
pub async fn checked_or_another(
    shared: Arc<Shared>,
    key: PoolKey,
    recipe: Arc<Recipe>,
    slot: Arc<Slot>,
    backend: Box<Backend>,
) -> Obtained {
    if let Some(backend) = checked(&shared, backend).await {
        return Ok((slot, backend));
    }
    let waiting = shared.pool.ask(Kind::Shared(key));
    obtain(shared, key, recipe, waiting).await
}

/// A connection to a server that is still what it was chosen for. From now on that is where connections go.
pub fn fitting(shared: &Shared, connection: Connection) -> Result<Connection, OpenError> {
    if shared.target.is_contradicted_by(&connection.parameters) {
        shared.lookout.doubt();
        return Err(OpenError::NoneFits);
    }
    shared.databases.go_to(&connection.peer.address);
    Ok(connection)
}

/// Opens one more connection of a group.
pub async fn open_shared(shared: &Arc<Shared>, mut permit: Permit, recipe: &Recipe) -> Obtained {
    let connect = || async {
        let upstream = open::open(&shared.target).await?;
        let connection = login(upstream, recipe.protocol, &recipe.parameters, &recipe.secret).await?;
        Ok(fitting(shared, connection)?)
    };
    let connection = guarded(shared, connect).await.map_err(|error| refusal(shared, error))?;
    let recipe = recipe.with_report(&connection.parameters);
    let slot = shared.pool.admit(&mut permit, Arc::new(recipe));
    Ok((slot, Box::new(Backend::new(connection, permit))))
}
