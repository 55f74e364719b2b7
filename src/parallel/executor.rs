//! Runs split statements: finds connections, lets them work, puts their rows in order, and cleans up behind them.
//!
//! **Invariant.** Whatever becomes of a statement, its [`Rows`] say how it ends, and every connection that worked on it is given back
//! clean or closed. Dropping the `Rows` stops all of them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::ParallelConfig;
use super::chunks::{ChunkLimits, Chunks};
use super::gather::Gather;
use super::grouping::Grouping;
use super::link::{Link, LinkError, Stop};
use super::order::{Failure, Item, Ordered, Place};
use super::ordering::Sorting;
use super::pool::{KeepsNoLink, LinkKey, LinkPermit, LinkPool};
use super::scan::{Begun, ScanQuery};
use super::sorter::ParallelSorter;
use crate::guard::BreakerError;
use crate::telemetry::metrics::{Metrics, Side, State, Unsplit};
use crate::upstream::connect::ConnectError;
use crate::upstream::login::login;
use crate::upstream::lookout::{Lookout, Loss};
use crate::upstream::open::{self, Target};
use crate::wire::error::{ErrorResponse, sqlstate};

/// Between two looks at whether another connection would help.
const TICK: Duration = Duration::from_millis(10);
/// How long a connection has to become clean.
const CLEANING: Duration = Duration::from_secs(5);
const MEBIBYTE: usize = 1 << 20;

/// Splits statements over connections of its own. One for the whole proxy.
pub struct ParallelQueryExecutor {
    target: Arc<Target>,
    lookout: Arc<Lookout>,
    metrics: Arc<Metrics>,
    pool: LinkPool,
    /// Mebibytes for rows that are not due.
    memory: Arc<Semaphore>,
    max_memory_mb: usize,
}

/// What all split statements together hold now, and may hold.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub working: usize,
    pub idle: usize,
    pub max_connections: usize,
    /// Set aside for rows that are not due.
    pub memory_mb: usize,
    pub max_memory_mb: usize,
}

/// The rows of a split statement, in the order of the table's blocks.
pub struct Rows(Arc<Ordered>);

/// One statement at work.
struct Work {
    executor: Arc<ParallelQueryExecutor>,
    query: ScanQuery,
    key: LinkKey,
    ordered: Arc<Ordered>,
    limits: WorkLimits,
    /// Connections that work on it, how many should, and how many can be had.
    working: AtomicUsize,
    wanted: AtomicUsize,
    most: AtomicUsize,
    /// What the ranges' rows are put together in, if they are partial groups.
    gather: OnceLock<Gather>,
    _memory: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy)]
struct WorkLimits {
    adaptive: bool,
    stealing: bool,
    min_pages: u32,
    max_pages: u32,
    memory: usize,
}

/// Why a connection does not work.
enum Unfit {
    Busy,
    Connect(BreakerError<ConnectError>),
    Settings,
    Link(LinkError),
}

