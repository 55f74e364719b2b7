//! What values become, both ways, and what is said of a statement.

use serde_json::{Value, json};

use super::socket::StreamStage;

#[tokio::test]
async fn every_type_has_its_form() {
    let stage = StreamStage::new(
        "CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS int CHECK (value > 0);
         CREATE TYPE pair AS (a int, b text)",
    )
    .await;
    let mut socket = stage.socket().await;
    for (sql, type_name, wanted) in [
        ("true", "bool", json!(true)),
        ("42::int2", "int2", json!(42)),
        ("-42", "int4", json!(-42)),
        ("9007199254740991", "int8", json!(9_007_199_254_740_991_i64)),
        ("9007199254740993", "int8", json!("9007199254740993")),
        ("1.50", "numeric", json!("1.50")),
        ("1.5::float8", "float8", json!(1.5)),
        ("'NaN'::float4", "float4", json!("NaN")),
        ("1e300::float8", "float8", json!(1e300)),
        ("'-Infinity'::float8", "float8", json!("-Infinity")),
        ("'ä\"\\'::text", "text", json!("ä\"\\")),
        ("'x'::char(3)", "bpchar", json!("x  ")),
        ("'\\x00ff'::bytea", "bytea", json!("AP8=")),
        ("date '2024-02-29'", "date", json!("2024-02-29")),
        ("timestamp '2024-02-29 12:00:00.25'", "timestamp", json!("2024-02-29T12:00:00.25")),
        ("timestamptz '2024-02-29 12:00:00+02'", "timestamptz", json!("2024-02-29T10:00:00+00:00")),
        ("timestamptz 'infinity'", "timestamptz", json!("infinity")),
        ("date '0044-03-15 BC'", "date", json!("-000043-03-15")),
        ("time '12:00'", "time", json!("12:00:00")),
        ("timetz '12:00+01'", "timetz", json!("12:00:00+01:00")),
        ("interval '1 day 2 hours'", "interval", json!("P1DT2H")),
        ("'{\"a\": [1, null]}'::jsonb", "jsonb", json!({"a": [1, null]})),
        ("'[1,  2]'::json", "json", json!([1, 2])),
        ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "uuid", json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")),
        ("inet '10.0.0.0/8'", "inet", json!("10.0.0.0/8")),
        ("ARRAY[1, NULL, 3]", "int4[]", json!([1, null, 3])),
        ("ARRAY[[1, 2], [3, 4]]", "int4[]", json!([[1, 2], [3, 4]])),
        ("'[0:1]={7,8}'::int[]", "int4[]", json!([7, 8])),
        ("ARRAY['a b', 'c\"d', 'NULL', '', NULL]", "text[]", json!(["a b", "c\"d", "NULL", "", null])),
        ("ARRAY['{\"a\": 1}'::jsonb]", "jsonb[]", json!([{"a": 1}])),
        ("ARRAY['\\x01'::bytea]", "bytea[]", json!(["AQ=="])),
        ("ARRAY[timestamp '2024-02-29 12:00']", "timestamp[]", json!(["2024-02-29T12:00:00"])),
        ("'glad'::mood", "mood", json!("glad")),
        ("ARRAY['glad', NULL]::mood[]", "mood[]", json!(["glad", null])),
        ("7::positive", "int4", json!(7)),
        ("ARRAY[7]::positive[]", "positive[]", json!([7])),
        ("ROW(1, 'x')::pair", "pair", json!("(1,x)")),
        ("int4range(1, 5)", "int4range", json!("[1,5)")),
        ("NULL::int", "int4", json!(null)),
        ("box '(1,1),(0,0)'", "box", json!("(1,1),(0,0)")),
        ("ARRAY[box '(1,1),(0,0)']", "_box", json!("{(1,1),(0,0)}")),
        ("'1 2'::int2vector", "int2vector", json!("1 2")),
    ] {
        let run = socket.run(&format!("SELECT {sql} AS \"the value\""), &[]).await;
        assert_eq!(run.end["type"], "StreamCompleted", "{sql}: {}", run.end);
        assert_eq!(run.started["columns"], json!([{"name": "the value", "type": type_name}]), "{sql}");
        assert_eq!(run.rows, [json!([wanted])], "{sql}");
    }
}

#[tokio::test]
async fn what_the_session_is_set_to_changes_no_form() {
    let stage = StreamStage::new("").await;
    let direct = stage.stage.direct().await;
    direct
        .run(&format!(
            "ALTER DATABASE {0} SET DateStyle = 'German'; ALTER DATABASE {0} SET IntervalStyle = 'sql_standard';
             ALTER DATABASE {0} SET bytea_output = 'escape'; ALTER DATABASE {0} SET extra_float_digits = 0",
            stage.stage.database
        ))
        .await;
    let sql = "SELECT date '2024-02-29', interval '1 day', '\\x00'::bytea, 0.1::float8 + 0.2::float8";
    let run = stage.socket().await.run(sql, &[]).await;
    assert_eq!(run.rows, [json!(["2024-02-29", "P1D", "AA==", 0.1 + 0.2])]);
}

