//! A 90/10 mix of reads and updates by primary key, Zipf-distributed, by 16 clients: throughput, and how many reads a cache
//! that loses exactly the row that was changed would have answered. Prints one line; `benches/mixed.sh` runs it against a
//! server directly and through proxies.
//!
//! Arguments: host port database seconds exponent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a benchmark may stop at the first error")]

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, NoTls};

const CLIENTS: u64 = 16;
const ROWS: usize = 100_000;
const WRITES_PERCENT: u32 = 10;

/// A cache of rows that forgets exactly those that are written.
#[derive(Default)]
struct Oracle {
    cached: HashSet<i32>,
    reads: u64,
    hits: u64,
}

impl Oracle {
    fn read(&mut self, row: i32) {
        self.reads += 1;
        self.hits += u64::from(!self.cached.insert(row));
    }

    fn write(&mut self, row: i32) {
        self.cached.remove(&row);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").collect();
    let [_, host, port, database, seconds, exponent] = arguments.as_slice() else {
        eprintln!("mixed_load: run benches/mixed.sh, which gives it a server");
        return;
    };
    let target = format!("host={host} port={port} user=postgres dbname={database}");
    let length = Duration::from_secs(seconds.parse().expect("seconds"));
    let distribution = Arc::new(zipf(exponent.parse().expect("an exponent")));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(run(&target, length, &distribution));
}

async fn run(target: &str, length: Duration, distribution: &Arc<Vec<f64>>) {
    let oracle = Arc::new(Mutex::new(Oracle::default()));
    let mut clients = Vec::new();
    for seed in 0..CLIENTS {
        let (client, connection) = tokio_postgres::connect(target, NoTls).await.expect("a connection");
        tokio::spawn(connection);
        clients.push((seed, client));
    }
    let start = Instant::now();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|(seed, client)| tokio::spawn(load(client, seed, start + length, distribution.clone(), oracle.clone())))
        .collect();
    let mut operations = 0;
    for task in tasks {
        operations += task.await.expect("a client's load");
    }
    let rate = operations as f64 / start.elapsed().as_secs_f64();
    let oracle = oracle.lock().expect("no panic");
    println!("{rate:.0} {} {}", oracle.reads, oracle.hits);
}

async fn load(client: Client, seed: u64, end: Instant, distribution: Arc<Vec<f64>>, oracle: Arc<Mutex<Oracle>>) -> u64 {
    let read = client.prepare("SELECT abalance FROM pgbench_accounts WHERE aid = $1").await.expect("a statement");
    let update = "UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = $1";
    let update = client.prepare(update).await.expect("a statement");
    let mut random = StdRng::seed_from_u64(seed);
    let mut operations = 0;
    while Instant::now() < end {
        let point: f64 = random.random();
        let row = distribution.partition_point(|sum| *sum < point) as i32 + 1;
        if random.random_ratio(WRITES_PERCENT, 100) {
            client.execute(&update, &[&row]).await.expect("an update");
            oracle.lock().expect("no panic").write(row);
        } else {
            client.query_one(&read, &[&row]).await.expect("a read");
            oracle.lock().expect("no panic").read(row);
        }
        operations += 1;
    }
    operations
}

/// Sums of the probabilities of the rows 1, 2, ...
fn zipf(exponent: f64) -> Vec<f64> {
    let weights: Vec<f64> = (1..=ROWS).map(|rank| (rank as f64).powf(-exponent)).collect();
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    weights
        .into_iter()
        .map(|weight| {
            sum += weight / total;
            sum
        })
        .collect()
}
