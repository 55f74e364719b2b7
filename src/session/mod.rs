//! One client's life: start-up, authentication, the query cycle, the end.
//!
//! A session is one task that owns its client and its upstream connection. Decisions are made by pure types (`pipeline`,
//! `block`, `context`, `effects`, `prepared`); the rest of the floor moves bytes and asks them.

pub mod activity;
pub mod auth;
mod batch;
mod block;
mod connecting;
mod context;
mod control;
mod control_plane;
mod cycle;
mod effects;
mod explain;
mod gate;
mod handover;
mod jobs;
mod known;
pub mod limits;
mod login;
mod lookup;
mod naming;
mod negotiate;
mod notes;
mod pipeline;
mod prepared;
mod relayed;
mod repeat;
mod replies;
mod requests;
mod scan_probe;
mod sharing;
mod slow;
mod span;
mod spare;
mod split;
mod split_answer;
mod startup;
mod traced;
mod traces;
mod user_seats;
mod verdict;
mod visitor;
mod welcome;
mod witness;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::BytesMut;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use self::control::{Control, Sessions, Told};
pub use self::control_plane::ControlPlane;
pub use self::explain::{Explanation, explain};
pub use self::gate::{Gate, pause, resume};
pub use self::startup::serve;
pub use self::user_seats::UserSeats;
pub use self::verdict::{Terms, Verdict};
pub use self::visitor::{ADMIN_DATABASE, Visitor, VisitorSeats};

use self::auth::UserSource;
use self::block::{Block, Status, Writes};
use self::context::Context;
use self::control::Registration;
use self::cycle::{End, Replay, Side};
use self::jobs::{Analyse, Job};
use self::known::KnownAnalyses;
use self::lookup::{Attempt, Fill};
use self::pipeline::{Pipeline, Route};
use self::prepared::{Asked, PreparedStatements};
use self::repeat::Repeat;
use self::requests::Turn;
use self::sharing::Sharing;
use self::span::Span;
use self::split::Splitting;
use self::user_seats::UserSeat;
use self::witness::{Trust, Witness};
use crate::cache::admission::Admission;
use crate::cache::flight::Flights;
use crate::cache::ledger::{Bookmarks, Ledger};
use crate::cache::limbo::{BackendPid, Orphan};
use crate::cache::rules::Rules;
use crate::cache::store::Store;
use crate::cache::versions::WriteSet;
use crate::catalog::{Databases, Visit};
use crate::config::Config;
use crate::parallel::{Account, ParallelQueryExecutor};
use crate::statement::{Statement, Statements};
use crate::takeover::Elders;
use crate::telemetry::export::Tracer;
use crate::telemetry::metrics::{Metrics, Side as SideLabel, State};
use crate::upstream::alias::Aliases;
use crate::upstream::backend::Backend;
use crate::upstream::lookout::{Lookout, Loss};
use crate::upstream::open::{self, Target};
use crate::upstream::parsed::StatementId;
use crate::upstream::pool::{Pool, PoolKey};
use crate::wire::error::ErrorResponse;
use crate::wire::stream::Stream;
use crate::wire::tls::ClientTlsAcceptor;

/// How long a client that is told goodbye has to take it.
pub const FAREWELL: Duration = Duration::from_secs(5);

/// What all sessions share.
pub struct Shared {
    pub admission: Arc<Admission>,
    pub config: Arc<ArcSwap<Config>>,
    /// Those of the present configuration.
    pub rules: ArcSwap<Rules>,
    pub metrics: Arc<Metrics>,
    /// `None` if no traces are wanted.
    pub tracer: Option<Arc<Tracer>>,
    pub statements: Statements,
    pub store: Store,
    pub ledger: Ledger,
    pub flights: Arc<Flights>,
    pub databases: Databases,
    pub sessions: Arc<Sessions>,
    pub seats: Seats,
    pub user_seats: Arc<UserSeats>,
    pub visitors: VisitorSeats,
    pub gate: Gate,
    pub pool: Pool,
    pub parallel: Arc<ParallelQueryExecutor>,
    pub target: Arc<Target>,
    /// What is seen of its state; guards the opening of connections to it.
    pub lookout: Arc<Lookout>,
    pub tls: Option<ClientTlsAcceptor>,
    pub users: UserSource,
    pub control: Arc<ControlPlane>,
    /// Where watchers run: it outlives every worker thread.
    pub runtime: Handle,
    pub aliases: Arc<Aliases>,
    /// Older processes of the proxy, whose clients may send their cancel requests here.
    pub elders: Arc<Elders>,
    pub shutting_down: AtomicBool,
    /// Somebody asks what his session has drawn from sequences: from then on whoever may have drawn keeps his connection.
    pub sequences_matter: AtomicBool,
    /// The cache is on: fixed at the start, since writes must be followed by all sessions or by none.
    pub caching: bool,
}

