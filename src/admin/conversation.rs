//! One visitor's conversation: the simple and the extended protocol, without an upstream.
//!
//! **Invariant.** Every request is answered as PostgreSQL would: an error in an extended batch skips to the next Sync, one in a
//! transaction block lets nothing in but its end, and ReadyForQuery says which of the three states it is. A message is no longer
//! than [`LONGEST_MESSAGE`], a visitor has no more than [`MOST_NAMES`] statements and portals, and a command that runs can be
//! cancelled; a cancel request that came before it began cancels nothing.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Desk;
use super::drivers::{Courtesy, REPORTED};
use super::request::{self, Request};
use super::table::{Column, Row, put_description, put_row};
use crate::session::{Told, Visitor};
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::frame::{self, HEADER_BYTES, Header, backend, frontend};
use crate::wire::message::{Bind, Close, Describe, Execute, Parse, Query, Target, answer};
use crate::wire::startup;

const LONGEST_MESSAGE: usize = 256 * 1024;
const MOST_NAMES: usize = 1000;

/// Where the transaction stands; the byte of ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Idle = b'I' as isize,
    InBlock = b'T' as isize,
    Failed = b'E' as isize,
}

struct Conversation {
    desk: Arc<Desk>,
    visitor: Visitor,
    output: BytesMut,
    status: Status,
    /// Up to the next Sync.
    skipping: bool,
    statements: HashMap<Bytes, Option<Request>>,
    portals: HashMap<Bytes, Portal>,
}

/// A bound statement and, once it has run, the rows that are left.
struct Portal {
    /// `None` for an empty text.
    request: Option<Request>,
    /// Of the results; none: all text, one: of all columns.
    formats: Vec<i16>,
    rows: Option<std::vec::IntoIter<Row>>,
}

/// The conversation is over, perhaps with a last word.
enum End {
    Gone,
    Told(ErrorResponse),
}

/// Talks with a visitor until he leaves or the proxy ends.
pub async fn serve(desk: Arc<Desk>, visitor: Visitor) {
    tracing::info!(user = %visitor.control.who.user, may_change = visitor.may_change, "somebody looks into the proxy");
    let mut conversation = Conversation {
        desk,
        visitor,
        output: BytesMut::new(),
        status: Status::Idle,
        skipping: false,
        statements: HashMap::new(),
        portals: HashMap::new(),
    };
    conversation.welcome();
    if let End::Told(error) = conversation.run().await {
        error.encode(&mut conversation.output);
        // Whoever does not take it loses it.
        let _ = tokio::time::timeout(crate::session::FAREWELL, conversation.flush()).await;
    }
}

impl Conversation {
    fn welcome(&mut self) {
        let out = &mut self.output;
        for (name, value) in REPORTED {
            startup::put_parameter_status(out, name.as_bytes(), value.as_bytes());
        }
        let who = &self.visitor.control.who;
        startup::put_parameter_status(out, b"application_name", who.application_name.as_bytes());
        startup::put_parameter_status(out, b"session_authorization", who.user.as_bytes());
        startup::put_backend_key_data(out, self.visitor.number, &self.visitor.secret);
        startup::put_ready_for_query(out, self.status as u8);
    }

    async fn run(&mut self) -> End {
        let mut input = BytesMut::new();
        loop {
            if let Err(end) = self.take(&mut input).await {
                return end;
            }
            let control = self.visitor.control.clone();
            tokio::select! {
                read = self.next(&mut input) => match read {
                    Ok(bytes) if bytes > 0 => {}
                    _ => return End::Gone,
                },
                told = control.told() => match told {
                    // Nothing runs.
                    Told::Cancel => {}
                    Told::End => return End::Told(ending()),
                },
            }
        }
    }

    /// What is to be said, then what is said next. Cancel-safe: what is left is written the next time.
    async fn next(&mut self, input: &mut BytesMut) -> std::io::Result<usize> {
        self.flush().await?;
        self.visitor.stream.read_buf(input).await
    }

    async fn flush(&mut self) -> std::io::Result<()> {
        self.visitor.stream.write_all_buf(&mut self.output).await?;
        self.visitor.stream.flush().await
    }

    /// Deals with every message that is whole.
    async fn take(&mut self, input: &mut BytesMut) -> Result<(), End> {
        loop {
            let header = frame::peek(input).map_err(|error| violation(error.to_string()))?;
            let Some(header) = header else { return Ok(()) };
            if header.total > LONGEST_MESSAGE {
                let error = ErrorResponse::fatal(sqlstate::PROGRAM_LIMIT_EXCEEDED, "message too long");
                return Err(End::Told(error));
            }
            if input.len() < header.total {
                return Ok(());
            }
            let frame = input.split_to(header.total).freeze();
            // What was to be cancelled is over.
            self.visitor.control.forget_cancels();
            self.message(header, &frame.slice(HEADER_BYTES..)).await?;
        }
    }

