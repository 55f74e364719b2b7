use proptest::prelude::*;

use super::*;
use crate::statement::Statement;

fn predicates(text: &str) -> Option<Predicates> {
    let statement = Statement::analyse(text.as_bytes());
    assert_eq!(statement.parts.len(), 1, "{text}");
    statement.parts[0].predicates.as_deref().cloned()
}

fn pin(text: &str, table: &str, column: &str) -> Option<Values> {
    predicates(text)?.pin(table, column).cloned()
}

fn integer(digits: &str) -> Constant {
    Constant::Integer { digits: digits.into(), cast: None }
}

fn one(digits: &str) -> Option<Values> {
    Some(Values::Listed(vec![integer(digits)]))
}

fn text(content: &str, cast: Option<&str>) -> Constant {
    Constant::Text { content: content.into(), cast: cast.map(str::to_owned) }
}

#[test]
fn an_equality_with_a_constant_pins_its_column() {
    for condition in [
        "id = 5",
        "5 = id",
        "t.id = 5",
        "(id = 5)",
        "((t.id = 5))",
        "id = 5 AND x > 3",
        "x > 3 AND id = 5 AND y",
        "(x OR y) AND id = 5",
        "x BETWEEN 1 AND 2 AND id = 5",
        "CASE WHEN a AND b THEN c END AND id = 5",
        "a[1 AND 2] AND (id = 5 AND x)",
        "NOT x AND id = 5",
        "f(a, b) AND \"id\" = 5",
        "x.end AND id = 5",
        "ID=5",
    ] {
        let text = format!("SELECT * FROM t WHERE {condition}");
        assert_eq!(pin(&text, "t", "id"), one("5"), "{text}");
    }
}

#[test]
fn what_only_looks_like_one_does_not() {
    for condition in [
        "id = 5 OR x",
        "x OR id = 5",
        "NOT id = 5",
        "NOT (id = 5)",
        "id = 5 IS TRUE",
        "id = 5 + 1",
        "id = 5 COLLATE \"C\"",
        "id = 5.0",
        "id = f(5)",
        "id = (5)",
        "id + 1 = 5",
        "- id = 5",
        "id <> 5",
        "id == 5",
        "id OPERATOR(x.=) 5",
        "id IS NOT DISTINCT FROM 5",
        "x BETWEEN 1 AND id = 5",
        "x BETWEEN y BETWEEN 1 AND 2 AND id = 5",
        "CASE WHEN id = 5 AND id = 5 THEN a END",
        "CASE WHEN a AND id = 5 AND b THEN c END",
        "EXISTS (SELECT FROM u WHERE id = 5)",
        "(SELECT a FROM u WHERE b AND id = 5)",
        "((SELECT a) UNION SELECT b FROM u WHERE c AND id = 5)",
        "(id, x) = (5, 6)",
        "(id) = 5 AND x",
        "id = ALL ($1)",
        "id NOT IN (5)",
        "id IN (5) IS FALSE",
        "id IN (SELECT 5)",
        "id IN (5, x)",
        "id = ANY (ARRAY[5])",
        "s.t.id = 5",
        "u.id = 5",
        "id = 5::int[]",
        "id = 5::numeric(3)",
        "id = 5::a.b",
        "x = id = 5",
        "WHERE id = 5",
        "CURRENT OF c",
        "id = N'5'",
        "id = B'1'",
        "id = U&'5'",
        "id = E'\\u0035'",
    ] {
        let text = format!("SELECT * FROM t WHERE {condition}");
        let statement = Statement::analyse(text.as_bytes());
        let found = statement.parts.first().and_then(|part| part.predicates.as_ref()?.pin("t", "id").cloned());
        // A type that may be anybody's is for the catalogue to refuse.
        assert!(found.is_none(), "{text}: {found:?}");
    }
    for word in ["user", "current_user", "true", "current_date"] {
        assert_eq!(pin(&format!("DELETE FROM t WHERE {word} = 'a'"), "t", word), None, "{word} is no column");
        assert!(pin(&format!("DELETE FROM t WHERE \"{word}\" = 'a'"), "t", word).is_some());
    }
}

#[test]
fn constants_are_told_by_how_they_are_written() {
    for (written, expected) in [
        ("-5", integer("-5")),
        ("- 5", integer("-5")),
        ("$3", Constant::Parameter(3)),
        ("$3::int", Constant::Parameter(3)),
        ("'a''b'", text("a'b", None)),
        ("$$a$$", text("a", None)),
        ("E'a'", text("a", None)),
        ("'5'::bigint", text("5", Some("bigint"))),
        ("'a'::character varying", text("a", Some("character varying"))),
        ("date '2020-01-02'", text("2020-01-02", Some("date"))),
        ("5::int8", Constant::Integer { digits: b"5".into(), cast: Some("int8".into()) }),
        ("TRUE", Constant::Bool(true)),
        ("NULL", Constant::Null),
    ] {
        let statement = format!("SELECT * FROM t WHERE id = {written}");
        assert_eq!(pin(&statement, "t", "id"), Some(Values::Listed(vec![expected])), "{written}");
    }
    let list = |list: &[&str]| Some(Values::Listed(list.iter().map(|digits| integer(digits)).collect()));
    assert_eq!(pin("SELECT * FROM t WHERE id IN (1, -2)", "t", "id"), list(&["1", "-2"]));
    assert_eq!(pin("SELECT * FROM t WHERE id = ANY ($2)", "t", "id"), Some(Values::AnyOf(2)));
    assert_eq!(pin("SELECT * FROM t WHERE id = any($2::int[])", "t", "id"), Some(Values::AnyOf(2)));
}

