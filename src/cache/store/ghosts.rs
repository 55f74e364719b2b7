//! How often entries were used that have left, so that one which comes back is not taken for a stranger.

use crate::cache::entry::allocated;
use crate::cache::key::CacheKey;

/// Ghosts for each place of the shard.
const PER_PLACE: usize = 2;

/// A table with one candidate a key: a newer ghost takes the place of an older one, and a wrong one does no harm but to
/// the order of eviction.
#[derive(Debug, Default)]
pub(super) struct Ghosts {
    ghosts: Box<[Ghost]>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Ghost {
    print: u32,
    trace: Trace,
}

/// What is remembered of an entry: its frequency as it stood at its last use.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Trace {
    pub frequency: f32,
    pub last: u64,
}

impl Ghosts {
    /// Makes room for a shard with so many places.
    pub fn keep_pace(&mut self, places: usize) {
        let count = (places * PER_PLACE).next_power_of_two();
        if count == self.ghosts.len() {
            return;
        }
        let old = std::mem::replace(&mut self.ghosts, vec![Ghost::default(); count].into_boxed_slice());
        for ghost in old.iter().filter(|ghost| ghost.trace.frequency > 0.0) {
            self.ghosts[ghost.print as usize % count] = *ghost;
        }
    }

    pub fn put(&mut self, key: &CacheKey, trace: Trace) {
        let print = print(key);
        if let Some(count) = self.ghosts.len().checked_sub(1) {
            self.ghosts[print as usize & count] = Ghost { print, trace };
        }
    }

    pub fn recall(&self, key: &CacheKey) -> Option<Trace> {
        let print = print(key);
        let ghost = self.ghosts.get(print as usize & self.ghosts.len().checked_sub(1)?)?;
        (ghost.print == print && ghost.trace.frequency > 0.0).then_some(ghost.trace)
    }

    pub fn bytes(&self) -> usize {
        allocated(size_of_val(&*self.ghosts))
    }
}

/// Other bytes of the key than those that choose the shard and the place in its map.
fn print(key: &CacheKey) -> u32 {
    u32::from_ne_bytes([key.0[8], key.0[9], key.0[10], key.0[11]])
}
