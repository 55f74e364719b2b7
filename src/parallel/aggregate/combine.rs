//! How two parts of an aggregate become one.

use super::AggregateError;
use super::array::Array;

/// For values that are integers in binary, whatever they stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Combine {
    Add,
    Least,
    Greatest,
    /// Bit by bit; of a bool there is one byte.
    And,
    Or,
}

/// What has been combined so far. NULL is a part of no rows, or of rows that have nothing to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cell {
    Null,
    Value { value: i64, width: u8 },
}

impl Combine {
    pub fn add(self, cell: &mut Cell, part: Option<&[u8]>) -> Result<(), AggregateError> {
        let Some(part) = part else { return Ok(()) };
        let new = integer(part).ok_or(AggregateError::Malformed)?;
        let value = match *cell {
            Cell::Null => new,
            Cell::Value { value, .. } => match self {
                Self::Add => value.checked_add(new).ok_or(AggregateError::Overflow)?,
                Self::Least => value.min(new),
                Self::Greatest => value.max(new),
                Self::And => value & new,
                Self::Or => value | new,
            },
        };
        *cell = Cell::Value { value, width: part.len() as u8 };
        Ok(())
    }

    pub fn write(self, cell: &Cell, array: &mut Array) {
        match *cell {
            Cell::Null => array.push(None),
            Cell::Value { value, width } => {
                let bytes = value.to_be_bytes();
                array.push(bytes.get(bytes.len() - usize::from(width)..));
            }
        }
    }
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
