//! Generated queries on generated tables, split and unsplit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::generator::{Generator, Query};
use super::stage::{Answer, ended, options, skipped, stage, why};
use crate::harness::raw::Batch;
use crate::harness::{Raw, Stage};

const SEED: u64 = 20_251_125;
const ROUNDS: u64 = 12;
const QUERIES: usize = 40;

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

struct Check {
    stage: Stage,
    raw: Raw,
    direct: Raw,
    asked: u64,
    rows: u64,
}

impl Check {
    async fn new() -> Self {
        let options = options().key("cache.max_entry_bytes", 1).key("catalog.refresh_secs", 1);
        let stage = stage(options, "CREATE TABLE t (n int)").await;
        let (raw, direct) = (stage.raw().await, stage.raw_direct().await);
        Self { stage, raw, direct, asked: 0, rows: 0 }
    }

    /// A fresh table, queries on it, and writes in between.
    async fn round(&mut self, seed: u64, draw: fn(&mut Generator) -> Query) -> Result<(), String> {
        let mut generator = Generator::new(seed);
        for sql in generator.table().split_inclusive(';') {
            // Through the proxy, so that it knows of the new table at once.
            let answer = Answer::of(self.raw.query(sql).await);
            assert!(answer.others.iter().all(|frame| frame.tag != b'E'), "seed {seed}: {sql}: {answer:?}");
        }
        // The proxy splits nothing while the catalogue is in doubt.
        loop {
            let before = skipped(&self.stage, "catalog").await;
            self.raw.query("SELECT * FROM t").await;
            if skipped(&self.stage, "catalog").await == before {
                break;
            }
        }
        for _ in 0..QUERIES {
            let query = draw(&mut generator);
            self.compare(&query).await.map_err(|what| format!("seed {seed}: {query:?}\n{what}"))?;
            if self.asked.is_multiple_of(5) {
                self.raw.query(&generator.write()).await;
            }
        }
        Ok(())
    }

    async fn compare(&mut self, query: &Query) -> Result<(), String> {
        let (answer, expected) = (self.raw.ask(batch(query)).await, self.direct.ask(batch(query)).await);
        let in_order = !query.is_ordered
            || answer.iter().filter(|frame| frame.tag == b'D').eq(expected.iter().filter(|frame| frame.tag == b'D'));
        let (answer, expected) = (Answer::of(answer), Answer::of(expected));
        self.asked += 1;
        self.rows += answer.rows.len() as u64;
        if answer == expected && in_order {
            return Ok(());
        }
        let (rows, wanted) = (answer.rows.len(), expected.rows.len());
        let differing = answer.rows.iter().zip(&expected.rows).find(|(row, wanted)| row != wanted);
        let show = |row: &Vec<u8>| row.escape_ascii().to_string();
        let differing = differing.map(|(row, wanted)| (show(row), show(wanted)));
        Err(format!(
            "{rows} rows instead of {wanted}, {:?} instead of {:?}, the first that differs: {differing:?}",
            answer.others, expected.others
        ))
    }
}

/// Without parameters half of them go by the simple protocol.
fn batch(query: &Query) -> Batch {
    if query.values.is_empty() && query.formats.is_empty() {
        return Batch::new().query(&query.sql);
    }
    let values: Vec<Option<&[u8]>> = query.values.iter().map(|value| Some(value.as_bytes())).collect();
    let batch = Batch::new().parse_typed("", &query.sql, &query.types);
    batch.bind_formats("", "", &[], &values, &query.formats).describe_portal("").execute("", 0).sync()
}

#[tokio::test]
async fn split_and_unsplit_answers_are_equal() {
    rounds_of(Generator::query, 2).await;
}

#[tokio::test]
async fn groups_that_are_put_together_are_equal() {
    // Keys and sums that are not exact, empty tables and parallel plans are among them.
    rounds_of(Generator::groups, 8).await;
}

