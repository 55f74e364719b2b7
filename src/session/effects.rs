//! What a request may do, as far as it is known before it is sent.
//!
//! **Invariant.** The effects of a request cover what it does: what cannot be said is `Everything` written, settings unknown
//! and the catalogue in doubt.

use super::traces::Trace;
use crate::cache::versions::WriteSet;
use crate::catalog::analysis::Analysis;
use crate::catalog::model::Model;
use crate::statement::{Class, DiscardTarget, Isolation, Part, SessionCommand, SetAction};
use crate::telemetry::metrics::Class as QueryClass;
use crate::wire::message::Bind;

#[derive(Debug, Clone)]
pub struct Effects {
    pub class: QueryClass,
    pub writes: WriteSet,
    /// It may change the catalogue.
    pub doubts_catalog: bool,
    pub settings: Settings,
    pub transaction: Transaction,
    /// DROP, CREATE or ALTER DATABASE: idle control connections are in the way.
    pub concerns_databases: bool,
    /// ALTER ROLE or DATABASE ... SET: what new connections begin with.
    pub concerns_defaults: bool,
    pub deallocates: bool,
    /// Outside a block it may commit in the middle, or is more than one transaction.
    pub commits_itself: bool,
    /// What it may leave in its session; only of interest where connections are shared.
    pub trace: Trace,
}

/// What becomes of the session's settings.
#[derive(Debug, Clone, PartialEq)]
pub enum Settings {
    Kept,
    /// A plain SET, RESET or DISCARD, if it succeeds.
    Applied(SettingsAction),
    Unknown,
}

#[derive(Debug, Clone, PartialEq)]
pub enum SettingsAction {
    Set(SetAction),
    DiscardAll,
    DiscardTemporary,
    Savepoint,
    /// Settings go back to what they were at a savepoint.
    RollbackToSavepoint,
}

/// What a request does to the transaction block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transaction {
    Kept,
    /// It begins one; `plain` if that one may use the cache.
    Begins {
        plain: bool,
    },
    /// It changes how the present one behaves.
    Changed,
    /// It commits it, or rolls it back if it has failed.
    Commits,
    /// It rolls it back.
    RollsBack,
    /// It may end it.
    Ends,
}

impl Effects {
    pub fn none(class: QueryClass) -> Self {
        Self {
            class,
            writes: WriteSet::nothing(),
            doubts_catalog: false,
            settings: Settings::Kept,
            transaction: Transaction::Kept,
            concerns_databases: false,
            concerns_defaults: false,
            deallocates: false,
            commits_itself: false,
            trace: Trace::default(),
        }
    }

    /// It may do anything.
    pub fn opaque(class: QueryClass) -> Self {
        Self {
            writes: WriteSet::Everything,
            doubts_catalog: true,
            settings: Settings::Unknown,
            transaction: Transaction::Ends,
            commits_itself: true,
            trace: Trace::unknown(),
            ..Self::none(class)
        }
    }

    /// It runs code that may do anything but end the transaction block.
    fn runs_code(class: QueryClass) -> Self {
        Self { transaction: Transaction::Kept, commits_itself: false, ..Self::opaque(class) }
    }

    /// The effects of one statement. `analysis` is what the upstream said about it, `model` the present catalogue.
    ///
    /// `bind` tells its parameters, if it has any that are known.
    pub fn of(part: &Part, analysis: Option<&Analysis>, model: Option<&Model>, bind: Option<&Bind<'_>>) -> Self {
        let class = query_class(&part.class);
        let none = Self::none(class);
        let mut effects = match &part.class {
            Class::Read | Class::Write => match (analysis, model) {
                (Some(analysis), _) => Self::analysed(class, part, analysis, bind),
                (None, Some(model)) if part.class == Class::Read && !model.may_write(part) => none,
                // Nothing in this database could make it do more than write rows.
                (None, Some(model))
                    if !part.facts.creates_relation && !model.may_write(part) && !model.has_opaque_relations() =>
                {
                    Self { writes: WriteSet::Everything, ..none }
                }
                _ => Self::runs_code(class),
            },
            Class::CopyIn => {
                analysis.map_or_else(|| Self::runs_code(class), |analysis| Self::analysed(class, part, analysis, bind))
            }
            Class::CopyOut | Class::Session(SessionCommand::Declare) => harmless_under(model, part, class),
            Class::Explain { analyze: false, .. } => none,
            Class::Explain { analyze: true, of } if **of == Class::Read => harmless_under(model, part, class),
            Class::Begin(modes) => {
                let plain =
                    matches!(modes.isolation, None | Some(Isolation::ReadCommitted | Isolation::ReadUncommitted));
                Self { transaction: Transaction::Begins { plain }, ..none }
            }
            Class::Rollback { chain: false } => Self { transaction: Transaction::RollsBack, ..none },
            Class::Commit { chain: false } => Self { transaction: Transaction::Commits, ..none },
            Class::Commit { chain: true } | Class::Rollback { chain: true } | Class::PrepareTransaction => {
                Self { transaction: Transaction::Ends, ..none }
            }
            Class::Savepoint => Self { settings: Settings::Applied(SettingsAction::Savepoint), ..none },
            Class::RollbackTo => Self { settings: Settings::Applied(SettingsAction::RollbackToSavepoint), ..none },
            Class::Release => none,
            Class::Set(SetAction::Transaction(_) | SetAction::Snapshot) => {
                Self { transaction: Transaction::Changed, ..none }
            }
            Class::Set(SetAction::Constraints) => none,
            Class::Set(action) => Self { settings: Settings::Applied(SettingsAction::Set(action.clone())), ..none },
            Class::Discard(DiscardTarget::All) => {
                let settings = Settings::Applied(SettingsAction::DiscardAll);
                Self { settings, deallocates: true, ..none }
            }
            Class::Discard(DiscardTarget::Temporary) => {
                Self { settings: Settings::Applied(SettingsAction::DiscardTemporary), ..none }
            }
            Class::Discard(_) => none,
            Class::Session(SessionCommand::Deallocate) => Self { deallocates: true, ..none },
            Class::Session(SessionCommand::Load) => Self { settings: Settings::Unknown, ..none },
            // It moves rows: what a read by ctid has found is elsewhere.
            Class::Maintenance if part.names("full") || part.names("cluster") => {
                Self { writes: WriteSet::Everything, ..none }
            }
            Class::Session(_) | Class::Maintenance | Class::Replication => none,
            Class::Truncate | Class::RefreshMaterializedView => Self::runs_code(class),
            Class::Ddl => {
                let databases = part.names("database");
                let alters = ["role", "user", "database"].iter().any(|word| part.names(word));
                let concerns_defaults = alters && (part.names("set") || part.names("reset"));
                Self {
                    concerns_databases: databases,
                    concerns_defaults,
                    commits_itself: true,
                    ..Self::runs_code(class)
                }
            }
            // EXPLAIN ANALYZE of CREATE TABLE AS and EXECUTE included: what can be explained cannot end a transaction.
            Class::Execute | Class::Explain { .. } => Self::runs_code(class),
            // In a block they cannot either.
            Class::Call | Class::Do => Self { commits_itself: true, ..Self::runs_code(class) },
            Class::CommitPrepared | Class::Unknown => Self::opaque(class),
        };
        if part.names("set_config") {
            effects.settings = Settings::Unknown;
        }
        effects
    }