    async fn message(&mut self, header: Header, body: &Bytes) -> Result<(), End> {
        match header.tag {
            frontend::TERMINATE => return Err(End::Gone),
            frontend::SYNC => {
                self.skipping = false;
                if self.status == Status::Idle {
                    self.portals.clear();
                }
                self.ready();
            }
            frontend::QUERY => {
                self.skipping = false;
                if let Err(error) = self.query(body).await? {
                    self.fail(&error);
                }
                self.ready();
            }
            _ if self.skipping => {}
            tag => {
                if let Err(error) = self.extended(tag, body).await? {
                    self.fail(&error);
                    self.skipping = true;
                }
            }
        }
        Ok(())
    }

    fn fail(&mut self, error: &ErrorResponse) {
        error.encode(&mut self.output);
        if self.status == Status::InBlock {
            self.status = Status::Failed;
        }
    }

    fn ready(&mut self) {
        startup::put_ready_for_query(&mut self.output, self.status as u8);
    }

    /// A simple Query: its statements one after the other up to the first that fails.
    async fn query(&mut self, body: &Bytes) -> Result<Result<(), ErrorResponse>, End> {
        let requests = match Query::decode(body) {
            Ok(query) => request::read(query.text, &self.desk.shared.config.load()),
            Err(error) => return Ok(Err(error.into())),
        };
        let requests = match requests {
            Ok(requests) => requests,
            Err(error) => return Ok(Err(error)),
        };
        if requests.is_empty() {
            answer::bare(&mut self.output, backend::EMPTY_QUERY_RESPONSE);
        }
        for request in requests {
            let rows = match self.run_request(&request).await? {
                Ok(rows) => rows,
                Err(error) => return Ok(Err(error)),
            };
            let columns = request.columns();
            if !columns.is_empty() {
                put_description(columns, |_| 0, &mut self.output);
            }
            rows.iter().for_each(|row| put_row(row, |_| 0, &mut self.output));
            answer::command_complete(&mut self.output, request.tag());
        }
        Ok(Ok(()))
    }

    async fn extended(&mut self, tag: u8, body: &Bytes) -> Result<Result<(), ErrorResponse>, End> {
        let result = match tag {
            frontend::PARSE => self.parse(body),
            frontend::BIND => self.bind(body),
            frontend::DESCRIBE => self.describe(body),
            frontend::EXECUTE => return self.execute(body).await,
            frontend::CLOSE => self.close(body),
            frontend::FLUSH => Ok(()),
            unknown => return Err(violation(frame::FrameError::UnknownTag(unknown).to_string())),
        };
        Ok(result)
    }

