//! The reads, and what their answers say.

use rand::Rng;
use rand::rngs::StdRng;

use super::cells::{Cell, EACH, Family};
use super::connection::{Param, Request, Row};
use super::facts::Fact;
use super::schema::{MONEY, OWNERS, STEP, STOCK};

type Decode = Box<dyn Fn(&[Row]) -> Vec<Fact> + Send + Sync>;

pub struct Read {
    pub request: Request,
    decode: Decode,
}

impl Read {
    pub fn facts(&self, rows: &[Row]) -> Vec<Fact> {
        (self.decode)(rows)
    }
}

/// Reads that [`make`] knows of each family.
pub const EACH_FAMILY: usize = 8;

/// A random read of a family.
pub fn pick(rng: &mut StdRng, family: Family) -> Read {
    let which = rng.random_range(0..EACH_FAMILY);
    make(family, which, rng.random_range(0..EACH))
}

/// One of the reads of a family, about the cell `id` where it is about one.
pub fn make(family: Family, which: usize, id: i64) -> Read {
    match family {
        Family::Point => point(which, id),
        Family::Pair => twins("pair_a", "pair_b", family, which, id),
        Family::Trigger => twins("trigger_src", "trigger_dst", family, which, id),
        Family::Rule => twins("rule_src", "rule_dst", family, which, id),
        Family::Account => account(which, id),
        Family::Move => moved(which, id),
        Family::Half => half(which, id),
        Family::Stock => counted("stock", family, which, id),
        Family::Log => counted("log", family, which, id),
        Family::Cascade => cascade(which, id),
        Family::Toggle => toggle(which, id),
        Family::Part => part(which, id),
        Family::Inherit => inherit(which, id),
        Family::Staged => staged(which, id),
        Family::Function => read("SELECT stamp()", &[], |rows| match rows {
            [row] => vec![Fact::Value(Family::Function.cell(0), row[0])],
            _ => vec![odd(rows)],
        }),
    }
}

fn point(which: usize, id: i64) -> Read {
    let family = Family::Point;
    match which {
        0 => read("SELECT id, v FROM point WHERE id = $1", &[id], values(family, vec![id])),
        1 => {
            let ids = three(id);
            read("SELECT id, v FROM point WHERE id IN ($1, $2, $3)", &ids.clone(), values(family, ids))
        }
        2 => {
            let ids = three(id);
            let list = Param::List(ids.iter().map(|&id| id as i32).collect());
            let sql = "SELECT id, v FROM point WHERE id = ANY($1)";
            Read { request: Request::new(sql, vec![list]), decode: Box::new(values(family, ids)) }
        }
        3 => {
            let ids: Vec<_> = (0..EACH).filter(|other| (id..=id + 2).contains(other)).collect();
            let sql = "SELECT id, v FROM point WHERE id BETWEEN $1 AND $2 ORDER BY id";
            read(sql, &[id, id + 2], values(family, ids))
        }
        4 => read("SELECT count(*), sum(v)::int8, max(v) FROM point WHERE id >= $1", &[id], move |rows| {
            let [row] = rows else { return vec![odd(rows)] };
            let cells: Vec<_> = family.cells().filter(|cell| cell.id >= id).collect();
            if row[0] != cells.len() as i64 || row[2] > row[1] {
                return vec![odd(rows)];
            }
            vec![Fact::Sum { cells, total: row[1] }]
        }),
        5 => read("SELECT id, v FROM point_view WHERE id = $1", &[id], values(family, vec![id])),
        6 => {
            let sql = "SELECT p.v, a.v, b.v FROM point p JOIN pair_a a ON a.id = p.id LEFT JOIN pair_b b ON b.id = a.id
                       WHERE p.id = $1";
            read(sql, &[id], move |rows| match rows {
                [row] => {
                    let pair = Family::Pair.cell(id);
                    vec![Fact::Value(family.cell(id), row[0]), Fact::Value(pair, row[1]), Fact::Value(pair, row[2])]
                }
                _ => vec![odd(rows)],
            })
        }
        _ => read("SELECT id, v FROM point", &[], values(family, (0..EACH).collect())),
    }
}

