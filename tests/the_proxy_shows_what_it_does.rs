//! What the proxy does can be seen and steered: the admin database, for those who may and for nobody else.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod watching {
    mod admin;
    mod admission;
    mod http;
    mod manifests;
    mod metrics;
    mod pausing;
    mod shipping;
    mod slow;
    mod statements;
    mod steering;
    mod traces;
}
