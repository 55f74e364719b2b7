//! One client's life: it reads, writes, reads what it wrote, loses its connection and comes back.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use super::audit;
use super::block::Block;
use super::cells::{Adds, Bounds, Cell, Family, Span};
use super::connection::{Answer, Connection, How, Lost, Request};
use super::facts::{Fact, refute};
use super::reads::{self, Read};
use super::world::{Event, World};
use super::writes::{self, Place, Write};

/// Operations of the first client between two audits.
const AUDIT_EVERY: u64 = 1_500;
/// One of so many: operations before which a process of the server is terminated; reads and writes in the middle of which the client
/// vanishes; writes of the faulty kind that go past the proxy.
const TERMINATE: u32 = 1_500;
pub(super) const VANISH_READING: u32 = 1_500;
pub(super) const VANISH_WRITING: u32 = 80;
const FAULT: u32 = 4;
/// Loud writes that happen in a calm nevertheless: they must meet a warm cache.
const LOUD_IN_CALM: u32 = 12;

/// Errors that are nobody's fault when clients write the same rows, and one when its process is terminated.
const EXPECTED: [&str; 8] = ["40001", "40P01", "55P03", "57P01", "23505", "42P07", "42701", "XX000"];

/// Whether the statement succeeded; if not, its error is an expected one, or the run is over.
pub(super) type Succeeded = bool;

/// Clients that prepare statements by SQL when connections are shared.
const PREPARE_WHEN_SHARED: u64 = 2;

pub struct Client {
    pub(super) world: Arc<World>,
    pub(super) number: u64,
    name: String,
    opened: u64,
    pub(super) prepared: u64,
    pub(super) rng: StdRng,
    connection: Option<Connection>,
    /// Straight to PostgreSQL, for faults and to terminate others.
    past: Option<Connection>,
    /// What it has just written and will read now.
    pub(super) written: Option<Family>,
}

impl Client {
    pub fn new(world: Arc<World>, number: u64) -> Self {
        let rng = world.rng(number);
        Self {
            world,
            number,
            name: String::new(),
            opened: 0,
            prepared: 0,
            rng,
            connection: None,
            past: None,
            written: None,
        }
    }

    /// Until the run is over.
    pub async fn live(mut self) {
        let world = self.world.clone();
        let _guard = world.ends_with_me();
        for operation in 1_u64.. {
            if world.is_over() {
                break;
            }
            if self.number == 0 && operation % AUDIT_EVERY == 0 {
                audit::audit(&world, &mut self.rng).await;
            }
            let _turn = world.gate.read().await;
            if self.operate().await.is_err() {
                self.connection = None;
                world.ended.lock().unwrap().push(self.name.clone());
            }
        }
    }

    async fn operate(&mut self) -> Result<(), Lost> {
        self.connect().await?;
        if self.chance(TERMINATE) {
            self.terminate_somebody().await?;
        }
        if let Some(family) = self.written.take() {
            return self.read(family, None).await.map(drop);
        }
        let family = self.world.family(&mut self.rng);
        let is_stormy = self.world.is_stormy();
        match self.rng.random_range(0..100) {
            0..2 => self.transaction().await,
            2..8 => {
                let write = self.pick(family);
                let is_past = self.world.settings.fault == Some(write.kind) && self.chance(FAULT);
                if write.is_loud() && !is_stormy && !is_past && !self.chance(LOUD_IN_CALM) {
                    self.read(family, None).await.map(drop)
                } else if write.place == Place::InBlock || (write.steps.len() > 1 && !is_past && self.rng.random()) {
                    self.write_in_its_own_block(&write).await
                } else {
                    self.write_alone(&write, is_past).await
                }
            }
            _ => self.read(family, None).await.map(drop),
        }
    }

    /// A write that this client can do.
    pub(super) fn pick(&mut self, family: Family) -> Write {
        loop {
            let write = writes::pick(&mut self.rng, family);
            if write.kind != "execute" || self.prepares() {
                return write;
            }
        }
    }

