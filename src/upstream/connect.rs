//! What may go wrong before an upstream connection is ready, and whether to try again.

use bytes::BytesMut;
use thiserror::Error;
use tokio::time::timeout;

use super::login::{LoginError, greet};
use super::lookout::is_upstream_fault;
use super::open::{OpenError, Target, open};
use crate::guard::{BreakerError, Fault};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::{PROTOCOL_3_0, put_startup};

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl ConnectError {
    /// The server is there and has no connection left.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Login(error) if error.sqlstate().as_deref() == Some(sqlstate::TOO_MANY_CONNECTIONS))
    }
}

impl Fault for ConnectError {
    /// Nothing that a client asked for has been sent yet, so any failure that may pass is worth another attempt.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Open(error) => error.may_pass(),
            Self::Login(error) if error.is_loss() => true,
            Self::Login(error) => error.sqlstate().is_some_and(|code| is_upstream_fault(&code)),
        }
    }
}

/// Gives up what takes longer than the target's `connect_timeout`, the login included, as libpq does.
pub async fn bounded<T>(
    target: &Target,
    connect: impl Future<Output = Result<T, ConnectError>>,
) -> Result<T, ConnectError> {
    let limit = target.connect_timeout;
    timeout(limit, connect).await.unwrap_or(Err(OpenError::Timeout(limit).into()))
}

/// Whether the server would let clients in now. It asks no more than what it answers to a start-up packet before any proof: a
/// server that hangs, starts up, shuts down or is full says nothing, or says so.
pub async fn ping(target: &Target, user: &str, database: &str) -> Result<(), ConnectError> {
    let mut startup = BytesMut::new();
    let parameters = [("user", user), ("database", database), ("application_name", "heliosproxy")];
    let parameters = parameters.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    put_startup(&mut startup, PROTOCOL_3_0, parameters);
    match bounded(target, async { Ok(greet(open(target).await?, &startup).await?) }).await {
        Ok(_) => Ok(()),
        // It does not like this account, but is there to say so.
        Err(error @ ConnectError::Login(LoginError::Refused { .. })) if !error.is_upstream_fault() => Ok(()),
        Err(error) => Err(error),
    }
}

/// What a client is told when no connection is tried.
pub fn refused<E>(error: BreakerError<E>) -> Result<E, ErrorResponse> {
    match error {
        BreakerError::Failed(error) => Ok(error),
        BreakerError::Open { retry_after } => {
            let seconds = retry_after.as_secs_f64().ceil();
            let message = "the upstream server is not available";
            Err(ErrorResponse::fatal(sqlstate::CANNOT_CONNECT_NOW, message)
                .detail("Too many connections to it have failed, so no more are tried for a while.")
                .hint(format!("The proxy tries again in at most {seconds} seconds.")))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};

    use super::*;

    fn refusal(code: &'static str) -> ConnectError {
        let mut frame = BytesMut::new();
        ErrorResponse::fatal(code, "no").encode(&mut frame);
        LoginError::Refused { frame: Bytes::from(frame) }.into()
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        for code in ["57P01", "57P03", "53300", "08006"] {
            assert!(refusal(code).is_retryable(), "{code}");
        }
        for code in ["28P01", "28000", "3D000", "42501", "57014", "08P01"] {
            assert!(!refusal(code).is_upstream_fault(), "{code}");
        }
        assert!(ConnectError::from(LoginError::Closed).is_retryable());
        assert!(ConnectError::from(OpenError::Timeout(std::time::Duration::ZERO)).is_retryable());
        assert!(!ConnectError::from(OpenError::NoTls).is_retryable());
        assert!(!ConnectError::from(LoginError::NoSecret("a password")).is_retryable());
    }

    #[test]
    fn an_open_breaker_says_until_when() {
        let open = BreakerError::<()>::Open { retry_after: std::time::Duration::from_millis(1500) };
        let error = refused(open).expect_err("nothing was tried");
        assert_eq!(error.code, "57P03");
        assert!(format!("{error:?}").contains("in at most 2 seconds"), "{error:?}");
    }
}
