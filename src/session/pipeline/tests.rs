use super::*;
use crate::wire::frame::backend::*;
use proptest::prelude::*;

type P = Pipeline<&'static str, u32>;

fn client(pipeline: &mut P, request: Request<&'static str, u32>) {
    pipeline.push(Origin::Client, request);
}

fn ready(skipped: &[u32], span: u32) -> Event<&'static str, u32> {
    Event::Ready { skipped: skipped.to_vec(), span }
}

fn events(pipeline: &mut P, tags: &[u8]) -> Vec<Event<&'static str, u32>> {
    tags.iter().filter_map(|tag| pipeline.reply(*tag).event).collect()
}

#[test]
fn an_extended_query_ends_with_ready() {
    let mut pipeline = P::default();
    for request in [Request::Parse("s"), Request::Bind, Request::Describe, Request::Execute, Request::Sync(1)] {
        client(&mut pipeline, request);
    }
    let tags = [PARSE_COMPLETE, BIND_COMPLETE, ROW_DESCRIPTION, DATA_ROW, DATA_ROW, COMMAND_COMPLETE, READY_FOR_QUERY];
    assert_eq!(events(&mut pipeline, &tags), [Event::Parsed("s"), ready(&[], 1)]);
    assert!(pipeline.is_empty() && !pipeline.is_confused());
}

#[test]
fn an_error_skips_to_sync_and_a_query_in_between_too() {
    let mut pipeline = P::default();
    for request in [Request::Bind, Request::Execute, Request::Parse("lost"), Request::Query(7), Request::Sync(1)] {
        client(&mut pipeline, request);
    }
    client(&mut pipeline, Request::Query(2));
    assert_eq!(events(&mut pipeline, &[ERROR_RESPONSE]), [Event::Failed(vec!["lost"])]);
    assert_eq!(events(&mut pipeline, &[READY_FOR_QUERY]), [ready(&[7], 1)]);
    assert_eq!(events(&mut pipeline, &[COMMAND_COMPLETE, READY_FOR_QUERY]), [ready(&[], 2)]);
    assert!(pipeline.is_empty() && !pipeline.is_confused());
}

#[test]
fn what_is_sent_while_the_upstream_skips_is_not_awaited() {
    let mut pipeline = P::default();
    client(&mut pipeline, Request::Parse("a"));
    assert_eq!(events(&mut pipeline, &[ERROR_RESPONSE]), [Event::Failed(vec!["a"])]);
    assert!(!pipeline.is_empty(), "a Sync is owed by the client");
    assert!(pipeline.push(Origin::Client, Request::Bind).is_some());
    assert_eq!(pipeline.push(Origin::Client, Request::Query(9)), Some(Request::Query(9)));
    client(&mut pipeline, Request::Sync(3));
    assert_eq!(events(&mut pipeline, &[READY_FOR_QUERY]), [ready(&[], 3)]);
    assert!(pipeline.is_empty());
}

#[test]
fn an_injected_parse_is_swallowed_and_its_error_is_the_clients() {
    let mut pipeline = P::default();
    pipeline.push(Origin::Injected, Request::Parse("s"));
    client(&mut pipeline, Request::Bind);
    client(&mut pipeline, Request::Sync(1));
    assert_eq!(pipeline.reply(PARSE_COMPLETE).route, Route::Swallow);
    assert_eq!(pipeline.reply(BIND_COMPLETE).route, Route::Forward);
    assert_eq!(pipeline.reply(READY_FOR_QUERY).route, Route::Forward);

    pipeline.push(Origin::Injected, Request::Parse("s"));
    client(&mut pipeline, Request::Bind);
    client(&mut pipeline, Request::Sync(1));
    assert_eq!(pipeline.reply(ERROR_RESPONSE).route, Route::Forward);
    assert_eq!(pipeline.reply(READY_FOR_QUERY).event, Some(ready(&[], 1)));
}

#[test]
fn own_replies_are_collected_and_asynchronous_ones_pass() {
    let mut pipeline = P::default();
    pipeline.push(Origin::Own, Request::Sync(1));
    client(&mut pipeline, Request::Query(2));
    assert!(pipeline.at_own() && pipeline.owes_client());
    for tag in [PARSE_COMPLETE, BIND_COMPLETE, COMMAND_COMPLETE] {
        assert_eq!(pipeline.reply(tag), Reply { route: Route::Collect, event: None });
    }
    assert_eq!(pipeline.reply(NOTIFICATION_RESPONSE).route, Route::Forward);
    assert_eq!(pipeline.reply(NOTICE_RESPONSE).route, Route::Collect);
    assert_eq!(pipeline.reply(ERROR_RESPONSE).route, Route::Collect);
    assert_eq!(pipeline.reply(READY_FOR_QUERY).route, Route::Collect);
    assert!(!pipeline.at_own());
    assert_eq!(pipeline.reply(NOTICE_RESPONSE).route, Route::Forward);
    assert_eq!(events(&mut pipeline, &[COMMAND_COMPLETE, READY_FOR_QUERY]), [ready(&[], 2)]);
}

