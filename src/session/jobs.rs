//! The proxy's own requests on a session's connection, between the client's: reading its settings, analysing a statement.
//!
//! **Invariant.** A job begins only when the upstream is idle and owes nothing, and leaves no trace in the session: it runs in
//! a read-only transaction that is rolled back, uses the extended protocol only (a simple Query would drop the client's
//! unnamed statement), a statement name that it closes again, and the unnamed portal, which does not outlive a transaction.
//! It waits for locks no longer than `catalog.lock_timeout_ms`.

use bytes::{Bytes, BytesMut};

use super::Session;
use super::handover;
use super::lookup::{Basis, Fill, Tentative};
use super::pipeline::{Origin, Request};
use super::scan_probe::ScanProbe;
use super::span::Span;
use super::witness::{QUESTION, Trust, Witness};
use crate::cache::key::KeyHasher;
use crate::cache::versions::TableOid;
use crate::catalog::Baseline;
use crate::catalog::analysis::{Analysis, AnalysisKey, Findings, RelationLock};
use crate::catalog::builtin::setting_is_relevant;
use crate::statement::Statement;
use crate::telemetry::metrics::Operation;
use crate::telemetry::trace::SpanContext;
use crate::upstream::parsed::StatementId;
use crate::wire::frame::{self, backend};
use crate::wire::message::Target;
use crate::wire::message::backend::{data_row, parameter_types};
use crate::wire::message::encode::{self, EncodeError};

pub(super) const NAME: &[u8] = b"heliosproxy";
pub(super) const STATEMENT: &[u8] = b"heliosproxy_statement";

pub(super) const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED READ ONLY";
pub(super) const ROLLBACK: &str = "ROLLBACK";

/// Every relation that the transaction has locked, but for the view that says so. All names and operators are qualified: the
/// session's search_path may put anything in front of pg_catalog.
pub(super) const LOCKS: &str = "SELECT l.relation, l.mode, pg_catalog.pg_relation_filepath(l.relation) FROM pg_catalog.pg_locks l \
     WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
     AND l.relation OPERATOR(pg_catalog.<>) 'pg_catalog.pg_locks'::pg_catalog.regclass::pg_catalog.oid";

pub(super) const IDENTITY: &str = "SELECT session_user, current_user, pg_catalog.current_setting('role'), \
     pg_catalog.current_setting('search_path'), pg_catalog.current_setting('default_transaction_isolation'), \
     EXISTS (SELECT FROM pg_catalog.pg_class c WHERE c.relnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()) \
     OR EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.typnamespace OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema())";

pub(super) const SETTINGS: &str = "SELECT s.name, s.setting FROM pg_catalog.pg_settings s WHERE s.source OPERATOR(pg_catalog.<>) 'default' \
     AND s.context OPERATOR(pg_catalog.=) ANY ('{user,superuser,superuser-backend,backend}') ORDER BY s.name USING OPERATOR(pg_catalog.~<~)";

#[derive(Debug)]
pub enum Job {
    /// Read the session's settings; then go on with this fill.
    ReadSettings { fill: Option<Box<Fill>> },
    /// Ask which relations a statement locks.
    Analyse(Box<Analyse>),
    /// Ask whether a read is worth splitting.
    PlanScan(Box<ScanProbe>),
    /// Ask what the block has locked.
    Witness,
    /// See whether that can be asked.
    TryWitness,
    /// Ask what the session has left in its connection.
    Probe,
    /// Give a connection the session's settings, and forget what was drawn from sequences.
    Adopt { drew: bool },
    /// Forget what others have drawn from sequences.
    ForgetSequences,
    /// Drop what the session has left.
    Discard,
    /// Prepare statements under the client's names.
    ParseNamed,
    /// Drop what the proxy has prepared: the client's statements get their own names.
    TakeNames,
    /// Drop the client's prepared statements, which are kept under the proxy's names from then on.
    TakeNamesBack,
    /// Drop statements that were not used for long.
    Trim(Vec<StatementId>),
}

impl Job {
    /// The trace of the answered statement for which it is asked.
    pub fn trace(&self) -> Option<&SpanContext> {
        let fill = match self {
            Self::ReadSettings { fill } => fill,
            Self::Analyse(analyse) => &analyse.fill,
            _ => return None,
        };
        match &fill.as_ref()?.basis {
            Basis::Tentative(tentative) => tentative.trace.as_ref(),
            Basis::Known { .. } => None,
        }
    }

