//! SIGHUP: the configuration from the same sources again.

use std::sync::Arc;

use crate::config::{Config, Sources, changes};
use crate::telemetry::log::LogHandle;

/// Keys that are read once, at the start.
///
/// `cache.enabled` is among them because writes must be followed by all sessions or by none.
const NEEDS_RESTART: &[&str] = &[
    "breaker.failure_threshold",
    "breaker.success_threshold",
    "breaker.timeout_ms",
    "breaker.window_ms",
    "cache.enabled",
    "cache.eviction_strategy",
    "cache.max_entries",
    "cache.max_memory_mb",
    "cache.trust_immutable_functions",
    "cache.version_stripes",
    "log.format",
    "pool.idle_timeout_secs",
    "pool.max_upstream_connections",
    "server.http",
    "server.listen",
    "server.unix_socket_dir",
    "server.unix_socket_mode",
    "server.worker_threads",
    "tls.mode",
    "upstream.connect_timeout_secs",
    "upstream.host",
    "upstream.keepalive_secs",
    "upstream.port",
    "upstream.sslcert",
    "upstream.sslkey",
    "upstream.sslmode",
    "upstream.sslrootcert",
];

/// The configuration as it is now, or `None`, with the reason logged, if that is not valid: then the old one stays.
pub(super) fn reload(old: &Config, sources: &Sources, log: &LogHandle) -> Option<Arc<Config>> {
    let new = match sources.load() {
        Ok(new) => new,
        Err(error) => {
            tracing::error!(%error, "the configuration is not valid; keeping the old one");
            return None;
        }
    };
    let changes = changes(old, &new);
    if new.log.level != old.log.level
        && let Err(error) = log.set_level(&new.log.level)
    {
        tracing::error!(%error, "keeping the old log level");
    }
    for change in &changes {
        let key = change.key.as_str();
        if NEEDS_RESTART.contains(&key) {
            tracing::warn!(key, old = change.old, new = change.new, "changed, and needs a restart to take effect");
        } else {
            tracing::info!(key, old = change.old, new = change.new, "changed");
        }
    }
    tracing::info!(changes = changes.len(), "configuration reloaded");
    Some(Arc::new(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EvictionStrategy, LogFormat, TlsMode, changes};
    use crate::telemetry::log;

    #[test]
    fn the_keys_that_need_a_restart_exist() {
        let mut other = Config::default();
        other.breaker.failure_threshold = 7;
        other.breaker.success_threshold = 7;
        other.breaker.timeout_ms = 7;
        other.breaker.window_ms = 7;
        other.cache.enabled = false;
        other.cache.eviction_strategy = EvictionStrategy::Lru;
        other.cache.max_entries = 7;
        other.cache.version_stripes = 7;
        other.cache.max_memory_mb = 7;
        other.cache.trust_immutable_functions = true;
        other.log.format = LogFormat::Json;
        other.pool.idle_timeout_secs = 7;
        other.pool.max_upstream_connections = 7;
        other.server.http = "x".into();
        other.server.listen = vec!["x".into()];
        other.server.unix_socket_dir = "x".into();
        other.server.unix_socket_mode = "x".into();
        other.server.worker_threads = 7;
        other.tls.mode = TlsMode::Require;
        other.upstream.connect_timeout_secs = 7;
        other.upstream.host = "x".into();
        other.upstream.keepalive_secs = 7;
        other.upstream.port = 7;
        other.upstream.sslcert = "x".into();
        other.upstream.sslkey = "x".into();
        other.upstream.sslmode = TlsMode::Require;
        other.upstream.sslrootcert = "x".into();
        let changed: Vec<String> = changes(&Config::default(), &other).into_iter().map(|change| change.key).collect();
        assert_eq!(changed, NEEDS_RESTART);
    }

    #[test]
    fn an_invalid_configuration_leaves_the_old_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sources = Sources { path: Some(file.path().into()), ..Sources::default() };
        let (_, log) = log::subscriber(&Config::default().log, std::io::sink, false).unwrap();
        let old = Config::default();

        std::fs::write(file.path(), "[cache]\ndefault_ttl_secs = 7").unwrap();
        assert_eq!(reload(&old, &sources, &log).unwrap().cache.default_ttl_secs, 7);
        std::fs::write(file.path(), "[cache]\nmax_entries = \"lots\"").unwrap();
        assert!(reload(&old, &sources, &log).is_none());
        std::fs::remove_file(file.path()).unwrap();
        assert!(reload(&old, &sources, &log).is_none());
    }
}
