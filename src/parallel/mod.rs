//! Large scans, answered by several upstream connections at once.
//!
//! **Invariant.** A split read answers what the session's own connection would answer at that moment: all connections read one
//! snapshot, which is taken after the request came, as the client's own user and with the session's own settings; each row of
//! the table is read by exactly one of them; and its rows are encoded by the server itself and passed on as they are. Whatever is
//! not known to be so is not split.
//!
//! The session decides what is split (`session::split`); here is how. [`ParallelQueryExecutor`] runs a [`ScanQuery`], whose rows come out
//! of [`Rows`] in the order of the table's blocks.

mod aggregate;
mod chunks;
mod config;
mod executor;
mod gather;
mod grouping;
mod link;
mod order;
mod ordering;
mod plan;
mod pool;
mod scan;
mod settings;
mod sort_key;
mod sorter;
mod sorting;

pub use aggregate::{AggregateError, AggregateFunction, ParallelAggregator, PartColumn};
pub use chunks::{ChunkLimits, Chunks, TableSize};
pub use config::ParallelConfig;
pub use executor::{ParallelQueryExecutor, Rows};
pub use grouping::Grouping;
pub use link::{Answers, Link, LinkError, Request};
pub use order::{Failure, Item};
pub use ordering::{COLLATIONS, Ordered, Sorting};
pub use plan::{PlannedScan, ScanThresholds, Shape};
pub use pool::{Account, KeepsNoLink};
pub use scan::{Parameters, ScanQuery, range_types, three};
pub use settings::{IDENTITY, Replay, SETTINGS, SessionSettings};
pub use sort_key::{KeyOrder, SortDirection, SortKey};
pub use sorter::{Merged, ParallelSorter};
