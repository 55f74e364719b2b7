use super::rewrite::Sort;
use super::*;
use crate::statement::Statement;
use crate::statement::lexer::tokens;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("UTF-8")
}

fn is_one(sql: &str) -> bool {
    Statement::analyse(sql.as_bytes()).parts[0].groups
}

/// Calls `look` with the aggregation.
fn with<T>(sql: &str, look: impl FnOnce(&Aggregation<'_, '_>) -> T) -> T {
    assert!(is_one(sql), "{sql}");
    let tokens = tokens(sql.as_bytes()).expect("tokens");
    look(&Aggregation::of_known(&tokens).expect("an aggregation"))
}

const RANGE: &str = "\"t\".ctid OPERATOR(pg_catalog.>=) $1 AND \"t\".ctid OPERATOR(pg_catalog.<) $2";

#[test]
fn the_partial_result_has_its_keys_first_and_each_column_once() {
    for (sql, expected) in [
        ("SELECT count(*) FROM t", format!("SELECT pg_catalog.count ( * ) FROM t WHERE {RANGE}")),
        (
            "SELECT m, avg(n), sum(n), COUNT(n) FROM t WHERE a OR b -- x\n GROUP BY m",
            format!(
                "SELECT ( m ), pg_catalog.sum ( n ), pg_catalog.count ( n ) FROM t WHERE ( a OR b ) AND {RANGE} GROUP BY 1"
            ),
        ),
        (
            "SELECT every(b) FILTER (WHERE a > 1) FROM t HAVING max(t.n) > 3",
            format!(
                "SELECT pg_catalog.bool_and ( b ) FILTER ( WHERE a > 1 ), pg_catalog.max ( t . n ) FROM t WHERE {RANGE}"
            ),
        ),
        (
            "SELECT count(DISTINCT a + 1), sum(DISTINCT a + 1), min(c) FROM t GROUP BY m, t.m",
            format!("SELECT ( m ), ( a + 1 ), pg_catalog.min ( c ) FROM t WHERE {RANGE} GROUP BY 1, 2"),
        ),
        ("SELECT DISTINCT a, b % 2 FROM t", format!("SELECT ( a ), ( b % 2 ) FROM t WHERE {RANGE} GROUP BY 1, 2")),
    ] {
        assert_eq!(with(sql, |found| text(found.partial(1))), expected, "{sql}");
    }
}

/// `GROUP BY 1` and `GROUP BY 2` have one shape, and mean different things.
#[test]
fn a_place_in_the_list_means_what_stands_there() {
    let keys = |sql: &str| with(sql, |found| found.keys.iter().map(|key| found.join(key.clone())).collect::<Vec<_>>());
    assert_eq!(keys("SELECT a, b x, count(*) FROM t GROUP BY 1"), ["a"]);
    assert_eq!(keys("SELECT a, b x, count(*) FROM t GROUP BY 2"), ["b"]);
    assert_eq!(keys("SELECT a, b x, count(*) FROM t GROUP BY x, 1, c"), ["b", "a", "c"]);
    assert_eq!(keys("SELECT (a + b) * 2 AS x, count(*) FROM t GROUP BY x"), ["( a + b ) * 2"]);
    let shape = |sql: &str| Statement::analyse(sql.as_bytes()).parts[0].shape;
    assert_eq!(shape("SELECT a, b x, count(*) FROM t GROUP BY 1"), shape("SELECT a, b x, count(*) FROM t GROUP BY 2"));
    for sql in
        ["SELECT a, count(*) FROM t GROUP BY 2", "SELECT a, count(*) FROM t GROUP BY 3", "SELECT a FROM t GROUP BY 0"]
    {
        assert!(!is_one(sql), "{sql}");
    }
}

#[test]
fn everything_that_was_understood_is_written_out() {
    let sql = "SELECT t.m, x.y m2, sum(n) s, m::text AS \"T\" FROM t WHERE n > $1 GROUP BY m, 2 HAVING count(DISTINCT n) > 1 ORDER BY s DESC, t.m, 1 LIMIT $2";
    let names = ["m", "m2", "s", "T"];
    assert_eq!(
        with(sql, |found| found.canonical(&names).map(text)).as_deref(),
        Some(
            "SELECT ( m ) AS \"m\", ( x . y ) AS \"m2\", ( pg_catalog.sum ( n ) ) AS \"s\", ( m ) :: text AS \"T\" \
             FROM t WHERE n > $1 GROUP BY ( m ), ( x . y ) HAVING ( pg_catalog.count ( DISTINCT ( n ) ) ) > 1 \
             ORDER BY s DESC, ( m ), 1 LIMIT $2"
        )
    );
    assert_eq!(with(sql, |found| found.canonical(&names[1..])), None);
    assert_eq!(
        with(sql, |found| found.canonical(&["m", "m2", "sum", "T"])),
        None,
        "what was taken for a label is none"
    );
}

