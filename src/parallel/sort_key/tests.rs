use proptest::prelude::*;

use super::*;

const ASCENDING: SortDirection = SortDirection::Ascending;
const DESCENDING: SortDirection = SortDirection::Descending;

fn key(order: KeyOrder) -> SortKey {
    SortKey { order, direction: ASCENDING, nulls_first: false }
}

fn code(key: SortKey, value: Option<&[u8]>) -> Vec<u8> {
    let mut code = Vec::new();
    key.push(value, &mut code).expect("a value of its type");
    code
}

/// These values are each less than the next, in both directions, and no code is the beginning of another one.
fn ascend(order: KeyOrder, values: &[Vec<u8>]) {
    for direction in [ASCENDING, DESCENDING] {
        for nulls_first in [false, true] {
            let key = SortKey { order, direction, nulls_first };
            let mut codes: Vec<_> = values.iter().map(|value| code(key, Some(value))).collect();
            if direction == DESCENDING {
                codes.reverse();
            }
            let null = code(key, None);
            codes.insert(if nulls_first { 0 } else { codes.len() }, null);
            for pair in codes.windows(2) {
                assert!(pair[0] < pair[1], "{key:?}: {pair:?}");
                assert!(!pair[1].starts_with(&pair[0]), "{key:?}: {pair:?}");
            }
        }
    }
}

fn numeric(weight: i16, sign: u16, digits: &[u16]) -> Vec<u8> {
    let head = [digits.len() as u16, weight.cast_unsigned(), sign, 0];
    head.iter().chain(digits).flat_map(|word| word.to_be_bytes()).collect()
}

#[test]
fn numbers_and_times_are_in_the_order_of_what_they_count() {
    let bytes = |values: &[i64]| values.iter().map(|value| value.to_be_bytes().to_vec()).collect::<Vec<_>>();
    ascend(KeyOrder::Signed(8), &bytes(&[i64::MIN, -256, -255, -1, 0, 1, 255, 256, i64::MAX]));
    let bytes = |values: &[i32]| values.iter().map(|value| value.to_be_bytes().to_vec()).collect::<Vec<_>>();
    ascend(KeyOrder::Signed(4), &bytes(&[i32::MIN, -1, 0, 1, i32::MAX]));
    ascend(KeyOrder::Unsigned(1), &[vec![0], vec![1], vec![200]]);
    ascend(KeyOrder::Unsigned(4), &bytes(&[0, 1, i32::MAX, -1]));
    assert!(key(KeyOrder::Signed(4)).push(Some(b"12345678"), &mut Vec::new()).is_err());
    let interval = |months: i32, days: i32, time: i64| {
        [&time.to_be_bytes()[..], &days.to_be_bytes(), &months.to_be_bytes()].concat()
    };
    let ascending = [interval(-1, 0, 0), interval(0, 0, -1), interval(0, 0, 0), interval(0, 29, 0), interval(1, 0, 1)];
    ascend(KeyOrder::Interval, &ascending);
    let same = [interval(1, 0, 0), interval(0, 30, 0), interval(1, 1, -86_400_000_000)];
    assert!(
        same.iter()
            .all(|value| code(key(KeyOrder::Interval), Some(value)) == code(key(KeyOrder::Interval), Some(&same[0])))
    );
}

#[test]
fn floats_have_one_zero_and_nan_is_the_greatest() {
    let values =
        [f64::NEG_INFINITY, f64::MIN, -1.5, -f64::MIN_POSITIVE, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY, f64::NAN];
    ascend(KeyOrder::Float8, &values.map(|value| value.to_be_bytes().to_vec()));
    let values = [f32::NEG_INFINITY, f32::MIN, -1.5, 0.0, f32::MIN_POSITIVE, 1.0, f32::MAX, f32::INFINITY, f32::NAN];
    ascend(KeyOrder::Float4, &values.map(|value| value.to_be_bytes().to_vec()));
    for (one, other) in [(0.0, -0.0), (f64::NAN, -f64::NAN)] {
        let code = |value: f64| code(key(KeyOrder::Float8), Some(&value.to_be_bytes()));
        assert_eq!(code(one), code(other));
    }
}

#[test]
fn numerics_are_numbers_whatever_their_scale() {
    const MINUS: u16 = 0x4000;
    ascend(
        KeyOrder::Numeric,
        &[
            numeric(0, 0xF000, &[]),
            numeric(1, MINUS, &[1, 1]),
            numeric(1, MINUS, &[1]),
            numeric(0, MINUS, &[1, 2345]),
            numeric(0, MINUS, &[1]),
            numeric(-1, MINUS, &[5000]),
            numeric(0, 0, &[]),
            numeric(-2, 0, &[9999]),
            numeric(-1, 0, &[1]),
            numeric(0, 0, &[1]),
            numeric(0, 0, &[1, 1]),
            numeric(0, 0, &[1, 1, 1]),
            numeric(0, 0, &[1, 2]),
            numeric(1, 0, &[1]),
            numeric(i16::MAX, 0, &[1]),
            numeric(0, 0xD000, &[]),
            numeric(0, 0xC000, &[]),
        ],
    );
    let code = |value: &[u8]| code(key(KeyOrder::Numeric), Some(value));
    assert_eq!(code(&numeric(0, 0, &[1, 0, 0])), code(&numeric(0, 0, &[1])));
    assert_eq!(code(&numeric(1, 0, &[0, 7])), code(&numeric(0, 0, &[7])));
    for broken in [&b""[..], b"\0\x01\0\0\0\0\0\0", b"\0\0\0\0\x12\x34\0\0", b"\0\0\0\0\0\0\0\0\0"] {
        assert!(key(KeyOrder::Numeric).push(Some(broken), &mut Vec::new()).is_err());
    }
}

#[test]
fn char_does_not_count_spaces_at_its_end() {
    let code = |value: &[u8]| code(key(KeyOrder::Padded), Some(value));
    assert_eq!(code(b"a   "), code(b"a"));
    assert_eq!(code(b"   "), code(b""));
    assert!(code(b"a\tb") > code(b"a  "));
}

proptest! {
    #[test]
    fn bytes_are_in_their_own_order(mut values in prop::collection::vec(prop::collection::vec(0u8..3, 0..6), 2..20)) {
        values.sort();
        values.dedup();
        ascend(KeyOrder::Bytes, &values);
    }

    #[test]
    fn integers_are_in_their_own_order(mut values in prop::collection::vec(any::<i16>(), 2..20)) {
        values.sort_unstable();
        values.dedup();
        ascend(KeyOrder::Signed(2), &values.iter().map(|value| value.to_be_bytes().to_vec()).collect::<Vec<_>>());
    }
}
