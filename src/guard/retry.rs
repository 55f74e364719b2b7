//! Retry with exponential backoff and full jitter.
//!
//! The delay before attempt *n + 1* is drawn evenly from zero to `min(max_delay, initial_delay * multiplier^(n - 1))`, so that many
//! clients that failed together do not come back together
//! (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Fault;

/// How often, and after what delays. Delays are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts in all; 1 never retries.
    pub max_attempts: u32,
    /// The longest delay before the second attempt.
    pub initial_delay_ms: u64,
    /// The longest delay of all.
    pub max_delay_ms: u64,
    /// By what the longest delay grows with each attempt; at least 1.
    pub multiplier: f64,
    /// Draw each delay from zero to its longest. Otherwise it is its longest.
    pub jitter: bool,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self { max_attempts: 3, initial_delay_ms: 100, max_delay_ms: 30_000, multiplier: 2.0, jitter: true }
    }
}

impl RetryConfig {
    /// 5 attempts, from 50 ms.
    pub fn aggressive() -> Self {
        Self { max_attempts: 5, initial_delay_ms: 50, ..Self::default() }
    }

    /// 2 attempts, 200 ms apart at most.
    pub fn conservative() -> Self {
        Self { max_attempts: 2, initial_delay_ms: 200, ..Self::default() }
    }

    /// The longest delay after `attempts` failed ones, counted from 1.
    pub fn longest_delay(&self, attempts: u32) -> Duration {
        let factor = self.multiplier.max(1.0).powf(f64::from(attempts.saturating_sub(1)));
        let millis = (self.initial_delay_ms as f64 * factor).min(self.max_delay_ms as f64);
        Duration::from_secs_f64(millis / 1000.0)
    }

    /// The delay before the next attempt after so many failed ones.
    pub fn delay(&self, attempts: u32) -> Duration {
        let longest = self.longest_delay(attempts);
        if self.jitter { longest.mul_f64(rand::random()) } else { longest }
    }
}

/// Calls `op` until it succeeds, fails with an error that is not [retryable](Fault::is_retryable), or has been called
/// `max_attempts` times. Returns the last result. `op` must be safe to repeat whenever its error says so.
///
/// Between attempts it sleeps; dropping the future ends it.
pub async fn retry_with_backoff<T, E: Fault, F: Future<Output = Result<T, E>>>(
    config: &RetryConfig,
    mut op: impl FnMut() -> F,
) -> Result<T, E> {
    let mut attempts = 1;
    loop {
        match op().await {
            Err(error) if error.is_retryable() && attempts < config.max_attempts => {
                tokio::time::sleep(config.delay(attempts)).await;
                attempts += 1;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests;
