//! A client that speaks the protocol itself, message by message, for tests of single bytes.

use std::fmt;

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::within;

pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// One message of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(200)];
        write!(f, "{}[{}] {}", self.tag as char, self.body.len(), shown.escape_ascii())
    }
}

impl Frame {
    /// A field of an ErrorResponse or NoticeResponse, for example `'C'` for the SQLSTATE.
    pub fn field(&self, wanted: char) -> Option<String> {
        assert!(matches!(self.tag, b'E' | b'N'), "no error: {self:?}");
        let fields = self.body.split(|&byte| byte == 0).filter(|field| !field.is_empty());
        let mut found = fields.filter(|field| field[0] == wanted as u8);
        found.next().map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
    }

    /// The values of a DataRow.
    pub fn values(&self) -> Vec<Option<Vec<u8>>> {
        assert_eq!(self.tag, b'D', "no row: {self:?}");
        let mut rest = &self.body[2..];
        let mut values = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            match usize::try_from(i32::from_be_bytes(*length)) {
                Ok(length) => {
                    values.push(Some(tail[..length].to_vec()));
                    rest = &tail[length..];
                }
                Err(_) => {
                    values.push(None);
                    rest = tail;
                }
            }
        }
        values
    }

    /// The first value of a DataRow, as text.
    pub fn text(&self) -> String {
        let value = self.values().into_iter().next().flatten().expect("a value");
        String::from_utf8_lossy(&value).into_owned()
    }
}

/// The types of these messages, in order: what a conversation looked like.
pub fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag as char).collect()
}

/// Messages of a client, encoded one after the other.
#[derive(Default, Clone)]
pub struct Batch(pub BytesMut);

impl Batch {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn query(mut self, sql: &str) -> Self {
        frontend::query(sql, &mut self.0).unwrap();
        self
    }

    pub fn parse(self, name: &str, sql: &str) -> Self {
        self.parse_typed(name, sql, &[])
    }

    pub fn parse_typed(mut self, name: &str, sql: &str, types: &[u32]) -> Self {
        frontend::parse(name, sql, types.iter().copied(), &mut self.0).unwrap();
        self
    }

    /// Text parameters, text results.
    pub fn bind(self, portal: &str, statement: &str, values: &[Option<&[u8]>]) -> Self {
        self.bind_formats(portal, statement, &[], values, &[])
    }

    pub fn bind_formats(
        mut self,
        portal: &str,
        statement: &str,
        formats: &[i16],
        values: &[Option<&[u8]>],
        results: &[i16],
    ) -> Self {
        let put = |value: &Option<&[u8]>, out: &mut BytesMut| match value {
            Some(bytes) => {
                out.put_slice(bytes);
                Ok(postgres_protocol::IsNull::No)
            }
            None => Ok(postgres_protocol::IsNull::Yes),
        };
        let formats = formats.iter().copied();
        if frontend::bind(portal, statement, formats, values, put, results.iter().copied(), &mut self.0).is_err() {
            panic!("a Bind message of a legal size");
        }
        self
    }

    pub fn describe_statement(mut self, name: &str) -> Self {
        frontend::describe(b'S', name, &mut self.0).unwrap();
        self
    }

    pub fn describe_portal(mut self, name: &str) -> Self {
        frontend::describe(b'P', name, &mut self.0).unwrap();
        self
    }

    /// What most drivers send for a query with parameters: everything in one batch, unnamed.
    pub fn one_batch(sql: &str) -> Self {
        Self::new().parse("", sql).bind("", "", &[]).describe_portal("").execute("", 0).sync()
    }

    /// At most `rows` rows; 0 for all.
    pub fn execute(mut self, portal: &str, rows: i32) -> Self {
        frontend::execute(portal, rows, &mut self.0).unwrap();
        self
    }

    pub fn close_statement(mut self, name: &str) -> Self {
        frontend::close(b'S', name, &mut self.0).unwrap();
        self
    }

    pub fn close_portal(mut self, name: &str) -> Self {
        frontend::close(b'P', name, &mut self.0).unwrap();
        self
    }

    pub fn flush(mut self) -> Self {
        frontend::flush(&mut self.0);
        self
    }

    pub fn sync(mut self) -> Self {
        frontend::sync(&mut self.0);
        self
    }

    /// Any message, for what has no helper.
    pub fn message(mut self, tag: u8, body: &[u8]) -> Self {
        self.0.put_u8(tag);
        self.0.put_u32(body.len() as u32 + 4);
        self.0.put_slice(body);
        self
    }

    /// Bytes as they are, for what is no message.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.put_slice(bytes);
        self
    }
}

