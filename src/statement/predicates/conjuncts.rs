//! The conjuncts of a WHERE clause.

use super::super::lexer::{Kind, Token};
use super::super::literal;
use super::{Constant, Pin, Values};

/// Constants in one list at most; a longer one is no pin.
const LONGEST_LIST: usize = 256;

/// Unquoted words that are values and not columns, where no dot stands before them.
const VALUE_WORDS: [&str; 16] = [
    "user",
    "current_user",
    "session_user",
    "system_user",
    "current_role",
    "current_catalog",
    "current_schema",
    "current_date",
    "current_time",
    "current_timestamp",
    "localtime",
    "localtimestamp",
    "true",
    "false",
    "null",
    "default",
];

/// Words that begin or join queries: what has one outside inner parentheses is not a plain condition.
const QUERY_WORDS: [&str; 9] = ["select", "with", "values", "table", "union", "intersect", "except", "from", "where"];

/// Adds the pins that hold if the condition does.
pub fn pins(condition: &[Token<'_>], pins: &mut Vec<Pin>) {
    let Some(conjuncts) = conjuncts(condition) else { return };
    for conjunct in conjuncts {
        match inside_parentheses(conjunct) {
            Some(inside) => self::pins(inside, pins),
            None => pins.extend(pin(conjunct)),
        }
    }
}

/// Splits at the ANDs that are outermost. `None` if there is an OR among them, or the tokens are no plain condition.
///
/// The AND of a BETWEEN binds tighter, and so does all that follows it up to the next one.
fn conjuncts<'t, 'a>(condition: &'t [Token<'a>]) -> Option<Vec<&'t [Token<'a>]>> {
    let mut conjuncts = Vec::new();
    let (mut depth, mut betweens, mut start) = (0usize, 0usize, 0);
    for (at, token) in condition.iter().enumerate() {
        let is_label = at > 0 && condition[at - 1].is_punctuation(".");
        if token.is_punctuation("(") || token.is_punctuation("[") || (token.is_word("case") && !is_label) {
            depth += 1;
        } else if token.is_punctuation(")") || token.is_punctuation("]") || (token.is_word("end") && !is_label) {
            depth = depth.checked_sub(1)?;
        } else if depth == 0 && !is_label {
            if token.is_word("or") || token.is_punctuation(",") || token.is_any_word(&QUERY_WORDS) {
                return None;
            }
            if token.is_word("between") {
                betweens += 1;
            } else if token.is_word("and") && betweens > 0 {
                betweens -= 1;
            } else if token.is_word("and") {
                conjuncts.push(&condition[start..at]);
                start = at + 1;
            }
        }
    }
    conjuncts.push(&condition[start..]);
    (depth == 0).then_some(conjuncts)
}

/// What stands between the parentheses, if the first closes at the end.
fn inside_parentheses<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    let [open, inside @ .., close] = tokens else { return None };
    let mut depth = 0usize;
    let closes_early = inside.iter().any(|token| {
        if token.is_punctuation("(") {
            depth += 1;
        } else if token.is_punctuation(")") {
            depth = depth.wrapping_sub(1);
        }
        depth == usize::MAX
    });
    (open.is_punctuation("(") && close.is_punctuation(")") && !closes_early && depth == 0).then_some(inside)
}

/// `column = constant`, `constant = column`, `column IN (constants)` or `column = ANY ($n)`, and not a token more.
fn pin(conjunct: &[Token<'_>]) -> Option<Pin> {
    if let Some(at) = conjunct.iter().position(|token| token.kind == Kind::Operator && token.text == b"=") {
        let (left, right) = (&conjunct[..at], &conjunct[at + 1..]);
        if let Some((qualifier, column)) = column(left) {
            let values = match any_of(right) {
                Some(parameter) => Values::AnyOf(parameter),
                None => Values::Listed(vec![Constant::of(right)?]),
            };
            return Some(Pin { qualifier, column, values });
        }
        let (qualifier, column) = column(right)?;
        return Some(Pin { qualifier, column, values: Values::Listed(vec![Constant::of(left)?]) });
    }
    let at = conjunct.iter().position(|token| token.is_word("in"))?;
    let (qualifier, column) = column(&conjunct[..at])?;
    let list = inside_parentheses(&conjunct[at + 1..])?;
    let constants: Vec<Constant> =
        list.split(|token| token.is_punctuation(",")).map(Constant::of).collect::<Option<_>>()?;
    (constants.len() <= LONGEST_LIST).then_some(Pin { qualifier, column, values: Values::Listed(constants) })
}

/// `c` or `t.c`.
fn column(tokens: &[Token<'_>]) -> Option<(Option<String>, String)> {
    match tokens {
        [column] if !column.is_any_word(&VALUE_WORDS) => Some((None, literal::identifier(column)?)),
        [qualifier, dot, column] if dot.is_punctuation(".") => {
            Some((Some(literal::identifier(qualifier)?), literal::identifier(column)?))
        }
        _ => None,
    }
}

/// `ANY ($n)`, with or without a cast to an array.
fn any_of(tokens: &[Token<'_>]) -> Option<u16> {
    let [any, rest @ ..] = tokens else { return None };
    if !any.is_word("any") {
        return None;
    }
    let parameter = match inside_parentheses(rest)? {
        [parameter] => parameter,
        [parameter, colons, name, open, close]
            if colons.is_punctuation("::")
                && name.kind == Kind::Word
                && open.is_punctuation("[")
                && close.is_punctuation("]") =>
        {
            parameter
        }
        _ => return None,
    };
    match Constant::of(std::slice::from_ref(parameter))? {
        Constant::Parameter(number) => Some(number),
        _ => None,
    }
}
