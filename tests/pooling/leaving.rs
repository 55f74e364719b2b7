//! Clients that vanish at any point leave nothing behind: no reply reaches anybody else, no connection is lost or stays dirty.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::stage;
use crate::harness::raw::{Batch, Raw};
use crate::harness::{Client, Stage};

/// Requests of all kinds. What they answer holds `secret`.
fn conversation(secret: u64) -> Vec<u8> {
    let copy = "COPY dump FROM STDIN";
    let bytes = Batch::new()
        .query(&format!("SELECT {secret}"))
        .query(&format!("BEGIN; SET LOCAL application_name = 'x'; SELECT {secret}"))
        .parse("s", &format!("SELECT {secret} FROM generate_series(1, 100)"))
        .describe_statement("s")
        .flush()
        .bind("p", "s", &[])
        .execute("p", 7)
        .sync()
        .execute("p", 0)
        .sync()
        .query("COMMIT")
        .query(&format!("SET application_name = 'secret {secret}'"))
        .query(copy)
        .message(b'd', format!("{secret}\n").as_bytes())
        .message(b'd', format!("{secret}\n").as_bytes())
        .message(b'c', b"")
        .parse("", copy)
        .bind("", "", &[])
        .execute("", 0)
        .message(b'd', format!("{secret}\n").as_bytes())
        .message(b'f', b"changed my mind\0")
        .sync()
        .parse("", &format!("SELECT {secret} / 0"))
        .bind("", "", &[])
        .execute("", 0)
        .bind("", "s", &[])
        .sync()
        .query(&format!("SELECT {secret}, pg_sleep(0.001)"));
    bytes.0.to_vec()
}

/// Sends the beginning of a conversation, reads some of the answers, and is gone.
async fn vanish(stage: &Stage, random: &mut StdRng) {
    let mut raw = stage.raw().await;
    let bytes = conversation(random.random_range(1_000_000_000..2_000_000_000));
    let end = random.random_range(0..=bytes.len());
    let middle = random.random_range(0..=end);
    raw.send(&bytes[..middle]).await;
    let wants_answers = random.random_bool(0.5) && middle > 100;
    if wants_answers {
        raw.until_ready().await;
    }
    raw.send(&bytes[middle..end]).await;
}

/// Asks for what only this client can know.
async fn check(raw: &mut Raw, number: u32, rounds: u32) {
    for round in 0..rounds {
        let own = format!("{number}-{round}");
        let frames = raw.query(&format!("SELECT '{own}', current_setting('application_name')")).await;
        let row = frames.iter().find(|frame| frame.tag == b'D').unwrap_or_else(|| panic!("{frames:?}"));
        let values: Vec<_> = row.values().into_iter().map(|value| String::from_utf8(value.unwrap()).unwrap()).collect();
        assert_eq!(values, [own.as_str(), ""], "{frames:?}");
        let batch = Batch::new().bind("", "mine", &[Some(own.as_bytes())]).execute("", 0).sync();
        let frames = raw.ask(batch).await;
        let row = frames.iter().find(|frame| frame.tag == b'D').unwrap_or_else(|| panic!("{frames:?}"));
        assert_eq!(row.text(), format!("{number}/{own}"), "{frames:?}");
    }
}

async fn survives(connections: usize, seed: u64) {
    let stage = stage(connections).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE dump (v bigint)").await;
    let mut checkers = Vec::new();
    for number in 0..4 {
        let mut raw = stage.raw().await;
        raw.ask(Batch::new().parse("mine", &format!("SELECT '{number}/' || $1::text")).sync()).await;
        checkers.push((number, raw));
    }
    let checking = futures_util::future::join_all(checkers.iter_mut().map(|(number, raw)| check(raw, *number, 60)));
    let vanishing = futures_util::future::join_all((0..6).map(|lane| {
        let stage = &stage;
        async move {
            let mut random = StdRng::seed_from_u64(seed * 100 + lane);
            for _ in 0..25 {
                vanish(stage, &mut random).await;
            }
        }
    }));
    futures_util::future::join(checking, vanishing).await;
    drop(checkers);
    let count = |what: &str| {
        format!(
            "SELECT count(*) {what} FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()
             AND application_name <> 'heliosproxy' AND backend_type = 'client backend'"
        )
    };
    direct.until("no more connections than allowed", &count(&format!("<= {connections}"))).await;
    let busy = count("= 0").replace("WHERE", "WHERE state <> 'idle' AND");
    direct.until("nothing runs, and no transaction is open", &busy).await;
    let fresh = stage.client().await;
    for _ in 0..connections * 3 {
        assert_eq!(fresh.one("SELECT current_setting('application_name') || count(*) FROM pg_cursors").await, "0");
    }
}

#[tokio::test]
async fn clients_that_vanish_harm_nobody_on_one_connection() {
    survives(1, 1).await;
}

#[tokio::test]
async fn clients_that_vanish_harm_nobody_on_two_connections() {
    survives(2, 2).await;
}

#[tokio::test]
async fn a_client_that_vanishes_while_it_waits_takes_nothing_with_it() {
    let stage = stage(1).await;
    let mut holder = stage.raw().await;
    holder.query("BEGIN").await;
    for _ in 0..10 {
        let mut raw = stage.raw().await;
        raw.send_batch(Batch::new().query("SELECT 'never'")).await;
    }
    let mut patient = stage.raw().await;
    patient.send_batch(Batch::new().query("SELECT 'patient'")).await;
    holder.query("COMMIT").await;
    assert_eq!(patient.until_ready().await[1].text(), "patient");
    assert_eq!(holder.query("SELECT 'holder'").await[1].text(), "holder");
}

#[tokio::test]
async fn a_database_whose_clients_have_left_can_be_dropped_renamed_and_copied() {
    let stage = stage(4).await;
    let admin = stage.client().await;
    let (made, other) = (format!("{}_made", stage.database), format!("{}_other", stage.database));
    for command in [
        format!("ALTER DATABASE {made} RENAME TO {other}"),
        format!("CREATE DATABASE {other} TEMPLATE {made}"),
        format!("DROP DATABASE {made}"),
    ] {
        admin.run(&format!("CREATE DATABASE {made}")).await;
        let (one, two) = (
            Client::connect(stage.proxy.port, "postgres", &made).await,
            Client::connect(stage.proxy.port, "postgres", &made).await,
        );
        assert_eq!(one.one("SELECT 1").await, "1");
        assert_eq!(two.one("SELECT current_database()").await, made);
        drop((one, two));
        admin.run(&command).await;
        for database in [&made, &other] {
            admin.run(&format!("DROP DATABASE IF EXISTS {database}")).await;
        }
    }
}
