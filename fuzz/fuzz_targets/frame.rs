//! A stream has the same frames however it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/frame.rs"]
mod frame;

fuzz_target!(|bytes: &[u8]| frame::arrive_in_any_pieces(bytes));
