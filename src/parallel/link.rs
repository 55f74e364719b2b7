//! One upstream connection that works on split statements: requests by the extended protocol, one at a time.
//!
//! **Invariant.** [`Link::owes`] says whether the server has been sent a Sync that it has not answered. Only a link that owes
//! nothing is asked, or given back. A read that is stopped in the middle loses no byte: what is there stays in the buffer, and
//! [`Link::settle`] reads on to the end of the answer.

use bytes::{Bytes, BytesMut};
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::order::Place;
use crate::telemetry::metrics::Unsplit;
use crate::upstream::backend::is_quiet;
use crate::upstream::login::Connection;
use crate::upstream::open::{self, Target};
use crate::upstream::peer::Peer;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{self, FrameError, HEADER_BYTES, backend};
use crate::wire::message::Target as Named;
use crate::wire::message::backend::{data_row, parameter_types};
use crate::wire::message::encode::{self, EncodeError};
use crate::wire::stream::Stream;

/// Answers to the proxy's own questions that are kept.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Allocated for reading at a time, and how much of it must be left to go on reading into it.
const READ_BYTES: usize = 256 * 1024;
const LEFT_BYTES: usize = 32 * 1024;
/// A longer row is passed on in pieces.
pub(super) const LONG_ROW: usize = 128 * 1024;

const UNNAMED: &[u8] = b"";

/// Asked to stop.
pub(super) type Stop = watch::Receiver<bool>;

