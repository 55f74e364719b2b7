//! Answers from the cache, byte for byte.

use crate::harness::Stage;
use crate::harness::raw::{Batch, tags};

const SETUP: &str = "CREATE TABLE t (id int PRIMARY KEY, v text, n numeric, d timestamptz, b bytea, a int[]);
    INSERT INTO t SELECT i, repeat('v', i), i / 3.0, '2024-01-01', '\\x00ff', ARRAY[i, NULL] FROM generate_series(1, 50) i;
    INSERT INTO t VALUES (51)";
const READ: &str = "SELECT * FROM t ORDER BY id";
const PARAMETERS: &str = "SELECT * FROM t WHERE id = $1 OR v = $2";

/// Repeats `batch` until its answer comes from the cache; that answer must be the server's.
async fn cached_equals_direct(stage: &Stage, before: Batch, batch: Batch) {
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    if !before.0.is_empty() {
        assert_eq!(proxied.ask(before.clone()).await, direct.ask(before).await);
    }
    let wanted = direct.ask(batch.clone()).await;
    let heard = stage.until_hit(&batch.0.escape_ascii().to_string(), async || proxied.ask(batch.clone()).await).await;
    assert_eq!(tags(&heard), tags(&wanted));
    assert_eq!(heard, wanted);
    // And a statement that is not cached still works on the same connection afterwards.
    assert_eq!(proxied.query("SELECT 1/0").await, direct.query("SELECT 1/0").await);
    assert_eq!(proxied.ask(batch.clone()).await, wanted);
}

#[tokio::test]
async fn simple_protocol() {
    let stage = Stage::setup(SETUP).await;
    for sql in [READ, "SELECT id FROM t WHERE false", "TABLE t", "SELECT FROM t", "SELECT count(*) FROM t;"] {
        cached_equals_direct(&stage, Batch::new(), Batch::new().query(sql)).await;
    }
}

#[tokio::test]
async fn extended_protocol_with_and_without_describe_in_text_and_binary() {
    let stage = Stage::setup(SETUP).await;
    for results in [&[][..], &[0], &[1], &[1, 0, 1, 0, 1, 0]] {
        let bind = |batch: Batch| batch.bind_formats("", "", &[], &[], results);
        cached_equals_direct(&stage, Batch::new(), bind(Batch::new().parse("", READ)).execute("", 0).sync()).await;
        cached_equals_direct(
            &stage,
            Batch::new(),
            bind(Batch::new().parse("", READ)).describe_portal("").execute("", 0).sync(),
        )
        .await;
        cached_equals_direct(
            &stage,
            Batch::new().parse("s", READ).describe_statement("s").sync(),
            Batch::new().bind_formats("", "s", &[], &[], results).execute("", 0).sync(),
        )
        .await;
    }
}

#[tokio::test]
async fn a_statement_described_in_the_batch_that_executes_it() {
    let stage = Stage::setup(SETUP).await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let batch = || {
        let described = Batch::new().parse("", PARAMETERS).describe_statement("");
        described.bind("", "", &[Some(b"7"), None]).describe_portal("").execute("", 0).sync()
    };
    for _ in 0..5 {
        assert_eq!(proxied.ask(batch()).await, direct.ask(batch()).await);
    }
}

#[tokio::test]
async fn a_named_portal_closed_in_the_same_batch() {
    let stage = Stage::setup(SETUP).await;
    let before = || Batch::new().parse("s", READ).sync();
    let batch = Batch::new().bind("p", "s", &[]).describe_portal("p").execute("p", 0).close_portal("p").sync();
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    assert_eq!(proxied.ask(before()).await, direct.ask(before()).await);
    for _ in 0..5 {
        assert_eq!(proxied.ask(batch.clone()).await, direct.ask(batch.clone()).await);
    }
}

#[tokio::test]
async fn parameters_in_text_and_binary() {
    let stage = Stage::setup(SETUP).await;
    let seven = 7_i32.to_be_bytes();
    for (formats, values) in [
        (&[][..], [Some(&b"7"[..]), None]),
        (&[1, 0], [Some(&seven[..]), Some(&b"vv"[..])]),
        (&[0, 1], [None, Some(b"v")]),
    ] {
        let batch = Batch::new()
            .parse_typed("", PARAMETERS, &[23, 25])
            .bind_formats("", "", formats, &values, &[1])
            .describe_portal("")
            .execute("", 0)
            .sync();
        cached_equals_direct(&stage, Batch::new(), batch).await;
    }
}

