//! How two parts of an aggregate become one.

use super::AggregateError;
use super::array::Array;
use super::numeric::NumericSum;

/// For values that are integers in binary, whatever they stand for; and sums of `numeric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    Add,
    AddNumeric,
    Least,
    Greatest,
    /// Bit by bit; of a bool there is one byte.
    And,
    Or,
}

/// What has been combined so far. NULL is a part of no rows, or of rows that have nothing to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Value { value: i64, width: u8 },
    Sum(Box<NumericSum>),
}

impl Combine {
    /// Returns how many bytes more that takes than before.
    pub fn add(self, cell: &mut Cell, part: Option<&[u8]>) -> Result<usize, AggregateError> {
        let Some(part) = part else { return Ok(0) };
        if self == Self::AddNumeric {
            return add_numeric(cell, part);
        }
        let new = integer(part).ok_or(AggregateError::Malformed)?;
        let value = match *cell {
            Cell::Value { value, .. } => match self {
                Self::Add => value.checked_add(new).ok_or(AggregateError::Overflow)?,
                Self::Least => value.min(new),
                Self::Greatest => value.max(new),
                Self::And => value & new,
                Self::Or => value | new,
                Self::AddNumeric => return Err(AggregateError::Malformed),
            },
            Cell::Null | Cell::Sum(_) => new,
        };
        *cell = Cell::Value { value, width: part.len() as u8 };
        Ok(0)
    }
}

impl Cell {
    pub fn write(&self, array: &mut Array) {
        match self {
            Self::Null => array.push(None),
            Self::Value { value, width } => {
                let bytes = value.to_be_bytes();
                array.push(bytes.get(bytes.len() - usize::from(*width)..));
            }
            Self::Sum(sum) => array.push(Some(&sum.to_bytes())),
        }
    }
}

fn add_numeric(cell: &mut Cell, part: &[u8]) -> Result<usize, AggregateError> {
    let mut before = 0;
    match cell {
        Cell::Sum(sum) => before = sum.weight(),
        _ => *cell = Cell::Sum(Box::default()),
    }
    let Cell::Sum(sum) = cell else { return Err(AggregateError::Malformed) };
    sum.add(part)?;
    Ok(sum.weight() - before)
}

/// The value of a signed integer of one, two, four or eight bytes.
fn integer(bytes: &[u8]) -> Option<i64> {
    Some(match *bytes {
        [a] => i64::from(i8::from_be_bytes([a])),
        [a, b] => i64::from(i16::from_be_bytes([a, b])),
        [a, b, c, d] => i64::from(i32::from_be_bytes([a, b, c, d])),
        [a, b, c, d, e, f, g, h] => i64::from_be_bytes([a, b, c, d, e, f, g, h]),
        _ => return None,
    })
}
