//! What a value must satisfy beyond its type. Every violation is reported, not only the first.

use std::fmt::Display;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::Path;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::{
    Admin, Auth, AuthMode, Cache, CacheRule, Catalog, CircuitBreakerConfig, ClientTls, Config, Host, Log,
    ParallelConfig, Pool, RetryConfig, Server, StreamConfig, TlsMode, Tracing, Upstream,
};

/// A longer wait than this is a slip of the pen.
const YEAR_SECS: u64 = 365 * 24 * 3600;
const YEAR_MS: u64 = YEAR_SECS * 1000;

/// The longest that TCP_USER_TIMEOUT can be (an `int` in the kernel).
const MOST_USER_TIMEOUT_MS: u64 = i32::MAX as u64;

/// The longest path that a Unix socket may have (`sun_path` less its NUL).
const SOCKET_PATH_BYTES: usize = 107;

/// What the name of a process's socket adds to its directory.
const TAKEOVER_NAME_BYTES: usize = "/0123456789abcdef.process".len();

const ADMIN_KEYS: &[&str] = &["admin.users", "admin.stats_users"];

/// One rule that does not hold.
#[derive(Debug)]
pub(super) struct Violation {
    /// The keys that have a part in it, the likeliest culprit first. The first that somebody set is blamed.
    pub keys: &'static [&'static str],
    /// The key inside of a list that is to be blamed.
    pub inside: Option<String>,
    pub message: String,
}

/// All rules that `config` breaks.
pub(super) fn violations(config: &Config) -> Vec<Violation> {
    let mut rules = Rules::default();
    rules.server(&config.server);
    rules.tls(&config.tls);
    rules.upstream(&config.upstream);
    rules.one_server_for_scans(config);
    rules.pool(&config.pool);
    rules.guard(&config.retry, &config.breaker);
    rules.auth(&config.auth);
    rules.admin(&config.admin, &config.auth);
    rules.cache(&config.cache);
    rules.catalog(&config.catalog);
    rules.parallel(&config.parallel);
    rules.stream(&config.stream, &config.server);
    rules.tracing(&config.tracing);
    rules.log(&config.log);
    rules.broken
}

/// Host and port of `host:port` or `[v6]:port`.
fn split_address(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = address.rsplit_once(':').ok_or("expected host:port")?;
    let port = port.parse().map_err(|_| "the port must be a number from 0 to 65535")?;
    match host.strip_prefix('[').map(|inner| inner.strip_suffix(']')) {
        Some(Some(inner)) if inner.parse::<std::net::Ipv6Addr>().is_ok() => Ok((inner, port)),
        Some(_) => Err("what stands in brackets must be an IPv6 address"),
        None if host.contains(':') => Err("an IPv6 address must stand in brackets, as in [::1]:6432"),
        None if host.is_empty() || host == "*" => Err("name a host; 0.0.0.0 or [::] for all of them"),
        None => Ok((host, port)),
    }
}

#[derive(Default)]
struct Rules {
    broken: Vec<Violation>,
}