impl ParallelQueryExecutor {
    pub fn new(
        config: &ParallelConfig,
        target: Arc<Target>,
        lookout: Arc<Lookout>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self {
            target,
            lookout,
            metrics,
            pool: LinkPool::new(config.max_connections, Duration::from_secs(config.idle_timeout_secs)),
            memory: Arc::new(Semaphore::new(config.max_memory_mb as usize)),
            max_memory_mb: config.max_memory_mb as usize,
        })
    }

    /// Begins a statement, if there are two connections and the memory for it.
    pub fn start(self: &Arc<Self>, config: &ParallelConfig, query: ScanQuery) -> Result<Rows, Unsplit> {
        if self.pool.available() < 2 {
            return Err(Unsplit::Busy);
        }
        let memory = self.memory.clone().try_acquire_many_owned(config.query_memory_mb).map_err(|_| Unsplit::Busy)?;
        let limits = WorkLimits {
            adaptive: config.adaptive_parallelism && config.work_stealing,
            stealing: config.work_stealing,
            min_pages: config.min_chunk_pages,
            max_pages: config.max_chunk_pages,
            memory: config.query_memory_mb as usize * MEBIBYTE,
        };
        let ordered = Arc::new(Ordered::new(limits.memory));
        let wanted = if limits.adaptive { 1 } else { query.degree };
        let work = Work {
            executor: self.clone(),
            key: query.key(),
            most: AtomicUsize::new(query.degree),
            query,
            ordered: ordered.clone(),
            limits,
            working: AtomicUsize::new(1),
            wanted: AtomicUsize::new(wanted),
            gather: OnceLock::new(),
            _memory: memory,
        };
        tokio::spawn(run(Arc::new(work)));
        Ok(Rows(ordered))
    }

    pub fn idle_connections(&self) -> usize {
        self.pool.idle_connections()
    }

    pub fn usage(&self) -> Usage {
        let (idle, max_connections) = (self.pool.idle_connections(), self.pool.max_connections());
        Usage {
            working: max_connections.saturating_sub(self.pool.available()),
            idle,
            max_connections,
            memory_mb: self.max_memory_mb.saturating_sub(self.memory.available_permits()),
            max_memory_mb: self.max_memory_mb,
        }
    }

    /// Keeps no idle connection for as long as the answer lives: to the server they are somebody's who is in the database, which
    /// can then not be dropped.
    pub fn keep_none(&self) -> KeepsNoLink {
        self.pool.keep_none()
    }

    /// Closes connections that are idle for too long.
    pub fn sweep(&self) {
        self.pool.sweep();
    }
}

impl Rows {
    /// Ready when there is something to take.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_ready(cx)
    }

    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Item> {
        self.0.poll_take(cx)
    }

    /// The failure, if it has failed.
    pub fn take_failure(&self) -> Option<Failure> {
        self.0.take_failure()
    }

    /// The RowDescription frame; known when something is ready that is no failure.
    pub fn description(&self) -> Option<Bytes> {
        self.0.description()
    }

    /// Ends it with this error. If it has failed already, that is its end.
    pub fn cancel(&self, error: &ErrorResponse) {
        self.0.fail(frame(error), true);
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.0.stop();
    }
}

fn frame(error: &ErrorResponse) -> Bytes {
    let mut frame = BytesMut::new();
    error.encode(&mut frame);
    frame.freeze()
}

/// Fails the statement if whoever works on it ends without a word.
struct Witness<'a>(&'a Ordered, bool);

impl Drop for Witness<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fail(LinkError::Protocol("a worker has failed").into_frame(), false);
        }
    }
}

/// Runs a statement to its end.
async fn run(work: Arc<Work>) {
    let mut witness = Witness(&work.ordered, false);
    let limit = Duration::from_millis(work.query.settings.milliseconds("statement_timeout"));
    let mut expiry = std::pin::pin!(sleep(limit));
    let mut has_expired = limit.is_zero();
    let mut led = std::pin::pin!(lead(&work));
    let led = loop {
        tokio::select! {
            led = &mut led => break led,
            () = &mut expiry, if !has_expired => {
                has_expired = true;
                // Everybody stops, and the work ends in its own way.
                let error = ErrorResponse::error(sqlstate::QUERY_CANCELED, "canceling statement due to statement timeout");
                work.ordered.fail(frame(&error), true);
            }
        }
    };
    if let Err(unfit) = led {
        tracing::debug!(%unfit, "a split statement has no leader");
        unfit.fail(&work.ordered);
    }
    witness.1 = true;
}

/// The leader's connection: from its beginning until nobody needs its snapshot any more.
async fn lead(work: &Arc<Work>) -> Result<(), Unfit> {
    let mut stop = work.ordered.stop_signal();
    let mut leader = Worker::hire(work, &mut stop).await?;
    if let Some(grouping) = &work.query.grouping {
        return lead_groups(work, grouping, leader, &mut stop).await;
    }
    if let Some(sorting) = &work.query.sorting {
        return lead_sorted(work, sorting, leader, &mut stop).await;
    }
    let begun = Arc::new(work.query.lead(leader.link()?, &mut stop).await.map_err(Unfit::Link)?);
    let description = begun.description.clone();
    read_all(work, &mut leader, &begun, &mut stop, |count| work.ordered.begin(description, count)).await;
    Ok(())
}

