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
    told: i32,
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
        Self { all: all.clone(), backend, told: backend }
    }

    pub fn is(&mut self, told: i32) {
        self.told = told;
        self.all.entries().insert(self.backend, told);
    }
}

impl Drop for Alias {
    fn drop(&mut self) {
        let mut entries = self.all.entries();
        // The backend may have ended before its connection did, and its pid belong to another one by now.
        if entries.get(&self.backend) == Some(&self.told) {
            entries.remove(&self.backend);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_ends_with_its_connection() {
        let all = Arc::new(Aliases::default());
        let mut alias = Alias::new(&all, 7);
        assert_eq!(all.told(7), 7);
        alias.is(100);
        alias.is(200);
        assert_eq!((all.told(7), all.told(8)), (200, 8));
        let mut of_the_next = Alias::new(&all, 7);
        of_the_next.is(300);
        drop(alias);
        assert_eq!(all.told(7), 300, "its backend was gone, and this is another one");
        drop(of_the_next);
        assert_eq!(all.told(7), 7);
    }
}
