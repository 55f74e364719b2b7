//! DDL that gives the same text another meaning without touching a relation: operators, functions and casts that are found first.

use crate::harness::{Client, Stage};

const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, v int, s text);
    INSERT INTO t SELECT i, i * 10, 'A' || i FROM generate_series(1, 3) i; CREATE SCHEMA mine";

/// A session for which `mine` comes before PostgreSQL's own names.
async fn shadowed(client: Client) -> Client {
    client.run("SET search_path = mine, public, pg_catalog").await;
    client
}

/// The read is cached; the DDL goes through the proxy; then every read must answer as a direct session does, also after further
/// writes that only the new meaning can see.
async fn follows(setup: &str, read: &str, ddl: &str, writes: &[&str]) {
    let stage = Stage::setup(&format!("{TABLE}; {setup}")).await;
    let (reader, writer) = (shadowed(stage.client().await).await, shadowed(stage.client().await).await);
    let direct = shadowed(stage.direct().await).await;
    let before = stage.cached(&reader, read).await;
    assert_eq!(before, direct.text(read).await);
    writer.run(ddl).await;
    let after = direct.text(read).await;
    assert_ne!(before, after, "this should change what the read means: {ddl}");
    for _ in 0..3 {
        assert_eq!(reader.text(read).await, after, "the old meaning: {read}");
        assert_eq!(reader.binary(read).await, direct.binary(read).await, "the old meaning, extended: {read}");
    }
    for write in writes {
        writer.run(write).await;
        for _ in 0..3 {
            assert_eq!(reader.text(read).await, direct.text(read).await, "stale after {write}: {read}");
        }
    }
}

#[tokio::test]
async fn an_operator_that_comes_first_in_the_search_path() {
    let differs = "CREATE FUNCTION mine.differs(int, int) RETURNS bool IMMUTABLE LANGUAGE sql AS
        'SELECT $1 OPERATOR(pg_catalog.<>) $2'";
    let operator = "CREATE OPERATOR mine.= (LEFTARG = int, RIGHTARG = int, FUNCTION = mine.differs)";
    // By key: what the new operator finds is the other rows.
    let writes = ["UPDATE public.t SET v = v + 1", "DELETE FROM public.t WHERE id = 2"];
    follows(differs, "SELECT id, v FROM t WHERE id = 1 ORDER BY id", operator, &writes).await;
    follows(differs, "SELECT id, v FROM t WHERE id IN (1) ORDER BY id", operator, &writes).await;
}

#[tokio::test]
async fn an_operator_in_the_list_of_what_is_asked_for() {
    follows(
        "",
        "SELECT v + 1 FROM t WHERE id = 1",
        "CREATE FUNCTION mine.plus(int, int) RETURNS int IMMUTABLE LANGUAGE sql AS
             'SELECT $1 OPERATOR(pg_catalog.-) $2';
         CREATE OPERATOR mine.+ (LEFTARG = int, RIGHTARG = int, FUNCTION = mine.plus)",
        &["UPDATE public.t SET v = 99 WHERE id = 1"],
    )
    .await;
}

#[tokio::test]
async fn a_function_that_comes_first_in_the_search_path() {
    follows(
        "",
        "SELECT upper(s) FROM t WHERE id = 1",
        "CREATE FUNCTION mine.upper(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'mine ' OPERATOR(pg_catalog.||) $1 $$",
        &["UPDATE public.t SET s = 'B' WHERE id = 1"],
    )
    .await;
}

#[tokio::test]
async fn an_overload_whose_arguments_fit_better() {
    // PostgreSQL's own function takes double precision; one that takes integers is a better match wherever it is.
    follows(
        "",
        "SELECT sqrt(v) FROM t WHERE id = 1",
        "CREATE FUNCTION public.sqrt(int) RETURNS float8 STABLE LANGUAGE sql AS 'SELECT sum(v)::float8 FROM public.t'",
        &["UPDATE public.t SET v = 7 WHERE id = 3"],
    )
    .await;
}

#[tokio::test]
async fn a_cast_that_is_created_is_applied_without_a_word_in_the_text() {
    follows(
        "CREATE TYPE mine.pair AS (a int, b int); CREATE TABLE p (id int, c mine.pair); INSERT INTO p VALUES (1, '(1,2)');
         CREATE FUNCTION mine.as_text(mine.pair) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT 'pair' $$",
        "SELECT c::text FROM p",
        "CREATE CAST (mine.pair AS text) WITH FUNCTION mine.as_text(mine.pair) AS IMPLICIT",
        &["UPDATE public.p SET c = '(3,4)'"],
    )
    .await;
}

#[tokio::test]
async fn an_aggregate_and_a_collation_that_come_first() {
    follows(
        "",
        "SELECT max(v) FROM t",
        "CREATE AGGREGATE mine.max(int) (SFUNC = pg_catalog.int4smaller, STYPE = int)",
        &["UPDATE public.t SET v = 0 WHERE id = 3"],
    )
    .await;
    follows(
        "INSERT INTO t VALUES (4, 4, 'a1')",
        r#"SELECT s FROM t ORDER BY s COLLATE "POSIX""#,
        r#"CREATE COLLATION mine."POSIX" (provider = icu, locale = 'en-u-kf-lower')"#,
        &["INSERT INTO public.t VALUES (5, 5, 'b')"],
    )
    .await;
}

#[tokio::test]
async fn a_type_that_comes_first() {
    follows(
        "",
        "SELECT '05'::text, v FROM t WHERE id = 1",
        "CREATE DOMAIN mine.text AS int",
        &["UPDATE public.t SET v = 5 WHERE id = 1"],
    )
    .await;
}
