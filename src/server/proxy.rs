//! The proxy as the server runs it: what all sessions share, made from the configuration.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Peer, Sessions, Signal};
use crate::admin::{self, Desk};
use crate::cache::admission::{Admission, Limits};
use crate::cache::flight::Flights;
use crate::cache::ledger::Ledger;
use crate::cache::rules::Rules;
use crate::cache::store::Store;
use crate::catalog::Databases;
use crate::config::{Config, SessionAttributes};
use crate::guard::CircuitBreaker;
use crate::parallel::ParallelQueryExecutor;
use crate::session::auth::UserSource;
use crate::session::{self, ControlPlane, Gate, Seats, Shared, UserSeats, VisitorSeats, limits};
use crate::statement::Statements;
use crate::stream::Streams;
use crate::telemetry::export::Tracer;
use crate::telemetry::health::{Component, Health, HealthCheck, HealthChecker, Status};
use crate::telemetry::metrics::{Metrics, Side, State};
use crate::upstream::connect;
use crate::upstream::lookout::Lookout;
use crate::upstream::open::Target;
use crate::upstream::pool::{KeepsNone, Pool};
use crate::wire::stream::Stream;
use crate::wire::tls::ClientTlsAcceptor;

/// Between two looks whether the upstream lets clients in.
const PROBE: Duration = Duration::from_secs(2);
/// Between two looks however many connections are lost.
const PROBE_PAUSE: Duration = Duration::from_millis(200);
/// Between two looks whether everything has had its effect.
const SETTLING: Duration = Duration::from_millis(50);
const MEBIBYTE: usize = 1024 * 1024;

pub struct Proxy {
    shared: Arc<Shared>,
    streams: Arc<Streams>,
    desk: Arc<Desk>,
    /// Once another process has taken over.
    keeps_none: OnceLock<KeepsNone>,
}

impl Proxy {
    /// Must be called within the main thread's runtime.
    pub fn new(
        server: &super::Shared,
        signals: mpsc::Sender<Signal>,
    ) -> Result<Arc<Self>, Box<dyn std::error::Error + Send + Sync>> {
        let config = &server.config;
        let target = Arc::new(Target::new(&config.upstream)?);
        let current = Arc::new(ArcSwap::from(config.clone()));
        let lookout = Arc::new(Lookout::new(breaker(config, server.metrics.clone())));
        let pool = Pool::new(&config.pool);
        let control = Arc::new(ControlPlane::new(
            target.clone(),
            lookout.clone(),
            current.clone(),
            server.health.register("catalog"),
            server.metrics.clone(),
            pool.clone(),
        ));
        let health = server.health.register("upstream");
        tokio::spawn(probe(target.clone(), current.clone(), control.clone(), lookout.clone(), health));
        let parallel =
            ParallelQueryExecutor::new(&config.parallel, target.clone(), lookout.clone(), server.metrics.clone());
        let admission = Arc::new(Admission::default());
        admission.set_limits(misses(config));
        let shared = Arc::new(Shared {
            admission,
            metrics: server.metrics.clone(),
            tracer: Tracer::new(&config.tracing, Handle::current())?,
            statements: Statements::new(),
            store: Store::new(
                config.cache.max_memory_mb * MEBIBYTE,
                config.cache.max_entries,
                config.cache.eviction_strategy,
            ),
            ledger: Ledger::new(config.admin.max_statements),
            flights: Arc::new(Flights::default()),
            databases: Databases::new(config.cache.version_stripes),
            sessions: Arc::default(),
            seats: Seats::new(config.server.max_clients),
            user_seats: Arc::new(UserSeats::new(config.server.max_clients_per_user)),
            visitors: VisitorSeats::default(),
            gate: Gate::default(),
            pool,
            parallel,
            tls: ClientTlsAcceptor::new(&config.tls)?,
            users: UserSource::new(&config.auth.user_file)?,
            control,
            runtime: Handle::current(),
            aliases: Arc::default(),
            elders: server.elders.clone(),
            shutting_down: AtomicBool::new(false),
            sequences_matter: AtomicBool::new(false),
            caching: config.cache.enabled,
            rules: ArcSwap::from_pointee(Rules::new(&config.cache)),
            config: current,
            target,
            lookout,
        });
        shared.store.keep_old(kept(config));
        shared.metrics.cache_limit_bytes.set((config.cache.max_memory_mb * MEBIBYTE) as f64);
        tokio::spawn(measure(shared.clone(), server.health.clone()));
        tokio::spawn(limits::enforce(shared.clone()));
        let (orders, mut given) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(order) = given.recv().await
                && signals.send(Signal::Order(order)).await.is_ok()
            {}
        });
        let is_reloadable = super::reload::is_reloadable;
        let desk = Desk { shared: shared.clone(), orders, is_reloadable, started: Instant::now() };
        let streams = Arc::new(Streams::new(shared.clone())?);
        Ok(Arc::new(Self { shared, streams, desk: Arc::new(desk), keeps_none: OnceLock::new() }))
    }
}

