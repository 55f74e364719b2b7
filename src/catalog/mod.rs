//! What the upstream told us about its catalogue, per database, and what follows from it.
//!
//! **Invariant.** A [`Model`](model::Model) is used only while it belongs to the present epoch and nobody doubts it. Whatever
//! passes the proxy and may change the catalogue raises a doubt before its client is told; the watcher then looks at the
//! catalogue's fingerprint, and ends the epoch if that has changed. What does not pass the proxy is found at the next regular
//! look ([`watch`]). Analyses and session baselines carry their epoch in their key, so they end with it.

pub mod analysis;
mod array;
pub mod builtin;
pub mod database;
pub mod databases;
pub mod fingerprint;
mod load;
pub mod model;
pub mod plan;
pub mod scan;
pub mod value;
pub mod watch;

pub use database::{Baseline, Classified, Database};
pub use databases::{Databases, Visit};
