//! What the planner says about a scan: whether it is a plain one, and large enough to be split.

use serde_json::Value;

use super::ParallelConfig;
use crate::telemetry::metrics::Unsplit;

/// A plan that is one node, as `EXPLAIN (FORMAT JSON)` shows it.
#[derive(Debug, PartialEq)]
struct Node {
    kind: String,
    cost: f64,
    rows: f64,
}

/// What was found out about a statement.
#[derive(Debug, Default, Clone, Copy)]
pub struct PlannedScan<'a> {
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

impl PlannedScan<'_> {
    /// Whether to split it.
    ///
    /// A plan that is nothing but a sequential scan does nothing but read, filter and compute columns: no aggregate, no order, no
    /// limit, no function of sets, no second query is left in it, whatever the text looks like. And a range of blocks must be read
    /// as such: where it is not, each range would take a scan of the whole table.
    pub fn judge(&self, thresholds: ScanThresholds) -> Result<(), Unsplit> {
        let whole = node(self.whole).filter(|node| node.kind == "Seq Scan").ok_or(Unsplit::Plan)?;
        if node(self.range).is_none_or(|node| node.kind != "Tid Range Scan") {
            return Err(Unsplit::Plan);
        }
        // The planner knows better how many rows come out than the table's statistics, if these were never gathered.
        let rows = self.rows.max(whole.rows);
        let is_small = rows < thresholds.rows as f64 || whole.cost < thresholds.cost || self.bytes < thresholds.bytes;
        if is_small { Err(Unsplit::Small) } else { Ok(()) }
    }
}

/// The only node of a plan; `None` if there are several.
fn node(json: &[u8]) -> Option<Node> {
    let plans: Value = serde_json::from_slice(json).ok()?;
    let [only] = plans.as_array()?.as_slice() else { return None };
    let plan = only.get("Plan")?;
    if plan.get("Plans").is_some() {
        return None;
    }
    Some(Node {
        kind: plan.get("Node Type")?.as_str()?.to_owned(),
        cost: plan.get("Total Cost")?.as_f64()?,
        rows: plan.get("Plan Rows")?.as_f64()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const THRESHOLDS: ScanThresholds = ScanThresholds { rows: 10_000, cost: 1000.0, bytes: 64 << 20 };

    fn plan(kind: &str, cost: f64, rows: u64, children: &str) -> String {
        format!(r#"[{{"Plan": {{"Node Type": "{kind}", "Total Cost": {cost}, "Plan Rows": {rows}{children}}}}}]"#)
    }

    fn judge(whole: &str, range: &str, rows: f64, bytes: u64) -> Result<(), Unsplit> {
        PlannedScan { whole: whole.as_bytes(), range: range.as_bytes(), rows, bytes }.judge(THRESHOLDS)
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
