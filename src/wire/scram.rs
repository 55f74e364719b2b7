//! SCRAM-SHA-256 (RFC 5802, RFC 7677), both roles, without I/O.
//!
//! The server role recovers the client's key from its proof: with it the proxy can log in upstream as that client without ever
//! knowing the password. Channel binding is not offered: it cannot pass a proxy.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// The only mechanism that is offered or accepted.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Iterations of verifiers that are made here (`SCRAM_DEFAULT_ITERATIONS`, src/include/common/scram-common.h).
const ITERATIONS: u32 = 4096;
/// A server that asks for more keeps the client's CPU busy for nothing.
const MAX_ITERATIONS: u32 = 10_000_000;

type Key = [u8; 32];

/// What a server keeps of a password: `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: Key,
    server_key: Key,
}

/// What it takes to log in without the password, to a server that has the same verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub client_key: Key,
    pub server_key: Key,
}

#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ScramError {
    #[error("malformed SCRAM message")]
    Malformed,
    #[error("the client requires SCRAM channel binding, which cannot pass a proxy")]
    ChannelBinding,
    #[error("SCRAM nonce does not match")]
    Nonce,
    #[error("password authentication failed")]
    Proof,
    #[error("the server could not prove that it knows the password")]
    ServerSignature,
    #[error("unreasonable SCRAM iteration count")]
    Iterations,
}

impl Verifier {
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("SCRAM-SHA-256$")?;
        let (parameters, keys) = rest.split_once('$')?;
        let (iterations, salt) = parameters.split_once(':')?;
        let (stored_key, server_key) = keys.split_once(':')?;
        Some(Self {
            iterations: iterations.parse().ok().filter(|count| *count > 0)?,
            salt: BASE64.decode(salt).ok()?,
            stored_key: key(stored_key)?,
            server_key: key(server_key)?,
        })
    }

    /// The verifier of a user's plain password. Its salt is always the same for one user and `secret`, as a stored one's is.
    pub fn of_password(user: &str, password: &str, secret: &Key) -> Self {
        let salt = hmac(secret, user.as_bytes())[..16].to_vec();
        let keys = ScramKeys::of_password(password, &salt, ITERATIONS);
        Self { iterations: ITERATIONS, stored_key: sha256(&keys.client_key), server_key: keys.server_key, salt }
    }

    /// For a user who does not exist: always the same for one user, so that it looks like a real one, and no proof fits it.
    pub fn mock(user: &str, secret: &Key) -> Self {
        let salt = hmac(secret, user.as_bytes())[..16].to_vec();
        Self { iterations: ITERATIONS, salt, stored_key: rand::random(), server_key: rand::random() }
    }
}

impl ScramKeys {
    fn of_password(password: &str, salt: &[u8], iterations: u32) -> Self {
        // PostgreSQL takes a password that SASLprep refuses as it is (pg_saslprep).
        let prepared =
            stringprep::saslprep(password).map_or_else(|_| password.to_owned(), |prepared| prepared.into_owned());
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(prepared.as_bytes(), salt, iterations);
        Self { client_key: hmac(&salted, b"Client Key"), server_key: hmac(&salted, b"Server Key") }
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScramKeys").finish_non_exhaustive()
    }
}

/// The server's side of one exchange, after the client's first message.
pub struct Server {
    verifier: Verifier,
    gs2_header: String,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

impl Server {
    /// Takes the client's first message.
    pub fn new(client_first: &[u8], verifier: Verifier) -> Result<Self, ScramError> {
        Self::with_nonce(client_first, verifier, &BASE64.encode(rand::random::<[u8; 18]>()))
    }

