//! What a text asks for: commands, and what drivers say to every server.

use super::command::{self, Arguments, Command};
use super::drivers::{self, Courtesy};
use super::table::Column;
use crate::config::Config;
use crate::statement::lexer::{self, Token};
use crate::wire::error::{ErrorResponse, sqlstate};

/// One statement.
#[derive(Clone)]
pub enum Request {
    Command(&'static Command, Arguments),
    Courtesy(Courtesy),
}

impl Request {
    /// The columns of its rows; none if it answers with none.
    pub fn columns(&self) -> &[Column] {
        match self {
            Self::Command(command, _) => command.columns,
            Self::Courtesy(courtesy) => courtesy.columns(),
        }
    }

    /// The tag of its CommandComplete.
    pub fn tag(&self) -> &str {
        match self {
            Self::Command(command, _) if !command.columns.is_empty() => "SHOW",
            Self::Command(command, _) => command.words,
            Self::Courtesy(courtesy) => courtesy.tag(),
        }
    }
}

/// The statements of a text in their order.
pub fn read(text: &[u8], config: &Config) -> Result<Vec<Request>, ErrorResponse> {
    let tokens = lexer::tokens(text).map_err(|_| unknown("an unterminated string or comment"))?;
    let statements = tokens.split(|token| token.is_punctuation(";"));
    statements.filter(|tokens| !tokens.is_empty()).map(|tokens| one(tokens, text, config)).collect()
}

fn one(tokens: &[Token<'_>], text: &[u8], config: &Config) -> Result<Request, ErrorResponse> {
    // SET is a command for the proxy's own keys only, and SHOW one for its tables.
    if let Some(courtesy) = drivers::courtesy(tokens, config) {
        return courtesy.map(Request::Courtesy);
    }
    if let Some((command, arguments)) = command::find(tokens) {
        return Ok(Request::Command(command, arguments));
    }
    let (start, end) = (tokens.first().map_or(0, |token| token.start), tokens.last().map_or(0, Token::end));
    Err(unknown(&String::from_utf8_lossy(&text[start..end.min(start + 100)])))
}

fn unknown(what: &str) -> ErrorResponse {
    ErrorResponse::error(sqlstate::SYNTAX_ERROR, format!("unknown command: {what}"))
        .hint("This is the proxy's admin database, which runs no SQL. SHOW HELP lists its commands.")
}
