//! After a write the next read shows it, whatever wrote and however it was read. Every test first proves that the read does
//! come from the cache; without that, fresh rows prove nothing.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod stale {
    mod commands;
    mod cursors;
    mod definitions;
    mod functions;
    mod hidden_writes;
    mod prepared;
    mod relations;
    mod rows;
    mod scenario;
    mod shadowing;
    mod transactions;
    mod witness;
}
