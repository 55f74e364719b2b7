//! Two sessions that would get different answers from PostgreSQL get different answers from the proxy, also when the same
//! text is in the cache; and what is different every time is never cached at all.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod sessions {
    mod changing;
    mod differ;
    mod every_setting;
    mod names;
    mod security;
    mod settings;
    mod when_it_runs;
}
