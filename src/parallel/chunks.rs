//! A table cut into ranges of blocks, and who reads which.
//!
//! **Invariant.** The ranges are contiguous, the first begins at the first block and the last has no end: every row of the table
//! is in exactly one of them, whatever its size is by now. Each is given out once. A range is of the same blocks of all files that the
//! table consists of: each row is in exactly one file.

use std::sync::Mutex;
use std::sync::PoisonError;

/// Ranges for each worker, so that they end at about the same time.
const PER_WORKER: u64 = 12;

/// Past the last block that a table can have (`MaxBlockNumber`, src/include/storage/block.h).
const NO_BLOCK: u32 = u32::MAX;

/// How large a table is, as it was found under the snapshot and the lock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSize {
    /// Of its own file, and of those of its children or partitions.
    pub files: Vec<u32>,
    /// With everything that belongs to them: TOAST above all.
    pub all_pages: u64,
}

/// What limits the size of a range.
#[derive(Debug, Clone, Copy)]
pub struct ChunkLimits {
    pub min_pages: u32,
    pub max_pages: u32,
    /// A range for each worker but one should fit into so many pages.
    pub memory_pages: u64,
}

#[derive(Debug)]
pub struct Chunks {
    /// Where each range begins.
    bounds: Vec<u32>,
    dealer: Mutex<Dealer>,
}

#[derive(Debug)]
enum Dealer {
    /// Whoever asks gets the next one.
    Stealing { next: usize },
    /// Each worker has every so manieth, and has taken so many of them.
    InTurn { taken: Vec<usize> },
}

impl Chunks {
    /// For `workers` that take what comes next.
    pub fn stealing(size: &TableSize, limits: ChunkLimits, workers: usize) -> Self {
        Self::new(size, limits, workers, Dealer::Stealing { next: 0 })
    }

    /// For exactly `workers`, each with its own share.
    pub fn in_turn(size: &TableSize, limits: ChunkLimits, workers: usize) -> Self {
        Self::new(size, limits, workers, Dealer::InTurn { taken: vec![0; workers] })
    }

    /// At most one for each of `workers`, about as large as each other.
    pub fn one_each(size: &TableSize, workers: usize) -> Self {
        let pages = size.files.iter().copied().map(u64::from).sum::<u64>();
        let bounds = bounds(&size.files, pages.div_ceil(workers.max(1) as u64).max(1));
        Self { bounds, dealer: Mutex::new(Dealer::InTurn { taken: vec![0; workers] }) }
    }

    fn new(size: &TableSize, limits: ChunkLimits, workers: usize, dealer: Dealer) -> Self {
        let workers = workers.max(1) as u64;
        let pages = size.files.iter().copied().map(u64::from).sum::<u64>();
        let all = size.all_pages.max(pages).max(1);
        let even = (all / (workers * PER_WORKER)).clamp(limits.min_pages.into(), limits.max_pages.into());
        let fitting = even.min(limits.memory_pages / (workers - 1).max(1)).max(1);
        // In blocks of the table's own files.
        let own = (u128::from(fitting) * u128::from(pages) / u128::from(all)).max(1);
        let bounds = bounds(&size.files, u64::try_from(own).unwrap_or(u64::MAX));
        Self { bounds, dealer: Mutex::new(dealer) }
    }

    pub fn count(&self) -> usize {
        self.bounds.len()
    }

    /// The next range for this worker.
    pub fn next(&self, worker: usize) -> Option<usize> {
        let mut dealer = self.dealer.lock().unwrap_or_else(PoisonError::into_inner);
        let chunk = match &mut *dealer {
            Dealer::Stealing { next } => {
                let chunk = *next;
                *next = (chunk + 1).min(self.count());
                chunk
            }
            Dealer::InTurn { taken } => {
                let workers = taken.len();
                let mine = taken.get_mut(worker)?;
                let chunk = worker + *mine * workers;
                *mine += usize::from(chunk < self.count());
                chunk
            }
        };
        (chunk < self.count()).then_some(chunk)
    }

    /// Nothing is left to be given out.
    pub fn is_dealt(&self) -> bool {
        match &*self.dealer.lock().unwrap_or_else(PoisonError::into_inner) {
            Dealer::Stealing { next } => *next >= self.count(),
            Dealer::InTurn { taken } => taken.iter().sum::<usize>() >= self.count(),
        }
    }

    /// From which block, and before which.
    pub fn blocks(&self, chunk: usize) -> (u32, u32) {
        let block = |chunk: usize| self.bounds.get(chunk).copied().unwrap_or(NO_BLOCK);
        (block(chunk), block(chunk + 1))
    }
}

