//! Aggregates and groups, put together from parts: what PostgreSQL would have answered, to the byte.

use super::stage::{Answer, ended, options, same, skipped, stage, unsplit, until_the_catalogue_is_known, why};
use crate::harness::raw::{Batch, Frame, tags};
use crate::harness::{Raw, Stage};

/// Columns of many types, with NULLs, and groups of very different sizes. Everything is planned by one backend.
const SALES: &str = "
    CREATE TABLE sales (id int, m int, big bigint, price numeric(12, 2), ratio numeric, weight float8, name text COLLATE \"C\",
        word varchar(20), flag bool, code char(4), day date, at timestamptz, u uuid, raw bytea, small smallint);
    INSERT INTO sales SELECT i, nullif(i % 7, 3), i::bigint * 4000000000, i % 1000 / 100.0, i / 7.0, sqrt(i),
        CASE WHEN i % 5 > 0 THEN chr(65 + i % 50) || i % 3 END, 'w' || i % 11, nullif(i % 3, 2) = 0, 'c' || i % 6,
        date '2020-01-31' + i % 400, timestamptz '2020-02-01 12:00+00' + i * interval '37 minutes', md5((i % 9)::text)::uuid,
        decode(md5((i % 4)::text), 'hex'), i % 100 FROM generate_series(1, 8000) i;
    CREATE TABLE empty WITH (autovacuum_enabled = false) AS
        SELECT i AS n, i % 7 AS m, 'x'::text AS t, i / 3.0 AS price FROM generate_series(1, 3000) i;
    DELETE FROM empty;
    CREATE TABLE floats AS SELECT i % 3 AS k, CASE i % 9 WHEN 0 THEN 'NaN' WHEN 1 THEN '-Infinity' ELSE sqrt(i) END AS f,
        i::float4 AS r, CASE i % 100 WHEN 7 THEN 'NaN' ELSE i / 3.0 END AS n FROM generate_series(1, 3000) i;
    CREATE TABLE parts (k int, n int, t text, price numeric) PARTITION BY LIST (k);
    CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE parts_2 (n int, k int, price numeric, t text);
    ALTER TABLE parts ATTACH PARTITION parts_2 FOR VALUES IN (2, 3);
    INSERT INTO parts SELECT 1 + i % 3, i, 't' || i % 40, i / 7.0 FROM generate_series(1, 4000) i;
    CREATE TABLE same AS SELECT i % 2 AS n, 4000000000 AS big, 0.1 AS ratio FROM generate_series(1, 8000) i;
    CREATE TABLE pairs AS SELECT i % 4 AS a, i % 6 AS b, i AS c FROM generate_series(1, 4000) i;
    DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET max_parallel_workers_per_gather = 0', current_database()); END $$;
    ANALYZE";

async fn sales() -> (Stage, Raw, Raw) {
    let stage = stage(options().key("cache.max_entry_bytes", 1), SALES).await;
    let (raw, direct) = (stage.raw().await, stage.raw_direct().await);
    (stage, raw, direct)
}

