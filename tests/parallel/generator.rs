//! Tables and queries, drawn by a seed.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

pub struct Generator {
    rng: StdRng,
    /// Name and kind of each column that the table has now.
    columns: Vec<(String, Kind)>,
    next_column: usize,
    /// `t` has children that it does not put rows into.
    children: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Integer,
    Bigint,
    Numeric,
    Double,
    Text,
    Bytea,
    Date,
    Timestamp,
    Uuid,
    Bool,
    Array,
    Jsonb,
}

/// What `t` is partitioned by, if it is.
const KEY: &str = "pk";

const KINDS: [Kind; 12] = [
    Kind::Integer,
    Kind::Bigint,
    Kind::Numeric,
    Kind::Double,
    Kind::Text,
    Kind::Bytea,
    Kind::Date,
    Kind::Timestamp,
    Kind::Uuid,
    Kind::Bool,
    Kind::Array,
    Kind::Jsonb,
];

impl Kind {
    fn sql(self) -> &'static str {
        match self {
            Self::Integer => "int",
            Self::Bigint => "bigint",
            Self::Numeric => "numeric(20, 4)",
            Self::Double => "float8",
            Self::Text => "text",
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Timestamp => "timestamptz",
            Self::Uuid => "uuid",
            Self::Bool => "bool",
            Self::Array => "int[]",
            Self::Jsonb => "jsonb",
        }
    }

    /// A value computed from the integer `i`, with NULLs and special values among them.
    fn value(self) -> &'static str {
        match self {
            Self::Integer => "CASE WHEN i % 11 = 0 THEN NULL ELSE i END",
            Self::Bigint => "i::bigint * 4294967296 - 7",
            Self::Numeric => "CASE WHEN i % 13 = 0 THEN 'NaN' ELSE i / 7.0 END",
            Self::Double => "CASE i % 9 WHEN 0 THEN 'NaN' WHEN 1 THEN 'Infinity' WHEN 2 THEN '-0' ELSE sqrt(i) END",
            Self::Text => {
                "CASE WHEN i % 97 = 0 THEN repeat(md5(i::text), 300) WHEN i % 5 = 0 THEN NULL ELSE 'tëxt ' || i END"
            }
            Self::Bytea => "decode(md5(i::text), 'hex')",
            Self::Date => "CASE WHEN i % 17 = 0 THEN 'infinity' ELSE date '1999-12-31' + i END",
            Self::Timestamp => "timestamptz '2001-02-03 04:05:06.789+00' + i * interval '17 minutes'",
            Self::Uuid => "md5(i::text)::uuid",
            Self::Bool => "CASE i % 3 WHEN 0 THEN true WHEN 1 THEN false END",
            Self::Array => "ARRAY[i, NULL, -i]",
            Self::Jsonb => "CASE WHEN i % 31 = 0 THEN NULL ELSE jsonb_build_object('i', i, 'a', ARRAY[i, i % 7]) END",
        }
    }

    /// A condition on the column, and one with a parameter and its value.
    fn conditions(self, column: &str, n: i64) -> (String, Option<(String, u32, String)>) {
        let parameter = |sql: &str, oid: u32, value: String| Some((sql.replace('@', column), oid, value));
        match self {
            Self::Integer => (format!("{column} % 7 < {}", n % 7), parameter("@ > $?", 23, n.to_string())),
            Self::Bigint => (format!("{column} > {n}"), parameter("@ <> $?", 20, (n * 4_294_967_296 - 7).to_string())),
            Self::Numeric => (format!("{column} >= {n}.5"), parameter("@ < $?", 1700, format!("{n}.25"))),
            Self::Double => (format!("{column} IS DISTINCT FROM 'NaN'"), parameter("@ <= $?", 701, format!("{n}"))),
            Self::Text => (
                format!("{column} LIKE '%{}%' -- ) OR (true\n", n % 10),
                parameter("@ || 'x' <> $?", 25, format!("tëxt {n}x")),
            ),
            Self::Bytea => (format!("length({column}) = 16"), parameter("@ > $?", 17, "\\x80".into())),
            Self::Date => (format!("{column} > '2000-01-01'"), parameter("@ < $?", 1082, "2010-10-10".into())),
            Self::Timestamp => (
                format!("extract(hour FROM {column}) < {}", n % 24),
                parameter("@ > $?", 1184, "2001-06-01 12:00+02".into()),
            ),
            Self::Uuid => (format!("{column} < 'a0000000-0000-0000-0000-000000000000'"), None),
            Self::Bool => (column.to_owned(), parameter("@ = $?", 16, "true".into())),
            Self::Array => {
                (format!("{column}[1] > {n} /* not ' this */"), parameter("$? = ANY (@)", 23, n.to_string()))
            }
            Self::Jsonb => (format!("{column} ->> 'i' > '{n}'"), parameter("@ ? $?", 25, "i".into())),
        }
    }

    fn expression(self, column: &str) -> String {
        match self {
            Self::Integer | Self::Bigint => format!("{column} * 2 - 1"),
            Self::Numeric => format!("round({column} / 3, 2)"),
            Self::Double => format!("{column} / 3"),
            Self::Text => format!("upper(left({column}, 20)) || 'ß'"),
            Self::Bytea => format!("encode({column}, 'base64')"),
            Self::Date => format!("{column} + 1"),
            Self::Timestamp => format!("date_trunc('day', {column})"),
            Self::Uuid => format!("{column}::text"),
            Self::Bool => format!("NOT {column}"),
            Self::Array => format!("{column} || 5"),
            Self::Jsonb => format!("{column} -> 'a' -> 1"),
        }
    }

    /// An aggregate over the column that is put together exactly. (Not sums of floating point: they depend on the order.)
    fn aggregate(self, column: &str, choice: u32) -> String {
        let functions: &[&str] = match self {
            Self::Integer | Self::Bigint => &["sum(@)", "avg(@)", "min(@)", "max(@)", "bit_and(@)", "bit_or(@)"],
            Self::Numeric => &["sum(@)", "avg(@)", "min(@)", "max(@)", "avg(@ * 3)"],
            Self::Double => &["min(@)", "max(@)", "count(@)"],
            Self::Text => &["min(@)", "max(@)", "count(@)", "max(length(@))"],
            Self::Date | Self::Timestamp => &["min(@)", "max(@)", "count(DISTINCT @)"],
            Self::Bool => &["bool_and(@)", "bool_or(@)", "every(NOT @)", "count(DISTINCT @)"],
            Self::Uuid => &["count(DISTINCT @)", "count(@)"],
            Self::Bytea | Self::Array | Self::Jsonb => &["count(@)", "count(*)"],
        };
        functions[choice as usize % functions.len()].replace('@', column)
    }

    /// A key to group by. Some have so few values that each range has rows of each group; some are not exact.
    fn key(self, column: &str) -> String {
        match self {
            Self::Integer | Self::Bigint => format!("{column} % 5"),
            Self::Numeric => format!("sign({column})"),
            Self::Text => format!("left({column}, 6)"),
            Self::Date | Self::Timestamp => format!("date_trunc('year', {column})"),
            Self::Uuid => format!("left({column}::text, 1)"),
            Self::Jsonb => format!("{column} ->> 'i'"),
            Self::Double | Self::Bytea | Self::Bool | Self::Array => column.to_owned(),
        }
    }
}

