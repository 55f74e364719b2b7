use super::*;

/// The keys blamed first after a change to a valid configuration.
fn broken_by(change: impl FnOnce(&mut Config)) -> Vec<&'static str> {
    let mut config = Config::default();
    change(&mut config);
    violations(&config).into_iter().map(|violation| violation.keys[0]).collect()
}

#[test]
fn the_default_breaks_nothing() {
    assert!(violations(&Config::default()).is_empty());
}

#[test]
fn addresses_have_host_and_port() {
    for good in ["127.0.0.1:6432", "[::1]:6432", "localhost:6432", "0.0.0.0:0"] {
        assert_eq!(split_address(good).err(), None, "{good}");
    }
    for bad in ["", "6432", ":6432", "*:6432", "::1:6432", "[::1]", "[db]:6432", "host:", "host:x", "host:65536"] {
        assert!(split_address(bad).is_err(), "{bad}");
    }
    assert_eq!(broken_by(|config| config.server.listen = vec!["x".into()]), ["server.listen"]);
    assert_eq!(broken_by(|config| config.server.listen.clear()), ["server.listen"]);
    assert_eq!(broken_by(|config| config.server.listen.push("127.0.0.1:6432".into())), ["server.listen"]);
    assert_eq!(broken_by(|config| config.server.http = "127.0.0.1:6432".into()), ["server.http"]);
}

#[test]
fn a_socket_directory_exists_and_is_not_too_long() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().to_str().unwrap().to_string();
    let deep = dir.path().join("d".repeat(100));
    std::fs::create_dir(&deep).unwrap();
    assert!(broken_by(|config| config.server.unix_socket_dir = name.clone()).is_empty());
    let only_socket = |config: &mut Config| {
        config.server.unix_socket_dir = name.clone();
        config.server.listen.clear();
    };
    assert!(broken_by(only_socket).is_empty());
    let too_long = deep.to_str().unwrap().to_string();
    assert_eq!(broken_by(|config| config.server.unix_socket_dir = too_long), ["server.unix_socket_dir"]);
    assert_eq!(broken_by(|config| config.server.unix_socket_dir = "/nowhere".into()), ["server.unix_socket_dir"]);
}

#[test]
fn a_mode_is_octal() {
    for bad in ["", "0888", "01777", "rwx", "-1"] {
        assert_eq!(
            broken_by(|config| config.server.unix_socket_mode = bad.into()),
            ["server.unix_socket_mode"],
            "{bad}"
        );
    }
    assert!(broken_by(|config| config.server.unix_socket_mode = "700".into()).is_empty());
}

#[test]
fn numbers_stay_in_their_ranges() {
    assert_eq!(broken_by(|config| config.server.buffer_bytes = 4095), ["server.buffer_bytes"]);
    assert_eq!(broken_by(|config| config.server.buffer_bytes = (16 << 20) + 1), ["server.buffer_bytes"]);
    assert_eq!(broken_by(|config| config.server.max_inspect_bytes = 9_999), ["server.max_inspect_bytes"]);
    assert_eq!(broken_by(|config| config.server.max_clients = 0), ["server.max_clients"]);
    assert_eq!(broken_by(|config| config.server.startup_timeout_secs = 0), ["server.startup_timeout_secs"]);
    assert!(broken_by(|config| config.server.shutdown_timeout_secs = 0).is_empty());
    assert_eq!(broken_by(|config| config.upstream.port = 0), ["upstream.port"]);
    assert_eq!(broken_by(|config| config.upstream.connect_timeout_secs = 0), ["upstream.connect_timeout_secs"]);
    assert_eq!(broken_by(|config| config.pool.wait_timeout_secs = 0), ["pool.wait_timeout_secs"]);
    assert_eq!(broken_by(|config| config.pool.max_idle = 1001), ["pool.max_idle"]);
    assert_eq!(broken_by(|config| config.retry.max_attempts = 0), ["retry.max_attempts"]);
    assert_eq!(broken_by(|config| config.retry.multiplier = 0.5), ["retry.multiplier"]);
    assert_eq!(broken_by(|config| config.retry.multiplier = f64::NAN), ["retry.multiplier"]);
    assert_eq!(broken_by(|config| config.breaker.window_ms = 0), ["breaker.window_ms"]);
    assert_eq!(broken_by(|config| config.cache.max_entry_bytes = (1 << 30) + 1), ["cache.max_entry_bytes"]);
    assert_eq!(broken_by(|config| config.cache.default_ttl_secs = 0), ["cache.default_ttl_secs"]);
    assert_eq!(broken_by(|config| config.catalog.lock_timeout_ms = 0), ["catalog.lock_timeout_ms"]);
}

