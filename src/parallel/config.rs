//! `[parallel]` of the configuration.

use serde::{Deserialize, Serialize};

/// When a scan is split, and what that may cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ParallelConfig {
    pub enabled: bool,
    /// Connections that work on one statement at most; 0 for one per core.
    pub max_parallelism: usize,
    /// Begin with one connection and add another one every few milliseconds while the client takes what there is; take one
    /// away when it does not. False: all of them from the start.
    pub adaptive_parallelism: bool,
    /// Whoever is done takes the next range of blocks. False: the ranges are dealt out in turn.
    pub work_stealing: bool,
    /// A table with fewer rows, as the planner counts, is not split.
    pub min_rows_for_parallel: u64,
    /// A plan that costs less is not split.
    pub cost_threshold: f64,
    /// A table that takes less, TOAST included, is not split.
    pub min_table_mb: u64,
    /// Sums and averages of `double precision` are split, too.
    pub double_precision_sums: bool,
    /// Blocks in one range, TOAST counted.
    pub min_chunk_pages: u32,
    pub max_chunk_pages: u32,
    /// Connections for all split statements together, idle ones included.
    pub max_connections: usize,
    /// Seconds after which an idle one is closed.
    pub idle_timeout_secs: u64,
    /// Rows that are read before it is their turn: for one statement, and for all.
    pub query_memory_mb: u32,
    pub max_memory_mb: u32,
    /// Seconds without the client taking anything after which it is ended: it keeps the upstream from cleaning up.
    pub stall_timeout_secs: u64,
}

impl Default for ParallelConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            max_parallelism: 0,
            adaptive_parallelism: true,
            work_stealing: true,
            min_rows_for_parallel: 10_000,
            cost_threshold: 1000.0,
            min_table_mb: 64,
            double_precision_sums: false,
            min_chunk_pages: 256,
            max_chunk_pages: 8192,
            max_connections: 16,
            idle_timeout_secs: 60,
            query_memory_mb: 16,
            max_memory_mb: 128,
            stall_timeout_secs: 60,
        }
    }
}

impl ParallelConfig {
    /// Connections that may work on one statement, which has asked for `hint` of them.
    pub fn degree(&self, hint: Option<u16>) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = match (hint, self.max_parallelism) {
            (Some(hint), 0) => usize::from(hint),
            (Some(hint), max) => usize::from(hint).min(max),
            (None, 0) => cores(),
            (None, max) => max,
        };
        wanted.min(self.max_connections)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_asks_for_no_more_than_is_allowed() {
        let config = ParallelConfig { max_parallelism: 4, max_connections: 3, ..ParallelConfig::default() };
        assert_eq!([None, Some(1), Some(2), Some(9)].map(|hint| config.degree(hint)), [3, 1, 2, 3]);
        let config = ParallelConfig::default();
        assert_eq!([Some(1), Some(9), Some(99)].map(|hint| config.degree(hint)), [1, 9, 16]);
        assert!(config.degree(None) >= 1);
    }
}
