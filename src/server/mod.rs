//! The process around the sessions: listeners, worker threads, HTTP, signals, graceful shutdown, reload, taking over.
//!
//! The main thread accepts, answers HTTP and waits for signals; sessions run on the [`workers`]. What a session does is the
//! business of whoever implements [`Sessions`].

mod http;
mod leaving;
mod listen;
mod notify;
mod proxy;
#[cfg(test)]
mod reference;
mod reload;
mod signals;
mod sockets;
mod upgrade;
mod workers;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::admin::{Changed, Order};
use crate::config::{self, Config, ConfigError, Sources};
use crate::takeover::{Asked, Door, Elders, Knocked, Role, TakeoverError};
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
use notify::ServiceManager;
use sockets::{Inherited, Sockets, places_of_clients};
use upgrade::Program;
use workers::Workers;

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

    /// Another process of the proxy may pass writes: nothing is to be answered from memory.
    fn hold_back(&self);

    /// There is no such process any more. Of no effect after [`begin_leaving`](Self::begin_leaving).
    fn go_ahead(&self);

    /// Another process has taken over: as [`hold_back`](Self::hold_back) for good. Sessions go on until their clients leave.
    fn begin_leaving(&self);

    /// Ends when nothing that sessions have sent to the upstream can have an effect any more. To be asked when none is left.
    fn settled(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>>;

    /// Carries out a cancel request, if it is for a client of these sessions.
    fn cancel(self: Arc<Self>, pid: i32, secret: Bytes) -> Pin<Box<dyn Future<Output = ()> + Send>>;

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
    /// Older processes of this proxy.
    pub elders: Arc<Elders>,
}

impl Shared {
    pub fn new(config: Config) -> Self {
        let (metrics, health, elders) = Default::default();
        Self { config: Arc::new(config), metrics, health, elders }
    }
}

#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("cannot take over: {0}")]
    TakeOver(#[from] TakeoverError),
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
    // These are in the environment, which is looked at and changed while there is one thread only.
    let manager = ServiceManager::from_environment()?;
    let mut inherited = Inherited::from_environment(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let metrics = Arc::new(Metrics::on(global_metrics().clone()));
        let shared = Shared { metrics, ..Shared::new(config) };
        // Before anything listens: a signal in between must not kill the process with its socket file left behind.
        let (sender, signals) = signals::receive()?;
        let (door, knocked) = knock(&shared).await?;
        let sessions = sessions(&shared, sender.clone()).map_err(ServerError::Sessions)?;
        let sockets = take_over(&shared, &*sessions, &mut inherited, knocked).await?;
        let server = Server::start(shared, sessions, sockets, manager)?;
        if let Some(door) = door {
            // Until the runtime ends, and so after everything else: others take this process to be there for as long.
            tokio::spawn(door.serve(sender, Signal::Asked));
        }
        server.serve(signals, &sources, &log).await;
        Ok::<(), ServerError>(())
    })?;
    // Look-ups of names and the like may still hold threads; nobody waits for their answers any more.
    runtime.shutdown_background();
    Ok(())
}

/// Opens this process's door, and asks the processes that are there what they listen on.
async fn knock(shared: &Shared) -> Result<(Option<Door>, Knocked), ServerError> {
    let dir = Path::new(&shared.config.server.takeover_dir);
    if dir.as_os_str().is_empty() {
        return Ok((None, Knocked::default()));
    }
    let door = Door::open(dir).map_err(|source| TakeoverError::Io { path: dir.into(), source })?;
    let knocked = shared.elders.knock(dir, door.path()).await?;
    Ok((Some(door), knocked))
}

/// Gets everything that can fail ready, then has the older processes leave.
async fn take_over<S: Sessions>(
    shared: &Shared,
    sessions: &S,
    inherited: &mut Inherited,
    mut knocked: Knocked,
) -> Result<Sockets, ServerError> {
    let theirs = places_of_clients(&knocked.sockets);
    inherited.add(std::mem::take(&mut knocked.sockets));
    let mut sockets = Sockets::open(&shared.config, inherited)?;
    let ours = sockets.places_of_clients();
    if !theirs.is_empty()
        && !theirs.iter().any(|place| ours.contains(place))
        && let Some(stranger) = knocked.first()
    {
        return Err(TakeoverError::Stranger(stranger.into()).into());
    }
    if shared.elders.are_there() {
        sessions.hold_back();
    }
    knocked.take_over(&shared.elders).await?;
    sockets.are_ours();
    Ok(sockets)
}

/// A proxy that accepts clients.
struct Server<S> {
    shared: Shared,
    sessions: Arc<S>,
    /// Handles of the sockets that are accepted on; `None` when they are another process's.
    sockets: Option<Sockets>,
    listeners: Vec<Listeners>,
    workers: Arc<Workers>,
    http: Option<Http>,
    lifecycle: Arc<Component>,
    manager: ServiceManager,
    program: Program,
    /// Another process has taken over.
    succeeded: bool,
}

