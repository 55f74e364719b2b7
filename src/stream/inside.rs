//! A session of the proxy, from its client's end: what runs a stream's statement.
//!
//! **Invariant.** A stream is a client of the proxy like any other, over a pipe instead of a socket. Authentication, permissions,
//! limits, pooling, cache and circuit breaker are the session's, so none of them can be passed by.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Streams;
use crate::session::{self, Visitor};
use crate::upstream::login::{Connection, LoginError, UpstreamSecret, login};
use crate::upstream::open::Opened;
use crate::upstream::peer::{Address, Peer};
use crate::wire::error::{ErrorResponse, field, sqlstate};
use crate::wire::frame::{self, HEADER_BYTES, Header, backend};
use crate::wire::message::backend::data_row;
use crate::wire::message::encode::{self, EncodeError};
use crate::wire::startup::PROTOCOL_3_0;
use crate::wire::stream::{Caller, Stream};

/// Bytes that the pipe holds each way.
const PIPE_BYTES: usize = 64 * 1024;
const READ_BYTES: usize = 64 * 1024;
/// A longer message, which is a longer row, is not streamed.
const LONGEST_MESSAGE: usize = 64 * 1024 * 1024;
/// Between two attempts to cancel what does not end.
const CANCEL_AGAIN: Duration = Duration::from_millis(25);

/// What makes the server write values as `json` expects them.
const SETTINGS: [(&str, &str); 5] = [
    ("client_encoding", "UTF8"),
    ("DateStyle", "ISO"),
    ("IntervalStyle", "iso_8601"),
    ("bytea_output", "hex"),
    ("extra_float_digits", "3"),
];

/// Why a stream ends early, as its client is told.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
#[error("{message}")]
pub struct Failure {
    pub sqlstate: String,
    pub message: String,
}

/// As whom to log in, and where.
#[derive(Debug, Clone)]
pub struct Account {
    pub user: String,
    pub password: String,
    pub database: String,
    pub application_name: String,
    pub caller: Arc<Caller>,
}

/// A session that is logged in.
pub struct Inside {
    streams: Arc<Streams>,
    stream: Stream,
    input: BytesMut,
    pid: i32,
    secret: Bytes,
    /// Something was sent since it was last ready for queries, and whether a Sync was.
    busy: bool,
    synced: bool,
    /// A message was sent in part only, or the server waits for what nobody will send.
    torn: bool,
}

impl Failure {
    pub fn new(sqlstate: &str, message: impl Into<String>) -> Self {
        Self { sqlstate: sqlstate.to_owned(), message: message.into() }
    }

    /// What an ErrorResponse says.
    fn of(body: &[u8]) -> Self {
        let text = |tag| String::from_utf8_lossy(field(body, tag).unwrap_or_default()).into_owned();
        Self { sqlstate: text(b'C'), message: text(b'M') }
    }

    fn lost() -> Self {
        Self::new(sqlstate::CONNECTION_FAILURE, "the session that ran this stream has ended")
    }

    fn protocol() -> Self {
        Self::new(sqlstate::PROTOCOL_VIOLATION, "unexpected answer of the server")
    }
}

impl From<EncodeError> for Failure {
    fn from(error: EncodeError) -> Self {
        Self::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(_: std::io::Error) -> Self {
        Self::lost()
    }
}

impl Inside {
    /// Logs in. The session bounds the time.
    pub async fn login(streams: &Arc<Streams>, account: &Account) -> Result<Self, Failure> {
        let (ours, theirs) = Stream::local(PIPE_BYTES, &account.caller);
        tokio::spawn(session::serve(streams.shared.clone(), theirs, refuse_visitor));
        let own = [("user", account.user.as_str()), ("database", &account.database)];
        let named = [("application_name", account.application_name.as_str())];
        let named = named.into_iter().filter(|(_, name)| !name.is_empty());
        let bytes = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let parameters: Vec<(Bytes, Bytes)> =
            own.into_iter().chain(named).chain(SETTINGS).map(|(name, value)| (bytes(name), bytes(value))).collect();
        let opened = Opened { stream: ours, peer: Peer { name: String::new(), address: Address::Nowhere } };
        let secret = UpstreamSecret::Password(account.password.clone());
        let connection = login(opened, PROTOCOL_3_0, &parameters, &secret).await.map_err(|error| match error {
            LoginError::Refused { frame } => Failure::of(frame.get(HEADER_BYTES..).unwrap_or_default()),
            LoginError::Scram(_) => Failure::new(sqlstate::INVALID_PASSWORD, "password authentication failed"),
            error => Failure::new(sqlstate::CONNECTION_FAILURE, error.to_string()),
        })?;
        let Connection { stream, buffer: input, pid, secret, .. } = connection;
        Ok(Self { streams: streams.clone(), stream, input, pid, secret, busy: false, synced: false, torn: false })
    }

    pub async fn send(&mut self, mut messages: BytesMut) -> Result<(), Failure> {
        (self.busy, self.torn) = (true, true);
        self.stream.write_all_buf(&mut messages).await?;
        self.torn = false;
        Ok(())
    }

    /// The same with a Sync behind.
    pub async fn send_synced(&mut self, mut messages: BytesMut) -> Result<(), Failure> {
        encode::sync(&mut messages);
        self.synced = true;
        self.send(messages).await
    }

