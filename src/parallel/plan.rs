//! What the planner says about a scan: whether it is what its text seemed to be, and large enough to be split.

use serde_json::Value;

use super::ParallelConfig;
use crate::telemetry::metrics::Unsplit;

/// What is made of the rows of the ranges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// They are the answer, one range after the other.
    Rows,
    /// They are partial groups: those of equal keys are put together.
    Groups,
}

/// A node of a plan, as `EXPLAIN (FORMAT JSON)` shows it.
#[derive(Debug, PartialEq)]
struct Node {
    kind: String,
    cost: f64,
    rows: f64,
}

/// What was found out about a statement.
#[derive(Debug, Clone, Copy)]
pub struct PlannedScan<'a> {
    pub shape: Shape,
    /// The plan of the statement itself, and for a range of blocks.
    pub whole: &'a [u8],
    pub range: &'a [u8],
    /// Rows in the table as far as the planner knows, and its bytes, TOAST included.
    pub rows: f64,
    pub bytes: u64,
}

/// From how much on a scan is split.
#[derive(Debug, Clone, Copy)]
pub struct ScanThresholds {
    pub rows: u64,
    pub cost: f64,
    pub bytes: u64,
}

impl From<&ParallelConfig> for ScanThresholds {
    fn from(config: &ParallelConfig) -> Self {
        Self { rows: config.min_rows_for_parallel, cost: config.cost_threshold, bytes: config.min_table_mb << 20 }
    }
}

/// Partial groups are worth their way only if there are at least so many rows in each.
const ROWS_PER_GROUP: f64 = 20.0;

impl Shape {
    /// Whether the plan of a statement is one that this shape splits: `leaf` at its end, and above it nothing but what the shape
    /// makes up for.
    fn is_plan(self, nodes: &[Node], leaf: &str) -> bool {
        let Some((last, above)) = nodes.split_last() else { return false };
        let is_made_up_for = |node: &Node| match self {
            Self::Rows => false,
            Self::Groups => ["Aggregate", "Group", "Unique", "Sort", "Limit", "Result"].contains(&node.kind.as_str()),
        };
        last.kind == leaf && above.iter().all(is_made_up_for)
    }
}

impl PlannedScan<'_> {
    /// Whether to split it.
    ///
    /// A plan that is nothing but a sequential scan does nothing but read, filter and compute columns: no aggregate, no order, no
    /// limit, no function of sets, no second query is left in it, whatever the text looks like. And a range of blocks must be read
    /// as such: where it is not, each range would take a scan of the whole table.
    pub fn judge(&self, thresholds: ScanThresholds) -> Result<(), Unsplit> {
        let whole = chain(self.whole).filter(|nodes| self.shape.is_plan(nodes, "Seq Scan")).ok_or(Unsplit::Plan)?;
        if chain(self.range).is_none_or(|nodes| !self.shape.is_plan(&nodes, "Tid Range Scan")) {
            return Err(Unsplit::Plan);
        }
        let (top, scan) = (whole.first().ok_or(Unsplit::Plan)?, whole.last().ok_or(Unsplit::Plan)?);
        // The planner knows better how many rows come out than the table's statistics, if these were never gathered.
        let rows = self.rows.max(scan.rows);
        if rows < thresholds.rows as f64 || top.cost < thresholds.cost || self.bytes < thresholds.bytes {
            return Err(Unsplit::Small);
        }
        let groups = whole.iter().find(|node| node.kind != "Limit").map_or(0.0, |node| node.rows);
        if self.shape == Shape::Groups && groups > 1.0 && groups * ROWS_PER_GROUP > scan.rows {
            return Err(Unsplit::Groups);
        }
        Ok(())
    }
}