/// The places for clients.
pub struct Seats {
    taken: AtomicUsize,
    limit: AtomicUsize,
}

/// A client's place; it is free again when this is dropped.
pub struct Seat<'a>(&'a Seats);

impl Seats {
    pub fn new(limit: usize) -> Self {
        Self { taken: AtomicUsize::new(0), limit: AtomicUsize::new(limit) }
    }

    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// `None` if all are taken.
    pub fn take(&self) -> Option<Seat<'_>> {
        let before = self.taken.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(self);
        (before < self.limit.load(Ordering::Relaxed)).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session that can run.
struct Ready {
    session: Box<Session>,
    registration: Registration,
    user_seat: UserSeat,
}

/// Where a session's upstream connections come from.
enum Upstream {
    /// It has one of its own, which may be used again under this key.
    Dedicated(Box<Backend>, Option<PoolKey>),
    Shared(Box<Sharing>),
}

/// How a session begins.
struct SessionState {
    context: Context,
    start_digest: [u8; 32],
    tracking: bool,
    caching: bool,
    limited: bool,
    account: Option<Arc<Account>>,
}

/// One client that is logged in, and its upstream connection while it has one.
struct Session {
    shared: Arc<Shared>,
    control: Arc<Control>,
    visit: Visit,
    client_stream: Stream,
    client: Side,
    /// The upstream connection, while this session has one.
    backend: Option<Box<Backend>>,
    upstream: Side,
    /// Its part in the pool, if it shares its connections.
    sharing: Option<Box<Sharing>>,
    /// The process id that the client was told.
    told_pid: i32,

    pipeline: Pipeline<Option<Asked>, Box<Span>>,
    block: Block,
    context: Context,
    prepared: PreparedStatements,
    known: KnownAnalyses,
    bookmarks: Bookmarks,
    /// The simple query that waits in front, and what it is: it is looked at again when its turn comes.
    in_front: Option<(Box<[u8]>, Arc<Statement>)>,
    /// The extended batch that has been relayed in part and not ended by a Sync.
    open: Option<Box<Span>>,

    /// Under what the upstream connection may be used again.
    key: Option<PoolKey>,
    cancels: Vec<JoinHandle<()>>,

    /// Something is unanswered that may change settings.
    settings_move: bool,
    /// The cache is on, and this session's bookkeeping is right: its writes are followed.
    tracking: bool,
    /// It may use the cache itself. Replication connections do not.
    caching: bool,
    /// Digest of how the session began.
    start_digest: [u8; 32],
    /// Writes that were on their way when the bookkeeping was lost.
    lost: Writes,
    replay: Option<Replay>,
    /// The read on its way that may be asked again.
    repeat: Option<Box<Repeat>>,
    /// How often the present request was.
    repetitions: u32,
    splitting: Splitting,
    /// What the request at the front has been through already.
    attempt: Attempt,
    /// An identical miss, or a turn, that is awaited.
    waiting: Option<Pin<Box<dyn Future<Output = Turn> + Send>>>,
    /// What the upstream has said like somebody who ends.
    last_words: Option<Box<str>>,
    /// A statement that the connection lacked is asked for: the client's next message is about it.
    learning_shape: bool,
    /// The statement of which that has just been answered.
    learned_shape: Option<StatementId>,
    /// Why the session cannot go on.
    gives_up: Option<ErrorResponse>,
    /// The query that runs has been cancelled because it took too long.
    overdue: bool,
    /// Ends when that cancel cannot hit anything else any more.
    cancelling: Option<oneshot::Receiver<()>>,
    /// Time limits apply.
    limited: bool,
    /// The client is gone; the session follows when this ends.
    farewell: Option<Pin<Box<tokio::time::Sleep>>>,
    /// Statements to be analysed when the connection is idle.
    analyses: VecDeque<Analyse>,
    /// A job all of whose replies are here.
    finished: Option<Job>,
    /// A recorded read that has just been answered.
    follow: Option<Box<Fill>>,
    own_replies: BytesMut,
    /// What the block that is being committed has locked.
    witnessed: Option<Witness>,
    witness_trust: Trust,

