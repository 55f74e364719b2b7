//! How many may come in.

use crate::harness::raw::{Frame, PROTOCOL_3_0, Raw, startup};
use crate::harness::{Client, Options, Stage, wait_until, within};

/// The SQLSTATE with which a fresh connection is refused.
async fn refusal(stage: &Stage) -> (Option<String>, Option<String>) {
    let mut raw = Raw::open(stage.proxy.port).await;
    raw.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)])).await;
    let frames = raw.until_closed().await;
    let error = frames.last().unwrap_or_else(|| panic!("closed without a word"));
    (error.field('C'), error.field('M'))
}

async fn connects(stage: &Stage) -> Client {
    let client = std::cell::RefCell::new(None);
    wait_until("a connection is free again", async || {
        let connected = Client::try_connect(&stage.config()).await.ok();
        client.replace(connected).is_none() && client.borrow().is_some()
    })
    .await;
    client.into_inner().unwrap()
}

#[tokio::test]
async fn one_client_more_than_max_clients_is_refused() {
    let stage = Stage::with(Options::default().key("server.max_clients", 3)).await;
    let clients = [stage.client().await, stage.client().await, stage.client().await];
    let (code, message) = refusal(&stage).await;
    assert_eq!(code.as_deref(), Some("53300"), "{message:?}");
    assert_eq!(message.as_deref(), Some("sorry, too many clients already"));
    for client in &clients {
        assert_eq!(client.one("SELECT 1").await, "1", "those who are in are not disturbed");
    }
    drop(clients);
    assert_eq!(connects(&stage).await.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn one_client_of_a_user_more_than_max_clients_per_user_is_refused() {
    for mode in ["relay", "trust"] {
        let options = Options::default().key("server.max_clients_per_user", 2).key("auth.mode", mode);
        let stage = Stage::with(options.key("auth.auth_query", "")).await;
        stage
            .direct()
            .await
            .run("DO $$ BEGIN CREATE ROLE of_another LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
            .await;
        let clients = [stage.client().await, stage.client().await];
        let (code, message) = refusal(&stage).await;
        assert_eq!(code.as_deref(), Some("53300"), "{mode}: {message:?}");
        assert_eq!(message.as_deref(), Some("too many connections for role \"postgres\""));
        let other = stage.client_as("of_another").await;
        for client in clients.iter().chain([&other]) {
            assert_eq!(client.one("SELECT 1").await, "1", "others are not concerned");
        }
        drop(clients);
        assert_eq!(connects(&stage).await.one("SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn one_upstream_connection_too_many_is_refused_after_a_bounded_wait() {
    let options = Options::default().key("pool.mode", "session");
    let options = options.key("pool.max_upstream_connections", 2).key("pool.wait_timeout_secs", 1);
    let stage = Stage::with(options).await;
    let clients = [stage.client().await, stage.client().await];
    for client in &clients {
        client.run("SELECT 1").await;
    }
    let (code, message) = within("a refusal", refusal(&stage)).await;
    assert_eq!(code.as_deref(), Some("53300"), "{message:?}");
    for client in &clients {
        assert_eq!(client.one("SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn a_client_that_waits_for_an_upstream_connection_gets_the_next_free_one() {
    let options = Options::default().key("pool.max_upstream_connections", 1).key("pool.wait_timeout_secs", 15);
    let stage = Stage::with(options).await;
    let first = stage.client().await;
    first.run("SELECT 1").await;
    let mut waiting = Raw::open(stage.proxy.port).await;
    waiting.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)])).await;
    drop(first);
    waiting.until_ready().await;
    assert_eq!(waiting.query("SELECT 1").await[1].text(), "1");
}

#[tokio::test]
async fn a_client_that_gives_up_waiting_frees_its_place() {
    let options = Options::default().key("pool.max_upstream_connections", 1).key("pool.wait_timeout_secs", 15);
    let stage = Stage::with(options).await;
    let first = stage.client().await;
    first.run("SELECT 1").await;
    for _ in 0..5 {
        let mut waiting = Raw::open(stage.proxy.port).await;
        waiting.send(&startup(PROTOCOL_3_0, &[("user", "postgres"), ("database", &stage.database)])).await;
    }
    drop(first);
    assert_eq!(connects(&stage).await.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_client_leaves_no_upstream_connection_behind() {
    let stage = Stage::new().await;
    let direct = stage.direct().await;
    let count =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'leaver'";
    let clients = futures_util::future::join_all((0..10).map(|_| stage.client())).await;
    for client in &clients {
        client.run("SET application_name = 'leaver'").await;
    }
    assert_eq!(direct.one(count).await, "10");
    drop(clients);
    direct.until("the server's connections of clients who left are closed", &format!("SELECT ({count}) = 0")).await;
}

#[tokio::test]
async fn a_kept_dedicated_connection_is_as_clean_as_a_new_one() {
    kept_connections_are_as_clean_as_new_ones("session").await;
}

#[tokio::test]
async fn a_kept_shared_connection_is_as_clean_as_a_new_one() {
    kept_connections_are_as_clean_as_new_ones("auto").await;
}

#[tokio::test]
async fn whoever_gets_a_kept_connection_is_told_the_same_settings() {
    let options = Options::default().arg("--auth").arg("trust").key("pool.mode", "session").key("pool.max_idle", 4);
    let stage = Stage::with(options).await;
    let (first, expected) = greeted(&stage).await;
    assert!(expected.iter().any(|frame| frame.body.starts_with(b"client_encoding\0UTF8")), "{expected:?}");
    for setting in ["TimeZone", "application_name"] {
        let (mut client, told) = greeted(&stage).await;
        assert_eq!(told, expected);
        client.query(&format!("SET {setting} = 'Japan'")).await;
        drop(client);
        until_kept(&stage).await;
    }
    assert_eq!(greeted(&stage).await.1, expected);
    drop(first);
}

/// A client, and what it was told of settings.
async fn greeted(stage: &Stage) -> (Raw, Vec<Frame>) {
    let raw = stage.raw().await;
    let mut told: Vec<_> = raw.greeting.iter().filter(|frame| frame.tag == b'S').cloned().collect();
    told.sort_by(|a, b| a.body.cmp(&b.body));
    (raw, told)
}

async fn until_kept(stage: &Stage) {
    let idle = "heliosdb_connections{side=\"upstream\",state=\"idle\"}";
    wait_until("its connection is kept", async || stage.proxy.metric(idle).await == 1.0).await;
}

async fn kept_connections_are_as_clean_as_new_ones(mode: &str) {
    let options = Options::default().arg("--auth").arg("trust").key("pool.mode", mode).key("pool.max_idle", 4);
    let stage = Stage::with(options).await;
    stage.direct().await.run("CREATE TABLE t AS SELECT 'real' AS v").await;
    for _ in 0..4 {
        let client = stage.client().await;
        assert_eq!(client.one("SHOW TimeZone").await, "UTC");
        assert_eq!(client.one("SELECT v FROM t").await, "real");
        assert_eq!(client.one("SELECT count(*) FROM pg_prepared_statements").await, "0");
        assert_eq!(client.one("SELECT count(*) FROM pg_listening_channels()").await, "0");
        assert_eq!(
            client.one("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()").await,
            "0"
        );
        client.run("SET TimeZone = 'Asia/Tokyo'").await;
        client.run("CREATE TEMP TABLE t AS SELECT 'temporary' AS v").await;
        client.run("PREPARE p AS SELECT 1").await;
        client.run("LISTEN news").await;
        client.run("SELECT pg_advisory_lock(1)").await;
        client.run("BEGIN").await;
    }
}
