//! Statements by their exact text, so that a text that comes again and again is analysed twice.
//!
//! Not once: most texts that come but once are of many that differ in their literals, and to keep each would push out those
//! that do come again, and cost more than the analysis.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Statement;

/// Bytes that remembered statements and their texts may take, about.
pub const MEMO_BYTES: u64 = 32 * 1024 * 1024;

/// A longer text is analysed each time: it is most likely one of many that differ in their literals.
pub const LONGEST_REMEMBERED: usize = 64 * 1024;

/// Texts that are known to have come once.
const ONCE: usize = 1 << 14;

/// The memo. Shared by all sessions; what it returns never depends on who asked first.
#[derive(Debug)]
pub struct Statements {
    cache: Cache<Box<[u8]>, Arc<Statement>, ByText>,
    once: Once,
}

/// The texts that came last, by their hashes: each in the one place that it may have. A wrong answer does no harm.
#[derive(Debug)]
struct Once {
    prints: Box<[AtomicU32]>,
    hasher: RandomState,
}

#[derive(Debug, Clone)]
struct ByText;

impl Weighter<Box<[u8]>, Arc<Statement>> for ByText {
    fn weight(&self, text: &Box<[u8]>, statement: &Arc<Statement>) -> u64 {
        (text.len() + statement.weight()) as u64
    }
}

impl Statements {
    pub fn new() -> Self {
        Self::with_capacity(MEMO_BYTES)
    }

    pub fn with_capacity(bytes: u64) -> Self {
        const TYPICAL_BYTES: u64 = 2048;
        let cache = Cache::with_weighter((bytes / TYPICAL_BYTES) as usize, bytes, ByText);
        Self { cache, once: Once::default() }
    }

    /// What this text is.
    pub fn get(&self, text: &[u8]) -> Arc<Statement> {
        if text.len() > LONGEST_REMEMBERED {
            return Arc::new(Statement::analyse(text));
        }
        if let Some(statement) = self.cache.get(text) {
            return statement;
        }
        let statement = Arc::new(Statement::analyse(text));
        if self.once.has(text) {
            self.cache.insert(text.into(), Arc::clone(&statement));
        }
        statement
    }
}

impl Once {
    /// Whether this text came before. From now on it did.
    fn has(&self, text: &[u8]) -> bool {
        let hash = self.hasher.hash_one(text);
        let print = (hash >> 32) as u32;
        self.prints[hash as usize % self.prints.len()].swap(print, Ordering::Relaxed) == print
    }
}

impl Default for Once {
    fn default() -> Self {
        Self { prints: (0..ONCE).map(|_| AtomicU32::default()).collect(), hasher: RandomState::new() }
    }
}

impl Default for Statements {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_comes_again_is_analysed_no_more() {
        let statements = Statements::new();
        let [first, second, third] = [(); 3].map(|()| statements.get(b"SELECT 1"));
        assert!(!Arc::ptr_eq(&first, &second) && Arc::ptr_eq(&second, &third));
    }

    #[test]
    fn texts_that_come_but_once_are_not_kept() {
        let statements = Statements::new();
        (0..1000).for_each(|number| drop(statements.get(format!("SELECT {number}").as_bytes())));
        assert!(statements.cache.len() < 10, "but for the few whose hashes say otherwise");
    }
}
