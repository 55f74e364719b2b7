//! From a new connection to a session: negotiation, admission, authentication, the upstream connection, the welcome.
//!
//! The client gets what its own backend said: parameters, notices, process id. Only the cancel key is ours.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tracing::{debug, info};

use super::activity::Who;
use super::auth::AuthError;
use super::context::Context;
use super::control::Control;
use super::cycle::Side;
use super::negotiate::{NegotiateError, negotiate};
use super::visitor::{self, Visitor, application_name};
use super::{Ready, Session, SessionState, Shared};
use crate::catalog::{Visit, watch};
use crate::config::AuthMode;
use crate::guard::{BreakerError, retry_with_backoff};
use crate::telemetry::metrics::{ErrorKind, Operation, Side as SideLabel, State};
use crate::upstream::connect::{ConnectError, bounded, refused};
use crate::upstream::login::{Connection, LoginError, RelayError, greet, login, relay};
use crate::upstream::lookout::Loss;
use crate::upstream::open;
use crate::upstream::pool::{Permit, PoolKey};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::{self, FirstPacket, StartupMessage};
use crate::wire::stream::Stream;

/// How long the first session in a database waits for its catalogue, so that its first read may be recorded.
const FIRST_MODEL: Duration = Duration::from_secs(1);

/// Why a connection did not become a session. What the client is to be told is told already, or is here.
enum Refusal {
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
    let bound = Duration::from_secs(shared.config.load().server.startup_timeout_secs);
    let begun = tokio::time::timeout(bound, begin(&shared, stream, seat.is_some())).await;
    match begun {
        Ok(Ok(Begun::Visit(visitor))) => {
            // Clients' seats are not for him.
            drop(seat);
            match shared.visitors.seats.take() {
                Some(_seat) => desk(*visitor).await,
                None => say_no(visitor.stream, &too_many("Too many look into the proxy at once."), bound).await,
            }
        }
        Ok(Ok(Begun::Session(ready))) => {
            // A task of its own: waking it does not pass through the futures of the start-up.
            let session = tokio::spawn(ready.session.run(ready.registration));
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
            if let Some(control) = shared.sessions.find(pid, &secret) {
                control.cancel().await;
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
    let wait = Duration::from_secs(config.pool.wait_timeout_secs);
    let relayed = config.auth.mode == AuthMode::Relay;
    // Before its authentication a client must know what it cannot have; in mode relay the upstream says so itself.
    let declined = if relayed { None } else { startup.decline_extensions() };
    let login = Login { shared, startup: &startup, wait };
    let (stream, connection, permit, key) =
        if relayed { login.relayed(stream).await? } else { login.own(stream, declined).await? };
    Ok(Begun::Session(Box::new(welcome(shared, stream, &startup, connection, permit, key).await)))
}

struct Login<'a> {
    shared: &'a Arc<Shared>,
    startup: &'a StartupMessage,
    wait: Duration,
}

type LoggedIn = (Stream, Connection, Permit, Option<PoolKey>);

impl Login<'_> {
    /// The upstream authenticates the client itself, on a connection of the client's own.
    async fn relayed(&self, mut stream: Stream) -> Result<LoggedIn, Refusal> {
        let permit = match self.permit().await {
            Ok(permit) => permit,
            Err(error) => return Err(Refusal::Told(stream, error)),
        };
        let greeted = self
            .guarded(|| async {
                let upstream = open::open(&self.shared.target).await?;
                Ok(greet(upstream, &self.startup.raw).await?)
            })
            .await;
        let upstream = match greeted {
            Ok(upstream) => upstream,
            Err(error) => return self.refuse(stream, error).await,
        };
        match relay(&mut stream, upstream).await {
            Ok(connection) => Ok((stream, connection, permit, None)),
            Err(RelayError::ClientGone) => Err(Refusal::Silent),
            Err(RelayError::Refused(error)) => {
                self.lost(&error);
                Err(Refusal::Silent)
            }
            Err(error) => {
                if let RelayError::Upstream(error) = &error {
                    self.lost(error);
                }
                Err(Refusal::Told(stream, error.to_error_response()))
            }
        }
    }

    /// The proxy authenticates the client and logs in upstream with what it has learnt.
    async fn own(&self, mut stream: Stream, declined: Option<BytesMut>) -> Result<LoggedIn, Refusal> {
        if let Some(declined) = declined
            && stream.write_all(&declined).await.is_err()
        {
            return Err(Refusal::Silent);
        }
        let config = self.shared.config.load_full();
        let Ok(user) = std::str::from_utf8(self.startup.user()) else {
            let error = ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, "the user name is not UTF-8");
            return Err(Refusal::Told(stream, error));
        };
        let users = &self.shared.users;
        let secret = match users.lookup(user, async |user| self.shared.control.query_secret(user).await).await {
            Ok(secret) => secret,
            Err(error) => {
                let error = ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, "the proxy cannot look up users now")
                    .detail(error.to_string());
                return Err(Refusal::Told(stream, error));
            }
        };
        let service = (user == config.upstream.user).then_some(config.upstream.password.as_str());
        let credentials = match users.authenticate(&mut stream, config.auth.mode, user, secret, service).await {
            Ok(credentials) => credentials,
            Err(AuthError::Gone) => return Err(Refusal::Silent),
            Err(AuthError::Refused(error)) => return Err(Refusal::Told(stream, error)),
        };
        let key = PoolKey::new(self.startup, &credentials.secret);
        if let Some((connection, permit)) = self.shared.pool.take(&key) {
            return Ok((stream, connection, permit, Some(key)));
        }
        let permit = match self.permit().await {
            Ok(permit) => permit,
            Err(error) => return Err(Refusal::Told(stream, error)),
        };
        let connect = || async {
            let upstream = open::open(&self.shared.target).await?;
            Ok(login(upstream, self.startup.protocol, &self.startup.parameters, &credentials.secret).await?)
        };
        match self.guarded(connect).await {
            Ok(connection) => Ok((stream, connection, permit, Some(key))),
            Err(error) => self.refuse(stream, error).await,
        }
    }

    /// A login that nobody tries again failed.
    fn lost(&self, error: &LoginError) {
        let code = error.sqlstate();
        self.shared.lookout.lost(&Loss { last_words: code.as_deref(), owed: error.is_loss() });
    }

    /// The right to an upstream connection, when it is this client's turn.
    async fn permit(&self) -> Result<Permit, ErrorResponse> {
        self.shared.pool.acquire(self.wait).await.map_err(|full| full.to_error_response())
    }

    /// Connects, more than once if need be, and not at all while the circuit breaker is open. No attempt takes longer than
    /// `upstream.connect_timeout_secs`.
    async fn guarded<T, F: Future<Output = Result<T, ConnectError>>>(
        &self,
        connect: impl Fn() -> F,
    ) -> Result<T, BreakerError<ConnectError>> {
        let Shared { lookout, metrics, config, target, .. } = &**self.shared;
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

    /// Tells the client why it has no connection: in the upstream's own words, if it has said any.
    async fn refuse<T>(&self, mut stream: Stream, error: BreakerError<ConnectError>) -> Result<T, Refusal> {
        let error = match refused(error) {
            Ok(error) => error,
            Err(response) => {
                self.count_error(ErrorKind::Limit);
                return Err(Refusal::Told(stream, response));
            }
        };
        match error {
            ConnectError::Open(error) => {
                self.count_error(ErrorKind::Io);
                info!(%error, "no connection to the upstream");
                Err(Refusal::Told(stream, error.to_error_response()))
            }
            ConnectError::Login(error) => {
                self.count_error(ErrorKind::Server);
                match error.into_frame() {
                    Ok(frame) => {
                        let _ = stream.write_all(&frame).await;
                        let _ = stream.shutdown().await;
                        Err(Refusal::Silent)
                    }
                    Err(error) => Err(Refusal::Told(stream, error)),
                }
            }
        }
    }

    fn count_error(&self, kind: ErrorKind) {
        self.shared.metrics.operation_errors(Operation::Connect, kind).increment(1);
    }
}

