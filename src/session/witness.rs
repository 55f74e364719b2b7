//! The lock witness: what an opaque write has written, told by the upstream's own lock table.
//!
//! **Invariant.** Before it commits, a transaction holds a lock stronger than ROW SHARE on every relation that it has written,
//! whatever code did it: triggers, foreign key actions, dynamic SQL, TRUNCATE, DDL. Locks are given up in between only by rolling
//! back to a savepoint, and then what was written under them is gone too. So a transaction of which everything was marked has
//! written at most the relations that its backend has locked *at its very end*, and only these are bumped.
//!
//! The end is reached in two ways. In a block, the question goes out right before a COMMIT that stands alone, in the same round
//! trip, under a savepoint, so that nothing that befalls it touches the client's transaction. For a statement in a
//! transaction of its own it stands between the client's last Execute and its Sync, once it has been tried between transactions; if
//! it fails all the same, so does the transaction, and the client is told as for any error at commit.
//!
//! Not used where the end cannot be reached: a simple Query outside a block, PREPARE TRANSACTION, CALL and DO outside a block
//! (they may commit in the middle), constraint triggers that are deferred to the commit itself, cursors WITH HOLD, which run to
//! their end at the commit; nor in databases whose functions
//! may write through other connections ([`Model::writes_elsewhere`](crate::catalog::model::Model::writes_elsewhere)).

use std::sync::{Arc, LazyLock};

use super::Session;
use super::block::{Status, Writes};
use super::jobs::{self, Job};
use super::pipeline::{Origin, Request};
use super::span::Span;
use crate::cache::versions::TableOid;
use crate::catalog::fingerprint::FINGERPRINTED;
use crate::statement::{Class, Statement};
use crate::telemetry::metrics::Scope;
use crate::wire::frame::backend;
use crate::wire::message::backend::data_row;
use crate::wire::message::encode;

const SAVEPOINT: &str = "SAVEPOINT heliosproxy";
const ROLLBACK_TO: &str = "ROLLBACK TO SAVEPOINT heliosproxy";
const RELEASE: &str = "RELEASE SAVEPOINT heliosproxy";

/// Every relation locked for writing, and one word about the rest: `wide` if the locks do not tell all, else whether the
/// catalogue has `changed` in this transaction. Its rows are counted for that: what DDL does to the catalogue is plain inserts,
/// updates and deletes. (Of user tables such counts would miss TRUNCATE.)
pub(super) static QUESTION: LazyLock<String> = LazyLock::new(|| {
    let catalogs: Vec<String> = FINGERPRINTED
        .iter()
        .map(|(catalog, _)| *catalog)
        .chain(["pg_authid"])
        .map(|name| format!("pg_catalog.{name}"))
        .collect();
    format!(
        "SELECT l.relation::pg_catalog.text FROM pg_catalog.pg_locks l \
         WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
         AND l.mode OPERATOR(pg_catalog.<>) ALL ('{{AccessShareLock,RowShareLock}}'::pg_catalog.text[]) \
         UNION ALL SELECT CASE \
         WHEN pg_catalog.current_setting('track_counts') OPERATOR(pg_catalog.<>) 'on' \
             OR EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgdeferrable AND NOT t.tgisinternal) \
             OR EXISTS (SELECT FROM pg_catalog.pg_cursors c WHERE c.is_holdable) THEN 'wide' \
         WHEN EXISTS (SELECT FROM pg_catalog.unnest('{{{}}}'::pg_catalog.regclass[]) c WHERE \
             pg_catalog.pg_stat_get_xact_tuples_inserted(c) OPERATOR(pg_catalog.>) 0 \
             OR pg_catalog.pg_stat_get_xact_tuples_updated(c) OPERATOR(pg_catalog.>) 0 \
             OR pg_catalog.pg_stat_get_xact_tuples_deleted(c) OPERATOR(pg_catalog.>) 0) THEN 'changed' \
         ELSE 'same' END",
        catalogs.join(",")
    )
});

/// Whether the question may stand inside the client's transaction, where its failure would be the client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trust {
    /// It has not been tried in this role.
    #[default]
    Untried,
    /// It is to be tried when the connection is idle.
    Wanted,
    Works,
    /// It has failed: the lock table may be closed to this role.
    Refused,
}

/// Where a span's witness was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// In a request of its own right before the span's.
    Before,
    /// Inside the span.
    Within,
}

/// What the upstream has answered.
#[derive(Debug, PartialEq, Eq, Default)]
pub struct Witness {
    /// Relations that may have been written.
    relations: Vec<TableOid>,
    catalog_changed: bool,
}

impl Session {
    /// A COMMIT is about to be relayed, alone. Asks if the block has written what nobody could tell.
    pub(super) fn ask_before_commit(&mut self, statement: &Arc<Statement>) -> Option<Asked> {
        let [part] = statement.parts.as_slice() else { return None };
        let is_end = part.class == Class::Commit { chain: false } && self.block.is_opaque();
        if !is_end || !self.pipeline.is_empty() || self.open.is_some() || !self.may_ask() {
            return None;
        }
        self.start(Job::Witness);
        Some(Asked::Before)
    }