#[test]
fn names_are_not_empty() {
    assert_eq!(broken_by(|config| config.upstream.host.clear()), ["upstream.host"]);
    assert_eq!(broken_by(|config| config.upstream.database.clear()), ["upstream.database"]);
    assert_eq!(broken_by(|config| config.upstream.user.clear()), ["upstream.user"]);
}

#[test]
fn tls_to_clients_needs_its_files() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_string();
    assert_eq!(broken_by(|config| config.tls.mode = TlsMode::Prefer), ["tls.cert_file", "tls.key_file"]);
    let with = |mode, key: &str| {
        broken_by(|config| {
            config.tls.mode = mode;
            config.tls.cert_file = path.clone();
            config.tls.key_file = key.to_string();
        })
    };
    assert!(with(TlsMode::Require, &path).is_empty());
    assert_eq!(with(TlsMode::VerifyCa, &path), ["tls.ca_file"]);
    assert_eq!(with(TlsMode::Require, "/nowhere.pem"), ["tls.key_file"]);
    assert_eq!(with(TlsMode::Require, "/tmp"), ["tls.key_file"]);
}

#[test]
fn tls_to_the_upstream_needs_its_files() {
    assert_eq!(broken_by(|config| config.upstream.sslmode = TlsMode::VerifyFull), ["upstream.sslrootcert"]);
    let system = |config: &mut Config| {
        config.upstream.sslmode = TlsMode::VerifyFull;
        config.upstream.sslrootcert = "system".into();
    };
    assert!(broken_by(system).is_empty());
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap().to_string();
    assert_eq!(broken_by(|config| config.upstream.sslcert = path), ["upstream.sslkey"]);
}

#[test]
fn secrets_must_come_from_somewhere() {
    for mode in [AuthMode::Scram, AuthMode::Md5] {
        let nothing = |config: &mut Config| {
            config.auth.mode = mode;
            config.auth.auth_query.clear();
        };
        assert_eq!(broken_by(nothing), ["auth.mode"]);
        assert!(broken_by(|config| config.auth.mode = mode).is_empty());
    }
    let missing = |config: &mut Config| {
        config.auth.mode = AuthMode::Scram;
        config.auth.user_file = "/nowhere".into();
    };
    assert_eq!(broken_by(missing), ["auth.user_file"]);
}

#[test]
fn a_log_level_is_one_that_logs_something() {
    for good in ["info", "off", "DEBUG", "heliosproxy=debug,warn", "warn,heliosproxy::session=trace"] {
        assert!(broken_by(|config| config.log.level = good.into()).is_empty(), "{good}");
    }
    for bad in ["", "inof", "heliosproxy=loud", "debug,heliosproxy"] {
        assert_eq!(broken_by(|config| config.log.level = bad.into()), ["log.level"], "{bad}");
    }
}

#[test]
fn what_splits_scans_has_its_bounds() {
    assert_eq!(broken_by(|config| config.parallel.max_connections = 0), ["parallel.max_connections"]);
    assert_eq!(broken_by(|config| config.parallel.cost_threshold = f64::NAN), ["parallel.cost_threshold"]);
    assert_eq!(broken_by(|config| config.parallel.min_chunk_pages = 8193), ["parallel.min_chunk_pages"]);
    assert_eq!(broken_by(|config| config.parallel.query_memory_mb = 129), ["parallel.query_memory_mb"]);
    assert_eq!(broken_by(|config| config.parallel.stall_timeout_secs = 0), ["parallel.stall_timeout_secs"]);
}

#[test]
fn streams_have_bounds() {
    assert_eq!(broken_by(|config| config.stream.listen = "nowhere".into()), ["stream.listen"]);
    assert_eq!(broken_by(|config| config.stream.listen = config.server.listen[0].clone()), ["stream.listen"]);
    assert_eq!(broken_by(|config| config.stream.allowed_origins = vec!["a.com".into()]), ["stream.allowed_origins"]);
    assert_eq!(broken_by(|config| config.stream.batch_size = 0), ["stream.batch_size"]);
    assert_eq!(broken_by(|config| config.stream.buffer_size = 999), ["stream.buffer_size"]);
    assert_eq!(broken_by(|config| config.stream.heartbeat_interval_ms = 0), ["stream.heartbeat_interval_ms"]);
}

#[test]
fn traces_go_to_a_url_and_its_authority_can_be_read() {
    assert_eq!(broken_by(|config| config.tracing.endpoint = "127.0.0.1:4318".into()), ["tracing.endpoint"]);
    assert_eq!(broken_by(|config| config.tracing.sample_ratio = 1.5), ["tracing.sample_ratio"]);
    let nowhere = |endpoint: &str| {
        broken_by(|config| (config.tracing.endpoint, config.tracing.ca_file) = (endpoint.into(), "/nowhere".into()))
    };
    assert_eq!(nowhere("https://localhost"), ["tracing.ca_file"]);
    assert!(nowhere("http://localhost").is_empty());
}
