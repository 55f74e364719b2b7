//! Prepared statements that outlive what they were prepared for: PostgreSQL refuses them where their result would have another
//! shape, and a driver that has been told the old one must not be given the new one.

use crate::harness::raw::{Batch, Frame, tags};
use crate::harness::{Raw, Stage};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 10)";
const READ: &str = "SELECT * FROM t WHERE id = $1";

async fn prepare(raw: &mut Raw) {
    let answer = raw.ask(Batch::new().parse("s", READ).describe_statement("s").sync()).await;
    assert_eq!(tags(&answer), "1tTZ");
}

async fn execute(raw: &mut Raw) -> Vec<Frame> {
    raw.ask(Batch::new().bind("", "s", &[Some(b"1")]).execute("", 0).sync()).await
}

/// The same by a direct connection and through the proxy, where another session has the answer cached.
async fn as_directly(setup: &str, ddl: &[&str], undo: &[&str]) {
    let stage = Stage::setup(&format!("{TABLE}; {setup}")).await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let writer = stage.client().await;
    for raw in [&mut proxied, &mut direct] {
        prepare(raw).await;
    }
    stage.until_hit("a prepared read", async || execute(&mut proxied).await).await;
    for statement in ddl {
        writer.run(statement).await;
    }
    let mut other = stage.raw().await;
    prepare(&mut other).await;
    stage.until_hit("a read that was prepared afterwards", async || execute(&mut other).await).await;
    for _ in 0..3 {
        assert_eq!(execute(&mut proxied).await, execute(&mut direct).await, "after {ddl:?}");
    }
    for statement in undo {
        writer.run(statement).await;
    }
    for _ in 0..3 {
        assert_eq!(execute(&mut proxied).await, execute(&mut direct).await, "after {undo:?}");
    }
    stage.until_hit("a prepared read that is as it was", async || execute(&mut proxied).await).await;
}

#[tokio::test]
async fn a_column_more() {
    as_directly("", &["ALTER TABLE t ADD COLUMN extra text DEFAULT 'x'"], &["ALTER TABLE t DROP COLUMN extra"]).await;
}

#[tokio::test]
async fn a_column_of_another_type() {
    let (ddl, undo) = ("ALTER TABLE t ALTER v TYPE text", "ALTER TABLE t ALTER v TYPE int USING v::int");
    as_directly("", &[ddl], &[undo]).await;
    let (ddl, undo) = ("ALTER TABLE t ALTER id TYPE bigint", "ALTER TABLE t ALTER id TYPE int");
    as_directly("", &[ddl], &[undo]).await;
}

#[tokio::test]
async fn a_search_path_that_leads_to_another_table() {
    let stage = Stage::setup(&format!(
        "{TABLE}; CREATE SCHEMA two; CREATE TABLE two.t (id int PRIMARY KEY, v int, extra text); INSERT INTO two.t VALUES (1, 2, 'x')"
    ))
    .await;
    let (mut proxied, mut direct, mut other) = (stage.raw().await, stage.raw_direct().await, stage.raw().await);
    for raw in [&mut proxied, &mut direct] {
        prepare(raw).await;
    }
    stage.until_hit("a prepared read", async || execute(&mut proxied).await).await;
    other.query("SET search_path = two").await;
    prepare(&mut other).await;
    stage.until_hit("a prepared read of the other table", async || execute(&mut other).await).await;
    for path in ["two", "public", "two"] {
        for raw in [&mut proxied, &mut direct] {
            raw.query(&format!("SET search_path = {path}")).await;
        }
        for _ in 0..3 {
            assert_eq!(execute(&mut proxied).await, execute(&mut direct).await, "search_path {path}");
        }
    }
}
