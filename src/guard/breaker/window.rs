//! Successes and failures of the last while, in bounded memory.

use std::time::Duration;

use tokio::time::Instant;

/// The window moves in steps of this fraction of its length.
const SLICES: usize = 10;

/// Counts what was recorded within `length`, or up to a tenth of it longer ago: never less than that.
#[derive(Debug)]
pub struct Window {
    begun: Instant,
    slice: Duration,
    /// Each with the number of its slice since `begun`.
    slices: [(u64, Counts); SLICES + 1],
}

#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    total: u64,
    failures: u64,
}

impl Window {
    pub fn new(length: Duration) -> Self {
        let slice = (length / SLICES as u32).max(Duration::from_millis(1));
        Self { begun: Instant::now(), slice, slices: Default::default() }
    }

    pub fn record(&mut self, now: Instant, success: bool) {
        let number = self.number(now);
        let place = &mut self.slices[number as usize % (SLICES + 1)];
        if place.0 != number {
            *place = (number, Counts::default());
        }
        place.1.total += 1;
        place.1.failures += u64::from(!success);
    }

    /// All requests, and the failed ones among them.
    pub fn counts(&self, now: Instant) -> (u64, u64) {
        let number = self.number(now);
        let present = self.slices.iter().filter(|(at, _)| at + SLICES as u64 >= number).map(|(_, counts)| counts);
        present.fold((0, 0), |(total, failures), counts| (total + counts.total, failures + counts.failures))
    }

    pub fn clear(&mut self) {
        self.slices = Default::default();
    }

    fn number(&self, now: Instant) -> u64 {
        (now.duration_since(self.begun).as_nanos() / self.slice.as_nanos()) as u64
    }
}
