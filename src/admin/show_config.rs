//! SHOW CONFIG: every key of the configuration as it is now. Secrets are hidden.

use super::command::Command;
use super::table::{boolean, text};
use crate::config;

pub(super) const COMMAND: Command = Command {
    words: "SHOW CONFIG",
    follows: "",
    help: "Every key of the configuration; what is not reloadable needs a restart to change",
    changes: false,
    columns: &[text("key"), text("value"), text("default"), boolean("reloadable")],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            let row = |setting: config::Setting| {
                let reloadable = (desk.is_reloadable)(&setting.key);
                vec![setting.key.into(), setting.value.into(), setting.default.into(), reloadable.into()]
            };
            Ok(config::settings(&desk.shared.config.load()).into_iter().map(row).collect())
        })
    },
};
