//! Who asks for the proxy itself instead of a database of the upstream.
//!
//! **Invariant.** A [`Visitor`] is somebody who is listed in `admin.users` or `admin.stats_users` and has proved to be who he
//! says, unless `auth.mode = "trust"` asks nobody. The proxy itself asks, whatever the mode: in mode `relay` too it goes by
//! `auth.user_file` and `auth.auth_query`, since no upstream connection is involved. While both lists are empty there is no
//! admin database, and one of the upstream's that has its name is an ordinary one.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;

use super::activity::Who;
use super::auth::{AuthError, Secret};
use super::control::{Control, FIRST_VISITOR, Registration};
use super::{Seats, Shared};
use crate::config::{Admin, AuthMode, Config};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::StartupMessage;
use crate::wire::stream::Stream;

/// The name of the admin database.
pub const ADMIN_DATABASE: &str = "helios";

/// Visitors at once. They do not count as clients: when all seats are taken somebody must be able to look why.
const MOST_VISITORS: usize = 32;

/// Somebody who may look into the proxy.
pub struct Visitor {
    pub stream: Stream,
    pub control: Arc<Control>,
    /// May do more than look.
    pub may_change: bool,
    /// What his cancel requests name.
    pub number: i32,
    pub secret: Bytes,
    _registration: Registration,
}

/// Where visitors sit.
pub struct VisitorSeats {
    pub(super) seats: Seats,
    /// Counts those who came.
    numbers: AtomicI32,
}

impl VisitorSeats {
    /// One that no other visitor has: there are fewer than numbers.
    fn number(&self) -> i32 {
        FIRST_VISITOR | (self.numbers.fetch_add(1, Ordering::Relaxed) & (FIRST_VISITOR - 1))
    }
}

impl Default for VisitorSeats {
    fn default() -> Self {
        Self { seats: Seats::new(MOST_VISITORS), numbers: AtomicI32::new(1) }
    }
}

/// Whether this is for the proxy itself.
pub(super) fn is_meant(config: &Config, startup: &StartupMessage) -> bool {
    let Admin { users, stats_users, .. } = &config.admin;
    startup.database() == ADMIN_DATABASE.as_bytes() && !(users.is_empty() && stats_users.is_empty())
}

/// Lets a visitor in, or says why not.
pub(super) async fn admit(
    shared: &Shared,
    stream: &mut Stream,
    startup: &mut StartupMessage,
) -> Result<Admitted, AuthError> {
    if let Some(declined) = startup.decline_extensions() {
        stream.write_all(&declined).await.map_err(|_| AuthError::Gone)?;
    }
    let config = shared.config.load_full();
    let user = std::str::from_utf8(startup.user()).map_err(|_| refused("the user name is not UTF-8"))?;
    let secret = if config.auth.mode == AuthMode::Trust {
        None
    } else {
        let ask = async |user: &str| shared.control.query_secret(user).await;
        shared.users.lookup(user, ask).await.map_err(unknown)?
    };
    let mode = match (config.auth.mode, &secret) {
        // The upstream is not asked here, so what is known of the user says how he can prove who he is.
        (AuthMode::Relay, Some(Secret::Md5(_))) => AuthMode::Md5,
        (AuthMode::Relay, _) => AuthMode::Scram,
        (mode, _) => mode,
    };
    shared.users.authenticate(stream, mode, user, secret, None).await?;
    let listed = |users: &[String]| users.iter().any(|listed| listed == user);
    let may_change = listed(&config.admin.users);
    if !may_change && !listed(&config.admin.stats_users) {
        let message = format!("user \"{user}\" may not use the admin database");
        let error = ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, message)
            .hint("The proxy's admin.users and admin.stats_users list who may.");
        return Err(AuthError::Refused(error));
    }
    Ok(Admitted { user: user.to_owned(), may_change })
}

/// What is known of a visitor that has been let in.
pub(super) struct Admitted {
    user: String,
    may_change: bool,
}

impl Visitor {
    pub(super) fn new(shared: &Shared, stream: Stream, startup: &StartupMessage, admitted: Admitted) -> Self {
        let control = Arc::new(Control::new(Who {
            database: ADMIN_DATABASE.into(),
            user: admitted.user,
            application_name: application_name(startup),
            address: stream.peer(),
            tls: stream.is_tls(),
            since: Instant::now(),
        }));
        let secret = Bytes::from_owner(rand::random::<[u8; 4]>());
        let number = shared.visitors.number();
        let (number, registration) = shared.sessions.register(Some(number), secret.clone(), control.clone());
        Self { stream, control, may_change: admitted.may_change, number, secret, _registration: registration }
    }
}

/// As the client gave it.
pub(super) fn application_name(startup: &StartupMessage) -> String {
    startup.get("application_name").map_or_else(String::new, |name| String::from_utf8_lossy(name).into_owned())
}

/// Without the upstream only `auth.user_file` says who somebody is.
fn unknown(error: String) -> AuthError {
    let message = "the proxy cannot find out who may use the admin database";
    let hint = "List the user in the proxy's auth.user_file, or let the proxy's own account at the server run auth.auth_query.";
    AuthError::Refused(ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, message).detail(error).hint(hint))
}

fn refused(message: &str) -> AuthError {
    AuthError::Refused(ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, message))
}
