//! The counters of one table and of those of its columns that cached reads select by equality.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use super::TableOid;
use super::counter::{Counter, CounterRef, Stripe, Stripes};

/// `pg_attribute.attnum`.
pub type Attribute = i16;

#[derive(Debug)]
pub struct Table {
    pub oid: TableOid,
    /// Marked and bumped by every write of the table.
    pub(super) any: Arc<Counter>,
    columns: RwLock<Vec<Arc<Column>>>,
    stripes: Arc<Stripes>,
}

/// A column that reads pin: each of its values has a stripe, and writes that cannot say which values they concern bump
/// `unknown`.
#[derive(Debug)]
pub struct Column {
    pub attribute: Attribute,
    pub(super) unknown: Arc<Counter>,
    /// No write is in flight any more that began before this column was known, see [`Table::is_followed`].
    followed: AtomicBool,
}

impl Table {
    pub(super) fn new(oid: TableOid, stripes: Arc<Stripes>) -> Self {
        Self { oid, any: Arc::default(), columns: RwLock::default(), stripes }
    }

    /// The counters of a column; from now on writes follow it.
    pub fn column(&self, attribute: Attribute) -> Arc<Column> {
        let find = |columns: &[Arc<Column>]| columns.iter().find(|column| column.attribute == attribute).cloned();
        if let Some(column) = find(&self.columns.read().unwrap_or_else(PoisonError::into_inner)) {
            return column;
        }
        let mut columns = self.columns.write().unwrap_or_else(PoisonError::into_inner);
        find(&columns).unwrap_or_else(|| {
            let column = Column { attribute, unknown: Arc::default(), followed: AtomicBool::new(false) };
            columns.push(Arc::new(column));
            columns[columns.len() - 1].clone()
        })
    }

    /// Where a value of a column is counted; `value` is its canonical form.
    pub fn stripe(&self, attribute: Attribute, value: &[u8]) -> Stripe {
        self.stripes.of(self.oid.0, attribute, value)
    }

    /// Whether every write that may still become visible knows of `column`.
    ///
    /// A write marks `any` first and looks for columns then. If it has not found this one, its look came before the column
    /// was put in (the lock orders the two), and so did its mark of `any`, which stays until it is settled. `any` without a
    /// mark, seen after the column was put in, therefore says that no such write is left; and there can be none later.
    pub(super) fn is_followed(&self, column: &Column) -> bool {
        if column.followed.load(Ordering::SeqCst) {
            return true;
        }
        let followed = self.any.observe().is_some();
        if followed {
            column.followed.store(true, Ordering::SeqCst);
        }
        followed
    }

    /// Any row may have changed.
    pub(super) fn bump(&self) {
        self.any.bump();
        self.for_each_column(|column| column.unknown.bump());
    }

    pub(super) fn striped(&self, stripe: Stripe) -> CounterRef {
        CounterRef::Striped(self.stripes.clone(), stripe)
    }

    pub(super) fn for_each_column(&self, act: impl FnMut(&Arc<Column>)) {
        self.columns.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(act);
    }
}
