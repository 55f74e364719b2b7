use proptest::prelude::*;

use super::lexer::tests::sqlish;
use super::*;

fn class(text: &str) -> Class {
    let statement = Statement::analyse(text.as_bytes());
    assert_eq!(statement.parts.len(), 1, "{text}");
    statement.parts[0].class.clone()
}

fn classes(text: &str) -> Vec<Class> {
    Statement::analyse(text.as_bytes()).parts.into_iter().map(|part| part.class).collect()
}

fn facts(text: &str) -> Facts {
    let mut statement = Statement::analyse(text.as_bytes());
    assert_eq!(statement.parts.len(), 1, "{text}");
    statement.parts.remove(0).facts
}

fn digest(text: &str) -> [u8; 32] {
    Statement::analyse(text.as_bytes()).digest
}

fn shape(text: &str) -> [u8; 32] {
    Statement::analyse(text.as_bytes()).parts[0].shape
}

#[test]
fn reads() {
    for text in [
        "SELECT 1 AS \"update\"",
        "-- c\n /* INSERT */ select 'DELETE FROM x'",
        "TABLE x",
        "VALUES (1)",
        "((SELECT 1) UNION (SELECT 2))",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "SELECT updated_at, deleted FROM t",
        "SELECT 1;;",
        "SELECT $$ UPDATE $$",
    ] {
        assert_eq!(class(text), Class::Read, "{text}");
        assert!(Statement::analyse(text.as_bytes()).is_single_read(), "{text}");
    }
    for text in
        ["SELECT 1 FROM t FOR UPDATE", "SELECT 1 FROM t FOR NO KEY UPDATE OF t", "SELECT 1 FROM t FOR KEY SHARE"]
    {
        assert_eq!(class(text), Class::Read, "{text}");
        assert!(facts(text).locks_rows && !Statement::analyse(text.as_bytes()).is_single_read(), "{text}");
    }
    assert!(!Statement::analyse(b"SELECT 1; SELECT 2").is_single_read());
    assert!(!Statement::analyse(b"SELECT U&\"a\" FROM t").is_single_read());
    assert!(!Statement::analyse(b"").is_single_read());
}

#[test]
fn writes() {
    for text in [
        "INSERT INTO t VALUES (1)",
        "/* x */ WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a",
        "WITH a AS (SELECT 1) UPDATE t SET x = 1",
        "WITH a AS (MERGE INTO t USING s ON true WHEN MATCHED THEN DO NOTHING RETURNING *) SELECT 1",
        "DELETE FROM t",
        "MERGE INTO t USING s ON true WHEN MATCHED THEN DELETE",
        "SELECT * INTO x FROM t",
        "SELECT a INTO STRICT b FROM t",
        "COPY (INSERT INTO t VALUES (1) RETURNING *) TO STDOUT",
    ] {
        assert_eq!(class(text), Class::Write, "{text}");
    }
    assert!(facts("SELECT * INTO x FROM t").creates_relation);
    assert!(facts("WITH a AS (SELECT 1) SELECT * INTO x FROM a").creates_relation);
    assert!(!facts("WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT * FROM a").creates_relation);
    assert!(!facts("INSERT INTO t VALUES (1)").creates_relation);
}

