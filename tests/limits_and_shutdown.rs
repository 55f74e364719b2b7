//! What the operator has set holds: limits, who may come in and how, TLS, health, reload, and an orderly end.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod operation {
    mod authentication;
    mod check;
    mod ending;
    mod guard;
    mod health;
    mod limits;
    mod time;
    mod tls;
}
