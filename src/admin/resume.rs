//! RESUME: ends a pause.

use super::command::Command;
use crate::session::resume;

pub(super) const COMMAND: Command = Command {
    words: "RESUME",
    follows: "",
    help: "Lets go on what PAUSE holds back",
    changes: true,
    columns: &[],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            resume(&desk.shared);
            Ok(Vec::new())
        })
    },
};
