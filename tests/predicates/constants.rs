//! Values, spelled in many ways, in the text or as parameters.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Smallint,
    Integer,
    Bigint,
    Text,
    /// `varchar(2)`
    Varchar,
    Boolean,
    Date,
    Numeric,
    /// `char(3)`
    Char,
}

impl Type {
    pub fn is_integer(self) -> bool {
        matches!(self, Self::Smallint | Self::Integer | Self::Bigint)
    }

    /// What columns hold, NULL apart.
    fn domain(self) -> &'static [&'static str] {
        match self {
            Self::Smallint | Self::Integer | Self::Bigint => &["0", "1", "2", "3", "-1"],
            Self::Text | Self::Char => &["x", "y", "x ", "1"],
            Self::Varchar => &["x", "y", "x "],
            Self::Boolean => &["t", "f"],
            Self::Date => &["2024-01-02", "2024-01-03", "1999-12-31"],
            Self::Numeric => &["0", "1", "1.0", "2.5"],
        }
    }

    fn spellings(self) -> &'static [&'static str] {
        match self {
            Self::Smallint | Self::Integer | Self::Bigint => &[
                "0",
                "1",
                "2",
                "3",
                "03",
                "-1",
                "- 1",
                "(1)",
                "'2'",
                "' 1'",
                "int '2'",
                "CAST('1' AS int)",
                "'2'::int",
                "1::bigint",
                "'3'::smallint",
                "1.0",
                "1.4",
                "2::numeric",
                "1::float8",
            ],
            Self::Text => &[
                "'x'",
                "'y'",
                "'x '",
                "E'x'",
                "E'\\x78'",
                "$$y$$",
                "$q$x$q$",
                "'x'::text",
                "'x'\n' '",
                "text 'y'",
                "U&'\\0078'",
                "'x '::char(2)",
                "N'x '",
                "'xy'::varchar(1)",
                "'xz'::char(1)",
                "'x'::name",
                "'nowhere'",
            ],
            Self::Varchar => {
                &["'x'", "'y'", "'x '", "'x   '", "'x'::text", "'xyz'::varchar(1)", "'x '::char(5)", "$$x $$"]
            }
            Self::Boolean => {
                &["true", "false", "'t'", "'yes'", "'off'", "bool 't'", "'f'::boolean", "(false)", "1::bool"]
            }
            Self::Date => &[
                "'2024-01-02'",
                "'2024-1-2'",
                "'Jan 3, 2024'",
                "'20240102'",
                "date '2024-01-02'",
                "'2024-01-03'::date",
                "'1999-12-31'",
                "timestamp '2024-01-02 00:00'",
                "'2024-01-03'::timestamp",
                "'2000-01-01'::date + 8767",
            ],
            Self::Numeric => &["0", "1", "1.0", "'1.00'", "1e0", "2.5", "1::float8", "'2.50'::numeric"],
            Self::Char => &["'x'", "'x '", "'x  '", "'y'", "'x '::text", "'1'::char(3)", "N'x'"],
        }
    }

    /// Types that a parameter may have, as OIDs (src/include/catalog/pg_type.dat); 0 leaves it to the server.
    fn parameter_types(self) -> &'static [u32] {
        match self {
            Self::Smallint | Self::Integer | Self::Bigint => &[23, 23, 20, 21, 0, 1700],
            Self::Text => &[25, 25, 1043, 0, 1042],
            Self::Varchar => &[1043, 25, 0, 1042],
            Self::Boolean => &[16, 0],
            Self::Date => &[1082, 0, 1114],
            Self::Numeric => &[1700, 23, 0],
            Self::Char => &[1042, 25, 0],
        }
    }
}

/// A statement and its parameters; without any it is sent as a simple query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    pub text: String,
    pub parameters: Vec<Parameter>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    pub type_oid: u32,
    /// 0 is text, 1 binary.
    pub format: i16,
    pub value: Option<Vec<u8>>,
}

/// Writes one statement after the other.
pub struct Pen {
    pub rng: StdRng,
    parameters: Option<Vec<Parameter>>,
}