impl Rules {
    fn server(&mut self, server: &Server) {
        let mut first_port = None;
        for (index, address) in server.listen.iter().enumerate() {
            match split_address(address) {
                Ok((_, port)) => first_port = first_port.or(Some(port)),
                Err(reason) => self.broken(&["server.listen"], format!("{address:?}: {reason}")),
            }
            if server.listen[..index].contains(address) {
                self.broken(&["server.listen"], format!("{address:?} is listed twice"));
            }
        }
        if server.listen.is_empty() && server.unix_socket_dir.is_empty() {
            self.broken(&["server.listen"], "nothing to listen on: neither an address nor server.unix_socket_dir");
        }
        if !server.unix_socket_dir.is_empty() {
            let dir = Path::new(&server.unix_socket_dir);
            let socket = dir.join(format!(".s.PGSQL.{}", first_port.unwrap_or(6432)));
            if !dir.is_dir() {
                self.broken(&["server.unix_socket_dir"], format!("{:?} is not a directory", server.unix_socket_dir));
            } else if socket.as_os_str().len() > SOCKET_PATH_BYTES {
                let message = format!("the path of the socket would be longer than {SOCKET_PATH_BYTES} bytes");
                self.broken(&["server.unix_socket_dir"], message);
            }
        }
        let mode = u32::from_str_radix(&server.unix_socket_mode, 8);
        if !mode.is_ok_and(|mode| mode <= 0o777) {
            let message = format!("expected an octal number up to 0777, got {:?}", server.unix_socket_mode);
            self.broken(&["server.unix_socket_mode"], message);
        }
        if !server.http.is_empty() {
            if let Err(reason) = split_address(&server.http) {
                self.broken(&["server.http"], format!("{:?}: {reason}", server.http));
            } else if server.listen.contains(&server.http) {
                self.broken(&["server.http", "server.listen"], format!("{:?} is in server.listen too", server.http));
            }
        }
        self.range(&["server.worker_threads"], server.worker_threads, 0..=1024);
        self.range(&["server.max_clients"], server.max_clients, 1..=1_000_000);
        self.range(&["server.max_clients_per_user"], server.max_clients_per_user, 0..=1_000_000);
        self.range(&["server.startup_timeout_secs"], server.startup_timeout_secs, 1..=YEAR_SECS);
        self.range(&["server.client_idle_timeout_secs"], server.client_idle_timeout_secs, 0..=YEAR_SECS);
        let in_transaction = server.idle_in_transaction_timeout_secs;
        self.range(&["server.idle_in_transaction_timeout_secs"], in_transaction, 0..=YEAR_SECS);
        self.range(&["server.query_timeout_secs"], server.query_timeout_secs, 0..=YEAR_SECS);
        self.range(&["server.tcp_user_timeout_ms"], server.tcp_user_timeout_ms, 0..=MOST_USER_TIMEOUT_MS);
        self.range(&["server.shutdown_timeout_secs"], server.shutdown_timeout_secs, 0..=YEAR_SECS);
        self.range(&["server.takeover_timeout_secs"], server.takeover_timeout_secs, 0..=YEAR_SECS);
        if !server.takeover_dir.is_empty() {
            let dir = Path::new(&server.takeover_dir);
            if !dir.is_dir() {
                self.broken(&["server.takeover_dir"], format!("{:?} is not a directory", server.takeover_dir));
            } else if dir.as_os_str().len() + TAKEOVER_NAME_BYTES > SOCKET_PATH_BYTES {
                let most = SOCKET_PATH_BYTES - TAKEOVER_NAME_BYTES;
                self.broken(&["server.takeover_dir"], format!("its path is longer than {most} bytes"));
            }
        }
        self.range(&["server.buffer_bytes"], server.buffer_bytes, 4096..=16 << 20);
        self.range(&["server.max_inspect_bytes"], server.max_inspect_bytes, 10_000..=0x3fff_fffe);
    }

    fn tls(&mut self, tls: &ClientTls) {
        if tls.mode == TlsMode::Disable {
            return;
        }
        self.needed_file(&["tls.cert_file", "tls.mode"], &tls.cert_file, "needed unless tls.mode is \"disable\"");
        self.needed_file(&["tls.key_file", "tls.mode"], &tls.key_file, "needed unless tls.mode is \"disable\"");
        if matches!(tls.mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
            self.needed_file(&["tls.ca_file", "tls.mode"], &tls.ca_file, "needed to verify client certificates");
        }
    }

    fn upstream(&mut self, upstream: &Upstream) {
        if let Err(error) = Host::list(&upstream.host, upstream.port.max(1)) {
            self.broken(&["upstream.host"], error.to_string());
        }
        self.filled(&["upstream.database"], &upstream.database);
        self.filled(&["upstream.user"], &upstream.user);
        self.range(&["upstream.port"], upstream.port, 1..=u16::MAX);
        self.range(&["upstream.connect_timeout_secs"], upstream.connect_timeout_secs, 1..=YEAR_SECS);
        // The kernel's own limit (MAX_TCP_KEEPIDLE).
        self.range(&["upstream.keepalive_secs"], upstream.keepalive_secs, 0..=32_767);
        self.range(&["upstream.tcp_user_timeout_ms"], upstream.tcp_user_timeout_ms, 0..=MOST_USER_TIMEOUT_MS);
        if upstream.sslmode == TlsMode::Disable {
            return;
        }
        let verify = matches!(upstream.sslmode, TlsMode::VerifyCa | TlsMode::VerifyFull);
        if verify || !upstream.sslrootcert.is_empty() {
            let keys = &["upstream.sslrootcert", "upstream.sslmode"];
            if upstream.sslrootcert != "system" {
                self.needed_file(keys, &upstream.sslrootcert, "needed to verify the server's certificate");
            }
        }
        if !upstream.sslcert.is_empty() || !upstream.sslkey.is_empty() {
            self.needed_file(
                &["upstream.sslcert", "upstream.sslkey"],
                &upstream.sslcert,
                "needed with upstream.sslkey",
            );
            self.needed_file(
                &["upstream.sslkey", "upstream.sslcert"],
                &upstream.sslkey,
                "needed with upstream.sslcert",
            );
        }
    }

