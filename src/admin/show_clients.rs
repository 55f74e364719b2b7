//! SHOW CLIENTS: who is connected and what each does.

use super::Desk;
use super::command::Command;
use super::table::{Row, boolean, int, text};

pub(super) const COMMAND: Command = Command {
    words: "SHOW CLIENTS",
    follows: "",
    help: "Who is connected and what each does; id is what KILL takes",
    changes: false,
    columns: &[
        int("id"),
        text("database"),
        text("user"),
        text("application_name"),
        text("state"),
        text("address"),
        boolean("tls"),
        int("connected_secs"),
        int("queries"),
        int("cache_hits"),
        int("backend_pid"),
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
        let address = who.address.map_or_else(|| "unix".to_owned(), |address| address.to_string());
        let backend = activity.backend();
        vec![
            id.into(),
            who.database.clone().into(),
            who.user.clone().into(),
            who.application_name.clone().into(),
            activity.doing().label().into(),
            address.into(),
            who.tls.into(),
            who.since.elapsed().as_secs().into(),
            activity.queries().into(),
            activity.hits().into(),
            (backend != 0).then_some(backend).into(),
        ]
    };
    sessions.into_iter().map(row).collect()
}
