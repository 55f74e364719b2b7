//! The tables, and how each shows its cells.

use super::cells::Family;

/// Rows in each bucket of `stock` when nothing has been deleted.
pub const STOCK: i64 = 300;
/// What all accounts hold together, always.
pub const MONEY: i64 = 600;
/// A cell of [`Family::Move`] is with the owner that its value modulo this says.
pub const OWNERS: i64 = 3;
/// A key of [`Family::Cascade`] is the slot plus this times the value.
pub const STEP: i64 = 10;

/// Creates everything with all cells at 0, in a database whose lock conflicts end soon.
pub const SETUP: &str = "
DO $$ BEGIN
    EXECUTE format('ALTER DATABASE %I SET deadlock_timeout = ''100ms''', current_database());
    EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''5s''', current_database());
END $$;

-- A plain counter, written in every way there is.
CREATE TABLE point (id int PRIMARY KEY, v int NOT NULL, pad text NOT NULL DEFAULT 'x');
INSERT INTO point SELECT id, 0 FROM generate_series(0, 5) id;
CREATE VIEW point_view AS SELECT id, v FROM point;
CREATE FUNCTION add_one(which int) RETURNS int LANGUAGE plpgsql AS
    $$ BEGIN UPDATE point SET v = v + 1 WHERE id = which; RETURN 1; END $$;
CREATE PROCEDURE add_twice(which int) LANGUAGE plpgsql AS
    $$ BEGIN UPDATE point SET v = v + 1 WHERE id = which; COMMIT; UPDATE point SET v = v + 1 WHERE id = which; END $$;

-- The same counter in two tables.
CREATE TABLE pair_a (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE pair_b (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO pair_a SELECT id, 0 FROM generate_series(0, 5) id;
INSERT INTO pair_b TABLE pair_a;

-- Money moves; the counter counts the transfers that an account took part in.
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL, v int NOT NULL);
INSERT INTO account SELECT id, 100, 0 FROM generate_series(0, 5) id;

-- The column that reads pin changes with every write.
CREATE TABLE move (id int PRIMARY KEY, owner int NOT NULL, v int NOT NULL);
INSERT INTO move SELECT id, 0, 0 FROM generate_series(0, 5) id;
CREATE INDEX ON move (owner);

-- A row is in one table while its counter is even, in the other while it is odd.
CREATE TABLE half_even (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE half_odd (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO half_even SELECT id, 0 FROM generate_series(0, 5) id;

-- The counter is the number of rows that have been deleted.
CREATE TABLE stock (bucket int NOT NULL, n int NOT NULL, PRIMARY KEY (bucket, n));
INSERT INTO stock SELECT bucket, n FROM generate_series(0, 5) bucket, generate_series(1, 300) n;

-- The counter is the number of rows.
CREATE TABLE log (bucket int NOT NULL);
CREATE INDEX ON log (bucket);

-- Where a trigger is on this table now and then, updating it adds a row to the log, and it says so.
CREATE TABLE feed (bucket int PRIMARY KEY, fed int NOT NULL);
INSERT INTO feed TABLE pair_a;
CREATE FUNCTION feed_log() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES (new.bucket); new.fed = 1; RETURN new; END $$;

-- A trigger and a rule keep the second table equal to the first.
CREATE TABLE trigger_src (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE trigger_dst (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO trigger_src SELECT id, 0 FROM generate_series(0, 5) id;
INSERT INTO trigger_dst TABLE trigger_src;
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN UPDATE trigger_dst SET v = v + 1 WHERE id = new.id; RETURN NULL; END $$;
CREATE TRIGGER follow AFTER UPDATE ON trigger_src FOR EACH ROW EXECUTE FUNCTION follow();
CREATE TABLE rule_src (id int PRIMARY KEY, v int NOT NULL);
CREATE TABLE rule_dst (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO rule_src TABLE pair_a;
INSERT INTO rule_dst TABLE pair_a;
CREATE RULE follow AS ON UPDATE TO rule_src DO ALSO UPDATE rule_dst SET v = v + 1 WHERE id = old.id;

-- The counter is in the key, which a foreign key hands on.
CREATE TABLE cascade_parent (pk int PRIMARY KEY, slot int NOT NULL UNIQUE);
CREATE TABLE cascade_child (pk int NOT NULL REFERENCES cascade_parent ON UPDATE CASCADE, slot int NOT NULL);
INSERT INTO cascade_parent SELECT id, id FROM generate_series(0, 5) id;
INSERT INTO cascade_child TABLE cascade_parent;

-- Rows of the owned table are there while the counter is odd; deleting the owner deletes them.
CREATE TABLE toggle (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO toggle TABLE pair_a;
CREATE TABLE toggle_owner (id int PRIMARY KEY);
CREATE TABLE toggle_owned (id int NOT NULL REFERENCES toggle_owner ON DELETE CASCADE);

-- A row changes the partition with every write to the parent.
CREATE TABLE part (id int NOT NULL, region int NOT NULL, v int NOT NULL) PARTITION BY LIST (region);
CREATE TABLE part_even PARTITION OF part FOR VALUES IN (0);
CREATE TABLE part_odd PARTITION OF part FOR VALUES IN (1);
INSERT INTO part SELECT id, 0, 0 FROM generate_series(0, 5) id;

-- Cells 3 to 5 are rows of the child.
CREATE TABLE base (id int NOT NULL, v int NOT NULL);
CREATE TABLE derived () INHERITS (base);
INSERT INTO base SELECT id, 0 FROM generate_series(0, 2) id;
INSERT INTO derived SELECT id, 0 FROM generate_series(3, 5) id;

-- Each counter is shown by something that is made anew: 0 truncated, 1 renamed, 2 a view replaced, 3 a materialized view.
CREATE TABLE control (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO control TABLE pair_a;
CREATE TABLE truncated (v int NOT NULL);
INSERT INTO truncated VALUES (0), (0), (0);
CREATE TABLE swap (v int NOT NULL);
CREATE TABLE swap_next (v int NOT NULL);
INSERT INTO swap VALUES (0);
INSERT INTO swap_next VALUES (0);
CREATE VIEW shown AS SELECT v, 0 AS definition FROM control WHERE id = 2;
CREATE MATERIALIZED VIEW refreshed AS SELECT v FROM control WHERE id = 3;

CREATE TABLE stamp_control (id int PRIMARY KEY, v int NOT NULL);
INSERT INTO stamp_control TABLE pair_a;
CREATE FUNCTION stamp() RETURNS int STABLE LANGUAGE sql AS 'SELECT 0';
";

/// What every new connection prepares for `EXECUTE`.
pub const PREPARE: &str = "PREPARE add_prepared AS UPDATE point SET v = v + 1 WHERE id = $1";

/// Id and value of each cell of a family.
pub fn survey(family: Family) -> &'static str {
    match family {
        Family::Point => "SELECT id, v FROM point",
        Family::Pair => "SELECT id, v FROM pair_a",
        Family::Account => "SELECT id, v FROM account",
        Family::Move => "SELECT id, v FROM move",
        Family::Half => "SELECT id, v FROM half_even UNION ALL SELECT id, v FROM half_odd",
        Family::Stock => {
            "SELECT b, 300 - (SELECT count(*) FROM stock WHERE bucket = b)::int4 FROM generate_series(0, 5) b"
        }
        Family::Log => "SELECT b, (SELECT count(*) FROM log WHERE bucket = b)::int4 FROM generate_series(0, 5) b",
        Family::Trigger => "SELECT id, v FROM trigger_src",
        Family::Rule => "SELECT id, v FROM rule_src",
        Family::Cascade => "SELECT slot, pk / 10 FROM cascade_parent",
        Family::Toggle => "SELECT id, v FROM toggle",
        Family::Part => "SELECT id, v FROM part",
        Family::Inherit => "SELECT id, v FROM base",
        Family::Staged => "SELECT id, v FROM control",
        Family::Function => "SELECT id, v FROM stamp_control",
    }
}
