//! A session's part in the pool: it takes a connection when it needs one, and gives it back between transactions.
//!
//! **Invariant.** A connection leaves the session only while nothing is outstanding in either direction, no transaction, batch or
//! COPY is open, no cancel request is on its way to it, and the session's [`Traces`] are clear (in mode `transaction`: what they
//! say is discarded first). One that comes to the session is given its settings before a byte of the client's is sent on it;
//! what the client was told of them stays true, or it is told the news.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::connecting::{self, Obtained};
use super::cycle::{End, Side, terminated};
use super::jobs::Job;
use super::traces::{Pin, Traces};
use super::welcome::enter;
use super::{Session, Status};
use crate::config;
use crate::telemetry::metrics::{Side as SideLabel, State};
use crate::upstream::backend::{Backend, Reported};
use crate::upstream::pool::{Grant, Kind, Pool, PoolKey, Recipe, Slot, TenantId};
use crate::upstream::settings::Settings;
use crate::wire::startup;

/// What a session that shares its connections knows beyond others.
pub struct Sharing {
    key: PoolKey,
    recipe: Arc<Recipe>,
    pub(super) tenant: TenantId,
    /// Where its connection is, or was.
    home: Option<Arc<Slot>>,
    /// The way to the next connection.
    attaching: Option<std::pin::Pin<Box<dyn Future<Output = Obtained> + Send>>>,
    /// The settings that it has made, if its traces say that they are known.
    pub(super) settings: Arc<Settings>,
    /// What its client was told of its settings.
    pub(super) told: Arc<Reported>,
    pub(super) traces: Traces,
    /// The client's prepared statements have their own names on this connection: SQL speaks of them.
    pub(super) own_names: bool,
    /// The unnamed statement is too long to be kept for another connection.
    pub(super) long_unnamed: bool,
    /// Mode `transaction`.
    pub(super) loses_state: bool,
    /// Others wait: the connection is offered before the next request is taken.
    yields: bool,
    lifetime: Duration,
    pub(super) prepared_limit: usize,
    /// Makes names that no other session has.
    pub(super) serial: u64,
}

impl Sharing {
    /// `home` is a connection that was opened for it, and as whom it finds it.
    pub fn new(
        pool: &Pool,
        key: PoolKey,
        recipe: Arc<Recipe>,
        home: Option<(Arc<Slot>, TenantId)>,
        config: &config::Pool,
    ) -> Self {
        let (home, tenant) = home.map_or_else(|| (None, pool.tenant()), |(slot, tenant)| (Some(slot), tenant));
        Self {
            key,
            told: recipe.reported.clone(),
            recipe,
            tenant,
            home,
            attaching: None,
            settings: Settings::none(),
            traces: Traces::default(),
            own_names: false,
            long_unnamed: false,
            loses_state: config.mode == config::PoolMode::Transaction,
            yields: false,
            lifetime: Duration::from_secs(config.max_lifetime_secs),
            prepared_limit: config.prepared_statements,
            serial: 0,
        }
    }

    /// Nothing of this session would be missed, or found, by others.
    pub(super) fn is_free(&self) -> bool {
        let lost = self.loses_state && !self.traces.is_doubtful() && self.traces.pin() != Some(Pin::Unknown);
        let clear = lost || self.traces.is_clear();
        clear && !self.own_names && !self.long_unnamed
    }
}

impl Session {
    /// Whether it has a connection on which the client's next message can be sent. If not, one is on its way.
    pub(super) fn attach(&mut self) -> bool {
        if self.backend.is_some() {
            return true;
        }
        let Some(sharing) = &mut self.sharing else { return true };
        if let Some(home) = &sharing.home
            && let Some(mut backend) = home.take_home(sharing.tenant)
            && self.shared.databases.are_at(&backend.peer.address)
        {
            if backend.settle_here().and_then(|()| backend.overhear()).is_err() {
                if backend.was_terminated() && self.visit.database().is_attended_since(backend.rests_since()) {
                    // Not the server has ended, but this session, as far as whoever did it could see.
                    self.gives_up = Some(terminated());
                    return false;
                }
                return self.attach_elsewhere();
            }
            if connecting::needs_check(&self.shared, backend.idle_for()) {
                let home = home.clone();
                return self.check_first(home, backend);
            }
            if backend.settings.is(&sharing.settings) && self.visit.database().server == backend.peer.address {
                self.install(backend);
                return true;
            }
            let home = home.clone();
            return self.move_in(home, backend);
        }
        self.attach_elsewhere()
    }

