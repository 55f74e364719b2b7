//! Watches one database's catalogue over a control connection while sessions are in it.
//!
//! It reads the model when one is wanted, looks at the catalogue's fingerprint every `catalog.refresh_secs`, and asks
//! `pg_stat_activity` about backends whose writes ended in limbo. Without its connection there is no model and nothing is
//! served from the cache: what cannot be watched is not vouched for.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Error};
use tracing::{debug, info, warn};

use super::database::{Attendance, Database};
use super::fingerprint::{self, Fingerprint};
use super::load;
use crate::cache::limbo::BackendPid;
use crate::cache::versions::Marks;

/// How long the connection outlives the last session: short enough for DROP DATABASE, which waits five seconds for others to
/// leave (`CountOtherDBBackends`, src/backend/storage/ipc/procarray.c).
const LINGER: Duration = Duration::from_secs(2);
const RECONNECT: Duration = Duration::from_secs(1);
const LIMBO_POLL: Duration = Duration::from_millis(100);
/// How long the server may take to answer the watcher. One that is silent for longer is as good as gone: what it would have
/// said is not known, so nothing is served until another connection says it.
const ANSWER: Duration = Duration::from_secs(60);
/// Between two looks at a doubted catalogue, in multiples of what one takes: a stream of DDL must not keep the upstream busy.
const PAUSE: u32 = 1;

/// Why a control connection is given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Server(#[from] Error),
    #[error("no answer within {} seconds", ANSWER.as_secs())]
    Silent,
    #[error("the server has closed it")]
    Closed,
}

/// Why there is no control connection.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct NotAttended {
    pub why: String,
    /// The server says that there is no such database: nobody is in it any more.
    pub is_dropped: bool,
}

/// What a watcher needs besides its database.
pub trait Control: Send + Sync + 'static {
    /// Opens a control connection to `database`, on its own server, with the service account, and calls `ended` when it has ended.
    fn connect(
        &self,
        database: &Database,
        ended: impl FnOnce() + Send + 'static,
    ) -> impl Future<Output = Result<Client, NotAttended>> + Send;

    /// Interval of the look at the catalogue's fingerprint.
    fn refresh(&self) -> Duration;

    /// Whether the user's functions that are declared IMMUTABLE are taken to be.
    fn trusts_immutable_functions(&self) -> bool;

    /// What sessions begin with has changed (ALTER ROLE or DATABASE ... SET).
    fn defaults_have_changed(&self);

    /// A look at the catalogue took so long.
    fn looked(&self, took: Duration);

    /// There is no such database any more, and nothing that is waited for.
    fn dropped(&self, database: &str);

    /// The control connection to `database` works, or does not and why.
    fn report(&self, database: &str, state: Result<(), &str>);
}

/// Runs until no session is left in `database`.
pub async fn watch(database: Arc<Database>, control: Arc<impl Control>) {
    loop {
        if wanted(&database) {
            let attendance = Attendance::begins();
            let in_limbo = database.limbo.waiting();
            let ended = {
                let (attendance, database) = (attendance.clone(), database.clone());
                move || {
                    attendance.ends();
                    database.wake.notify_one();
                }
            };
            match control.connect(&database, ended).await {
                Ok(client) => {
                    database.attend(attendance);
                    control.report(&database.name, Ok(()));
                    match attend(&database, client, &*control).await {
                        Ok(()) => {
                            database.is_left();
                            debug!(database = %database.name, "no sessions left, control connection closed");
                        }
                        Err(error) => {
                            warn!(database = %database.name, %error, "control connection lost, cache bypassed until it is back");
                            control.report(&database.name, Err("control connection lost"));
                        }
                    }
                }
                Err(NotAttended { is_dropped: true, .. }) if !in_limbo.is_empty() => {
                    info!(database = %database.name, "the database was dropped: what was lost in it is settled");
                    settle(&database, in_limbo);
                    control.dropped(&database.name);
                }
                Err(error) => {
                    warn!(database = %database.name, %error, "no control connection, cache bypassed");
                    control.report(&database.name, Err(&error.why));
                    tokio::time::sleep(RECONNECT).await;
                }
            }
            database.publish(None);
            continue;
        }
        database.watched.store(false, Ordering::SeqCst);
        // A session may have come in between and seen that a watcher runs.
        if !wanted(&database) || database.watched.swap(true, Ordering::SeqCst) {
            return;
        }
    }
}

fn wanted(database: &Database) -> bool {
    !database.is_asleep() && (database.visitors() > 0 || !database.limbo.waiting().is_empty())
}