/// The same for partial groups: they are put together when all ranges have been read, and what comes out is the answer's only range.
async fn lead_groups(work: &Arc<Work>, grouping: &Grouping, mut leader: Worker, stop: &mut Stop) -> Result<(), Unfit> {
    let (begun, merging) = work.query.lead_groups(grouping, leader.link()?, stop).await.map_err(Unfit::Link)?;
    let begun = Arc::new(begun);
    let gather = work.gather.get_or_init(|| Gather::new(&merging, work.limits.memory));
    let mut ranges = 0;
    read_all(work, &mut leader, &begun, stop, |count| ranges = count).await;
    if work.ordered.is_stopped() {
        return Ok(());
    }
    let parts = gather.finish(ranges).map_err(Unfit::Link)?;
    work.ordered.begin(merging.description.clone(), 1);
    let place = Place { ordered: &work.ordered, range: 0 };
    let rows = work.query.merge(parts, &begun, leader.link()?, stop, place).await.map_err(Unfit::Link)?;
    work.ordered.complete(0, rows);
    Ok(())
}

/// The same for sorted rows: each connection sorts one range, since the first row may be in any of them.
async fn lead_sorted(work: &Arc<Work>, sorting: &Sorting, mut leader: Worker, stop: &mut Stop) -> Result<(), Unfit> {
    let (begun, merging) = work.query.lead_sorted(sorting, leader.link()?, stop).await.map_err(Unfit::Link)?;
    let begun = Arc::new(begun);
    let hired = hire_all(work, &begun, stop).await;
    let chunks = Arc::new(Chunks::one_each(&begun.size, hired.len() + 1));
    let lanes = chunks.count();
    let sorter = ParallelSorter::new(merging.keys, lanes, work.limits.memory / lanes);
    work.ordered.begin_sorted(merging.description, sorter.limit(sorting.offset, sorting.limit));
    work_on(&mut leader, hired, &begun, chunks).await;
    Ok(())
}

/// Everybody reads what is his.
async fn work_on(leader: &mut Worker, hired: Vec<Worker>, begun: &Arc<Begun>, chunks: Arc<Chunks>) {
    let mut followers = JoinSet::new();
    for (number, follower) in hired.into_iter().enumerate() {
        followers.spawn(follow(follower, begun.clone(), chunks.clone(), number + 1));
    }
    leader.work(begun, &chunks, 0).await;
    while followers.join_next().await.is_some() {}
}

/// Reads all ranges, over the leader's connection and those of the followers; `begin` is told how many there are. Failures are the
/// statement's.
async fn read_all(
    work: &Arc<Work>,
    leader: &mut Worker,
    begun: &Arc<Begun>,
    stop: &mut Stop,
    begin: impl FnOnce(usize),
) {
    let mut followers = JoinSet::new();
    if work.limits.stealing {
        let chunks = Arc::new(Chunks::stealing(&begun.size, work.chunk_limits(begun), work.query.degree));
        begin(chunks.count());
        let grow = grow(work, begun, &chunks, &mut followers);
        // The first range is read at once, by the connection in hand.
        tokio::join!(leader.work(begun, &chunks, 0), grow);
    } else {
        let hired = hire_all(work, begun, stop).await;
        let chunks = Arc::new(Chunks::in_turn(&begun.size, work.chunk_limits(begun), hired.len() + 1));
        begin(chunks.count());
        work_on(leader, hired, begun, chunks).await;
    }
    while followers.join_next().await.is_some() {}
}

