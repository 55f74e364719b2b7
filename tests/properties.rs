//! What must hold for any bytes: of texts, keys, frames and messages. The fuzz targets in `fuzz/` hold the same properties
//! against inputs that coverage leads them to; here they are tried on random ones, some near to SQL.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "test code")]

mod properties {
    pub mod bind;
    pub mod frame;
    pub mod key;
    pub mod normal_form;
    pub mod predicates;
}

use properties::{bind, frame, key, normal_form, predicates};
use proptest::prelude::*;

/// Text in which quotes, comments and operators meet in every order.
fn sqlish() -> impl Strategy<Value = Vec<u8>> {
    let fragments = prop::sample::select(vec![
        " ",
        "\n",
        "\t",
        "'",
        "''",
        "\"",
        "E'",
        "e'",
        "\\",
        "\\'",
        "N'",
        "U&'",
        "B'",
        "x'",
        "$$",
        "$a$",
        "$1",
        "$",
        "--",
        "/*",
        "*/",
        "/",
        "*",
        "-",
        "+",
        "=",
        "<>",
        "::",
        ":",
        ":=",
        "=>",
        "..",
        ".",
        "1",
        "1.5",
        "1e",
        "e5",
        ".5",
        "0x1F",
        "(",
        ")",
        "[",
        "]",
        ",",
        ";",
        "SELECT",
        "select",
        "a",
        "B",
        "é",
        "_",
        "\"b\"",
        "::text",
        "cast(",
        " as ",
        "@",
        "!",
        "?",
        "#",
        "~",
        "^",
        "|",
        "UPDATE t SET ",
        "INSERT INTO t ",
        "VALUES (",
        "DELETE FROM t",
        " FROM t ",
        " WHERE ",
        "id",
        " AND ",
        " OR ",
        "NOT ",
        " IN (",
        "ANY",
        "null",
        "true",
        " BETWEEN ",
        "CASE WHEN ",
        " END",
    ]);
    let fragment = prop_oneof![
        9 => fragments.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(fragment, 0..24).prop_map(|parts| parts.concat())
}

/// The same text with gaps and cases of its own, or nearly so.
fn altered(text: &[u8], steps: &[(prop::sample::Index, usize)]) -> Vec<u8> {
    let mut text = text.to_vec();
    for (at, step) in steps {
        let at = at.index(text.len() + 1);
        match step {
            0 => drop(text.splice(at..at, *b" ")),
            1 => drop(text.splice(at..at, *b"\n")),
            2 => drop(text.splice(at..at, *b"/* ' */")),
            3 => drop(text.splice(at..at, *b"--\n")),
            4 if at < text.len() => drop(text.remove(at)),
            _ if at < text.len() => text[at] ^= 0x20,
            _ => {}
        }
    }
    text
}

fn steps() -> impl Strategy<Value = Vec<(prop::sample::Index, usize)>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..6), 0..4)
}

/// Most of it is a conjunction.
fn conditions() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "id = 5",
        "id",
        "=",
        "5",
        "'a'",
        "$1",
        "(",
        ")",
        "AND",
        "OR",
        "NOT",
        "IN (5, 6)",
        "= ANY ($1)",
        "BETWEEN 1 AND 2",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "x.id = 5",
        "t.id = 5",
        "IS NULL",
        "IS NOT TRUE",
        "::int",
        "EXISTS (SELECT 1 FROM z)",
        "-- AND\n",
        "/* OR */",
        "GROUP BY",
        "UNION SELECT 1",
        ",",
        ";",
        "|| 'a'",
        "+ 1",
        "COLLATE \"C\"",
    ]);
    prop::collection::vec(words, 1..10).prop_map(|words| words.join(" ").into_bytes())
}

fn request() -> impl Strategy<Value = key::Request> {
    let value = prop::option::of(prop::collection::vec(0u8..3, 0..3));
    let format = prop::collection::vec(0i16..2, 0..3);
    let statement = prop_oneof![Just([1; 32]), Just([2; 32])];
    (statement, prop::collection::vec(0u32..2, 0..3), format.clone(), prop::collection::vec(value, 0..3), format)
        .prop_map(|(statement, types, parameter_formats, parameters, result_formats)| key::Request {
            statement,
            types,
            parameter_formats,
            parameters,
            result_formats,
        })
}

proptest! {
    #[test]
    fn a_normal_form_says_what_its_text_says(text in sqlish()) {
        normal_form::says_what_the_text_says(&text);
    }

    #[test]
    fn texts_with_one_normal_form_have_the_same_tokens(text in sqlish(), steps in steps()) {
        normal_form::equal_forms_are_equal_tokens(&text, &altered(&text, &steps));
    }

    #[test]
    fn what_is_said_by_chance_pins_nothing(text in prop_oneof![sqlish(), conditions()]) {
        predicates::an_alternative_undoes_every_pin(&text);
    }

    #[test]
    fn requests_have_one_key_exactly_if_they_ask_the_same(one in request(), other in request()) {
        key::equal_exactly_if_the_same(&one, &other);
        key::equal_exactly_if_the_same(&one, &one.written_out());
    }

    #[test]
    fn frames_are_the_same_however_they_arrive(
        bodies in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..9)), 0..5),
        end in prop::collection::vec(any::<u8>(), 0..7),
    ) {
        let mut bytes: Vec<u8> = Vec::new();
        for (tag, body) in &bodies {
            bytes.push(*tag);
            bytes.extend((body.len() as u32 + 4).to_be_bytes());
            bytes.extend(body);
        }
        frame::arrive_in_any_pieces(&[bytes, end].concat());
    }

    #[test]
    fn a_bind_that_is_decoded_is_the_one_that_was_sent(
        formats in prop::collection::vec(any::<i16>(), 0..4),
        values in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..4)), 0..4),
        noise in steps(),
    ) {
        let mut body = vec![b'p', 0, 0];
        body.extend((formats.len() as u16).to_be_bytes());
        formats.iter().for_each(|format| body.extend(format.to_be_bytes()));
        body.extend((values.len() as u16).to_be_bytes());
        for value in &values {
            let length = value.as_ref().map_or(-1, |value| value.len() as i32);
            body.extend(length.to_be_bytes());
            body.extend(value.iter().flatten());
        }
        body.extend([0, 1, 0, 1]);
        bind::is_what_was_sent(&body);
        bind::is_what_was_sent(&altered(&body, &noise));
    }
}