#[tokio::test]
async fn they_answer_what_the_server_answers() {
    let (stage, mut raw, mut direct) = sales().await;
    for sql in [
        "SELECT count(*) FROM sales",
        "SELECT count(*), count(m), sum(id), sum(big), sum(price), sum(small), avg(id), avg(big), avg(price), avg(small), avg(ratio) FROM sales",
        "SELECT min(id), max(big), min(price), max(ratio), min(weight), max(name), min(word), max(day), min(at), max(small) FROM sales",
        "SELECT bool_and(flag), bool_or(flag), every(id > 0), bit_and(id), bit_or(small), bit_or(big) FROM sales WHERE id > 100",
        "SELECT count(*), sum(n), avg(n), min(n), max(t), sum(price), bool_and(m > 0) FROM empty",
        "SELECT m, count(*) FROM empty GROUP BY m",
        "SELECT count(*), sum(id) FROM sales WHERE id < 0",
        "SELECT m, count(*) FROM sales WHERE id < 0 GROUP BY m",
        "SELECT m, count(*), sum(price), avg(ratio) FROM sales GROUP BY m",
        "SELECT m AS k, flag, count(*) n FROM sales GROUP BY m, flag HAVING count(*) > 300 AND sum(id) > 5",
        "SELECT name, max(name), min(day) FROM sales GROUP BY name",
        "SELECT word, code, u, raw, day, count(*) FROM sales WHERE id % 3 = 0 GROUP BY word, code, u, raw, day",
        "SELECT price, at::date, small, big, max(at) FROM sales WHERE id < 300 GROUP BY 1, 2, 3, 4",
        "SELECT date_trunc('month', at) AS month, sum(price)::text || ' EUR', round(avg(price), 3) FROM sales GROUP BY month",
        "SELECT id % 10, count(*), 100 * count(*) / (1 + id % 10) FROM sales GROUP BY id % 10",
        "SELECT CASE WHEN m > 3 THEN 'many' ELSE 'few' END AS size, count(*) FROM sales GROUP BY size",
        "SELECT upper(word), length(upper(word)) FROM sales GROUP BY upper(word)",
        "SELECT count(*) FILTER (WHERE flag), avg(id) FILTER (WHERE m = 2 AND NOT flag), sum(id) FROM sales",
        "SELECT m, count(DISTINCT small), sum(DISTINCT small), avg(DISTINCT small), count(*), max(name) FROM sales GROUP BY m",
        "SELECT count(DISTINCT word), count(*) FROM sales",
        "SELECT count(DISTINCT n), count(*), sum(n) FROM empty",
        // Ranges with equal sums.
        "SELECT sum(big), sum(ratio), avg(big), count(*) FROM same",
        "SELECT n, sum(big), avg(ratio) FROM same GROUP BY n",
        "SELECT DISTINCT m FROM sales",
        "SELECT DISTINCT m + 1 AS x, flag, 'label' FROM sales WHERE id > 5",
        "SELECT DISTINCT flag, count(*) > 5 FROM sales GROUP BY flag, m",
        "SELECT sum(price) * 2 - avg(id), 'text', $$it's$$, NULL, sum(id) IS NULL FROM sales",
        "SELECT (m), count(*) FROM ONLY public.sales AS s WHERE s.id > 3 OR s.flag GROUP BY s.m HAVING max(s.id) IS DISTINCT FROM 5",
        "SELECT \"m\" , SUM ( id ) /* total */ FROM sales -- a comment ) FROM\n GROUP BY m",
        "SELECT k, count(f), min(f), max(n), sum(n), avg(n) FROM floats GROUP BY k",
        "SELECT count(*) FROM sales HAVING count(*) > 100000",
        "SELECT flag FROM sales GROUP BY flag",
        "SELECT sum(id), sum(sales.id), count(*) AS \"sum\" FROM sales",
        "SELECT k, count(*), sum(price), max(t) FROM parts GROUP BY k",
        "SELECT DISTINCT t, n % 2 FROM parts WHERE n > 7",
    ] {
        same(&stage, &mut raw, &mut direct, Batch::new().query(sql)).await;
        same(&stage, &mut raw, &mut direct, Batch::one_batch(sql)).await;
    }
}

/// Frames but for notices, in their order.
async fn sequence(raw: &mut Raw, sql: &str) -> Vec<Frame> {
    raw.query(sql).await
}

#[tokio::test]
async fn an_order_and_a_limit_are_kept() {
    let (stage, mut raw, mut direct) = sales().await;
    for sql in [
        "SELECT m, count(*) FROM sales GROUP BY m ORDER BY m",
        "SELECT m, count(*) FROM sales GROUP BY m ORDER BY m DESC NULLS LAST",
        "SELECT m, sum(id) AS s FROM sales GROUP BY m ORDER BY s DESC, m LIMIT 3",
        "SELECT m, sum(id) AS s FROM sales GROUP BY m ORDER BY 2 OFFSET 2",
        "SELECT name, flag, count(*) FROM sales GROUP BY flag, name ORDER BY count(*), name, flag LIMIT 10 OFFSET 5",
        "SELECT word FROM sales GROUP BY word ORDER BY sum(id) FETCH FIRST 4 ROWS ONLY",
        "SELECT word AS m, count(*) FROM sales GROUP BY word ORDER BY m",
        "SELECT DISTINCT name FROM sales ORDER BY name",
        "SELECT DISTINCT lower(name) AS l FROM sales ORDER BY lower(name) DESC LIMIT 7",
        "SELECT day, max(name) FROM sales GROUP BY sales.day ORDER BY sales.day LIMIT 20",
        "SELECT id % 5 AS r, min(name) FROM sales GROUP BY r ORDER BY min(name), r",
        "SELECT count(*) FROM sales ORDER BY count",
    ] {
        let before = ended(&stage, "complete").await;
        assert_eq!(sequence(&mut raw, sql).await, sequence(&mut direct, sql).await, "{sql}");
        assert_eq!(ended(&stage, "complete").await, before + 1, "{sql}: {}", why(&stage).await);
    }
}

