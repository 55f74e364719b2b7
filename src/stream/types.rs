//! How the values of a type are written in JSON, and what the type is called.

use std::borrow::Cow;

/// What a value's text becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    /// A number that every JSON reader holds exactly.
    Integer,
    /// One that may be too large for that.
    BigInteger,
    /// A number, or a string where JSON has none (NaN, Infinity).
    Float,
    /// As it stands.
    Json,
    Bytea,
    Date,
    /// With or without time zone.
    Timestamp,
    TimeTz,
    /// A string of what PostgreSQL writes.
    Text,
}

/// The type of a column or of a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueType {
    pub name: Cow<'static, str>,
    /// Of the elements, if it is an array.
    pub kind: Kind,
    pub is_array: bool,
}

/// Types of PostgreSQL's own: OID, OID of its array, name, kind (src/include/catalog/pg_type.dat).
const BUILT_IN: [(u32, u32, &str, Kind); 36] = [
    (16, 1000, "bool", Kind::Bool),
    (17, 1001, "bytea", Kind::Bytea),
    (18, 1002, "char", Kind::Text),
    (19, 1003, "name", Kind::Text),
    (20, 1016, "int8", Kind::BigInteger),
    (21, 1005, "int2", Kind::Integer),
    (22, 1006, "int2vector", Kind::Text),
    (23, 1007, "int4", Kind::Integer),
    (25, 1009, "text", Kind::Text),
    (26, 1028, "oid", Kind::Integer),
    (30, 1013, "oidvector", Kind::Text),
    (114, 199, "json", Kind::Json),
    (142, 143, "xml", Kind::Text),
    (700, 1021, "float4", Kind::Float),
    (701, 1022, "float8", Kind::Float),
    (790, 791, "money", Kind::Text),
    (829, 1040, "macaddr", Kind::Text),
    (869, 1041, "inet", Kind::Text),
    (650, 651, "cidr", Kind::Text),
    (1042, 1014, "bpchar", Kind::Text),
    (1043, 1015, "varchar", Kind::Text),
    (1082, 1182, "date", Kind::Date),
    (1083, 1183, "time", Kind::Text),
    (1114, 1115, "timestamp", Kind::Timestamp),
    (1184, 1185, "timestamptz", Kind::Timestamp),
    (1186, 1187, "interval", Kind::Text),
    (1266, 1270, "timetz", Kind::TimeTz),
    (1560, 1561, "bit", Kind::Text),
    (1562, 1563, "varbit", Kind::Text),
    (1700, 1231, "numeric", Kind::Text),
    (2205, 2210, "regclass", Kind::Text),
    (2950, 2951, "uuid", Kind::Text),
    (3220, 3221, "pg_lsn", Kind::Text),
    (3614, 3643, "tsvector", Kind::Text),
    (3615, 3645, "tsquery", Kind::Text),
    (3802, 3807, "jsonb", Kind::Json),
];

impl ValueType {
    /// One of PostgreSQL's own common types.
    pub fn built_in(oid: u32) -> Option<Self> {
        BUILT_IN.into_iter().find_map(|(scalar, array, name, kind)| match oid {
            _ if oid == scalar => Some(Self { name: name.into(), kind, is_array: false }),
            _ if oid == array => Some(Self { name: format!("{name}[]").into(), kind, is_array: true }),
            _ => None,
        })
    }

    /// Any other: `element` is the type of its elements, or what that is based on, if it is an array.
    pub fn named(name: String, element: Option<u32>) -> Self {
        let kind = element.and_then(Self::built_in).filter(|element| !element.is_array).map(|element| element.kind);
        Self { name: name.into(), kind: kind.unwrap_or(Kind::Text), is_array: element.is_some() }
    }

    /// Something of which nothing is known.
    pub fn unknown() -> Self {
        Self { name: "unknown".into(), kind: Kind::Text, is_array: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_by_either_oid() {
        let of = |oid| ValueType::built_in(oid).map(|found| (found.name.into_owned(), found.kind, found.is_array));
        assert_eq!(of(23), Some(("int4".into(), Kind::Integer, false)));
        assert_eq!(of(1016), Some(("int8[]".into(), Kind::BigInteger, true)));
        assert_eq!(of(16_384), None);
        let moods = ValueType::named("mood[]".into(), Some(16_384));
        assert_eq!((moods.kind, moods.is_array), (Kind::Text, true));
        assert_eq!(ValueType::named("positive[]".into(), Some(23)).kind, Kind::Integer);
    }

    #[test]
    fn no_oid_stands_for_two_types() {
        let mut oids: Vec<u32> = BUILT_IN.iter().flat_map(|(scalar, array, ..)| [*scalar, *array]).collect();
        oids.sort_unstable();
        oids.dedup();
        assert_eq!(oids.len(), 2 * BUILT_IN.len());
    }
}
