//! SHOW CACHE ADVICE: the statements that cost the server most because they are not answered from the cache, why they are not,
//! and what can be done about it.

use super::Desk;
use super::command::Command;
use super::show_cache_top::{average, milliseconds};
use super::table::{Row, float, int, text};
use crate::cache::ledger::Figures;
use crate::cache::verdict::Bypass;

/// Rows at most.
const MOST: usize = 100;

/// A statement that ran so often, and was answered from the cache in less than a tenth of the times, is seldom hit.
const RUNS_TO_JUDGE: u64 = 10;

pub(super) const COMMAND: Command = Command {
    words: "SHOW CACHE ADVICE",
    follows: "",
    help: "The 100 reads that cost the server most time, why they are not answered from the cache, and what may help",
    changes: false,
    columns: &[
        text("statement"),
        int("runs"),
        float("run_total_ms"),
        float("run_avg_ms"),
        int("hits"),
        text("reason"),
        text("why"),
        text("advice"),
        text("query"),
    ],
    run: |desk, arguments| {
        Box::pin(async move {
            arguments.none(&COMMAND)?;
            Ok(rows(desk))
        })
    },
};

/// Why a statement is not answered from the cache, and what may help.
struct Finding {
    reason: &'static str,
    why: String,
    advice: &'static str,
}

pub(super) fn rows(desk: &Desk) -> Vec<Row> {
    let pages = desk.shared.ledger.pages();
    let mut found: Vec<_> = pages
        .iter()
        .filter(|page| page.is_read)
        .filter_map(|page| {
            let seen = page.figures();
            Some((page, seen, finding(&seen)?))
        })
        .collect();
    found.sort_by_key(|(page, seen, _)| (std::cmp::Reverse(seen.run_time), page.id.to_string()));
    found.truncate(MOST);
    found
        .into_iter()
        .map(|(page, seen, finding)| {
            vec![
                page.id.to_string().into(),
                seen.runs.into(),
                milliseconds(seen.run_time).into(),
                average(&seen).into(),
                seen.hits.into(),
                finding.reason.into(),
                finding.why.into(),
                finding.advice.into(),
                page.text.as_ref().into(),
            ]
        })
        .collect()
}

fn finding(seen: &Figures) -> Option<Finding> {
    if seen.runs == 0 {
        return None;
    }
    if let Some(bypass) = seen.reason {
        return Some(Finding { reason: bypass.word(), why: bypass.to_string(), advice: advice(bypass) });
    }
    (seen.runs >= RUNS_TO_JUDGE && seen.hits * 10 < seen.runs).then(|| Finding {
        reason: "seldom_hit",
        why: "its results are seldom asked for again while they are valid".into(),
        advice: "Its values may never repeat, writes may invalidate them first (read and write by key, so that a write of other \
                 rows leaves them), they may expire, or be larger than cache.max_entry_bytes.",
    })
}

pub(super) fn advice(bypass: Bypass) -> &'static str {
    match bypass {
        Bypass::Disabled => "Set cache.enabled = true. Replication connections have no cache.",
        Bypass::NotRead => "Send reads as statements of their own.",
        Bypass::Transaction => "Read outside transactions, or in READ COMMITTED before the first write.",
        Bypass::Settings => "Change settings with plain SET commands, not by set_config() or in functions.",
        Bypass::Temporary => "Use sessions without temporary tables for what is to be cached.",
        Bypass::Encoding => "Set client_encoding to UTF8 and leave standard_conforming_strings on.",
        Bypass::Catalog => "See /health: the proxy's own account must be able to connect to this database.",
        Bypass::Pipelined => "Wait for the answers of earlier requests before it is sent.",
        Bypass::RowLocks => "Leave FOR UPDATE or FOR SHARE out if the rows need not be locked.",
        Bypass::Function => {
            "If the function is yours, depends on its arguments alone and is declared IMMUTABLE, set \
             cache.trust_immutable_functions = true. Otherwise pass its result as a parameter."
        }
        Bypass::Context => "Pass the time, user or schema as a parameter, rounded as far as you can.",
        Bypass::TemporalCast => "Store the column as a date or timestamp instead of text.",
        Bypass::NoRelation => "Nothing is to be gained: it reads no table.",
        Bypass::Relation => "Read from ordinary tables, views of them, or materialized views.",
        Bypass::RowSecurity => "Nothing can be done: who sees which rows is for the policies to say each time.",
        Bypass::Operator => {
            "If the operator or cast is yours and rests on IMMUTABLE functions, set cache.trust_immutable_functions = true."
        }
        Bypass::Shape => "Ask for all rows at once (no fetch size), and end each request with Sync.",
        Bypass::Undecided => "Nothing: it is being analysed.",
        Bypass::Rule => "A rule in cache.rules says so.",
        Bypass::Hint => "A comment in front of the statement says so.",
        Bypass::InFlight => "Nothing: a write of its tables is on its way.",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_hit_often_or_never_ran_needs_no_advice() {
        let seen =
            |hits, runs, reason| Figures { hits, runs, reason, run_time: Duration::from_secs(1), ..Figures::default() };
        let reason = |figures| finding(&figures).map(|finding| finding.reason);
        assert_eq!(reason(seen(100, 10, None)), None);
        assert_eq!(reason(seen(0, 9, None)), None);
        assert_eq!(reason(seen(0, 10, None)), Some("seldom_hit"));
        assert_eq!(reason(seen(0, 0, Some(Bypass::Rule))), None);
        assert_eq!(reason(seen(50, 1, Some(Bypass::Rule))), Some("rule"));
        assert!(Bypass::ALL.iter().all(|bypass| !advice(*bypass).is_empty()));
    }
}
