//! The classes of statements.

/// What a statement does, as far as its text tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Class {
    /// SELECT, VALUES, TABLE or WITH in which none of the words INSERT, UPDATE, DELETE, MERGE and INTO stands unquoted
    /// (but for row locks). Functions it calls may still write.
    Read,
    /// INSERT, UPDATE, DELETE, MERGE, a WITH that may hold one, SELECT INTO (`Facts::creates_relation`), and COPY of one.
    Write,
    Begin(TransactionModes),
    Commit {
        chain: bool,
    },
    Rollback {
        chain: bool,
    },
    Savepoint,
    RollbackTo,
    Release,
    PrepareTransaction,
    /// COMMIT PREPARED and ROLLBACK PREPARED.
    CommitPrepared,
    Set(SetAction),
    Discard(DiscardTarget),
    Session(SessionCommand),
    CopyOut,
    CopyIn,
    /// VACUUM, ANALYZE, REINDEX, CLUSTER.
    Maintenance,
    Truncate,
    RefreshMaterializedView,
    /// CREATE, ALTER, DROP, COMMENT, GRANT, REVOKE, REASSIGN, SECURITY LABEL, IMPORT FOREIGN SCHEMA.
    Ddl,
    /// EXECUTE of a statement that SQL PREPARE made.
    Execute,
    Call,
    Do,
    Explain {
        analyze: bool,
        /// The class of the explained statement.
        of: Box<Class>,
    },
    /// A command of the replication protocol.
    Replication,
    /// Anything else: it may do anything.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TransactionModes {
    pub isolation: Option<Isolation>,
    pub read_only: Option<bool>,
    pub deferrable: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// What a SET or RESET changes. Names are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetAction {
    /// `SET [LOCAL] name = value`; the value is the normal form of its tokens, `None` for DEFAULT.
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    Reset {
        name: String,
    },
    ResetAll,
    /// SET TRANSACTION.
    Transaction(TransactionModes),
    /// SET TRANSACTION SNAPSHOT.
    Snapshot,
    SessionCharacteristics(TransactionModes),
    Constraints,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiscardTarget {
    All,
    Plans,
    Sequences,
    Temporary,
}

/// Commands that use or change the session and no relation's rows by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionCommand {
    Listen,
    Unlisten,
    Notify,
    Show,
    Declare,
    Fetch,
    Move,
    Close,
    Prepare,
    Deallocate,
    Load,
    Checkpoint,
    Lock,
}
