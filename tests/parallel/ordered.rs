//! ORDER BY over split reads: the server's own order, whatever the keys are.

use super::endings::{LARGE, cancelled, until_quiet};
use super::stage::{Answer, NUMBERS, ended, options, skipped, stage, unsplit, why};
use crate::harness::raw::{Batch, Frame, tags};
use crate::harness::{Options, Raw, Stage};

/// A column of every type whose order the proxy knows, and of some that it does not know. Values come often, and with all that is
/// special about their type.
const KEYS: &str = "
    CREATE TABLE keys AS SELECT i AS id,
        (ARRAY[true, false, NULL])[i % 3 + 1] AS k_bool,
        CASE WHEN i % 7 > 0 THEN (h % 65536 - 32768)::int2 END AS k_int2,
        CASE WHEN i % 7 > 0 THEN (h - 2147483648)::int4 END AS k_int4,
        CASE WHEN i % 7 > 0 THEN (h - 2147483648) * 4294967296 + g END AS k_int8,
        CASE WHEN i % 7 > 0 THEN h::oid END AS k_oid,
        (ARRAY[NULL, 'NaN', '-NaN', 'Infinity', '-Infinity', '-0', '0', '1e-45', '-3e38', (h / 7.0)::float4::text, (-h / 7.0)::float4::text])[i % 11 + 1]::float4 AS k_float4,
        (ARRAY[NULL, 'NaN', 'Infinity', '-Infinity', '-0', '0', '5e-324', '-1e300', (h / 7.0)::float8::text, (-h / 7.0)::float8::text])[i % 10 + 1]::float8 AS k_float8,
        (ARRAY[NULL, 'NaN', 'Infinity', '-Infinity', '0', '-0.000', '1', '1.000', '10000', '9999.9999', '1e-20', '-1e-20', '1e200',
            (h / 10000.0)::text, (-h * 10000.0)::text, (h * 1e30)::text, '-' || h || '.' || g, h || '.' || g])[i % 18 + 1]::numeric AS k_numeric,
        (ARRAY[NULL, 'infinity', '-infinity', '4713-01-01 BC', (date '2000-01-01' + (h % 9999)::int)::text])[i % 5 + 1]::date AS k_date,
        (ARRAY[NULL, '00:00', '24:00', (h % 86400) * interval '1 second' || ''])[i % 4 + 1]::time AS k_time,
        (ARRAY[NULL, 'infinity', '-infinity', (timestamp '1999-12-31 23:59:59.999999' + (h % 99) * interval '1 microsecond')::text])[i % 4 + 1]::timestamp AS k_timestamp,
        (ARRAY[NULL, 'infinity', '-infinity', '2001-02-03 04:05:06+07', to_timestamp(h)::text])[i % 5 + 1]::timestamptz AS k_timestamptz,
        (ARRAY[NULL, '1 mon', '30 days', '29 days 24:00', '-1 mon', '1 mon -1 sec', (h % 99) || ' mons ' || (g % 99) || ' days', '-' || h || ' sec'])[i % 8 + 1]::interval AS k_interval,
        CASE WHEN i % 7 > 0 THEN md5(h::text)::uuid END AS k_uuid,
        (ARRAY[NULL, '', '\\x00', '\\x0000', '\\xff', '\\x' || md5(h::text), '\\x00' || md5(h::text)])[i % 7 + 1]::bytea AS k_bytea,
        (ARRAY[NULL, '', ' ', 'a', 'a ', 'A', 'ä', 'ab', 'é' || h, '\u{1F600}', 'z' || md5(h::text)])[i % 11 + 1] COLLATE \"C\" AS k_text,
        (ARRAY[NULL, '', 'a', 'B', md5(h::text)])[i % 5 + 1]::varchar(40) COLLATE \"POSIX\" AS k_varchar,
        (ARRAY[NULL, '', 'a', 'a  b', E'a\\tb', md5(h::text)])[i % 6 + 1]::char(7) COLLATE ucs_basic AS k_char,
        (ARRAY[NULL, '', 'a', 'B', md5(h::text)])[i % 5 + 1]::name COLLATE \"C\" AS k_name,
        (ARRAY[NULL, '', 'a', 'B', chr((h % 127)::int + 1)])[i % 5 + 1]::\"char\" AS k_letter,
        'x' || h % 99 AS u_text,
        jsonb_build_object('h', h % 99) AS u_jsonb,
        ARRAY[h % 9, NULL] AS u_array,
        ('10.0.0.' || h % 99)::inet AS u_inet
    FROM (SELECT i, ('x' || left(md5(i::text), 8))::bit(32)::bit(64)::bigint >> 32 & 4294967295 AS h, ('x' || right(md5(i::text), 6))::bit(24)::int AS g
          FROM generate_series(1, 3000) i) s;
    ANALYZE";

