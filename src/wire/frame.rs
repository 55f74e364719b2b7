//! A frame is a type byte, a big-endian length that counts itself, and a body. On the hot path that is all we know of it.
//!
//! Lengths are checked before anything is allocated: below 4 is never legal, above 1 GiB - 1 PostgreSQL itself refuses.

use thiserror::Error;

/// Bytes of a frame's type and length.
pub const HEADER_BYTES: usize = 5;

/// The largest body PostgreSQL accepts (`PQ_LARGE_MESSAGE_LIMIT`, src/include/libpq/libpq.h: `MaxAllocSize - 1`).
pub const MAX_LENGTH: u32 = 0x3fff_fffe;

/// What a frame's first five bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub tag: u8,
    /// The whole frame: type byte, length field and body.
    pub total: usize,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum FrameError {
    #[error("invalid message length {length} in a message of type 0x{tag:02x}")]
    Length { tag: u8, length: u32 },
    #[error("invalid frontend message type {0}")]
    UnknownTag(u8),
}

/// Reads a frame's header, or `None` if fewer than five bytes are there.
pub fn peek(bytes: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some((&tag, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*length);
    if !(4..=MAX_LENGTH).contains(&length) {
        return Err(FrameError::Length { tag, length });
    }
    Ok(Some(Header { tag, total: length as usize + 1 }))
}

/// Types of the messages that a client sends.
pub mod frontend {
    pub const BIND: u8 = b'B';
    pub const CLOSE: u8 = b'C';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const FLUSH: u8 = b'H';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PARSE: u8 = b'P';
    /// PasswordMessage, SASLInitialResponse, SASLResponse and GSSResponse.
    pub const PASSWORD: u8 = b'p';
    pub const QUERY: u8 = b'Q';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
}

/// Types of the messages that a server sends.
pub mod backend {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY_DATA: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_BOTH_RESPONSE: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_IN_RESPONSE: u8 = b'G';
    pub const COPY_OUT_RESPONSE: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY_RESPONSE: u8 = b'I';
    pub const ERROR_RESPONSE: u8 = b'E';
    pub const FUNCTION_CALL_RESPONSE: u8 = b'V';
    pub const NEGOTIATE_PROTOCOL_VERSION: u8 = b'v';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE_RESPONSE: u8 = b'N';
    pub const NOTIFICATION_RESPONSE: u8 = b'A';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const READY_FOR_QUERY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}
