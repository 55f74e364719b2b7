//! A SELECT from one table whose rows can be asked for by ranges of blocks: where the condition for it goes.
//!
//! **Invariant.** The text that [`Scan::chunk`] makes means what the original means, with one more condition on the rows of its
//! table; if it is ordered, with its keys in front of its list. Only one form is taken:
//! `SELECT list FROM table [WHERE condition] [ORDER BY keys [LIMIT n] [OFFSET n]]`, understood to the last token, without a second
//! query inside. Whether that form is safe to split (aggregates and window functions look like it, too) is not told by the text:
//! the planner is asked.

use super::facts::Facts;
use super::lexer::Token;
use super::ordering::Ordering;
use super::predicates::{OnlyTable, only_table};

/// Words at which a text is no SELECT from one table, or too much of one, wherever they stand.
pub(super) const REFUSED: [&str; 12] = [
    "select",
    "with",
    "values",
    "table",
    "into",
    "over",
    "union",
    "intersect",
    "except",
    "tablesample",
    "lateral",
    "within",
];
/// Clauses that come after the condition. With all but the first it is no longer this form.
const LATER: [&str; 8] = ["order", "group", "having", "window", "limit", "offset", "fetch", "for"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// What the table's columns can be qualified with, quoted.
    qualifier: String,
    /// The table's name, quoted, with its schema if that is written.
    name: String,
    /// Where SELECT begins, and ends.
    start: usize,
    list: usize,
    /// Where WHERE ends, if there is one.
    condition: Option<usize>,
    /// Where FROM and WHERE end.
    end: usize,
    ordering: Option<Ordering>,
}

impl Scan {
    /// `None` if the text is not of this form.
    pub fn of(tokens: &[Token<'_>], facts: &Facts) -> Option<Self> {
        let (first, rest) = tokens.split_first()?;
        if facts.odd || facts.locks_rows || !first.is_word("select") {
            return None;
        }
        let clauses = Clauses::of(rest)?;
        let OnlyTable { qualifier, name } = only_table(clauses.from)?;
        let Clauses { condition, end, ordering, .. } = clauses;
        Some(Self { qualifier, name, start: first.start, list: first.end(), condition, end, ordering })
    }

    /// The table's name as the statement has it, quoted.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The statement for the blocks from parameter `$number`, a tid, up to but without the next parameter. `text` is what was
    /// analysed.
    pub fn chunk(&self, text: &[u8], number: usize) -> Vec<u8> {
        let Self { qualifier, start, list, condition, end, ordering, .. } = self;
        // Operators by their full names: the session's search_path may lead to others.
        let range = format!(
            "{qualifier}.ctid OPERATOR(pg_catalog.>=) ${number} AND {qualifier}.ctid OPERATOR(pg_catalog.<) ${}",
            number + 1
        );
        let piece = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        let mut out = piece(*start, *list).to_vec();
        if let Some(ordering) = ordering {
            ordering.push_keys(text, &mut out);
        }
        let rest = match condition {
            None => [piece(*list, *end), b" WHERE ", range.as_bytes()].concat(),
            Some(condition) => {
                [piece(*list, *condition), b" (", piece(*condition, *end), b" ) AND ", range.as_bytes()].concat()
            }
        };
        out.extend_from_slice(&rest);
        if let Some(ordering) = ordering {
            ordering.push_tail(text, &mut out);
        }
        out
    }

    /// How its rows are ordered, if they are.
    pub fn ordering(&self) -> Option<&Ordering> {
        self.ordering.as_ref()
    }

    /// Bytes on the heap, about.
    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.qualifier.len() + self.name.len() + self.ordering.as_ref().map_or(0, Ordering::weight)
    }
}

/// The clauses of such a statement.
struct Clauses<'t, 'a> {
    from: &'t [Token<'a>],
    /// Where WHERE ends.
    condition: Option<usize>,
    /// Where both end.
    end: usize,
    ordering: Option<Ordering>,
}

