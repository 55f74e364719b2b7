//! The sockets that the proxy listens on: those that were passed to it, and those that it opens itself.
//!
//! A socket is passed by the service manager (systemd's socket activation: `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`), or by an older
//! process of the proxy. What the service manager passes stands in the place of what the configuration says for the same purpose:
//! for HTTP or WebSockets, if its name (`FileDescriptorName=`) is `http` or `stream` or its address is that of `server.http` or
//! `stream.listen`; else for clients, in the place of `server.listen` and `server.unix_socket_dir`. What an older process passes is
//! used where its address is one that the configuration names.

use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{SockAddr, SockRef, Socket};

use super::listen::unix::{self, SocketFile};
use super::listen::{BACKLOG, ListenError, bind_tcp};
use crate::config::Config;
use crate::takeover::{Passed, Role};

/// The port in the name of the Unix socket when there is no TCP address to take it from.
const DEFAULT_PORT: u16 = 6432;

/// Sockets that were passed to this process.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<Passed>);

/// Sockets on which this process listens, or is about to.
#[derive(Debug)]
pub(super) struct Sockets {
    all: Vec<Opened>,
    file: Option<SocketFile>,
}

#[derive(Debug)]
struct Opened {
    role: Role,
    is_given: bool,
    socket: Listening,
}

#[derive(Debug)]
pub(super) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// What a socket is known by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Inherited {
    /// Those of the service manager. They are taken once.
    pub fn from_environment(config: &Config) -> Result<Self, ListenError> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut passed = ListenFd::from_env();
        let mut given = Vec::new();
        for index in 0..passed.len() {
            let name = names.next().unwrap_or_default();
            let what = || format!("socket {index} {name:?} of the service manager");
            let tcp = passed.take_tcp_listener(index).ok().flatten().map(OwnedFd::from);
            let socket = tcp.or_else(|| passed.take_unix_listener(index).ok().flatten().map(OwnedFd::from));
            let socket = socket.ok_or_else(|| ListenError::NotAStream(what()))?;
            let listens = rustix::net::sockopt::socket_acceptconn(&socket).unwrap_or(false);
            if !listens {
                return Err(ListenError::NotAStream(what()));
            }
            let place = Place::of(&socket).map_err(ListenError::bind(what()))?;
            given.push(Passed { role: role(name, &place, config), is_given: true, socket });
        }
        Ok(Self(given))
    }

    /// Those of older processes. What was there before goes first.
    pub fn add(&mut self, passed: Vec<Passed>) {
        self.0.extend(passed);
    }

    /// All that were given for this purpose, each place once.
    fn take_given(&mut self, role: Role) -> Result<Vec<Opened>, ListenError> {
        let is_for = |passed: &mut Passed| passed.is_given && passed.role == role;
        let mut opened: Vec<Opened> = Vec::new();
        for Passed { role, is_given, socket } in self.0.extract_if(.., is_for) {
            let socket = Listening::of(socket).map_err(ListenError::bind("a socket that was passed on"))?;
            let known = |other: &Opened| other.socket.place().ok() == socket.place().ok();
            if !opened.iter().any(known) {
                opened.push(Opened { role, is_given, socket });
            }
        }
        Ok(opened)
    }

    fn take(&mut self, place: &Place) -> Option<OwnedFd> {
        let found = self.0.iter().position(|passed| Place::of(&passed.socket).is_ok_and(|its| its == *place))?;
        Some(self.0.swap_remove(found).socket)
    }
}

/// Where clients connect, of what is passed.
pub(super) fn places_of_clients(passed: &[Passed]) -> Vec<Place> {
    let of_clients = passed.iter().filter(|passed| passed.role == Role::Clients);
    of_clients.filter_map(|passed| Place::of(&passed.socket).ok()).collect()
}

/// What a socket that the service manager gave is for.
fn role(name: &str, place: &Place, config: &Config) -> Role {
    let is_at = |address: &str| match place {
        Place::Tcp(its) => address.to_socket_addrs().is_ok_and(|mut resolved| resolved.any(|one| one == *its)),
        Place::Unix(_) => false,
    };
    match name {
        "http" => Role::Http,
        "stream" => Role::WebSockets,
        _ if is_at(&config.server.http) => Role::Http,
        _ if is_at(&config.stream.listen) => Role::WebSockets,
        _ => Role::Clients,
    }
}

impl Sockets {
    /// Takes what was passed, and opens what is missing.
    pub fn open(config: &Config, inherited: &mut Inherited) -> Result<Self, ListenError> {
        let mut sockets = Self { all: inherited.take_given(Role::Clients)?, file: None };
        if sockets.all.is_empty() {
            for address in &config.server.listen {
                sockets.add(Role::Clients, tcp(address, inherited)?);
            }
            sockets.open_unix(config, inherited)?;
        }
        for (role, address) in [(Role::Http, &config.server.http), (Role::WebSockets, &config.stream.listen)] {
            let given = inherited.take_given(role)?;
            if !given.is_empty() {
                sockets.all.extend(given);
            } else if !address.is_empty() {
                sockets.add(role, tcp(address, inherited)?);
            }
        }
        Ok(sockets)
    }

