//! The typed configuration: every key, its default, and what it means.
//!
//! `config.toml` at the top of the tree documents the same keys; a test proves that both agree. Sources and their
//! precedence (flag, environment, file, default) are in [`load()`].

mod hosts;
mod keys;
mod load;
mod overrides;
mod rules;
mod validate;

pub use hosts::{Host, HostError};
pub use keys::{Change, Setting, changes, settings};
pub use load::{ConfigError, Place, Problem, Sources, load, with};
pub use overrides::{Overrides, UrlError};
pub use rules::{CacheRule, Pattern, TableName};

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::guard::{CircuitBreakerConfig, RetryConfig};
pub use crate::parallel::ParallelConfig;
pub use crate::stream::StreamConfig;

/// The whole configuration. Every field has a default, so an empty file is a valid one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub server: Server,
    pub tls: ClientTls,
    pub upstream: Upstream,
    pub pool: Pool,
    pub retry: RetryConfig,
    pub breaker: CircuitBreakerConfig,
    pub auth: Auth,
    pub admin: Admin,
    pub cache: Cache,
    pub catalog: Catalog,
    pub parallel: ParallelConfig,
    pub stream: StreamConfig,
    pub log: Log,
    pub tracing: Tracing,
}

/// Where clients connect, and how many may.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    /// TCP addresses to listen on, `host:port`.
    pub listen: Vec<String>,
    /// Directory for the Unix socket `.s.PGSQL.<port of the first TCP address>`; empty for none.
    pub unix_socket_dir: String,
    /// Permissions of the Unix socket, octal.
    pub unix_socket_mode: String,
    /// Address of the HTTP listener for metrics and health, `host:port`; empty for none.
    pub http: String,
    /// Threads that run sessions; 0 for one per core.
    pub worker_threads: usize,
    /// How the system schedules them.
    pub worker_scheduling: Scheduling,
    /// Client connections at once; one more is refused with SQLSTATE 53300.
    pub max_clients: usize,
    /// The same of one user; 0 for no limit of its own.
    pub max_clients_per_user: usize,
    /// Seconds a client has from its connection to the end of its authentication.
    pub startup_timeout_secs: u64,
    /// Seconds that a client may do nothing outside a transaction; 0 for any number.
    pub client_idle_timeout_secs: u64,
    /// Seconds that a client may do nothing inside a transaction; 0 for any number.
    pub idle_in_transaction_timeout_secs: u64,
    /// Seconds that a query may run before it is cancelled; 0 for any number.
    pub query_timeout_secs: u64,
    /// Milliseconds that TCP waits for a client to confirm what it was sent; 0 leaves the system's setting.
    pub tcp_user_timeout_ms: u64,
    /// Seconds that running transactions get after SIGTERM.
    pub shutdown_timeout_secs: u64,
    /// Directory in which the processes of this proxy find each other, so that a newer one takes over; empty for none.
    pub takeover_dir: String,
    /// Seconds that clients of a process which another one has taken over from may stay; then it ends as after SIGTERM.
    pub takeover_timeout_secs: u64,
    /// Bytes of one socket buffer of a session; larger messages pass through in pieces.
    pub buffer_bytes: usize,
    /// Longest statement or Bind message that is inspected; a longer one is relayed in pieces and taken to write anything.
    pub max_inspect_bytes: usize,
}

/// How the operating system schedules the threads that run sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheduling {
    /// While it has few sessions, one that is woken waits until whoever runs on its core has come to an end or used up its turn.
    Auto,
    /// It may always push it aside.
    Normal,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientTls {
    /// `disable`, `allow` (same as prefer on this side), `prefer` (offer it), `require`, `verify-ca` or `verify-full`
    /// (a client certificate is required; under verify-full its CN must be the user).
    pub mode: TlsMode,
    /// Certificate chain, PEM.
    pub cert_file: String,
    /// Private key, PEM.
    pub key_file: String,
    /// CA certificates that client certificates are checked against, PEM.
    pub ca_file: String,
}

/// `sslmode` as libpq knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    Disable,
    Allow,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// `target_session_attrs` as libpq knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionAttributes {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

/// The PostgreSQL server behind the proxy, and the service account for the control plane. Its `Debug` hides the password.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Upstream {
    /// Host name, address, or a directory (starting with `/`) that holds the server's Unix socket; or several of them, each with or
    /// without a port of its own, that are tried in this order.
    pub host: String,
    pub port: u16,
    /// Database of the service account's first connection (health, `auth_query`).
    pub database: String,
    /// Service account: reads the catalogue, runs `auth_query` and health probes.
    pub user: String,
    pub password: String,
    /// Which of the hosts will do.
    pub target_session_attrs: SessionAttributes,
    pub sslmode: TlsMode,
    /// CA certificates for verify-ca and verify-full, PEM; `system` for the system's store.
    pub sslrootcert: String,
    /// Client certificate and key for the upstream, PEM.
    pub sslcert: String,
    pub sslkey: String,
    pub connect_timeout_secs: u64,
    /// Seconds of silence after which TCP keepalive probes start; 0 leaves the system's setting.
    pub keepalive_secs: u64,
    /// Milliseconds that TCP waits for the server to confirm what it was sent; 0 leaves the system's setting.
    pub tcp_user_timeout_ms: u64,
}

