//! A mark of everything that stays for as long as something else is the case.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Marks, Versions, WriteSet};

#[derive(Debug, Default)]
pub struct Hold(Mutex<Option<Marks>>);

impl Hold {
    /// From now on nothing is valid, and nothing can be observed.
    pub fn set(&self, versions: &Versions) {
        self.marks().get_or_insert_with(|| versions.mark(&WriteSet::Everything));
    }

    /// From now on it can again, though nothing from before is valid.
    pub fn lift(&self) {
        if let Some(marks) = self.marks().take() {
            marks.settle();
        }
    }

    pub fn is_set(&self) -> bool {
        self.marks().is_some()
    }

    fn marks(&self) -> MutexGuard<'_, Option<Marks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
