//! Who gets into the admin database, in every mode of authentication.

use tokio_postgres::Config;

use crate::harness::client::explain;
use crate::harness::{Client, Options, Stage};

/// `"OK"`, or the error's words.
async fn attempt(stage: &Stage, user: &str, password: &str) -> String {
    let mut config = Config::new();
    config.host("127.0.0.1").port(stage.proxy.port).user(user).dbname("helios").password(password);
    match Client::try_connect(&config).await {
        Ok(client) => {
            assert_eq!(client.one("SELECT current_database()").await, "helios");
            "OK".into()
        }
        Err(error) => explain(&error),
    }
}

#[tokio::test]
async fn in_every_mode_only_those_who_are_listed_and_prove_it_get_in() {
    for mode in ["relay", "scram", "md5"] {
        // Users belong to the cluster, so their names are this test's own.
        let admins = ["scram", "md5"].map(|method| format!("admin_{method}_of_{mode}"));
        let options = Options::default().arg("--auth").arg(mode).key("admin.users", admins.join(","));
        let stage = Stage::with(options.clone()).await;
        for (user, method) in admins.iter().zip(["scram", "md5"]) {
            stage.cluster.user(user, "right", method).await;
            // An md5 hash is no use for SCRAM, as for every other client.
            let expected = if mode == "scram" && method == "md5" { "28P01" } else { "OK" };
            let said = attempt(&stage, user, "right").await;
            assert!(said.contains(expected), "{mode}, {user}: {said}");
            let said = attempt(&stage, user, "wrong").await;
            assert!(said.contains("28P01"), "{mode}, {user}: {said}");
        }
        let other = format!("other_of_{mode}");
        stage.cluster.user(&other, "right", "scram").await;
        let said = attempt(&stage, &other, "right").await;
        assert!(said.contains("28000") && said.contains("may not use the admin database"), "{mode}: {said}");
        let said = attempt(&stage, &other, "wrong").await;
        assert!(said.contains("28P01"), "{mode}: {said}");
        let said = attempt(&stage, "nobody_at_all", "x").await;
        assert!(said.contains("28P01"), "{mode}: {said}");
    }
}

#[tokio::test]
async fn in_mode_trust_nobody_is_asked_and_still_only_those_who_are_listed_get_in() {
    let stage = Stage::with(Options::default().arg("--auth").arg("trust").key("admin.users", "alice")).await;
    assert_eq!(attempt(&stage, "alice", "").await, "OK");
    let said = attempt(&stage, "postgres", "").await;
    assert!(said.contains("28000"), "{said}");
}

#[tokio::test]
async fn without_anybody_listed_there_is_no_admin_database() {
    let stage = Stage::new().await;
    let said = attempt(&stage, "postgres", "").await;
    assert_eq!(said, "FATAL 3D000: database \"helios\" does not exist", "the server's own words");
}

#[tokio::test]
async fn an_admin_gets_in_when_the_server_is_down_or_every_seat_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.txt");
    std::fs::write(&users, "\"alice\" \"right\"\n").unwrap();
    let relay = crate::harness::fault::FaultRelay::to(crate::harness::cluster().port).await;
    let options = Options::default()
        .upstream(format!("postgres://postgres@127.0.0.1:{}/postgres", relay.port))
        .key("auth.user_file", users.display())
        .key("admin.users", "alice")
        .key("server.max_clients", 1);
    let stage = Stage::with(options).await;
    let _client = Client::connect(stage.proxy.port, "postgres", "postgres").await;
    let refused = Client::try_connect(&stage.config()).await.err().expect("the only seat is taken");
    assert!(explain(&refused).contains("53300"));
    assert_eq!(attempt(&stage, "alice", "right").await, "OK");
    relay.cut();
    assert_eq!(attempt(&stage, "alice", "right").await, "OK");
    assert!(attempt(&stage, "alice", "wrong").await.contains("28P01"));
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let options = Options::default().arg("--auth").arg("trust").key("admin.stats_users", "watcher");
    let stage = Stage::with(options).await;
    let watcher = Client::connect(stage.proxy.port, "watcher", "helios").await;
    watcher.text("SHOW POOLS").await;
    for command in ["FLUSH CACHE", "KILL 1", "RELOAD", "SET cache.default_ttl_secs = 5"] {
        assert_eq!(watcher.fails(command).await, "42501", "{command}");
    }
    assert_eq!(watcher.one("SHOW cache.default_ttl_secs").await, "300");
}
