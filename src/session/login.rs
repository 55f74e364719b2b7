//! Who a client is, and where its queries will run: relayed to the server, or found out by the proxy, which then logs in by itself.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use super::Shared;
use super::auth::AuthError;
use super::connecting::{fitting, guarded, is_alive, obtain, open_shared, refusal};
use super::startup::Refusal;
use super::user_seats::UserSeat;
use crate::config::PoolMode;
use crate::parallel::Account;
use crate::upstream::backend::Backend;
use crate::upstream::login::{Connection, LoginError, RelayError, UpstreamSecret, greet, login, relay};
use crate::upstream::lookout::Loss;
use crate::upstream::open;
use crate::upstream::pool::{Grant, Kind, Owner, Permit, PoolKey, Recipe, Slot, TenantId};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::StartupMessage;
use crate::wire::stream::Stream;

pub(super) struct Login<'a> {
    pub shared: &'a Arc<Shared>,
    pub startup: &'a StartupMessage,
    /// How long it may wait for an upstream connection.
    pub wait: Duration,
}

/// What a client that is logged in has.
pub(super) enum Entry {
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

/// A client that is logged in.
pub(super) struct LoggedIn {
    pub stream: Stream,
    pub entry: Entry,
    /// How to log in again as this user, if the proxy can.
    pub account: Option<Arc<Account>>,
    pub user_seat: UserSeat,
}

impl Login<'_> {
    /// The upstream authenticates the client itself, on a connection of the client's own.
    pub async fn relayed(&self, mut stream: Stream) -> Result<LoggedIn, Refusal> {
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
                        let entry = Entry::Dedicated { connection, permit, key: None };
                        Ok(LoggedIn { stream, entry, account: None, user_seat: seat })
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
    pub async fn own(&self, mut stream: Stream, declined: Option<BytesMut>) -> Result<LoggedIn, Refusal> {
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
            return Ok(LoggedIn { stream, entry, account, user_seat: seat });
        }
        while let Some((mut connection, permit, since)) = self.shared.pool.take(&key) {
            let Connection { stream: upstream, buffer, .. } = &mut connection;
            let alive = is_alive(self.shared, upstream, buffer, since.elapsed()).await;
            // One to a server that connections do not go to any more is closed.
            if alive && self.shared.databases.are_at(&connection.peer.address) {
                let connection = Box::new(connection);
                let entry = Entry::Dedicated { connection, permit, key: Some(key) };
                return Ok(LoggedIn { stream, entry, account, user_seat: seat });
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
                let entry = Entry::Dedicated { connection, permit, key: Some(key) };
                Ok(LoggedIn { stream, entry, account, user_seat: seat })
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