    /// Bytes of the client's present message that are still to be passed on.
    request_passing: usize,
    /// Bytes of the upstream's present message that are still to be passed on, and where to.
    reply_passing: (usize, Route),
    /// Bytes without which the next message of the client, or of the upstream, cannot be dealt with.
    request_needed: usize,
    reply_needed: usize,

    buffer_bytes: usize,
    max_inspect_bytes: usize,
    max_entry_bytes: usize,
    /// `cache.max_stale_secs`, if `cache.serve_stale_on_open`.
    oldest_on_open: Option<Duration>,
    /// `pool.retry_reads`.
    repeats_reads: bool,
    /// Invalidate by table.
    by_table: bool,
    count_accesses: bool,
}

impl Session {
    #[expect(clippy::too_many_arguments, reason = "called once, with what start-up has put together")]
    fn new(
        shared: Arc<Shared>,
        control: Arc<Control>,
        visit: Visit,
        client_stream: Stream,
        client: Side,
        upstream: Upstream,
        told_pid: i32,
        state: SessionState,
    ) -> Self {
        let (backend, sharing, key) = match upstream {
            Upstream::Dedicated(backend, key) => (Some(backend), None, key),
            Upstream::Shared(sharing) => (None, Some(sharing), None),
        };
        let config = shared.config.load_full();
        let mut session = Self {
            control,
            visit,
            client_stream,
            client,
            backend: None,
            upstream: Side::default(),
            sharing,
            told_pid,
            pipeline: Pipeline::default(),
            block: Block::default(),
            context: state.context,
            prepared: PreparedStatements::default(),
            known: KnownAnalyses::default(),
            bookmarks: Bookmarks::default(),
            in_front: None,
            open: None,
            key,
            cancels: Vec::new(),
            settings_move: false,
            tracking: state.tracking,
            caching: state.caching,
            start_digest: state.start_digest,
            lost: Writes::default(),
            replay: None,
            repeat: None,
            repetitions: 0,
            splitting: Splitting::new(state.account.filter(|_| state.caching)),
            waiting: None,
            attempt: Attempt::default(),
            last_words: None,
            learning_shape: false,
            learned_shape: None,
            gives_up: None,
            overdue: false,
            cancelling: None,
            limited: state.limited,
            farewell: None,
            analyses: VecDeque::new(),
            finished: None,
            follow: None,
            own_replies: BytesMut::new(),
            witnessed: None,
            witness_trust: Trust::default(),
            request_passing: 0,
            reply_passing: (0, Route::Forward),
            request_needed: 0,
            reply_needed: 0,
            buffer_bytes: config.server.buffer_bytes,
            max_inspect_bytes: config.server.max_inspect_bytes,
            max_entry_bytes: config.cache.max_entry_bytes,
            oldest_on_open: config.cache.serve_stale_on_open.then(|| Duration::from_secs(config.cache.max_stale_secs)),
            repeats_reads: config.pool.retry_reads,
            by_table: config.cache.enable_table_tracking,
            count_accesses: config.cache.enable_stats,
            shared,
        };
        if let Some(backend) = backend {
            session.install(backend);
        }
        session
    }

    /// Runs the session to its end.
    async fn run(mut self: Box<Self>, registration: Registration) {
        let end = self.cycle().await;
        self.repeated_in_vain();
        match &end {
            End::Told(error) => {
                error.encode(&mut self.client.output);
                // A client that does not take it loses it.
                let _ = tokio::time::timeout(FAREWELL, self.client.flush(&mut self.client_stream)).await;
            }
            End::Passed(frame) => {
                self.client.output.extend_from_slice(frame);
                let _ = tokio::time::timeout(FAREWELL, self.client.flush(&mut self.client_stream)).await;
            }
            End::Upstream => {
                let owed = !self.pipeline.is_empty();
                self.shared.lookout.lost(&Loss { last_words: self.last_words.as_deref(), owed });
                let _ = tokio::time::timeout(FAREWELL, self.client.flush(&mut self.client_stream)).await;
            }
            End::Client => {}
        }
        // No cancel request finds this session any more, so none is sent after those that are on their way.
        drop(registration);
        // A future of its own: that of the session would have room for it from the beginning.
        Box::pin(self.leave(matches!(end, End::Client))).await;
    }

