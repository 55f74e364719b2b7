//! What everybody sees of the upstream's state, in one place: a circuit breaker, and the wish to have a look.
//!
//! A running session counts as a failure only what cannot be anybody's doing but the server's, or the network's: a connection
//! that broke while it owed an answer, and last words that say so. Whatever else ends a connection from the other side may be
//! the beginning of a failure (an administrator who stops the server ends its backends just as one who ends a single backend,
//! 57P01), so somebody has a look at once; only what is seen then counts.

use tokio::sync::Notify;

use crate::guard::CircuitBreaker;
use crate::wire::error::{field, sqlstate};

pub struct Lookout {
    pub breaker: CircuitBreaker,
    doubted: Notify,
}

/// How an upstream connection ended that nobody on this side has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss<'a> {
    /// What [`last_words`] says of the last message on it.
    pub last_words: Option<&'a str>,
    /// An answer was outstanding.
    pub owed: bool,
}

impl Loss<'_> {
    pub fn is_upstream_fault(&self) -> bool {
        match self.last_words {
            Some(code) => code != sqlstate::ADMIN_SHUTDOWN && is_upstream_fault(code),
            None => self.owed,
        }
    }
}

impl Lookout {
    pub fn new(breaker: CircuitBreaker) -> Self {
        Self { breaker, doubted: Notify::new() }
    }

    /// A connection was lost.
    pub fn lost(&self, loss: &Loss<'_>) {
        if loss.is_upstream_fault() {
            self.breaker.failed();
        }
        self.doubt();
    }

    /// Something is not as it should be: somebody has a look.
    pub fn doubt(&self) {
        self.doubted.notify_one();
    }

    /// Ends when a connection was lost, or doubts were raised otherwise, since it ended last.
    pub async fn doubted(&self) {
        self.doubted.notified().await;
    }
}

/// Whether an error of this SQLSTATE, that ended a connection or kept one from coming to be, says that the server is in trouble:
/// it shuts down, starts up or has crashed, has no connection left, or lost one. Not 57P04 (the database was dropped), 57P05
/// (idle for too long) and 08P01 (the client broke the protocol).
pub fn is_upstream_fault(code: &str) -> bool {
    match code {
        sqlstate::TOO_MANY_CONNECTIONS | sqlstate::ADMIN_SHUTDOWN => true,
        sqlstate::CRASH_SHUTDOWN | sqlstate::CANNOT_CONNECT_NOW => true,
        sqlstate::PROTOCOL_VIOLATION => false,
        _ => code.starts_with("08"),
    }
}

/// The SQLSTATE of the body of an ErrorResponse or NoticeResponse if it is the last thing that a backend says. Functions may raise
/// any SQLSTATE, but not that severity.
///
/// A backend that dies because another one has crashed, or the server is stopped at once, says so in a warning (`quickdie`,
/// src/backend/tcop/postgres.c); either is 57P02 here. A function may raise that too, but not between two requests.
pub fn last_words(body: &[u8]) -> Option<&str> {
    let code = std::str::from_utf8(field(body, b'C')?).ok()?;
    // `V` is `S` in English.
    match (field(body, b'V')?, code) {
        _ if is_fatal(body) => Some(code),
        (b"WARNING", sqlstate::ADMIN_SHUTDOWN | sqlstate::CRASH_SHUTDOWN) => Some(sqlstate::CRASH_SHUTDOWN),
        _ => None,
    }
}

/// Whether the backend ends with this message: nothing comes after it but the end of the connection.
pub fn is_fatal(body: &[u8]) -> bool {
    matches!(field(body, b'V'), Some(b"FATAL" | b"PANIC"))
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::guard::State;
    use crate::wire::error::ErrorResponse;
    use crate::wire::frame::HEADER_BYTES;

    fn counts(last_words: Option<&str>, owed: bool) -> bool {
        Loss { last_words, owed }.is_upstream_fault()
    }

    #[test]
    fn only_what_is_nobody_elses_doing_counts() {
        for code in ["57P02", "57P03", "53300", "08006", "08003"] {
            assert!(counts(Some(code), false), "{code}");
        }
        for code in ["57P01", "57P04", "57P05", "25P03", "08P01", "57014", "28P01"] {
            assert!(!counts(Some(code), true), "{code}");
        }
        assert!(counts(None, true), "it broke in the middle of an answer");
        assert!(!counts(None, false), "something between may have closed what was idle");
    }

    #[test]
    fn an_error_that_a_function_raises_is_nobodys_last_word() {
        let body = |error: ErrorResponse| {
            let mut frame = BytesMut::new();
            error.encode(&mut frame);
            frame.split_off(HEADER_BYTES)
        };
        assert_eq!(last_words(&body(ErrorResponse::error("57P02", "no"))), None);
        assert_eq!(last_words(&body(ErrorResponse::fatal("57P02", "no"))), Some("57P02"));
        assert_eq!(last_words(b"SFATAL\0VFATAL\0C57P"), None, "cut off");
        assert_eq!(last_words(b"SWARNUNG\0VWARNING\0C57P01\0Mimmediate shutdown\0\0"), Some("57P02"));
        assert_eq!(last_words(b"SWARNING\0VWARNING\0C01000\0Mno\0\0"), None);
    }

    #[tokio::test]
    async fn every_loss_is_looked_into_and_failures_open_the_breaker() {
        let lookout = Lookout::new(CircuitBreaker::new(crate::config::CircuitBreakerConfig {
            failure_threshold: 2,
            ..Default::default()
        }));
        lookout.lost(&Loss { last_words: Some("57P01"), owed: true });
        lookout.doubted().await;
        lookout.lost(&Loss { last_words: None, owed: true });
        assert_eq!(lookout.breaker.state(), State::Closed);
        lookout.lost(&Loss { last_words: Some("57P02"), owed: false });
        assert_eq!(lookout.breaker.state(), State::Open);
        lookout.doubted().await;
    }
}
