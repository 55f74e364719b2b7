//! CACHE EXPLAIN: whether a statement is answered from the cache, why not, and what an answer depends on.

use super::Desk;
use super::command::{Argument, ArgumentKind, Arguments, Command};
use super::show_cache_advice::advice;
use super::table::{Row, Value, text};
use crate::cache::ledger::ShapeId;
use crate::session::{Explanation, Terms, explain};
use crate::statement::shape_text;
use crate::wire::error::ErrorResponse;

/// Bytes of the normal form that are shown.
const SHOWN_BYTES: usize = 1000;

pub(super) const COMMAND: Command = Command {
    words: "CACHE EXPLAIN",
    follows: "'statement' [IN database]",
    help: "Whether a statement is cached, why not, and what its answer depends on; as the proxy's own account sees it",
    // The upstream parses it for the proxy's account: that is more than looking.
    changes: true,
    columns: &[text("property"), text("value")],
    run: |desk, arguments| {
        Box::pin(async move {
            let (statement, database) = statement_and_database(&arguments).ok_or_else(|| COMMAND.usage())?;
            rows(desk, statement, database).await
        })
    },
};

/// The same under the name that the other tables have.
pub(super) const SHOWN: Command = Command { words: "SHOW CACHE EXPLAIN", ..COMMAND };

fn statement_and_database(arguments: &Arguments) -> Option<(&str, Option<&str>)> {
    let [Argument { text: statement, kind: ArgumentKind::String }, rest @ ..] = arguments.0.as_slice() else {
        return None;
    };
    match rest {
        [] => Some((statement, None)),
        [word, database] if word.text == "in" => Some((statement, Some(&database.text))),
        _ => None,
    }
}

async fn rows(desk: &Desk, statement: &str, database: Option<&str>) -> Result<Vec<Row>, ErrorResponse> {
    let config = desk.shared.config.load_full();
    let database = database.unwrap_or(&config.upstream.database);
    let explanation = explain(&desk.shared, database, statement.as_bytes()).await?;
    let mut rows = Vec::new();
    let mut say = |property: &str, value: Value| rows.push(vec![property.into(), value]);
    match &explanation.verdict.outcome {
        Ok(Terms { key, ttl }) => {
            say("verdict", "cacheable".into());
            say("ttl_secs", ttl.as_secs().to_string().into());
            say("key", key.prefix().into());
        }
        Err(bypass) => {
            say("verdict", "not cacheable".into());
            say("reason", bypass.word().into());
            say("why", bypass.to_string().into());
            for name in &explanation.suspects {
                say("not_trusted", name.as_str().into());
            }
            say("advice", advice(*bypass).into());
        }
    }
    for relation in explanation.verdict.relations() {
        say("reads", relation.to_string().into());
    }
    for dependency in dependencies(&explanation) {
        say("depends_on", dependency.into());
    }
    say("query", shape_text(statement.as_bytes(), SHOWN_BYTES).into());
    if let [part] = explanation.statement.parts.as_slice() {
        let id = ShapeId::of(&part.shape);
        say("statement", id.to_string().into());
        if let Some(page) = desk.shared.ledger.pages().iter().find(|page| page.id == id) {
            let seen = page.figures();
            say("seen", format!("{} hits, {} runs", seen.hits, seen.runs).into());
            if let Some(reason) = seen.reason {
                say("last_not_cached_because", reason.to_string().into());
            }
        }
    }
    say("explained_as", format!("user {} in database {database}", config.upstream.user).into());
    Ok(rows)
}

/// What invalidates an answer.
fn dependencies(explanation: &Explanation) -> Vec<String> {
    let Some(analysis) = explanation.verdict.analysis.as_ref() else { return Vec::new() };
    let Ok(plan) = &analysis.read else { return Vec::new() };
    let described = plan.tables().zip(analysis.relations.iter()).map(|((_, column), relation)| match column {
        Some(column) => format!("writes of {relation} that concern the values of {column} in the statement"),
        None => format!("writes of any row of {relation}"),
    });
    described.collect()
}
