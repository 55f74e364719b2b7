//! One stream: a statement that is run, and its rows in batches.
//!
//! **Invariant.** Of a portal no more than `buffer_size` rows have been asked for that have not been written to the client's socket:
//! each Execute needs as many permits as it asks for rows, and a batch gives its own back when it has been written. A read
//! whose whole result is expected to fit (by the planner) is asked for at once, so that the cache can answer or record
//! it; of that, too, no more rows are taken from the session.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::inside::{Account, Failure, Inside};
use super::messages::{Column, ServerMessage};
use super::outgoing::{Batch, Outgoing};
use super::types::ValueType;
use super::{Streams, parameter, statement};
use crate::config::StreamConfig;
use crate::session::FAREWELL;
use crate::telemetry::metrics::Outcome;
use crate::wire::error::sqlstate;
use crate::wire::frame::{Header, backend};
use crate::wire::message::backend::data_row;
use crate::wire::message::encode;

/// The name of the statement that is run.
pub(super) const STATEMENT: &[u8] = b"stream";
const PORTAL: &[u8] = b"";

/// A session that is not as good as new by then, perhaps because connections are scarce, is given up.
const RENEWAL: Duration = Duration::from_millis(200);

/// What a client has asked for.
pub struct Request {
    pub query_id: String,
    pub sql: String,
    pub params: Vec<Value>,
}

/// What runs it.
pub struct Query {
    pub streams: Arc<Streams>,
    pub account: Account,
    pub request: Request,
    pub out: mpsc::Sender<Outgoing>,
}

/// How the rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetch {
    /// All of them at once.
    Whole,
    /// So many for each Execute.
    Portal(u32),
}

impl Query {
    /// Runs to the end, or until `stop` says something or is dropped. Returns the session if another stream can have it.
    pub async fn run(self, idle: Option<Inside>, stop: oneshot::Receiver<()>) -> Option<Inside> {
        let started = Instant::now();
        let mut session = idle;
        let result = tokio::select! {
            biased;
            _ = stop => Err(Ended::Stopped),
            result = self.stream(&mut session) => result,
        };
        let (outcome, last) = match result {
            Ok(total_rows) => {
                let query_id = self.request.query_id.clone();
                (Outcome::Complete, ServerMessage::StreamCompleted { query_id, total_rows })
            }
            Err(Ended::Stopped) => {
                let stopped = Failure::new(sqlstate::QUERY_CANCELED, "canceling statement due to user request");
                (Outcome::Cancelled, self.failed(stopped))
            }
            Err(Ended::Failed(failure)) => (Outcome::Failed, self.failed(failure)),
        };
        self.streams.shared.metrics.streaming_duration(outcome).record(started.elapsed());
        // The upstream is free, and the session another stream's, before the client is told: it may start one at once.
        let session = match session {
            Some(session) => reusable(session).await,
            None => None,
        };
        // Nobody is there to be told any more if this fails.
        let _ = self.out.send(Outgoing::message(&last)).await;
        session
    }

    fn failed(&self, failure: Failure) -> ServerMessage {
        let Failure { sqlstate, message: error } = failure;
        ServerMessage::StreamError { query_id: self.request.query_id.clone(), error, sqlstate }
    }

    async fn stream(&self, session: &mut Option<Inside>) -> Result<u64, Ended> {
        let session = match session {
            Some(session) => session,
            None => session.insert(Inside::login(&self.streams, &self.account).await?),
        };
        let sql = &self.request.sql;
        let prepared = statement::prepare(session, sql).await?;
        let parameters = self.parameters(&prepared.parameters)?;
        let parameters = || parameters.iter().map(|text| text.as_deref().map(str::as_bytes));
        let is_read = self.streams.shared.statements.get(sql.as_bytes()).is_single_read();
        let total_rows_estimate = match is_read {
            true => statement::estimate(session, sql, &prepared.parameter_oids, parameters()).await?,
            false => None,
        };
        let config = self.streams.shared.config.load_full();
        let config = &config.stream;
        let expected = total_rows_estimate.and_then(|rows| usize::try_from(rows).ok());
        let fetch = match (&prepared.columns, expected) {
            (None, _) => Fetch::Whole,
            (Some(_), Some(rows)) if rows <= config.buffer_size => Fetch::Whole,
            (Some(_), _) => Fetch::Portal(config.batch_size as u32),
        };
        let query_id = self.request.query_id.clone();
        let columns = prepared.columns.unwrap_or_default();
        let described = columns.iter().map(|(name, of)| Column { name: name.clone(), type_name: of.name.to_string() });
        self.tell(&ServerMessage::StreamStarted { query_id, total_rows_estimate, columns: described.collect() })
            .await?;

        let mut messages = BytesMut::new();
        encode::bind(&mut messages, PORTAL, STATEMENT, &[], parameters(), &[]).map_err(Failure::from)?;
        let types = columns.into_iter().map(|(_, of)| of).collect();
        Rows::new(self, session, config, types, fetch).run(messages).await
    }