/// The nodes of a plan from the top down; `None` if one of them has several below it, or works otherwise than by itself on what it
/// gets from there.
fn chain(json: &[u8]) -> Option<Vec<Node>> {
    let plans: Value = serde_json::from_slice(json).ok()?;
    let [only] = plans.as_array()?.as_slice() else { return None };
    let (mut plan, mut nodes) = (only.get("Plan")?, Vec::new());
    loop {
        let is_simple = plan.get("Partial Mode").is_none_or(|mode| mode == "Simple");
        let is_outer = plan.get("Parent Relationship").is_none_or(|relation| relation == "Outer");
        if !is_simple || !is_outer || plan.get("Grouping Sets").is_some() {
            return None;
        }
        let number = |name: &str| plan.get(name).map_or(Some(0.0), Value::as_f64);
        nodes.push(Node {
            kind: plan.get("Node Type")?.as_str()?.to_owned(),
            cost: number("Total Cost")?,
            rows: number("Plan Rows")?,
        });
        match plan.get("Plans").map(Value::as_array) {
            None => return Some(nodes),
            Some(Some(plans)) if plans.len() == 1 => plan = &plans[0],
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: ScanThresholds = ScanThresholds { rows: 10_000, cost: 1000.0, bytes: 64 << 20 };

    fn plan(kind: &str, cost: f64, rows: u64, children: &str) -> String {
        format!(r#"[{{"Plan": {{"Node Type": "{kind}", "Total Cost": {cost}, "Plan Rows": {rows}{children}}}}}]"#)
    }

    fn judge(whole: &str, range: &str, rows: f64, bytes: u64) -> Result<(), Unsplit> {
        PlannedScan { shape: Shape::Rows, whole: whole.as_bytes(), range: range.as_bytes(), rows, bytes }
            .judge(THRESHOLDS)
    }

    /// Nodes from the top down, each with its rows and what else it says.
    fn stack(nodes: &[(&str, u64, &str)]) -> String {
        let inner = nodes.iter().rev().fold(String::new(), |below, (kind, rows, more)| {
            let below = if below.is_empty() { below } else { format!(r#", "Plans": [{below}]"#) };
            format!(
                r#"{{"Node Type": "{kind}", "Total Cost": 2000, "Plan Rows": {rows}, "Parent Relationship": "Outer"{more}{below}}}"#
            )
        });
        format!(r#"[{{"Plan": {inner}}}]"#)
    }

    fn judge_groups(whole: &[(&str, u64, &str)], range: &[(&str, u64, &str)]) -> Result<(), Unsplit> {
        let (whole, range) = (stack(whole), stack(range));
        let (whole, range) = (whole.as_bytes(), range.as_bytes());
        PlannedScan { shape: Shape::Groups, whole, range, rows: 1e6, bytes: 1 << 30 }.judge(THRESHOLDS)
    }

    #[test]
    fn groups_are_split_if_the_server_does_not_do_so_itself_and_they_are_few() {
        let scan = ("Seq Scan", 1_000_000, "");
        let range = [("Aggregate", 10, ""), ("Tid Range Scan", 100, "")];
        let simple = ("Aggregate", 10, r#", "Partial Mode": "Simple""#);
        for whole in [
            vec![simple, scan],
            vec![("Limit", 1, ""), ("Sort", 10, ""), simple, ("Sort", 1_000_000, ""), scan],
            vec![("Unique", 10, ""), ("Sort", 10, ""), scan],
        ] {
            assert_eq!(judge_groups(&whole, &range), Ok(()));
        }
        for whole in [
            vec![simple, ("Gather", 10, ""), simple, scan],
            vec![("Aggregate", 10, r#", "Partial Mode": "Finalize""#), scan],
            vec![("Aggregate", 10, r#", "Grouping Sets": []"#), scan],
            vec![("WindowAgg", 10, ""), simple, scan],
            vec![("ProjectSet", 10, ""), simple, scan],
            vec![simple, ("Index Only Scan", 1_000_000, "")],
            vec![("Result", 1, ""), ("Seq Scan", 10, r#", "Parent Relationship": "InitPlan""#)],
        ] {
            assert_eq!(judge_groups(&whole, &range), Err(Unsplit::Plan), "{whole:?}");
        }
        assert_eq!(judge_groups(&[simple, scan], &[("Aggregate", 10, ""), scan]), Err(Unsplit::Plan));
        let many = ("Aggregate", 100_000, "");
        assert_eq!(judge_groups(&[many, scan], &range), Err(Unsplit::Groups));
        assert_eq!(judge_groups(&[("Limit", 10, ""), many, scan], &range), Err(Unsplit::Groups));
    }

    #[test]
    fn only_large_plain_scans_are_split() {
        let (scan, range) = (plan("Seq Scan", 2000.0, 5, ""), plan("Tid Range Scan", 1.0, 1, ""));
        let (rows, bytes) = (1e6, 1 << 30);
        assert_eq!(judge(&scan, &range, rows, bytes), Ok(()));
        assert_eq!(judge(&plan("Seq Scan", 2000.0, 10_000, ""), &range, -1.0, bytes), Ok(()), "never analysed");
        for kind in ["Index Scan", "Gather", "Aggregate", "Result", "Limit", "ProjectSet", "Foreign Scan"] {
            assert_eq!(judge(&plan(kind, 2000.0, 5, ""), &range, rows, bytes), Err(Unsplit::Plan), "{kind}");
        }
        let with_subplan = plan("Seq Scan", 2000.0, 5, r#", "Plans": []"#);
        assert_eq!(judge(&with_subplan, &range, rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge(&scan, &plan("Seq Scan", 1.0, 1, ""), rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge("", &range, rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge("[{}]", &range, rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge(&scan, &range, 9999.0, bytes), Err(Unsplit::Small));
        assert_eq!(judge(&scan, &range, rows, (64 << 20) - 1), Err(Unsplit::Small));
        assert_eq!(judge(&plan("Seq Scan", 999.0, 5, ""), &range, rows, bytes), Err(Unsplit::Small));
    }
}
