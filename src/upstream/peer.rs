//! Which server a connection leads to.
//!
//! `upstream.host` may list several hosts, and a name may stand for several addresses or for another one tomorrow. What tells servers
//! apart is the address that a connection was in fact opened to.

use std::fmt;
use std::net::SocketAddr;

/// The other end of an open connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The name by which it was found, which its certificate may have to show.
    pub name: String,
    pub address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(String),
    /// No connection has led anywhere yet.
    Nowhere,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.fmt(f),
            Self::Nowhere => "nowhere".fmt(f),
        }
    }
}
