//! PAUSE: lets what runs end and nothing new begin, so that the server can be restarted.

use std::time::Duration;

use super::command::Command;
use crate::session::pause;
use crate::wire::error::{ErrorResponse, sqlstate};

/// Where nobody says otherwise.
const SECONDS: u64 = 300;
/// A longer pause is a slip of the pen.
const MOST_SECONDS: u64 = 24 * 3600;

pub(super) const COMMAND: Command = Command {
    words: "PAUSE",
    follows: "[seconds]",
    help: "Waits until no transaction runs and holds new ones back until RESUME, at most so many seconds (300)",
    changes: true,
    columns: &[],
    run: |desk, arguments| {
        Box::pin(async move {
            let seconds = match arguments.texts()[..] {
                [] => SECONDS,
                [seconds] => seconds.parse().map_err(|_| COMMAND.usage())?,
                _ => return Err(COMMAND.usage()),
            };
            if !(1..=MOST_SECONDS).contains(&seconds) {
                let message = format!("the pause must be from 1 to {MOST_SECONDS} seconds");
                return Err(ErrorResponse::error(sqlstate::INVALID_PARAMETER_VALUE, message));
            }
            if desk.shared.gate.is_closed() {
                return Err(ErrorResponse::error(sqlstate::OBJECT_NOT_IN_STATE, "the proxy is paused already")
                    .hint("RESUME ends the pause."));
            }
            if pause(&desk.shared, Duration::from_secs(seconds)).await {
                return Ok(Vec::new());
            }
            let message =
                format!("there are still transactions after {seconds} seconds; nothing is held back any more");
            Err(ErrorResponse::error(sqlstate::OBJECT_NOT_IN_STATE, message).hint("SHOW CLIENTS shows whose they are."))
        })
    },
};
