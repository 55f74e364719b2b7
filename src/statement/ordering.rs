//! ORDER BY, LIMIT and OFFSET of a statement whose ranges of blocks are sorted one by one: what is asked of each range.
//!
//! **Invariant.** A range is sorted by the same expressions in the same direction as the whole, and gives at least the rows that the
//! whole could have of it. The text alone cannot promise that: `ORDER BY a` may mean a column or what the list calls `a`. So the
//! planner is asked what it sorts the one and the other by, and the answers must be the same.

use std::ops::Range;

use super::lexer::{Kind, Token};
use super::literal;

/// What the keys are called in the list of a range. Whoever has such a name is not followed.
const KEY: &str = "heliosproxy_key_";
/// Keys that are followed.
const MOST_KEYS: usize = 32;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ordering {
    keys: Vec<Key>,
    limit: Count,
    offset: Count,
    by_position: bool,
}

/// One key, by where it stands in the text.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    expression: Range<usize>,
    /// Its direction, and where it has NULLs.
    direction: Range<usize>,
}

/// A number of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Not given, or ALL, or NULL.
    None,
    Number(u64),
    Parameter(u16),
}

impl Ordering {
    /// `list` are the tokens between SELECT and FROM, and `tail` those from ORDER on. `None` if something else is there.
    pub(super) fn of(list: &[Token<'_>], tail: &[Token<'_>]) -> Option<Self> {
        let [order, by, rest @ ..] = tail else { return None };
        if !order.is_word("order") || !by.is_word("by") || list.first()?.is_any_word(&["all", "distinct"]) {
            return None;
        }
        if list.iter().chain(tail).any(|token| literal::identifier(token).is_some_and(|name| name.starts_with(KEY))) {
            return None;
        }
        let end = rest.iter().position(|token| token.is_any_word(&["limit", "offset", "fetch"])).unwrap_or(rest.len());
        let (items, counts) = rest.split_at(end);
        let outputs = outputs(list)?;
        let mut ordering = Self { keys: Vec::new(), limit: Count::None, offset: Count::None, by_position: false };
        for item in split_at_commas(items)? {
            let key = ordering.key(item, &outputs)?;
            ordering.keys.push(key);
        }
        ordering.read_counts(counts)?;
        (ordering.keys.len() <= MOST_KEYS).then_some(ordering)
    }

    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// A number says by what it is ordered. Statements that differ in such a number have the same shape.
    pub fn is_by_position(&self) -> bool {
        self.by_position
    }

    pub fn limit(&self) -> Count {
        self.limit
    }

    pub fn offset(&self) -> Count {
        self.offset
    }

    /// What comes before the list: the keys. `text` is what was analysed.
    pub(super) fn push_keys(&self, text: &[u8], out: &mut Vec<u8>) {
        for (number, key) in self.keys.iter().enumerate() {
            out.push(b' ');
            out.extend_from_slice(text.get(key.expression.clone()).unwrap_or_default());
            out.extend_from_slice(format!(" AS {KEY}{},", number + 1).as_bytes());
        }
    }

    /// What comes after the condition. Each range may have all rows up to the last one that is wanted.
    pub(super) fn push_tail(&self, text: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(b" ORDER BY ");
        for (number, key) in self.keys.iter().enumerate() {
            let comma = if number > 0 { ", " } else { "" };
            out.extend_from_slice(format!("{comma}{KEY}{} ", number + 1).as_bytes());
            out.extend_from_slice(text.get(key.direction.clone()).unwrap_or_default());
        }
        if self.limit == Count::None && self.offset == Count::None {
            return;
        }
        let sql = |count: Count, none: &str| match count {
            Count::None => none.to_owned(),
            Count::Number(number) => number.to_string(),
            Count::Parameter(number) => format!("${number}"),
        };
        // Without a limit the sum is NULL, which is none; but a parameter keeps its place, and its type.
        let (limit, offset) = (sql(self.limit, "NULL"), sql(self.offset, "0"));
        out.extend_from_slice(
            format!(" LIMIT CAST({limit} AS pg_catalog.int8) OPERATOR(pg_catalog.+) CAST({offset} AS pg_catalog.int8)")
                .as_bytes(),
        );
    }

    pub(super) fn weight(&self) -> usize {
        self.keys.len() * size_of::<Key>()
    }

