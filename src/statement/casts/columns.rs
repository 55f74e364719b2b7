//! Which names in a statement can only be columns of relations.
//!
//! A name may also be what the statement itself calls a computed column: an alias, a column list, a function (whose
//! name its result takes), a type (likewise), an OUT parameter of a function in FROM. A name is a relation's column only
//! if every place where it stands is one where an expression may stand, and none where something is named.

use std::collections::HashSet;

use super::expression_follows;
use crate::statement::lexer::{Kind, Token};
use crate::statement::literal;

pub(super) struct Columns {
    named_here: HashSet<String>,
    function_in_from: bool,
}

impl Columns {
    pub(super) fn of(tokens: &[Token<'_>], partners: &[usize]) -> Self {
        let mut named_here = HashSet::new();
        let mut function_in_from = false;
        // For each open parenthesis: whether what is directly in it are names for columns, and whether a FROM was last.
        let mut groups = vec![Group { names_columns: false, in_from: false }];
        for (at, token) in tokens.iter().enumerate() {
            let Some(group) = groups.last_mut() else { break };
            if token.is_punctuation("(") {
                let names_columns = names_columns(tokens, partners, at);
                groups.push(Group { names_columns, in_from: false });
                continue;
            }
            if token.is_punctuation(")") {
                groups.pop();
                continue;
            }
            if token.is_any_word(&["from", "join", "lateral", "rows"]) {
                group.in_from = true;
            } else if token.is_any_word(&["select", "where", "group", "order", "having", "window", "limit", "union"]) {
                group.in_from = false;
            }
            if !matches!(token.kind, Kind::Word | Kind::Quoted) {
                continue;
            }
            let calls = tokens.get(at + 1).is_some_and(|next| next.is_punctuation("("));
            function_in_from |= calls && (group.in_from || follows(tokens, at, &["rows", "from"]));
            if (group.names_columns || !is_expression(tokens, at))
                && let Some(name) = literal::identifier(token)
            {
                named_here.insert(name);
            }
        }
        Self { named_here, function_in_from }
    }

    pub(super) fn come_from_relations(&self, name: &str) -> bool {
        // Names that PostgreSQL gives by itself: to VALUES, to expressions, to casts spelled with key words.
        let given = matches!(name, "?column?" | "case" | "array" | "row" | "bpchar" | "varchar" | "xmlserialize")
            || name.starts_with("column")
            || name.starts_with("xml")
            || name.starts_with("json");
        !self.function_in_from && !given && !self.named_here.contains(name)
    }
}

struct Group {
    names_columns: bool,
    in_from: bool,
}

/// Whether the parenthesis at `open` is a list of names: of an alias, a common table expression or a column definition.
fn names_columns(tokens: &[Token<'_>], partners: &[usize], open: usize) -> bool {
    let is_name = |at: usize| matches!(tokens[at].kind, Kind::Word | Kind::Quoted) && !expression_follows(tokens, at);
    let Some(before) = open.checked_sub(1).filter(|&at| is_name(at)) else { return false };
    let alias = before.checked_sub(1).is_some_and(|at| is_name(at) || tokens[at].is_punctuation(")"));
    alias || tokens[before].is_word("as") || tokens.get(partners[open] + 1).is_some_and(|token| token.is_word("as"))
}

/// Whether the two words before the parenthesis that opens before `at` are these.
fn follows(tokens: &[Token<'_>], at: usize, words: &[&str; 2]) -> bool {
    at >= 3
        && tokens[at - 1].is_punctuation("(")
        && tokens[at - 2].is_word(words[1])
        && tokens[at - 3].is_word(words[0])
}

/// Whether the name at `at` stands where an expression (or a relation) does.
fn is_expression(tokens: &[Token<'_>], at: usize) -> bool {
    let names_something =
        tokens.get(at + 1).is_some_and(|next| next.is_punctuation("(") || next.kind.is_text_literal());
    let Some(before) = at.checked_sub(1) else { return false };
    let after_expression_start = match tokens[before].kind {
        Kind::Operator => true,
        Kind::Punctuation => [".", "(", ",", "[", ":"].iter().any(|text| tokens[before].is_punctuation(text)),
        Kind::Word => expression_follows(tokens, before),
        _ => false,
    };
    after_expression_start && !names_something
}
