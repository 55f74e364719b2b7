//! The settings that a session has made beyond those that its connection began with.

use std::sync::{Arc, LazyLock};

use sha2::{Digest, Sha256};

/// Names and values as the upstream told them, in the order in which they are made again.
#[derive(Debug, PartialEq, Eq)]
pub struct Settings {
    pairs: Vec<(Box<str>, Box<str>)>,
    digest: [u8; 32],
}

static NONE: LazyLock<Arc<Settings>> = LazyLock::new(|| Arc::new(Settings::new(Vec::new())));

impl Settings {
    pub fn new(pairs: Vec<(Box<str>, Box<str>)>) -> Self {
        let mut hasher = Sha256::new();
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        Self { pairs, digest: hasher.finalize().into() }
    }

    /// Those of a connection on which nobody has set anything.
    pub fn none() -> Arc<Self> {
        NONE.clone()
    }

    pub fn pairs(&self) -> &[(Box<str>, Box<str>)] {
        &self.pairs
    }

    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.digest == other.digest
    }
}
