//! What the upstream says about one statement: which relations it locks, and what follows from that under the model.

use std::sync::Arc;

use super::database::Database;
use super::model::Model;
use super::plan::{ReadPlan, WritePlan};
use super::scan::ScanMemo;
use crate::cache::verdict::{Bypass, RelationName};
use crate::cache::versions::TableOid;
use crate::statement::{Class, Part};

/// Tables that a read is split over, children and partitions included. Each connection that works on it locks all of them, however few
/// of them the statement needs.
const MOST_TABLES: usize = 256;

/// An analysis holds for a statement's shape, in a session context, in a catalogue epoch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AnalysisKey {
    /// [`Part::shape`].
    pub shape: [u8; 32],
    /// Digest of the session's settings.
    pub context: [u8; 32],
    /// Parameter types as Parse declares them.
    pub types: Box<[u32]>,
    pub epoch: u64,
}

/// What is known of a statement.
#[derive(Debug)]
pub struct Analysis {
    /// The tables that a read depends on, or why it is not cached.
    pub read: Result<ReadPlan, Bypass>,
    /// What it reads: as far as its rows depend on them if it is a read for the cache, else as far as it locks them.
    pub relations: Arc<[Arc<RelationName>]>,
    pub writes: WritePlan,
    /// It may have changed settings or made temporary objects.
    pub disturbs_session: bool,
    /// It may leave something in its session that its text does not tell.
    pub may_keep: bool,
    /// The one table that it names, ordinary or partitioned, if there is nothing else that it locks.
    pub table: Option<TableOid>,
    pub scan: ScanMemo,
}

/// What the upstream has said about a statement.
#[derive(Debug, Default)]
pub struct Findings {
    pub locks: Vec<RelationLock>,
    /// The types of its parameters, declared or not.
    pub parameter_types: Box<[u32]>,
}

/// One relation lock of the analysing transaction, from `pg_locks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelationLock {
    pub oid: TableOid,
    /// Stronger than ACCESS SHARE and ROW SHARE: it may be written.
    pub writes: bool,
    /// Its storage is a temporary table's.
    pub temporary: bool,
}

impl AnalysisKey {
    pub fn new(part: &Part, types: &[u32], context: &[u8; 32], epoch: u64) -> Self {
        Self { shape: part.shape, context: *context, types: types.into(), epoch }
    }
}

impl Analysis {
    /// Draws the conclusions for `part`.
    pub fn conclude(database: &Database, model: &Model, part: &Part, found: &Findings) -> Self {
        if model.may_write(part) {
            return Self::opaque();
        }
        let written: Vec<TableOid> =
            found.locks.iter().filter(|lock| lock.writes && !lock.temporary).map(|lock| lock.oid).collect();
        let writes = match model.written(&written) {
            Some(tables) => WritePlan::new(database, model, part, found, &written, &tables),
            None => WritePlan::everything(),
        };
        let opaque = writes.is_everything();
        let read = match part.class {
            Class::Read if writes.is_nothing() => model.readable(part, &found.locks),
            Class::Read => Err(Bypass::RowLocks),
            _ => Err(Bypass::NotRead),
        };
        let relations = match &read {
            Ok(tables) => model.names(tables.iter().copied()),
            Err(_) => model.names(found.locks.iter().map(|lock| lock.oid)),
        };
        let read = read.map(|tables| ReadPlan::new(database, model, part, found, &tables));
        let table = model.sole_table(&found.locks, MOST_TABLES);
        let (scan, may_keep) = (ScanMemo::default(), opaque || model.may_keep(part));
        Self { read, relations, writes, disturbs_session: opaque, may_keep, table, scan }
    }

    /// Nothing can be said: it may write everything and do anything to its session.
    pub fn opaque() -> Self {
        Self {
            read: Err(Bypass::Function),
            relations: Arc::default(),
            writes: WritePlan::everything(),
            disturbs_session: true,
            may_keep: true,
            table: None,
            scan: ScanMemo::default(),
        }
    }
}
