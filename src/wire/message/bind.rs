//! Bind: the parameters of one execution, and how they and its result are written.

use sha2::{Digest, Sha256};

use super::reader::Reader;
use super::special_time::contains_special_time_word;
use super::{DecodeError, Reason};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Empty for the unnamed portal.
    pub portal: &'a [u8],
    /// Empty for the unnamed statement.
    pub statement: &'a [u8],
    /// None for all text, one for all, or one for each parameter.
    pub parameter_formats: Formats<'a>,
    pub parameters: Parameters<'a>,
    /// None for all text, one for all, or one for each column.
    pub result_formats: Formats<'a>,
}

/// Format codes: 0 is text, 1 binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Formats<'a> {
    /// Big-endian 16-bit codes.
    pub raw: &'a [u8],
}

impl<'a> Formats<'a> {
    pub fn len(&self) -> usize {
        self.raw.len() / size_of::<i16>()
    }

    pub fn is_empty(&self) -> bool {
        self.raw.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = i16> + use<'a> {
        let (codes, _) = self.raw.as_chunks::<2>();
        codes.iter().map(|code| i16::from_be_bytes(*code))
    }

    /// How many there are if they are all the same, else 0.
    pub fn number_if_equal(&self) -> usize {
        let mut codes = self.iter();
        let first = codes.next();
        if codes.all(|code| Some(code) == first) { self.len() } else { 0 }
    }

    /// The format of the value at `index` (from 0).
    fn of(&self, index: usize) -> i16 {
        let index = if self.len() == 1 { 0 } else { index };
        self.iter().nth(index).unwrap_or(0)
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        Ok(Self { raw: reader.bytes(usize::from(count) * size_of::<i16>())? })
    }
}

/// Parameter values, checked to lie in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters<'a> {
    count: u16,
    /// Length and bytes of each, as in the message.
    pub raw: &'a [u8],
}

impl<'a> Parameters<'a> {
    pub fn len(&self) -> usize {
        usize::from(self.count)
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The values in order; `None` is NULL.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a [u8]>> + use<'a> {
        let mut reader = Reader::new("bind", self.raw);
        // `decode` has read the same bytes without an error.
        (0..self.count).map_while(move |_| value(&mut reader).ok())
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16()?;
        let start = reader.rest();
        for _ in 0..count {
            value(reader)?;
        }
        Ok(Self { count, raw: &start[..start.len() - reader.rest().len()] })
    }
}

impl<'a> Bind<'a> {
    /// No parameters and all results as text, on the unnamed portal and statement.
    pub const EMPTY: Bind<'static> = Bind {
        portal: b"",
        statement: b"",
        parameter_formats: Formats { raw: b"" },
        parameters: Parameters { count: 0, raw: b"" },
        result_formats: Formats { raw: b"" },
    };

    pub fn decode(body: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new("bind", body);
        let portal = reader.text()?;
        let statement = reader.text()?;
        let parameter_formats = Formats::decode(&mut reader)?;
        let parameters = Parameters::decode(&mut reader)?;
        let result_formats = Formats::decode(&mut reader)?;
        reader.finish()?;
        if parameter_formats.len() > 1 && parameter_formats.len() != parameters.len() {
            let formats = parameter_formats.len() as u16;
            return Err(reader.error(Reason::FormatCount { formats, parameters: parameters.count }));
        }
        Ok(Self { portal, statement, parameter_formats, parameters, result_formats })
    }

    /// Feeds the parameters to a hasher: their number, then each value with its format and its length. Binds that mean
    /// the same parameters feed the same bytes however they list the formats, and others never do.
    pub fn hash_parameters(&self, hasher: &mut Sha256) {
        hasher.update(self.parameters.count.to_be_bytes());
        let one_each = self.parameter_formats.len() > 1;
        let for_all = self.parameter_formats.of(0);
        let mut formats = self.parameter_formats.iter();
        for value in self.parameters.iter() {
            let format = if one_each { formats.next().unwrap_or(0) } else { for_all };
            match value {
                None => hasher.update((-1i32).to_be_bytes()),
                Some(value) => {
                    // A value is shorter than a message, which is shorter than 2 GiB.
                    hasher.update((value.len() as u32).to_be_bytes());
                    hasher.update(format.to_be_bytes());
                    hasher.update(value);
                }
            }
        }
    }

    /// Feeds the result formats to a hasher: all text, all binary, or the list. A list of equal codes is taken for one
    /// code; that it is as long as the result is wide is for whoever knows the result to check.
    pub fn hash_result_formats(&self, hasher: &mut Sha256) {
        if self.result_formats.iter().all(|code| code == 0) {
            hasher.update([0]);
        } else if self.result_formats.iter().all(|code| code == 1) {
            hasher.update([1]);
        } else {
            hasher.update([2]);
            hasher.update((self.result_formats.len() as u16).to_be_bytes());
            hasher.update(self.result_formats.raw);
        }
    }

    /// Format and value of the parameter at `index` (from 0); a value of `None` is NULL.
    pub fn parameter(&self, index: usize) -> Option<(i16, Option<&'a [u8]>)> {
        Some((self.parameter_formats.of(index), self.parameters.iter().nth(index)?))
    }

    /// Whether a parameter says `now` or the like, so that its conversion to a date depends on the clock.
    pub fn parameters_contain_special_time_word(&self) -> bool {
        self.parameters.iter().flatten().any(contains_special_time_word)
    }
}

fn value<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, DecodeError> {
    match reader.i32()? {
        -1 => Ok(None),
        length => {
            let length = usize::try_from(length).map_err(|_| reader.error(Reason::TooShort))?;
            reader.bytes(length).map(Some)
        }
    }
}
