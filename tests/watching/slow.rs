//! The log of slow statements.

use crate::harness::{Options, Stage};

fn slow_statements(log: &str) -> Vec<serde_json::Value> {
    let lines = log.lines().filter(|line| line.contains("slow statement"));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn a_slow_statement_is_logged_without_its_values_and_a_fast_one_is_not() {
    let options = Options::default().key("log.slow_query_ms", 200).key("log.format", "json");
    let stage = Stage::setup_with(options, "CREATE TABLE t (k text)").await;
    let client = stage.client().await;
    client.run("SELECT 'fast secret' FROM t").await;
    client.run("SELECT 'first secret', pg_sleep(0.25)").await;
    client.one_batch("SELECT 'second secret', pg_sleep(0.25), 1").await;
    client.run("INSERT INTO t SELECT 'third secret' FROM pg_sleep(0.25)").await;
    client.run("SELECT pg_sleep(0.25); SELECT 'fourth secret'").await;
    let log = stage.proxy.log_text();
    let slow = slow_statements(&log);
    let said: Vec<[&str; 3]> =
        slow.iter().map(|line| ["query", "class", "cache"].map(|key| line[key].as_str().unwrap())).collect();
    assert_eq!(
        said,
        [
            ["select ? , pg_sleep ( ? )", "read", "miss"],
            // This driver describes the statement in the middle of the batch.
            ["select ? , pg_sleep ( ? ) , ?", "read", "shape"],
            ["insert into t select ? from pg_sleep ( ? )", "write", "not_read"],
            ["(several statements, or a text that is not looked into)", "read", "not_read"],
        ],
        "{log}"
    );
    for line in &slow {
        assert!(line["took_ms"].as_u64() >= Some(200), "{line}");
        assert_eq!((line["database"].as_str(), line["user"].as_str()), (Some(&*stage.database), Some("postgres")));
    }
    assert!(!log.contains("secret"), "{log}");
}

#[tokio::test]
async fn values_are_logged_if_that_is_wanted() {
    let options = Options::default().key("log.slow_query_ms", 200).key("log.format", "json");
    let stage = Stage::with(options.key("log.slow_query_parameters", "true")).await;
    let client = stage.client().await;
    client.run("SELECT 'first', pg_sleep(0.25)").await;
    // Message by message, and all at once.
    let statement = client.prepare("SELECT $1::text, pg_sleep($2::float8)").await.unwrap();
    client.query(&statement, &[&"it's", &0.25f64]).await.unwrap();
    client.one_batch("SELECT 'third', pg_sleep(0.25), 1").await;
    client.run("SELECT pg_sleep(0.25); SELECT 'fourth'").await;
    let log = stage.proxy.log_text();
    let slow = slow_statements(&log);
    let said: Vec<[Option<&str>; 2]> =
        slow.iter().map(|line| ["sent", "parameters"].map(|key| line[key].as_str())).collect();
    assert_eq!(
        said,
        [
            [Some("SELECT 'first', pg_sleep(0.25)"), None],
            // This driver sends text as it is in both formats, and a number as its eight bytes.
            [Some("SELECT $1::text, pg_sleep($2::float8)"), Some(r"$1 = '\x69742773', $2 = '\x3fd0000000000000'")],
            [Some("SELECT 'third', pg_sleep(0.25), 1"), None],
            [Some("SELECT pg_sleep(0.25); SELECT 'fourth'"), None],
        ],
        "{log}"
    );
}
