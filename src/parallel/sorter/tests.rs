use proptest::prelude::*;

use super::super::sort_key::{KeyOrder, SortDirection};
use super::*;

fn keys() -> Vec<SortKey> {
    vec![
        SortKey { order: KeyOrder::Signed(2), direction: SortDirection::Ascending, nulls_first: true },
        SortKey { order: KeyOrder::Bytes, direction: SortDirection::Descending, nulls_first: false },
    ]
}

fn frame_of(values: &[Option<&[u8]>]) -> Vec<u8> {
    let mut body = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        let length = value.map_or(-1, |value| value.len() as i32);
        body.extend_from_slice(&length.to_be_bytes());
        body.extend_from_slice(value.unwrap_or_default());
    }
    [&b"D"[..], &(body.len() as u32 + 4).to_be_bytes(), &body].concat()
}

type Row = (Option<i16>, Option<Vec<u8>>, Vec<u8>);

fn with_keys((number, text, rest): &Row) -> Vec<u8> {
    let number = number.map(i16::to_be_bytes);
    frame_of(&[number.as_ref().map(|bytes| &bytes[..]), text.as_deref(), None, Some(rest)])
}

fn without(row: &Row) -> Vec<u8> {
    frame_of(&[None, Some(&row.2)])
}

/// As PostgreSQL would: `1 NULLS FIRST, 2 DESC NULLS LAST`.
fn sort(rows: &mut [Row]) {
    rows.sort_by(|one, other| {
        let text = match (&one.1, &other.1) {
            (Some(one), Some(other)) => other.cmp(one),
            (one, other) => one.is_none().cmp(&other.is_none()),
        };
        one.0.cmp(&other.0).then(text)
    });
}

fn row() -> impl Strategy<Value = Row> {
    let text = prop::option::of(prop::collection::vec(0u8..3, 0..4));
    (prop::option::of(-2i16..3), text, prop::collection::vec(any::<u8>(), 0..30))
}

proptest! {
    #[test]
    fn rows_of_all_lanes_come_out_sorted_however_they_come_in(
        mut lanes in prop::collection::vec(prop::collection::vec(row(), 0..20), 1..5),
        pieces in prop::collection::vec((0usize..5, 1usize..90), 0..60),
        most in 1usize..200,
        offset in 0u64..30,
        limit in prop::option::of(0u64..50),
    ) {
        lanes.iter_mut().for_each(|lane| sort(lane));
        let mut sorter = ParallelSorter::new(keys(), lanes.len(), 1 << 20).limit(offset, limit);
        let mut streams: Vec<Vec<u8>> = lanes.iter().map(|lane| lane.iter().flat_map(with_keys).collect()).collect();
        let mut out = BytesMut::new();
        let mut merge = |sorter: &mut ParallelSorter| loop {
            let mut piece = BytesMut::new();
            let merged = sorter.merge(&mut piece, most).expect("whole rows");
            out.extend_from_slice(&piece);
            if merged != Merged::Full {
                break merged;
            }
        };
        let mut last = Merged::Waiting;
        for (lane, bytes) in pieces.into_iter().chain((0..lanes.len()).map(|lane| (lane, usize::MAX))) {
            let Some(stream) = streams.get_mut(lane) else { continue };
            let rest = stream.split_off(bytes.min(stream.len()));
            sorter.put(lane, BytesMut::from(&std::mem::replace(stream, rest)[..]));
            if bytes == usize::MAX {
                sorter.finish(lane);
            }
            last = merge(&mut sorter);
        }
        prop_assert_eq!(last, Merged::Complete);
        prop_assert_eq!(sorter.open(), 0);
        let mut all: Vec<Row> = lanes.into_iter().flatten().collect();
        sort(&mut all);
        let all: Vec<Row> = all.into_iter().skip(offset as usize).take(limit.unwrap_or(u64::MAX) as usize).collect();
        prop_assert_eq!(sorter.rows(), all.len() as u64);
        // Rows with equal keys come in the order of the lanes, as a stable sort has them.
        prop_assert_eq!(&out[..], &all.iter().flat_map(without).collect::<Vec<_>>()[..]);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), after in 0usize..60) {
        let mut sorter = ParallelSorter::new(keys(), 1, 1 << 20);
        let mut frame = with_keys(&(Some(1), Some(b"x".to_vec()), vec![0; 9]));
        frame.truncate(after);
        frame.extend_from_slice(&bytes);
        sorter.put(0, BytesMut::from(&frame[..]));
        sorter.finish(0);
        let _ = sorter.merge(&mut BytesMut::new(), usize::MAX);
    }
}

#[test]
fn a_long_row_is_passed_on_as_it_comes() {
    let mut sorter = ParallelSorter::new(keys(), 2, 1000);
    let long: Row = (Some(1), None, vec![7; 100_000]);
    let mut frame = BytesMut::from(&with_keys(&long)[..]);
    sorter.put(0, frame.split_to(50));
    sorter.put(1, BytesMut::from(&with_keys(&(Some(2), None, vec![]))[..]));
    let mut out = BytesMut::new();
    while !frame.is_empty() {
        assert_eq!(sorter.merge(&mut out, usize::MAX).unwrap(), Merged::Waiting);
        assert!(sorter.open() > 0 && sorter.has_room(0), "its beginning has left");
        sorter.put(0, frame.split_to(frame.len().min(900)));
    }
    sorter.finish(0);
    sorter.finish(1);
    assert_eq!(sorter.merge(&mut out, usize::MAX).unwrap(), Merged::Complete);
    assert_eq!(out[..], [without(&long), without(&(None, None, vec![]))].concat()[..]);
}

#[test]
fn keys_that_do_not_fit_and_rows_without_an_end_are_errors() {
    let mut sorter = ParallelSorter::new(keys(), 1, 1000);
    let frame = with_keys(&(Some(1), Some(vec![7; 5000]), vec![]));
    sorter.put(0, BytesMut::from(&frame[..999]));
    assert_eq!(sorter.merge(&mut BytesMut::new(), 1).unwrap(), Merged::Waiting);
    assert!(sorter.has_room(0));
    sorter.put(0, BytesMut::from(&frame[999..1000]));
    assert!(!sorter.has_room(0));
    assert!(sorter.merge(&mut BytesMut::new(), 1).is_err());

    let mut sorter = ParallelSorter::new(keys(), 1, 1 << 20);
    sorter.put(0, BytesMut::from(&frame[..999]));
    sorter.finish(0);
    assert!(sorter.merge(&mut BytesMut::new(), 1).is_err());
}

#[test]
fn a_limit_needs_no_more_than_its_rows() {
    let mut sorter = ParallelSorter::new(keys(), 1, 1 << 20).limit(1, Some(1));
    let rows: Vec<Row> = (0..3).map(|n| (Some(n), None, vec![])).collect();
    sorter.put(0, BytesMut::from(&rows.iter().flat_map(with_keys).collect::<Vec<_>>()[..]));
    let mut out = BytesMut::new();
    assert_eq!(sorter.merge(&mut out, usize::MAX).unwrap(), Merged::Complete);
    assert_eq!(sorter.rows(), 1);
    let mut none = ParallelSorter::new(keys(), 1, 1 << 20).limit(0, Some(0));
    assert_eq!(none.merge(&mut out, usize::MAX).unwrap(), Merged::Complete);
}
