//! Connections begin to go to another server.

use super::scene::{fragile_server, quick, recovered};
use crate::harness::fault::{FaultRelay, Weather};
use crate::harness::raw::{Batch, Raw, cancel};
use crate::harness::{Client, Cluster, Options, Proxy, Stage, cluster, wait_until, within};

const READ: &str = "SELECT v FROM t";

/// A proxy in front of a list of hosts. `direct` on this stage leads to `cluster`.
async fn stage(cluster: &'static Cluster, database: &str, hosts: &str, options: Options) -> Stage {
    let options = options.upstream(format!("postgres://postgres@{hosts}/{database}"));
    let proxy = Proxy::start(cluster, database, &options).await;
    Stage { database: database.to_owned(), proxy, cluster }
}

#[tokio::test]
async fn what_one_server_has_said_is_never_said_to_the_clients_of_another() {
    let (first, second) = (cluster(), fragile_server().await);
    let database = first.database().await;
    second.connect("postgres").await.run(&format!("CREATE DATABASE {database}")).await;
    for (server, value) in [(first, "first"), (second, "second")] {
        server.connect(&database).await.run(&format!("CREATE TABLE t AS SELECT '{value}' AS v")).await;
    }
    // The second server is the better one, and cannot be reached at first.
    let relay = FaultRelay::to(second.port).await;
    relay.turn(Weather::Shut);
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", relay.port, first.port);
    let stage = stage(first, &database, &hosts, Options::default().dedicated()).await;
    let old = stage.client().await;
    stage.cached(&old, READ).await;
    let mut old_raw = stage.raw().await;
    assert_eq!(old_raw.query(READ).await[1].text(), "first");

    relay.mend();
    let new = stage.client().await;
    for _ in 0..3 {
        assert_eq!(new.one(READ).await, "second");
        assert_eq!(old.one(READ).await, "first");
    }
    stage.cached(&new, READ).await;
    for round in 0..5 {
        stage.misses("the old server's", || old.one(READ)).await;
        old.run(&format!("UPDATE t SET v = 'first {round}'")).await;
        assert_eq!(old.one(READ).await, format!("first {round}"));
        assert_eq!(new.one(READ).await, "second");
        assert_eq!(old.binary(READ).await[0][0].as_deref(), Some(format!("first {round}").as_bytes()));
        assert_eq!(new.binary(READ).await[0][0].as_deref(), Some(&b"second"[..]));
    }

    // A cancel goes to the server that runs the query.
    let (pid, key) = old_raw.key();
    old_raw.send_batch(Batch::new().query("SELECT pg_sleep(3600)")).await;
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()";
    stage.direct().await.until("it sleeps", sleeps).await;
    cancel(stage.proxy.port, pid, &key).await;
    let frames = old_raw.until_ready().await;
    assert!(frames.iter().any(|frame| frame.tag == b'E' && frame.field('C').as_deref() == Some("57014")), "{frames:?}");

    // And back: nobody has watched that server in between, and who has stayed there is heard again.
    stage.direct().await.run("UPDATE t SET v = 'first again'").await;
    relay.turn(Weather::Shut);
    let newest = stage.client().await;
    assert_eq!(newest.one(READ).await, "first again");
    assert_eq!(new.one(READ).await, "second");
    assert_eq!(old.one(READ).await, "first again");
    stage.cached(&newest, READ).await;
    for round in 0..3 {
        old.run(&format!("UPDATE t SET v = 'first at last {round}'")).await;
        assert_eq!(newest.one(READ).await, format!("first at last {round}"));
        stage.cached(&newest, READ).await;
    }
}

#[tokio::test]
async fn clients_that_share_connections_go_along_to_the_other_server() {
    let (first, second) = (cluster(), fragile_server().await);
    let database = first.database().await;
    second.connect("postgres").await.run(&format!("CREATE DATABASE {database}")).await;
    for (server, value) in [(first, "first"), (second, "second")] {
        server.connect(&database).await.run(&format!("CREATE TABLE t AS SELECT '{value}' AS v")).await;
    }
    let relay = FaultRelay::to(second.port).await;
    relay.turn(Weather::Shut);
    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", relay.port, first.port);
    let options = Options::default().key("auth.mode", "trust").key("auth.auth_query", "").key("pool.mode", "auto");
    let stage = stage(first, &database, &hosts, options).await;
    let one = stage.client().await;
    stage.cached(&one, READ).await;
    let prepared = one.prepare("SELECT v, 1 FROM t").await.unwrap();
    one.run("SET TimeZone = 'Asia/Tokyo'; BEGIN; UPDATE t SET v = 'first 2'").await;

    relay.mend();
    let two = stage.client().await;
    two.run("CREATE TABLE of_two ()").await;
    assert_eq!(two.one(READ).await, "second");
    stage.cached(&two, READ).await;
    // A transaction ends where it began; the next one begins where connections go.
    assert_eq!(one.one(READ).await, "first 2");
    one.run("COMMIT").await;
    // It has made a setting in a request of several statements: whether it has left anything else behind is asked first.
    wait_until("it goes where connections go", async || one.one(READ).await == "second").await;
    assert_eq!(one.query_one(&prepared, &[]).await.unwrap().get::<_, String>(0), "second");
    assert_eq!(one.one("SHOW TimeZone").await, "Asia/Tokyo");
    assert_eq!(first.connect(&database).await.one(READ).await, "first 2");
    for round in 0..3 {
        one.run(&format!("UPDATE t SET v = 'second {round}'")).await;
        assert_eq!(two.one(READ).await, format!("second {round}"));
        stage.cached(&two, READ).await;
        assert_eq!(one.binary(READ).await[0][0].as_deref(), Some(format!("second {round}").as_bytes()));
    }
    let gone = format!(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = '{database}' AND application_name <> 'heliosproxy'"
    );
    first.connect("postgres").await.until("nobody is connected to the first any more", &gone).await;
}

