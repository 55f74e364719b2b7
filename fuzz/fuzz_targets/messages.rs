//! No bytes make a decoder panic, whoever sent them.
#![no_main]

use bytes::Bytes;
use heliosproxy::wire::message::{Bind, Close, Describe, Execute, Parse, Query, backend};
use heliosproxy::wire::startup::{FirstPacket, backend_key_data};
use heliosproxy::wire::{error, frame};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = frame::peek(bytes);
    let _ = FirstPacket::decode(Bytes::copy_from_slice(bytes));
    let _ = backend_key_data(bytes);
    let _ = error::field(bytes, b'C');
    let _ = Query::decode(bytes);
    if let Ok(parse) = Parse::decode(bytes) {
        parse.types().count();
    }
    if let Ok(bind) = Bind::decode(bytes) {
        bind.parameters.iter().count();
        bind.parameters_contain_special_time_word();
        bind.result_formats.number_if_equal();
    }
    let _ = Describe::decode(bytes);
    let _ = Close::decode(bytes);
    let _ = Execute::decode(bytes);
    let _ = backend::ParameterStatus::decode(bytes);
    let _ = backend::NotificationResponse::decode(bytes);
    let _ = backend::data_row(bytes);
    let _ = backend::row_description(bytes);
    let _ = backend::command_tag(bytes);
});
