//! What processes of the proxy say to each other: a length of four bytes, then JSON. Sockets travel with the first bytes.
//!
//! The other process may be an older or a newer version: fields that it does not know are ignored, and a message that it does not
//! know ends the conversation.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// Sockets that one process passes on at most. The kernel's limit is 253 (`SCM_MAX_FD`).
const MOST_SOCKETS: usize = 128;
const MOST_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Message {
    /// A new process: which sockets do you listen on?
    Hello,
    /// These. Each description belongs to the socket that travels at the same place.
    Sockets { sockets: Vec<Description> },
    /// The new process is ready: leave.
    Ready,
    /// It is done: nobody is accepted here, and nothing served from memory.
    Left,
    /// Not a new process: a cancel request of a client that is not known there.
    Cancel { pid: i32, secret: Vec<u8> },
}

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Clients,
    Http,
    WebSockets,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Description {
    role: Role,
    #[serde(default)]
    is_given: bool,
}

/// A listening socket on its way from one process to another.
#[derive(Debug)]
pub struct Passed {
    pub role: Role,
    /// It comes from the service manager, whatever the configuration says.
    pub is_given: bool,
    pub socket: OwnedFd,
}

impl Passed {
    /// Another handle of the same sockets.
    pub fn copy_all(all: &[Self]) -> io::Result<Vec<Self>> {
        let copy = |Self { role, is_given, socket }: &Self| {
            Ok(Self { role: *role, is_given: *is_given, socket: socket.try_clone()? })
        };
        all.iter().map(copy).collect()
    }
}

pub(super) async fn send(stream: &mut UnixStream, message: &Message) -> io::Result<()> {
    stream.write_all(&encode(message)?).await
}

pub(super) async fn send_sockets(stream: &mut UnixStream, sockets: &[Passed]) -> io::Result<()> {
    if sockets.len() > MOST_SOCKETS {
        return Err(io::Error::other("too many sockets to pass on"));
    }
    let describe = |passed: &Passed| Description { role: passed.role, is_given: passed.is_given };
    let bytes = encode(&Message::Sockets { sockets: sockets.iter().map(describe).collect() })?;
    let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|passed| passed.socket.as_fd()).collect();
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !descriptors.is_empty() {
                // There is room for the greatest number that is let through above.
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            Ok(rustix::net::sendmsg(&*stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty())?)
        })
        .await?;
    stream.write_all(&bytes[sent..]).await
}

fn encode(message: &Message) -> io::Result<Vec<u8>> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length as usize <= MOST_BYTES);
    let mut bytes = length.ok_or_else(|| io::Error::other("a message is too long"))?.to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// The other side of a conversation. Not cancel-safe: after a receive that was given up there is nothing more to be had from it.
#[derive(Debug)]
pub(super) struct Conversation {
    pub stream: UnixStream,
    input: Vec<u8>,
    sockets: Vec<OwnedFd>,
}

impl Conversation {
    pub fn new(stream: UnixStream) -> Self {
        Self { stream, input: Vec::new(), sockets: Vec::new() }
    }

    pub async fn send(&mut self, message: &Message) -> io::Result<()> {
        send(&mut self.stream, message).await
    }

    /// The next message; `None` at the end of the connection.
    pub async fn receive(&mut self) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.read().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The sockets that came with what was received.
    pub fn take_sockets(&mut self, descriptions: Vec<Description>) -> io::Result<Vec<Passed>> {
        let sockets = std::mem::take(&mut self.sockets);
        if sockets.len() != descriptions.len() {
            return Err(io::Error::other("sockets were lost on their way"));
        }
        let passed = |(Description { role, is_given }, socket)| Passed { role, is_given, socket };
        Ok(descriptions.into_iter().zip(sockets).map(passed).collect())
    }

    fn take(&mut self) -> io::Result<Option<Message>> {
        let Some((length, rest)) = self.input.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_be_bytes(*length) as usize;
        if length > MOST_BYTES {
            return Err(io::Error::other("a message is too long"));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.input.drain(..4 + length);
        Ok(Some(message))
    }

    async fn read(&mut self) -> io::Result<usize> {
        let mut bytes = [0; 4096];
        let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let (stream, sockets) = (&self.stream, &mut self.sockets);
        let read = stream
            .async_io(Interest::READABLE, || {
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let mut pieces = [IoSliceMut::new(&mut bytes)];
                let read = rustix::net::recvmsg(stream, &mut pieces, &mut control, RecvFlags::CMSG_CLOEXEC)?;
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = message {
                        sockets.extend(received);
                    }
                }
                Ok(read.bytes)
            })
            .await?;
        self.input.extend_from_slice(&bytes[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn pair() -> (Conversation, Conversation) {
        let (one, other) = UnixStream::pair().unwrap();
        (Conversation::new(one), Conversation::new(other))
    }

    #[tokio::test]
    async fn a_socket_arrives_with_what_waits_in_it() {
        let (mut one, mut other) = pair();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let passed = Passed { role: Role::Http, is_given: true, socket: listener.into() };
        send_sockets(&mut one.stream, &[passed]).await.unwrap();
        one.send(&Message::Left).await.unwrap();
        let Some(Message::Sockets { sockets }) = other.receive().await.unwrap() else { panic!("no sockets") };
        let mut sockets = other.take_sockets(sockets).unwrap();
        let passed = sockets.pop().unwrap();
        assert_eq!((passed.role, passed.is_given), (Role::Http, true));
        let listener = TcpListener::from(passed.socket);
        assert_eq!(listener.local_addr().unwrap(), address);
        listener.accept().unwrap();
        assert_eq!(other.receive().await.unwrap(), Some(Message::Left));
        drop(one);
        assert_eq!(other.receive().await.unwrap(), None);
    }

    #[tokio::test]
    async fn no_sockets_are_a_message_too() {
        let (mut one, mut other) = pair();
        send_sockets(&mut one.stream, &[]).await.unwrap();
        assert_eq!(other.receive().await.unwrap(), Some(Message::Sockets { sockets: Vec::new() }));
        assert!(other.take_sockets(Vec::new()).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_understood_is_an_error() {
        for bytes in [&b"\0\0\0\x03\"x\""[..], b"\xff\0\0\0", b"\0\0\0\x01{"] {
            let (mut one, mut other) = pair();
            one.stream.write_all(bytes).await.unwrap();
            assert!(other.receive().await.is_err(), "{bytes:?}");
        }
    }
}
