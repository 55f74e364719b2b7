use super::*;

fn table(versions: &Versions, oid: u32) -> Vec<Arc<Counter>> {
    vec![versions.table(TableOid(oid))]
}

#[test]
fn a_dependency_holds_until_its_table_is_marked_and_never_again() {
    let versions = Versions::default();
    let one = table(&versions, 1);
    let seen = versions.observe(&one).expect("nothing is in flight");
    assert!(seen.hold());

    let marks = versions.mark(&WriteSet::Tables(one.clone()));
    assert!(!seen.hold(), "a write in flight");
    assert!(versions.observe(&one).is_none(), "nothing is observed under a mark");

    marks.settle();
    assert!(!seen.hold(), "the table has changed");
    assert!(versions.observe(&one).expect("settled").hold());
}

#[test]
fn other_tables_are_not_touched() {
    let versions = Versions::default();
    let (one, two) = (table(&versions, 1), table(&versions, 2));
    let seen = versions.observe(&two).expect("nothing is in flight");
    versions.mark(&WriteSet::Tables(one)).settle();
    assert!(seen.hold());
}

#[test]
fn everything_reaches_every_table() {
    let versions = Versions::default();
    let seen = versions.observe(&table(&versions, 7)).expect("nothing is in flight");
    let marks = versions.mark(&WriteSet::Everything);
    assert!(!seen.hold());
    marks.settle();
    assert!(!seen.hold());
}

#[test]
fn overlapping_writes_keep_the_mark_until_the_last_one_is_settled() {
    let versions = Versions::default();
    let one = table(&versions, 1);
    let first = versions.mark(&WriteSet::Tables(one.clone()));
    let second = versions.mark(&WriteSet::Tables(one.clone()));
    first.settle();
    assert!(versions.observe(&one).is_none());
    second.settle();
    assert!(versions.observe(&one).is_some());
}

#[test]
fn a_quiet_span_ends_with_any_write() {
    let versions = Versions::default();
    let (one, two) = (table(&versions, 1), table(&versions, 2));
    let quiet = versions.quiet().expect("nothing is in flight");
    assert!(versions.observe_since(quiet, &one).is_some());
    let marks = versions.mark(&WriteSet::Tables(two));
    assert!(versions.quiet().is_none());
    assert!(versions.observe_since(quiet, &one).is_none());
    marks.settle();
    assert!(versions.observe_since(quiet, &one).is_none());
}

/// All interleavings of one fill and two writes, as atomic steps: what the fill stores is served only if it is what the
/// database holds, from the moment a write may be visible to anyone.
#[test]
fn no_interleaving_of_fill_and_writes_serves_a_stale_value() {
    // Steps of a writer: mark, commit (the value changes), settle. Steps of the reader: observe, read, serve.
    fn explore(order: &mut Vec<usize>, left: [usize; 3], schedules: &mut Vec<Vec<usize>>) {
        if left == [0, 0, 0] {
            schedules.push(order.clone());
        }
        for actor in 0..3 {
            if left[actor] > 0 {
                let mut rest = left;
                rest[actor] -= 1;
                order.push(actor);
                explore(order, rest, schedules);
                order.pop();
            }
        }
    }
    let mut schedules = Vec::new();
    explore(&mut Vec::new(), [3, 3, 3], &mut schedules);
    assert_eq!(schedules.len(), 1680);

    let mut served = 0;
    for schedule in schedules {
        let versions = Versions::default();
        let one = table(&versions, 1);
        let mut step = [0; 3];
        let mut marks = [None, None];
        let (mut value, mut seen, mut read) = (0, None, 0);
        for actor in schedule {
            match (actor, step[actor]) {
                (0, 0) => seen = versions.observe(&one),
                (0, 1) => read = value,
                (0, _) => {
                    if seen.as_ref().is_some_and(Dependencies::hold) {
                        assert_eq!(read, value);
                        served += 1;
                    }
                }
                (writer, 0) => marks[writer - 1] = Some(versions.mark(&WriteSet::Tables(one.clone()))),
                (_, 1) => value += 1,
                (writer, _) => marks[writer - 1].take().expect("marked before").settle(),
            }
            step[actor] += 1;
        }
    }
    assert!(served > 0, "some schedules must be hits, or the test shows nothing");
}
