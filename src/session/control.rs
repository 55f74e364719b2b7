//! What reaches a session from outside: cancel requests and the end of the proxy.
//!
//! **Invariant.** A cancel request names a session by pid and secret; it is carried out by that session itself, and only while
//! the upstream works for that session's client. It can therefore never hit somebody else's query.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use super::activity::{Activity, Who};
use super::limits::Exceeded;
use crate::upstream::pool::Holder;

/// Above what Linux gives to processes (`PID_MAX_LIMIT`).
const FIRST_OWN_PID: i32 = 1 << 23;
/// From here on the numbers are those of visitors.
pub(super) const FIRST_VISITOR: i32 = 1 << 30;

const SHUT_DOWN: u8 = 1;
const END_NOW: u8 = 2;
const CANCEL: u8 = 4;
const EXCEEDED: u8 = 8;

/// One session's mailbox, and its face to the outside.
#[derive(Debug)]
pub struct Control {
    pub who: Who,
    pub activity: Activity,
    flags: AtomicU8,
    waker: AtomicWaker,
    /// The limit that was exceeded, and in the bits above it the number of requests that had been answered by then.
    exceeded: AtomicU64,
    /// Dropped when the cancel has been carried out, or there was nothing to cancel.
    cancels: Mutex<Vec<oneshot::Sender<()>>>,
}

impl Control {
    pub fn new(who: Who) -> Self {
        let (activity, flags, waker, exceeded, cancels) = Default::default();
        Self { who, activity, flags, waker, exceeded, cancels }
    }

    /// End as soon as no transaction is open.
    pub fn shut_down(&self) {
        self.raise(SHUT_DOWN);
    }

    /// End at once.
    pub fn end_now(&self) {
        self.raise(END_NOW);
    }

    /// Cancel what runs for the client. Ends when that has been done.
    pub async fn cancel(&self) {
        let (done, wait) = oneshot::channel();
        {
            // Both at once: a flag that is raised after its request was taken would be one more cancel, with nobody who waits for it.
            let mut cancels = lock(&self.cancels);
            cancels.push(done);
            self.raise(CANCEL);
        }
        // Nothing is ever sent; the sender's end is the answer.
        let _ = wait.await;
    }

    /// A limit was exceeded by a session that had had so many requests answered.
    pub(super) fn exceed(&self, exceeded: Exceeded, answered: u64) {
        self.exceeded.store(answered << 8 | exceeded as u64, Ordering::Relaxed);
        self.raise(EXCEEDED);
    }

    /// The limit that was exceeded, if nothing has been answered since. Once.
    pub(super) fn take_exceeded(&self) -> Option<Exceeded> {
        if self.flags.load(Ordering::Acquire) & EXCEEDED == 0 {
            return None;
        }
        self.flags.fetch_and(!EXCEEDED, Ordering::AcqRel);
        let exceeded = self.exceeded.load(Ordering::Relaxed);
        let same = exceeded >> 8 == self.activity.queries() & (u64::MAX >> 8);
        Exceeded::from_number(exceeded as u8).filter(|_| same)
    }