const ORDERED: [&str; 20] = [
    "k_bool",
    "k_int2",
    "k_int4",
    "k_int8",
    "k_oid",
    "k_float4",
    "k_float8",
    "k_numeric",
    "k_date",
    "k_time",
    "k_timestamp",
    "k_timestamptz",
    "k_interval",
    "k_uuid",
    "k_bytea",
    "k_text",
    "k_varchar",
    "k_char",
    "k_name",
    "k_letter",
];

fn uncached() -> Options {
    options().key("cache.max_entry_bytes", 1)
}

/// The same frames in the same order; of an error only what it is.
fn frames(answer: Vec<Frame>) -> Vec<Frame> {
    let mut answer = answer;
    for frame in answer.iter_mut().filter(|frame| frame.tag == b'E') {
        frame.body = frame.field('C').unwrap_or_default().into_bytes();
    }
    answer
}

struct Both {
    stage: Stage,
    raw: Raw,
    direct: Raw,
}

impl Both {
    async fn new(options: Options, setup: &str) -> Self {
        let stage = stage(options, setup).await;
        let (raw, direct) = (stage.raw().await, stage.raw_direct().await);
        Self { stage, raw, direct }
    }

    /// Row for row, and split.
    async fn same(&mut self, what: &str, batch: Batch) -> Vec<Frame> {
        loop {
            let (before, doubts) = (ended(&self.stage, "complete").await, skipped(&self.stage, "catalog").await);
            let answer = frames(self.raw.ask(batch.clone()).await);
            let expected = frames(self.direct.ask(batch.clone()).await);
            assert_eq!(tags(&answer), tags(&expected), "{what}");
            for (number, (row, other)) in answer.iter().zip(&expected).enumerate() {
                assert_eq!(row, other, "{what}: message {number}");
            }
            if ended(&self.stage, "complete").await == before + 1 {
                return answer;
            }
            // Settings that another test gives its database make the catalogue doubtful here, too, for a moment.
            let now = skipped(&self.stage, "catalog").await;
            assert!(now > doubts, "{what} was not split: {}", why(&self.stage).await);
        }
    }

    async fn query(&mut self, sql: &str) -> Vec<Frame> {
        self.same(sql, Batch::new().query(sql)).await
    }
}

fn rows(answer: &[Frame]) -> usize {
    answer.iter().filter(|frame| frame.tag == b'D').count()
}

