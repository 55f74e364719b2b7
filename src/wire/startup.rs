//! The packets before authentication, which have no type byte, and the few messages up to the first ReadyForQuery.
//!
//! Lengths are checked before anything is allocated: PostgreSQL accepts at most 10,000 bytes behind the length field
//! (`MAX_STARTUP_PACKET_LENGTH`, src/include/libpq/pqcomm.h).

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::error::{ErrorResponse, sqlstate};
use super::frame::backend;

/// The longest packet accepted before authentication, its length field included.
pub const MAX_PACKET: usize = 10_004;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// The longest secret of a cancel key (protocol 3.2).
const MAX_SECRET: usize = 256;

/// What a client may say first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirstPacket {
    Ssl,
    GssEnc,
    Cancel { pid: i32, secret: Bytes },
    Startup(StartupMessage),
}

/// A StartupMessage, with its parameters in the order and bytes in which they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartupMessage {
    pub protocol: u32,
    pub parameters: Vec<(Bytes, Bytes)>,
    /// The packet as it came, length field included.
    pub raw: Bytes,
}

#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum StartupError {
    #[error("invalid length of startup packet")]
    Length,
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Protocol(u32, u32),
    #[error("no PostgreSQL user name specified in startup packet")]
    NoUser,
}

impl From<&StartupError> for ErrorResponse {
    fn from(error: &StartupError) -> Self {
        let code = match error {
            StartupError::Length | StartupError::Layout => sqlstate::PROTOCOL_VIOLATION,
            StartupError::Protocol(..) => sqlstate::FEATURE_NOT_SUPPORTED,
            StartupError::NoUser => sqlstate::INVALID_AUTHORIZATION,
        };
        Self::fatal(code, error.to_string())
    }
}

/// The length that a packet's first four bytes announce.
pub fn packet_length(field: [u8; 4]) -> Result<usize, StartupError> {
    let length = u32::from_be_bytes(field) as usize;
    if (8..=MAX_PACKET).contains(&length) { Ok(length) } else { Err(StartupError::Length) }
}

impl FirstPacket {
    /// Decodes a whole packet, length field included.
    pub fn decode(raw: Bytes) -> Result<Self, StartupError> {
        let code = raw.get(4..8).and_then(|code| code.first_chunk::<4>()).ok_or(StartupError::Length)?;
        let code = u32::from_be_bytes(*code);
        match code {
            SSL_REQUEST if raw.len() == 8 => Ok(Self::Ssl),
            GSSENC_REQUEST if raw.len() == 8 => Ok(Self::GssEnc),
            CANCEL_REQUEST => {
                let pid = raw.get(8..12).and_then(|pid| pid.first_chunk::<4>()).ok_or(StartupError::Length)?;
                let secret = raw.slice(12..);
                if secret.is_empty() || secret.len() > MAX_SECRET {
                    return Err(StartupError::Length);
                }
                Ok(Self::Cancel { pid: i32::from_be_bytes(*pid), secret })
            }
            protocol if protocol >> 16 == 3 => StartupMessage::decode(protocol, raw).map(Self::Startup),
            other => Err(StartupError::Protocol(other >> 16, other & 0xffff)),
        }
    }
}

impl StartupMessage {
    fn decode(protocol: u32, raw: Bytes) -> Result<Self, StartupError> {
        let mut parameters = Vec::new();
        let mut at = 8;
        let mut text = || -> Option<Bytes> {
            let length = raw.get(at..)?.iter().position(|byte| *byte == 0)?;
            let text = raw.slice(at..at + length);
            at += length + 1;
            Some(text)
        };
        loop {
            let name = text().ok_or(StartupError::Layout)?;
            if name.is_empty() {
                break;
            }
            parameters.push((name, text().ok_or(StartupError::Layout)?));
        }
        if at != raw.len() {
            return Err(StartupError::Layout);
        }
        let message = Self { protocol, parameters, raw };
        if message.user().is_empty() { Err(StartupError::NoUser) } else { Ok(message) }
    }

