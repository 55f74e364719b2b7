//! The writes, and what each adds to which cells.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::cells::{Adds, EACH, Family, add};
use super::connection::{Answer, Param, Request};

/// A write of one kind: one statement, or several that belong together in a transaction.
pub struct Write {
    pub kind: &'static str,
    pub steps: Vec<Step>,
    pub place: Place,
}

/// Where a write may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// By itself, or in a transaction block.
    Anywhere,
    /// Its later steps contain `{v}`, which stands for the value that the first one returned: only in a transaction block.
    InBlock,
    /// It commits on its own, perhaps half of it.
    Alone,
}

pub struct Step {
    pub request: Request,
    /// What it adds if it succeeds, at most.
    pub adds: Adds,
    pub effect: Effect,
}

/// How much of what a step may add it has added.
pub enum Effect {
    /// All of it.
    All,
    /// To its only cell: this much for each row that the command tag counts.
    PerRow(i64),
    /// As much as was returned.
    AsReturned,
    /// 1 to each cell whose id was returned.
    Returned(Family),
}

impl Step {
    /// What it has added, going by its answer.
    pub fn added(&self, answer: &Answer) -> Adds {
        match self.effect {
            Effect::All => self.adds.clone(),
            Effect::PerRow(amount) => {
                let rows = answer.affected.unwrap_or_default();
                self.adds.keys().map(|&cell| (cell, rows * amount)).collect()
            }
            Effect::AsReturned => {
                self.adds.keys().map(|&cell| (cell, answer.rows.iter().map(|row| row[0]).sum())).collect()
            }
            Effect::Returned(family) => answer.rows.iter().map(|row| (family.cell(row[0]), 1)).collect(),
        }
    }
}

impl Write {
    /// The most that it can add.
    pub fn adds(&self) -> Adds {
        let mut adds = Adds::new();
        self.steps.iter().for_each(|step| add(&mut adds, &step.adds));
        adds
    }
}

