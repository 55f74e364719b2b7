//! Partial groups, put together.
//!
//! **Invariant.** What comes out is, for PostgreSQL, the same partial result as what went in: it may be grouped again by its keys
//! and its parts combined by [`AggregateFunction`], and the outcome does not change. Only parts of rows whose keys are equal to
//! the byte are combined here, and only by functions that are exact and do not ask in which order. A part that only the server
//! can combine stays apart until it is there: as one more key if it does not matter how often it is met (the least of some is the
//! least of them twice), and else each row for itself.
//!
//! ```
//! use heliosproxy::parallel::{AggregateFunction, ParallelAggregator, PartColumn};
//!
//! const INT4: u32 = 23;
//! const INT8: u32 = 20;
//! /// The body of a DataRow: `k` and `count(*)` of one part of the rows.
//! fn row(k: i32, count: i64) -> Vec<u8> {
//!     let (k, count) = (k.to_be_bytes(), count.to_be_bytes());
//!     [&[0, 2, 0, 0, 0, 4][..], &k, &[0, 0, 0, 8], &count].concat()
//! }
//!
//! let columns = [PartColumn::key(INT4, -1), PartColumn::part(AggregateFunction::Count, INT8, false)];
//! let columns = columns.into_iter().collect::<Option<Vec<_>>>().unwrap();
//! let mut groups = ParallelAggregator::new(columns, 1 << 20);
//! for (k, count) in [(1, 10), (2, 5), (1, 7)] {
//!     groups.add(&row(k, count)).unwrap();
//! }
//! assert_eq!(groups.len(), 2);
//! // One array for each column, as PostgreSQL takes it for a binary parameter: 1 and 2, 17 and 5.
//! let arrays = groups.into_arrays();
//! assert!(arrays[1].ends_with(&[&[0, 0, 0, 8][..], &17i64.to_be_bytes(), &[0, 0, 0, 8], &5i64.to_be_bytes()].concat()));
//! ```

mod array;
mod combine;
mod numeric;
mod types;

use std::collections::HashMap;

use bytes::Bytes;
use thiserror::Error;

use array::Array;
use combine::{Cell, Combine};
pub use types::PartColumn;

pub use crate::statement::aggregate::AggregateFunction;
use crate::wire::message::backend::data_row;

/// About what a group takes besides its key and its parts.
const GROUP_BYTES: usize = 64;

/// Why partial groups cannot be put together here.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AggregateError {
    #[error("the groups take more memory than they may")]
    TooLarge,
    #[error("a part is larger than its type can hold")]
    Overflow,
    #[error("a row is not of the columns that were told")]
    Malformed,
}

/// See the module.
#[derive(Debug)]
pub struct ParallelAggregator {
    columns: Vec<PartColumn>,
    /// Keys, and what is kept like them, of each group, by their bytes; and the groups' numbers.
    groups: HashMap<Box<[u8]>, usize>,
    /// As many for each group as there are columns that are combined.
    cells: Vec<Cell>,
    combines: Vec<Combine>,
    /// There is a sum that only the server can add up.
    is_apart: bool,
    bytes: usize,
    limit: usize,
    /// The key of the row at hand.
    key: Vec<u8>,
}

impl ParallelAggregator {
    /// For rows of these columns; the groups may take about `limit` bytes.
    pub fn new(columns: Vec<PartColumn>, limit: usize) -> Self {
        let combines = columns.iter().filter_map(|column| column.combine).collect();
        let is_apart = columns.iter().any(|column| column.apart);
        Self {
            columns,
            groups: HashMap::new(),
            cells: Vec::new(),
            combines,
            is_apart,
            bytes: 0,
            limit,
            key: Vec::new(),
        }
    }

    /// Adds a row: the body of a DataRow, all its values in binary.
    pub fn add(&mut self, row: &[u8]) -> Result<(), AggregateError> {
        let values = data_row(row).map_err(|_| AggregateError::Malformed)?;
        if values.len() != self.columns.len() {
            return Err(AggregateError::Malformed);
        }
        self.key.clear();
        for (value, _) in values.iter().zip(&self.columns).filter(|(_, column)| column.combine.is_none()) {
            put(&mut self.key, *value);
        }
        if self.is_apart {
            // No row is like another one.
            self.key.extend_from_slice(&self.groups.len().to_be_bytes());
        }
        let parts = values.iter().zip(&self.columns).filter(|(_, column)| column.combine.is_some());
        let parts = parts.map(|(value, _)| *value);
        if let Some(number) = self.groups.get(self.key.as_slice()) {
            let first = number * self.combines.len();
            let cells = self.cells.get_mut(first..).unwrap_or_default();
            for ((cell, combine), value) in cells.iter_mut().zip(&self.combines).zip(parts) {
                self.bytes += combine.add(cell, value)?;
            }
            return self.check_size();
        }
        self.bytes += GROUP_BYTES + self.key.len() + self.combines.len() * size_of::<Cell>();
        self.check_size()?;
        self.groups.insert(self.key.as_slice().into(), self.groups.len());
        for (combine, value) in self.combines.iter().zip(parts) {
            let mut cell = Cell::Null;
            self.bytes += combine.add(&mut cell, value)?;
            self.cells.push(cell);
        }
        self.check_size()
    }

    fn check_size(&self) -> Result<(), AggregateError> {
        if self.bytes > self.limit { Err(AggregateError::TooLarge) } else { Ok(()) }
    }

    /// How many groups there are; those that are kept apart for a part of theirs count each.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn columns(&self) -> &[PartColumn] {
        &self.columns
    }

    /// For each column the array of its values in binary, all in the order of the groups: that in which they came first.
    pub fn into_arrays(self) -> Vec<Bytes> {
        let mut groups: Vec<_> = self.groups.into_iter().collect();
        groups.sort_unstable_by_key(|(_, number)| *number);
        let mut arrays: Vec<_> = self.columns.iter().map(|column| Array::of(column.type_oid)).collect();
        for (key, number) in groups {
            let mut key = &*key;
            let first = number * self.combines.len();
            let mut parts = self.cells.get(first..).unwrap_or_default().iter();
            for (array, column) in arrays.iter_mut().zip(&self.columns) {
                match column.combine {
                    None => array.push(take(&mut key)),
                    Some(_) => {
                        if let Some(cell) = parts.next() {
                            cell.write(array);
                        }
                    }
                }
            }
        }
        arrays.into_iter().map(Array::finish).collect()
    }
}

/// Appends a value so that no two lists of values have the same bytes.
fn put(key: &mut Vec<u8>, value: Option<&[u8]>) {
    // A value is shorter than a message.
    let length = value.map_or(-1, |value| value.len() as i32);
    key.extend_from_slice(&length.to_be_bytes());
    key.extend_from_slice(value.unwrap_or_default());
}

/// Takes the first value off.
fn take<'a>(key: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = key.split_first_chunk::<4>()?;
    let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
        *key = rest;
        return None;
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *key = rest;
    Some(value)
}

#[cfg(test)]
mod tests;
