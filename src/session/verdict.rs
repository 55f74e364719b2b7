//! What the cache makes of a read, told without running it. The session goes by it, and people are shown it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Session;
use super::lookup::ReadRequest;
use crate::cache::key::CacheKey;
use crate::cache::rules::Subject;
use crate::cache::verdict::{Bypass, RelationName};
use crate::catalog::analysis::Analysis;
use crate::statement::{Part, Statement};

/// Bytes of a statement that are logged.
const SHOWN_BYTES: usize = 200;

/// `timetz` and its array, `time` and its array (src/include/catalog/pg_type.dat).
const TIMETZ_OIDS: [u32; 2] = [1266, 1270];
const TIME_OIDS: [u32; 2] = [1083, 1183];

/// Whether a read is for the cache, why not, and what it depends on.
#[derive(Debug)]
pub struct Verdict {
    /// Under which terms it is cached, or why it is not.
    pub outcome: Result<Terms, Bypass>,
    /// What the upstream said about it, as far as it was asked: relations, and the counters that an entry depends on.
    pub analysis: Option<Arc<Analysis>>,
}

/// How a read is looked up and kept.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub key: CacheKey,
    /// How old an answer may be.
    pub ttl: Duration,
}

impl Verdict {
    pub fn relations(&self) -> &[Arc<RelationName>] {
        self.analysis.as_ref().map_or(&[], |analysis| &analysis.relations)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(Terms { key, ttl }) => write!(f, "cacheable, key {}, ttl {} s", key.prefix(), ttl.as_secs())?,
            Err(bypass) => write!(f, "not cacheable: {bypass}")?,
        }
        for (number, relation) in self.relations().iter().enumerate() {
            write!(f, "{}{relation}", if number == 0 { "; reads " } else { ", " })?;
        }
        Ok(())
    }
}

/// Whether its text, or its parameters by type or value, make the answer depend on when it is asked.
pub fn depends_on_time(request: &ReadRequest<'_>, part: &Part) -> bool {
    // Text becomes a timetz, and a time shifts its zone, by the offset that is in force today.
    let zoned_time = request
        .types
        .iter()
        .any(|oid| TIMETZ_OIDS.contains(oid) || (part.facts.shifts_zone && TIME_OIDS.contains(oid)));
    zoned_time || request.has_special_time_parameter() || part.facts.context_keyword || part.facts.special_time_literal
}

impl Session {
    /// The verdict on a read as of now. It runs nothing and changes nothing.
    pub(super) fn verdict(&mut self, request: &ReadRequest<'_>) -> Verdict {
        let mut analysis = None;
        let outcome = self.terms(request, &mut analysis);
        let verdict = Verdict { outcome, analysis };
        if tracing::enabled!(tracing::Level::DEBUG) {
            let shown = &request.text[..request.text.len().min(SHOWN_BYTES)];
            tracing::debug!(pid = self.pid(), statement = %String::from_utf8_lossy(shown), %verdict, "considered");
        }
        verdict
    }

    /// Puts what is known of the statement into `known` on the way.
    fn terms(&mut self, request: &ReadRequest<'_>, known: &mut Option<Arc<Analysis>>) -> Result<Terms, Bypass> {
        let [part] = request.statement.parts.as_slice() else { return Err(Bypass::NotRead) };
        if !request.statement.is_single_read() {
            return Err(Bypass::NotRead);
        }
        if !self.caching {
            return Err(Bypass::Disabled);
        }
        // One that is split has to be safe all the same, which is told below.
        if request.statement.hint.nocache && !self.may_split(request) {
            return Err(Bypass::Hint);
        }
        if self.pipeline.owes_client() || self.open.is_some() {
            return Err(Bypass::Pipelined);
        }
        if !self.block.allows_cache() {
            return Err(Bypass::Transaction);
        }
        if !self.context.is_plain_utf8() {
            return Err(Bypass::Encoding);
        }
        if depends_on_time(request, part) {
            return Err(Bypass::Context);
        }
        let context = self.context.digest().copied().ok_or(Bypass::Settings)?;
        if let Some(baseline) = self.context.baseline() {
            if baseline.temporary {
                return Err(Bypass::Temporary);
            }
            if !baseline.read_committed {
                return Err(Bypass::Transaction);
            }
        }
        let database = self.visit.database();
        let stands = database.is_certain() || (self.oldest_now().is_some() && database.is_undoubted());
        if !stands {
            return Err(Bypass::Catalog);
        }
        let epoch = database.epoch();
        let analysis = known.insert(
            self.known
                .analysis(database, request.statement, request.types, &context, epoch)
                .ok_or(Bypass::Undecided)?,
        );
        if let Err(bypass) = &analysis.read {
            return Err(*bypass);
        }
        let ttl = self.ttl(request.statement, request.text, analysis)?;
        Ok(Terms { key: request.key(&context), ttl })
    }

    /// How old an answer may be by rules and hints, or which of them forbids the cache.
    pub(super) fn ttl(&self, statement: &Statement, text: &[u8], analysis: &Analysis) -> Result<Duration, Bypass> {
        self.shared.rules.load().decide(&self.subject(statement, text, analysis))
    }

    /// What rules are held against.
    pub(super) fn subject<'a>(
        &'a self,
        statement: &'a Statement,
        text: &'a [u8],
        analysis: &'a Analysis,
    ) -> Subject<'a> {
        Subject {
            statement,
            text,
            relations: &analysis.relations,
            user: self.context.user(),
            application_name: self.context.application_name(),
        }
    }
}
