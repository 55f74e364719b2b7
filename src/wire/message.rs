//! The messages whose content the proxy needs, decoded in place.
//!
//! A decoder takes a message's body (without type and length), checks every bound over the whole of it before it returns,
//! and allocates nothing: what it gives back are slices. It never panics, whatever the bytes are.

pub mod answer;
pub mod backend;
mod bind;
pub mod encode;
pub mod frontend;
mod reader;
pub mod special_time;

pub use bind::{Bind, Formats, Parameters};
pub use frontend::{Close, Describe, Execute, Parse, Query, Target};

use thiserror::Error;

use super::error::{ErrorResponse, sqlstate};

/// A message that is not what the protocol says.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("{message} message: {reason}")]
pub struct DecodeError {
    pub message: &'static str,
    pub reason: Reason,
}

/// What is wrong with it, in PostgreSQL's words.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    #[error("insufficient data left in message")]
    TooShort,
    #[error("invalid string in message")]
    UnterminatedString,
    #[error("invalid message format")]
    TrailingBytes,
    #[error("bind message has {formats} parameter formats but {parameters} parameters")]
    FormatCount { formats: u16, parameters: u16 },
    #[error("invalid message subtype {0}")]
    Subtype(u8),
}

impl From<DecodeError> for ErrorResponse {
    /// PostgreSQL answers a malformed message with an ERROR and skips to the next Sync.
    fn from(error: DecodeError) -> Self {
        let text = match error.reason {
            Reason::Subtype(subtype) => {
                format!("invalid {} message subtype {subtype}", error.message.to_ascii_uppercase())
            }
            reason => reason.to_string(),
        };
        Self::error(sqlstate::PROTOCOL_VIOLATION, text)
    }
}

#[cfg(test)]
mod tests;