/// A start-up packet of this protocol version.
pub fn startup(version: u32, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = version.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(name.as_bytes());
        body.push(0);
        body.extend_from_slice(value.as_bytes());
        body.push(0);
    }
    body.push(0);
    let mut packet = (body.len() as u32 + 4).to_be_bytes().to_vec();
    packet.extend(body);
    packet
}

pub const PROTOCOL_3_0: u32 = 3 << 16;

pub struct Raw {
    pub stream: Box<dyn Duplex>,
    /// What the server said during start-up.
    pub greeting: Vec<Frame>,
}

impl Raw {
    pub fn over(stream: impl Duplex + 'static) -> Self {
        Self { stream: Box::new(stream), greeting: Vec::new() }
    }

    /// A connection on which nothing has been said yet.
    pub async fn open(port: u16) -> Self {
        let stream = within("connecting", TcpStream::connect(("127.0.0.1", port))).await.expect("somebody listens");
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }

    pub async fn open_unix(path: impl AsRef<std::path::Path>) -> Self {
        Self::over(within("connecting", UnixStream::connect(path)).await.expect("somebody listens"))
    }

    pub async fn ready(port: u16, user: &str, database: &str) -> Self {
        Self::ready_with(port, &[("user", user), ("database", database)]).await
    }

    /// Start-up with these parameters up to the first ReadyForQuery.
    pub async fn ready_with(port: u16, parameters: &[(&str, &str)]) -> Self {
        let mut raw = Self::open(port).await;
        raw.start(PROTOCOL_3_0, parameters).await;
        raw
    }

    /// Sends the start-up packet and reads up to the first ReadyForQuery.
    pub async fn start(&mut self, version: u32, parameters: &[(&str, &str)]) {
        self.send(&startup(version, parameters)).await;
        self.greeting = self.until_ready().await;
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        within("sending", self.stream.write_all(bytes)).await.expect("the other side reads");
    }

    pub async fn send_batch(&mut self, batch: Batch) {
        self.send(&batch.0).await;
    }

    /// The next message, or `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        within("the next message", self.frame_without_deadline()).await
    }

    async fn frame_without_deadline(&mut self) -> Option<Frame> {
        let mut header = [0; 5];
        self.stream.read_exact(&mut header).await.ok()?;
        let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]);
        let mut body = vec![0; length as usize - 4];
        self.stream.read_exact(&mut body).await.ok()?;
        Some(Frame { tag: header[0], body })
    }

    /// Messages up to and including the first of type `tag`.
    pub async fn until(&mut self, tag: char) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let Some(frame) = self.frame().await else { panic!("the connection ended before {tag:?}: {frames:?}") };
            let is_last = frame.tag == tag as u8;
            frames.push(frame);
            if is_last {
                return frames;
            }
        }
    }

    pub async fn until_ready(&mut self) -> Vec<Frame> {
        self.until('Z').await
    }

    /// Sends and reads the answer up to the next ReadyForQuery.
    pub async fn ask(&mut self, batch: Batch) -> Vec<Frame> {
        self.send_batch(batch).await;
        self.until_ready().await
    }

    pub async fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.ask(Batch::new().query(sql)).await
    }

    /// Everything up to the end of the connection.
    pub async fn until_closed(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            frames.push(frame);
        }
        frames
    }

    /// Process id and secret key of the cancel message.
    pub fn key(&self) -> (i32, Vec<u8>) {
        let frame = self.greeting.iter().find(|frame| frame.tag == b'K').expect("a BackendKeyData");
        let (pid, key) = frame.body.split_first_chunk::<4>().expect("four bytes");
        (i32::from_be_bytes(*pid), key.to_vec())
    }

    /// The value of a ParameterStatus of the start-up.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let statuses = self.greeting.iter().filter(|frame| frame.tag == b'S');
        let mut pairs = statuses.filter_map(|frame| {
            let mut parts = frame.body.split(|&byte| byte == 0).map(|part| String::from_utf8_lossy(part).into_owned());
            Some((parts.next()?, parts.next()?))
        });
        pairs.find(|(its_name, _)| its_name == name).map(|(_, value)| value)
    }
}

/// Sends a cancel request on a connection of its own and waits until that is closed.
pub async fn cancel(port: u16, pid: i32, key: &[u8]) {
    let mut packet = (12 + key.len() as u32).to_be_bytes().to_vec();
    packet.extend(80_877_102_u32.to_be_bytes());
    packet.extend(pid.to_be_bytes());
    packet.extend(key);
    let mut raw = Raw::open(port).await;
    raw.send(&packet).await;
    assert_eq!(raw.until_closed().await, [], "a cancel request has no answer");
}
