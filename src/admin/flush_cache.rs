//! FLUSH CACHE: drops cached results, all of them or those that depend on a table.
//!
//! **Invariant.** What was read before the command is never served after it: the counters that entries depend on are bumped, as
//! a write would, so that a result which is on its way at the time is not kept either.

use super::Desk;
use super::command::{Arguments, Command, no_such};
use super::table::{Row, int};
use crate::cache::versions::WriteSet;

pub(super) const COMMAND: Command = Command {
    words: "FLUSH CACHE",
    follows: "[TABLE name]",
    help: "Drops cached results: all of them, or those that depend on a table of any database",
    changes: true,
    columns: &[int("dropped")],
    run: |desk, arguments| {
        Box::pin(async move {
            match relation(&arguments).ok_or_else(|| COMMAND.usage())? {
                None => Ok(flush_all(desk)),
                Some((schema, name)) => flush_table(desk, schema.as_deref(), &name),
            }
        })
    },
};

/// `Some(None)` if nothing follows.
fn relation(arguments: &Arguments) -> Option<Option<(Option<String>, String)>> {
    match arguments.texts()[..] {
        [] => Some(None),
        ["table", name] => Some(Some(match name.split_once('.') {
            // A string 'schema.name'.
            Some((schema, name)) => (Some(schema.into()), name.into()),
            None => (None, name.into()),
        })),
        ["table", schema, ".", name] => Some(Some((Some(schema.into()), name.into()))),
        _ => None,
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
