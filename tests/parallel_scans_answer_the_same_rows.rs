//! A scan that is split over several connections answers what one connection would have answered, and fails as one would.
//!
//! `the_same_rows` generates tables and queries, and holds the proxy's answers against the server's. The environment decides how
//! much:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PARALLEL_ROUNDS` | rounds of a fresh table and forty queries; 12 if it is not set |
//! | `PARALLEL_SEED` | the seed of the first round, each following one has the next; a failure prints the one to repeat, with one round |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod parallel {
    mod endings;
    mod generator;
    mod groups;
    mod left_alone;
    mod ordered;
    mod partitions;
    mod sessions;
    mod shown;
    mod stage;
    mod the_same_rows;
}
