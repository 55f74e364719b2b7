//! One statement that is split, and what each connection is asked for.
//!
//! **Invariant.** All connections work in one snapshot, on one table and what is below it: the leader locks all of that before its
//! snapshot is taken and exports it, the followers import it and lock the same. Each range of blocks is planned anew, and a child
//! or a partition can be attached at any time; so with each the server is asked what is locked now and what the statement's name
//! means, and its rows count only if that is what the leader has found. A follower never waits for a lock that the leader holds
//! while others wait for it: it gives up instead, and the others do its share.

use std::sync::Arc;

use bytes::Bytes;

use super::chunks::TableSize;
use super::grouping::{self, Grouping};
use super::link::{Link, LinkError, Request, Stop};
use super::order::Place;
use super::ordering::Sorting;
use super::pool::{Account, LinkKey};
use super::settings::{IDENTITY, Replay, SETTINGS, SessionSettings};
use crate::cache::verdict::RelationName;
use crate::cache::versions::TableOid;
use crate::wire::message::backend::data_row;
use crate::wire::message::encode::{self, EncodeError};
use crate::wire::message::{Bind, Target};

const STATEMENT: &[u8] = b"heliosproxy_range";
pub(super) const PORTAL: &[u8] = b"heliosproxy_range";
const TID_OID: u32 = 27;

const BEGIN: &str = "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// The leader has nothing to do while others finish.
const STAY: &str = "SET LOCAL idle_in_transaction_session_timeout = 0";
/// How long a follower waits for a lock while it plans.
const FOLLOWER_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = 50";

/// What the transaction has locked so far, but for the view that says so.
macro_rules! of_locked {
    ($columns:literal) => {
        concat!(
            "SELECT l.relation, ",
            $columns,
            " FROM pg_catalog.pg_locks l WHERE l.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid() \
             AND l.locktype OPERATOR(pg_catalog.=) 'relation' \
             AND l.relation OPERATOR(pg_catalog.<>) 'pg_catalog.pg_locks'::pg_catalog.regclass::pg_catalog.oid"
        )
    };
}

const SNAPSHOT: &str = "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.current_setting('block_size')";

const SIZES: &str = of_locked!(
    "pg_catalog.pg_relation_size(l.relation::pg_catalog.regclass), pg_catalog.pg_table_size(l.relation::pg_catalog.regclass)"
);

/// Whether a relation is what a name means. Without indexes, which are locked by planning. (Asked of a catalogue that is read in the
/// transaction's snapshot, it would not know of tables that are younger.)
const LOCKS: &str = concat!(
    of_locked!("l.relation OPERATOR(pg_catalog.=) pg_catalog.to_regclass($1)::pg_catalog.oid"),
    " AND pg_catalog.pg_index_has_property(l.relation::pg_catalog.regclass, 'clusterable') IS NULL"
);

/// A read of one table by ranges of its blocks.
pub struct ScanQuery {
    pub account: Arc<Account>,
    pub settings: Arc<SessionSettings>,
    pub replay: Arc<Replay>,
    pub table: TableOid,
    pub relation: Arc<RelationName>,
    /// As the statement names it.
    pub name: String,
    /// Its last two parameters are the range.
    pub text: Vec<u8>,
    /// How the ranges' rows are put together, if they are partial groups, or sorted.
    pub grouping: Option<Grouping>,
    pub sorting: Option<Sorting>,
    /// As the client has declared them.
    pub types: Vec<u32>,
    pub parameters: Parameters,
    /// Connections that may work on it.
    pub degree: usize,
}

/// The client's parameters.
#[derive(Debug, Default)]
pub struct Parameters {
    formats: Vec<i16>,
    values: Vec<Option<Bytes>>,
    results: Vec<i16>,
}

/// What the leader has found out.
pub(super) struct Begun {
    pub snapshot: String,
    /// The table and all that is below it, in order.
    tables: Vec<u32>,
    pub size: TableSize,
    pub block_bytes: u64,
    /// Of the rows of the ranges.
    pub description: Bytes,
    /// The types of the parameters of the statement for a range, and in which formats its results are wanted.
    pub types: Vec<u32>,
    results: Vec<i16>,
}

