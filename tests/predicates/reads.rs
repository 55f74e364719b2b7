//! Random reads. Each has one right answer but for the order of its rows.

use rand::seq::IndexedRandom;

use super::conditions::{Column, columns, condition, pinning};
use super::constants::Pen;
use super::tables::some_table;

pub fn read(pen: &mut Pen) -> String {
    let (from, columns) = sources(pen);
    let condition = pinning(pen, &columns);
    let mut column = || columns.choose(&mut pen.rng).expect("not empty").0.clone();
    let (one, other) = (column(), column());
    let rest = format!("FROM {from} WHERE {condition}");
    match pen.one_of(14) {
        0 => format!("SELECT count(*), min({one}::text) {rest}"),
        1 => format!("SELECT {one}, count(*) {rest} GROUP BY {one} HAVING count(*) > 1"),
        2 => format!("SELECT {one}, {other} {rest} ORDER BY {one}, {other} LIMIT 2"),
        3 => format!("SELECT DISTINCT {one} {rest}"),
        4 => format!("SELECT {one}, rank() OVER (ORDER BY {one}), (SELECT count(*) FROM z WHERE h = 1) {rest}"),
        5 => format!("SELECT {one} IS DISTINCT FROM {other} AS from, 1 case, 2 end {rest}"),
        6 => format!("SELECT {one} AS q {rest} UNION ALL SELECT {one} FROM {from} WHERE {other} IS NULL"),
        7 => format!("WITH s AS (SELECT {one} AS q {rest}) SELECT q, count(*) FROM s GROUP BY q"),
        8 => format!("SELECT s.q FROM (SELECT {one} AS q, {other} AS x {rest}) AS s WHERE s.x IS NOT NULL"),
        _ => format!("SELECT {} {rest}", pen.pick(&["*", "*", "count(*)", "1"])),
    }
}

/// A FROM list and its columns.
fn sources(pen: &mut Pen) -> (String, Vec<Column>) {
    let count = [1, 1, 1, 2, 2, 3][pen.one_of(6) as usize];
    let (mut text, mut all) = (String::new(), Vec::new());
    for index in 0..count {
        let table = some_table(pen);
        let name = table.name;
        let (item, visible) = match pen.one_of(6) {
            0 | 1 => (format!("{name} AS {name}{index}"), format!("{name}{index}")),
            2 => (format!("ONLY {name} {name}{index}"), format!("{name}{index}")),
            3 => (format!("public.{name}"), name.to_owned()),
            4 if count == 1 => (format!("{name} {name}x (tid)"), format!("{name}x")),
            _ => (name.to_owned(), name.to_owned()),
        };
        let own = columns(pen, table, &visible, count == 1);
        if index == 0 {
            (text, all) = (item, own);
            continue;
        }
        let left = all[1].0.clone();
        let scope: Vec<Column> = all.iter().chain(&own).cloned().collect();
        let kind = pen.pick(&["JOIN", "LEFT JOIN", "RIGHT OUTER JOIN", "INNER JOIN"]);
        let on = condition(pen, &scope, 1);
        text = match pen.one_of(10) {
            0 => format!("{text}, {item}"),
            1 => format!("{text} CROSS JOIN {item}"),
            2 => format!("{text} FULL JOIN {item} USING (a)"),
            3 => format!("{text} {kind} {item} USING (a)"),
            4 => format!("{text} NATURAL {kind} {item}"),
            5 | 6 => format!("{text} FULL JOIN {item} ON {left} = {}", own[1].0),
            7 => format!("({text} {kind} {item} ON {on})"),
            _ => format!("{text} {kind} {item} ON {on}"),
        };
        all = scope;
    }
    let more = [
        ", (SELECT a AS q, h FROM z WHERE a = 1) s",
        " LEFT JOIN LATERAL (SELECT h AS q FROM z) s ON true",
        ", generate_series(0, 1) AS s(q)",
    ];
    if pen.one_of(10) == 0 {
        text += pen.pick(&more);
    }
    (text, all)
}