#[test]
fn transactions() {
    let modes = TransactionModes::default();
    assert_eq!(class("BEGIN"), Class::Begin(modes));
    assert_eq!(class("begin work"), Class::Begin(modes));
    assert_eq!(
        class("START TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY, NOT DEFERRABLE"),
        Class::Begin(TransactionModes {
            isolation: Some(Isolation::RepeatableRead),
            read_only: Some(true),
            deferrable: Some(false)
        })
    );
    assert_eq!(
        class("BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE DEFERRABLE"),
        Class::Begin(TransactionModes {
            isolation: Some(Isolation::Serializable),
            read_only: Some(false),
            deferrable: Some(true)
        })
    );
    assert_eq!(class("BEGIN nonsense"), Class::Unknown);
    assert_eq!(class("COMMIT"), Class::Commit { chain: false });
    assert_eq!(class("END TRANSACTION AND NO CHAIN"), Class::Commit { chain: false });
    assert_eq!(class("COMMIT AND CHAIN"), Class::Commit { chain: true });
    assert_eq!(class("COMMIT PREPARED 'x'"), Class::CommitPrepared);
    assert_eq!(class("ROLLBACK PREPARED 'x'"), Class::CommitPrepared);
    assert_eq!(class("ROLLBACK"), Class::Rollback { chain: false });
    assert_eq!(class("ABORT WORK AND CHAIN"), Class::Rollback { chain: true });
    assert_eq!(class("ROLLBACK TO SAVEPOINT a"), Class::RollbackTo);
    assert_eq!(class("ROLLBACK WORK TO a"), Class::RollbackTo);
    assert_eq!(class("SAVEPOINT a"), Class::Savepoint);
    assert_eq!(class("RELEASE a"), Class::Release);
    assert_eq!(class("RELEASE SAVEPOINT \"a\""), Class::Release);
    assert_eq!(class("PREPARE TRANSACTION 'x'"), Class::PrepareTransaction);
    assert_eq!(class("PREPARE x AS SELECT 1"), Class::Session(SessionCommand::Prepare));
    assert_eq!(class("PREPARE transaction AS SELECT 1"), Class::Session(SessionCommand::Prepare));
    assert_eq!(
        classes("BEGIN; UPDATE t SET a = 1; COMMIT;"),
        [Class::Begin(modes), Class::Write, Class::Commit { chain: false }]
    );
}

fn set(name: &str, value: Option<&str>, local: bool) -> Class {
    Class::Set(SetAction::Set { name: name.into(), value: value.map(Into::into), local })
}

#[test]
fn settings() {
    assert_eq!(class("SET DateStyle = 'ISO, MDY'"), set("datestyle", Some("'ISO, MDY'"), false));
    assert_eq!(class("SET SESSION search_path TO a,  \"B\""), set("search_path", Some("a , \"B\""), false));
    assert_eq!(class("SET LOCAL x.y TO DEFAULT"), set("x.y", None, true));
    assert_eq!(class("SET TIME ZONE 'UTC'"), set("timezone", Some("'UTC'"), false));
    assert_eq!(class("SET LOCAL TIME ZONE LOCAL"), set("timezone", None, true));
    assert_eq!(class("SET NAMES 'UTF8'"), set("client_encoding", Some("'UTF8'"), false));
    assert_eq!(class("SET NAMES"), set("client_encoding", None, false));
    assert_eq!(class("SET ROLE none"), set("role", Some("none"), false));
    assert_eq!(class("SET role = x"), set("role", Some("x"), false));
    assert_eq!(class("SET SESSION AUTHORIZATION DEFAULT"), set("session_authorization", None, false));
    assert_eq!(class("SET SESSION SESSION AUTHORIZATION x"), set("session_authorization", Some("x"), false));
    assert_eq!(class("SET SCHEMA 'x'"), set("search_path", Some("'x'"), false));
    assert_eq!(class("SET XML OPTION DOCUMENT"), set("xmloption", Some("document"), false));
    assert_eq!(class("SET seed TO 0.5"), set("seed", Some("0.5"), false));
    assert_eq!(class("RESET TimeZone"), Class::Set(SetAction::Reset { name: "timezone".into() }));
    assert_eq!(class("RESET TIME ZONE"), Class::Set(SetAction::Reset { name: "timezone".into() }));
    assert_eq!(
        class("RESET SESSION AUTHORIZATION"),
        Class::Set(SetAction::Reset { name: "session_authorization".into() })
    );
    assert_eq!(class("RESET ALL"), Class::Set(SetAction::ResetAll));
    let read_only = TransactionModes { read_only: Some(true), ..TransactionModes::default() };
    assert_eq!(class("SET TRANSACTION READ ONLY"), Class::Set(SetAction::Transaction(read_only)));
    assert_eq!(class("SET LOCAL TRANSACTION READ ONLY"), Class::Set(SetAction::Transaction(read_only)));
    assert_eq!(class("SET TRANSACTION SNAPSHOT 'x'"), Class::Set(SetAction::Snapshot));
    assert_eq!(
        class("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"),
        Class::Set(SetAction::SessionCharacteristics(read_only))
    );
    assert_eq!(class("SET CONSTRAINTS ALL DEFERRED"), Class::Set(SetAction::Constraints));
    for text in ["SET", "SET x", "SET x =", "SET x y", "RESET", "RESET a b", "SET U&\"x\" = 1"] {
        assert_eq!(class(text), Class::Unknown, "{text}");
    }
    assert_eq!(class("DISCARD ALL"), Class::Discard(DiscardTarget::All));
    assert_eq!(class("DISCARD TEMP"), Class::Discard(DiscardTarget::Temporary));
}

