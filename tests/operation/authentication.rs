//! Who may come in, with every method, and what those hear who may not.

use tokio_postgres::Config;

use crate::harness::client::explain;
use crate::harness::{Client, Options, Stage};

fn config(port: u16, database: &str, user: &str, password: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).dbname(database).password(password);
    config
}

/// `"OK"`, or the error's words.
async fn attempt(port: u16, database: &str, user: &str, password: &str) -> String {
    match Client::try_connect(&config(port, database, user, password)).await {
        Ok(client) => {
            assert_eq!(client.one("SELECT session_user").await, user);
            "OK".into()
        }
        Err(error) => explain(&error),
    }
}

async fn through(stage: &Stage, user: &str, password: &str) -> String {
    attempt(stage.proxy.port, &stage.database, user, password).await
}

async fn direct(stage: &Stage, user: &str, password: &str) -> String {
    attempt(stage.cluster.port, &stage.database, user, password).await
}

fn with_auth(mode: &str) -> Options {
    Options::default().arg("--auth").arg(mode)
}

#[tokio::test]
async fn relay_works_with_every_method_of_the_server() {
    let stage = Stage::with(with_auth("relay")).await;
    for method in ["scram", "md5", "password"] {
        let user = format!("{method}_{}", stage.database);
        stage.cluster.user(&user, "right", method).await;
        assert_eq!(through(&stage, &user, "right").await, "OK", "{method}");
        let refused = direct(&stage, &user, "wrong").await;
        assert_eq!(through(&stage, &user, "wrong").await, refused, "{method}");
        assert!(refused.contains("28P01"), "{refused}");
    }
}

#[tokio::test]
async fn scram_with_the_servers_own_verifiers() {
    let stage = Stage::with(with_auth("scram")).await;
    let user = format!("scram_{}", stage.database);
    stage.cluster.user(&user, "right", "scram").await;
    assert_eq!(through(&stage, &user, "right").await, "OK");
    assert_eq!(through(&stage, &user, "wrong").await, direct(&stage, &user, "wrong").await);
    // A user who does not exist hears the same as one with a wrong password.
    let unknown = through(&stage, "nobody_at_all", "wrong").await;
    assert_eq!(unknown, "FATAL 28P01: password authentication failed for user \"nobody_at_all\"");
}

#[tokio::test]
async fn a_password_that_is_changed_through_the_proxy_is_the_new_one() {
    let stage = Stage::with(with_auth("scram")).await;
    let user = format!("scram_{}", stage.database);
    stage.cluster.user(&user, "old", "scram").await;
    let client = Client::try_connect(&config(stage.proxy.port, &stage.database, &user, "old")).await.unwrap();
    client.run(&format!("ALTER ROLE {user} PASSWORD 'new'")).await;
    crate::harness::wait_until("the new password works", async || through(&stage, &user, "new").await == "OK").await;
    assert!(through(&stage, &user, "old").await.contains("28P01"));
}

#[tokio::test]
async fn md5_with_the_servers_own_hashes() {
    let stage = Stage::with(with_auth("md5")).await;
    let user = format!("md5_{}", stage.database);
    stage.cluster.user(&user, "right", "md5").await;
    assert_eq!(through(&stage, &user, "right").await, "OK");
    assert_eq!(through(&stage, &user, "wrong").await, direct(&stage, &user, "wrong").await);
    let scram_user = format!("scram_{}", stage.database);
    stage.cluster.user(&scram_user, "right", "scram").await;
    assert_eq!(through(&stage, &scram_user, "right").await, "OK", "a user with a SCRAM verifier is asked for SCRAM");
}

#[tokio::test]
async fn a_user_file_knows_plain_passwords_and_verifiers() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.txt");
    let cluster = crate::harness::cluster();
    let name = cluster.database().await;
    let (plain, verifier) = (format!("plain_{name}"), format!("verifier_{name}"));
    for user in [&plain, &verifier] {
        cluster.user(user, "right", "scram").await;
    }
    let stored = cluster
        .connect("postgres")
        .await
        .one(&format!("SELECT rolpassword FROM pg_authid WHERE rolname = '{verifier}'"))
        .await;
    std::fs::write(&users, format!("\"{plain}\" \"right\"\n\"{verifier}\" \"{stored}\"\n")).unwrap();
    let options = with_auth("scram").key("auth.user_file", users.display()).key("auth.auth_query", "");
    let stage = Stage::with(options).await;
    for user in [&plain, &verifier] {
        assert_eq!(through(&stage, user, "right").await, "OK", "{user}");
        assert_eq!(through(&stage, user, "wrong").await, direct(&stage, user, "wrong").await, "{user}");
    }
}

#[tokio::test]
async fn trust_asks_nobody() {
    let stage = Stage::with(with_auth("trust")).await;
    assert_eq!(attempt(stage.proxy.port, &stage.database, "postgres", "whatever").await, "OK");
    let mut raw = stage.raw().await;
    assert_eq!(raw.query("SELECT 1").await[1].text(), "1");
}

#[tokio::test]
async fn a_user_who_may_not_log_in_or_connect_hears_the_servers_words() {
    for mode in ["relay", "trust"] {
        let stage = Stage::with(with_auth(mode)).await;
        let (nologin, barred) = (format!("nologin_{}", stage.database), format!("barred_{}", stage.database));
        stage
            .direct()
            .await
            .run(&format!(
                "CREATE ROLE {nologin} NOLOGIN; CREATE ROLE {barred} LOGIN; REVOKE CONNECT ON DATABASE {} FROM PUBLIC",
                stage.database
            ))
            .await;
        for user in [&nologin, &barred] {
            assert_eq!(through(&stage, user, "").await, direct(&stage, user, "").await, "{mode}: {user}");
        }
    }
}

#[tokio::test]
async fn cached_answers_are_not_for_those_who_are_not_let_in() {
    let stage = Stage::with(with_auth("scram")).await;
    let user = format!("scram_{}", stage.database);
    stage.cluster.user(&user, "right", "scram").await;
    stage.direct().await.run("CREATE TABLE t AS SELECT 1 AS v; GRANT SELECT ON t TO PUBLIC").await;
    let client = Client::try_connect(&config(stage.proxy.port, &stage.database, &user, "right")).await.unwrap();
    stage.cached(&client, "SELECT v FROM t").await;
    let mut raw = crate::harness::Raw::open(stage.proxy.port).await;
    let startup = crate::harness::raw::startup(
        crate::harness::raw::PROTOCOL_3_0,
        &[("user", &user), ("database", &stage.database)],
    );
    raw.send(&startup).await;
    raw.send_batch(crate::harness::raw::Batch::new().query("SELECT v FROM t")).await;
    let frames = raw.until_closed().await;
    assert!(!frames.iter().any(|frame| matches!(frame.tag, b'D' | b'T' | b'Z')), "{frames:?}");
}
