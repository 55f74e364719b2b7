//! The extended protocol in all its orders.

use crate::harness::Stage;
use crate::harness::raw::Batch;

use super::same::{Step, same, same_answer};

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, d date);
    INSERT INTO t VALUES (1, 'one', 1.5, '2024-01-01'), (2, 'two', NULL, '2024-01-02'), (3, NULL, -3, NULL);
    CREATE TABLE w (id int)";
const READ: &str = "SELECT id, v, n, d FROM t ORDER BY id";
const ONE: &str = "SELECT v FROM t WHERE id = $1";

fn whole(sql: &str) -> Batch {
    Batch::new().parse("", sql).bind("", "", &[]).describe_portal("").execute("", 0)
}

#[tokio::test]
async fn simple_queries() {
    let stage = Stage::setup(SETUP).await;
    same_answer(&stage, Batch::new().query(READ), "TDDDCZ").await;
    same_answer(&stage, Batch::new().query(""), "IZ").await;
    same_answer(&stage, Batch::new().query(" ; ; "), "IZ").await;
    same_answer(&stage, Batch::new().query("-- nothing"), "IZ").await;
    same_answer(
        &stage,
        Batch::new().query("SELECT 1; SELECT id FROM t WHERE false; INSERT INTO w VALUES (1)"),
        "TDCTCCZ",
    )
    .await;
    same_answer(&stage, Batch::new().query("SELECT 1; SELECT 1/0; SELECT 2"), "TDCEZ").await;
    same_answer(&stage, Batch::new().query("SELEC 1"), "EZ").await;
    same_answer(&stage, Batch::new().query("SELECT FROM t"), "TDDDCZ").await;
    same_answer(&stage, Batch::new().query("SELECT NULL::int, '' FROM t WHERE id = 1"), "TDCZ").await;
    same_answer(&stage, Batch::new().query("EXPLAIN (COSTS OFF) SELECT * FROM t"), "TDCZ").await;
    same_answer(&stage, Batch::new().query("SHOW server_version; SHOW TimeZone"), "TDCTDCZ").await;
    same_answer(&stage, Batch::new().query("BEGIN; SELECT 1; COMMIT; COMMIT"), "CTDCCNCZ").await;
}

#[tokio::test]
async fn a_whole_request_in_one_batch() {
    let stage = Stage::setup(SETUP).await;
    same_answer(&stage, whole(READ).sync(), "12TDDDCZ").await;
    same_answer(&stage, Batch::new().parse("", READ).bind("", "", &[]).execute("", 0).sync(), "12DDDCZ").await;
    same_answer(
        &stage,
        Batch::new().parse("", READ).describe_statement("").bind("", "", &[]).execute("", 0).sync(),
        "1tT2DDDCZ",
    )
    .await;
    same_answer(&stage, whole("INSERT INTO w VALUES (1)").sync(), "12nCZ").await;
    same_answer(&stage, whole("").sync(), "12nIZ").await;
    same_answer(&stage, whole("/* nothing */").sync(), "12nIZ").await;
    same_answer(&stage, Batch::new().sync(), "Z").await;
    same_answer(&stage, whole("SELECT 1; SELECT 2").sync(), "EZ").await;
}

#[tokio::test]
async fn describe_and_sync_may_travel_apart() {
    let stage = Stage::setup(SETUP).await;
    let steps = [
        Step::Ask(Batch::new().parse("s", ONE).sync()),
        Step::Ask(Batch::new().describe_statement("s").sync()),
        Step::Send(Batch::new().bind("", "s", &[Some(b"1")])),
        Step::Send(Batch::new().describe_portal("")),
        Step::Send(Batch::new().execute("", 0)),
        Step::Ask(Batch::new().sync()),
        Step::Ask(Batch::new().close_statement("s").sync()),
    ];
    same(&stage, &steps, "1ZtTZ2TDCZ3Z").await;
}

#[tokio::test]
async fn flush_delivers_what_there_is() {
    let stage = Stage::setup(SETUP).await;
    let steps = [
        Step::Send(Batch::new().parse("", READ).flush()),
        Step::Until('1'),
        Step::Send(Batch::new().describe_statement("").flush()),
        Step::Until('T'),
        Step::Send(Batch::new().bind("", "", &[]).flush()),
        Step::Until('2'),
        Step::Send(Batch::new().execute("", 0).flush()),
        Step::Until('C'),
        Step::Send(Batch::new().flush()),
        Step::Send(Batch::new().bind("", "", &[]).execute("", 1).flush()),
        Step::Until('s'),
        Step::Ask(Batch::new().sync()),
    ];
    same(&stage, &steps, "1tT2DDDC2DsZ").await;
    let errors = [
        Step::Send(Batch::new().parse("", "SELEC").flush()),
        Step::Until('E'),
        Step::Ask(Batch::new().parse("", "SELECT 1").sync()),
    ];
    same(&stage, &errors, "EZ").await;
}