/// At least one in so many queries must have been split.
async fn rounds_of(draw: fn(&mut Generator) -> Query, one_in: u64) {
    let (seed, rounds) = (from_environment("PARALLEL_SEED", SEED), from_environment("PARALLEL_ROUNDS", ROUNDS));
    let mut check = Check::new().await;
    for round in 0..rounds {
        check.round(seed + round, draw).await.unwrap_or_else(|violation| panic!("{violation}"));
    }
    let split = ended(&check.stage, "complete").await;
    let Check { asked, rows, stage, .. } = &check;
    println!(
        "seed {seed}, {rounds} rounds: {asked} queries, {split} of them split, {rows} rows; not split:\n{}",
        why(stage).await
    );
    assert!(rounds < ROUNDS || split > asked / one_in, "hardly anything was split");
}

/// What a row that is read twice, or never, would be.
#[tokio::test]
async fn a_difference_is_noticed() {
    let mut check = Check::new().await;
    for sql in
        ["CREATE TABLE u AS SELECT n FROM generate_series(1, 3000) n", "CREATE SCHEMA s; CREATE TABLE s.u AS TABLE u"]
    {
        check.raw.query(sql).await;
    }
    let query = Query { sql: "SELECT n FROM u".into(), ..Query::default() };
    assert_eq!(check.compare(&query).await, Ok(()));
    for sql in ["INSERT INTO s.u VALUES (1)", "DELETE FROM s.u WHERE n = 1; DELETE FROM s.u WHERE n = 2"] {
        check.direct.query(sql).await;
        check.direct.query("SET search_path = s").await;
        assert!(check.compare(&query).await.is_err(), "not noticed: {sql}");
    }
}

/// Writers move money between accounts while it is read: every split read sees all of it, and in one snapshot.
#[tokio::test]
async fn a_split_read_is_one_snapshot_whatever_is_written_meanwhile() {
    let setup = "CREATE TABLE accounts (id int, cents bigint, filler text) WITH (fillfactor = 50);
                 INSERT INTO accounts SELECT n, 1000, repeat('x', 400) FROM generate_series(1, 4000) n; ANALYZE accounts";
    let stage = Arc::new(stage(options().key("cache.enabled", "true").key("cache.max_entry_bytes", 1), setup).await);
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|number: u32| {
            let (stage, done) = (stage.clone(), done.clone());
            tokio::spawn(async move {
                let writer = if number == 0 { stage.client().await } else { stage.direct().await };
                let mut at = number;
                while !done.load(Ordering::Relaxed) {
                    at = at.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                    let (from, to) = (at % 4000 + 1, at / 4000 % 4000 + 1);
                    if from == to {
                        continue;
                    }
                    // Both rows move, most of them to other blocks.
                    writer
                        .run(&format!(
                            "UPDATE accounts SET cents = cents + CASE id WHEN {from} THEN -5 ELSE 5 END WHERE id IN ({from}, {to})"
                        ))
                        .await;
                }
            })
        })
        .collect();
    let mut raw = stage.raw().await;
    let doubted = skipped(&stage, "catalog").await;
    for _ in 0..30 {
        let rows = raw.query("SELECT cents, id FROM accounts").await;
        let cents: Vec<i64> =
            rows.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.text().parse().unwrap()).collect();
        assert_eq!((cents.len(), cents.iter().sum::<i64>()), (4000, 4_000_000));
        let sum = raw.query("SELECT sum(cents) * 10000 + count(DISTINCT id) FROM accounts").await;
        assert_eq!(sum[1].text(), "40000004000");
    }
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    let split = ended(&stage, "complete").await;
    // The catalogue may be looked at meanwhile.
    let unsplit = skipped(&stage, "busy").await + skipped(&stage, "catalog").await - doubted;
    assert_eq!(split + unsplit, 60, "{}", why(&stage).await);
    assert!(split > 30);
}
