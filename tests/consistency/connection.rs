//! A connection that speaks any protocol, and takes the end of the connection for an answer.

use std::collections::HashMap;

use bytes::BufMut;
use tokio::io::AsyncWriteExt;

use super::schema::PREPARE;
use crate::harness::raw::{Batch, Frame, PROTOCOL_3_0, startup};
use crate::harness::{Raw, within};

/// A row of numbers; nothing here is ever NULL.
pub type Row = Vec<i64>;

#[derive(Clone, Debug)]
pub enum Param {
    Int(i32),
    List(Vec<i32>),
}

/// A statement and its parameters. Without parameters it may also be a `COPY ... FROM STDIN` and its data.
#[derive(Clone, Debug)]
pub struct Request {
    pub sql: String,
    pub params: Vec<Param>,
    pub copy: Option<String>,
}

/// How a request is put to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A Query message, parameters written into the text.
    Simple,
    /// Parse to Sync in one batch; parameters and results in text or binary format.
    Unnamed { binary: bool },
    /// The same in text format, the first row by an Execute of its own.
    Sliced,
    /// The same with a statement that was prepared when it was first asked.
    Named { binary: bool },
}

/// What came up to ReadyForQuery.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<Row>,
    /// The number of rows in the last command tag that has one.
    pub affected: Option<i64>,
    /// The command tags.
    pub tags: Vec<String>,
    /// SQLSTATE and message.
    pub error: Option<(String, String)>,
}

/// The connection has ended before an answer was complete.
#[derive(Debug)]
pub struct Lost;

impl Request {
    pub fn new(sql: &str, params: Vec<Param>) -> Self {
        Self { sql: sql.into(), params, copy: None }
    }

    /// Its text with the parameters written into it.
    pub fn inlined(&self) -> String {
        let params = self.params.iter().enumerate().rev();
        params.fold(self.sql.clone(), |sql, (at, param)| {
            let literal = match param {
                Param::Int(value) => value.to_string(),
                Param::List(_) => format!("'{}'", param.text()),
            };
            sql.replace(&format!("${}", at + 1), &literal)
        })
    }
}

