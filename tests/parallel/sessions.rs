//! Protocols, parameters, formats, settings and roles: a split read is the session's own.

use super::stage::{NUMBERS, ended, options, same, skipped, stage, unsplit};
use crate::harness::raw::{Batch, tags};

#[tokio::test]
async fn both_protocols_and_all_formats_get_the_same_answer() {
    let stage = stage(options().key("cache.max_entry_bytes", 1), NUMBERS).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let simple = same(&stage, &mut raw, &mut direct, Batch::new().query("SELECT * FROM numbers -- all\n;")).await;
    assert_eq!(simple.rows.len(), 20_000);
    assert_eq!(tags(&simple.others), "TCZ");

    let select = "SELECT n, t, ctid, numbers.tableoid FROM public.numbers WHERE n > $1 OR m = $2";
    let values: [Option<&[u8]>; 2] = [Some(b"10000"), None];
    let batch =
        Batch::new().parse_typed("", select, &[23]).bind("", "", &values).describe_portal("").execute("", 0).sync();
    assert_eq!(tags(&same(&stage, &mut raw, &mut direct, batch).await.others), "12TCZ");

    let binary: [Option<&[u8]>; 2] = [Some(&[0, 0, 0, 7]), Some(b"3")];
    // A named statement is the server's to make; from then on it is split.
    let parse = Batch::new().parse("s", select).sync();
    assert_eq!(raw.ask(parse.clone()).await, direct.ask(parse).await);
    let batch = Batch::new().bind_formats("", "s", &[1, 0], &binary, &[1]).execute("", 0).sync();
    assert_eq!(tags(&same(&stage, &mut raw, &mut direct, batch).await.others), "2CZ");
    let again =
        Batch::new().bind_formats("", "s", &[1, 0], &binary, &[1, 0, 1, 0]).describe_portal("").execute("", 0).sync();
    assert_eq!(tags(&same(&stage, &mut raw, &mut direct, again).await.others), "2TCZ");

    let nothing = same(&stage, &mut raw, &mut direct, Batch::new().query("SELECT n FROM numbers WHERE n < 0")).await;
    assert_eq!(nothing.rows.len(), 0);
    // The statement that only the proxy has answered is there when somebody refers to it.
    let unnamed = Batch::new().parse("", "SELECT t FROM numbers").bind("", "", &[]).execute("", 0).sync();
    same(&stage, &mut raw, &mut direct, unnamed).await;
    let described = Batch::new().describe_statement("").sync();
    assert_eq!(raw.ask(described.clone()).await, direct.ask(described).await);
}

#[tokio::test]
async fn a_prepared_statement_whose_result_has_changed_its_shape_is_refused() {
    let stage = stage(options(), NUMBERS).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    // The first statement of all makes the session's settings known.
    same(&stage, &mut raw, &mut direct, Batch::new().query("SELECT n FROM numbers")).await;
    let parse = Batch::new().parse("s", "SELECT * FROM numbers").sync();
    assert_eq!(raw.ask(parse.clone()).await, direct.ask(parse).await);
    let run = || Batch::new().bind("", "s", &[]).execute("", 0).sync();
    same(&stage, &mut raw, &mut direct, run()).await;
    raw.query("ALTER TABLE numbers ADD COLUMN more int").await;
    for _ in 0..3 {
        let answer = raw.ask(run()).await;
        assert_eq!(
            answer.iter().find(|frame| frame.tag == b'E').expect("refused").field('C').as_deref(),
            Some("0A000")
        );
    }
    assert_eq!(ended(&stage, "complete").await, 2);
}

#[tokio::test]
async fn rows_come_in_the_tables_own_order() {
    let stage = stage(options(), NUMBERS).await;
    let mut raw = stage.raw().await;
    let rows = raw.query("SELECT n FROM numbers").await;
    let numbers: Vec<u32> =
        rows.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.text().parse().unwrap()).collect();
    assert_eq!(numbers, (1..=20_000).collect::<Vec<_>>());
    assert_eq!(ended(&stage, "complete").await, 1);
}

#[tokio::test]
async fn every_way_of_sharing_the_work_reads_every_row_once() {
    for (adaptive, stealing, degree) in [(true, true, 2), (false, true, 4), (false, false, 3), (true, false, 2)] {
        let options = options()
            .key("parallel.adaptive_parallelism", adaptive)
            .key("parallel.work_stealing", stealing)
            .key("parallel.max_parallelism", degree)
            .key("cache.max_entry_bytes", 1);
        let stage = stage(options, NUMBERS).await;
        let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
        for _ in 0..3 {
            same(&stage, &mut raw, &mut direct, Batch::new().query("SELECT * FROM numbers")).await;
        }
    }
}

