//! A normal form says what its text says, and no text of another meaning has the same one.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/normal_form.rs"]
mod normal_form;

fuzz_target!(|texts: (&[u8], &[u8])| {
    normal_form::says_what_the_text_says(texts.0);
    normal_form::equal_forms_are_equal_tokens(texts.0, texts.1);
});
