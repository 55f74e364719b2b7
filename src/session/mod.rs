//! One client's life: start-up, authentication, the query cycle, the end.
//!
//! A session is one task that owns its client and its upstream connection. Decisions are made by pure types (`pipeline`,
//! `block`, `context`, `effects`, `prepared`); the rest of the floor moves bytes and asks them.

mod block;
mod context;
mod control;
mod cycle;
mod effects;
mod jobs;
mod lookup;
mod notes;
mod pipeline;
mod prepared;
mod replies;
mod requests;
mod span;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::block::{Block, Status, Writes};
use self::context::Context;
use self::control::Control;
use self::cycle::{End, Replay, Side};
use self::jobs::{Analyse, Job};
use self::lookup::Fill;
use self::pipeline::{Pipeline, Route};
use self::prepared::{Prepared, PreparedStatements};
use self::span::Span;
use crate::cache::limbo::{BackendPid, Orphan};
use crate::cache::flight::Flights;
use crate::cache::store::Store;
use crate::catalog::{Databases, Visit};
use crate::statement::Statements;
use crate::telemetry::metrics::Metrics;
use crate::wire::error::ErrorResponse;

/// How long a client that is told goodbye has to take it.
const FAREWELL: Duration = Duration::from_secs(5);

/// What all sessions share.
pub struct Shared {
    pub config: arc_swap::ArcSwap<crate::config::Config>,
    pub metrics: Arc<Metrics>,
    pub statements: Statements,
    pub store: Store,
    pub flights: Arc<Flights>,
    pub databases: Databases,
}

/// One client that is logged in, and its upstream connection.
struct Session {
    shared: Arc<Shared>,
    control: Arc<Control>,
    visit: Visit,
    client: Side,
    upstream: Side,
    /// The upstream backend's process id.
    pid: i32,
    secret: Bytes,

    pipeline: Pipeline<Option<Arc<Prepared>>, Span>,
    block: Block,
    context: Context,
    prepared: PreparedStatements,
    /// The extended batch that has been relayed in part and not ended by a Sync.
    open: Option<Span>,

    /// The cache is on for this session, and its bookkeeping is right.
    tracking: bool,
    /// Digest of how the session began.
    start_digest: [u8; 32],
    /// Writes that were on their way when the bookkeeping was lost.
    lost: Writes,
    replay: Option<Replay>,
    /// An identical miss that is awaited.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    has_waited: bool,
    /// Statements to be analysed when the connection is idle.
    analyses: VecDeque<Analyse>,
    /// A job all of whose replies are here.
    finished: Option<Job>,
    /// A recorded read that has just been answered.
    follow: Option<Fill>,
    own_replies: BytesMut,

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
}

impl Session {
    /// Runs the session to its end.
    async fn run(mut self) {
        let end = self.cycle().await;
        if let End::Told(error) = &end {
            error.encode(&mut self.client.output);
        }
        if matches!(end, End::Told(_) | End::Upstream) {
            // A client that does not take it loses it.
            let _ = tokio::time::timeout(FAREWELL, self.client.flush()).await;
        }
        self.leave();
    }

    /// No transaction is open, nothing is owed to the client, and it has not begun to ask for more.
    fn is_idle(&self) -> bool {
        self.block.status() == Status::Idle
            && !self.pipeline.owes_client()
            && self.open.is_none()
            && self.replay.is_none()
            && self.client.output.is_empty()
            && self.request_passing == 0
    }

    fn is_ending(&self) -> bool {
        self.control.is_shutting_down() || self.control.must_end_now()
    }

    fn send_cancel(&mut self) {}

    /// What was in flight when the session ended is decided when its backend is gone.
    fn leave(self) {
        let Self { pipeline, block, visit, pid, open, lost, .. } = self;
        let mut writes = block.abandon();
        writes.merge(lost);
        for span in pipeline.into_spans().chain(open) {
            writes.merge(span.writes);
        }
        if !writes.marks.is_empty() {
            let orphan = Orphan { marks: writes.marks, doubts_catalog: writes.doubts_catalog };
            visit.database().limbo.add(BackendPid(pid), orphan);
        }
    }
}
