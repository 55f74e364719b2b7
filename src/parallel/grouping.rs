//! A statement over groups: how the leader finds out whether its text was understood, and what the answer is made with.
//!
//! **Invariant.** Nothing is split unless the server has said, under the snapshot, of this very text: that it plans it as it plans
//! what we take it for; that nothing but what we take for aggregates is one; that all parts and keys are of types that are put
//! together exactly; and that the statement that puts them together has the columns of the original. What that statement sends
//! is the answer.

use bytes::Bytes;

use super::aggregate::{ParallelAggregator, PartColumn};
use super::link::{Link, LinkError, Request, Stop};
use super::order::Place;
use super::plan::is_grouping;
use super::scan::{Begun, PORTAL, ScanQuery, begun, range_types};
use crate::statement::Aggregation;
use crate::statement::aggregate::{Role, Sort};
use crate::statement::lexer::tokens;
use crate::telemetry::metrics::Unsplit;
use crate::wire::error::{field, sqlstate};
use crate::wire::frame::HEADER_BYTES;
use crate::wire::message::Target;
use crate::wire::message::backend::{Column, data_row, row_description};
use crate::wire::message::encode::{self, EncodeError};

/// Partial groups are for the proxy: all in binary.
const PARTIAL_RESULTS: &[i16] = &[1];

const WHOLE: &[u8] = b"heliosproxy_whole";
const MERGING: &[u8] = b"heliosproxy_merging";
const RESIDUE: &[u8] = b"heliosproxy_residue";
const PLAN: &[u8] = b"heliosproxy_plan";
/// Of what is asked at once.
const UNNAMED: &[u8] = b"";

/// Whether texts that are not the same may be equal under some collation.
const COLLATIONS: &str = "SELECT EXISTS (SELECT FROM pg_catalog.pg_collation c WHERE NOT c.collisdeterministic)";

/// What makes a statement one over groups.
pub struct Grouping {
    /// The statement; its tokens are an [`Aggregation`].
    pub text: Vec<u8>,
    /// Sums of `double precision` may depend on the order in which they are added.
    pub doubles: bool,
}

/// What puts the parts together.
pub(super) struct Merging {
    columns: Vec<PartColumn>,
    /// The RowDescription of the original.
    pub description: Bytes,
}

/// The text of a statement over groups, and what the server has said of it.
struct Original<'a> {
    text: &'a [u8],
    understood: Aggregation<'a, 'a>,
    columns: Vec<Column<'a>>,
    names: Vec<&'a str>,
    /// The types of its parameters.
    types: &'a [u32],
}

impl Merging {
    /// For groups that take no more than about so many bytes.
    pub fn aggregator(&self, limit: usize) -> ParallelAggregator {
        ParallelAggregator::new(self.columns.clone(), limit)
    }
}

/// Closes the statements that the leader may have prepared.
pub(super) fn close(request: &mut Request) -> Result<(), EncodeError> {
    [WHOLE, MERGING, RESIDUE, PLAN]
        .into_iter()
        .try_for_each(|name| encode::close(&mut request.0, Target::Statement, name))
}

/// The server does not lock rows of what has aggregates.
fn refused(error: LinkError) -> LinkError {
    let code = match &error {
        LinkError::Server(frame) => field(frame.get(HEADER_BYTES..).unwrap_or_default(), b'C'),
        _ => None,
    };
    let is_refused = code == Some(sqlstate::FEATURE_NOT_SUPPORTED.as_bytes());
    if is_refused { LinkError::Unfit(Unsplit::Aggregate) } else { error }
}

fn unfit(reason: Unsplit) -> impl Fn() -> LinkError {
    move || LinkError::Unfit(reason)
}

