use super::*;

/// Rules as the configuration would have them.
fn rules(json: serde_json::Value) -> Rules {
    let rules = serde_json::from_value(json).expect("rules");
    Rules::new(&config::Cache { rules, default_ttl_secs: 300, ..config::Cache::default() })
}

fn decide(rules: &Rules, text: &str, relations: &[(&str, &str)], user: &str, application: &str) -> Result<u64, Bypass> {
    let name =
        |(schema, name): &(&str, &str)| Arc::new(RelationName { schema: (*schema).into(), name: (*name).into() });
    let subject = Subject {
        statement: &Statement::analyse(text.as_bytes()),
        text: text.as_bytes(),
        relations: &relations.iter().map(name).collect::<Vec<_>>(),
        user: user.as_bytes(),
        application_name: application.as_bytes(),
    };
    rules.decide(&subject).map(|ttl| ttl.as_secs())
}

#[test]
fn without_rules_the_default_holds() {
    let rules = rules(serde_json::json!([]));
    assert_eq!(decide(&rules, "SELECT a FROM t", &[("public", "t")], "u", "app"), Ok(300));
}

#[test]
fn the_first_rule_that_matches_counts() {
    let rules = rules(serde_json::json!([
        {"table": "sales.t", "ttl_secs": 1},
        {"table": "t", "ttl_secs": 2},
        {"user": "etl", "cache": false},
        {"application_name": "dash", "ttl_secs": 4},
        {"statement": "^select count \\( \\* \\)", "ttl_secs": 5},
        {"user": "etl", "application_name": "dash", "ttl_secs": 6},
        {"table": "T", "cache": true},
    ]));
    let t = [("public", "t")];
    assert_eq!(decide(&rules, "SELECT a FROM t", &[("sales", "t")], "etl", "dash"), Ok(1));
    assert_eq!(decide(&rules, "SELECT a FROM t", &t, "etl", "dash"), Ok(2));
    assert_eq!(decide(&rules, "SELECT a FROM u", &[("public", "u")], "etl", "dash"), Err(Bypass::Rule));
    assert_eq!(decide(&rules, "SELECT a FROM u", &[("public", "u")], "me", "dash"), Ok(4));
    assert_eq!(decide(&rules, "select /* */ COUNT(*) from U", &[("public", "u")], "me", ""), Ok(5));
    assert_eq!(decide(&rules, "SELECT a FROM u", &[("public", "u"), ("x", "t")], "etl", ""), Ok(2));
    assert_eq!(decide(&rules, "SELECT 'select count(*)' FROM u", &[("public", "u")], "me", ""), Ok(300));
    assert_eq!(decide(&rules, "SELECT a FROM \"T\"", &[("public", "T")], "me", ""), Ok(300));
}

#[test]
fn every_matcher_of_a_rule_must_match() {
    let rules = rules(serde_json::json!([
        {"table": "t", "statement": "where", "application_name": "a", "user": "u", "cache": false},
    ]));
    let t = [("public", "t")];
    assert_eq!(decide(&rules, "SELECT FROM t WHERE true", &t, "u", "a"), Err(Bypass::Rule));
    for (text, relation, user, application) in [
        ("SELECT FROM t", "t", "u", "a"),
        ("SELECT FROM t WHERE true", "s", "u", "a"),
        ("SELECT FROM t WHERE true", "t", "v", "a"),
        ("SELECT FROM t WHERE true", "t", "u", "A"),
    ] {
        assert_eq!(decide(&rules, text, &[("public", relation)], user, application), Ok(300), "{text}");
    }
}

#[test]
fn a_rule_without_matchers_is_for_the_rest() {
    let rules = rules(serde_json::json!([{"table": "t", "cache": true}, {"cache": false}]));
    assert_eq!(decide(&rules, "SELECT a FROM t", &[("public", "t")], "u", ""), Ok(300));
    assert_eq!(decide(&rules, "SELECT a FROM u", &[("public", "u")], "u", ""), Err(Bypass::Rule));
}

#[test]
fn a_hint_beats_every_rule() {
    let rules = rules(serde_json::json!([{"user": "slow", "ttl_secs": 9}, {"cache": false}]));
    let with = |hint: &str, user: &str| decide(&rules, &format!("{hint} SELECT a FROM t"), &[], user, "");
    assert_eq!(with("", "slow"), Ok(9));
    assert_eq!(with("/* helios: ttl=60 */", "slow"), Ok(60));
    assert_eq!(with("/* helios: ttl=60 */", "me"), Ok(60));
    assert_eq!(with("/* helios: nocache */", "slow"), Err(Bypass::Hint));
    // What is remembered of a statement does not depend on its hint.
    assert_eq!(with("", "slow"), Ok(9));
}

#[test]
fn what_is_said_about_splitting_and_about_the_cache_is_said_apart() {
    let rules = rules(serde_json::json!([
        {"user": "etl", "parallel": false},
        {"user": "me", "ttl_secs": 7, "parallel": true},
        {"statement": "wide", "cache": false, "parallel": false},
    ]));
    let may_split = |text: &str, user: &str| {
        let statement = &Statement::analyse(text.as_bytes());
        let (text, user) = (text.as_bytes(), user.as_bytes());
        rules.may_split(&Subject { statement, text, relations: &[], user, application_name: b"" })
    };
    assert!(!may_split("SELECT a FROM t", "etl"));
    assert!(may_split("SELECT a FROM t", "you"));
    assert!(!may_split("SELECT a FROM wide", "you"));
    assert!(may_split("SELECT a FROM wide", "me"), "the first that says something");
    assert!(may_split("/* helios: parallel=2 */ SELECT a FROM t", "etl"), "a hint beats every rule");
    assert!(!may_split("/* helios: noparallel */ SELECT a FROM t", "me"));
    assert_eq!(decide(&rules, "SELECT a FROM t", &[], "etl", ""), Ok(300));
    assert_eq!(
        decide(&rules, "SELECT a FROM wide", &[], "etl", ""),
        Err(Bypass::Rule),
        "whatever the rules before it say"
    );
    assert_eq!(decide(&rules, "SELECT a FROM wide", &[], "me", ""), Ok(7));
}
