//! The messages of one authentication, towards the client.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{AuthError, wrong_password};
use crate::upstream::login::UpstreamSecret;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{HEADER_BYTES, backend, frontend};
use crate::wire::md5;
use crate::wire::scram::{self, ScramError, Server, Verifier};
use crate::wire::stream::Stream;

/// The longest password message. What comes before authentication is bounded like the start-up packet.
const MAX_MESSAGE: usize = 10_000;

pub(super) struct Exchange<'a>(&'a mut Stream);

impl<'a> Exchange<'a> {
    pub(super) fn new(stream: &'a mut Stream) -> Self {
        Self(stream)
    }

    /// Asks for an md5 answer; `stored` is what the upstream keeps, and what it can be answered with.
    pub(super) async fn md5(&mut self, user: &str, stored: String) -> Result<UpstreamSecret, AuthError> {
        let salt = rand::random::<[u8; 4]>();
        self.ask(5, &salt).await?;
        let message = self.answer().await?;
        let given = message.strip_suffix(&[0]).ok_or_else(|| violation("invalid password packet size"))?;
        if md5::is_right(given, &stored, salt) { Ok(UpstreamSecret::Md5(stored)) } else { Err(wrong_password(user)) }
    }

    /// Runs SCRAM-SHA-256. The client's proof gives away what the upstream wants to see.
    pub(super) async fn scram(&mut self, user: &str, verifier: Verifier) -> Result<UpstreamSecret, AuthError> {
        self.ask(10, &[scram::MECHANISM.as_bytes(), &[0, 0]].concat()).await?;
        let initial = self.answer().await?;
        let first = initial_response(&initial).ok_or_else(|| violation("malformed SCRAM message"))?;
        let server = Server::new(first, verifier).map_err(|error| refused(user, error))?;
        self.ask(11, server.first_message().as_bytes()).await?;
        let last = self.answer().await?;
        let (message, keys) = server.finish(&last).map_err(|error| refused(user, error))?;
        self.ask(12, message.as_bytes()).await?;
        Ok(UpstreamSecret::Scram(keys))
    }

    /// Sends an authentication request.
    async fn ask(&mut self, code: u32, data: &[u8]) -> Result<(), AuthError> {
        let mut out = Vec::with_capacity(data.len() + 9);
        out.push(backend::AUTHENTICATION);
        out.extend_from_slice(&(data.len() as u32 + 8).to_be_bytes());
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(data);
        self.0.write_all(&out).await.map_err(|_| AuthError::Gone)?;
        self.0.flush().await.map_err(|_| AuthError::Gone)
    }

    /// Reads exactly one message of type `p`.
    async fn answer(&mut self) -> Result<Vec<u8>, AuthError> {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).await.map_err(|_| AuthError::Gone)?;
        let [tag, length @ ..] = header;
        let length = u32::from_be_bytes(length) as usize;
        if tag != frontend::PASSWORD {
            return Err(violation(format!("expected password response, got message type {tag}")));
        }
        if !(4..=MAX_MESSAGE).contains(&length) {
            return Err(violation("invalid message length"));
        }
        let mut body = vec![0; length - 4];
        self.0.read_exact(&mut body).await.map_err(|_| AuthError::Gone)?;
        Ok(body)
    }
}

/// The data of SASLInitialResponse: mechanism, length, message.
fn initial_response(body: &[u8]) -> Option<&[u8]> {
    let end = body.iter().position(|byte| *byte == 0)?;
    let (mechanism, rest) = (&body[..end], &body[end + 1..]);
    let (length, data) = rest.split_first_chunk::<4>()?;
    let whole = usize::try_from(i32::from_be_bytes(*length)).is_ok_and(|length| length == data.len());
    (mechanism == scram::MECHANISM.as_bytes() && whole).then_some(data)
}

fn violation(message: impl Into<String>) -> AuthError {
    AuthError::Refused(ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, message))
}

fn refused(user: &str, error: ScramError) -> AuthError {
    match error {
        ScramError::Proof => wrong_password(user),
        ScramError::ChannelBinding => AuthError::Refused(
            ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, error.to_string())
                .hint("Connect with channel_binding=disable or prefer."),
        ),
        _ => violation(error.to_string()),
    }
}
