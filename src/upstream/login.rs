//! From an open stream to an upstream connection that is ready for queries: by what the proxy knows of the user, or by passing
//! authentication messages between the client and the upstream. Either begins with the upstream's first answer, a
//! [`Greeting`].

mod relay;

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

pub use relay::{RelayError, relay};

use super::open::Opened;
use super::peer::Peer;
use crate::wire::error::{ErrorResponse, field, sqlstate};
use crate::wire::frame::{self, FrameError, HEADER_BYTES, backend, frontend};
use crate::wire::md5;
use crate::wire::message::backend::ParameterStatus;
use crate::wire::scram::{self, Client, ClientSecret, ScramError, ScramKeys};
use crate::wire::startup;
use crate::wire::stream::Stream;

/// The longest message that is taken before the first ReadyForQuery.
const MAX_FRAME: usize = 64 * 1024;
/// All of them together.
const MAX_WELCOME: usize = 1024 * 1024;

/// How the proxy proves upstream that it acts for a user.
#[derive(Clone, PartialEq, Eq)]
pub enum UpstreamSecret {
    /// Nothing is known; the upstream must not ask.
    None,
    Password(String),
    /// `md5` and the hash, as the upstream keeps it.
    Md5(String),
    /// What the client's own proof has given away.
    Scram(ScramKeys),
}

/// A connection that is logged in and idle.
#[derive(Debug)]
pub struct Connection {
    pub stream: Stream,
    pub peer: Peer,
    /// Read already, after the first ReadyForQuery.
    pub buffer: BytesMut,
    /// ParameterStatus in the order in which they came.
    pub parameters: Vec<(Bytes, Bytes)>,
    pub pid: i32,
    pub secret: Bytes,
    /// NoticeResponse frames that came during the start-up.
    pub notices: Vec<Bytes>,
}

#[derive(Debug, Error)]
pub enum LoginError {
    #[error("the upstream server refused the connection")]
    Refused { frame: Bytes },
    #[error("the upstream server closed the connection during the start-up")]
    Closed,
    #[error("connection to the upstream server lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("protocol violation by the upstream server: {0}")]
    Protocol(&'static str),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the upstream server asks for {0}, and the proxy knows nothing to answer")]
    NoSecret(&'static str),
    #[error(transparent)]
    Scram(#[from] ScramError),
}

impl LoginError {
    /// What the client is told: the upstream's own frame if there is one.
    pub fn into_frame(self) -> Result<Bytes, ErrorResponse> {
        let message = self.to_string();
        match self {
            Self::Refused { frame } => Ok(frame),
            Self::NoSecret(_) => Err(ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, message)
                .hint("Set auth.mode to relay or scram, or list the user with a password in auth.user_file.")),
            _ => Err(ErrorResponse::fatal(sqlstate::CONNECTION_FAILURE, message)),
        }
    }

    /// The connection was lost.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Closed | Self::Io(_))
    }

    /// The SQLSTATE with which the upstream refused.
    pub fn sqlstate(&self) -> Option<String> {
        let Self::Refused { frame } = self else { return None };
        field(frame.get(HEADER_BYTES..)?, b'C').map(|code| String::from_utf8_lossy(code).into_owned())
    }
}

/// A server that has answered a start-up packet, and not with an error.
pub struct Greeting {
    frames: Frames,
    /// Its first message.
    tag: u8,
    frame: Bytes,
}

/// Sends a start-up packet and waits for the first answer.
pub async fn greet(opened: Opened, startup: &[u8]) -> Result<Greeting, LoginError> {
    let mut frames = Frames::new(opened);
    frames.stream.write_all(startup).await?;
    frames.stream.flush().await?;
    match frames.next().await? {
        (backend::ERROR_RESPONSE, frame) => Err(LoginError::Refused { frame }),
        (tag, frame) => Ok(Greeting { frames, tag, frame }),
    }
}

/// Logs in on a fresh stream with the client's start-up parameters.
pub async fn login(
    opened: Opened,
    protocol: u32,
    parameters: &[(Bytes, Bytes)],
    secret: &UpstreamSecret,
) -> Result<Connection, LoginError> {
    let mut out = BytesMut::new();
    startup::put_startup(&mut out, protocol, parameters.iter().map(|(name, value)| (&name[..], &value[..])));
    let user = parameters.iter().rev().find(|(name, _)| name == "user").map_or(&[][..], |(_, user)| user);
    let Greeting { mut frames, mut tag, mut frame } = greet(opened, &out).await?;
    loop {
        match tag {
            backend::AUTHENTICATION => {
                let mut body = frame.slice(HEADER_BYTES..);
                if body.len() < 4 {
                    return Err(LoginError::Protocol("a short authentication request"));
                }
                match body.get_u32() {
                    0 => return frames.welcome().await,
                    3 => frames.send_password(clear_password(secret)?.as_bytes()).await?,
                    5 => {
                        let salt = *body.first_chunk::<4>().ok_or(LoginError::Protocol("a short md5 salt"))?;
                        let stored = md5_hash(secret, &String::from_utf8_lossy(user))?;
                        frames.send_password(md5::answer(&stored, salt).as_bytes()).await?;
                    }
                    10 => frames.scram(&body, secret).await?,
                    _ => return Err(LoginError::NoSecret("an authentication method that the proxy does not know")),
                }
            }
            backend::ERROR_RESPONSE => return Err(LoginError::Refused { frame }),
            backend::NOTICE_RESPONSE => {}
            _ => return Err(LoginError::Protocol("an unexpected message before authentication")),
        }
        (tag, frame) = frames.next().await?;
    }
}

fn clear_password(secret: &UpstreamSecret) -> Result<&str, LoginError> {
    match secret {
        UpstreamSecret::Password(password) => Ok(password),
        _ => Err(LoginError::NoSecret("a password in clear")),
    }
}

fn md5_hash(secret: &UpstreamSecret, user: &str) -> Result<String, LoginError> {
    match secret {
        UpstreamSecret::Password(password) => Ok(md5::stored(user, password)),
        UpstreamSecret::Md5(hash) => Ok(hash.clone()),
        _ => Err(LoginError::NoSecret("an md5 password")),
    }
}

/// An upstream stream, a frame at a time, before the session takes it over.
struct Frames {
    stream: Stream,
    peer: Peer,
    buffer: BytesMut,
}

impl Frames {
    fn new(opened: Opened) -> Self {
        let Opened { stream, peer } = opened;
        Self { stream, peer, buffer: BytesMut::new() }
    }

