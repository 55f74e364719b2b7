//! Whoever waits for a connection gets one in his turn, or is told that there is none.

use super::{sharing, stage};
use crate::harness::raw::{Batch, Raw};
use crate::harness::{Cluster, Stage, wait_until, within};

#[tokio::test]
async fn clients_are_served_in_the_order_in_which_they_came() {
    // One thread: which of two threads is quicker is nobody's order.
    let stage = Stage::with(sharing(1).key("server.worker_threads", 1)).await;
    stage.direct().await.run("CREATE TABLE served (id serial, who int)").await;
    let mut holder = stage.raw().await;
    let mut waiting = Vec::new();
    for _ in 0..8 {
        waiting.push(stage.raw().await);
    }
    holder.query("BEGIN").await;
    for (who, raw) in waiting.iter_mut().enumerate() {
        raw.send_batch(Batch::new().query(&format!("INSERT INTO served (who) VALUES ({who})"))).await;
        // Its turn is behind that of those before it once the proxy has answered this.
        holder.query("SELECT 1").await;
    }
    holder.query("COMMIT").await;
    for raw in &mut waiting {
        raw.until_ready().await;
    }
    let order = stage.direct().await.one("SELECT string_agg(who::text, '' ORDER BY id) FROM served").await;
    assert_eq!(order, "01234567");
}

