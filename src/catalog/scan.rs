//! What is known about splitting a statement's scan, kept beside its analysis.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry::metrics::Unsplit;

/// Whether a statement is worth splitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanVerdict {
    /// Nobody has asked the planner yet, or it is time to ask again.
    Unknown,
    Split,
    Not(Unsplit),
}

/// A verdict and until when it holds. It is no promise: whoever splits checks everything again.
#[derive(Debug, Default)]
pub struct ScanMemo(AtomicU64);

const SPLIT: u64 = 1;
const FIRST_REASON: u64 = 2;
const CODE_BITS: u32 = 8;
const FOR_EVER: u64 = u64::MAX >> CODE_BITS;

impl ScanMemo {
    /// `now` is in milliseconds.
    pub fn get(&self, now: impl FnOnce() -> u64) -> ScanVerdict {
        let known = self.0.load(Ordering::Relaxed);
        let (until, code) = (known >> CODE_BITS, known & ((1 << CODE_BITS) - 1));
        match code {
            0 => ScanVerdict::Unknown,
            SPLIT => ScanVerdict::Split,
            _ if until != FOR_EVER && now() >= until => ScanVerdict::Unknown,
            _ => {
                let reason = Unsplit::ALL.get((code - FIRST_REASON) as usize);
                reason.map_or(ScanVerdict::Unknown, |reason| ScanVerdict::Not(*reason))
            }
        }
    }

    pub fn split(&self) {
        self.0.store(SPLIT, Ordering::Relaxed);
    }

    pub fn never(&self, reason: Unsplit) {
        self.not_until(reason, FOR_EVER);
    }

    /// Not before `until`, in milliseconds.
    pub fn not_until(&self, reason: Unsplit, until: u64) {
        let code = FIRST_REASON + reason as u64;
        self.0.store(until.min(FOR_EVER) << CODE_BITS | code, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_is_what_was_said_last_until_its_time_is_up() {
        let memo = ScanMemo::default();
        assert_eq!(memo.get(|| 0), ScanVerdict::Unknown);
        for reason in Unsplit::ALL {
            memo.not_until(reason, 1000);
            assert_eq!(memo.get(|| 999), ScanVerdict::Not(reason));
            assert_eq!(memo.get(|| 1000), ScanVerdict::Unknown);
            memo.never(reason);
            assert_eq!(memo.get(|| u64::MAX), ScanVerdict::Not(reason));
        }
        memo.split();
        assert_eq!(memo.get(|| u64::MAX), ScanVerdict::Split);
    }
}
