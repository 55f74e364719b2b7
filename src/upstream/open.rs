//! Opens a stream to the upstream: TCP or a Unix socket, with TLS as `upstream.sslmode` says.
//!
//! The one-byte answer to an SSLRequest is read as exactly one byte, so whatever was sent in clear behind it goes into
//! the handshake, which it breaks (CVE-2021-23222).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout, timeout_at};

use super::peer::{Address, Peer};
use crate::config::{Host, SessionAttributes, TlsMode, Upstream};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::startup::{put_cancel_request, put_ssl_request};
use crate::wire::stream::Stream;
use crate::wire::tls::{TlsError, UpstreamTls};

/// Where the upstream is and how to get there.
#[derive(Debug, Clone)]
pub struct Target {
    /// In the order in which they are tried.
    pub hosts: Vec<Host>,
    /// The only one that is tried, where the server's role matters: whoever looks for it leaves it here.
    pub chosen: Arc<ArcSwapOption<Host>>,
    pub attributes: SessionAttributes,
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
            // The validation of the configuration lets only lists through that can be read; nobody can connect to no host.
            hosts: Host::list(&config.host, config.port).unwrap_or_default(),
            chosen: Arc::default(),
            attributes: config.target_session_attrs,
            tls: UpstreamTls::new(config)?,
            connect_timeout: Duration::from_secs(config.connect_timeout_secs),
            user_timeout: Duration::from_millis(config.tcp_user_timeout_ms),
            keepalive: (config.keepalive_secs > 0).then(|| Duration::from_secs(config.keepalive_secs)),
        })
    }
}

impl Target {
    /// The hosts to try now, in order.
    fn candidates(&self) -> Vec<Host> {
        match self.attributes {
            SessionAttributes::Any => self.hosts.clone(),
            _ => self.chosen.load().iter().map(|host| Host::clone(host)).collect(),
        }
    }
}

impl Target {
    /// Whether the server says of itself, by what it reports at the start of a session, that it is no longer what it was chosen for.
    pub fn is_contradicted_by(&self, parameters: &[(Bytes, Bytes)]) -> bool {
        let is = |value: &str| parameters.iter().any(|(name, own)| name == "in_hot_standby" && own == value);
        match self.attributes {
            SessionAttributes::Any | SessionAttributes::ReadOnly | SessionAttributes::PreferStandby => false,
            SessionAttributes::ReadWrite | SessionAttributes::Primary => is("on"),
            SessionAttributes::Standby => is("off"),
        }
    }
}

/// A stream on which the start-up packet is the next thing to send, and where it leads to.
#[derive(Debug)]
pub struct Opened {
    pub stream: Stream,
    pub peer: Peer,
}

