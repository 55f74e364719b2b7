//! What was split and what was not can be seen.

use super::stage::{NUMBERS, ended, options, stage, why};
use crate::harness::{Client, http};

#[tokio::test]
async fn the_admin_database_and_the_stats_tell_what_was_split_and_why_the_rest_was_not() {
    let stage = stage(options().key("admin.stats_users", "watcher"), NUMBERS).await;
    let watcher = Client::connect(stage.proxy.port, "watcher", "helios").await;
    let mut raw = stage.raw().await;
    raw.query("/* helios: nocache */ SELECT n FROM numbers").await;
    assert_eq!(ended(&stage, "complete").await, 1, "{}", why(&stage).await);
    raw.query("/* helios: noparallel */ SELECT n FROM numbers").await;

    let (_, stats) = http::get(stage.proxy.http, "/stats").await.unwrap();
    let stats: serde_json::Value = serde_json::from_str(&stats).unwrap();
    let table = watcher.text("SHOW PARALLEL").await;
    let row: Vec<&str> = table[0].iter().map(|value| value.as_deref().unwrap_or("NULL")).collect();
    assert_eq!(row[0], "t", "{row:?}");
    for (place, column) in [(1, "complete"), (2, "failed"), (3, "cancelled"), (4, "not_split"), (9, "max_connections")]
    {
        assert_eq!(stats["parallel"][column].as_u64(), row[place].parse().ok(), "{column}: {row:?}");
    }
    assert!(row[1].parse::<u64>().unwrap() >= 1 && row[2] == "0", "{row:?}");
    assert!(row[5].parse::<f64>().unwrap() > 0.0, "the median: {row:?}");
    let [working, idle, most] = [7, 8, 9].map(|place| row[place].parse::<usize>().unwrap());
    assert!(working + idle <= most && most == 16, "{row:?}");

    let skipped = watcher.text("SHOW PARALLEL SKIPPED").await;
    let hint = skipped.iter().find(|row| row[0].as_deref() == Some("hint")).unwrap_or_else(|| panic!("{skipped:?}"));
    assert_eq!(hint[1].as_deref(), Some("1"));
    let sum: u64 = skipped.iter().map(|row| row[1].as_ref().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum.to_string(), row[4]);
    assert!(stats["latency"]["parallel"].as_array().unwrap().iter().any(|pair| pair[1].as_u64() > Some(0)));
}

#[tokio::test]
async fn a_slow_split_read_is_in_the_log_of_slow_statements() {
    let options =
        options().key("log.slow_query_ms", 1).key("log.format", "json").key("log.slow_query_parameters", "true");
    let stage = stage(options, NUMBERS).await;
    let mut raw = stage.raw().await;
    raw.query("SELECT n, 'secret' FROM numbers WHERE n > 7").await;
    assert_eq!(ended(&stage, "complete").await, 1, "{}", why(&stage).await);
    let log = stage.proxy.log_text();
    let slow: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.contains("slow statement") && line.contains("from numbers"))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [line] = slow.as_slice() else { panic!("{log}") };
    let said = ["query", "class", "path", "cache", "sent"].map(|key| line[key].as_str().unwrap());
    let sent = "SELECT n, 'secret' FROM numbers WHERE n > 7";
    assert_eq!(said, ["select n , ? from numbers where n > ?", "read", "parallel", "miss", sent]);
    assert_eq!(line["failed"], false);
}
