//! FLUSH CACHE: drops cached results, all of them, those that depend on a table, or those of a statement.
//!
//! **Invariant.** What was read before the command is never served after it, nor is a result kept that is on its way at the
//! time: for tables because the counters that entries depend on are bumped, as a write would; for a statement because the store
//! takes nothing in that was asked for before it was flushed.

use super::Desk;
use super::command::{Arguments, Command, no_such};
use super::table::{Row, int};
use crate::cache::ledger::ShapeId;
use crate::cache::versions::WriteSet;

pub(super) const COMMAND: Command = Command {
    words: "FLUSH CACHE",
    follows: "[TABLE name | STATEMENT id]",
    help: "Drops cached results: all, those that depend on a table of any database, or a statement's (SHOW CACHE TOP has the ids)",
    changes: true,
    columns: &[int("dropped")],
    run: |desk, arguments| {
        Box::pin(async move {
            match Target::of(&arguments).ok_or_else(|| COMMAND.usage())? {
                Target::Everything => Ok(flush_all(desk)),
                Target::Table { schema, name } => flush_table(desk, schema, name),
                Target::Statement(id) => Ok(vec![vec![desk.shared.store.flush(id).into()]]),
            }
        })
    },
};

/// What is to be dropped.
enum Target<'a> {
    Everything,
    Table { schema: Option<&'a str>, name: &'a str },
    Statement(ShapeId),
}

impl<'a> Target<'a> {
    fn of(arguments: &'a Arguments) -> Option<Self> {
        match arguments.texts()[..] {
            [] => Some(Self::Everything),
            ["table", name] => Some(match name.split_once('.') {
                // A string 'schema.name'.
                Some((schema, name)) => Self::Table { schema: Some(schema), name },
                None => Self::Table { schema: None, name },
            }),
            ["table", schema, ".", name] => Some(Self::Table { schema: Some(schema), name }),
            // An id without quotes may be cut into a number and a word.
            ["statement", ref id @ ..] => ShapeId::parse(&id.concat()).map(Self::Statement),
            _ => None,
        }
    }
}

fn flush_all(desk: &Desk) -> Vec<Row> {
    for database in desk.shared.databases.all() {
        database.versions.mark(&WriteSet::Everything).settle();
    }
    sweep(desk)
}

fn flush_table(desk: &Desk, schema: Option<&str>, name: &str) -> Result<Vec<Row>, crate::wire::error::ErrorResponse> {
    let mut found = false;
    for database in desk.shared.databases.all() {
        let Some(model) = database.latest_model() else { continue };
        let named = model.named(schema, name);
        found |= !named.is_empty();
        // Nothing depends on a table that nobody has asked for.
        let tables = named.into_iter().filter_map(|oid| database.versions.known_table(oid));
        database.versions.mark(&WriteSet::any_row_of(tables)).settle();
    }
    if !found {
        let error = no_such(format!("no database in use has a table {name}"));
        return Err(error.hint("FLUSH CACHE drops everything."));
    }
    Ok(sweep(desk))
}

/// Gives the memory back at once.
fn sweep(desk: &Desk) -> Vec<Row> {
    let dropped = desk.shared.store.drop_invalid();
    vec![vec![dropped.into()]]
}
