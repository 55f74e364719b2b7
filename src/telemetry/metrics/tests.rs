use std::time::Duration;

use super::*;

/// The value of one series in the rendered text.
fn value<'a>(text: &'a str, series: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
}

#[test]
fn every_series_is_there_from_the_start_under_its_name() {
    let text = Metrics::new().render();
    let series = [
        r#"heliosdb_connections{side="client",state="active"}"#,
        r#"heliosdb_connections{side="upstream",state="idle"}"#,
        r#"heliosdb_queries_total{class="read"}"#,
        r#"heliosdb_queries_total{class="ddl"}"#,
        r#"heliosdb_queries_total{class="unknown"}"#,
        r#"heliosdb_cache_accesses_total{result="bypass"}"#,
        r#"heliosdb_cache_bypass_total{reason="in_flight"}"#,
        r#"heliosdb_cache_evictions_total{reason="ttl"}"#,
        r#"heliosdb_cache_invalidations_total{scope="everything"}"#,
        r#"heliosdb_retry_attempts_total{operation="connect",success="true"}"#,
        r#"heliosdb_circuit_breaker_state_changes_total{service="upstream",state="half_open"}"#,
        r#"heliosdb_parallel_skipped_total{reason="small"}"#,
        "heliosdb_streaming_query_rows_total",
        "heliosdb_streaming_query_batches_total",
        "heliosdb_cache_bytes",
        "heliosdb_cache_entries",
        r#"heliosdb_operation_errors_total{operation="connect",kind="timeout"}"#,
    ];
    for series in series {
        assert_eq!(value(&text, series), Some("0"), "{series} in\n{text}");
    }
}

#[test]
fn every_metric_has_help_and_type() {
    let metrics = Metrics::new();
    let text = metrics.render();
    let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(count("# TYPE heliosdb_"), 24, "{text}");
    assert_eq!(count("# HELP heliosdb_"), 24, "{text}");
}

#[test]
fn counting_changes_the_series_it_names() {
    let metrics = Metrics::new();
    metrics.connections(Side::Client, State::Idle).increment(2.0);
    metrics.queries(Class::Write).increment(1);
    metrics.cache_accesses(Access::Hit).increment(3);
    metrics.bypass(1).increment(1);
    metrics.bypass(usize::MAX).increment(4);
    metrics.cache_evictions(Eviction::Capacity).increment(1);
    metrics.cache_invalidations(Scope::Table).increment(1);
    metrics.operation_errors(Operation::Analyse, ErrorKind::Server).increment(1);
    metrics.cache_bytes.set(1234.0);
    let text = metrics.render();
    let expected = [
        (r#"heliosdb_connections{side="client",state="idle"}"#, "2"),
        (r#"heliosdb_queries_total{class="write"}"#, "1"),
        (r#"heliosdb_queries_total{class="read"}"#, "0"),
        (r#"heliosdb_cache_accesses_total{result="hit"}"#, "3"),
        (r#"heliosdb_cache_bypass_total{reason="not_read"}"#, "1"),
        (r#"heliosdb_cache_bypass_total{reason="in_flight"}"#, "4"),
        (r#"heliosdb_cache_evictions_total{reason="capacity"}"#, "1"),
        (r#"heliosdb_cache_invalidations_total{scope="table"}"#, "1"),
        (r#"heliosdb_operation_errors_total{operation="analyse",kind="server"}"#, "1"),
        ("heliosdb_cache_bytes", "1234"),
    ];
    for (series, expected) in expected {
        assert_eq!(value(&text, series), Some(expected), "{series}");
    }
}

#[test]
fn durations_fall_into_fixed_buckets() {
    let metrics = Metrics::new();
    let recorded = metrics.query_duration(Path::Cache);
    recorded.record(Duration::from_nanos(25_001));
    recorded.record(Duration::from_micros(50));
    recorded.record(Duration::from_secs(120));
    let text = metrics.render();
    let bucket = |bound: &str| {
        value(&text, &format!(r#"heliosdb_query_duration_seconds_bucket{{path="cache",le="{bound}"}}"#))
            .map(str::to_owned)
    };
    assert_eq!(bucket("0.000025").as_deref(), Some("0"), "{text}");
    assert_eq!(bucket("0.00005").as_deref(), Some("2"), "{text}");
    assert_eq!(bucket("60").as_deref(), Some("2"), "{text}");
    assert_eq!(bucket("+Inf").as_deref(), Some("3"), "{text}");
    let series = |end: &str| value(&text, &format!(r#"heliosdb_query_duration_seconds_{end}{{path="cache"}}"#));
    assert_eq!(series("count"), Some("3"), "{text}");
    assert_eq!(series("sum"), Some("120.000075001"), "{text}");
}

#[test]
fn two_proxies_in_one_process_count_apart() {
    let (one, other) = (Metrics::new(), Metrics::new());
    one.queries(Class::Read).increment(1);
    assert_eq!(value(&one.render(), r#"heliosdb_queries_total{class="read"}"#), Some("1"));
    assert_eq!(value(&other.render(), r#"heliosdb_queries_total{class="read"}"#), Some("0"));
}
