//! State that cannot be carried over keeps its session on its connection, and only as long as it is there.

use super::{sharing, stage};
use crate::harness::{Client, Stage, wait_until};

/// Others run, and want more connections than there are.
async fn others_run(stage: &Stage) {
    let (one, two) = (stage.client().await, stage.client().await);
    for _ in 0..3 {
        one.run("BEGIN").await;
        let transaction = async {
            for _ in 0..3 {
                one.run("SELECT 1").await;
            }
            one.run("COMMIT").await;
        };
        futures_util::future::join(two.run("SELECT 2"), transaction).await;
    }
}

/// Others want the connection until it is known why they do not get it.
async fn is_pinned(stage: &Stage, reason: &str) {
    wait_until(reason, async || {
        others_run(stage).await;
        pinned(stage, reason).await > 0.0
    })
    .await;
}

async fn pinned(stage: &Stage, reason: &str) -> f64 {
    stage.proxy.metric(&format!("heliosdb_pins_total{{reason=\"{reason}\"}}")).await
}

#[tokio::test]
async fn a_listener_keeps_its_connection_until_it_stops_listening() {
    let stage = stage(2).await;
    let listener = stage.client().await;
    listener.run("LISTEN news").await;
    others_run(&stage).await;
    stage.direct().await.run("NOTIFY news, 'hello'").await;
    wait_until("the notification", async || listener.notifications().len() == 1).await;
    is_pinned(&stage, "listen").await;
    listener.run("UNLISTEN *").await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("BEGIN").await;
    two.run("SELECT 1").await;
    two.run("BEGIN").await;
    one.run("COMMIT").await;
    listener.run("SELECT 1").await;
}

#[tokio::test]
async fn temporary_tables_are_there_until_they_are_dropped() {
    let stage = stage(2).await;
    let client = stage.client().await;
    client.run("CREATE TEMP TABLE mine AS SELECT 7 AS v").await;
    others_run(&stage).await;
    assert_eq!(client.one("SELECT v FROM mine").await, "7");
    is_pinned(&stage, "temporary").await;
    assert_eq!(client.one("SELECT v FROM mine").await, "7");
    assert_eq!(stage.client().await.fails("SELECT v FROM mine").await, "42P01");
    client.run("DROP TABLE mine").await;
    others_run(&stage).await;
    assert_eq!(client.fails("SELECT v FROM mine").await, "42P01");
}

#[tokio::test]
async fn with_one_connection_state_keeps_others_out_and_its_end_lets_them_in() {
    for (make, check, drop) in [
        ("CREATE TEMP TABLE mine AS SELECT 7 AS v", "SELECT v FROM mine", "DROP TABLE mine"),
        ("SELECT pg_advisory_lock(7)", "SELECT 7", "SELECT pg_advisory_unlock_all()"),
        ("PREPARE mine AS SELECT 7", "EXECUTE mine", "DEALLOCATE mine"),
        ("DECLARE mine CURSOR WITH HOLD FOR SELECT 7 FROM generate_series(1, 5)", "FETCH 1 FROM mine", "CLOSE ALL"),
        ("LISTEN mine", "SELECT 7", "UNLISTEN *"),
        ("CREATE TEMP TABLE mine AS SELECT 7 AS v", "SELECT v FROM mine", "DISCARD ALL"),
        ("CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql RETURN 7", "SELECT pg_temp.mine()", "DISCARD ALL"),
    ] {
        let stage = Stage::with(sharing(1).key("pool.wait_timeout_secs", 1)).await;
        let (one, two) = (stage.client().await, stage.client().await);
        two.run("SELECT 1").await;
        one.run(make).await;
        assert_eq!(two.fails("SELECT 2").await, "53300", "{make}");
        assert_eq!(one.one(check).await, "7");
        one.run(drop).await;
        let three = stage.client().await;
        assert_eq!(three.one("SELECT 3").await, "3", "{drop}");
        assert_eq!(one.one("SELECT 1").await, "1");
    }
}