    pub fn operation(&self) -> Operation {
        match self {
            Self::ReadSettings { .. } => Operation::Resync,
            Self::Analyse(_) => Operation::Analyse,
            Self::PlanScan(_) => Operation::PlanScan,
            Self::Witness | Self::TryWitness => Operation::Witness,
            Self::Probe
            | Self::Adopt { .. }
            | Self::ForgetSequences
            | Self::Discard
            | Self::ParseNamed
            | Self::TakeNames
            | Self::TakeNamesBack
            | Self::Trim(_) => Operation::Handover,
        }
    }
}

#[derive(Debug)]
pub struct Analyse {
    statement: std::sync::Arc<Statement>,
    part: usize,
    /// What is sent to be parsed.
    text: Bytes,
    types: Vec<u32>,
    epoch: u64,
    context: [u8; 32],
    fill: Option<Box<Fill>>,
}

impl Analyse {
    pub fn new(statement: std::sync::Arc<Statement>, part: usize, text: Bytes, types: Vec<u32>) -> Self {
        Self { statement, part, text, types, epoch: 0, context: [0; 32], fill: None }
    }

    fn of_read(fill: Box<Fill>) -> Option<Self> {
        let Basis::Tentative(Tentative { statement, text, types, .. }) = &fill.basis else { return None };
        let analyse = Self::new(statement.clone(), 0, text.clone(), types.clone());
        Some(Self { fill: Some(fill), ..analyse })
    }

    pub fn same_as(&self, other: &Self) -> bool {
        self.types == other.types
            && self.statement.parts.get(self.part).map(|part| part.shape)
                == other.statement.parts.get(other.part).map(|part| part.shape)
    }
}

impl Session {
    /// A recorded read has been answered: whatever is missing to make it an entry is asked for.
    pub(super) fn follow_up(&mut self, fill: Box<Fill>) {
        if fill.recording.is_spoilt() && self.analysis_of(&fill).is_some() {
            return;
        }
        // Without a model of the present epoch, which may be a while in coming, an analysis would be for nothing.
        if !self.visit.database().has_model() {
            return;
        }
        if self.context.digest().is_none() {
            self.start(Job::ReadSettings { fill: Some(fill) });
        } else if let Some(analyse) = Analyse::of_read(fill) {
            self.start(Job::Analyse(Box::new(analyse)));
        }
    }

    /// Sends the next job that waits, if there is one. The caller has checked that the connection is idle.
    pub(super) fn start_next_job(&mut self) {
        if let (Some(sharing), Some(backend)) = (&self.sharing, &mut self.backend) {
            let surplus = backend.parsed.trim(sharing.prepared_limit);
            if !surplus.is_empty() {
                self.start(Job::Trim(surplus));
                return;
            }
        }
        if self.witness_trust == Trust::Wanted {
            self.start(Job::TryWitness);
            return;
        }
        if self.analyses.is_empty() {
            return;
        }
        if self.context.digest().is_none() {
            // What an analysis says holds for the settings that it was made under.
            self.start(Job::ReadSettings { fill: None });
        } else if let Some(analyse) = self.analyses.pop_front() {
            self.start(Job::Analyse(Box::new(analyse)));
        }
    }

    /// What is known by now of a read that was sent when nothing was.
    fn analysis_of(&self, fill: &Fill) -> Option<(std::sync::Arc<Analysis>, u64)> {
        let Basis::Tentative(tentative) = &fill.basis else { return None };
        let database = self.visit.database();
        let (part, context, epoch) = (tentative.statement.parts.first()?, self.context.digest()?, database.epoch());
        Some((database.analysis(&AnalysisKey::new(part, &tentative.types, context, epoch))?, epoch))
    }

