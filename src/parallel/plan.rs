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
    /// Each range is sorted, and they are merged.
    Sorted,
}

/// A node of a plan, as `EXPLAIN (FORMAT JSON)` shows it.
#[derive(Debug, PartialEq)]
struct Node {
    kind: String,
    cost: f64,
    rows: f64,
}

/// A plan that reads one table.
#[derive(Debug)]
struct Tree {
    /// What is done with its rows, from the top down.
    above: Vec<Node>,
    /// What they come from: a scan, or several of them one after the other, of a table's partitions.
    source: Node,
    scans: Vec<Node>,
}

/// What was found out about a statement.
#[derive(Debug, Clone, Copy)]
pub struct PlannedScan<'a> {
    pub shape: Shape,
    /// The plan of the statement itself, and for a range of blocks. For groups that is asked when they are split.
    pub whole: &'a [u8],
    pub range: Option<&'a [u8]>,
    /// Rows in the table as far as the planner knows, and its bytes, TOAST included; of those of its partitions that are read.
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

/// Scans of small partitions that a range may take whole, in parts of what the statement costs: each range takes them again.
const WHOLE_PARTITIONS: f64 = 0.02;

impl Shape {
    /// Whether nothing is done with a table's rows but what this shape makes up for.
    fn is_plan(self, above: &[Node]) -> bool {
        let is_made_up_for = |node: &Node| match self {
            Self::Rows => false,
            Self::Groups => ["Aggregate", "Group", "Unique", "Sort", "Limit", "Result"].contains(&node.kind.as_str()),
            Self::Sorted => ["Sort", "Limit", "Result"].contains(&node.kind.as_str()),
        };
        let sorts = above.iter().filter(|node| node.kind == "Sort").count();
        above.iter().all(is_made_up_for) && (self != Self::Sorted || sorts == 1)
    }

    /// The plan of a statement, if it scans the table.
    fn scanned(self, whole: &[u8]) -> Option<Tree> {
        let is_scan = |tree: &Tree| tree.scans.iter().all(|scan| scan.kind == "Seq Scan");
        Tree::read(whole).filter(|tree| self.is_plan(&tree.above) && is_scan(tree))
    }

    /// The same if ranges of blocks are read as such.
    fn in_ranges(self, whole: &[u8], range: &[u8]) -> Option<Tree> {
        let whole = self.scanned(whole)?;
        let range = Tree::read(range).filter(|tree| self.is_plan(&tree.above))?;
        let (ranges, others): (Vec<_>, Vec<_>) = range.scans.iter().partition(|scan| scan.kind == "Tid Range Scan");
        let again: f64 = others.iter().map(|scan| scan.cost).sum();
        let cost = whole.above.first().unwrap_or(&whole.source).cost;
        let is_read_so = others.into_iter().all(|scan| scan.kind == "Seq Scan") && !ranges.is_empty();
        (is_read_so && again <= cost * WHOLE_PARTITIONS).then_some(whole)
    }
}

/// Whether a statement and that for a range have plans that [`Shape::Groups`] splits. Nothing is asked of their size.
pub(super) fn is_grouping(whole: &[u8], range: &[u8]) -> bool {
    Shape::Groups.in_ranges(whole, range).is_some()
}

/// The same for [`Shape::Sorted`].
pub(super) fn is_sorting(whole: &[u8], range: &[u8]) -> bool {
    Shape::Sorted.in_ranges(whole, range).is_some()
}

impl PlannedScan<'_> {
    /// Whether to split it.
    ///
    /// A plan that is nothing but sequential scans does nothing but read, filter and compute columns: no aggregate, no order, no
    /// limit, no function of sets, no second query is left in it, whatever the text looks like. And a range of blocks must be read
    /// as such: where it is not, each range would take a scan of the whole table.
    pub fn judge(&self, thresholds: ScanThresholds) -> Result<(), Unsplit> {
        let whole = match self.range {
            Some(range) => self.shape.in_ranges(self.whole, range),
            None => self.shape.scanned(self.whole).filter(|_| self.shape == Shape::Groups),
        };
        let whole = whole.ok_or(Unsplit::Plan)?;
        let (top, scan) = (whole.above.first().unwrap_or(&whole.source), &whole.source);
        // The planner knows better how many rows come out than the table's statistics, if these were never gathered.
        let rows = self.rows.max(scan.rows);
        if rows < thresholds.rows as f64 || top.cost < thresholds.cost || self.bytes < thresholds.bytes {
            return Err(Unsplit::Small);
        }
        Ok(())
    }
}

impl Node {
    fn of(plan: &Value) -> Option<Self> {
        let number = |name: &str| plan.get(name).map_or(Some(0.0), Value::as_f64);
        Some(Self {
            kind: plan.get("Node Type")?.as_str()?.to_owned(),
            cost: number("Total Cost")?,
            rows: number("Plan Rows")?,
        })
    }
}

