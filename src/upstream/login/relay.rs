//! Auth mode `relay`: authentication messages pass between the client and an upstream connection of its own.
//!
//! It works with every method of the upstream but one: SCRAM with channel binding would bind the client to the proxy's
//! certificate, so `SCRAM-SHA-256-PLUS` is taken from the list that the upstream offers (libpq would also refuse the offer on a
//! connection without TLS). With TLS on both sides, a client that would have been able to use it says so in its gs2 header, and
//! the upstream takes that for an attack: such clients set `channel_binding=disable`, or the proxy goes upstream without TLS.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Connection, Frames, Greeting, LoginError};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{HEADER_BYTES, backend, frontend};
use crate::wire::stream::Stream;

/// The longest password, SASL or GSS message of a client (`PG_MAX_AUTH_TOKEN_LENGTH`, src/backend/libpq/auth.c).
const MAX_TOKEN: usize = 65_535;

#[derive(Debug, Error)]
pub enum RelayError {
    #[error("the upstream server refused the client, and the client was told")]
    Refused(LoginError),
    #[error("the client went away during authentication")]
    ClientGone,
    #[error("invalid authentication message of the client")]
    Client,
    #[error(transparent)]
    Upstream(#[from] LoginError),
}

impl RelayError {
    /// What the client is told, if it has not been told already.
    pub fn to_error_response(&self) -> ErrorResponse {
        let code = match self {
            Self::Client => sqlstate::PROTOCOL_VIOLATION,
            _ => sqlstate::CONNECTION_FAILURE,
        };
        ErrorResponse::fatal(code, self.to_string())
    }
}

/// Logs a client in upstream, which has been greeted with the client's own start-up packet, with the client's own answers.
/// AuthenticationOk is passed on; what follows up to ReadyForQuery is kept for the session to tell.
pub async fn relay(client: &mut Stream, upstream: Greeting) -> Result<Connection, RelayError> {
    let Greeting { mut frames, mut tag, mut frame } = upstream;
    loop {
        match tag {
            backend::AUTHENTICATION => {
                let code = frame.get(HEADER_BYTES..).and_then(|body| body.first_chunk::<4>());
                match code.map(|code| u32::from_be_bytes(*code)) {
                    Some(0) => {
                        tell(client, &frame).await?;
                        return match frames.welcome().await {
                            Err(LoginError::Refused { frame }) => refuse(client, frame).await,
                            welcome => Ok(welcome?),
                        };
                    }
                    // SASLFinal wants no answer.
                    Some(12) => tell(client, &frame).await?,
                    Some(10) => {
                        tell(client, &without_channel_binding(&frame)).await?;
                        answer(client, &mut frames).await?;
                    }
                    Some(_) => {
                        tell(client, &frame).await?;
                        answer(client, &mut frames).await?;
                    }
                    None => return Err(LoginError::Protocol("a short authentication request").into()),
                }
            }
            backend::NEGOTIATE_PROTOCOL_VERSION | backend::NOTICE_RESPONSE => tell(client, &frame).await?,
            backend::ERROR_RESPONSE => return refuse(client, frame).await,
            _ => return Err(LoginError::Protocol("an unexpected message before authentication").into()),
        }
        (tag, frame) = frames.next().await?;
    }
}

/// Passes the upstream's last words on.
async fn refuse(client: &mut Stream, frame: Bytes) -> Result<Connection, RelayError> {
    tell(client, &frame).await?;
    // Whatever keeps the client from reading it is its own.
    let _ = client.shutdown().await;
    Err(RelayError::Refused(LoginError::Refused { frame }))
}

async fn tell(client: &mut Stream, frame: &[u8]) -> Result<(), RelayError> {
    client.write_all(frame).await.map_err(|_| RelayError::ClientGone)?;
    client.flush().await.map_err(|_| RelayError::ClientGone)
}

/// Passes exactly one message of the client on: what it may have sent behind it stays in its socket.
async fn answer(client: &mut Stream, frames: &mut Frames) -> Result<(), RelayError> {
    let mut header = [0; HEADER_BYTES];
    client.read_exact(&mut header).await.map_err(|_| RelayError::ClientGone)?;
    let [tag, length @ ..] = header;
    let length = u32::from_be_bytes(length) as usize;
    if tag != frontend::PASSWORD || !(4..=MAX_TOKEN).contains(&length) {
        return Err(RelayError::Client);
    }
    let mut body = vec![0; length - 4];
    client.read_exact(&mut body).await.map_err(|_| RelayError::ClientGone)?;
    frames.send(&body).await?;
    Ok(())
}

/// AuthenticationSASL without the mechanism that cannot pass.
fn without_channel_binding(frame: &Bytes) -> BytesMut {
    let mut out = BytesMut::with_capacity(frame.len());
    out.put_u8(backend::AUTHENTICATION);
    out.put_u32(0);
    out.put_u32(10);
    for name in frame.get(HEADER_BYTES + 4..).unwrap_or_default().split(|byte| *byte == 0) {
        if !name.is_empty() && name != b"SCRAM-SHA-256-PLUS" {
            out.put_slice(name);
            out.put_u8(0);
        }
    }
    out.put_u8(0);
    let length = (out.len() - 1) as u32;
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channel_binding_is_taken_from_the_list() {
        let mut frame = BytesMut::from(&b"R\0\0\0\0\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..]);
        let length = (frame.len() - 1) as u32;
        frame[1..5].copy_from_slice(&length.to_be_bytes());
        assert_eq!(&without_channel_binding(&frame.freeze())[..], b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    }
}