/// Two tables that show the same cells.
fn twins(one: &str, other: &str, family: Family, which: usize, id: i64) -> Read {
    match which {
        0 => read(&format!("SELECT id, v FROM {one} WHERE id = $1"), &[id], values(family, vec![id])),
        1 | 2 => read(&format!("SELECT id, v FROM {other} WHERE id = $1"), &[id], values(family, vec![id])),
        3 => read(&format!("SELECT id, v FROM {other}"), &[], values(family, (0..EACH).collect())),
        4 => {
            let sql = format!("SELECT a.id, a.v, b.v FROM {one} a JOIN {other} b ON a.id = b.id WHERE a.id = $1");
            read(&sql, &[id], values(family, vec![id]))
        }
        5 => {
            let sql = format!("SELECT id, v FROM {one} UNION ALL SELECT id, v FROM {other}");
            read(&sql, &[], values(family, (0..EACH).chain(0..EACH).collect()))
        }
        6 => read(&format!("SELECT a.v, (SELECT v FROM {other} WHERE id = $1) FROM {one} a WHERE id = $1"), &[id], {
            move |rows| match rows {
                [row] => row.iter().map(|&value| Fact::Value(family.cell(id), value)).collect(),
                _ => vec![odd(rows)],
            }
        }),
        _ => {
            let sql = format!("SELECT a.id, a.v, b.v FROM {one} a JOIN {other} b USING (id) WHERE a.v <> b.v");
            read(&sql, &[], |rows| rows.iter().map(|row| Fact::Impossible(format!("unequal twins {row:?}"))).collect())
        }
    }
}

fn account(which: usize, id: i64) -> Read {
    let family = Family::Account;
    match which {
        0..3 => read("SELECT id, v FROM account WHERE id = $1", &[id], values(family, vec![id])),
        3..6 => read("SELECT count(*), sum(balance)::int8, sum(v)::int8 FROM account", &[], move |rows| {
            let [row] = rows else { return vec![odd(rows)] };
            let mut facts = vec![Fact::Sum { cells: family.cells().collect(), total: row[2] }];
            if row[0] != EACH || row[1] != MONEY {
                facts.push(Fact::Impossible(format!("{} accounts hold {}, not {MONEY}", row[0], row[1])));
            }
            facts
        }),
        _ => read("SELECT id, v, balance FROM account ORDER BY id", &[], move |rows| {
            let total: i64 = rows.iter().map(|row| row[2]).sum();
            let shown: Vec<_> = rows.iter().map(|row| row[..2].to_vec()).collect();
            let mut facts = values(family, (0..EACH).collect())(&shown);
            if total != MONEY {
                facts.push(Fact::Impossible(format!("the accounts hold {total}, not {MONEY}: {rows:?}")));
            }
            facts
        }),
    }
}

fn moved(which: usize, id: i64) -> Read {
    let family = Family::Move;
    let owner = id % OWNERS;
    match which {
        0..3 => read("SELECT id, v FROM move WHERE owner = $1", &[owner], members(family, OWNERS, owner)),
        3 => read("SELECT count(*) FROM move WHERE owner = $1", &[owner], move |rows| match rows {
            [row] => {
                let cells = family.cells().collect();
                vec![Fact::Count { cells, modulus: OWNERS, residue: owner, count: row[0] }]
            }
            _ => vec![odd(rows)],
        }),
        4 => read("SELECT id, v FROM move WHERE id = $1", &[id], values(family, vec![id])),
        5 => {
            let sql = "SELECT id, v, owner FROM move WHERE owner IN (0, 1, 2) AND id = $1";
            read(sql, &[id], move |rows| match rows {
                [row] if row[0] == id && row[2] == row[1] % OWNERS => vec![Fact::Value(family.cell(id), row[1])],
                _ => vec![odd(rows)],
            })
        }
        6 => {
            let list = vec![Param::List(vec![0, 1, 2])];
            let sql = "SELECT id, v FROM move WHERE owner = ANY($1)";
            Read { request: Request::new(sql, list), decode: Box::new(values(family, (0..EACH).collect())) }
        }
        _ => read("SELECT m.id, m.v FROM move m JOIN point p ON p.id = m.id WHERE m.owner = $1", &[owner], {
            members(family, OWNERS, owner)
        }),
    }
}

