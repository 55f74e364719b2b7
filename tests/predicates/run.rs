//! Reads that are cached, writes, and the same reads again.

use super::constants::{Pen, Sql};
use super::reads::read;
use super::tables::{SETUP, fill};
use super::writes::write;
use crate::harness::raw::{Batch, Frame};
use crate::harness::{Raw, Stage};

const SEED: u64 = 20_250_301;
const ROUNDS: u64 = 30;
const READS: usize = 12;
const WRITES: usize = 10;

/// Rows as they came, sorted.
type Rows = Vec<Vec<u8>>;

#[tokio::test]
async fn no_read_survives_a_write_that_changes_its_answer() {
    let (seed, rounds) = (from_environment("PREDICATES_SEED", SEED), from_environment("PREDICATES_ROUNDS", ROUNDS));
    let mut check = Check::new(Path::Proxy).await;
    for round in 0..rounds {
        check.round(seed + round).await.unwrap_or_else(|violation| panic!("{violation}"));
    }
    let Tally { written, refused, looked_at, changed, survived } = check.tally;
    println!(
        "seed {seed}, {rounds} rounds: {written} writes ({refused} more fail or change nothing), {looked_at} answers after a write, \
         {changed} of them changed, {survived} from the cache"
    );
    // One read of twelve changes or so; of the others about half are kept. A tenth would show that something is broken.
    if rounds >= ROUNDS {
        assert!(changed > looked_at / 50, "hardly any write changed an answer");
        assert!(survived > looked_at / 5, "hardly any read has survived");
    }
}

/// A write whose invalidation is lost is what a false pin would be.
#[tokio::test]
async fn a_write_past_the_proxy_is_noticed() {
    let mut check = Check::new(Path::Direct).await;
    for round in 0..20 {
        if check.round(SEED + round).await.is_err() {
            return;
        }
    }
    panic!("no stale answer was found: {:?}", check.tally);
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

#[derive(Debug, Default)]
struct Tally {
    written: u64,
    refused: u64,
    looked_at: u64,
    changed: u64,
    survived: u64,
}

/// How writes travel.
#[derive(PartialEq, Eq)]
enum Path {
    Proxy,
    Direct,
}

struct Check {
    stage: Stage,
    reader: Raw,
    writer: Raw,
    direct: Raw,
    path: Path,
    tally: Tally,
}

/// A read and what it answers now.
struct Cached {
    sql: Sql,
    answer: Rows,
}

impl Check {
    async fn new(path: Path) -> Self {
        let stage = Stage::setup(SETUP).await;
        // The planner guesses that joins of these tables are large, and would compile them.
        stage.direct().await.run(&format!("ALTER DATABASE {} SET jit = off", stage.database)).await;
        let (reader, writer, direct) = (stage.raw().await, stage.raw().await, stage.raw_direct().await);
        Self { stage, reader, writer, direct, path, tally: Tally::default() }
    }

    /// Fresh rows, some reads, and writes that each of the reads is held against.
    async fn round(&mut self, seed: u64) -> Result<(), String> {
        let mut pen = Pen::new(seed);
        let sql = fill(&mut pen);
        rows(self.writer.query(&sql).await).unwrap_or_else(|error| panic!("{error}\nof {sql}"));
        let mut cached = Vec::with_capacity(READS);
        while cached.len() < READS {
            let sql = pen.statement(read);
            let Ok(answer) = ask(&mut self.direct, &sql).await else { continue };
            for _ in 0..2 {
                let heard = ask(&mut self.reader, &sql).await;
                if heard.as_ref() != Ok(&answer) {
                    return Err(format!("seed {seed}: {sql:?}\nanswers {heard:?}\ninstead of {answer:?}"));
                }
            }
            cached.push(Cached { sql, answer });
        }
        let mut writes = 0;
        while writes < WRITES {
            let write = write(&mut pen);
            if !self.run(&write).await {
                self.tally.refused += 1;
                continue;
            }
            writes += 1;
            self.tally.written += 1;
            self.look(&mut cached).await.map_err(|what| format!("seed {seed}, after {write:?}: {what}"))?;
        }
        Ok(())
    }

    /// Runs a write; it is rolled back once before, so that what it concerns is known. False if it fails or writes nothing.
    async fn run(&mut self, write: &[Sql]) -> bool {
        let (mut fails, mut writes) = (false, false);
        self.writer.query("BEGIN").await;
        for sql in write {
            let answer = self.writer.ask(batch(sql)).await;
            writes |= answer.iter().any(|frame| frame.tag == b'C' && !frame.body.ends_with(b" 0\0"));
            fails |= rows(answer).is_err();
        }
        self.writer.query("ROLLBACK").await;
        if fails || !writes {
            return false;
        }
        let writer = if self.path == Path::Proxy { &mut self.writer } else { &mut self.direct };
        if let [sql] = write {
            return ask(writer, sql).await.is_ok();
        }
        writer.query("BEGIN").await;
        for sql in write {
            ask(writer, sql).await.expect("it has worked on the same rows");
        }
        writer.query("COMMIT").await;
        true
    }

    /// Every answer must be the server's.
    async fn look(&mut self, cached: &mut [Cached]) -> Result<(), String> {
        let before = self.stage.proxy.hits().await;
        for Cached { sql, answer } in cached {
            let now = ask(&mut self.direct, sql).await;
            let heard = ask(&mut self.reader, sql).await;
            if heard != now {
                return Err(format!("{sql:?}\nanswers {heard:?}\ninstead of {now:?}\nbefore: {answer:?}"));
            }
            self.tally.looked_at += 1;
            // Other rows may make it fail, by a division or a cast.
            let now = now.unwrap_or_default();
            self.tally.changed += u64::from(now != *answer);
            *answer = now;
        }
        self.tally.survived += self.stage.proxy.hits().await - before;
        Ok(())
    }
}

async fn ask(raw: &mut Raw, sql: &Sql) -> Result<Rows, String> {
    rows(raw.ask(batch(sql)).await)
}

/// A statement with parameters is one extended batch, without it is a simple query.
fn batch(sql: &Sql) -> Batch {
    if sql.parameters.is_empty() {
        return Batch::new().query(&sql.text);
    }
    let types: Vec<u32> = sql.parameters.iter().map(|parameter| parameter.type_oid).collect();
    let formats: Vec<i16> = sql.parameters.iter().map(|parameter| parameter.format).collect();
    let values: Vec<Option<&[u8]>> = sql.parameters.iter().map(|parameter| parameter.value.as_deref()).collect();
    let batch = Batch::new().parse_typed("", &sql.text, &types);
    batch.bind_formats("", "", &formats, &values, &[]).describe_portal("").execute("", 0).sync()
}

/// The rows of an answer, or its SQLSTATE.
fn rows(frames: Vec<Frame>) -> Result<Rows, String> {
    if let Some(error) = frames.iter().find(|frame| frame.tag == b'E') {
        return Err(error.field('C').unwrap_or_default());
    }
    let mut rows: Rows = frames.into_iter().filter(|frame| frame.tag == b'D').map(|frame| frame.body).collect();
    rows.sort();
    Ok(rows)
}
