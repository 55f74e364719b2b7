//! What comes before the start-up packet: TLS, or the refusal of it.
//!
//! Invariant: no byte that came in clear is ever read as if it had come through TLS (CVE-2021-23214). Packets are read
//! exactly, the length field and then what it counts, and nothing is buffered: what a client, or somebody between, has
//! sent behind an SSLRequest stays in the socket and goes into the handshake, which it breaks.

use std::io;

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::TlsMode;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::{FirstPacket, StartupError, StartupMessage, packet_length};
use crate::wire::stream::Stream;
use crate::wire::tls::{ClientTlsAcceptor, has_postgresql_alpn, peer_common_name};

/// How a request that was answered would be named as a protocol version, if it is made twice.
const REQUEST_VERSION: u32 = 1234;
const SSL_MINOR: u32 = 5679;
const GSSENC_MINOR: u32 = 5680;

/// Why there is no session.
#[derive(Debug, Error)]
pub enum NegotiateError {
    /// The client left, or what it sent was neither a packet nor a handshake that succeeds. It is not told anything.
    #[error("the client left before its start-up packet: {0}")]
    Gone(#[from] io::Error),
    /// To be told to the client on this stream.
    #[error("start-up refused: {}", .1.message)]
    Refused(Stream, ErrorResponse),
}

/// Reads up to the start-up packet or the cancel request, encrypting the stream on the way if the client asks for it and
/// `tls` is there. Returns `Startup` only if the stream and the client's certificate are as `tls` demands; Unix sockets
/// are never encrypted and always good enough. The caller bounds the time.
pub async fn negotiate(
    mut stream: Stream,
    tls: Option<&ClientTlsAcceptor>,
) -> Result<(Stream, FirstPacket), NegotiateError> {
    // Once, so that a reload on the way cannot mix two modes.
    let mode = tls.map_or(TlsMode::Disable, ClientTlsAcceptor::mode);
    // No start-up packet is long enough to begin like a handshake.
    if stream.begins_with_tls().await? {
        stream = accept_direct(stream, tls).await?;
    }
    let (mut ssl_asked, mut gssenc_asked) = (false, false);
    loop {
        let packet = match read_packet(&mut stream).await? {
            Ok(packet) => packet,
            Err(error) => return Err(NegotiateError::Refused(stream, ErrorResponse::from(&error))),
        };
        match packet {
            FirstPacket::Ssl if !ssl_asked => {
                ssl_asked = true;
                match tls.filter(|_| !stream.is_unix() && !stream.is_tls()) {
                    Some(tls) => {
                        answer(&mut stream, b'S').await?;
                        stream = tls.accept(stream).await?;
                        // As in PostgreSQL: encrypted once is encrypted enough.
                        gssenc_asked = true;
                    }
                    None => answer(&mut stream, b'N').await?,
                }
            }
            FirstPacket::GssEnc if !gssenc_asked => {
                gssenc_asked = true;
                answer(&mut stream, b'N').await?;
            }
            FirstPacket::Ssl => return Err(refuse_repeated(stream, SSL_MINOR)),
            FirstPacket::GssEnc => return Err(refuse_repeated(stream, GSSENC_MINOR)),
            // In clear whatever the mode, as in PostgreSQL: the secret is what counts, and older clients cannot do else.
            FirstPacket::Cancel { .. } => return Ok((stream, packet)),
            FirstPacket::Startup(ref message) => {
                return match check(&stream, mode, message) {
                    Ok(()) => Ok((stream, packet)),
                    Err(error) => Err(NegotiateError::Refused(stream, error)),
                };
            }
        }
    }
}

/// TLS without an SSLRequest. ALPN is what keeps a client of another protocol from talking to us by mistake, so a client
/// without it is not told anything either.
async fn accept_direct(stream: Stream, tls: Option<&ClientTlsAcceptor>) -> io::Result<Stream> {
    let tls = tls.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "direct TLS, which is off"))?;
    let stream = tls.accept(stream).await?;
    if has_postgresql_alpn(&stream) {
        Ok(stream)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "direct TLS without ALPN \"postgresql\""))
    }
}

/// One packet and not a byte more. The length is checked before anything is allocated.
async fn read_packet(stream: &mut Stream) -> io::Result<Result<FirstPacket, StartupError>> {
    let mut field = [0; 4];
    stream.read_exact(&mut field).await?;
    let length = match packet_length(field) {
        Ok(length) => length,
        Err(error) => return Ok(Err(error)),
    };
    let mut raw = BytesMut::zeroed(length);
    raw[..4].copy_from_slice(&field);
    stream.read_exact(&mut raw[4..]).await?;
    Ok(FirstPacket::decode(Bytes::from(raw)))
}

async fn answer(stream: &mut Stream, byte: u8) -> io::Result<()> {
    stream.write_all(&[byte]).await?;
    stream.flush().await
}

/// PostgreSQL takes a request made twice for a protocol version.
fn refuse_repeated(stream: Stream, minor: u32) -> NegotiateError {
    NegotiateError::Refused(stream, ErrorResponse::from(&StartupError::Protocol(REQUEST_VERSION, minor)))
}

/// The stream is as the mode demands, and under verify-full the certificate is the user's.
fn check(stream: &Stream, mode: TlsMode, message: &StartupMessage) -> Result<(), ErrorResponse> {
    let demands_tls = matches!(mode, TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull);
    if !demands_tls || stream.is_unix() {
        return Ok(());
    }
    if !stream.is_tls() {
        let error = ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, "connections without TLS are not accepted");
        return Err(error.hint("Connect with sslmode=require, or through the Unix socket."));
    }
    let is_users = || peer_common_name(stream).is_some_and(|name| name.as_bytes() == message.user());
    if mode == TlsMode::VerifyFull && !is_users() {
        let user = String::from_utf8_lossy(message.user());
        let text = format!("certificate authentication failed for user \"{user}\"");
        let hint = "The common name (CN) of the client certificate must be the name of the user.";
        return Err(ErrorResponse::fatal(sqlstate::INVALID_AUTHORIZATION, text).hint(hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
