use std::collections::BTreeSet;

use super::*;
use crate::config::{AuthMode, EvictionStrategy, TlsMode};

fn from_file(text: &str) -> Result<Config, ConfigError> {
    from_all(text, &[], &Overrides::default())
}

fn from_all(text: &str, env: &[(&str, &str)], overrides: &Overrides) -> Result<Config, ConfigError> {
    let mut layers = Layers::default();
    layers.file(Path::new("config.toml"), text)?;
    layers.environment(env.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())));
    layers.flags(overrides);
    layers.finish()
}

fn complaint(text: &str) -> String {
    from_file(text).unwrap_err().to_string()
}

fn complaint_of_variable(name: &str, value: &str) -> String {
    from_all("", &[(name, value)], &Overrides::default()).unwrap_err().to_string()
}

#[test]
fn the_documented_file_is_the_default_and_names_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let loaded = load(Some(&path), std::iter::empty(), &Overrides::default()).unwrap();
    assert_eq!(loaded, Config::default());

    let text = std::fs::read_to_string(&path).unwrap();
    let document = Document::parse(text.as_str()).unwrap();
    let mut named = BTreeSet::new();
    for (section, item) in document.as_table().iter() {
        named.extend(item.as_table_like().unwrap().iter().map(|(name, _)| format!("{section}.{name}")));
    }
    // A list of tables that is empty cannot be written down: its example stands in comments, and is a valid one.
    assert!(named.insert("cache.rules".to_string()));
    let known: BTreeSet<String> = keys::all(&Config::default()).into_iter().map(|key| key.path).collect();
    assert_eq!(named, known);

    let example = text.split_once("# [[cache.rules]]").unwrap().1.split_once("\n\n").unwrap().0.replace("\n# ", "\n");
    let config = from_file(&format!("[[cache.rules]]{}", example.replace("\n#\n", "\n"))).unwrap();
    assert_eq!(config.cache.rules.len(), 3);
    let fields = serde_json::to_value(&config.cache.rules).unwrap();
    let fields: BTreeSet<&String> =
        fields.as_array().unwrap().iter().flat_map(|r| r.as_object().unwrap().keys()).collect();
    assert_eq!(fields.len(), 7, "every key of a rule: {fields:?}");
}

#[test]
fn without_any_source_the_default_is_valid() {
    assert_eq!(load(None, std::iter::empty(), &Overrides::default()).unwrap(), Config::default());
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let text = "[cache]\nmax_entries = 1\ndefault_ttl_secs = 1\nmax_memory_mb = 10\n";
    let env = [("HELIOSPROXY_CACHE_MAX_ENTRIES", "2"), ("HELIOSPROXY_CACHE_DEFAULT_TTL_SECS", "2"), ("PATH", "/bin")];
    let mut overrides = Overrides::default();
    overrides.set("--entries", "cache.max_entries", "3");
    let cache = from_all(text, &env, &overrides).unwrap().cache;
    assert_eq!((cache.max_entries, cache.default_ttl_secs, cache.max_memory_mb), (3, 2, 10));
}