#[tokio::test]
async fn pipelines_of_several_syncs_are_answered_in_order() {
    let stage = Stage::setup(SETUP).await;
    let mut pipeline = Batch::new();
    for id in ["1", "2", "3", "4"] {
        pipeline =
            pipeline.parse("", ONE).bind("", "", &[Some(id.as_bytes())]).describe_portal("").execute("", 0).sync();
    }
    let steps = [Step::Send(pipeline), Step::Until('Z'), Step::Until('Z'), Step::Until('Z'), Step::Until('Z')];
    same(&stage, &steps, "12TDCZ12TDCZ12TDCZ12TCZ").await;
    let mixed = Batch::new()
        .bytes(&whole(READ).sync().0)
        .query(READ)
        .bytes(&whole("INSERT INTO w VALUES (2)").sync().0)
        .query("SELECT count(*) > 0 FROM w")
        .bytes(&whole(READ).0)
        .bytes(&whole(READ).sync().0);
    let steps =
        [Step::Send(mixed), Step::Until('Z'), Step::Until('Z'), Step::Until('Z'), Step::Until('Z'), Step::Until('Z')];
    same(&stage, &steps, "12TDDDCZTDDDCZ12nCZTDCZ12TDDDC12TDDDCZ").await;
}

#[tokio::test]
async fn after_an_error_everything_up_to_sync_is_skipped() {
    let stage = Stage::setup(SETUP).await;
    let failing = Batch::new()
        .bytes(&whole(READ).0)
        .bytes(&whole("SELECT 1 / (id - 2) FROM t ORDER BY id").0)
        .bytes(&whole(READ).0)
        .bytes(&whole("INSERT INTO w VALUES (3)").sync().0)
        .bytes(&whole(READ).sync().0);
    same(&stage, &[Step::Send(failing), Step::Until('Z'), Step::Until('Z')], "12TDDDC12TEZ12TDDDCZ").await;
    same_answer(&stage, Batch::new().bind("", "missing", &[]).execute("", 0).sync(), "EZ").await;
    same_answer(&stage, Batch::new().execute("missing", 0).sync(), "EZ").await;
    same_answer(&stage, Batch::new().describe_statement("missing").describe_portal("missing").sync(), "EZ").await;
    same_answer(&stage, Batch::new().close_statement("missing").close_portal("missing").sync(), "33Z").await;
    same_answer(&stage, Batch::new().parse("", "SELECT nothing FROM t").bind("", "", &[]).execute("", 0).sync(), "EZ")
        .await;
    same_answer(&stage, Batch::new().parse("", ONE).bind("", "", &[Some(b"x")]).execute("", 0).sync(), "1EZ").await;
    same_answer(&stage, Batch::new().parse("", ONE).bind("", "", &[]).execute("", 0).sync(), "1EZ").await;
}

#[tokio::test]
async fn named_statements_and_portals() {
    let stage = Stage::setup(SETUP).await;
    let steps = [
        Step::Ask(Batch::new().parse("a", READ).parse("b", ONE).sync()),
        Step::Ask(
            Batch::new().bind("p", "a", &[]).bind("q", "b", &[Some(b"2")]).execute("q", 0).execute("p", 0).sync(),
        ),
        Step::Ask(Batch::new().bind("p", "b", &[Some(b"1")]).bind("p", "b", &[Some(b"1")]).sync()),
        Step::Ask(Batch::new().parse("a", "SELECT 1").sync()),
        Step::Ask(Batch::new().bind("", "a", &[]).execute("", 0).close_statement("a").close_statement("b").sync()),
        Step::Ask(Batch::new().bind("", "a", &[]).sync()),
    ];
    same(&stage, &steps, "11Z22DCDDDCZ2EZEZ2DDDC33ZEZ").await;
}

