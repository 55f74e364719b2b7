//! Errors that reach a client: an ErrorResponse or NoticeResponse frame with PostgreSQL's fields.

use bytes::{BufMut, BytesMut};

use super::frame::backend;

/// The SQLSTATEs that the proxy itself raises (PostgreSQL, appendix A).
pub mod sqlstate {
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const CANT_CHANGE_NOW: &str = "55P02";
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const CRASH_SHUTDOWN: &str = "57P02";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const IN_FAILED_TRANSACTION: &str = "25P02";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const IDLE_IN_TRANSACTION_TIMEOUT: &str = "25P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const INVALID_AUTHORIZATION: &str = "28000";
    pub const INVALID_CURSOR_NAME: &str = "34000";
    pub const INVALID_PARAMETER_VALUE: &str = "22023";
    pub const INVALID_PASSWORD: &str = "28P01";
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const OBJECT_NOT_IN_STATE: &str = "55000";
    pub const PROGRAM_LIMIT_EXCEEDED: &str = "54000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const SYNTAX_ERROR: &str = "42601";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const UNABLE_TO_CONNECT: &str = "08001";
    pub const WARNING: &str = "01000";
    pub const UNDEFINED_OBJECT: &str = "42704";
    pub const UNDEFINED_STATEMENT: &str = "26000";
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Notice,
    Error,
    Fatal,
}

/// One error, as PostgreSQL words them: severity, SQLSTATE, message, and where useful a detail and a hint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    pub severity: Severity,
    pub code: &'static str,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

impl ErrorResponse {
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Fatal, code, message: message.into(), detail: None, hint: None }
    }

    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, ..Self::fatal(code, message) }
    }

    /// Not an error at all: it goes out as a NoticeResponse.
    pub fn notice(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Notice, ..Self::fatal(code, message) }
    }

    #[must_use]
    pub fn detail(mut self, text: impl Into<String>) -> Self {
        self.detail = Some(text.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, text: impl Into<String>) -> Self {
        self.hint = Some(text.into());
        self
    }

    /// Appends the frame. A NUL inside a text would end its field early, so texts are cut there.
    pub fn encode(&self, out: &mut BytesMut) {
        let (tag, severity) = match self.severity {
            Severity::Notice => (backend::NOTICE_RESPONSE, "NOTICE"),
            Severity::Error => (backend::ERROR_RESPONSE, "ERROR"),
            Severity::Fatal => (backend::ERROR_RESPONSE, "FATAL"),
        };
        out.put_u8(tag);
        let start = out.len();
        out.put_u32(0);
        put_field(out, b'S', severity);
        put_field(out, b'V', severity);
        put_field(out, b'C', self.code);
        put_field(out, b'M', &self.message);
        if let Some(detail) = &self.detail {
            put_field(out, b'D', detail);
        }
        if let Some(hint) = &self.hint {
            put_field(out, b'H', hint);
        }
        out.put_u8(0);
        let length = (out.len() - start) as u32;
        out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

fn put_field(out: &mut BytesMut, tag: u8, text: &str) {
    out.put_u8(tag);
    out.put_slice(text.split('\0').next().unwrap_or_default().as_bytes());
    out.put_u8(0);
}

/// The value of one field (`b'C'` is the SQLSTATE, `b'M'` the message) of an ErrorResponse's body, if it is there.
pub fn field(body: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = body;
    while let Some((&tag, tail)) = rest.split_first() {
        if tag == 0 {
            return None;
        }
        let end = tail.iter().position(|&byte| byte == 0)?;
        if tag == wanted {
            return Some(&tail[..end]);
        }
        rest = &tail[end + 1..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_encoded_as_the_protocol_says() {
        let mut out = BytesMut::new();
        ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
            .hint("wait")
            .encode(&mut out);
        assert_eq!(out[0], b'E');
        assert_eq!(u32::from_be_bytes([out[1], out[2], out[3], out[4]]) as usize, out.len() - 1);
        let body = &out[5..];
        assert_eq!(field(body, b'C'), Some(&b"53300"[..]));
        assert_eq!(field(body, b'M'), Some(&b"sorry, too many clients already"[..]));
        assert_eq!(field(body, b'H'), Some(&b"wait"[..]));
        assert_eq!(field(body, b'D'), None);
        assert_eq!(out.last(), Some(&0));
    }

    #[test]
    fn a_truncated_error_has_no_fields_past_its_end() {
        assert_eq!(field(b"SFATAL", b'S'), None);
        assert_eq!(field(b"", b'S'), None);
    }
}
