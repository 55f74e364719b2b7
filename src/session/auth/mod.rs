//! Authentication of clients by the proxy itself: `trust`, `scram` and `md5`, against the user file and `auth_query`.
//!
//! A wrong password, an unknown user and a secret of the wrong kind get the same answer after the same work, in PostgreSQL's
//! words.

mod exchange;
mod users;

use std::collections::HashMap;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

pub use users::{Secret, UserFileError, quoted_fields};

use self::exchange::Exchange;
use crate::config::AuthMode;
use crate::upstream::login::UpstreamSecret;
use crate::wire::error::{ErrorResponse, sqlstate};
use crate::wire::md5;
use crate::wire::scram::Verifier;
use crate::wire::startup;
use crate::wire::stream::Stream;

/// Where users and their secrets come from: the file first, then the query.
pub struct UserSource {
    file: ArcSwap<HashMap<String, Secret>>,
    /// Makes what an unknown user is answered the same each time.
    mock: [u8; 32],
}

/// Why a client is not let in.
#[derive(Debug)]
pub enum AuthError {
    Gone,
    Refused(ErrorResponse),
}

/// What a user has proved to know.
pub struct Credentials {
    pub secret: UpstreamSecret,
}

impl UserSource {
    /// `path` is the user file's, or empty for none.
    pub fn new(path: &str) -> Result<Self, UserFileError> {
        let source = Self { file: ArcSwap::from_pointee(HashMap::new()), mock: rand::random() };
        source.reload(path)?;
        Ok(source)
    }

    /// Reads the file again. What was known stays if it cannot be read.
    pub fn reload(&self, path: &str) -> Result<(), UserFileError> {
        let users = if path.is_empty() { HashMap::new() } else { users::read(path)? };
        self.file.store(users.into());
        Ok(())
    }

    /// What is known of `user`; `query` is asked if the file does not know it.
    pub async fn lookup<E>(
        &self,
        user: &str,
        query: impl AsyncFnOnce(&str) -> Result<Option<String>, E>,
    ) -> Result<Option<Secret>, E> {
        if let Some(secret) = self.file.load().get(user) {
            return Ok(Some(secret.clone()));
        }
        Ok(query(user).await?.map(|text| Secret::parse(&text)))
    }

    /// Authenticates a client who says that it is `user`, and says AuthenticationOk. `service` is the password of the service
    /// account, if this is its user.
    pub async fn authenticate(
        &self,
        stream: &mut Stream,
        mode: AuthMode,
        user: &str,
        secret: Option<Secret>,
        service: Option<&str>,
    ) -> Result<Credentials, AuthError> {
        let mut exchange = Exchange::new(stream);
        let secret = match (mode, secret) {
            (AuthMode::Trust | AuthMode::Relay, secret) => trusted(secret, service),
            (AuthMode::Md5, Some(Secret::Md5(hash))) => exchange.md5(user, hash).await?,
            (AuthMode::Md5, Some(Secret::Plain(password))) => {
                exchange.md5(user, md5::stored(user, &password)).await?;
                UpstreamSecret::Password(password)
            }
            (AuthMode::Scram | AuthMode::Md5, Some(Secret::Scram(verifier))) => exchange.scram(user, verifier).await?,
            (AuthMode::Scram, Some(Secret::Plain(password))) => {
                exchange.scram(user, Verifier::of_password(user, &password, &self.mock)).await?;
                UpstreamSecret::Password(password)
            }
            // An md5 hash is no use for SCRAM; nobody knows this user: it goes on as if there were a password.
            (AuthMode::Scram, Some(Secret::Md5(_)) | None) | (AuthMode::Md5, None) => {
                exchange.scram(user, Verifier::mock(user, &self.mock)).await?
            }
        };
        let mut out = BytesMut::new();
        startup::put_authentication_ok(&mut out);
        stream.write_all(&out).await.map_err(|_| AuthError::Gone)?;
        Ok(Credentials { secret })
    }
}

/// In mode `trust` nobody is asked, and upstream we say what we know.
fn trusted(secret: Option<Secret>, service: Option<&str>) -> UpstreamSecret {
    match (secret, service) {
        (Some(Secret::Plain(password)), _) => UpstreamSecret::Password(password),
        (_, Some(password)) if !password.is_empty() => UpstreamSecret::Password(password.to_owned()),
        (Some(Secret::Md5(hash)), _) => UpstreamSecret::Md5(hash),
        _ => UpstreamSecret::None,
    }
}

/// PostgreSQL's words (`auth_failed`, src/backend/libpq/auth.c).
fn wrong_password(user: &str) -> AuthError {
    let message = format!("password authentication failed for user \"{user}\"");
    AuthError::Refused(ErrorResponse::fatal(sqlstate::INVALID_PASSWORD, message))
}

#[cfg(test)]
mod tests;
