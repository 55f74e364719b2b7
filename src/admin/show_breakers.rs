//! SHOW BREAKERS: the circuit breakers and what their windows hold.

use super::Desk;
use super::command::Command;
use super::table::{Row, float, int, text};

pub(super) const COMMAND: Command = Command {
    words: "SHOW BREAKERS",
    follows: "",
    help: "The circuit breaker of the server: its state, and the calls in its window",
    changes: false,
    columns: &[text("service"), text("state"), int("calls"), int("failures"), float("failure_rate")],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

pub(super) fn rows(desk: &Desk) -> Vec<Row> {
    let stats = desk.shared.lookout.breaker.stats();
    vec![vec![
        "upstream".into(),
        stats.state.label().into(),
        stats.total_requests.into(),
        stats.failures.into(),
        stats.failure_rate.into(),
    ]]
}
