//! What the cache makes of a text that somebody asks about, without a session that sends it.
//!
//! **Invariant.** The text is never run. It is parsed by the upstream, as one statement, in a read-only transaction of the proxy's
//! own account that is rolled back, on a connection that is closed afterwards. So the verdict is that on a session of that
//! account with its search_path and settings; another user's names may mean something else.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Shared;
use super::context::Context;
use super::jobs::{self, BEGIN, IDENTITY, LOCKS, ROLLBACK, SETTINGS, STATEMENT};
use super::lookup::ReadRequest;
use super::verdict::{Terms, Verdict, depends_on_time};
use super::welcome::enter;
use crate::cache::rules::Subject;
use crate::cache::verdict::Bypass;
use crate::catalog::analysis::Analysis;
use crate::catalog::{Baseline, Database};
use crate::statement::{Part, Statement};
use crate::telemetry::metrics::Operation;
use crate::telemetry::trace::TracedOperation;
use crate::upstream::connect::ConnectError;
use crate::upstream::login::{Connection, UpstreamSecret, login};
use crate::upstream::open;
use crate::wire::error::{ErrorResponse, field, sqlstate};
use crate::wire::frame::{self, backend};
use crate::wire::message::{Target, encode};
use crate::wire::startup::PROTOCOL_3_0;

/// Replies that are kept.
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;
/// How long the database's catalogue is waited for.
const MODEL: Duration = Duration::from_secs(5);

pub struct Explanation {
    pub statement: Arc<Statement>,
    pub verdict: Verdict,
    /// The names in it that are why, if it calls what cannot be trusted.
    pub suspects: Vec<String>,
}

/// Asks the upstream about `text` in `database`. An error is the upstream's about the text, or says why it cannot be asked.
pub async fn explain(shared: &Arc<Shared>, database: &str, text: &[u8]) -> Result<Explanation, ErrorResponse> {
    let statement = shared.statements.get(text);
    let refused = |statement, bypass| {
        let verdict = Verdict { outcome: Err(bypass), analysis: None };
        Ok(Explanation { statement, verdict, suspects: Vec::new() })
    };
    if !shared.caching {
        return refused(statement, Bypass::Disabled);
    }
    let [part] = statement.parts.as_slice() else {
        return refused(statement, Bypass::NotRead);
    };
    let _timer = shared.metrics.time(Operation::Explain);
    let mut operation = TracedOperation::new("explain");
    let explained = explain_part(shared, database, text, &statement, part).await;
    if let Err(error) = &explained {
        operation.failed(&error.message);
    }
    explained
}

