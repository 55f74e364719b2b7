//! What keeps a sick upstream from being hammered, and hides its hiccups: retry with backoff, and a circuit breaker.
//!
//! They compose as retry around breaker around call: a retry that finds the breaker open ends at once, since
//! [`BreakerError::Open`] is not retryable.
//!
//! ```
//! use heliosproxy::guard::{CircuitBreaker, CircuitBreakerConfig, Fault, RetryConfig, retry_with_backoff};
//!
//! #[derive(Debug)]
//! struct Refused;
//!
//! impl Fault for Refused {
//!     fn is_retryable(&self) -> bool {
//!         true
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let breaker = CircuitBreaker::new(CircuitBreakerConfig::default());
//! let mut calls = 0;
//! let answer = retry_with_backoff(&RetryConfig::default(), || {
//!     calls += 1;
//!     let call = calls;
//!     breaker.call(async move { if call < 3 { Err(Refused) } else { Ok("connected") } })
//! })
//! .await;
//! assert_eq!((answer.unwrap(), calls), ("connected", 3));
//! # }
//! ```

mod breaker;
mod retry;

pub use breaker::{BreakerError, CircuitBreaker, CircuitBreakerConfig, State, Stats};
pub use retry::{RetryConfig, retry_with_backoff};

/// What an error says about the upstream.
pub trait Fault {
    /// The same call may succeed a little later, and has done nothing yet.
    fn is_retryable(&self) -> bool;

    /// It is the upstream that is to be blamed, not whoever called.
    fn is_upstream_fault(&self) -> bool {
        self.is_retryable()
    }
}