type Make = fn(&'static str, i64, &mut StdRng) -> Write;

/// Every kind of write: its name, what it writes, how often compared with others, and how it is made for a cell.
const KINDS: &[(&str, Family, u32, Make)] = &[
    ("update by key", Family::Point, 8, |kind, id, _| {
        one(kind, Family::Point, id, "UPDATE point SET v = v + 1 WHERE id = $1")
    }),
    ("update by range", Family::Point, 3, |kind, id, _| {
        let cells = Family::Point.cells().filter(|cell| (id..=id + 2).contains(&cell.id));
        let params = [Param::Int(id as i32), Param::Int(id as i32 + 2)];
        let sql = "UPDATE point SET v = v + 1 WHERE id BETWEEN $1 AND $2";
        single(kind, sql, &params, cells.map(|cell| (cell, 1)).collect(), Effect::All)
    }),
    ("upsert", Family::Point, 3, |kind, id, _| {
        let other = (id + 1) % EACH;
        let adds = Adds::from([(Family::Point.cell(id), 1), (Family::Point.cell(other), 1)]);
        let sql = "INSERT INTO point (id, v) VALUES ($1, 0), ($2, 0) ON CONFLICT (id) DO UPDATE SET v = point.v + 1";
        single(kind, sql, &[Param::Int(id as i32), Param::Int(other as i32)], adds, Effect::All)
    }),
    ("merge", Family::Point, 3, |kind, id, _| {
        let sql = "MERGE INTO point p USING (SELECT $1::int4 AS id) s ON p.id = s.id
                   WHEN MATCHED THEN UPDATE SET v = p.v + 1 WHEN NOT MATCHED THEN INSERT (id, v) VALUES (s.id, 0)";
        one(kind, Family::Point, id, sql)
    }),
    ("view", Family::Point, 3, |kind, id, _| {
        one(kind, Family::Point, id, "UPDATE point_view SET v = v + 1 WHERE id = $1")
    }),
    ("select that updates", Family::Point, 3, |kind, id, _| {
        let sql = "WITH w AS (UPDATE point SET v = v + 1 WHERE id = $1 RETURNING id) SELECT id FROM w";
        let adds = Adds::from([(Family::Point.cell(id), 1)]);
        single(kind, sql, &[Param::Int(id as i32)], adds, Effect::Returned(Family::Point))
    }),
    ("function", Family::Point, 2, |kind, id, _| all(kind, Family::Point, id, 1, "SELECT add_one($1)")),
    ("do", Family::Point, 1, |kind, id, _| {
        let sql = format!("DO 'BEGIN UPDATE point SET v = v + 1 WHERE id = {id}; END'");
        literal(kind, Family::Point, id, 1, &[&sql])
    }),
    ("call", Family::Point, 1, |kind, id, _| Write {
        place: Place::Alone,
        ..literal(kind, Family::Point, id, 2, &[&format!("CALL add_twice({id})")])
    }),
    ("execute", Family::Point, 2, |kind, id, _| {
        literal(kind, Family::Point, id, 1, &[&format!("EXECUTE add_prepared({id})")])
    }),
    ("pair", Family::Pair, 4, |kind, id, _| {
        let second = "UPDATE pair_b SET v = v + 1 WHERE id = $1";
        steps(kind, Family::Pair, id, &["UPDATE pair_a SET v = v + 1 WHERE id = $1", second])
    }),
    ("pair in one statement", Family::Pair, 3, |kind, id, _| {
        let sql = "WITH x AS (UPDATE pair_a SET v = v + 1 WHERE id = $1 RETURNING id)
                   UPDATE pair_b b SET v = b.v + 1 FROM x WHERE b.id = x.id";
        one(kind, Family::Pair, id, sql)
    }),
    ("transfer", Family::Account, 4, |kind, id, rng| {
        let (other, amount) = ((id + rng.random_range(1..EACH)) % EACH, rng.random_range(1..20));
        let step = |id: i64, amount: i32| {
            let sql = "UPDATE account SET balance = balance + $2, v = v + 1 WHERE id = $1";
            let adds = Adds::from([(Family::Account.cell(id), 1)]);
            Step {
                request: Request::new(sql, vec![Param::Int(id as i32), Param::Int(amount)]),
                adds,
                effect: Effect::PerRow(1),
            }
        };
        Write { kind, steps: vec![step(id, -amount), step(other, amount)], place: Place::Anywhere }
    }),
    ("transfer in one statement", Family::Account, 3, |kind, id, rng| {
        let other = (id + rng.random_range(1..EACH)) % EACH;
        let sql =
            "UPDATE account SET v = v + 1, balance = balance + CASE id WHEN $1 THEN -7 ELSE 7 END WHERE id IN ($1, $2)";
        let adds = [id, other].map(|id| (Family::Account.cell(id), 1)).into();
        single(kind, sql, &[Param::Int(id as i32), Param::Int(other as i32)], adds, Effect::All)
    }),
    ("key change", Family::Move, 6, |kind, id, _| {
        one(kind, Family::Move, id, "UPDATE move SET v = v + 1, owner = (v + 1) % 3 WHERE id = $1")
    }),
    ("key change by key", Family::Move, 4, |kind, id, _| {
        let sql = "UPDATE move SET v = v + 1, owner = (v + 1) % 3 WHERE owner = $1 RETURNING id";
        let adds = Family::Move.cells().map(|cell| (cell, 1)).collect();
        single(kind, sql, &[Param::Int((id % 3) as i32)], adds, Effect::Returned(Family::Move))
    }),
    ("delete and insert", Family::Half, 6, |kind, id, rng| {
        let mut tables = ["half_even", "half_odd"];
        if rng.random() {
            tables.reverse();
        }
        let sql = format!(
            "WITH gone AS (DELETE FROM {} WHERE id = $1 RETURNING id, v) INSERT INTO {} SELECT id, v + 1 FROM gone",
            tables[0], tables[1]
        );
        one(kind, Family::Half, id, &sql)
    }),
    ("delete", Family::Stock, 6, |kind, id, rng| {
        let first = rng.random_range(1..300);
        let sql = "DELETE FROM stock WHERE bucket = $1 AND n BETWEEN $2 AND $3";
        let params = [Param::Int(id as i32), Param::Int(first), Param::Int(first + 1)];
        single(kind, sql, &params, Adds::from([(Family::Stock.cell(id), 2)]), Effect::PerRow(1))
    }),
    ("insert", Family::Log, 4, |kind, id, _| {
        let other = (id + 1) % EACH;
        let adds = Adds::from([(Family::Log.cell(id), 2), (Family::Log.cell(other), 1)]);
        let params = [Param::Int(id as i32), Param::Int(other as i32)];
        single(kind, "INSERT INTO log VALUES ($1), ($2), ($1)", &params, adds, Effect::All)
    }),
    ("insert select", Family::Log, 2, |kind, id, _| {
        all(kind, Family::Log, id, 3, "INSERT INTO log SELECT $1::int4 FROM generate_series(1, 3)")
    }),
    ("feed", Family::Log, 4, |kind, id, _| {
        let sql = "UPDATE feed SET fed = 0 WHERE bucket = $1 RETURNING fed";
        single(kind, sql, &[Param::Int(id as i32)], Adds::from([(Family::Log.cell(id), 1)]), Effect::AsReturned)
    }),
    ("add or drop trigger", Family::Log, 2, |kind, _, rng| {
        let sql = [
            "CREATE OR REPLACE TRIGGER feeding BEFORE UPDATE ON feed FOR EACH ROW EXECUTE FUNCTION feed_log()",
            "DROP TRIGGER IF EXISTS feeding ON feed",
        ];
        single(kind, sql.choose(rng).unwrap(), &[], Adds::new(), Effect::All)
    }),
    ("copy", Family::Log, 3, |kind, id, _| {
        let mut write = literal(kind, Family::Log, id, 2, &["COPY log FROM STDIN"]);
        write.steps[0].request.copy = Some(format!("{id}\n{id}\n"));
        write
    }),
    ("trigger", Family::Trigger, 4, |kind, id, _| {
        one(kind, Family::Trigger, id, "UPDATE trigger_src SET v = v + 1 WHERE id = $1")
    }),
    ("rule", Family::Rule, 4, |kind, id, _| one(kind, Family::Rule, id, "UPDATE rule_src SET v = v + 1 WHERE id = $1")),
    ("cascade update", Family::Cascade, 6, |kind, id, _| {
        one(kind, Family::Cascade, id, "UPDATE cascade_parent SET pk = pk + 10 WHERE slot = $1")
    }),
    ("cascade delete", Family::Toggle, 6, |kind, id, _| {
        let is = |parity| format!("(SELECT id FROM toggle WHERE id = {id} AND v % 2 = {parity})");
        literal(
            kind,
            Family::Toggle,
            id,
            1,
            &[
                &format!("UPDATE toggle SET v = v + 1 WHERE id = {id}"),
                &format!("DELETE FROM toggle_owner WHERE id IN {}", is(0)),
                &format!("INSERT INTO toggle_owner {}", is(1)),
                &format!("INSERT INTO toggle_owned {}", is(1)),
            ],
        )
    }),
    ("partition parent", Family::Part, 5, |kind, id, _| {
        one(kind, Family::Part, id, "UPDATE part SET v = v + 1, region = (v + 1) % 2 WHERE id = $1")
    }),
    ("partition", Family::Part, 5, |kind, id, rng| {
        let table = ["part_even", "part_odd"].choose(rng).unwrap();
        let adds = Adds::from([(Family::Part.cell(id), 2)]);
        let sql = format!("UPDATE {table} SET v = v + 2 WHERE id = $1");
        single(kind, &sql, &[Param::Int(id as i32)], adds, Effect::PerRow(2))
    }),
    ("inheritance parent", Family::Inherit, 4, |kind, id, _| {
        one(kind, Family::Inherit, id, "UPDATE base SET v = v + 1 WHERE id = $1")
    }),
    ("inheritance child", Family::Inherit, 4, |kind, id, _| {
        one(kind, Family::Inherit, id % 3 + 3, "UPDATE derived SET v = v + 1 WHERE id = $1")
    }),
    ("truncate", Family::Staged, 2, |kind, _, _| {
        let refill = "INSERT INTO truncated SELECT v FROM control, generate_series(1, 3) WHERE id = 0";
        literal(kind, Family::Staged, 0, 1, &[&control(0), "TRUNCATE truncated", refill])
    }),
    ("rename", Family::Staged, 1, |kind, _, _| {
        literal(
            kind,
            Family::Staged,
            1,
            1,
            &[
                &control(1),
                "UPDATE swap_next SET v = (SELECT v FROM control WHERE id = 1)",
                "ALTER TABLE swap RENAME TO swap_old",
                "ALTER TABLE swap_next RENAME TO swap",
                "ALTER TABLE swap_old RENAME TO swap_next",
            ],
        )
    }),
    ("replace view", Family::Staged, 1, |kind, _, _| {
        let replace = "CREATE OR REPLACE VIEW shown AS SELECT v, {v} AS definition FROM control WHERE id = 2";
        Write { place: Place::InBlock, ..literal(kind, Family::Staged, 2, 1, &[&control(2), replace]) }
    }),
    ("refresh", Family::Staged, 2, |kind, _, _| {
        literal(kind, Family::Staged, 3, 1, &[&control(3), "REFRESH MATERIALIZED VIEW refreshed"])
    }),
    ("replace function", Family::Function, 1, |kind, _, _| {
        let replace = "CREATE OR REPLACE FUNCTION stamp() RETURNS int STABLE LANGUAGE sql AS 'SELECT {v}'";
        let control = "UPDATE stamp_control SET v = v + 1 WHERE id = 0 RETURNING v";
        Write { place: Place::InBlock, ..literal(kind, Family::Function, 0, 1, &[control, replace]) }
    }),
    ("add column", Family::Point, 1, |kind, _, rng| {
        let sql = [
            "ALTER TABLE point ADD COLUMN IF NOT EXISTS extra int DEFAULT 1",
            "ALTER TABLE point DROP COLUMN IF EXISTS extra",
        ];
        single(kind, sql.choose(rng).unwrap(), &[], Adds::new(), Effect::All)
    }),
    ("create index", Family::Move, 1, |kind, _, rng| {
        let sql = ["CREATE INDEX IF NOT EXISTS move_v ON move (v)", "DROP INDEX IF EXISTS move_v"];
        single(kind, sql.choose(rng).unwrap(), &[], Adds::new(), Effect::All)
    }),
];

/// Kinds of which the server does not say what they write before they have, and those that change definitions.
const LOUD: [&str; 15] = [
    "add or drop trigger",
    "function",
    "do",
    "call",
    "execute",
    "trigger",
    "rule",
    "cascade delete",
    "truncate",
    "rename",
    "replace view",
    "refresh",
    "replace function",
    "add column",
    "create index",
];

/// The names of all kinds.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, ..)| *name)
}