    fn attach_elsewhere(&mut self) -> bool {
        let Some(sharing) = &mut self.sharing else { return true };
        sharing.home = None;
        loop {
            match self.shared.pool.ask(Kind::Shared(sharing.key)).now() {
                Ok(Grant::Backend(slot, backend)) => {
                    if let Some(backend) = connecting::usable(&self.shared, backend) {
                        if connecting::needs_check(&self.shared, backend.idle_for()) {
                            return self.check_first(slot, backend);
                        }
                        return self.move_in(slot, backend);
                    }
                }
                Ok(Grant::Permit(permit)) => {
                    let (shared, recipe) = (self.shared.clone(), sharing.recipe.clone());
                    let open = async move { connecting::open_shared(&shared, permit, &recipe).await };
                    sharing.attaching = Some(Box::pin(open));
                    return false;
                }
                Err(waiting) => {
                    let (shared, key, recipe) = (self.shared.clone(), sharing.key, sharing.recipe.clone());
                    sharing.attaching = Some(Box::pin(connecting::obtain(shared, key, recipe, waiting)));
                    return false;
                }
            }
        }
    }

    /// Has a connection asked whether it is still there, which is waited for. It is like one that others may have used.
    fn check_first(&mut self, slot: Arc<Slot>, backend: Box<Backend>) -> bool {
        if let Some(sharing) = &mut self.sharing {
            let (shared, key, recipe) = (self.shared.clone(), sharing.key, sharing.recipe.clone());
            sharing.attaching = Some(Box::pin(connecting::checked_or_another(shared, key, recipe, slot, backend)));
        }
        false
    }

    /// Whether the client's next request may be looked at: no connection is awaited, nor asked for by others.
    pub(super) fn poll_attaching(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Some(sharing) = &mut self.sharing else { return Ok(true) };
        if sharing.yields {
            return Ok(false);
        }
        let Some(attaching) = &mut sharing.attaching else { return Ok(true) };
        let Poll::Ready(obtained) = attaching.as_mut().poll(cx) else { return Ok(false) };
        sharing.attaching = None;
        match obtained {
            Ok((slot, backend)) => {
                self.move_in(slot, backend);
                Ok(true)
            }
            Err(frame) => Err(End::Passed(frame)),
        }
    }