#[tokio::test]
async fn parameters_arrive_as_they_were_given() {
    let stage = StreamStage::new("CREATE TYPE mood AS ENUM ('sad', 'glad')").await;
    let mut socket = stage.socket().await;
    for (type_name, given, read) in [
        ("int", json!(7), json!(7)),
        ("int8", json!("9223372036854775807"), json!("9223372036854775807")),
        ("numeric", json!("12345678901234567890.5"), json!("12345678901234567890.5")),
        ("float8", json!(1.5), json!(1.5)),
        ("bool", json!(true), json!(true)),
        ("text", json!("a'b\"c\\"), json!("a'b\"c\\")),
        ("text", json!(null), json!(null)),
        ("bytea", json!("AP8="), json!("AP8=")),
        ("jsonb", json!({"a": [1]}), json!({"a": [1]})),
        ("jsonb", json!("text"), json!("text")),
        ("jsonb", json!([1, 2]), json!([1, 2])),
        ("int[]", json!([1, null]), json!([1, null])),
        ("text[]", json!(["a,b", "c\"d\\", ""]), json!(["a,b", "c\"d\\", ""])),
        ("mood[]", json!(["glad"]), json!(["glad"])),
        ("timestamptz", json!("2024-02-29T12:00:00+02:00"), json!("2024-02-29T10:00:00+00:00")),
    ] {
        let run = socket.run(&format!("SELECT $1::{type_name}"), std::slice::from_ref(&given)).await;
        assert_eq!(run.rows, [json!([read])], "{type_name} {given}: {}", run.end);
    }
    let run = socket.run("SELECT $1::bytea", &[json!("no base64!")]).await;
    assert_eq!(run.sqlstate(), "22023");
    let run = socket.run("SELECT $1::int", &[]).await;
    assert_eq!(run.sqlstate(), "08P01");
}

#[tokio::test]
async fn errors_are_the_servers() {
    let stage = StreamStage::new("CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)").await;
    let mut socket = stage.socket().await;
    for (sql, sqlstate, error) in [
        ("SELECT no_such", "42703", "column \"no_such\" does not exist"),
        ("SELEC", "42601", "syntax error at or near \"SELEC\""),
        ("SELECT 1; SELECT 2", "42601", "cannot insert multiple commands into a prepared statement"),
        ("SELECT 1 / (2 - i) FROM generate_series(1, 2) i", "22012", "division by zero"),
        ("COPY t TO STDOUT", "0A000", "COPY cannot be streamed"),
        ("COPY t FROM STDIN", "0A000", "COPY cannot be streamed"),
    ] {
        let run = socket.run(sql, &[]).await;
        let wanted = json!({"type": "StreamError", "query_id": "q", "error": error, "sqlstate": sqlstate});
        assert_eq!(run.end, wanted, "{sql}");
    }
    // It is the end of the transaction that finds this.
    let run = socket.run("INSERT INTO t VALUES (1), (1) RETURNING id", &[]).await;
    assert_eq!((run.rows.len(), run.sqlstate()), (2, "23505"));
    assert_eq!(socket.run("SELECT count(*) FROM t", &[]).await.rows, [json!([0])]);
}

#[tokio::test]
async fn statements_without_rows_and_empty_results() {
    let stage = StreamStage::new("CREATE TABLE t (id int)").await;
    let mut socket = stage.socket().await;
    for (sql, columns, rows) in [
        ("INSERT INTO t SELECT generate_series(1, 5)", 0, 0),
        ("", 0, 0),
        ("UPDATE t SET id = id + 1 WHERE id > 3 RETURNING id", 1, 2),
        ("SELECT id FROM t WHERE false", 1, 0),
        ("SELECT", 0, 1),
        ("SHOW server_version_num", 1, 1),
        ("VACUUM t", 0, 0),
    ] {
        let run = socket.run(sql, &[]).await;
        assert_eq!(run.end, json!({"type": "StreamCompleted", "query_id": "q", "total_rows": rows}), "{sql}");
        assert_eq!(run.started["columns"].as_array().map(Vec::len), Some(columns), "{sql}");
        assert_eq!(run.rows.len(), rows, "{sql}");
        assert_eq!(run.batches.last().map(|(_, is_final)| *is_final), Some(true), "{sql}");
    }
    assert_eq!(socket.run("SELECT sum(id) FROM t", &[]).await.rows, [json!([17])]);
}

#[tokio::test]
async fn nothing_of_one_stream_is_left_for_the_next() {
    let stage = StreamStage::new("").await;
    let mut socket = stage.socket().await;
    for sql in
        ["SET search_path = elsewhere", "CREATE TEMPORARY TABLE t (v int)", "BEGIN", "SELECT pg_advisory_lock(1)"]
    {
        assert_eq!(socket.run(sql, &[]).await.end["type"], "StreamCompleted", "{sql}");
    }
    let left = "SELECT current_setting('search_path'), to_regclass('t'), \
        (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())";
    assert_eq!(socket.run(left, &[]).await.rows, [json!(["\"$user\", public", Value::Null, 0])]);
}
