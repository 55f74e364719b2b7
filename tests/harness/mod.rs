//! What the integration tests stand on: a private PostgreSQL cluster, the real proxy in front of it, and clients for both.
//!
//! Each test binary has one cluster, started by the first test that asks for it. A test gets its own database in it and its own
//! proxy, so counters and settings belong to that test alone. Nothing here sleeps to synchronise: waiting is polling a state
//! with a deadline ([`wait`]).

#![allow(dead_code, unused_imports, reason = "every test binary includes the whole harness and uses a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a harness that cannot go on fails its test")]

pub mod certificates;
pub mod client;
pub mod cluster;
pub mod fault;
pub mod http;
pub mod port;
pub mod proxy;
pub mod raw;
pub mod stage;
pub mod tool;
pub mod wait;

pub use client::Client;
pub use cluster::{Cluster, cluster};
pub use proxy::{Options, Proxy};
pub use raw::Raw;
pub use stage::Stage;
pub use wait::{DEADLINE, wait_until, within};
