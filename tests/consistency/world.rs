//! What all clients of a run share: the database, what is known about it, what happened so far.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::RwLock;

use super::cells::{Bounds, Cell, Family, Register};
use super::facts::Fact;
use super::writes;
use crate::harness::Stage;

/// Events that are remembered to be shown with a violation.
const REMEMBERED: usize = 20_000;
/// Of these, how many that touch the same cells are shown.
const SHOWN: usize = 40;
/// Operations after which all clients turn to other tables, so that few are hot at any time.
const SPELL: u64 = 3_000;
/// How many of these are the storm at the end, in which anything goes. Before, only what leaves most of the cache valid.
const STORM: u64 = 600;

#[derive(Clone)]
pub struct Settings {
    pub seed: u64,
    pub duration: Duration,
    /// The kind of write of which a share goes past the proxy.
    pub fault: Option<&'static str>,
    /// Upstream connections that all clients share; `None` if each has its own.
    pub connections: Option<usize>,
}

/// Something that somebody did, from request to reply.
pub struct Event {
    pub began: Duration,
    pub who: String,
    pub what: String,
    pub cells: Vec<Cell>,
}

/// Why the run has failed, with everything that helps to find out how.
pub struct Violation {
    pub why: String,
    report: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

pub struct World {
    pub stage: Stage,
    pub settings: Settings,
    pub register: Register,
    /// Held shared by a client during an operation, alone by an audit.
    pub gate: RwLock<()>,
    /// Names of connections that have ended, whose processes at the server may still be at work.
    pub ended: Mutex<Vec<String>>,
    operations: AtomicU64,
    is_over: AtomicBool,
    history: Mutex<VecDeque<(Duration, Event)>>,
    counts: Mutex<BTreeMap<&'static str, u64>>,
    violation: Mutex<Option<Violation>>,
}

impl World {
    pub fn new(stage: Stage, settings: Settings) -> Self {
        Self {
            stage,
            settings,
            register: Register::new(),
            gate: RwLock::new(()),
            ended: Mutex::default(),
            operations: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
            history: Mutex::default(),
            counts: Mutex::default(),
            violation: Mutex::default(),
        }
    }

    /// The random choices of one of the participants.
    pub fn rng(&self, number: u64) -> StdRng {
        StdRng::seed_from_u64(self.settings.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    pub fn now(&self) -> Duration {
        self.register.now()
    }

    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed) || self.now() > self.settings.duration
    }

    /// Whether it is time for what makes the cache worthless for a while, such as DDL.
    pub fn is_stormy(&self) -> bool {
        self.operations() % SPELL >= SPELL - STORM
    }

    /// The family to turn to: mostly one of two that everybody has turned to for a while.
    pub fn family(&self, rng: &mut StdRng) -> Family {
        if rng.random_ratio(1, if self.is_stormy() { 2 } else { 20 }) {
            return Family::ALL[rng.random_range(0..Family::ALL.len())];
        }
        let spell = self.operations() / SPELL;
        let mut in_spell = StdRng::seed_from_u64(self.settings.seed.wrapping_add(spell));
        let cacheable = Family::ALL.len() - 1;
        let mut hot = [0; 2].map(|_| Family::ALL[in_spell.random_range(0..cacheable)]);
        if let Some(family) = self.settings.fault.and_then(writes::family) {
            hot[0] = family;
        }
        hot[rng.random_range(0..hot.len())]
    }

    /// Counts an operation of this kind.
    pub fn count(&self, kind: &'static str) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default() += 1;
    }

    /// Ends the run if this is dropped by a panic.
    pub fn ends_with_me(self: &Arc<Self>) -> impl Drop + use<> {
        EndsTheRun(self.clone())
    }

    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// Remembers what has just ended.
    pub fn remember(&self, event: Event) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        if history.len() == REMEMBERED {
            history.pop_front();
        }
        history.push_back((self.now(), event));
    }

    /// The run ends here, unless somebody else has ended it.
    pub fn violated(&self, why: String, what: &str, facts: &[Fact], bounds: Option<&Bounds>) {
        let mut violation = self.violation.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_over.swap(true, Ordering::Relaxed) {
            *violation = Some(Violation { report: self.report(&why, what, facts, bounds), why });
        }
    }

    pub fn violation(&self) -> Option<Violation> {
        self.violation.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn report(&self, why: &str, what: &str, facts: &[Fact], bounds: Option<&Bounds>) -> String {
        let seed = self.settings.seed;
        let fault = self.settings.fault.map(|kind| format!("CONSISTENCY_FAULT='{kind}' ")).unwrap_or_default();
        let mut lines = vec![
            why.to_string(),
            format!("seed {seed}, {} operations, {:.3?} after the start", self.operations(), self.now()),
            format!("in {what}"),
        ];
        let mut cells: Vec<_> = facts.iter().flat_map(Fact::cells).collect();
        cells.sort_unstable();
        cells.dedup();
        lines.extend(facts.iter().map(|fact| format!("the answer says: {fact:?}")));
        if let Some(bounds) = bounds {
            let possible =
                |cell: &Cell| format!("possible: {cell:?} from {} to {}", bounds.low.of(*cell), bounds.high.of(*cell));
            lines.extend(cells.iter().map(possible));
        }
        lines.push("what touched these cells before, from request to reply, the latest last:".into());
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let touching = history.iter().rev().filter(|(_, event)| event.cells.iter().any(|cell| cells.contains(cell)));
        let mut shown: Vec<_> = touching
            .take(SHOWN)
            .map(|(ended, event)| format!("  {:9.3?} {ended:9.3?} {} {}", event.began, event.who, event.what))
            .collect();
        shown.reverse();
        lines.extend(shown);
        lines.push(format!(
            "again: {fault}CONSISTENCY_SEED={seed} CONSISTENCY_SECONDS={} cargo test --test the_cache_is_consistent \
             under_a_random_workload",
            self.settings.duration.as_secs()
        ));
        lines.join("\n")
    }
}

struct EndsTheRun(Arc<World>);

impl Drop for EndsTheRun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.is_over.store(true, Ordering::Relaxed);
        }
    }
}
