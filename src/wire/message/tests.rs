use bytes::BytesMut;
use postgres_protocol::message::frontend as reference;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

fn body(out: &BytesMut) -> &[u8] {
    assert_eq!(u32::from_be_bytes(out[1..5].try_into().unwrap()) as usize, out.len() - 1);
    &out[5..]
}

fn encoded(encode: impl FnOnce(&mut BytesMut)) -> BytesMut {
    let mut out = BytesMut::new();
    encode(&mut out);
    out
}

fn bind_message(formats: &[i16], parameters: &[Option<&[u8]>], results: &[i16]) -> BytesMut {
    encoded(|out| encode::bind(out, b"p", b"s", formats, parameters.iter().copied(), results).unwrap())
}

fn parameters_key(message: &BytesMut) -> [u8; 32] {
    let mut hasher = Sha256::new();
    Bind::decode(body(message)).unwrap().hash_parameters(&mut hasher);
    hasher.finalize().into()
}

fn results_key(results: &[i16]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    Bind::decode(body(&bind_message(&[], &[], results))).unwrap().hash_result_formats(&mut hasher);
    hasher.finalize().into()
}

#[test]
fn encoders_write_what_the_reference_writes() {
    let ours = encoded(|out| {
        encode::query(out, b"select 1").unwrap();
        encode::parse(out, b"s", b"select $1", &[23, 0]).unwrap();
        encode::describe(out, Target::Statement, b"s").unwrap();
        encode::execute(out, b"", 7).unwrap();
        encode::close(out, Target::Portal, b"p").unwrap();
        encode::sync(out);
        encode::flush(out);
    });
    let theirs = encoded(|out| {
        reference::query("select 1", out).unwrap();
        reference::parse("s", "select $1", [23, 0], out).unwrap();
        reference::describe(b'S', "s", out).unwrap();
        reference::execute("", 7, out).unwrap();
        reference::close(b'P', "p", out).unwrap();
        reference::sync(out);
        reference::flush(out);
    });
    assert_eq!(ours, theirs);
}

#[test]
fn an_encoder_that_fails_leaves_the_buffer_alone() {
    let mut out = BytesMut::from(&b"before"[..]);
    assert_eq!(encode::query(&mut out, b"a\0b"), Err(encode::EncodeError::Nul));
    assert_eq!(encode::parse(&mut out, b"", b"", &vec![0; 65_536]), Err(encode::EncodeError::TooMany));
    assert_eq!(&out[..], b"before");
}