#[tokio::test]
async fn parameters_and_formats_are_the_clients() {
    let (stage, mut raw, mut direct) = sales().await;
    let ask = |sql: &str, types: &[u32], values: &[Option<&[u8]>], results: &[i16]| {
        let batch = Batch::new().parse_typed("", sql, types);
        batch.bind_formats("", "", &[], values, results).describe_portal("").execute("", 0).sync()
    };
    for results in [&[][..], &[0], &[1]] {
        for (sql, types, values) in [
            ("SELECT m, sum(price), avg(big) FROM sales WHERE id > $1 GROUP BY m", &[][..], &[Some(&b"100"[..])][..]),
            (
                "SELECT m % $1, count(*) FROM sales GROUP BY m % $1 HAVING count(*) > $2",
                &[23, 20],
                &[Some(b"3"), Some(b"10")],
            ),
            (
                "SELECT m, count(*) FROM sales GROUP BY m HAVING count(*) > $1 ORDER BY m LIMIT $2",
                &[],
                &[Some(b"10"), Some(b"4")],
            ),
            ("SELECT $1::text, count(*), max(name) FROM sales WHERE name < $2", &[], &[Some(b"x"), Some(b"M")]),
            ("SELECT word, min(at), sum(id) FROM sales WHERE flag = $1 GROUP BY word", &[16], &[Some(b"t")]),
        ] {
            same(&stage, &mut raw, &mut direct, ask(sql, types, values, results)).await;
        }
    }
    let mixed = ask("SELECT m, sum(price) FROM sales GROUP BY m", &[], &[], &[1, 0]);
    same(&stage, &mut raw, &mut direct, mixed).await;
}

