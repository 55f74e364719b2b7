//! Of which types keys and parts can be, and how they are put together. Types are told by their numbers
//! (src/include/catalog/pg_type.dat).

use super::combine::Combine;
use crate::statement::aggregate::AggregateFunction;

/// A column of partial groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartColumn {
    pub type_oid: u32,
    /// Of the arrays of that type.
    pub array_oid: u32,
    /// Its values compare under a collation.
    pub collated: bool,
    /// Values may be equal without being the same: which one is the least, or the greatest, depends on their order.
    pub ordered: bool,
    /// A part that only the server can combine, and that counts each time.
    pub(super) apart: bool,
    /// How two parts become one; `None` for keys, and for parts that only the server puts together.
    pub(super) combine: Option<Combine>,
}

const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const OID: u32 = 26;
const FLOAT8: u32 = 701;
const BPCHAR: u32 = 1042;
const VARCHAR: u32 = 1043;
const DATE: u32 = 1082;
const TIME: u32 = 1083;
const TIMESTAMP: u32 = 1114;
const TIMESTAMPTZ: u32 = 1184;
const NUMERIC: u32 = 1700;
const UUID: u32 = 2950;

/// Each type with that of its arrays.
const ARRAYS: [(u32, u32); 16] = [
    (BOOL, 1000),
    (BYTEA, 1001),
    (INT8, 1016),
    (INT2, 1005),
    (INT4, 1007),
    (TEXT, 1009),
    (OID, 1028),
    (FLOAT8, 1022),
    (BPCHAR, 1014),
    (VARCHAR, 1015),
    (DATE, 1182),
    (TIME, 1183),
    (TIMESTAMP, 1115),
    (TIMESTAMPTZ, 1185),
    (NUMERIC, 1231),
    (UUID, 2951),
];

impl PartColumn {
    /// A key. `None` for types some of whose values are equal without being the same: which one of them a group shows depends on
    /// the order of its rows. A `numeric` with a scale has but one form for each value, and so has a `char` with a length.
    pub fn key(type_oid: u32, type_modifier: i32) -> Option<Self> {
        let is_exact = match type_oid {
            NUMERIC | BPCHAR => type_modifier >= 0,
            FLOAT8 => false,
            _ => true,
        };
        Self::of(type_oid, None).filter(|_| is_exact)
    }

    /// What a function has made of a part of the rows; `None` if that is of a type that does not make the whole exactly.
    /// `doubles`: sums of `double precision` may depend on the order in which they are added.
    pub fn part(function: AggregateFunction, type_oid: u32, doubles: bool) -> Option<Self> {
        use AggregateFunction::{Avg, BitAnd, BitOr, BoolAnd, BoolOr, Count, Max, Min, Sum};
        let combine = match (function, type_oid) {
            (Count | Sum, INT8) => Some(Combine::Add),
            (Sum, NUMERIC) => Some(Combine::AddNumeric),
            (Sum, FLOAT8) if doubles => None,
            (Min, INT2 | INT4 | INT8 | DATE | TIME | TIMESTAMP | TIMESTAMPTZ) => Some(Combine::Least),
            (Max, INT2 | INT4 | INT8 | DATE | TIME | TIMESTAMP | TIMESTAMPTZ) => Some(Combine::Greatest),
            (Min | Max, TEXT | NUMERIC | FLOAT8 | OID | UUID | BYTEA) => None,
            (BoolAnd, BOOL) | (BitAnd, INT2 | INT4 | INT8) => Some(Combine::And),
            (BoolOr, BOOL) | (BitOr, INT2 | INT4 | INT8) => Some(Combine::Or),
            (Count | Sum | Avg | Min | Max | BoolAnd | BoolOr | BitAnd | BitOr, _) => return None,
        };
        let ordered = matches!((function, type_oid), (Min | Max, NUMERIC | FLOAT8));
        let apart = function == Sum && combine.is_none();
        Some(Self { ordered, apart, ..Self::of(type_oid, combine)? })
    }

    fn of(type_oid: u32, combine: Option<Combine>) -> Option<Self> {
        let (_, array_oid) = ARRAYS.iter().find(|(known, _)| *known == type_oid)?;
        let collated = [TEXT, VARCHAR, BPCHAR].contains(&type_oid);
        Some(Self { type_oid, array_oid: *array_oid, collated, ordered: false, apart: false, combine })
    }
}
