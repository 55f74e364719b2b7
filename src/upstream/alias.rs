//! Who stands behind a backend: the pid that its present user was told, where that is not the backend's own.
//!
//! **Invariant.** An entry lives as long as its connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
pub struct Aliases(Mutex<HashMap<i32, i32>>);

/// One connection's entry.
#[derive(Debug)]
pub struct Alias {
    all: Arc<Aliases>,
    backend: i32,
}

impl Aliases {
    /// The pid by which clients know whoever uses this backend.
    pub fn told(&self, backend: i32) -> i32 {
        self.entries().get(&backend).copied().unwrap_or(backend)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<i32, i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Alias {
    pub fn new(all: &Arc<Aliases>, backend: i32) -> Self {
        Self { all: all.clone(), backend }
    }

    pub fn is(&self, told: i32) {
        self.all.entries().insert(self.backend, told);
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        self.all.entries().remove(&self.backend);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_ends_with_its_connection() {
        let all = Arc::new(Aliases::default());
        let alias = Alias::new(&all, 7);
        assert_eq!(all.told(7), 7);
        alias.is(100);
        alias.is(200);
        assert_eq!((all.told(7), all.told(8)), (200, 8));
        drop(alias);
        assert_eq!(all.told(7), 7);
    }
}
