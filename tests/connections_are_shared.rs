//! Clients that share few upstream connections notice nothing of each other.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod pooling {
    use crate::harness::{Options, Stage};

    mod admission;
    mod cancels;
    mod leaving;
    mod names;
    mod pins;
    mod settings;
    mod shapes;
    mod transaction_mode;
    mod waiting;

    /// A proxy in mode `auto` with so many upstream connections.
    pub fn sharing(connections: usize) -> Options {
        let options = Options::default().arg("--auth").arg("trust").key("pool.mode", "auto");
        options.key("pool.max_upstream_connections", connections).key("pool.wait_timeout_secs", 20)
    }

    pub async fn stage(connections: usize) -> Stage {
        Stage::with(sharing(connections)).await
    }
}