/// A random write of a family.
pub fn pick(rng: &mut StdRng, family: Family) -> Write {
    let of_family: Vec<_> = KINDS.iter().filter(|(_, its_family, ..)| *its_family == family).collect();
    let (kind, _, _, make) =
        of_family.choose_weighted(rng, |(_, _, weight, _)| *weight).expect("each family is written");
    make(kind, rng.random_range(0..EACH), rng)
}

impl Write {
    /// Whether it may make everything that is cached worthless.
    pub fn is_loud(&self) -> bool {
        LOUD.contains(&self.kind)
    }
}

/// The family that a kind of write belongs to.
pub fn family(kind: &str) -> Option<Family> {
    KINDS.iter().find(|(name, ..)| *name == kind).map(|(_, family, ..)| *family)
}

fn control(id: i64) -> String {
    format!("UPDATE control SET v = v + 1 WHERE id = {id} RETURNING v")
}

fn single(kind: &'static str, sql: &str, params: &[Param], adds: Adds, effect: Effect) -> Write {
    let step = Step { request: Request::new(sql, params.to_vec()), adds, effect };
    Write { kind, steps: vec![step], place: Place::Anywhere }
}

/// A statement that adds 1 to a cell for its row, if it still is where the statement looks for it.
fn one(kind: &'static str, family: Family, id: i64, sql: &str) -> Write {
    single(kind, sql, &[Param::Int(id as i32)], Adds::from([(family.cell(id), 1)]), Effect::PerRow(1))
}

/// A statement that adds as much to a cell whenever it succeeds.
fn all(kind: &'static str, family: Family, id: i64, amount: i64, sql: &str) -> Write {
    single(kind, sql, &[Param::Int(id as i32)], Adds::from([(family.cell(id), amount)]), Effect::All)
}

/// Statements about the cell `id` that add 1 to it when all of them succeed.
fn steps(kind: &'static str, family: Family, id: i64, statements: &[&str]) -> Write {
    let mut write = literal(kind, family, id, 1, statements);
    write.steps.iter_mut().for_each(|step| step.request.params = vec![Param::Int(id as i32)]);
    write
}

/// Statements without parameters that add as much to a cell when all of them succeed.
fn literal(kind: &'static str, family: Family, id: i64, amount: i64, statements: &[&str]) -> Write {
    let adds = |at| if at == 0 { Adds::from([(family.cell(id), amount)]) } else { Adds::new() };
    let step = |(at, sql): (usize, &&str)| Step {
        request: Request::new(sql, Vec::new()),
        adds: adds(at),
        effect: Effect::All,
    };
    Write { kind, steps: statements.iter().enumerate().map(step).collect(), place: Place::Anywhere }
}