impl Sessions for Proxy {
    fn session(self: Arc<Self>, stream: Stream, _: Peer) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let desk = self.desk.clone();
        Box::pin(session::serve(self.shared.clone(), stream, |visitor| admin::serve(desk, visitor)))
    }

    fn stream(self: Arc<Self>, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.streams.clone().serve(stream))
    }

    fn begin_shutdown(&self) {
        self.shared.shutting_down.store(true, Ordering::SeqCst);
        self.streams.begin_shutdown();
        self.shared.sessions.for_each(session::Control::shut_down);
    }

    fn end_now(&self) {
        self.shared.sessions.for_each(session::Control::end_now);
    }

    fn hold_back(&self) {
        self.shared.databases.hold_back();
    }

    fn go_ahead(&self) {
        self.shared.databases.go_ahead();
    }

    fn begin_leaving(&self) {
        self.shared.databases.retire();
        self.shared.store.drop_invalid();
        // The other process needs the connections.
        self.keeps_none.get_or_init(|| self.shared.pool.keep_none());
    }

    fn settled(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            while !self.shared.databases.are_settled() {
                tokio::time::sleep(SETTLING).await;
            }
        })
    }

    fn cancel(self: Arc<Self>, pid: i32, secret: Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            if let Some(control) = self.shared.sessions.find(pid, &secret) {
                control.cancel().await;
            }
        })
    }

    fn stats(&self) -> serde_json::Value {
        self.desk.stats()
    }

    fn reload(&self, config: Arc<Config>) {
        self.shared.seats.set_limit(config.server.max_clients);
        self.shared.user_seats.set_limit(config.server.max_clients_per_user);
        if let Some(tls) = &self.shared.tls
            && let Err(error) = tls.reload(&config.tls)
        {
            tracing::error!(%error, "the TLS files are not usable, the old ones stay in use");
        }
        if let Err(error) = self.streams.reload_tls(&config) {
            tracing::error!(%error, "the TLS files are not usable for WebSockets, the old ones stay in use");
        }
        if let Err(error) = self.streams.reload_tokens(&config) {
            tracing::error!(%error, "the token file is not usable, the tokens stay as they were");
        }
        if let Err(error) = self.shared.users.reload(&config.auth.user_file) {
            tracing::error!(%error, "the user file is not usable, the users stay as they were");
        }
        self.shared.pool.set_limits(&config.pool);
        self.shared.rules.store(Arc::new(Rules::new(&config.cache)));
        self.shared.admission.set_limits(misses(&config));
        self.shared.store.keep_old(kept(&config));
        self.shared.config.store(config);
    }
}

/// For how long results are kept, though they have expired.
fn kept(config: &Config) -> Duration {
    Duration::from_secs(if config.cache.serve_stale_on_open { config.cache.max_stale_secs } else { 0 })
}

/// How many misses may be on their way.
fn misses(config: &Config) -> Limits {
    Limits { in_all: config.cache.max_misses, of_a_shape: config.cache.max_misses_per_statement }
}

