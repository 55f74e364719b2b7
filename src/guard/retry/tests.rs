use proptest::prelude::*;
use tokio::time::Instant;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::guard::{BreakerError, CircuitBreaker, CircuitBreakerConfig};

#[derive(Debug, PartialEq, Eq)]
struct Error {
    retryable: bool,
}

impl Fault for Error {
    fn is_retryable(&self) -> bool {
        self.retryable
    }
}

/// Runs an operation that fails `failures` times, and tells its result, its calls, and how long it took.
async fn run(config: &RetryConfig, failures: u32, retryable: bool) -> (Result<u32, Error>, u32, Duration) {
    let started = Instant::now();
    let mut calls = 0;
    let result = retry_with_backoff(config, || {
        calls += 1;
        let call = calls;
        async move { if call <= failures { Err(Error { retryable }) } else { Ok(call) } }
    })
    .await;
    (result, calls, started.elapsed())
}

fn exact(config: RetryConfig) -> RetryConfig {
    RetryConfig { jitter: false, ..config }
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_the_first_success() {
    let config = exact(RetryConfig::default());
    assert_eq!(run(&config, 0, true).await, (Ok(1), 1, Duration::ZERO));
    assert_eq!(run(&config, 2, true).await, (Ok(3), 3, Duration::from_millis(100 + 200)));
}

#[tokio::test(start_paused = true)]
async fn it_gives_up_after_the_last_attempt_without_a_further_delay() {
    for (config, attempts, millis) in [
        (RetryConfig::default(), 3, 300),
        (RetryConfig::aggressive(), 5, 50 + 100 + 200 + 400),
        (RetryConfig::conservative(), 2, 200),
    ] {
        let (result, calls, took) = run(&exact(config), u32::MAX, true).await;
        assert_eq!((result, calls), (Err(Error { retryable: true }), attempts));
        assert_eq!(took, Duration::from_millis(millis));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_retryable_is_tried_once() {
    let (result, calls, took) = run(&RetryConfig::aggressive(), u32::MAX, false).await;
    assert_eq!((result, calls, took), (Err(Error { retryable: false }), 1, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn around_a_breaker_it_ends_with_the_call_that_opens_it_and_never_hammers_an_open_one() {
    let config = CircuitBreakerConfig { failure_threshold: 3, ..CircuitBreakerConfig::default() };
    let breaker = CircuitBreaker::new(config);
    let patient = exact(RetryConfig { max_attempts: 100, ..RetryConfig::default() });
    let calls = AtomicU32::new(0);
    let connect = || async {
        calls.fetch_add(1, Ordering::Relaxed);
        Err::<(), _>(Error { retryable: true })
    };
    let started = Instant::now();
    let result = retry_with_backoff(&patient, || breaker.call(connect())).await;
    assert!(matches!(result, Err(BreakerError::Open { .. })), "{result:?}");
    assert_eq!(calls.load(Ordering::Relaxed), 3);
    assert_eq!(started.elapsed(), Duration::from_millis(100 + 200 + 400));

    for _ in 0..10 {
        let started = Instant::now();
        let result = retry_with_backoff(&patient, || breaker.call(connect())).await;
        assert!(matches!(result, Err(BreakerError::Open { .. })), "{result:?}");
        assert_eq!((calls.load(Ordering::Relaxed), started.elapsed()), (3, Duration::ZERO));
    }
}

proptest! {
    #[test]
    fn a_delay_is_never_longer_than_it_may_be(
        attempts in 1u32..200, initial in 0u64..100_000, max in 0u64..100_000, multiplier in 0.0f64..10.0,
    ) {
        let config = RetryConfig {
            max_attempts: 3, initial_delay_ms: initial, max_delay_ms: max, multiplier, jitter: true,
        };
        let longest = config.longest_delay(attempts);
        prop_assert!(longest <= Duration::from_millis(max));
        prop_assert!(config.delay(attempts) <= longest);
        prop_assert!(config.longest_delay(attempts + 1) >= longest);
    }
}
