//! What the proxy takes from the text of a statement, namely which rows it can concern, is what PostgreSQL does.
//!
//! Random reads are cached, random writes change some rows, and whatever is answered afterwards has to be what a direct connection
//! answers: a read whose answer has changed must not have survived. The statements are full of what is near to an equality with a
//! constant and is none, and of values that are equal without looking alike. How many reads survive is counted, so that
//! invalidating everything does not pass either; and writes that go past the proxy must be noticed.
//!
//! The environment decides how much:
//!
//! | variable | meaning |
//! | --- | --- |
//! | `PREDICATES_ROUNDS` | rounds of twelve reads and ten writes; 30 if it is not set |
//! | `PREDICATES_SEED` | the seed of the first round, each following one has the next; a failure prints the one to repeat, with one round |

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod predicates {
    mod conditions;
    mod constants;
    mod reads;
    mod run;
    mod tables;
    mod writes;
}