/// Upstream connections for client sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Pool {
    pub mode: PoolMode,
    /// Upstream connections for clients at once, over all databases and users.
    pub max_upstream_connections: usize,
    /// Of these, connections of one user; 0 for no bound of its own.
    pub max_connections_per_user: usize,
    /// Of these, connections into one database; 0 for no bound of its own.
    pub max_connections_per_database: usize,
    /// Of these, shared connections for clients of the same database, user and start-up parameters; 0 for no bound of its own.
    pub size: usize,
    /// Shared connections of a kind that stay open however long they are idle.
    pub min_size: usize,
    /// Seconds a client waits for one of them before it is refused with SQLSTATE 53300.
    pub wait_timeout_secs: u64,
    /// In mode `session`: idle upstream connections kept for reuse after `DISCARD ALL`; 0 closes each with its client, as a
    /// directly connected client would.
    pub max_idle: usize,
    /// Seconds after which an idle upstream connection is closed.
    pub idle_timeout_secs: u64,
    /// Seconds after which a shared connection is closed when its transaction is over.
    pub max_lifetime_secs: u64,
    /// Statements that stay prepared on each shared connection.
    pub prepared_statements: usize,
    /// Milliseconds for which a connection may have been idle and still be used without asking its server; 0 never asks.
    pub check_after_idle_ms: u64,
    /// How long the server's answer may take then, before another connection is used.
    pub check_timeout_ms: u64,
    /// A read whose shared connection is lost before the client was told anything is asked again on another one.
    pub retry_reads: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolMode {
    /// One upstream connection for each client.
    Session,
    /// Shared after each transaction, whatever state the session leaves in it: that is lost.
    Transaction,
    /// Shared after each transaction, unless the session has state in it that cannot be carried to another.
    Auto,
}

/// How clients prove who they are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    pub mode: AuthMode,
    /// File with lines `"user" "secret"`; the secret is a SCRAM verifier, an md5 hash or a plain password.
    pub user_file: String,
    /// Query that the service account runs for users who are not in `user_file`: `$1` is the user, columns are user and secret.
    /// Empty for none.
    pub auth_query: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AuthMode {
    /// Messages pass between the client and its own upstream connection; works with any method of the upstream.
    Relay,
    /// Nobody is asked. For development.
    Trust,
    /// SCRAM-SHA-256 against `user_file` and `auth_query`.
    Scram,
    /// md5 against the same sources; SCRAM for users whose secret is a SCRAM verifier.
    Md5,
}

/// Who may use the admin database `helios`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Admin {
    /// Users who may look and change.
    pub users: Vec<String>,
    /// Users who may look.
    pub stats_users: Vec<String>,
    /// Shapes of statements that figures are kept of.
    pub max_statements: usize,
}

/// The result cache.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cache {
    pub enabled: bool,
    pub max_entries: usize,
    pub max_memory_mb: usize,
    /// Seconds an entry lives, counted from its fill.
    pub default_ttl_secs: u64,
    pub eviction_strategy: EvictionStrategy,
    /// Invalidate by table; false invalidates the whole database on every write.
    pub enable_table_tracking: bool,
    /// Counters, of eight bytes each, that the values of columns are spread over: the more, the fewer rows share theirs.
    pub version_stripes: usize,
    pub enable_stats: bool,
    /// A larger result is relayed and not recorded.
    pub max_entry_bytes: usize,
    /// Longest wait of an identical miss for the first one; then it goes to the upstream itself.
    pub single_flight_wait_ms: u64,
    /// Misses that are on their way to the upstream at once; 0 for any number.
    pub max_misses: usize,
    /// Misses of statements that differ only in their literals; 0 for any number.
    pub max_misses_per_statement: usize,
    /// Longest wait of a miss for its turn; then it goes upstream all the same.
    pub miss_wait_ms: u64,
    /// While the circuit breaker is open, sessions without an upstream connection are answered with results that have expired.
    pub serve_stale_on_open: bool,
    /// Greatest age, in seconds, of a result that is served then.
    pub max_stale_secs: u64,
    /// Functions, operators and casts of the user's that are declared IMMUTABLE are taken to be.
    pub trust_immutable_functions: bool,
    /// In order; the first that matches a statement counts.
    pub rules: Vec<CacheRule>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvictionStrategy {
    Lru,
    Lfu,
    LruWithSize,
    TimeAwareLru,
}

/// What the proxy asks the upstream about its catalogue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Catalog {
    /// Seconds between two looks for DDL that did not pass the proxy.
    pub refresh_secs: u64,
    /// Longest wait for a lock while a statement is analysed.
    pub lock_timeout_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A `tracing` filter, for example `info` or `heliosproxy=debug,warn`.
    pub level: String,
    pub format: LogFormat,
    /// Statements that the upstream takes at least so long for are logged; 0 for none.
    pub slow_query_ms: u64,
    /// They are logged as they were sent, with their literals and parameters.
    pub slow_query_parameters: bool,
}

