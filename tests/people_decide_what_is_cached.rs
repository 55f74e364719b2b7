//! Rules of the configuration and hints in statements: how long answers are kept, and what is not cached at all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

use harness::raw::Batch;
use harness::{Client, Options, Stage, wait_until};

const TABLE: &str = "CREATE SCHEMA s; CREATE TABLE t (v int); INSERT INTO t VALUES (1);
    CREATE VIEW s.w AS SELECT v FROM t; CREATE TABLE s.other (v int); INSERT INTO s.other VALUES (1)";
const READ: &str = "SELECT v FROM t";

async fn with_rules(rules: &str) -> (Stage, Client) {
    let stage = Stage::with(Options::default().key("cache.rules", rules)).await;
    stage.direct().await.run(TABLE).await;
    let client = stage.client().await;
    (stage, client)
}

/// Never from the cache, whatever was read before.
async fn never_cached(stage: &Stage, client: &Client, sql: &str) {
    for _ in 0..4 {
        stage.misses(sql, || client.text(sql)).await;
        stage.misses(sql, || client.one_batch(sql)).await;
    }
}

async fn bypasses(stage: &Stage, reason: &str) -> u64 {
    stage.proxy.metric(&format!("heliosdb_cache_bypass_total{{reason=\"{reason}\"}}")).await as u64
}

#[tokio::test]
async fn a_hint_keeps_a_statement_from_the_cache_and_leaves_the_entry() {
    let (stage, client) = with_rules("").await;
    let hinted = format!("/* helios: nocache */ {READ}");
    never_cached(&stage, &client, &hinted).await;
    assert!(bypasses(&stage, "hint").await >= 4);
    let mut raw = stage.raw().await;
    for _ in 0..4 {
        stage.misses(&hinted, async || raw.ask(Batch::one_batch(&hinted)).await).await;
    }
    stage.cached(&client, READ).await;
    let before = stage.proxy.hits().await;
    never_cached(&stage, &client, &hinted).await;
    client.one(READ).await;
    assert_eq!(stage.proxy.hits().await, before + 1);
    // A hint says nothing where it is no leading comment.
    stage.cached(&client, &format!("{READ} /* helios: nocache */")).await;
}

#[tokio::test]
async fn a_hinted_ttl_ends_an_entry_for_everybody() {
    let (stage, client) = with_rules("").await;
    let hinted = format!("/* helios: ttl=1 */ {READ}");
    client.one(&hinted).await;
    stage.direct().await.run("UPDATE t SET v = 2").await;
    // Written past the proxy: only the TTL of who fetched it can end it so soon.
    wait_until("the entry is gone", async || client.one(READ).await == "2").await;
}

#[tokio::test]
async fn who_wants_it_fresh_gets_no_entry_that_is_older_than_his_ttl() {
    let (stage, client) = with_rules("").await;
    stage.cached(&client, READ).await;
    stage.direct().await.run("UPDATE t SET v = 2").await;
    assert_eq!(stage.cached(&client, READ).await[0][0].as_deref(), Some("1"), "the default TTL has not passed");
    let hinted = format!("/* helios: ttl=1 */ {READ}");
    wait_until("a fresh answer", async || client.one(&hinted).await == "2").await;
    assert_eq!(client.one(READ).await, "2", "the fresh answer is everybody's");
}

#[tokio::test]
async fn a_hint_makes_nothing_cacheable() {
    let (stage, client) = with_rules("[{cache = true}]").await;
    for sql in ["SELECT random(), v FROM t", "SELECT now(), v FROM t", "SELECT 'now'::timestamp, v FROM t"] {
        never_cached(&stage, &client, &format!("/* helios: ttl=60 */ {sql}")).await;
    }
}

#[tokio::test]
async fn a_rule_is_for_every_way_to_its_table() {
    let (stage, client) = with_rules("[{table = \"public.t\", cache = false}]").await;
    for sql in [READ, "SELECT v FROM s.w", "SELECT t.v FROM s.other JOIN public.t USING (v)"] {
        never_cached(&stage, &client, sql).await;
    }
    assert!(bypasses(&stage, "rule").await > 0);
    stage.cached(&client, "SELECT v FROM s.other").await;
    stage.cached(&client, "/* helios: ttl=60 */ SELECT v FROM t").await;
}

#[tokio::test]
async fn a_rule_names_a_statement_an_application_or_a_user() {
    let rules = "[{statement = 'order by v limit', cache = false}, {application_name = 'etl', cache = false},
        {user = 'fresh', ttl_secs = 1}]";
    let (stage, client) = with_rules(rules).await;
    never_cached(&stage, &client, "SELECT v FROM t ORDER/**/BY v LIMIT 1").await;
    stage.cached(&client, READ).await;
    client.run("SET application_name = 'etl'").await;
    never_cached(&stage, &client, READ).await;
    client.run("SET application_name = 'web'").await;
    stage.cached(&client, READ).await;

    stage.direct().await.run("CREATE ROLE fresh LOGIN; GRANT SELECT ON t TO fresh").await;
    let fresh = stage.client_as("fresh").await;
    stage.cached(&fresh, READ).await;
    stage.direct().await.run("UPDATE t SET v = 2").await;
    wait_until("a fresh answer", async || fresh.one(READ).await == "2").await;
}

#[tokio::test]
async fn applications_share_entries() {
    let (stage, client) = with_rules("").await;
    client.run("SET application_name = 'one'").await;
    stage.cached(&client, READ).await;
    stage.direct().await.run("UPDATE t SET v = 2").await;
    let mut config = stage.config();
    let other = Client::try_connect(config.application_name("other")).await.unwrap();
    // Whether it found the entry or replaced it: both have one.
    let answer = stage.cached(&other, READ).await;
    for name in ["one", "two"] {
        client.run(&format!("SET application_name = '{name}'")).await;
        let before = stage.proxy.hits().await;
        assert_eq!(client.text(READ).await, answer);
        assert_eq!(stage.proxy.hits().await, before + 1);
    }
}

#[tokio::test]
async fn rules_change_with_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "").unwrap();
    let stage = Stage::with(Options::default().arg("--config").arg(file.display())).await;
    stage.direct().await.run(TABLE).await;
    let client = stage.client().await;
    stage.cached(&client, READ).await;
    std::fs::write(&file, "[[cache.rules]]\ntable = \"t\"\ncache = false\n").unwrap();
    stage.proxy.signal("HUP");
    wait_until("the reload", async || stage.proxy.log_text().contains("configuration reloaded")).await;
    never_cached(&stage, &client, READ).await;
    assert!(!stage.proxy.log_text().contains("needs a restart"));
}

#[tokio::test]
async fn the_log_says_what_the_cache_makes_of_a_statement() {
    let stage = Stage::with(Options::default().key("log.level", "heliosproxy::session=debug")).await;
    stage.direct().await.run(TABLE).await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM s.w").await;
    client.text("SELECT random(), v FROM t").await;
    client.text("SELECT random(), v FROM t").await;
    let log = stage.proxy.log_text();
    let said = |words: &[&str]| log.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(said(&["SELECT random()", "not cacheable: it has not been analysed yet"]), "{log}");
    assert!(said(&["SELECT v FROM s.w", "cacheable, key ", "ttl 300 s; reads ", "s.w", "public.t"]), "{log}");
    assert!(said(&["SELECT random()", "not cacheable: it may call a function"]), "{log}");
}