/// Texts of one shape, or nearly, which mean different things.
#[tokio::test]
async fn what_a_text_means_is_found_out_each_time() {
    let (stage, mut raw, mut direct) = sales().await;
    for sql in [
        "SELECT a, b, count(*) FROM pairs GROUP BY 1, 2",
        "SELECT a, b, count(*) FROM pairs GROUP BY 2, 1",
        "SELECT a AS x, max(b) FROM pairs GROUP BY 1",
        "SELECT a AS x, max(b) FROM pairs GROUP BY 2",
        "SELECT max(a) AS x, b FROM pairs GROUP BY 2 ORDER BY 1, 2 LIMIT 1",
        "SELECT max(a) AS x, b FROM pairs GROUP BY 2 ORDER BY 2, 1 LIMIT 3",
        "SELECT max(a) AS x, b FROM pairs GROUP BY 2 ORDER BY 3",
        // A column of the table goes before a name that the list gives.
        "SELECT c % 2 AS b, count(*) FROM pairs GROUP BY b",
        "SELECT c % 2 AS b, count(*) FROM pairs GROUP BY b, c",
        "SELECT c % 2 AS d, count(*) FROM pairs GROUP BY d",
        "SELECT a AS b, b AS a, count(*) FROM pairs GROUP BY a, b",
        "SELECT a AS b, b AS a, count(*) FROM pairs GROUP BY 1, 2 ORDER BY a, b",
        // Longer than a key.
        "SELECT a + b * 2, count(*) FROM pairs GROUP BY a + b, b",
        "SELECT b + a + b, count(*) FROM pairs GROUP BY a + b, b",
        "SELECT a + b + 1 AS x, count(*) FROM pairs GROUP BY a + b",
        // Aggregates that are not put together, some of them over keys.
        "SELECT a, string_agg(a::text, ',') FROM pairs WHERE c < 50 GROUP BY a",
        "SELECT a, array_length(array_agg(a), 1) FROM pairs GROUP BY a",
        "SELECT count(*), array_agg(1) FROM pairs WHERE c < 20",
        "SELECT a, corr(a, a), count(*) FROM pairs GROUP BY a",
        "SELECT count(*), percentile_disc(0.5) WITHIN GROUP (ORDER BY c) FROM pairs",
        "SELECT a, count(*), sum(count(*)) OVER () FROM pairs GROUP BY a",
        "SELECT a, generate_series(1, 2), count(*) FROM pairs GROUP BY a",
        "SELECT count(*) FROM pairs HAVING stddev(a) > 0",
        "SELECT a FROM pairs GROUP BY a ORDER BY variance(b)",
        "SELECT a, b, count(*) FROM pairs GROUP BY CUBE (a, b)",
        // Sums that depend on the order, keys that are equal and not the same.
        "SELECT avg(weight) > 0 FROM sales",
        "SELECT sum(r) > 0 FROM floats",
        "SELECT ratio, count(*) FROM sales WHERE id < 100 GROUP BY ratio",
        "SELECT f, count(*) FROM floats WHERE k = 1 GROUP BY f",
        "SELECT count(DISTINCT f) FROM floats",
        "SELECT sum(at - at) FROM sales",
        "SELECT max(price), min(price) FROM parts",
        // Errors.
        "SELECT a, b FROM pairs GROUP BY a",
        "SELECT a, count(*) FROM pairs GROUP BY 2",
        "SELECT a, count(*) FROM pairs GROUP BY 5",
        "SELECT sum(a) / (count(*) - count(*)) FROM pairs",
        "SELECT sum(big * big) FROM sales",
        "SELECT a FROM pairs HAVING a > 1",
        "SELECT nothing, count(*) FROM pairs GROUP BY nothing",
    ] {
        for _ in 0..2 {
            let answer = Answer::of(raw.query(sql).await);
            assert_eq!(answer, Answer::of(direct.query(sql).await), "{sql}");
        }
    }
    for sql in [
        "SELECT a, b, count(*) FROM pairs GROUP BY 1, 2",
        "SELECT c % 2 AS d, count(*) FROM pairs GROUP BY d",
        "SELECT a AS b, b AS a, count(*) FROM pairs GROUP BY 1, 2",
    ] {
        same(&stage, &mut raw, &mut direct, Batch::new().query(sql)).await;
    }
}

#[tokio::test]
async fn what_the_server_splits_itself_or_an_index_answers_is_left_alone() {
    let (stage, mut raw, _) = sales().await;
    raw.query("CREATE INDEX ON sales (id)").await;
    until_the_catalogue_is_known(&stage).await;
    for sql in ["SELECT max(id) FROM sales", "SELECT count(*) FROM sales WHERE id = 5"] {
        unsplit(&stage, sql, raw.query(sql)).await;
    }
    let set = "SET max_parallel_workers_per_gather = 2; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0";
    raw.query(set).await;
    for _ in 0..2 {
        let before = skipped(&stage, "plan").await;
        unsplit(&stage, "a parallel plan", raw.query("SELECT m, count(*) FROM sales GROUP BY m")).await;
        assert!(skipped(&stage, "plan").await > before, "{}", why(&stage).await);
    }
}

