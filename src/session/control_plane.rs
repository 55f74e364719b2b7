//! The service account's connections: the catalogue's watchers and `auth_query`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

use crate::catalog::Database;
use crate::catalog::watch::{Control, NotAttended};
use crate::config::{Config, Host};
use crate::guard::Fault;
use crate::telemetry::health::{Component, Status};
use crate::telemetry::metrics::{Metrics, Operation};
use crate::upstream::lookout::{Lookout, is_upstream_fault};
use crate::upstream::open::{self, OpenError, Opened, Target};
use crate::upstream::peer::Peer;
use crate::upstream::pool::Pool;
use crate::upstream::role::Role;

pub struct ControlPlane {
    target: Arc<Target>,
    lookout: Arc<Lookout>,
    config: Arc<ArcSwap<Config>>,
    health: Arc<Component>,
    metrics: Arc<Metrics>,
    pool: Pool,
    /// Fixed at the start: every database's model goes by it.
    trusts_immutable: bool,
    /// The connection for `auth_query`, while it works.
    secrets: Mutex<Option<Client>>,
}

/// Why the service account has no connection, or no answer.
#[derive(Debug, Error)]
enum ControlError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("{}", describe(.0))]
    Server(#[from] tokio_postgres::Error),
}

impl ControlPlane {
    pub fn new(
        target: Arc<Target>,
        lookout: Arc<Lookout>,
        config: Arc<ArcSwap<Config>>,
        health: Arc<Component>,
        metrics: Arc<Metrics>,
        pool: Pool,
    ) -> Self {
        health.set(Status::Healthy, "no database in use");
        let trusts_immutable = config.load().cache.trust_immutable_functions;
        Self { target, lookout, config, health, metrics, pool, trusts_immutable, secrets: Mutex::new(None) }
    }

    /// What `auth_query` says about a user; `None` if it does not know it. While the circuit breaker is open, and there is no
    /// connection from before, nobody is asked.
    pub async fn query_secret(&self, user: &str) -> Result<Option<String>, String> {
        let config = self.config.load_full();
        if config.auth.auth_query.is_empty() {
            return Ok(None);
        }
        let mut slot = self.secrets.lock().await;
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let opened = self.lookout.breaker.call(self.open(None, &config.upstream.database, || ())).await;
                opened.map_err(|error| error.to_string())?.0
            }
        };
        let rows = self.bounded(async { Ok(client.query(&config.auth.auth_query, &[&user]).await?) }).await;
        let rows = rows.map_err(|error| error.to_string())?;
        *slot = Some(client);
        match rows.first() {
            Some(row) => row.try_get::<_, Option<String>>(1).map_err(|error| describe(&error)),
            None => Ok(None),
        }
    }

    /// Opens a connection to `host`, or wherever connections go.
    async fn open(
        &self,
        host: Option<&Host>,
        database: &str,
        ended: impl FnOnce() + Send + 'static,
    ) -> Result<(Client, Peer), ControlError> {
        let config = self.config.load_full();
        let mut options = tokio_postgres::Config::new();
        options.user(&config.upstream.user).dbname(database).application_name("heliosproxy");
        options.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if !config.upstream.password.is_empty() {
            options.password(&config.upstream.password);
        }
        let connect = async {
            let Opened { stream, peer } = match host {
                Some(host) => open::open_to(&self.target, host).await?,
                None => open::open(&self.target).await?,
            };
            let (client, connection) = options.connect_raw(stream, NoTls).await?;
            Ok((client, connection, peer))
        };
        let (client, connection, peer) = self.bounded(connect).await?;
        tokio::spawn(async move {
            // Why it has ended shows in the client.
            let _ = connection.await;
            ended();
        });
        Ok((client, peer))
    }

    /// Looks for the host that `upstream.target_session_attrs` demands, and has connections go there from now on. Says why there
    /// is none.
    pub async fn choose_host(&self) -> Result<(), String> {
        let database = self.config.load().upstream.database.clone();
        let (mut roles, mut why) = (Vec::new(), Vec::new());
        let asked = self.target.hosts.iter().map(async |host| (host, self.role(host, &database).await));
        for (host, role) in join_all(asked).await {
            match role {
                Ok(role) => roles.push((host, role)),
                Err(error) => why.push(format!("{}: {error}", host.name)),
            }
        }
        let chosen = self.target.attributes.choose(&roles).map(|host| Arc::new(Host::clone(host)));
        let before = self.target.chosen.swap(chosen.clone());
        match chosen {
            Some(host) => {
                if before.as_ref() != Some(&host) {
                    tracing::info!(host = host.name, port = host.port, "connections go to this host from now on");
                }
                Ok(())
            }
            None if why.is_empty() => Err("no host is a server as upstream.target_session_attrs demands".into()),
            None => Err(why.join("; ")),
        }
    }

    async fn role(&self, host: &Host, database: &str) -> Result<Role, ControlError> {
        let (client, _) = self.open(Some(host), database, || ()).await?;
        let question = "SELECT pg_catalog.pg_is_in_recovery(), \
             pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on'";
        let row = self.bounded(async { Ok(client.query_one(question, &[]).await?) }).await?;
        Ok(Role { standby: row.try_get(0)?, read_only: row.try_get(1)? })
    }

    /// Nothing here takes longer than connecting may take.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
        let limit = self.target.connect_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or(Err(OpenError::Timeout(limit).into()))
    }
}

impl Control for ControlPlane {
    async fn connect(&self, database: &Database, ended: impl FnOnce() + Send + 'static) -> Result<Client, NotAttended> {
        let (client, peer) = self.open(None, &database.name, ended).await.map_err(|error| NotAttended {
            // Another server's word would say nothing of this one's databases.
            is_dropped: error.says_there_is_no_database() && self.target.hosts.len() == 1,
            why: error.to_string(),
        })?;
        if peer.address == database.server {
            return Ok(client);
        }
        let why = format!("connections go to {}, and its sessions are at {}", peer.address, database.server);
        Err(NotAttended { why, is_dropped: false })
    }

    fn refresh(&self) -> Duration {
        Duration::from_secs(self.config.load().catalog.refresh_secs)
    }

    fn trusts_immutable_functions(&self) -> bool {
        self.trusts_immutable
    }

    fn defaults_have_changed(&self) {
        self.pool.begin_generation();
    }

    fn looked(&self, took: Duration) {
        self.metrics.operation_duration(Operation::CatalogRefresh).record(took);
    }

    fn dropped(&self, database: &str) {
        self.health.set(Status::Healthy, format!("database {database:?} was dropped"));
    }

    fn report(&self, database: &str, state: Result<(), &str>) {
        match state {
            Ok(()) => self.health.set(Status::Healthy, format!("watching the catalogue of {database:?}")),
            Err(error) => self.health.set(Status::Degraded, format!("cache bypassed in {database:?}: {error}")),
        };
    }
}

impl ControlError {
    fn says_there_is_no_database(&self) -> bool {
        match self {
            Self::Open(_) => false,
            Self::Server(error) => error.code() == Some(&SqlState::INVALID_CATALOG_NAME),
        }
    }
}

impl Fault for ControlError {
    fn is_retryable(&self) -> bool {
        match self {
            Self::Open(error) => error.may_pass(),
            Self::Server(error) => error.code().is_none_or(|code| is_upstream_fault(code.code())),
        }
    }
}

/// The server's own message, which the error's short form leaves out.
fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