    fn key(&mut self, item: &[Token<'_>], outputs: &[Output<'_, '_>]) -> Option<Key> {
        let mut expression = item;
        if let [before @ .., nulls, place] = expression
            && nulls.is_word("nulls")
            && place.is_any_word(&["first", "last"])
        {
            expression = before;
        }
        if let [before @ .., direction] = expression
            && direction.is_any_word(&["asc", "desc"])
        {
            expression = before;
        }
        let direction = expression.last()?.end()..item.last()?.end();
        let expression = match expression {
            [number] if number.kind == Kind::Integer => {
                self.by_position = true;
                let number: usize = std::str::from_utf8(number.text).ok()?.parse().ok()?;
                let place = number.checked_sub(1)?;
                // What `*` stands for is not known here.
                outputs.get(..=place)?.iter().all(|output| !output.is_star).then(|| outputs[place].expression)?
            }
            [one] if one.kind.is_literal() => return None,
            [name] => {
                let name = literal::identifier(name)?;
                let called = outputs.iter().find(|output| output.label.as_ref() == Some(&name));
                called.map_or(expression, |output| output.expression)
            }
            _ => expression,
        };
        // The type of a parameter is what its first place in the text makes of it; and USING takes any operator.
        if expression.iter().any(|token| token.kind == Kind::Parameter || token.is_word("using")) {
            return None;
        }
        Some(Key { expression: expression.first()?.start..expression.last()?.end(), direction })
    }

    /// `[LIMIT n] [OFFSET n]` and `[OFFSET n ROWS] [FETCH FIRST n ROWS ONLY]`.
    fn read_counts(&mut self, mut tokens: &[Token<'_>]) -> Option<()> {
        let (mut has_limit, mut has_offset) = (false, false);
        while let Some((clause, rest)) = tokens.split_first() {
            if clause.is_word("offset") {
                let (count, rest) = count(rest)?;
                let rows = usize::from(rest.first().is_some_and(|word| word.is_any_word(&["row", "rows"])));
                (self.offset, tokens) = (count, &rest[rows..]);
                if std::mem::replace(&mut has_offset, true) {
                    return None;
                }
                continue;
            }
            if std::mem::replace(&mut has_limit, true) {
                return None;
            }
            if clause.is_word("limit") {
                (self.limit, tokens) = count(rest)?;
            } else if clause.is_word("fetch") && rest.first()?.is_any_word(&["first", "next"]) {
                let rest = &rest[1..];
                let is_one = rest.first()?.is_any_word(&["row", "rows"]);
                let (count, rest) = if is_one { (Count::Number(1), rest) } else { count(rest)? };
                let [rows, only, rest @ ..] = rest else { return None };
                if !rows.is_any_word(&["row", "rows"]) || !only.is_word("only") {
                    return None;
                }
                (self.limit, tokens) = (count, rest);
            } else {
                return None;
            }
        }
        Some(())
    }
}

/// A number of rows at the front. Anything that would have to be computed is not followed.
fn count<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<(Count, &'t [Token<'a>])> {
    let (first, rest) = tokens.split_first()?;
    let digits = |text: &[u8]| std::str::from_utf8(text).ok().map(str::to_owned);
    let count = match first.kind {
        Kind::Integer => Count::Number(digits(first.text)?.parse::<i64>().ok()?.try_into().ok()?),
        Kind::Parameter => Count::Parameter(digits(&first.text[1..])?.parse().ok()?),
        _ if first.is_any_word(&["all", "null"]) => Count::None,
        _ => return None,
    };
    Some((count, rest))
}

/// A column of the list.
struct Output<'t, 'a> {
    expression: &'t [Token<'a>],
    /// What AS calls it.
    label: Option<String>,
    is_star: bool,
}

fn outputs<'t, 'a>(list: &'t [Token<'a>]) -> Option<Vec<Output<'t, 'a>>> {
    let output = |item: &'t [Token<'a>]| match item {
        [expression @ .., by, label] if by.is_word("as") => {
            Some(Output { expression, label: Some(literal::identifier(label)?), is_star: false })
        }
        [.., last] => {
            let is_star = last.kind == Kind::Operator && last.text == b"*";
            Some(Output { expression: item, label: None, is_star })
        }
        [] => None,
    };
    split_at_commas(list)?.into_iter().map(output).collect()
}

/// The pieces between commas that are in no parentheses; `None` if one is empty.
fn split_at_commas<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<Vec<&'t [Token<'a>]>> {
    let (mut depth, mut pieces, mut start) = (0usize, Vec::new(), 0);
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punctuation("(") || token.is_punctuation("[") {
            depth += 1;
        } else if token.is_punctuation(")") || token.is_punctuation("]") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && token.is_punctuation(",") {
            pieces.push(&tokens[start..at]);
            start = at + 1;
        }
    }
    pieces.push(&tokens[start..]);
    pieces.iter().all(|piece| !piece.is_empty()).then_some(pieces)
}

#[cfg(test)]
mod tests {
    use super::Count;
    use crate::statement::Statement;

    fn chunk(text: &str) -> Option<String> {
        let statement = Statement::analyse(text.as_bytes());
        let scan = statement.parts.first()?.scan.as_ref()?;
        let text = String::from_utf8(scan.chunk(text.as_bytes(), 7)).expect("UTF-8");
        let range = "\"t\".ctid OPERATOR(pg_catalog.>=) $7 AND \"t\".ctid OPERATOR(pg_catalog.<) $8";
        Some(text.replace(range, "RANGE").replace("heliosproxy_key_", "k"))
    }

