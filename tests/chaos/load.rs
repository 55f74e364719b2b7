//! Clients that count what was acknowledged.
//!
//! Each has a row of its own, which it increments. After an error it cannot know whether the increment that was under way has
//! happened, so its row may be that much ahead of what was acknowledged, and never behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use tokio::task::JoinSet;

use crate::harness::{Client, Stage, wait_until};

pub const TABLE: &str = "CREATE TABLE counters (id int PRIMARY KEY, n bigint NOT NULL); INSERT INTO counters SELECT g, 0 FROM generate_series(0, 31) g";

#[derive(Debug, Default)]
pub struct Tally {
    pub acknowledged: AtomicI64,
    /// Increments that may or may not have happened.
    pub unknown: AtomicI64,
}

/// Clients at work.
pub struct Load {
    stop: Arc<AtomicBool>,
    tallies: Vec<Arc<Tally>>,
    clients: JoinSet<()>,
}

impl Load {
    pub fn start(stage: &Stage, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let tallies: Vec<Arc<Tally>> = (0..clients).map(|_| Arc::default()).collect();
        let mut running = JoinSet::new();
        for (id, tally) in tallies.iter().enumerate() {
            running.spawn(work(stage.config(), id, tally.clone(), stop.clone()));
        }
        Self { stop, tallies, clients: running }
    }

    /// Waits until each client has had so many more increments acknowledged.
    pub async fn progress(&self, more: i64) {
        let aims: Vec<i64> =
            self.tallies.iter().map(|tally| tally.acknowledged.load(Ordering::SeqCst) + more).collect();
        wait_until("every client gets on", async || {
            self.tallies.iter().zip(&aims).all(|(tally, aim)| tally.acknowledged.load(Ordering::SeqCst) >= *aim)
        })
        .await;
    }

    /// Ends all clients and holds the table to what they were told.
    pub async fn settle(mut self, direct: &Client) {
        self.stop.store(true, Ordering::SeqCst);
        while let Some(client) = crate::harness::within("a client ends", self.clients.join_next()).await {
            client.expect("a client that saw nothing wrong");
        }
        for (id, tally) in self.tallies.iter().enumerate() {
            let n: i64 = direct.one(&format!("SELECT n FROM counters WHERE id = {id}")).await.parse().unwrap();
            let (acknowledged, unknown) =
                (tally.acknowledged.load(Ordering::SeqCst), tally.unknown.load(Ordering::SeqCst));
            assert!(
                (acknowledged..=acknowledged + unknown).contains(&n),
                "client {id} was told of {acknowledged} increments, {unknown} more are possible, the row says {n}"
            );
        }
    }
}

/// One client's life: connects, increments and reads until told to stop, and connects again after every error.
async fn work(config: tokio_postgres::Config, id: usize, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::SeqCst) {
        let Ok(client) = Client::try_connect(&config).await else {
            // As people's programs do, so that the server has some of the machine for its return.
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            continue;
        };
        while !stop.load(Ordering::SeqCst) && step(&client, id, &tally).await.is_ok() {}
    }
}

async fn step(client: &Client, id: usize, tally: &Tally) -> Result<(), tokio_postgres::Error> {
    let update = format!("UPDATE counters SET n = n + 1 WHERE id = {id}");
    tally.unknown.fetch_add(1, Ordering::SeqCst);
    crate::harness::within("an increment or an error", client.batch_execute(&update)).await?;
    tally.acknowledged.fetch_add(1, Ordering::SeqCst);
    tally.unknown.fetch_sub(1, Ordering::SeqCst);
    for _ in 0..2 {
        let read = format!("SELECT n FROM counters WHERE id = {id}");
        let rows = crate::harness::within("a row or an error", client.simple_query(&read)).await?;
        let n = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse::<i64>().ok(),
            _ => None,
        });
        let (acknowledged, unknown) = (tally.acknowledged.load(Ordering::SeqCst), tally.unknown.load(Ordering::SeqCst));
        let n = n.expect("one row");
        assert!((acknowledged..=acknowledged + unknown).contains(&n), "a stale read: {n}, told {acknowledged}");
    }
    Ok(())
}
