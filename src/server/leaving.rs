//! How a process ends: at once for SIGTERM, slowly when another one has taken over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{Server, Sessions, Signal};
use crate::config::Sources;
use crate::takeover::{Asked, Successor};
use crate::telemetry::health::Status;
use crate::telemetry::log::LogHandle;

/// How long sessions have, after they were told to end now, to say so to their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// The same where it matters that each of them comes to its end: what is cut off leaves no note of its writes.
const LAST_WORDS_AND_NOTES: Duration = Duration::from_secs(15);

impl<S: Sessions> Server<S> {
    /// SIGUSR2.
    pub(super) fn upgrade(&self) {
        if self.succeeded {
            tracing::warn!("another process has taken over already");
        } else if self.shared.config.server.takeover_dir.is_empty() {
            tracing::error!("no process can take over without a server.takeover_dir");
        } else if let Err(error) = self.program.start() {
            tracing::error!(%error, "cannot start a process that takes over");
        }
    }

    /// What other processes ask. They may be gone before they are answered.
    pub(super) fn answer(&mut self, asked: Asked) {
        match asked {
            Asked::Sockets(reply) => {
                let sockets = self.sockets.as_ref().map_or_else(|| Ok(Vec::new()), |sockets| sockets.to_pass());
                match sockets {
                    Ok(sockets) => drop(reply.send(sockets)),
                    Err(error) => tracing::error!(%error, "cannot pass the sockets on"),
                }
            }
            // Clients are not accepted any more, and HTTP is from here on not.
            Asked::Leave(successor) => {
                self.http = None;
                if let Some(sockets) = self.sockets.take() {
                    sockets.leave();
                }
                self.sessions.begin_leaving();
                self.succeeded = true;
                successor.has_left();
            }
            Asked::Cancel { pid, secret, done } => {
                let cancel = Arc::clone(&self.sessions).cancel(pid, secret);
                tokio::spawn(async move {
                    cancel.await;
                    drop(done);
                });
            }
        }
    }

    /// Leaves the sockets to another process. What waits in them to be accepted is accepted there.
    pub(super) async fn hand_over(&mut self, successor: Successor) {
        tracing::info!(pid = successor.pid, sessions = self.workers.sessions(), "another process takes over");
        self.lifecycle.set(Status::Degraded, "another process has taken over");
        for listeners in &mut self.listeners {
            listeners.close().await;
        }
        self.answer(Asked::Leave(successor));
    }

    /// Lets sessions go on until their clients leave, for as long as they may; then ends.
    pub(super) async fn let_clients_go(
        mut self,
        mut signals: mpsc::Receiver<Signal>,
        sources: &Sources,
        log: &LogHandle,
    ) {
        let workers = Arc::clone(&self.workers);
        let patience = Duration::from_secs(self.shared.config.server.takeover_timeout_secs);
        let mut left = std::pin::pin!(timeout(patience, workers.idle()));
        loop {
            let signal = tokio::select! {
                _ = &mut left => break,
                signal = signals.recv() => signal,
            };
            match signal {
                Some(Signal::Terminate) | None => break,
                Some(other) => self.obey(other, sources, log),
            }
        }
        self.end(signals).await
    }

    /// Ends: no new clients at once, running transactions within their time or until a second signal, then everything.
    pub(super) async fn end(mut self, mut signals: mpsc::Receiver<Signal>) {
        let patience = Duration::from_secs(self.shared.config.server.shutdown_timeout_secs);
        self.lifecycle.set(Status::Unhealthy, "shutting down");
        if !self.succeeded {
            self.manager.is_stopping();
        }
        // From here on nobody can connect, unless somebody else has the sockets, too.
        if let Some(sockets) = &mut self.sockets {
            sockets.close_to_clients();
        }
        for listeners in &mut self.listeners {
            listeners.close().await;
        }
        self.sessions.begin_shutdown();
        tracing::info!(sessions = self.workers.sessions(), "shutting down");
        let workers = Arc::clone(&self.workers);
        let ended = tokio::select! {
            ended = timeout(patience, workers.idle()) => ended.is_ok(),
            () = self.second(&mut signals) => false,
        };
        if !ended {
            tracing::warn!(sessions = self.workers.sessions(), "ending sessions in the middle of a transaction");
            self.sessions.end_now();
            let words = if self.succeeded { LAST_WORDS_AND_NOTES } else { LAST_WORDS };
            // Whether they all ended makes no difference any more: what is left is dropped with its worker.
            let _ = timeout(words, workers.idle()).await;
        }
        workers.stop().await;
        if self.succeeded {
            self.outlast_what_was_begun(&mut signals).await;
        }
        drop(self.http.take());
        tracing::info!("ended");
    }

    /// Another process uses its cache as soon as this one ends: not before what was begun here has had its effect. A signal cuts
    /// that short.
    async fn outlast_what_was_begun(&mut self, signals: &mut mpsc::Receiver<Signal>) {
        let settled = Arc::clone(&self.sessions).settled();
        tokio::select! {
            () = settled => {}
            () = self.second(signals) => {}
        }
    }

    /// Until somebody asks again for an end. A reload is of no use by now.
    async fn second(&mut self, signals: &mut mpsc::Receiver<Signal>) {
        loop {
            match signals.recv().await {
                Some(Signal::Terminate) => return,
                Some(Signal::Asked(asked)) => self.answer(asked),
                Some(Signal::Reload | Signal::Order(_) | Signal::Upgrade) => {}
                None => std::future::pending().await,
            }
        }
    }
}