impl<'t, 'a> Clauses<'t, 'a> {
    /// From the tokens after SELECT.
    fn of(tokens: &'t [Token<'a>]) -> Option<Self> {
        let (mut depth, mut from, mut condition, mut tail) = (0usize, None, None, None);
        for (at, token) in tokens.iter().enumerate() {
            if token.is_punctuation("(") || token.is_punctuation("[") {
                depth += 1;
            } else if token.is_punctuation(")") || token.is_punctuation("]") {
                depth = depth.checked_sub(1)?;
            } else if token.is_any_word(&REFUSED) || token.is_word("filter") {
                return None;
            }
            if depth == 0 && tail.is_some() && token.is_word("for") {
                return None;
            }
            if depth > 0 || tail.is_some() {
                continue;
            }
            let before = at.checked_sub(1).map(|before| &tokens[before]);
            let is_distinct_from = token.is_word("from") && before.is_some_and(|before| before.is_word("distinct"));
            if token.is_any_word(&LATER) {
                from.filter(|_| token.is_word(LATER[0]))?;
                tail = Some(at);
                continue;
            }
            if is_distinct_from || !token.is_any_word(&["from", "where"]) {
                continue;
            }
            // As a label it is no clause; who writes that is not followed.
            if before.is_some_and(|before| before.is_punctuation(".") || before.is_word("as")) {
                return None;
            }
            match (token.is_word("from"), from, condition) {
                (true, None, None) => from = Some(at + 1),
                (false, Some(_), None) => condition = Some(at),
                _ => return None,
            }
        }
        let from = from.filter(|_| depth == 0)?;
        let (tokens, tail) = tokens.split_at(tail.unwrap_or(tokens.len()));
        let until = condition.unwrap_or(tokens.len());
        // A condition has at least one token.
        if condition.is_some_and(|at| at + 1 == tokens.len()) {
            return None;
        }
        let ordering = if tail.is_empty() { None } else { Some(Ordering::of(tokens.get(..from - 1)?, tail)?) };
        Some(Self {
            from: tokens.get(from..until)?,
            condition: condition.map(|at| tokens[at].end()),
            end: tokens.last()?.end(),
            ordering,
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::statement::Statement;

    fn chunk(text: &str) -> Option<String> {
        let statement = Statement::analyse(text.as_bytes());
        let scan = statement.parts.first()?.scan.as_ref()?;
        Some(String::from_utf8(scan.chunk(text.as_bytes(), 1)).expect("UTF-8"))
    }

    #[test]
    fn the_range_is_one_more_condition() {
        let range =
            |q: &str| format!("\"{q}\".ctid OPERATOR(pg_catalog.>=) $1 AND \"{q}\".ctid OPERATOR(pg_catalog.<) $2");
        for (text, expected, qualifier) in [
            ("SELECT * FROM t", "SELECT * FROM t WHERE ", "t"),
            (" /* x */ select a from s.T as U ;", "select a from s.T as U WHERE ", "u"),
            ("SELECT a FROM \"T\" \"a\"\"b\"", "SELECT a FROM \"T\" \"a\"\"b\" WHERE ", "a\"\"b"),
            ("SELECT a FROM t WHERE a OR b", "SELECT a FROM t WHERE ( a OR b ) AND ", "t"),
            ("SELECT a FROM t WHERE a -- ) OR true\n", "SELECT a FROM t WHERE ( a ) AND ", "t"),
            ("SELECT a FROM t WHERE-- x\n(b)or c/*", "", ""),
            ("SELECT a FROM t WHERE-- x\n(b)or c", "SELECT a FROM t WHERE (-- x\n(b)or c ) AND ", "t"),
            (
                "SELECT a IS DISTINCT FROM b FROM t WHERE a IS NOT DISTINCT FROM b",
                "SELECT a IS DISTINCT FROM b FROM t WHERE ( a IS NOT DISTINCT FROM b ) AND ",
                "t",
            ),
            (
                "SELECT extract(year from d), substring(s from 2) FROM ONLY t * x",
                "SELECT extract(year from d), substring(s from 2) FROM ONLY t * x WHERE ",
                "x",
            ),
        ] {
            let expected = (!expected.is_empty()).then(|| format!("{expected}{}", range(qualifier)));
            assert_eq!(chunk(text), expected, "{text}");
        }
    }

    #[test]
    fn the_name_is_the_tables_and_means_what_is_written() {
        for (text, expected) in [
            ("SELECT 1 FROM Tab x", "\"tab\""),
            ("SELECT 1 FROM ONLY s . \"T\"\"\" * AS x WHERE a", "\"s\".\"T\"\"\""),
            ("SELECT 1 FROM d.s.t", "\"d\".\"s\".\"t\""),
        ] {
            let statement = Statement::analyse(text.as_bytes());
            let scan = statement.parts[0].scan.as_ref().expect("a scan");
            assert_eq!(scan.name(), expected, "{text}");
        }
    }

    #[test]
    fn anything_else_is_left_alone() {
        for text in [
            "SELECT 1",
            "SELECT * FROM t, u",
            "SELECT * FROM t JOIN u USING (a)",
            "SELECT * FROM f(1)",
            "SELECT * FROM t AS x (a, b)",
            "SELECT * FROM (SELECT * FROM t) t",
            "SELECT * FROM t WHERE a IN (SELECT a FROM t)",
            "SELECT * FROM t WHERE a IN (VALUES (1))",
            "SELECT (TABLE u) FROM t",
            "WITH x AS (SELECT 1) SELECT * FROM t",
            "TABLE t",
            "VALUES (1)",
            "(SELECT * FROM t)",
            "SELECT * FROM t LIMIT 1",
            "SELECT * FROM t OFFSET 1",
            "SELECT * FROM t FETCH FIRST ROW ONLY",
            "SELECT a FROM t GROUP BY a",
            "SELECT count(*) FROM t HAVING true",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t UNION ALL SELECT * FROM t",
            "SELECT rank() OVER (ORDER BY a) FROM t",
            "SELECT * INTO u FROM t",
            "SELECT * FROM t TABLESAMPLE system (1)",
            "SELECT * FROM t WHERE",
            "SELECT a AS from FROM t",
            "SELECT * FROM t WHERE a) OR (b",
            "SELECT * FROM U&\"t\"",
        ] {
            assert_eq!(chunk(text), None, "{text}");
        }
    }
}
