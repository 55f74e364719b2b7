//! Whose turn it is: what connections and permits there are, and who gets them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::group::Group;
use super::{Doomed, Grant, Holder, Inner, Limits, NOBODY, Permit, PoolKey, Slot, State};
use crate::upstream::backend::Backend;

impl State {
    /// Gives what there is to those who wait, in this group first. Returns what is to be closed, without the lock.
    pub(super) fn feed(&mut self, key: Option<PoolKey>, pool: &Arc<Inner>) -> Doomed {
        let here = std::thread::current().id();
        let mut doomed = Doomed::default();
        loop {
            let full = self.is_full(&key);
            let poorest = if full { self.poorest_hungry(&key) } else { None };
            let Some(group) = self.groups.get_mut(&key) else { break };
            if !group.is_hungry() {
                break;
            }
            let free = group.take_free(here);
            let Some((slot, backend)) = free.or_else(|| if full { group.take_any(here) } else { None }) else {
                break;
            };
            if poorest.is_some_and(|permits| permits + 1 < group.permits) {
                doomed.shared.push(*backend);
                return doomed;
            }
            self.hand_over(&key, slot, backend, pool);
        }
        self.serve(pool);
        self.relieve(&mut doomed);
        if self.groups.get(&key).is_some_and(Group::is_hungry) {
            doomed.idle = self.idle.pop_front();
        }
        doomed
    }

    fn hand_over(&mut self, key: &Option<PoolKey>, slot: Arc<Slot>, backend: Box<Backend>, pool: &Inner) {
        let Some(group) = self.groups.get_mut(key) else { return };
        let thread = backend.thread();
        let mut grant = Grant::Backend(slot, backend);
        while let Some(waiter) = group.next(thread) {
            pool.waiting.fetch_sub(1, Ordering::SeqCst);
            match waiter.give.send(grant) {
                Ok(()) => return,
                Err(back) => grant = back,
            }
        }
        if let Grant::Backend(slot, backend) = grant {
            slot.put(backend, NOBODY);
        }
    }

    /// Gives out what is left of the permits: to the group that has fewest.
    pub(super) fn serve(&mut self, pool: &Arc<Inner>) {
        while self.permits < self.limits.connections {
            let limits = &self.limits;
            let served = self.groups.iter_mut().filter(|(key, group)| group.is_hungry() && !limits.reached(key, group));
            let poorest =
                served.min_by_key(|(_, group)| (group.permits, group.queue.front().map(|first| first.ticket)));
            let Some((key, group)) = poorest else { return };
            let Some(waiter) = group.queue.pop_front() else { return };
            pool.waiting.fetch_sub(1, Ordering::SeqCst);
            let permit = Permit { pool: Some(pool.clone()), key: *key, slot: None };
            match waiter.give.send(Grant::Permit(permit)) {
                Ok(()) => {
                    group.permits += 1;
                    self.permits += 1;
                }
                Err(Grant::Permit(mut permit)) => permit.pool = None,
                Err(Grant::Backend(..)) => {}
            }
        }
    }

    /// Those who keep a connection that might be given to this group, or make room for one.
    pub(super) fn holders(&self, key: &Option<PoolKey>) -> Vec<Arc<dyn Holder>> {
        let full = self.permits >= self.limits.connections;
        let concerned = self.groups.iter().filter(|(other, _)| full || *other == key).map(|(_, group)| group);
        concerned.flat_map(|group| &group.slots).filter_map(|slot| slot.holder()).collect()
    }

    /// No connection may be opened in this group.
    fn is_full(&self, key: &Option<PoolKey>) -> bool {
        let group = self.groups.get(key);
        self.permits >= self.limits.connections || group.is_some_and(|group| self.limits.reached(key, group))
    }

    /// How many permits the poorest of the other groups has in which somebody waits for one.
    fn poorest_hungry(&self, key: &Option<PoolKey>) -> Option<usize> {
        let others = self.groups.iter().filter(|(other, group)| *other != key && group.is_hungry());
        others.filter(|(other, group)| !self.limits.reached(other, group)).map(|(_, group)| group.permits).min()
    }

    /// An idle connection gives way to the poorest group in which somebody still waits.
    fn relieve(&self, doomed: &mut Doomed) {
        let here = std::thread::current().id();
        let hungry = self.groups.iter().filter(|(key, group)| group.is_hungry() && !self.limits.reached(key, group));
        let Some((key, poorest)) = hungry.min_by_key(|(_, group)| group.permits) else { return };
        if self.permits < self.limits.connections {
            return;
        }
        let others = self.groups.iter().filter(|(other, _)| *other != key).map(|(_, group)| group);
        let mut richer: Vec<_> =
            others.filter(|group| !group.is_hungry() || group.permits > poorest.permits + 1).collect();
        richer.sort_unstable_by_key(|group| std::cmp::Reverse(group.permits));
        let found = richer.into_iter().find_map(|group| group.take_any(here));
        doomed.shared.extend(found.map(|(_, backend)| *backend));
    }
}

impl Limits {
    fn reached(&self, key: &Option<PoolKey>, group: &Group) -> bool {
        key.is_some() && self.size > 0 && group.permits >= self.size
    }
}
