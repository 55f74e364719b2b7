//! The process around the sessions: listeners, worker threads, HTTP, signals, graceful shutdown, reload.
//!
//! The main thread accepts, answers HTTP and waits for signals; sessions run on the [`workers`]. What a session does is the
//! business of whoever implements [`Sessions`].

mod http;
mod listen;
mod proxy;
#[cfg(test)]
mod reference;
mod reload;
mod signals;
mod workers;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::admin::{Changed, Order};
use crate::config::{self, Config, ConfigError, Sources};
use crate::telemetry::collector::global_metrics;
use crate::telemetry::health::{Component, Health, Status};
use crate::telemetry::log::LogHandle;
use crate::telemetry::metrics::Metrics;
use crate::wire::stream::Stream;

pub use listen::ListenError;
pub use proxy::Proxy;
pub use signals::Signal;

use http::Http;
use listen::Listeners;
use workers::Workers;

/// How long sessions have, after they were told to end now, to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What runs clients' sessions.
pub trait Sessions: Send + Sync + 'static {
    /// Runs one client's session to its end. Polled on one thread only, whose runtime drives all of the session's sockets.
    fn session(self: Arc<Self>, stream: Stream, peer: Peer) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// The same for a client of the WebSocket endpoint.
    fn stream(self: Arc<Self>, stream: Stream) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// No more clients will come. Sessions outside a transaction should end, the others when their transaction does. A session
    /// that was accepted before may be polled for the first time after this, and must know it too.
    fn begin_shutdown(&self);

    /// Time is up: every session should tell its client and end at once. Whoever has not in a second is dropped.
    fn end_now(&self);

    /// What `/stats` and the status page show.
    fn stats(&self) -> serde_json::Value;

    /// A valid configuration was loaded, perhaps the same as before: certificates and user files are to be read again.
    fn reload(&self, config: Arc<Config>);
}

/// Who is at the other end of a client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    Tcp(SocketAddr),
    Unix,
}

/// What the floors of one process share.
#[derive(Debug, Clone)]
pub struct Shared {
    pub config: Arc<Config>,
    pub metrics: Arc<Metrics>,
    pub health: Arc<Health>,
}

impl Shared {
    pub fn new(config: Config) -> Self {
        Self { config: Arc::new(config), metrics: Arc::default(), health: Arc::default() }
    }
}

#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
    #[error("cannot start: {0}")]
    Sessions(Box<dyn std::error::Error + Send + Sync>),
}

/// Runs the proxy until a signal has ended it. `sessions` is made within the main thread's runtime, before anybody can
/// connect.
pub fn run<S: Sessions>(
    config: Config,
    sources: Sources,
    log: LogHandle,
    sessions: impl FnOnce(&Shared, mpsc::Sender<Signal>) -> Result<Arc<S>, Box<dyn std::error::Error + Send + Sync>>,
) -> Result<(), ServerError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let metrics = Arc::new(Metrics::on(global_metrics().clone()));
        let shared = Shared { metrics, ..Shared::new(config) };
        // Before anything listens: a signal in between must not kill the process with its socket file left behind.
        let (sender, signals) = signals::receive()?;
        let sessions = sessions(&shared, sender).map_err(ServerError::Sessions)?;
        let server = Server::start(shared, sessions)?;
        server.serve(signals, &sources, &log).await;
        Ok::<(), ServerError>(())
    })?;
    // Look-ups of names and the like may still hold threads; nobody waits for their answers any more.
    runtime.shutdown_background();
    Ok(())
}

/// A proxy that accepts clients.
struct Server<S> {
    shared: Shared,
    sessions: Arc<S>,
    listeners: Listeners,
    stream_listeners: Option<Listeners>,
    workers: Arc<Workers>,
    http: Option<Http>,
    lifecycle: Arc<Component>,
}