impl Parameters {
    /// `body` is what `bind` was decoded from.
    pub fn of(bind: &Bind<'_>) -> Self {
        let values: Vec<_> = bind.parameters.iter().map(|value| value.map(Bytes::copy_from_slice)).collect();
        Self {
            formats: (0..values.len()).map(|index| bind.parameter(index).map_or(0, |(format, _)| format)).collect(),
            results: bind.result_formats.iter().collect(),
            values,
        }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Binds a statement that has these parameters.
    pub fn bind(&self, request: &mut Request, portal: &[u8], statement: &[u8]) -> Result<(), EncodeError> {
        self.bind_with(request, portal, statement, &[], &[])
    }

    /// Binds a statement that has these parameters and `more`, in binary.
    pub(super) fn bind_with(
        &self,
        request: &mut Request,
        portal: &[u8],
        statement: &[u8],
        more: &[Bytes],
        results: &[i16],
    ) -> Result<(), EncodeError> {
        let more_values = more.iter().map(|value| Some(&**value));
        let values: Vec<_> = self.values.iter().map(|value| value.as_deref()).chain(more_values).collect();
        let formats: Vec<i16> = self.formats.iter().copied().chain(more.iter().map(|_| 1)).collect();
        encode::bind(&mut request.0, portal, statement, &formats, values.into_iter(), results)
    }

    /// A number of rows, in a parameter; the inner one is `None` for NULL. None if it is not one, or of a type that is not followed.
    pub(super) fn count(&self, number: u16, types: &[u32]) -> Option<Option<u64>> {
        let index = usize::from(number).checked_sub(1)?;
        let Some(value) = self.values.get(index)? else { return Some(None) };
        let length = match types.get(index) {
            None | Some(0 | 20) => 8,
            Some(23) => 4,
            Some(21) => 2,
            Some(_) => return None,
        };
        let count = match self.formats.get(index)? {
            0 => self::number::<i64>(value)?,
            _ if value.len() != length => return None,
            _ => {
                let sign = if value.first()? & 0x80 == 0 { 0 } else { 0xFF };
                let mut bytes = [sign; 8];
                bytes[8 - length..].copy_from_slice(value);
                i64::from_be_bytes(bytes)
            }
        };
        u64::try_from(count).ok().map(Some)
    }

    /// In which formats the client wants its results.
    pub(super) fn results(&self) -> &[i16] {
        &self.results
    }

    /// Binds a statement that has these parameters and two more, which are tids.
    pub fn bind_range(
        &self,
        request: &mut Request,
        portal: &[u8],
        statement: &[u8],
        (from, to): (u32, u32),
        results: &[i16],
    ) -> Result<(), EncodeError> {
        let range = [from, to].map(|block| format!("({block},0)"));
        let values: Vec<_> = self.values.iter().map(|value| value.as_deref()).collect();
        let values = values.into_iter().chain(range.iter().map(|tid| Some(tid.as_bytes()))).collect::<Vec<_>>();
        let formats: Vec<i16> = self.formats.iter().copied().chain([0, 0]).collect();
        encode::bind(&mut request.0, portal, statement, &formats, values.into_iter(), results)
    }
}

/// The types of such a statement's parameters, if the client has declared `types` for the first `count`.
pub fn range_types(types: &[u32], count: usize) -> Vec<u32> {
    let open = count.saturating_sub(types.len());
    types.iter().copied().chain(std::iter::repeat_n(0, open)).chain([TID_OID, TID_OID]).collect()
}

impl ScanQuery {
    pub(super) fn key(&self) -> LinkKey {
        LinkKey { account: self.account.key, settings: self.settings.digest() }
    }

    /// Gives a new link the session's settings. False if it does not end up with the same.
    pub(super) async fn dress(&self, link: &mut Link, stop: &mut Stop) -> Result<bool, LinkError> {
        let mut request = Request::default();
        self.replay.request(&mut request)?;
        let replayed = link.ask(request, stop).await?.commands.len();
        let mut request = Request::default();
        request.run(IDENTITY)?;
        request.run(SETTINGS)?;
        let answers = link.ask(request, stop).await?;
        let settings = answers.row(0).and_then(|identity| {
            let rows = answers.commands.get(1)?.iter().map(|row| three(row));
            SessionSettings::read(&identity, rows)
        });
        tracing::debug!(replayed, "a connection has been given its session's settings");
        Ok(settings.is_some_and(|(settings, _)| settings == *self.settings))
    }