/// One query, with its parameters as text.
#[derive(Debug, Clone, Default)]
pub struct Query {
    pub sql: String,
    pub types: Vec<u32>,
    pub values: Vec<String>,
    /// Result formats of Bind.
    pub formats: Vec<i16>,
    /// The order of its rows is told.
    pub is_ordered: bool,
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        Self { rng: StdRng::seed_from_u64(seed), columns: Vec::new(), next_column: 0, children: false }
    }

    /// Makes the table `t` anew: rows, dead rows, rows that have moved, columns that came and went.
    pub fn table(&mut self) -> String {
        self.columns.clear();
        self.children = false;
        let count = self.rng.random_range(1..=7);
        let columns: Vec<String> = (0..count).map(|_| self.add_column()).collect();
        let fill = self.rng.random_range(10..=100);
        let kind = ["", "", "UNLOGGED"].choose(&mut self.rng).unwrap();
        let mut sql = "DROP TABLE IF EXISTS t CASCADE;".to_owned();
        if self.rng.random_bool(0.4) {
            sql += &self.partitions(columns, fill);
        } else {
            sql += &format!("CREATE {kind} TABLE t ({}) WITH (fillfactor = {fill});", columns.join(", "));
        }
        let rows = *[0, 1, 50, 700, 3000, 6000].choose(&mut self.rng).unwrap();
        sql += &self.insert(1, rows);
        for _ in 0..self.rng.random_range(0..4) {
            let (column, kind) = self.columns.choose(&mut self.rng).unwrap().clone();
            let modulus = self.rng.random_range(2..6);
            sql += &match self.rng.random_range(0..6) {
                0 => format!("DELETE FROM t WHERE ({})::text LIKE '%{modulus}%';", kind.expression(&column)),
                1 => format!("UPDATE t SET {column} = {column} WHERE {column}::text LIKE '%{modulus}%';"),
                2 => "DELETE FROM t WHERE ctid < '(5,0)'; VACUUM t;".to_owned(),
                3 => {
                    format!("ALTER TABLE t ADD COLUMN {} DEFAULT NULL;", self.add_column())
                        + &self.insert(rows + 1, 500)
                }
                4 if self.columns.len() > 1 && column != KEY => {
                    self.columns.retain(|(name, _)| *name != column);
                    format!("ALTER TABLE t DROP COLUMN {column};")
                }
                _ => format!("UPDATE t SET {column} = NULL WHERE ctid > '(3,0)' AND ctid < '(6,0)';"),
            };
        }
        if self.rng.random_bool(0.7) {
            sql += "ANALYZE t;";
        }
        sql
    }

    /// Makes `t` of partitions, or of a parent and its children, whose columns are in another order each.
    fn partitions(&mut self, mut columns: Vec<String>, fill: u32) -> String {
        let leaf = |rng: &mut StdRng, columns: &[String], name: &str| {
            let mut columns = columns.to_vec();
            columns.push("dropped int".to_owned());
            columns.shuffle(rng);
            let columns = columns.join(", ");
            format!(
                "CREATE TABLE {name} ({columns}) WITH (fillfactor = {fill}); ALTER TABLE {name} DROP COLUMN dropped;"
            )
        };
        columns.push(format!("{KEY} int"));
        self.columns.push((KEY.to_owned(), Kind::Integer));
        let rng = &mut self.rng;
        if rng.random_bool(0.2) {
            let leaves: String = ["t1", "t2"].map(|name| leaf(rng, &columns, name)).concat();
            self.children = true;
            let own = columns.join(", ");
            return format!(
                "CREATE TABLE t ({own}); {leaves} ALTER TABLE t1 INHERIT t; ALTER TABLE t2 INHERIT t;
                 CREATE TABLE t3 (more int) INHERITS (t2);"
            );
        }
        let (by, bounds): (String, &[&str]) = match rng.random_range(0..3) {
            0 => (format!("HASH ({KEY})"), &["WITH (modulus 2, remainder 0)", "WITH (modulus 2, remainder 1)"]),
            1 => (format!("LIST (({KEY} % 3))"), &["IN (0, NULL)", "IN (1)", "DEFAULT"]),
            _ => (
                format!("RANGE ({KEY})"),
                &["FROM (MINVALUE) TO (40)", "FROM (40) TO (900)", "FROM (900) TO (2500)", "DEFAULT"],
            ),
        };
        let mut sql = format!("CREATE TABLE t ({}) PARTITION BY {by};", columns.join(", "));
        let nested = rng.random_range(0..bounds.len());
        for (number, bound) in bounds.iter().enumerate() {
            let name = format!("t{number}");
            let bound = if *bound == "DEFAULT" { "DEFAULT".to_owned() } else { format!("FOR VALUES {bound}") };
            if number == nested {
                let mut shuffled = columns.clone();
                shuffled.shuffle(rng);
                sql += &format!("CREATE TABLE {name} ({}) PARTITION BY HASH (({KEY} % 5));", shuffled.join(", "));
                for remainder in 0..2 {
                    let below = format!("{name}_{remainder}");
                    sql += &leaf(rng, &columns, &below);
                    sql += &format!(
                        "ALTER TABLE {name} ATTACH PARTITION {below} FOR VALUES WITH (modulus 2, remainder {remainder});"
                    );
                }
            } else {
                sql += &leaf(rng, &columns, &name);
            }
            sql += &format!("ALTER TABLE t ATTACH PARTITION {name} {bound};");
        }
        sql
    }

    /// A write of some rows.
    pub fn write(&mut self) -> String {
        let modulus = self.rng.random_range(2..9);
        let (column, _) = self.columns.choose(&mut self.rng).unwrap().clone();
        match self.rng.random_range(0..5) {
            // Rows that move to other partitions.
            4 if self.has_key() => format!("UPDATE t SET {KEY} = {KEY} + {modulus}00 WHERE {KEY} % {modulus} = 1"),
            0 => self.insert(20_000, 100),
            1 => format!("DELETE FROM t WHERE {column}::text LIKE '%{modulus}1%'"),
            2 => format!("UPDATE t SET {column} = {column} WHERE {column}::text LIKE '%{modulus}%'"),
            _ => "VACUUM t".to_owned(),
        }
    }

    pub fn query(&mut self) -> Query {
        let mut query = self.unordered();
        let ordered: Vec<_> =
            self.columns.iter().filter(|(_, kind)| !matches!(kind, Kind::Array | Kind::Jsonb)).cloned().collect();
        if ordered.is_empty() || self.rng.random_bool(0.6) {
            return query;
        }
        let (_, rest) = query.sql.split_at(query.sql.find(" FROM ").unwrap());
        // All that is selected is a key, so that rows with equal keys are equal.
        let is_x = [" FROM t x", " FROM public.t AS x", " FROM ONLY t x"].iter().any(|from| rest.starts_with(from));
        let count = self.rng.random_range(1..=3.min(ordered.len()));
        let mut columns: Vec<_> = ordered.choose_multiple(&mut self.rng, count).cloned().collect();
        let list = columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
        columns.shuffle(&mut self.rng);
        let mut keys = Vec::new();
        for (column, kind) in columns {
            let direction = ["", " ASC", " DESC", " NULLS FIRST", " DESC NULLS LAST"].choose(&mut self.rng).unwrap();
            let collation = if kind == Kind::Text { " COLLATE \"C\"" } else { "" };
            let qualifier = if self.rng.random_bool(0.3) { "t." } else { "" };
            keys.push(format!("{qualifier}{column}{collation}{direction}"));
        }
        let mut tail = String::new();
        if self.rng.random_bool(0.4) {
            tail += &format!(" LIMIT {}", self.rng.random_range(0..3000));
        }
        if self.rng.random_bool(0.3) {
            tail += &format!(" OFFSET {}", self.rng.random_range(0..1000));
        }
        let keys = keys.join(", ").replace("t.", if is_x { "x." } else { "t." });
        query.sql = format!("SELECT {list}{rest} ORDER BY {keys}{tail}");
        query.is_ordered = true;
        query
    }

    fn unordered(&mut self) -> Query {
        let mut query = Query::default();
        let qualifier = *["", "t.", "x."].choose(&mut self.rng).unwrap();
        let from = match qualifier {
            "x." => ["t x", "public.t AS x", "ONLY t x"].choose(&mut self.rng).unwrap(),
            _ => ["t", "public.t", "\"t\"", "t *"].choose(&mut self.rng).unwrap(),
        };
        let mut targets = Vec::new();
        for _ in 0..self.rng.random_range(0..4) {
            let (name, kind) = self.columns.choose(&mut self.rng).unwrap().clone();
            let column = format!("{qualifier}{name}");
            targets.push(match self.rng.random_range(0..7) {
                5 => format!("{qualifier}tableoid"),
                // The row as one value: of the parent's type, whatever the partition's is.
                6 => if qualifier == "x." { "x" } else { "t" }.to_owned(),
                0 => kind.expression(&column),
                1 => format!("{column} AS \"an alias\""),
                2 => "ctid".to_owned(),
                3 => format!("coalesce({column}::text, 'none')"),
                _ => column,
            });
        }
        if targets.is_empty() {
            targets.push(
                ["*", "t.*", "x.*", "1", "''"][match qualifier {
                    "x." => [0, 2, 3][self.rng.random_range(0..3)],
                    _ => [0, 1, 4][self.rng.random_range(0..3)],
                }]
                .to_owned(),
            );
        }
        let mut conditions = Vec::new();
        for _ in 0..self.rng.random_range(0..3) {
            let (name, kind) = self.columns.choose(&mut self.rng).unwrap().clone();
            let n = self.rng.random_range(0..3000);
            let (plain, with_parameter) = kind.conditions(&format!("{qualifier}{name}"), n);
            match with_parameter.filter(|_| self.rng.random_bool(0.5)) {
                Some((sql, oid, value)) => {
                    query.values.push(value);
                    query.types.push(if self.rng.random_bool(0.5) { oid } else { 0 });
                    conditions.push(replace_last(&sql, query.values.len()));
                }
                None => conditions.push(plain),
            }
        }
        let junction = [" AND ", " OR ", " AND NOT "].choose(&mut self.rng).unwrap();
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(junction)) };
        query.sql = format!("SELECT {} FROM {from}{condition}", targets.join(", "));
        query.formats = [vec![], vec![0], vec![1]].choose(&mut self.rng).unwrap().clone();
        query
    }

    fn has_key(&self) -> bool {
        self.columns.iter().any(|(name, _)| name == KEY)
    }

    /// A query over groups. All keys are in the list, and in its order if it has one.
    pub fn groups(&mut self) -> Query {
        let mut query = Query::default();
        let qualifier = *["", "t."].choose(&mut self.rng).unwrap();
        let keys: Vec<String> = (0..self.rng.random_range(0..3))
            .map(|_| {
                let (name, kind) = self.columns.choose(&mut self.rng).unwrap().clone();
                let column = format!("{qualifier}{name}");
                if self.rng.random_bool(0.7) { kind.key(&column) } else { column }
            })
            .collect();
        let mut aggregates: Vec<String> = (0..self.rng.random_range(0..4))
            .map(|_| {
                let (name, kind) = self.columns.choose(&mut self.rng).unwrap().clone();
                let call = kind.aggregate(&name, self.rng.random_range(0..60));
                let (condition, _) = kind.conditions(&name, self.rng.random_range(0..3000));
                let filtered = !call.contains("DISTINCT") && self.rng.random_bool(0.2);
                if filtered { format!("{call} FILTER (WHERE {condition}\n)") } else { call }
            })
            .collect();
        if keys.is_empty() {
            aggregates.push("count(*)".to_owned());
        }
        let mut list = keys.clone();
        list.extend(aggregates.iter().enumerate().map(|(at, call)| match at {
            1 => format!("({call})::text || '!' AS x{at}"),
            _ => call.clone(),
        }));
        let is_distinct = aggregates.is_empty() && self.rng.random_bool(0.5);
        let distinct = if is_distinct { "DISTINCT " } else { "" };
        query.sql = format!("SELECT {distinct}{} FROM t", list.join(", "));
        let (name, kind) = self.columns.choose(&mut self.rng).unwrap().clone();
        let n = self.rng.random_range(0..3000);
        match (kind.conditions(&name, n), self.rng.random_range(0..3)) {
            ((_, Some((sql, oid, value))), 0) => {
                query.sql += &format!(" WHERE {}", replace_last(&sql, 1));
                query.types.push(oid);
                query.values.push(value);
            }
            ((condition, _), 1) => query.sql += &format!(" WHERE {condition}\n"),
            _ => {}
        }
        let places: Vec<String> = (1..=keys.len()).map(|place| place.to_string()).collect();
        if !keys.is_empty() && !is_distinct {
            let by_place = self.rng.random_bool(0.5);
            query.sql += &format!(" GROUP BY {}", if by_place { places.join(", ") } else { keys.join(", ") });
        }
        if !is_distinct && self.rng.random_bool(0.3) {
            query.sql += &format!(" HAVING count(*) > {}", self.rng.random_range(0..400));
        }
        query.is_ordered = !keys.is_empty() && self.rng.random_bool(0.4);
        if query.is_ordered {
            let direction = *["", " DESC", " NULLS FIRST"].choose(&mut self.rng).unwrap();
            let limit = *["", " LIMIT 5", " LIMIT 20 OFFSET 2"].choose(&mut self.rng).unwrap();
            query.sql += &format!(" ORDER BY {}{direction}{limit}", places.join(", "));
        }
        query.formats = [vec![], vec![0], vec![1]].choose(&mut self.rng).unwrap().clone();
        query
    }

    fn add_column(&mut self) -> String {
        let kind = *KINDS.choose(&mut self.rng).unwrap();
        let name = format!("c{}", self.next_column);
        self.next_column += 1;
        self.columns.push((name.clone(), kind));
        format!("{name} {}", kind.sql())
    }

    fn insert(&self, from: i64, rows: i64) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let values: Vec<&str> = self.columns.iter().map(|(_, kind)| kind.value()).collect();
        let to = from + rows - 1;
        let (names, values) = (names.join(", "), values.join(", "));
        let into = |table: &str, from: i64, to: i64| {
            format!("INSERT INTO {table} ({names}) SELECT {values} FROM generate_series({from}, {to}) i;")
        };
        match self.children {
            true => ["t", "t1", "t2", "t3"].map(|table| into(table, from, from + (rows - 1) / 4)).concat(),
            false => into("t", from, to),
        }
    }
}

/// `$?` becomes the number of the parameter; an operator `?` stays.
fn replace_last(sql: &str, number: usize) -> String {
    sql.replace("$?", &format!("${number}"))
}
