//! Results over WebSockets: statements as JSON messages, rows in batches.
//!
//! **Invariant.** Whoever streams is a client of the proxy, logged in like any other ([`inside`]); memory is bounded by batches, not by
//! results; a stream that ends, for whatever reason, leaves nothing running upstream.
//!
//! [`StreamingQueryClient`] is the other end of the socket.

mod client;
mod config;
mod conversation;
mod handshake;
mod inside;
mod json;
mod messages;
mod outgoing;
mod parameter;
mod pulse;
mod query;
mod statement;
mod time;
mod tokens;
mod types;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub use client::{StreamingError, StreamingQueryClient};
pub use config::StreamConfig;
pub use messages::{ClientMessage, Column, ServerMessage};
pub use outgoing::Batch;
pub use tokens::{TokenFileError, Tokens};
pub use types::ValueType;

use crate::config::Config;
use crate::session::Shared;
use crate::wire::stream::Stream;
use crate::wire::tls::{ClientTlsAcceptor, TlsError};

/// What all WebSockets share.
pub struct Streams {
    shared: Arc<Shared>,
    tls: Option<ClientTlsAcceptor>,
    tokens: Tokens,
    /// For streams at once.
    places: Arc<Semaphore>,
    /// Set when no more streams are to begin.
    shutdown: watch::Sender<bool>,
}

impl Streams {
    pub fn new(shared: Arc<Shared>) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let config = shared.config.load_full();
        Ok(Self {
            tls: ClientTlsAcceptor::for_http(&config.tls)?,
            tokens: Tokens::new(&config.stream.token_file)?,
            places: Arc::new(Semaphore::new(config.stream.max_concurrent_streams)),
            shutdown: watch::Sender::new(false),
            shared,
        })
    }

    /// No more streams begin; a WebSocket ends with its last one.
    pub fn begin_shutdown(&self) {
        self.shutdown.send_replace(true);
    }

    /// Reads certificates anew. An error changes nothing.
    pub fn reload_tls(&self, config: &Config) -> Result<(), TlsError> {
        self.tls.as_ref().map_or(Ok(()), |tls| tls.reload(&config.tls))
    }

    /// Reads tokens anew. An error changes nothing.
    pub fn reload_tokens(&self, config: &Config) -> Result<(), TokenFileError> {
        self.tokens.reload(&config.stream.token_file)
    }

    /// Runs one client's connection to its end.
    pub async fn serve(self: Arc<Self>, stream: Stream) {
        let config = self.shared.config.load_full();
        let bound = Duration::from_secs(config.server.startup_timeout_secs);
        match timeout(bound, handshake::accept(&self, stream)).await {
            Ok(Ok(Some(guest))) => conversation::converse(self, guest).await,
            Ok(Ok(None)) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a connection ended before it was a WebSocket"),
            Err(_) => tracing::info!(seconds = bound.as_secs(), "a WebSocket client did not log in in time"),
        }
    }
}
