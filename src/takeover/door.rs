//! Where the processes that come after this one knock.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tracing::debug;

use super::message::{Conversation, Message, Passed, send_sockets};

const BACKLOG: i32 = 64;

/// What another process asks.
#[derive(Debug)]
pub enum Asked {
    /// Which sockets there are.
    Sockets(oneshot::Sender<Vec<Passed>>),
    /// To leave everything to it.
    Leave(Successor),
    /// To carry out a cancel request, if it is for a client of this one. It waits until `done` is dropped.
    Cancel { pid: i32, secret: Bytes, done: oneshot::Sender<()> },
}

/// The process that takes over. It accepts nobody until it is told that this one has left; if this is dropped, it never will.
#[derive(Debug)]
pub struct Successor {
    pub pid: Option<i32>,
    left: oneshot::Sender<()>,
}

impl Successor {
    /// Nobody is accepted here any more, and nothing served from memory.
    pub fn has_left(self) {
        // One that is gone meanwhile needs no answer.
        let _ = self.left.send(());
    }
}

/// This process's socket. Its file goes with it.
#[derive(Debug)]
pub struct Door {
    listener: UnixListener,
    file: File,
}

#[derive(Debug)]
struct File(PathBuf);

impl Door {
    /// Must be called within a runtime.
    pub fn open(dir: &Path) -> io::Result<Self> {
        let name = rand::random::<u64>();
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        // Under its final name it is there only when somebody answers: others remove one on which nobody does.
        let mut file = File(dir.join(format!(".{name:016x}.new")));
        socket.bind(&SockAddr::unix(&file.0)?)?;
        fs::set_permissions(&file.0, fs::Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let path = dir.join(format!("{name:016x}.{}", super::elders::EXTENSION));
        fs::rename(&file.0, &path)?;
        file.0 = path;
        Ok(Self { listener: UnixListener::from_std(socket.into())?, file })
    }

    pub fn path(&self) -> &Path {
        &self.file.0
    }

    /// Passes on what is asked. Those who ask are connected for as long as this is polled, and no longer.
    pub async fn serve<T: Send + 'static>(self, asked: mpsc::Sender<T>, wrap: fn(Asked) -> T) {
        let mut conversations = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                Some(_) = conversations.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let asked = asked.clone();
                    conversations.spawn(async move {
                        if let Err(error) = converse(stream, &asked, wrap).await {
                            debug!(%error, "a conversation with another process has ended");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot hear other processes of the proxy");
                    tokio::time::sleep(super::elders::PAUSE).await;
                }
            }
        }
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            debug!(path = %self.0.display(), %error, "cannot remove the socket of this process");
        }
    }
}

async fn converse<T>(stream: UnixStream, asked: &mpsc::Sender<T>, wrap: fn(Asked) -> T) -> io::Result<()> {
    let pid = stream.peer_cred()?.pid();
    let mut conversation = Conversation::new(stream);
    let ask = async |question| asked.send(wrap(question)).await.map_err(|_| gone());
    while let Some(message) = conversation.receive().await? {
        match message {
            Message::Hello => {
                let (give, receive) = oneshot::channel();
                ask(Asked::Sockets(give)).await?;
                let sockets = receive.await.map_err(|_| gone())?;
                send_sockets(&mut conversation.stream, &sockets).await?;
            }
            Message::Ready => {
                let (left, wait) = oneshot::channel();
                ask(Asked::Leave(Successor { pid, left })).await?;
                wait.await.map_err(|_| gone())?;
                conversation.send(&Message::Left).await?;
            }
            Message::Cancel { pid, secret } => {
                let (done, wait) = oneshot::channel::<()>();
                ask(Asked::Cancel { pid, secret: secret.into(), done }).await?;
                // Nothing is ever sent; the sender's end is the answer, and that of the connection is the asker's.
                let _ = wait.await;
                return Ok(());
            }
            Message::Sockets { .. } | Message::Left => return Err(io::Error::other("an answer that nobody asked for")),
        }
    }
    Ok(())
}

fn gone() -> io::Error {
    io::Error::other("this process ends")
}