/// Where ranges begin that have about so many blocks each, those of all files counted.
fn bounds(files: &[u32], pages_each: u64) -> Vec<u32> {
    let mut files = files.to_vec();
    files.sort_unstable();
    // Those that have blocks from `at` on.
    let mut longer = files.as_slice();
    let (mut bounds, mut at, mut missing) = (vec![0], 0, pages_each);
    while let Some((&shortest, others)) = longer.split_first() {
        let many = longer.len() as u64;
        let here = u64::from(shortest.saturating_sub(at)) * many;
        if here < missing {
            (missing, at, longer) = (missing - here, shortest.max(at), others);
            continue;
        }
        at += u32::try_from(missing.div_ceil(many)).unwrap_or(NO_BLOCK - at);
        missing = pages_each;
        if files.last().is_some_and(|longest| at < *longest) {
            bounds.push(at);
        } else {
            break;
        }
    }
    bounds
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: ChunkLimits = ChunkLimits { min_pages: 256, max_pages: 8192, memory_pages: 1 << 40 };

    fn plain(pages: u32) -> TableSize {
        TableSize { files: vec![pages], all_pages: pages.into() }
    }

    fn partitioned(files: &[u32]) -> TableSize {
        TableSize { files: files.to_vec(), all_pages: files.iter().copied().map(u64::from).sum() }
    }

    #[test]
    fn ranges_are_many_but_not_small() {
        let each = |size: TableSize, workers| Chunks::stealing(&size, LIMITS, workers).blocks(0).1;
        assert_eq!(each(plain(98_304), 2), 4096);
        assert_eq!(each(plain(1000), 2), 256);
        assert_eq!(each(plain(u32::MAX - 1), 2), 8192);
        let toasted = TableSize { files: vec![1000], all_pages: 100_000 };
        assert_eq!(each(toasted, 2), 41);
        let tight = ChunkLimits { memory_pages: 1000, ..LIMITS };
        assert_eq!(Chunks::stealing(&plain(98_304), tight, 3).blocks(0).1, 500);
    }

    #[test]
    fn there_can_be_one_range_for_each() {
        let bounds = |files: &[u32], workers| Chunks::one_each(&partitioned(files), workers).bounds;
        assert_eq!(bounds(&[1000], 3), [0, 334, 668]);
        assert_eq!(bounds(&[1000, 200], 2), [0, 400]);
        assert_eq!(bounds(&[1, 1], 3), [0]);
        assert_eq!(bounds(&[0], 3), [0]);
        for files in 1..50 {
            assert!((1..9).all(|workers| bounds(&[files, 7, 3], workers).len() <= workers));
        }
    }

    #[test]
    fn ranges_of_several_files_are_as_large_together() {
        let bounds = |files: &[u32]| Chunks::stealing(&partitioned(files), LIMITS, 1).bounds;
        assert_eq!(bounds(&[1024, 0, 1024]), [0, 128, 256, 384, 512, 640, 768, 896]);
        // 128 blocks of both, and from then on of one.
        assert_eq!(bounds(&[640, 128]), [0, 128, 384]);
        assert_eq!(bounds(&[64, 640]), [0, 192, 448]);
        assert_eq!(bounds(&[]), [0]);
        assert_eq!(bounds(&[0, 0]), [0]);
        assert_eq!(bounds(&[1; 300]), [0]);
    }

    proptest! {
        #[test]
        fn every_block_is_in_exactly_one_range_and_each_is_given_out_once(
            files in prop::collection::vec(0u32..=u32::MAX - 1, 1..5),
            toast in 0u64..1 << 40,
            workers in 1usize..9,
            stealing: bool,
            order in prop::collection::vec(0usize..9, 0..40),
        ) {
            let pages = files.iter().copied().max().unwrap_or(0);
            let size = partitioned(&files);
            let toasted = TableSize { all_pages: size.all_pages + toast, ..size.clone() };
            // Few ranges, so that all can be looked at.
            let limits = ChunkLimits { min_pages: (pages / 50).max(1), max_pages: u32::MAX, memory_pages: u64::MAX };
            let size = if pages / 50 == 0 { size } else { toasted };
            let chunks =
                if stealing { Chunks::stealing(&size, limits, workers) } else { Chunks::in_turn(&size, limits, workers) };
            prop_assume!(chunks.count() < 10_000);
            let mut taken: Vec<usize> = order.iter().filter_map(|worker| chunks.next(worker % workers)).collect();
            for worker in 0..workers {
                taken.extend(std::iter::from_fn(|| chunks.next(worker)));
            }
            prop_assert!(chunks.is_dealt());
            taken.sort_unstable();
            prop_assert_eq!(taken, (0..chunks.count()).collect::<Vec<_>>());
            let mut from = 0;
            for chunk in 0..chunks.count() {
                let (begin, end) = chunks.blocks(chunk);
                prop_assert_eq!(begin, from);
                prop_assert!(begin < end);
                from = end;
            }
            prop_assert_eq!(from, NO_BLOCK);
        }
    }
}
