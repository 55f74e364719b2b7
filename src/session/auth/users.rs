//! The user file, in PgBouncer's format: lines `"user" "secret"`, a doubled quote inside quotes stands for one, lines that begin
//! with `;` or `#` are comments.

use std::collections::HashMap;
use std::path::PathBuf;

use thiserror::Error;

use crate::wire::md5;
use crate::wire::scram::Verifier;

/// What is known of a user's password.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Scram(Verifier),
    /// `md5` and the hash.
    Md5(String),
    Plain(String),
}

impl Secret {
    /// Tells the kinds apart as PostgreSQL does (`get_password_type`, src/backend/libpq/crypt.c).
    pub fn parse(text: &str) -> Self {
        match Verifier::parse(text) {
            Some(verifier) => Self::Scram(verifier),
            None if md5::is_stored(text) => Self::Md5(text.to_owned()),
            None => Self::Plain(text.to_owned()),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Scram(_) => "Scram(..)",
            Self::Md5(_) => "Md5(..)",
            Self::Plain(_) => "Plain(..)",
        })
    }
}

#[derive(Debug, Error)]
pub enum UserFileError {
    #[error("cannot read auth.user_file {path}: {error}")]
    Read { path: PathBuf, error: std::io::Error },
    #[error("{path}:{line}: expected \"user\" \"secret\"")]
    Line { path: PathBuf, line: usize },
}

/// The users of a file.
pub fn read(path: &str) -> Result<HashMap<String, Secret>, UserFileError> {
    let path = PathBuf::from(path);
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).map_err(|line| UserFileError::Line { path, line }),
        Err(error) => Err(UserFileError::Read { path, error }),
    }
}

/// The users of a file's text, or the number of the line that is wrong.
fn parse(text: &str) -> Result<HashMap<String, Secret>, usize> {
    quoted_fields(text)
        .map(|(number, fields)| {
            let [user, secret] = fields.ok_or(number)?;
            Ok((user, Secret::parse(&secret)))
        })
        .collect()
}

/// The lines of a file that are neither empty nor comments: their numbers, and their quoted texts if there are just so many.
pub fn quoted_fields<const COUNT: usize>(text: &str) -> impl Iterator<Item = (usize, Option<[String; COUNT]>)> {
    let is_over = |rest: &str| rest.is_empty() || rest.starts_with([';', '#']);
    text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())).filter(move |(_, line)| !is_over(line)).map(
        move |(number, mut rest)| {
            let mut fields = [const { String::new() }; COUNT];
            for field in &mut fields {
                let Some((content, tail)) = quoted(rest) else { return (number, None) };
                (*field, rest) = (content, tail.trim_start());
            }
            (number, is_over(rest).then_some(fields))
        },
    )
}

/// A quoted text at the front, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut rest = text.strip_prefix('"')?;
    let mut content = String::new();
    loop {
        let (piece, tail) = rest.split_once('"')?;
        content.push_str(piece);
        match tail.strip_prefix('"') {
            Some(tail) => {
                content.push('"');
                rest = tail;
            }
            None => return Some((content, tail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_file_is_read_as_pgbouncer_reads_it() {
        let text =
            "; comment\n# another\n\"alice\" \"secret\"\n\"b\"\"ob\" \"md54a0a68b43b6cd5cf266fa02f196e2371\" ; old\n\n";
        let users = parse(text).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users["alice"], Secret::Plain("secret".into()));
        assert!(matches!(users["b\"ob"], Secret::Md5(_)));
        assert_eq!(format!("{:?}", users["alice"]), "Plain(..)");
    }

    #[test]
    fn a_wrong_line_is_named() {
        for text in ["\"a\" \"b\"\nalice secret", "\n\"alice\"", "\n\"alice\" \"x\" y", "\n\"alice\" \"x"] {
            assert_eq!(parse(text), Err(2), "{text}");
        }
    }
}
