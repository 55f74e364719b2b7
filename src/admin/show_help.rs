//! SHOW HELP: the commands and what they do.

use super::command::{self, Command};
use super::table::text;

pub(super) const COMMAND: Command = Command {
    words: "SHOW HELP",
    follows: "",
    help: "The commands",
    changes: false,
    columns: &[text("command"), text("what_it_does"), text("for")],
    run: |_, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            let who = |command: &Command| if command.changes { "admin.users" } else { "everybody here" };
            let row = |command: &&Command| vec![command.synopsis().into(), command.help.into(), who(command).into()];
            Ok(command::ALL.iter().map(row).collect())
        })
    },
};
