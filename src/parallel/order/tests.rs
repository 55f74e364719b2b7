use std::pin::pin;
use std::task::Waker;

use super::blocks::DUE_BYTES;
use super::*;

fn run(bytes: usize, open: usize) -> Run {
    Run { bytes: BytesMut::zeroed(bytes), open }
}

fn take(ordered: &Ordered) -> Poll<Item> {
    ordered.poll_take(&mut Context::from_waker(Waker::noop()))
}

/// The bytes that can be taken now.
fn drain(ordered: &Ordered) -> usize {
    let mut bytes = 0;
    while let Poll::Ready(Item::Rows(rows)) = take(ordered) {
        bytes += rows.len();
    }
    bytes
}

/// Whether there is room for it.
fn fits(ordered: &Ordered, range: usize, bytes: usize) -> bool {
    let mut put = pin!(ordered.put(range, run(bytes, 0)));
    put.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

fn begun(budget: usize, count: usize) -> Ordered {
    let ordered = Ordered::new(budget);
    ordered.begin(Bytes::from_static(b"T"), count);
    ordered
}

#[tokio::test]
async fn ranges_are_taken_in_their_order_and_each_in_its_own() {
    let ordered = begun(1000, 3);
    for (range, bytes) in [(2, 1), (0, 2), (1, 3), (0, 4), (2, 5)] {
        ordered.put(range, run(bytes, 0)).await.unwrap();
    }
    ordered.complete(2, 7);
    let mut lengths = Vec::new();
    let mut taken = || {
        while let Poll::Ready(Item::Rows(rows)) = take(&ordered) {
            lengths.push(rows.len());
        }
        lengths.clone()
    };
    assert_eq!(taken(), [2, 4]);
    ordered.complete(0, 2);
    assert_eq!(taken(), [2, 4, 3]);
    ordered.complete(1, 1);
    assert_eq!(taken(), [2, 4, 3, 1, 5]);
    assert!(matches!(take(&ordered), Poll::Ready(Item::Complete(10))));
}

#[tokio::test]
async fn rows_that_are_not_due_keep_to_the_budget_and_those_that_are_find_room_beyond_it() {
    let ordered = begun(1000, 3);
    assert!(fits(&ordered, 1, 600));
    assert!(!fits(&ordered, 2, 401));
    assert!(fits(&ordered, 2, 400));
    assert!(!fits(&ordered, 1, 1), "the budget is used up");
    assert!(fits(&ordered, 0, DUE_BYTES) && !fits(&ordered, 0, 1), "its own reserve, and no more");
    assert_eq!(drain(&ordered), DUE_BYTES);
    assert!(fits(&ordered, 0, 1));
    ordered.complete(0, 1);
    // What is due now counts no longer.
    assert_eq!(drain(&ordered), 601);
    assert!(fits(&ordered, 2, 600) && !fits(&ordered, 2, 1));
}

#[tokio::test]
async fn who_waits_for_room_goes_on_when_there_is_some_and_ends_when_it_is_stopped() {
    let ordered = std::sync::Arc::new(begun(10, 2));
    assert!(fits(&ordered, 1, 10));
    let put = |range| {
        let ordered = ordered.clone();
        tokio::spawn(async move { ordered.put(range, run(5, 0)).await })
    };
    let waiting = put(1);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    ordered.complete(0, 0);
    // The first range is over: the second one is due, and has room.
    assert_eq!(drain(&ordered), 10);
    assert!(waiting.await.unwrap().is_ok());
    assert!(fits(&ordered, 1, DUE_BYTES));
    let stopped = put(1);
    tokio::task::yield_now().await;
    ordered.stop();
    assert!(matches!(stopped.await.unwrap(), Err(LinkError::Stopped)));
    assert!(matches!(ordered.put(1, run(1, 0)).await, Err(LinkError::Stopped)));
}

#[tokio::test]
async fn the_first_failure_is_the_one_and_says_whether_a_row_is_torn() {
    for open in [0, 3] {
        let ordered = begun(10, 1);
        ordered.put(0, run(5, open)).await.unwrap();
        assert_eq!(drain(&ordered), 5);
        ordered.fail(Bytes::from_static(b"first"), true);
        ordered.fail(Bytes::from_static(b"second"), false);
        let Poll::Ready(Item::Failed(failure)) = take(&ordered) else { panic!("it has failed") };
        assert_eq!((&failure.frame[..], failure.is_final, failure.in_row), (&b"first"[..], true, open > 0));
    }
}

#[tokio::test]
async fn it_is_ready_with_its_first_rows_with_its_end_or_with_a_failure() {
    let is_ready = |ordered: &Ordered| ordered.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready();
    let ordered = Ordered::new(10);
    assert!(fits(&ordered, 0, 1) && !is_ready(&ordered), "nobody knows what the rows look like");
    ordered.begin(Bytes::from_static(b"T"), 1);
    assert!(is_ready(&ordered) && ordered.was_starved() && !ordered.was_starved());
    let empty = begun(10, 2);
    empty.complete(0, 0);
    assert!(!is_ready(&empty));
    empty.complete(1, 0);
    assert!(is_ready(&empty));
    let failed = Ordered::new(10);
    failed.fail(Bytes::new(), false);
    assert!(is_ready(&failed));
}
