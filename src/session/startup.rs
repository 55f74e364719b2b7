//! From a new connection to a session: negotiation, admission, authentication, the upstream connection, the welcome.
//!
//! The client gets what its own backend said: parameters, notices, process id. Only the cancel key is ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;
use tracing::{debug, info};

use super::auth::AuthError;
use super::login::Login;
use super::negotiate::{NegotiateError, negotiate};
use super::visitor::{self, Visitor};
use super::welcome::welcome;
use super::{Ready, Shared};
use crate::config::AuthMode;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::FirstPacket;
use crate::wire::stream::Stream;

/// Why a connection did not become a session. What the client is to be told is told already, or is here.
pub(super) enum Refusal {
    /// Nothing is said: it is gone, it was a cancel request, or it has been told by the upstream itself.
    Silent,
    Told(Stream, ErrorResponse),
}

/// What a connection becomes.
enum Begun {
    Session(Box<Ready>),
    /// For the proxy itself.
    Visit(Box<Visitor>),
}

/// Runs one client's connection to its end. Whoever asks for the proxy itself is left to `desk`.
pub async fn serve<D: Future<Output = ()>>(shared: Arc<Shared>, stream: Stream, desk: impl FnOnce(Visitor) -> D) {
    let seat = shared.seats.take();
    let config = shared.config.load_full();
    if let Err(error) = stream.set_user_timeout(Duration::from_millis(config.server.tcp_user_timeout_ms)) {
        debug!(%error, "a client's connection was lost before it said anything");
    }
    let bound = Duration::from_secs(config.server.startup_timeout_secs);
    // The futures of what comes before a session are large, and gone when it runs.
    let begun = tokio::time::timeout(bound, Box::pin(begin(&shared, stream, seat.is_some()))).await;
    match begun {
        Ok(Ok(Begun::Visit(visitor))) => {
            // Clients' seats are not for him.
            drop(seat);
            match shared.visitors.seats.take() {
                Some(_seat) => Box::pin(desk(*visitor)).await,
                None => say_no(visitor.stream, &too_many("Too many look into the proxy at once."), bound).await,
            }
        }
        Ok(Ok(Begun::Session(ready))) => {
            // A task of its own: waking it does not pass through the futures of the start-up.
            let Ready { session, registration, user_seat: _seat } = *ready;
            let session = tokio::spawn(session.run(registration));
            if let Err(error) = session.await
                && error.is_panic()
            {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        Ok(Err(Refusal::Told(stream, error))) => say_no(stream, &error, bound).await,
        Ok(Err(Refusal::Silent)) => {}
        Err(_) => info!(seconds = bound.as_secs(), "a client did not finish its start-up in time"),
    }
}

async fn say_no(mut stream: Stream, error: &ErrorResponse, bound: Duration) {
    let mut out = BytesMut::new();
    error.encode(&mut out);
    // A client that is gone needs no answer.
    let _ = tokio::time::timeout(bound, async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    })
    .await;
}

fn too_many(hint: &str) -> ErrorResponse {
    ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already").hint(hint)
}

async fn begin(shared: &Arc<Shared>, stream: Stream, seated: bool) -> Result<Begun, Refusal> {
    let (mut stream, packet) = negotiate(stream, shared.tls.as_ref()).await.map_err(|error| match error {
        NegotiateError::Gone(error) => {
            debug!(%error, "a connection ended before its start-up");
            Refusal::Silent
        }
        NegotiateError::Refused(stream, error) => Refusal::Told(stream, error),
    })?;
    let mut startup = match packet {
        FirstPacket::Startup(startup) => startup,
        FirstPacket::Cancel { pid, secret } => {
            match shared.sessions.find(pid, &secret) {
                Some(control) => control.cancel().await,
                None => shared.elders.cancel(pid, &secret).await,
            }
            return Err(Refusal::Silent);
        }
        FirstPacket::Ssl | FirstPacket::GssEnc => return Err(Refusal::Silent),
    };
    if shared.shutting_down.load(Ordering::SeqCst) {
        let error = ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, "the database system is shutting down");
        return Err(Refusal::Told(stream, error));
    }
    let config = shared.config.load_full();
    if visitor::is_meant(&config, &startup) {
        return match visitor::admit(shared, &mut stream, &mut startup).await {
            Ok(admitted) => Ok(Begun::Visit(Box::new(Visitor::new(shared, stream, &startup, admitted)))),
            Err(AuthError::Gone) => Err(Refusal::Silent),
            Err(AuthError::Refused(error)) => Err(Refusal::Told(stream, error)),
        };
    }
    if !seated {
        return Err(Refusal::Told(stream, too_many("The proxy's server.max_clients is reached.")));
    }
    // A login would begin something new upstream. The time for the start-up bounds the wait.
    shared.gate.opened().await;
    let wait = Duration::from_secs(config.pool.wait_timeout_secs);
    let relayed = config.auth.mode == AuthMode::Relay;
    // Before its authentication a client must know what it cannot have; in mode relay the upstream says so itself.
    let declined = if relayed { None } else { startup.decline_extensions() };
    let login = Login { shared, startup: &startup, wait };
    let logged_in = if relayed { login.relayed(stream).await? } else { login.own(stream, declined).await? };
    Ok(Begun::Session(Box::new(welcome(shared, &startup, logged_in).await)))
}
