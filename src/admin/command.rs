//! Commands: one a file, all of one shape, found by the words that they begin with.

use std::future::Future;
use std::pin::Pin;

use super::Desk;
use super::table::{Column, Row};
use super::{
    cache_explain, flush_cache, kill, pause, reload, resume, set, show_breakers, show_cache, show_cache_advice,
    show_cache_top, show_clients, show_config, show_help, show_parallel, show_parallel_skipped, show_pins, show_pools,
    show_servers, show_stats, show_version,
};
use crate::statement::lexer::{Kind, Token};
use crate::statement::literal;
use crate::wire::error::{ErrorResponse, sqlstate};

/// One command.
pub struct Command {
    /// In upper case, without what follows.
    pub words: &'static str,
    /// What may follow, as it is written in manuals; empty for nothing.
    pub follows: &'static str,
    pub help: &'static str,
    /// Not for those who may only look.
    pub changes: bool,
    /// Of the rows that it answers with; none for no rows.
    pub columns: &'static [Column],
    pub run: Run,
}

/// Carries a command out.
pub type Run = for<'a> fn(&'a Desk, Arguments) -> Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// The rows, or why there are none.
pub type Answer = Result<Vec<Row>, ErrorResponse>;

/// What follows a command's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arguments(pub Vec<Argument>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// A name or a string without its quotes, anything else as it is written.
    pub text: String,
    pub kind: ArgumentKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgumentKind {
    /// In lower case unless it was quoted.
    Name,
    String,
    Other,
}

/// All of them, as SHOW HELP lists them.
pub const ALL: &[&Command] = &[
    &show_help::COMMAND,
    &show_version::COMMAND,
    &show_config::COMMAND,
    &show_clients::COMMAND,
    &show_servers::COMMAND,
    &show_pools::COMMAND,
    &show_pins::COMMAND,
    &show_stats::COMMAND,
    &show_cache::COMMAND,
    &show_cache_top::COMMAND,
    &show_cache_advice::COMMAND,
    &cache_explain::COMMAND,
    &cache_explain::SHOWN,
    &show_parallel::COMMAND,
    &show_parallel_skipped::COMMAND,
    &show_breakers::COMMAND,
    &flush_cache::COMMAND,
    &kill::COMMAND,
    &pause::COMMAND,
    &resume::COMMAND,
    &reload::COMMAND,
    &set::COMMAND,
];

/// The command that these tokens begin with, the longer one of two, and what follows.
pub fn find(tokens: &[Token<'_>]) -> Option<(&'static Command, Arguments)> {
    let begins = |command: &Command| {
        let words = command.words.split(' ');
        let count = words.clone().count();
        let equal = words.zip(tokens).filter(|(word, token)| token.is_word(word)).count() == count;
        equal.then_some(count)
    };
    let (count, command) =
        ALL.iter().filter_map(|command| Some((begins(command)?, *command))).max_by_key(|(count, _)| *count)?;
    Some((command, Arguments(tokens[count..].iter().map(argument).collect())))
}

fn argument(token: &Token<'_>) -> Argument {
    let raw = || String::from_utf8_lossy(token.text).into_owned();
    let string = literal::content(token).map(|content| String::from_utf8_lossy(&content).into_owned());
    match (token.kind, literal::identifier(token), string) {
        (Kind::Word | Kind::Quoted, Some(text), _) => Argument { text, kind: ArgumentKind::Name },
        (_, _, Some(text)) => Argument { text, kind: ArgumentKind::String },
        _ => Argument { text: raw(), kind: ArgumentKind::Other },
    }
}

impl Arguments {
    pub fn none(&self, command: &Command) -> Result<(), ErrorResponse> {
        if self.0.is_empty() { Ok(()) } else { Err(command.usage()) }
    }

    pub fn texts(&self) -> Vec<&str> {
        self.0.iter().map(|argument| argument.text.as_str()).collect()
    }
}

impl Command {
    /// What follows is not what may follow.
    pub fn usage(&self) -> ErrorResponse {
        ErrorResponse::error(sqlstate::SYNTAX_ERROR, format!("syntax error after {}", self.words))
            .hint(format!("Usage: {}", self.synopsis()))
    }

    pub fn synopsis(&self) -> String {
        format!("{} {}", self.words, self.follows).trim_end().to_owned()
    }
}

/// Something that is asked for is not there.
pub fn no_such(message: String) -> ErrorResponse {
    ErrorResponse::error(sqlstate::UNDEFINED_OBJECT, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::lexer::tokens;

    fn words(text: &str) -> Option<(&'static str, Vec<String>)> {
        let tokens = tokens(text.as_bytes()).unwrap();
        let (command, arguments) = find(&tokens)?;
        Some((command.words, arguments.0.into_iter().map(|argument| argument.text).collect()))
    }

    #[test]
    fn a_command_is_found_by_its_words_in_any_case() {
        assert_eq!(words("show Pools"), Some(("SHOW POOLS", vec![])));
        assert_eq!(words("FLUSH CACHE TABLE Public.\"T\""), {
            let rest = ["table", "public", ".", "T"].map(String::from).to_vec();
            Some(("FLUSH CACHE", rest))
        });
        assert_eq!(words("KILL 7"), Some(("KILL", vec!["7".into()])));
        assert_eq!(words("SHOW"), None);
        assert_eq!(words("SHOW POOLSX"), None);
        assert_eq!(words("SELECT 1"), None);
    }

    #[test]
    fn every_command_is_told_apart_and_explained() {
        for (number, command) in ALL.iter().enumerate() {
            assert!(!command.help.is_empty(), "{}", command.words);
            assert_eq!(command.words, command.words.to_uppercase());
            assert!(ALL[..number].iter().all(|other| other.words != command.words), "{}", command.words);
            for (place, column) in command.columns.iter().enumerate() {
                let twice = command.columns[..place].iter().any(|other| other.name == column.name);
                assert!(!twice, "{} in {}", column.name, command.words);
            }
        }
    }
}