#[test]
fn every_key_can_be_set_by_the_environment() {
    for key in keys::all(&Config::default()) {
        let text = match &key.value {
            Value::String(text) => text.clone(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        };
        let config = from_all("", &[(&key.variable(), &text)], &Overrides::default());
        assert_eq!(config.unwrap(), Config::default(), "{}", key.path);
    }
}

#[test]
fn the_environment_sets_each_type() {
    let env = [
        ("HELIOSPROXY_SERVER_LISTEN", "127.0.0.1:1, [::1]:2"),
        ("HELIOSPROXY_CACHE_ENABLED", "off"),
        ("HELIOSPROXY_CACHE_EVICTION_STRATEGY", "lfu"),
        ("HELIOSPROXY_UPSTREAM_PORT", "6000"),
        ("HELIOSPROXY_UPSTREAM_SSLMODE", "require"),
        ("HELIOSPROXY_AUTH_MODE", "trust"),
        ("HELIOSPROXY_UPSTREAM_PASSWORD", "a,b"),
    ];
    let config = from_all("", &env, &Overrides::default()).unwrap();
    assert_eq!(config.server.listen, ["127.0.0.1:1", "[::1]:2"]);
    assert!(!config.cache.enabled);
    assert_eq!(config.cache.eviction_strategy, EvictionStrategy::Lfu);
    assert_eq!(config.upstream.port, 6000);
    assert_eq!(config.upstream.sslmode, TlsMode::Require);
    assert_eq!(config.auth.mode, AuthMode::Trust);
    assert_eq!(config.upstream.password, "a,b");
}

#[test]
fn an_upstream_url_sets_its_parts() {
    let mut overrides = Overrides::default();
    overrides.upstream_url("postgres://al:pw@db:7000/sales?sslmode=disable&connect_timeout=3").unwrap();
    let upstream = from_all("[upstream]\nhost = \"x\"\nkeepalive_secs = 7", &[], &overrides).unwrap().upstream;
    assert_eq!((upstream.user.as_str(), upstream.password.as_str()), ("al", "pw"));
    assert_eq!((upstream.host.as_str(), upstream.port, upstream.database.as_str()), ("db", 7000, "sales"));
    assert_eq!((upstream.sslmode, upstream.connect_timeout_secs), (TlsMode::Disable, 3));
    assert_eq!(upstream.keepalive_secs, 7);

    let mut overrides = Overrides::default();
    overrides.upstream_url("postgres://h?sslmode=maybe").unwrap();
    let error = from_all("", &[], &overrides).unwrap_err().to_string();
    assert!(error.starts_with("--upstream: upstream.sslmode: unknown variant \"maybe\""), "{error}");
}

#[test]
fn a_wrong_type_is_named_with_its_line() {
    assert_eq!(
        complaint("\n[cache]\n# comment\nmax_entries = \"lots\"\n"),
        "config.toml:4: cache.max_entries: expected an integer, got \"lots\""
    );
    assert_eq!(
        complaint("cache.max_entries = -1"),
        "config.toml:1: cache.max_entries: expected an integer of 0 or more, got -1"
    );
    assert_eq!(complaint("cache = { enabled = 1 }"), "config.toml:1: cache.enabled: expected true or false, got 1");
    assert_eq!(complaint("[log]\nlevel = 2"), "config.toml:2: log.level: expected a string, got 2");
    assert!(complaint("[log]\nlevel = 2020-01-01").starts_with("config.toml:2: log.level: expected a string"));
    assert_eq!(
        complaint("[server]\nlisten = [\n 5 ]"),
        "config.toml:2: server.listen: expected a list of strings, got [5]"
    );
}

#[test]
fn a_value_out_of_its_type_is_named_with_its_line() {
    assert_eq!(
        complaint("[upstream]\nport = 99999"),
        "config.toml:2: upstream.port: invalid value: integer \"99999\", expected a number from 0 to 65535"
    );
    let error = complaint("[tls]\n\nmode = \"sometimes\"");
    assert!(error.starts_with("config.toml:3: tls.mode: unknown variant \"sometimes\", expected one of \"disable\""));
}

#[test]
fn an_unknown_key_or_section_is_named_with_its_line_and_the_nearest() {
    assert_eq!(
        complaint("[cache]\nmax_entires = 5"),
        "config.toml:2: cache.max_entires: unknown key; did you mean max_entries?"
    );
    assert_eq!(complaint("\n[cash]\nx = 5"), "config.toml:2: cash: unknown section; did you mean cache?");
    assert_eq!(
        complaint("listen = []"),
        "config.toml:1: listen: unknown key outside any [section]; did you mean listen?"
    );
    assert_eq!(complaint("[cache]\nqqqqqqqq = 5"), "config.toml:2: cache.qqqqqqqq: unknown key");
}

#[test]
fn every_problem_is_reported() {
    let error = complaint("[cache]\nmax_entires = 5\nenabled = 3\n");
    assert_eq!(error.lines().count(), 2);
}

#[test]
fn a_syntax_error_is_named_with_its_line() {
    assert!(complaint("[cache]\nmax_entries = = 5").starts_with("config.toml:2: "));
    assert!(complaint("[log]\nlevel = \"a\"\nlevel = \"b\"").starts_with("config.toml:3: "));
}

#[test]
fn the_environment_and_flags_are_named() {
    assert_eq!(
        complaint_of_variable("HELIOSPROXY_CACHE_MAX_ENTRIES", "lots"),
        "HELIOSPROXY_CACHE_MAX_ENTRIES: cache.max_entries: expected an integer, got \"lots\""
    );
    assert_eq!(
        complaint_of_variable("HELIOSPROXY_CACHE_MAX_ENTIRES", "5"),
        "HELIOSPROXY_CACHE_MAX_ENTIRES: environment: unknown variable; did you mean HELIOSPROXY_CACHE_MAX_ENTRIES?"
    );
    assert_eq!(
        complaint_of_variable("HELIOSPROXY_SERVER_BUFFER_BYTES", "1"),
        "HELIOSPROXY_SERVER_BUFFER_BYTES: server.buffer_bytes: must be from 4096 to 16777216, got 1"
    );
    let mut overrides = Overrides::default();
    overrides.set("--http", "server.http", "nowhere");
    assert_eq!(
        from_all("", &[], &overrides).unwrap_err().to_string(),
        "--http: server.http: \"nowhere\": expected host:port"
    );
}

#[test]
fn of_two_keys_that_clash_the_one_that_was_set_is_blamed() {
    let error = complaint("[tls]\nmode = \"require\"");
    assert!(error.starts_with("config.toml:2: tls.mode: tls.cert_file is needed"), "{error}");
    let error = complaint("[cache]\nmax_memory_mb = 1");
    assert!(error.starts_with("config.toml:2: cache.max_memory_mb: cache.max_entry_bytes must not"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = load(Some(Path::new("/nowhere/config.toml")), std::iter::empty(), &Overrides::default()).unwrap_err();
    assert!(error.to_string().starts_with("cannot read /nowhere/config.toml: "));
}

#[test]
fn no_message_shows_a_password() {
    let complaints = [
        complaint("[upstream]\npassword = 4711"),
        complaint("[upstream]\npassword = \"4711"),
        complaint("[upstream]\npassword = \"4711\" x"),
        complaint("[upstream]\npassword = [\"4711\"]"),
        complaint("[upstream]\npassword = \"4711\"\nport = 0"),
    ];
    for text in complaints {
        assert!(text.starts_with("config.toml:"), "{text}");
        assert!(!text.contains("4711"), "{text}");
    }
    let config = from_file("[upstream]\npassword = \"4711\"").unwrap();
    assert!(!format!("{config:?}").contains("4711"));
    let error = from_file("[upstream]\npassword = \"4711\"\nport = 0").unwrap_err();
    assert!(!format!("{error:?}").contains("4711"));
}

#[test]
fn cache_rules_come_in_their_order() {
    let text = "[cache]\nmax_entries = 5\n[[cache.rules]]\ntable = \"s.t\"\nttl_secs = 5\n[log]\nlevel = \"warn\"\n[[cache.rules]]\ncache = false\n";
    let rules = from_file(text).unwrap().cache.rules;
    assert_eq!((rules[0].ttl_secs, rules[1].cache, rules.len()), (Some(5), Some(false), 2));
    assert!(rules[0].table.as_ref().unwrap().matches("s", "t"));
    assert!(!rules[0].table.as_ref().unwrap().matches("x", "t"));

    let inline = "[{table = \"s.t\", ttl_secs = 5}, {cache = false}]";
    assert_eq!(from_file(&format!("[cache]\nrules = {inline}")).unwrap().cache.rules, rules);
    assert_eq!(from_all("", &[("HELIOSPROXY_CACHE_RULES", inline)], &Overrides::default()).unwrap().cache.rules, rules);
}

#[test]
fn a_wrong_cache_rule_is_named_with_its_line() {
    let wrong = |rule: &str| complaint(&format!("[[cache.rules]]\ncache = false\n[[cache.rules]]\n{rule}"));
    for (rule, expected) in [
        ("", "config.toml:3: cache.rules[1]: does nothing: it has neither ttl_secs nor cache nor parallel"),
        ("user = \"u\"", "config.toml:3: cache.rules[1]: does nothing: it has neither ttl_secs nor cache nor parallel"),
        ("user = \"u\"\nttl_secs = 0", "config.toml:5: cache.rules[1].ttl_secs: must be from 1 to 31536000, got 0"),
        (
            "ttl_secs = -1",
            "config.toml:4: cache.rules[1].ttl_secs: invalid value: integer \"-1\", expected an integer of 0 or more",
        ),
        (
            "ttl_secs = \"x\"",
            "config.toml:4: cache.rules[1].ttl_secs: invalid type: string \"x\", expected an integer of 0 or more",
        ),
        (
            "ttl_secs = 1979-05-27",
            "config.toml:4: cache.rules[1].ttl_secs: invalid type: map, expected an integer of 0 or more",
        ),
        ("ttl_secs = 5\ncache = false", "config.toml:4: cache.rules[1].ttl_secs: has no meaning beside cache = false"),
        ("cache = true\nuser = \"\"", "config.toml:5: cache.rules[1].user: must not be empty"),
        (
            "cache = true\nstatement = \"a(\"",
            "config.toml:5: cache.rules[1].statement: \"a(\" is no regular expression: unclosed group",
        ),
        (
            "cache = true\nstatement = \"\"",
            "config.toml:5: cache.rules[1].statement: an empty regular expression matches everything",
        ),
        (
            "cache = true\ntable = \"a.b.c\"",
            "config.toml:5: cache.rules[1].table: expected table or schema.table, got \"a.b.c\"",
        ),
        ("cache = true\ntable = \"\"", "config.toml:5: cache.rules[1].table: expected table or schema.table, got \"\""),
    ] {
        assert_eq!(wrong(rule), expected);
    }
    let unknown = wrong("cache = true\ntabel = \"t\"");
    assert!(
        unknown.starts_with("config.toml:5: cache.rules[1].tabel: unknown field \"tabel\", expected one of \"table\""),
        "{unknown}"
    );
    assert_eq!(complaint("[cache]\nrules = 5"), "config.toml:2: cache.rules: expected a list of tables, got 5");
    assert_eq!(complaint("[cache]\nrules = [5]"), "config.toml:2: cache.rules: expected a list of tables, got [5]");
    assert_eq!(
        complaint("[cache.rules]\ncache = false"),
        "config.toml:1: cache.rules: expected a list of tables, got {}"
    );
    assert_eq!(
        complaint_of_variable("HELIOSPROXY_CACHE_RULES", "[{ttl_secs = 0}]"),
        "HELIOSPROXY_CACHE_RULES: cache.rules[0].ttl_secs: must be from 1 to 31536000, got 0"
    );
    assert!(
        complaint_of_variable("HELIOSPROXY_CACHE_RULES", "t")
            .starts_with("HELIOSPROXY_CACHE_RULES: cache.rules: expected a list")
    );
}
