//! How the system schedules a worker thread.
//!
//! Whoever sends a message wakes the thread that reads it. If that one takes the core at once, the sender, which has little left
//! to do before it sleeps itself, is switched out and in again for nothing, and each message is read alone. Under `SCHED_BATCH` a
//! thread that is woken waits for the core until its turn comes.

use crate::config::Scheduling;

/// Schedules the calling thread. Where the system refuses it stays as it is, which costs speed and nothing else.
#[cfg(target_os = "linux")]
pub(super) fn this_thread(scheduling: Scheduling) {
    if scheduling == Scheduling::Batch
        && let Err(error) = batch()
    {
        tracing::info!(%error, "the system refuses to schedule the worker threads as server.worker_scheduling says");
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn this_thread(_scheduling: Scheduling) {}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "no safe interface to it; with one client half as many transactions again, with eight a tenth more"
)]
fn batch() -> std::io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call reads the parameters, which outlive it, and writes nothing. 0 is the calling thread.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_scheduled_as_the_configuration_says() {
        for (scheduling, policy) in [(Scheduling::Batch, libc::SCHED_BATCH), (Scheduling::Normal, libc::SCHED_OTHER)] {
            let seen = std::thread::spawn(move || {
                this_thread(scheduling);
                std::fs::read_to_string("/proc/thread-self/stat").unwrap()
            });
            let stat = seen.join().unwrap();
            // The name may contain spaces and ends with the last parenthesis; the policy is the 41st field, the name the second.
            let policies = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(41 - 3));
            assert_eq!(policies, Some(policy.to_string().as_str()), "{stat}");
        }
    }
}
