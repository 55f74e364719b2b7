//! An upstream connection as a value that can change hands.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::net::{TcpStream, UnixStream};

use super::alias::{Alias, Aliases};
use super::login::Connection;
use super::lookout::last_words;
use super::parsed::Parsed;
use super::peer::Peer;
use super::pool::Permit;
use super::settings::Settings;
use crate::wire::error::sqlstate;
use crate::wire::frame::backend::ERROR_RESPONSE;
use crate::wire::frame::{self, HEADER_BYTES};
use crate::wire::stream::Stream;

/// Everything that belongs to one upstream connection, whoever uses it.
#[derive(Debug)]
pub struct Backend {
    pub stream: Stream,
    /// Whoever uses it must be in a database of this server: see `catalog::Databases`.
    pub peer: Peer,
    /// Buffers, empty while it is in nobody's hands.
    pub input: BytesMut,
    pub output: BytesMut,
    /// The process id and the secret that cancels what it runs.
    pub pid: i32,
    pub secret: Bytes,
    /// What it has reported of its settings.
    pub reported: Arc<Reported>,
    /// The settings that were made on it since it was opened, when it is in nobody's hands.
    pub settings: Arc<Settings>,
    pub parsed: Parsed,
    /// Somebody may have drawn from a sequence: `currval` would tell the next one about it.
    pub drew_sequence: bool,
    /// Somebody has made temporary objects. They are gone, but not their schema: no newcomer gets this connection.
    pub has_temporary_schema: bool,
    /// The pid by which clients know its last user.
    told: i32,
    alias: Option<Alias>,
    permit: Permit,
    opened: Instant,
    /// When it was put aside last.
    rested: Instant,
    /// Whose runtime drives the stream.
    thread: ThreadId,
}

/// The last value of each setting that the server reports by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reported(Vec<(Bytes, Bytes)>);

impl Reported {
    pub fn new(parameters: Vec<(Bytes, Bytes)>) -> Self {
        Self(parameters)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, &Bytes)> {
        self.0.iter().map(|(name, value)| (name, value))
    }

    /// Takes note of a report.
    pub fn report(self: &mut Arc<Self>, name: &[u8], value: &[u8]) {
        if self.0.iter().any(|(known, old)| known == name && old == value) {
            return;
        }
        let values = &mut Arc::make_mut(self).0;
        let value = Bytes::copy_from_slice(value);
        match values.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => values.push((Bytes::copy_from_slice(name), value)),
        }
    }

    /// What somebody who was told `other` does not know.
    pub fn news_since<'a>(self: &'a Arc<Self>, other: &'a Arc<Self>) -> impl Iterator<Item = (&'a Bytes, &'a Bytes)> {
        let same = Arc::ptr_eq(self, other);
        self.iter().filter(move |pair| !same && !other.iter().any(|known| known == *pair))
    }
}

impl Backend {
    /// From a connection that is logged in.
    pub fn new(connection: Connection, permit: Permit) -> Self {
        let Connection { stream, peer, buffer, pid, secret, parameters, .. } = connection;
        Self {
            stream,
            peer,
            input: buffer,
            output: BytesMut::new(),
            pid,
            secret,
            reported: Arc::new(Reported::new(parameters)),
            settings: Settings::none(),
            parsed: Parsed::default(),
            drew_sequence: false,
            has_temporary_schema: false,
            told: pid,
            alias: None,
            permit,
            opened: Instant::now(),
            rested: Instant::now(),
            thread: std::thread::current().id(),
        }
    }

    /// Back to what it was made of, when nothing is outstanding on it. Its parameters are what the server said last.
    pub fn into_parts(self) -> (Connection, Permit) {
        let Self { stream, peer, input: buffer, reported, pid, secret, permit, .. } = self;
        let parameters = Arc::unwrap_or_clone(reported).0;
        (Connection { stream, peer, buffer, parameters, pid, secret, notices: Vec::new() }, permit)
    }

    /// DISCARD ALL has succeeded.
    pub fn is_discarded(&mut self) {
        self.settings = Settings::none();
        self.parsed.clear();
        self.drew_sequence = false;
    }