impl ScanQuery {
    /// As [`lead`](Self::lead), and prepares what puts the parts together.
    pub(super) async fn lead_groups(
        &self,
        grouping: &Grouping,
        link: &mut Link,
        stop: &mut Stop,
    ) -> Result<(Begun, Merging), LinkError> {
        let tokens = tokens(&grouping.text).map_err(|_| LinkError::Unfit(Unsplit::Shape))?;
        let understood = Aggregation::of_known(&tokens).ok_or_else(unfit(Unsplit::Shape))?;

        let mut request = Request::default();
        // Before the transaction, which is to lock the statement's tables and no others.
        request.run(COLLATIONS)?;
        let collations = link.ask(request, stop).await?;
        let is_exact = collations.commands.first().and_then(|rows| only(rows.first()?)) == Some(b"f");

        let mut request = Request::default();
        self.begin(&mut request)?;
        encode::parse(&mut request.0, WHOLE, &grouping.text, &self.types)?;
        encode::describe(&mut request.0, Target::Statement, WHOLE)?;
        self.parameters.bind_with(&mut request, UNNAMED, WHOLE, &[], self.parameters.results())?;
        encode::describe(&mut request.0, Target::Portal, UNNAMED)?;
        let begin = link.ask(request, stop).await?;
        let description = begin.descriptions.last().ok_or(LinkError::Protocol("no description"))?;
        let columns = columns(description)?;
        let names = columns.iter().map(|column| std::str::from_utf8(column.name)).collect::<Result<_, _>>();
        let original = Original {
            text: &grouping.text,
            understood,
            columns,
            names: names.map_err(|_| LinkError::Unfit(Unsplit::Shape))?,
            types: &begin.parameter_types,
        };

        let begun = self.prepare_part(&original, &begin.commands, link, stop).await?;
        let columns = part_columns(&original.understood, &self::columns(&begun.description)?, grouping.doubles)?;
        // Ranges of partitions do not come in the order in which PostgreSQL reads them.
        if begun.size.files.len() > 1 && columns.iter().any(|column| column.ordered) {
            return Err(LinkError::Unfit(Unsplit::Aggregate));
        }
        if !is_exact && columns.iter().any(|column| column.collated) {
            return Err(LinkError::Unfit(Unsplit::Aggregate));
        }
        let merging = Merging { columns, description: description.clone() };
        self.prepare_merging(&original, &merging, &begun, link, stop).await?;
        Ok((begun, merging))
    }

    /// Prepares the statement for a range, and sees whether the text means what it was taken for.
    async fn prepare_part(
        &self,
        original: &Original<'_>,
        begin: &[Vec<Bytes>],
        link: &mut Link,
        stop: &mut Stop,
    ) -> Result<Begun, LinkError> {
        let canonical = original.understood.canonical(&original.names).ok_or_else(unfit(Unsplit::Shape))?;
        let types = range_types(original.types, original.types.len());
        let mut request = Request::default();
        self.prepare(&mut request, &types, PARTIAL_RESULTS)?;
        for text in [original.text, &canonical] {
            explain(&mut request, text, original.types)?;
            self.parameters.bind(&mut request, UNNAMED, PLAN)?;
            encode::execute(&mut request.0, UNNAMED, 0)?;
        }
        explain(&mut request, &self.text, &types)?;
        self.parameters.bind_range(&mut request, UNNAMED, PLAN, (0, 1), &[])?;
        encode::execute(&mut request.0, UNNAMED, 0)?;
        let answers = link.ask(request, stop).await?;
        let [_part, locks, plan, canonical_plan, range_plan] = answers.commands.as_slice() else {
            return Err(LinkError::Protocol("too few answers"));
        };
        let description = answers.descriptions.last().ok_or(LinkError::Protocol("no description"))?;
        let begun = begun(begin, description, types, PARTIAL_RESULTS.to_vec())
            .ok_or(LinkError::Protocol("no snapshot or no size"))?;
        self.check_locks(locks, &begun)?;
        let [plan, canonical_plan, range_plan] =
            [plan, canonical_plan, range_plan].map(|rows| rows.first().and_then(only).unwrap_or_default());
        if plan != canonical_plan || !is_grouping(plan, range_plan) {
            return Err(LinkError::Unfit(Unsplit::Plan));
        }
        Ok(begun)
    }