#[tokio::test]
async fn the_format_of_one_client_is_not_sent_to_another() {
    let stage = Stage::setup(SETUP).await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let ask =
        |results: &[i16]| Batch::new().parse("", READ).bind_formats("", "", &[], &[], results).execute("", 0).sync();
    for _ in 0..4 {
        for results in [&[][..], &[1], &[0, 1, 0, 1, 0, 1]] {
            assert_eq!(proxied.ask(ask(results)).await, direct.ask(ask(results)).await, "{results:?}");
        }
        assert_eq!(proxied.query(READ).await, direct.query(READ).await);
    }
}

#[tokio::test]
async fn an_unnamed_statement_of_a_cached_request_can_be_bound_again() {
    let stage = Stage::setup(SETUP).await;
    let mut raw = stage.raw().await;
    let sql = "SELECT v FROM t WHERE id = $1";
    let whole = Batch::new().parse("", sql).bind("", "", &[Some(b"3")]).execute("", 0).sync();
    stage.until_hit(sql, async || raw.ask(whole.clone()).await).await;
    // The proxy has answered without the server: the server has not seen this Parse on this connection, perhaps none.
    let again = raw.ask(Batch::new().bind("", "", &[Some(b"5")]).describe_portal("").execute("", 0).sync()).await;
    assert_eq!(tags(&again), "2TDCZ", "{again:?}");
    assert_eq!(again[2].text(), "vvvvv");
    let described = raw.ask(Batch::new().describe_statement("").sync()).await;
    assert_eq!(tags(&described), "tTZ", "{described:?}");
    let limited = raw.ask(Batch::new().bind("", "", &[Some(b"2")]).execute("", 1).sync()).await;
    assert_eq!(tags(&limited), "2DsZ", "{limited:?}");
}

#[tokio::test]
async fn an_unnamed_statement_replaced_by_a_cached_request_is_the_new_one() {
    let stage = Stage::setup(SETUP).await;
    let mut raw = stage.raw().await;
    let warm = Batch::new().parse("", "SELECT 'new' FROM t WHERE id = 1").bind("", "", &[]).execute("", 0).sync();
    stage.until_hit("warm", async || raw.ask(warm.clone()).await).await;
    raw.ask(Batch::new().parse("", "SELECT 'old', random()").bind("", "", &[]).execute("", 0).sync()).await;
    let hit = raw.ask(warm.clone()).await;
    assert_eq!(hit[2].text(), "new");
    let again = raw.ask(Batch::new().bind("", "", &[]).execute("", 0).sync()).await;
    assert_eq!(again[1].text(), "new", "the server still had the statement before the cached one");
    // A simple query destroys the unnamed statement, cached or not.
    stage.until_hit("a simple read", async || raw.query("SELECT count(*) FROM t").await).await;
    let gone = raw.ask(Batch::new().bind("", "", &[]).execute("", 0).sync()).await;
    assert_eq!(gone[0].field('C').as_deref(), Some("26000"), "{gone:?}");
}

#[tokio::test]
async fn a_named_statement_parsed_in_a_cached_request_exists() {
    let stage = Stage::setup(SETUP).await;
    let sql = "SELECT v FROM t WHERE id = 2";
    let mut raw = stage.raw().await;
    stage.until_hit(sql, async || raw.ask(Batch::one_batch(sql)).await).await;
    let whole = |name: &str| Batch::new().parse(name, sql).bind("", name, &[]).execute("", 0).sync();
    assert_eq!(tags(&raw.ask(whole("mine")).await), "12DCZ");
    let frames = raw.query("EXECUTE mine").await;
    assert_eq!(frames[1].text(), "vv", "SQL must see a statement that the protocol has prepared: {frames:?}");
    let frames = raw.query("SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'").await;
    assert_eq!(frames[1].text(), "1");
    let twice = raw.ask(whole("mine")).await;
    assert_eq!(twice[0].field('C').as_deref(), Some("42P05"), "preparing a name twice is an error: {twice:?}");
    raw.query("DEALLOCATE mine").await;
    let gone = raw.ask(Batch::new().bind("", "mine", &[]).execute("", 0).sync()).await;
    assert_eq!(gone[0].field('C').as_deref(), Some("26000"), "{gone:?}");
}