#[tokio::test]
async fn an_advisory_lock_is_its_session_s() {
    let stage = stage(2).await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("SELECT pg_advisory_lock(7)").await;
    others_run(&stage).await;
    assert_eq!(two.one("SELECT pg_try_advisory_lock(7)").await, "f");
    assert_eq!(one.one("SELECT pg_advisory_unlock(7)").await, "t");
    assert_eq!(two.one("SELECT pg_try_advisory_lock(7)").await, "t");
    is_pinned(&stage, "advisory_lock").await;
}

#[tokio::test]
async fn a_cursor_with_hold_goes_on_where_it_was() {
    let stage = stage(2).await;
    let client = stage.client().await;
    client.run("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT generate_series(1, 10); FETCH 3 FROM c; COMMIT").await;
    others_run(&stage).await;
    assert_eq!(client.one("FETCH 1 FROM c").await, "4");
    client.run("CLOSE c").await;
    others_run(&stage).await;
    assert_eq!(client.fails("FETCH 1 FROM c").await, "34000");
}

#[tokio::test]
async fn what_a_session_has_drawn_is_never_anothers() {
    let stage = stage(1).await;
    stage.direct().await.run("CREATE TABLE t (id serial, v text)").await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("INSERT INTO t (v) VALUES ('one')").await;
    assert_eq!(two.fails("SELECT lastval()").await, "55000");
    drop(two);
    let three = stage.client().await;
    three.run("INSERT INTO t (v) VALUES ('three')").await;
    assert_eq!(three.one("SELECT lastval()").await, "2");
}

#[tokio::test]
async fn whoever_asks_what_was_drawn_is_answered_from_then_on() {
    let stage = stage(3).await;
    stage.direct().await.run("CREATE TABLE t (id serial, v text)").await;
    stage.client().await.fails("SELECT lastval()").await;
    let (one, two) = (stage.client().await, stage.client().await);
    one.run("INSERT INTO t (v) VALUES ('one')").await;
    two.run("INSERT INTO t (v) VALUES ('two')").await;
    others_run(&stage).await;
    assert_eq!(one.one("SELECT currval('t_id_seq')").await, "1");
    assert_eq!(two.one("SELECT lastval()").await, "2");
    assert!(pinned(&stage, "sequence").await > 0.0);
}

#[tokio::test]
async fn a_seeded_random_is_reproducible() {
    let stage = stage(2).await;
    let client = stage.client().await;
    let draw = async |client: &Client| {
        let mut drawn = Vec::new();
        for _ in 0..3 {
            drawn.push(client.one("SELECT random()").await);
            others_run(&stage).await;
        }
        drawn
    };
    client.run("SELECT setseed(0.5)").await;
    let first = draw(&client).await;
    client.run("SELECT setseed(0.5)").await;
    assert_eq!(draw(&client).await, first);
}

#[tokio::test]
async fn settings_of_unknown_names_keep_the_connection() {
    let stage = stage(2).await;
    let client = stage.client().await;
    client.run("DO $$ BEGIN PERFORM set_config('my.own', 'kept', false); END $$").await;
    others_run(&stage).await;
    assert_eq!(client.one("SELECT current_setting('my.own')").await, "kept");
    client.run("DISCARD ALL").await;
    others_run(&stage).await;
}

#[tokio::test]
async fn plain_statements_pin_nothing() {
    let stage = stage(1).await;
    stage.direct().await.run("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1)").await;
    let clients = [stage.client().await, stage.client().await, stage.client().await];
    for round in 0..10 {
        for client in &clients {
            client.run("BEGIN").await;
            client.run(&format!("UPDATE t SET v = {round} WHERE id = 1")).await;
            client.run("SELECT v FROM t WHERE id = 1").await;
            client.run("COMMIT").await;
            client.binary("SELECT count(*) FROM t").await;
        }
    }
    let all = stage.proxy.metric("heliosdb_pins_total").await;
    assert_eq!(all, 0.0);
}
