//! The service account's connections: the catalogue's watchers and `auth_query`.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio_postgres::{Client, NoTls};

use crate::catalog::watch::Control;
use crate::config::Config;
use crate::telemetry::health::{Component, Status};
use crate::telemetry::metrics::{Metrics, Operation};
use crate::upstream::open::{self, Target};

pub struct ControlPlane {
    target: Arc<Target>,
    config: Arc<ArcSwap<Config>>,
    health: Arc<Component>,
    metrics: Arc<Metrics>,
    /// The connection for `auth_query`, while it works.
    /// Fixed at the start: every database's model goes by it.
    trusts_immutable: bool,
    secrets: Mutex<Option<Client>>,
}

impl ControlPlane {
    pub fn new(
        target: Arc<Target>,
        config: Arc<ArcSwap<Config>>,
        health: Arc<Component>,
        metrics: Arc<Metrics>,
    ) -> Self {
        health.set(Status::Healthy, "no database in use");
        let trusts_immutable = config.load().cache.trust_immutable_functions;
        Self { target, config, health, metrics, trusts_immutable, secrets: Mutex::new(None) }
    }

    /// What `auth_query` says about a user; `None` if it does not know it.
    pub async fn query_secret(&self, user: &str) -> Result<Option<String>, String> {
        let config = self.config.load_full();
        if config.auth.auth_query.is_empty() {
            return Ok(None);
        }
        let mut slot = self.secrets.lock().await;
        let client = match slot.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.open(&config.upstream.database).await?,
        };
        let rows = client.query(&config.auth.auth_query, &[&user]).await.map_err(|error| describe(&error))?;
        *slot = Some(client);
        match rows.first() {
            Some(row) => row.try_get::<_, Option<String>>(1).map_err(|error| describe(&error)),
            None => Ok(None),
        }
    }

    async fn open(&self, database: &str) -> Result<Client, String> {
        let config = self.config.load_full();
        let stream = open::open(&self.target).await.map_err(|error| error.to_string())?;
        let mut options = tokio_postgres::Config::new();
        options.user(&config.upstream.user).dbname(database).application_name("heliosproxy");
        options.ssl_mode(tokio_postgres::config::SslMode::Disable);
        if !config.upstream.password.is_empty() {
            options.password(&config.upstream.password);
        }
        let (client, connection) = options.connect_raw(stream, NoTls).await.map_err(|error| describe(&error))?;
        tokio::spawn(async move {
            // Its end shows in the client.
            let _ = connection.await;
        });
        Ok(client)
    }
}

impl Control for ControlPlane {
    async fn connect(&self, database: &str) -> Result<Client, String> {
        let bound = Duration::from_secs(self.config.load().upstream.connect_timeout_secs);
        tokio::time::timeout(bound, self.open(database)).await.unwrap_or_else(|_| Err("timed out".into()))
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

/// The server's own message, which the error's short form leaves out.
fn describe(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}
