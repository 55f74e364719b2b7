//! From a new connection to a session: negotiation, admission, authentication, the upstream connection, the welcome.
//!
//! The client gets what its own backend said: parameters, notices, process id. Only the cancel key is ours.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncWriteExt;
use tracing::{debug, info};

use super::activity::Who;
use super::auth::AuthError;
use super::connecting::{fitting, guarded, is_alive, obtain, open_shared, refusal};
use super::context::Context;
use super::control::Control;
use super::cycle::Side;
use super::negotiate::{NegotiateError, negotiate};
use super::sharing::Sharing;
use super::user_seats::UserSeat;
use super::visitor::{self, Visitor, application_name};
use super::{Ready, Session, SessionState, Shared, Upstream};
use crate::catalog::{Visit, watch};
use crate::config::{AuthMode, PoolMode};
use crate::parallel::Account;
use crate::telemetry::metrics::{Side as SideLabel, State};
use crate::upstream::backend::{Backend, Reported};
use crate::upstream::login::{Connection, LoginError, RelayError, UpstreamSecret, greet, login, relay};
use crate::upstream::lookout::Loss;
use crate::upstream::open;
use crate::upstream::peer::Address;
use crate::upstream::pool::{Grant, Kind, Owner, Permit, PoolKey, Recipe, Slot, TenantId};
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
    let (stream, entry, account, user_seat) =
        if relayed { login.relayed(stream).await? } else { login.own(stream, declined).await? };
    Ok(Begun::Session(Box::new(welcome(shared, stream, &startup, entry, account, user_seat).await)))
}

struct Login<'a> {
    shared: &'a Arc<Shared>,
    startup: &'a StartupMessage,
    wait: Duration,
}

/// What a client that is logged in has.
enum Entry {
    Dedicated {
        connection: Box<Connection>,
        permit: Permit,
        key: Option<PoolKey>,
    },
    Shared {
        key: PoolKey,
        recipe: Arc<Recipe>,
        /// A connection that was opened for it, and as whom it finds it.
        home: Option<(Arc<Slot>, TenantId)>,
        pid: Option<i32>,
    },
}

/// With how to log in again as this user, if the proxy can.
type LoggedIn = (Stream, Entry, Option<Arc<Account>>, UserSeat);