    /// The connections that share a scan must be to one server, which is not made sure of where there are several.
    fn one_server_for_scans(&mut self, config: &Config) {
        if config.parallel.enabled && config.upstream.host.contains(',') {
            self.broken(
                &["parallel.enabled", "upstream.host"],
                "parallel.enabled needs a single host in upstream.host",
            );
        }
    }

    fn pool(&mut self, pool: &Pool) {
        self.range(&["pool.max_upstream_connections"], pool.max_upstream_connections, 1..=1_000_000);
        self.range(&["pool.max_connections_per_user"], pool.max_connections_per_user, 0..=1_000_000);
        self.range(&["pool.max_connections_per_database"], pool.max_connections_per_database, 0..=1_000_000);
        self.range(&["pool.wait_timeout_secs"], pool.wait_timeout_secs, 1..=YEAR_SECS);
        self.range(&["pool.idle_timeout_secs"], pool.idle_timeout_secs, 1..=YEAR_SECS);
        self.range(&["pool.max_lifetime_secs"], pool.max_lifetime_secs, 1..=YEAR_SECS);
        self.range(&["pool.prepared_statements"], pool.prepared_statements, 1..=100_000);
        self.range(&["pool.check_after_idle_ms"], pool.check_after_idle_ms, 0..=86_400_000);
        self.range(&["pool.check_timeout_ms"], pool.check_timeout_ms, 1..=3_600_000);
        self.range(&["pool.size"], pool.size, 0..=1_000_000);
        self.range(&["pool.min_size"], pool.min_size, 0..=pool.max_upstream_connections);
        if pool.max_idle > pool.max_upstream_connections {
            let keys = &["pool.max_idle", "pool.max_upstream_connections"];
            self.broken(keys, "pool.max_idle must not be greater than pool.max_upstream_connections");
        }
    }

    fn guard(&mut self, retry: &RetryConfig, breaker: &CircuitBreakerConfig) {
        self.range(&["retry.max_attempts"], retry.max_attempts, 1..=100);
        self.range(&["retry.initial_delay_ms"], retry.initial_delay_ms, 0..=YEAR_MS);
        self.range(&["retry.max_delay_ms"], retry.max_delay_ms, 0..=YEAR_MS);
        if !(1.0..=100.0).contains(&retry.multiplier) {
            self.broken(&["retry.multiplier"], "must be from 1 to 100");
        }
        self.range(&["breaker.failure_threshold"], breaker.failure_threshold, 1..=1_000_000);
        self.range(&["breaker.timeout_ms"], breaker.timeout_ms, 1..=YEAR_MS);
        self.range(&["breaker.success_threshold"], breaker.success_threshold, 1..=1_000_000);
        self.range(&["breaker.window_ms"], breaker.window_ms, 1..=YEAR_MS);
    }

    fn auth(&mut self, auth: &Auth) {
        if !matches!(auth.mode, AuthMode::Scram | AuthMode::Md5) {
            return;
        }
        if auth.user_file.is_empty() && auth.auth_query.is_empty() {
            let message = "scram and md5 need auth.user_file or auth.auth_query to know the users' secrets";
            self.broken(&["auth.mode", "auth.auth_query"], message);
        }
        if !auth.user_file.is_empty() {
            self.needed_file(&["auth.user_file"], &auth.user_file, "");
        }
    }

    fn admin(&mut self, admin: &Admin, auth: &Auth) {
        for (key, users) in [("admin.users", &admin.users), ("admin.stats_users", &admin.stats_users)] {
            if users.iter().any(String::is_empty) {
                self.broken(ADMIN_KEYS, format!("{key} must not hold an empty name"));
            }
        }
        self.range(&["admin.max_statements"], admin.max_statements, 0..=1_000_000);
        let somebody = !admin.users.is_empty() || !admin.stats_users.is_empty();
        if somebody && auth.mode == AuthMode::Relay && auth.user_file.is_empty() && auth.auth_query.is_empty() {
            let message =
                "in auth.mode relay the admin database needs auth.user_file or auth.auth_query to know its users";
            self.broken(ADMIN_KEYS, message);
        }
        if somebody && auth.mode == AuthMode::Relay && !auth.user_file.is_empty() {
            self.needed_file(&["auth.user_file"], &auth.user_file, "");
        }
    }

