//! The first words to a client that is logged in, and the session that it gets.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::debug;

use super::activity::Who;
use super::context::Context;
use super::control::Control;
use super::cycle::Side;
use super::login::{Entry, LoggedIn};
use super::sharing::Sharing;
use super::visitor::application_name;
use super::{Ready, Session, SessionState, Shared, Upstream};
use crate::catalog::{Visit, watch};
use crate::telemetry::metrics::{Side as SideLabel, State};
use crate::upstream::backend::{Backend, Reported};
use crate::upstream::peer::Address;
use crate::wire::startup::{self, StartupMessage};

/// How long the first session in a database waits for its catalogue, so that its first read may be recorded.
const FIRST_MODEL: Duration = Duration::from_secs(1);

/// Enters a database and has its catalogue watched.
pub(super) fn enter(shared: &Shared, database: &str, server: &Address) -> Visit {
    let visit = shared.databases.enter(database, server);
    if visit.needs_watcher() {
        shared.runtime.spawn(watch::watch(visit.database().clone(), shared.control.clone()));
    }
    visit
}

/// Enters the database and tells the client who its backend is.
pub(super) async fn welcome(shared: &Arc<Shared>, startup: &StartupMessage, client: LoggedIn) -> Ready {
    let LoggedIn { stream, entry, account, user_seat } = client;
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

    let mut context = Context::new(visit.database().number, startup.user());
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
    if let Upstream::Dedicated(backend, _) = &welcome.upstream {
        control.activity.works_on(backend.pid);
    }
    let (pid, registration) = shared.sessions.register(welcome.pid, secret.clone(), control.clone());
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
