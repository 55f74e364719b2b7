//! Why a request was not answered from the cache.

use std::fmt;

use crate::telemetry::metrics::BYPASS_REASONS;

/// A relation, as the catalogue spells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RelationName {
    pub schema: Box<str>,
    pub name: Box<str>,
}

impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// The reasons for going past the cache, in the words of metrics ([`word`](Self::word)) and of people (`Display`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Bypass {
    Disabled,
    /// Not a single plain SELECT, VALUES, TABLE or WITH.
    NotRead,
    /// In a transaction that is not READ COMMITTED, has written, or has changed settings.
    Transaction,
    /// The session's settings are not known at the moment.
    Settings,
    /// The session may have temporary objects.
    Temporary,
    /// The session's client_encoding is not UTF8, or standard_conforming_strings is off.
    Encoding,
    /// The catalogue is being read again, or cannot be read.
    Catalog,
    /// Sent while replies to earlier requests are outstanding.
    Pipelined,
    /// FOR UPDATE and the like.
    RowLocks,
    /// A function that is not known to depend on its arguments and the key alone.
    Function,
    /// CURRENT_DATE, CURRENT_USER and the like, or 'now' in a literal or a parameter.
    Context,
    /// A cast that may read 'now' out of data.
    TemporalCast,
    /// No relation at all: nothing to save.
    NoRelation,
    /// A system catalogue, a foreign or temporary table, a sequence, or an unknown relation.
    Relation,
    RowSecurity,
    /// An operator or cast of the user's.
    Operator,
    /// An Execute with a row limit, or a shape of request that is only relayed.
    Shape,
    /// Not analysed yet.
    Undecided,
    /// A rule of the configuration says so.
    Rule,
    /// A comment in front of the statement says so.
    Hint,
    /// A write to what it reads is in flight.
    InFlight,
}

impl Bypass {
    /// In the order of their numbers.
    pub const ALL: [Self; BYPASS_REASONS.len()] = [
        Self::Disabled,
        Self::NotRead,
        Self::Transaction,
        Self::Settings,
        Self::Temporary,
        Self::Encoding,
        Self::Catalog,
        Self::Pipelined,
        Self::RowLocks,
        Self::Function,
        Self::Context,
        Self::TemporalCast,
        Self::NoRelation,
        Self::Relation,
        Self::RowSecurity,
        Self::Operator,
        Self::Shape,
        Self::Undecided,
        Self::Rule,
        Self::Hint,
        Self::InFlight,
    ];

    pub fn word(self) -> &'static str {
        BYPASS_REASONS[self as usize]
    }

    /// The reason is what is not known yet; when the answer is here it may be.
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Settings | Self::Catalog | Self::Undecided)
    }
}

impl fmt::Display for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disabled => "the cache is off for this session",
            Self::NotRead => "it is not a single statement that only reads",
            Self::Transaction => "its transaction is not READ COMMITTED, has written, or has changed settings",
            Self::Settings => "the session's settings are not known at the moment",
            Self::Temporary => "the session may have temporary objects",
            Self::Encoding => "the session's client_encoding is not UTF8, or standard_conforming_strings is off",
            Self::Catalog => "the catalogue is being read again, or cannot be read",
            Self::Pipelined => "replies to earlier requests are outstanding",
            Self::RowLocks => "it locks rows",
            Self::Function => "it may call a function that depends on more than its arguments",
            Self::Context => "it names the current time, user or schema",
            Self::TemporalCast => "it converts data that could say 'now' to a date or time",
            Self::NoRelation => "it reads no table",
            Self::Relation => {
                "it reads a system catalogue, a foreign or temporary table, a sequence, or an unknown relation"
            }
            Self::RowSecurity => "it reads a table with row security",
            Self::Operator => "it may use an operator or a cast of the user's",
            Self::Shape => "it asks for its rows in parts",
            Self::Undecided => "it has not been analysed yet",
            Self::Rule => "a rule of the configuration says so",
            Self::Hint => "a hint in the statement says so",
            Self::InFlight => "a write to what it reads is in flight",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_word() {
        for (number, bypass) in Bypass::ALL.into_iter().enumerate() {
            assert_eq!(bypass as usize, number, "{bypass:?}");
        }
        assert_eq!(Bypass::Disabled.word(), "disabled");
        assert_eq!(Bypass::Undecided.word(), "undecided");
        assert_eq!(Bypass::Rule.word(), "rule");
        assert_eq!(Bypass::Hint.word(), "hint");
        assert_eq!(Bypass::InFlight.word(), "in_flight");
        assert_eq!(Bypass::InFlight as usize + 1, BYPASS_REASONS.len());
    }
}
