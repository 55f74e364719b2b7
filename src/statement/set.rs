//! SET and RESET: which setting, which value, for how long.

use super::class::SetAction;
use super::classify::transaction_modes;
use super::lexer::{Kind, Token};
use super::{literal, normal};

/// The tokens after SET.
pub fn set(rest: &[Token<'_>]) -> Option<SetAction> {
    if rest.first()?.is_word("constraints") {
        return Some(SetAction::Constraints);
    }
    let (local, rest) = match rest {
        [first, rest @ ..] if first.is_word("local") => (true, rest),
        // SET SESSION x; but SESSION AUTHORIZATION and SESSION CHARACTERISTICS are names of their own.
        [first, second, ..]
            if first.is_word("session") && !second.is_any_word(&["authorization", "characteristics"]) =>
        {
            (false, &rest[1..])
        }
        _ => (false, rest),
    };
    if let [first, modes @ ..] = rest
        && first.is_word("transaction")
    {
        return match modes {
            [snapshot, id] if snapshot.is_word("snapshot") && id.kind.is_text_literal() => Some(SetAction::Snapshot),
            _ => transaction_modes(modes).map(SetAction::Transaction),
        };
    }
    if let [session, characteristics, r#as, transaction, modes @ ..] = rest
        && session.is_word("session")
        && characteristics.is_word("characteristics")
        && r#as.is_word("as")
        && transaction.is_word("transaction")
    {
        return transaction_modes(modes).map(SetAction::SessionCharacteristics);
    }
    let (name, value) = name_and_value(rest)?;
    let is_default = match value {
        [word] => word.is_word("default") || (name == "timezone" && word.is_word("local")),
        [] => true,
        _ => false,
    };
    let value = if is_default { None } else { Some(String::from_utf8(normal::normal_form(value)).ok()?) };
    Some(SetAction::Set { name, value, local })
}

/// The tokens after RESET.
pub fn reset(rest: &[Token<'_>]) -> Option<SetAction> {
    let words =
        |words: &[&str]| rest.len() == words.len() && words.iter().zip(rest).all(|(word, token)| token.is_word(word));
    let reset = |name: &str| Some(SetAction::Reset { name: name.into() });
    if words(&["all"]) {
        Some(SetAction::ResetAll)
    } else if words(&["time", "zone"]) {
        reset("timezone")
    } else if words(&["session", "authorization"]) {
        reset("session_authorization")
    } else if words(&["transaction", "isolation", "level"]) {
        reset("transaction_isolation")
    } else {
        let (name, tail) = setting_name(rest)?;
        tail.is_empty().then_some(SetAction::Reset { name })
    }
}

/// The setting and the tokens of its value; none where the grammar takes a missing value for DEFAULT.
fn name_and_value<'t, 'a>(rest: &'t [Token<'a>]) -> Option<(String, &'t [Token<'a>])> {
    let named = |name: &str, value: &'t [Token<'a>]| (!value.is_empty()).then(|| (name.to_owned(), value));
    match rest {
        [time, zone, value @ ..] if time.is_word("time") && zone.is_word("zone") => named("timezone", value),
        [session, authorization, value @ ..]
            if session.is_word("session") && authorization.is_word("authorization") =>
        {
            named("session_authorization", value)
        }
        [xml, option, value @ ..] if xml.is_word("xml") && option.is_word("option") => named("xmloption", value),
        [names, value @ ..] if names.is_word("names") && !is_assignment(value) => {
            Some(("client_encoding".into(), value))
        }
        [role, value @ ..] if role.is_word("role") && !is_assignment(value) => named("role", value),
        [schema, value @ ..] if schema.is_word("schema") && !is_assignment(value) => named("search_path", value),
        _ => {
            let (name, tail) = setting_name(rest)?;
            match tail {
                [_, value @ ..] if is_assignment(tail) && !value.is_empty() => Some((name, value)),
                _ => None,
            }
        }
    }
}

fn is_assignment(tokens: &[Token<'_>]) -> bool {
    tokens.first().is_some_and(|token| token.is_word("to") || (token.kind == Kind::Operator && token.text == b"="))
}

/// A name with dots, in lower case, and what follows it. Settings are found without regard to case, even quoted ones.
fn setting_name<'t, 'a>(mut tokens: &'t [Token<'a>]) -> Option<(String, &'t [Token<'a>])> {
    let mut name = String::new();
    loop {
        let (first, rest) = tokens.split_first()?;
        name.push_str(&literal::identifier(first)?.to_ascii_lowercase());
        match rest.split_first() {
            Some((dot, rest)) if dot.is_punctuation(".") => {
                name.push('.');
                tokens = rest;
            }
            _ => return Some((name, rest)),
        }
    }
}
