//! SIGHUP: the configuration from the same sources again.

use std::sync::Arc;

use crate::config::{Config, Sources, changes};
use crate::telemetry::log::LogHandle;

/// Keys that are read once, at the start.
const NEEDS_RESTART: &[&str] = &[
    "log.format",
    "server.http",
    "server.listen",
    "server.unix_socket_dir",
    "server.unix_socket_mode",
    "server.worker_threads",
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
    use crate::config::{LogFormat, changes};
    use crate::telemetry::log;

    #[test]
    fn the_keys_that_need_a_restart_exist() {
        let mut other = Config::default();
        other.log.format = LogFormat::Json;
        other.server.http = "x".into();
        other.server.listen = vec!["x".into()];
        other.server.unix_socket_dir = "x".into();
        other.server.unix_socket_mode = "x".into();
        other.server.worker_threads = 7;
        let changed: Vec<String> = changes(&Config::default(), &other).into_iter().map(|change| change.key).collect();
        assert_eq!(changed, NEEDS_RESTART);
    }

    #[test]
    fn an_invalid_configuration_leaves_the_old_one() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let sources = Sources { path: Some(file.path().into()), ..Sources::default() };
        let (_, log) = log::subscriber(&Config::default().log, std::io::sink, false).unwrap();
        let old = Config::default();

        std::fs::write(file.path(), "[cache]\nmax_entries = 7").unwrap();
        assert_eq!(reload(&old, &sources, &log).unwrap().cache.max_entries, 7);
        std::fs::write(file.path(), "[cache]\nmax_entries = \"lots\"").unwrap();
        assert!(reload(&old, &sources, &log).is_none());
        std::fs::remove_file(file.path()).unwrap();
        assert!(reload(&old, &sources, &log).is_none());
    }
}
