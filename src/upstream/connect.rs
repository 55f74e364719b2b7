//! What may go wrong before an upstream connection is ready, and whether to try again.

use thiserror::Error;

use super::login::LoginError;
use super::open::OpenError;
use crate::guard::{BreakerError, Fault};
use crate::wire::error::{ErrorResponse, sqlstate};

#[derive(Debug, Error)]
pub enum ConnectError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Login(#[from] LoginError),
}

impl Fault for ConnectError {
    /// Nothing that a client asked for has been sent yet, so any failure that may pass is worth another attempt.
    fn is_retryable(&self) -> bool {
        match self {
            Self::Open(error) => {
                matches!(
                    error,
                    OpenError::Lookup(_) | OpenError::Connect(_) | OpenError::Timeout(_) | OpenError::Broken(_)
                )
            }
            Self::Login(LoginError::Closed | LoginError::Io(_)) => true,
            Self::Login(error) => error.sqlstate().is_some_and(|code| is_passing(&code)),
        }
    }
}

/// Connection exceptions, shutdown and start-up of the server, and too many connections.
fn is_passing(code: &str) -> bool {
    code == sqlstate::TOO_MANY_CONNECTIONS || code.starts_with("57P0") || code.starts_with("08")
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
        for code in ["28P01", "28000", "3D000", "42501", "57014"] {
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
