//! The tables of these tests and what is in them.

use rand::Rng;
use rand::seq::IndexedRandom;

use super::constants::{Pen, Type};

pub struct Table {
    pub name: &'static str,
    /// The first numbers the rows; only an INSERT that lists no columns gives it a value.
    pub columns: &'static [(&'static str, Type)],
}

use Type::{Bigint, Boolean, Char, Date, Integer, Numeric, Smallint, Text, Varchar};

/// All have a column `a`. `k` has it unique and `r` refers to it; `wc` inherits from `w`.
pub const TABLES: &[Table] = &[
    Table { name: "t", columns: &[("tid", Integer), ("a", Integer), ("b", Bigint), ("c", Text), ("f", Boolean)] },
    Table { name: "u", columns: &[("uid", Integer), ("a", Integer), ("d", Date), ("e", Varchar)] },
    Table { name: "w", columns: &[("wid", Integer), ("a", Integer), ("g", Smallint)] },
    Table { name: "wc", columns: &[("wid", Integer), ("a", Integer), ("g", Smallint)] },
    Table { name: "z", columns: &[("zid", Integer), ("a", Integer), ("h", Integer)] },
    Table { name: "k", columns: &[("kid", Integer), ("a", Integer), ("b", Integer), ("c", Text)] },
    Table { name: "r", columns: &[("rid", Integer), ("a", Integer), ("m", Integer)] },
    Table { name: "o", columns: &[("nid", Integer), ("a", Integer), ("n", Numeric), ("p", Char)] },
];

pub const SETUP: &str = "CREATE SEQUENCE ids START 1000;
    CREATE TABLE t (tid int DEFAULT nextval('ids'), a int, b bigint, c text, f bool);
    CREATE TABLE u (uid int DEFAULT nextval('ids'), a int, d date, e varchar(2));
    CREATE TABLE w (wid int DEFAULT nextval('ids'), a int, g smallint);
    CREATE TABLE wc () INHERITS (w);
    CREATE TABLE z (zid int DEFAULT nextval('ids'), a int, h int);
    CREATE TABLE k (kid int DEFAULT nextval('ids'), a int UNIQUE, b int DEFAULT 7, c text);
    CREATE TABLE r (rid int DEFAULT nextval('ids'), a int REFERENCES k (a) ON UPDATE CASCADE ON DELETE SET NULL, m int);
    CREATE TABLE o (nid int DEFAULT nextval('ids'), a int, n numeric, p char(3))";

/// Any table but the one that only sub-selects read.
pub fn some_table(pen: &mut Pen) -> &'static Table {
    loop {
        let table = TABLES.choose(&mut pen.rng).expect("not empty");
        if table.name != "z" {
            return table;
        }
    }
}

/// Other rows in all tables.
pub fn fill(pen: &mut Pen) -> String {
    let mut sql =
        "DELETE FROM r; DELETE FROM k; DELETE FROM t; DELETE FROM u; DELETE FROM w; DELETE FROM z; DELETE FROM o;"
            .to_owned();
    for table in TABLES {
        for id in 0..pen.rng.random_range(3..9) {
            let values: Vec<String> = table.columns[1..].iter().map(|&(_, kind)| pen.stored(kind)).collect();
            let source = match table.name {
                "r" => format!("SELECT {id}, k.a, {} FROM k WHERE k.a = {}", values[1], values[0]),
                _ => format!("VALUES ({id}, {})", values.join(", ")),
            };
            let ignore = if table.name == "k" { " ON CONFLICT DO NOTHING" } else { "" };
            sql += &format!("INSERT INTO {} {source}{ignore};", table.name);
        }
    }
    sql
}