#[test]
fn the_results_are_put_together_by_postgresql() {
    let sorts = [Sort::Other, Sort::Bigint, Sort::Bigint, Sort::Other];
    let sql = "SELECT m, sum(n), avg(n) + 1, max(c) FROM t GROUP BY m HAVING count(n) > 2 ORDER BY count(n)";
    let names = ["m", "sum", "?column?", "max"];
    let merging = with(sql, |found| found.merging(&names, &sorts, 4).map(text));
    assert_eq!(
        merging.as_deref(),
        Some(
            "SELECT heliosproxy.c0 AS \"m\", (pg_catalog.sum(heliosproxy.c1)::pg_catalog.int8) AS \"sum\", \
             (pg_catalog.sum(heliosproxy.c1) OPERATOR(pg_catalog./) pg_catalog.sum(heliosproxy.c2)) + 1 AS \"?column?\", \
             (pg_catalog.max(heliosproxy.c3)) AS \"max\" FROM (SELECT ( m ), pg_catalog.sum ( n ), pg_catalog.count ( n ), \
             pg_catalog.max ( c ) FROM t WHERE false GROUP BY 1 UNION ALL SELECT * FROM ROWS FROM (pg_catalog.unnest($4), \
             pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7)) AS heliosproxy_values) AS heliosproxy \
             (c0, c1, c2, c3) GROUP BY heliosproxy.c0 HAVING (COALESCE(pg_catalog.sum(heliosproxy.c2), 0)::pg_catalog.int8) > 2 \
             ORDER BY (COALESCE(pg_catalog.sum(heliosproxy.c2), 0)::pg_catalog.int8)"
        )
    );
    let residue = with(sql, |found| found.residue(&names, &sorts, 1).map(text)).expect("names");
    assert!(residue.ends_with("WHERE heliosproxy.c2 > 2 ORDER BY heliosproxy.c2 FOR SHARE"), "{residue}");
    assert!(residue.contains("(heliosproxy.c1::pg_catalog.numeric) + 1"), "{residue}");
}

#[test]
fn anything_else_is_left_alone() {
    for sql in [
        "SELECT a FROM t",
        "SELECT 1",
        "SELECT count(*)",
        "SELECT count(*) FROM t, u",
        "SELECT count(*) FROM t JOIN u USING (a)",
        "SELECT count(*) FROM (SELECT 1) t",
        "SELECT count(*) FROM t WHERE a IN (SELECT 1)",
        "SELECT count(*) OVER () FROM t",
        "SELECT sum(count(*)) FROM t",
        "SELECT sum(a ORDER BY b) FROM t",
        "SELECT public.sum(a) FROM t",
        "SELECT count(DISTINCT a), count(DISTINCT b) FROM t",
        "SELECT count(DISTINCT a) FILTER (WHERE b) FROM t",
        "SELECT count() FROM t",
        "SELECT * FROM t GROUP BY a",
        "SELECT t.* FROM t GROUP BY a",
        "SELECT DISTINCT ON (a) a FROM t",
        "SELECT a FROM t GROUP BY ROLLUP (a)",
        "SELECT a FROM t GROUP BY GROUPING SETS ((a), ())",
        "SELECT a FROM t GROUP BY ()",
        "SELECT a FROM t GROUP BY (a, b)",
        "SELECT a FROM t GROUP BY DISTINCT a",
        "SELECT a FROM t GROUP BY count(*)",
        "SELECT a COLLATE \"C\" FROM t GROUP BY 1",
        "SELECT a FROM t GROUP BY a LIMIT 5",
        "SELECT a FROM t GROUP BY a ORDER BY a LIMIT (1 + 1)",
        "SELECT a FROM t GROUP BY a FOR SHARE",
        "SELECT a FROM t GROUP BY a UNION SELECT 1",
        "SELECT a FROM t GROUP BY a WINDOW w AS ()",
        "SELECT a AS heliosproxy FROM t GROUP BY a",
        "SELECT count(*) INTO u FROM t",
        "SELECT json_arrayagg(a) FROM t GROUP BY a",
        "SELECT a FROM t HAVING a GROUP BY b",
        "SELECT a, count(*) FROM t GROUP BY",
        "SELECT count(*), FROM t",
    ] {
        assert!(!is_one(sql), "{sql}");
    }
}

/// What is longer than a key, or only looks like one, is no key.
#[test]
fn a_key_is_found_where_it_stands_whole() {
    let written = |sql: &str, names: &[&str]| with(sql, |found| text(found.canonical(names).expect("names")));
    let sql = "SELECT a, a(1), x.a, f(b => a), t.a, b::a, \"a\", a[1] FROM t GROUP BY a";
    let names = ["1", "2", "3", "4", "5", "6", "7", "8"];
    assert!(
        written(sql, &names).starts_with(
            "SELECT ( a ) AS \"1\", a ( 1 ) AS \"2\", x . a AS \"3\", f ( b => ( a ) ) AS \"4\", ( a ) AS \"5\", b :: a AS \"6\", \
             ( a ) AS \"7\", ( a ) [ 1 ] AS \"8\" FROM"
        ),
        "{}",
        written(sql, &names)
    );
    // A constant takes its type from where it stands.
    assert!(
        written("SELECT '5' k, a + '5', $1 FROM t GROUP BY k, a, 3", &["k", "x", "y"])
            .starts_with("SELECT '5' AS \"k\", ( a ) + '5' AS \"x\", $1 AS \"y\" FROM")
    );
    // The server sees that this is another sum.
    assert!(written("SELECT a + b * 2 FROM t GROUP BY a + b", &["x"]).starts_with("SELECT ( a + b ) * 2 AS"));
}
