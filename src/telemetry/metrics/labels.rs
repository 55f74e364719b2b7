//! The values of the metrics' labels. Each is an enum, so that a series that is not there cannot be counted.

/// An enum whose variants stand for the values of one label.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// In the order of their numbers.
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$variant),+];

            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

label! {
    /// Whom a connection leads to.
    Side {
        Client = "client",
        Upstream = "upstream",
    }
}

label! {
    /// Whether a connection runs something.
    State {
        Active = "active",
        Idle = "idle",
    }
}

label! {
    /// What a statement does.
    Class {
        Read = "read",
        Write = "write",
        Transaction = "transaction",
        Session = "session",
        Utility = "utility",
        Ddl = "ddl",
        Unknown = "unknown",
    }
}

label! {
    /// Where an answer came from.
    Path {
        Cache = "cache",
        Upstream = "upstream",
        /// Several connections at once.
        Parallel = "parallel",
    }
}

label! {
    /// Why a read was not split.
    Unsplit {
        /// Its text is of no form that is split.
        Shape = "shape",
        /// A hint says so.
        Hint = "hint",
        /// A rule says so.
        Rule = "rule",
        /// The proxy cannot log in as its user.
        Login = "login",
        /// In a transaction block, or behind requests that are not answered yet.
        Transaction = "transaction",
        /// A prepared statement that the server has not parsed or executed under these settings and this catalogue.
        Prepared = "prepared",
        /// The session's settings are not known, or cannot be given to another connection.
        Settings = "settings",
        /// The catalogue is being read again, or cannot be read.
        Catalog = "catalog",
        /// What it would answer may depend on who runs it and when.
        Unsafe = "unsafe",
        /// It reads something else than one ordinary table.
        Relation = "relation",
        /// The plan is not a plain scan, or the server splits it itself.
        Plan = "plan",
        /// The server sorts it by what only it can compare, or it is not clear by what.
        Order = "order",
        /// The table has too few rows or bytes, or the plan costs too little.
        Small = "small",
        /// Too few connections, or too little memory, are free.
        Busy = "busy",
        /// It could not be begun; it ran unsplit.
        Failed = "failed",
        /// An aggregate, or a type, that is not put together from parts.
        Aggregate = "aggregate",
        /// It has too many groups: putting them together would cost more than it saves.
        Groups = "groups",
    }
}

label! {
    /// How a split read or a stream has ended.
    Outcome {
        Complete = "complete",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

label! {
    /// What the cache had to say.
    Access {
        Hit = "hit",
        Miss = "miss",
        Bypass = "bypass",
    }
}

label! {
    /// Why a result left the cache.
    Eviction {
        Capacity = "capacity",
        Ttl = "ttl",
        Invalid = "invalid",
    }
}

label! {
    /// How much an invalidation took.
    Scope {
        Table = "table",
        Everything = "everything",
        /// Everything, which the upstream's locks have narrowed to some tables.
        Witnessed = "witnessed",
    }
}

label! {
    /// What ties a session to its connection.
    Pin {
        Listen = "listen",
        Temporary = "temporary",
        AdvisoryLock = "advisory_lock",
        Cursor = "cursor",
        Prepared = "prepared",
        Sequence = "sequence",
        Random = "random",
        Setting = "setting",
        Library = "library",
        /// A statement too long to be kept.
        Statement = "statement",
        /// The server did not say.
        Unknown = "unknown",
    }
}

label! {
    /// The proxy's own work upstream.
    Operation {
        Connect = "connect",
        Analyse = "analyse",
        /// Asking the planner whether a scan is worth splitting.
        PlanScan = "plan_scan",
        Resync = "resync",
        Witness = "witness",
        /// A shared connection changes hands.
        Handover = "handover",
        CatalogRefresh = "catalog_refresh",
        /// Somebody asks about a statement that no session has sent.
        Explain = "explain",
    }
}

label! {
    /// How it failed.
    ErrorKind {
        /// The connection was refused, reset or closed.
        Io = "io",
        Timeout = "timeout",
        Tls = "tls",
        Authentication = "authentication",
        /// The other side broke the protocol.
        Protocol = "protocol",
        /// The server answered with an error.
        Server = "server",
        /// One of our own limits was reached.
        Limit = "limit",
    }
}

/// Why a request was not answered from the cache, in the order of `cache::verdict::Bypass`.
pub const BYPASS_REASONS: [&str; 21] = [
    "disabled",
    "not_read",
    "transaction",
    "settings",
    "temporary",
    "encoding",
    "catalog",
    "pipelined",
    "row_locks",
    "function",
    "context",
    "temporal_cast",
    "no_relation",
    "relation",
    "row_security",
    "operator",
    "shape",
    "undecided",
    "rule",
    "hint",
    "in_flight",
];
