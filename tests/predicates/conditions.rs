//! Random conditions, with all that is near to an equality with a constant and is none.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::constants::{Pen, Type};
use super::tables::Table;

/// A column as it may be written, and its type.
pub type Column = (String, Type);

/// The columns of a table that is called `visible`, qualified or not.
pub fn columns(pen: &mut Pen, table: &Table, visible: &str, alone: bool) -> Vec<Column> {
    let spell = |pen: &mut Pen, column: &str| match pen.one_of(8) {
        0 => column.to_owned(),
        1..=3 if alone => column.to_owned(),
        4 if visible == table.name => format!("public.{visible}.{column}"),
        5 => format!("{}.\"{column}\"", visible.to_uppercase()),
        _ => format!("{visible}.{column}"),
    };
    table.columns.iter().map(|&(column, kind)| (spell(pen, column), kind)).collect()
}

/// A conjunction that most likely has equalities with constants in it.
pub fn pinning(pen: &mut Pen, columns: &[Column]) -> String {
    let depth = pen.one_of(3);
    let other = condition(pen, columns, depth);
    let equality = equality(pen, columns);
    match pen.one_of(8) {
        0 => other,
        1 => format!("{other} AND {equality}"),
        2 => format!("({other}) AND ({equality})"),
        3 => format!("{equality} AND ({other})"),
        4 => format!("({equality} AND {other})"),
        _ => equality,
    }
}

/// A boolean expression over these columns.
pub fn condition(pen: &mut Pen, columns: &[Column], depth: u32) -> String {
    if depth == 0 {
        return leaf(pen, columns);
    }
    let mut operand = || condition(pen, columns, depth - 1);
    let (one, other) = (operand(), operand());
    match pen.one_of(12) {
        0..=3 => format!("{one} AND {other}"),
        4 | 5 => format!("{one} OR {other}"),
        6 => format!("NOT {one}"),
        7 | 8 => format!("({one})"),
        9 => format!("CASE WHEN {one} THEN {other} ELSE true END"),
        10 => format!("({one}) {}", pen.pick(&["IS TRUE", "IS NOT TRUE", "= false", "IS NOT NULL"])),
        _ => leaf(pen, columns),
    }
}

fn equality(pen: &mut Pen, columns: &[Column]) -> String {
    let (column, kind) = columns.choose(&mut pen.rng).expect("not empty").clone();
    let one = pen.constant(kind);
    match pen.one_of(12) {
        0 => format!("{one} = {column}"),
        1 | 2 => format!("{column} IN ({one}, {})", pen.constant(kind)),
        3 => format!("{column} IN ({one}, NULL)"),
        4 | 5 => format!("{column} = ANY({})", pen.array(kind)),
        6 => format!("({column} = {one})"),
        7 if kind == Type::Boolean => column,
        _ => format!("{column} = {one}"),
    }
}

/// What is no pin, or none of what it looks like.
fn leaf(pen: &mut Pen, columns: &[Column]) -> String {
    if pen.rng.random_bool(0.4) {
        return equality(pen, columns);
    }
    let integers: Vec<&Column> = columns.iter().filter(|column| column.1.is_integer()).collect();
    let mut integer = || integers.choose(&mut pen.rng).map_or("1".to_owned(), |column| column.0.clone());
    let (x, y) = (integer(), integer());
    let one = pen.constant(Type::Integer);
    match pen.one_of(24) {
        0 => format!("{x} = {one} + 1"),
        1 => format!("{x} = - {y}"),
        2 => format!("{x} <> {one}"),
        3 => format!("{x} BETWEEN {one} AND 2"),
        4 => format!("{x} NOT BETWEEN SYMMETRIC {y} AND {one}"),
        5 => format!("{x} IS NULL"),
        6 => format!("{x} = {one} IS NOT TRUE"),
        7 => format!("{x} IS NOT DISTINCT FROM {one}"),
        8 => format!("{x} = {y}"),
        9 => format!("coalesce({x}, 1) = {one}"),
        10 => format!("{x} NOT IN ({one}, 2)"),
        11 => format!("{x} IN ({one}, {y})"),
        12 => format!("{x} = NULL"),
        13 => format!("{x} = ALL(ARRAY[{one}])"),
        14 => format!("EXISTS (SELECT 1 FROM z WHERE {x} = z.a AND h = {one})"),
        15 => format!("(SELECT count(*) > 1 AND {x} = {one} AND {y} = 1 FROM z)"),
        16 => format!("{x} IN (SELECT h FROM z WHERE z.a = {one})"),
        17 => format!("({x}, {y}) = ({one}, 1)"),
        18 => format!("{x} = {one} = true"),
        19 => format!("({x} = {one}) = ({y} = {one})"),
        20 => format!("{x} > CASE WHEN {y} = 1 AND {x} = {one} THEN 0 ELSE 2 END"),
        21 => format!("{x} = {one} /* OR */ -- = 2\n"),
        22 => format!("EXISTS (SELECT FROM t WHERE t.a = {one} AND {x} = 1)"),
        _ => format!("{x} BETWEEN 0 AND CASE WHEN {y} = {one} AND {x} = 1 THEN 0 ELSE 2 END"),
    }
}
