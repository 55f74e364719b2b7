//! Marks of writes whose outcome nobody could see: the upstream connection was lost in the middle.
//!
//! The backend may still be running and may still commit. Its marks stay until `pg_stat_activity` no longer shows it; then
//! they are settled. Whoever can ask the upstream calls [`Limbo::waiting`] and reports with [`Limbo::gone`].

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::versions::Marks;

/// A backend's process id, as its BackendKeyData said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackendPid(pub i32);

/// What a lost backend may still write.
#[derive(Debug)]
#[must_use]
pub struct Orphan {
    pub marks: Vec<Marks>,
    /// It may change the catalogue: a doubt is raised before the marks are settled.
    pub doubts_catalog: bool,
}

#[derive(Debug, Default)]
pub struct Limbo(Mutex<Vec<(BackendPid, Orphan)>>);

impl Limbo {
    pub fn add(&self, backend: BackendPid, orphan: Orphan) {
        self.list().push((backend, orphan));
    }

    /// The backends whose end is to be awaited.
    pub fn waiting(&self) -> Vec<BackendPid> {
        self.list().iter().map(|(backend, _)| *backend).collect()
    }

    /// `backend` is gone: what it wrote is decided, and to be settled now.
    pub fn gone(&self, backend: BackendPid) -> Vec<Orphan> {
        let mut list = self.list();
        let (gone, rest) = std::mem::take(&mut *list).into_iter().partition::<Vec<_>, _>(|item| item.0 == backend);
        *list = rest;
        gone.into_iter().map(|(_, orphan)| orphan).collect()
    }

    /// Puts other marks, which cover them, in place of those that there are.
    pub fn replace_marks(&self, mut wider: impl FnMut() -> Marks) {
        for (_, orphan) in self.list().iter_mut() {
            let narrow = std::mem::replace(&mut orphan.marks, vec![wider()]);
            narrow.into_iter().for_each(Marks::settle);
        }
    }

    fn list(&self) -> MutexGuard<'_, Vec<(BackendPid, Orphan)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::versions::{TableOid, TableRead, Versions, WriteSet};

    #[test]
    fn marks_stay_until_their_backend_is_gone() {
        let versions = Versions::default();
        let table = versions.table(TableOid(1));
        let observe = || versions.observe([TableRead::any_row(&table)]);
        let limbo = Limbo::default();
        let marks = vec![versions.mark(&WriteSet::any_row_of([table.clone()]))];
        limbo.add(BackendPid(10), Orphan { marks, doubts_catalog: false });
        assert_eq!(limbo.waiting(), [BackendPid(10)]);
        assert!(limbo.gone(BackendPid(11)).is_empty());
        assert!(observe().is_none());
        limbo.gone(BackendPid(10)).into_iter().flat_map(|orphan| orphan.marks).for_each(Marks::settle);
        assert!(observe().is_some());
        assert!(limbo.waiting().is_empty());
    }
}
