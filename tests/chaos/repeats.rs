//! Reads whose backend is lost are asked again, and nothing else is.

use super::scene::{fragile_server, nothing_leaks, quick};
use crate::harness::raw::{Batch, Frame, Raw, tags};
use crate::harness::{Client, Options, Stage, wait_until, within};

const GOOD: &str = r#"heliosdb_retry_attempts_total{operation="statement",success="true"}"#;
const VAIN: &str = r#"heliosdb_retry_attempts_total{operation="statement",success="false"}"#;
const TABLE: &str =
    "CREATE TABLE t AS SELECT g AS id, repeat('x', 1000) AS wide FROM generate_series(1, 50000) g; ANALYZE t";

fn shared() -> Options {
    quick()
        .arg("--auth")
        .arg("trust")
        .key("pool.mode", "auto")
        .key("pool.idle_timeout_secs", 1)
        .key("breaker.failure_threshold", 1000)
}

/// With a table that is read, and whose reads the proxy knows.
async fn scene(options: Options) -> (Stage, Client, Raw) {
    let stage = Stage::with(options.key("retry.max_attempts", 5).key("retry.initial_delay_ms", 1)).await;
    let direct = stage.direct().await;
    direct.run(TABLE).await;
    let mut raw = stage.raw().await;
    stage.until_hit("by text", async || raw.query("SELECT id FROM t WHERE id = 1").await).await;
    let mut other = stage.raw().await;
    other.ask(Batch::new().parse("s", "SELECT id FROM t WHERE id = $1").sync()).await;
    stage.until_hit("prepared", async || other.ask(again("1")).await).await;
    (stage, direct, raw)
}

fn again(id: &str) -> Batch {
    Batch::new().bind("", "s", &[Some(id.as_bytes())]).describe_portal("").execute("", 0).sync()
}

/// Locks the table, so that whoever wants it is under way until the test says.
async fn blocker(stage: &Stage) -> Client {
    let blocker = stage.direct().await;
    blocker.run("BEGIN; LOCK TABLE t").await;
    blocker
}

/// The backend that waits for the lock, once it is another one than `before`.
async fn victim(direct: &Client, before: &str) -> String {
    let waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()
        AND application_name <> 'heliosproxy'";
    let pid = std::cell::RefCell::new(String::new());
    wait_until("another backend waits", async || {
        let found = direct.text(waiting).await;
        let Some(Some(value)) = found.first().and_then(|row| row.first()) else { return false };
        pid.replace(value.clone());
        *pid.borrow() != before
    })
    .await;
    pid.into_inner()
}

async fn terminate(direct: &Client, pid: &str) {
    assert_eq!(direct.one(&format!("SELECT pg_terminate_backend({pid})")).await, "t");
}

fn row(frames: &[Frame]) -> String {
    frames.iter().find(|frame| frame.tag == b'D').unwrap_or_else(|| panic!("no row: {frames:?}")).text()
}

