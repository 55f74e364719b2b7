//! Admission: how many misses may be on their way to the upstream at a time, of one shape of statement and in all, so that a cache
//! that is cold, or has just been emptied, does not send everything there at once.
//!
//! **Invariant.** Every [`Pass`] counts for its shape and for all until it is dropped. A pass is given only while both counts are
//! below their limits, to whoever has waited longest among those whose shape is not at its limit. Whoever gives up waiting leaves
//! nothing behind: a pass that finds nobody to take it is handed on.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// What a statement looks like but for its literals.
pub type Shape = [u8; 32];

/// Limits of passes; 0 is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    pub in_all: usize,
    pub of_a_shape: usize,
}

#[derive(Debug, Default)]
pub struct Admission(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    limits: Limits,
    in_all: usize,
    /// Shapes without passes are not in it.
    by_shape: HashMap<Shape, usize>,
    queue: VecDeque<(Shape, oneshot::Sender<Pass>)>,
}

/// The right to send one miss upstream.
#[derive(Debug)]
pub struct Pass {
    /// `None` once it is given back.
    admission: Option<Arc<Admission>>,
    shape: Shape,
}

/// The wait for a pass.
pub struct Waiting(oneshot::Receiver<Pass>);

impl Limits {
    pub fn are_off(self) -> bool {
        self.in_all == 0 && self.of_a_shape == 0
    }
}

impl Admission {
    pub fn set_limits(self: &Arc<Self>, limits: Limits) {
        self.state().limits = limits;
        self.serve();
    }

    /// `None` if there are no limits: then nothing is counted.
    pub fn enter(self: &Arc<Self>, shape: Shape) -> Option<Result<Pass, Waiting>> {
        let mut state = self.state();
        if state.limits.are_off() {
            return None;
        }
        // Nobody who waits could have the pass: whoever could has been given one when it became free.
        if state.has_room(&shape) {
            return Some(Ok(self.pass(&mut state, shape)));
        }
        let (sender, receiver) = oneshot::channel();
        state.queue.push_back((shape, sender));
        Some(Err(Waiting(receiver)))
    }

    /// Gives passes to those who wait, as far as there are any.
    fn serve(self: &Arc<Self>) {
        while let Some((sender, pass)) = self.next() {
            // If nobody takes it, it comes back in the error, and is dropped outside of the lock.
            if let Err(pass) = sender.send(pass) {
                pass.forget();
            }
        }
    }

    fn next(self: &Arc<Self>) -> Option<(oneshot::Sender<Pass>, Pass)> {
        let mut state = self.state();
        state.queue.retain(|(_, sender)| !sender.is_closed());
        let place = state.queue.iter().position(|(shape, _)| state.has_room(shape))?;
        let (shape, sender) = state.queue.remove(place)?;
        let pass = self.pass(&mut state, shape);
        Some((sender, pass))
    }

    fn pass(self: &Arc<Self>, state: &mut State, shape: Shape) -> Pass {
        state.in_all += 1;
        *state.by_shape.entry(shape).or_default() += 1;
        Pass { admission: Some(self.clone()), shape }
    }

    fn give_back(&self, shape: &Shape) {
        let mut state = self.state();
        state.in_all -= 1;
        if let Some(count) = state.by_shape.get_mut(shape) {
            *count -= 1;
            if *count == 0 {
                state.by_shape.remove(shape);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, shape: &Shape) -> bool {
        let below = |count: usize, limit: usize| limit == 0 || count < limit;
        below(self.in_all, self.limits.in_all)
            && below(self.by_shape.get(shape).copied().unwrap_or_default(), self.limits.of_a_shape)
    }
}

impl Pass {
    /// Gives it back without looking for somebody else, which the caller does.
    fn forget(mut self) {
        if let Some(admission) = self.admission.take() {
            admission.give_back(&self.shape);
        }
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(admission) = self.admission.take() {
            admission.give_back(&self.shape);
            admission.serve();
        }
    }
}

impl Waiting {
    /// `None` if it is given up on the other side, which does not happen.
    pub async fn turn(self) -> Option<Pass> {
        self.0.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const A: Shape = [1; 32];
    const B: Shape = [2; 32];

    fn admission(in_all: usize, of_a_shape: usize) -> Arc<Admission> {
        let admission = Arc::<Admission>::default();
        admission.set_limits(Limits { in_all, of_a_shape });
        admission
    }

    fn pass(admission: &Arc<Admission>, shape: Shape) -> Pass {
        admission.enter(shape).expect("limits").ok().expect("room")
    }

    fn wait(admission: &Arc<Admission>, shape: Shape) -> Waiting {
        match admission.enter(shape).expect("limits") {
            Ok(_) => panic!("there is no room"),
            Err(waiting) => waiting,
        }
    }

    #[test]
    fn passes_go_to_whoever_has_waited_longest_and_can_use_one() {
        let admission = admission(2, 1);
        let (a, b) = (pass(&admission, A), pass(&admission, B));
        let (mut first, mut second, mut third) = (
            wait(&admission, A).turn().boxed(),
            wait(&admission, B).turn().boxed(),
            wait(&admission, A).turn().boxed(),
        );
        drop(b);
        assert!((&mut first).now_or_never().is_none(), "its shape is at its limit");
        let b = (&mut second).now_or_never().flatten().expect("its turn");
        drop(a);
        let a = (&mut first).now_or_never().flatten().expect("its turn");
        assert!((&mut third).now_or_never().is_none());
        drop((a, b));
        assert!(third.now_or_never().flatten().is_some());
        let state = admission.state();
        assert_eq!((state.in_all, state.by_shape.len()), (0, 0));
    }

    #[test]
    fn who_gives_up_leaves_nothing_behind() {
        let admission = admission(1, 0);
        let held = pass(&admission, A);
        let gone = wait(&admission, A);
        let granted = wait(&admission, A);
        let last = wait(&admission, B);
        drop(gone);
        drop(held);
        // Given to one that leaves without ever having looked.
        drop(granted);
        assert!(last.turn().now_or_never().flatten().is_some());
        assert_eq!(admission.state().in_all, 0);
        assert!(admission.state().queue.is_empty());
    }

    #[test]
    fn higher_limits_let_in_who_waits_and_none_lets_in_everybody() {
        let admission = admission(1, 0);
        let _held = pass(&admission, A);
        let waiting = wait(&admission, A);
        admission.set_limits(Limits { in_all: 2, of_a_shape: 0 });
        assert!(waiting.turn().now_or_never().flatten().is_some());
        let waiting = {
            let _second = pass(&admission, B);
            wait(&admission, B)
        };
        admission.set_limits(Limits::default());
        assert!(waiting.turn().now_or_never().flatten().is_some());
        assert!(admission.enter(A).is_none());
    }
}