    /// What it prepares keeps its connection: on few connections few do.
    fn prepares(&self) -> bool {
        self.world.settings.connections.is_none() || self.number < PREPARE_WHEN_SHARED
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        let (stage, world) = (&self.world.stage, &self.world);
        if self.connection.is_none() {
            self.opened += 1;
            self.name = format!("checked {} {}", self.number, self.opened);
            let (port, database) = (stage.proxy.port, &stage.database);
            self.connection = Some(match world.settings.connections {
                None => Connection::open(port, database, &self.name).await?,
                Some(_) => Connection::open_shared(port, database, &self.name, self.prepares()).await?,
            });
            world.count("connect");
        }
        if self.past.is_none() {
            self.past = Some(Connection::open(stage.cluster.port, &stage.database, "past the proxy").await?);
        }
        Ok(())
    }

    /// Ends a process of the server that works for a client, now and then the proxy's own.
    async fn terminate_somebody(&mut self) -> Result<(), Lost> {
        let pattern = if self.chance(5) { "%" } else { "checked %" };
        let sql = format!(
            "SELECT pg_terminate_backend(pid)::int FROM (SELECT pid FROM pg_stat_activity
             WHERE datname = current_database() AND application_name <> 'past the proxy' AND application_name <> 'audit'
             AND application_name LIKE '{pattern}' AND backend_type = 'client backend'
             ORDER BY md5(pid::text || {}) LIMIT 1) one",
            self.rng.random::<u32>()
        );
        let past = self.past.as_mut().expect("connected before");
        past.ask(&Request::new(&sql, Vec::new()), How::Simple).await?;
        self.world.count("terminate");
        Ok(())
    }

    pub(super) fn chance(&mut self, one_of: u32) -> bool {
        self.rng.random_ratio(1, one_of)
    }

    fn how(&mut self) -> How {
        match self.rng.random_range(0..40) {
            0 => How::Sliced,
            1..12 => How::Simple,
            12..20 => How::Unnamed { binary: false },
            20..28 => How::Unnamed { binary: true },
            28..34 => How::Named { binary: false },
            _ => How::Named { binary: true },
        }
    }

    /// For writes: text that differs from time to time is not worth a name, and in a calm is a new statement to find out about.
    /// COPY goes by the simple protocol here.
    pub(super) fn how_to_write(&mut self, requests: &[Request]) -> How {
        match self.how() {
            _ if requests.iter().any(|request| request.copy.is_some()) => How::Simple,
            How::Simple if !self.world.is_stormy() && self.rng.random_ratio(3, 4) => How::Unnamed { binary: true },
            How::Sliced => How::Unnamed { binary: false },
            How::Named { binary } if requests.iter().any(|request| request.params.is_empty()) => {
                How::Unnamed { binary }
            }
            how => how,
        }
    }

    /// Asks, or vanishes after having asked.
    pub(super) async fn ask(&mut self, requests: &[Request], how: How, vanish: u32) -> Result<Answer, Lost> {
        let is_to_vanish = self.chance(vanish);
        let connection = self.connection.as_mut().expect("connected before");
        if is_to_vanish {
            connection.send(requests, how).await?;
            self.world.count("vanish");
            return Err(Lost);
        }
        connection.ask_all(requests, how).await
    }

    /// Reads and checks what comes.
    pub(super) async fn read(&mut self, family: Family, mut block: Option<&mut Block>) -> Result<Succeeded, Lost> {
        let read = reads::pick(&mut self.rng, family);
        let how = self.how();
        let (began, low) = (self.world.now(), self.world.register.low());
        let answer = self.ask(std::slice::from_ref(&read.request), how, VANISH_READING).await?;
        self.world.count("read");
        let outside = Bounds { low, high: self.world.register.high() };
        if let Some(block) = &mut block {
            block.ran(&outside);
        }
        if let Some(error) = &answer.error {
            return Ok(self.failed(error, &read.request));
        }
        let what = format!("{how:?} {}{}", read.request.inlined(), if block.is_some() { " (in a block)" } else { "" });
        self.check(&read, &answer, outside, block, began, what);
        Ok(true)
    }

    fn check(
        &self,
        read: &Read,
        answer: &Answer,
        outside: Bounds,
        mut block: Option<&mut Block>,
        began: Duration,
        what: String,
    ) {
        let facts = read.facts(&answer.rows);
        let bounds = match &block {
            Some(block) => block.bounds(outside),
            None => outside,
        };
        let why = refute(&facts, &bounds).or_else(|| self.refute_snapshot(&facts, block.as_deref_mut()));
        if let Some(why) = why {
            let what =
                format!("the answer to {}, asked {began:.3?} after the start: {what}\n{:?}", self.name, answer.rows);
            self.world.violated(why, &what, &facts, Some(&bounds));
        }
        self.learn(&facts, block);
        let cells = facts.iter().flat_map(Fact::cells).collect();
        self.remember(began, format!("{what} -> {:?}", answer.rows), cells);
    }

    /// Why there was no moment at which all cells had these values.
    fn refute_snapshot(&self, facts: &[Fact], block: Option<&mut Block>) -> Option<String> {
        let committed = |cell, value| value - block.as_ref().map_or(0, |block| block.own(cell));
        let spans = facts.iter().filter_map(|fact| match *fact {
            Fact::Value(cell, value) if cell.family.is_current_in_blocks() => {
                Some(self.world.register.span(cell, committed(cell, value)))
            }
            _ => None,
        });
        let span = spans.fold(Span::ALWAYS, Span::and);
        let span = block.map_or(span, |block| block.narrowed(span));
        let (from, to) = (span.from, span.to);
        (from > to)
            .then(|| format!("no one snapshot: one value was not there before {from:.6?}, another not after {to:.6?}"))
    }

    /// Later reads may not show less.
    fn learn(&self, facts: &[Fact], mut block: Option<&mut Block>) {
        for fact in facts {
            if let Fact::Value(cell, value) = *fact {
                let committed = value - block.as_ref().map_or(0, |block| block.own(cell));
                self.world.register.seen(cell, committed);
                if let Some(block) = &mut block {
                    block.saw(cell, committed);
                }
            }
        }
    }

    pub(super) fn remember(&self, began: Duration, what: String, cells: Vec<Cell>) {
        self.world.remember(Event { began, who: self.name.clone(), what, cells });
    }

    /// Always `false`. An error that nothing here explains ends the run.
    pub(super) fn failed(&self, (code, message): &(String, String), request: &Request) -> Succeeded {
        if EXPECTED.contains(&code.as_str()) {
            self.world.count("error");
        } else {
            self.world.violated(format!("unexpected error {code}: {message}"), &request.inlined(), &[], None);
        }
        false
    }

    /// A write outside any block, in one request.
    async fn write_alone(&mut self, write: &Write, is_past: bool) -> Result<(), Lost> {
        let requests: Vec<_> = write.steps.iter().map(|step| step.request.clone()).collect();
        let how = self.how_to_write(&requests);
        let adds = write.adds();
        let began = self.world.now();
        self.world.register.sending(&adds);
        let answer = match &mut self.past {
            Some(past) if is_past => past.ask_all(&requests, How::Simple).await,
            _ => self.ask(&requests, how, VANISH_WRITING).await,
        };
        self.world.count(write.kind);
        let what = format!("{}{how:?} {}", if is_past { "PAST THE PROXY " } else { "" }, told(&requests));
        let cells = adds.keys().copied().collect();
        let Ok(answer) = answer else {
            self.remember(began, format!("{what} -> nobody knows"), cells);
            return Err(Lost);
        };
        let added = match (&answer.error, &write.steps[..]) {
            (Some(error), _) => {
                self.failed(error, &requests[0]);
                // What commits on its own may have done so before it failed.
                (write.place != Place::Alone).then(Adds::new)
            }
            (None, [step]) => Some(step.added(&answer)),
            (None, _) => Some(adds.clone()),
        };
        self.remember(began, format!("{what} -> {added:?} {:?}", answer.error), cells);
        if let Some(added) = added {
            self.world.register.told(&adds, &added);
            self.written = adds.keys().next().filter(|_| self.rng.random()).map(|cell| cell.family);
        }
        Ok(())
    }
}

fn told(requests: &[Request]) -> String {
    requests.iter().map(Request::inlined).collect::<Vec<_>>().join("; ")
}