/// A circuit breaker whose changes are logged and counted.
fn breaker(config: &Config, metrics: Arc<Metrics>) -> CircuitBreaker {
    CircuitBreaker::with_listener(config.breaker.clone(), move |state| {
        tracing::warn!(state = state.label(), "the circuit breaker of the upstream has changed its state");
        metrics.breaker_is(state);
    })
}

/// Keeps the health of the upstream up to date: whether it lets clients in. A lost connection is looked into at once.
async fn probe(
    target: Arc<Target>,
    config: Arc<ArcSwap<Config>>,
    control: Arc<ControlPlane>,
    lookout: Arc<Lookout>,
    health: Arc<Component>,
) {
    loop {
        let chosen = match target.attributes {
            SessionAttributes::Any => Ok(()),
            _ => control.choose_host().await,
        };
        let account = config.load().upstream.clone();
        match chosen {
            Err(why) => health.set(Status::Unhealthy, why),
            Ok(()) => match connect::ping(&target, &account.user, &account.database).await {
                Ok(()) => {
                    lookout.breaker.seen_alive();
                    health.set(Status::Healthy, "accepts connections")
                }
                // Those who are in are served.
                Err(error) if error.is_full() => health.set(Status::Degraded, "has no connection left"),
                Err(error) => health.set(Status::Unhealthy, error.to_string()),
            },
        };
        tokio::time::sleep(PROBE_PAUSE).await;
        let _ = tokio::time::timeout(PROBE - PROBE_PAUSE, lookout.doubted()).await;
    }
}

/// Keeps gauges and health up to date.
async fn measure(shared: Arc<Shared>, health: Arc<Health>) {
    let checker = checker(&shared);
    let components: Vec<Arc<Component>> =
        checker.check().components.iter().map(|component| health.register(component.name)).collect();
    loop {
        shared.metrics.cache_bytes.set(shared.store.bytes() as f64);
        shared.metrics.cache_entries.set(shared.store.entries() as f64);
        shared.pool.sweep();
        shared.parallel.sweep();
        let idle = shared.pool.idle_connections() + shared.parallel.idle_connections();
        shared.metrics.connections(Side::Upstream, State::Idle).set(idle as f64);
        for (component, seen) in components.iter().zip(checker.check().components) {
            component.set(seen.status, seen.text);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// What is looked at from time to time.
fn checker(shared: &Arc<Shared>) -> HealthChecker {
    let mut checker = HealthChecker::default();
    let (breaker, cache, pools) = (shared.clone(), shared.clone(), shared.clone());
    checker.add(HealthCheck::new("breaker", move || breaker_health(breaker.lookout.breaker.state())));
    checker.add(HealthCheck::new("cache", move || {
        let text = format!("{} results, {} bytes", cache.store.entries(), cache.store.bytes());
        (Status::Healthy, if cache.caching { text } else { "off".into() })
    }));
    checker.add(HealthCheck::new("pools", move || pool_health(pools.pool.free(), pools.pool.limit())));
    checker
}

/// While it is open new connections are refused; clients that are connected go on, and so does the cache.
fn breaker_health(state: crate::guard::State) -> (Status, String) {
    let (status, text) = match state {
        crate::guard::State::Closed => (Status::Healthy, "closed"),
        crate::guard::State::HalfOpen => (Status::Degraded, "half open: a few connections are tried"),
        crate::guard::State::Open => (Status::Degraded, "open: no new connections to the server"),
    };
    (status, text.into())
}

fn pool_health(free: usize, limit: usize) -> (Status, String) {
    let used = limit.saturating_sub(free);
    let status = if free == 0 { Status::Degraded } else { Status::Healthy };
    (status, format!("{used} of {limit} upstream connections in use"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pool_or_an_open_breaker_restricts_but_sends_nobody_away() {
        assert_eq!(pool_health(1, 10), (Status::Healthy, "9 of 10 upstream connections in use".into()));
        assert_eq!(pool_health(0, 10).0, Status::Degraded);
        assert_eq!(breaker_health(crate::guard::State::Closed).0, Status::Healthy);
        assert_eq!(breaker_health(crate::guard::State::HalfOpen).0, Status::Degraded);
        assert_eq!(breaker_health(crate::guard::State::Open).0, Status::Degraded);
    }
}
