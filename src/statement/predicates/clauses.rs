//! The clauses of SELECT, INSERT, UPDATE and DELETE.

use super::super::lexer::{Kind, Token};
use super::super::literal;
use super::{Assigned, Change, Conflict, Constant, Insertion, Predicates, TableReference, conjuncts};

/// Reserved words (src/include/parser/kwlist.h) at which the clause before them ends.
const CLAUSES: [&str; 14] = [
    "from",
    "where",
    "group",
    "having",
    "window",
    "order",
    "limit",
    "offset",
    "fetch",
    "for",
    "returning",
    "using",
    "set",
    "values",
];
/// Words that make it something else than one plain query.
const COMBINING: [&str; 6] = ["union", "intersect", "except", "into", "with", "tablesample"];
/// Words after a table that cannot be its alias (they are reserved, or part of a join).
const NO_ALIAS: [&str; 12] =
    ["join", "inner", "left", "right", "full", "outer", "cross", "natural", "on", "using", "where", "set"];

pub fn predicates(tokens: &[Token<'_>]) -> Option<Predicates> {
    let (first, rest) = tokens.split_first()?;
    match first.text.to_ascii_lowercase().as_slice() {
        _ if first.kind != Kind::Word => None,
        b"select" => select(rest),
        b"update" => update(rest),
        b"delete" => delete(rest),
        b"insert" => insert(rest),
        _ => None,
    }
}

fn select(tokens: &[Token<'_>]) -> Option<Predicates> {
    let clauses = Clauses::of(tokens, &COMBINING)?;
    let from = clauses.only("from")?;
    let tables = table_references(from)?;
    let alone = matches!(tables.as_slice(), [only] if only.length == from.len());
    let mut predicates =
        Predicates { tables: tables.into_iter().map(|item| item.reference).collect(), alone, ..Predicates::default() };
    if let Some(condition) = clauses.at_most("where")? {
        conjuncts::pins(condition, &mut predicates.pins);
    }
    Some(predicates)
}

fn update(tokens: &[Token<'_>]) -> Option<Predicates> {
    let target = table_reference(tokens)?;
    let clauses = Clauses::of(&tokens[target.length..], &COMBINING)?;
    let assigned = assignments(clauses.only("set")?)?.into_iter().map(|(column, value)| match value {
        Assigned::Constant(constant) => (column, Some(constant)),
        Assigned::Proposed | Assigned::Computed => (column, None),
    });
    let change = Change::Update(assigned.collect());
    write(target, clauses.at_most("from")?.is_none(), clauses.at_most("where")?, change)
}

fn delete(tokens: &[Token<'_>]) -> Option<Predicates> {
    let (from, rest) = tokens.split_first()?;
    if !from.is_word("from") {
        return None;
    }
    let target = table_reference(rest)?;
    let clauses = Clauses::of(&rest[target.length..], &COMBINING)?;
    write(target, clauses.at_most("using")?.is_none(), clauses.at_most("where")?, Change::Delete)
}

fn write(target: Item, alone: bool, condition: Option<&[Token<'_>]>, change: Change) -> Option<Predicates> {
    let mut predicates = Predicates { tables: vec![target.reference], alone, change, ..Predicates::default() };
    if let Some(condition) = condition {
        conjuncts::pins(condition, &mut predicates.pins);
    }
    Some(predicates)
}

fn insert(tokens: &[Token<'_>]) -> Option<Predicates> {
    let (into, rest) = tokens.split_first()?;
    if !into.is_word("into") {
        return None;
    }
    let (name, length) = relation_name(rest)?;
    let mut rest = &rest[length..];
    if let [r#as, alias, after @ ..] = rest
        && r#as.is_word("as")
    {
        literal::identifier(alias)?;
        rest = after;
    }
    let columns = match rest.first() {
        Some(open) if open.is_punctuation("(") => {
            let (inside, after) = parenthesised(rest)?;
            rest = after;
            // Anything but plain names (a sub-field, an element, a query) ends it.
            Some(names(inside)?)
        }
        _ => None,
    };
    if let [overriding, who, value, after @ ..] = rest
        && overriding.is_word("overriding")
    {
        // OVERRIDING USER VALUE: what is written there is not what is stored.
        if !who.is_word("system") || !value.is_word("value") {
            return None;
        }
        rest = after;
    }
    let (values, mut rest) = rest.split_first()?;
    if !values.is_word("values") {
        return None;
    }
    let mut rows = Vec::new();
    loop {
        let (inside, after) = parenthesised(rest)?;
        rows.push(split(inside, ",")?.into_iter().map(Constant::of).collect());
        rest = after;
        match rest.first() {
            Some(comma) if comma.is_punctuation(",") => rest = &rest[1..],
            _ => break,
        }
    }
    let conflict = conflict(rest)?;
    let reference = TableReference { qualifier: Some(name.clone()), name, mentions: 0 };
    let change = Change::Insert(Insertion { columns, rows, conflict });
    Some(Predicates { tables: vec![reference], alone: true, change, ..Predicates::default() })
}

/// `[ON CONFLICT [(columns)] DO NOTHING | DO UPDATE SET ...] [RETURNING ...]`
fn conflict(tokens: &[Token<'_>]) -> Option<Conflict> {
    let rest = match tokens {
        [] => return Some(Conflict::Leaves),
        [returning, ..] if returning.is_word("returning") => return Some(Conflict::Leaves),
        [on, conflict, rest @ ..] if on.is_word("on") && conflict.is_word("conflict") => rest,
        _ => return None,
    };
    let clauses = Clauses::of(rest, &COMBINING)?;
    let does = rest.windows(2).position(|pair| pair[0].is_word("do") && pair[1].is_any_word(&["nothing", "update"]))?;
    if rest[does + 1].is_word("nothing") {
        return Some(Conflict::Leaves);
    }
    let equal = match rest.first() {
        Some(open) if open.is_punctuation("(") => names(parenthesised(rest)?.0).unwrap_or_default(),
        _ => Vec::new(),
    };
    Some(Conflict::Updates { equal, assigned: assignments(clauses.only("set")?)? })
}

/// The assignments of a SET clause.
fn assignments(tokens: &[Token<'_>]) -> Option<Vec<(String, Assigned)>> {
    let mut all = Vec::new();
    for assignment in split(tokens, ",")? {
        match assignment {
            [open, ..] if open.is_punctuation("(") => {
                let (columns, _) = parenthesised(assignment)?;
                // With elements or fields among them, which columns these are is not told.
                all.extend(names(columns)?.into_iter().map(|column| (column, Assigned::Computed)));
            }
            [column, equals, value @ ..] if equals.kind == Kind::Operator && equals.text == b"=" => {
                let column = literal::identifier(column)?;
                let assigned = assigned(&column, value);
                all.push((column, assigned));
            }
            [column, bracket, ..] if bracket.is_punctuation("[") || bracket.is_punctuation(".") => {
                all.push((literal::identifier(column)?, Assigned::Computed));
            }
            _ => return None,
        }
    }
    Some(all)
}

fn assigned(column: &str, value: &[Token<'_>]) -> Assigned {
    match value {
        [excluded, dot, of]
            if excluded.is_word("excluded")
                && dot.is_punctuation(".")
                && literal::identifier(of).as_deref() == Some(column) =>
        {
            Assigned::Proposed
        }
        _ => Constant::of(value).map_or(Assigned::Computed, Assigned::Constant),
    }
}

/// A statement's clauses: each from after its word to the next one's.
struct Clauses<'t, 'a>(Vec<(&'t Token<'a>, &'t [Token<'a>])>);

impl<'t, 'a> Clauses<'t, 'a> {
    /// `None` if one of the `refused` words stands outside parentheses, or a clause's word is used in another way.
    fn of(tokens: &'t [Token<'a>], refused: &[&str]) -> Option<Self> {
        let mut clauses: Vec<(&Token<'_>, usize)> = Vec::new();
        let mut depth = 0usize;
        for (at, token) in tokens.iter().enumerate() {
            if token.is_punctuation("(") || token.is_punctuation("[") {
                depth += 1;
            } else if token.is_punctuation(")") || token.is_punctuation("]") {
                depth = depth.checked_sub(1)?;
            }
            if depth > 0 || token.kind != Kind::Word {
                continue;
            }
            let is_clause = token.is_any_word(&CLAUSES);
            if !is_clause && !token.is_any_word(refused) {
                continue;
            }
            // As a label, or in IS DISTINCT FROM, it is no clause; who writes that is not followed.
            let before = at.checked_sub(1).map(|before| &tokens[before]);
            let is_label =
                before.is_some_and(|before| before.is_punctuation(".") || before.is_any_word(&["as", "distinct"]));
            // USING of a join is part of FROM.
            let joins = token.is_word("using") && clauses.last().is_some_and(|(clause, _)| clause.is_word("from"));
            if is_label || !is_clause {
                return None;
            }
            if !joins {
                clauses.push((token, at + 1));
            }
        }
        let ends = clauses.iter().skip(1).map(|(_, start)| start - 1).chain([tokens.len()]).collect::<Vec<_>>();
        Some(Self(clauses.iter().zip(ends).map(|((word, start), end)| (*word, &tokens[*start..end])).collect()))
    }

    /// The clause of this word, which must be there once.
    fn only(&self, word: &str) -> Option<&'t [Token<'a>]> {
        self.at_most(word)?
    }

    /// `None` if there are several.
    fn at_most(&self, word: &str) -> Option<Option<&'t [Token<'a>]>> {
        let mut found = self.0.iter().filter(|(clause, _)| clause.is_word(word));
        match (found.next(), found.next()) {
            (first, None) => Some(first.map(|(_, tokens)| *tokens)),
            _ => None,
        }
    }
}

/// A table in FROM.
struct Item {
    reference: TableReference,
    /// How many tokens it is.
    length: usize,
}

/// All tables of a FROM clause outside parentheses.
fn table_references(from: &[Token<'_>]) -> Option<Vec<Item>> {
    let mut tables = Vec::new();
    let mut depth = 0usize;
    let mut expected = true;
    for (at, token) in from.iter().enumerate() {
        if expected && depth == 0 {
            tables.extend(table_reference(&from[at..]));
        }
        expected = false;
        if token.is_punctuation("(") {
            depth += 1;
        } else if token.is_punctuation(")") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 {
            let is_label = at > 0 && from[at - 1].is_punctuation(".");
            expected = token.is_punctuation(",") || (token.is_word("join") && !is_label);
        }
    }
    Some(tables)
}

/// The only table of a FROM.
#[derive(Debug)]
pub struct OnlyTable {
    /// What its columns are qualified with, quoted.
    pub qualifier: String,
    /// Its name with everything that is written in front of it, quoted.
    pub name: String,
}

/// If FROM is one table and nothing else, and has not renamed its columns.
pub fn only_table(from: &[Token<'_>]) -> Option<OnlyTable> {
    let item = table_reference(from)?;
    let qualifier = item.reference.qualifier.filter(|_| item.length == from.len())?;
    let name = from.get(usize::from(from.first()?.is_word("only"))..)?;
    let (_, length) = relation_name(name)?;
    let parts = name[..length].iter().step_by(2).map(|part| literal::identifier(part).map(|part| quoted(&part)));
    Some(OnlyTable { qualifier: quoted(&qualifier), name: parts.collect::<Option<Vec<_>>>()?.join(".") })
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `[ONLY] [schema.]name [*] [[AS] alias]` at the front. `None` if something else is there.
fn table_reference(tokens: &[Token<'_>]) -> Option<Item> {
    let only = usize::from(tokens.first()?.is_word("only"));
    let (name, length) = relation_name(&tokens[only..])?;
    let mut at = only + length;
    if tokens.get(at).is_some_and(|token| token.kind == Kind::Operator && token.text == b"*") {
        at += 1;
    }
    let has_as = tokens.get(at).is_some_and(|token| token.is_word("as"));
    let alias = tokens
        .get(at + usize::from(has_as))
        .filter(|token| token.kind == Kind::Quoted || (token.kind == Kind::Word && !token.is_any_word(&NO_ALIAS)));
    let mut qualifier = Some(name.clone());
    if let Some(alias) = alias {
        qualifier = Some(literal::identifier(alias)?);
        at += usize::from(has_as) + 1;
    } else if has_as {
        return None;
    }
    // A function's arguments, or new names for the columns.
    if tokens.get(at).is_some_and(|token| token.is_punctuation("(")) {
        alias?;
        qualifier = None;
    }
    Some(Item { reference: TableReference { name, qualifier, mentions: 0 }, length: at })
}

/// `[catalog.][schema.]name`, and how many tokens that is.
fn relation_name(tokens: &[Token<'_>]) -> Option<(String, usize)> {
    let mut at = 0;
    loop {
        let name = literal::identifier(tokens.get(at)?)?;
        if tokens[at].is_any_word(&["select", "lateral", "rows", "table", "values"]) && at == 0 {
            return None;
        }
        match tokens.get(at + 1) {
            Some(dot) if dot.is_punctuation(".") => at += 2,
            _ => return Some((name, at + 1)),
        }
    }
}

/// The inside of the parentheses at the front, and what follows them.
fn parenthesised<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<(&'t [Token<'a>], &'t [Token<'a>])> {
    if !tokens.first()?.is_punctuation("(") {
        return None;
    }
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punctuation("(") {
            depth += 1;
        } else if token.is_punctuation(")") {
            depth -= 1;
            if depth == 0 {
                return Some((&tokens[1..at], &tokens[at + 1..]));
            }
        }
    }
    None
}

/// A list of plain names.
fn names(tokens: &[Token<'_>]) -> Option<Vec<String>> {
    let name = |tokens: &[Token<'_>]| match tokens {
        [one] => literal::identifier(one),
        _ => None,
    };
    split(tokens, ",")?.into_iter().map(name).collect()
}

/// Splits at a punctuation outside parentheses and brackets.
fn split<'t, 'a>(tokens: &'t [Token<'a>], at: &str) -> Option<Vec<&'t [Token<'a>]>> {
    let (mut depth, mut start, mut pieces) = (0usize, 0, Vec::new());
    for (index, token) in tokens.iter().enumerate() {
        if token.is_punctuation("(") || token.is_punctuation("[") {
            depth += 1;
        } else if token.is_punctuation(")") || token.is_punctuation("]") {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && token.is_punctuation(at) {
            pieces.push(&tokens[start..index]);
            start = index + 1;
        }
    }
    pieces.push(&tokens[start..]);
    Some(pieces)
}
