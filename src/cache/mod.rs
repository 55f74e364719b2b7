//! The result cache: key, entry, store and eviction, versions (validity), single flight.
//!
//! **Invariant.** An entry is served only while every counter it was filled under is unchanged and unmarked. A write marks
//! the counters it may bump before it is sent and bumps them, unmarking, when its transaction is over; only then is its
//! client told. See [`versions`] for why this is enough.

pub mod admission;
pub mod entry;
pub mod flight;
pub mod key;
pub mod ledger;
pub mod limbo;
pub mod rules;
pub mod store;
pub mod verdict;
pub mod versions;
