//! Values of columns in canonical form: PostgreSQL's `=` holds between two values of a kind exactly if their forms are equal.
//!
//! Whatever is written in a way that is not understood to the last byte has no form here, and proves nothing. That is never
//! wrong: an unproved value makes a read depend on the whole table, or a write bump the whole column.

use std::str::from_utf8;

/// OIDs of built-in types (src/include/catalog/pg_type.dat).
mod oid {
    pub const BOOL: u32 = 16;
    pub const INT8: u32 = 20;
    pub const INT2: u32 = 21;
    pub const INT4: u32 = 23;
    pub const TEXT: u32 = 25;
    pub const VARCHAR: u32 = 1043;
    pub const DATE: u32 = 1082;
    pub const UUID: u32 = 2950;
}

/// The types of columns that reads can pin, as `pg_attribute.atttypid` has them.
pub const PINNABLE_TYPES: [u32; 8] =
    [oid::BOOL, oid::INT8, oid::INT2, oid::INT4, oid::TEXT, oid::VARCHAR, oid::DATE, oid::UUID];

/// What is equal to what among the values of a type. smallint, integer and bigint are one kind, since they compare by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueKind {
    Integer,
    Uuid,
    Bool,
    Date,
    /// Under a deterministic collation: equal if the bytes are. `longest` is what `varchar(n)` surely takes without
    /// cutting off blanks, in bytes.
    Text {
        longest: Option<usize>,
    },
}

/// A canonical form.
pub type Canonical = Vec<u8>;

impl ValueKind {
    /// The kind of a column of this type, if it is one of [`PINNABLE_TYPES`].
    pub fn of_column(type_oid: u32, modifier: i32) -> Option<Self> {
        Some(match type_oid {
            oid::INT2 | oid::INT4 | oid::INT8 => Self::Integer,
            oid::UUID => Self::Uuid,
            oid::BOOL => Self::Bool,
            oid::DATE => Self::Date,
            oid::TEXT => Self::Text { longest: None },
            // The modifier counts characters and includes a header of four (varchar.c); a character is at least a byte.
            oid::VARCHAR => Self::Text { longest: usize::try_from(modifier - 4).ok() },
            _ => return None,
        })
    }

    /// Whether a value of the built-in type `type_oid` compares with one of this kind by canonical form.
    pub fn takes(self, type_oid: u32) -> bool {
        Self::of_column(type_oid, -1).is_some_and(|kind| kind.family() == self.family())
    }

    /// The same for the name of a type, as a cast has it.
    pub fn takes_named(self, name: &str) -> bool {
        match self {
            Self::Integer => {
                matches!(name, "int" | "integer" | "bigint" | "smallint" | "int2" | "int4" | "int8")
            }
            Self::Uuid => name == "uuid",
            Self::Bool => matches!(name, "bool" | "boolean"),
            Self::Date => name == "date",
            Self::Text { .. } => matches!(name, "text" | "varchar" | "character varying"),
        }
    }

    /// The form of a value written as text, which PostgreSQL's input function for the type would read. Only one way of
    /// writing a value is taken, since others may depend on settings.
    pub fn from_text(self, text: &[u8]) -> Option<Canonical> {
        match self {
            Self::Integer => integer(text),
            Self::Uuid => uuid(text),
            Self::Bool => match text {
                b"t" | b"true" => Some(vec![1]),
                b"f" | b"false" => Some(vec![0]),
                _ => None,
            },
            Self::Date => date(text).map(|days| days.to_be_bytes().to_vec()),
            Self::Text { .. } => (!text.contains(&0)).then(|| text.to_vec()),
        }
    }

    /// The form of a parameter in binary format, of the built-in type `type_oid`.
    pub fn from_binary(self, type_oid: u32, bytes: &[u8]) -> Option<Canonical> {
        if !self.takes(type_oid) {
            return None;
        }
        let integer = |value: i64| Some(value.to_be_bytes().to_vec());
        match (type_oid, bytes) {
            (oid::INT2, [a, b]) => integer(i16::from_be_bytes([*a, *b]).into()),
            (oid::INT4, [a, b, c, d]) => integer(i32::from_be_bytes([*a, *b, *c, *d]).into()),
            (oid::INT8, _) => integer(i64::from_be_bytes(bytes.try_into().ok()?)),
            (oid::UUID, _) if bytes.len() == 16 => Some(bytes.to_vec()),
            (oid::BOOL, [value]) => Some(vec![u8::from(*value != 0)]),
            (oid::DATE, _) if bytes.len() == 4 => Some(bytes.to_vec()),
            (oid::TEXT | oid::VARCHAR, _) => self.from_text(bytes),
            _ => None,
        }
    }

    /// Whether a value of this form is stored as it is, not cut, rounded or refused differently.
    pub fn stores(self, canonical: &Canonical) -> bool {
        match self {
            Self::Text { longest: Some(longest) } => canonical.len() <= longest,
            _ => true,
        }
    }

    fn family(self) -> std::mem::Discriminant<Self> {
        std::mem::discriminant(&self)
    }
}

/// Decimal digits with an optional minus: what every version reads alike. `-0` is 0.
fn integer(text: &[u8]) -> Option<Canonical> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let value: i64 = from_utf8(text).ok()?.parse().ok()?;
    Some(value.to_be_bytes().to_vec())
}