    fn parameters(&self, types: &[ValueType]) -> Result<Vec<Option<String>>, Failure> {
        let unknown = ValueType::unknown();
        let text = |(index, value): (usize, &Value)| {
            parameter::text(types.get(index).unwrap_or(&unknown), value).map_err(|what| {
                Failure::new(sqlstate::INVALID_PARAMETER_VALUE, format!("parameter {}: {what}", index + 1))
            })
        };
        self.request.params.iter().enumerate().map(text).collect()
    }

    async fn tell(&self, message: &ServerMessage) -> Result<(), Ended> {
        self.hand_over(Outgoing::message(message)).await
    }

    async fn hand_over(&self, outgoing: Outgoing) -> Result<(), Ended> {
        // Whoever is not there any more has stopped everything.
        self.out.send(outgoing).await.map_err(|_| Ended::Stopped)
    }
}

/// Ends what the session does, and makes it as good as new. `None` if it is of no more use.
async fn reusable(mut session: Inside) -> Option<Inside> {
    let settled = timeout(FAREWELL, session.settle()).await.is_ok_and(|settled| settled);
    let renewed = settled && timeout(RENEWAL, session.renew()).await.is_ok_and(|renewed| renewed);
    renewed.then_some(session)
}

/// Why a stream ends before its result does.
#[derive(Debug)]
enum Ended {
    Stopped,
    Failed(Failure),
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The rows of a stream on their way from its session to its client.
struct Rows<'a> {
    query: &'a Query,
    session: &'a mut Inside,
    types: Vec<ValueType>,
    fetch: Fetch,
    batch_size: usize,
    batch_timeout: Duration,
    /// Rows that may be asked for.
    credit: Arc<Semaphore>,
    /// Rows that have been asked for, or may be taken, and are not in a batch that has left.
    asked: VecDeque<OwnedSemaphorePermit>,
    batch: Batch,
    total: u64,
}

impl<'a> Rows<'a> {
    fn new(
        query: &'a Query,
        session: &'a mut Inside,
        config: &StreamConfig,
        types: Vec<ValueType>,
        fetch: Fetch,
    ) -> Self {
        Self {
            query,
            session,
            types,
            fetch,
            batch_size: config.batch_size,
            batch_timeout: Duration::from_millis(config.batch_timeout_ms),
            credit: Arc::new(Semaphore::new(config.buffer_size)),
            asked: VecDeque::new(),
            batch: Batch::new(&query.request.query_id),
            total: 0,
        }
    }

    /// Sends Bind, which is in `messages`, and streams what comes. Returns the number of rows.
    async fn run(mut self, mut messages: BytesMut) -> Result<u64, Ended> {
        match self.fetch {
            Fetch::Whole => {
                encode::execute(&mut messages, PORTAL, 0).map_err(Failure::from)?;
                self.session.send_synced(messages).await?;
            }
            Fetch::Portal(_) => {
                encode::flush(&mut messages);
                self.session.send(messages).await?;
            }
        }
        loop {
            self.ask_for_more().await?;
            let header = self.next().await?;
            match header.tag {
                backend::DATA_ROW => {
                    self.take(header)?;
                    if self.is_due() {
                        self.send(false).await?;
                    }
                    continue;
                }
                backend::COMMAND_COMPLETE | backend::EMPTY_QUERY_RESPONSE => {
                    self.session.pass(header);
                    self.send(true).await?;
                    return self.finish(None).await;
                }
                backend::ERROR_RESPONSE => {
                    let failure = self.session.error(header);
                    self.session.pass(header);
                    return self.finish(Some(failure)).await;
                }
                backend::COPY_IN_RESPONSE | backend::COPY_OUT_RESPONSE | backend::COPY_BOTH_RESPONSE => {
                    self.session.is_spoilt();
                    return Err(Failure::new(sqlstate::FEATURE_NOT_SUPPORTED, "COPY cannot be streamed").into());
                }
                _ => {}
            }
            self.session.pass(header);
        }
    }

