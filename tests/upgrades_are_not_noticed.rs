//! A newer process takes over from an older one while clients go on, and neither hides from its clients what the other has written.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod harness;

mod upgrade {
    mod endings;
    mod failures;
    mod load;
    mod scene;
    mod service_manager;
    mod stale;
}
