//! A pin is reported only if nothing else in the statement can let other rows in.

use heliosproxy::statement::Statement;
use heliosproxy::statement::lexer::tokens;

/// Behind an OR, under a NOT or as an argument a condition selects nothing by itself.
pub fn an_alternative_undoes_every_pin(condition: &[u8]) {
    if !is_closed(condition) {
        return;
    }
    let text = |before: &str, after: &str| [before.as_bytes(), condition, after.as_bytes()].concat();
    for (before, after) in [
        ("SELECT * FROM t WHERE (", "\n) OR v = 1"),
        ("SELECT * FROM t WHERE v = 1 OR (", "\n)"),
        ("SELECT * FROM t WHERE NOT (", "\n)"),
        ("SELECT * FROM t WHERE f(", "\n)"),
        ("SELECT * FROM t WHERE CASE WHEN (", "\n) THEN false ELSE true END"),
        ("SELECT * FROM t LEFT JOIN u ON (", "\n)"),
        ("SELECT (", "\n) FROM t"),
        ("SELECT count(*) FROM t HAVING (", "\n)"),
        ("UPDATE t SET v = 1 WHERE (", "\n) IS NOT TRUE"),
        ("DELETE FROM t WHERE (", "\n) IS NULL"),
    ] {
        let text = text(before, after);
        for part in &Statement::analyse(&text).parts {
            let pinned = part.predicates.as_ref().and_then(|predicates| predicates.pin("t", "id"));
            assert_eq!(pinned, None, "{}", text.escape_ascii());
        }
    }
}

/// Nothing in it ends what stands around it.
fn is_closed(condition: &[u8]) -> bool {
    let Ok(tokens) = tokens(condition) else { return false };
    let mut depth = 0i32;
    for token in &tokens {
        depth += i32::from(token.is_punctuation("(")) - i32::from(token.is_punctuation(")"));
        if depth < 0 || token.is_punctuation(";") {
            return false;
        }
    }
    depth == 0
}