    /// What the session is told next, for one that never waits for an upstream. Whoever has asked for a cancel goes on.
    pub async fn told(&self) -> Told {
        std::future::poll_fn(|cx| {
            self.register(cx.waker());
            if self.is_shutting_down() || self.must_end_now() {
                Poll::Ready(Told::End)
            } else if self.wants_cancel() {
                drop(self.take_cancels());
                Poll::Ready(Told::Cancel)
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Nothing runs: whoever has asked for a cancel goes on, and nothing comes of it.
    pub fn forget_cancels(&self) {
        drop(self.take_cancels());
    }

    /// Have another look at everything.
    pub fn wake(&self) {
        self.waker.wake();
    }

    pub(super) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    pub(super) fn is_shutting_down(&self) -> bool {
        self.flags.load(Ordering::Acquire) & SHUT_DOWN != 0
    }

    pub(super) fn must_end_now(&self) -> bool {
        self.flags.load(Ordering::Acquire) & END_NOW != 0
    }

    pub(super) fn wants_cancel(&self) -> bool {
        self.flags.load(Ordering::Acquire) & CANCEL != 0
    }

    /// Takes the cancel requests; whoever sent them waits until the senders are dropped.
    pub(super) fn take_cancels(&self) -> Vec<oneshot::Sender<()>> {
        let mut cancels = lock(&self.cancels);
        self.flags.fetch_and(!CANCEL, Ordering::AcqRel);
        std::mem::take(&mut *cancels)
    }

    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::AcqRel);
        self.waker.wake();
    }
}

impl Holder for Control {
    fn is_wanted(&self) {
        self.wake();
    }
}

/// What a session is told from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    Cancel,
    End,
}

/// All sessions, by the key that their clients were given.
#[derive(Debug, Default)]
pub struct Sessions {
    keyed: Mutex<HashMap<i32, (Bytes, Arc<Control>)>>,
}

/// A session's place in the registry; it leaves with it.
pub struct Registration {
    sessions: Arc<Sessions>,
    pid: i32,
}

impl Sessions {
    /// Under this pid if no other session has it, else under one that neither a session nor a backend has: a backend that has ended
    /// may have left its pid to another one, and its client still go by it.
    pub fn register(self: &Arc<Self>, pid: Option<i32>, secret: Bytes, control: Arc<Control>) -> (i32, Registration) {
        let mut keyed = lock(&self.keyed);
        let mut pid = pid.unwrap_or(0);
        while pid <= 0 || keyed.contains_key(&pid) {
            pid = rand::random_range(FIRST_OWN_PID..FIRST_VISITOR);
        }
        keyed.insert(pid, (secret, control));
        drop(keyed);
        (pid, Registration { sessions: self.clone(), pid })
    }

    /// The session with this key.
    pub fn find(&self, pid: i32, secret: &[u8]) -> Option<Arc<Control>> {
        let keyed = lock(&self.keyed);
        let (known, control) = keyed.get(&pid)?;
        bool::from(known.ct_eq(secret)).then(|| control.clone())
    }

    /// All of them with the number that stands for each towards people, in the order of these.
    pub fn list(&self) -> Vec<(i32, Arc<Control>)> {
        let mut list: Vec<_> = lock(&self.keyed).iter().map(|(id, (_, control))| (*id, control.clone())).collect();
        list.sort_unstable_by_key(|(id, _)| *id);
        list
    }

    pub fn for_each(&self, act: impl Fn(&Control)) {
        for (_, control) in lock(&self.keyed).values() {
            act(control);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let gone = lock(&self.sessions.keyed).remove(&self.pid);
        if let Some((_, control)) = gone {
            control.forget_cancels();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_finds_its_session_and_no_other() {
        let sessions = Arc::new(Sessions::default());
        let (one, two) = (Arc::new(Control::new(Who::default())), Arc::new(Control::new(Who::default())));
        let (pid, first) = sessions.register(Some(7), Bytes::from_static(b"abcd"), one.clone());
        assert_eq!(pid, 7);
        assert!(sessions.find(7, b"abcd").is_some_and(|found| Arc::ptr_eq(&found, &one)));
        assert!(sessions.find(7, b"abce").is_none());
        assert!(sessions.find(7, b"").is_none());
        assert!(sessions.find(8, b"abcd").is_none());

        let (apart, _second) = sessions.register(Some(7), Bytes::from_static(b"wxyz"), two);
        assert!((FIRST_OWN_PID..FIRST_VISITOR).contains(&apart), "{apart}");
        assert!(sessions.find(7, b"abcd").is_some(), "the newer one leaves the older one's key");
        drop(first);
        assert!(sessions.find(7, b"abcd").is_none() && sessions.find(apart, b"wxyz").is_some());
        let (none, _third) = sessions.register(None, Bytes::new(), one);
        assert!(none >= FIRST_OWN_PID);
    }

    #[tokio::test]
    async fn a_cancel_ends_when_the_session_has_dealt_with_it_or_is_gone() {
        let sessions = Arc::new(Sessions::default());
        let control = Arc::new(Control::new(Who::default()));
        let registration = sessions.register(Some(7), Bytes::from_static(b"abcd"), control.clone()).1;
        let cancel = tokio::spawn({
            let control = control.clone();
            async move { control.cancel().await }
        });
        while !control.wants_cancel() {
            tokio::task::yield_now().await;
        }
        drop(registration);
        cancel.await.expect("the wait ends");
    }
}
