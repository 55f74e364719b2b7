//! SIGHUP, RELOAD and SET: another configuration while the proxy runs.

use std::sync::Arc;

use crate::admin::Changed;
use crate::config::{Change, Config, ConfigError, changes};
use crate::telemetry::log::LogHandle;

/// Keys that are read once, at the start.
///
/// `cache.enabled` is among them because writes must be followed by all sessions or by none.
const NEEDS_RESTART: &[&str] = &[
    "admin.max_statements",
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
    "parallel.idle_timeout_secs",
    "parallel.max_connections",
    "parallel.max_memory_mb",
    "server.http",
    "server.listen",
    "server.takeover_dir",
    "server.unix_socket_dir",
    "server.unix_socket_mode",
    "server.worker_scheduling",
    "server.worker_threads",
    "stream.listen",
    "stream.max_concurrent_streams",
    "tls.mode",
    "tracing.ca_file",
    "tracing.endpoint",
    "tracing.propagate",
    "tracing.sample_ratio",
    "tracing.service_name",
    "upstream.connect_timeout_secs",
    "upstream.host",
    "upstream.keepalive_secs",
    "upstream.port",
    "upstream.sslcert",
    "upstream.sslkey",
    "upstream.sslmode",
    "upstream.sslrootcert",
    "upstream.target_session_attrs",
    "upstream.tcp_user_timeout_ms",
];

/// Whether a key is read again while the proxy runs.
pub(super) fn is_reloadable(key: &str) -> bool {
    !NEEDS_RESTART.contains(&key)
}

/// The configuration that takes the place of the old one, and in what it differs; or why it is not valid, which is logged too:
/// then the old one stays.
pub(super) fn change(
    old: &Config,
    new: Result<Config, ConfigError>,
    log: &LogHandle,
) -> Result<(Arc<Config>, Vec<Changed>), String> {
    let new = new.map_err(|error| {
        tracing::error!(%error, "the configuration is not valid; keeping the old one");
        error.to_string()
    })?;
    let changes = changes(old, &new);
    if new.log.level != old.log.level
        && let Err(error) = log.set_level(&new.log.level)
    {
        tracing::error!(%error, "keeping the old log level");
    }
    for change in &changes {
        let key = change.key.as_str();
        if !is_reloadable(key) {
            tracing::warn!(key, old = change.old, new = change.new, "changed, and needs a restart to take effect");
        } else {
            tracing::info!(key, old = change.old, new = change.new, "changed");
        }
    }
    tracing::info!(changes = changes.len(), "configuration reloaded");
    let effective = |change: &Change| is_reloadable(&change.key);
    let changed = changes.into_iter().map(|change| Changed { effective: effective(&change), change }).collect();
    Ok((Arc::new(new), changed))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EvictionStrategy, LogFormat, Scheduling, SessionAttributes, Sources, TlsMode, changes};
    use crate::telemetry::log;

    #[test]
    fn the_keys_that_need_a_restart_exist() {
        let mut other = Config::default();
        other.admin.max_statements = 7;
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
        other.parallel.idle_timeout_secs = 7;
        other.parallel.max_connections = 7;
        other.parallel.max_memory_mb = 7;
        other.server.http = "x".into();
        other.server.listen = vec!["x".into()];
        other.server.takeover_dir = "x".into();
        other.server.unix_socket_dir = "x".into();
        other.server.unix_socket_mode = "x".into();
        other.server.worker_scheduling = Scheduling::Normal;
        other.server.worker_threads = 7;
        other.stream.listen = "x".into();
        other.stream.max_concurrent_streams = 7;
        other.tls.mode = TlsMode::Require;
        other.tracing.ca_file = "x".into();
        other.tracing.endpoint = "x".into();
        other.tracing.propagate = true;
        other.tracing.sample_ratio = 0.5;
        other.tracing.service_name = "x".into();
        other.upstream.connect_timeout_secs = 7;
        other.upstream.host = "x".into();
        other.upstream.keepalive_secs = 7;
        other.upstream.port = 7;
        other.upstream.sslcert = "x".into();
        other.upstream.sslkey = "x".into();
        other.upstream.sslmode = TlsMode::Require;
        other.upstream.sslrootcert = "x".into();
        other.upstream.target_session_attrs = SessionAttributes::Standby;
        other.upstream.tcp_user_timeout_ms = 7;
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
        let (new, changed) = change(&old, sources.load(), &log).unwrap();
        assert_eq!(new.cache.default_ttl_secs, 7);
        assert!(
            matches!(&changed[..], [Changed { effective: true, change }] if change.key == "cache.default_ttl_secs")
        );
        std::fs::write(file.path(), "[cache]\nmax_entries = \"lots\"").unwrap();
        assert!(change(&old, sources.load(), &log).is_err());
        std::fs::remove_file(file.path()).unwrap();
        assert!(change(&old, sources.load(), &log).is_err());
    }
}
