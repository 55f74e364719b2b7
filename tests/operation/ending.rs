//! SIGTERM, and SIGHUP.

use crate::harness::raw::{Batch, tags};
use crate::harness::{Client, Options, Stage};

const TABLE: &str = "CREATE TABLE t (v int); INSERT INTO t VALUES (1)";

#[tokio::test]
async fn an_idle_client_is_told_and_the_proxy_ends() {
    let mut stage = Stage::new().await;
    let (mut idle, mut used) = (stage.raw().await, stage.raw().await);
    used.query("SELECT 1").await;
    stage.proxy.signal("TERM");
    for raw in [&mut idle, &mut used] {
        let frames = raw.until_closed().await;
        assert_eq!(tags(&frames), "E", "{frames:?}");
        assert_eq!(frames[0].field('C').as_deref(), Some("57P01"));
        assert_eq!(frames[0].field('S').as_deref(), Some("FATAL"));
    }
    assert_eq!(stage.proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_running_transaction_is_finished_and_nobody_else_comes_in() {
    let mut stage = Stage::setup(TABLE).await;
    let mut writer = stage.raw().await;
    writer.query("BEGIN").await;
    writer.query("UPDATE t SET v = 2").await;
    stage.proxy.signal("TERM");
    let port = stage.proxy.port;
    crate::harness::wait_until("no new connections", async || {
        match Client::try_connect(
            tokio_postgres::Config::new().host("127.0.0.1").port(port).user("postgres").dbname("postgres"),
        )
        .await
        {
            Ok(_) => false,
            Err(error) => error.code().is_none_or(|code| code.code() == "57P01" || code.code() == "57P03"),
        }
    })
    .await;
    assert_eq!(tags(&writer.query("UPDATE t SET v = 3").await), "CZ");
    writer.send_batch(Batch::new().query("COMMIT")).await;
    let frames = writer.until_closed().await;
    assert_eq!(tags(&frames), "CZE", "{frames:?}");
    assert_eq!(frames[2].field('C').as_deref(), Some("57P01"));
    assert_eq!(stage.direct().await.one("SELECT v FROM t").await, "3");
    assert_eq!(stage.proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_running_statement_is_finished() {
    let mut stage = Stage::setup(TABLE).await;
    let (blocker, watch) = (stage.direct().await, stage.direct().await);
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 2")).await;
    watch.until_blocked("UPDATE%").await;
    stage.proxy.signal("TERM");
    blocker.run("COMMIT").await;
    let frames = writer.until_closed().await;
    assert_eq!(tags(&frames), "CZE", "{frames:?}");
    assert_eq!(watch.one("SELECT v FROM t").await, "2");
    assert_eq!(stage.proxy.ended().await, Some(0));
}

#[tokio::test]
async fn a_transaction_that_does_not_end_is_ended_after_the_timeout() {
    let mut stage = Stage::with(Options::default().key("server.shutdown_timeout_secs", 1)).await;
    let direct = stage.direct().await;
    direct.run(TABLE).await;
    let mut writer = stage.raw().await;
    writer.query("BEGIN").await;
    writer.query("UPDATE t SET v = 2").await;
    stage.proxy.signal("TERM");
    let frames = writer.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
    stage.proxy.ended().await;
    direct.until("the transaction is rolled back", "SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = current_database()").await;
    assert_eq!(direct.one("SELECT v FROM t").await, "1");
}

#[tokio::test]
async fn a_reload_reads_the_user_file_again_and_disturbs_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let users = dir.path().join("users.txt");
    std::fs::write(&users, "\"postgres\" \"first\"\n").unwrap();
    let options =
        Options::default().arg("--auth").arg("scram").key("auth.user_file", users.display()).key("auth.auth_query", "");
    let mut stage = Stage::with(options).await;
    let mut config = stage.config();
    let old = Client::try_connect(config.password("first")).await.unwrap();
    assert_eq!(old.one("SELECT 1").await, "1");
    assert!(Client::try_connect(config.password("second")).await.is_err());
    std::fs::write(&users, "\"postgres\" \"second\"\n").unwrap();
    stage.proxy.signal("HUP");
    crate::harness::wait_until("the new password works", async || {
        Client::try_connect(config.password("second")).await.is_ok()
    })
    .await;
    assert!(Client::try_connect(config.password("first")).await.is_err());
    assert_eq!(old.one("SELECT 1").await, "1");
    assert!(stage.proxy.is_running());
}

#[tokio::test]
async fn a_reload_of_a_broken_config_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[cache]\nmax_entries = 100\n").unwrap();
    let mut stage = Stage::with(Options::default().arg("--config").arg(file.display())).await;
    let client = stage.client().await;
    client.one("SELECT 1").await;
    std::fs::write(&file, "[cache]\nmax_entires = 100\n").unwrap();
    stage.proxy.signal("HUP");
    crate::harness::wait_until("the log names the wrong key", async || stage.proxy.log_text().contains("max_entires"))
        .await;
    assert!(stage.proxy.is_running());
    assert_eq!(client.one("SELECT 1").await, "1");
    assert_eq!(stage.client().await.one("SELECT 1").await, "1");
}
