//! A sorted statement: how the leader finds out whether its text was understood, and what its ranges are merged by.

use bytes::Bytes;

use super::link::{Link, LinkError, Request, Stop};
use super::ordering::{COLLATIONS, Ordered, Sorting, formats, strip};
use super::scan::{Begun, ScanQuery, begun, range_types};
use super::sort_key::SortKey;
use crate::telemetry::metrics::Unsplit;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::message::Target;
use crate::wire::message::backend::data_row;
use crate::wire::message::encode;

const UNNAMED: &[u8] = b"";

/// What the ranges of a sorted statement are merged by, and what the client is told of its rows.
pub(super) struct Merging {
    pub keys: Vec<SortKey>,
    pub description: Bytes,
}

impl ScanQuery {
    /// As [`lead`](Self::lead), and finds out what the ranges are sorted by.
    pub(super) async fn lead_sorted(
        &self,
        sorting: &Sorting,
        link: &mut Link,
        stop: &mut Stop,
    ) -> Result<(Begun, Merging), LinkError> {
        let mut request = Request::default();
        // Before the transaction, which is to lock the statement's tables and no others.
        request.run(COLLATIONS)?;
        let collations = link.ask(request, stop).await?;
        let collations = collations.row(0).ok_or(LinkError::Protocol("no collations"))?;
        let [default, named] = collations.as_slice() else { return Err(LinkError::Protocol("no collations")) };

        let types = range_types(&self.types, self.parameters.len());
        let mut request = Request::default();
        self.begin(&mut request)?;
        encode::parse(&mut request.0, UNNAMED, &sorting.text, &self.types)?;
        encode::describe(&mut request.0, Target::Statement, UNNAMED)?;
        encode::parse(&mut request.0, UNNAMED, &self.text, &types)?;
        encode::describe(&mut request.0, Target::Statement, UNNAMED)?;
        // With the very values: what a position or a constant means is not told by another statement of the same form.
        encode::parse(&mut request.0, UNNAMED, &explain(&sorting.text), &self.types)?;
        self.parameters.bind(&mut request, UNNAMED, UNNAMED)?;
        encode::execute(&mut request.0, UNNAMED, 0)?;
        encode::parse(&mut request.0, UNNAMED, &explain(&self.text), &types)?;
        self.parameters.bind_range(&mut request, UNNAMED, UNNAMED, (0, 1), &[])?;
        encode::execute(&mut request.0, UNNAMED, 0)?;
        let answers = link.ask(request, stop).await?;
        let ([.., whole_plan, range_plan], [whole, range]) = (&answers.commands[..], &answers.descriptions[..]) else {
            return Err(LinkError::Protocol("too few answers"));
        };
        let (whole_plan, range_plan) = (plan(whole_plan)?, plan(range_plan)?);
        let [whole, range] = [whole, range].map(|frame| frame.get(HEADER_BYTES..).unwrap_or_default());
        let ordered = Ordered {
            plans: [&whole_plan, &range_plan],
            descriptions: [whole, range],
            keys: sorting.keys,
            collations: [*default == Some(b"t"), *named == Some(b"t")],
        };
        let keys = ordered.keys().map_err(LinkError::Unfit)?;
        let results = formats(range, sorting.keys, self.parameters.results());
        let results = results.ok_or(LinkError::Unfit(Unsplit::Shape))?;

        let mut request = Request::default();
        self.prepare(&mut request, &types, &results)?;
        let prepared = link.ask(request, stop).await?;
        let description = prepared.descriptions.last().ok_or(LinkError::Protocol("no description"))?;
        let stripped = strip(description, sorting.keys)?;
        let begun = begun(&answers.commands, description, types, results);
        let begun = begun.ok_or(LinkError::Protocol("no snapshot or no size"))?;
        let locks = prepared.commands.last().ok_or(LinkError::Protocol("too few answers"))?;
        self.check_locks(locks, &begun)?;
        Ok((begun, Merging { keys, description: stripped }))
    }
}

fn explain(text: &[u8]) -> Vec<u8> {
    [b"EXPLAIN (FORMAT JSON) ", text].concat()
}

/// The only value of the only row.
fn plan(rows: &[Bytes]) -> Result<Bytes, LinkError> {
    const NONE: LinkError = LinkError::Protocol("no plan");
    let [row] = rows else { return Err(NONE) };
    let values = data_row(row).map_err(|_| NONE)?;
    let [Some(value)] = values.as_slice() else { return Err(NONE) };
    Ok(row.slice_ref(value))
}