fn half(which: usize, id: i64) -> Read {
    let family = Family::Half;
    let both = "SELECT id, v FROM half_even UNION ALL SELECT id, v FROM half_odd";
    match which {
        0 | 1 => read("SELECT id, v FROM half_even", &[], members(family, 2, 0)),
        2 | 3 => read("SELECT id, v FROM half_odd", &[], members(family, 2, 1)),
        4 | 5 => read(both, &[], values(family, (0..EACH).collect())),
        6 => read(&format!("SELECT id, v FROM ({both}) h WHERE id = $1"), &[id], values(family, vec![id])),
        _ => read("SELECT count(*) FROM half_odd", &[], move |rows| match rows {
            [row] => vec![Fact::Count { cells: family.cells().collect(), modulus: 2, residue: 1, count: row[0] }],
            _ => vec![odd(rows)],
        }),
    }
}

/// Tables whose number of rows in a bucket is what counts.
fn counted(table: &str, family: Family, which: usize, id: i64) -> Read {
    let value = move |count: i64| if family == Family::Stock { STOCK - count } else { count };
    match which {
        0..4 => read(&format!("SELECT count(*) FROM {table} WHERE bucket = $1"), &[id], move |rows| match rows {
            [row] => vec![Fact::Value(family.cell(id), value(row[0]))],
            _ => vec![odd(rows)],
        }),
        4 | 5 => read(&format!("SELECT bucket FROM {table} WHERE bucket = $1"), &[id], move |rows| {
            vec![Fact::Value(family.cell(id), value(rows.len() as i64))]
        }),
        _ => read(&format!("SELECT bucket, count(*) FROM {table} GROUP BY bucket"), &[], move |rows| {
            let count = |id| rows.iter().find(|row| row[0] == id).map_or(0, |row| row[1]);
            family.cells().map(|cell| Fact::Value(cell, value(count(cell.id)))).collect()
        }),
    }
}

fn cascade(which: usize, id: i64) -> Read {
    let shows = move |rows: &[Row]| match rows {
        [row] if row.iter().all(|pk| pk % STEP == id) => {
            row.iter().map(|pk| Fact::Value(Family::Cascade.cell(id), pk / STEP)).collect()
        }
        _ => vec![odd(rows)],
    };
    match which {
        0..4 => read("SELECT pk FROM cascade_child WHERE slot = $1", &[id], shows),
        4 => read("SELECT pk FROM cascade_parent WHERE slot = $1", &[id], shows),
        5 => read(
            "SELECT p.pk, c.pk FROM cascade_parent p JOIN cascade_child c USING (slot) WHERE slot = $1",
            &[id],
            shows,
        ),
        6 => read("SELECT c.pk FROM cascade_parent p JOIN cascade_child c USING (pk) WHERE p.slot = $1", &[id], shows),
        _ => read("SELECT slot, pk / 10 FROM cascade_child", &[], values(Family::Cascade, (0..EACH).collect())),
    }
}

fn toggle(which: usize, id: i64) -> Read {
    let family = Family::Toggle;
    match which {
        0..3 => read("SELECT id FROM toggle_owned", &[], move |rows| {
            let is_there = |cell: Cell| rows.iter().any(|row| row[0] == cell.id);
            family
                .cells()
                .map(|cell| Fact::Residue { cell, modulus: 2, residue: 1, is: is_there(cell) })
                .chain((rows.len() > EACH as usize).then(|| odd(rows)))
                .collect()
        }),
        3 | 4 => read("SELECT count(*) FROM toggle_owned WHERE id = $1", &[id], move |rows| match rows {
            [row] if row[0] <= 1 => {
                vec![Fact::Residue { cell: family.cell(id), modulus: 2, residue: 1, is: row[0] == 1 }]
            }
            _ => vec![odd(rows)],
        }),
        5 => read("SELECT id, v FROM toggle WHERE id = $1", &[id], values(family, vec![id])),
        _ => {
            let sql = "SELECT t.v, count(o.id) FROM toggle t LEFT JOIN toggle_owned o ON o.id = t.id WHERE t.id = $1
                       GROUP BY t.v";
            read(sql, &[id], move |rows| match rows {
                [row] if row[1] == row[0] % 2 => vec![Fact::Value(family.cell(id), row[0])],
                _ => vec![odd(rows)],
            })
        }
    }
}