#[derive(Debug, Error)]
pub enum LinkError {
    /// It was asked to stop.
    #[error("stopped")]
    Stopped,
    #[error("the connection was lost: {0}")]
    Io(#[from] std::io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("unexpected answer of the server: {0}")]
    Protocol(&'static str),
    /// A table was attached to the one that is read, or renamed or moved, in the meantime.
    #[error("the statement's tables have changed")]
    Changed,
    /// What is found out shows that it is not to be split.
    #[error("it is not split after all: {}", .0.label())]
    Unfit(Unsplit),
    /// The server's own words: an ErrorResponse frame.
    #[error("{}", message(.0))]
    Server(Bytes),
}

fn message(frame: &Bytes) -> String {
    let text = crate::wire::error::field(frame.get(HEADER_BYTES..).unwrap_or_default(), b'M');
    String::from_utf8_lossy(text.unwrap_or_default()).into_owned()
}

impl LinkError {
    /// Why the statement is not split, if nothing has been sent yet.
    pub(super) fn reason(&self) -> Unsplit {
        match self {
            Self::Unfit(reason) => *reason,
            _ => Unsplit::Failed,
        }
    }

    /// What the client is told, as a frame.
    pub fn into_frame(self) -> Bytes {
        match self {
            Self::Server(frame) => frame,
            error => {
                let told = match error {
                    Self::Changed => {
                        let message = "a table was attached to one that this statement reads";
                        ErrorResponse::error(sqlstate::SERIALIZATION_FAILURE, message)
                    }
                    error => {
                        let message = "a connection that worked on this statement failed";
                        ErrorResponse::error(sqlstate::CONNECTION_FAILURE, message).detail(error.to_string())
                    }
                };
                let mut frame = BytesMut::new();
                told.hint("The statement had been split over several connections. It can be run again.")
                    .encode(&mut frame);
                frame.freeze()
            }
        }
    }
}

/// Messages up to a Sync.
#[derive(Debug, Default)]
pub struct Request(pub(super) BytesMut);

impl Request {
    /// Runs a command without parameters.
    pub fn run(&mut self, text: &str) -> Result<(), EncodeError> {
        self.run_with(text, &[])
    }

    /// Runs a command with parameters of type text.
    pub fn run_with(&mut self, text: &str, parameters: &[&[u8]]) -> Result<(), EncodeError> {
        const TEXT_OID: u32 = 25;
        let out = &mut self.0;
        encode::parse(out, UNNAMED, text.as_bytes(), &vec![TEXT_OID; parameters.len()])?;
        encode::bind(out, UNNAMED, UNNAMED, &[], parameters.iter().map(|value| Some(*value)), &[])?;
        encode::execute(out, UNNAMED, 0)?;
        encode::close(out, Named::Statement, UNNAMED)
    }
}

impl Request {
    pub fn into_messages(self) -> BytesMut {
        self.0
    }
}

/// What a request was answered.
#[derive(Debug, Default)]
pub struct Answers {
    /// The rows of each command that was run, in order.
    pub commands: Vec<Vec<Bytes>>,
    /// RowDescription frames.
    pub descriptions: Vec<Bytes>,
    /// The types of the parameters of the statement that was described last.
    pub parameter_types: Vec<u32>,
}

impl Answers {
    /// The values of the only row of a command.
    pub fn row(&self, command: usize) -> Option<Vec<Option<&[u8]>>> {
        match self.commands.get(command)?.as_slice() {
            [row] => data_row(row).ok(),
            _ => None,
        }
    }
}

/// Rows on their way, in whole frames but for long ones.
#[derive(Debug)]
pub(super) struct Run {
    pub bytes: BytesMut,
    /// Bytes of its last row that are still to come.
    pub open: usize,
}

#[derive(Debug)]
pub struct Link {
    stream: Stream,
    input: BytesMut,
    /// Bytes of the message at the front of `input` of which a part has been passed on.
    passing: usize,
    owes: bool,
    peer: Peer,
    pid: i32,
    secret: Bytes,
}

impl Link {
    pub fn new(connection: Connection) -> Self {
        let Connection { stream, peer, buffer, pid, secret, .. } = connection;
        Self { stream, input: buffer, passing: 0, owes: false, peer, pid, secret }
    }

    /// An answer, or a part of one, is still to come.
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// Nothing has come while nobody asked: not its end, nor a notice that it is ending.
    pub fn is_quiet(&self) -> bool {
        self.input.is_empty() && is_quiet(&self.stream)
    }

    /// Sends a request and collects the whole answer.
    pub async fn ask(&mut self, request: Request, stop: &mut Stop) -> Result<Answers, LinkError> {
        self.send(request, stop).await?;
        let (mut answers, mut rows, mut kept, mut error) = (Answers::default(), Vec::new(), 0, None);
        loop {
            let (tag, frame) = self.frame(stop).await?;
            match tag {
                backend::DATA_ROW => {
                    kept += frame.len();
                    rows.push(frame.slice(HEADER_BYTES..));
                }
                backend::COMMAND_COMPLETE => answers.commands.push(std::mem::take(&mut rows)),
                backend::ROW_DESCRIPTION => {
                    kept += frame.len();
                    answers.descriptions.push(frame);
                }
                backend::PARAMETER_DESCRIPTION => {
                    let types = parameter_types(&frame[HEADER_BYTES..]);
                    answers.parameter_types = types.map_err(|_| LinkError::Protocol("types"))?.collect();
                }
                backend::ERROR_RESPONSE => error = error.or(Some(frame)),
                backend::READY_FOR_QUERY => {
                    self.owes = false;
                    return error.map_or(Ok(answers), |frame| Err(LinkError::Server(frame)));
                }
                _ => {}
            }
            if kept > ANSWER_BYTES {
                return Err(LinkError::Protocol("it is too long"));
            }
        }
    }

    /// Sends a request of two commands. If `check` likes the rows of the first, each of those of the second is given to `keep` as it
    /// comes.
    pub(super) async fn each_row(
        &mut self,
        request: Request,
        stop: &mut Stop,
        check: impl FnOnce(&[Bytes]) -> Result<(), LinkError>,
        mut keep: impl FnMut(Bytes) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        self.send(request, stop).await?;
        check(&self.first_command(stop).await?)?;
        let mut error = None;
        loop {
            let (tag, frame) = self.frame(stop).await?;
            match tag {
                backend::DATA_ROW => keep(frame.slice(HEADER_BYTES..))?,
                backend::ERROR_RESPONSE => error = error.or(Some(frame)),
                backend::READY_FOR_QUERY => {
                    self.owes = false;
                    return error.map_or(Ok(()), |frame| Err(LinkError::Server(frame)));
                }
                _ => {}
            }
        }
    }

    /// Sends a request of two commands. If `check` likes the rows of the first, those of the second are put into their place as they
    /// come. Returns how many there were.
    pub(super) async fn rows(
        &mut self,
        request: Request,
        stop: &mut Stop,
        check: impl FnOnce(&[Bytes]) -> Result<(), LinkError>,
        place: Place<'_>,
    ) -> Result<u64, LinkError> {
        self.send(request, stop).await?;
        let (mut rows, mut complete, mut error) = (0, false, None);
        check(&self.first_command(stop).await?)?;
        loop {
            let (length, begun) = self.run()?;
            rows += begun;
            if length > 0 {
                let run = Run { bytes: self.input.split_to(length), open: self.passing };
                place.put(run).await?;
                continue;
            }
            let other = frame::peek(&self.input)?.filter(|header| self.passing == 0 && header.tag != backend::DATA_ROW);
            if other.is_none() {
                self.read(stop).await?;
                continue;
            }
            let (tag, frame) = self.frame(stop).await?;
            match tag {
                backend::COMMAND_COMPLETE => complete = true,
                backend::ERROR_RESPONSE => error = error.or(Some(frame)),
                backend::READY_FOR_QUERY => {
                    self.owes = false;
                    return match error {
                        Some(frame) => Err(LinkError::Server(frame)),
                        None if complete => Ok(rows),
                        None => Err(LinkError::Protocol("rows without an end")),
                    };
                }
                _ => {}
            }
        }
    }

    /// The rows of the command that is answered first.
    async fn first_command(&mut self, stop: &mut Stop) -> Result<Vec<Bytes>, LinkError> {
        let (mut rows, mut kept, mut error) = (Vec::new(), 0, None);
        while kept <= ANSWER_BYTES {
            let (tag, frame) = self.frame(stop).await?;
            match tag {
                backend::DATA_ROW => {
                    kept += frame.len();
                    rows.push(frame.slice(HEADER_BYTES..));
                }
                backend::COMMAND_COMPLETE => return Ok(rows),
                backend::ERROR_RESPONSE => error = error.or(Some(frame)),
                backend::READY_FOR_QUERY => {
                    self.owes = false;
                    return Err(error.map_or(LinkError::Protocol("no answer"), LinkError::Server));
                }
                _ => {}
            }
        }
        Err(LinkError::Protocol("it is too long"))
    }

    /// How many bytes at the front of the input are rows that can be passed on, and how many of these begin there.
    fn run(&mut self) -> Result<(usize, u64), LinkError> {
        let mut length = self.passing.min(self.input.len());
        self.passing -= length;
        let mut rows = 0;
        while self.passing == 0 {
            let rest = &self.input[length..];
            let Some(header) = frame::peek(rest)? else { break };
            let is_whole = header.total <= rest.len();
            if header.tag != backend::DATA_ROW || (!is_whole && header.total <= LONG_ROW) {
                break;
            }
            rows += 1;
            let here = header.total.min(rest.len());
            length += here;
            self.passing = header.total - here;
        }
        Ok((length, rows))
    }

    async fn send(&mut self, mut request: Request, stop: &mut Stop) -> Result<(), LinkError> {
        if self.owes {
            return Err(LinkError::Protocol("asked before it has answered"));
        }
        encode::sync(&mut request.0);
        // A part of a request is no request: this cannot be stopped, and waits for nothing but the socket's buffer.
        if *stop.borrow() {
            return Err(LinkError::Stopped);
        }
        self.owes = true;
        self.stream.write_all_buf(&mut request.0).await?;
        Ok(self.stream.flush().await?)
    }

    /// The next whole frame.
    async fn frame(&mut self, stop: &mut Stop) -> Result<(u8, Bytes), LinkError> {
        loop {
            if let Some(header) = frame::peek(&self.input)? {
                if header.total > ANSWER_BYTES {
                    return Err(LinkError::Protocol("a message is too long"));
                }
                if self.input.len() >= header.total {
                    return Ok((header.tag, self.input.split_to(header.total).freeze()));
                }
            }
            self.read(stop).await?;
        }
    }

    async fn read(&mut self, stop: &mut Stop) -> Result<(), LinkError> {
        if self.input.capacity() - self.input.len() < LEFT_BYTES {
            self.input.reserve(READ_BYTES);
        }
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => Err(LinkError::Stopped),
            read = self.stream.read_buf(&mut self.input) => match read? {
                0 => Err(LinkError::Closed),
                _ => Ok(()),
            }
        }
    }

    /// Cancels what the server does for this link, and reads to the end of its answer.
    pub async fn settle(&mut self, target: &Target) -> Result<(), LinkError> {
        if !self.owes {
            return Ok(());
        }
        if let Err(error) = open::cancel(target, &self.peer, self.pid, &self.secret).await {
            tracing::info!(pid = self.pid, %error, "a cancel request did not reach the upstream");
        }
        // The sender is kept: nobody stops this.
        let (_sender, mut never) = watch::channel(false);
        while self.owes {
            let skipped = self.passing.min(self.input.len());
            let _ = self.input.split_to(skipped);
            self.passing -= skipped;
            match frame::peek(&self.input)?.filter(|_| self.passing == 0) {
                None => self.read(&mut never).await?,
                Some(header) => {
                    self.owes = header.tag != backend::READY_FOR_QUERY;
                    self.passing = header.total;
                }
            }
        }
        while self.input.len() < self.passing {
            self.read(&mut never).await?;
        }
        let _ = self.input.split_to(std::mem::take(&mut self.passing));
        Ok(())
    }
}
