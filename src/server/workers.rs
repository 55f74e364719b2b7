//! The threads that run sessions, each with a runtime of its own.
//!
//! A session and its sockets stay on one thread from first to last: a message that comes in wakes nobody on another core,
//! which was measured to be faster than one runtime over all cores. Connections go to the worker with the fewest sessions;
//! `SO_REUSEPORT` would leave that to a hash.
//!
//! A thread that a message wakes lets the sender finish first (see [`schedule`]).

mod schedule;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::listen::Accepted;
use super::{Peer, Sessions};
use crate::config::Scheduling;
use crate::wire::stream::Stream;

/// How long a worker waits for blocking work, such as looking up a name, when it ends.
const BLOCKING_WORK: Duration = Duration::from_millis(100);

/// How long all of them have to drop the sessions that are left.
const TO_STOP: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Workers {
    workers: Vec<Worker>,
    scheduling: Scheduling,
    /// The worker that is asked first, so that among equals each has its turn.
    turn: AtomicUsize,
    /// Told whenever a session ends.
    ended: Arc<Notify>,
    /// Set, or dropped, to end the threads.
    stop: watch::Sender<bool>,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    sessions: Arc<AtomicUsize>,
}

/// One client's connection, served to its end.
type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Counts one session of one worker for as long as it lives.
struct Counted {
    sessions: Arc<AtomicUsize>,
    ended: Arc<Notify>,
}

impl Workers {
    /// Starts `threads` of them, or one for each core if that is 0.
    pub fn start(threads: usize, scheduling: Scheduling) -> io::Result<Self> {
        let threads = match threads {
            0 => std::thread::available_parallelism()?.get(),
            threads => threads,
        };
        let stop = watch::Sender::new(false);
        let workers = (0..threads).map(|index| Worker::start(index, stop.subscribe())).collect::<io::Result<_>>()?;
        Ok(Self { workers, scheduling, turn: AtomicUsize::new(0), ended: Arc::default(), stop })
    }

    pub fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Sessions that have not ended yet.
    pub fn sessions(&self) -> usize {
        self.workers.iter().map(|worker| worker.sessions.load(Ordering::Acquire)).sum()
    }

    /// Gives a connection to the worker with the fewest sessions. `serve` makes of it what runs there.
    pub fn run<S: Sessions>(&self, accepted: Accepted, sessions: &Arc<S>, serve: fn(Arc<S>, Stream, Peer) -> Serving) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let (before, after) = self.workers.split_at(turn % self.workers.len());
        let in_turn = after.iter().chain(before);
        let Some(worker) = in_turn.min_by_key(|worker| worker.sessions.load(Ordering::Acquire)) else { return };
        let counted = Counted::new(&worker.sessions, &self.ended);
        let (sessions, scheduling) = (Arc::clone(sessions), self.scheduling);
        worker.runtime.spawn(async move {
            // Here, on the worker's own thread.
            schedule::this_thread(scheduling, counted.sessions.load(Ordering::Relaxed));
            match register(accepted) {
                Ok((stream, peer)) => serve(sessions, stream, peer).await,
                Err(error) => tracing::warn!(%error, "lost a client's connection before its session began"),
            }
            schedule::this_thread(scheduling, counted.sessions.load(Ordering::Relaxed).saturating_sub(1));
        });
    }

    /// Waits until no session is left. New ones must not come in the meantime. Cancel-safe.
    pub async fn idle(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // From here on a session's end is noticed; looking before would miss one that ends in between.
            ended.as_mut().enable();
            if self.sessions() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// Ends when each of them has done something that it is given now.
    pub async fn answer(&self) {
        for worker in &self.workers {
            // One that has ended does nothing any more, and need not.
            let _ = worker.runtime.spawn(async {}).await;
        }
    }

    /// Ends all threads. Sessions that have not ended are dropped where they are.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        // Each thread holds a receiver until it is done. One that does not get there ends with the process.
        let _ = timeout(TO_STOP, self.stop.closed()).await;
    }
}

impl Worker {
    fn start(index: usize, stop: watch::Receiver<bool>) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(format!("sessions-{index}")).spawn(move || work(runtime, stop))?;
        Ok(Self { runtime: handle, sessions: Arc::default() })
    }
}

impl Counted {
    fn new(sessions: &Arc<AtomicUsize>, ended: &Arc<Notify>) -> Self {
        sessions.fetch_add(1, Ordering::AcqRel);
        Self { sessions: Arc::clone(sessions), ended: Arc::clone(ended) }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.sessions.fetch_sub(1, Ordering::AcqRel);
        self.ended.notify_waiters();
    }
}

fn work(runtime: Runtime, mut stop: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it whoever could give us work.
    let _ = runtime.block_on(stop.wait_for(|stop| *stop)).is_ok();
    runtime.shutdown_timeout(BLOCKING_WORK);
}

/// Makes this thread's runtime the one that drives the connection.
fn register(accepted: Accepted) -> io::Result<(Stream, Peer)> {
    Ok(match accepted {
        Accepted::Tcp(stream, address) => (Stream::Tcp(TcpStream::from_std(stream)?), Peer::Tcp(address)),
        Accepted::Unix(stream) => (Stream::Unix(UnixStream::from_std(stream)?), Peer::Unix),
    })
}
