//! The service account's connections: the catalogue's watchers and `auth_query`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use crate::catalog::watch::Control;
use crate::config::Config;
use crate::guard::Fault;
use crate::telemetry::health::{Component, Status};
use crate::telemetry::metrics::{Metrics, Operation};
use crate::upstream::lookout::{Lookout, is_upstream_fault};
use crate::upstream::open::{self, OpenError, Target};

pub struct ControlPlane {
    target: Arc<Target>,
    lookout: Arc<Lookout>,
    config: Arc<ArcSwap<Config>>,
    health: Arc<Component>,
    metrics: Arc<Metrics>,
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
    ) -> Self {
        health.set(Status::Healthy, "no database in use");
        let trusts_immutable = config.load().cache.trust_immutable_functions;
        Self { target, lookout, config, health, metrics, trusts_immutable, secrets: Mutex::new(None) }
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
                let opened = self.lookout.breaker.call(self.open(&config.upstream.database)).await;
                opened.map_err(|error| error.to_string())?
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

    async fn open(&self, database: &str) -> Result<Client, ControlError> {
        let config = self.config.load_full();
        let mut options = tokio_postgres::Config::new();
        options.user(&config.upstream.user).dbname(database).application_name("heliosproxy");
        options.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if !config.upstream.password.is_empty() {
            options.password(&config.upstream.password);
        }
        let connect = async {
            let stream = open::open(&self.target).await?;
            Ok(options.connect_raw(stream, NoTls).await?)
        };
        let (client, connection) = self.bounded(connect).await?;
        tokio::spawn(async move {
            // Its end shows in the client.
            let _ = connection.await;
        });
        Ok(client)
    }

    /// Nothing here takes longer than connecting may take.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, ControlError>>) -> Result<T, ControlError> {
        let limit = self.target.connect_timeout;
        tokio::time::timeout(limit, work).await.unwrap_or(Err(OpenError::Timeout(limit).into()))
    }
}

impl Control for ControlPlane {
    async fn connect(&self, database: &str) -> Result<Client, String> {
        self.open(database).await.map_err(|error| error.to_string())
    }

    fn refresh(&self) -> Duration {
        Duration::from_secs(self.config.load().catalog.refresh_secs)
    }

    fn trusts_immutable_functions(&self) -> bool {
        self.trusts_immutable
    }

    fn looked(&self, took: Duration) {
        self.metrics.operation_duration(Operation::CatalogRefresh).record(took);
    }

    fn report(&self, database: &str, state: Result<(), &str>) {
        match state {
            Ok(()) => self.health.set(Status::Healthy, format!("watching the catalogue of {database:?}")),
            Err(error) => self.health.set(Status::Degraded, format!("cache bypassed in {database:?}: {error}")),
        };
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
