//! The circuit breaker: after too many failures in a short time, calls fail at once for a while instead of being made.
//!
//! **Invariant.** *Closed*: every call is made; it opens when the rolling window holds `failure_threshold` failures. *Open*: no
//! call is made until `timeout_ms` is over. *Half open*: at most `success_threshold` calls are on their way at a time; as many
//! successes close it, one failure opens it again. A call counts for the state in which it began, so one that was on its way
//! when the breaker opened changes nothing; one that is dropped gives its place back. Failures that are seen outside of calls
//! may open a closed breaker, and change nothing else.
//!
//! The states are those of Nygard, "Release It!" (2007). Only errors that are the upstream's fault count as failures.

mod window;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::time::Instant;

use self::window::Window;
use super::Fault;

/// When it opens and closes. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CircuitBreakerConfig {
    /// Failures within the window that open it.
    pub failure_threshold: u32,
    /// How long it stays open before it is tried again.
    pub timeout_ms: u64,
    /// Successes that close it again, and the calls that may be made at once to see.
    pub success_threshold: u32,
    /// How long a failure counts.
    pub window_ms: u64,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self { failure_threshold: 5, timeout_ms: 60_000, success_threshold: 2, window_ms: 10_000 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    HalfOpen,
}

/// What the rolling window holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stats {
    pub state: State,
    pub total_requests: u64,
    pub failures: u64,
    /// From 0 to 1; 0 if there were no requests.
    pub failure_rate: f64,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum BreakerError<E> {
    /// The call was not made.
    #[error("the circuit breaker is open for another {} seconds", retry_after.as_secs_f64().ceil())]
    Open { retry_after: Duration },
    #[error(transparent)]
    Failed(E),
}

/// One breaker guards one upstream. It is shared by reference; a lock is held for nanoseconds.
pub struct CircuitBreaker {
    config: CircuitBreakerConfig,
    inner: Mutex<Inner>,
    changed: Box<dyn Fn(State) + Send + Sync>,
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// Counts the changes of the phase.
    generation: u64,
    window: Window,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { on_their_way: u32, successes: u32 },
}

/// One call that is on its way.
struct Call<'a> {
    breaker: &'a CircuitBreaker,
    generation: u64,
    outcome: Option<bool>,
}

impl<E: Fault> Fault for BreakerError<E> {
    /// An open breaker is not hammered.
    fn is_retryable(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_retryable())
    }

    fn is_upstream_fault(&self) -> bool {
        matches!(self, Self::Failed(error) if error.is_upstream_fault())
    }
}

impl State {
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    /// As in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl CircuitBreaker {
    pub fn new(config: CircuitBreakerConfig) -> Self {
        Self::with_listener(config, |_| {})
    }

    /// `changed` is called after every change of the state, with the new one.
    pub fn with_listener(config: CircuitBreakerConfig, changed: impl Fn(State) + Send + Sync + 'static) -> Self {
        let window = Window::new(Duration::from_millis(config.window_ms));
        let inner = Inner { phase: Phase::Closed, generation: 0, window };
        Self { config, inner: Mutex::new(inner), changed: Box::new(changed) }
    }

    /// Runs `op`, unless the breaker is open: then it is dropped without ever having run.
    pub async fn call<T, E: Fault>(&self, op: impl Future<Output = Result<T, E>>) -> Result<T, BreakerError<E>> {
        let mut call = self.begin().map_err(|retry_after| BreakerError::Open { retry_after })?;
        let result = op.await;
        call.outcome = Some(!result.as_ref().is_err_and(Fault::is_upstream_fault));
        drop(call);
        result.map_err(BreakerError::Failed)
    }

    /// An open one whose time is over counts as half open.
    pub fn state(&self) -> State {
        match self.inner().phase {
            Phase::Closed => State::Closed,
            Phase::Open { until } if Instant::now() < until => State::Open,
            Phase::Open { .. } | Phase::HalfOpen { .. } => State::HalfOpen,
        }
    }

    pub fn stats(&self) -> Stats {
        let state = self.state();
        let (total_requests, failures) = self.inner().window.counts(Instant::now());
        let failure_rate = if total_requests == 0 { 0.0 } else { failures as f64 / total_requests as f64 };
        Stats { state, total_requests, failures, failure_rate }
    }

    /// A failure that was seen outside of any call: it may open a closed breaker. In the other states it says nothing new, since
    /// what failed began before.
    pub fn failed(&self) {
        let generation = match *self.inner() {
            Inner { phase: Phase::Closed, generation, .. } => Some(generation),
            _ => None,
        };
        self.end(generation, Some(false));
    }

    /// Somebody has seen that the upstream is there again: an open breaker does not wait for its time.
    pub fn seen_alive(&self) {
        let mut inner = self.inner();
        if matches!(inner.phase, Phase::Open { .. }) {
            inner.enter(Phase::HalfOpen { on_their_way: 0, successes: 0 });
            drop(inner);
            (self.changed)(State::HalfOpen);
        }
    }

    fn begin(&self) -> Result<Call<'_>, Duration> {
        let mut inner = self.inner();
        let now = Instant::now();
        let mut opened = false;
        if let Phase::Open { until } = inner.phase {
            if now < until {
                return Err(until - now);
            }
            inner.enter(Phase::HalfOpen { on_their_way: 0, successes: 0 });
            opened = true;
        }
        if let Phase::HalfOpen { on_their_way, .. } = &mut inner.phase {
            if *on_their_way >= self.config.success_threshold {
                // Others are finding out; how long that takes nobody knows.
                return Err(Duration::from_millis(self.config.timeout_ms.min(1000)));
            }
            *on_their_way += 1;
        }
        let generation = inner.generation;
        drop(inner);
        if opened {
            (self.changed)(State::HalfOpen);
        }
        Ok(Call { breaker: self, generation, outcome: None })
    }

    /// `generation` is that in which the call began; without one it is only counted.
    fn end(&self, generation: Option<u64>, outcome: Option<bool>) {
        let mut inner = self.inner();
        let now = Instant::now();
        if let Some(success) = outcome {
            inner.window.record(now, success);
        }
        if Some(inner.generation) != generation {
            return;
        }
        let open = Phase::Open { until: now + Duration::from_millis(self.config.timeout_ms) };
        let next = match (&mut inner.phase, outcome) {
            (Phase::Closed, Some(false)) => {
                let failures = inner.window.counts(now).1;
                (failures >= u64::from(self.config.failure_threshold)).then_some((open, State::Open))
            }
            (Phase::HalfOpen { .. }, Some(false)) => Some((open, State::Open)),
            (Phase::HalfOpen { on_their_way, successes }, outcome) => {
                *on_their_way -= 1;
                *successes += u32::from(outcome == Some(true));
                (*successes >= self.config.success_threshold).then_some((Phase::Closed, State::Closed))
            }
            _ => None,
        };
        let Some((phase, state)) = next else { return };
        inner.enter(phase);
        if state == State::Closed {
            inner.window.clear();
        }
        drop(inner);
        (self.changed)(state);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.generation += 1;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.breaker.end(Some(self.generation), self.outcome);
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("config", &self.config).field("inner", &self.inner).finish()
    }
}

#[cfg(test)]
mod tests;