#[tokio::test]
async fn a_wait_that_takes_too_long_ends_with_an_error() {
    let stage = Stage::with(sharing(1).key("pool.wait_timeout_secs", 1)).await;
    let (holder, late) = (stage.client().await, stage.client().await);
    holder.run("BEGIN").await;
    assert_eq!(late.fails("SELECT 1").await, "53300");
    holder.run("COMMIT").await;
    assert_eq!(stage.client().await.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn what_the_cache_answers_needs_no_connection() {
    let stage = stage(1).await;
    stage.direct().await.run("CREATE TABLE t AS SELECT 7 AS v").await;
    let (holder, reader) = (stage.client().await, stage.client().await);
    stage.cached(&reader, "SELECT v FROM t").await;
    holder.run("BEGIN").await;
    assert_eq!(reader.one("SELECT v FROM t").await, "7");
    assert_eq!(stage.client().await.one("SELECT v FROM t").await, "7");
    holder.run("COMMIT").await;
}

#[tokio::test]
async fn logging_in_needs_no_connection_either() {
    let stage = stage(1).await;
    let mut holder = stage.raw().await;
    holder.query("BEGIN").await;
    let mut others = Vec::new();
    for _ in 0..20 {
        others.push(stage.raw().await);
    }
    assert_eq!(others[0].parameter("TimeZone").as_deref(), Some("UTC"));
    let pids: std::collections::HashSet<i32> = others.iter().map(|raw: &Raw| raw.key().0).collect();
    assert_eq!(pids.len(), 20, "each has a key of its own");
    holder.query("COMMIT").await;
    for raw in &mut others {
        raw.query("SELECT 1").await;
    }
}

#[tokio::test]
async fn another_database_gets_its_share() {
    let stage = stage(2).await;
    let direct = stage.direct().await;
    direct.run("CREATE ROLE pool_waiting_user SUPERUSER LOGIN").await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("SELECT 1").await;
    two.run("BEGIN").await;
    one.run("BEGIN").await;
    one.run("COMMIT").await;
    two.run("COMMIT").await;
    // Both connections are the first user's, and idle.
    let other = stage.client_as("pool_waiting_user").await;
    assert_eq!(other.one("SELECT current_user").await, "pool_waiting_user");
    for _ in 0..5 {
        one.run("SELECT 1").await;
        two.run("SELECT 1").await;
        other.run("SELECT 1").await;
    }
}

/// Programs that differ in a start-up parameter do not share connections, but what their user may have.
#[tokio::test]
async fn the_connections_of_a_user_are_bounded_and_go_round_among_his_programs() {
    let stage = Stage::with(sharing(10).key("pool.max_connections_per_user", 1)).await;
    let direct = stage.direct().await;
    direct.run("CREATE ROLE pool_waiting_bounded SUPERUSER LOGIN").await;
    let program = async |name: &str| {
        let database = stage.database.as_str();
        let user = "pool_waiting_bounded";
        let parameters = [("user", user), ("database", database), ("application_name", name)];
        Raw::ready_with(stage.proxy.port, &parameters).await
    };
    let (mut one, mut two) = (program("one").await, program("two").await);
    let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pool_waiting_bounded'";
    for _ in 0..5 {
        for raw in [&mut one, &mut two] {
            raw.query("SELECT 1").await;
            assert!(direct.one(count).await.parse::<u32>().unwrap() <= 1);
        }
    }
    one.query("BEGIN").await;
    two.send_batch(Batch::new().query("SELECT 2")).await;
    // Others are not concerned.
    assert_eq!(stage.client().await.one("SELECT 3").await, "3");
    assert_eq!(one.query("SELECT 4").await[1].text(), "4");
    one.query("COMMIT").await;
    assert_eq!(two.until_ready().await[1].text(), "2");
}

#[tokio::test]
async fn a_client_too_many_of_a_user_with_connections_of_their_own_is_refused() {
    let options = crate::harness::Options::default().dedicated().key("pool.wait_timeout_secs", 1);
    let stage = Stage::with(options.key("pool.max_connections_per_user", 2)).await;
    stage.direct().await.run("CREATE ROLE pool_waiting_alone LOGIN").await;
    let clients = [stage.client().await, stage.client().await];
    match crate::harness::Client::try_connect(&stage.config()).await {
        Ok(_) => panic!("a third connection of one user"),
        Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("53300")),
    }
    stage.client_as("pool_waiting_alone").await.run("SELECT 1").await;
    for client in &clients {
        client.run("SELECT 1").await;
    }
}

#[tokio::test]
async fn what_others_hold_without_need_makes_room_for_another_database() {
    let stage = stage(1).await;
    stage.direct().await.run("CREATE ROLE pool_waiting_other SUPERUSER LOGIN").await;
    let holder = stage.client().await;
    // It may have left something; nobody has asked yet.
    holder.run("DO $$ BEGIN END $$").await;
    assert_eq!(stage.client_as("pool_waiting_other").await.one("SELECT current_user").await, "pool_waiting_other");
    assert_eq!(holder.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn connections_that_nobody_uses_are_closed_but_for_some() {
    let options = sharing(5).key("pool.idle_timeout_secs", 1).key("pool.min_size", 1);
    let stage = Stage::with(options).await;
    let direct = stage.direct().await;
    let clients = futures_util::future::join_all((0..4).map(|_| stage.client())).await;
    futures_util::future::join_all(clients.iter().map(|client| client.run("SELECT pg_sleep(0.05)"))).await;
    let count =
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
         AND application_name <> 'heliosproxy' AND backend_type = 'client backend'";
    direct.until("one is left", count).await;
    for client in &clients {
        client.run("SELECT 1").await;
    }
}

#[tokio::test]
async fn a_connection_that_is_old_is_replaced_between_two_transactions() {
    let stage = Stage::with(sharing(5).key("pool.max_lifetime_secs", 1)).await;
    let client = stage.client().await;
    let first = client.backend_pid().await;
    client.run("BEGIN").await;
    let direct = stage.direct().await;
    let old = "SELECT bool_or(backend_start < now() - interval '1.1 s') FROM pg_stat_activity WHERE pid =";
    direct.until("it is old", &format!("{old} {first}")).await;
    assert_eq!(client.backend_pid().await, first, "a transaction keeps it");
    client.run("COMMIT").await;
    assert_ne!(client.backend_pid().await, first);
    direct.until("it is closed", &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {first}")).await;
}

#[tokio::test]
async fn a_kind_of_connection_is_bounded_by_its_size() {
    let stage = Stage::with(sharing(10).key("pool.size", 1)).await;
    stage.direct().await.run("CREATE ROLE pool_waiting_sized LOGIN").await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    one.query("BEGIN").await;
    two.send_batch(Batch::new().query("SELECT 2")).await;
    stage.client_as("pool_waiting_sized").await.run("SELECT 1").await;
    let count = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'postgres'
        AND backend_type = 'client backend' AND application_name <> 'heliosproxy' AND pid <> pg_backend_pid()";
    assert_eq!(stage.direct().await.one(count).await, "1");
    one.query("COMMIT").await;
    assert_eq!(two.until_ready().await[1].text(), "2");
}

#[tokio::test]
async fn kept_connections_of_clients_that_have_left_are_closed_when_they_were_idle_for_long() {
    let options = sharing(10).key("pool.mode", "session").key("pool.max_idle", 5).key("pool.idle_timeout_secs", 1);
    let stage = Stage::with(options).await;
    let client = stage.client().await;
    let pid = client.backend_pid().await;
    drop(client);
    let direct = stage.direct().await;
    direct.until("it is closed", &format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid}")).await;
    stage.client().await.run("SELECT 1").await;
}

#[tokio::test]
async fn a_restart_of_the_server_is_not_noticed_by_idle_clients() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::start(false)));
    let stage = Stage::on(cluster, sharing(3)).await;
    stage.direct().await.run("CREATE TABLE t AS SELECT 1 AS v").await;
    // From here on the proxy knows that what they do leaves nothing in their connections.
    stage.cached(&stage.client().await, "SELECT v FROM t").await;
    let clients = futures_util::future::join_all((0..3).map(|_| stage.client())).await;
    for client in &clients {
        client.run("SELECT 1").await;
    }
    cluster.control("restart", &["-m", "fast"]);
    for client in &clients {
        assert_eq!(client.one("SELECT 1").await, "1");
    }
    drop(clients);
    wait_until("the gauges agree", async || {
        stage.proxy.metric("heliosdb_connections{side=\"upstream\",state=\"active\"}").await == 0.0
    })
    .await;
}

#[tokio::test]
async fn whoever_has_his_connection_still_is_told_that_somebody_has_ended_it() {
    let stage = stage(3).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t AS SELECT 1 AS v").await;
    let watcher = stage.client().await;
    // The proxy must know that it is not the server that ends.
    stage.cached(&watcher, "SELECT v FROM t").await;
    for _ in 0..3 {
        let mut raw = stage.raw().await;
        let pid = raw.query("SELECT pg_backend_pid()").await[1].text();
        assert_eq!(pid, raw.key().0.to_string(), "a newcomer's home is a connection that is free, or new");
        assert_eq!(direct.one(&format!("SELECT pg_terminate_backend({pid}, 10000)")).await, "t");
        raw.send_batch(Batch::new().query("SELECT 1")).await;
        let frames = within("the end", raw.until_closed()).await;
        assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
    }
    assert_eq!(watcher.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn a_newcomer_s_connection_never_had_temporary_objects() {
    let stage = stage(1).await;
    let has_one = "SELECT pg_my_temp_schema() <> 0";
    for ending in ["", "DROP TABLE t", "DISCARD ALL"] {
        let mut raw = stage.raw().await;
        assert_eq!(raw.query(has_one).await[1].text(), "f", "after {ending:?}");
        raw.query("CREATE TEMP TABLE t ()").await;
        raw.query(ending).await;
        raw.send(b"X\0\0\0\x04").await;
        assert_eq!(raw.until_closed().await, []);
    }
}
