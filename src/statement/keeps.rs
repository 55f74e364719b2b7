//! What a statement's text says that it may leave in its session, beyond what its class tells: settings made by function,
//! advisory locks, the state of sequences and of `random()`.

use std::sync::LazyLock;

use regex::bytes::Regex;

use super::class::{Class, SetAction};
use super::lexer::Token;
use super::literal;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keeps {
    /// It calls what keeps something for the session, or sets what outlives its transaction.
    pub state: bool,
    /// It changes settings until its transaction ends.
    pub local_settings: bool,
    /// Settings with a dot in their names, which the server does not list.
    pub custom_settings: Vec<Box<str>>,
    /// It may change such settings without naming them.
    pub hidden_settings: bool,
    /// It seeds `random()`.
    pub seeds: bool,
    /// It names `nextval` or `setval`.
    pub draws: bool,
    /// It asks what this session has drawn last.
    pub recalls: bool,
    /// It asks for the session's prepared statements.
    pub shows_statements: bool,
}

/// Code that sets a setting with a dot in its name.
pub const CUSTOM_SETTING: &str =
    r"(?i)set_config\s*\(\s*('[^'.]*\.|[^'\s])|\bset\s+((session|local)\s+)?[a-z_][\w$]*\s*\.";

static CODE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(CUSTOM_SETTING).ok());