/// The usual form, 8-4-4-4-12 hexadecimal digits.
fn uuid(text: &[u8]) -> Option<Canonical> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.len() != 36 || HYPHENS.iter().any(|at| text[*at] != b'-') {
        return None;
    }
    let digits: Vec<u8> = text.iter().filter(|byte| **byte != b'-').copied().collect();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Option<Canonical> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    bytes.filter(|bytes| rest.is_empty() && bytes.len() == 16)
}

/// `YYYY-MM-DD`, which no DateStyle reads differently; in days since 2000-01-01, as the binary format has it.
fn date(text: &[u8]) -> Option<i32> {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let number = |digits: &[u8]| -> Option<i32> {
        digits
            .iter()
            .try_fold(0, |value, digit| Some(value * 10 + i32::from(digit.is_ascii_digit().then(|| digit - b'0')?)))
    };
    let (year, month, day) = (number(&[*y1, *y2, *y3, *y4])?, number(&[*m1, *m2])?, number(&[*d1, *d2])?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_of = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let longest = *days_of.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year == 0 || !(1..=longest).contains(&day) {
        return None;
    }
    // Days before a year of the Gregorian calendar, counted from the year 1.
    let before = |year: i32| (year - 1) * 365 + (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let months: i32 = days_of.iter().take(month as usize - 1).sum();
    Some(before(year) - before(2000) + months + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: i64) -> Option<Canonical> {
        Some(value.to_be_bytes().to_vec())
    }

    #[test]
    fn integers_of_any_width_and_format_are_one() {
        for text in ["7", "007"] {
            assert_eq!(ValueKind::Integer.from_text(text.as_bytes()), int(7));
        }
        assert_eq!(ValueKind::Integer.from_text(b"-0"), int(0));
        assert_eq!(ValueKind::Integer.from_binary(oid::INT2, &[0, 7]), int(7));
        assert_eq!(ValueKind::Integer.from_binary(oid::INT4, &[255, 255, 255, 255]), int(-1));
        assert_eq!(ValueKind::Integer.from_binary(oid::INT8, &[0, 0, 0, 0, 0, 0, 0, 7]), int(7));
        for text in ["", "-", "+7", " 7", "7 ", "7.0", "1e3", "0x7", "1_000", "--7", "99999999999999999999"] {
            assert_eq!(ValueKind::Integer.from_text(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(ValueKind::Integer.from_binary(oid::INT4, &[0, 7]), None);
        assert_eq!(ValueKind::Integer.from_binary(oid::TEXT, b"7"), None);
    }

    #[test]
    fn dates_are_days_in_either_format() {
        let days = |text: &str| ValueKind::Date.from_text(text.as_bytes());
        for (text, expected) in [
            ("2000-01-01", 0i32),
            ("1999-12-31", -1),
            ("2000-03-01", 60),
            ("2024-02-29", 8825),
            ("1970-01-01", -10_957),
            ("0001-01-01", -730_119),
            ("9999-12-31", 2_921_939),
        ] {
            assert_eq!(days(text), Some(expected.to_be_bytes().to_vec()), "{text}");
            assert_eq!(ValueKind::Date.from_binary(oid::DATE, &expected.to_be_bytes()), days(text));
        }
        for text in
            ["2023-02-29", "2000-13-01", "2000-00-01", "2000-01-00", "0000-01-01", "01/02/2000", "today", "2000-1-1"]
        {
            assert_eq!(days(text), None, "{text}");
        }
    }

    #[test]
    fn uuids_ignore_case_and_take_one_form() {
        let text = "A0eeBC99-9c0b-4ef8-bb6d-6bb9bd380a11";
        let form = ValueKind::Uuid.from_text(text.as_bytes());
        assert_eq!(form, ValueKind::Uuid.from_text(text.to_lowercase().as_bytes()));
        assert_eq!(form, ValueKind::Uuid.from_binary(oid::UUID, form.as_deref().unwrap()));
        assert_eq!(ValueKind::Uuid.from_text(b"a0eebc999c0b4ef8bb6d6bb9bd380a11"), None);
        assert_eq!(ValueKind::Uuid.from_text(b"{0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1}"), None);
    }

    #[test]
    fn text_is_its_bytes_and_booleans_are_their_two_spellings() {
        let text = ValueKind::of_column(oid::VARCHAR, 7).unwrap();
        assert_eq!(text.from_text(b"a "), Some(b"a ".to_vec()));
        assert!(text.stores(&b"abc".to_vec()) && !text.stores(&b"abc ".to_vec()), "varchar(3) cuts off blanks");
        assert!(ValueKind::of_column(oid::VARCHAR, -1).unwrap().stores(&vec![b'a'; 100]));
        assert_eq!(ValueKind::Bool.from_text(b"true"), ValueKind::Bool.from_binary(oid::BOOL, &[1]));
        assert_eq!(ValueKind::Bool.from_text(b"yes"), None);
    }

    #[test]
    fn only_kinds_that_compare_by_form_are_compared() {
        let integer = ValueKind::of_column(oid::INT4, -1).unwrap();
        assert!(integer.takes(oid::INT8) && !integer.takes(1700), "numeric compares otherwise");
        assert!(!ValueKind::Date.takes(1114), "a timestamp has a time of day");
        assert!(!ValueKind::Text { longest: None }.takes(1042), "bpchar ignores blanks");
        for type_oid in PINNABLE_TYPES {
            assert!(ValueKind::of_column(type_oid, -1).is_some_and(|kind| kind.takes(type_oid)));
        }
        assert_eq!(ValueKind::of_column(701, -1), None);
    }
}