    fn parse(&mut self, body: &Bytes) -> Result<(), ErrorResponse> {
        let parse = Parse::decode(body)?;
        let mut requests = request::read(parse.text, &self.desk.shared.config.load())?;
        if requests.len() > 1 {
            let message = "cannot insert multiple commands into a prepared statement";
            return Err(ErrorResponse::error(sqlstate::SYNTAX_ERROR, message));
        }
        let name = body.slice_ref(parse.name);
        bounded(&self.statements, &name)?;
        self.statements.insert(name, requests.pop());
        answer::bare(&mut self.output, backend::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, body: &Bytes) -> Result<(), ErrorResponse> {
        let bind = Bind::decode(body)?;
        let request = self.statement(bind.statement)?.clone();
        if !bind.parameters.is_empty() {
            let message = format!("bind message supplies {} parameters, but there are none", bind.parameters.len());
            return Err(ErrorResponse::error(sqlstate::PROTOCOL_VIOLATION, message));
        }
        let formats: Vec<i16> = bind.result_formats.iter().collect();
        let columns = request.as_ref().map_or(0, |request| request.columns().len());
        if formats.len() > 1 && formats.len() != columns {
            let message = format!("bind message has {} result formats but query has {columns} columns", formats.len());
            return Err(ErrorResponse::error(sqlstate::PROTOCOL_VIOLATION, message));
        }
        let name = body.slice_ref(bind.portal);
        bounded(&self.portals, &name)?;
        self.portals.insert(name, Portal { request, formats, rows: None });
        answer::bare(&mut self.output, backend::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, body: &Bytes) -> Result<(), ErrorResponse> {
        let describe = Describe::decode(body)?;
        match describe.kind {
            Target::Statement => {
                let request = self.statement(describe.name)?.clone();
                answer::parameter_description(&mut self.output, &[]);
                put_columns(request.as_ref().map_or(&[], Request::columns), |_| 0, &mut self.output);
            }
            Target::Portal => {
                let portal = self.portals.get(describe.name).ok_or_else(|| no_portal(describe.name))?;
                let columns = portal.request.as_ref().map_or(&[][..], Request::columns);
                put_columns(columns, |place| portal.format(place), &mut self.output);
            }
        }
        Ok(())
    }

    async fn execute(&mut self, body: &Bytes) -> Result<Result<(), ErrorResponse>, End> {
        let execute = match Execute::decode(body) {
            Ok(execute) => execute,
            Err(error) => return Ok(Err(error.into())),
        };
        let Some(mut portal) = self.portals.remove(execute.portal) else { return Ok(Err(no_portal(execute.portal))) };
        let Some(request) = portal.request.clone() else {
            answer::bare(&mut self.output, backend::EMPTY_QUERY_RESPONSE);
            return Ok(Ok(()));
        };
        let mut rows = match portal.rows.take() {
            Some(rows) => rows,
            None => match self.run_request(&request).await? {
                Ok(rows) => rows.into_iter(),
                Err(error) => return Ok(Err(error)),
            },
        };
        let limit = execute.max_rows.map_or(usize::MAX, |rows| rows as usize);
        rows.by_ref().take(limit).for_each(|row| put_row(&row, |place| portal.format(place), &mut self.output));
        if rows.len() > 0 {
            answer::bare(&mut self.output, backend::PORTAL_SUSPENDED);
        } else {
            answer::command_complete(&mut self.output, request.tag());
        }
        portal.rows = Some(rows);
        self.portals.insert(body.slice_ref(execute.portal), portal);
        Ok(Ok(()))
    }

    fn close(&mut self, body: &Bytes) -> Result<(), ErrorResponse> {
        let close = Close::decode(body)?;
        match close.kind {
            Target::Statement => drop(self.statements.remove(close.name)),
            Target::Portal => drop(self.portals.remove(close.name)),
        }
        answer::bare(&mut self.output, backend::CLOSE_COMPLETE);
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<&Option<Request>, ErrorResponse> {
        self.statements.get(name).ok_or_else(|| {
            let message = format!("prepared statement \"{}\" does not exist", String::from_utf8_lossy(name));
            ErrorResponse::error(sqlstate::UNDEFINED_STATEMENT, message)
        })
    }

    /// Carries one statement out. The outer error ends the conversation.
    async fn run_request(&mut self, request: &Request) -> Result<Result<Vec<Row>, ErrorResponse>, End> {
        if self.status == Status::Failed && !matches!(request, Request::Courtesy(c) if c.ends_transaction()) {
            let message = "current transaction is aborted, commands ignored until end of transaction block";
            return Ok(Err(ErrorResponse::error(sqlstate::IN_FAILED_TRANSACTION, message)));
        }
        let (command, arguments) = match request {
            Request::Courtesy(courtesy) => return Ok(Ok(self.be_courteous(courtesy))),
            Request::Command(command, arguments) => (*command, arguments.clone()),
        };
        if command.changes && !self.visitor.may_change {
            let message = format!("permission denied: {} is for the users in admin.users", command.words);
            return Ok(Err(ErrorResponse::error(sqlstate::INSUFFICIENT_PRIVILEGE, message)));
        }
        if command.changes {
            // Without what follows: it may be a password.
            tracing::info!(user = %self.visitor.control.who.user, command = command.words, "admin command");
        }
        let desk = self.desk.clone();
        tokio::select! {
            biased;
            answer = (command.run)(&desk, arguments) => Ok(answer),
            told = self.visitor.control.told() => match told {
                Told::Cancel => {
                    let message = "canceling statement due to user request";
                    Ok(Err(ErrorResponse::error(sqlstate::QUERY_CANCELED, message)))
                }
                Told::End => Err(End::Told(ending())),
            },
        }
    }

    fn be_courteous(&mut self, courtesy: &Courtesy) -> Vec<Row> {
        match courtesy {
            Courtesy::Begin => self.status = Status::InBlock,
            Courtesy::Commit | Courtesy::Rollback => self.status = Status::Idle,
            Courtesy::Ignored(_) => {}
            Courtesy::Answer { value, .. } => return vec![vec![value.clone()]],
        }
        Vec::new()
    }
}

impl Portal {
    fn format(&self, place: usize) -> i16 {
        match self.formats.as_slice() {
            [] => 0,
            [all] => *all,
            formats => formats.get(place).copied().unwrap_or_default(),
        }
    }
}

/// RowDescription, or NoData.
fn put_columns(columns: &[Column], format: impl Fn(usize) -> i16, out: &mut BytesMut) {
    if columns.is_empty() {
        answer::bare(out, backend::NO_DATA);
    } else {
        put_description(columns, format, out);
    }
}

fn bounded<T>(names: &HashMap<Bytes, T>, name: &Bytes) -> Result<(), ErrorResponse> {
    if names.len() < MOST_NAMES || names.contains_key(name) {
        return Ok(());
    }
    let message = format!("no more than {MOST_NAMES} prepared statements or portals");
    Err(ErrorResponse::error(sqlstate::PROGRAM_LIMIT_EXCEEDED, message))
}

fn no_portal(name: &[u8]) -> ErrorResponse {
    let message = format!("portal \"{}\" does not exist", String::from_utf8_lossy(name));
    ErrorResponse::error(sqlstate::INVALID_CURSOR_NAME, message)
}

fn violation(message: String) -> End {
    End::Told(ErrorResponse::fatal(sqlstate::PROTOCOL_VIOLATION, message))
}

fn ending() -> ErrorResponse {
    let message = "terminating connection due to administrator command";
    ErrorResponse::fatal(sqlstate::ADMIN_SHUTDOWN, message)
}
