//! No condition pins a column where something else may let other rows in.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/predicates.rs"]
mod predicates;

fuzz_target!(|condition: &[u8]| predicates::an_alternative_undoes_every_pin(condition));