    /// The last value given for `name`, as PostgreSQL takes it.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.parameters.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub fn user(&self) -> &[u8] {
        self.get("user").map_or(&[], |user| user)
    }

    /// The database, which is the user's name if none is given.
    pub fn database(&self) -> &[u8] {
        self.get("database").filter(|name| !name.is_empty()).map_or_else(|| self.user(), AsRef::as_ref)
    }

    /// A physical replication connection: it is in no database and runs no SQL.
    pub fn is_physical_replication(&self) -> bool {
        self.is_replication() && self.get("replication").is_some_and(|value| !value.eq_ignore_ascii_case(b"database"))
    }

    /// A physical or logical replication connection.
    pub fn is_replication(&self) -> bool {
        self.get("replication").is_some_and(|value| {
            !matches!(&value.to_ascii_lowercase()[..], b"false" | b"off" | b"no" | b"0" | b"f" | b"n" | b"")
        })
    }
}

/// Protocol 3.0, which every server speaks.
pub const PROTOCOL_3_0: u32 = 3 << 16;

/// Prefix of the names of protocol options; a server that does not know one says so.
const PROTOCOL_OPTION: &[u8] = b"_pq_.";

impl StartupMessage {
    /// What the client may ask for beyond protocol 3.0 is declined: the message that says so, if there is anything.
    pub fn decline_extensions(&mut self) -> Option<BytesMut> {
        let (options, parameters): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.parameters).into_iter().partition(|(name, _)| name.starts_with(PROTOCOL_OPTION));
        self.parameters = parameters;
        if self.protocol == PROTOCOL_3_0 && options.is_empty() {
            return None;
        }
        self.protocol = PROTOCOL_3_0;
        let mut out = BytesMut::new();
        out.put_u8(backend::NEGOTIATE_PROTOCOL_VERSION);
        put_packet(&mut out, |out| {
            out.put_u32(PROTOCOL_3_0);
            out.put_u32(options.len() as u32);
            for (name, _) in &options {
                out.put_slice(name);
                out.put_u8(0);
            }
        });
        Some(out)
    }
}

/// Appends a StartupMessage.
pub fn put_startup<'a>(out: &mut BytesMut, protocol: u32, parameters: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) {
    put_packet(out, |out| {
        out.put_u32(protocol);
        for (name, value) in parameters {
            out.put_slice(name);
            out.put_u8(0);
            out.put_slice(value);
            out.put_u8(0);
        }
        out.put_u8(0);
    });
}

pub fn put_ssl_request(out: &mut BytesMut) {
    put_packet(out, |out| out.put_u32(SSL_REQUEST));
}

pub fn put_cancel_request(out: &mut BytesMut, pid: i32, secret: &[u8]) {
    put_packet(out, |out| {
        out.put_u32(CANCEL_REQUEST);
        out.put_i32(pid);
        out.put_slice(secret);
    });
}

pub fn put_authentication_ok(out: &mut BytesMut) {
    out.put_u8(backend::AUTHENTICATION);
    put_packet(out, |out| out.put_u32(0));
}

pub fn put_parameter_status(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_u8(backend::PARAMETER_STATUS);
    put_packet(out, |out| {
        out.put_slice(name);
        out.put_u8(0);
        out.put_slice(value);
        out.put_u8(0);
    });
}

pub fn put_backend_key_data(out: &mut BytesMut, pid: i32, secret: &[u8]) {
    out.put_u8(backend::BACKEND_KEY_DATA);
    put_packet(out, |out| {
        out.put_i32(pid);
        out.put_slice(secret);
    });
}

pub fn put_ready_for_query(out: &mut BytesMut, status: u8) {
    out.put_u8(backend::READY_FOR_QUERY);
    put_packet(out, |out| out.put_u8(status));
}

