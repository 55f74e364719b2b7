//! The admin database: what the proxy does and has, asked with psql or any driver, as tables.
//!
//! **Invariant.** Whoever gets here has proved who he is ([`Visitor`](crate::session::Visitor)). Commands that change something
//! are for `admin.users`; none of them reads or writes a row of the upstream's. Columns keep their names, order and types, and
//! new ones come last, so that scripts keep working. No text that a client has sent is shown but in its normal form without
//! literals.

mod cache_explain;
mod command;
mod conversation;
mod drivers;
mod flush_cache;
mod kill;
mod order;
mod pause;
mod reload;
mod request;
mod resume;
mod set;
mod show_breakers;
mod show_cache;
mod show_cache_advice;
mod show_cache_top;
mod show_clients;
mod show_config;
mod show_help;
mod show_parallel;
mod show_parallel_skipped;
mod show_pins;
mod show_pools;
mod show_servers;
mod show_stats;
mod show_version;
mod stats;
pub mod table;

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;

pub use conversation::serve;
pub use order::{Changed, Order};

use crate::session::Shared;
use crate::wire::error::{ErrorResponse, sqlstate};

/// What commands look at.
pub struct Desk {
    pub shared: Arc<Shared>,
    /// What only the process around the sessions can do.
    pub orders: mpsc::Sender<Order>,
    /// Whether a key of the configuration is read again while the proxy runs.
    pub is_reloadable: fn(&str) -> bool,
    pub started: Instant,
}

impl Desk {
    pub fn uptime_secs(&self) -> u64 {
        self.started.elapsed().as_secs()
    }

    /// Has an order carried out.
    async fn order(&self, order: impl FnOnce(order::Reply) -> Order) -> Result<Vec<Changed>, ErrorResponse> {
        let ending = || ErrorResponse::error(sqlstate::CANNOT_CONNECT_NOW, "the proxy is shutting down");
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| ending())?;
        let answer = answer.await.map_err(|_| ending())?;
        answer.map_err(|error| ErrorResponse::error(sqlstate::INVALID_PARAMETER_VALUE, error))
    }
}
