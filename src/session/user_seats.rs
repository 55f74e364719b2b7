//! How many clients of one user may be connected at once.
//!
//! **Invariant.** A user's count is that of his [`UserSeat`]s. Only somebody who has proved to be him takes one, so that nobody can keep
//! him out by using his name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::wire::error::{ErrorResponse, sqlstate};

#[derive(Debug, Default)]
pub struct UserSeats {
    /// Users without clients are not in it.
    taken: Mutex<HashMap<Bytes, usize>>,
    /// 0 for no limit.
    limit: AtomicUsize,
}

/// A client's place among those of his user; it is free again when this is dropped.
#[derive(Debug)]
pub struct UserSeat {
    seats: Arc<UserSeats>,
    user: Bytes,
}

impl UserSeats {
    pub fn new(limit: usize) -> Self {
        Self { taken: Mutex::default(), limit: AtomicUsize::new(limit) }
    }

    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// The error is for the client, and in PostgreSQL's words for a role that has too many connections.
    pub fn take(self: &Arc<Self>, user: &[u8]) -> Result<UserSeat, ErrorResponse> {
        let mut taken = self.taken();
        let limit = self.limit.load(Ordering::Relaxed);
        if limit > 0 && taken.get(user).is_some_and(|count| *count >= limit) {
            let message = format!("too many connections for role \"{}\"", String::from_utf8_lossy(user));
            let error = ErrorResponse::fatal(sqlstate::TOO_MANY_CONNECTIONS, message);
            return Err(error.hint("The proxy's server.max_clients_per_user is reached."));
        }
        let user = Bytes::copy_from_slice(user);
        *taken.entry(user.clone()).or_default() += 1;
        Ok(UserSeat { seats: self.clone(), user })
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Bytes, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for UserSeat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken();
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_as_many_as_are_allowed_and_nothing_is_left_of_those_who_have_gone() {
        let seats = Arc::new(UserSeats::new(2));
        let first = seats.take(b"alice").unwrap();
        let _second = seats.take(b"alice").unwrap();
        let error = seats.take(b"alice").unwrap_err();
        assert_eq!((error.code, &*error.message), ("53300", "too many connections for role \"alice\""));
        let other = seats.take(b"bob").unwrap();
        drop(first);
        let _third = seats.take(b"alice").unwrap();
        seats.set_limit(0);
        let more: Vec<_> = (0..5).map(|_| seats.take(b"alice").unwrap()).collect();
        seats.set_limit(1);
        assert!(seats.take(b"alice").is_err(), "who is in stays in and counts");
        drop((other, more));
        assert_eq!(seats.taken().len(), 1);
    }
}
