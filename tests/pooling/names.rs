//! Prepared statements are their client's, whatever connections they were prepared on.

use super::{sharing, stage};
use crate::harness::Stage;
use crate::harness::raw::{Batch, tags};

#[tokio::test]
async fn the_same_name_means_another_statement_to_each_client() {
    let stage = stage(2).await;
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut raw = stage.raw().await;
        let text = format!("SELECT {number} + $1::int");
        let frames = raw.ask(Batch::new().parse("s1", &text).describe_statement("s1").sync()).await;
        assert_eq!(tags(&frames), "1tTZ");
        clients.push((number, raw));
    }
    let run = async |(number, mut raw): (i32, crate::harness::Raw)| {
        for round in 0..20 {
            let value = round.to_string();
            let bind = Batch::new().bind("", "s1", &[Some(value.as_bytes())]).execute("", 0).sync();
            let frames = raw.ask(bind).await;
            assert_eq!(tags(&frames), "2DCZ", "{frames:?}");
            assert_eq!(frames[1].text(), (number + round).to_string());
        }
    };
    futures_util::future::join_all(clients.into_iter().map(run)).await;
}

#[tokio::test]
async fn drivers_that_prepare_everything_share_connections() {
    let stage = stage(2).await;
    stage.direct().await.run("CREATE TABLE t AS SELECT generate_series(1, 100) AS id").await;
    let clients = futures_util::future::join_all((0..20).map(|_| stage.client())).await;
    let run = async |client: &crate::harness::Client| {
        let by_id = client.prepare("SELECT id FROM t WHERE id = $1").await.unwrap();
        let count = client.prepare("SELECT count(*) FROM t WHERE id > $1").await.unwrap();
        for id in 1..20i32 {
            assert_eq!(client.query_one(&by_id, &[&id]).await.unwrap().get::<_, i32>(0), id);
            assert_eq!(client.query_one(&count, &[&id]).await.unwrap().get::<_, i64>(0), i64::from(100 - id));
        }
    };
    futures_util::future::join_all(clients.iter().map(run)).await;
}

#[tokio::test]
async fn an_unnamed_statement_outlives_its_connection() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    one.ask(Batch::new().parse("", "SELECT 'one', random() > 2").sync()).await;
    two.ask(Batch::new().parse("", "SELECT 'two', random() > 2").sync()).await;
    for _ in 0..3 {
        for (raw, own) in [(&mut one, "one"), (&mut two, "two")] {
            let frames = raw.ask(Batch::new().bind("", "", &[]).execute("", 0).sync()).await;
            assert_eq!(tags(&frames), "2DCZ", "{frames:?}");
            assert_eq!(frames[1].text(), own);
        }
    }
    let frames = one.ask(Batch::new().describe_statement("").sync()).await;
    assert_eq!(tags(&frames), "tTZ");
    one.query("SELECT 1").await;
    let frames = one.ask(Batch::new().bind("", "", &[]).execute("", 0).sync()).await;
    assert_eq!(frames[0].field('C').as_deref(), Some("26000"), "a simple query drops it");
}

#[tokio::test]
async fn no_more_statements_stay_prepared_than_allowed() {
    let stage = Stage::with(sharing(1).key("pool.prepared_statements", 5)).await;
    let mut raw = stage.raw().await;
    let mut other = stage.raw().await;
    for number in 0..30 {
        let text = format!("SELECT {number} + length(version()) * 0");
        raw.ask(Batch::new().parse(&format!("s{number}"), &text).sync()).await;
    }
    for number in (0..30).chain(0..30) {
        let frames = raw.ask(Batch::new().bind("", &format!("s{number}"), &[]).execute("", 0).sync()).await;
        assert_eq!(tags(&frames), "2DCZ", "{frames:?}");
        assert_eq!(frames[1].text(), number.to_string());
    }
    let frames = other.query("SELECT count(*) <= 5 FROM pg_prepared_statements").await;
    assert_eq!(frames[1].text(), "t");
}

#[tokio::test]
async fn errors_come_where_the_client_expects_them() {
    let stage = stage(1).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let mut other = stage.raw().await;
    let good = Batch::new().parse("s", "SELECT 1").sync();
    let batches = [
        good.clone(),
        good.clone(),
        Batch::new().parse("bad", "SELECT FROM FROM").bind("", "bad", &[]).execute("", 0).sync(),
        Batch::new().bind("", "bad", &[]).execute("", 0).sync(),
        Batch::new()
            .parse("t", "SELECT 1/0")
            .parse("u", "SELECT 2")
            .bind("", "t", &[])
            .execute("", 0)
            .parse("v", "SELECT 3")
            .sync(),
        Batch::new().bind("", "u", &[]).execute("", 0).sync(),
        Batch::new().bind("", "v", &[]).execute("", 0).sync(),
        Batch::new().close_statement("u").parse("u", "SELECT 4").bind("", "u", &[]).execute("", 0).sync(),
        Batch::new().close_statement("nothing").close_statement("s").sync(),
        good.clone(),
        Batch::new().parse("s", "SELECT 1").bind("", "s", &[]).execute("", 0).sync(),
        Batch::new().bind("", "s", &[Some(b"1")]).sync(),
        Batch::new().describe_statement("nothing").sync(),
        Batch::new().parse("w", "SELECT 5").flush().bind("p", "w", &[]).execute("p", 0).flush().sync(),
        Batch::new().parse("x", "SELECT 1/0").bind("", "x", &[]).execute("", 0).bind("", "w", &[]).sync(),
        Batch::new().bind("", "w", &[]).execute("", 0).sync(),
    ];
    for (number, batch) in batches.into_iter().enumerate() {
        other.query("SELECT 1").await;
        let (ours, theirs) = (raw.ask(batch.clone()).await, direct.ask(batch).await);
        assert_eq!(tags(&ours), tags(&theirs), "batch {number}: {ours:?}\n{theirs:?}");
        for (our, their) in ours.iter().zip(&theirs) {
            match our.tag {
                b'E' => assert_eq!(our.field('C'), their.field('C'), "batch {number}"),
                _ => assert_eq!(our, their, "batch {number}"),
            }
        }
    }
}

