//! A normal form never merges two texts of different meaning.

use heliosproxy::statement::lexer::{Kind, Token, tokens};
use heliosproxy::statement::{Statement, normal_form};

/// Cut and analysed, it is the text: same class, names, shapes and predicates; and it is its own normal form.
pub fn says_what_the_text_says(text: &[u8]) {
    let normal = normal_form(text);
    assert_eq!(normal_form(&normal), normal);
    equal_forms_are_equal_tokens(text, &normal);
    let (one, other) = (Statement::analyse(text), Statement::analyse(&normal));
    assert_eq!(one.digest, other.digest);
    // A `;` behind what is never closed, a parenthesis or BEGIN ATOMIC, is part of a statement, which PostgreSQL refuses.
    if one.parts.last().is_some_and(|part| part.text_of(text).ends_with(b";")) {
        return;
    }
    assert_eq!(one.is_single_read(), other.is_single_read());
    assert_eq!(one.parts.len(), other.parts.len());
    for (one, other) in one.parts.iter().zip(&other.parts) {
        assert!(one.range.start < one.range.end || text.is_empty());
        assert!(one.range.end <= text.len());
        assert_eq!((&one.class, one.shape), (&other.class, other.shape));
        assert_eq!((&one.facts, &one.predicates), (&other.facts, &other.predicates));
    }
}

/// Whoever has the normal form of the other has its tokens: kind, content, and case where that counts.
pub fn equal_forms_are_equal_tokens(one: &[u8], other: &[u8]) {
    let (Ok(a), Ok(b)) = (tokens(one), tokens(other)) else { return };
    let equal_forms = normal_form(one) == normal_form(other);
    let (a, b) = (without_ends(&a), without_ends(&b));
    let equal_tokens = a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b));
    assert_eq!(equal_forms, equal_tokens, "{} and {}", one.escape_ascii(), other.escape_ascii());
}

fn is_same(a: &Token<'_>, b: &Token<'_>) -> bool {
    a.kind == b.kind
        && match a.kind {
            Kind::Word => a.text.eq_ignore_ascii_case(b.text),
            _ => a.pieces().eq(b.pieces()),
        }
}

/// A `;` at either end is in no normal form.
fn without_ends<'t, 'a>(mut tokens: &'t [Token<'a>]) -> &'t [Token<'a>] {
    while let [first, rest @ ..] = tokens
        && first.is_punctuation(";")
    {
        tokens = rest;
    }
    while let [rest @ .., last] = tokens
        && last.is_punctuation(";")
    {
        tokens = rest;
    }
    tokens
}
