use super::*;

/// Reads any row of a table.
fn read(versions: &Versions, oid: u32) -> Option<Dependencies> {
    versions.observe([TableRead::any_row(&versions.table(TableOid(oid)))])
}

/// Reads the rows of a table whose first column has this value.
fn read_value(versions: &Versions, oid: u32, value: &str) -> Option<Dependencies> {
    let table = versions.table(TableOid(oid));
    let column = table.column(1);
    versions.observe([TableRead { table: &table, pin: Some((&column, vec![table.stripe(1, value.as_bytes())])) }])
}

fn write(versions: &Versions, oid: u32) -> WriteSet {
    WriteSet::any_row_of([versions.table(TableOid(oid))])
}

/// Writes rows whose first column has, before and after, one of these values.
fn write_values(versions: &Versions, oid: u32, values: &[&str]) -> WriteSet {
    let table = versions.table(TableOid(oid));
    let stripes = values.iter().map(|value| table.stripe(1, value.as_bytes())).collect();
    WriteSet::Tables(vec![TableWrite { table, proven: vec![(1, stripes)] }])
}

#[test]
fn a_dependency_holds_until_its_table_is_marked_and_never_again() {
    let versions = Versions::default();
    let seen = read(&versions, 1).expect("nothing is in flight");
    assert!(seen.hold());

    let marks = versions.mark(&write(&versions, 1));
    assert!(!seen.hold(), "a write in flight");
    assert!(read(&versions, 1).is_none(), "nothing is observed under a mark");

    marks.settle();
    assert!(!seen.hold(), "the table has changed");
    assert!(read(&versions, 1).expect("settled").hold());
}

#[test]
fn other_tables_are_not_touched() {
    let versions = Versions::default();
    let seen = read(&versions, 2).expect("nothing is in flight");
    versions.mark(&write(&versions, 1)).settle();
    assert!(seen.hold());
}

#[test]
fn everything_reaches_every_table_and_every_value() {
    let versions = Versions::default();
    let seen = [read(&versions, 7), read_value(&versions, 7, "a")].map(|seen| seen.expect("nothing is in flight"));
    let marks = versions.mark(&WriteSet::Everything);
    assert!(!seen.iter().any(Dependencies::hold));
    marks.settle();
    assert!(!seen.iter().any(Dependencies::hold));
}

#[test]
fn overlapping_writes_keep_the_mark_until_the_last_one_is_settled() {
    let versions = Versions::default();
    let first = versions.mark(&write(&versions, 1));
    let second = versions.mark(&write(&versions, 1));
    first.settle();
    assert!(read(&versions, 1).is_none());
    second.settle();
    assert!(read(&versions, 1).is_some());
}

#[test]
fn a_quiet_span_ends_with_any_write() {
    let versions = Versions::default();
    let table = versions.table(TableOid(1));
    let one = || [TableRead::any_row(&table)];
    let quiet = versions.quiet().expect("nothing is in flight");
    assert!(versions.observe_since(quiet, one()).is_some());
    let marks = versions.mark(&write(&versions, 2));
    assert!(versions.quiet().is_none());
    assert!(versions.observe_since(quiet, one()).is_none());
    marks.settle();
    assert!(versions.observe_since(quiet, one()).is_none());
}

#[test]
fn a_write_that_proves_its_values_leaves_reads_of_others_alone() {
    let versions = Versions::default();
    let [a, b, c] = ["a", "b", "c"].map(|value| read_value(&versions, 1, value).expect("nothing is in flight"));
    let all = read(&versions, 1).expect("nothing is in flight");
    let marks = versions.mark(&write_values(&versions, 1, &["a", "b"]));
    assert!(read_value(&versions, 1, "a").is_none() && read_value(&versions, 1, "c").is_some());
    marks.settle();
    assert!(!a.hold() && !b.hold(), "before and after");
    assert!(c.hold());
    assert!(!all.hold(), "who reads any row reads these too");
}

#[test]
fn a_write_that_proves_nothing_of_the_column_reaches_all_its_values() {
    let versions = Versions::default();
    let table = versions.table(TableOid(1));
    let other = TableWrite { table: table.clone(), proven: vec![(2, vec![table.stripe(2, b"a")])] };
    for writes in [write(&versions, 1), WriteSet::Tables(vec![other])] {
        let seen = read_value(&versions, 1, "a").expect("nothing is in flight");
        versions.mark(&writes).settle();
        assert!(!seen.hold());
    }
}

