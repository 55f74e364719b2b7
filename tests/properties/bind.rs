//! Bind is decoded to the last byte or refused.

use heliosproxy::wire::message::{Bind, encode};

/// Encoded again, what was decoded gives the same bytes; and it tells the same of each parameter in every way.
pub fn is_what_was_sent(body: &[u8]) {
    let Ok(bind) = Bind::decode(body) else { return };
    let formats: Vec<i16> = bind.parameter_formats.iter().collect();
    let values: Vec<Option<&[u8]>> = bind.parameters.iter().collect();
    let results: Vec<i16> = bind.result_formats.iter().collect();
    assert_eq!(values.len(), bind.parameters.len());
    for (index, value) in values.iter().enumerate() {
        let format = match formats.as_slice() {
            [] => 0,
            [one] => *one,
            each => each[index],
        };
        assert_eq!(bind.parameter(index), Some((format, *value)));
    }
    assert_eq!(bind.parameter(values.len()), None);
    let mut again = bytes::BytesMut::new();
    encode::bind(&mut again, bind.portal, bind.statement, &formats, values.iter().copied(), &results)
        .expect("it is no longer than it was");
    assert_eq!(&again[5..], body, "another message");
    bind.parameters_contain_special_time_word();
}
