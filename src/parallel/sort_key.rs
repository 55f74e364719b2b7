//! Values as PostgreSQL orders them.
//!
//! **Invariant.** What [`SortKey::push`] makes of the values of two rows compares, byte by byte, as PostgreSQL's own comparison of
//! the values does, in the direction and with NULLs where the key says; and no code of a value is the beginning of another one's,
//! so that those of several keys can be written one behind the other.

use super::link::LinkError;

/// In which direction a key is sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SortDirection {
    Ascending,
    Descending,
}

/// One key of an ORDER BY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SortKey {
    pub order: KeyOrder,
    pub direction: SortDirection,
    pub nulls_first: bool,
}

/// How the values of a type are ordered, as they are sent in binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOrder {
    /// Signed numbers of so many bytes: integers, and times and dates, which are counted.
    Signed(usize),
    /// Numbers without a sign, of so many bytes; or bytes, from the first to the last.
    Unsigned(usize),
    Float4,
    Float8,
    Numeric,
    Interval,
    /// Any number of bytes, from the first to the last.
    Bytes,
    /// The same, but for spaces at the end.
    Padded,
}

/// A type's order, and whether it is a collation's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TypeOrder {
    pub order: KeyOrder,
    pub collated: bool,
}

const MICROSECONDS: i64 = 1_000_000;
const DAY: i128 = 24 * 60 * 60 * MICROSECONDS as i128;

impl TypeOrder {
    /// Of PostgreSQL's own types; `None` for a type whose values only the server can compare.
    pub fn of(type_oid: u32) -> Option<Self> {
        let plain = |order| Some(Self { order, collated: false });
        let collated = |order| Some(Self { order, collated: true });
        match type_oid {
            21 => plain(KeyOrder::Signed(2)),
            // int4, date.
            23 | 1082 => plain(KeyOrder::Signed(4)),
            // int8, time, timestamp, timestamptz.
            20 | 1083 | 1114 | 1184 => plain(KeyOrder::Signed(8)),
            // bool, "char".
            16 | 18 => plain(KeyOrder::Unsigned(1)),
            // oid.
            26 => plain(KeyOrder::Unsigned(4)),
            // uuid.
            2950 => plain(KeyOrder::Unsigned(16)),
            700 => plain(KeyOrder::Float4),
            701 => plain(KeyOrder::Float8),
            1700 => plain(KeyOrder::Numeric),
            1186 => plain(KeyOrder::Interval),
            // bytea; name, whose own collation is C.
            17 | 19 => plain(KeyOrder::Bytes),
            // text, varchar.
            25 | 1043 => collated(KeyOrder::Bytes),
            // char(n).
            1042 => collated(KeyOrder::Padded),
            _ => None,
        }
    }
}

impl SortKey {
    /// Appends the code of a value, as it is sent in binary; `None` is NULL.
    pub fn push(&self, value: Option<&[u8]>, code: &mut Vec<u8>) -> Result<(), LinkError> {
        let Some(value) = value else {
            code.push(if self.nulls_first { 0 } else { 2 });
            return Ok(());
        };
        code.push(1);
        let start = code.len();
        self.order.push(value, code).ok_or(LinkError::Protocol("a sort key has another length than its type"))?;
        if self.direction == SortDirection::Descending {
            code[start..].iter_mut().for_each(|byte| *byte = !*byte);
        }
        Ok(())
    }
}

impl KeyOrder {
    fn push(self, value: &[u8], code: &mut Vec<u8>) -> Option<()> {
        match self {
            Self::Signed(length) | Self::Unsigned(length) if value.len() != length => return None,
            Self::Signed(_) => {
                let (first, rest) = value.split_first()?;
                code.push(first ^ 0x80);
                code.extend_from_slice(rest);
            }
            Self::Unsigned(_) => code.extend_from_slice(value),
            Self::Float4 => {
                let value = f32::from_be_bytes(value.try_into().ok()?);
                code.extend_from_slice(&float_bits(f64::from(value)).to_be_bytes());
            }
            Self::Float8 => {
                let value = f64::from_be_bytes(value.try_into().ok()?);
                code.extend_from_slice(&float_bits(value).to_be_bytes());
            }
            Self::Numeric => push_numeric(value, code)?,
            Self::Interval => {
                let (time, days_and_months) = value.split_at_checked(8)?;
                let (days, months) = days_and_months.split_at_checked(4)?;
                let time = i64::from_be_bytes(time.try_into().ok()?);
                let days = i32::from_be_bytes(days.try_into().ok()?);
                let months = i32::from_be_bytes(months.try_into().ok()?);
                push_signed(i128::from(time) + (i128::from(months) * 30 + i128::from(days)) * DAY, code);
            }
            Self::Bytes => push_bytes(value, code),
            Self::Padded => {
                let end = value.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
                push_bytes(&value[..end], code);
            }
        }
        Some(())
    }
}

fn push_signed(value: i128, code: &mut Vec<u8>) {
    code.extend_from_slice(&(value ^ i128::MIN).to_be_bytes());
}

/// In the order of the numbers; NaN is equal to itself, and greater than everything else.
fn float_bits(value: f64) -> u64 {
    if value.is_nan() {
        return u64::MAX;
    }
    // Both zeros are equal.
    let bits = (value + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Zeros inside are told from the end.
fn push_bytes(value: &[u8], code: &mut Vec<u8>) {
    for byte in value {
        code.push(*byte);
        if *byte == 0 {
            code.push(0xFF);
        }
    }
    code.extend_from_slice(&[0, 0]);
}

/// Digits in base 10,000 behind the place of the first of them; see `numeric_send` (src/backend/utils/adt/numeric.c).
fn push_numeric(value: &[u8], code: &mut Vec<u8>) -> Option<()> {
    const NEGATIVE: u16 = 0x4000;
    let mut words = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let (count, weight, sign, _scale) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let mut digits: Vec<u16> = words.collect();
    if digits.len() != usize::from(count) || !value.len().is_multiple_of(2) {
        return None;
    }
    let mut weight = i32::from(weight.cast_signed());
    while digits.last() == Some(&0) {
        digits.pop();
    }
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    digits.drain(..leading);
    weight -= i32::try_from(leading).ok()?;
    let class: u8 = match sign {
        0xF000 => 0,
        NEGATIVE if !digits.is_empty() => 1,
        0 | NEGATIVE if digits.is_empty() => 2,
        0 => 3,
        0xD000 => 4,
        0xC000 => 5,
        _ => return None,
    };
    code.push(class);
    if class != 1 && class != 3 {
        return Some(());
    }
    let start = code.len();
    code.extend_from_slice(&(weight ^ i32::MIN).to_be_bytes());
    for digit in digits {
        code.extend_from_slice(&(digit + 1).to_be_bytes());
    }
    code.extend_from_slice(&[0, 0]);
    if class == 1 {
        code[start..].iter_mut().for_each(|byte| *byte = !*byte);
    }
    Some(())
}

#[cfg(test)]
mod tests;