    /// The next message, if it is all here.
    pub fn peek(&self) -> Result<Option<Header>, Failure> {
        match frame::peek(&self.input).map_err(|_| Failure::protocol())? {
            Some(header) if header.total > LONGEST_MESSAGE => {
                let message = format!("a row is longer than {LONGEST_MESSAGE} bytes, which cannot be streamed");
                Err(Failure::new(sqlstate::PROGRAM_LIMIT_EXCEEDED, message))
            }
            Some(header) if header.total <= self.input.len() => Ok(Some(header)),
            _ => Ok(None),
        }
    }

    /// Waits until the next message is all here. Cancel-safe.
    pub async fn next(&mut self) -> Result<Header, Failure> {
        loop {
            if let Some(header) = self.peek()? {
                return Ok(header);
            }
            if self.input.capacity() - self.input.len() < READ_BYTES / 4 {
                self.input.reserve(READ_BYTES);
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Failure::lost());
            }
        }
    }

    /// The body of the message that [`next`](Self::next) has found.
    pub fn body(&self, header: Header) -> &[u8] {
        self.input.get(HEADER_BYTES..header.total).unwrap_or_default()
    }

    /// Goes on to the message after it.
    pub fn pass(&mut self, header: Header) {
        if header.tag == backend::READY_FOR_QUERY {
            (self.busy, self.synced) = (false, false);
        }
        self.input.advance(header.total);
    }

    /// Runs something small, and collects its answer.
    pub async fn ask(&mut self, messages: BytesMut) -> Result<Answer, Failure> {
        self.send_synced(messages).await?;
        let (mut answer, mut failure) = (Answer::default(), None);
        loop {
            let header = self.next().await?;
            let body = self.body(header);
            match header.tag {
                backend::DATA_ROW => {
                    let row = data_row(body).map_err(|_| Failure::protocol())?;
                    answer.rows.push(row.into_iter().map(|value| value.map(<[u8]>::to_vec)).collect());
                }
                backend::ROW_DESCRIPTION => answer.columns = Some(Bytes::copy_from_slice(body)),
                backend::PARAMETER_DESCRIPTION => answer.parameters = Bytes::copy_from_slice(body),
                backend::ERROR_RESPONSE => failure = failure.or_else(|| Some(Failure::of(body))),
                _ => {}
            }
            self.pass(header);
            if header.tag == backend::READY_FOR_QUERY {
                return failure.map_or(Ok(answer), Err);
            }
        }
    }

    /// Everything that was sent has been answered.
    pub fn is_ready(&self) -> bool {
        !self.busy && !self.torn
    }

    /// The same session, unless it has ended while nobody asked anything of it.
    pub fn alive(mut self) -> Option<Self> {
        match self.stream.read_buf(&mut self.input).now_or_never() {
            // Notices and the like are passed over later.
            Some(Ok(read)) if read > 0 => (self.input.first() != Some(&backend::ERROR_RESPONSE)).then_some(self),
            Some(_) => None,
            None => Some(self),
        }
    }

    /// Nobody can go on with it.
    pub fn is_spoilt(&mut self) {
        self.torn = true;
    }

    /// What the server has said is wrong.
    pub fn error(&self, header: Header) -> Failure {
        Failure::of(self.body(header))
    }

    /// Cancels whatever runs, and reads to the end of its answer. False if the session is of no more use.
    pub async fn settle(&mut self) -> bool {
        if self.torn {
            self.cancel().await;
            return false;
        }
        if !self.busy {
            return true;
        }
        let mut end = BytesMut::new();
        if !self.synced {
            encode::sync(&mut end);
            self.synced = true;
        }
        if self.send(end).await.is_err() {
            return false;
        }
        // The first may come before the session has read what it is to cancel.
        loop {
            self.cancel().await;
            if let Ok(drained) = tokio::time::timeout(CANCEL_AGAIN, self.drain()).await {
                return drained.is_ok();
            }
        }
    }

    /// Leaves nothing of what it has been used for. False if that cannot be done.
    pub async fn renew(&mut self) -> bool {
        let mut messages = BytesMut::new();
        let written = encode::parse(&mut messages, b"", b"DISCARD ALL", &[])
            .and_then(|()| encode::bind(&mut messages, b"", b"", &[], std::iter::empty::<Option<&[u8]>>(), &[]))
            .and_then(|()| encode::execute(&mut messages, b"", 0));
        written.is_ok() && !self.busy && self.ask(messages).await.is_ok()
    }

    async fn drain(&mut self) -> Result<(), Failure> {
        while self.busy {
            let header = self.next().await?;
            self.pass(header);
        }
        Ok(())
    }

    /// As a cancel request does.
    async fn cancel(&self) {
        if let Some(control) = self.streams.shared.sessions.find(self.pid, &self.secret) {
            control.cancel().await;
        }
    }
}

/// What was answered.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
    /// The body of a RowDescription.
    pub columns: Option<Bytes>,
    /// The body of a ParameterDescription.
    pub parameters: Bytes,
}

/// Of the admin database nothing is streamed.
async fn refuse_visitor(visitor: Visitor) {
    let mut stream = visitor.stream;
    let mut out = BytesMut::new();
    ErrorResponse::fatal(sqlstate::FEATURE_NOT_SUPPORTED, "the admin database cannot be streamed").encode(&mut out);
    // Whoever has left needs no answer.
    let _ = stream.write_all(&out).await;
}
