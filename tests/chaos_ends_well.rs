//! Servers are killed, stopped, restarted and hang; networks are cut, freeze and crawl: nobody hangs with them, no acknowledged write
//! is lost or made twice, nothing stale is served afterwards, and nothing leaks.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod chaos {
    mod failover;
    mod idle;
    mod load;
    mod network;
    mod repeats;
    mod scene;
    mod server;
    mod stale;
}
