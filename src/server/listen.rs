//! Opening listening sockets, and accepting on them.

pub(super) mod unix;

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use super::sockets::{Listening, Place};

/// Connections that the kernel holds until we accept them; it may hold fewer (`net.core.somaxconn`).
pub(super) const BACKLOG: i32 = 4096;
/// Silence of a client after which the kernel asks whether it is still there.
const CLIENT_SILENCE: Duration = Duration::from_secs(60);

/// Pause after the process or the machine has run out of something: the same error would come back at once.
const EXHAUSTED: Duration = Duration::from_millis(100);

#[derive(Debug, Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("cannot listen on {0}: another server answers there")]
    InUse(String),
    #[error("cannot listen on {0}: there is a file that is not a socket")]
    NotASocket(String),
    #[error("{0} is not a listening TCP or Unix socket")]
    NotAStream(String),
    #[error("HTTP needs a TCP socket, and {0} is not one")]
    NotTcp(String),
}

impl ListenError {
    pub(super) fn bind(address: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Bind { address: address.to_string(), source }
    }
}

/// A client's connection, not yet driven by any runtime.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// Tasks that accept on listening sockets. Dropping them ends that.
#[derive(Debug)]
pub(super) struct Listeners {
    accepting: JoinSet<()>,
    /// With the ports that the system chose for 0.
    places: Vec<Place>,
}

impl Listeners {
    /// Must be called within a runtime.
    pub fn start(
        sockets: Vec<Listening>,
        on_accept: impl Fn(Accepted) + Clone + Send + 'static,
    ) -> Result<Self, ListenError> {
        let (mut accepting, mut places) = (JoinSet::new(), Vec::new());
        for socket in sockets {
            let place = socket.place().map_err(ListenError::bind("a socket"))?;
            let failed = ListenError::bind(&place);
            match socket {
                Listening::Tcp(listener) => {
                    let listener = TcpListener::from_std(listener).map_err(failed)?;
                    accepting.spawn(accept_tcp(listener, on_accept.clone()));
                }
                Listening::Unix(listener) => {
                    let listener = UnixListener::from_std(listener).map_err(failed)?;
                    accepting.spawn(accept_unix(listener, on_accept.clone()));
                }
            }
            places.push(place);
        }
        Ok(Self { accepting, places })
    }

    /// What is listened on.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// Accepts nobody any more. Whoever was accepted has been passed on.
    pub async fn close(&mut self) {
        self.accepting.shutdown().await;
    }
}

/// Listens on every address that `host:port` stands for, and for which `passed` has nothing.
pub(super) fn bind_tcp(
    address: &str,
    mut passed: impl FnMut(SocketAddr) -> Option<std::net::TcpListener>,
) -> Result<Vec<std::net::TcpListener>, ListenError> {
    let resolved = address.to_socket_addrs().map_err(ListenError::bind(address))?;
    let mut listeners = Vec::new();
    let mut unavailable = None;
    for resolved in resolved {
        match passed(resolved).map_or_else(|| bind_one(resolved), Ok) {
            Ok(listener) => listeners.push(listener),
            // `localhost` often stands for an IPv6 address that the machine does not have.
            Err(error) if is_unavailable(&error) => unavailable = Some(error),
            Err(error) => return Err(ListenError::bind(address)(error)),
        }
    }
    if listeners.is_empty() {
        let error = unavailable.unwrap_or_else(|| io::Error::other("the name stands for no address"));
        return Err(ListenError::bind(address)(error));
    }
    Ok(listeners)
}

fn is_unavailable(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EAFNOSUPPORT)
}

fn bind_one(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier run that the kernel still remembers must not keep us from starting.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // So that [::] and 0.0.0.0 can both be listened on.
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn accept_tcp(listener: TcpListener, on_accept: impl Fn(Accepted)) {
    loop {
        let accepted = listener.accept().await.and_then(|(stream, peer)| {
            // A message is written when it is whole; waiting for more would only delay it.
            stream.set_nodelay(true)?;
            // A client whose machine is gone must not hold its place and its upstream connection for ever.
            SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(CLIENT_SILENCE))?;
            Ok(Accepted::Tcp(stream.into_std()?, peer))
        });
        match accepted {
            Ok(accepted) => on_accept(accepted),
            Err(error) => pause(error).await,
        }
    }
}

async fn accept_unix(listener: UnixListener, on_accept: impl Fn(Accepted)) {
    loop {
        let accepted = listener.accept().await.and_then(|(stream, _)| Ok(Accepted::Unix(stream.into_std()?)));
        match accepted {
            Ok(accepted) => on_accept(accepted),
            Err(error) => pause(error).await,
        }
    }
}

/// Goes on at once after an error of one connection, after a while if there is none to be had.
async fn pause(error: io::Error) {
    let exhausted = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    if error.raw_os_error().is_some_and(|code| exhausted.contains(&code)) {
        tracing::warn!(%error, "cannot accept clients");
        tokio::time::sleep(EXHAUSTED).await;
    } else {
        tracing::debug!(%error, "a client's connection was lost before it was accepted");
    }
}