#[test]
fn a_sync_during_copy_in_is_dropped_and_its_span_ends_with_the_next() {
    // libpq: Execute and Sync travel together, then data, CopyDone and another Sync.
    let mut pipeline = P::default();
    for request in [Request::Bind, Request::Execute, Request::Sync(1)] {
        client(&mut pipeline, request);
    }
    assert_eq!(events(&mut pipeline, &[BIND_COMPLETE, COPY_IN_RESPONSE]), []);
    client(&mut pipeline, Request::CopyEnd);
    client(&mut pipeline, Request::Sync(2));
    assert_eq!(events(&mut pipeline, &[COMMAND_COMPLETE, READY_FOR_QUERY]), [ready(&[1], 2)]);
    assert!(pipeline.is_empty() && !pipeline.is_confused());
}

#[test]
fn a_copy_that_was_sent_without_waiting_keeps_the_sync_after_its_end() {
    let mut pipeline = P::default();
    for request in [Request::Execute, Request::CopyEnd, Request::Sync(1)] {
        client(&mut pipeline, request);
    }
    let tags = [COPY_IN_RESPONSE, COMMAND_COMPLETE, READY_FOR_QUERY];
    assert_eq!(events(&mut pipeline, &tags), [ready(&[], 1)]);
    assert!(pipeline.is_empty());
}

#[test]
fn a_copy_that_fails_ends_with_the_next_sync() {
    let mut pipeline = P::default();
    for request in [Request::Execute, Request::Sync(1)] {
        client(&mut pipeline, request);
    }
    events(&mut pipeline, &[COPY_IN_RESPONSE]);
    assert_eq!(events(&mut pipeline, &[ERROR_RESPONSE]), [Event::Failed(vec![])]);
    client(&mut pipeline, Request::CopyEnd);
    client(&mut pipeline, Request::Sync(2));
    assert_eq!(events(&mut pipeline, &[READY_FOR_QUERY]), [ready(&[1], 2)]);
    assert!(pipeline.is_empty());
}

#[test]
fn a_fatal_error_out_of_nowhere_confuses_nobody() {
    let mut pipeline = P::default();
    assert_eq!(pipeline.reply(ERROR_RESPONSE), Reply { route: Route::Forward, event: None });
    assert!(pipeline.is_empty() && !pipeline.is_confused());
}

#[test]
fn a_reply_that_nothing_explains_is_noticed() {
    let mut pipeline = P::default();
    pipeline.reply(DATA_ROW);
    assert!(pipeline.is_confused());
}

/// A server as `PostgresMain` is: answers requests in order, fails where told to, skips to Sync.
fn server_replies(requests: &[(u8, bool)]) -> Vec<u8> {
    let mut replies = Vec::new();
    let mut skipping = false;
    for &(kind, fails) in requests {
        if kind == b'S' {
            skipping = false;
            replies.push(READY_FOR_QUERY);
        } else if skipping {
        } else if kind == b'Q' {
            replies.extend(if fails {
                vec![ERROR_RESPONSE]
            } else {
                vec![ROW_DESCRIPTION, DATA_ROW, COMMAND_COMPLETE]
            });
            replies.push(READY_FOR_QUERY);
        } else if fails {
            replies.push(ERROR_RESPONSE);
            skipping = true;
        } else {
            replies.extend(match kind {
                b'P' => vec![PARSE_COMPLETE],
                b'B' => vec![BIND_COMPLETE],
                b'D' => vec![ROW_DESCRIPTION],
                b'C' => vec![CLOSE_COMPLETE],
                _ => vec![DATA_ROW, COMMAND_COMPLETE],
            });
        }
    }
    replies
}

proptest! {
    /// Whatever is pipelined and wherever it fails: all spans end, in order, and the queue is empty after the last Sync.
    #[test]
    fn every_span_ends_once_and_in_order(
        kinds in prop::collection::vec((prop::sample::select(b"PBDCESQ".to_vec()), prop::bool::weighted(0.15)), 0..60),
    ) {
        let mut requests = kinds;
        requests.push((b'S', false));
        let mut pipeline = Pipeline::<usize, usize>::default();
        for (number, (kind, _)) in requests.iter().enumerate() {
            pipeline.push(Origin::Client, match kind {
                b'P' => Request::Parse(number),
                b'B' => Request::Bind,
                b'D' => Request::Describe,
                b'C' => Request::Close,
                b'E' => Request::Execute,
                b'S' => Request::Sync(number),
                _ => Request::Query(number),
            });
        }
        let mut ended = Vec::new();
        for tag in server_replies(&requests) {
            let reply = pipeline.reply(tag);
            prop_assert_eq!(reply.route, Route::Forward);
            if let Some(Event::Ready { skipped, span }) = reply.event {
                ended.extend(skipped);
                ended.push(span);
            }
        }
        let spans: Vec<usize> = (0..requests.len()).filter(|n| matches!(requests[*n].0, b'S' | b'Q')).collect();
        prop_assert_eq!(ended, spans);
        prop_assert!(pipeline.is_empty() && !pipeline.is_confused());
    }
}
