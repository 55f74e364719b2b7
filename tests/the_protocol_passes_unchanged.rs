//! What a client hears through the proxy is, byte for byte, what it would hear from the server, from start-up to the last
//! message, whether the answer is relayed or comes from the cache.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod protocol {
    mod cached;
    mod cancel;
    mod copy;
    mod extended;
    mod large;
    mod malformed;
    mod same;
    mod startup;
    mod unasked;
}
