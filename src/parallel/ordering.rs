//! By what a statement is ordered, as the planner tells.
//!
//! **Invariant.** A statement's ranges are merged only if the planner sorts them by the very keys by which it sorts the whole, and each is of
//! a type and a collation in which the proxy compares as the server does.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::Value;

use super::link::LinkError;
use super::plan::is_sorting;
use super::scan::Parameters;
use super::sort_key::{SortDirection, SortKey, TypeOrder};
use crate::statement::{Count, Ordering};
use crate::telemetry::metrics::Unsplit;
use crate::wire::frame::{HEADER_BYTES, backend};
use crate::wire::message::backend::row_description;

/// Whether bytes compare as text does: by the database's own collation, and by those whose names say so. The names are told by the
/// planner without their schemas; and what is compared here is UTF-8.
pub const COLLATIONS: &str = "SELECT d.datcollate OPERATOR(pg_catalog.=) ANY ('{C,POSIX}') \
     AND coalesce(pg_catalog.to_jsonb(d.*) OPERATOR(pg_catalog.->>) 'datlocprovider', 'c') OPERATOR(pg_catalog.=) 'c' \
     AND pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'UTF8', \
     NOT EXISTS (SELECT FROM pg_catalog.pg_collation c WHERE c.collname OPERATOR(pg_catalog.=) ANY ('{C,POSIX,ucs_basic}') \
         AND c.collnamespace OPERATOR(pg_catalog.<>) 'pg_catalog'::pg_catalog.regnamespace) \
     AND pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.=) 'UTF8' \
     FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";

/// Of PostgreSQL's own, as the planner spells them.
const BYTEWISE: [&str; 3] = ["\"C\"", "\"POSIX\"", "ucs_basic"];

/// A statement's own text, and what of its rows the client gets.
pub struct Sorting {
    pub text: Vec<u8>,
    /// Columns in front of the client's in the rows of a range.
    pub keys: usize,
    pub offset: u64,
    pub limit: Option<u64>,
}

/// What the server says about a statement and a range of it.
#[derive(Debug, Clone, Copy)]
pub struct Ordered<'a> {
    /// Their plans, and the bodies of their RowDescriptions.
    pub plans: [&'a [u8]; 2],
    pub descriptions: [&'a [u8]; 2],
    pub keys: usize,
    /// The row that [`COLLATIONS`] answers.
    pub collations: [bool; 2],
}

impl Sorting {
    /// `None` if it is not known how many rows are wanted, or the server would refuse the number.
    pub fn new(ordering: &Ordering, text: Vec<u8>, parameters: &Parameters, types: &[u32]) -> Option<Self> {
        let rows = |count| match count {
            Count::None => Some(None),
            Count::Number(number) => Some(Some(number)),
            Count::Parameter(number) => parameters.count(number, types),
        };
        let (limit, offset) = (rows(ordering.limit())?, rows(ordering.offset())?.unwrap_or(0));
        Some(Self { text, keys: ordering.keys(), offset, limit })
    }
}

impl Ordered<'_> {
    /// The keys by which the ranges are merged.
    pub fn keys(&self) -> Result<Vec<SortKey>, Unsplit> {
        let [whole, range] = self.plans;
        if !is_sorting(whole, range) {
            return Err(Unsplit::Plan);
        }
        let [whole, range] = self.plans.map(planned_keys);
        let keys = range.filter(|keys| keys.len() == self.keys).ok_or(Unsplit::Order)?;
        let is_same = |whole: &String, key: &String| without_relabel(whole) == without_relabel(key);
        if whole.is_none_or(|whole| whole.len() != keys.len() || !whole.iter().zip(&keys).all(|(a, b)| is_same(a, b))) {
            return Err(Unsplit::Order);
        }
        let [whole, range] = self.descriptions;
        // The client's columns must look as those of the statement itself.
        if without_columns(range, self.keys).is_none_or(|rest| rest != whole) {
            return Err(Unsplit::Plan);
        }
        let columns = row_description(range).map_err(|_| Unsplit::Plan)?;
        let typed = keys.iter().zip(columns).map(|(key, column)| self.key(key, column.type_oid));
        typed.collect::<Option<_>>().ok_or(Unsplit::Order)
    }

    /// A key, as the planner spells it: the expression, and then whatever is not the default (`show_sortorder_options`,
    /// src/backend/commands/explain.c).
    fn key(&self, text: &str, type_oid: u32) -> Option<SortKey> {
        let (text, nulls) = match (text.strip_suffix(" NULLS FIRST"), text.strip_suffix(" NULLS LAST")) {
            (Some(text), _) => (text, Some(true)),
            (_, Some(text)) => (text, Some(false)),
            _ => (text, None),
        };
        let (text, direction) = match text.strip_suffix(" DESC") {
            Some(text) => (text, SortDirection::Descending),
            None => (text, SortDirection::Ascending),
        };
        // USING, and an operator that is not the type's own.
        if text.ends_with(|last: char| "+-*/<>=~!@#%^&|`?".contains(last)) {
            return None;
        }
        let collation = text.rsplit_once(" COLLATE ").map(|(_, name)| name).filter(|name| is_identifier(name));
        let TypeOrder { order, collated } = TypeOrder::of(type_oid)?;
        let [default, named] = self.collations;
        let is_bytewise = match collation {
            Some(name) => named && BYTEWISE.contains(&name),
            None => default || !collated,
        };
        let nulls_first = nulls.unwrap_or(direction == SortDirection::Descending);
        is_bytewise.then_some(SortKey { order, direction, nulls_first })
    }
}