    pub(super) fn start(&mut self, job: Job) {
        let before = self.upstream.output.len();
        let sent = match job {
            Job::ReadSettings { fill } => {
                let commands = [BEGIN, IDENTITY, "SET LOCAL search_path = pg_catalog", SETTINGS];
                self.send_rolled_back(&commands).map(|()| Job::ReadSettings { fill })
            }
            Job::Analyse(mut analyse) => {
                analyse.epoch = self.visit.database().epoch();
                analyse.context = self.context.digest().copied().unwrap_or_default();
                self.send_analysis(&analyse).map(|()| Job::Analyse(analyse))
            }
            Job::PlanScan(mut probe) => self.send_scan_probe(&mut probe).map(|()| Job::PlanScan(probe)),
            Job::Witness => self.send_witness().map(|()| Job::Witness),
            Job::TryWitness => self.send_rolled_back(&[BEGIN, &QUESTION]).map(|()| Job::TryWitness),
            Job::Probe => self.send_probe().map(|()| Job::Probe),
            Job::Adopt { drew } => self.send_settings(drew).map(|()| Job::Adopt { drew }),
            Job::ForgetSequences => self.send_alone(handover::DISCARD_SEQUENCES).map(|()| Job::ForgetSequences),
            Job::Discard => self.send_alone("DISCARD ALL").map(|()| Job::Discard),
            Job::ParseNamed => Ok(Job::ParseNamed),
            Job::TakeNames => self.send_alone("DEALLOCATE ALL").map(|()| Job::TakeNames),
            Job::TakeNamesBack => self.send_alone("DEALLOCATE ALL").map(|()| Job::TakeNamesBack),
            Job::Trim(surplus) => self.send_closes(&surplus).map(|()| Job::Trim(surplus)),
        };
        let Ok(job) = sent else {
            // A text with a NUL, which cannot have run either.
            self.upstream.output.truncate(before);
            return;
        };
        encode::sync(&mut self.upstream.output);
        self.pipeline.push(Origin::Own, Request::Sync(Box::new(Span::own(Some(job)))));
    }

    fn send_alone(&mut self, command: &str) -> Result<(), EncodeError> {
        run_all(&mut self.upstream.output, &[command])
    }

    fn send_closes(&mut self, statements: &[StatementId]) -> Result<(), EncodeError> {
        let out = &mut self.upstream.output;
        statements.iter().try_for_each(|id| encode::close(out, Target::Statement, &id.name()))
    }

    fn send_analysis(&mut self, analyse: &Analyse) -> Result<(), EncodeError> {
        let timeout = format!("SET LOCAL lock_timeout = {}", self.shared.config.load().catalog.lock_timeout_ms);
        let out = &mut self.upstream.output;
        run_all(out, &[BEGIN, &timeout])?;
        encode::parse(out, STATEMENT, &analyse.text, &analyse.types)?;
        encode::describe(out, Target::Statement, STATEMENT)?;
        run_all(out, &[LOCKS])?;
        self.send_end(&[ROLLBACK])
    }

    /// Commands that begin a transaction, and its end.
    pub(super) fn send_rolled_back(&mut self, commands: &[&str]) -> Result<(), EncodeError> {
        run_all(&mut self.upstream.output, commands)?;
        self.send_end(&[ROLLBACK])
    }

    /// What cleans up after the job's commands, in a span of its own: after an error everything up to its beginning is
    /// skipped.
    pub(super) fn send_end(&mut self, commands: &[&str]) -> Result<(), EncodeError> {
        let out = &mut self.upstream.output;
        encode::sync(out);
        self.pipeline.push(Origin::Own, Request::Sync(Box::new(Span::own(None))));
        let out = &mut self.upstream.output;
        encode::close(out, Target::Statement, STATEMENT)?;
        encode::close(out, Target::Statement, NAME)?;
        run_all(out, commands)
    }

    /// All replies of a job are in `own_replies`.
    pub(super) fn finish_job(&mut self, job: Job) {
        let replies = std::mem::take(&mut self.own_replies);
        match job {
            Job::ReadSettings { fill } => {
                let Some(baseline) = baseline(&replies) else { return };
                let epoch = self.visit.database().epoch();
                if self.context.read(baseline) {
                    self.visit.database().remember_baseline(epoch, self.start_digest, baseline);
                }
                if let Some(fill) = fill
                    && !baseline.temporary
                    && baseline.read_committed
                {
                    self.settle_fill(fill);
                }
            }
            Job::Analyse(analyse) => self.finish_analysis(*analyse, &replies),
            Job::PlanScan(probe) => self.finish_scan_probe(*probe, &replies),
            Job::Witness => self.witnessed = Witness::read(&replies),
            Job::TryWitness => self.tried_witness(&replies),
            Job::Probe => self.probed(&replies),
            Job::Adopt { .. } => self.adopted(&replies),
            Job::Discard => self.discarded(&replies),
            Job::TakeNamesBack => self.names_taken_back(&replies),
            Job::ForgetSequences | Job::ParseNamed | Job::TakeNames | Job::Trim(_) => {}
        }
    }