    fn with_nonce(client_first: &[u8], verifier: Verifier, own_nonce: &str) -> Result<Self, ScramError> {
        let text = std::str::from_utf8(client_first).map_err(|_| ScramError::Malformed)?;
        // gs2-header: channel binding flag, authorization identity, each with its comma.
        let mut parts = text.splitn(3, ',');
        let (flag, identity) = (parts.next(), parts.next());
        let bare = parts.next().ok_or(ScramError::Malformed)?;
        match (flag, identity) {
            (Some("n" | "y"), Some("")) => {}
            (Some(flag), _) if flag.starts_with("p=") => return Err(ScramError::ChannelBinding),
            _ => return Err(ScramError::Malformed),
        }
        let nonce = attribute(bare.split(',').nth(1), "r=")?;
        let printable = nonce.bytes().all(|byte| (0x21..=0x7e).contains(&byte));
        if !bare.starts_with("n=") || nonce.is_empty() || !printable {
            return Err(ScramError::Malformed);
        }
        let nonce = format!("{nonce}{own_nonce}");
        let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&verifier.salt), verifier.iterations);
        Ok(Self {
            gs2_header: text[..text.len() - bare.len()].to_owned(),
            client_first_bare: bare.to_owned(),
            server_first,
            nonce,
            verifier,
        })
    }

    pub fn first_message(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's final message. Returns ours, and the keys that the client's proof gives away.
    pub fn finish(self, client_final: &[u8]) -> Result<(String, ScramKeys), ScramError> {
        let text = std::str::from_utf8(client_final).map_err(|_| ScramError::Malformed)?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or(ScramError::Malformed)?;
        let mut parts = without_proof.split(',');
        let binding = attribute(parts.next(), "c=")?;
        if binding != BASE64.encode(&self.gs2_header) {
            return Err(ScramError::ChannelBinding);
        }
        if attribute(parts.next(), "r=")? != self.nonce {
            return Err(ScramError::Nonce);
        }
        let auth_message = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let signature = hmac(&self.verifier.stored_key, auth_message.as_bytes());
        let client_key = xor(&key(proof).ok_or(ScramError::Malformed)?, &signature);
        if !bool::from(sha256(&client_key).ct_eq(&self.verifier.stored_key)) {
            return Err(ScramError::Proof);
        }
        let server_signature = hmac(&self.verifier.server_key, auth_message.as_bytes());
        let keys = ScramKeys { client_key, server_key: self.verifier.server_key };
        Ok((format!("v={}", BASE64.encode(server_signature)), keys))
    }
}

/// With what the client's side proves itself.
pub enum ClientSecret<'a> {
    Password(&'a str),
    Keys(&'a ScramKeys),
}

/// The client's side of one exchange.
pub struct Client {
    nonce: String,
}

/// What the client expects after its proof.
pub struct Expectation {
    server_signature: Key,
}

impl Default for Client {
    fn default() -> Self {
        Self { nonce: BASE64.encode(rand::random::<[u8; 18]>()) }
    }
}

impl Client {
    pub fn first_message(&self) -> String {
        // The server takes the user from the start-up packet.
        format!("n,,n=,r={}", self.nonce)
    }

    /// Takes the server's first message. Returns our final one.
    pub fn prove(self, server_first: &[u8], secret: &ClientSecret<'_>) -> Result<(String, Expectation), ScramError> {
        let text = std::str::from_utf8(server_first).map_err(|_| ScramError::Malformed)?;
        let mut parts = text.split(',');
        let nonce = attribute(parts.next(), "r=")?;
        let salt = BASE64.decode(attribute(parts.next(), "s=")?).map_err(|_| ScramError::Malformed)?;
        let iterations: u32 = attribute(parts.next(), "i=")?.parse().map_err(|_| ScramError::Malformed)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(ScramError::Nonce);
        }
        if !(1..=MAX_ITERATIONS).contains(&iterations) {
            return Err(ScramError::Iterations);
        }
        let keys = match secret {
            ClientSecret::Password(password) => ScramKeys::of_password(password, &salt, iterations),
            ClientSecret::Keys(keys) => (*keys).clone(),
        };
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("n=,r={},{text},{without_proof}", self.nonce);
        let signature = hmac(&sha256(&keys.client_key), auth_message.as_bytes());
        let proof = BASE64.encode(xor(&keys.client_key, &signature));
        let server_signature = hmac(&keys.server_key, auth_message.as_bytes());
        Ok((format!("{without_proof},p={proof}"), Expectation { server_signature }))
    }
}

impl Expectation {
    /// Takes the server's final message.
    pub fn check(&self, server_final: &[u8]) -> Result<(), ScramError> {
        let text = std::str::from_utf8(server_final).map_err(|_| ScramError::Malformed)?;
        let signature = key(attribute(Some(text), "v=")?).ok_or(ScramError::Malformed)?;
        if bool::from(signature.ct_eq(&self.server_signature)) { Ok(()) } else { Err(ScramError::ServerSignature) }
    }
}

fn attribute<'a>(part: Option<&'a str>, name: &str) -> Result<&'a str, ScramError> {
    part.and_then(|part| part.strip_prefix(name)).ok_or(ScramError::Malformed)
}

fn key(text: &str) -> Option<Key> {
    BASE64.decode(text).ok()?.try_into().ok()
}

fn sha256(bytes: &[u8]) -> Key {
    Sha256::digest(bytes).into()
}

#[expect(clippy::expect_used, reason = "HMAC takes a key of any length")]
fn hmac(key: &[u8], message: &[u8]) -> Key {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn xor(a: &Key, b: &Key) -> Key {
    std::array::from_fn(|index| a[index] ^ b[index])
}

#[cfg(test)]
mod tests;