#[tokio::test]
async fn row_limits_suspend_a_portal() {
    let stage = Stage::setup(SETUP).await;
    let one_batch = Batch::new().parse("", READ).bind("", "", &[]).execute("", 2).execute("", 2).sync();
    same_answer(&stage, one_batch, "12DDsDCZ").await;
    let exactly = Batch::new().parse("", READ).bind("", "", &[]).execute("", 3).execute("", 0).sync();
    same_answer(&stage, exactly, "12DDDsCZ").await;
    let steps = [
        Step::Ask(Batch::new().query("BEGIN")),
        Step::Ask(Batch::new().parse("", READ).bind("p", "", &[]).execute("p", 1).sync()),
        Step::Ask(Batch::new().query("SELECT 1")),
        Step::Ask(Batch::new().execute("p", 1).sync()),
        Step::Ask(Batch::new().execute("p", 0).close_portal("p").sync()),
        Step::Ask(Batch::new().query("COMMIT")),
    ];
    same(&stage, &steps, "CZ12DsZTDCZDsZDC3ZCZ").await;
    let lost = [
        Step::Ask(Batch::new().parse("", READ).bind("p", "", &[]).execute("p", 1).sync()),
        Step::Ask(Batch::new().execute("p", 1).sync()),
    ];
    same(&stage, &lost, "12DsZEZ").await;
}

#[tokio::test]
async fn formats_of_parameters_and_results() {
    let stage = Stage::setup(SETUP).await;
    let sql = "SELECT id, v, n, d FROM t WHERE id = $1 OR v = $2 ORDER BY id";
    let four = 2_i32.to_be_bytes();
    for (formats, values, results) in [
        (&[][..], [Some(&b"2"[..]), None], &[][..]),
        (&[1, 0], [Some(&four[..]), Some(&b"one"[..])], &[1]),
        (&[0], [Some(b"2"), Some(b"one")], &[0, 1, 1, 0]),
        (&[1, 1], [Some(&four), Some(b"")], &[0]),
    ] {
        let batch = Batch::new()
            .parse_typed("", sql, &[23, 25])
            .bind_formats("", "", formats, &values, results)
            .describe_portal("")
            .execute("", 0)
            .sync();
        same_answer(&stage, batch, if values[1] == Some(&b"one"[..]) { "12TDDCZ" } else { "12TDCZ" }).await;
    }
    let wrong = Batch::new().parse("", READ).bind_formats("", "", &[], &[], &[1, 1]).execute("", 0).sync();
    same_answer(&stage, wrong, "1EZ").await;
}

#[tokio::test]
async fn a_table_that_changes_below_a_prepared_statement() {
    let stage = Stage::setup(SETUP).await;
    let steps = [
        Step::Ask(Batch::new().query("CREATE TABLE x (a int)")),
        Step::Ask(Batch::new().parse("s", "SELECT * FROM x").sync()),
        Step::Ask(Batch::new().bind("", "s", &[]).execute("", 0).sync()),
        Step::Ask(Batch::new().bind("", "s", &[]).execute("", 0).sync()),
        Step::Ask(Batch::new().query("ALTER TABLE x ADD b int")),
        Step::Ask(Batch::new().bind("", "s", &[]).execute("", 0).sync()),
        Step::Ask(Batch::new().close_statement("s").query("DROP TABLE x")),
    ];
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    for _ in 0..3 {
        // One after the other: both are sessions of one database.
        let wanted = super::same::converse(&mut direct, &steps).await;
        assert_eq!(crate::harness::raw::tags(&wanted), "CZ1Z2CZ2CZCZEZ3CZ");
        let heard = super::same::converse(&mut proxied, &steps).await;
        assert_eq!(heard, wanted);
    }
}

#[tokio::test]
async fn function_call_messages() {
    let stage = Stage::setup(SETUP).await;
    let oid: u32 = stage.direct().await.one("SELECT 'int4pl(int, int)'::regprocedure::oid").await.parse().unwrap();
    let mut body = oid.to_be_bytes().to_vec();
    body.extend([0, 1, 0, 1, 0, 2]);
    for value in [40_i32, 2] {
        body.extend(4_i32.to_be_bytes());
        body.extend(value.to_be_bytes());
    }
    body.extend([0, 1]);
    same_answer(&stage, Batch::new().message(b'F', &body), "VZ").await;
    same_answer(&stage, Batch::new().message(b'F', &[0, 0, 0, 1, 0, 0, 0, 0, 0, 0]), "EZ").await;
}

#[tokio::test]
async fn notices_and_parameter_changes() {
    let stage = Stage::setup(SETUP).await;
    same_answer(&stage, Batch::new().query("DO $$ BEGIN RAISE NOTICE 'n'; RAISE WARNING 'w'; END $$"), "NNCZ").await;
    let steps = [
        Step::Ask(Batch::new().query("SET TimeZone = 'Asia/Tokyo'")),
        Step::Ask(whole("SET application_name = 'x'").sync()),
        Step::Ask(Batch::new().query("SET DateStyle = 'German'; RESET ALL")),
    ];
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    for _ in 0..3 {
        let wanted = super::same::converse(&mut direct, &steps).await;
        assert!(crate::harness::raw::tags(&wanted).contains('S'));
        assert_eq!(super::same::converse(&mut proxied, &steps).await, wanted);
    }
}
