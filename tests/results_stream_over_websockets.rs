//! Results over WebSockets are the server's: values, errors, permissions; in bounded memory, and nothing runs on for nobody.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod streaming {
    mod bounds;
    mod cache;
    mod client;
    mod doors;
    mod endings;
    mod socket;
    mod values;
}
