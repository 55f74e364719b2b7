//! Upstream.
pub mod login;
pub mod open;
pub mod pool;
