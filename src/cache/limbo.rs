//! Marks of writes whose outcome nobody could see: the upstream connection was lost in the middle.
//!
//! The backend may still be running and may still commit. Its marks stay until `pg_stat_activity` no longer shows it; then
//! they are settled. Whoever can ask the upstream calls [`Limbo::waiting`] and reports with [`Limbo::gone`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::versions::Marks;

/// A backend's process id, as its BackendKeyData said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendPid(pub i32);

#[derive(Debug, Default)]
pub struct Limbo(Mutex<Vec<(BackendPid, Marks)>>);

impl Limbo {
    pub fn add(&self, backend: BackendPid, marks: Marks) {
        self.list().push((backend, marks));
    }

    /// The backends whose end is to be awaited.
    pub fn waiting(&self) -> Vec<BackendPid> {
        self.list().iter().map(|(backend, _)| *backend).collect()
    }

    /// `backend` is gone: what it wrote is decided. Settles its marks and says how many sets there were.
    pub fn gone(&self, backend: BackendPid) -> usize {
        let (gone, rest) = std::mem::take(&mut *self.list()).into_iter().partition::<Vec<_>, _>(|item| item.0 == backend);
        self.list().extend(rest);
        let count = gone.len();
        gone.into_iter().for_each(|(_, marks)| marks.settle());
        count
    }

    fn list(&self) -> MutexGuard<'_, Vec<(BackendPid, Marks)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::versions::{TableOid, Versions, WriteSet};

    #[test]
    fn marks_stay_until_their_backend_is_gone() {
        let versions = Versions::default();
        let table = vec![versions.table(TableOid(1))];
        let limbo = Limbo::default();
        limbo.add(BackendPid(10), versions.mark(&WriteSet::Tables(table.clone())));
        assert_eq!(limbo.waiting(), [BackendPid(10)]);
        assert_eq!(limbo.gone(BackendPid(11)), 0);
        assert!(versions.observe(&table).is_none());
        assert_eq!(limbo.gone(BackendPid(10)), 1);
        assert!(versions.observe(&table).is_some());
        assert!(limbo.waiting().is_empty());
    }
}
