//! `[stream]` of the configuration.

use serde::{Deserialize, Serialize};

/// The WebSocket endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StreamConfig {
    /// Address to listen on, `host:port`; empty for none.
    pub listen: String,
    /// Origins whose pages browsers may connect from; `*` for all. Programs that are no browsers send none.
    pub allowed_origins: Vec<String>,
    /// File with lines `"SHA-256 of a token" "user" "password"`; empty for none.
    pub token_file: String,
    /// Rows in one batch.
    pub batch_size: usize,
    /// Milliseconds after which a batch is sent that has fewer.
    pub batch_timeout_ms: u64,
    /// Streams at once, over all clients.
    pub max_concurrent_streams: usize,
    /// Milliseconds between two heartbeats.
    pub heartbeat_interval_ms: u64,
    /// Rows of one stream that may be on their way to a client that has not taken them yet.
    pub buffer_size: usize,
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            listen: String::new(),
            allowed_origins: Vec::new(),
            token_file: String::new(),
            batch_size: 1000,
            batch_timeout_ms: 100,
            max_concurrent_streams: 100,
            heartbeat_interval_ms: 5000,
            buffer_size: 10_000,
        }
    }
}
