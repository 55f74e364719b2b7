//! Whose turn it is: what connections and permits there are, and who gets them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::group::Group;
use super::{Doomed, Grant, Holder, Inner, Kind, NOBODY, Permit, Slot, State};
use crate::upstream::backend::Backend;

/// Which bounds are reached, so that one kind of connection cannot be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Reached {
    all: bool,
    size: bool,
    user: bool,
    database: bool,
}

impl Reached {
    fn is_any(self) -> bool {
        self != Self::default()
    }
}

impl State {
    /// Gives what there is to those who wait, in this group first. Returns what is to be closed, without the lock.
    pub(super) fn feed(&mut self, kind: Kind, pool: &Arc<Inner>) -> Doomed {
        let here = std::thread::current().id();
        let mut doomed = Doomed::default();
        loop {
            let full = self.reached(&kind).is_any();
            let poorest = if full { self.poorest_hungry(&kind) } else { None };
            let Some(group) = self.groups.get_mut(&kind) else { break };
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
            self.hand_over(&kind, slot, backend, pool);
        }
        self.serve(pool);
        self.relieve(&mut doomed);
        if self.groups.get(&kind).is_some_and(Group::is_hungry) {
            let helps = |idle: &super::Idle| self.would_help(&idle.permit.kind, &kind);
            let oldest = self.idle.iter().position(helps);
            doomed.idle = oldest.and_then(|place| self.idle.remove(place));
        }
        doomed
    }

    fn hand_over(&mut self, kind: &Kind, slot: Arc<Slot>, backend: Box<Backend>, pool: &Inner) {
        let Some(group) = self.groups.get_mut(kind) else { return };
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
            let served = self.groups.iter().filter(|(kind, group)| group.is_hungry() && !self.reached(kind).is_any());
            let poorest =
                served.min_by_key(|(_, group)| (group.permits, group.queue.front().map(|first| first.ticket)));
            let Some((kind, _)) = poorest else { return };
            let kind = *kind;
            let Some(group) = self.groups.get_mut(&kind) else { return };
            let Some(waiter) = group.queue.pop_front() else { return };
            pool.waiting.fetch_sub(1, Ordering::SeqCst);
            let permit = Permit { pool: Some(pool.clone()), kind, slot: None };
            match waiter.give.send(Grant::Permit(permit)) {
                Ok(()) => {
                    group.permits += 1;
                    self.permits += 1;
                    *self.by_user.entry(kind.owner().user).or_default() += 1;
                    *self.by_database.entry(kind.owner().database).or_default() += 1;
                }
                Err(Grant::Permit(mut permit)) => permit.pool = None,
                Err(Grant::Backend(..)) => {}
            }
        }
    }

    /// A permit of this kind is no more.
    pub(super) fn give_back(&mut self, kind: &Kind) {
        self.permits -= 1;
        one_less(&mut self.by_user, kind.owner().user);
        one_less(&mut self.by_database, kind.owner().database);
    }

    /// Those who keep a connection that might be given to this group, or make room for one.
    pub(super) fn holders(&self, kind: &Kind) -> Vec<Arc<dyn Holder>> {
        let concerned = self.groups.iter().filter(|(other, _)| *other == kind || self.would_help(other, kind));
        concerned.flat_map(|(_, group)| &group.slots).filter_map(|slot| slot.holder()).collect()
    }

    /// The bounds that keep a connection of this kind from being opened.
    fn reached(&self, kind: &Kind) -> Reached {
        let limits = &self.limits;
        let owner = kind.owner();
        Reached {
            all: self.permits >= limits.connections,
            size: limits.size > 0
                && matches!(kind, Kind::Shared(_))
                && self.groups.get(kind).is_some_and(|group| group.permits >= limits.size),
            user: limits.per_user > 0 && self.by_user.get(&owner.user).is_some_and(|count| *count >= limits.per_user),
            database: limits.per_database > 0
                && self.by_database.get(&owner.database).is_some_and(|count| *count >= limits.per_database),
        }
    }

    /// Whether one connection of `closed` less would allow for one of `wanted` that is not allowed now.
    fn would_help(&self, closed: &Kind, wanted: &Kind) -> bool {
        let reached = self.reached(wanted);
        let same_user = closed.owner().user == wanted.owner().user;
        let same_database = closed.owner().database == wanted.owner().database;
        reached.is_any()
            && (!reached.size || closed == wanted)
            && (!reached.user || same_user)
            && (!reached.database || same_database)
    }

    /// How many permits the poorest of the other groups has that would be helped if this one had one less.
    fn poorest_hungry(&self, kind: &Kind) -> Option<usize> {
        let others = self.groups.iter().filter(|(other, group)| *other != kind && group.is_hungry());
        others.filter(|(other, _)| self.would_help(kind, other)).map(|(_, group)| group.permits).min()
    }

    /// An idle connection gives way to the poorest group in which somebody still waits, and that it would help.
    fn relieve(&self, doomed: &mut Doomed) {
        let here = std::thread::current().id();
        let mut hungry: Vec<_> = self.groups.iter().filter(|(_, group)| group.is_hungry()).collect();
        hungry.sort_unstable_by_key(|(_, group)| group.permits);
        for (wanted, poor) in hungry {
            let others = self.groups.iter().filter(|(other, _)| *other != wanted && self.would_help(other, wanted));
            let mut richer: Vec<_> = others
                .map(|(_, group)| group)
                .filter(|group| !group.is_hungry() || group.permits > poor.permits + 1)
                .collect();
            richer.sort_unstable_by_key(|group| std::cmp::Reverse(group.permits));
            if let Some((_, backend)) = richer.into_iter().find_map(|group| group.take_any(here)) {
                doomed.shared.push(*backend);
                return;
            }
        }
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: K) {
    if let Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}