/// What a plan sorts by, if it sorts once and as a whole.
fn planned_keys(json: &[u8]) -> Option<Vec<String>> {
    let plans: Value = serde_json::from_slice(json).ok()?;
    let mut plan = plans.get(0)?.get("Plan")?;
    loop {
        if plan.get("Node Type")? == "Sort" {
            let keys = plan.get("Sort Key")?.as_array()?;
            return keys.iter().map(|key| key.as_str().map(str::to_owned)).collect();
        }
        plan = plan.get("Plans")?.get(0)?;
    }
}

/// A key under a collation, as `a COLLATE "C"`. It is shown as `((a)::text) COLLATE "C"` if the list has it so in front of `a` itself: of
/// what has a collation the text is the same, and is in the same order.
fn without_relabel(key: &str) -> Cow<'_, str> {
    match key.strip_prefix("((").and_then(|key| key.split_once(")::text) COLLATE ")) {
        Some((inner, collation)) => format!("{inner} COLLATE {collation}").into(),
        None => key.into(),
    }
}

/// One name as a whole, quoted or not.
fn is_identifier(text: &str) -> bool {
    match text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) {
        Some(inside) => !inside.replace("\"\"", "").contains('"'),
        None => text.chars().all(|letter| letter.is_alphanumeric() || letter == '_' || letter == '$'),
    }
}

/// The body of a RowDescription without its first columns.
fn without_columns(body: &[u8], columns: usize) -> Option<Bytes> {
    /// What follows a name: table, number, type, length, modifier, format.
    const REST: usize = 18;
    let (count, mut rest) = body.split_at_checked(2)?;
    let count = u16::from_be_bytes([count[0], count[1]]).checked_sub(u16::try_from(columns).ok()?)?;
    for _ in 0..columns {
        let name = rest.iter().position(|byte| *byte == 0)?;
        rest = rest.get(name + 1 + REST..)?;
    }
    Some([&count.to_be_bytes(), rest].concat().into())
}

/// A RowDescription frame without its first columns.
pub(super) fn strip(description: &Bytes, columns: usize) -> Result<Bytes, LinkError> {
    let body = description.get(HEADER_BYTES..).and_then(|body| without_columns(body, columns));
    let body = body.ok_or(LinkError::Protocol("a row description is not what it should be"))?;
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
    frame.put_u8(backend::ROW_DESCRIPTION);
    frame.put_u32(body.len() as u32 + 4);
    frame.extend_from_slice(&body);
    Ok(frame.freeze())
}

