//! No text makes the analysis panic, and the normal form of a normal form is itself.
#![no_main]

use heliosproxy::statement::{Statement, normal_form};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let statement = Statement::analyse(text);
    for part in &statement.parts {
        assert!(part.range.end <= text.len());
    }
    let normal = normal_form(text);
    assert_eq!(normal_form(&normal), normal);
});