    /// Asks for as many rows as may be under way; waits until that is one batch at least.
    async fn ask_for_more(&mut self) -> Result<(), Ended> {
        let rows = self.batch_size as u32;
        loop {
            let permit = match self.credit.clone().try_acquire_many_owned(rows) {
                Ok(permit) => permit,
                Err(_) if !self.asked.is_empty() => return Ok(()),
                // Only closing the semaphore makes this fail, which nobody does.
                Err(_) => self.credit.clone().acquire_many_owned(rows).await.map_err(|_| Ended::Stopped)?,
            };
            self.asked.push_back(permit);
            match self.fetch {
                Fetch::Whole => return Ok(()),
                Fetch::Portal(rows) => {
                    let mut messages = BytesMut::new();
                    encode::execute(&mut messages, PORTAL, rows as i32).map_err(Failure::from)?;
                    encode::flush(&mut messages);
                    self.session.send(messages).await?;
                }
            }
        }
    }

    /// The next message. A batch that has waited long enough is sent before.
    async fn next(&mut self) -> Result<Header, Ended> {
        if let Some(header) = self.session.peek()? {
            return Ok(header);
        }
        if let Some(due) = self.batch.begun().map(|begun| begun + self.batch_timeout) {
            match tokio::time::timeout_at(due.into(), self.session.next()).await {
                Ok(next) => return Ok(next?),
                Err(_) => self.send(false).await?,
            }
        }
        Ok(self.session.next().await?)
    }

    fn take(&mut self, header: Header) -> Result<(), Failure> {
        let malformed = || Failure::new(sqlstate::PROTOCOL_VIOLATION, "malformed row");
        let values = data_row(self.session.body(header)).map_err(|_| malformed())?;
        self.batch.push(&self.types, &values);
        self.session.pass(header);
        Ok(())
    }

    /// It is full, in rows or in bytes, or has waited long enough.
    fn is_due(&self) -> bool {
        let left = self.asked.front().map_or(0, OwnedSemaphorePermit::num_permits);
        self.batch.rows() >= left
            || self.batch.is_long()
            || self.batch.begun().is_some_and(|begun| begun.elapsed() >= self.batch_timeout)
    }

    /// Sends what there is, which may be nothing if it is the end.
    async fn send(&mut self, is_final: bool) -> Result<(), Ended> {
        let rows = self.batch.rows();
        let permit = self.asked.front_mut().and_then(|front| front.split(rows));
        if self.asked.front().is_some_and(|front| front.num_permits() == 0) {
            self.asked.pop_front();
        }
        self.total += rows as u64;
        let metrics = &self.query.streams.shared.metrics;
        metrics.streaming_rows.increment(rows as u64);
        metrics.streaming_batches.increment(1);
        let text = self.batch.finish(is_final);
        self.query.hand_over(Outgoing::batch(text, permit)).await
    }

    /// The rows are all here, or will not come; whether what was done holds is said by what comes now.
    async fn finish(&mut self, mut failure: Option<Failure>) -> Result<u64, Ended> {
        match self.until_ready(&mut failure).await {
            Ok(()) => failure.map_or(Ok(self.total), |failure| Err(failure.into())),
            // The first one is why.
            Err(lost) => Err(failure.unwrap_or(lost).into()),
        }
    }

    async fn until_ready(&mut self, failure: &mut Option<Failure>) -> Result<(), Failure> {
        if self.fetch != Fetch::Whole {
            self.session.send_synced(BytesMut::new()).await?;
        }
        loop {
            let header = self.session.next().await?;
            if header.tag == backend::ERROR_RESPONSE {
                failure.get_or_insert_with(|| self.session.error(header));
            }
            self.session.pass(header);
            if header.tag == backend::READY_FOR_QUERY {
                return Ok(());
            }
        }
    }
}