/// Enters a database and has its catalogue watched.
pub(super) fn enter(shared: &Shared, database: &str) -> Visit {
    let visit = shared.databases.enter(database);
    if visit.needs_watcher() {
        shared.runtime.spawn(watch::watch(visit.database().clone(), shared.control.clone()));
    }
    visit
}

/// Enters the database and tells the client who its backend is.
async fn welcome(
    shared: &Arc<Shared>,
    stream: Stream,
    startup: &StartupMessage,
    connection: Connection,
    permit: Permit,
    key: Option<PoolKey>,
) -> Ready {
    let database_name = String::from_utf8_lossy(startup.database()).into_owned();
    let tracking = shared.caching && !startup.is_physical_replication();
    let visit = if tracking { enter(shared, &database_name) } else { shared.databases.enter(&database_name) };
    if tracking {
        // Late is as good as never: then the first reads are not recorded.
        let _ = tokio::time::timeout(FIRST_MODEL, visit.database().first_model()).await;
    }

    let mut context = Context::new(startup.database(), startup.user());
    let mut client = Side::default();
    for (name, value) in &connection.parameters {
        context.report(name, value);
        startup::put_parameter_status(&mut client.output, name, value);
    }
    let secret = Bytes::from_owner(rand::random::<[u8; 32]>()).slice(..connection.secret.len().clamp(4, 32));
    startup::put_backend_key_data(&mut client.output, connection.pid, &secret);
    for notice in &connection.notices {
        client.output.extend_from_slice(notice);
    }
    startup::put_ready_for_query(&mut client.output, b'I');

    let start_digest = context.start_digest(&startup.parameters);
    if let Some(baseline) = visit.database().baseline(&start_digest) {
        context.begin(baseline);
    }
    let control = Arc::new(Control::new(Who {
        database: database_name.clone(),
        user: String::from_utf8_lossy(startup.user()).into_owned(),
        application_name: application_name(startup),
        address: stream.peer(),
        tls: stream.is_tls(),
        since: Instant::now(),
    }));
    control.activity.works_on(connection.pid);
    let registration = shared.sessions.register(connection.pid, secret, control.clone());
    if shared.shutting_down.load(Ordering::SeqCst) {
        control.shut_down();
    }
    debug!(pid = connection.pid, database = %database_name, "session begins");
    shared.metrics.connections(SideLabel::Client, State::Active).increment(1.0);
    shared.metrics.connections(SideLabel::Upstream, State::Active).increment(1.0);
    let state = SessionState { context, start_digest, tracking, caching: tracking && !startup.is_replication() };
    let session = Session::new(shared.clone(), control, visit, stream, client, connection, permit, key, state);
    Ready { session, registration }
}