#[tokio::test]
async fn a_sessions_settings_and_role_hold_for_its_split_reads() {
    let setup = "CREATE TABLE stamps AS SELECT n, now() + n * interval '1 hour' AS at, n / 3.0::float8 AS f, '\\x00ff'::bytea AS b
                 FROM generate_series(1, 5000) n; ANALYZE stamps;
                 CREATE SCHEMA other; CREATE TABLE other.stamps AS SELECT n FROM generate_series(1, 5000) n; ANALYZE other.stamps;
                 CREATE ROLE reader; GRANT SELECT ON stamps TO reader; GRANT USAGE ON SCHEMA other TO reader";
    let stage = stage(options().key("cache.max_entry_bytes", 1), setup).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let select = || Batch::new().query("SELECT * FROM stamps");
    same(&stage, &mut raw, &mut direct, select()).await;
    for set in [
        "SET TimeZone = 'Asia/Tokyo'",
        "SET datestyle = 'SQL, DMY'",
        "SET extra_float_digits = 0",
        "SET bytea_output = 'escape'",
        "SET search_path = other, \"odd, name\", public",
        "RESET search_path",
        "SET work_mem = '64kB'",
        "SET my.own = 'x; y'",
        "SET application_name = 'it''s me'",
        "SET ROLE reader",
        "RESET ROLE",
        "SET client_encoding = 'UTF8'",
        "BEGIN; SET TimeZone = 'Europe/Paris'; ROLLBACK",
        "BEGIN; SET LOCAL TimeZone = 'Europe/Paris'; COMMIT",
        "BEGIN; SET TimeZone = 'Europe/Paris'; COMMIT",
        "SELECT set_config('TimeZone', 'America/Lima', false)",
        "DISCARD ALL",
    ] {
        for raw in [&mut raw, &mut direct] {
            let answer = raw.query(set).await;
            assert!(!tags(&answer).contains('E'), "{set}: {answer:?}");
        }
        same(&stage, &mut raw, &mut direct, select()).await;
    }
    for raw in [&mut raw, &mut direct] {
        raw.query("SET ROLE reader; SET search_path = other").await;
    }
    let denied = unsplit(&stage, "no right to read", raw.query("SELECT * FROM stamps")).await;
    assert_eq!(denied[0].field('C').as_deref(), Some("42501"));
}

#[tokio::test]
async fn a_split_read_sees_what_its_session_has_written_and_is_kept_until_somebody_writes() {
    let stage = stage(options(), NUMBERS).await;
    let (mut raw, mut other) = (stage.raw().await, stage.raw().await);
    let count = |frames: &[crate::harness::raw::Frame]| frames.iter().filter(|frame| frame.tag == b'D').count();
    assert_eq!(count(&raw.query("SELECT n FROM numbers").await), 20_000);
    let hits = stage.proxy.hits().await;
    assert_eq!(count(&other.query("SELECT n FROM numbers").await), 20_000);
    assert_eq!(stage.proxy.hits().await, hits + 1, "the second read comes from the cache");
    assert_eq!(ended(&stage, "complete").await, 1);
    other.query("INSERT INTO numbers VALUES (0, 'x', 0)").await;
    assert_eq!(count(&raw.query("SELECT n FROM numbers").await), 20_001);
    raw.query("DELETE FROM numbers WHERE n > 10000").await;
    assert_eq!(count(&raw.query("SELECT n FROM numbers").await), 10_001);
    assert_eq!(ended(&stage, "complete").await, 3);
}

#[tokio::test]
async fn connections_are_used_again_and_never_more_than_allowed() {
    // Without stealing all three are there before anybody begins.
    let options = options().key("parallel.max_connections", 3).key("parallel.work_stealing", "false");
    let stage = stage(options.key("cache.max_entry_bytes", 1), NUMBERS).await;
    let mut raw = stage.raw().await;
    let direct = stage.direct().await;
    let own = raw.query("SELECT pg_backend_pid()").await[1].text();
    let workers =
        format!("FROM pg_stat_activity WHERE datname = current_database() AND query = 'ROLLBACK' AND pid <> {own}");
    let mut seen = Vec::new();
    for _ in 0..3 {
        assert_eq!(tags(&raw.query("SELECT n FROM numbers WHERE n = 5").await), "TDCZ");
        direct.until("all are back", &format!("SELECT count(*) = 3 {workers} AND state = 'idle'")).await;
        seen.push(direct.one(&format!("SELECT string_agg(pid::text, ',' ORDER BY pid) {workers}")).await);
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
    // Another kind of session gets its connections from the first one's.
    let mut other = stage.raw().await;
    other.query("SET work_mem = '1MB'").await;
    assert_eq!(tags(&other.query("SELECT n FROM numbers WHERE n = 5").await), "TDCZ");
    assert_eq!(ended(&stage, "complete").await, 4);
    assert_eq!(skipped(&stage, "busy").await, 0);
}
