//! The texts that an [`Aggregation`] is turned into.

use super::{AggregateFunction, Aggregation, Made, Role, Span, join, literal, quoted};
use crate::statement::lexer::Kind;

/// Of a column of the partial result, as far as the texts depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// `bigint`, from which PostgreSQL makes a `numeric` when it adds.
    Bigint,
    Double,
    Other,
}

/// What an aggregate or a key is replaced by.
#[derive(Clone, Copy)]
enum Writing<'s> {
    /// Itself, written out.
    Canonical,
    /// The column of a row.
    Plain(&'s [Sort]),
    /// The same of all rows of a group.
    Merging(&'s [Sort]),
}

/// Words behind a name in ORDER BY.
const DIRECTIONS: [&str; 4] = ["asc", "desc", "nulls", "using"];

impl Aggregation<'_, '_> {
    /// The partial result for the blocks from parameter `$number`, a tid, up to but without the next parameter.
    pub fn partial(&self, number: usize) -> Vec<u8> {
        let qualifier = &self.table.qualifier;
        // Operators by their full names: the session's search_path may lead to others.
        let range = format!(
            "{qualifier}.ctid OPERATOR(pg_catalog.>=) ${number} AND {qualifier}.ctid OPERATOR(pg_catalog.<) ${}",
            number + 1
        );
        self.parts(&range).into_bytes()
    }

    /// The statement with everything that was understood written out, its columns called by `names`.
    pub fn canonical(&self, names: &[&str]) -> Option<Vec<u8>> {
        let writing = Writing::Canonical;
        let condition = self.clauses.condition.clone().map(|condition| format!(" WHERE {}", self.join(condition)));
        let keys =
            self.clauses.group.is_some().then(|| self.keys.iter().map(|key| format!("( {} )", self.join(key.clone()))));
        let keys = keys.map(|keys| format!(" GROUP BY {}", keys.collect::<Vec<_>>().join(", ")));
        let text = [
            self.list(names, writing)?,
            format!(" FROM {}", self.join(self.clauses.from.clone())),
            condition.unwrap_or_default(),
            keys.unwrap_or_default(),
            self.having(" HAVING ", writing),
            self.order(names, writing)?,
            self.tail(),
        ];
        Some(text.concat().into_bytes())
    }

    /// What is left of the statement if its aggregates and keys are columns of rows, the values of which are the parameters from
    /// `$first` on. It is refused if there is another aggregate in it, a window function, or a function of sets: PostgreSQL
    /// cannot lock rows of what has them.
    pub fn residue(&self, names: &[&str], sorts: &[Sort], first: usize) -> Option<Vec<u8>> {
        let writing = Writing::Plain(sorts);
        let list = self.list(names, writing)?;
        let list = list.strip_prefix("SELECT DISTINCT").map_or(list.clone(), |list| format!("SELECT{list}"));
        let text = [
            list,
            format!(" FROM {} AS heliosproxy ({})", self.values(first), self.column_names()),
            self.having(" WHERE ", writing),
            self.order(names, writing)?,
            " FOR SHARE".to_owned(),
        ];
        Some(text.concat().into_bytes())
    }

    /// The statement over partial results, the columns of which are the parameters from `$first` on, each an array.
    ///
    /// The partial result of no rows at all gives the columns the types and collations that they have in the statement.
    pub fn merging(&self, names: &[&str], sorts: &[Sort], first: usize) -> Option<Vec<u8>> {
        let writing = Writing::Merging(sorts);
        let keys: Vec<_> = (0..self.keys.len()).map(column).collect();
        let group = if self.clauses.group.is_some() { format!(" GROUP BY {}", keys.join(", ")) } else { String::new() };
        let text = [
            self.list(names, writing)?,
            format!(
                " FROM ({} UNION ALL SELECT * FROM {} AS heliosproxy_values) AS heliosproxy ({})",
                self.parts("false"),
                self.values(first),
                self.column_names()
            ),
            group,
            self.having(" HAVING ", writing),
            self.order(names, writing)?,
            self.tail(),
        ];
        Some(text.concat().into_bytes())
    }

    /// Asks for the types of the keys, domains as such, one column each.
    pub fn key_types(&self) -> Option<Vec<u8>> {
        let types = (0..self.columns.iter().filter(|column| column.role == Role::Key).count()).map(|number| {
            format!(
                "pg_catalog.pg_typeof((SELECT {} FROM ({}) AS heliosproxy ({})))::pg_catalog.oid",
                column(number),
                self.parts("false"),
                self.column_names()
            )
        });
        let types: Vec<_> = types.collect();
        (!types.is_empty()).then(|| format!("SELECT {}", types.join(", ")).into_bytes())
    }

    /// The partial result of the rows that meet one more condition.
    fn parts(&self, condition: &str) -> String {
        let columns: Vec<_> = self.columns.iter().map(|column| column.sql.as_str()).collect();
        let also = self.clauses.condition.clone().map(|also| format!("( {} ) AND ", self.join(also)));
        let keys = self.columns.iter().filter(|column| column.role == Role::Key).count();
        let places: Vec<_> = (1..=keys).map(|place| place.to_string()).collect();
        let group = if keys > 0 { format!(" GROUP BY {}", places.join(", ")) } else { String::new() };
        format!(
            "SELECT {} FROM {} WHERE {}{condition}{group}",
            columns.join(", "),
            self.join(self.clauses.from.clone()),
            also.unwrap_or_default()
        )
    }

    fn values(&self, first: usize) -> String {
        let arrays: Vec<_> =
            (first..first + self.columns.len()).map(|number| format!("pg_catalog.unnest(${number})")).collect();
        format!("ROWS FROM ({})", arrays.join(", "))
    }

    fn column_names(&self) -> String {
        let names: Vec<_> = (0..self.columns.len()).map(|number| format!("c{number}")).collect();
        names.join(", ")
    }

    fn list(&self, names: &[&str], writing: Writing<'_>) -> Option<String> {
        if names.len() != self.items.len() {
            return None;
        }
        let mut items = Vec::new();
        for (item, name) in self.items.iter().zip(names) {
            // What was taken for a label is one.
            if item.alias.as_ref().is_some_and(|alias| alias != name) {
                return None;
            }
            items.push(format!("{} AS {}", self.write(item.expression.clone(), writing), quoted(name)));
        }
        let distinct = if self.clauses.distinct { " DISTINCT" } else { "" };
        Some(format!("SELECT{distinct} {}", items.join(", ")))
    }

    fn having(&self, word: &str, writing: Writing<'_>) -> String {
        let condition = self.clauses.having.clone().map(|having| format!("{word}{}", self.write(having, writing)));
        condition.unwrap_or_default()
    }

    fn order(&self, names: &[&str], writing: Writing<'_>) -> Option<String> {
        let Some(order) = self.clauses.order.clone() else { return Some(String::new()) };
        let mut items = Vec::new();
        for item in super::split(self.tokens, order)? {
            // A place in the list, or the name of a column of the result, which goes before one of the table's.
            let is_told = self.is_place_or_name(item.clone(), names);
            items.push(if is_told { self.join(item) } else { self.write(item, writing) });
        }
        Some(format!(" ORDER BY {}", items.join(", ")))
    }

    fn is_place_or_name(&self, item: Span, names: &[&str]) -> bool {
        let [first, rest @ ..] = &self.tokens[item] else { return false };
        if !rest.first().is_none_or(|next| next.is_any_word(&DIRECTIONS)) {
            return false;
        }
        first.kind == Kind::Integer || literal::identifier(first).is_some_and(|name| names.contains(&name.as_str()))
    }

    fn tail(&self) -> String {
        self.clauses.tail.clone().map_or(String::new(), |tail| format!(" {}", self.join(tail)))
    }

    /// The tokens of an expression with its aggregates and keys replaced.
    fn write(&self, span: Span, writing: Writing<'_>) -> String {
        let (mut at, mut pieces) = (span.start, Vec::new());
        while at < span.end {
            let (piece, end) = self.replaced(at, writing).unwrap_or_else(|| (join(&self.tokens[at..at + 1]), at + 1));
            pieces.push(piece);
            at = end;
        }
        pieces.join(" ")
    }

    /// A constant is written as it is: its type may depend on where it stands.
    fn is_constant(&self, key: &Span) -> bool {
        let only = self.tokens.get(key.clone()).filter(|tokens| tokens.len() == 1).map(|tokens| &tokens[0]);
        only.is_some_and(|only| {
            only.kind.is_literal() || only.kind == Kind::Parameter || only.is_any_word(&["null", "true", "false"])
        })
    }

    /// What stands for the aggregate or the key that begins here, and where it ends.
    fn replaced(&self, at: usize, writing: Writing<'_>) -> Option<(String, usize)> {
        let begun = self.calls.iter().find(|(call, _)| call.span.start == at);
        if let Some((call, made)) = begun {
            let arguments = self.join(call.arguments.clone());
            let filter = call.filter.clone().map_or(String::new(), |filter| format!(" {}", self.join(filter)));
            let distinct = if call.distinct { "DISTINCT " } else { "" };
            let text = match writing {
                Writing::Canonical => {
                    let name = format!("pg_catalog.{}", call.name);
                    if call.distinct {
                        format!("( {name} ( DISTINCT ( {arguments} ) ) )")
                    } else {
                        format!("( {name} ( {arguments} ){filter} )")
                    }
                }
                Writing::Plain(sorts) => plain(call.function, *made, sorts),
                Writing::Merging(sorts) => merged(call.function, distinct, *made, sorts),
            };
            return Some((text, call.span.end));
        }
        let is_type = at.checked_sub(1).is_some_and(|before| self.tokens[before].is_punctuation("::"));
        let keys = self.keys.iter().enumerate().filter(|(_, key)| !self.is_constant(key));
        let ends = keys.filter_map(|(number, key)| Some((self.matches(key, at)?, number)));
        let (end, number) = ends.filter(|_| !is_type).max()?;
        let text = match writing {
            Writing::Canonical => format!("( {} )", self.join(self.keys[number].clone())),
            _ => column(number),
        };
        Some((text, end))
    }
}

/// The value of an aggregate, or one of its type, as columns of one row have it.
fn plain(function: AggregateFunction, made: Made, sorts: &[Sort]) -> String {
    let number = match made {
        Made::OfKey(number) | Made::Of(number) => number,
        Made::Average { sum, .. } => sum,
    };
    match (function, made) {
        (AggregateFunction::Count, Made::OfKey(_)) => "(1::pg_catalog.int8)".to_owned(),
        (AggregateFunction::Sum, Made::OfKey(_)) if sorts.get(number) == Some(&Sort::Bigint) => {
            format!("({}::pg_catalog.numeric)", column(number))
        }
        (AggregateFunction::Avg, _) if sorts.get(number) != Some(&Sort::Double) => {
            format!("({}::pg_catalog.numeric)", column(number))
        }
        _ => column(number),
    }
}

/// The value of an aggregate, made from columns of all rows of a group.
fn merged(function: AggregateFunction, distinct: &str, made: Made, sorts: &[Sort]) -> String {
    // The columns' own types decide about the result's, as they do where they come from; only sums of bigint are numeric.
    match (function, made) {
        (_, Made::OfKey(number)) => format!("({}({distinct}{}))", function.qualified(), column(number)),
        (AggregateFunction::Count, Made::Of(number)) => {
            format!("(COALESCE(pg_catalog.sum({}), 0)::pg_catalog.int8)", column(number))
        }
        (AggregateFunction::Sum, Made::Of(number)) if sorts.get(number) == Some(&Sort::Bigint) => {
            format!("(pg_catalog.sum({})::pg_catalog.int8)", column(number))
        }
        (_, Made::Of(number)) => format!("({}({}))", function.qualified(), column(number)),
        (_, Made::Average { sum, count }) => {
            // The division that avg itself does; a sum of nothing is NULL, and so is what it is divided by something.
            let cast = if sorts.get(sum) == Some(&Sort::Double) { "::pg_catalog.float8" } else { "" };
            let (sum, count) = (column(sum), column(count));
            format!("(pg_catalog.sum({sum}) OPERATOR(pg_catalog./) pg_catalog.sum({count}){cast})")
        }
    }
}

fn column(number: usize) -> String {
    format!("heliosproxy.c{number}")
}

impl Sort {
    /// Of a type by its number (src/include/catalog/pg_type.dat).
    pub fn of(type_oid: u32) -> Self {
        match type_oid {
            20 => Self::Bigint,
            701 => Self::Double,
            _ => Self::Other,
        }
    }
}