    /// What has come from the server while nothing was asked of it. An error is its end. Without TLS the runtime knows whether
    /// anything has come, so that this costs no system call.
    pub fn overhear(&mut self) -> io::Result<()> {
        let read = match &mut self.stream {
            Stream::Tcp(tcp) => tcp.try_read_buf(&mut self.input),
            Stream::Unix(unix) => unix.try_read_buf(&mut self.input),
            // It shows when something is asked.
            Stream::FromClient(_) | Stream::ToUpstream(_) | Stream::Local(..) => return Ok(()),
        };
        match read {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if self.input.first() == Some(&ERROR_RESPONSE) => Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What has been overheard is that somebody has ended this very backend, or the server was stopped.
    pub fn was_terminated(&self) -> bool {
        let Ok(Some(header)) = frame::peek(&self.input) else { return false };
        let body = self.input.get(HEADER_BYTES..header.total).filter(|_| header.tag == ERROR_RESPONSE);
        body.and_then(last_words) == Some(sqlstate::ADMIN_SHUTDOWN)
    }

    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Its user is known to clients by this pid.
    pub fn is_known_as(&mut self, told: i32, all: &Arc<Aliases>) {
        self.told = told;
        self.alias.get_or_insert_with(|| Alias::new(all, self.pid)).is(told);
    }

    pub fn told(&self) -> i32 {
        self.told
    }

    pub fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// When it was put aside last, for one that has just been taken up again.
    pub fn rests_since(&self) -> Instant {
        self.rested
    }

    /// How long ago that was.
    pub fn idle_for(&self) -> Duration {
        self.rested.elapsed()
    }

    pub(super) fn rests(&mut self, since: Instant) {
        self.rested = since;
    }

    pub(super) fn thread(&self) -> ThreadId {
        self.thread
    }

    /// Nothing has come from the server since everything was answered: not its end, nor a notice that it is ending.
    pub fn is_quiet(&self) -> bool {
        is_quiet(&self.stream)
    }

    /// Comes to a session of the present thread, if its server is still there. Whether it is costs no system call if this thread
    /// has driven it before.
    pub fn comes_here(&mut self) -> io::Result<()> {
        if self.thread == std::thread::current().id() && matches!(self.stream, Stream::Tcp(_) | Stream::Unix(_)) {
            return self.overhear();
        }
        if !self.is_quiet() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        self.settle_here()
    }

    /// Makes the present thread's runtime the one that drives the stream. Another's would do, at the price of waking two
    /// threads for each message.
    pub fn settle_here(&mut self) -> io::Result<()> {
        let here = std::thread::current().id();
        if self.thread != here {
            register(&mut self.stream)?;
            self.thread = here;
        }
        Ok(())
    }
}

/// Gives a stream to the present thread's runtime. A second handle of the same socket takes the first one's place: only new ones
/// can be given to a runtime.
pub(super) fn register(stream: &mut Stream) -> io::Result<()> {
    let again = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
    match stream {
        Stream::Tcp(tcp) => *tcp = TcpStream::from_std(again(tcp.as_fd())?.into())?,
        Stream::Unix(unix) => *unix = UnixStream::from_std(again(unix.as_fd())?.into())?,
        Stream::FromClient(tls) => register(tls.get_mut().0)?,
        Stream::ToUpstream(tls) => register(tls.get_mut().0)?,
        // No runtime drives it.
        Stream::Local(..) => {}
    }
    Ok(())
}

pub fn is_quiet(stream: &Stream) -> bool {
    let nothing = |result: io::Result<usize>| result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
    // The sockets are non-blocking.
    let peek = |socket: socket2::SockRef<'_>| nothing(socket.peek(&mut [std::mem::MaybeUninit::uninit()]));
    match stream {
        Stream::Tcp(tcp) => peek(tcp.into()),
        Stream::Unix(unix) => peek(unix.into()),
        Stream::FromClient(tls) => is_quiet(tls.get_ref().0),
        Stream::ToUpstream(tls) => is_quiet(tls.get_ref().0),
        // It shows when something is asked.
        Stream::Local(..) => true,
    }
}