impl Param {
    fn text(&self) -> String {
        match self {
            Self::Int(value) => value.to_string(),
            Self::List(values) => {
                format!("{{{}}}", values.iter().map(i32::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }

    fn encoded(&self, binary: bool) -> Vec<u8> {
        match self {
            _ if !binary => self.text().into_bytes(),
            Self::Int(value) => value.to_be_bytes().to_vec(),
            Self::List(values) => {
                let mut out = Vec::new();
                for header in [1, 0, INT4 as i32, values.len() as i32, 1] {
                    out.put_i32(header);
                }
                for value in values {
                    out.put_i32(4);
                    out.put_i32(*value);
                }
                out
            }
        }
    }

    fn oid(&self) -> u32 {
        match self {
            Self::Int(_) => INT4,
            Self::List(_) => INT4_ARRAY,
        }
    }
}

const INT4: u32 = 23;
const INT4_ARRAY: u32 = 1007;

pub struct Connection {
    raw: Raw,
    /// Statements that are prepared, by text.
    names: HashMap<String, String>,
}

impl Connection {
    pub async fn open(port: u16, database: &str, application: &str) -> Result<Self, Lost> {
        let parameters = [("user", "postgres"), ("database", database), ("application_name", application)];
        let mut connection = Self { raw: Raw::open(port).await, names: HashMap::new() };
        connection.write(&startup(PROTOCOL_3_0, &parameters)).await?;
        connection.answer(false, None).await?;
        connection.ask(&Request::new(PREPARE, Vec::new()), How::Simple).await?;
        Ok(connection)
    }

    /// One that need not keep an upstream connection: it has its name by a setting, as programs that share them have the same.
    pub async fn open_shared(port: u16, database: &str, application: &str, prepares: bool) -> Result<Self, Lost> {
        let mut connection = Self { raw: Raw::open(port).await, names: HashMap::new() };
        connection.write(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", database)])).await?;
        connection.answer(false, None).await?;
        let name = format!("SET application_name = '{application}'");
        connection.ask(&Request::new(&name, Vec::new()), How::Simple).await?;
        if prepares {
            connection.ask(&Request::new(PREPARE, Vec::new()), How::Simple).await?;
        }
        Ok(connection)
    }

    /// Sends a request and reads the whole answer.
    pub async fn ask(&mut self, request: &Request, how: How) -> Result<Answer, Lost> {
        self.ask_all(std::slice::from_ref(request), how).await
    }

    /// Sends several statements as one, in one implicit transaction: one Query message, or several batches with one Sync.
    pub async fn ask_all(&mut self, requests: &[Request], how: How) -> Result<Answer, Lost> {
        self.send(requests, how).await?;
        let binary = matches!(how, How::Unnamed { binary: true } | How::Named { binary: true });
        let copy = requests.first().and_then(|request| request.copy.as_deref());
        self.answer(binary, copy).await
    }

    /// Sends only; the answer is nobody's business any more.
    pub async fn send(&mut self, requests: &[Request], how: How) -> Result<(), Lost> {
        let batch = match how {
            How::Simple => Batch::new().query(&requests.iter().map(Request::inlined).collect::<Vec<_>>().join("; ")),
            How::Unnamed { binary } => requests
                .iter()
                .fold(Batch::new(), |batch, request| execute(parse(batch, "", request), "", request, binary))
                .sync(),
            How::Sliced => {
                let slice =
                    |batch, request| bind(parse(batch, "", request), "", request, false).execute("", 1).execute("", 0);
                requests.iter().fold(Batch::new(), slice).sync()
            }
            How::Named { binary } => {
                let mut batch = Batch::new();
                for request in requests {
                    let fresh = format!("s{}", self.names.len());
                    let name = match self.names.get(&request.sql) {
                        Some(name) => name.clone(),
                        None => {
                            batch = parse(batch, &fresh, request);
                            self.names.insert(request.sql.clone(), fresh.clone());
                            fresh
                        }
                    };
                    batch = execute(batch, &name, request, binary);
                }
                batch.sync()
            }
        };
        self.write(&batch.0).await
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        within("sending", self.raw.stream.write_all(bytes)).await.map_err(|_| Lost)
    }

    async fn answer(&mut self, binary: bool, copy: Option<&str>) -> Result<Answer, Lost> {
        let mut answer = Answer::default();
        let mut is_over = false;
        loop {
            let Some(frame) = self.raw.frame().await else { return Err(Lost) };
            match frame.tag {
                b'D' => answer.rows.push(row(&frame, binary)),
                b'C' => {
                    let tag = String::from_utf8_lossy(&frame.body[..frame.body.len() - 1]).into_owned();
                    answer.affected = tag.rsplit(' ').next().and_then(|count| count.parse().ok()).or(answer.affected);
                    answer.tags.push(tag);
                }
                b'E' => {
                    is_over |= frame.field('S').is_some_and(|severity| severity == "FATAL");
                    let field = |name| frame.field(name).unwrap_or_default();
                    answer.error = Some((field('C'), field('M')));
                }
                b'G' => {
                    let data = copy.unwrap_or_default();
                    self.write(&Batch::new().message(b'd', data.as_bytes()).message(b'c', b"").0).await?;
                }
                b'Z' if !is_over => break,
                _ => {}
            }
        }
        if answer.error.is_some() {
            // A Parse in that batch may or may not have happened.
            self.forget_statements().await?;
        }
        Ok(answer)
    }

    async fn forget_statements(&mut self) -> Result<(), Lost> {
        let names: Vec<_> = self.names.drain().map(|(_, name)| name).collect();
        if names.is_empty() {
            return Ok(());
        }
        let batch = names.iter().fold(Batch::new(), |batch, name| batch.close_statement(name)).sync();
        self.write(&batch.0).await?;
        while let Some(frame) = self.raw.frame().await {
            if frame.tag == b'Z' {
                return Ok(());
            }
        }
        Err(Lost)
    }
}

fn parse(batch: Batch, name: &str, request: &Request) -> Batch {
    let types: Vec<_> = request.params.iter().map(Param::oid).collect();
    batch.parse_typed(name, &request.sql, &types)
}

fn execute(batch: Batch, name: &str, request: &Request, binary: bool) -> Batch {
    bind(batch, name, request, binary).execute("", 0)
}

fn bind(batch: Batch, name: &str, request: &Request, binary: bool) -> Batch {
    let values: Vec<_> = request.params.iter().map(|param| param.encoded(binary)).collect();
    let values: Vec<_> = values.iter().map(|value| Some(value.as_slice())).collect();
    let format = [i16::from(binary)];
    batch.bind_formats("", name, &format, &values, &format).describe_portal("")
}

/// The values of a DataRow as numbers.
fn row(frame: &Frame, binary: bool) -> Row {
    let number = |value: Option<Vec<u8>>| {
        let value = value.unwrap_or_else(|| panic!("a NULL where none can be: {frame:?}"));
        if !binary {
            return std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
        }
        match value.len() {
            4 => Some(i64::from(i32::from_be_bytes(value.try_into().unwrap()))),
            8 => Some(i64::from_be_bytes(value.try_into().unwrap())),
            _ => None,
        }
    };
    let numbers =
        frame.values().into_iter().map(|value| number(value).unwrap_or_else(|| panic!("no number: {frame:?}")));
    numbers.collect()
}