impl Login<'_> {
    /// The upstream authenticates the client itself, on a connection of the client's own.
    async fn relayed(&self, mut stream: Stream) -> Result<LoggedIn, Refusal> {
        let permit = match self.permit().await {
            Ok(permit) => permit,
            Err(error) => return Err(Refusal::Told(stream, error)),
        };
        let greet = || async {
            let upstream = open::open(&self.shared.target).await?;
            Ok(greet(upstream, &self.startup.raw).await?)
        };
        let upstream = match guarded(self.shared, greet).await {
            Ok(upstream) => upstream,
            Err(error) => return refuse(stream, &refusal(self.shared, error)).await,
        };
        match relay(&mut stream, upstream).await {
            Ok(connection) => match fitting(self.shared, connection) {
                Ok(connection) => match self.seat() {
                    Ok(seat) => {
                        let connection = Box::new(connection);
                        Ok((stream, Entry::Dedicated { connection, permit, key: None }, None, seat))
                    }
                    Err(error) => Err(Refusal::Told(stream, error)),
                },
                Err(error) => Err(Refusal::Told(stream, error.to_error_response())),
            },
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
        let seat = match self.seat() {
            Ok(seat) => seat,
            Err(error) => return Err(Refusal::Told(stream, error)),
        };
        let key = self.shared.pool.key(self.startup, &credentials.secret);
        let account = Some(Arc::new(Account {
            key,
            protocol: self.startup.protocol,
            parameters: self.startup.parameters.clone(),
            secret: credentials.secret.clone(),
        }));
        if config.pool.mode != PoolMode::Session && !self.startup.is_replication() {
            let (stream, entry) = self.shared(stream, key, credentials.secret).await?;
            return Ok((stream, entry, account, seat));
        }
        while let Some((mut connection, permit, since)) = self.shared.pool.take(&key) {
            let Connection { stream: upstream, buffer, .. } = &mut connection;
            let alive = is_alive(self.shared, upstream, buffer, since.elapsed()).await;
            // One to a server that connections do not go to any more is closed.
            if alive && self.shared.databases.are_at(&connection.peer.address) {
                let connection = Box::new(connection);
                return Ok((stream, Entry::Dedicated { connection, permit, key: Some(key) }, account, seat));
            }
        }
        let permit = match self.permit().await {
            Ok(permit) => permit,
            Err(error) => return Err(Refusal::Told(stream, error)),
        };
        let connect = || async {
            let upstream = open::open(&self.shared.target).await?;
            let connection =
                login(upstream, self.startup.protocol, &self.startup.parameters, &credentials.secret).await?;
            Ok(fitting(self.shared, connection)?)
        };
        match guarded(self.shared, connect).await {
            Ok(connection) => {
                let connection = Box::new(connection);
                Ok((stream, Entry::Dedicated { connection, permit, key: Some(key) }, account, seat))
            }
            Err(error) => refuse(stream, &refusal(self.shared, error)).await,
        }
    }

    /// The client gets a connection when it needs one, or at once while there are plenty. Only the first of its kind depends on
    /// it: what it is told is what later ones are told.
    async fn shared(&self, stream: Stream, key: PoolKey, secret: UpstreamSecret) -> Result<(Stream, Entry), Refusal> {
        let pool = &self.shared.pool;
        if let Some(recipe) = pool.recipe(&key) {
            let home = match pool.adopt(&key) {
                None if pool.has_room() => self.open_home(key, &recipe).await,
                adopted => adopted,
            };
            let (home, pid) = home.map(|(slot, tenant, pid)| ((slot, tenant), pid)).unzip();
            return Ok((stream, Entry::Shared { key, recipe, home, pid }));
        }
        let StartupMessage { protocol, parameters, .. } = self.startup;
        let recipe = Recipe { protocol: *protocol, parameters: parameters.clone(), secret, reported: Arc::default() };
        let waiting = pool.ask(Kind::Shared(key));
        let (slot, backend) = match obtain(self.shared.clone(), key, Arc::new(recipe), waiting).await {
            Ok(obtained) => obtained,
            Err(frame) => return refuse(stream, &frame).await,
        };
        // It was opened just now, if not by this client.
        let recipe = pool.recipe(&key);
        let (slot, tenant, pid) = self.move_in(slot, backend);
        match recipe {
            Some(recipe) => Ok((stream, Entry::Shared { key, recipe, home: Some((slot, tenant)), pid: Some(pid) })),
            None => {
                let error = ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, "the upstream connection was lost");
                Err(Refusal::Told(stream, error))
            }
        }
    }

    /// A connection for a client that could do without, so that it has from the beginning what it would have without the proxy.
    async fn open_home(&self, key: PoolKey, recipe: &Arc<Recipe>) -> Option<(Arc<Slot>, TenantId, i32)> {
        let (slot, backend) = match self.shared.pool.ask(Kind::Shared(key)).now() {
            Ok(Grant::Permit(permit)) => open_shared(self.shared, permit, recipe).await.ok()?,
            Ok(Grant::Backend(slot, backend)) => (slot, backend),
            Err(_) => return None,
        };
        Some(self.move_in(slot, backend))
    }

    /// Makes a connection the client's, who finds it in its slot.
    fn move_in(&self, slot: Arc<Slot>, backend: Box<Backend>) -> (Arc<Slot>, TenantId, i32) {
        let (pid, tenant) = (backend.pid, self.shared.pool.tenant());
        let lifetime = Duration::from_secs(self.shared.config.load().pool.max_lifetime_secs);
        self.shared.pool.park(&slot, backend, tenant, lifetime);
        (slot, tenant, pid)
    }

    /// A place among the clients of the user that it has proved to be.
    fn seat(&self) -> Result<UserSeat, ErrorResponse> {
        self.shared.user_seats.take(self.startup.user())
    }

    /// A login that nobody tries again failed.
    fn lost(&self, error: &LoginError) {
        let code = error.sqlstate();
        self.shared.lookout.lost(&Loss { last_words: code.as_deref(), owed: error.is_loss() });
    }

    /// The right to an upstream connection, when it is this client's turn.
    async fn permit(&self) -> Result<Permit, ErrorResponse> {
        self.shared.pool.acquire(Owner::of(self.startup), self.wait).await.map_err(|full| full.to_error_response())
    }
}

/// Tells the client why it has no connection.
async fn refuse<T>(mut stream: Stream, frame: &[u8]) -> Result<T, Refusal> {
    // Whatever keeps the client from reading it is its own.
    let _ = stream.write_all(frame).await;
    let _ = stream.shutdown().await;
    Err(Refusal::Silent)
}

