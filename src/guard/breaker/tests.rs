use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use tokio::sync::oneshot;
use tokio::time::advance;

use super::*;

#[derive(Debug, PartialEq, Eq)]
enum Error {
    Upstream,
    Caller,
}

impl Fault for Error {
    fn is_retryable(&self) -> bool {
        *self == Self::Upstream
    }
}

const CONFIG: CircuitBreakerConfig =
    CircuitBreakerConfig { failure_threshold: 3, timeout_ms: 1000, success_threshold: 2, window_ms: 10_000 };

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

async fn fail(breaker: &CircuitBreaker) -> BreakerError<Error> {
    breaker.call(async { Err::<(), _>(Error::Upstream) }).await.unwrap_err()
}

async fn succeed(breaker: &CircuitBreaker) -> Result<(), BreakerError<Error>> {
    breaker.call(async { Ok(()) }).await
}

async fn opened() -> CircuitBreaker {
    let breaker = CircuitBreaker::new(CONFIG);
    for _ in 0..3 {
        assert_eq!(breaker.state(), State::Closed);
        assert_eq!(fail(&breaker).await, BreakerError::Failed(Error::Upstream));
    }
    assert_eq!(breaker.state(), State::Open);
    breaker
}

#[tokio::test(start_paused = true)]
async fn it_opens_at_the_threshold_and_says_for_how_long() {
    let breaker = opened().await;
    advance(seconds(0.4)).await;
    assert_eq!(succeed(&breaker).await, Err(BreakerError::Open { retry_after: seconds(0.6) }));
    assert!(!fail(&breaker).await.is_retryable());
    let stats = breaker.stats();
    assert_eq!((stats.state, stats.total_requests, stats.failure_rate), (State::Open, 3, 1.0));
}

#[tokio::test(start_paused = true)]
async fn failures_that_are_far_apart_do_not_add_up() {
    let breaker = CircuitBreaker::new(CONFIG);
    for _ in 0..10 {
        fail(&breaker).await;
        advance(seconds(5.6)).await;
    }
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_callers_own_errors_do_not_count() {
    let breaker = CircuitBreaker::new(CONFIG);
    for _ in 0..10 {
        let error = breaker.call(async { Err::<(), _>(Error::Caller) }).await.unwrap_err();
        assert_eq!(error, BreakerError::Failed(Error::Caller));
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.stats().failure_rate, 0.0);
}

#[tokio::test(start_paused = true)]
async fn failures_outside_of_calls_open_it_and_change_nothing_else() {
    let breaker = CircuitBreaker::new(CONFIG);
    breaker.failed();
    breaker.failed();
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker).await;
    assert_eq!(breaker.state(), State::Open);
    advance(seconds(0.9)).await;
    breaker.failed();
    advance(seconds(0.1)).await;
    assert_eq!(breaker.state(), State::HalfOpen, "they do not keep it open for longer");
    succeed(&breaker).await.unwrap();
    breaker.failed();
    succeed(&breaker).await.unwrap();
    assert_eq!(breaker.state(), State::Closed, "what fails now may have begun before the server came back");
    assert_eq!(breaker.stats().failures, 0);
}

#[tokio::test(start_paused = true)]
async fn successes_close_it_and_a_failure_opens_it_again() {
    let breaker = opened().await;
    advance(seconds(1.0)).await;
    assert_eq!(breaker.state(), State::HalfOpen);
    succeed(&breaker).await.unwrap();
    assert_eq!(breaker.state(), State::HalfOpen);
    fail(&breaker).await;
    assert_eq!(breaker.state(), State::Open);
    advance(seconds(1.0)).await;
    succeed(&breaker).await.unwrap();
    succeed(&breaker).await.unwrap();
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!(breaker.stats().total_requests, 0, "what was before counts no more");
}

#[tokio::test(start_paused = true)]
async fn half_open_lets_few_calls_through_and_a_dropped_one_makes_room() {
    let breaker = Arc::new(opened().await);
    advance(seconds(1.0)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let (release, released) = oneshot::channel::<()>();
        let task = tokio::spawn({
            let breaker = breaker.clone();
            async move { breaker.call(async { released.await.map_err(|_| Error::Caller) }).await }
        });
        tokio::task::yield_now().await;
        held.push((release, task));
    }
    assert!(matches!(succeed(&breaker).await, Err(BreakerError::Open { .. })));
    let (_release, task) = held.pop().unwrap();
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    succeed(&breaker).await.unwrap();
    let (release, task) = held.pop().unwrap();
    release.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert_eq!(breaker.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_call_from_before_does_not_close_it() {
    let breaker = Arc::new(CircuitBreaker::new(CircuitBreakerConfig { success_threshold: 1, ..CONFIG }));
    let (release, released) = oneshot::channel::<()>();
    let old = tokio::spawn({
        let breaker = breaker.clone();
        async move { breaker.call(async { released.await.map_err(|_| Error::Caller) }).await }
    });
    tokio::task::yield_now().await;
    for _ in 0..3 {
        fail(&breaker).await;
    }
    release.send(()).unwrap();
    old.await.unwrap().unwrap();
    assert_eq!(breaker.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn who_sees_the_upstream_alive_shortens_the_wait_and_everybody_is_told() {
    let changes = Arc::new(Mutex::new(Vec::new()));
    let heard = changes.clone();
    let breaker = CircuitBreaker::with_listener(CONFIG, move |state| heard.lock().unwrap().push(state));
    breaker.seen_alive();
    for _ in 0..3 {
        fail(&breaker).await;
    }
    breaker.seen_alive();
    succeed(&breaker).await.unwrap();
    succeed(&breaker).await.unwrap();
    assert_eq!(*changes.lock().unwrap(), [State::Open, State::HalfOpen, State::Closed]);
}

proptest! {
    /// Whatever happens: an open breaker makes no call, a half open one never more at once than it may, and after enough
    /// time and successes it is closed.
    #[test]
    fn it_is_never_stuck(steps in proptest::collection::vec((0u8..4, 0u64..3000), 0..200)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let breaker = CircuitBreaker::new(CONFIG);
            let calls = AtomicU32::new(0);
            for (step, millis) in steps {
                let (state, before) = (breaker.state(), calls.load(Ordering::Relaxed));
                let made = async |result| { calls.fetch_add(1, Ordering::Relaxed); result };
                let _ = match step {
                    0 => breaker.call(made(Ok(()))).await,
                    1 => breaker.call(made(Err(Error::Upstream))).await,
                    2 => breaker.call(made(Err(Error::Caller))).await,
                    _ => { advance(Duration::from_millis(millis)).await; continue }
                };
                let was_made = calls.load(Ordering::Relaxed) > before;
                assert_eq!(was_made, state != State::Open);
            }
            advance(Duration::from_millis(CONFIG.timeout_ms)).await;
            for _ in 0..CONFIG.success_threshold {
                succeed(&breaker).await.unwrap();
            }
            assert_eq!(breaker.state(), State::Closed);
        });
    }
}