impl<S: Sessions> Server<S> {
    /// Must be called within the main thread's runtime.
    fn start(shared: Shared, sessions: Arc<S>, sockets: Sockets, manager: ServiceManager) -> Result<Self, ServerError> {
        let config = &shared.config.server;
        let lifecycle = shared.health.register("server");
        let workers = Arc::new(Workers::start(config.worker_threads, config.worker_scheduling)?);
        let stats = Arc::clone(&sessions);
        let http = match sockets.of(Role::Http)? {
            none if none.is_empty() => None,
            listening => Some(Http::start(listening, &shared, Arc::new(move || stats.stats()))?),
        };
        let (to, with) = (Arc::clone(&workers), Arc::clone(&sessions));
        let clients = Listeners::start(sockets.of(Role::Clients)?, move |accepted| {
            to.run(accepted, &with, |with, stream, peer| with.session(stream, peer))
        })?;
        let (to, with) = (Arc::clone(&workers), Arc::clone(&sessions));
        let web_sockets = Listeners::start(sockets.of(Role::WebSockets)?, move |accepted| {
            to.run(accepted, &with, |with, stream, _| with.stream(stream))
        })?;
        lifecycle.set(Status::Healthy, "accepting clients");
        for address in clients.places() {
            tracing::info!(%address, "listening for clients");
        }
        for address in web_sockets.places() {
            tracing::info!(%address, "listening for WebSockets");
        }
        for address in http.iter().flat_map(Http::addresses) {
            tracing::info!(%address, "listening for HTTP");
        }
        tracing::info!(threads = workers.threads(), pid = std::process::id(), "ready");
        Ok(Self {
            shared,
            sessions,
            sockets: Some(sockets),
            listeners: vec![clients, web_sockets],
            workers,
            http,
            lifecycle,
            manager,
            program: Program::of_this_process()?,
            succeeded: false,
        })
    }

    /// Obeys signals until one of them ends the proxy.
    async fn serve(mut self, mut signals: mpsc::Receiver<Signal>, sources: &Sources, log: &LogHandle) {
        self.manager.is_ready();
        let heart = self.manager.heartbeat();
        if self.shared.elders.are_there() {
            tokio::spawn(wait_for_elders(self.shared.clone(), Arc::clone(&self.sessions)));
        }
        loop {
            let signal = tokio::select! {
                signal = signals.recv() => signal,
                () = beat(heart, &self.workers) => {
                    self.manager.is_alive();
                    continue;
                }
            };
            match signal {
                Some(Signal::Terminate) | None => return self.end(signals).await,
                Some(Signal::Asked(Asked::Leave(successor))) => {
                    self.hand_over(successor).await;
                    return self.let_clients_go(signals, sources, log).await;
                }
                Some(other) => self.obey(other, sources, log),
            }
        }
    }

    /// Does what is asked, as long as it is not to end.
    fn obey(&mut self, signal: Signal, sources: &Sources, log: &LogHandle) {
        match signal {
            Signal::Reload => {
                self.manager.is_reloading();
                // What is wrong has been logged, and nobody else is told.
                let _ = self.change(sources.load(), log);
                if !self.succeeded {
                    self.manager.is_ready();
                }
            }
            // Whoever has given the order may be gone.
            Signal::Order(Order::Reload(reply)) => drop(reply.send(self.change(sources.load(), log))),
            Signal::Order(Order::Set { key, value, reply }) => {
                let new = config::with(&self.shared.config, &key, &value);
                drop(reply.send(self.change(new, log)));
            }
            Signal::Upgrade => self.upgrade(),
            Signal::Asked(asked) => self.answer(asked),
            Signal::Terminate => {}
        }
    }

    /// Puts a new configuration into use, if it is valid.
    fn change(&mut self, new: Result<Config, ConfigError>, log: &LogHandle) -> Result<Vec<Changed>, String> {
        let (config, changes) = reload::change(&self.shared.config, new, log)?;
        self.shared.config = Arc::clone(&config);
        self.sessions.reload(config);
        Ok(changes)
    }
}

/// Tells the sessions when there is no older process any more.
async fn wait_for_elders<S: Sessions>(shared: Shared, sessions: Arc<S>) {
    let health = shared.health.register("takeover");
    let count = shared.elders.count();
    health.set(Status::Degraded, "nothing is served from the cache until the older process has ended");
    tracing::info!(processes = count, "took over: the cache is not used until the older process has ended");
    shared.elders.gone().await;
    sessions.go_ahead();
    health.set(Status::Healthy, "no older process is left");
    tracing::info!("the older process has ended: the cache is used from now on");
}

/// Ends when it is time to say that the proxy is alive, and it is: every worker does what it is given.
async fn beat(every: Option<Duration>, workers: &Workers) {
    match every {
        Some(every) => {
            tokio::time::sleep(every).await;
            workers.answer().await;
        }
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
