//! Every setting that a client can change, one after the other, as the server lists them.

use crate::harness::{Client, Stage};

/// Those that change no result: an entry may be shared by sessions that differ in them.
const SHARED: &[&str] = &[
    "application_name",
    "client_min_messages",
    "cpu_",
    "debug_",
    "effective_",
    "enable_",
    "exit_on_error",
    "from_collapse_limit",
    "geqo",
    "hash_mem_multiplier",
    "idle_",
    "jit",
    "join_collapse_limit",
    "lock_timeout",
    "log_",
    "maintenance_work_mem",
    "max_parallel_",
    "min_parallel_",
    "parallel_",
    "plan_cache_mode",
    "random_page_cost",
    "seq_page_cost",
    "statement_timeout",
    "synchronous_commit",
    "tcp_",
    "temp_buffers",
    "track_",
    "trace_",
    "vacuum_",
    "work_mem",
    "client_connection_check_interval",
];

/// Another value for a setting, as SQL; none if any other value is refused or would end the test's own session.
const OTHER_VALUE: &str = "SELECT name, CASE
        WHEN name IN ('client_encoding') THEN 'LATIN1'
        WHEN name IN ('DateStyle') THEN 'German'
        WHEN name IN ('TimeZone', 'log_timezone') THEN 'Asia/Tokyo'
        WHEN name IN ('search_path') THEN 'public, pg_catalog'
        WHEN name LIKE 'lc\\_%' THEN 'C.UTF-8'
        WHEN name = 'default_text_search_config' THEN 'pg_catalog.german'
        WHEN name = 'timezone_abbreviations' THEN 'India'
        WHEN name = 'application_name' THEN 'another'
        WHEN name = 'role' THEN 'pg_read_all_data'
        WHEN name = 'session_authorization' THEN 'pg_read_all_data'
        WHEN vartype = 'bool' THEN CASE setting WHEN 'on' THEN 'off' ELSE 'on' END
        WHEN vartype = 'enum' THEN (SELECT v FROM unnest(enumvals) v WHERE v <> setting LIMIT 1)
        WHEN vartype = 'integer' AND setting::int8 < max_val::int8 THEN (setting::int8 + 1)::text
        WHEN vartype = 'integer' THEN (setting::int8 - 1)::text
        WHEN vartype = 'real' AND setting::float8 < max_val::float8 THEN (setting::float8 + (max_val::float8 - setting::float8) / 2)::text
        WHEN vartype = 'real' THEN (setting::float8 / 2)::text
    END FROM pg_settings WHERE context IN ('user', 'superuser') AND name NOT IN ('max_stack_depth', 'statement_timeout', 'lock_timeout',
        'idle_session_timeout', 'idle_in_transaction_session_timeout', 'ignore_checksum_failure', 'zero_damaged_pages') ORDER BY name";

async fn is_hit(stage: &Stage, client: &Client, read: &str) -> bool {
    let before = stage.proxy.hits().await;
    client.text(read).await;
    stage.proxy.hits().await > before
}

#[tokio::test]
async fn sessions_that_differ_in_a_setting_share_no_entry_unless_it_changes_no_result() {
    let stage =
        Stage::setup("CREATE TABLE public.t (v int); INSERT INTO t VALUES (1); GRANT SELECT ON t TO PUBLIC").await;
    let (plain, other) = (stage.client().await, stage.client().await);
    let read = "SELECT v FROM t";
    stage.cached(&plain, read).await;
    let mut tried = 0;
    let mut wrong = Vec::new();
    for row in plain.text(OTHER_VALUE).await {
        let [Some(name), Some(value)] = &row[..] else { continue };
        if other.batch_execute(&format!("SET {name} = {}", quoted(name, value))).await.is_err() {
            continue;
        }
        tried += 1;
        let shared = is_hit(&stage, &other, read).await;
        if shared && !SHARED.iter().any(|harmless| name.starts_with(harmless)) {
            wrong.push(name.clone());
        }
        other.run(&format!("RESET {name}")).await;
        assert!(is_hit(&stage, &plain, read).await, "the entry was lost to {name}");
    }
    assert!(wrong.is_empty(), "sessions that differ in these were given the same entry: {wrong:?}");
    assert!(tried > 100, "only {tried} settings could be tried");
}

/// A list stays a list; everything else is one value.
fn quoted(name: &str, value: &str) -> String {
    if name == "search_path" { value.to_owned() } else { format!("'{value}'") }
}