#[tokio::test]
async fn values_of_every_type_come_in_the_servers_order() {
    let mut both = Both::new(uncached(), KEYS).await;
    for (number, key) in ORDERED.into_iter().enumerate() {
        for direction in ["", "DESC", "ASC NULLS FIRST", "DESC NULLS LAST"] {
            // Equal values are told apart by the last key: there is one right order.
            let sql = format!("SELECT id, {key} FROM keys ORDER BY {key} {direction}, id");
            let answer = both.query(&sql).await;
            assert_eq!(rows(&answer), 3000);
        }
        let other = ORDERED[(number + 5) % ORDERED.len()];
        let sql = format!(
            "SELECT {key}, id FROM keys WHERE id % 5 > 0 ORDER BY {key} DESC, keys.{other} NULLS FIRST, id DESC"
        );
        for formats in [vec![0], vec![1], vec![1, 0]] {
            let batch = Batch::new().parse("", &sql).bind_formats("", "", &[], &[], &formats).describe_portal("");
            both.same(&sql, batch.execute("", 0).sync()).await;
        }
    }
    for key in ["u_text", "u_jsonb", "u_array", "u_inet", "u_text COLLATE \"de-x-icu\"", "id USING >"] {
        let sql = format!("SELECT id FROM keys ORDER BY {key}, id");
        unsplit(&both.stage, &sql, both.raw.query(&sql)).await;
    }
    assert!(skipped(&both.stage, "order").await >= 3, "{}", why(&both.stage).await);
    both.query("SELECT id, u_text FROM keys ORDER BY u_text COLLATE \"C\", id").await;
    // Bytes decide in a database whose own collation says so.
    let direct = both.stage.direct().await;
    direct.run("CREATE DATABASE bytewise TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'UTF8'").await;
    let mut plain = Raw::ready(both.stage.proxy.port, "postgres", "bytewise").await;
    plain.query("CREATE TABLE t AS SELECT 'x' || n % 999 AS t, n FROM generate_series(1, 5000) n; ANALYZE t").await;
    let sql = "SELECT t, n FROM t ORDER BY t DESC, n";
    let before = ended(&both.stage, "complete").await;
    let mut answers = Vec::new();
    for _ in 0..50 {
        answers.push(plain.query(sql).await);
        if ended(&both.stage, "complete").await > before {
            break;
        }
    }
    assert!(ended(&both.stage, "complete").await > before, "{}", why(&both.stage).await);
    assert_eq!(answers.first(), answers.last());
    assert_eq!(rows(&answers[0]), 5000);
}

#[tokio::test]
async fn limits_and_offsets_are_the_servers() {
    let mut both = Both::new(uncached(), NUMBERS).await;
    for tail in [
        "LIMIT 10",
        "LIMIT 10 OFFSET 5",
        "OFFSET 19990",
        "LIMIT 0",
        "LIMIT 100 OFFSET 19950",
        "LIMIT 5 OFFSET 99999",
        "LIMIT ALL OFFSET 7",
        "LIMIT NULL",
        "OFFSET 12345 ROWS FETCH NEXT 7000 ROWS ONLY",
        "FETCH FIRST ROW ONLY",
        "LIMIT 9000000000000000000",
    ] {
        both.query(&format!("SELECT n, t FROM numbers ORDER BY m DESC, n {tail}")).await;
    }
    let sql = "SELECT t FROM numbers WHERE n > $1 ORDER BY m, n DESC LIMIT $2 OFFSET $3";
    for values in [["100", "10", "20"], ["0", "20000", "0"], ["19000", "7", "995"]] {
        let values = values.map(|value| Some(value.as_bytes()));
        let batch = Batch::new().parse("", sql).bind("", "", &values).describe_portal("").execute("", 0).sync();
        both.same(sql, batch).await;
    }
    let (ten, three) = (10i64.to_be_bytes(), 3i32.to_be_bytes());
    for (limit, offset) in
        [(Some(&ten[..]), Some(&three[..])), (None, Some(&three[..])), (Some(&ten[..]), None), (None, None)]
    {
        let values = [Some(&three[..]), limit, offset];
        let batch = Batch::new().parse_typed("", sql, &[23, 20, 23]).bind_formats("", "", &[1], &values, &[1]);
        both.same(sql, batch.describe_portal("").execute("", 0).sync()).await;
    }
    // What the server refuses it refuses, in the middle of such as it does not.
    for tail in ["LIMIT -1", "OFFSET -1", "LIMIT 'x'", "LIMIT 9223372036854775807 OFFSET 1"] {
        let sql = format!("SELECT n FROM numbers ORDER BY n {tail}");
        let (answer, expected) = (both.raw.query(&sql).await, both.direct.query(&sql).await);
        assert_eq!(frames(answer), frames(expected), "{sql}");
    }
}

