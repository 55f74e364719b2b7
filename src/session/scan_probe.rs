//! Asking, in the session's own context, whether a read is worth splitting: which relations it locks, how it would be planned
//! whole and by ranges of blocks, how large its table is, and what the session's settings are.

use std::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::jobs::{BEGIN, LOCKS, NAME, ROLLBACK, STATEMENT, frames, lock, run_all};
use super::lookup::ReadRequest;
use crate::catalog::analysis::{Analysis, AnalysisKey, Findings};
use crate::parallel::{
    COLLATIONS, IDENTITY, Ordered, Parameters, PlannedScan, Request, SETTINGS, ScanThresholds, SessionSettings, Shape,
    range_types, three,
};
use crate::statement::{Ordering, Statement};
use crate::telemetry::metrics::Unsplit;
use crate::wire::frame::backend;
use crate::wire::message::backend::{data_row, parameter_types};
use crate::wire::message::encode::{self, EncodeError};
use crate::wire::message::{Bind, Target};

/// The user's tables that the transaction has locked so far and that have files, with what their statistics and these say: the
/// statement's table, and those of its children and partitions that the planner has not ruled out.
const SIZES: &str = "SELECT l.relation, c.reltuples, pg_catalog.pg_table_size(l.relation::pg_catalog.regclass) \
     FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) l.relation \
     WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
     AND c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace";

/// How long a scan that is too small is not looked at again, in milliseconds.
const SMALL_FOR: u64 = 60_000;

#[derive(Debug)]
pub struct ScanProbe {
    statement: Arc<Statement>,
    /// What is asked about, and the same for a range of blocks; for groups that is asked when they are split.
    text: Bytes,
    range: Option<Vec<u8>>,
    types: Vec<u32>,
    /// The body of its Bind.
    bind: Option<Bytes>,
    epoch: u64,
    context: [u8; 32],
}

/// The rows of each command, in the order of [`Session::send_scan_probe`].
#[derive(Default)]
struct Answers<'a> {
    commands: Vec<Vec<&'a [u8]>>,
    descriptions: Vec<&'a [u8]>,
    parameter_types: Option<Box<[u32]>>,
}

impl ScanProbe {
    pub fn new(request: &ReadRequest<'_>) -> Option<Self> {
        let part = request.statement.parts.first()?;
        let parameters = request.bind.as_ref().map_or(0, |(_, bind)| bind.parameters.len());
        if request.types.len() > parameters {
            return None;
        }
        Some(Self {
            statement: request.statement.clone(),
            text: Bytes::copy_from_slice(part.text_of(request.text)),
            range: if part.groups { None } else { Some(part.range(request.text, parameters + 1)?.text) },
            types: request.types.to_vec(),
            bind: request.bind.map(|(body, _)| Bytes::copy_from_slice(body)),
            epoch: 0,
            context: [0; 32],
        })
    }
}

impl Session {
    pub(super) fn send_scan_probe(&mut self, probe: &mut ScanProbe) -> Result<(), EncodeError> {
        probe.epoch = self.visit.database().epoch();
        probe.context = self.context.digest().copied().unwrap_or_default();
        let timeout = format!("SET LOCAL lock_timeout = {}", self.shared.config.load().catalog.lock_timeout_ms);
        // It could be decoded before.
        let bind = probe.bind.as_deref().and_then(|body| Bind::decode(body).ok());
        let parameters = bind.as_ref().map(Parameters::of).unwrap_or_default();
        let range_types = range_types(&probe.types, parameters.len());
        let explain = |text: &[u8]| [b"EXPLAIN (FORMAT JSON) ", text].concat();

        let out = &mut self.upstream.output;
        // The settings first, since what follows changes one of them; with the collations in a transaction of their own, whose locks
        // are not the statement's.
        run_all(out, &[BEGIN, IDENTITY, SETTINGS, COLLATIONS, ROLLBACK, BEGIN, &timeout])?;
        encode::parse(out, STATEMENT, &probe.text, &probe.types)?;
        encode::describe(out, Target::Statement, STATEMENT)?;
        run_all(out, &[LOCKS])?;
        if let Some(range) = &probe.range {
            encode::parse(out, NAME, range, &range_types)?;
            encode::describe(out, Target::Statement, NAME)?;
            encode::close(out, Target::Statement, NAME)?;
        }
        encode::parse(out, NAME, &explain(&probe.text), &probe.types)?;
        let mut request = Request::default();
        parameters.bind(&mut request, b"", NAME)?;
        out.extend_from_slice(&request.into_messages());
        encode::execute(out, b"", 0)?;
        encode::close(out, Target::Statement, NAME)?;
        run_all(out, &[SIZES])?;
        if let Some(range) = &probe.range {
            encode::parse(out, NAME, &explain(range), &range_types)?;
            let mut request = Request::default();
            parameters.bind_range(&mut request, b"", NAME, (0, 1), &[])?;
            out.extend_from_slice(&request.into_messages());
            encode::execute(out, b"", 0)?;
            encode::close(out, Target::Statement, NAME)?;
        }
        self.send_end(&[ROLLBACK])
    }

