//! How long a client may be idle, sit in a transaction, or have a query run.
//!
//! **Invariant.** A limit never takes effect early, and late by no more than a few [`TICK`]s. No session has a timer for it: one task
//! looks at all of them several times a second and tells a session that has been in one state for too long. It may have gone on in
//! between, so what it is told names the request that was looked at, and the session itself decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::activity::Doing;
use super::block::Status;
use super::control::Control;
use super::cycle::End;
use super::{Session, Shared};
use crate::config::Server;
use crate::upstream::lookout::Loss;
use crate::wire::error::{ErrorResponse, sqlstate};

/// Between two looks at all sessions.
const TICK: Duration = Duration::from_millis(250);
/// How long the server has to end a query that it was asked to cancel.
const GRACE: Duration = Duration::from_secs(5);

/// Which limit a session has exceeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exceeded {
    Idle = 1,
    IdleInTransaction = 2,
    Query = 3,
    /// And cancelling it has not helped.
    Grace = 4,
}

impl Exceeded {
    pub(super) fn from_number(number: u8) -> Option<Self> {
        [Self::Idle, Self::IdleInTransaction, Self::Query, Self::Grace].into_iter().find(|own| *own as u8 == number)
    }
}

/// The limits of the present configuration; `None` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Limits {
    idle: Option<Duration>,
    idle_in_transaction: Option<Duration>,
    query: Option<Duration>,
}

/// A session as it was when it was last seen to do something else than before.
struct Seen {
    control: Arc<Control>,
    doing: Doing,
    /// Requests that had been answered.
    answered: u64,
    since: Instant,
}

/// Looks after all sessions for as long as the proxy runs.
pub async fn enforce(shared: Arc<Shared>) {
    let mut seen: HashMap<i32, Seen> = HashMap::new();
    loop {
        tokio::time::sleep(TICK).await;
        let limits = Limits::of(&shared.config.load().server);
        if limits.are_off() {
            seen = HashMap::new();
            continue;
        }
        let now = Instant::now();
        let mut before = std::mem::take(&mut seen);
        for (number, control) in shared.sessions.list() {
            let (doing, answered) = (control.activity.doing(), control.activity.queries());
            let known = before.remove(&number).filter(|known| known.is_still(&control, doing, answered));
            let known = known.unwrap_or(Seen { control, doing, answered, since: now });
            if let Some(exceeded) = limits.exceeded(doing, now - known.since) {
                known.control.exceed(exceeded, answered);
            }
            seen.insert(number, known);
        }
    }
}

impl Seen {
    fn is_still(&self, control: &Arc<Control>, doing: Doing, answered: u64) -> bool {
        Arc::ptr_eq(&self.control, control) && self.doing == doing && self.answered == answered
    }
}

impl Limits {
    fn of(config: &Server) -> Self {
        let limit = |seconds: u64| (seconds > 0).then(|| Duration::from_secs(seconds));
        Self {
            idle: limit(config.client_idle_timeout_secs),
            idle_in_transaction: limit(config.idle_in_transaction_timeout_secs),
            query: limit(config.query_timeout_secs),
        }
    }

    fn are_off(&self) -> bool {
        self.idle.is_none() && self.idle_in_transaction.is_none() && self.query.is_none()
    }

    /// What a session has exceeded that has been doing the same for so long.
    fn exceeded(&self, doing: Doing, since: Duration) -> Option<Exceeded> {
        let over = |limit: Option<Duration>| limit.is_some_and(|limit| since >= limit);
        match doing {
            Doing::Idle if over(self.idle) => Some(Exceeded::Idle),
            Doing::IdleInTransaction if over(self.idle_in_transaction) => Some(Exceeded::IdleInTransaction),
            Doing::Active if over(self.query.map(|limit| limit + GRACE)) => Some(Exceeded::Grace),
            Doing::Active if over(self.query) => Some(Exceeded::Query),
            _ => None,
        }
    }
}

impl Session {
    /// What becomes of a session that is told that it has exceeded a limit. It is told again and again.
    pub(super) fn exceeded(&mut self, exceeded: Exceeded) -> Result<(), End> {
        let end = |code, message: &str| Err(End::Told(ErrorResponse::fatal(code, message)));
        match exceeded {
            Exceeded::Idle if self.is_idle() && self.waiting.is_none() && !self.is_attaching() => {
                end(sqlstate::IDLE_SESSION_TIMEOUT, "terminating connection due to idle-session timeout")
            }
            Exceeded::IdleInTransaction if self.block.status() != Status::Idle && self.rests() => {
                end(sqlstate::IDLE_IN_TRANSACTION_TIMEOUT, "terminating connection due to idle-in-transaction timeout")
            }
            Exceeded::Query if self.end_split(&query_timeout()) => Ok(()),
            Exceeded::Query if self.pipeline.owes_client() && !self.pipeline.at_own() && !self.overdue => {
                self.overdue = true;
                // Nothing is sent meanwhile that the cancel could hit.
                let (done, wait) = tokio::sync::oneshot::channel();
                self.send_cancel(vec![done]);
                self.cancelling = Some(wait);
                Ok(())
            }
            // Or the proxy's own work in front of the query does not end.
            Exceeded::Grace if self.overdue || self.pipeline.at_own() => {
                // Not counted as a failure: it may wait for the client, as COPY does, and is worth a look.
                let loss = Loss { last_words: Some(sqlstate::QUERY_CANCELED), owed: true };
                self.shared.lookout.lost(&loss);
                end(sqlstate::QUERY_CANCELED, "terminating connection due to query timeout")
            }
            _ => Ok(()),
        }
    }

    /// Nothing is owed to the client, and it owes the end of nothing.
    fn rests(&self) -> bool {
        !self.pipeline.owes_client()
            && self.open.is_none()
            && self.replay.is_none()
            && self.client.output.is_empty()
            && self.request_passing == 0
    }
}

/// What a client is told in place of the server's words when the proxy has cancelled its query.
pub(super) fn query_timeout() -> ErrorResponse {
    ErrorResponse::error(sqlstate::QUERY_CANCELED, "canceling statement due to query timeout")
        .hint("It ran for longer than server.query_timeout_secs of the proxy.")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        idle: Some(Duration::from_secs(10)),
        idle_in_transaction: Some(Duration::from_secs(2)),
        query: Some(Duration::from_secs(5)),
    };

    #[test]
    fn each_state_has_its_own_limit() {
        let after = |doing, seconds| LIMITS.exceeded(doing, Duration::from_secs(seconds));
        assert_eq!(after(Doing::Idle, 9), None);
        assert_eq!(after(Doing::Idle, 10), Some(Exceeded::Idle));
        assert_eq!(after(Doing::IdleInTransaction, 1), None);
        assert_eq!(after(Doing::IdleInTransaction, 2), Some(Exceeded::IdleInTransaction));
        assert_eq!(after(Doing::Active, 4), None);
        assert_eq!(after(Doing::Active, 5), Some(Exceeded::Query));
        assert_eq!(after(Doing::Active, 10), Some(Exceeded::Grace));
    }

    #[test]
    fn by_default_there_is_none() {
        let limits = Limits::of(&Server::default());
        assert!(limits.are_off());
        for doing in [Doing::Idle, Doing::Active, Doing::IdleInTransaction] {
            assert_eq!(limits.exceeded(doing, Duration::from_secs(1 << 30)), None);
        }
    }
}