    /// A Sync is about to be relayed. Asks if its batch is a transaction of its own that wrote what nobody could tell.
    pub(super) fn ask_before_sync(&mut self, span: &mut Span) {
        let is_end = span.is_opaque() && !span.commits_itself && self.block.status() == Status::Idle;
        if !is_end || self.pipeline.has_spans() || !self.may_ask() {
            return;
        }
        if self.witness_trust == Trust::Untried {
            self.witness_trust = Trust::Wanted;
        }
        if self.witness_trust != Trust::Works {
            return;
        }
        let before = self.upstream.output.len();
        if jobs::run_all(&mut self.upstream.output, &[&QUESTION]).is_err() {
            self.upstream.output.truncate(before);
            return;
        }
        for request in [Request::Parse(None), Request::Bind, Request::Execute, Request::Close] {
            self.pipeline.push(Origin::Witness, request);
        }
        span.witness = Some(Asked::Within);
    }

    fn may_ask(&self) -> bool {
        self.tracking
            && self.by_table
            && self.visit.database().latest_model().is_some_and(|model| !model.writes_elsewhere)
    }

    /// The answer to the question that was asked for a span that has ended.
    ///
    /// `failed` says that there was an error in the span, whosever it was.
    pub(super) fn witness(&mut self, asked: Asked, failed: bool) -> Option<Witness> {
        match asked {
            Asked::Before => self.witnessed.take(),
            Asked::Within => {
                let replies = std::mem::take(&mut self.own_replies);
                // It was reached, since something has answered, and did not succeed.
                if failed && !replies.is_empty() {
                    self.witness_trust = Trust::Refused;
                }
                // An error undoes the whole of a transaction that is only this span.
                if failed { Some(Witness::default()) } else { Witness::read(&replies) }
            }
        }
    }

    /// Settles writes of which everything was marked, as the witness says.
    pub(super) fn settle_witnessed(&self, writes: Writes, witness: &Witness) {
        let database = self.visit.database();
        if writes.doubts_catalog && witness.catalog_changed {
            database.doubt();
        }
        let tables: Vec<_> = witness.relations.iter().filter_map(|oid| database.versions.known_table(*oid)).collect();
        for marks in writes.marks {
            marks.settle_narrowed(&tables);
        }
        self.shared.metrics.cache_invalidations(Scope::Witnessed).increment(1);
    }

    /// Puts the question under a savepoint, and what removes that into a span of its own: after an error the first is skipped.
    pub(super) fn send_witness(&mut self) -> Result<(), encode::EncodeError> {
        jobs::run_all(&mut self.upstream.output, &[SAVEPOINT, &QUESTION])?;
        self.send_end(&[ROLLBACK_TO, RELEASE])
    }

    /// The question has been tried between transactions.
    pub(super) fn tried_witness(&mut self, replies: &[u8]) {
        let failed = jobs::frames(replies).any(|(tag, _)| tag == backend::ERROR_RESPONSE);
        self.witness_trust = if failed { Trust::Refused } else { Trust::Works };
    }
}

impl Witness {
    /// `None` if the question failed, or the locks do not tell all.
    pub(super) fn read(replies: &[u8]) -> Option<Self> {
        let mut relations = Vec::new();
        let mut catalog_changed = None;
        for (tag, body) in jobs::frames(replies) {
            match tag {
                backend::ERROR_RESPONSE => return None,
                backend::DATA_ROW => match data_row(body).ok()?.as_slice() {
                    [Some(b"same")] => catalog_changed = Some(false),
                    [Some(b"changed")] => catalog_changed = Some(true),
                    [Some(oid)] => relations.push(TableOid(std::str::from_utf8(oid).ok()?.parse().ok()?)),
                    _ => return None,
                },
                _ => {}
            }
        }
        Some(Self { relations, catalog_changed: catalog_changed? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: &[u8]) -> Vec<u8> {
        let mut frame = vec![backend::DATA_ROW];
        frame.extend_from_slice(&(4 + 2 + 4 + value.len() as u32).to_be_bytes());
        frame.extend_from_slice(&1u16.to_be_bytes());
        frame.extend_from_slice(&(value.len() as u32).to_be_bytes());
        frame.extend_from_slice(value);
        frame
    }

    #[test]
    fn an_answer_counts_only_if_it_is_whole() {
        let answer = |rows: &[&[u8]]| Witness::read(&rows.iter().flat_map(|value| row(value)).collect::<Vec<_>>());
        let relations = vec![TableOid(7), TableOid(16384)];
        assert_eq!(answer(&[b"7", b"16384", b"same"]), Some(Witness { relations, catalog_changed: false }));
        assert_eq!(answer(&[b"changed"]), Some(Witness { relations: Vec::new(), catalog_changed: true }));
        assert_eq!(answer(&[b"7", b"wide"]), None);
        assert_eq!(answer(&[b"7"]), None);
        assert_eq!(answer(&[]), None);
        assert_eq!(Witness::read(&[&row(b"same")[..], b"E\0\0\0\x05\0"].concat()), None);
    }
}
