//! Commands that change something.

use crate::harness::raw::{Batch, Raw, cancel, tags};
use crate::harness::{Client, Options, Stage, wait_until};

fn options() -> Options {
    Options::default().arg("--auth").arg("trust").key("admin.users", "admin")
}

async fn admin(stage: &Stage) -> Client {
    Client::connect(stage.proxy.port, "admin", "helios").await
}

#[tokio::test]
async fn flushing_a_table_shows_what_was_written_past_the_proxy() {
    let stage = Stage::with(options()).await;
    let direct = stage.direct().await;
    direct
        .run("CREATE TABLE a (v int); CREATE TABLE b (v int); INSERT INTO a VALUES (1); INSERT INTO b VALUES (1)")
        .await;
    let (admin, client) = (admin(&stage).await, stage.client().await);
    for flush in ["FLUSH CACHE TABLE a", "FLUSH CACHE TABLE public.a", "FLUSH CACHE TABLE 'public.a'", "FLUSH CACHE"] {
        stage.cached(&client, "SELECT v FROM a").await;
        stage.cached(&client, "SELECT v FROM b").await;
        direct.run("UPDATE a SET v = v + 1; UPDATE b SET v = v + 1").await;
        let stale = client.one("SELECT v FROM a").await;
        assert!(admin.one(flush).await.parse::<i32>().unwrap() >= 1, "{flush} drops something");
        assert_ne!(client.one("SELECT v FROM a").await, stale, "{flush}");
        let hits = stage.proxy.hits().await;
        client.one("SELECT v FROM b").await;
        assert_eq!(stage.proxy.hits().await > hits, flush != "FLUSH CACHE", "{flush}: the other table's results");
    }
    assert_eq!(admin.fails("FLUSH CACHE TABLE nothing_of_the_kind").await, "42704");
    assert_eq!(admin.fails("FLUSH CACHE NOW").await, "42601");
}

#[tokio::test]
async fn a_key_is_set_until_the_configuration_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.toml");
    std::fs::write(&file, "[cache]\ndefault_ttl_secs = 77\n").unwrap();
    let stage = Stage::with(options().arg("--config").arg(file.display())).await;
    let admin = admin(&stage).await;
    assert_eq!(admin.one("SHOW cache.default_ttl_secs").await, "77");
    admin.run("SET cache.default_ttl_secs = 5").await;
    assert_eq!(admin.one("SHOW cache.default_ttl_secs").await, "5");
    admin.run("SET admin.stats_users TO 'x', y").await;
    assert_eq!(admin.one("SHOW admin.stats_users").await, r#"["x","y"]"#);
    let changed = admin.text("RELOAD").await;
    let changed: Vec<String> =
        changed.iter().map(|row| row.iter().flatten().cloned().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(changed, [r#"admin.stats_users ["x","y"] [] t"#, "cache.default_ttl_secs 5 77 t"]);

    assert_eq!(admin.fails("SET cache.default_ttl_secs = lots").await, "22023");
    assert_eq!(admin.fails("SET cache.default_ttl_secs = 0").await, "22023");
    assert_eq!(admin.fails("SET cache.max_entries = 5").await, "55P02");
    std::fs::write(&file, "[cache]\ndefault_ttl_secs = \"lots\"\n").unwrap();
    assert_eq!(admin.fails("RELOAD").await, "22023");
    assert_eq!(admin.one("SHOW cache.default_ttl_secs").await, "77", "what is wrong changes nothing");
}

#[tokio::test]
async fn a_client_that_is_killed_hears_it_and_its_transaction_is_rolled_back() {
    let stage = Stage::setup_with(options(), "CREATE TABLE t (v int)").await;
    let admin = admin(&stage).await;
    let mut raw = stage.raw().await;
    raw.query("BEGIN").await;
    raw.query("INSERT INTO t VALUES (1)").await;
    let rows = admin.text("SHOW CLIENTS").await;
    let id = rows.iter().find(|row| row[4].as_deref() == Some("idle in transaction")).unwrap()[0].clone().unwrap();
    admin.run(&format!("KILL {id}")).await;
    let frames = raw.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"));
    assert_eq!(stage.direct().await.one("SELECT count(*) FROM t").await, "0");
    wait_until("it is gone", async || admin.text("SHOW CLIENTS").await.len() == 1).await;
    assert_eq!(admin.fails(&format!("KILL {id}")).await, "42704");
    assert_eq!(admin.fails("KILL everybody").await, "42601");
}

#[tokio::test]
async fn a_cancel_request_that_finds_a_visitor_at_rest_does_not_hit_his_next_command() {
    let stage = Stage::with(options()).await;
    let mut raw = Raw::ready(stage.proxy.port, "admin", "helios").await;
    let (number, key) = raw.key();
    for round in 0..300 {
        // They arrive before, after and between these two, which are done as soon as they have begun.
        let cancels = futures_util::future::join_all((0..3).map(|_| cancel(stage.proxy.port, number, &key)));
        let commands = async {
            raw.send_batch(Batch::new().query("SHOW VERSION").query("SHOW VERSION")).await;
            (raw.until_ready().await, raw.until_ready().await)
        };
        let (_, (first, second)) = futures_util::future::join(cancels, commands).await;
        assert_eq!((tags(&first), tags(&second)), ("TDCZ".into(), "TDCZ".into()), "{round}: {first:?} {second:?}");
    }
}

#[tokio::test]
async fn a_visitor_is_told_goodbye_and_a_cancel_request_for_him_ends() {
    let mut stage = Stage::with(options()).await;
    let mut raw = Raw::ready(stage.proxy.port, "admin", "helios").await;
    let (number, key) = raw.key();
    cancel(stage.proxy.port, number, &key).await;
    raw.query("SHOW POOLS").await;
    stage.proxy.signal("TERM");
    let frames = raw.until_closed().await;
    assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"));
    assert_eq!(stage.proxy.ended().await, Some(0));
}