/// Adds connections while that helps, and takes them away while the client has more than it can take.
async fn grow(work: &Arc<Work>, begun: &Arc<Begun>, chunks: &Arc<Chunks>, followers: &mut JoinSet<()>) {
    let mut stop = work.ordered.stop_signal();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut number = 0;
    while !chunks.is_dealt() {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            _ = ticks.tick() => {}
        }
        while followers.try_join_next().is_some() {}
        let wanted = work.wanted.load(Ordering::Relaxed);
        if work.limits.adaptive {
            // Whoever waits for groups waits for all of them.
            let is_starved = work.query.grouping.is_some() || work.ordered.was_starved();
            let next = match (is_starved, work.ordered.is_ahead()) {
                (true, _) => (wanted + 1).min(work.most.load(Ordering::Relaxed)),
                (false, true) => (wanted - 1).max(1),
                (false, false) => wanted,
            };
            work.wanted.store(next, Ordering::Relaxed);
        }
        while work.working.load(Ordering::Relaxed) < work.wanted.load(Ordering::Relaxed) {
            number += 1;
            work.working.fetch_add(1, Ordering::Relaxed);
            followers.spawn(join(work.clone(), begun.clone(), chunks.clone(), number));
        }
    }
}

/// Every follower that can be had.
async fn hire_all(work: &Arc<Work>, begun: &Arc<Begun>, stop: &mut Stop) -> Vec<Worker> {
    let mut hired = Vec::new();
    while hired.len() + 1 < work.query.degree {
        let Some(follower) = hire_follower(work, begun, stop).await else { break };
        hired.push(follower);
    }
    hired
}

async fn hire_follower(work: &Arc<Work>, begun: &Begun, stop: &mut Stop) -> Option<Worker> {
    let hired = async {
        let mut worker = Worker::hire(work, stop).await?;
        work.query.follow(worker.link()?, begun, stop).await.map_err(Unfit::Link)?;
        Ok::<_, Unfit>(worker)
    };
    hired.await.inspect_err(|unfit| tracing::debug!(%unfit, "a connection does not join a split statement")).ok()
}

/// A follower, from its connection to its last range.
async fn join(work: Arc<Work>, begun: Arc<Begun>, chunks: Arc<Chunks>, number: usize) {
    let mut stop = work.ordered.stop_signal();
    let hired = hire_follower(&work, &begun, &mut stop).await;
    match hired {
        Some(follower) => follow(follower, begun, chunks, number).await,
        // There is no use in trying again.
        None => {
            let others = work.working.load(Ordering::Relaxed).saturating_sub(1).max(1);
            work.most.fetch_min(others, Ordering::Relaxed);
            work.wanted.fetch_min(others, Ordering::Relaxed);
        }
    }
    work.working.fetch_sub(1, Ordering::Relaxed);
}

async fn follow(mut follower: Worker, begun: Arc<Begun>, chunks: Arc<Chunks>, number: usize) {
    let work = follower.work.clone();
    let mut witness = Witness(&work.ordered, false);
    follower.work(&begun, &chunks, number).await;
    witness.1 = true;
}

impl Work {
    fn chunk_limits(&self, begun: &Begun) -> ChunkLimits {
        let WorkLimits { min_pages, max_pages, memory, .. } = self.limits;
        // Rows are larger than what they are stored as, in most cases by less than half.
        ChunkLimits { min_pages, max_pages, memory_pages: memory as u64 * 2 / 3 / begun.block_bytes }
    }
}

/// A connection that works on a statement. However it is dropped, the connection is cleaned and given back, or closed.
struct Worker {
    work: Arc<Work>,
    hired: Option<(Link, LinkPermit)>,
}

impl Worker {
    /// An idle connection, or a new one that has been given the session's settings.
    async fn hire(work: &Arc<Work>, stop: &mut Stop) -> Result<Self, Unfit> {
        let executor = &work.executor;
        executor.metrics.connections(Side::Upstream, State::Active).increment(1.0);
        let mut worker = Self { work: work.clone(), hired: executor.pool.take(&work.key) };
        if worker.hired.is_none() {
            let permit = executor.pool.permit().ok_or(Unfit::Busy)?;
            let mut link = work.connect().await.map_err(Unfit::Connect)?;
            let fits = work.query.dress(&mut link, stop).await.map_err(Unfit::Link)?;
            if !fits {
                return Err(Unfit::Settings);
            }
            worker.hired = Some((link, permit));
        }
        Ok(worker)
    }

