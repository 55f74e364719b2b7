//! A table that a command answers with: typed columns, and rows that a client gets as text, as binary, or as JSON.

use std::fmt::Write;

use bytes::{BufMut, BytesMut};

use crate::wire::message::answer::{self, Field};

/// One column. Names and kinds are what scripts rely on: they stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Float,
    Bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
}

pub type Row = Vec<Value>;

pub const fn text(name: &'static str) -> Column {
    Column { name, kind: Kind::Text }
}

pub const fn int(name: &'static str) -> Column {
    Column { name, kind: Kind::Int }
}

pub const fn float(name: &'static str) -> Column {
    Column { name, kind: Kind::Float }
}

pub const fn boolean(name: &'static str) -> Column {
    Column { name, kind: Kind::Bool }
}

impl Kind {
    /// text, int8, float8 and bool (src/include/catalog/pg_type.dat).
    fn type_oid(self) -> u32 {
        match self {
            Self::Text => 25,
            Self::Int => 20,
            Self::Float => 701,
            Self::Bool => 16,
        }
    }

    fn size(self) -> i16 {
        match self {
            Self::Text => -1,
            Self::Int | Self::Float => 8,
            Self::Bool => 1,
        }
    }
}

impl Value {
    /// Appends it in a format; false for NULL.
    fn put(&self, binary: bool, out: &mut BytesMut) -> bool {
        // Writing to a buffer cannot fail.
        let _ = match (self, binary) {
            (Self::Null, _) => return false,
            (Self::Text(text), _) => {
                out.put_slice(text.as_bytes());
                Ok(())
            }
            (Self::Int(number), true) => {
                out.put_i64(*number);
                Ok(())
            }
            (Self::Float(number), true) => {
                out.put_f64(*number);
                Ok(())
            }
            (Self::Bool(value), true) => {
                out.put_u8(u8::from(*value));
                Ok(())
            }
            (Self::Int(number), false) => write!(out, "{number}"),
            (Self::Float(number), false) => write!(out, "{number}"),
            (Self::Bool(value), false) => out.write_str(if *value { "t" } else { "f" }),
        };
        true
    }

    pub fn json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Text(text) => text.as_str().into(),
            Self::Int(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Bool(value) => (*value).into(),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::from(number as u64)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Appends the RowDescription; `format` says by a column's place whether it is binary.
pub fn put_description(columns: &[Column], format: impl Fn(usize) -> i16, out: &mut BytesMut) {
    let field = |(place, column): (usize, &Column)| Field {
        name: column.name,
        type_oid: column.kind.type_oid(),
        size: column.kind.size(),
        format: format(place),
    };
    answer::row_description(out, columns.iter().enumerate().map(field));
}

pub fn put_row(row: &[Value], format: impl Fn(usize) -> i16, out: &mut BytesMut) {
    answer::data_row(out, row.iter().enumerate(), |(place, value), out| value.put(format(place) == 1, out));
}

/// Rows as objects.
pub fn json(columns: &[Column], rows: &[Row]) -> serde_json::Value {
    let object = |row: &Row| {
        let pairs = columns.iter().zip(row).map(|(column, value)| (column.name.to_owned(), value.json()));
        serde_json::Value::Object(pairs.collect())
    };
    rows.iter().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::backend;

    fn put(value: impl Into<Value>, format: i16) -> Option<Vec<u8>> {
        let mut out = BytesMut::new();
        put_row(&[value.into()], |_| format, &mut out);
        backend::data_row(&out[5..]).unwrap()[0].map(<[u8]>::to_vec)
    }

    #[test]
    fn values_have_the_formats_of_their_types() {
        assert_eq!(put(7u64, 0).as_deref(), Some(&b"7"[..]));
        assert_eq!(put(7u64, 1).as_deref(), Some(&7i64.to_be_bytes()[..]));
        assert_eq!(put(0.5, 0).as_deref(), Some(&b"0.5"[..]));
        assert_eq!(put(0.5, 1).as_deref(), Some(&0.5f64.to_be_bytes()[..]));
        assert_eq!(put(true, 0).as_deref(), Some(&b"t"[..]));
        assert_eq!(put(true, 1).as_deref(), Some(&[1][..]));
        assert_eq!(put("x", 1).as_deref(), Some(&b"x"[..]));
        assert_eq!(put(None::<u64>, 0), None);
    }

    #[test]
    fn rows_are_objects_in_json() {
        let columns = [text("a"), int("b"), float("c"), boolean("d"), text("e")];
        let row = vec!["x\"".into(), 1u64.into(), 0.5.into(), false.into(), Value::Null];
        let json = json(&columns, &[row]).to_string();
        assert_eq!(json, r#"[{"a":"x\"","b":1,"c":0.5,"d":false,"e":null}]"#);
    }
}