#[test]
fn a_column_that_is_new_waits_for_the_writes_that_do_not_know_it() {
    let versions = Versions::default();
    let marks = versions.mark(&write_values(&versions, 1, &["a"]));
    assert!(read_value(&versions, 1, "b").is_none(), "the write may concern any value: it has not looked");
    let second = versions.mark(&write_values(&versions, 1, &["a"]));
    marks.settle();
    assert!(read_value(&versions, 1, "b").is_none(), "a mark is left that may be one of those");
    second.settle();
    assert!(read_value(&versions, 1, "b").is_some());
    let _marks = versions.mark(&write_values(&versions, 1, &["a"]));
    assert!(read_value(&versions, 1, "b").is_some());
}

#[test]
fn merged_writes_mark_what_each_of_them_would() {
    let versions = Versions::default();
    let (a, b, any) = (write_values(&versions, 1, &["a"]), write_values(&versions, 1, &["b"]), write(&versions, 1));
    let mut both = a.clone();
    both.merge(&b);
    assert!(both.covers(&a) && both.covers(&b) && !a.covers(&b) && !both.covers(&any));
    let mut all = both.clone();
    all.merge(&any);
    assert!(all.covers(&both) && all.covers(&any));
    let mut more = both.clone();
    more.merge(&write(&versions, 2));
    assert!(more.covers(&both) && more.covers(&write(&versions, 2)) && !both.covers(&more));
    let many: Vec<String> = (0..1000).map(|value| value.to_string()).collect();
    for value in &many {
        both.merge(&write_values(&versions, 1, &[value]));
    }
    assert!(both.covers(&any), "a set that would grow without a bound becomes unknown");
}

#[test]
fn one_stripe_for_all_is_still_exact() {
    let versions = Versions::new(Arc::new(Stripes::new(1)));
    let seen = read_value(&versions, 1, "b").expect("nothing is in flight");
    versions.mark(&write_values(&versions, 1, &["a"])).settle();
    assert!(!seen.hold());
}

/// Calls `run` with every order in which the actors can take their steps.
fn every_schedule(steps: &[usize], run: &mut impl FnMut(&[usize])) -> usize {
    fn explore(order: &mut Vec<usize>, left: &mut [usize], run: &mut impl FnMut(&[usize])) -> usize {
        if left.iter().all(|steps| *steps == 0) {
            run(order);
            return 1;
        }
        let mut schedules = 0;
        for actor in 0..left.len() {
            if left[actor] > 0 {
                left[actor] -= 1;
                order.push(actor);
                schedules += explore(order, left, run);
                order.pop();
                left[actor] += 1;
            }
        }
        schedules
    }
    explore(&mut Vec::new(), &mut steps.to_vec(), run)
}

/// How a write ends: it commits; it is rolled back; its outcome is never known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Commits,
    RollsBack,
    Lost,
}

/// One write of a row whose first column is `value`, in its atomic steps.
struct Writer<'a> {
    versions: &'a Versions,
    value: &'static str,
    /// The write can say which value it concerns.
    proves: bool,
    outcome: Outcome,
    marked: Vec<CounterRef>,
}

impl Writer<'_> {
    const STEPS: usize = 4;

    /// Mark the table, look for columns and mark them, become visible, settle; a reader may come between any two.
    fn step(&mut self, step: usize, rows: &mut HashMap<&'static str, u32>) {
        let writes = if self.proves { write_values(self.versions, 1, &[self.value]) } else { write(self.versions, 1) };
        let WriteSet::Tables(tables) = &writes else { unreachable!("it names its table") };
        match step {
            0 => tables[0].mark_table(&mut self.marked),
            1 => tables[0].mark_columns(&mut self.marked),
            2 if self.outcome == Outcome::Commits => *rows.entry(self.value).or_default() += 1,
            2 => {}
            _ if self.outcome == Outcome::Lost => {}
            _ => self.marked.drain(..).rev().for_each(|counter| counter.bump_and_unmark()),
        }
    }
}

