//! What the proxy tells about itself: metrics, logs and health.
//!
//! Nothing here is global except the log output, so that a test can have its own of each.

pub mod health;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod process;
pub mod snapshot;