    /// No transaction is open, nothing is owed to the client, and it has not begun to ask for more.
    fn is_idle(&self) -> bool {
        self.block.status() == Status::Idle
            && !self.pipeline.owes_client()
            && self.open.is_none()
            && !self.is_splitting()
            && self.replay.is_none()
            && self.client.output.is_empty()
            && self.request_passing == 0
    }

    fn is_ending(&self) -> bool {
        self.control.is_shutting_down() || self.control.must_end_now()
    }

    /// Cancels what the upstream does for this client. Whoever asked waits until the signal has been sent.
    fn send_cancel(&mut self, askers: Vec<oneshot::Sender<()>>) {
        // Without a connection nothing runs.
        let Some(backend) = &self.backend else { return };
        let (target, peer) = (self.shared.target.clone(), backend.peer.clone());
        let (pid, secret) = (backend.pid, backend.secret.clone());
        let control = self.control.clone();
        self.cancels.retain(|cancel| !cancel.is_finished());
        self.cancels.push(tokio::spawn(async move {
            if let Err(error) = open::cancel(&target, &peer, pid, &secret).await {
                tracing::info!(pid, %error, "a cancel request did not reach the upstream");
            }
            drop(askers);
            // It may have been all that kept the connection from others.
            control.wake();
        }));
    }

    /// Gives the upstream connection back or closes it. What was in flight is decided when its backend is gone.
    async fn leave(mut self, by_client: bool) {
        let metrics = self.shared.metrics.clone();
        metrics.connections(SideLabel::Client, State::Active).decrement(1.0);
        let clean = by_client && self.is_clean();
        if clean && self.sharing.is_some() {
            for cancel in std::mem::take(&mut self.cancels) {
                // A cancel that is late must not hit the connection's next user.
                let _ = cancel.await;
            }
            return self.hand_on().await;
        }
        if self.backend.is_some() {
            metrics.connections(SideLabel::Upstream, State::Active).decrement(1.0);
        }
        let Self { pipeline, block, visit, backend, open, lost, mut upstream, cancels, shared, key, .. } = self;
        let mut writes = block.abandon();
        writes.merge(lost);
        for span in pipeline.into_spans().chain(open) {
            writes.merge(span.writes);
            let database = visit.database();
            // It was judged by a catalogue that may be old, and nobody will see it answered.
            if database.in_doubt() || span.classified.iter().any(|classified| classified.epoch != database.epoch()) {
                writes
                    .merge(Writes { marks: vec![database.versions.mark(&WriteSet::Everything)], doubts_catalog: true });
            }
        }
        // What is in flight is on a connection.
        let Some(mut backend) = backend else { return };
        if !writes.marks.is_empty() {
            let orphan = Orphan { marks: writes.marks, doubts_catalog: writes.doubts_catalog };
            visit.database().lost(BackendPid(backend.pid), orphan);
        }
        if !clean {
            return;
        }
        for cancel in cancels {
            // A cancel that is late must not hit the connection's next user.
            let _ = cancel.await;
        }
        let reusable = shared.config.load().pool.max_idle > 0;
        if let Some(key) = key.filter(|_| reusable) {
            shared.pool.give_back(*backend, key).await;
            return;
        }
        upstream.output.extend_from_slice(&[crate::wire::frame::frontend::TERMINATE, 0, 0, 0, 4]);
        let _ = tokio::time::timeout(FAREWELL, upstream.flush(&mut backend.stream)).await;
    }

    /// The process id of the backend that it has now.
    fn pid(&self) -> Option<i32> {
        self.backend.as_ref().map(|backend| backend.pid)
    }

    /// Nothing is outstanding and no transaction is open.
    fn is_clean(&self) -> bool {
        self.pipeline.is_empty()
            && !self.pipeline.is_confused()
            && self.block.status() == Status::Idle
            && self.open.is_none()
            && self.request_passing == 0
            && self.upstream.output.is_empty()
            && self.upstream.input.is_empty()
            && !self.upstream.closed
            && self.lost.marks.is_empty()
    }
}