/// Statements that differ in a number only have one shape, and what is known of the one says nothing about the other.
#[tokio::test]
async fn what_a_name_or_a_number_means_is_found_out_anew() {
    let setup = "CREATE TABLE t AS SELECT n % 100 AS a, (n * 7919) % 10007 AS b, jsonb_build_array(n % 7) AS j, n FROM generate_series(1, 10000) n; ANALYZE t";
    let mut both = Both::new(uncached(), setup).await;
    for sql in [
        "SELECT a, b, n FROM t ORDER BY 3",
        "SELECT a, b, n FROM t ORDER BY 2, 3",
        "SELECT a, b, n FROM t ORDER BY 1, 3",
        "SELECT a, b AS a2, n FROM t ORDER BY a2 DESC, n",
        "SELECT a + b AS s, n FROM t ORDER BY s DESC, n LIMIT 500",
        "SELECT t.b % 10 + 1, n FROM t ORDER BY 1 DESC, 2",
        "SELECT n FROM t ORDER BY -b, a, n",
        "SELECT n AS b FROM t ORDER BY t.b, n",
        "SELECT * FROM t AS x WHERE a > 5 ORDER BY x.b % 100 DESC NULLS LAST, n DESC",
        "SELECT t FROM t ORDER BY n DESC LIMIT 5000",
    ] {
        both.query(sql).await;
    }
    // `b` is what the list calls so, and that is `a`.
    let sql = "SELECT a AS b, b AS a, n FROM t ORDER BY b, a, n";
    both.query(sql).await;
    for sql in ["SELECT n, j FROM t ORDER BY 2, 1", "SELECT n, j FROM t ORDER BY 1, 2"] {
        let (answer, expected) = (both.raw.query(sql).await, both.direct.query(sql).await);
        assert_eq!(answer, expected, "{sql}");
    }
}

#[tokio::test]
async fn partitions_long_rows_and_little_memory_make_no_difference() {
    let setup = "CREATE TABLE parts (n int, k int, note text) PARTITION BY HASH (n);
                 CREATE TABLE part0 PARTITION OF parts FOR VALUES WITH (modulus 2, remainder 0);
                 CREATE TABLE part1 (note text, n int, k int); ALTER TABLE parts ATTACH PARTITION part1 FOR VALUES WITH (modulus 2, remainder 1);
                 ALTER TABLE parts ALTER note SET STORAGE EXTERNAL;
                 INSERT INTO parts SELECT n, n % 10, CASE WHEN n % 500 = 0 THEN repeat(md5(n::text), 30000) ELSE md5(n::text) END
                 FROM generate_series(1, 5000) n; ANALYZE";
    let mut both = Both::new(uncached().key("parallel.query_memory_mb", 1), setup).await;
    for sql in [
        "SELECT * FROM parts ORDER BY n",
        "SELECT n, note FROM parts ORDER BY k DESC, n",
        "SELECT tableoid, parts FROM parts WHERE n % 100 = 0 ORDER BY k, n DESC LIMIT 40 OFFSET 3",
        "SELECT length(note) FROM parts ORDER BY length(note), n",
    ] {
        both.query(sql).await;
    }
    // The longest key has room in no connection's share; then the server does it alone, or says so in the middle of its rows.
    let sql = "SELECT n FROM parts ORDER BY note COLLATE \"C\"";
    let answer = frames(both.raw.query(sql).await);
    let expected = both.direct.query(sql).await;
    let is_told = answer.iter().any(|frame| frame.tag == b'E');
    assert!(is_told || answer == expected);
}

