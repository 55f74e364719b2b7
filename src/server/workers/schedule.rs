//! How the system schedules a worker thread.
//!
//! Whoever sends a message wakes the thread that reads it. If that one takes the core at once, the sender, which has little left
//! to do before it sleeps itself, is switched out and in again for nothing, and each message is read alone. Under `SCHED_BATCH` a
//! thread that is woken waits for the core until its turn comes. A thread with many sessions finds several messages each time it
//! wakes as it is, and is late for all of them if it waits (measured: see the history of this file).

use crate::config::Scheduling;

/// Sessions up to which a thread waits for its turn.
#[cfg(target_os = "linux")]
const FEW_SESSIONS: usize = 16;

#[cfg(target_os = "linux")]
thread_local! {
    static WAITS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Schedules the calling thread, which has so many sessions now. Where the system refuses it stays as it is, which costs speed
/// and nothing else.
#[cfg(target_os = "linux")]
pub(super) fn this_thread(scheduling: Scheduling, sessions: usize) {
    let waits = scheduling == Scheduling::Auto && sessions <= FEW_SESSIONS;
    if WAITS.replace(waits) == waits {
        return;
    }
    if let Err(error) = set(if waits { libc::SCHED_BATCH } else { libc::SCHED_OTHER }) {
        tracing::debug!(%error, "the system refuses to schedule a worker thread as server.worker_scheduling says");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn this_thread(_scheduling: Scheduling, _sessions: usize) {}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no safe interface to it; with one client half as many transactions again, with eight a tenth more"
)]
fn set(policy: i32) -> std::io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the parameters, which outlive it, and writes nothing. 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_waits_for_its_turn_while_it_has_few_sessions() {
        let check = |scheduling, sessions, policy: i32| {
            this_thread(scheduling, sessions);
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            // The name may contain spaces and ends with the last parenthesis; the policy is the 41st field, the name the second.
            let seen = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(41 - 3));
            assert_eq!(seen, Some(policy.to_string().as_str()), "{scheduling:?} {sessions} {stat}");
        };
        let run = move || {
            check(Scheduling::Normal, 1, libc::SCHED_OTHER);
            check(Scheduling::Auto, 1, libc::SCHED_BATCH);
            check(Scheduling::Auto, FEW_SESSIONS, libc::SCHED_BATCH);
            check(Scheduling::Auto, FEW_SESSIONS + 1, libc::SCHED_OTHER);
            check(Scheduling::Auto, FEW_SESSIONS, libc::SCHED_BATCH);
        };
        std::thread::spawn(run).join().unwrap();
    }
}