/// Why there is no stream. The texts name no address, since clients that are not logged in yet get to see them.
#[derive(Debug, Error)]
pub enum OpenError {
    #[error("its name cannot be resolved: {0}")]
    Lookup(io::Error),
    #[error("no host of the list is a server as upstream.target_session_attrs demands")]
    NoneFits,
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
        matches!(self, Self::Lookup(_) | Self::NoneFits | Self::Connect(_) | Self::Timeout(_) | Self::Broken(_))
    }

    /// 08001 if no connection came to be, 08006 if one did and was of no use.
    pub fn to_error_response(&self) -> ErrorResponse {
        let (code, hint) = match self {
            Self::NoneFits => (
                sqlstate::UNABLE_TO_CONNECT,
                "The proxy looks at them every two seconds, with the account of upstream.user.",
            ),
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

/// Opens a stream to the first host that can be reached.
///
/// `sslmode` is libpq's, and as there it does not concern Unix sockets. `prefer` falls back to a connection in clear when the
/// server does not do TLS or the handshake fails. `allow` asks for TLS only after the server has refused a start-up in
/// clear, which is not known here: it behaves as `disable`.
pub async fn open(target: &Target) -> Result<Opened, OpenError> {
    let limit = target.connect_timeout;
    timeout(limit, connect(target, Instant::now() + limit)).await.unwrap_or(Err(OpenError::Timeout(limit)))
}

/// Opens a stream to this host.
pub async fn open_to(target: &Target, host: &Host) -> Result<Opened, OpenError> {
    let limit = target.connect_timeout;
    timeout(limit, connect_to(target, host, Instant::now() + limit)).await.unwrap_or(Err(OpenError::Timeout(limit)))
}

/// Asks the server at the other end of a connection to cancel what the backend `pid` runs. Returns when the server has closed the
/// connection, which it does after it has sent the signal: only then may another statement be sent to that backend without being
/// hit.
pub async fn cancel(target: &Target, peer: &Peer, pid: i32, secret: &[u8]) -> Result<(), OpenError> {
    let limit = target.connect_timeout;
    let work = async {
        let mut stream = dial(target, peer).await?;
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

/// Tries the hosts in turn. Each gets an equal share of the time that is left, so that one that swallows packets does not use up
/// the others'.
async fn connect(target: &Target, deadline: Instant) -> Result<Opened, OpenError> {
    let hosts = target.candidates();
    let mut last = OpenError::NoneFits;
    for (left, host) in (1u32..=hosts.len() as u32).rev().zip(&hosts) {
        let share = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
        match timeout_at(share, connect_to(target, host, share)).await {
            Ok(Ok(opened)) => return Ok(opened),
            Ok(Err(error)) => last = error,
            Err(_) => last = OpenError::Timeout(target.connect_timeout),
        }
    }
    Err(last)
}

/// Tries the addresses of a host in turn. Its name is resolved each time: it may have moved.
async fn connect_to(target: &Target, host: &Host, deadline: Instant) -> Result<Opened, OpenError> {
    let addresses = if host.name.starts_with('/') {
        vec![Address::Unix(format!("{}/.s.PGSQL.{}", host.name.trim_end_matches('/'), host.port))]
    } else {
        let addresses = tokio::net::lookup_host((host.name.as_str(), host.port)).await.map_err(OpenError::Lookup)?;
        addresses.map(Address::Tcp).collect()
    };
    let mut last = OpenError::Lookup(io::Error::new(io::ErrorKind::NotFound, "no addresses"));
    for (left, address) in (1u32..=addresses.len() as u32).rev().zip(addresses) {
        let share = Instant::now() + deadline.saturating_duration_since(Instant::now()) / left;
        let peer = Peer { name: host.name.clone(), address };
        match timeout_at(share, reach(target, &peer)).await {
            Ok(Ok(stream)) => {
                let stream = secure(target, &peer, stream).await?;
                return Ok(Opened { stream, peer });
            }
            Ok(Err(error)) => last = OpenError::Connect(error),
            Err(_) => last = OpenError::Timeout(target.connect_timeout),
        }
    }
    Err(last)
}

/// Opens a stream to this very address.
async fn dial(target: &Target, peer: &Peer) -> Result<Stream, OpenError> {
    let stream = reach(target, peer).await.map_err(OpenError::Connect)?;
    secure(target, peer, stream).await
}

async fn reach(target: &Target, peer: &Peer) -> io::Result<Stream> {
    match &peer.address {
        Address::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        Address::Nowhere => Err(io::ErrorKind::AddrNotAvailable.into()),
        Address::Tcp(address) => tune(TcpStream::connect(address).await?, target),
    }
}

/// The stream with TLS, as `sslmode` says.
async fn secure(target: &Target, peer: &Peer, stream: Stream) -> Result<Stream, OpenError> {
    if stream.is_unix() {
        return Ok(stream);
    }
    match target.tls.mode() {
        TlsMode::Disable | TlsMode::Allow => Ok(stream),
        TlsMode::Prefer => match encrypt(target, peer, stream).await {
            // The stream is spoilt: clear text needs one of its own.
            Err(OpenError::Handshake(_)) => reach(target, peer).await.map_err(OpenError::Connect),
            other => other,
        },
        TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => encrypt(target, peer, stream).await,
    }
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
async fn encrypt(target: &Target, peer: &Peer, mut stream: Stream) -> Result<Stream, OpenError> {
    let mut request = BytesMut::new();
    put_ssl_request(&mut request);
    stream.write_all(&request).await.map_err(OpenError::Broken)?;
    match stream.read_u8().await.map_err(OpenError::Broken)? {
        b'S' => target.tls.connect(stream, &peer.name).await.map_err(OpenError::Handshake),
        b'N' if target.tls.mode() == TlsMode::Prefer => Ok(stream),
        b'N' => Err(OpenError::NoTls),
        // Also an ErrorResponse: its text is not ours to show, since anybody may have sent it.
        other => Err(OpenError::Answer(other)),
    }
}

#[cfg(test)]
mod tests;
