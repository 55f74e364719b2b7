//! Prometheus can read the metrics, and finds nothing wrong with them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::{Stage, http};

/// Where scripts/test.sh has unpacked it, or what is on the PATH.
pub fn promtool_program() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/promtool");
    if unpacked.exists() { unpacked } else { "promtool".into() }
}

/// `promtool check metrics` on a text; what it complains of.
fn promtool(exposition: &str) -> Result<(), String> {
    let mut child = Command::new(promtool_program())
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is needed: scripts/test.sh installs it");
    child.stdin.take().unwrap().write_all(exposition.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[tokio::test]
async fn promtool_finds_nothing_wrong() {
    let stage = Stage::setup("CREATE TABLE t (v int); INSERT INTO t VALUES (1)").await;
    let client = stage.client().await;
    stage.cached(&client, "SELECT v FROM t").await;
    client.run("UPDATE t SET v = 2").await;
    let (status, text) = http::get(stage.proxy.http, "/metrics").await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(promtool(&text), Ok(()), "{text}");
    assert!(promtool("a_total 1\na_total 2\n").is_err(), "promtool would complain");
    for name in ["heliosdb_build_info", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(stage.proxy.metric(name).await > 0.0, "{name}");
    }
    assert_eq!(stage.proxy.metric("heliosdb_circuit_breaker_state{state=\"closed\"}").await, 1.0);
}
