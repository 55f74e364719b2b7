//! Bearer tokens, and as whom they let their owners in.
//!
//! The file has a line for each: `"SHA-256 of the token, in hexadecimal" "user" "password"`, quoted as in `auth.user_file`. A token is
//! looked up by its digest, so the time that takes says nothing about others.

use std::collections::HashMap;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::session::auth::quoted_fields;

type Sha256Digest = [u8; 32];

/// Who has a token.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenOwner {
    pub user: String,
    pub password: String,
}

/// The tokens of the file, as it was read last.
pub struct Tokens(ArcSwap<HashMap<Sha256Digest, TokenOwner>>);

#[derive(Debug, Error)]
pub enum TokenFileError {
    #[error("cannot read stream.token_file {path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path}:{line}: expected \"SHA-256 in hexadecimal\" \"user\" \"password\"")]
    Line { path: String, line: usize },
}

impl Tokens {
    /// `path` is the file's, or empty for none.
    pub fn new(path: &str) -> Result<Self, TokenFileError> {
        Ok(Self(ArcSwap::from_pointee(read(path)?)))
    }

    /// Reads the file again. What was known stays if it cannot be read.
    pub fn reload(&self, path: &str) -> Result<(), TokenFileError> {
        self.0.store(read(path)?.into());
        Ok(())
    }

    pub fn owner(&self, token: &str) -> Option<TokenOwner> {
        let digest: Sha256Digest = Sha256::digest(token).into();
        self.0.load().get(&digest).cloned()
    }
}

fn read(path: &str) -> Result<HashMap<Sha256Digest, TokenOwner>, TokenFileError> {
    if path.is_empty() {
        return Ok(HashMap::new());
    }
    let text = std::fs::read_to_string(path).map_err(|error| TokenFileError::Read { path: path.to_owned(), error })?;
    parse(&text).map_err(|line| TokenFileError::Line { path: path.to_owned(), line })
}

/// The tokens of a file's text, or the number of the line that is wrong.
fn parse(text: &str) -> Result<HashMap<Sha256Digest, TokenOwner>, usize> {
    quoted_fields(text)
        .map(|(number, fields)| {
            let [digest, user, password] = fields.ok_or(number)?;
            Ok((digest_of(&digest).ok_or(number)?, TokenOwner { user, password }))
        })
        .collect()
}

fn digest_of(hex: &str) -> Option<Sha256Digest> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().ok().filter(|_| rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of "secret".
    const DIGEST: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";

    #[test]
    fn a_token_is_found_by_its_digest() {
        let tokens = parse(&format!("# tokens\n\"{DIGEST}\" \"alice\" \"pass \"\"word\"\"\"\n")).unwrap();
        let tokens = Tokens(ArcSwap::from_pointee(tokens));
        let owner = tokens.owner("secret").unwrap();
        assert_eq!((owner.user.as_str(), owner.password.as_str()), ("alice", "pass \"word\""));
        assert!(tokens.owner("Secret").is_none());
        assert!(tokens.owner(DIGEST).is_none());
    }

    #[test]
    fn a_wrong_line_is_named() {
        for line in
            ["\"00\" \"a\" \"b\"".to_owned(), format!("\"{DIGEST}\" \"a\""), format!("\"{DIGEST}\" \"a\" \"b\" c")]
        {
            assert_eq!(parse(&format!("\n{line}")).err(), Some(2), "{line}");
        }
    }
}
