//! The log of slow statements. They are named by their shape, so no value that a client has sent gets into the log.

use std::time::Duration;

use super::Session;
use crate::cache::ledger::Page;
use crate::telemetry::metrics::Class;

impl Session {
    /// Says of a request that the upstream took long for what it was. It has been answered.
    pub(super) fn log_if_slow(&self, page: Option<&Page>, class: Class, failed: bool, took: Duration) {
        let threshold = self.shared.config.load().log.slow_query_ms;
        if threshold == 0 || took < Duration::from_millis(threshold) {
            return;
        }
        let who = &self.control.who;
        let statement = page.map(|page| page.id.to_string());
        let query = page.map_or("(several statements, or a text that is not looked into)", |page| &*page.text);
        let reason = page.and_then(|page| page.figures().reason);
        let cache = match (page, reason) {
            (Some(page), None) if page.is_read => "miss",
            (_, Some(reason)) => reason.word(),
            _ => "not_read",
        };
        tracing::warn!(
            took_ms = took.as_millis() as u64,
            class = class.label(),
            failed,
            cache,
            statement = statement.as_deref(),
            query,
            database = %who.database,
            user = %who.user,
            application_name = %who.application_name,
            backend_pid = self.control.activity.backend(),
            "slow statement"
        );
    }
}