#[tokio::test]
async fn an_order_that_an_index_has_is_left_alone_and_errors_are_the_statements() {
    let setup =
        format!("{NUMBERS}; CREATE TABLE indexed AS TABLE numbers; CREATE INDEX ON indexed (n); ANALYZE indexed");
    let mut both = Both::new(uncached(), &setup).await;
    for sql in [
        "SELECT n FROM indexed ORDER BY n LIMIT 10",
        "SELECT count(*) FROM numbers ORDER BY 1 LIMIT 1 FOR SHARE",
        "SELECT n FROM numbers ORDER BY (SELECT 1), n",
        "SELECT n FROM numbers ORDER BY random(), n LIMIT 0",
        "SELECT n FROM numbers WHERE n = 5 ORDER BY n",
        "SELECT n FROM numbers LIMIT 10",
        "SELECT rank() OVER (ORDER BY n) FROM numbers ORDER BY n",
        "SELECT generate_series(1, 2), n FROM numbers ORDER BY n, 1",
    ] {
        unsplit(&both.stage, sql, both.raw.query(sql)).await;
        unsplit(&both.stage, sql, both.raw.query(sql)).await;
    }
    for n in [1, 10_000, 20_000] {
        let sql = format!("SELECT 1 / (n - {n}), t FROM numbers ORDER BY n DESC");
        let answer = Answer::of(both.raw.query(&sql).await);
        assert_eq!(answer, Answer::of(both.direct.query(&sql).await));
        assert_eq!(answer.others.iter().find(|frame| frame.tag == b'E').unwrap().body, b"22012");
    }
    assert!(rows(&both.query("SELECT n FROM numbers WHERE n > 3 ORDER BY n DESC").await) > 0);
}

#[tokio::test]
async fn a_sorted_read_that_is_cancelled_or_left_ends_on_all_connections() {
    let stage = stage(uncached().key("parallel.query_memory_mb", 1), LARGE).await;
    let direct = stage.direct().await;
    let sql = "SELECT * FROM large ORDER BY n DESC";
    let mut raw = stage.raw().await;
    // Else the server sorts it with several processes of its own.
    raw.query("SET max_parallel_workers_per_gather = 0").await;
    raw.send_batch(Batch::new().query(sql)).await;
    raw.until('D').await;
    cancelled(&stage, &mut raw).await;
    assert_eq!(rows(&raw.query(&format!("{sql} LIMIT 3")).await), 3);
    assert_eq!((ended(&stage, "cancelled").await, ended(&stage, "complete").await), (1, 1), "{}", why(&stage).await);
    until_quiet(&stage, &direct).await;
    raw.send_batch(Batch::new().query(sql)).await;
    raw.until('D').await;
    drop(raw);
    until_quiet(&stage, &direct).await;
}

/// Writers move rows to other blocks while they are read in order: each is there once, in one snapshot.
#[tokio::test]
async fn a_sorted_read_is_one_snapshot() {
    let setup = "CREATE TABLE accounts (id int, cents bigint, filler text) WITH (fillfactor = 50);
                 INSERT INTO accounts SELECT n, 1000, repeat('x', 400) FROM generate_series(1, 4000) n; ANALYZE accounts";
    let stage = stage(uncached(), setup).await;
    let (mut raw, writer) = (stage.raw().await, stage.direct().await);
    let done = std::sync::atomic::AtomicBool::new(false);
    let write = async {
        let mut at = 1u32;
        while !done.load(std::sync::atomic::Ordering::Relaxed) {
            at = at.wrapping_mul(1_103_515_245).wrapping_add(12_345);
            let (from, to) = (at % 2000 + 1, at / 4000 % 2000 + 2001);
            let change = format!("CASE id WHEN {from} THEN -5 ELSE 5 END");
            writer.run(&format!("UPDATE accounts SET cents = cents + {change} WHERE id IN ({from}, {to})")).await;
        }
    };
    let read = async {
        for _ in 0..20 {
            let answer = raw.query("SELECT cents FROM accounts ORDER BY id DESC").await;
            let cents: Vec<i64> =
                answer.iter().filter(|frame| frame.tag == b'D').map(|frame| frame.text().parse().unwrap()).collect();
            assert_eq!((cents.len(), cents.iter().sum::<i64>()), (4000, 4_000_000));
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    tokio::join!(write, read);
    assert!(ended(&stage, "complete").await > 10, "{}", why(&stage).await);
}