    /// Prepares what puts the parts together, and sees whether it can take the place of the original.
    async fn prepare_merging(
        &self,
        original: &Original<'_>,
        merging: &Merging,
        begun: &Begun,
        link: &mut Link,
        stop: &mut Stop,
    ) -> Result<(), LinkError> {
        let Original { understood, columns: whole, names, types: own_types, .. } = original;
        let sorts: Vec<_> = merging.columns.iter().map(|column| Sort::of(column.type_oid)).collect();
        let first = own_types.len() + 1;
        let types: Vec<_> = own_types.iter().copied().chain(merging.columns.iter().map(|c| c.array_oid)).collect();
        let texts = (understood.merging(names, &sorts, first), understood.residue(names, &sorts, first));
        let (Some(text), Some(residue)) = texts else { return Err(LinkError::Unfit(Unsplit::Shape)) };
        let mut request = Request::default();
        encode::parse(&mut request.0, RESIDUE, &residue, &types)?;
        encode::parse(&mut request.0, MERGING, &text, &types)?;
        encode::describe(&mut request.0, Target::Statement, MERGING)?;
        self.ask_for_locks(&mut request)?;
        if let Some(key_types) = understood.key_types() {
            encode::close(&mut request.0, Target::Statement, PLAN)?;
            encode::parse(&mut request.0, PLAN, &key_types, own_types)?;
            self.parameters.bind(&mut request, UNNAMED, PLAN)?;
            encode::execute(&mut request.0, UNNAMED, 0)?;
        }
        let answers = link.ask(request, stop).await.map_err(refused)?;
        let [locks, key_types @ ..] = answers.commands.as_slice() else {
            return Err(LinkError::Protocol("too few answers"));
        };
        self.check_locks(locks, begun)?;
        let merged = columns(answers.descriptions.first().ok_or(LinkError::Protocol("no description"))?)?;
        let is_alike =
            |(one, other): (&Column<'_>, &Column<'_>)| one.name == other.name && one.type_oid == other.type_oid;
        if merged.len() != whole.len() || !merged.iter().zip(whole).all(is_alike) {
            return Err(LinkError::Unfit(Unsplit::Aggregate));
        }
        // A key of a domain means more than its type says.
        let types = key_types.first().and_then(|rows| rows.first()).map(|row| data_row(row)).transpose();
        let types = types.map_err(|_| LinkError::Protocol("types"))?.unwrap_or_default();
        let is_itself =
            |(column, oid): (&PartColumn, &Option<&[u8]>)| *oid == Some(column.type_oid.to_string().as_bytes());
        if !merging.columns.iter().zip(&types).all(is_itself) {
            return Err(LinkError::Unfit(Unsplit::Aggregate));
        }
        Ok(())
    }

    /// Puts the parts together, and the answer into its place. Returns how many rows there were.
    pub(super) async fn merge(
        &self,
        parts: ParallelAggregator,
        begun: &Begun,
        link: &mut Link,
        stop: &mut Stop,
        place: Place<'_>,
    ) -> Result<u64, LinkError> {
        let mut request = Request::default();
        let arrays = parts.into_arrays();
        encode::close(&mut request.0, Target::Portal, PORTAL)?;
        self.parameters.bind_with(&mut request, PORTAL, MERGING, &arrays, self.parameters.results())?;
        drop(arrays);
        self.ask_for_locks(&mut request)?;
        encode::execute(&mut request.0, PORTAL, 0)?;
        link.rows(request, stop, |locks| self.check_locks(locks, begun), place).await
    }
}

/// Parses the question for a plan.
fn explain(request: &mut Request, text: &[u8], types: &[u32]) -> Result<(), EncodeError> {
    let text = [b"EXPLAIN (VERBOSE, FORMAT JSON) ", text].concat();
    encode::close(&mut request.0, Target::Statement, PLAN)?;
    encode::parse(&mut request.0, PLAN, &text, types)
}

/// The columns of the partial result, if all are of types that are put together exactly.
fn part_columns(
    understood: &Aggregation<'_, '_>,
    described: &[Column<'_>],
    doubles: bool,
) -> Result<Vec<PartColumn>, LinkError> {
    if understood.columns().len() != described.len() {
        return Err(LinkError::Protocol("other columns than were asked for"));
    }
    let columns = understood.columns().iter().zip(described).map(|(column, described)| match column.role {
        Role::Key => PartColumn::key(described.type_oid, described.type_modifier),
        Role::Part(function) => PartColumn::part(function, described.type_oid, doubles),
    });
    columns.collect::<Option<_>>().ok_or(LinkError::Unfit(Unsplit::Aggregate))
}

fn columns(description: &Bytes) -> Result<Vec<Column<'_>>, LinkError> {
    let body = description.get(HEADER_BYTES..).unwrap_or_default();
    row_description(body).map_err(|_| LinkError::Protocol("a description that cannot be read"))
}

/// The value of a row of one.
fn only(row: &Bytes) -> Option<&[u8]> {
    match data_row(row).ok()?.as_slice() {
        [value] => *value,
        _ => None,
    }
}
