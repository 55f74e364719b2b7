//! SHOW VERSION: which proxy this is, and for how long.

use super::command::Command;
use super::table::{int, text};

pub(super) const COMMAND: Command = Command {
    words: "SHOW VERSION",
    follows: "",
    help: "The proxy's version and how long it has been running",
    changes: false,
    columns: &[text("version"), int("uptime_secs"), int("pid")],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            let version = concat!("HeliosProxy ", env!("CARGO_PKG_VERSION"));
            Ok(vec![vec![version.into(), desk.uptime_secs().into(), u64::from(std::process::id()).into()]])
        })
    },
};
