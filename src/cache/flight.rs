//! Single flight: of several identical misses at the same time, one asks the upstream and the others wait for it.
//!
//! **Invariant.** A key has at most one [`Lead`]; while it lives, the key is in the map; when it is dropped, for whatever
//! reason, the key is out of the map and every waiter is woken. A waiter therefore never waits for somebody who is gone;
//! how long it waits for somebody who is slow is the caller's bound.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::key::{CacheKey, KeyMap};

#[derive(Default)]
pub struct Flights(Mutex<KeyMap<Landing>>);

/// What wakes the waiters when it is dropped; most flights have none.
type Landing = Option<watch::Sender<()>>;

/// What a miss is to do.
pub enum Turn {
    /// Ask the upstream; the others wait until this is dropped.
    Lead(Lead),
    /// Somebody asks already; the future ends when that one is done.
    Follow(Waiting),
}

/// Held by the one that asks the upstream.
pub struct Lead {
    flights: Arc<Flights>,
    key: CacheKey,
}

/// The wait for a leader.
pub struct Waiting(watch::Receiver<()>);

impl Flights {
    pub fn board(self: &Arc<Self>, key: CacheKey) -> Turn {
        let mut map = self.map();
        match map.entry(key) {
            Entry::Occupied(mut landing) => {
                Turn::Follow(Waiting(landing.get_mut().get_or_insert_with(|| watch::Sender::new(())).subscribe()))
            }
            Entry::Vacant(vacant) => {
                vacant.insert(None);
                Turn::Lead(Lead { flights: self.clone(), key })
            }
        }
    }

    fn map(&self) -> MutexGuard<'_, KeyMap<Landing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.flights.map().remove(&self.key);
    }
}

impl Waiting {
    pub async fn landed(mut self) {
        // Nothing is ever sent: an error says that the leader is gone.
        while self.0.changed().await.is_ok() {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: CacheKey = CacheKey([7; 32]);

    #[tokio::test]
    async fn the_second_waits_for_the_first_and_the_third_leads_again() {
        let flights = Arc::new(Flights::default());
        let Turn::Lead(lead) = flights.board(KEY) else { panic!("the first leads") };
        let Turn::Follow(waiting) = flights.board(KEY) else { panic!("the second follows") };
        assert!(matches!(flights.board(CacheKey([8; 32])), Turn::Lead(_)), "another key is another flight");
        drop(lead);
        waiting.landed().await;
        assert!(matches!(flights.board(KEY), Turn::Lead(_)));
        assert!(flights.map().is_empty(), "a lead that is dropped leaves nothing");
    }
}
