//! The processes that were there before this one.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::message::{Conversation, Message, Passed};

/// Of the files by which processes find each other.
pub(super) const EXTENSION: &str = "process";
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long an elder has to answer.
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Debug, Error)]
pub enum TakeoverError {
    #[error("server.takeover_dir: {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "the process behind {} does not answer within {} seconds: end it, or wait until it has started",
        .0.display(),
        ANSWER.as_secs()
    )]
    Silent(PathBuf),
    #[error("the process behind {} listens elsewhere: it is another proxy, which needs another server.takeover_dir", .0.display())]
    Stranger(PathBuf),
}

/// Those that are still there. Each is one more until it has ended.
#[derive(Debug)]
pub struct Elders(watch::Sender<BTreeSet<PathBuf>>);

impl Default for Elders {
    fn default() -> Self {
        Self(watch::Sender::new(BTreeSet::new()))
    }
}

/// What they have said so far.
#[derive(Debug, Default)]
pub struct Knocked {
    conversations: Vec<(PathBuf, Conversation)>,
    /// What they listen on.
    pub sockets: Vec<Passed>,
}

impl Elders {
    /// Asks everybody in `dir` who is not behind `own`. Nobody is disturbed by that.
    pub async fn knock(&self, dir: &Path, own: &Path) -> Result<Knocked, TakeoverError> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| TakeoverError::Io { path, source }
        };
        let mut knocked = Knocked::default();
        for entry in fs::read_dir(dir).map_err(failed(dir))? {
            let path = entry.map_err(failed(dir))?.path();
            if path == own || path.extension().is_none_or(|extension| extension != EXTENSION) {
                continue;
            }
            let stream = match UnixStream::connect(&path).await {
                Ok(stream) => stream,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    info!(path = %path.display(), "removing the socket of a process that is gone");
                    // Somebody else may do the same.
                    let _ = fs::remove_file(&path);
                    continue;
                }
                Err(error) => return Err(failed(&path)(error)),
            };
            let mut conversation = Conversation::new(stream);
            let sockets = timeout(ANSWER, async {
                conversation.send(&Message::Hello).await?;
                match conversation.receive().await? {
                    Some(Message::Sockets { sockets }) => conversation.take_sockets(sockets).map(Some),
                    Some(_) => Err(unexpected()),
                    None => Ok(None),
                }
            });
            match sockets.await {
                Err(_) => return Err(TakeoverError::Silent(path)),
                Ok(Ok(Some(sockets))) => {
                    knocked.sockets.extend(sockets);
                    knocked.conversations.push((path, conversation));
                }
                // It has just ended.
                Ok(Ok(None)) => {}
                Ok(Err(error)) if is_end(&error) => {}
                Ok(Err(error)) => return Err(failed(&path)(error)),
            }
        }
        self.0.send_replace(knocked.conversations.iter().map(|(path, _)| path.clone()).collect());
        Ok(knocked)
    }

    /// Whether there are any.
    pub fn are_there(&self) -> bool {
        !self.0.borrow().is_empty()
    }

    pub fn count(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends when all of them have ended.
    pub async fn gone(&self) {
        // The sender lives as long as this.
        let _ = self.0.subscribe().wait_for(BTreeSet::is_empty).await;
    }

    /// Has a cancel request carried out that is for none of this process's own clients. Ends when that has been done.
    pub async fn cancel(&self, pid: i32, secret: &Bytes) {
        let paths: Vec<PathBuf> = self.0.borrow().iter().cloned().collect();
        for path in paths {
            let request = async {
                let mut conversation = Conversation::new(UnixStream::connect(&path).await?);
                conversation.send(&Message::Cancel { pid, secret: secret.to_vec() }).await?;
                conversation.receive().await.map(|_| ())
            };
            match timeout(ANSWER, request).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => info!(%error, "a cancel request did not reach an older process"),
                Err(_) => warn!("an older process does not answer to a cancel request"),
            }
        }
    }

    fn has_ended(&self, path: &Path) {
        self.0.send_if_modified(|paths| paths.remove(path));
    }
}

impl Knocked {
    /// Has all of them leave: when it returns none of them accepts anybody, or serves anything from memory. They are `elders` from
    /// then on until they end.
    pub async fn take_over(self, elders: &Arc<Elders>) -> Result<(), TakeoverError> {
        for (path, mut conversation) in self.conversations {
            let left = timeout(ANSWER, async {
                conversation.send(&Message::Ready).await?;
                match conversation.receive().await? {
                    Some(Message::Left) => Ok(true),
                    Some(_) => Err(unexpected()),
                    None => Ok(false),
                }
            });
            match left.await {
                Err(_) => return Err(TakeoverError::Silent(path)),
                Ok(Ok(true)) => {
                    let elders = Arc::clone(elders);
                    tokio::spawn(async move {
                        // Nothing more is said, so whatever comes is the end.
                        let _ = conversation.receive().await;
                        elders.has_ended(&path);
                    });
                }
                Ok(Ok(false)) => elders.has_ended(&path),
                Ok(Err(error)) if is_end(&error) => elders.has_ended(&path),
                Ok(Err(source)) => return Err(TakeoverError::Io { path, source }),
            }
        }
        Ok(())
    }

    /// The first of those that are there.
    pub fn first(&self) -> Option<&Path> {
        self.conversations.first().map(|(path, _)| path.as_path())
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

fn unexpected() -> io::Error {
    io::Error::other("it answers something else than what was asked: its version does not fit")
}
