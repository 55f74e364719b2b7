//! A Bind that is decoded is the one that was sent.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/bind.rs"]
mod bind;

fuzz_target!(|body: &[u8]| bind::is_what_was_sent(body));