    pub(super) fn finish_scan_probe(&mut self, probe: ScanProbe, replies: &[u8]) {
        let ScanProbe { statement, types, epoch, context, .. } = &probe;
        let database = self.visit.database();
        let (Some(part), Some(model)) = (statement.parts.first(), database.latest_model()) else { return };
        if model.epoch != *epoch {
            return;
        }
        let key = AnalysisKey::new(part, types, context, *epoch);
        let Some(answers) = Answers::read(replies) else {
            // It ran into an error; if the statement is a good one, it is not asked about again.
            if let Some(analysis) = database.analysis(&key) {
                analysis.scan.never(Unsplit::Failed);
            }
            return;
        };
        let analysis = match database.analysis(&key) {
            Some(analysis) => analysis,
            None => {
                let Some(found) = answers.findings() else { return };
                let analysis = Arc::new(Analysis::conclude(database, &model, part, &found));
                database.remember(key, analysis.clone());
                analysis
            }
        };
        let thresholds = ScanThresholds::from(&self.shared.config.load().parallel);
        let ordering = part.scan.as_ref().and_then(|scan| scan.ordering());
        let later = self.shared.store.now() + SMALL_FOR;
        match answers.judge(&analysis, part.groups, ordering, thresholds) {
            Ok(()) => analysis.scan.split(),
            Err(Unsplit::Small) => analysis.scan.not_until(Unsplit::Small, later),
            // Another statement of this shape is sorted by something else.
            Err(reason) if ordering.is_some_and(Ordering::is_by_position) => analysis.scan.not_until(reason, later),
            Err(reason) => analysis.scan.never(reason),
        }
        self.splitting.settings = answers.settings().map(|(settings, replay)| (Arc::new(settings), Arc::new(replay)));
    }
}

impl<'a> Answers<'a> {
    /// `None` if there was an error.
    fn read(replies: &'a [u8]) -> Option<Self> {
        let mut answers = Self::default();
        let mut rows = Vec::new();
        for (tag, body) in frames(replies) {
            match tag {
                backend::ERROR_RESPONSE => return None,
                backend::PARAMETER_DESCRIPTION if answers.parameter_types.is_none() => {
                    answers.parameter_types = Some(parameter_types(body).ok()?.collect());
                }
                backend::ROW_DESCRIPTION => answers.descriptions.push(body),
                backend::DATA_ROW => rows.push(body),
                backend::COMMAND_COMPLETE => answers.commands.push(std::mem::take(&mut rows)),
                _ => {}
            }
        }
        Some(answers)
    }

    fn command(&self, number: usize) -> &[&'a [u8]] {
        self.commands.get(number).map_or(&[], Vec::as_slice)
    }

    fn settings(&self) -> Option<(SessionSettings, crate::parallel::Replay)> {
        let identity = data_row(self.command(1).first()?).ok()?;
        SessionSettings::read(&identity, self.command(2).iter().map(|row| three(row)))
    }

    fn findings(&self) -> Option<Findings> {
        let locks = self.command(7).iter().map(|row| lock(row)).collect::<Option<Vec<_>>>()?;
        Some(Findings { locks, parameter_types: self.parameter_types.clone().unwrap_or_default() })
    }

    fn judge(
        &self,
        analysis: &Analysis,
        groups: bool,
        ordering: Option<&Ordering>,
        thresholds: ScanThresholds,
    ) -> Result<(), Unsplit> {
        if analysis.read.is_err() {
            return Err(Unsplit::Unsafe);
        }
        if analysis.table.is_none() {
            return Err(Unsplit::Relation);
        }
        let shape = match ordering {
            _ if groups => Shape::Groups,
            Some(_) => Shape::Sorted,
            None => Shape::Rows,
        };
        let plan = |number: usize| self.command(number).first().and_then(|row| only(row)).unwrap_or_default();
        // With the range the result must look the same.
        match (ordering, self.descriptions.as_slice()) {
            _ if groups => {}
            (None, [whole, range]) if whole == range => {}
            (Some(ordering), [whole, range]) => {
                let collations = self.command(3).first().and_then(|row| data_row(row).ok());
                let ordered = Ordered {
                    plans: [plan(8), plan(10)],
                    descriptions: [whole, range],
                    keys: ordering.keys(),
                    collations: match collations.as_deref() {
                        Some([default, named]) => [default, named].map(|value| *value == Some(b"t")),
                        _ => [false; 2],
                    },
                };
                ordered.keys()?;
            }
            _ => return Err(Unsplit::Plan),
        }
        let number = |value: &[u8]| std::str::from_utf8(value).ok()?.parse::<f64>().ok();
        let (mut rows, mut bytes) = (0.0, 0.0);
        for [_, its_rows, its_bytes] in self.command(9).iter().filter_map(|row| three(row)) {
            // A negative number of rows is an unknown one.
            rows += number(its_rows).unwrap_or_default().max(0.0);
            bytes += number(its_bytes).unwrap_or_default();
        }
        let range = (!groups).then(|| plan(10));
        PlannedScan { shape, whole: plan(8), range, rows, bytes: bytes as u64 }.judge(thresholds)
    }
}

/// The value of a row of one.
fn only(row: &[u8]) -> Option<&[u8]> {
    match data_row(row).ok()?.as_slice() {
        [value] => *value,
        _ => None,
    }
}
