//! What is asked about a statement before it is run: its types, and how many rows the planner expects.

use std::collections::HashMap;

use bytes::BytesMut;
use serde_json::Value;

use super::inside::{Answer, Failure, Inside};
use super::query::STATEMENT;
use super::types::ValueType;
use crate::wire::error::sqlstate;
use crate::wire::message::backend::{Column, parameter_types, row_description};
use crate::wire::message::{Target, encode};

/// Of types that are not PostgreSQL's own: the name, and of arrays the type of the elements or what that is based on.
const NAMES: &str = "SELECT t.oid, CASE WHEN a.oid IS NULL THEN t.typname ELSE a.typname || '[]' END, \
    CASE WHEN a.oid IS NOT NULL THEN coalesce(nullif(a.typbasetype, 0), a.oid) END \
    FROM pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_type a \
    ON a.oid = t.typelem AND a.typarray = t.oid AND a.typdelim = ',' \
    WHERE t.oid = ANY ($1::pg_catalog.oid[])";
const TEXT_OID: u32 = 25;

/// A statement that the server has parsed.
pub struct Prepared {
    pub parameter_oids: Vec<u32>,
    pub parameters: Vec<ValueType>,
    /// `None` if it returns no rows.
    pub columns: Option<Vec<(String, ValueType)>>,
}

/// Has the statement parsed.
pub async fn prepare(session: &mut Inside, sql: &str) -> Result<Prepared, Failure> {
    let mut messages = BytesMut::new();
    encode::parse(&mut messages, STATEMENT, sql.as_bytes(), &[])?;
    encode::describe(&mut messages, Target::Statement, STATEMENT)?;
    let Answer { columns: description, parameters, .. } = session.ask(messages).await?;
    let malformed = |_| Failure::new(sqlstate::PROTOCOL_VIOLATION, "malformed description of a statement");
    let parameter_oids: Vec<u32> = match parameters.is_empty() {
        true => Vec::new(),
        false => parameter_types(&parameters).map_err(malformed)?.collect(),
    };
    let described = description.as_ref().map(|body| row_description(body)).transpose().map_err(malformed)?;
    let column_oids = described.iter().flatten().map(|column| column.type_oid);
    let others = named(session, parameter_oids.iter().copied().chain(column_oids)).await?;
    let value_type = |oid: u32| {
        let known = ValueType::built_in(oid).or_else(|| others.get(&oid).cloned());
        known.unwrap_or_else(ValueType::unknown)
    };
    let parameters = parameter_oids.iter().map(|oid| value_type(*oid)).collect();
    let column =
        |Column { name, type_oid, .. }: Column<'_>| (String::from_utf8_lossy(name).into_owned(), value_type(type_oid));
    let columns = described.map(|described| described.into_iter().map(column).collect());
    Ok(Prepared { parameter_oids, parameters, columns })
}

/// Asks for the types that are not PostgreSQL's own.
async fn named(session: &mut Inside, oids: impl Iterator<Item = u32>) -> Result<HashMap<u32, ValueType>, Failure> {
    let others: Vec<String> =
        oids.filter(|oid| ValueType::built_in(*oid).is_none()).map(|oid| oid.to_string()).collect();
    if others.is_empty() {
        return Ok(HashMap::new());
    }
    let list = format!("{{{}}}", others.join(","));
    let answer = run(session, NAMES, &[TEXT_OID], [Some(list.as_bytes())].into_iter()).await?;
    let text = |value: &Option<Vec<u8>>| value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
    let number = |value: &Option<Vec<u8>>| text(value).and_then(|text| text.parse::<u32>().ok());
    let named = answer.rows.iter().filter_map(|row| {
        let [oid, name, element] = row.as_slice() else { return None };
        Some((number(oid)?, ValueType::named(text(name)?, number(element))))
    });
    Ok(named.collect())
}

/// The rows that the planner expects; `None` if it does not say.
pub async fn estimate<'a>(
    session: &mut Inside,
    sql: &str,
    types: &[u32],
    parameters: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
) -> Result<Option<u64>, Failure> {
    let explain = format!("EXPLAIN (FORMAT JSON) {sql}");
    let answer = match run(session, &explain, types, parameters).await {
        Ok(answer) => answer,
        // The statement itself will say it, if it is the statement's fault.
        Err(failure) if session.is_ready() => {
            tracing::debug!(%failure, "the planner was not able to tell how many rows a stream will have");
            return Ok(None);
        }
        Err(failure) => return Err(failure),
    };
    let plan = answer.rows.first().and_then(|row| row.first()).and_then(Option::as_ref);
    let plan: Option<Value> = plan.and_then(|text| serde_json::from_slice(text).ok());
    let rows = plan.as_ref().and_then(|plan| plan.pointer("/0/Plan/Plan Rows")).and_then(Value::as_f64);
    Ok(rows.map(|rows| rows as u64))
}

async fn run<'a>(
    session: &mut Inside,
    sql: &str,
    types: &[u32],
    parameters: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
) -> Result<Answer, Failure> {
    let mut messages = BytesMut::new();
    encode::parse(&mut messages, b"", sql.as_bytes(), types)?;
    encode::bind(&mut messages, b"", b"", &[], parameters, &[])?;
    encode::execute(&mut messages, b"", 0)?;
    session.ask(messages).await
}