/// Enters a database and has its catalogue watched.
pub(super) fn enter(shared: &Shared, database: &str, server: &Address) -> Visit {
    let visit = shared.databases.enter(database, server);
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
    entry: Entry,
    account: Option<Arc<Account>>,
    user_seat: UserSeat,
) -> Ready {
    let database_name = String::from_utf8_lossy(startup.database()).into_owned();
    let tracking = shared.caching && !startup.is_physical_replication();
    // One that has no connection yet goes where the others are. Were that to change it would notice when it gets one.
    let server = match &entry {
        Entry::Dedicated { connection, .. } => Some(connection.peer.address.clone()),
        Entry::Shared { .. } => shared.databases.server(),
    };
    let server = server.unwrap_or(Address::Nowhere);
    // What statements may leave in a shared connection is told by the catalogue, too.
    let watches = tracking || matches!(entry, Entry::Shared { .. });
    let visit = match watches {
        true => enter(shared, &database_name, &server),
        false => shared.databases.enter(&database_name, &server),
    };
    if watches {
        // Late is as good as never: then the first reads are not recorded.
        let _ = tokio::time::timeout(FIRST_MODEL, visit.database().first_model()).await;
    }

    let mut context = Context::new(startup.database(), startup.user());
    let mut client = Side::default();
    let welcome = Welcome::of(entry, shared);
    for (name, value) in welcome.parameters.iter() {
        context.report(name, value);
        startup::put_parameter_status(&mut client.output, name, value);
    }
    let secret = Bytes::from_owner(rand::random::<[u8; 32]>()).slice(..welcome.secret_bytes);
    let control = Arc::new(Control::new(Who {
        database: database_name.clone(),
        user: String::from_utf8_lossy(startup.user()).into_owned(),
        application_name: application_name(startup),
        address: stream.peer(),
        tls: stream.is_tls(),
        since: Instant::now(),
    }));
    let (pid, registration) = match (&welcome.upstream, welcome.pid) {
        // It is the only one whose backend this is.
        (Upstream::Dedicated(backend, _), _) => {
            control.activity.works_on(backend.pid);
            (backend.pid, shared.sessions.register(backend.pid, secret.clone(), control.clone()))
        }
        (Upstream::Shared(_), pid) => shared.sessions.register_apart(pid, secret.clone(), control.clone()),
    };
    startup::put_backend_key_data(&mut client.output, pid, &secret);
    for notice in &welcome.notices {
        client.output.extend_from_slice(notice);
    }
    startup::put_ready_for_query(&mut client.output, b'I');

    let start_digest = context.start_digest(&startup.parameters);
    if let Some(baseline) = visit.database().baseline(&start_digest) {
        context.begin(baseline);
    }
    if shared.shutting_down.load(Ordering::SeqCst) {
        control.shut_down();
    }
    debug!(pid, database = %database_name, "session begins");
    shared.metrics.connections(SideLabel::Client, State::Active).increment(1.0);
    let state = SessionState {
        context,
        start_digest,
        tracking,
        caching: tracking && !startup.is_replication(),
        account,
        limited: !startup.is_replication(),
    };
    let session = Session::new(shared.clone(), control, visit, stream, client, welcome.upstream, pid, state);
    Ready { session: Box::new(session), registration, user_seat }
}

/// What the client is told, and what its session has.
struct Welcome {
    parameters: Arc<Reported>,
    notices: Vec<Bytes>,
    secret_bytes: usize,
    pid: Option<i32>,
    upstream: Upstream,
}

impl Welcome {
    fn of(entry: Entry, shared: &Shared) -> Self {
        match entry {
            Entry::Dedicated { mut connection, permit, key } => {
                let notices = std::mem::take(&mut connection.notices);
                let backend = Box::new(Backend::new(*connection, permit));
                Self {
                    parameters: backend.reported.clone(),
                    notices,
                    secret_bytes: backend.secret.len().clamp(4, 32),
                    pid: Some(backend.pid),
                    upstream: Upstream::Dedicated(backend, key),
                }
            }
            Entry::Shared { key, recipe, home, pid } => {
                let sharing = Sharing::new(&shared.pool, key, recipe.clone(), home, &shared.config.load().pool);
                Self {
                    parameters: recipe.reported.clone(),
                    notices: Vec::new(),
                    secret_bytes: 4,
                    pid,
                    upstream: Upstream::Shared(Box::new(sharing)),
                }
            }
        }
    }
}