fn part(which: usize, id: i64) -> Read {
    let family = Family::Part;
    match which {
        0 | 1 => read("SELECT id, v FROM part WHERE id = $1", &[id], values(family, vec![id])),
        2 => read("SELECT id, v FROM part WHERE region = $1", &[id % 2], members(family, 2, id % 2)),
        3 => read("SELECT id, v FROM part_even", &[], members(family, 2, 0)),
        4 => read("SELECT id, v FROM part_odd", &[], members(family, 2, 1)),
        5 => read("SELECT count(*), sum(v)::int8 FROM part", &[], move |rows| match rows {
            [row] if row[0] == EACH => vec![Fact::Sum { cells: family.cells().collect(), total: row[1] }],
            _ => vec![odd(rows)],
        }),
        _ => read("SELECT id, v FROM part", &[], values(family, (0..EACH).collect())),
    }
}

fn inherit(which: usize, id: i64) -> Read {
    let family = Family::Inherit;
    match which {
        0..3 => read("SELECT id, v FROM base WHERE id = $1", &[id], values(family, vec![id])),
        3 => read("SELECT id, v FROM ONLY base", &[], values(family, vec![0, 1, 2])),
        4 | 5 => read("SELECT id, v FROM derived", &[], values(family, vec![3, 4, 5])),
        _ => read("SELECT id, v FROM base", &[], values(family, (0..EACH).collect())),
    }
}

fn staged(which: usize, id: i64) -> Read {
    let (table, column) = match id {
        0 => ("truncated", "s.v"),
        1 => ("swap", "s.v"),
        2 => ("shown", "s.definition"),
        _ => ("refreshed", "s.v"),
    };
    let id = id.min(3);
    let rows_expected = if id == 0 { 3 } else { 1 };
    let sql = if which < 5 {
        format!("SELECT {column} FROM {table} s")
    } else {
        format!("SELECT {column}, c.v FROM {table} s, control c WHERE c.id = {id}")
    };
    read(&sql, &[], move |rows| {
        if rows.len() != rows_expected {
            return vec![odd(rows)];
        }
        rows.iter().flatten().map(|&value| Fact::Value(Family::Staged.cell(id), value)).collect()
    })
}

fn read(sql: &str, ids: &[i64], decode: impl Fn(&[Row]) -> Vec<Fact> + Send + Sync + 'static) -> Read {
    let params = ids.iter().map(|&id| Param::Int(id as i32)).collect();
    Read { request: Request::new(sql, params), decode: Box::new(decode) }
}

fn three(id: i64) -> Vec<i64> {
    let mut ids = vec![id, (id + 1) % EACH, (id + 3) % EACH];
    ids.sort_unstable();
    ids
}

fn odd(rows: &[Row]) -> Fact {
    Fact::Impossible(format!("no state of the tables gives these rows: {rows:?}"))
}

/// Rows of an id and one or more values of its cell: just the rows of `ids`.
fn values(family: Family, mut ids: Vec<i64>) -> impl Fn(&[Row]) -> Vec<Fact> + Send + Sync + 'static {
    ids.sort_unstable();
    move |rows| {
        let mut found: Vec<_> = rows.iter().map(|row| row[0]).collect();
        found.sort_unstable();
        if found != ids {
            return vec![odd(rows)];
        }
        let shown = rows.iter().flat_map(|row| row[1..].iter().map(|&value| (row[0], value)));
        shown.map(|(id, value)| Fact::Value(family.cell(id), value)).collect()
    }
}

/// Rows of an id and its value: just those cells whose value modulo `modulus` is `residue`.
fn members(family: Family, modulus: i64, residue: i64) -> impl Fn(&[Row]) -> Vec<Fact> + Send + Sync + 'static {
    move |rows| {
        let mut facts = Vec::new();
        for cell in family.cells() {
            let mut its_rows = rows.iter().filter(|row| row[0] == cell.id);
            let row = its_rows.next();
            facts.push(Fact::Residue { cell, modulus, residue, is: row.is_some() });
            facts.extend(row.map(|row| Fact::Value(cell, row[1])));
            facts.extend(its_rows.next().map(|_| odd(rows)));
        }
        facts
    }
}