    fn cache(&mut self, cache: &Cache) {
        self.range(&["cache.max_entries"], cache.max_entries, 1..=1 << 32);
        self.range(&["cache.max_memory_mb"], cache.max_memory_mb, 1..=1 << 24);
        self.range(&["cache.version_stripes"], cache.version_stripes, 1..=1 << 32);
        self.range(&["cache.default_ttl_secs"], cache.default_ttl_secs, 1..=YEAR_SECS);
        self.range(&["cache.single_flight_wait_ms"], cache.single_flight_wait_ms, 0..=3_600_000);
        self.range(&["cache.max_misses"], cache.max_misses, 0..=1_000_000);
        self.range(&["cache.max_misses_per_statement"], cache.max_misses_per_statement, 0..=1_000_000);
        self.range(&["cache.max_stale_secs"], cache.max_stale_secs, 1..=YEAR_SECS);
        self.range(&["cache.miss_wait_ms"], cache.miss_wait_ms, 0..=3_600_000);
        self.range(&["cache.max_entry_bytes"], cache.max_entry_bytes, 1..=1 << 44);
        if cache.max_entry_bytes > cache.max_memory_mb.saturating_mul(1 << 20) {
            let keys = &["cache.max_entry_bytes", "cache.max_memory_mb"];
            self.broken(keys, "cache.max_entry_bytes must not be greater than cache.max_memory_mb");
        }
        for (number, rule) in cache.rules.iter().enumerate() {
            self.cache_rule(number, rule);
        }
    }

    fn cache_rule(&mut self, number: usize, rule: &CacheRule) {
        let mut broken = |key: &str, message: String| {
            let inside = Some(format!("cache.rules[{number}]{key}"));
            self.broken.push(Violation { keys: &["cache.rules"], inside, message });
        };
        match (rule.ttl_secs, rule.cache) {
            (None, None) if rule.parallel.is_none() => {
                broken("", "does nothing: it has neither ttl_secs nor cache nor parallel".into());
            }
            (Some(_), Some(false)) => broken(".ttl_secs", "has no meaning beside cache = false".into()),
            (Some(seconds), _) if !(1..=YEAR_SECS).contains(&seconds) => {
                broken(".ttl_secs", format!("must be from 1 to {YEAR_SECS}, got {seconds}"));
            }
            _ => {}
        }
        if rule.user.as_ref().is_some_and(String::is_empty) {
            broken(".user", "must not be empty".into());
        }
    }

    fn catalog(&mut self, catalog: &Catalog) {
        self.range(&["catalog.refresh_secs"], catalog.refresh_secs, 1..=YEAR_SECS);
        // To PostgreSQL, a lock_timeout of 0 is none at all.
        self.range(&["catalog.lock_timeout_ms"], catalog.lock_timeout_ms, 1..=60_000);
    }

    fn parallel(&mut self, parallel: &ParallelConfig) {
        self.range(&["parallel.max_parallelism"], parallel.max_parallelism, 0..=1024);
        self.range(&["parallel.min_rows_for_parallel"], parallel.min_rows_for_parallel, 0..=1 << 48);
        if !(0.0..=1e15).contains(&parallel.cost_threshold) {
            self.broken(&["parallel.cost_threshold"], "must be from 0 to 1e15");
        }
        self.range(&["parallel.min_table_mb"], parallel.min_table_mb, 0..=1 << 30);
        self.range(&["parallel.min_chunk_pages"], parallel.min_chunk_pages, 1..=1 << 30);
        self.range(&["parallel.max_chunk_pages"], parallel.max_chunk_pages, 1..=1 << 30);
        if parallel.min_chunk_pages > parallel.max_chunk_pages {
            let keys = &["parallel.min_chunk_pages", "parallel.max_chunk_pages"];
            self.broken(keys, "parallel.min_chunk_pages must not be greater than parallel.max_chunk_pages");
        }
        self.range(&["parallel.max_connections"], parallel.max_connections, 1..=1_000_000);
        self.range(&["parallel.idle_timeout_secs"], parallel.idle_timeout_secs, 1..=YEAR_SECS);
        self.range(&["parallel.query_memory_mb"], parallel.query_memory_mb, 1..=1 << 20);
        self.range(&["parallel.max_memory_mb"], parallel.max_memory_mb, 1..=1 << 20);
        if parallel.query_memory_mb > parallel.max_memory_mb {
            let keys = &["parallel.query_memory_mb", "parallel.max_memory_mb"];
            self.broken(keys, "parallel.query_memory_mb must not be greater than parallel.max_memory_mb");
        }
        self.range(&["parallel.stall_timeout_secs"], parallel.stall_timeout_secs, 1..=YEAR_SECS);
    }

