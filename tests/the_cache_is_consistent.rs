//! Random clients read and write through the proxy, and every answer must be one that PostgreSQL itself could have given at some
//! moment between the request and the reply.
//!
//! What is read and written are *cells*: counters that only ever grow (`consistency/cells.rs`). Each is shown in one or more tables,
//! as a value, as a count of rows, or as the presence of a row, and each write adds to some of them, all at once
//! (`consistency/writes.rs`). The checker counts the additions whose writer was told, and those that may have been committed. Before a
//! read is sent, the first count (and what any earlier answer showed) is the least that it may show; after the reply, the second is
//! the most (`consistency/facts.rs`). From that follows:
//!
//! - a read that began after a write's client was told sees that write;
//! - reads never go backwards, neither those of one client nor those of different clients that follow one another;
//! - what is written together is read together: a cell that is shown twice in one answer shows one value, transfers keep the sum, and
//!   there is one moment at which all cells of an answer had their values;
//! - nothing that was rolled back, or is not committed yet, is shown to others; a transaction sees its own writes.
//!
//! Clients vanish in the middle of requests and the server's processes are terminated, so that outcomes stay unknown: such an
//! addition may show from then on. Every few seconds everybody pauses until those processes are gone, and the cells are counted
//! again at PostgreSQL itself, which checks the checker too (`consistency/audit.rs`).
//!
//! The environment decides how long and what:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `CONSISTENCY_SECONDS` | how long the workload runs; 15 if it is not set |
//! | `CONSISTENCY_SEED` | what every random choice is derived from; else a new one, which is always printed |
//! | `CONSISTENCY_FAULT` | a kind of write of which a share goes to PostgreSQL past the proxy, as if its invalidation were dropped: the run must then fail. The kinds are listed with the result of each run |
//!
//! ```sh
//! CONSISTENCY_SECONDS=1800 cargo test --test the_cache_is_consistent under_a_random_workload -- --nocapture
//! ```
//!
//! Every client derives its choices from the seed. In which order their requests meet is up to the machine, so a violation may take
//! several runs of its seed to come back.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod consistency {
    mod audit;
    mod block;
    mod cells;
    mod client;
    mod connection;
    mod facts;
    mod reads;
    mod run;
    mod schema;
    mod transaction;
    mod world;
    mod writes;
}
