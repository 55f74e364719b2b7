//! What a program that uses this crate as a library measures with: metrics, times, traces and health, the proxy's own.
//!
//! The proxy's `/metrics` shows [`global_metrics`], so whatever is recorded there is seen by Prometheus too.
//!
//! ```
//! use std::time::Duration;
//! use heliosproxy::monitoring::{HealthCheck, HealthChecker, HealthStatus, TracedOperation, features, global_metrics};
//!
//! features::record_cache_access(true);
//! global_metrics().counter("imports_total", "Imports", &[("kind", "csv")]).increment(1);
//! assert!(global_metrics().export_prometheus().contains("imports_total{kind=\"csv\"} 1"));
//!
//! let operation = TracedOperation::new("import");
//! let part = operation.child("parse");
//! assert_eq!(part.context().trace_id, operation.context().trace_id);
//!
//! let mut checker = HealthChecker::default();
//! checker.add(HealthCheck::new("disk", || (HealthStatus::Degraded, "nearly full".into())));
//! assert_eq!(checker.check().status, HealthStatus::Degraded);
//! ```

pub mod features;

use std::sync::Arc;

pub use crate::telemetry::collector::{MetricsCollector, global_metrics};
pub use crate::telemetry::health::{HealthCheck, HealthChecker, Status as HealthStatus};
pub use crate::telemetry::timer::Timer;
pub use crate::telemetry::trace::{SpanContext, TracedOperation};

use crate::telemetry::histogram::DurationHistogram;
use crate::telemetry::metrics::names;

/// The times of one operation in the global metrics.
pub fn operation_duration(operation: &'static str) -> Arc<DurationHistogram> {
    let (name, help) = names::OPERATION_DURATION;
    global_metrics().histogram(name, help, &[("operation", operation)])
}