/// Where traces go (OpenTelemetry), and of how many statements there are any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tracing {
    /// URL of an OTLP receiver for HTTP and protobuf, for example `http://127.0.0.1:4318`; empty for no traces.
    pub endpoint: String,
    /// CA certificates that an `https` endpoint is checked against, PEM; empty for the system's.
    pub ca_file: String,
    /// The name under which the proxy appears.
    pub service_name: String,
    /// The part of the statements without a trace context of their own that begin a trace, 0 to 1.
    pub sample_ratio: f64,
    /// Tell the server which span a simple query belongs to, in a comment behind it.
    pub propagate: bool,
}

impl Default for Tracing {
    fn default() -> Self {
        let (endpoint, ca_file, service_name) = (String::new(), String::new(), "heliosproxy".into());
        Self { endpoint, ca_file, service_name, sample_ratio: 1.0, propagate: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: vec!["127.0.0.1:6432".into()],
            unix_socket_dir: String::new(),
            unix_socket_mode: "0777".into(),
            http: String::new(),
            worker_threads: 0,
            worker_scheduling: Scheduling::Auto,
            max_clients: 10_000,
            max_clients_per_user: 0,
            startup_timeout_secs: 60,
            client_idle_timeout_secs: 0,
            idle_in_transaction_timeout_secs: 0,
            query_timeout_secs: 0,
            tcp_user_timeout_ms: 0,
            shutdown_timeout_secs: 30,
            takeover_dir: String::new(),
            takeover_timeout_secs: 300,
            buffer_bytes: 65_536,
            max_inspect_bytes: 1_048_576,
        }
    }
}

impl Default for ClientTls {
    fn default() -> Self {
        Self { mode: TlsMode::Disable, cert_file: String::new(), key_file: String::new(), ca_file: String::new() }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 5432,
            database: "postgres".into(),
            user: "postgres".into(),
            password: String::new(),
            target_session_attrs: SessionAttributes::Any,
            sslmode: TlsMode::Prefer,
            sslrootcert: String::new(),
            sslcert: String::new(),
            sslkey: String::new(),
            connect_timeout_secs: 10,
            keepalive_secs: 60,
            tcp_user_timeout_ms: 0,
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart by name, so that a new field cannot be forgotten here.
        let Self {
            host,
            port,
            database,
            user,
            password,
            target_session_attrs,
            sslmode,
            sslrootcert,
            sslcert,
            sslkey,
            connect_timeout_secs,
            keepalive_secs,
            tcp_user_timeout_ms,
        } = self;
        f.debug_struct("Upstream")
            .field("host", host)
            .field("port", port)
            .field("database", database)
            .field("user", user)
            .field("password", &if password.is_empty() { "(none)" } else { "(hidden)" })
            .field("target_session_attrs", target_session_attrs)
            .field("sslmode", sslmode)
            .field("sslrootcert", sslrootcert)
            .field("sslcert", sslcert)
            .field("sslkey", sslkey)
            .field("connect_timeout_secs", connect_timeout_secs)
            .field("keepalive_secs", keepalive_secs)
            .field("tcp_user_timeout_ms", tcp_user_timeout_ms)
            .finish()
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            mode: PoolMode::Auto,
            max_upstream_connections: 1000,
            max_connections_per_user: 0,
            max_connections_per_database: 0,
            size: 0,
            min_size: 0,
            wait_timeout_secs: 30,
            max_idle: 0,
            idle_timeout_secs: 300,
            max_lifetime_secs: 3600,
            prepared_statements: 200,
            check_after_idle_ms: 30_000,
            check_timeout_ms: 1000,
            retry_reads: true,
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            mode: AuthMode::Relay,
            user_file: String::new(),
            auth_query: "SELECT rolname, rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"
                .into(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        Self { users: Vec::new(), stats_users: Vec::new(), max_statements: 1000 }
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            enabled: true,
            max_entries: 10_000,
            max_memory_mb: 1024,
            default_ttl_secs: 300,
            eviction_strategy: EvictionStrategy::TimeAwareLru,
            enable_table_tracking: true,
            version_stripes: crate::cache::versions::DEFAULT_STRIPES,
            enable_stats: true,
            max_entry_bytes: 8 * 1024 * 1024,
            single_flight_wait_ms: 1000,
            max_misses: 0,
            max_misses_per_statement: 0,
            miss_wait_ms: 5000,
            serve_stale_on_open: false,
            max_stale_secs: 3600,
            trust_immutable_functions: false,
            rules: Vec::new(),
        }
    }
}

impl Default for Catalog {
    fn default() -> Self {
        Self { refresh_secs: 5, lock_timeout_ms: 50 }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".into(), format: LogFormat::Text, slow_query_ms: 0, slow_query_parameters: false }
    }
}