    fn add(&mut self, role: Role, opened: Vec<TcpListener>) {
        let opened = opened.into_iter().map(|one| Opened { role, is_given: false, socket: Listening::Tcp(one) });
        self.all.extend(opened);
    }

    fn open_unix(&mut self, config: &Config, inherited: &mut Inherited) -> Result<(), ListenError> {
        let server = &config.server;
        if server.unix_socket_dir.is_empty() {
            return Ok(());
        }
        let port = self.all.iter().find_map(|opened| match opened.socket.place() {
            Ok(Place::Tcp(address)) => Some(address.port()),
            _ => None,
        });
        let path = Path::new(&server.unix_socket_dir).join(format!(".s.PGSQL.{}", port.unwrap_or(DEFAULT_PORT)));
        let (listener, file) = match inherited.take(&Place::Unix(path.clone())) {
            Some(passed) => {
                let file = SocketFile::of_passed(&path).map_err(ListenError::bind(path.display()))?;
                (passed.into(), file)
            }
            None => {
                // The validation of the configuration lets only octal numbers through; nobody else's is the careful reading.
                let mode = u32::from_str_radix(&server.unix_socket_mode, 8).unwrap_or(0o700);
                unix::bind(&path, mode, BACKLOG)?
            }
        };
        self.file = Some(file);
        self.all.push(Opened { role: Role::Clients, is_given: false, socket: Listening::Unix(listener) });
        Ok(())
    }

    /// Where clients connect.
    pub fn places_of_clients(&self) -> Vec<Place> {
        let clients = self.all.iter().filter(|opened| opened.role == Role::Clients);
        clients.filter_map(|opened| opened.socket.place().ok()).collect()
    }

    /// Handles of those for one purpose.
    pub fn of(&self, role: Role) -> io::Result<Vec<Listening>> {
        self.all.iter().filter(|opened| opened.role == role).map(|opened| opened.socket.try_clone()).collect()
    }

    /// Handles of all of them, for another process.
    pub fn to_pass(&self) -> io::Result<Vec<Passed>> {
        let pass = |opened: &Opened| {
            let socket = opened.socket.try_clone()?.into();
            Ok(Passed { role: opened.role, is_given: opened.is_given, socket })
        };
        self.all.iter().map(pass).collect()
    }

    /// Whoever had them before has left, or nobody had.
    pub fn are_ours(&mut self) {
        if let Some(file) = &mut self.file {
            file.is_ours(true);
        }
    }

    /// Another process has them now.
    pub fn leave(mut self) {
        if let Some(file) = &mut self.file {
            file.is_ours(false);
        }
    }

    /// Nobody is to connect any more, but for HTTP.
    pub fn close_to_clients(&mut self) {
        self.file = None;
        self.all.retain(|opened| opened.role == Role::Http);
    }
}

/// Listens on every address that `host:port` stands for.
fn tcp(address: &str, inherited: &mut Inherited) -> Result<Vec<TcpListener>, ListenError> {
    bind_tcp(address, |resolved| inherited.take(&Place::Tcp(resolved)).map(TcpListener::from))
}

impl Listening {
    fn of(socket: OwnedFd) -> io::Result<Self> {
        let place = Place::of(&socket)?;
        let socket = Socket::from(socket);
        socket.set_nonblocking(true)?;
        Ok(match place {
            Place::Tcp(_) => Self::Tcp(socket.into()),
            Place::Unix(_) => Self::Unix(socket.into()),
        })
    }

    pub fn place(&self) -> io::Result<Place> {
        match self {
            Self::Tcp(listener) => Ok(Place::Tcp(listener.local_addr()?)),
            Self::Unix(listener) => Place::of(listener),
        }
    }

    fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(listener) => Self::Tcp(listener.try_clone()?),
            Self::Unix(listener) => Self::Unix(listener.try_clone()?),
        })
    }
}

impl From<Listening> for OwnedFd {
    fn from(listening: Listening) -> Self {
        match listening {
            Listening::Tcp(listener) => listener.into(),
            Listening::Unix(listener) => listener.into(),
        }
    }
}

impl Place {
    fn of(socket: &impl std::os::fd::AsFd) -> io::Result<Self> {
        let address: SockAddr = SockRef::from(socket).local_addr()?;
        if let Some(address) = address.as_socket() {
            return Ok(Self::Tcp(address));
        }
        let name = address.as_pathname().map(Path::to_path_buf);
        let name =
            name.or_else(|| Some(PathBuf::from(String::from_utf8_lossy(address.as_abstract_namespace()?).as_ref())));
        name.map(Self::Unix).ok_or_else(|| io::Error::other("a socket without an address"))
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
