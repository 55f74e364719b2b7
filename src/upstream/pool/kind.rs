//! Which connections are alike, and how one more of them is opened.

use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::upstream::backend::Reported;
use crate::upstream::login::UpstreamSecret;
use crate::wire::startup::StartupMessage;

/// Connections with equal keys are alike: same user, database and start-up parameters, opened with the same secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolKey {
    digest: [u8; 32],
    owner: Owner,
}

/// Whose connection it is, and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Owner {
    pub(super) user: Name,
    pub(super) database: Name,
}

/// A digest of a name: users who have not proved to be anybody may say any, of any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Name(u128);

/// Which connections are a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Those that are alike and shared.
    Shared(PoolKey),
    /// Those that belong to one client each.
    Dedicated(Owner),
}

impl Kind {
    pub(super) fn owner(&self) -> &Owner {
        match self {
            Self::Shared(key) => &key.owner,
            Self::Dedicated(owner) => owner,
        }
    }
}

impl Owner {
    pub fn of(startup: &StartupMessage) -> Self {
        Self { user: Name::of(startup.user()), database: Name::of(startup.database()) }
    }
}

impl Name {
    fn of(name: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(name).into();
        Self(digest.first_chunk().map_or(0, |first| u128::from_be_bytes(*first)))
    }
}

/// How one more connection of a group is opened, and what the last one said when it was.
pub struct Recipe {
    pub protocol: u32,
    pub parameters: Vec<(Bytes, Bytes)>,
    pub secret: UpstreamSecret,
    pub reported: Arc<Reported>,
}

impl std::fmt::Debug for Recipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recipe").finish_non_exhaustive()
    }
}

impl Recipe {
    /// The same, with what a new connection has just reported.
    pub fn with_report(&self, parameters: &[(Bytes, Bytes)]) -> Self {
        let reported = Arc::new(Reported::new(parameters.to_vec()));
        Self { protocol: self.protocol, parameters: self.parameters.clone(), secret: self.secret.clone(), reported }
    }
}

impl PoolKey {
    pub fn new(startup: &StartupMessage, secret: &UpstreamSecret, generation: u64) -> Self {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u64).to_be_bytes());
            hasher.update(bytes);
        };
        field(&generation.to_be_bytes());
        field(&startup.protocol.to_be_bytes());
        let mut parameters: Vec<&(Bytes, Bytes)> = startup.parameters.iter().collect();
        parameters.sort();
        for (name, value) in parameters {
            field(name);
            field(value);
        }
        match secret {
            UpstreamSecret::None => field(b"none"),
            UpstreamSecret::Password(password) => field(password.as_bytes()),
            UpstreamSecret::Md5(hash) => field(hash.as_bytes()),
            UpstreamSecret::Scram(keys) => field(&keys.client_key),
        }
        Self { digest: hasher.finalize().into(), owner: Owner::of(startup) }
    }
}
