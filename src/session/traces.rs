//! What a session may have left in its connection that another one would find, or that would be missing on another one.
//!
//! **Invariant.** While [`Traces::is_clear`], the connection holds nothing of this session but what the pool carries over:
//! settings as they were last read, prepared statements, sequences as [`Backend::drew_sequence`] says. Whatever the catalogue
//! does not prove harmless raises a doubt *before* it is sent; only the server's own word (the probe) takes it away.
//!
//! Some things the server does not tell: the seed of `random()`, loaded libraries, settings of unknown names. They stay with the
//! connection for good, or until DISCARD ALL.
//!
//! [`Backend::drew_sequence`]: crate::upstream::backend::Backend::drew_sequence

use std::collections::BTreeSet;

use super::effects::is_insertion;
use crate::catalog::analysis::Analysis;
use crate::catalog::model::Model;
use crate::statement::{Class, DiscardTarget, Part, SessionCommand};
pub use crate::telemetry::metrics::Pin;

/// What one request may leave.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Trace {
    /// Something, perhaps.
    pub doubt: bool,
    /// Something that cannot be asked for.
    pub lasting: Option<Pin>,
    pub custom_settings: Vec<Box<str>>,
    /// Settings that hold until the end of the transaction.
    pub local_settings: bool,
    /// It may draw from a sequence.
    pub draws: bool,
    /// It asks what was drawn.
    pub recalls: bool,
    /// It leaves nothing, and may take away what ties the session to its connection.
    pub releases: bool,
    /// It may drop prepared statements unseen.
    pub drops_statements: bool,
}

#[derive(Debug, Default)]
pub struct Traces {
    doubt: bool,
    /// What the last probe has found.
    found: Option<Pin>,
    lasting: Option<Pin>,
    /// Names that the probe must ask for one by one.
    custom_settings: BTreeSet<Box<str>>,
    local_settings: bool,
}

impl Trace {
    /// What a statement may leave, as far as that is known before it is sent. Without a model any read or write may leave
    /// something.
    pub fn of(part: &Part, analysis: Option<&Analysis>, model: Option<&Model>) -> Self {
        let mut trace = Self { doubt: may_keep(part, analysis, model), ..Self::default() };
        if trace.doubt && model.is_some_and(|model| model.sets_hidden_settings) && runs_code(&part.class) {
            trace.lasting = Some(Pin::Setting);
        }
        trace.draws = is_insertion(part) && model.is_none_or(|model| model.has_sequences);
        trace.drops_statements = matches!(part.class, Class::Execute | Class::Call | Class::Do | Class::Unknown);
        trace.releases = part.class == Class::Session(SessionCommand::Close);
        if part.class == Class::Session(SessionCommand::Load) {
            trace.lasting = Some(Pin::Library);
        }
        let Some(keeps) = &part.keeps else { return trace };
        trace.doubt |= keeps.state;
        trace.local_settings = keeps.local_settings;
        trace.custom_settings = keeps.custom_settings.clone();
        trace.draws |= keeps.draws;
        trace.recalls = keeps.recalls;
        if keeps.seeds {
            trace.lasting = Some(Pin::Random);
        } else if keeps.hidden_settings {
            trace.lasting = Some(Pin::Setting);
        }
        trace
    }

    /// It runs what was looked at before, nobody knows which.
    pub fn of_portal() -> Self {
        Self { doubt: true, draws: true, ..Self::default() }
    }

    /// It may leave anything.
    pub fn unknown() -> Self {
        Self { doubt: true, draws: true, drops_statements: true, lasting: Some(Pin::Setting), ..Self::default() }
    }

    pub fn merge(&mut self, other: Self) {
        self.doubt |= other.doubt;
        self.lasting = self.lasting.or(other.lasting);
        self.custom_settings.extend(other.custom_settings);
        self.local_settings |= other.local_settings;
        self.draws |= other.draws;
        self.recalls |= other.recalls;
        self.releases |= other.releases;
        self.drops_statements |= other.drops_statements;
    }
}