#[test]
fn malformed_messages_are_told_apart() {
    let reason = |result: Result<Bind<'_>, DecodeError>| result.unwrap_err().reason;
    assert_eq!(reason(Bind::decode(b"")), Reason::UnterminatedString);
    assert_eq!(reason(Bind::decode(b"\0\0\0\0\0\x01\0\0\0\x05abc\0\0")), Reason::TooShort);
    // A length below -1.
    assert_eq!(reason(Bind::decode(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0")), Reason::TooShort);
    assert_eq!(reason(Bind::decode(b"\0\0\0\0\0\0\0\0x")), Reason::TrailingBytes);
    assert_eq!(reason(Bind::decode(b"\0\0\0\x02\0\0\0\0\0\0\0\0")), Reason::FormatCount { formats: 2, parameters: 0 });
    assert_eq!(Close::decode(b"X\0").unwrap_err().reason, Reason::Subtype(b'X'));
    assert_eq!(ErrorResponse::from(Close::decode(b"X\0").unwrap_err()).message, "invalid CLOSE message subtype 88");
    assert_eq!(Execute::decode(b"p\0\0\0").unwrap_err().reason, Reason::TooShort);
    assert!(Query::decode(b"select 1").is_err());
    assert!(Query::decode(b"a\0b\0").is_err());
}

#[test]
fn backend_messages() {
    assert_eq!(backend::command_tag(b"SELECT 1\0"), Ok(&b"SELECT 1"[..]));
    assert_eq!(backend::transaction_status(b"T"), Ok(backend::TransactionStatus::InTransaction));
    assert!(backend::transaction_status(b"X").is_err());
    let status = backend::ParameterStatus::decode(b"TimeZone\0UTC\0").unwrap();
    assert_eq!((status.name, status.value), (&b"TimeZone"[..], &b"UTC"[..]));
    let notification = backend::NotificationResponse::decode(b"\0\0\0\x07c\0p\0").unwrap();
    assert_eq!((notification.pid, notification.channel, notification.payload), (7, &b"c"[..], &b"p"[..]));
    let column = backend::Column { name: b"a", type_oid: 23, type_modifier: -1 };
    assert_eq!(
        backend::row_description(b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0"),
        Ok(vec![column])
    );
    assert!(backend::row_description(b"\0\x02a\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0").is_err());
    assert_eq!(backend::parameter_types(b"\0\x01\0\0\0\x17").unwrap().collect::<Vec<_>>(), [23]);
}

#[test]
fn equal_parameters_share_a_key_however_the_formats_are_listed() {
    let values: [Option<&[u8]>; 2] = [Some(b"a"), Some(b"b")];
    let text = parameters_key(&bind_message(&[], &values, &[]));
    assert_eq!(text, parameters_key(&bind_message(&[0], &values, &[])));
    assert_eq!(text, parameters_key(&bind_message(&[0, 0], &values, &[])));
    let binary = parameters_key(&bind_message(&[1], &values, &[]));
    assert_eq!(binary, parameters_key(&bind_message(&[1, 1], &values, &[])));
    assert_ne!(text, binary);
    assert_ne!(text, parameters_key(&bind_message(&[], &[Some(b"ab"), Some(b"")], &[])));
    assert_ne!(parameters_key(&bind_message(&[], &[None], &[])), parameters_key(&bind_message(&[], &[Some(b"")], &[])));
}

#[test]
fn result_formats_have_one_spelling() {
    assert_eq!(results_key(&[]), results_key(&[0]));
    assert_eq!(results_key(&[]), results_key(&[0, 0]));
    assert_eq!(results_key(&[1]), results_key(&[1, 1]));
    let keys = [results_key(&[]), results_key(&[1]), results_key(&[0, 1]), results_key(&[1, 0]), results_key(&[2])];
    for (index, key) in keys.iter().enumerate() {
        assert!(!keys[..index].contains(key));
    }
}

#[test]
fn a_parameter_may_name_the_current_time() {
    let says = |value: &[u8]| {
        Bind::decode(body(&bind_message(&[], &[None, Some(value)], &[])))
            .unwrap()
            .parameters_contain_special_time_word()
    };
    assert!(says(b" Today"));
    assert!(!says(b"snow"));
}

fn decode_all(body: &[u8]) {
    let _ = Query::decode(body);
    if let Ok(parse) = Parse::decode(body) {
        let _ = parse.types().count();
    }
    if let Ok(bind) = Bind::decode(body) {
        assert_eq!(bind.parameters.iter().count(), bind.parameters.len());
        let mut hasher = Sha256::new();
        bind.hash_parameters(&mut hasher);
        bind.hash_result_formats(&mut hasher);
        let _ = bind.parameters_contain_special_time_word();
    }
    let _ = Describe::decode(body);
    let _ = Close::decode(body);
    let _ = Execute::decode(body);
    let _ = backend::command_tag(body);
    let _ = backend::transaction_status(body);
    let _ = backend::ParameterStatus::decode(body);
    let _ = backend::NotificationResponse::decode(body);
    let _ = backend::row_description(body);
    let _ = backend::parameter_types(body).map(Iterator::count);
}

proptest! {
    #[test]
    fn no_bytes_make_a_decoder_panic(body in prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(255), any::<u8>()], 0..64)) {
        decode_all(&body);
    }

    #[test]
    fn a_message_cut_short_is_refused(
        parameters in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..8)), 0..5),
        cut in any::<prop::sample::Index>(),
    ) {
        let values: Vec<Option<&[u8]>> = parameters.iter().map(Option::as_deref).collect();
        let message = bind_message(&[1], &values, &[0]);
        let whole = body(&message);
        prop_assert!(Bind::decode(&whole[..cut.index(whole.len())]).is_err());
    }

    #[test]
    fn bind_survives_a_round_trip_and_equals_the_reference(
        parameters in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..8)), 0..5),
        one_each in any::<bool>(),
        results in prop::collection::vec(0i16..2, 0..4),
    ) {
        let values: Vec<Option<&[u8]>> = parameters.iter().map(Option::as_deref).collect();
        let formats = vec![1i16; if one_each { values.len() } else { 1 }];
        let message = bind_message(&formats, &values, &results);
        let bind = Bind::decode(body(&message)).unwrap();
        prop_assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        prop_assert_eq!(bind.parameters.iter().collect::<Vec<_>>(), values.clone());
        prop_assert_eq!(bind.parameter_formats.iter().collect::<Vec<_>>(), formats.clone());
        prop_assert_eq!(bind.result_formats.iter().collect::<Vec<_>>(), results.clone());
        let theirs = encoded(|out| {
            let write = |value: &Option<&[u8]>, out: &mut BytesMut| Ok(match value {
                Some(value) => { out.extend_from_slice(value); postgres_protocol::IsNull::No }
                None => postgres_protocol::IsNull::Yes,
            });
            assert!(reference::bind("p", "s", formats, &values, write, results, out).is_ok());
        });
        prop_assert_eq!(message, theirs);
    }

    #[test]
    fn parse_survives_a_round_trip(name in "[a-z]{0,5}", text in "[^\0]{0,20}", types in prop::collection::vec(any::<u32>(), 0..4)) {
        let message = encoded(|out| encode::parse(out, name.as_bytes(), text.as_bytes(), &types).unwrap());
        let parse = Parse::decode(body(&message)).unwrap();
        prop_assert_eq!((parse.name, parse.text), (name.as_bytes(), text.as_bytes()));
        prop_assert_eq!(parse.types().collect::<Vec<_>>(), types);
    }
}
