//! RELOAD: reads the configuration again, as SIGHUP does, and says what has changed.

use super::command::Command;
use super::order::{Changed, Order};
use super::table::{Row, boolean, text};

pub(super) const COMMAND: Command = Command {
    words: "RELOAD",
    follows: "",
    help: "Reads configuration, certificates and user file again; what is not effective needs a restart",
    changes: true,
    columns: &[text("key"), text("old"), text("new"), boolean("effective")],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(desk.order(Order::Reload).await?.into_iter().map(row).collect())
        })
    },
};

pub(super) fn row(changed: Changed) -> Row {
    let change = changed.change;
    vec![change.key.into(), change.old.into(), change.new.into(), changed.effective.into()]
}