    fn stream(&mut self, stream: &StreamConfig, server: &Server) {
        if !stream.listen.is_empty() {
            if let Err(reason) = split_address(&stream.listen) {
                self.broken(&["stream.listen"], format!("{:?}: {reason}", stream.listen));
            } else if server.listen.contains(&stream.listen) || server.http == stream.listen {
                let keys = &["stream.listen", "server.listen", "server.http"];
                self.broken(keys, format!("{:?} is listened on for something else", stream.listen));
            }
        }
        for origin in &stream.allowed_origins {
            let is_origin = origin.split_once("://").is_some_and(|(_, host)| !host.is_empty() && !host.contains('/'));
            if origin != "*" && origin != "null" && !is_origin {
                let message = format!("{origin:?} is no origin, such as https://app.example.com:8443");
                self.broken(&["stream.allowed_origins"], message);
            }
        }
        if !stream.token_file.is_empty() {
            self.needed_file(&["stream.token_file"], &stream.token_file, "");
        }
        self.range(&["stream.batch_size"], stream.batch_size, 1..=1_000_000);
        self.range(&["stream.batch_timeout_ms"], stream.batch_timeout_ms, 1..=3_600_000);
        self.range(&["stream.max_concurrent_streams"], stream.max_concurrent_streams, 1..=1_000_000);
        self.range(&["stream.heartbeat_interval_ms"], stream.heartbeat_interval_ms, 10..=3_600_000);
        self.range(&["stream.buffer_size"], stream.buffer_size, 1..=1_000_000_000);
        if stream.buffer_size < stream.batch_size {
            let keys = &["stream.buffer_size", "stream.batch_size"];
            self.broken(keys, "stream.buffer_size must not be less than stream.batch_size");
        }
    }

    fn log(&mut self, log: &Log) {
        self.range(&["log.slow_query_ms"], log.slow_query_ms, 0..=YEAR_MS);
        // A word that is no level would be taken for the name of a target, and nothing would be logged.
        let unknown = log
            .level
            .split(',')
            .find(|part| part.is_empty() || !part.contains('=') && part.parse::<LevelFilter>().is_err());
        if unknown.is_some() || EnvFilter::try_new(&log.level).is_err() {
            let message = format!(
                "expected off, error, warn, info, debug or trace, or target=level parts with commas between, got {:?}",
                log.level
            );
            self.broken(&["log.level"], message);
        }
    }

    fn tracing(&mut self, tracing: &Tracing) {
        let is_https = tracing.endpoint.starts_with("https://");
        if !tracing.endpoint.is_empty() && !is_https && !tracing.endpoint.starts_with("http://") {
            let message = format!("expected http://host:port or https://host:port, got {:?}", tracing.endpoint);
            self.broken(&["tracing.endpoint"], message);
        }
        if is_https && !tracing.ca_file.is_empty() {
            self.needed_file(&["tracing.ca_file"], &tracing.ca_file, "");
        }
        self.range(&["tracing.sample_ratio"], tracing.sample_ratio, 0.0..=1.0);
    }

    fn filled(&mut self, keys: &'static [&'static str], text: &str) {
        if text.is_empty() {
            self.broken(keys, "must not be empty");
        }
    }

    fn range<T: PartialOrd + Display>(&mut self, keys: &'static [&'static str], value: T, range: RangeInclusive<T>) {
        if !range.contains(&value) {
            self.broken(keys, format!("must be from {} to {}, got {value}", range.start(), range.end()));
        }
    }

    /// The file is named and can be read now, by this user.
    fn needed_file(&mut self, keys: &'static [&'static str], path: &str, why: &str) {
        if path.is_empty() {
            let key = keys.first().copied().unwrap_or_default();
            return self.broken(keys, format!("{key} is {why}"));
        }
        match File::open(path).and_then(|file| file.metadata()) {
            Ok(metadata) if metadata.is_dir() => self.broken(keys, format!("{path:?} is a directory")),
            Ok(_) => {}
            Err(error) => self.broken(keys, format!("cannot read {path:?}: {error}")),
        }
    }

    fn broken(&mut self, keys: &'static [&'static str], message: impl Into<String>) {
        self.broken.push(Violation { keys, inside: None, message: message.into() });
    }
}

#[cfg(test)]
mod tests;