    /// Locks the table, takes and exports the snapshot, and prepares the statement.
    pub(super) async fn lead(&self, link: &mut Link, stop: &mut Stop) -> Result<Begun, LinkError> {
        let mut request = Request::default();
        self.begin(&mut request)?;
        let types = range_types(&self.types, self.parameters.len());
        let results = &self.parameters.results;
        self.prepare(&mut request, &types, results)?;
        let answers = link.ask(request, stop).await?;
        let description = answers.descriptions.last().ok_or(LinkError::Protocol("no description"))?;
        let begun = begun(&answers.commands, description, types, results.clone())
            .ok_or(LinkError::Protocol("no snapshot or no size"))?;
        let locks = answers.commands.last().ok_or(LinkError::Protocol("too few answers"))?;
        self.check_locks(locks, &begun)?;
        Ok(begun)
    }

    /// What the leader does before it prepares anything; see [`begun`].
    pub(super) fn begin(&self, request: &mut Request) -> Result<(), EncodeError> {
        request.run(BEGIN)?;
        request.run(STAY)?;
        // Before anything that takes the snapshot: what TRUNCATE or a rewrite has thrown away would be missing in an older one.
        request.run(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", self.quoted()))?;
        request.run(SNAPSHOT)?;
        request.run(SIZES)
    }

    /// Imports the snapshot, locks the table and prepares the statement.
    pub(super) async fn follow(&self, link: &mut Link, begun: &Begun, stop: &mut Stop) -> Result<(), LinkError> {
        let mut request = Request::default();
        request.run(BEGIN)?;
        request.run(&format!("SET TRANSACTION SNAPSHOT '{}'", begun.snapshot))?;
        request.run(STAY)?;
        request.run(FOLLOWER_LOCK_TIMEOUT)?;
        request.run(&format!("LOCK TABLE {} IN ACCESS SHARE MODE NOWAIT", self.quoted()))?;
        self.prepare(&mut request, &begun.types, &begun.results)?;
        // It holds the locks of its plan now.
        request.run(&format!("SET LOCAL lock_timeout = {}", self.settings.milliseconds("lock_timeout")))?;
        let answers = link.ask(request, stop).await?;
        let [.., locks, _] = answers.commands.as_slice() else { return Err(LinkError::Protocol("too few answers")) };
        self.check_locks(locks, begun)
    }

    /// Reads one range of blocks.
    pub(super) async fn read(
        &self,
        link: &mut Link,
        begun: &Begun,
        blocks: (u32, u32),
        stop: &mut Stop,
        place: Place<'_>,
    ) -> Result<u64, LinkError> {
        let mut request = Request::default();
        self.bind(&mut request, blocks, &begun.results)?;
        self.ask_for_locks(&mut request)?;
        encode::execute(&mut request.0, PORTAL, 0)?;
        link.rows(request, stop, |locks| self.check_locks(locks, begun), place).await
    }

    /// Ends the transaction and leaves nothing behind.
    pub(super) async fn end(link: &mut Link) -> Result<(), LinkError> {
        // The sender is kept: nobody stops this.
        let (_sender, mut never) = tokio::sync::watch::channel(false);
        let mut request = Request::default();
        request.run("ROLLBACK")?;
        encode::close(&mut request.0, Target::Statement, STATEMENT)?;
        grouping::close(&mut request)?;
        link.ask(request, &mut never).await.map(drop)
    }

    /// Reads one range of blocks, and gives each of its rows to `keep`.
    pub(super) async fn read_each(
        &self,
        link: &mut Link,
        begun: &Begun,
        blocks: (u32, u32),
        stop: &mut Stop,
        keep: impl FnMut(Bytes) -> Result<(), LinkError>,
    ) -> Result<(), LinkError> {
        let mut request = Request::default();
        self.bind(&mut request, blocks, &begun.results)?;
        self.ask_for_locks(&mut request)?;
        encode::execute(&mut request.0, PORTAL, 0)?;
        link.each_row(request, stop, |locks| self.check_locks(locks, begun), keep).await
    }

    /// Prepares the statement, runs it for no blocks at all, so that its plan has its locks, and asks for these.
    pub(super) fn prepare(&self, request: &mut Request, types: &[u32], results: &[i16]) -> Result<(), EncodeError> {
        encode::parse(&mut request.0, STATEMENT, &self.text, types)?;
        self.bind(request, (0, 0), results)?;
        encode::describe(&mut request.0, Target::Portal, PORTAL)?;
        encode::execute(&mut request.0, PORTAL, 0)?;
        self.ask_for_locks(request)
    }

    fn bind(&self, request: &mut Request, blocks: (u32, u32), results: &[i16]) -> Result<(), EncodeError> {
        encode::close(&mut request.0, Target::Portal, PORTAL)?;
        self.parameters.bind_range(request, PORTAL, STATEMENT, blocks, results)
    }

    pub(super) fn ask_for_locks(&self, request: &mut Request) -> Result<(), EncodeError> {
        request.run_with(LOCKS, &[self.name.as_bytes()])
    }

    /// The statement's name means its table, and what is locked is what the leader has found.
    pub(super) fn check_locks(&self, locks: &[Bytes], begun: &Begun) -> Result<(), LinkError> {
        let locked = |row: &Bytes| match data_row(row).ok()?.as_slice() {
            [Some(oid), is_meant] => Some((number(oid)?, *is_meant == Some(b"t"))),
            _ => None,
        };
        let locks: Option<Vec<(u32, bool)>> = locks.iter().map(locked).collect();
        let mut locks = locks.ok_or(LinkError::Protocol("no list of locks"))?;
        locks.sort_unstable();
        let is_named = locks.contains(&(self.table.0, true));
        if is_named && locks.iter().map(|(oid, _)| oid).eq(&begun.tables) { Ok(()) } else { Err(LinkError::Changed) }
    }

    fn quoted(&self) -> String {
        let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
        format!("{}.{}", quote(&self.relation.schema), quote(&self.relation.name))
    }
}

/// From what [`begin`](ScanQuery::begin) was answered.
pub(super) fn begun(commands: &[Vec<Bytes>], description: &Bytes, types: Vec<u32>, results: Vec<i16>) -> Option<Begun> {
    let [_begin, _stay, _lock, snapshot, sizes, ..] = commands else { return None };
    let snapshot = data_row(snapshot.first()?).ok()?;
    let [Some(snapshot), Some(block)] = snapshot.as_slice() else { return None };
    let snapshot = std::str::from_utf8(snapshot).ok()?;
    // It goes between quotes.
    if !snapshot.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return None;
    }
    let block_bytes = number::<u64>(block).filter(|bytes| *bytes > 0)?;
    let (mut tables, mut size) = (Vec::new(), TableSize::default());
    for row in sizes {
        let [oid, own, all] = three(row)?;
        tables.push(number(oid)?);
        size.files.push(u32::try_from(number::<u64>(own)?.div_ceil(block_bytes)).ok()?);
        size.all_pages += number::<u64>(all)?.div_ceil(block_bytes);
    }
    tables.sort_unstable();
    let (snapshot, description) = (snapshot.to_owned(), description.clone());
    Some(Begun { snapshot, tables, size, block_bytes, description, types, results })
}

fn number<T: std::str::FromStr>(value: &[u8]) -> Option<T> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The values of a row of three.
pub fn three(row: &[u8]) -> Option<[&[u8]; 3]> {
    let values = data_row(row).ok()?;
    let [Some(one), Some(two), Some(three)] = values.as_slice() else { return None };
    Some([*one, *two, *three])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_rows_is_read_from_its_parameter() {
        let parameters = |format: i16, value: Option<&'static [u8]>| Parameters {
            formats: vec![0, format],
            values: vec![None, value.map(Bytes::from_static)],
            results: vec![],
        };
        for (format, value, types, expected) in [
            (0, Some(&b"12"[..]), &[][..], Some(Some(12))),
            (0, None, &[], Some(None)),
            (0, Some(b"-1"), &[], None),
            (0, Some(b"1.5"), &[], None),
            (0, Some(b"12"), &[0, 1700], None),
            (1, Some(b"\0\0\0\0\0\0\x01\x02"), &[0, 20], Some(Some(258))),
            (1, Some(b"\0\0\x01\x02"), &[0, 23], Some(Some(258))),
            (1, Some(b"\x01\x02"), &[0, 21], Some(Some(258))),
            (1, Some(b"\xff\xff"), &[0, 21], None),
            (1, Some(b"\x01\x02"), &[0, 23], None),
        ] {
            assert_eq!(parameters(format, value).count(2, types), expected, "{value:?}");
        }
        assert_eq!(parameters(0, None).count(3, &[]), None);
        assert_eq!(parameters(0, None).count(1, &[]), Some(None));
    }
}