#[test]
fn tables_are_found_by_their_qualifiers() {
    for (from, column, expected) in [
        ("t", "id", true),
        ("ONLY t", "id", true),
        ("s.t", "id", true),
        ("t AS x", "x.id", true),
        ("t x", "x.id", true),
        ("t x", "id", true),
        ("t x", "t.id", false),
        ("t AS x (a, b)", "x.id", false),
        ("t x (a)", "id", false),
        ("u, t", "t.id", true),
        ("u, t", "id", false),
        ("u JOIN t ON u.id = t.id", "t.id", true),
        ("u LEFT JOIN t ON (u.id = t.id)", "t.id", true),
        ("u FULL OUTER JOIN s.t AS x USING (id)", "x.id", true),
        ("u NATURAL JOIN t", "id", false),
        ("t JOIN u ON true CROSS JOIN (SELECT 1) v", "t.id", true),
        ("(SELECT 1) v, t", "t.id", true),
        ("(SELECT * FROM t) t", "t.id", false),
        ("(u JOIN t ON true)", "t.id", false),
        ("t(1)", "t.id", false),
        ("t(1) x", "x.id", false),
        ("f(1) t", "t.id", false),
        ("LATERAL t", "t.id", false),
        ("t TABLESAMPLE system (1)", "t.id", false),
        ("t, t x", "t.id", false),
        ("t, (SELECT * FROM t) x", "t.id", false),
        ("s.t, r.t x", "x.id", false),
    ] {
        let text = format!("SELECT * FROM {from} WHERE {column} = 5");
        assert_eq!(pin(&text, "t", "id"), one("5").filter(|_| expected), "{text}");
    }
}

#[test]
fn queries_that_are_more_than_one_plain_select_are_left_alone() {
    for text in [
        "SELECT * FROM t WHERE id = 5 UNION SELECT * FROM t",
        "SELECT 1 UNION SELECT id FROM t WHERE id = 5",
        "(SELECT * FROM t WHERE id = 5)",
        "WITH t AS (SELECT 5 AS id) SELECT * FROM t WHERE id = 5",
        "SELECT a IS DISTINCT FROM b FROM t WHERE id = 5",
        "SELECT a AS where FROM t WHERE id = 5",
        "SELECT * INTO x FROM t WHERE id = 5",
        "TABLE t",
        "SELECT U&\"a\" FROM t WHERE id = 5",
    ] {
        assert_eq!(pin(text, "t", "id"), None, "{text}");
    }
    for text in [
        "SELECT count(*), (SELECT max(a) FROM u WHERE b OR c) FROM t WHERE id = 5 GROUP BY a HAVING x OR y ORDER BY 1 LIMIT 3",
        "SELECT DISTINCT extract(day FROM d) FROM t WHERE id = 5 OFFSET 2",
        "SELECT sum(a) FILTER (WHERE b OR c) OVER w FROM t WHERE id = 5 WINDOW w AS (ORDER BY d)",
    ] {
        assert_eq!(pin(text, "t", "id"), one("5"), "{text}");
    }
}