#[tokio::test]
async fn after_a_failover_clients_go_on_with_the_new_primary_and_read_nothing_old() {
    let primary = fragile_server().await;
    let database = primary.database().await;
    primary.connect(&database).await.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let standby = tokio::task::spawn_blocking(|| Cluster::standby_of(primary)).await.expect("a standby");
    let standby: &'static Cluster = Box::leak(Box::new(standby));

    let hosts = format!("127.0.0.1:{},127.0.0.1:{}", standby.port, primary.port);
    let options = quick().key("upstream.target_session_attrs", "read-write").key("retry.max_attempts", 3);
    let stage = stage(standby, &database, &hosts, options).await;
    let reader = stage.client().await;
    assert_eq!(reader.one("SELECT pg_is_in_recovery()").await, "f", "not to the standby, though it comes first");
    reader.run("UPDATE t SET v = 2").await;
    stage.cached(&reader, READ).await;
    stage.direct().await.until("the standby has it", "SELECT v = 2 FROM t").await;

    // A write whose fate nobody can ask the old server about.
    let blocker = primary.connect(&database).await;
    blocker.run("BEGIN; SELECT * FROM t FOR UPDATE").await;
    let mut writer = stage.raw().await;
    writer.send_batch(Batch::new().query("UPDATE t SET v = 3")).await;
    primary.connect(&database).await.until_blocked("UPDATE%").await;
    primary.turn("stop", &["-m", "immediate"]).await;
    within("the writer's end", writer.until_closed()).await;
    standby.turn("promote", &[]).await;
    stage.direct().await.run("UPDATE t SET v = 10").await;

    let client = recovered(&stage).await;
    assert_eq!(client.one(READ).await, "10", "what the old primary had said is forgotten");
    client.run("UPDATE t SET v = v + 1").await;
    assert_eq!(stage.cached(&client, READ).await, [[Some("11".to_owned())]]);
    assert_eq!(stage.direct().await.one(READ).await, "11");
}

#[tokio::test]
async fn a_promotion_where_nobody_is_disconnected_empties_the_cache_too() {
    let primary = fragile_server().await;
    let database = primary.database().await;
    primary.connect(&database).await.run("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let standby = tokio::task::spawn_blocking(|| Cluster::standby_of(primary)).await.expect("a standby");
    let standby: &'static Cluster = Box::leak(Box::new(standby));
    let options = Options::default().key("catalog.refresh_secs", 1);
    let stage = stage(standby, &database, &format!("127.0.0.1:{}", standby.port), options).await;
    let client = stage.client().await;
    stage.cached(&client, READ).await;
    standby.turn("promote", &[]).await;
    wait_until("the promotion is noticed", async || stage.proxy.log_text().contains("the catalogue has changed")).await;
    stage.direct().await.run("UPDATE t SET v = 2").await;
    assert_eq!(client.one("SELECT pg_is_in_recovery()").await, "f");
    client.run("UPDATE t SET v = v + 1").await;
    assert_eq!(client.one(READ).await, "3");
}

#[tokio::test]
async fn where_no_host_fits_clients_are_told_so() {
    let database = cluster().database().await;
    let options =
        quick().dedicated().key("upstream.target_session_attrs", "standby").key("breaker.failure_threshold", 1000);
    let hosts = format!("127.0.0.1:{}", cluster().port);
    let options = options.upstream(format!("postgres://postgres@{hosts}/{database}"));
    let proxy = Proxy::spawn(cluster(), &database, &options);
    wait_until("it listens", async || tokio::net::TcpStream::connect(("127.0.0.1", proxy.port)).await.is_ok()).await;
    let mut raw = Raw::open(proxy.port).await;
    let packet = crate::harness::raw::startup(crate::harness::raw::PROTOCOL_3_0, &[("user", "postgres")]);
    raw.send(&packet).await;
    let frames = within("a refusal", raw.until_closed()).await;
    let error = frames.last().unwrap_or_else(|| panic!("closed without a word"));
    assert_eq!(error.field('C').as_deref(), Some("08001"));
    assert!(error.field('M').is_some_and(|text| text.contains("target_session_attrs")), "{error:?}");
    assert!(Client::try_connect(&direct(proxy.port)).await.is_err());
}

fn direct(port: u16) -> tokio_postgres::Config {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(port).user("postgres").dbname("postgres");
    config
}
