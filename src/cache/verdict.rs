//! Why a request was not answered from the cache.

use crate::telemetry::metrics::BYPASS_REASONS;

/// The reasons for going past the cache, in the words of metrics and of people.
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
    /// A write to what it reads is in flight.
    InFlight,
}

impl Bypass {
    pub fn word(self) -> &'static str {
        BYPASS_REASONS[self as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_word() {
        assert_eq!(Bypass::Disabled.word(), "disabled");
        assert_eq!(Bypass::InFlight.word(), "in_flight");
        assert_eq!(Bypass::InFlight as usize + 1, BYPASS_REASONS.len());
    }
}
