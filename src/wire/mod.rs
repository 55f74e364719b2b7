//! The PostgreSQL frontend/backend protocol: streams, frames, and the few messages whose content the proxy needs.
//!
//! <https://www.postgresql.org/docs/current/protocol-message-formats.html>

pub mod error;
pub mod frame;
pub mod md5;
pub mod message;
pub mod scram;
pub mod startup;
pub mod stream;
pub mod tls;
