//! Cuts the tokens of a text into its statements, as PostgreSQL's grammar does.

use super::lexer::Token;

/// The token ranges of the non-empty statements, their `;` left out.
///
/// A `;` inside parentheses (CREATE RULE) or between BEGIN ATOMIC and its END (the body of a SQL function) ends nothing.
/// END and CASE are reserved words: but for labels after AS and `.`, they pair.
pub fn statements(tokens: &[Token<'_>]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut depth = 0usize;
    let mut body = 0usize;
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punctuation("(") {
            depth += 1;
        } else if token.is_punctuation(")") {
            depth = depth.saturating_sub(1);
        } else if token.is_punctuation(";") {
            if depth == 0 && body == 0 {
                found.push(start..at);
                start = at + 1;
            }
        } else if body > 0 {
            let is_label = tokens[at - 1].is_word("as") || tokens[at - 1].is_punctuation(".");
            if token.is_word("case") && !is_label {
                body += 1;
            } else if token.is_word("end") && !is_label {
                body -= 1;
            }
        } else if token.is_word("atomic")
            && at > start
            && tokens[at - 1].is_word("begin")
            && makes_routine(&tokens[start..])
        {
            body = 1;
        }
    }
    found.push(start..tokens.len());
    found.retain(|range| !range.is_empty());
    found
}

/// CREATE [OR REPLACE] FUNCTION or PROCEDURE.
fn makes_routine(tokens: &[Token<'_>]) -> bool {
    let mut words = tokens.iter().skip_while(|token| token.is_any_word(&["or", "replace", "create"]));
    tokens.first().is_some_and(|token| token.is_word("create"))
        && words.next().is_some_and(|token| token.is_any_word(&["function", "procedure"]))
}

/// Whether every parenthesis and bracket has its partner.
pub fn is_balanced(tokens: &[Token<'_>]) -> bool {
    partners(tokens).is_some()
}

/// For each parenthesis or bracket the index of its partner (other tokens: their own); `None` if they do not pair.
pub fn partners(tokens: &[Token<'_>]) -> Option<Vec<usize>> {
    let mut partners: Vec<usize> = (0..tokens.len()).collect();
    let mut open = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punctuation("(") || token.is_punctuation("[") {
            open.push(at);
        } else if token.is_punctuation(")") || token.is_punctuation("]") {
            let partner = open.pop()?;
            let wanted = if token.is_punctuation(")") { "(" } else { "[" };
            if !tokens[partner].is_punctuation(wanted) {
                return None;
            }
            partners[partner] = at;
            partners[at] = partner;
        }
    }
    open.is_empty().then_some(partners)
}
