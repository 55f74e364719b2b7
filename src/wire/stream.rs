//! The byte stream to a client or to the upstream: TCP or a Unix socket, with or without TLS; or a pipe within this process, by
//! which somebody of another protocol is the proxy's client.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{client, server};

/// The content type of a TLS record that begins a handshake (RFC 8446, section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;

/// One connection, whatever carries it.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    /// We are the TLS server: a client's connection.
    FromClient(Box<server::TlsStream<Stream>>),
    /// We are the TLS client: an upstream connection.
    ToUpstream(Box<client::TlsStream<Stream>>),
    /// Within this process, on behalf of somebody.
    Local(DuplexStream, Arc<Caller>),
}

/// On whose behalf a stream within this process is used, and how he is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub address: Option<SocketAddr>,
    pub tls: bool,
    /// Of the certificate that he has proved to own.
    pub common_name: Option<String>,
}

impl Stream {
    /// Both ends of a stream within this process, which holds so many bytes each way.
    pub fn local(bytes: usize, caller: &Arc<Caller>) -> (Self, Self) {
        let (one, other) = tokio::io::duplex(bytes);
        (Self::Local(one, caller.clone()), Self::Local(other, caller.clone()))
    }

    /// Whether the other side begins with TLS: looks at the first byte when it comes, and leaves it where it is. Clients do not
    /// encrypt Unix sockets.
    pub async fn begins_with_tls(&self) -> io::Result<bool> {
        let Self::Tcp(tcp) = self else { return Ok(false) };
        let mut first = [0];
        Ok(tcp.peek(&mut first).await? == 1 && first[0] == TLS_HANDSHAKE)
    }

    pub fn is_tls(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::FromClient(_) | Self::ToUpstream(_) => true,
            Self::Local(_, caller) => caller.tls,
        }
    }

    pub fn is_unix(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Local(..) => false,
            Self::Unix(_) => true,
            Self::FromClient(tls) => tls.get_ref().0.is_unix(),
            Self::ToUpstream(tls) => tls.get_ref().0.is_unix(),
        }
    }

    /// The address at the other end; `None` for a Unix socket, and if it is gone already.
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().ok(),
            Self::Unix(_) => None,
            Self::Local(_, caller) => caller.address,
            Self::FromClient(tls) => tls.get_ref().0.peer(),
            Self::ToUpstream(tls) => tls.get_ref().0.peer(),
        }
    }
}

impl Stream {
    /// How long TCP waits for what it has sent to be confirmed before it gives the connection up. Zero leaves the system's
    /// setting, and Unix sockets have none.
    pub fn set_user_timeout(&self, limit: Duration) -> io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Tcp(stream) if !limit.is_zero() => SockRef::from(stream).set_tcp_user_timeout(Some(limit)),
            Self::Tcp(_) | Self::Unix(_) | Self::Local(..) => Ok(()),
            Self::FromClient(tls) => tls.get_ref().0.set_user_timeout(limit),
            Self::ToUpstream(tls) => tls.get_ref().0.set_user_timeout(limit),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::FromClient(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::ToUpstream(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Local(stream, _) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::FromClient(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::ToUpstream(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Local(stream, _) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::FromClient(stream) => Pin::new(stream).poll_flush(cx),
            Self::ToUpstream(stream) => Pin::new(stream).poll_flush(cx),
            Self::Local(stream, _) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::FromClient(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::ToUpstream(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Local(stream, _) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
