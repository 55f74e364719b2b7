//! Opens a stream to the upstream: TCP or a Unix socket, with TLS as `upstream.sslmode` says.
//!
//! The one-byte answer to an SSLRequest is read as exactly one byte, so whatever was sent in clear behind it goes into
//! the handshake, which it breaks (CVE-2021-23222).

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{TlsMode, Upstream};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::{put_cancel_request, put_ssl_request};
use crate::wire::stream::Stream;
use crate::wire::tls::{TlsError, UpstreamTls};

/// Where the upstream is and how to get there.
#[derive(Debug, Clone)]
pub struct Target {
    /// A name, an address, or the directory of a Unix socket (it begins with `/`).
    pub host: String,
    pub port: u16,
    pub tls: UpstreamTls,
    /// For a connection with its TLS handshake, all addresses together.
    pub connect_timeout: Duration,
    /// Silence before TCP probes start; `None` leaves the system's setting.
    pub keepalive: Option<Duration>,
    /// How long TCP waits for what it has sent to be confirmed; zero leaves the system's setting.
    pub user_timeout: Duration,
}

impl Target {
    pub fn new(config: &Upstream) -> Result<Self, TlsError> {
        Ok(Self {
            host: config.host.clone(),
            port: config.port,
            tls: UpstreamTls::new(config)?,
            connect_timeout: Duration::from_secs(config.connect_timeout_secs),
            user_timeout: Duration::from_millis(config.tcp_user_timeout_ms),
            keepalive: (config.keepalive_secs > 0).then(|| Duration::from_secs(config.keepalive_secs)),
        })
    }
}

/// Why there is no stream. The texts name no address, since clients that are not logged in yet get to see them.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("its name cannot be resolved: {0}")]
    Lookup(io::Error),
    #[error("{0}")]
    Connect(io::Error),
    #[error("it did not answer within {} seconds", .0.as_secs_f64())]
    Timeout(Duration),
    #[error("it does not support TLS, but TLS is required")]
    NoTls,
    #[error("the TLS handshake failed: {0}")]
    Handshake(io::Error),
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("it answered the request for TLS with 0x{0:02x}")]
    Answer(u8),
}

impl OpenError {
    /// The next attempt may do better.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Lookup(_) | Self::Connect(_) | Self::Timeout(_) | Self::Broken(_))
    }

    /// 08001 if no connection came to be, 08006 if one did and was of no use.
    pub fn to_error_response(&self) -> ErrorResponse {
        let (code, hint) = match self {
            Self::Lookup(_) | Self::Connect(_) | Self::Timeout(_) => (
                sqlstate::UNABLE_TO_CONNECT,
                "Is the server running, and do upstream.host and upstream.port of the proxy name it?",
            ),
            Self::NoTls | Self::Handshake(_) => (
                sqlstate::CONNECTION_FAILURE,
                "Check upstream.sslmode and upstream.sslrootcert of the proxy, and the server's certificate.",
            ),
            Self::Broken(_) | Self::Answer(_) => {
                (sqlstate::CONNECTION_FAILURE, "Is it a PostgreSQL server that upstream.host and upstream.port name?")
            }
        };
        ErrorResponse::fatal(code, format!("could not connect to the upstream server: {self}")).hint(hint)
    }
}

/// A stream on which the start-up packet is the next thing to send.
///
/// `sslmode` is libpq's, and as there it does not concern Unix sockets. `prefer` falls back to a connection in clear when the
/// server does not do TLS or the handshake fails. `allow` asks for TLS only after the server has refused a start-up in
/// clear, which is not known here: it behaves as `disable`.
pub async fn open(target: &Target) -> Result<Stream, OpenError> {
    let limit = target.connect_timeout;
    timeout(limit, connect(target, Instant::now() + limit)).await.unwrap_or(Err(OpenError::Timeout(limit)))
}

/// Asks the upstream to cancel what the backend `pid` runs. Returns when the server has closed the connection, which it
/// does after it has sent the signal: only then may another statement be sent to that backend without being hit.
pub async fn cancel(target: &Target, pid: i32, secret: &[u8]) -> Result<(), OpenError> {
    let limit = target.connect_timeout;
    let work = async {
        let mut stream = connect(target, Instant::now() + limit).await?;
        let mut request = BytesMut::new();
        put_cancel_request(&mut request, pid, secret);
        stream.write_all(&request).await.map_err(OpenError::Broken)?;
        stream.flush().await.map_err(OpenError::Broken)?;
        // However it closes, it has read the request.
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
        Ok(())
    };
    timeout(limit, work).await.unwrap_or(Err(OpenError::Timeout(limit)))
}

async fn connect(target: &Target, deadline: Instant) -> Result<Stream, OpenError> {
    if target.host.starts_with('/') {
        let path = format!("{}/.s.PGSQL.{}", target.host.trim_end_matches('/'), target.port);
        return UnixStream::connect(path).await.map(Stream::Unix).map_err(OpenError::Connect);
    }
    let stream = connect_tcp(target, deadline).await?;
    match target.tls.mode() {
        TlsMode::Disable | TlsMode::Allow => Ok(stream),
        TlsMode::Prefer => match encrypt(target, stream).await {
            // The stream is spoilt: clear text needs one of its own.
            Err(OpenError::Handshake(_)) => connect_tcp(target, deadline).await,
            other => other,
        },
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => encrypt(target, stream).await,
    }
}

/// Tries the addresses of the name in turn. Each gets an equal share of the time that is left, so that one that swallows
/// packets does not use up the others'.
async fn connect_tcp(target: &Target, deadline: Instant) -> Result<Stream, OpenError> {
    let addresses = tokio::net::lookup_host((target.host.as_str(), target.port)).await.map_err(OpenError::Lookup)?;
    let addresses: Vec<_> = addresses.collect();
    let mut last = OpenError::Lookup(io::Error::new(io::ErrorKind::NotFound, "no addresses"));
    for (left, address) in (1u32..=addresses.len() as u32).rev().zip(addresses) {
        let now = Instant::now();
        let share = deadline.saturating_duration_since(now) / left;
        match timeout_at(now + share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return tune(stream, target).map_err(OpenError::Connect),
            Ok(Err(error)) => last = OpenError::Connect(error),
            Err(_) => last = OpenError::Timeout(target.connect_timeout),
        }
    }
    Err(last)
}

fn tune(stream: TcpStream, target: &Target) -> io::Result<Stream> {
    stream.set_nodelay(true)?;
    match target.keepalive {
        Some(silence) => SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(silence))?,
        None => SockRef::from(&stream).set_keepalive(true)?,
    }
    let stream = Stream::Tcp(stream);
    stream.set_user_timeout(target.user_timeout)?;
    Ok(stream)
}

/// Asks for TLS. Under `prefer` a server that has none gets its stream back in clear.
async fn encrypt(target: &Target, mut stream: Stream) -> Result<Stream, OpenError> {
    let mut request = BytesMut::new();
    put_ssl_request(&mut request);
    stream.write_all(&request).await.map_err(OpenError::Broken)?;
    match stream.read_u8().await.map_err(OpenError::Broken)? {
        b'S' => target.tls.connect(stream, &target.host).await.map_err(OpenError::Handshake),
        b'N' if target.tls.mode() == TlsMode::Prefer => Ok(stream),
        b'N' => Err(OpenError::NoTls),
        // Also an ErrorResponse: its text is not ours to show, since anybody may have sent it.
        other => Err(OpenError::Answer(other)),
    }
}

#[cfg(test)]
mod tests;
