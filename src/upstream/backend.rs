//! An upstream connection as a value that can change hands.

use bytes::{Bytes, BytesMut};

use super::login::Connection;
use super::pool::Permit;
use crate::wire::stream::Stream;

/// Everything that belongs to one upstream connection, whoever uses it.
#[derive(Debug)]
pub struct Backend {
    pub stream: Stream,
    /// The process id and the secret that cancels what it runs.
    pub pid: i32,
    pub secret: Bytes,
    permit: Permit,
}

impl Backend {
    /// From a connection that is logged in. Also what has been read from it already.
    pub fn new(connection: Connection, permit: Permit) -> (Self, BytesMut) {
        let Connection { stream, buffer, pid, secret, .. } = connection;
        (Self { stream, pid, secret, permit }, buffer)
    }

    /// Back to what it was made of, when nothing is outstanding on it.
    pub fn into_parts(self) -> (Connection, Permit) {
        let Self { stream, pid, secret, permit } = self;
        let buffer = BytesMut::new();
        (Connection { stream, buffer, parameters: Vec::new(), pid, secret, notices: Vec::new() }, permit)
    }
}