#[tokio::test]
async fn a_read_whose_backend_is_terminated_is_answered_by_another() {
    let (stage, direct, mut raw) = scene(shared()).await;
    let mut prepared = stage.raw().await;
    prepared.ask(Batch::new().parse("s", "SELECT id FROM t WHERE id = $1").sync()).await;
    let blocker = blocker(&stage).await;
    raw.send_batch(Batch::new().query("SELECT id FROM t WHERE id = 7")).await;
    let first = victim(&direct, "").await;
    terminate(&direct, &first).await;
    let second = victim(&direct, &first).await;
    terminate(&direct, &second).await;
    victim(&direct, &second).await;
    blocker.run("COMMIT").await;
    let frames = raw.until_ready().await;
    assert_eq!((tags(&frames).as_str(), row(&frames).as_str()), ("TDCZ", "7"));
    assert_eq!((stage.proxy.metric(GOOD).await, stage.proxy.metric(VAIN).await), (1.0, 1.0));

    blocker.run("BEGIN; LOCK TABLE t").await;
    prepared.send_batch(again("8")).await;
    let first = victim(&direct, "").await;
    terminate(&direct, &first).await;
    victim(&direct, &first).await;
    blocker.run("COMMIT").await;
    let frames = prepared.until_ready().await;
    assert_eq!((tags(&frames).as_str(), row(&frames).as_str()), ("2TDCZ", "8"));
    assert_eq!(row(&prepared.ask(again("9")).await), "9", "the session goes on");
    assert_eq!((stage.proxy.metric(GOOD).await, stage.proxy.metric(VAIN).await), (2.0, 1.0));

    // A whole batch, with a statement that is new to the connection.
    blocker.run("BEGIN; LOCK TABLE t").await;
    let batch = Batch::new().parse("", "SELECT id FROM t WHERE id = $1").bind("", "", &[Some(b"10")]);
    raw.send_batch(batch.describe_portal("").execute("", 0).sync()).await;
    let first = victim(&direct, "").await;
    terminate(&direct, &first).await;
    blocker.run("COMMIT").await;
    let frames = raw.until_ready().await;
    assert!(matches!(tags(&frames).as_str(), "12TDCZ"), "{frames:?}");
    drop((raw, prepared, blocker, direct));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn a_read_outlives_a_crash_of_the_server() {
    let options =
        shared().key("retry.max_attempts", 100).key("retry.initial_delay_ms", 20).key("retry.max_delay_ms", 100);
    let stage = Stage::on(fragile_server().await, options).await;
    stage.direct().await.run(TABLE).await;
    let mut raw = stage.raw().await;
    stage.until_hit("known", async || raw.query("SELECT id FROM t WHERE id = 1").await).await;
    let blocker = blocker(&stage).await;
    raw.send_batch(Batch::new().query("SELECT id FROM t WHERE id = 7")).await;
    let pid = victim(&stage.direct().await, "").await;
    // The server ends all others, the one that holds the lock too, and recovers.
    std::process::Command::new("kill").args(["-9", &pid]).status().unwrap();
    let frames = raw.until_ready().await;
    assert_eq!((tags(&frames).as_str(), row(&frames).as_str()), ("TDCZ", "7"));
    drop((blocker, raw));
    nothing_leaks(&stage).await;
}

#[tokio::test]
async fn nothing_else_is_asked_again() {
    let (stage, direct, _) = scene(shared()).await;
    direct.run("CREATE SEQUENCE s").await;
    let blocker = blocker(&stage).await;
    for (before, statement) in [
        ("", "UPDATE t SET wide = '' WHERE id = 1"),
        ("", "SELECT nextval('s') FROM t WHERE id = 1"),
        ("", "SELECT id FROM t WHERE random() < 2 AND id = 1"),
        ("", "SELECT id FROM t WHERE id = 1 FOR UPDATE"),
        ("", "SELECT 1; SELECT id FROM t WHERE id = 1"),
        ("BEGIN", "SELECT id FROM t WHERE id = 1234"),
        ("LISTEN somewhere", "SELECT id FROM t WHERE id = 1235"),
    ] {
        let mut raw = stage.raw().await;
        if !before.is_empty() {
            raw.query(before).await;
        }
        raw.send_batch(Batch::new().query(statement)).await;
        let pid = victim(&direct, "").await;
        terminate(&direct, &pid).await;
        let frames = within("the end", raw.until_closed()).await;
        let code = frames.last().and_then(|frame| frame.field('C'));
        assert_eq!(code.as_deref(), Some("57P01"), "{statement}: {frames:?}");
    }
    // Two reads in one pipeline.
    let mut raw = stage.raw().await;
    raw.send_batch(Batch::new().query("SELECT id FROM t WHERE id = 21").query("SELECT id FROM t WHERE id = 22")).await;
    let pid = victim(&direct, "").await;
    terminate(&direct, &pid).await;
    within("the end", raw.until_closed()).await;
    blocker.run("COMMIT").await;
    assert_eq!(direct.one("SELECT count(*) FROM t WHERE wide = ''").await, "0");
    assert_eq!((stage.proxy.metric(GOOD).await, stage.proxy.metric(VAIN).await), (0.0, 0.0));
}

#[tokio::test]
async fn an_answer_that_has_begun_is_not_begun_again() {
    let (stage, direct, mut raw) = scene(shared()).await;
    stage.until_hit("known", async || raw.query("SELECT * FROM t WHERE id > 49999").await).await;
    // It is not read, so that the backend waits for the client.
    raw.send_batch(Batch::new().query("SELECT * FROM t WHERE id > 0")).await;
    let writing = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'ClientWrite' AND datname = current_database()";
    wait_until("it is in the middle of its answer", async || !direct.text(writing).await.is_empty()).await;
    let pid = direct.one(writing).await;
    terminate(&direct, &pid).await;
    let frames = within("the end", raw.until_closed()).await;
    assert!(frames.iter().any(|frame| frame.tag == b'D') && !frames.iter().any(|frame| frame.tag == b'C'));
    assert_eq!((stage.proxy.metric(GOOD).await, stage.proxy.metric(VAIN).await), (0.0, 0.0));
}

#[tokio::test]
async fn where_it_is_not_wanted_or_a_connection_is_the_clients_own_nothing_is_asked_again() {
    for options in [shared().key("pool.retry_reads", false), shared().key("pool.mode", "session")] {
        let (stage, direct, mut raw) = scene(options).await;
        let blocker = blocker(&stage).await;
        raw.send_batch(Batch::new().query("SELECT id FROM t WHERE id = 7")).await;
        let pid = victim(&direct, "").await;
        terminate(&direct, &pid).await;
        let frames = within("the end", raw.until_closed()).await;
        assert_eq!(frames.last().and_then(|frame| frame.field('C')).as_deref(), Some("57P01"), "{frames:?}");
        drop(blocker);
    }
}