    pub(super) fn is_attaching(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.attaching.is_some() || sharing.yields)
    }

    /// Takes over a connection that somebody else may have used. False if the client's request has to be looked at again, and to
    /// wait for its settings if they have to be made.
    fn move_in(&mut self, slot: Arc<Slot>, backend: Box<Backend>) -> bool {
        self.prepared.move_out();
        let moved = self.go_where(&backend);
        self.install(backend);
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &mut self.backend) else { return true };
        sharing.home = Some(slot);
        let drew = std::mem::take(&mut backend.drew_sequence) && !sharing.loses_state;
        if !backend.settings.is(&sharing.settings) {
            self.start(Job::Adopt { drew });
            return false;
        }
        if drew {
            self.start(Job::ForgetSequences);
        }
        self.tell_news();
        !moved
    }

    /// Enters the database of the server that a connection leads to. What was known of another server's, or decided by it, says
    /// nothing there.
    fn go_where(&mut self, backend: &Backend) -> bool {
        let server = &backend.peer.address;
        if self.visit.database().server == *server {
            return false;
        }
        let name = self.visit.database().name.clone();
        self.visit = enter(&self.shared, &name, server);
        self.analyses.clear();
        self.context.moves_to(self.visit.database().number);
        true
    }

    pub(super) fn install(&mut self, mut backend: Box<Backend>) {
        let (input, output) = (std::mem::take(&mut backend.input), std::mem::take(&mut backend.output));
        self.upstream = Side::with_buffers(input, output);
        self.control.activity.works_on(backend.pid);
        if backend.told() != self.told_pid {
            backend.is_known_as(self.told_pid, &self.shared.aliases);
        }
        self.backend = Some(backend);
        self.shared.metrics.connections(SideLabel::Upstream, State::Active).increment(1.0);
    }

    pub(super) fn uninstall(&mut self) -> Option<Box<Backend>> {
        let mut backend = self.backend.take()?;
        (backend.input, backend.output) =
            (std::mem::take(&mut self.upstream.input), std::mem::take(&mut self.upstream.output));
        self.control.activity.works_on(0);
        self.shared.metrics.connections(SideLabel::Upstream, State::Active).decrement(1.0);
        Some(backend)
    }

    /// Tells the client which settings are not what it was told last.
    pub(super) fn tell_news(&mut self) {
        let (Some(sharing), Some(backend)) = (&mut self.sharing, &self.backend) else { return };
        if Arc::ptr_eq(&sharing.told, &backend.reported) {
            return;
        }
        for (name, value) in backend.reported.news_since(&sharing.told) {
            startup::put_parameter_status(&mut self.client.output, name, value);
            self.context.report(name, value);
        }
        // Shared while both are the same.
        sharing.told = backend.reported.clone();
    }

    /// A transaction is over: whoever waits is served before the client's next request.
    pub(super) fn transaction_ended(&mut self) {
        let Some(sharing) = &mut self.sharing else { return };
        sharing.traces.end_transaction();
        self.control.activity.is_tied(sharing.traces.pin());
        sharing.yields = self.shared.pool.is_wanted() && self.pipeline.is_empty() && self.open.is_none();
    }

    /// Nothing is outstanding, in either direction.
    fn is_between_transactions(&self) -> bool {
        self.pipeline.is_empty()
            && !self.pipeline.is_confused()
            && self.block.status() == Status::Idle
            && self.open.is_none()
            && self.request_passing == 0
            && self.reply_passing.0 == 0
            && self.upstream.output.is_empty()
            && self.upstream.input.is_empty()
            && !self.upstream.closed
            && self.finished.is_none()
            && self.follow.is_none()
            && self.lost.marks.is_empty()
            && self.cancels.iter().all(tokio::task::JoinHandle::is_finished)
    }

    /// Gives the connection back if it can, or finds out whether it could. True if anything has changed.
    pub(super) fn part(&mut self) -> bool {
        let Some(sharing) = &self.sharing else { return false };
        if self.backend.is_none() || !self.is_between_transactions() {
            // What it waits for is not a request of the client's.
            return self.stop_yielding();
        }
        if sharing.is_free() {
            self.park();
            return self.stop_yielding();
        }
        let wanted = self.shared.pool.is_wanted() || self.shared.gate.is_closed() || self.is_left_behind();
        if wanted && let Some(job) = self.next_proof() {
            self.start(job);
            self.stop_yielding();
            return true;
        }
        self.hold();
        self.stop_yielding()
    }

    /// Its connection leads to a server that connections do not go to any more.
    fn is_left_behind(&self) -> bool {
        self.backend.as_ref().is_some_and(|backend| !self.shared.databases.are_at(&backend.peer.address))
    }

    fn park(&mut self) {
        let Some(backend) = self.uninstall() else { return };
        self.cancels.clear();
        let Some(Sharing { home: Some(home), tenant, lifetime, .. }) = self.sharing.as_deref() else { return };
        self.shared.pool.park(home, backend, *tenant, *lifetime);
    }

    /// What would show that the connection can be given back, or make it so.
    fn next_proof(&mut self) -> Option<Job> {
        let sharing = self.sharing.as_ref()?;
        if sharing.traces.is_doubtful() {
            return Some(Job::Probe);
        }
        let pinned = sharing.traces.pin().is_some() && !sharing.loses_state;
        (sharing.own_names && !pinned).then_some(Job::TakeNamesBack)
    }

    /// Keeps the connection until somebody wants it. Says so anew each time: whoever was asked once is asked no more.
    fn hold(&mut self) {
        let Some(sharing) = &self.sharing else { return };
        let provable = sharing.traces.is_doubtful() || (sharing.own_names && sharing.traces.pin().is_none());
        let Some(home) = sharing.home.as_ref().filter(|_| provable) else { return };
        home.hold(self.control.clone());
        if self.shared.pool.is_wanted() {
            // Whoever began to wait a moment ago may not have seen it.
            self.control.wake();
        }
    }

    fn stop_yielding(&mut self) -> bool {
        self.sharing.as_mut().is_some_and(|sharing| std::mem::take(&mut sharing.yields))
    }

    /// The session is over, and nothing is outstanding on its connection, which is others' now.
    pub(super) async fn hand_on(mut self) {
        let Some(backend) = self.uninstall() else {
            if let Some(Sharing { home: Some(home), tenant, .. }) = self.sharing.as_deref() {
                self.shared.pool.vacate(home, *tenant);
            }
            return;
        };
        let Some(Sharing { home: Some(home), traces, lifetime, own_names, .. }) = self.sharing.as_deref() else {
            return;
        };
        let pool = &self.shared.pool;
        if backend.has_temporary_schema {
            // A new session has none.
        } else if traces.is_clear() && !own_names {
            pool.park(home, backend, crate::upstream::pool::NOBODY, *lifetime);
        } else if traces.can_be_discarded() {
            pool.give_back_dirty(home, backend, *lifetime).await;
        }
    }
}