impl Pen {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), parameters: None }
    }

    /// One statement; with parameters or without is up to chance.
    pub fn statement(&mut self, write: impl FnOnce(&mut Self) -> String) -> Sql {
        self.parameters = self.rng.random_bool(0.4).then(Vec::new);
        let text = write(self);
        Sql { text, parameters: self.parameters.take().unwrap_or_default() }
    }

    pub fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        choices.choose(&mut self.rng).expect("not empty")
    }

    /// One of `0..n`.
    pub fn one_of(&mut self, n: u32) -> u32 {
        self.rng.random_range(0..n)
    }

    /// A literal for a row that is stored.
    pub fn stored(&mut self, kind: Type) -> String {
        match self.rng.random_bool(0.12) {
            true => "NULL".into(),
            false => format!("'{}'", self.pick(kind.domain())),
        }
    }

    /// A constant or a parameter.
    pub fn constant(&mut self, kind: Type) -> String {
        if self.parameters.is_some() && self.rng.random_bool(0.6) {
            let type_oid = *kind.parameter_types().choose(&mut self.rng).expect("not empty");
            let text = self.pick(kind.domain());
            let binary = binary(type_oid, text).filter(|_| self.rng.random_bool(0.5));
            let null = self.rng.random_bool(0.05);
            let format = i16::from(binary.is_some());
            let value = (!null).then(|| binary.unwrap_or_else(|| text.into()));
            return self.parameter(Parameter { type_oid, format, value });
        }
        self.pick(kind.spellings()).into()
    }

    /// A list of values that a column is compared with by ANY.
    pub fn array(&mut self, kind: Type) -> String {
        let [one, other] = [self.pick(kind.domain()), self.pick(kind.domain())];
        let elements = [23, 20, 25].into_iter().filter(|&element| (element == 25) == (kind == Type::Text));
        let element = elements.collect::<Vec<_>>().choose(&mut self.rng).copied();
        let (Some(element), true, true) = (element, self.parameters.is_some(), kind.is_integer() || kind == Type::Text)
        else {
            let [one, other] = [self.constant(kind), self.constant(kind)];
            return format!("ARRAY[{one}, {other}]");
        };
        let values = [binary(element, one), binary(element, other)];
        let value = match values {
            [Some(one), Some(other)] if self.rng.random_bool(0.5) => Some(binary_array(element, &[&one, &other])),
            _ => None,
        };
        let format = i16::from(value.is_some());
        let value = value.unwrap_or_else(|| format!("{{\"{one}\",\"{other}\"}}").into());
        let type_oid = match element {
            20 => 1016,
            23 => 1007,
            _ => 1009,
        };
        self.parameter(Parameter { type_oid, format, value: Some(value) })
    }

    fn parameter(&mut self, parameter: Parameter) -> String {
        let parameters = self.parameters.get_or_insert_default();
        parameters.push(parameter);
        format!("${}", parameters.len())
    }
}

/// A value as the server's receive function for the type reads it.
fn binary(type_oid: u32, text: &str) -> Option<Vec<u8>> {
    Some(match type_oid {
        16 => vec![u8::from(text == "t")],
        20 => text.parse::<i64>().ok()?.to_be_bytes().into(),
        21 => text.parse::<i16>().ok()?.to_be_bytes().into(),
        23 => text.parse::<i32>().ok()?.to_be_bytes().into(),
        25 | 1043 => text.into(),
        1082 => {
            let days: i32 = match text {
                "2024-01-02" => 8767,
                "2024-01-03" => 8768,
                _ => -1,
            };
            days.to_be_bytes().into()
        }
        _ => return None,
    })
}

/// One dimension from 1 on, no NULLs (`array_recv`, src/backend/utils/adt/arrayfuncs.c).
fn binary_array(element: u32, values: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [1, 0, element, values.len() as u32, 1] {
        out.extend(word.to_be_bytes());
    }
    for value in values {
        out.extend((value.len() as u32).to_be_bytes());
        out.extend_from_slice(value);
    }
    out
}