#[test]
fn writes_say_what_they_do_to_which_rows() {
    let update =
        predicates("UPDATE ONLY s.t AS x SET a = 1, b = b + 1, c = $2, (d, e) = (1, 2), f[1] = 2 WHERE x.id = 5")
            .unwrap();
    assert_eq!(update.pin("t", "id").cloned(), one("5"));
    let columns = |list: &[(&str, Option<Constant>)]| {
        Change::Update(list.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    };
    let (a, c) = (Some(integer("1")), Some(Constant::Parameter(2)));
    let expected = [("a", a), ("b", None), ("c", c), ("d", None), ("e", None), ("f", None)];
    assert_eq!(update.change, columns(&expected));

    let delete = predicates("DELETE FROM t WHERE id = 5 RETURNING *").unwrap();
    assert_eq!((delete.pin("t", "id").cloned(), &delete.change), (one("5"), &Change::Delete));
    for (text, expected) in [
        ("UPDATE t SET a = 1 FROM u WHERE id = 5", None),
        ("UPDATE t SET a = 1 FROM u WHERE t.id = 5 AND u.id = t.id", one("5")),
        ("DELETE FROM t USING u WHERE u.id = 5", None),
        ("DELETE FROM t x USING u WHERE x.id = 5", one("5")),
        ("UPDATE t SET a = 1", None),
        ("UPDATE t SET a = 1 WHERE CURRENT OF c", None),
        ("UPDATE t SET a = 1 WHERE id = 5 OR true", None),
        ("UPDATE t SET a = (SELECT b FROM u WHERE id = 5) WHERE id = 6", one("6")),
        ("UPDATE t SET a = 1 WHERE id = 5 AND EXISTS (SELECT FROM t)", None),
    ] {
        assert_eq!(pin(text, "t", "id"), expected, "{text}");
    }
    for text in [
        "DELETE FROM t",
        "WITH x AS (SELECT 1) DELETE FROM t WHERE id = 5",
        "MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE",
    ] {
        assert_eq!(predicates(text).and_then(|found| found.pin("t", "id").cloned()), None, "{text}");
    }
}

#[test]
fn inserts_list_their_values() {
    let insertion = |text: &str| match predicates(text)?.change {
        Change::Insert(insertion) => Some(insertion),
        _ => None,
    };
    let two = insertion("INSERT INTO s.t AS x (id, a) VALUES (1, DEFAULT), ($1, f(2)) RETURNING id").unwrap();
    assert_eq!(two.columns, Some(vec!["id".into(), "a".into()]));
    assert_eq!(two.rows, [vec![Some(integer("1")), None], vec![Some(Constant::Parameter(1)), None]]);
    assert_eq!(two.conflict, Conflict::Leaves);
    assert_eq!(insertion("INSERT INTO t VALUES (1)").unwrap().columns, None);
    assert_eq!(insertion("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING").unwrap().conflict, Conflict::Leaves);
    let upsert = "INSERT INTO t (id, a) VALUES (1, 2) ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a, b = excluded.a, id = 7 WHERE t.a > 1";
    assert_eq!(
        insertion(upsert).unwrap().conflict,
        Conflict::Updates {
            equal: vec!["id".into()],
            assigned: vec![
                ("a".into(), Assigned::Proposed),
                ("b".into(), Assigned::Computed),
                ("id".into(), Assigned::Constant(integer("7"))),
            ],
        }
    );
    for target in ["ON CONSTRAINT t_pkey", "(lower(id))", "(id COLLATE \"C\")"] {
        let text = format!("INSERT INTO t (id) VALUES (1) ON CONFLICT {target} DO UPDATE SET a = 1");
        let Conflict::Updates { equal, .. } = insertion(&text).unwrap().conflict else { panic!("{text}") };
        assert!(equal.is_empty(), "{text}");
    }
    for text in [
        "INSERT INTO t SELECT 1",
        "INSERT INTO t (SELECT 1)",
        "INSERT INTO t (id) SELECT 1",
        "INSERT INTO t DEFAULT VALUES",
        "INSERT INTO t (id) OVERRIDING USER VALUE VALUES (1)",
        "INSERT INTO t (id[1]) VALUES (1)",
        "INSERT INTO t (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET (a, b[1]) = (1, 2)",
    ] {
        assert_eq!(insertion(text), None, "{text}");
    }
    assert!(insertion("INSERT INTO t (id) OVERRIDING SYSTEM VALUE VALUES (1)").is_some());
}

proptest! {
    #[test]
    fn white_space_comments_and_case_change_nothing(gaps in prop::collection::vec(0usize..4, 14), upper in any::<bool>()) {
        let words = ["SELECT", "*", "FROM", "t", "AS", "x", "WHERE", "x", ".", "id", "=", "5", "AND", "y"];
        let gap = |gap: &usize| [" ", "\n", " /* = 5 OR */ ", " -- OR x\n"][*gap];
        let text: String = words.iter().zip(&gaps).map(|(word, space)| format!("{word}{}", gap(space))).collect();
        let text = if upper { text.to_uppercase() } else { text.to_lowercase() };
        prop_assert_eq!(pin(&text, "t", "id"), one("5"));
    }

    /// A conjunct is found exactly if only ANDs and parentheses stand over it.
    #[test]
    fn a_pin_is_found_exactly_under_conjunctions(path in prop::collection::vec(0usize..6, 0..6)) {
        let mut condition = "id = 5".to_owned();
        let mut holds = true;
        for step in &path {
            condition = match step {
                0 => format!("({condition})"),
                1 => format!("(x > 1 AND {condition})"),
                2 => format!("({condition} AND y BETWEEN 1 AND 2)"),
                3 => format!("(x OR {condition})"),
                4 => format!("(NOT ({condition}))"),
                _ => format!("(CASE WHEN {condition} THEN a AND b END)"),
            };
            holds &= *step < 3;
        }
        let text = format!("SELECT * FROM t WHERE {condition}");
        prop_assert_eq!(pin(&text, "t", "id"), one("5").filter(|_| holds));
    }

    #[test]
    fn no_token_sequence_is_too_odd(words in prop::collection::vec(0usize..28, 0..24)) {
        const WORDS: [&str; 28] = [
            "select", "update", "delete", "insert", "into", "from", "where", "set", "t", "id", "=", "5", "(", ")", ",", ".",
            "and", "in", "any", "$1", "values", "on", "conflict", "do", "as", "'a'", "::", "between",
        ];
        let text: Vec<&str> = words.iter().map(|word| WORDS[*word]).collect();
        let _ = Statement::analyse(text.join(" ").as_bytes());
    }
}
