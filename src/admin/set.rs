//! SET: changes one key of the configuration until the next reload or restart.

use super::command::{Arguments, Command, no_such};
use super::order::Order;
use crate::config;
use crate::wire::error::{ErrorResponse, sqlstate};

pub(super) const COMMAND: Command = Command {
    words: "SET",
    follows: "key = value",
    help: "Changes a reloadable key until the next reload; SHOW CONFIG has the keys",
    changes: true,
    columns: &[],
    run: |desk, arguments| {
        Box::pin(async move {
            let (key, value) = key_and_value(&arguments).ok_or_else(|| COMMAND.usage())?;
            if !config::settings(&desk.shared.config.load()).iter().any(|setting| setting.key == key) {
                return Err(no_such(format!("there is no key {key}")).hint("SHOW CONFIG lists the keys."));
            }
            if !(desk.is_reloadable)(&key) {
                let message = format!("{key} cannot be changed without restarting the proxy");
                return Err(ErrorResponse::error(sqlstate::CANT_CHANGE_NOW, message));
            }
            desk.order(|reply| Order::Set { key, value, reply }).await?;
            Ok(Vec::new())
        })
    },
};

/// `a.b = value` or `a.b TO value`; several values are a list.
fn key_and_value(arguments: &Arguments) -> Option<(String, String)> {
    let texts = arguments.texts();
    let [section, ".", key, "=" | "to", value @ ..] = &texts[..] else { return None };
    if value.is_empty() {
        return None;
    }
    // A sign is a token of its own; a list has commas.
    Some((format!("{section}.{key}"), value.concat()))
}