    fn link(&mut self) -> Result<&mut Link, Unfit> {
        self.hired.as_mut().map(|(link, _)| link).ok_or(Unfit::Busy)
    }

    /// Reads ranges until none is left, or one connection too many works. A failure is the statement's, at once.
    async fn work(&mut self, begun: &Begun, chunks: &Chunks, number: usize) {
        if let Err(error) = self.read_ranges(begun, chunks, number).await {
            if matches!(error, LinkError::Io(_) | LinkError::Closed) {
                self.work.executor.lookout.lost(&Loss { last_words: None, owed: true });
            }
            self.work.ordered.fail_by(error);
        }
    }

    async fn read_ranges(&mut self, begun: &Begun, chunks: &Chunks, number: usize) -> Result<(), LinkError> {
        let mut stop = self.work.ordered.stop_signal();
        let Some((link, _)) = &mut self.hired else { return Ok(()) };
        let Work { ordered, query, working, wanted, limits, gather, .. } = &*self.work;
        loop {
            let is_surplus = limits.adaptive && number > 0;
            if is_surplus && working.load(Ordering::Relaxed) > wanted.load(Ordering::Relaxed) {
                return Ok(());
            }
            let Some(chunk) = chunks.next(number) else { return Ok(()) };
            if let Some(gather) = gather.get() {
                let mut rows = gather.rows(chunk);
                query.read_each(link, begun, chunks.blocks(chunk), &mut stop, |row| rows.keep(row)).await?;
                rows.complete()?;
                continue;
            }
            let place = Place { ordered, range: chunk };
            let rows = query.read(link, begun, chunks.blocks(chunk), &mut stop, place).await?;
            ordered.complete(chunk, rows);
        }
    }
}

impl Work {
    async fn connect(&self) -> Result<Link, BreakerError<ConnectError>> {
        let Self { executor, query, .. } = self;
        let account = &query.account;
        let connect = async {
            let stream = open::open(&executor.target).await?;
            let login = login(stream, account.protocol, &account.parameters, &account.secret);
            let limit = executor.target.connect_timeout;
            let connection = timeout(limit, login).await.map_err(|_| open::OpenError::Timeout(limit))??;
            Ok(Link::new(connection))
        };
        executor.lookout.breaker.call(connect).await
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let executor = self.work.executor.clone();
        executor.metrics.connections(Side::Upstream, State::Active).decrement(1.0);
        let Some((mut link, permit)) = self.hired.take() else { return };
        let key = self.work.key.clone();
        // The runtime may be ending, and the connection with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            let cleaned = async {
                link.settle(&executor.target).await?;
                ScanQuery::end(&mut link).await
            };
            match timeout(CLEANING, cleaned).await {
                Ok(Ok(())) => executor.pool.give_back(link, key, permit),
                Ok(Err(error)) => tracing::debug!(%error, "a connection is closed after a split statement"),
                Err(_) => tracing::info!("a connection did not end its work for a split statement in time: closed"),
            }
        });
    }
}

impl Unfit {
    /// Ends the statement. The client is told only if rows have been sent: without them it runs unsplit.
    fn fail(self, ordered: &Ordered) {
        match self {
            Self::Link(error) => ordered.fail_by(error),
            other => {
                ordered.fail(frame(&ErrorResponse::error(sqlstate::CONNECTION_FAILURE, other.to_string())), false);
            }
        }
    }
}

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("no connection is free"),
            Self::Connect(error) => error.fmt(f),
            Self::Settings => f.write_str("its settings cannot be made the session's"),
            Self::Link(error) => error.fmt(f),
        }
    }
}