impl<S: Sessions> Server<S> {
    /// Must be called within the main thread's runtime.
    fn start(shared: Shared, sessions: Arc<S>) -> Result<Self, ServerError> {
        let config = &shared.config.server;
        let lifecycle = shared.health.register("server");
        let workers = Arc::new(Workers::start(config.worker_threads, config.worker_scheduling)?);
        let http = match config.http.as_str() {
            "" => None,
            address => {
                let stats = Arc::clone(&sessions);
                Some(Http::start(address, &shared, Arc::new(move || stats.stats()))?)
            }
        };
        let (to, with) = (Arc::clone(&workers), Arc::clone(&sessions));
        let listeners = Listeners::start(config, move |accepted| {
            to.run(accepted, &with, |with, stream, peer| with.session(stream, peer))
        })?;
        let stream_listeners = match shared.config.stream.listen.as_str() {
            "" => None,
            address => {
                let (to, with) = (Arc::clone(&workers), Arc::clone(&sessions));
                let run = move |accepted| to.run(accepted, &with, |with, stream, _| with.stream(stream));
                Some(Listeners::on(address, run)?)
            }
        };
        lifecycle.set(Status::Healthy, "accepting clients");
        for address in listeners.addresses() {
            tracing::info!(address, "listening for clients");
        }
        for address in stream_listeners.iter().flat_map(Listeners::addresses) {
            tracing::info!(address, "listening for WebSockets");
        }
        for address in http.iter().flat_map(Http::addresses) {
            tracing::info!(%address, "listening for HTTP");
        }
        tracing::info!(threads = workers.threads(), "ready");
        Ok(Self { shared, sessions, listeners, stream_listeners, workers, http, lifecycle })
    }

    /// Obeys signals until one of them ends the proxy.
    async fn serve(mut self, mut signals: mpsc::Receiver<Signal>, sources: &Sources, log: &LogHandle) {
        loop {
            match signals.recv().await {
                Some(Signal::Reload) => {
                    // What is wrong has been logged, and nobody else is told.
                    let _ = self.change(sources.load(), log);
                }
                // Whoever has given the order may be gone.
                Some(Signal::Order(Order::Reload(reply))) => drop(reply.send(self.change(sources.load(), log))),
                Some(Signal::Order(Order::Set { key, value, reply })) => {
                    let new = config::with(&self.shared.config, &key, &value);
                    drop(reply.send(self.change(new, log)));
                }
                Some(Signal::Terminate) | None => return self.end(signals).await,
            }
        }
    }

    /// Puts a new configuration into use, if it is valid.
    fn change(&mut self, new: Result<Config, ConfigError>, log: &LogHandle) -> Result<Vec<Changed>, String> {
        let (config, changes) = reload::change(&self.shared.config, new, log)?;
        self.shared.config = Arc::clone(&config);
        self.sessions.reload(config);
        Ok(changes)
    }

    /// Ends: no new clients at once, running transactions within their time or until a second signal, then everything.
    async fn end(mut self, mut signals: mpsc::Receiver<Signal>) {
        let patience = Duration::from_secs(self.shared.config.server.shutdown_timeout_secs);
        self.lifecycle.set(Status::Unhealthy, "shutting down");
        self.listeners.close().await;
        if let Some(listeners) = &mut self.stream_listeners {
            listeners.close().await;
        }
        self.sessions.begin_shutdown();
        tracing::info!(sessions = self.workers.sessions(), "shutting down");
        let ended = tokio::select! {
            ended = timeout(patience, self.workers.idle()) => ended.is_ok(),
            () = second(&mut signals) => false,
        };
        if !ended {
            tracing::warn!(sessions = self.workers.sessions(), "ending sessions in the middle of a transaction");
            self.sessions.end_now();
            // Whether they all ended makes no difference any more: what is left is dropped with its worker.
            let _ = timeout(LAST_WORDS, self.workers.idle()).await;
        }
        self.workers.stop().await;
        drop(self.http);
        tracing::info!("ended");
    }
}

/// Until somebody asks again for an end. A reload is of no use by now.
async fn second(signals: &mut mpsc::Receiver<Signal>) {
    loop {
        match signals.recv().await {
            Some(Signal::Terminate) => return,
            Some(Signal::Reload | Signal::Order(_)) => {}
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests;