/// Works on one connection. `Ok` when nobody is left.
async fn attend(database: &Database, mut client: Client, control: &impl Control) -> Result<(), Lost> {
    let mut next_look = Instant::now();
    let mut pause_until = Instant::now();
    let mut empty_since: Option<Instant> = None;
    loop {
        if database.is_asleep() {
            return Ok(());
        }
        if client.is_closed() {
            return Err(Lost::Closed);
        }
        let started = Instant::now();
        let doubted = database.in_doubt() || !database.has_model();
        let due = started >= next_look;
        if !database.is_past_answered() {
            // There is nothing to look for until the last of the past is answered, which wakes us.
            if due {
                answered(client.check_connection()).await?;
                next_look = started + control.refresh();
            }
        } else if due || (doubted && started >= pause_until) {
            match answered(look(database, &mut client, control)).await {
                // Something was dropped while it was looked at. The next look will tell.
                Err(Lost::Server(error)) if !client.is_closed() => {
                    debug!(database = %database.name, %error, "the catalogue was in motion")
                }
                looked => looked?,
            }
            control.looked(started.elapsed());
            next_look = started + control.refresh();
            pause_until = Instant::now() + started.elapsed() * PAUSE;
        }
        answered(settle_limbo(database, &client)).await?;

        let mut wait = next_look.saturating_duration_since(Instant::now());
        if !database.limbo.waiting().is_empty() {
            wait = wait.min(LIMBO_POLL);
        } else if database.visitors() == 0 {
            let since = *empty_since.get_or_insert_with(Instant::now);
            let left = LINGER.saturating_sub(since.elapsed());
            if left.is_zero() || database.leave_now.load(Ordering::SeqCst) {
                return Ok(());
            }
            wait = wait.min(left);
        } else {
            empty_since = None;
        }
        let woken = tokio::time::timeout(wait, database.wake.notified()).await.is_ok();
        if woken && database.visitors() > 0 {
            tokio::time::sleep(pause_until.saturating_duration_since(Instant::now()).min(wait)).await;
        }
    }
}

/// What the server says, unless it says nothing for too long.
async fn answered<T>(question: impl Future<Output = Result<T, Error>>) -> Result<T, Lost> {
    match tokio::time::timeout(ANSWER, question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Lost::Silent),
    }
}

/// Looks at the fingerprint and, if there is no model for it, reads one; or leaves the doubts open, if what was judged before
/// the change that it found is still on its way.
///
/// The caller has made sure that nothing is on its way that was judged before the present epoch: `classified` tells two
/// epochs apart and no more, so the present one must not end before.
async fn look(database: &Database, client: &mut Client, control: &impl Control) -> Result<(), Error> {
    // The doubts first: one that is raised while we look stays open.
    let doubts = database.doubts();
    let fingerprint = fingerprint::fingerprint(client).await?;
    note_fingerprint(database, fingerprint, control);
    if !database.has_model() {
        if !database.is_past_answered() {
            info!(database = %database.name, "cache bypassed until what was sent before the change is answered");
            return Ok(());
        }
        let epoch = database.epoch();
        let (model, fingerprint) = load::model(client, epoch, control.trusts_immutable_functions()).await?;
        if note_fingerprint(database, fingerprint, control) == epoch {
            database.publish(Some(model));
        }
    }
    database.settle_doubts(doubts);
    debug!(database = %database.name, epoch = database.epoch(), doubts, "looked at the catalogue");
    Ok(())
}

/// Ends the epoch if the catalogue is not what it was. Returns the present epoch.
fn note_fingerprint(database: &Database, fingerprint: Fingerprint, control: &impl Control) -> u64 {
    let mut known = database.fingerprint.lock().unwrap_or_else(PoisonError::into_inner);
    if known.as_ref() == Some(&fingerprint) {
        return database.epoch();
    }
    if let Some(known) = &*known {
        if fingerprint.changes_defaults(known) {
            control.defaults_have_changed();
        }
        info!(database = %database.name, "the catalogue has changed: cached results are void");
    }
    let first = known.replace(fingerprint).is_none();
    // Without a model there was never an entry.
    if first { database.epoch() } else { database.catalog_changed() }
}

async fn settle_limbo(database: &Database, client: &Client) -> Result<(), Error> {
    let waiting = database.limbo.waiting();
    if waiting.is_empty() {
        return Ok(());
    }
    let pids: Vec<i32> = waiting.iter().map(|pid| pid.0).collect();
    let rows = client.query("SELECT pid FROM pg_catalog.pg_stat_activity WHERE pid = ANY ($1)", &[&pids]).await?;
    let alive: Vec<i32> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    settle(database, waiting.into_iter().filter(|pid| !alive.contains(&pid.0)));
    Ok(())
}

/// These backends are gone: what they have written is decided.
fn settle(database: &Database, gone: impl IntoIterator<Item = BackendPid>) {
    for pid in gone {
        for orphan in database.limbo.gone(pid) {
            if orphan.doubts_catalog {
                database.doubt();
            }
            orphan.marks.into_iter().for_each(Marks::settle);
        }
        info!(database = %database.name, pid = pid.0, "a lost backend is gone: its writes are settled");
    }
}
