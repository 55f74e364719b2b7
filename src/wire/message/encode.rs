//! Frontend messages that the proxy itself sends, appended to a buffer. After an error the buffer is as it was.

use bytes::{BufMut, BytesMut};
use thiserror::Error;

use super::Target;
use crate::wire::frame::{MAX_LENGTH, frontend};

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    #[error("a text in a message holds a NUL")]
    Nul,
    #[error("a message is longer than PostgreSQL accepts")]
    TooLong,
    #[error("a list in a message is longer than 65,535")]
    TooMany,
}

pub fn query(out: &mut BytesMut, text: &[u8]) -> Result<(), EncodeError> {
    frame(out, frontend::QUERY, |out| put_text(out, text))
}

pub fn parse(out: &mut BytesMut, name: &[u8], text: &[u8], types: &[u32]) -> Result<(), EncodeError> {
    frame(out, frontend::PARSE, |out| {
        put_text(out, name)?;
        put_text(out, text)?;
        put_count(out, types.len())?;
        types.iter().for_each(|&oid| out.put_u32(oid));
        Ok(())
    })
}

/// `parameters` are in the formats that `parameter_formats` says (none: text); `None` is NULL.
pub fn bind<'a>(
    out: &mut BytesMut,
    portal: &[u8],
    statement: &[u8],
    parameter_formats: &[i16],
    parameters: impl ExactSizeIterator<Item = Option<&'a [u8]>>,
    result_formats: &[i16],
) -> Result<(), EncodeError> {
    frame(out, frontend::BIND, |out| {
        put_text(out, portal)?;
        put_text(out, statement)?;
        put_formats(out, parameter_formats)?;
        put_count(out, parameters.len())?;
        for parameter in parameters {
            match parameter {
                None => out.put_i32(-1),
                Some(value) => {
                    out.put_i32(i32::try_from(value.len()).map_err(|_| EncodeError::TooLong)?);
                    out.put_slice(value);
                }
            }
        }
        put_formats(out, result_formats)
    })
}

pub fn describe(out: &mut BytesMut, kind: Target, name: &[u8]) -> Result<(), EncodeError> {
    frame(out, frontend::DESCRIBE, |out| {
        out.put_u8(kind.tag());
        put_text(out, name)
    })
}

pub fn close(out: &mut BytesMut, kind: Target, name: &[u8]) -> Result<(), EncodeError> {
    frame(out, frontend::CLOSE, |out| {
        out.put_u8(kind.tag());
        put_text(out, name)
    })
}

/// `max_rows` 0 is all.
pub fn execute(out: &mut BytesMut, portal: &[u8], max_rows: i32) -> Result<(), EncodeError> {
    frame(out, frontend::EXECUTE, |out| {
        put_text(out, portal)?;
        out.put_i32(max_rows);
        Ok(())
    })
}

pub fn sync(out: &mut BytesMut) {
    out.put_u8(frontend::SYNC);
    out.put_u32(4);
}

pub fn flush(out: &mut BytesMut) {
    out.put_u8(frontend::FLUSH);
    out.put_u32(4);
}

fn frame(
    out: &mut BytesMut,
    tag: u8,
    body: impl FnOnce(&mut BytesMut) -> Result<(), EncodeError>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.put_u8(tag);
    out.put_u32(0);
    let length = body(out).and_then(|()| {
        let length = u32::try_from(out.len() - start - 1).map_err(|_| EncodeError::TooLong)?;
        if length <= MAX_LENGTH { Ok(length) } else { Err(EncodeError::TooLong) }
    });
    match length {
        Ok(length) => {
            out[start + 1..start + 5].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(error) => {
            out.truncate(start);
            Err(error)
        }
    }
}

fn put_text(out: &mut BytesMut, text: &[u8]) -> Result<(), EncodeError> {
    if text.contains(&0) {
        return Err(EncodeError::Nul);
    }
    out.put_slice(text);
    out.put_u8(0);
    Ok(())
}

fn put_count(out: &mut BytesMut, count: usize) -> Result<(), EncodeError> {
    out.put_u16(u16::try_from(count).map_err(|_| EncodeError::TooMany)?);
    Ok(())
}

fn put_formats(out: &mut BytesMut, formats: &[i16]) -> Result<(), EncodeError> {
    put_count(out, formats.len())?;
    formats.iter().for_each(|&code| out.put_i16(code));
    Ok(())
}
