use proptest::prelude::*;

use super::AggregateFunction::{Avg, BitAnd, BitOr, BoolAnd, BoolOr, Count, Max, Min, Sum};
use super::*;

const BOOL: u32 = 16;
const INT8: u32 = 20;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const NUMERIC: u32 = 1700;

fn row(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut row = (values.len() as i16).to_be_bytes().to_vec();
    values.iter().for_each(|value| put(&mut row, *value));
    row
}

/// The elements of an array.
fn elements(array: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut rest = array.get(20..).unwrap_or_default();
    let mut found = Vec::new();
    while !rest.is_empty() {
        found.push(take(&mut rest).map(<[u8]>::to_vec));
    }
    found
}

fn part(function: AggregateFunction, type_oid: u32) -> PartColumn {
    PartColumn::part(function, type_oid, false).expect("it can be put together")
}

proptest! {
    /// Whatever is grouped in parts is what it is grouped at once.
    #[test]
    fn parts_make_the_whole(rows in prop::collection::vec((prop::option::of(0i32..4), prop::option::of(-9i64..9)), 0..60)) {
        let functions = [Count, Sum, Min, Max, BitAnd, BitOr];
        let columns = std::iter::once(PartColumn::key(INT4, -1).expect("a key")).chain(functions.map(|f| part(f, INT8)));
        let mut groups = ParallelAggregator::new(columns.collect(), usize::MAX);
        let mut expected: Vec<(Option<i32>, [Option<i64>; 6])> = Vec::new();
        for (key, value) in &rows {
            let parts = [Some(1), *value, *value, *value, *value, *value];
            let (key_bytes, bytes) = (key.map(i32::to_be_bytes), parts.map(|part| part.map(i64::to_be_bytes)));
            let mut values: Vec<Option<&[u8]>> = vec![key_bytes.as_ref().map(|bytes| &bytes[..])];
            values.extend(bytes.iter().map(|value| value.as_ref().map(|bytes| &bytes[..])));
            prop_assert_eq!(groups.add(&row(&values)), Ok(()));
            let Some((_, known)) = expected.iter_mut().find(|(known, _)| known == key) else {
                expected.push((*key, parts));
                continue;
            };
            let combine: [fn(i64, i64) -> i64; 6] = [
                |a, b| a + b, |a, b| a + b, |a, b| a.min(b), |a, b| a.max(b), |a, b| a & b, |a, b| a | b,
            ];
            for ((known, part), combine) in known.iter_mut().zip(parts).zip(combine) {
                *known = match (*known, part) {
                    (Some(a), Some(b)) => Some(combine(a, b)),
                    (a, b) => a.or(b),
                };
            }
        }
        prop_assert_eq!(groups.len(), expected.len());
        let arrays = groups.into_arrays();
        let keys: Vec<_> = expected.iter().map(|(key, _)| key.map(|key| key.to_be_bytes().to_vec())).collect();
        prop_assert_eq!(elements(&arrays[0]), keys);
        for (place, array) in arrays[1..].iter().enumerate() {
            let parts: Vec<_> = expected.iter().map(|(_, parts)| parts[place].map(|part| part.to_be_bytes().to_vec())).collect();
            prop_assert_eq!(elements(array), parts);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(rows in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8)) {
        let columns = vec![PartColumn::key(TEXT, -1).expect("a key"), part(BoolAnd, BOOL), part(Max, TEXT)];
        let mut groups = ParallelAggregator::new(columns, 1000);
        for row in rows {
            let _ = groups.add(&row);
        }
        let _ = groups.into_arrays();
    }
}

/// What only the server can put together stays apart.
#[test]
fn parts_that_only_the_server_combines_are_kept() {
    let columns = vec![PartColumn::key(TEXT, -1).expect("a key"), part(Max, TEXT), part(BoolOr, BOOL)];
    let mut groups = ParallelAggregator::new(columns, usize::MAX);
    for (key, max, or) in [("a", "x", 0), ("a", "y", 0), ("b", "x", 0), ("a", "x", 1)] {
        groups.add(&row(&[Some(key.as_bytes()), Some(max.as_bytes()), Some(&[or])])).expect("a good row");
    }
    let arrays = groups.into_arrays().into_iter().map(|array| elements(&array)).collect::<Vec<_>>();
    let texts = |texts: [&str; 3]| texts.map(|text| Some(text.as_bytes().to_vec())).to_vec();
    assert_eq!(arrays, [texts(["a", "a", "b"]), texts(["x", "y", "x"]), texts(["\u{1}", "\0", "\0"])]);
}

/// Equal sums of different rows are two sums.
#[test]
fn sums_that_only_the_server_adds_up_are_each_kept() {
    let sum = PartColumn::part(Sum, FLOAT8, true).expect("a sum");
    let columns = vec![PartColumn::key(INT4, -1).expect("a key"), sum, part(Count, INT8)];
    let mut groups = ParallelAggregator::new(columns, usize::MAX);
    for _ in 0..3 {
        groups.add(&row(&[Some(&[0, 0, 0, 1]), Some(b"any sum"), Some(&5i64.to_be_bytes())])).expect("a good row");
    }
    assert_eq!(groups.len(), 3);
    let arrays = groups.into_arrays();
    assert_eq!(elements(&arrays[1]), vec![Some(b"any sum".to_vec()); 3]);
    assert_eq!(elements(&arrays[2]), vec![Some(5i64.to_be_bytes().to_vec()); 3]);
}

#[test]
fn an_array_of_nothing_has_no_dimension_and_one_with_null_says_so() {
    let array = |values: &[Option<&[u8]>]| {
        let mut array = Array::of(INT4);
        values.iter().for_each(|value| array.push(*value));
        array.finish()
    };
    assert_eq!(array(&[])[..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 23]);
    assert_eq!(array(&[None])[..12], [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 23]);
    assert_eq!(array(&[Some(b"abcd")])[..8], [0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn memory_is_bounded_and_overflow_noticed() {
    let columns = || vec![PartColumn::key(INT8, -1).expect("a key"), part(Sum, INT8)];
    let mut groups = ParallelAggregator::new(columns(), 10_000);
    let add = |groups: &mut ParallelAggregator, key: i64, value: i64| {
        groups.add(&row(&[Some(&key.to_be_bytes()), Some(&value.to_be_bytes())]))
    };
    let most = (0..).find(|key| add(&mut groups, *key, 1).is_err()).expect("an end");
    assert!((50..200).contains(&most), "{most}");
    assert_eq!(add(&mut groups, most, 1), Err(AggregateError::TooLarge));
    let mut groups = ParallelAggregator::new(columns(), 10_000);
    assert_eq!(add(&mut groups, 1, i64::MAX), Ok(()));
    assert_eq!(add(&mut groups, 1, 1), Err(AggregateError::Overflow));
    assert_eq!(groups.add(&row(&[None])), Err(AggregateError::Malformed));
}

#[test]
fn only_types_that_are_put_together_exactly_are_taken() {
    let takes = |function, type_oid| PartColumn::part(function, type_oid, false).is_some();
    assert!(takes(Count, INT8) && takes(Sum, NUMERIC) && takes(Max, TEXT) && takes(Min, FLOAT8));
    for (function, type_oid) in [
        (Sum, FLOAT4),
        (Sum, FLOAT8),
        (Avg, NUMERIC),
        (Sum, INT4),
        (Max, 1186),
        (BoolAnd, INT4),
        (Min, 1042),
        (Max, 16_999),
    ] {
        assert!(!takes(function, type_oid), "{function:?} {type_oid}");
    }
    assert!(PartColumn::part(Sum, FLOAT8, true).is_some(), "if it may depend on the order");
    assert!(PartColumn::part(Sum, FLOAT4, true).is_none());
    let is_key = |type_oid, modifier| PartColumn::key(type_oid, modifier).is_some();
    assert!(is_key(TEXT, -1) && is_key(BOOL, -1) && is_key(NUMERIC, 655_366) && is_key(1042, 5));
    // Equal values that are not the same: 1.0 and 1.00, 0 and -0, 'a' and 'a ', a day and 24 hours.
    for type_oid in [NUMERIC, FLOAT4, FLOAT8, 1042, 1186, 16_999] {
        assert!(!is_key(type_oid, -1), "{type_oid}");
    }
}