    fn settle_fill(&mut self, fill: Box<Fill>) {
        match self.analysis_of(&fill) {
            Some((analysis, epoch)) => self.store_tentative(*fill, &analysis, epoch),
            None => self.follow_up(fill),
        }
    }

    fn finish_analysis(&mut self, analyse: Analyse, replies: &[u8]) {
        let Analyse { statement, part, types, epoch, context, fill, .. } = analyse;
        let database = self.visit.database();
        // A model in doubt will do: if the doubt was right the epoch ends, and this analysis with it.
        let (Some(part), Some(model)) = (statement.parts.get(part), database.latest_model()) else { return };
        if model.epoch != epoch {
            return;
        }
        let Some(found) = findings(replies) else { return };
        let analysis = Analysis::conclude(database, &model, part, &found);
        let analysis = std::sync::Arc::new(analysis);
        database.remember(AnalysisKey::new(part, &types, &context, epoch), analysis.clone());
        if let Some(fill) = fill {
            self.store_tentative(*fill, &analysis, epoch);
        }
    }
}

/// Parse, Bind, Execute and Close for each text.
pub(super) fn run_all(out: &mut BytesMut, texts: &[&str]) -> Result<(), EncodeError> {
    for text in texts {
        encode::parse(out, NAME, text.as_bytes(), &[])?;
        encode::bind(out, b"", NAME, &[], std::iter::empty::<Option<&[u8]>>(), &[])?;
        encode::execute(out, b"", 0)?;
        encode::close(out, Target::Statement, NAME)?;
    }
    Ok(())
}

/// `None` if the statement could not be analysed: a lock, a timeout, a cancel, or an error of its own. That is not remembered,
/// since a statement of the same shape may do better.
pub(super) fn findings(replies: &[u8]) -> Option<Findings> {
    let mut found = Findings::default();
    for (tag, body) in frames(replies) {
        match tag {
            backend::ERROR_RESPONSE => return None,
            backend::PARAMETER_DESCRIPTION => found.parameter_types = parameter_types(body).ok()?.collect(),
            backend::DATA_ROW => found.locks.push(lock(body)?),
            _ => {}
        }
    }
    Some(found)
}

pub(super) fn lock(body: &[u8]) -> Option<RelationLock> {
    let row = data_row(body).ok()?;
    let [Some(oid), Some(mode), path] = row.as_slice() else { return None };
    let oid = TableOid(std::str::from_utf8(oid).ok()?.parse().ok()?);
    let writes = !matches!(*mode, b"AccessShareLock" | b"RowShareLock");
    // A temporary relation's file is `t<backend>_<node>` (relpath.c); views have none.
    let temporary =
        path.is_some_and(|path| path.rsplit(|byte| *byte == b'/').next().is_some_and(|f| f.starts_with(b"t")));
    Some(RelationLock { oid, writes, temporary })
}

pub(super) fn baseline(replies: &[u8]) -> Option<Baseline> {
    let mut hasher = KeyHasher::new();
    let mut identity: Option<(bool, bool)> = None;
    for (tag, body) in frames(replies) {
        match tag {
            backend::ERROR_RESPONSE => return None,
            backend::DATA_ROW => {
                let row: Vec<&[u8]> = data_row(body).ok()?.into_iter().map(Option::unwrap_or_default).collect();
                match row.as_slice() {
                    [_, _, _, _, isolation, temporary] => {
                        hasher.fields(row[..4].iter().copied());
                        identity = Some((*isolation == b"read committed", *temporary == b"t"));
                    }
                    [name, value] => {
                        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
                        if name != "search_path" && setting_is_relevant(&name) {
                            hasher.field(name.as_bytes()).field(value);
                        }
                    }
                    _ => return None,
                }
            }
            _ => {}
        }
    }
    let (read_committed, temporary) = identity?;
    Some(Baseline { fingerprint: hasher.finish(), read_committed, temporary })
}

/// The frames of collected replies, which are whole.
pub(super) fn frames(mut replies: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let header = frame::peek(replies).ok()??;
        let body = replies.get(frame::HEADER_BYTES..header.total)?;
        replies = &replies[header.total..];
        Some((header.tag, body))
    })
}
