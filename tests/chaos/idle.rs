//! Connections that nobody used for a while may be dead, which their users do not notice.

use super::scene::{fragile_server, quick};
use crate::harness::{Client, Options, Stage, within};

/// A backend that hangs until this is dropped.
struct Stopped(String);

impl Stopped {
    fn stop(pid: &str) -> Self {
        signal("-STOP", pid);
        Self(pid.to_owned())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(name: &str, pid: &str) {
    assert!(std::process::Command::new("kill").args([name, pid]).status().unwrap().success());
}

/// Every connection is checked that was put aside at all.
fn checking() -> Options {
    let options = quick().arg("--auth").arg("trust").key("upstream.connect_timeout_secs", 10);
    options.key("pool.check_after_idle_ms", 1).key("pool.check_timeout_ms", 200)
}

async fn pid(client: &Client) -> String {
    client.one("SELECT pg_backend_pid()").await
}

/// Goes on when a connection that is put aside now has been idle for a millisecond: the metrics take longer than that.
async fn a_while(stage: &Stage) {
    for _ in 0..3 {
        stage.proxy.hits().await;
    }
}

#[tokio::test]
async fn a_shared_connection_that_hangs_is_replaced_before_it_is_used() {
    let stage = Stage::with(checking().key("pool.mode", "auto")).await;
    let client = stage.client().await;
    let first = pid(&client).await;
    a_while(&stage).await;
    assert_eq!(pid(&client).await, first, "one that answers is used again");
    let stopped = Stopped::stop(&first);
    a_while(&stage).await;
    let second = within("the answer of another one", pid(&client)).await;
    assert_ne!(first, second);
    // The same for whoever comes new to it.
    let _stopped = Stopped::stop(&second);
    a_while(&stage).await;
    let other = stage.client().await;
    assert_ne!(within("the answer of another one", pid(&other)).await, second);
    drop(stopped);
}

#[tokio::test]
async fn a_dedicated_connection_that_hangs_is_not_given_to_a_new_client() {
    let stage = Stage::with(checking().dedicated().key("pool.max_idle", 4)).await;
    let direct = stage.direct().await;
    let client = stage.client().await;
    let first = pid(&client).await;
    drop(client);
    let cleaned =
        format!("SELECT query LIKE '%pg_my_temp_schema%' AND state = 'idle' FROM pg_stat_activity WHERE pid = {first}");
    direct.until("it is put aside", &cleaned).await;
    let _stopped = Stopped::stop(&first);
    a_while(&stage).await;
    let client = within("a connection that works", stage.client()).await;
    assert_ne!(pid(&client).await, first);
}

#[tokio::test]
async fn what_the_server_has_said_meanwhile_reaches_the_next_user() {
    let stage = Stage::on(fragile_server().await, checking().key("pool.mode", "auto")).await;
    let direct = stage.direct().await;
    let mut raw = stage.raw().await;
    raw.query("SELECT 1").await;
    direct.run("ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'").await;
    direct.run("SELECT pg_reload_conf()").await;
    direct.until("the setting is in force", "SELECT current_setting('TimeZone') = 'Asia/Tokyo'").await;
    let frames = raw.query("SELECT current_setting('TimeZone')").await;
    let told = frames.iter().any(|frame| frame.tag == b'S' && frame.body.starts_with(b"TimeZone\0Asia/Tokyo"));
    let value = frames.iter().find(|frame| frame.tag == b'D').map(|row| row.text());
    assert_eq!((value.as_deref(), told), (Some("Asia/Tokyo"), true), "{frames:?}");
}
