//! Statements by their exact text, so that a text is analysed once.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Statement;

/// Bytes that remembered statements and their texts may take, about.
pub const MEMO_BYTES: u64 = 32 * 1024 * 1024;

/// A longer text is analysed each time: it is most likely one of many that differ in their literals.
pub const LONGEST_REMEMBERED: usize = 64 * 1024;

/// The memo. Shared by all sessions; what it returns never depends on who asked first.
#[derive(Debug)]
pub struct Statements {
    cache: Cache<Box<[u8]>, Arc<Statement>, ByText>,
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
        Self { cache: Cache::with_weighter((bytes / TYPICAL_BYTES) as usize, bytes, ByText) }
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
        self.cache.insert(text.into(), Arc::clone(&statement));
        statement
    }
}

impl Default for Statements {
    fn default() -> Self {
        Self::new()
    }
}
