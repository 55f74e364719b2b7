//! A fill and a write that overlap: whatever their order, no entry outlives the write. The order is forced by locks that a
//! direct session holds, never by waiting for a time.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod races {
    mod admission;
    mod catalogue;
    mod endings;
    mod fills;
    mod flights;
}
