//! SHOW PINS: the sessions that do not share their connection, because of what they have left in it.

use super::Desk;
use super::command::Command;
use super::table::{Row, int, text};

pub(super) const COMMAND: Command = Command {
    words: "SHOW PINS",
    follows: "",
    help: "Sessions that keep their connection to the server because of what they have left in it, and what that is",
    changes: false,
    columns: &[
        int("client_id"),
        text("database"),
        text("user"),
        text("application_name"),
        int("backend_pid"),
        text("state"),
        text("reason"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

fn rows(desk: &Desk) -> Vec<Row> {
    let sessions = desk.shared.sessions.list();
    let row = |(id, control): (i32, std::sync::Arc<crate::session::Control>)| {
        let (who, activity) = (&control.who, &control.activity);
        let pin = activity.pin()?;
        Some(vec![
            id.into(),
            who.database.clone().into(),
            who.user.clone().into(),
            who.application_name.clone().into(),
            activity.backend().into(),
            activity.doing().label().into(),
            pin.label().into(),
        ])
    };
    sessions.into_iter().filter_map(row).collect()
}