/// The formats of a range's rows, whose first columns are keys, for a client that has asked for `wanted`. `body` describes the range.
pub(super) fn formats(body: &[u8], keys: usize, wanted: &[i16]) -> Option<Vec<i16>> {
    let columns = row_description(body).ok()?.len().checked_sub(keys)?;
    let wanted = match wanted {
        [] => vec![0; columns],
        [all] => vec![*all; columns],
        each if each.len() == columns => each.to_vec(),
        _ => return None,
    };
    Some(std::iter::repeat_n(1, keys).chain(wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::KeyOrder;

    fn plan(node: &str, keys: &[&str], is_range: bool) -> String {
        let keys = serde_json::to_string(keys).expect("strings");
        let scans = ["Seq Scan", "Tid Range Scan"].map(|scan| format!(r#"{{"Node Type": "{scan}"}}"#));
        let scan = &scans[usize::from(is_range)];
        format!(
            r#"[{{"Plan": {{"Node Type": "Limit", "Plans": [{{"Node Type": "{node}", "Sort Key": {keys}, "Plans": [{scan}]}}]}}}}]"#
        )
    }

    fn description(columns: &[(&str, u32)]) -> Vec<u8> {
        let mut body = (columns.len() as u16).to_be_bytes().to_vec();
        for (name, type_oid) in columns {
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0, 0, 0, 1, 0, 0, 1]);
            body.extend_from_slice(&type_oid.to_be_bytes());
            body.extend_from_slice(&[0, 4, 255, 255, 255, 255, 0, 0]);
        }
        body
    }

    fn keys(whole: &[&str], range: &[&str], types: &[u32], collations: [bool; 2]) -> Result<Vec<SortKey>, Unsplit> {
        let (own, mut columns) = ([("a", 20), ("b", 25)], vec![]);
        columns.extend(types.iter().map(|type_oid| ("key", *type_oid)));
        columns.extend(own);
        let (whole, range) = (plan("Sort", whole, false), plan("Sort", range, true));
        Ordered {
            plans: [whole.as_bytes(), range.as_bytes()],
            descriptions: [&description(&own), &description(&columns)],
            keys: types.len(),
            collations,
        }
        .keys()
    }

    #[test]
    fn directions_are_what_the_planner_says() {
        let order = KeyOrder::Signed(4);
        let (ascending, descending) = (SortDirection::Ascending, SortDirection::Descending);
        for (text, direction, nulls_first) in [
            ("a", ascending, false),
            ("a DESC", descending, true),
            ("a NULLS FIRST", ascending, true),
            ("a DESC NULLS LAST", descending, false),
            ("(\"a DESC\")", ascending, false),
            ("\"a COLLATE \"\"de\"\"\"", ascending, false),
        ] {
            let key = SortKey { order, direction, nulls_first };
            assert_eq!(keys(&[text], &[text], &[23], [false; 2]), Ok(vec![key]), "{text}");
        }
        for text in ["a USING <<", "a COLLATE \"de\"", "a COLLATE german DESC"] {
            assert_eq!(keys(&[text], &[text], &[23], [true; 2]), Err(Unsplit::Order), "{text}");
        }
        assert_eq!(keys(&["a"], &["a"], &[114], [true; 2]), Err(Unsplit::Order), "json has no order");
    }

    #[test]
    fn text_is_compared_here_only_where_its_collation_compares_bytes() {
        for (text, type_oid, collations, expected) in [
            ("a", 25, [true, false], true),
            ("a", 25, [false, true], false),
            ("a", 19, [false, false], true),
            ("lower((a)::text COLLATE \"C\")", 25, [false, true], false),
            ("a COLLATE \"C\" DESC", 25, [false, true], true),
            ("a COLLATE \"POSIX\" NULLS FIRST", 1043, [false, true], true),
            ("a COLLATE ucs_basic", 1042, [false, true], true),
            ("a COLLATE \"C\"", 25, [true, false], false),
            ("a COLLATE \"en_US\"", 25, [true, true], false),
        ] {
            assert_eq!(keys(&[text], &[text], &[type_oid], collations).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn ranges_are_sorted_as_the_whole_and_look_like_it() {
        assert!(keys(&["a", "b"], &["a", "b"], &[23, 23], [true; 2]).is_ok());
        assert_eq!(keys(&["a", "b"], &["a", "c"], &[23, 23], [true; 2]), Err(Unsplit::Order));
        assert_eq!(keys(&["a"], &["a"], &[23, 23], [true; 2]), Err(Unsplit::Order), "a key was found to be needless");
        let shown = ["((b)::text) COLLATE \"C\" DESC"];
        assert!(keys(&["b COLLATE \"C\" DESC"], &shown, &[25], [true; 2]).is_ok());
        assert_eq!(keys(&["c COLLATE \"C\" DESC"], &shown, &[25], [true; 2]), Err(Unsplit::Order));
        assert_eq!(keys(&["b COLLATE \"C\""], &shown, &[25], [true; 2]), Err(Unsplit::Order));
        assert_eq!(keys(&["n"], &["((n)::text)"], &[25], [true; 2]), Err(Unsplit::Order), "a number is no text");
        let good = (plan("Sort", &["a"], false), description(&[("a", 20)]), description(&[("key", 20), ("a", 20)]));
        let of_range = plan("Sort", &["a"], true);
        let judge = |plan: &str, whole: &[u8], range: &[u8]| {
            let plans = [plan.as_bytes(), of_range.as_bytes()];
            Ordered { plans, descriptions: [whole, range], keys: 1, collations: [true; 2] }.keys()
        };
        assert!(judge(&good.0, &good.1, &good.2).is_ok());
        assert_eq!(judge(&plan("Gather Merge", &["a"], false), &good.1, &good.2), Err(Unsplit::Plan));
        assert_eq!(judge("", &good.1, &good.2), Err(Unsplit::Plan));
        assert_eq!(judge(&good.0, &description(&[("b", 20)]), &good.2), Err(Unsplit::Plan));
        assert_eq!(judge(&good.0, &good.1, &good.1), Err(Unsplit::Plan));
        assert_eq!(judge(&good.0, &good.1, b"\0\x02k"), Err(Unsplit::Plan));
    }

    #[test]
    fn keys_are_binary_and_the_rest_is_as_the_client_wants_it() {
        let body = description(&[("key", 20), ("a", 20), ("b", 25)]);
        for (wanted, expected) in [
            (&[][..], Some(vec![1, 0, 0])),
            (&[1], Some(vec![1, 1, 1])),
            (&[0, 1], Some(vec![1, 0, 1])),
            (&[0; 3], None),
        ] {
            assert_eq!(formats(&body, 1, wanted), expected);
        }
        let frame = [b"T\0\0\0\x63", &body[..]].concat().into();
        let stripped = strip(&frame, 1).expect("a description");
        assert_eq!(stripped[HEADER_BYTES..], description(&[("a", 20), ("b", 25)])[..]);
        assert_eq!(stripped[1..HEADER_BYTES], (stripped.len() as u32 - 1).to_be_bytes());
    }
}
