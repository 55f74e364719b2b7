//! A prepared statement whose result has changed its shape is refused, on whatever connection it is executed.

use super::stage;
use crate::harness::raw::{Batch, Frame, tags};
use crate::harness::{Raw, Stage};

/// Makes the next request of whoever had a connection go to the other one.
async fn shuffle(others: &mut [Raw; 2]) {
    for other in &mut *others {
        other.query("BEGIN").await;
    }
    for other in &mut *others {
        other.query("COMMIT").await;
    }
}

/// A client of the proxy and one of the server, which are answered alike.
struct Twins {
    ours: Raw,
    theirs: Raw,
    others: [Raw; 2],
}

impl Twins {
    async fn of(stage: &Stage) -> Self {
        Self {
            ours: stage.raw().await,
            theirs: stage.raw_direct().await,
            others: [stage.raw().await, stage.raw().await],
        }
    }

    async fn ask(&mut self, batch: Batch) -> Vec<Frame> {
        let (mut ours, mut theirs) = (self.ours.ask(batch.clone()).await, self.theirs.ask(batch).await);
        for frames in [&mut ours, &mut theirs] {
            // The server describes the parameters before it finds out that it cannot describe the result.
            let finds_out = tags(frames).find("tE");
            frames.drain(finds_out.map_or(0..0, |at| at..at + 1));
        }
        assert_eq!(tags(&ours), tags(&theirs), "{ours:?}\n{theirs:?}");
        for (our, their) in ours.iter().zip(&theirs) {
            match our.tag {
                b'E' => assert_eq!((our.field('C'), our.field('M')), (their.field('C'), their.field('M'))),
                b'Z' | b'1' | b'2' | b'T' | b'D' => assert_eq!(our, their),
                _ => {}
            }
        }
        ours
    }
}

fn run(statement: &str) -> Batch {
    Batch::new().bind("", statement, &[]).execute("", 0).sync()
}

#[tokio::test]
async fn a_moved_client_is_refused_as_one_who_stayed() {
    let stage = stage(2).await;
    stage.direct().await.run("CREATE TABLE t (v int); CREATE TABLE u AS SELECT 1 AS v").await;
    let mut twins = Twins::of(&stage).await;
    for (name, text) in [
        ("all", "SELECT * FROM t"),
        ("insert", "INSERT INTO t VALUES (1) RETURNING *"),
        ("count", "SELECT count(*) FROM t"),
        ("set", "SET work_mem = '5MB'"),
        ("u", "SELECT * FROM u"),
    ] {
        twins.ask(Batch::new().parse(name, text).describe_statement(name).sync()).await;
    }
    let ddl = stage.client().await;
    ddl.run("ALTER TABLE t ADD w int; DROP TABLE u; CREATE TABLE u AS SELECT 1 AS v").await;
    shuffle(&mut twins.others).await;
    let refused = twins.ask(run("all")).await;
    assert_eq!(refused[0].field('C').as_deref(), Some("0A000"));
    for round in 0..3 {
        twins.ask(run("all")).await;
        twins.ask(Batch::new().describe_statement("all").sync()).await;
        twins.ask(run("insert")).await;
        twins.ask(run("count")).await;
        twins.ask(run("set")).await;
        // Another table with the same columns is as good.
        twins.ask(run("u")).await;
        let mixed = Batch::new().bind("", "count", &[]).execute("", 0).bind("", "all", &[]).execute("", 0);
        twins.ask(mixed.bind("", "count", &[]).execute("", 0).sync()).await;
        twins.ask(Batch::new().query("BEGIN")).await;
        twins.ask(run("count")).await;
        twins.ask(run("insert")).await;
        twins.ask(run("count")).await;
        twins.ask(Batch::new().query("ROLLBACK")).await;
        shuffle(&mut twins.others).await;
        if round == 1 {
            twins.ask(Batch::new().close_statement("insert").parse("insert", "SELECT 'other'").sync()).await;
            shuffle(&mut twins.others).await;
        }
    }
    assert_eq!(ddl.one("SELECT count(*) FROM t").await, "0", "what is refused is not done");
    ddl.run("ALTER TABLE t DROP w").await;
    shuffle(&mut twins.others).await;
    twins.ask(run("all")).await;
    twins.ask(Batch::new().close_statement("all").parse("all", "SELECT * FROM t").sync()).await;
    shuffle(&mut twins.others).await;
    twins.ask(run("all")).await;
}

#[tokio::test]
async fn what_somebody_else_has_prepared_since_is_compared_too() {
    let stage = stage(2).await;
    let direct = stage.direct().await;
    direct.run("CREATE TABLE t (v int)").await;
    let mut twins = Twins::of(&stage).await;
    let prepare = async |twins: &mut Twins| {
        twins.ask(Batch::new().parse("all", "SELECT * FROM t").sync()).await;
    };
    prepare(&mut twins).await;
    // Past the proxy: it does not know yet that this is another statement now.
    direct.run("ALTER TABLE t ALTER v TYPE text").await;
    shuffle(&mut twins.others).await;
    for other in &mut twins.others {
        other.ask(Batch::new().parse("mine", "SELECT * FROM t").sync()).await;
    }
    for _ in 0..4 {
        let refused = twins.ask(run("all")).await;
        assert_eq!(refused[0].field('C').as_deref(), Some("0A000"));
        for other in &mut twins.others {
            assert_eq!(tags(&other.ask(run("mine")).await), "2CZ");
        }
        shuffle(&mut twins.others).await;
    }
}
