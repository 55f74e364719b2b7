//! What is known of PostgreSQL's own functions beyond their declared volatility (`pg_proc.provolatile`).

/// Built-in `STABLE` functions by what they have in common.
pub struct Stable {
    pub names: &'static [&'static str],
    /// The settings on which their results depend.
    pub settings: &'static [&'static str],
}

/// What the output functions of all built-in types depend on, those of `regclass` and its like included.
const OUTPUT: &[&str] = &[
    "DateStyle",
    "IntervalStyle",
    "TimeZone",
    "bytea_output",
    "extra_float_digits",
    "lc_monetary",
    "quote_all_identifiers",
    "search_path",
    "xmlbinary",
    "xmloption",
];

/// Built-in `STABLE` functions whose result depends on their arguments, on settings that are part of the cache key, and on
/// catalogue contents that are covered by the catalogue's epoch; on nothing else.
///
/// `timetz(time)` and `timezone(text, timetz)` are not among them: the present date decides whether it is summer.
pub const SAFE_STABLE: &[Stable] = &[
    Stable {
        names: &[
            "array_to_json",
            "array_to_string",
            "concat",
            "concat_ws",
            "format",
            "json_agg",
            "json_agg_strict",
            "json_build_array",
            "json_build_object",
            "json_object_agg",
            "jsonb_agg",
            "jsonb_agg_strict",
            "jsonb_build_array",
            "jsonb_build_object",
            "jsonb_object_agg",
            "quote_literal",
            "quote_nullable",
            "row_to_json",
            "string_agg",
            "to_json",
            "to_jsonb",
        ],
        settings: OUTPUT,
    },
    Stable {
        names: &[
            "date",
            "date_part",
            "date_trunc",
            "extract",
            "generate_series",
            "in_range",
            "overlaps",
            "time",
            "timestamp",
            "timestamptz",
        ],
        settings: &["DateStyle", "TimeZone"],
    },
    Stable {
        names: &["to_char", "to_date", "to_number", "to_timestamp"],
        settings: &["TimeZone", "lc_monetary", "lc_numeric", "lc_time"],
    },
    Stable { names: &["numeric"], settings: &["lc_monetary"] },
    Stable {
        names: &[
            "json_to_tsvector",
            "jsonb_to_tsvector",
            "phraseto_tsquery",
            "plainto_tsquery",
            "to_tsquery",
            "to_tsvector",
            "ts_headline",
            "websearch_to_tsquery",
        ],
        settings: &["default_text_search_config", "search_path"],
    },
    Stable { names: &["length"], settings: &[] },
];

/// The names in [`SAFE_STABLE`].
pub fn safe_stable() -> Vec<&'static str> {
    SAFE_STABLE.iter().flat_map(|stable| stable.names).copied().collect()
}

/// Built-in `VOLATILE` functions that write no table and run no SQL text of the user's. Whatever is volatile and not here may
/// have written anything.
pub const HARMLESS_VOLATILE: &[&str] = &[
    "clock_timestamp",
    "currval",
    "gen_random_uuid",
    "lastval",
    "nextval",
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_advisory_unlock",
    "pg_advisory_unlock_all",
    "pg_advisory_unlock_shared",
    "pg_advisory_xact_lock",
    "pg_advisory_xact_lock_shared",
    "pg_backend_pid",
    "pg_blocking_pids",
    "pg_cancel_backend",
    "pg_column_compression",
    "pg_column_size",
    "pg_current_wal_flush_lsn",
    "pg_current_wal_insert_lsn",
    "pg_current_wal_lsn",
    "pg_database_size",
    "pg_export_snapshot",
    "pg_get_expr",
    "pg_indexes_size",
    "pg_is_in_recovery",
    "pg_isolation_test_session_is_blocked",
    "pg_last_wal_receive_lsn",
    "pg_last_wal_replay_lsn",
    "pg_lock_status",
    "pg_ls_dir",
    "pg_notify",
    "pg_postmaster_start_time",
    "pg_relation_filenode",
    "pg_relation_size",
    "pg_safe_snapshot_blocking_pids",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "pg_stat_clear_snapshot",
    "pg_stat_file",
    "pg_stat_force_next_flush",
    "pg_stat_get_activity",
    "pg_stat_reset",
    "pg_table_size",
    "pg_tablespace_size",
    "pg_terminate_backend",
    "pg_total_relation_size",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
    "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
    "random",
    "set_config",
    "setseed",
    "setval",
    "statement_timestamp",
    "timeofday",
    "txid_current",
    "txid_current_if_assigned",
    "txid_current_snapshot",
    "pg_current_xact_id",
    "pg_current_xact_id_if_assigned",
    "pg_current_snapshot",
    "uuidv4",
    "uuidv7",
];

/// Volatile functions of well-known extensions, in C, that compute a value and do nothing else.
pub const HARMLESS_EXTENSION: &[&str] = &[
    "crypt",
    "gen_random_bytes",
    "gen_salt",
    "uuid_generate_v1",
    "uuid_generate_v1mc",
    "uuid_generate_v3",
    "uuid_generate_v4",
    "uuid_generate_v5",
];

/// Settings that change no result: they are no part of a session's fingerprint. Any row order is an answer where a
/// statement asks for none, so planner settings are here too.
pub const IRRELEVANT_SETTINGS: &[&str] = &[
    "application_name",
    "client_connection_check_interval",
    "client_min_messages",
    "effective_cache_size",
    "effective_io_concurrency",
    "from_collapse_limit",
    "hash_mem_multiplier",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "join_collapse_limit",
    "lock_timeout",
    "maintenance_work_mem",
    "plan_cache_mode",
    "random_page_cost",
    "seq_page_cost",
    "statement_timeout",
    "synchronous_commit",
    "tcp_keepalives_count",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_user_timeout",
    "temp_buffers",
    "transaction_timeout",
    "work_mem",
];

/// Whether the setting `name` (lower case) can change a result. Those of extensions and of applications (with a dot)
/// cannot: no function or operator that could read them is trusted.
pub fn setting_is_relevant(name: &str) -> bool {
    !name.contains('.')
        && ![
            "log_",
            "debug_",
            "enable_",
            "jit",
            "track_",
            "geqo",
            "vacuum_",
            "parallel_",
            "cpu_",
            "max_parallel_",
            "tcp_",
        ]
        .iter()
        .any(|prefix| name.starts_with(prefix))
        && !IRRELEVANT_SETTINGS.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_that_a_stable_function_depends_on_is_relevant() {
        for setting in SAFE_STABLE.iter().flat_map(|stable| stable.settings) {
            assert!(setting_is_relevant(&setting.to_ascii_lowercase()), "{setting}");
        }
        let mut names = safe_stable();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "each once");
    }

    #[test]
    fn settings_that_change_results_are_relevant() {
        for name in ["search_path", "datestyle", "timezone", "bytea_output", "row_security", "lc_monetary", "xmloption"]
        {
            assert!(setting_is_relevant(name), "{name}");
        }
        for name in ["application_name", "enable_seqscan", "work_mem", "myapp.tenant"] {
            assert!(!setting_is_relevant(name), "{name}");
        }
    }
}
