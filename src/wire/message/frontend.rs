//! What a client sends, but for Bind.

use super::reader::Reader;
use super::{DecodeError, Reason};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    pub text: &'a [u8],
}

impl<'a> Query<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("query", body);
        let text = reader.text()?;
        reader.finish()?;
        Ok(Self { text })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Empty for the unnamed statement.
    pub name: &'a [u8],
    pub text: &'a [u8],
    types: &'a [u8],
}

impl<'a> Parse<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("parse", body);
        let name = reader.text()?;
        let text = reader.text()?;
        let count = reader.u16()?;
        let types = reader.bytes(usize::from(count) * size_of::<u32>())?;
        reader.finish()?;
        Ok(Self { name, text, types })
    }

    /// The parameter types that the client gives; 0 leaves one open.
    pub fn types(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        oids(self.types)
    }

    /// The same as they stand in the message, for hashing and sending again.
    pub fn raw_types(&self) -> &'a [u8] {
        self.types
    }
}

/// What Describe and Close name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Statement,
    Portal,
}

impl Target {
    pub fn tag(self) -> u8 {
        match self {
            Self::Statement => b'S',
            Self::Portal => b'P',
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Describe<'a> {
    pub kind: Target,
    pub name: &'a [u8],
}

impl<'a> Describe<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let (kind, name) = target("describe", body)?;
        Ok(Self { kind, name })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Close<'a> {
    pub kind: Target,
    pub name: &'a [u8],
}

impl<'a> Close<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let (kind, name) = target("close", body)?;
        Ok(Self { kind, name })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Empty for the unnamed portal.
    pub portal: &'a [u8],
    /// `None` for all rows: PostgreSQL takes zero and below for it.
    pub max_rows: Option<u32>,
}

impl<'a> Execute<'a> {
    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("execute", body);
        let portal = reader.text()?;
        let max_rows = reader.i32()?;
        reader.finish()?;
        Ok(Self { portal, max_rows: u32::try_from(max_rows).ok().filter(|&rows| rows > 0) })
    }
}

fn target<'a>(message: &'static str, body: &'a [u8]) -> Result<(Target, &'a [u8]), DecodeError> {
    let mut reader = Reader::new(message, body);
    let subtype = reader.u8()?;
    let name = reader.text()?;
    reader.finish()?;
    match subtype {
        b'S' => Ok((Target::Statement, name)),
        b'P' => Ok((Target::Portal, name)),
        other => Err(reader.error(Reason::Subtype(other))),
    }
}

pub(super) fn oids(bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> + use<'_> {
    let (oids, _) = bytes.as_chunks::<4>();
    oids.iter().map(|oid| u32::from_be_bytes(*oid))
}