async fn explain_part(
    shared: &Arc<Shared>,
    database: &str,
    text: &[u8],
    statement: &Arc<Statement>,
    part: &Part,
) -> Result<Explanation, ErrorResponse> {
    let explanation = |verdict, suspects| Explanation { statement: statement.clone(), verdict, suspects };
    let request = ReadRequest { statement, text, types: &[], bind: None, described: true, stands: true };
    let mut asker = Asker::connect(shared, database).await?;
    let baseline = asker.baseline().await?;
    // Whatever it is: that it cannot be parsed is the best answer.
    let found = asker.findings(shared, part.text_of(text)).await?;

    let visit = enter(shared, database, &asker.connection.peer.address);
    // Late is as good as never: then the catalogue is not known.
    let _ = tokio::time::timeout(MODEL, visit.database().certainty()).await;
    let by_text = if !statement.is_single_read() {
        Some(if part.facts.locks_rows { Bypass::RowLocks } else { Bypass::NotRead })
    } else if statement.hint.nocache {
        Some(Bypass::Hint)
    } else {
        depends_on_time(&request, part).then_some(Bypass::Context)
    };
    let Some(model) = visit.database().latest_model() else {
        let outcome = Err(by_text.unwrap_or(Bypass::Catalog));
        return Ok(explanation(Verdict { outcome, analysis: None }, Vec::new()));
    };
    let analysis = Arc::new(Analysis::conclude(visit.database(), &model, part, &found));
    let outcome = match by_text {
        Some(bypass) => Err(bypass),
        None => asker.terms(shared, visit.database(), &request, &analysis, baseline),
    };
    let suspects = match outcome {
        Err(Bypass::Function) => model.suspects(part).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(explanation(Verdict { outcome, analysis: Some(analysis) }, suspects))
}

/// A connection of the proxy's own account.
struct Asker {
    connection: Connection,
    user: String,
    bound: Duration,
}

impl Asker {
    async fn connect(shared: &Shared, database: &str) -> Result<Self, ErrorResponse> {
        let config = shared.config.load_full();
        let user = config.upstream.user.clone();
        let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let parameters = [("user", user.as_str()), ("database", database), ("application_name", "heliosproxy")]
            .map(|(name, value)| (text(name), text(value)));
        let secret = match config.upstream.password.as_str() {
            "" => UpstreamSecret::None,
            password => UpstreamSecret::Password(password.into()),
        };
        let bound = Duration::from_secs(config.upstream.connect_timeout_secs);
        let connect = async {
            let stream = open::open(&shared.target).await?;
            Ok(login(stream, PROTOCOL_3_0, &parameters, &secret).await?)
        };
        let connected = tokio::time::timeout(bound, connect).await.map_err(|_| late())?;
        let connection = connected.map_err(|error: ConnectError| match error {
            ConnectError::Open(error) => as_error(error.to_error_response()),
            ConnectError::Login(error) => match error.into_frame() {
                Ok(frame) => of_upstream(frame.get(frame::HEADER_BYTES..).unwrap_or_default()),
                Err(error) => as_error(error),
            },
        })?;
        Ok(Self { connection, user, bound })
    }

    async fn baseline(&mut self) -> Result<Baseline, ErrorResponse> {
        let commands = [BEGIN, IDENTITY, "SET LOCAL search_path = pg_catalog", SETTINGS, ROLLBACK];
        let replies = self.ask(|out| jobs::run_all(out, &commands)).await?;
        jobs::baseline(&replies).ok_or_else(|| unusable("its settings cannot be read"))
    }

    /// Which relations the statement locks, or the upstream's error about it.
    async fn findings(
        &mut self,
        shared: &Shared,
        statement: &[u8],
    ) -> Result<crate::catalog::analysis::Findings, ErrorResponse> {
        let timeout = format!("SET LOCAL lock_timeout = {}", shared.config.load().catalog.lock_timeout_ms);
        let replies = self
            .ask(|out| {
                jobs::run_all(out, &[BEGIN, &timeout])?;
                encode::parse(out, STATEMENT, statement, &[])?;
                encode::describe(out, Target::Statement, STATEMENT)?;
                jobs::run_all(out, &[LOCKS])
            })
            .await?;
        if let Some((_, body)) = jobs::frames(&replies).find(|(tag, _)| *tag == backend::ERROR_RESPONSE) {
            return Err(of_upstream(body));
        }
        jobs::findings(&replies).ok_or_else(|| unusable("its answer about the statement cannot be read"))
    }

    /// Sends a batch and returns everything up to its ReadyForQuery.
    async fn ask(
        &mut self,
        batch: impl FnOnce(&mut BytesMut) -> Result<(), encode::EncodeError>,
    ) -> Result<BytesMut, ErrorResponse> {
        let mut out = BytesMut::new();
        batch(&mut out).map_err(|error| ErrorResponse::error(sqlstate::SYNTAX_ERROR, error.to_string()))?;
        encode::sync(&mut out);
        let Connection { stream, buffer, .. } = &mut self.connection;
        let exchange = async {
            stream.write_all_buf(&mut out).await.ok()?;
            stream.flush().await.ok()?;
            let mut at = 0;
            loop {
                while let Some(header) =
                    frame::peek(&buffer[at..]).ok()?.filter(|header| buffer.len() - at >= header.total)
                {
                    at += header.total;
                    if header.tag == backend::READY_FOR_QUERY {
                        return Some(buffer.split_to(at));
                    }
                }
                if buffer.len() > LONGEST_ANSWER || stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            }
        };
        let answer = tokio::time::timeout(self.bound, exchange).await.map_err(|_| late())?;
        answer.ok_or_else(|| unusable("the connection to it was lost"))
    }

    fn terms(
        &self,
        shared: &Shared,
        database: &Database,
        request: &ReadRequest<'_>,
        analysis: &Analysis,
        baseline: Baseline,
    ) -> Result<Terms, Bypass> {
        let mut context = Context::new(database.number, self.user.as_bytes());
        self.connection.parameters.iter().for_each(|(name, value)| context.report(name, value));
        if !context.is_plain_utf8() {
            return Err(Bypass::Encoding);
        }
        context.read(baseline);
        let context = context.digest().ok_or(Bypass::Settings)?;
        if !baseline.read_committed {
            return Err(Bypass::Transaction);
        }
        if !database.is_certain() {
            return Err(Bypass::Catalog);
        }
        if let Err(bypass) = &analysis.read {
            return Err(*bypass);
        }
        let ttl = shared.rules.load().decide(&Subject {
            statement: request.statement,
            text: request.text,
            relations: &analysis.relations,
            user: self.user.as_bytes(),
            application_name: b"heliosproxy",
        })?;
        Ok(Terms { key: request.key(context), ttl })
    }
}

fn late() -> ErrorResponse {
    unusable("it did not answer in time")
}

fn unusable(why: &str) -> ErrorResponse {
    ErrorResponse::error(sqlstate::CONNECTION_FAILURE, format!("the upstream server cannot be asked: {why}"))
}

/// The visitor's own connection goes on.
fn as_error(error: ErrorResponse) -> ErrorResponse {
    ErrorResponse { severity: crate::wire::error::Severity::Error, ..error }
}

/// The upstream's own words. Its SQLSTATE stands in the detail: the proxy's are a closed list.
fn of_upstream(body: &[u8]) -> ErrorResponse {
    let text = |tag| field(body, tag).map(|text| String::from_utf8_lossy(text).into_owned());
    let message = text(b'M').unwrap_or_else(|| "an error without a message".into());
    let error = ErrorResponse::error(sqlstate::INVALID_PARAMETER_VALUE, format!("the upstream server says: {message}"));
    match text(b'C') {
        Some(code) => error.detail(format!("SQLSTATE {code}")),
        None => error,
    }
}