    #[test]
    fn keys_come_before_the_list_and_the_range_is_ordered_by_them() {
        for (text, expected) in [
            ("SELECT a FROM t ORDER BY b", "SELECT b AS k1, a FROM t WHERE RANGE ORDER BY k1 "),
            (
                "SELECT * FROM t WHERE a OR b ORDER BY t.a DESC, f(a, b) nulls first, lower(c COLLATE \"C\") asc NULLS LAST;",
                "SELECT t.a AS k1, f(a, b) AS k2, lower(c COLLATE \"C\") AS k3, * FROM t WHERE ( a OR b ) AND RANGE \
                 ORDER BY k1  DESC, k2  nulls first, k3  asc NULLS LAST",
            ),
            (
                "SELECT a AS x, b + 1 AS \"X\" FROM t ORDER BY 2, x, \"X\", X",
                "SELECT b + 1 AS k1, a AS k2, b + 1 AS k3, a AS k4, a AS x, b + 1 AS \"X\" FROM t WHERE RANGE ORDER BY k1 , k2 , k3 , k4 ",
            ),
            (
                "SELECT a -- x\n FROM t -- y\n ORDER BY a -- z\n LIMIT 5 -- w",
                "SELECT a AS k1, a -- x\n FROM t WHERE RANGE ORDER BY k1  \
                 LIMIT CAST(5 AS pg_catalog.int8) OPERATOR(pg_catalog.+) CAST(0 AS pg_catalog.int8)",
            ),
            (
                "SELECT a FROM t ORDER BY 1 OFFSET $2 ROWS",
                "SELECT a AS k1, a FROM t WHERE RANGE ORDER BY k1  \
                 LIMIT CAST(NULL AS pg_catalog.int8) OPERATOR(pg_catalog.+) CAST($2 AS pg_catalog.int8)",
            ),
        ] {
            assert_eq!(chunk(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_counts_are_what_is_written() {
        use Count::{None, Number, Parameter};
        for (tail, limit, offset) in [
            ("", None, None),
            ("LIMIT 10", Number(10), None),
            ("LIMIT ALL OFFSET 3", None, Number(3)),
            ("OFFSET 3 LIMIT NULL", None, Number(3)),
            ("limit $2 offset $1", Parameter(2), Parameter(1)),
            ("OFFSET $1 ROWS FETCH FIRST $2 ROWS ONLY", Parameter(2), Parameter(1)),
            ("FETCH NEXT ROW ONLY", Number(1), None),
            ("FETCH FIRST 7 ROW ONLY OFFSET 1 ROW", Number(7), Number(1)),
        ] {
            let text = format!("SELECT a FROM t ORDER BY a {tail}");
            let statement = Statement::analyse(text.as_bytes());
            let scan = statement.parts[0].scan.as_ref().expect(&text);
            let ordering = scan.ordering().expect(&text);
            assert_eq!((ordering.limit(), ordering.offset()), (limit, offset), "{tail}");
        }
    }

    #[test]
    fn what_is_not_followed_is_not_split() {
        for text in [
            "SELECT a FROM t LIMIT 5",
            "SELECT a FROM t OFFSET 5",
            "SELECT a FROM t ORDER a",
            "SELECT a FROM t ORDER BY",
            "SELECT a FROM t ORDER BY a,",
            "SELECT a FROM t ORDER BY 2",
            "SELECT a FROM t ORDER BY 0",
            "SELECT *, a FROM t ORDER BY 2",
            "SELECT t.* FROM t ORDER BY 1",
            "SELECT a FROM t ORDER BY 'a'",
            "SELECT a FROM t ORDER BY a USING >",
            "SELECT a FROM t ORDER BY a + $1",
            "SELECT a + $1 AS b FROM t ORDER BY b",
            "SELECT a + $1 FROM t ORDER BY 1",
            "SELECT DISTINCT a FROM t ORDER BY a",
            "SELECT ALL a FROM t ORDER BY a",
            "SELECT a FROM t ORDER BY a LIMIT 5 + 5",
            "SELECT a FROM t ORDER BY a LIMIT (5)",
            "SELECT a FROM t ORDER BY a LIMIT -5",
            "SELECT a FROM t ORDER BY a LIMIT 5.5",
            "SELECT a FROM t ORDER BY a LIMIT 99999999999999999999",
            "SELECT a FROM t ORDER BY a LIMIT 5 LIMIT 6",
            "SELECT a FROM t ORDER BY a OFFSET 5 OFFSET 6",
            "SELECT a FROM t ORDER BY a FETCH FIRST 5 ROWS WITH TIES",
            "SELECT a FROM t ORDER BY a FETCH FIRST 50 PERCENT ROWS ONLY",
            "SELECT a FROM t ORDER BY a FOR UPDATE",
            "SELECT a FROM t ORDER BY a FOR READ ONLY",
            "SELECT heliosproxy_key_1 FROM t ORDER BY a",
            "SELECT a FROM t GROUP BY a ORDER BY a",
            "SELECT a FROM t ORDER BY (SELECT 1)",
            "SELECT a FROM t ORDER BY a) OR (b",
            "SELECT a FROM t ORDER BY rank() OVER ()",
        ] {
            assert_eq!(chunk(text), None, "{text}");
        }
    }
}