/// The pid and the secret of a BackendKeyData's body.
pub fn backend_key_data(body: &[u8]) -> Option<(i32, &[u8])> {
    let (pid, secret) = body.split_first_chunk::<4>()?;
    (!secret.is_empty() && secret.len() <= MAX_SECRET).then(|| (i32::from_be_bytes(*pid), secret))
}

/// Writes a length field and what it counts.
fn put_packet(out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_u32(0);
    body(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn startup(parameters: &[(&str, &str)]) -> BytesMut {
        let mut out = BytesMut::new();
        put_startup(&mut out, 196_608, parameters.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())));
        out
    }

    #[test]
    fn a_startup_message_keeps_its_parameters() {
        let raw = startup(&[("user", "u"), ("options", "-c x=1"), ("database", "d")]).freeze();
        let FirstPacket::Startup(message) = FirstPacket::decode(raw.clone()).unwrap() else { panic!("a start-up") };
        assert_eq!((message.user(), message.database(), &message.raw), (&b"u"[..], &b"d"[..], &raw));
        assert_eq!(message.get("options").unwrap(), "-c x=1");
        assert!(!message.is_replication());
    }

    #[test]
    fn the_database_is_the_users_if_none_is_named() {
        let FirstPacket::Startup(message) = FirstPacket::decode(startup(&[("user", "u")]).freeze()).unwrap() else {
            panic!("a start-up")
        };
        assert_eq!(message.database(), b"u");
    }

    #[test]
    fn extensions_are_declined_by_name() {
        let mut raw = BytesMut::new();
        let parameters: [(&[u8], &[u8]); 2] = [(b"user", b"u"), (b"_pq_.x", b"1")];
        put_startup(&mut raw, PROTOCOL_3_0 + 2, parameters);
        let FirstPacket::Startup(mut message) = FirstPacket::decode(raw.freeze()).unwrap() else {
            panic!("a start-up")
        };
        let declined = message.decline_extensions().unwrap();
        assert_eq!(&declined[..], b"v\0\0\0\x13\0\x03\0\0\0\0\0\x01_pq_.x\0");
        assert_eq!((message.protocol, message.parameters.len()), (PROTOCOL_3_0, 1));
        assert_eq!(message.decline_extensions(), None);
    }

    #[test]
    fn requests_are_told_apart() {
        let mut out = BytesMut::new();
        put_ssl_request(&mut out);
        assert_eq!(FirstPacket::decode(out.split().freeze()), Ok(FirstPacket::Ssl));
        put_cancel_request(&mut out, 7, b"secret");
        let cancel = FirstPacket::Cancel { pid: 7, secret: Bytes::from_static(b"secret") };
        assert_eq!(FirstPacket::decode(out.split().freeze()), Ok(cancel));
    }

    #[test]
    fn what_is_wrong_is_said_as_postgresql_says_it() {
        assert_eq!(packet_length([0, 0, 0, 7]), Err(StartupError::Length));
        assert_eq!(packet_length([0, 0, 0x27, 0x15]), Err(StartupError::Length));
        assert_eq!(packet_length([0, 0, 0x27, 0x14]), Ok(MAX_PACKET));
        assert_eq!(FirstPacket::decode(startup(&[("database", "d")]).freeze()), Err(StartupError::NoUser));
        let old = Bytes::from_static(&[0, 0, 0, 8, 0, 2, 0, 0]);
        assert_eq!(FirstPacket::decode(old), Err(StartupError::Protocol(2, 0)));
        let mut cut = startup(&[("user", "u")]);
        cut.truncate(cut.len() - 1);
        assert_eq!(FirstPacket::decode(cut.freeze()), Err(StartupError::Layout));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), code in prop::sample::select(vec![
            CANCEL_REQUEST, SSL_REQUEST, GSSENC_REQUEST, 196_608, 196_610, 0,
        ])) {
            let mut raw = BytesMut::new();
            put_packet(&mut raw, |out| { out.put_u32(code); out.put_slice(&bytes); });
            let _ = FirstPacket::decode(raw.freeze());
            let _ = backend_key_data(&bytes);
        }
    }
}
