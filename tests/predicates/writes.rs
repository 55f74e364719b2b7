//! Random writes.

use rand::Rng;

use super::conditions::{columns, pinning};
use super::constants::{Pen, Sql, Type};
use super::tables::{Table, some_table};

/// One transaction: a statement of its own, or a block of several.
pub fn write(pen: &mut Pen) -> Vec<Sql> {
    let statements = if pen.one_of(8) == 0 { 2 } else { 1 };
    (0..statements).map(|_| pen.statement(statement)).collect()
}

fn statement(pen: &mut Pen) -> String {
    let table = some_table(pen);
    match pen.one_of(20) {
        0..=7 => update(pen, table),
        8..=11 => delete(pen, table),
        12..=17 => insert(pen, table),
        18 => format!("WITH q AS ({} RETURNING 1) SELECT count(*) FROM q", update(pen, table)),
        _ => merge(pen),
    }
}

fn update(pen: &mut Pen, table: &Table) -> String {
    let (target, from, condition) = target(pen, table, "FROM");
    let mut names: Vec<(&str, Type)> =
        table.columns[1..].iter().copied().filter(|_| pen.rng.random_bool(0.4)).collect();
    if names.is_empty() {
        names.push(table.columns[2]);
    }
    let mut set: Vec<String> =
        names.iter().map(|&(name, kind)| format!("{name} = {}", assigned(pen, name, kind))).collect();
    if let [first, second, ..] = names[..]
        && pen.rng.random_bool(0.4)
    {
        let (one, other) = (assigned(pen, first.0, first.1), assigned(pen, second.0, second.1));
        let row = match pen.one_of(4) {
            0 => format!("ROW({one}, {other})"),
            1 => format!("(SELECT {one}, {other})"),
            _ => format!("({one}, {other})"),
        };
        set.splice(..2, [format!("({}, {}) = {row}", first.0, second.0)]);
    }
    format!("UPDATE {target} SET {}{from} WHERE {condition}", set.join(", "))
}

fn delete(pen: &mut Pen, table: &Table) -> String {
    let (target, using, condition) = target(pen, table, "USING");
    let returning = pen.pick(&["", "", " RETURNING a = 1"]);
    format!("DELETE FROM {target}{using} WHERE {condition}{returning}")
}

/// A target, more tables after `word`, and a condition.
fn target(pen: &mut Pen, table: &Table, word: &str) -> (String, String, String) {
    let name = table.name;
    let (target, visible) = match pen.one_of(5) {
        0 => (format!("ONLY {name}"), name),
        1 => (format!("{name} AS x"), "x"),
        2 => (format!("public.{name} *"), name),
        _ => (name.to_owned(), name),
    };
    let joined = pen.rng.random_bool(0.25);
    let scope = columns(pen, table, visible, !joined);
    let list = match joined {
        true => format!(" {word} {}", pen.pick(&["z", "z LEFT JOIN t tt ON z.a = tt.a", "z, w ww", "t z"])),
        false => String::new(),
    };
    let condition = pinning(pen, &scope);
    (target, list, condition)
}

fn insert(pen: &mut Pen, table: &Table) -> String {
    let name = table.name;
    let names = &table.columns[1..pen.rng.random_range(2..=table.columns.len())];
    let rows: Vec<String> = (0..pen.rng.random_range(1..4))
        .map(|_| {
            let values: Vec<String> = names.iter().map(|&(column, kind)| inserted(pen, column, kind)).collect();
            format!("({})", values.join(", "))
        })
        .collect();
    let list = names.iter().map(|name| name.0).collect::<Vec<_>>().join(", ");
    let source = match pen.one_of(6) {
        0 => format!("SELECT a{} FROM z WHERE a > 0", ", NULL".repeat(names.len() - 1)),
        1 => format!("VALUES {} ORDER BY 1 LIMIT 1", rows.join(", ").replace("DEFAULT", "NULL")),
        _ => format!("VALUES {}", rows.join(", ")),
    };
    let conflict = match name {
        "k" => pen.pick(&[
            "",
            " ON CONFLICT DO NOTHING",
            " ON CONFLICT (a) DO UPDATE SET c = excluded.c",
            " ON CONFLICT (a) DO UPDATE SET b = k.b + 1, c = 'new'",
            " ON CONFLICT (a) DO UPDATE SET a = 50, b = excluded.b WHERE k.b > 0 OR k.b IS NULL",
            " ON CONFLICT (a) DO UPDATE SET a = excluded.a, (b, c) = (1, excluded.c)",
            " ON CONFLICT ON CONSTRAINT k_a_key DO UPDATE SET c = excluded.c, b = DEFAULT RETURNING a = 1",
        ]),
        _ => "",
    };
    match pen.one_of(5) {
        0 => format!("INSERT INTO {name} VALUES ({}, {}){conflict}", pen.one_of(100), pen.constant(Type::Integer)),
        1 => format!("INSERT INTO {name} AS {name} ({list}) {source}{conflict}"),
        _ => format!("INSERT INTO {name} ({list}) {source}{conflict}"),
    }
}

fn merge(pen: &mut Pen) -> String {
    let (one, other) = (pen.constant(Type::Integer), pen.constant(Type::Integer));
    let matched = pen.pick(&["UPDATE SET b = 9", "UPDATE SET b = z.h", "DELETE", "DO NOTHING"]);
    format!(
        "MERGE INTO k USING z ON k.a = z.a AND z.h = {one} WHEN MATCHED AND k.a = {other} THEN {matched} \
         WHEN NOT MATCHED AND z.a > 90 THEN INSERT (a) VALUES (z.a)"
    )
}

/// Something to put into a column.
fn assigned(pen: &mut Pen, column: &str, kind: Type) -> String {
    match pen.one_of(9) {
        0 => "DEFAULT".into(),
        1 => "NULL".into(),
        2 => column.to_owned(),
        3 if kind.is_integer() => pen.pick(&["1 + 1", "-(1)", "1 - 2", "abs(-2)", "(SELECT 2)"]).into(),
        4 if kind == Type::Integer => format!("{column} + 1"),
        _ => pen.constant(kind),
    }
}

/// The same in a new row, which has no old values.
fn inserted(pen: &mut Pen, column: &str, kind: Type) -> String {
    let value = assigned(pen, column, kind);
    if value.starts_with(column) { pen.constant(kind) } else { value }
}