#[tokio::test]
async fn deallocate_all_and_discard_all_forget_statements() {
    let stage = Stage::setup(SETUP).await;
    let mut raw = stage.raw().await;
    for forget in ["DEALLOCATE ALL", "DISCARD ALL", "DEALLOCATE PREPARE ALL"] {
        raw.ask(Batch::new().parse("s", READ).sync()).await;
        let run = || Batch::new().bind("", "s", &[]).execute("", 0).sync();
        for _ in 0..4 {
            assert!(tags(&raw.ask(run()).await).ends_with("CZ"));
        }
        raw.query(forget).await;
        let gone = raw.ask(run()).await;
        assert_eq!(gone[0].field('C').as_deref(), Some("26000"), "after {forget}: {gone:?}");
    }
}

#[tokio::test]
async fn slices_of_a_cached_result() {
    let stage = Stage::setup(SETUP).await;
    let client = stage.client().await;
    let sql = "SELECT id FROM t ORDER BY id";
    stage.until_hit(sql, async || client.binary(sql).await).await;
    stage.cached(&client, sql).await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    for rows in [1, 50, 51, 52, 0, -1] {
        let batch =
            || Batch::new().parse("", sql).bind("", "", &[]).execute("", rows).execute("", rows).execute("", 0).sync();
        for _ in 0..3 {
            assert_eq!(proxied.ask(batch()).await, direct.ask(batch()).await, "Execute with a limit of {rows}");
        }
    }
}

#[tokio::test]
async fn the_same_text_with_other_white_space_and_comments_has_its_own_error_positions() {
    let stage = Stage::setup(SETUP).await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    for sql in [
        "SELECT id   FROM t",
        "SELECT id FROM t /* c */",
        "SELECT id FROM t",
        "SELECT  idd FROM t",
        "SELECT idd FROM t",
    ] {
        for _ in 0..3 {
            assert_eq!(proxied.query(sql).await, direct.query(sql).await, "{sql}");
        }
    }
    // Column names come from the text: case and quotes are no white space.
    for sql in [
        "SELECT id AS a FROM t",
        "SELECT id AS \"A\" FROM t",
        "SELECT id AS A FROM t",
        "SELECT 'x  y' FROM t",
        "SELECT 'x y' FROM t",
    ] {
        for _ in 0..3 {
            assert_eq!(proxied.query(sql).await, direct.query(sql).await, "{sql}");
        }
    }
}

/// As JDBC reads with a fetch size.
#[tokio::test]
async fn a_result_that_is_cached_is_read_in_parts() {
    let stage = Stage::setup(SETUP).await;
    let (mut proxied, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let whole = || Batch::new().parse("", READ).bind("", "", &[]).describe_portal("").execute("", 0).sync();
    stage.until_hit(READ, async || proxied.ask(whole()).await).await;
    for rows in [1, 7, 51, 100] {
        let mut steps = vec![
            Batch::new()
                .parse("", "BEGIN")
                .bind("", "", &[])
                .execute("", 0)
                .parse("s", READ)
                .bind("p", "s", &[])
                .sync(),
            Batch::new().describe_portal("p").execute("p", rows).sync(),
        ];
        steps.extend((0..51 / rows).map(|_| Batch::new().execute("p", rows).sync()));
        steps.push(
            Batch::new()
                .close_portal("p")
                .close_statement("s")
                .parse("", "COMMIT")
                .bind("", "", &[])
                .execute("", 0)
                .sync(),
        );
        for step in steps {
            assert_eq!(proxied.ask(step.clone()).await, direct.ask(step).await, "{rows} rows at a time");
        }
        assert_eq!(proxied.ask(whole()).await, direct.ask(whole()).await);
    }
}