/// Names, types and collations that are not what they seem.
#[tokio::test]
async fn the_databases_own_names_are_respected() {
    let (stage, mut raw, mut direct) = sales().await;
    let own = "CREATE DOMAIN odd AS int CHECK (value > -5); ALTER TABLE sales ADD o odd; UPDATE sales SET o = small;
        CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        ALTER TABLE sales ADD b text COLLATE blind; UPDATE sales SET b = CASE WHEN id % 2 = 0 THEN 'a' ELSE 'A' END;
        CREATE TABLE plain (n int, t text);
        CREATE TYPE mood AS ENUM ('sad', 'glad'); ALTER TABLE plain ADD mood mood";
    raw.query(own).await;
    until_the_catalogue_is_known(&stage).await;
    for sql in [
        "SELECT o, count(*) FROM sales GROUP BY o",
        "SELECT sum(o), max(o) FROM sales",
        "SELECT count(DISTINCT b) FROM sales",
        "SELECT lower(b), count(*) FROM sales GROUP BY 1",
        "SELECT mood, count(*) FROM plain GROUP BY mood",
    ] {
        let answer = Answer::of(raw.query(sql).await);
        assert_eq!(answer, Answer::of(direct.query(sql).await), "{sql}");
    }
    for sql in ["SELECT name, count(*) FROM sales GROUP BY name", "SELECT max(word) FROM sales"] {
        unsplit(&stage, "there is a collation that is not exact", raw.query(sql)).await;
    }
    let sum = "CREATE FUNCTION times(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, 1) * $2';
        CREATE SCHEMA mine; CREATE AGGREGATE mine.sum(int) (sfunc = times, stype = int); SET search_path = mine, pg_catalog, public";
    raw.query(sum).await;
    direct.query("SET search_path = mine, pg_catalog, public").await;
    for sql in ["SELECT sum(n) FROM (VALUES (2), (3)) v (n)", "SELECT sum(m) FROM sales WHERE id < 6"] {
        let answer = unsplit(&stage, sql, raw.query(sql)).await;
        assert_eq!(Answer::of(answer), Answer::of(direct.query(sql).await), "{sql}");
    }
}

#[tokio::test]
async fn groups_that_take_too_much_memory_are_not_put_together_and_not_tried_again() {
    let options = options().key("parallel.query_memory_mb", 1).key("cache.max_entry_bytes", 1);
    // The planner does not know how many groups there will be.
    let setup = "CREATE TABLE many AS SELECT n % 30000 AS k, md5(n::text) AS t FROM generate_series(1, 40000) n;
        ALTER TABLE many SET (autovacuum_enabled = false)";
    let stage = stage(options, setup).await;
    let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
    let before = skipped(&stage, "groups").await;
    for at in 0..3 {
        let sql = format!("SELECT k, max(t), count(*) FROM many WHERE k <> {at} GROUP BY k");
        assert_eq!(Answer::of(raw.query(&sql).await), Answer::of(direct.query(&sql).await));
    }
    assert_eq!(skipped(&stage, "groups").await, before + 3, "{}", why(&stage).await);
    assert_eq!(ended(&stage, "complete").await, 0);
}

/// Whole numbers have the same sum in any order.
#[tokio::test]
async fn sums_of_doubles_are_split_if_that_is_allowed() {
    let setup = "CREATE TABLE d AS SELECT i % 3 AS k, i::float8 AS f, i::float4 AS r FROM generate_series(1, 9000) i; ANALYZE d";
    for allowed in [false, true] {
        let options = options().key("parallel.double_precision_sums", allowed).key("cache.max_entry_bytes", 1);
        let stage = stage(options, setup).await;
        let (mut raw, mut direct) = (stage.raw().await, stage.raw_direct().await);
        let sql = "SELECT k, sum(f), avg(f), count(f) FROM d GROUP BY k";
        if allowed {
            same(&stage, &mut raw, &mut direct, Batch::new().query(sql)).await;
            same(
                &stage,
                &mut raw,
                &mut direct,
                Batch::new().query("SELECT sum(f), avg(f) FROM d WHERE f < 0 OR k = 1"),
            )
            .await;
        } else {
            unsplit(&stage, sql, raw.query(sql)).await;
        }
        for sql in ["SELECT sum(r) FROM d", "SELECT avg(r) FROM d"] {
            unsplit(&stage, sql, raw.query(sql)).await;
        }
    }
}

#[tokio::test]
async fn they_are_recorded_and_forgotten_like_any_result() {
    let stage = stage(options(), SALES).await;
    let mut raw = stage.raw().await;
    let sql = "SELECT flag, count(*) FROM sales GROUP BY flag ORDER BY flag";
    let first = raw.query(sql).await;
    assert_eq!(raw.query(sql).await, first);
    assert_eq!(ended(&stage, "complete").await, 1, "{}", why(&stage).await);
    raw.query("UPDATE sales SET flag = NOT flag WHERE id = 1").await;
    assert_ne!(raw.query(sql).await, first);
    assert_eq!(ended(&stage, "complete").await, 2);
    assert_eq!(tags(&first), "TDDDCZ");
}
