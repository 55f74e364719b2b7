//! SHOW PARALLEL SKIPPED: how many reads were not split, and why not.

use super::Desk;
use super::command::Command;
use super::table::{Row, int, text};
use crate::telemetry::metrics::Unsplit;

pub(super) const COMMAND: Command = Command {
    words: "SHOW PARALLEL SKIPPED",
    follows: "",
    help: "How many reads were not split over several connections, by the reason, the most frequent one first",
    changes: false,
    columns: &[text("reason"), int("reads"), text("why")],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

/// Of the reasons that there were.
pub(super) fn rows(desk: &Desk) -> Vec<Row> {
    let seen = desk.shared.metrics.snapshot();
    let reads =
        |reason: Unsplit| seen.count(&format!("heliosdb_parallel_skipped_total{{reason=\"{}\"}}", reason.label()));
    let mut found: Vec<_> = Unsplit::ALL.into_iter().map(|reason| (reads(reason), reason)).collect();
    found.retain(|(reads, _)| *reads > 0);
    found.sort_by_key(|(reads, _)| std::cmp::Reverse(*reads));
    found.into_iter().map(|(reads, reason)| vec![reason.label().into(), reads.into(), why(reason).into()]).collect()
}

fn why(reason: Unsplit) -> &'static str {
    match reason {
        Unsplit::Shape => "their texts are of no form that is split",
        Unsplit::Rule => "a rule says parallel = false",
        Unsplit::Hint => "a hint in the statement says so",
        Unsplit::Login => "the proxy cannot log in as their user (auth.mode = \"relay\")",
        Unsplit::Transaction => "they were in a transaction block, or behind requests that were not answered yet",
        Unsplit::Prepared => "the server has not parsed or executed the prepared statement under these settings yet",
        Unsplit::Settings => "the session's settings are not known, or cannot be given to another connection",
        Unsplit::Catalog => "the catalogue was being read again, or cannot be read",
        Unsplit::Unsafe => "what they answer may depend on who runs them and when",
        Unsplit::Relation => "they read something else than one ordinary table",
        Unsplit::Plan => "the plan is not a plain scan, or the server splits it itself",
        Unsplit::Order => "they are sorted by what only the server can compare, or it is not clear by what",
        Unsplit::Small => "the table has too few rows or bytes, or the plan costs too little",
        Unsplit::Busy => "too few connections, or too little memory, were free",
        Unsplit::Failed => "splitting failed before the first row; they ran unsplit",
        Unsplit::Aggregate => "an aggregate or a type in them is not put together from parts",
        Unsplit::Groups => "they have too many groups: putting them together would cost more than it saves",
    }
}
