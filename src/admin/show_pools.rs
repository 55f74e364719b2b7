//! SHOW POOLS: clients and their connections to the upstream, by database and user.

use std::collections::BTreeMap;

use super::Desk;
use super::command::Command;
use super::table::{Row, int, text};
use crate::session::ADMIN_DATABASE;
use crate::session::activity::Doing;

pub(super) const COMMAND: Command = Command {
    words: "SHOW POOLS",
    follows: "",
    help: "Clients and their connections to the server, by database and user",
    changes: false,
    columns: &[
        text("database"),
        text("user"),
        int("clients"),
        int("active"),
        int("idle_in_transaction"),
        int("servers"),
        int("queries"),
        int("cache_hits"),
        text("mode"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

#[derive(Default)]
struct Pool {
    clients: u64,
    active: u64,
    in_transaction: u64,
    servers: u64,
    queries: u64,
    hits: u64,
}

pub(super) fn rows(desk: &Desk) -> Vec<Row> {
    let mut pools: BTreeMap<(String, String), Pool> = BTreeMap::new();
    let sessions = desk.shared.sessions.list();
    for (_, control) in sessions.iter().filter(|(_, control)| control.who.database != ADMIN_DATABASE) {
        let (who, activity) = (&control.who, &control.activity);
        let pool = pools.entry((who.database.clone(), who.user.clone())).or_default();
        let doing = activity.doing();
        pool.clients += 1;
        pool.active += u64::from(doing == Doing::Active);
        pool.in_transaction += u64::from(doing == Doing::IdleInTransaction);
        pool.servers += u64::from(activity.backend() != 0);
        pool.queries += activity.queries();
        pool.hits += activity.hits();
    }
    let settings = crate::config::settings(&desk.shared.config.load());
    let mode = settings.into_iter().find(|setting| setting.key == "pool.mode").map(|setting| setting.value);
    let row = |((database, user), pool): ((String, String), Pool)| {
        vec![
            database.into(),
            user.into(),
            pool.clients.into(),
            pool.active.into(),
            pool.in_transaction.into(),
            pool.servers.into(),
            pool.queries.into(),
            pool.hits.into(),
            mode.clone().into(),
        ]
    };
    pools.into_iter().map(row).collect()
}
