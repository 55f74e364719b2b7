//! The admin database as psql, drivers and scripts use it.

use crate::harness::raw::{Batch, Raw};
use crate::harness::tool::psql;
use crate::harness::{Client, Options, Stage, wait_until};

fn options() -> Options {
    Options::default().arg("--auth").arg("trust").key("admin.users", "admin")
}

async fn admin(stage: &Stage) -> Client {
    Client::connect(stage.proxy.port, "admin", "helios").await
}

#[tokio::test]
async fn psql_shows_tables_expanded_and_tab_separated() {
    let stage = Stage::with(options()).await;
    let connection = format!("host=127.0.0.1 port={} user=admin dbname=helios", stage.proxy.port);
    let version = psql(&connection, &["SHOW VERSION"], &[]).await.ok();
    assert!(version.starts_with(concat!("HeliosProxy ", env!("CARGO_PKG_VERSION"), "|")), "{version}");
    let both = psql(&connection, &["show version; show breakers"], &[]).await.ok();
    assert!(both.contains("upstream|closed|0|0|0"), "{both}");
    let expanded = psql(&connection, &["\\x", "SHOW BREAKERS"], &[]).await.ok();
    assert!(expanded.contains("service|upstream\nstate|closed"), "{expanded}");
    let tabs = psql(&connection, &["\\pset fieldsep '\\t'", "SHOW BREAKERS"], &[]).await.ok();
    assert_eq!(tabs, "upstream\tclosed\t0\t0\t0\n");
    let help = psql(&connection, &["SHOW HELP"], &[]).await.ok();
    for command in ["SHOW CLIENTS|", "FLUSH CACHE [TABLE name | STATEMENT id]|", "SET key = value|"] {
        assert!(help.contains(command), "{command} in {help}");
    }
    let said = psql(&connection, &["SELECT * FROM pg_class"], &[]).await;
    assert!(!said.success && said.stderr.contains("SHOW HELP lists its commands"), "{said:?}");
}

#[tokio::test]
async fn every_table_that_help_lists_is_answered_in_both_protocols_with_the_same_columns() {
    let stage = Stage::with(options()).await;
    let client = admin(&stage).await;
    let mut raw = Raw::ready(stage.proxy.port, "admin", "helios").await;
    let mut seen = 0;
    for row in client.text("SHOW HELP").await {
        // Without what may follow.
        let command = row[0].as_deref().unwrap().split(" [").next().unwrap().to_owned();
        if !command.starts_with("SHOW") || command.contains('\'') {
            continue;
        }
        seen += 1;
        let simple = raw.query(&command).await;
        let batch = raw.ask(Batch::one_batch(&command)).await;
        let description = |frames: &[crate::harness::raw::Frame]| {
            frames.iter().find(|frame| frame.tag == b'T').unwrap_or_else(|| panic!("{command}: {frames:?}")).clone()
        };
        assert_eq!(description(&simple), description(&batch), "{command}");
        // A driver that asks for binary values of the types that it was told.
        let statement = client.prepare(&command).await.unwrap();
        for row in client.query(&statement, &[]).await.unwrap() {
            for (place, column) in row.columns().iter().enumerate() {
                let decodes = match column.type_().name() {
                    "text" => row.try_get::<_, Option<String>>(place).is_ok(),
                    "int8" => row.try_get::<_, Option<i64>>(place).is_ok(),
                    "float8" => row.try_get::<_, Option<f64>>(place).is_ok(),
                    "bool" => row.try_get::<_, Option<bool>>(place).is_ok(),
                    other => panic!("{command}: {} has the type {other}", column.name()),
                };
                assert!(decodes, "{command}: {}", column.name());
            }
        }
    }
    assert!(seen >= 9, "only {seen} tables");
}

#[tokio::test]
async fn what_drivers_say_before_and_around_a_query_breaks_nothing() {
    let stage = Stage::with(options()).await;
    let client = admin(&stage).await;
    for text in [
        "SET client_encoding TO 'UTF8'",
        "SET extra_float_digits = 3",
        "SET application_name = 'x'",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "BEGIN",
        "SHOW STATS",
        "COMMIT",
        "DISCARD ALL",
        "",
        ";",
    ] {
        client.run(text).await;
    }
    assert_eq!(client.one("SHOW standard_conforming_strings").await, "on");
    assert_eq!(client.one("SHOW TRANSACTION ISOLATION LEVEL").await, "read committed");
    assert_eq!(client.one("SELECT 1").await, "1");
    assert_eq!(client.fails("SHOW NOTHING_OF_THE_KIND").await, "42601");
}