#[tokio::test]
async fn sql_and_protocol_speak_of_the_same_statements() {
    let stage = stage(2).await;
    let mut raw = stage.raw().await;
    let mut others = [stage.raw().await, stage.raw().await];
    raw.ask(Batch::new().parse("s", "SELECT 'protocol'").sync()).await;
    for other in &mut others {
        other.query("SELECT 1").await;
    }
    assert_eq!(raw.query("EXECUTE s").await[1].text(), "protocol");
    raw.query("PREPARE q AS SELECT 'sql'").await;
    for other in &mut others {
        other.query("SELECT 1").await;
    }
    let frames = raw.ask(Batch::new().bind("", "q", &[]).execute("", 0).sync()).await;
    assert_eq!(frames[1].text(), "sql");
    let frames = raw.query("SELECT string_agg(name, ',' ORDER BY name) FROM pg_prepared_statements").await;
    assert_eq!(frames[1].text(), "q,s", "and nothing of the proxy's");
    assert_eq!(raw.query("PREPARE s AS SELECT 2").await[0].field('C').as_deref(), Some("42P05"));
    raw.query("DEALLOCATE s").await;
    let frames = raw.ask(Batch::new().bind("", "s", &[]).execute("", 0).sync()).await;
    assert_eq!(frames[0].field('C').as_deref(), Some("26000"));
    raw.query("DEALLOCATE ALL").await;
    let frames = raw.ask(Batch::new().parse("s", "SELECT 'again'").bind("", "s", &[]).execute("", 0).sync()).await;
    assert_eq!(frames[2].text(), "again");
    for other in &mut others {
        other.query("BEGIN").await;
    }
    for other in &mut others {
        other.query("COMMIT").await;
    }
    let frames = raw.ask(Batch::new().bind("", "s", &[]).execute("", 0).sync()).await;
    assert_eq!(frames[1].text(), "again");
}

#[tokio::test]
async fn portals_and_batches_stay_on_one_connection() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    one.ask(Batch::new().parse("s", "SELECT generate_series(1, 6)").sync()).await;
    two.query("SELECT 1").await;
    one.query("BEGIN").await;
    let frames = one.ask(Batch::new().bind("p", "s", &[]).execute("p", 2).sync()).await;
    assert_eq!(tags(&frames), "2DDsZ");
    two.send_batch(Batch::new().query("SELECT 'waits'")).await;
    let frames = one.ask(Batch::new().execute("p", 3).sync()).await;
    assert_eq!(frames[0].text(), "3");
    one.send_batch(Batch::new().bind("", "s", &[]).execute("", 1).flush()).await;
    assert_eq!(tags(&one.until('s').await), "2Ds");
    let frames = one.ask(Batch::new().execute("p", 0).sync()).await;
    assert_eq!(frames[0].text(), "6");
    one.query("COMMIT").await;
    assert_eq!(two.until_ready().await[1].text(), "waits");
}

#[tokio::test]
async fn long_statements_and_parameters_pass() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    let long = "x".repeat(3_000_000);
    one.ask(Batch::new().parse("s", "SELECT length($1::text)").sync()).await;
    two.query("SELECT 1").await;
    for _ in 0..2 {
        let frames = one.ask(Batch::new().bind("", "s", &[Some(long.as_bytes())]).execute("", 0).sync()).await;
        assert_eq!(tags(&frames), "2DCZ", "{frames:?}");
        assert_eq!(frames[1].text(), "3000000");
        two.query("SELECT 1").await;
    }
    let text = format!("SELECT length('{long}')");
    let frames = one.ask(Batch::new().parse("", &text).bind("", "", &[]).execute("", 0).sync()).await;
    assert_eq!(frames[2].text(), "3000000");
}

#[tokio::test]
async fn a_statement_made_while_names_were_its_own_is_shared_later() {
    let stage = stage(1).await;
    let (mut one, mut two) = (stage.raw().await, stage.raw().await);
    for (raw, own) in [(&mut one, "one"), (&mut two, "two")] {
        raw.ask(Batch::new().parse("a", "SELECT 1").sync()).await;
        raw.query("DO $$ BEGIN END $$").await;
        let frames = raw.ask(Batch::new().parse("b", &format!("SELECT '{own}'")).sync()).await;
        assert_eq!(tags(&frames), "1Z", "{frames:?}");
    }
    for _ in 0..3 {
        for (raw, own) in [(&mut one, "one"), (&mut two, "two")] {
            let frames = raw.ask(Batch::new().bind("", "b", &[]).execute("", 0).sync()).await;
            assert_eq!(tags(&frames), "2DCZ", "{frames:?}");
            assert_eq!(frames[1].text(), own);
        }
    }
}