/// All interleavings of one read and two writes, as atomic steps, however the writes end and whatever they prove: what the
/// read stores is served only if it is what the database holds, from the moment a write may be visible to anyone.
#[test]
fn no_interleaving_of_a_fill_and_writes_serves_a_stale_value() {
    // The reader: observe (and make the column known), read, serve; and once more at the end.
    const READER_STEPS: usize = 3;
    let (mut schedules, mut served) = (0, 0);
    for case in 0..36 {
        let pinned = case % 2 == 0;
        let first = [("a", true), ("b", true), ("a", false)][case / 2 % 3];
        let second = [("a", true), ("b", false)][case / 6 % 2];
        let outcome = [Outcome::Commits, Outcome::RollsBack, Outcome::Lost][case / 12];
        schedules += every_schedule(&[READER_STEPS, Writer::STEPS, Writer::STEPS], &mut |schedule| {
            let versions = Versions::new(Arc::new(Stripes::new(64)));
            let mut rows = HashMap::from([("a", 0), ("b", 0)]);
            let writer = |(value, proves), outcome| {
                let marked = Vec::new();
                Writer { versions: &versions, value, proves, outcome, marked }
            };
            let mut writers = [writer(first, outcome), writer(second, Outcome::Commits)];
            let mut steps = [0; 3];
            let (mut seen, mut stored) = (None, (0, 0));
            for actor in schedule.iter().copied().chain([0]) {
                match (actor, steps[actor]) {
                    (0, 0) if pinned => seen = read_value(&versions, 1, "a"),
                    (0, 0) => seen = read(&versions, 1),
                    (0, 1) => stored = (rows["a"], rows["b"]),
                    (0, _) if seen.as_ref().is_some_and(Dependencies::hold) => {
                        let now = (rows["a"], if pinned { stored.1 } else { rows["b"] });
                        assert_eq!(stored, now, "{schedule:?}, pinned: {pinned}, {first:?} {outcome:?}, {second:?}");
                        served += 1;
                    }
                    (0, _) => {}
                    (writer, step) => writers[writer - 1].step(step, &mut rows),
                }
                steps[actor] += 1;
            }
        });
    }
    assert_eq!(schedules, 36 * 11_550);
    assert!(served > 0, "some schedules must be hits, or the test shows nothing");
}

#[test]
fn a_narrowed_write_spares_what_it_has_not_touched() {
    let versions = Versions::default();
    let seen = |oid| (read(&versions, oid).expect("quiet"), read_value(&versions, oid, "a").expect("quiet"));
    let (one, two) = (seen(1), seen(2));
    let marks = versions.mark(&WriteSet::Everything);
    assert!(!one.0.hold() && !two.0.hold() && read(&versions, 2).is_none(), "until it is over");
    marks.settle_narrowed(&[versions.table(TableOid(1))]);
    assert!(!one.0.hold() && !one.1.hold());
    assert!(two.0.hold() && two.1.hold());
    versions.mark(&write(&versions, 2)).settle_narrowed(&[]);
    assert!(!two.0.hold(), "what was not of everything is settled as ever");
}

/// All interleavings of one read, an opaque write of its table that is narrowed, and one of another table.
#[test]
fn no_interleaving_with_narrowed_writes_serves_a_stale_value() {
    let mut served = 0;
    for pinned in [true, false] {
        every_schedule(&[3, 3, 3], &mut |schedule| {
            let versions = Versions::new(Arc::new(Stripes::new(64)));
            let (mut steps, mut marks) = ([0; 3], [None, None]);
            let (mut value, mut seen, mut stored) = (0, None, 0);
            for actor in schedule.iter().copied().chain([0]) {
                match (actor, steps[actor]) {
                    (0, 0) if pinned => seen = read_value(&versions, 1, "a"),
                    (0, 0) => seen = read(&versions, 1),
                    (0, 1) => stored = value,
                    (0, _) if seen.as_ref().is_some_and(Dependencies::hold) => {
                        assert_eq!(stored, value, "{schedule:?}, pinned: {pinned}");
                        served += 1;
                    }
                    (0, _) => {}
                    (writer, 0) => marks[writer - 1] = Some(versions.mark(&WriteSet::Everything)),
                    (writer, 1) => value += i32::from(writer == 1),
                    (writer, _) => {
                        let marks = marks[writer - 1].take().expect("marked before");
                        marks.settle_narrowed(&[versions.table(TableOid(writer as u32))]);
                    }
                }
                steps[actor] += 1;
            }
        });
    }
    assert!(served > 0, "some schedules must be hits, or the test shows nothing");
}