    fn analysed(class: QueryClass, part: &Part, analysis: &Analysis, bind: Option<&Bind<'_>>) -> Self {
        Self {
            writes: analysis.writes.of(part, bind),
            doubts_catalog: analysis.disturbs_session,
            settings: if analysis.disturbs_session { Settings::Unknown } else { Settings::Kept },
            ..Self::none(class)
        }
    }

    /// Adds what another statement of the same request may do, after this one.
    pub fn merge(&mut self, other: Self) {
        self.writes.merge(&other.writes);
        self.doubts_catalog |= other.doubts_catalog;
        self.concerns_databases |= other.concerns_databases;
        self.concerns_defaults |= other.concerns_defaults;
        self.deallocates |= other.deallocates;
        self.commits_itself |= other.commits_itself;
        self.trace.merge(other.trace);
        self.settings = self.settings.and(&other.settings);
        self.transaction = self.transaction.and(other.transaction);
    }
}

impl Settings {
    pub fn may_change(&self) -> bool {
        !matches!(self, Self::Kept | Self::Applied(SettingsAction::Savepoint))
    }

    /// What becomes of the settings when both happen.
    pub fn and(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Kept, settings) | (settings, Self::Kept) => settings.clone(),
            // Done twice is done.
            (one, two) if one == two => one.clone(),
            _ => Self::Unknown,
        }
    }
}

impl Transaction {
    /// What becomes of the transaction block when both happen.
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            // What comes after it may commit by itself.
            (Self::RollsBack, _) | (_, Self::RollsBack) => Self::Ends,
            (Self::Kept, transaction) | (transaction, Self::Kept) => transaction,
            // BEGIN and COMMIT in one request: it ends one, and if one is open afterwards it is not trusted.
            _ => Self::Ends,
        }
    }
}

/// Whether it may make new rows.
pub fn is_insertion(part: &Part) -> bool {
    match part.class {
        Class::Write => part.facts.odd || part.names("insert") || part.names("merge"),
        Class::Read | Class::CopyOut | Class::Truncate => false,
        Class::CopyIn | Class::Execute | Class::Call | Class::Do | Class::Unknown | Class::Explain { .. } => true,
        Class::Ddl => part.names("select"),
        _ => false,
    }
}

fn harmless_under(model: Option<&Model>, part: &Part, class: QueryClass) -> Effects {
    match model {
        Some(model) if !model.may_write(part) => Effects::none(class),
        _ => Effects::runs_code(class),
    }
}

fn query_class(class: &Class) -> QueryClass {
    match class {
        Class::Read => QueryClass::Read,
        Class::Write | Class::CopyIn | Class::Truncate => QueryClass::Write,
        Class::Begin(_)
        | Class::Commit { .. }
        | Class::Rollback { .. }
        | Class::Savepoint
        | Class::RollbackTo
        | Class::Release
        | Class::PrepareTransaction
        | Class::CommitPrepared => QueryClass::Transaction,
        Class::Set(_) | Class::Discard(_) | Class::Session(_) => QueryClass::Session,
        Class::CopyOut
        | Class::Maintenance
        | Class::RefreshMaterializedView
        | Class::Explain { .. }
        | Class::Replication => QueryClass::Utility,
        Class::Ddl => QueryClass::Ddl,
        Class::Execute | Class::Call | Class::Do | Class::Unknown => QueryClass::Unknown,
    }
}
