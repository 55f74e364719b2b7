//! KILL: ends one client's session at once, in the middle of a transaction too.

use super::command::{Command, no_such};

pub(super) const COMMAND: Command = Command {
    words: "KILL",
    follows: "id",
    help: "Ends a client's session at once (57P01); SHOW CLIENTS has the ids",
    changes: true,
    columns: &[],
    run: |desk, arguments| {
        Box::pin(async move {
            let [id] = arguments.texts()[..] else { return Err(COMMAND.usage()) };
            let id: i32 = id.parse().map_err(|_| COMMAND.usage())?;
            let sessions = desk.shared.sessions.list();
            let (_, control) = sessions
                .into_iter()
                .find(|(number, _)| *number == id)
                .ok_or_else(|| no_such(format!("there is no client with the id {id}")))?;
            control.end_now();
            Ok(Vec::new())
        })
    },
};
