//! SHOW SERVERS: the connections to the upstream that clients use, and for whom each works.

use super::Desk;
use super::command::Command;
use super::table::{Row, int, text};

pub(super) const COMMAND: Command = Command {
    words: "SHOW SERVERS",
    follows: "",
    help: "Connections to the server that work for a client, by backend process",
    changes: false,
    columns: &[
        int("backend_pid"),
        text("database"),
        text("user"),
        text("state"),
        text("host"),
        int("port"),
        int("client_id"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

fn rows(desk: &Desk) -> Vec<Row> {
    let target = &desk.shared.target;
    let sessions = desk.shared.sessions.list();
    let working = sessions.into_iter().filter(|(_, control)| control.activity.backend() != 0);
    working
        .map(|(id, control)| {
            vec![
                control.activity.backend().into(),
                control.who.database.clone().into(),
                control.who.user.clone().into(),
                control.activity.doing().label().into(),
                target.hosts.iter().map(|host| host.name.as_str()).collect::<Vec<_>>().join(",").into(),
                u64::from(target.hosts.first().map_or(0, |host| host.port)).into(),
                id.into(),
            ]
        })
        .collect()
}