#[tokio::test]
async fn an_error_in_a_transaction_block_lets_nothing_in_but_its_end() {
    let stage = Stage::with(options()).await;
    let mut raw = Raw::ready(stage.proxy.port, "admin", "helios").await;
    let mut status = async |text: &str| {
        let frames = raw.query(text).await;
        let error = frames.iter().find(|frame| frame.tag == b'E').and_then(|frame| frame.field('C'));
        (frames.last().unwrap().body[0], error)
    };
    assert_eq!(status("BEGIN").await, (b'T', None));
    assert_eq!(status("SELECT nonsense").await, (b'E', Some("42601".into())));
    assert_eq!(status("SHOW POOLS").await, (b'E', Some("25P02".into())));
    assert_eq!(status("ROLLBACK").await, (b'I', None));
    assert_eq!(status("SHOW POOLS").await, (b'I', None));
}

#[tokio::test]
async fn an_error_in_a_batch_skips_to_its_sync_and_rows_come_in_parts_if_asked() {
    let stage = Stage::with(options()).await;
    let mut raw = Raw::ready(stage.proxy.port, "admin", "helios").await;
    let tags = |frames: Vec<crate::harness::raw::Frame>| -> String {
        frames.iter().map(|frame| char::from(frame.tag)).collect()
    };
    let failed = Batch::new().parse("", "nonsense").bind("", "", &[]).execute("", 0).sync();
    assert_eq!(tags(raw.ask(failed).await), "EZ");
    assert_eq!(tags(raw.ask(Batch::new().bind("", "nobody", &[]).sync()).await), "EZ");
    let with_value = Batch::new().parse("", "SHOW CONFIG").bind("", "", &[Some(b"1")]).execute("", 0).sync();
    assert_eq!(tags(raw.ask(with_value).await), "1EZ");
    let parts = Batch::new().parse("s", "SHOW CONFIG").bind("p", "s", &[]).execute("p", 2).execute("p", 1).sync();
    assert_eq!(tags(raw.ask(parts).await), "12DDsDsZ");
    assert_eq!(tags(raw.ask(Batch::new().execute("p", 0).sync()).await), "EZ", "the portal ended with its transaction");
    assert_eq!(tags(raw.ask(Batch::new().parse("", "").bind("", "", &[]).execute("", 0).sync()).await), "12IZ");
    let described = Batch::new().describe_statement("s").close_statement("s").sync();
    assert_eq!(tags(raw.ask(described).await), "tT3Z");
    assert_eq!(tags(raw.ask(Batch::new().describe_statement("s").sync()).await), "EZ");
}

#[tokio::test]
async fn a_message_that_is_too_long_or_none_at_all_ends_only_that_visitor() {
    let stage = Stage::with(options()).await;
    for bytes in [&b"Q\x10\0\0\0"[..], b"Q\0\0\0\x01", b"@\0\0\0\x04"] {
        let mut raw = Raw::ready(stage.proxy.port, "admin", "helios").await;
        raw.send(bytes).await;
        let frames = raw.until_closed().await;
        assert_eq!(frames.last().map(|frame| frame.tag), Some(b'E'), "{bytes:?}: {frames:?}");
    }
    assert_eq!(admin(&stage).await.one("SELECT 1").await, "1");
}

#[tokio::test]
async fn clients_are_shown_with_what_they_do() {
    let stage = Stage::with(options()).await;
    let watcher = admin(&stage).await;
    let client = stage.client().await;
    let blocker = stage.client().await;
    client.run("CREATE TABLE t (v int)").await;
    let state = async |client: &Client, pid: i32| {
        let rows = client.text("SHOW CLIENTS").await;
        let row = rows.into_iter().find(|row| row[10].as_deref() == Some(&pid.to_string()));
        row.map(|row| row[4].clone().unwrap())
    };
    let pid = client.backend_pid().await;
    wait_until("idle", async || state(&watcher, pid).await.as_deref() == Some("idle")).await;
    client.run("BEGIN").await;
    wait_until("in a transaction", async || state(&watcher, pid).await.as_deref() == Some("idle in transaction")).await;
    blocker.run("BEGIN; LOCK TABLE t").await;
    let waiting = tokio::spawn(async move {
        client.run("INSERT INTO t VALUES (1)").await;
        client
    });
    wait_until("active", async || state(&watcher, pid).await.as_deref() == Some("active")).await;
    blocker.run("COMMIT").await;
    let client = waiting.await.unwrap();
    let pools = watcher.text("SHOW POOLS").await;
    assert_eq!(pools.len(), 1, "the admin database is no pool: {pools:?}");
    assert_eq!(pools[0][..3], [Some(stage.database.clone()), Some("postgres".into()), Some("2".into())]);
    assert_eq!(watcher.text("SHOW SERVERS").await.len(), 2);
    drop(client);
    wait_until("gone", async || state(&watcher, pid).await.is_none()).await;
}
