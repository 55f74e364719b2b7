//! The cache key: SHA-256 over length-prefixed fields, so that no two different requests share one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CacheKey(pub [u8; 32]);

/// A map by cache key.
pub type KeyMap<V> = HashMap<CacheKey, V, BuildHasherDefault<KeyPrefix>>;

/// A cache key is uniformly distributed already, and nobody can choose it; its first bytes are hash enough.
#[derive(Debug, Default)]
pub struct KeyPrefix(u64);

impl Hasher for KeyPrefix {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(prefix) = bytes.first_chunk::<8>() {
            self.0 ^= u64::from_ne_bytes(*prefix);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl CacheKey {
    /// The first four bytes, for people.
    pub fn prefix(&self) -> String {
        self.0[..4].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Feeds fields to the hash, each behind its length.
#[derive(Debug, Clone, Default)]
pub struct KeyHasher(Sha256);

impl KeyHasher {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn field(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    /// A list of fields behind its own length, so that `[a, b][c]` and `[a][b, c]` differ.
    pub fn fields<'a>(&mut self, list: impl ExactSizeIterator<Item = &'a [u8]>) -> &mut Self {
        self.0.update((list.len() as u64).to_be_bytes());
        for bytes in list {
            self.field(bytes);
        }
        self
    }

    /// The hash itself, for values that prefix their own lengths.
    pub fn raw(&mut self) -> &mut Sha256 {
        &mut self.0
    }

    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// The key of a simple query's text result, or of an extended query through `bind`, which adds formats and values.
///
/// `context` is the digest of everything of the session that can change a result; `statement` that of the normal form;
/// `types` are the parameter types declared by Parse (trailing unspecified ones do not count).
pub fn request_key(
    context: &[u8; 32],
    statement: &[u8; 32],
    types: &[u32],
    bind: impl FnOnce(&mut Sha256),
) -> CacheKey {
    let mut hasher = KeyHasher::new();
    hasher.field(context).field(statement);
    let significant = types.len() - types.iter().rev().take_while(|oid| **oid == 0).count();
    hasher.raw().update((significant as u64).to_be_bytes());
    for oid in &types[..significant] {
        hasher.raw().update(oid.to_be_bytes());
    }
    bind(hasher.raw());
    CacheKey(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_split_into_fields_is_part_of_the_key(a in prop::collection::vec(any::<u8>(), 0..40), cut in 0usize..40) {
            let cut = cut.min(a.len());
            let mut split = KeyHasher::new();
            split.field(&a[..cut]).field(&a[cut..]);
            let mut whole = KeyHasher::new();
            whole.field(&a).field(&[]);
            prop_assert_eq!(split.finish() == whole.finish(), cut == a.len());
        }
    }

    #[test]
    fn unspecified_trailing_types_do_not_count() {
        let key = |types: &[u32]| request_key(&[1; 32], &[2; 32], types, |_| {});
        assert_eq!(key(&[]), key(&[0, 0]));
        assert_eq!(key(&[23]), key(&[23, 0]));
        assert_ne!(key(&[0, 23]), key(&[23]));
        assert_ne!(key(&[23]), key(&[20]));
    }
}
