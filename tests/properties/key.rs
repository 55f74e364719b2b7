//! Two requests have the same key exactly if PostgreSQL cannot tell them apart.

use bytes::BytesMut;
use heliosproxy::cache::key::{CacheKey, request_key};
use heliosproxy::wire::message::{Bind, encode};

/// A request as a client sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub statement: [u8; 32],
    pub types: Vec<u32>,
    pub parameter_formats: Vec<i16>,
    pub parameters: Vec<Option<Vec<u8>>>,
    pub result_formats: Vec<i16>,
}

pub fn equal_exactly_if_the_same(one: &Request, other: &Request) {
    let (Some(a), Some(b)) = (one.key(), other.key()) else { return };
    assert_eq!(a == b, one.meaning() == other.meaning(), "{one:?} and {other:?}");
}

impl Request {
    /// The same in other words: a type and a format for each parameter.
    pub fn written_out(&self) -> Self {
        let mut types = self.types.clone();
        types.push(0);
        let formats = (0..self.parameters.len()).map(|index| self.format(index)).collect();
        Self { types, parameter_formats: formats, ..self.clone() }
    }

    /// `None` if it is no legal message.
    fn key(&self) -> Option<CacheKey> {
        let mut message = BytesMut::new();
        let values = self.parameters.iter().map(Option::as_deref);
        encode::bind(&mut message, b"", b"", &self.parameter_formats, values, &self.result_formats).ok()?;
        let bind = Bind::decode(message.get(5..)?).ok()?;
        Some(request_key(&[0; 32], &self.statement, &self.types, |hasher| {
            bind.hash_parameters(hasher);
            bind.hash_result_formats(hasher);
        }))
    }

    /// Statement, declared types, parameters with their formats (which say nothing of a NULL), and how results are written: a
    /// list of equal codes stands for one, as the one who knows the number of columns checks.
    #[expect(clippy::type_complexity, reason = "it is compared and nothing else")]
    fn meaning(&self) -> ([u8; 32], &[u32], Vec<Option<(i16, &[u8])>>, Vec<i16>) {
        let significant = self.types.iter().rposition(|oid| *oid != 0).map_or(0, |last| last + 1);
        let value = |(index, value): (usize, &'_ Option<Vec<u8>>)| value.is_some().then(|| (self.format(index), index));
        let values = self.parameters.iter().enumerate().map(value);
        let values = values
            .map(|known| known.map(|(format, index)| (format, self.parameters[index].as_deref().unwrap_or_default())));
        let mut results = self.result_formats.clone();
        match results.first() {
            Some(&first @ (0 | 1)) if results.iter().all(|code| *code == first) => {
                results.truncate(usize::from(first == 1))
            }
            _ => {}
        }
        (self.statement, &self.types[..significant], values.collect(), results)
    }

    fn format(&self, index: usize) -> i16 {
        match self.parameter_formats.as_slice() {
            [] => 0,
            [one] => *one,
            each => each.get(index).copied().unwrap_or(0),
        }
    }
}
