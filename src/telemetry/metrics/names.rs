//! The names of the metrics, with what each counts.

/// Name and HELP.
pub type Name = (&'static str, &'static str);

pub const CONNECTIONS: Name = ("heliosdb_connections", "Connections now, by side and by whether they run something");
pub const QUERIES: Name = ("heliosdb_queries_total", "Statements from clients, by what they do");
pub const QUERY_DURATION: Name = (
    "heliosdb_query_duration_seconds",
    "Seconds from a statement's arrival to the end of its answer, by where the answer came from",
);
pub const CACHE_ACCESSES: Name =
    ("heliosdb_cache_accesses_total", "Statements that hit the cache, missed it, or were not for it");
pub const CACHE_BYPASS: Name = ("heliosdb_cache_bypass_total", "Statements that were not for the cache, by the reason");
pub const CACHE_EVICTIONS: Name = ("heliosdb_cache_evictions_total", "Results dropped from the cache, by the reason");
pub const CACHE_INVALIDATIONS: Name =
    ("heliosdb_cache_invalidations_total", "Invalidations by writes, by how much each of them took");
pub const CACHE_BYTES: Name = ("heliosdb_cache_bytes", "Bytes held by cached results");
pub const CACHE_LIMIT_BYTES: Name = ("heliosdb_cache_limit_bytes", "Bytes that cached results may take");
pub const CACHE_ENTRIES: Name = ("heliosdb_cache_entries", "Results in the cache");
pub const CACHE_STALE: Name = (
    "heliosdb_cache_stale_total",
    "Answers from the cache that had expired, given because the server was not available",
);
pub const PINS: Name =
    ("heliosdb_pins_total", "Times that a session was tied to a shared connection, by what it had left there");
pub const ADMISSION_WAITS: Name = (
    "heliosdb_admission_waits_total",
    "Misses that had to wait for others before they went upstream, by whether it was in time",
);
pub const RETRY_ATTEMPTS: Name =
    ("heliosdb_retry_attempts_total", "Attempts beyond the first, by operation and outcome");
pub const BREAKER_CHANGES: Name =
    ("heliosdb_circuit_breaker_state_changes_total", "Changes of the circuit breaker's state, by the new one");
pub const BREAKER_STATE: Name = ("heliosdb_circuit_breaker_state", "1 for the state that the circuit breaker is in");
pub const OPERATION_ERRORS: Name =
    ("heliosdb_operation_errors_total", "Failures of the proxy's own work upstream, by operation and kind");
pub const OPERATION_DURATION: Name =
    ("heliosdb_operation_duration_seconds", "Seconds that the proxy's own work upstream took");
pub const STREAMING_DURATION: Name =
    ("heliosdb_streaming_query_duration_seconds", "Seconds that streamed results took, by how they ended");
pub const STREAMING_ROWS: Name = ("heliosdb_streaming_query_rows_total", "Rows of streamed results");
pub const STREAMING_BATCHES: Name = ("heliosdb_streaming_query_batches_total", "Batches of streamed results");
pub const PARALLEL_DURATION: Name =
    ("heliosdb_parallel_query_duration_seconds", "Seconds that split statements took, by how they ended");
pub const PARALLEL_SKIPPED: Name = ("heliosdb_parallel_skipped_total", "Reads that were not split, by the reason");
