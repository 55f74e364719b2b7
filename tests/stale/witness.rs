//! Writes that nobody can tell from their text are narrowed to what the server says that they have locked.

use super::rows::Fate::{self, Dies, Survives};
use super::rows::expect;
use crate::harness::raw::Batch;
use crate::harness::{Client, Options, Stage};

const SETUP: &str = "CREATE TABLE a (id int PRIMARY KEY, v int DEFAULT 0); INSERT INTO a SELECT i FROM generate_series(1, 9) i;
    CREATE TABLE log (n int); INSERT INTO log VALUES (0);
    CREATE TABLE child (a int REFERENCES a ON DELETE CASCADE); INSERT INTO child VALUES (9);
    CREATE TABLE other (v int); INSERT INTO other VALUES (0);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE log SET n = n + 1; RETURN NULL; END';
    CREATE TRIGGER note AFTER UPDATE OR DELETE ON a FOR EACH STATEMENT EXECUTE FUNCTION note();
    CREATE FUNCTION dynamic(what text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE what; END';
    CREATE PROCEDURE call(what text) LANGUAGE plpgsql AS 'BEGIN EXECUTE what; END';
    CREATE PROCEDURE commits() LANGUAGE plpgsql AS 'BEGIN UPDATE other SET v = v + 1; COMMIT; UPDATE log SET n = n + 1; END'";

const TABLES: [&str; 4] = ["a", "log", "child", "other"];

struct Case {
    stage: Stage,
    reader: Client,
    direct: Client,
}

impl Case {
    async fn new() -> Self {
        let stage = Stage::setup(SETUP).await;
        let (reader, direct) = (stage.client().await, stage.direct().await);
        Self { stage, reader, direct }
    }

    /// Runs a write while all tables are cached. Then reads of those in `dying` must not come from the cache, all others must.
    async fn check(&self, what: &str, dying: &[&str], write: impl AsyncFnOnce()) {
        for table in TABLES {
            self.stage.cached(&self.reader, &sql(table)).await;
        }
        write().await;
        for table in TABLES {
            let fate = if dying.contains(&table) { Dies } else { Survives };
            self.meets(&fate, table, what).await;
        }
    }

    async fn meets(&self, fate: &Fate, table: &str, what: &str) {
        let read = sql(table);
        let answer = expect(&self.stage, fate, &read, what, async || self.reader.text(&read).await).await;
        assert_eq!(answer, self.direct.text(&read).await, "{read} after {what}");
    }
}

fn sql(table: &str) -> String {
    format!("SELECT * FROM {table} ORDER BY 1")
}

#[tokio::test]
async fn a_block_invalidates_what_it_has_locked() {
    let case = Case::new().await;
    let writer = case.stage.client().await;
    for (what, dying) in [
        ("UPDATE a SET v = v + 1 WHERE id = 1", &["a", "log"][..]),
        ("DELETE FROM a WHERE id = 9", &["a", "log", "child"]),
        ("SELECT dynamic('UPDATE other SET v = v + 1')", &["other"]),
        ("CALL call('UPDATE other SET v = v + 1')", &["other"]),
        ("DO 'BEGIN UPDATE log SET n = n + 1; END'", &["log"]),
        ("PREPARE p AS UPDATE log SET n = n + 1; EXECUTE p; DEALLOCATE p", &["log"]),
        (
            "SAVEPOINT s; SELECT dynamic('UPDATE log SET n = 7'); ROLLBACK TO s; SELECT dynamic('UPDATE other SET v = v + 1')",
            &["other"],
        ),
        ("SELECT dynamic('SELECT 1')", &[]),
    ] {
        case.check(what, dying, async || {
            for statement in ["BEGIN", what, "COMMIT"] {
                writer.run(statement).await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn so_does_one_that_is_committed_by_the_extended_protocol() {
    let case = Case::new().await;
    let (writer, what) = (case.stage.client().await, "UPDATE a SET v = v + 1");
    let commit = writer.prepare("COMMIT").await.unwrap();
    for unnamed in [false, true] {
        case.check(what, &["a", "log"], async || {
            writer.run("BEGIN").await;
            writer.run(what).await;
            if unnamed {
                writer.query_typed("COMMIT", &[]).await.unwrap();
            } else {
                writer.execute(&commit, &[]).await.unwrap();
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_statement_of_its_own_invalidates_what_it_has_locked() {
    let case = Case::new().await;
    let writer = case.stage.client().await;
    // After the first time it is tried whether the question can be asked.
    writer.execute("SELECT dynamic('SELECT 1')", &[]).await.unwrap();
    for (what, dying) in [
        ("UPDATE a SET v = v + 1 WHERE id = 1", &["a", "log"][..]),
        ("DELETE FROM a WHERE id = 9", &["a", "log", "child"]),
        ("SELECT dynamic('UPDATE other SET v = v + 1')", &["other"]),
        ("SELECT dynamic('SELECT 1')", &[]),
    ] {
        case.check(what, dying, async || _ = writer.execute(what, &[]).await.unwrap()).await;
    }
    let prepared = writer.prepare("SELECT dynamic($1)").await.unwrap();
    case.check("prepared", &["log"], async || {
        writer.query(&prepared, &[&"UPDATE log SET n = n + 1"]).await.unwrap();
    })
    .await;
    case.check("an error", &[], async || {
        writer.query(&prepared, &[&"UPDATE log SET n = 1/0"]).await.unwrap_err();
        // The driver tells of the error before the server is ready again.
        writer.run("SELECT 1").await;
    })
    .await;
}

#[tokio::test]
async fn where_the_locks_do_not_tell_all_everything_goes() {
    let case = Case::new().await;
    let writer = case.stage.client().await;
    writer.execute("UPDATE log SET n = n", &[]).await.unwrap();
    case.check("a simple query", &TABLES, async || writer.run("UPDATE a SET v = v + 1").await).await;
    case.check("a procedure that commits", &TABLES, async || _ = writer.execute("CALL commits()", &[]).await.unwrap())
        .await;
    case.check("CREATE TABLE in a function", &TABLES, async || {
        _ = writer.execute("SELECT dynamic('CREATE TABLE new (v int)')", &[]).await.unwrap();
        // Nothing is served until the catalogue has been looked at.
        case.direct.run("SELECT 1").await;
    })
    .await;
    case.check("two-phase commit", &TABLES, async || {
        for statement in ["BEGIN", "UPDATE a SET v = v + 1", "PREPARE TRANSACTION 'two'", "COMMIT PREPARED 'two'"] {
            writer.run(statement).await;
        }
    })
    .await;
    case.direct
        .run(
            "CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN UPDATE other SET v = v + 1; RETURN NULL; END';
             CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON log DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()",
        )
        .await;
    case.check("a deferred trigger", &TABLES, async || {
        for statement in ["BEGIN", "UPDATE a SET v = v + 1", "COMMIT"] {
            writer.run(statement).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_pipelined_commit_and_what_follows_it_hide_nothing() {
    let case = Case::new().await;
    let mut raw = case.stage.raw().await;
    let batch = |sql: &str| Batch::new().parse("", sql).bind("", "", &[]).execute("", 0);
    case.check("COMMIT and a write in one batch", &TABLES, async || {
        raw.ask(batch("BEGIN").sync()).await;
        raw.ask(batch("UPDATE a SET v = v + 1").sync()).await;
        let both = batch("COMMIT").parse("", "UPDATE other SET v = v + 1").bind("", "", &[]).execute("", 0).sync();
        raw.ask(both).await;
    })
    .await;
    // The second write is not known to be harmless: the trigger may have changed settings.
    case.check("COMMIT, then a write, at once", &TABLES, async || {
        raw.ask(batch("BEGIN").sync()).await;
        raw.ask(batch("UPDATE a SET v = v + 1").sync()).await;
        raw.ask(Batch::new().query("COMMIT").query("UPDATE other SET v = v + 1")).await;
    })
    .await;
}

#[tokio::test]
async fn a_role_that_may_not_ask_writes_as_ever() {
    let case = Case::new().await;
    case.direct
        .run("CREATE ROLE quiet LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO quiet; REVOKE ALL ON pg_catalog.pg_locks FROM public")
        .await;
    let writer = case.stage.client_as("quiet").await;
    for _ in 0..3 {
        case.check("UPDATE", &TABLES, async || _ = writer.execute("UPDATE a SET v = v + 1", &[]).await.unwrap()).await;
        case.check("COMMIT", &TABLES, async || {
            for statement in ["BEGIN", "UPDATE a SET v = v + 1", "COMMIT"] {
                writer.run(statement).await;
            }
        })
        .await;
    }
    assert_eq!(case.direct.one("SELECT v FROM a WHERE id = 1").await, "6");
    case.direct.run("DROP OWNED BY quiet; DROP ROLE quiet").await;
}

#[tokio::test]
async fn nothing_is_narrowed_when_rows_are_not_told_apart() {
    let stage = Stage::with(Options::default().key("cache.enable_table_tracking", false)).await;
    stage.direct().await.run(SETUP).await;
    let (reader, writer) = (stage.client().await, stage.client().await);
    stage.cached(&reader, &sql("other")).await;
    for statement in ["BEGIN", "UPDATE a SET v = v + 1", "COMMIT"] {
        writer.run(statement).await;
    }
    expect(&stage, &Dies, "other", "UPDATE", async || reader.text(&sql("other")).await).await;
}
