//! The connections that are alike, and the clients that wait for one of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::ThreadId;

use tokio::sync::oneshot;

use super::slot::Slot;
use super::{Grant, Recipe};
use crate::upstream::backend::Backend;

/// How often the one in front may be passed by one on whose thread the connection is already.
const PASSES: u8 = 8;
/// How far back such a one is looked for.
const NEAR: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Group {
    /// Live connections, those that are being opened included.
    pub permits: usize,
    pub slots: Vec<Arc<Slot>>,
    pub queue: VecDeque<Waiter>,
    pub recipe: Option<Arc<Recipe>>,
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub ticket: u64,
    pub thread: ThreadId,
    pub give: oneshot::Sender<Grant>,
    passed: u8,
}

impl Waiter {
    pub fn new(ticket: u64, give: oneshot::Sender<Grant>) -> Self {
        Self { ticket, thread: std::thread::current().id(), give, passed: 0 }
    }
}

impl Group {
    pub fn is_hungry(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Whose turn it is for a connection that is driven by `thread`: the first one's, or soon.
    pub fn next(&mut self, thread: ThreadId) -> Option<Waiter> {
        let front = self.queue.front_mut()?;
        if front.thread != thread && front.passed < PASSES {
            front.passed += 1;
            if let Some(near) = self.queue.iter().take(NEAR).position(|waiter| waiter.thread == thread) {
                return self.queue.remove(near);
            }
        }
        self.queue.pop_front()
    }

    /// A connection in its slot that is nobody's.
    pub fn take_free(&self, thread: ThreadId) -> Option<(Arc<Slot>, Box<Backend>)> {
        self.take_parked(thread, true)
    }

    /// A connection in its slot, the longest unused one of those that are near.
    pub fn take_any(&self, thread: ThreadId) -> Option<(Arc<Slot>, Box<Backend>)> {
        self.take_parked(thread, false)
    }

    fn take_parked(&self, thread: ThreadId, only_free: bool) -> Option<(Arc<Slot>, Box<Backend>)> {
        loop {
            let parked = self.slots.iter().filter_map(|slot| Some((slot, slot.parked(thread)?)));
            let (slot, _) = parked
                .filter(|(_, parked)| parked.is_free || !only_free)
                .min_by_key(|(_, parked)| (!parked.is_free, !parked.is_near, parked.since))?;
            // Its tenant may have been quicker.
            if let Some(backend) = slot.take() {
                return Some((slot.clone(), backend));
            }
        }
    }
}