impl Traces {
    /// Takes note of what is about to be sent.
    pub fn add(&mut self, trace: Trace) {
        self.doubt |= trace.doubt || (trace.releases && self.found.is_some());
        self.lasting = self.lasting.or(trace.lasting);
        self.custom_settings.extend(trace.custom_settings);
        self.local_settings |= trace.local_settings;
    }

    pub fn add_lasting(&mut self, pin: Pin) {
        self.lasting = self.lasting.or(Some(pin));
    }

    pub fn raise_doubt(&mut self) {
        self.doubt = true;
    }

    /// The transaction is over, and with it what was set for it.
    pub fn end_transaction(&mut self) {
        self.local_settings = false;
    }

    /// DISCARD ALL has succeeded. What remains is for the probe to say.
    pub fn discard(&mut self) {
        self.lasting = self.lasting.filter(|pin| matches!(pin, Pin::Random | Pin::Library | Pin::Unknown));
    }

    /// The probe's answer: what holds the connection, if anything.
    pub fn probed(&mut self, found: Option<Pin>) {
        self.doubt = false;
        self.found = found;
    }

    /// The server did not say.
    pub fn add_unknown(&mut self) {
        self.probed(Some(Pin::Unknown));
    }

    /// Whether DISCARD ALL makes the connection as good as new.
    pub fn can_be_discarded(&self) -> bool {
        !matches!(self.lasting, Some(Pin::Random | Pin::Library | Pin::Unknown))
    }

    pub fn is_doubtful(&self) -> bool {
        self.doubt
    }

    /// What ties the session to its connection, as far as that is known.
    pub fn pin(&self) -> Option<Pin> {
        self.lasting.or(self.found)
    }

    pub fn is_clear(&self) -> bool {
        !self.doubt && self.pin().is_none()
    }

    /// The settings are what was last read or made, and nothing is laid over them for this transaction.
    pub fn settings_are_known(&self) -> bool {
        !self.doubt && !self.local_settings && self.lasting != Some(Pin::Setting)
    }

    pub fn custom_settings(&self) -> impl Iterator<Item = &str> {
        self.custom_settings.iter().map(|name| &**name)
    }
}

fn runs_code(class: &Class) -> bool {
    !matches!(class, Class::Set(_) | Class::Session(_) | Class::Discard(_))
}

fn may_keep(part: &Part, analysis: Option<&Analysis>, model: Option<&Model>) -> bool {
    let unseen = |by_writing: bool| match (analysis, model) {
        _ if part.facts.temporary => true,
        (Some(analysis), _) => analysis.may_keep,
        (None, None) => true,
        (None, Some(model)) => model.may_keep(part) || (by_writing && model.has_opaque_relations()),
    };
    match &part.class {
        Class::Read | Class::CopyOut => unseen(false),
        Class::Write | Class::CopyIn | Class::Truncate => unseen(true),
        Class::Explain { analyze: false, .. } => false,
        Class::Begin(_)
        | Class::Commit { .. }
        | Class::Rollback { .. }
        | Class::Savepoint
        | Class::RollbackTo
        | Class::Release
        | Class::Maintenance
        | Class::Discard(DiscardTarget::Plans | DiscardTarget::Sequences)
        // What they set is in `Part::keeps`.
        | Class::Set(_) => false,
        Class::Session(command) => !matches!(
            command,
            SessionCommand::Notify
                | SessionCommand::Show
                | SessionCommand::Fetch
                | SessionCommand::Move
                | SessionCommand::Close
                | SessionCommand::Checkpoint
                | SessionCommand::Lock
        ),
        Class::Discard(_)
        | Class::PrepareTransaction
        | Class::CommitPrepared
        | Class::RefreshMaterializedView
        | Class::Ddl
        | Class::Execute
        | Class::Call
        | Class::Do
        | Class::Explain { .. }
        | Class::Replication
        | Class::Unknown => true,
    }
}