impl Tree {
    /// `None` if a node but the last has several below it, or works otherwise than by itself on what it gets from there.
    fn read(json: &[u8]) -> Option<Self> {
        let plans: Value = serde_json::from_slice(json).ok()?;
        let [only] = plans.as_array()?.as_slice() else { return None };
        let (mut plan, mut above) = (only.get("Plan")?, Vec::new());
        loop {
            let is_simple = plan.get("Partial Mode").is_none_or(|mode| mode == "Simple");
            let is_outer = plan.get("Parent Relationship").is_none_or(|relation| relation == "Outer");
            if !is_simple || !is_outer || plan.get("Grouping Sets").is_some() {
                return None;
            }
            let node = Node::of(plan)?;
            match below(plan)? {
                [only] if node.kind != "Append" => plan = only,
                below if below.is_empty() || node.kind == "Append" => {
                    let mut scans = Vec::new();
                    collect_scans(plan, &mut scans)?;
                    return Some(Self { above, source: node, scans });
                }
                _ => return None,
            }
            above.push(node);
        }
    }
}

/// The plans below one.
fn below(plan: &Value) -> Option<&[Value]> {
    plan.get("Plans").map_or(Some(&[]), |plans| plans.as_array().map(Vec::as_slice))
}

/// Adds the scans that a plan appends to each other, if it is nothing else.
fn collect_scans(plan: &Value, scans: &mut Vec<Node>) -> Option<()> {
    match (Node::of(plan)?, below(plan)?) {
        (node, []) => {
            scans.push(node);
            Some(())
        }
        (node, parts) if node.kind == "Append" => {
            let is_member = |part: &Value| part.get("Parent Relationship").is_none_or(|relation| relation == "Member");
            parts.iter().try_for_each(|part| is_member(part).then(|| collect_scans(part, scans))?)
        }
        _ => None,
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
        PlannedScan { shape: Shape::Rows, whole: whole.as_bytes(), range: Some(range.as_bytes()), rows, bytes }
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
        let (whole, range) = (whole.as_bytes(), Some(range.as_bytes()));
        PlannedScan { shape: Shape::Groups, whole, range, rows: 1e6, bytes: 1 << 30 }.judge(THRESHOLDS)
    }

    #[test]
    fn groups_are_split_if_the_server_does_not_do_so_itself() {
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
        let child = r#"{"Node Type": "Result", "Total Cost": 1, "Plan Rows": 1}"#;
        let with_subplan = plan("Seq Scan", 2000.0, 5, &format!(r#", "Plans": [{child}]"#));
        assert_eq!(judge(&with_subplan, &range, rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge(&scan, &plan("Seq Scan", 1.0, 1, ""), rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge("", &range, rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge("[{}]", &range, rows, bytes), Err(Unsplit::Plan));
        assert_eq!(judge(&scan, &range, 9999.0, bytes), Err(Unsplit::Small));
        assert_eq!(judge(&scan, &range, rows, (64 << 20) - 1), Err(Unsplit::Small));
        assert_eq!(judge(&plan("Seq Scan", 999.0, 5, ""), &range, rows, bytes), Err(Unsplit::Small));
    }

    fn append(children: &[&str]) -> String {
        let children: Vec<_> = children
            .iter()
            .map(|kind| {
                format!(
                    r#"{{"Node Type": "{kind}", "Total Cost": 30, "Plan Rows": 5, "Parent Relationship": "Member"}}"#
                )
            })
            .collect();
        plan("Append", 2000.0, 5, &format!(r#", "Plans": [{}]"#, children.join(", ")))
    }

    #[test]
    fn partitions_are_split_if_all_are_scanned_and_ranges_of_them_are_read_as_such() {
        let judge = |whole: &[&str], range: &[&str]| judge(&append(whole), &append(range), 1e6, 1 << 30);
        assert_eq!(judge(&["Seq Scan"; 3], &["Tid Range Scan"; 3]), Ok(()));
        // Small ones.
        assert_eq!(judge(&["Seq Scan"; 3], &["Tid Range Scan", "Seq Scan", "Tid Range Scan"]), Ok(()));
        assert_eq!(judge(&["Seq Scan"; 3], &["Tid Range Scan", "Seq Scan", "Seq Scan"]), Err(Unsplit::Plan));
        assert_eq!(judge(&["Seq Scan"], &["Seq Scan"]), Err(Unsplit::Plan));
        assert_eq!(judge(&["Seq Scan", "Index Scan"], &["Tid Range Scan"; 2]), Err(Unsplit::Plan));
        assert_eq!(judge(&["Seq Scan", "Foreign Scan"], &["Tid Range Scan"; 2]), Err(Unsplit::Plan));
        assert_eq!(judge(&["Seq Scan"; 2], &["Tid Range Scan", "Index Scan"]), Err(Unsplit::Plan));
        assert_eq!(judge(&[], &["Tid Range Scan"]), Err(Unsplit::Plan));
        let nested =
            append(&["Seq Scan"]).replace("Seq Scan", r#"Append", "Plans": [{"Node Type": "Seq Scan"}], "Alias": "t"#);
        let range = append(&["Tid Range Scan"]);
        let nested = PlannedScan {
            shape: Shape::Rows,
            whole: nested.as_bytes(),
            range: Some(range.as_bytes()),
            rows: 1e6,
            bytes: 1 << 30,
        };
        assert_eq!(nested.judge(THRESHOLDS), Ok(()));
    }
}