impl Keeps {
    /// `None` for the many that have nothing of this.
    pub fn of(class: &Class, text: &[u8], tokens: &[Token<'_>]) -> Option<Box<Self>> {
        let mut keeps = Self::default();
        if let Class::Set(action) = class {
            keeps.note_action(action);
        }
        let runs_code = matches!(class, Class::Do | Class::Call | Class::Unknown | Class::Execute);
        if runs_code && CODE.as_ref().is_none_or(|code| code.is_match(text)) {
            keeps.hidden_settings = true;
        }
        for (at, token) in tokens.iter().enumerate() {
            let Some(name) = function_name(token) else { continue };
            match name.as_str() {
                "set_config" => keeps.note_call(&tokens[at + 1..]),
                "setseed" => keeps.seeds = true,
                "nextval" | "setval" => keeps.draws = true,
                "currval" | "lastval" => keeps.recalls = true,
                "pg_prepared_statements" | "pg_prepared_statement" => keeps.shows_statements = true,
                _ => keeps.state = true,
            }
        }
        (keeps != Self::default()).then(|| Box::new(keeps))
    }

    fn note_action(&mut self, action: &SetAction) {
        match action {
            SetAction::Set { local: true, .. } => self.local_settings = true,
            SetAction::Set { name, .. } | SetAction::Reset { name } => {
                self.state = true;
                self.seeds |= name == "seed";
                if name.contains('.') {
                    self.custom_settings.push(name.as_str().into());
                }
            }
            SetAction::ResetAll | SetAction::SessionCharacteristics(_) => self.state = true,
            SetAction::Transaction(_) | SetAction::Snapshot | SetAction::Constraints => {}
        }
    }

    /// `set_config (name, value, is_local)`.
    fn note_call(&mut self, rest: &[Token<'_>]) {
        let arguments = arguments(rest);
        if let [_, _, [local]] = arguments.as_slice()
            && local.is_word("true")
        {
            self.local_settings = true;
            return;
        }
        self.state = true;
        let name = match arguments.first() {
            Some([name]) => literal::content(name),
            _ => None,
        };
        match name.map(|name| String::from_utf8_lossy(&name).to_ascii_lowercase()) {
            Some(name) if name.contains('.') => self.custom_settings.push(name.into()),
            Some(_) => {}
            None => self.hidden_settings = true,
        }
    }

    pub(super) fn weight(&self) -> usize {
        size_of::<Self>() + self.custom_settings.iter().map(|name| name.len() + 32).sum::<usize>()
    }
}

/// The name of a function that keeps something, or shows what was kept, if it is one.
fn function_name(token: &Token<'_>) -> Option<String> {
    let name = literal::folded(token)?;
    let keeps = matches!(
        &*name,
        "set_config"
            | "setseed"
            | "nextval"
            | "setval"
            | "currval"
            | "lastval"
            | "pg_prepared_statements"
            | "pg_prepared_statement"
    );
    let locks = (name.starts_with("pg_advisory_") || name.starts_with("pg_try_advisory_")) && !name.contains("_xact_");
    (keeps || locks).then(|| name.into_owned())
}

/// The arguments of a call whose tokens begin with its parenthesis.
fn arguments<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut arguments = Vec::new();
    let (mut depth, mut start) = (0usize, 1);
    for (at, token) in tokens.iter().enumerate() {
        if token.is_punctuation("(") || token.is_punctuation("[") {
            depth += 1;
        } else if token.is_punctuation(")") || token.is_punctuation("]") {
            depth = depth.saturating_sub(1);
        }
        let ends = depth == 0;
        if ends || (depth == 1 && token.is_punctuation(",")) {
            arguments.push(tokens.get(start..at).unwrap_or_default());
            start = at + 1;
        }
        if ends {
            break;
        }
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::super::Statement;
    use super::*;

    fn keeps(text: &str) -> Option<Keeps> {
        Statement::analyse(text.as_bytes()).parts.remove(0).keeps.map(|keeps| *keeps)
    }

    #[test]
    fn what_ends_with_the_transaction_keeps_nothing() {
        for text in
            ["SELECT 1", "SELECT pg_advisory_xact_lock(1)", "UPDATE t SET a = 1", "BEGIN", "SET TRANSACTION READ ONLY"]
        {
            assert_eq!(keeps(text), None, "{text}");
        }
        let local = Some(Keeps { local_settings: true, ..Keeps::default() });
        assert_eq!(keeps("SET LOCAL app.tenant = 5"), local);
        assert_eq!(keeps("SELECT set_config('app.tenant', (SELECT f(1, 2)), true)"), local);
    }

    #[test]
    fn settings_that_the_server_does_not_list_are_named() {
        let named = |text| keeps(text).map(|keeps| (keeps.state, keeps.custom_settings, keeps.hidden_settings));
        let tenant = Some((true, vec!["app.tenant".into()], false));
        assert_eq!(named("SET App.Tenant = 5"), tenant);
        assert_eq!(named("SELECT pg_catalog.set_config('app.tenant', $1, false)"), tenant);
        assert_eq!(named("SELECT set_config('app.tenant', $1, $2)"), tenant);
        assert_eq!(named("SELECT set_config('work_mem', '1MB', false)"), Some((true, vec![], false)));
        assert_eq!(named("SELECT set_config($1, $2, false)"), Some((true, vec![], true)));
        assert_eq!(named("DO $$ BEGIN PERFORM set_config('a.b', 'c', false); END $$"), Some((false, vec![], true)));
        assert_eq!(named("DO $$ BEGIN SET a.b = 'c'; END $$"), Some((false, vec![], true)));
        assert_eq!(named("DO $$ BEGIN UPDATE t SET a = 'c'; END $$"), None);
    }

    #[test]
    fn locks_seeds_and_sequences_are_told_apart() {
        assert!(keeps("SELECT pg_try_advisory_lock(1)").is_some_and(|keeps| keeps.state));
        assert!(keeps("SELECT pg_advisory_unlock_all()").is_some_and(|keeps| keeps.state));
        assert!(keeps("SELECT setseed(.5)").is_some_and(|keeps| keeps.seeds));
        assert!(keeps("SET seed = .5").is_some_and(|keeps| keeps.seeds));
        assert!(keeps("SELECT nextval('s')").is_some_and(|keeps| keeps.draws && !keeps.recalls));
        assert!(keeps("SELECT lastval()").is_some_and(|keeps| keeps.recalls && !keeps.draws));
    }
}
