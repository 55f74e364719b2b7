//! What the upstream sends.

use super::frontend::oids;
use super::reader::Reader;
use super::{DecodeError, Reason};

/// The tag of a CommandComplete, `INSERT 0 1` for example.
pub fn command_tag(body: &[u8]) -> Result<&[u8], DecodeError> {
    let mut reader = Reader::new("command complete", body);
    let tag = reader.text()?;
    reader.finish()?;
    Ok(tag)
}

/// Where the session stands after a ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionStatus {
    Idle,
    InTransaction,
    Failed,
}

pub fn transaction_status(body: &[u8]) -> Result<TransactionStatus, DecodeError> {
    let mut reader = Reader::new("ready for query", body);
    let status = reader.u8()?;
    reader.finish()?;
    match status {
        b'I' => Ok(TransactionStatus::Idle),
        b'T' => Ok(TransactionStatus::InTransaction),
        b'E' => Ok(TransactionStatus::Failed),
        other => Err(reader.error(Reason::Subtype(other))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParameterStatus<'a> {
    pub name: &'a [u8],
    pub value: &'a [u8],
}

impl<'a> ParameterStatus<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("parameter status", body);
        let name = reader.text()?;
        let value = reader.text()?;
        reader.finish()?;
        Ok(Self { name, value })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotificationResponse<'a> {
    /// Of the backend that notified.
    pub pid: i32,
    pub channel: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> NotificationResponse<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("notification", body);
        let pid = reader.i32()?;
        let channel = reader.text()?;
        let payload = reader.text()?;
        reader.finish()?;
        Ok(Self { pid, channel, payload })
    }
}

/// A column as a RowDescription tells it, without where it is from and how it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column<'a> {
    pub name: &'a [u8],
    pub type_oid: u32,
    pub type_modifier: i32,
}

/// The columns of a RowDescription; its whole body is checked.
pub fn row_description(body: &[u8]) -> Result<Vec<Column<'_>>, DecodeError> {
    let mut reader = Reader::new("row description", body);
    let mut columns = Vec::new();
    for _ in 0..reader.u16()? {
        let name = reader.text()?;
        let (_table, _number) = (reader.i32()?, reader.u16()?);
        let type_oid = reader.i32()?.cast_unsigned();
        let _length = reader.u16()?;
        let type_modifier = reader.i32()?;
        let _format = reader.u16()?;
        columns.push(Column { name, type_oid, type_modifier });
    }
    reader.finish()?;
    Ok(columns)
}

/// The types of a statement's parameters.
pub fn parameter_types(body: &[u8]) -> Result<impl ExactSizeIterator<Item = u32> + use<'_>, DecodeError> {
    let mut reader = Reader::new("parameter description", body);
    let count = reader.u16()?;
    let types = reader.bytes(usize::from(count) * size_of::<u32>())?;
    reader.finish()?;
    Ok(oids(types))
}

/// The values of a DataRow; `None` is NULL. For the proxy's own queries: rows on their way to a client are never taken apart.
pub fn data_row(body: &[u8]) -> Result<Vec<Option<&[u8]>>, DecodeError> {
    let mut reader = Reader::new("data row", body);
    let columns = reader.u16()?;
    // Two bytes say how many there are; the vector grows with what is really there.
    let mut values = Vec::new();
    for _ in 0..columns {
        values.push(match usize::try_from(reader.i32()?) {
            Ok(length) => Some(reader.bytes(length)?),
            Err(_) => None,
        });
    }
    reader.finish()?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_data_row_is_its_values() {
        assert_eq!(data_row(b"\0\x02\0\0\0\x01a\xff\xff\xff\xff"), Ok(vec![Some(&b"a"[..]), None]));
        assert!(data_row(b"\0\x02\0\0\0\x01a").is_err());
        assert!(data_row(b"\0\x01\x3f\xff\xff\xffa").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = data_row(&bytes);
            let _ = row_description(&bytes);
            let _ = command_tag(&bytes);
            let _ = transaction_status(&bytes);
            let _ = ParameterStatus::decode(&bytes);
            let _ = NotificationResponse::decode(&bytes);
        }
    }
}
