//! What the proxy tells about itself: metrics, logs and health.
//!
//! Nothing here is global except the log output and one collector, so that a test can have its own of each.

pub mod collector;
pub mod export;
pub mod health;
pub mod histogram;
pub mod log;
pub mod metrics;
pub mod process;
pub mod snapshot;
pub mod timer;
pub mod trace;