    /// The next whole frame.
    async fn next(&mut self) -> Result<(u8, Bytes), LoginError> {
        loop {
            if let Some(header) = frame::peek(&self.buffer)? {
                if header.total > MAX_FRAME {
                    return Err(LoginError::Protocol("a message of the start-up is too long"));
                }
                if self.buffer.len() >= header.total {
                    return Ok((header.tag, self.buffer.split_to(header.total).freeze()));
                }
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(LoginError::Closed);
            }
        }
    }

    async fn send_password(&mut self, text: &[u8]) -> Result<(), LoginError> {
        let mut message = text.to_vec();
        message.push(0);
        self.send(&message).await
    }

    /// Sends a message of type `p`.
    async fn send(&mut self, body: &[u8]) -> Result<(), LoginError> {
        let mut out = Vec::with_capacity(body.len() + HEADER_BYTES);
        out.push(frontend::PASSWORD);
        out.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        out.extend_from_slice(body);
        self.stream.write_all(&out).await?;
        Ok(self.stream.flush().await?)
    }

    async fn scram(&mut self, mechanisms: &[u8], secret: &UpstreamSecret) -> Result<(), LoginError> {
        if !mechanisms.split(|byte| *byte == 0).any(|name| name == scram::MECHANISM.as_bytes()) {
            return Err(LoginError::NoSecret("a SASL mechanism that the proxy does not know"));
        }
        let secret = match secret {
            UpstreamSecret::Password(password) => ClientSecret::Password(password),
            UpstreamSecret::Scram(keys) => ClientSecret::Keys(keys),
            _ => return Err(LoginError::NoSecret("SCRAM-SHA-256")),
        };
        let client = Client::default();
        let first = client.first_message();
        let mut message = [scram::MECHANISM.as_bytes(), &[0]].concat();
        message.extend_from_slice(&(first.len() as u32).to_be_bytes());
        message.extend_from_slice(first.as_bytes());
        self.send(&message).await?;
        let (proof, expectation) = client.prove(&self.sasl(11).await?, &secret)?;
        self.send(proof.as_bytes()).await?;
        Ok(expectation.check(&self.sasl(12).await?)?)
    }

    /// The data of AuthenticationSASLContinue (11) or AuthenticationSASLFinal (12).
    async fn sasl(&mut self, kind: u32) -> Result<Bytes, LoginError> {
        match self.next().await? {
            (backend::AUTHENTICATION, frame)
                if frame.get(HEADER_BYTES..HEADER_BYTES + 4) == Some(&kind.to_be_bytes()[..]) =>
            {
                Ok(frame.slice(HEADER_BYTES + 4..))
            }
            (backend::ERROR_RESPONSE, frame) => Err(LoginError::Refused { frame }),
            _ => Err(LoginError::Protocol("an unexpected message during SASL")),
        }
    }

    /// After AuthenticationOk: everything up to the first ReadyForQuery.
    async fn welcome(mut self) -> Result<Connection, LoginError> {
        let (mut parameters, mut notices, mut key) = (Vec::new(), Vec::new(), (0, Bytes::new()));
        let mut bytes = 0;
        loop {
            let (tag, frame) = self.next().await?;
            bytes += frame.len();
            if bytes > MAX_WELCOME {
                return Err(LoginError::Protocol("the start-up is too long"));
            }
            let body = frame.slice(HEADER_BYTES..);
            match tag {
                backend::PARAMETER_STATUS => {
                    let status = ParameterStatus::decode(&body)
                        .map_err(|_| LoginError::Protocol("a malformed ParameterStatus"))?;
                    parameters.push((body.slice_ref(status.name), body.slice_ref(status.value)));
                }
                backend::BACKEND_KEY_DATA => {
                    let (pid, secret) =
                        startup::backend_key_data(&body).ok_or(LoginError::Protocol("a malformed BackendKeyData"))?;
                    key = (pid, body.slice_ref(secret));
                }
                backend::NOTICE_RESPONSE => notices.push(frame),
                backend::ERROR_RESPONSE => return Err(LoginError::Refused { frame }),
                backend::READY_FOR_QUERY => {
                    let (pid, secret) = key;
                    let Self { stream, peer, buffer } = self;
                    return Ok(Connection { stream, peer, buffer, parameters, pid, secret, notices });
                }
                _ => return Err(LoginError::Protocol("an unexpected message during the start-up")),
            }
        }
    }
}

#[cfg(test)]
mod tests;