#[test]
fn utilities() {
    for (text, wanted) in [
        ("COPY (SELECT 1) TO STDOUT", Class::CopyOut),
        ("COPY t TO STDOUT", Class::CopyOut),
        ("COPY t (\"from\", b) FROM STDIN", Class::CopyIn),
        ("COPY (SELECT 1 FROM t) TO PROGRAM 'x'", Class::Unknown),
        ("VACUUM t", Class::Maintenance),
        ("TRUNCATE t", Class::Truncate),
        ("REFRESH MATERIALIZED VIEW v", Class::RefreshMaterializedView),
        ("CREATE TABLE x AS SELECT 1", Class::Ddl),
        ("GRANT SELECT ON t TO u", Class::Ddl),
        ("EXECUTE x(1)", Class::Execute),
        ("CALL p()", Class::Call),
        ("DO $$ BEGIN END $$", Class::Do),
        ("NOTIFY x, 'y'", Class::Session(SessionCommand::Notify)),
        ("SHOW all", Class::Session(SessionCommand::Show)),
        ("START_REPLICATION SLOT s LOGICAL 0/16B3748", Class::Replication),
        ("IDENTIFY_SYSTEM", Class::Replication),
        ("FROBNICATE", Class::Unknown),
        ("SELECT (1", Class::Unknown),
        ("SELECT 'a", Class::Unknown),
        ("\"select\" 1", Class::Unknown),
        ("(1)", Class::Unknown),
    ] {
        assert_eq!(class(text), wanted, "{text}");
    }
    let target = |text: &str| Statement::analyse(text.as_bytes()).parts[0].copy_target.clone();
    assert_eq!(target("COPY s . \"T\" (a, b) FROM STDIN").as_deref(), Some(&b"s . \"T\""[..]));
    assert_eq!(target("COPY BINARY t FROM STDIN").as_deref(), Some(&b"t"[..]));
    assert_eq!(target("COPY binary FROM STDIN").as_deref(), Some(&b"binary"[..]));
    assert_eq!(target("COPY t TO STDOUT"), None);
}

