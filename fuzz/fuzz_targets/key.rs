//! Requests have one key exactly if they ask the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/properties/key.rs"]
mod key;

type Fields = (bool, Vec<u32>, Vec<i16>, Vec<Option<Vec<u8>>>, Vec<i16>);

fn request((statement, types, parameter_formats, parameters, result_formats): Fields) -> key::Request {
    key::Request { statement: [statement.into(); 32], types, parameter_formats, parameters, result_formats }
}

fuzz_target!(|requests: (Fields, Fields)| {
    let (one, other) = (request(requests.0), request(requests.1));
    key::equal_exactly_if_the_same(&one, &other);
    key::equal_exactly_if_the_same(&one, &one.written_out());
});
