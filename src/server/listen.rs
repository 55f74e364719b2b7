//! The sockets that clients connect to.

mod unix;

use std::fmt::Display;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;

use crate::config;
use unix::SocketFile;

/// Connections that the kernel holds until we accept them; it may hold fewer (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// Silence of a client after which the kernel asks whether it is still there.
const CLIENT_SILENCE: Duration = Duration::from_secs(60);

/// Pause after the process or the machine has run out of something: the same error would come back at once.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// The port in the name of the Unix socket when there is no TCP address to take it from.
const DEFAULT_PORT: u16 = 6432;

#[derive(Debug, Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: {source}")]
    Bind { address: String, source: io::Error },
    #[error("cannot listen on {0}: another server answers there")]
    InUse(String),
    #[error("cannot listen on {0}: there is a file that is not a socket")]
    NotASocket(String),
}

impl ListenError {
    fn bind(address: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Bind { address: address.to_string(), source }
    }
}

/// A client's connection, not yet driven by any runtime.
#[derive(Debug)]
pub(super) enum Accepted {
    Tcp(std::net::TcpStream, SocketAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// Open listeners, each with a task that accepts. Dropping them closes them and removes the socket file.
#[derive(Debug)]
pub(super) struct Listeners {
    accepting: JoinSet<()>,
    /// With the ports that the system chose for 0.
    pub tcp: Vec<SocketAddr>,
    file: Option<SocketFile>,
}

impl Listeners {
    /// Binds everything that `config` names, then accepts. Must be called within a runtime.
    pub fn start(
        config: &config::Server,
        on_accept: impl Fn(Accepted) + Clone + Send + 'static,
    ) -> Result<Self, ListenError> {
        let mut tcp = Vec::new();
        for address in &config.listen {
            tcp.extend(bind_tcp(address)?);
        }
        let mut bound = Vec::new();
        for listener in &tcp {
            bound.push(listener.local_addr().map_err(ListenError::bind("TCP"))?);
        }
        let mut accepting = JoinSet::new();
        let mut file = None;
        if !config.unix_socket_dir.is_empty() {
            let port = bound.first().map_or(DEFAULT_PORT, SocketAddr::port);
            let path = Path::new(&config.unix_socket_dir).join(format!(".s.PGSQL.{port}"));
            // The validation of the configuration lets only octal numbers through; nobody else's is the careful reading.
            let mode = u32::from_str_radix(&config.unix_socket_mode, 8).unwrap_or(0o700);
            let (listener, socket_file) = unix::bind(&path, mode, BACKLOG)?;
            file = Some(socket_file);
            accepting.spawn(accept_unix(listener, on_accept.clone()));
        }
        for listener in tcp {
            accepting.spawn(accept_tcp(listener, on_accept.clone()));
        }
        Ok(Self { accepting, tcp: bound, file })
    }

    /// Binds one TCP address, then accepts. Must be called within a runtime.
    pub fn on(address: &str, on_accept: impl Fn(Accepted) + Clone + Send + 'static) -> Result<Self, ListenError> {
        let (mut accepting, mut tcp) = (JoinSet::new(), Vec::new());
        for listener in bind_tcp(address)? {
            tcp.extend(listener.local_addr());
            accepting.spawn(accept_tcp(listener, on_accept.clone()));
        }
        Ok(Self { accepting, tcp, file: None })
    }

    /// What is listened on, for people.
    pub fn addresses(&self) -> Vec<String> {
        let file = self.file.iter().map(|file| file.path().display().to_string());
        self.tcp.iter().map(ToString::to_string).chain(file).collect()
    }

    /// Closes every listener and removes the socket file. When it returns, nobody can connect any more.
    pub async fn close(&mut self) {
        self.file = None;
        self.accepting.shutdown().await;
    }
}

/// Listens on every address that `host:port` stands for. Must be called within a runtime.
pub(super) fn bind_tcp(address: &str) -> Result<Vec<TcpListener>, ListenError> {
    let resolved = address.to_socket_addrs().map_err(ListenError::bind(address))?;
    let mut listeners = Vec::new();
    let mut unavailable = None;
    for resolved in resolved {
        match bind_one(resolved) {
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

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
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
    TcpListener::from_std(socket.into())
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

#[cfg(test)]
mod tests;