#[test]
fn explain() {
    let explained = |text: &str| match class(text) {
        Class::Explain { analyze, of } => (analyze, *of),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(explained("EXPLAIN SELECT 1"), (false, Class::Read));
    assert_eq!(explained("EXPLAIN ANALYZE VERBOSE INSERT INTO t VALUES (1)"), (true, Class::Write));
    assert_eq!(explained("EXPLAIN (ANALYZE, VERBOSE) INSERT INTO t VALUES (1)"), (true, Class::Write));
    assert_eq!(explained("EXPLAIN (analyze off) DELETE FROM t"), (false, Class::Write));
    assert_eq!(explained("EXPLAIN (analyze off, \"analyze\") DELETE FROM t"), (true, Class::Write));
    assert_eq!(explained("EXPLAIN (COSTS off) EXECUTE x"), (false, Class::Execute));
    assert_eq!(explained("EXPLAIN (SELECT 1)"), (false, Class::Read));
    assert_eq!(class("EXPLAIN EXPLAIN SELECT 1"), Class::Unknown);
}

#[test]
fn several_statements() {
    let text = b"; SELECT 1 ; -- c\n ;INSERT INTO t VALUES (';')";
    let statement = Statement::analyse(text);
    let texts: Vec<_> = statement.parts.iter().map(|part| part.text_of(text)).collect();
    assert_eq!(texts, [&b"SELECT 1"[..], b"INSERT INTO t VALUES (';')"]);
    assert!(Statement::analyse(b"").is_empty());
    assert!(Statement::analyse(b" ; /* c */ -- d").is_empty());
    assert_eq!(
        classes("CREATE RULE r AS ON INSERT TO t DO (DELETE FROM a; DELETE FROM b); SELECT 1"),
        [Class::Ddl, Class::Read]
    );
    assert_eq!(
        classes(
            "CREATE OR REPLACE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END AS end; SELECT 2; END; SET a = 1"
        ),
        [Class::Ddl, set("a", Some("1"), false)]
    );
    assert_eq!(classes("CREATE PROCEDURE p() BEGIN ATOMIC SELECT 1; COMMIT"), [Class::Ddl]);
    assert_eq!(
        classes("CREATE FUNCTION f() RETURNS int AS $$ a; b $$ LANGUAGE sql; BEGIN"),
        [Class::Ddl, Class::Begin(TransactionModes::default())]
    );
}

#[test]
fn words_with_a_meaning_outside_the_text() {
    let found = facts("SELECT Lower(a.\"B\") || x -> $2, count /* c */ (*) FROM pg_temp_3.t TABLESAMPLE system (1)");
    let has =
        |name: &str, call: bool, after_dot: bool| found.names.contains(&Name { name: name.into(), call, after_dot });
    assert!(has("lower", true, false) && has("B", false, true) && has("count", true, false) && has("a", false, false));
    assert!(!has("Lower", true, false));
    assert_eq!(found.operators, ["*".into(), "->".into(), "||".into()]);
    assert_eq!(found.max_parameter, 2);
    assert!(found.has_parameters() && found.temporary && found.tablesample && !found.context_keyword);
    assert!(facts("SELECT CURRENT_DATE").context_keyword && facts("SELECT user").context_keyword);
    assert!(!facts("SELECT \"user\", u.user").context_keyword);
    let plain = |text: &str| Statement::analyse(text.as_bytes()).is_plain_ascii();
    assert!(
        plain("SELECT 'e'")
            && !plain("SELECT 'é'")
            && !plain("SELECT 'a\\b'")
            && !plain("SELECT 'é")
            && plain("SELECT 'e")
    );
    assert!(facts("SELECT $99999").odd && facts("SELECT $0").odd && facts("SELECT U&'x'").odd);
    let long = "x".repeat(70);
    assert_eq!(facts(&format!("SELECT {long}")).names[1].name.len(), 63);
}

#[test]
fn literals_that_name_the_current_time() {
    for text in [
        "'now'",
        "' TODAY '",
        "E'n\\x6fw'",
        "E'n\\157w'",
        "E'\\u006eow'",
        "$$yesterday$$",
        "$t$[today,)$t$",
        "N'now'",
        "'no'\n'w'",
        "'{n\\ow}'",
        "U&'\\006eow'",
        "E'n'\n'\\x6fw'",
    ] {
        assert!(facts(&format!("SELECT {text}")).special_time_literal, "{text}");
    }
    for text in ["'snow'", "now", "\"now\"", "'no' 'w'", "E'\\\\u006eow'", "$now$x$now$", "B'0'", "'nowhere'"] {
        assert!(!facts(&format!("SELECT {text}")).special_time_literal, "{text}");
    }
}

#[test]
fn conversions_that_may_meet_such_text() {
    use TemporalCast::*;
    let column = |name: &str| vec![Column(name.into())];
    for (text, wanted) in [
        ("SELECT '2020-01-01'::date, date '2020-01-01', NULL::timestamp", vec![]),
        ("SELECT $1::date", vec![Parameter(1)]),
        ("SELECT CAST($2 AS timestamp(3) with time zone)", vec![Parameter(2)]),
        ("SELECT ts::date FROM t WHERE ts > $1", column("ts")),
        ("SELECT t.ts::pg_catalog.date[] FROM t", column("ts")),
        ("SELECT date(ts), date(\"Ts\") FROM t", vec![Column("Ts".into()), Column("ts".into())]),
        ("SELECT CAST(ts AS date) FROM t", column("ts")),
        ("SELECT ((ts))::date FROM t", column("ts")),
        ("SELECT ts::timestamp with time zone::date FROM t", column("ts")),
        ("SELECT date_trunc('day', a || b)::date, (now())::date, CAST(to_date(a, 'Y') AS timestamp) FROM t", vec![]),
        ("SELECT a::int::date, (a || b)::text, a::numeric(3,1) FROM t", vec![]),
        ("SELECT (a || b)::date FROM t", vec![Unsafe]),
        ("SELECT ((a) || (b))::date FROM t", vec![Unsafe]),
        ("SELECT min(a)::date FROM t", vec![Unsafe]),
        ("SELECT min(a) OVER w::date FROM t WINDOW w AS ()", vec![Unsafe]),
        ("SELECT a COLLATE \"C\"::date FROM t", vec![Unsafe]),
        ("SELECT (ts::date)::timestamp, (a::int)::date FROM t", column("ts")),
        ("SELECT s.all(x)::date, by(x)::date, join(x)::date FROM t", vec![Unsafe]),
        ("SELECT x::date FROM (SELECT t.from x FROM t) s", vec![Unsafe]),
        ("SELECT x::date FROM t GROUP BY x ORDER BY x", column("x")),
        ("SELECT (r).f::date FROM t", vec![Unsafe]),
        ("SELECT a[1]::date FROM t", vec![Unsafe]),
        ("SELECT a::text::date FROM t", vec![Unsafe]),
        ("SELECT CASE WHEN a THEN b END::date FROM t", vec![Unsafe]),
        ("SELECT CAST(a || 'x' AS date) FROM t", vec![Unsafe]),
        ("SELECT CAST(CAST(a AS text) AS date) FROM t", vec![Unsafe]),
        ("SELECT date(a || b) FROM t", vec![Unsafe]),
        ("SELECT a::tsrange FROM t", column("a")),
        ("SELECT a::my_domain, a::s.int FROM t", column("a")),
        ("SELECT a::interval, a::uuid FROM t", vec![]),
        // A name that the statement gives itself may be anything.
        ("SELECT x::date FROM (SELECT a || b AS x FROM t) s", vec![Unsafe]),
        ("SELECT x::date FROM (SELECT a || b x FROM t) s", vec![Unsafe]),
        ("SELECT x::date FROM (SELECT a || b FROM t) s(x)", vec![Unsafe]),
        ("SELECT x::date FROM (VALUES (a, b)) AS s (y, x)", vec![Unsafe]),
        ("WITH c (x) AS (SELECT a || b FROM t) SELECT x::date FROM c", vec![Unsafe]),
        ("WITH d AS (SELECT 1), c (y, x) AS (SELECT 1, a || b FROM t) SELECT x::date FROM c", vec![Unsafe]),
        ("SELECT lower::date FROM (SELECT lower(a) FROM t) s", vec![Unsafe]),
        ("SELECT text::date FROM (SELECT (a || b)::text FROM t) s", vec![Unsafe]),
        ("SELECT \"?column?\"::date FROM (SELECT a || b FROM t) s", vec![Unsafe]),
        ("SELECT column1::date FROM (VALUES (a || b)) s", vec![Unsafe]),
        ("SELECT value::date FROM json_each_text($1)", vec![Unsafe]),
        ("SELECT value::date FROM t, json_each_text(t.j)", vec![Unsafe]),
        ("SELECT value::date FROM ROWS FROM (json_each_text($1)) r", vec![Unsafe]),
        ("SELECT d FROM t, xmltable('/a' PASSING x COLUMNS d date)", vec![Unsafe]),
    ] {
        assert_eq!(facts(text).temporal_casts, wanted, "{text}");
    }
}

#[test]
fn texts_that_mean_the_same_share_a_digest() {
    let base = digest("SELECT a, 'X' FROM t");
    for text in ["select A ,\n'X'from T", ";/* c */ SELECT a,'X' -- c\nFROM t;;"] {
        assert_eq!(digest(text), base, "{text}");
    }
    for text in ["SELECT a, 'x' FROM t", "SELECT \"A\", 'X' FROM t", "SELECT a, N'X' FROM t", "SELECT a; 'X' FROM t"] {
        assert_ne!(digest(text), base, "{text}");
    }
    assert_eq!(digest("SELECT 'a'\n'b'"), digest("SELECT 'a' -- c\n\n 'b'"));
    assert_ne!(digest("SELECT 'a'\n'b'"), digest("SELECT 'a' 'b'"));
    assert_eq!(normal_form(b"Select 'a'\n'b' ;"), b"select 'a'\n'b'");
}

#[test]
fn a_shape_forgets_values_but_not_kinds() {
    assert_eq!(shape("SELECT 1, 'a', 1.5"), shape("SELECT 2147483647, $$b$$, 1e9"));
    for text in
        ["SELECT '1'", "SELECT 2147483648", "SELECT 9223372036854775808", "SELECT $1", "SELECT B'1'", "SELECT X'1'"]
    {
        assert_ne!(shape(text), shape("SELECT 1"), "{text}");
    }
    assert_eq!(shape("SELECT 9223372036854775808"), shape("SELECT 1.5"));
    assert_eq!(shape("SELECT 0x7fffffff"), shape("SELECT 1"));
}

#[test]
fn the_memo_returns_what_analysis_does() {
    let statements = Statements::new();
    let [first, second, third] = [(); 3].map(|()| statements.get(b"SELECT 1"));
    assert_eq!(*first, Statement::analyse(b"SELECT 1"));
    assert_eq!(first, second);
    assert!(std::sync::Arc::ptr_eq(&second, &third));
    let long = format!("SELECT '{}'", "x".repeat(memo::LONGEST_REMEMBERED));
    assert!(!std::sync::Arc::ptr_eq(&statements.get(long.as_bytes()), &statements.get(long.as_bytes())));
}

#[test]
fn analysis_takes_linear_time() {
    let nested = format!("SELECT {}a{}", "(".repeat(100_000), ")::date".repeat(100_000));
    assert_eq!(facts(&nested).temporal_casts.len(), 1);
    let names = (0..100_000).map(|n| format!("c{n}::date, ")).collect::<String>();
    assert_eq!(facts(&format!("SELECT {names} 1")).temporal_casts.len(), 100_000);
}

proptest! {
    #[test]
    fn a_normal_form_has_the_tokens_of_its_text(text in sqlish()) {
        if let Ok(tokens) = lexer::tokens(&text) {
            let form = normal::normal_form(&tokens);
            let again = lexer::tokens(&form).unwrap();
            prop_assert_eq!(again.len(), tokens.len());
            for (a, b) in tokens.iter().zip(&again) {
                prop_assert_eq!(a.kind, b.kind);
                prop_assert!(a.pieces().map(<[u8]>::to_ascii_lowercase).eq(b.pieces().map(<[u8]>::to_ascii_lowercase)));
                prop_assert!(a.kind == lexer::Kind::Word || a.pieces().eq(b.pieces()));
            }
            prop_assert_eq!(normal::normal_form(&again), form);
        }
    }

    #[test]
    fn no_text_makes_analysis_panic(text in sqlish()) {
        let statement = Statement::analyse(&text);
        for part in &statement.parts {
            prop_assert!(part.range.end <= text.len() && part.range.start < part.range.end);
        }
    }
}

#[test]
fn what_is_shown_of_a_text_holds_no_value_and_costs_no_more_than_it_shows() {
    let shown = |text: &str| shape_text(text.as_bytes(), 60);
    assert_eq!(
        shown("SELECT 'a', $$b$$, E'c', 1, 2.5, B'1', $1 /* d */ FROM T;"),
        "select ? , ? , ? , ? , ? , ? , $1 from t"
    );
    assert_eq!(shown("SELECT 'it is cut"), "(a text that cannot be read)");
    let many = format!("INSERT INTO t VALUES {}", "('secret'),".repeat(1000));
    assert_eq!(shown(&many), format!("{} ...", &shape_text(many.as_bytes(), 1000)[..60]));
    // What is not shown is not read: here it could not be.
    assert!(shown(&format!("{many} 'open")).starts_with("insert into t values ( ? ) , ( ? )"));
    let quoted = format!("SELECT \"{}\"", "é".repeat(100));
    assert!(shown(&quoted).ends_with(" ..."));
}
