//! Where requests wait for their apps: so many seats for each app, and for all of them room for so many bytes of what the requests hold
//! in memory meanwhile. An app may have as much of that as it leaves free, so that there is room for the next one however many wait
//! for those that hang.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::time::Instant;

/// Seats for each app, and the room that there is.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    seats: u32,
    bytes: u64,
    taken: Arc<Mutex<Taken>>,
}

/// By all apps, and by each that has any.
#[derive(Debug, Default)]
struct Taken {
    bytes: u64,
    apps: HashMap<String, Share>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Share {
    seats: u32,
    bytes: u64,
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    app: String,
    bytes: u64,
    taken: Arc<Mutex<Taken>>,
}

/// A request that waits.
pub(super) struct Held {
    pub(super) seat: Seat,
    pub(super) until: Instant,
    /// For the end of a pause.
    pub(super) paused: bool,
}

impl WaitingRoom {
    /// For so many requests to each app, of all together so many bytes.
    pub(crate) fn new(seats: u32, bytes: u64) -> Self {
        Self { seats, bytes, taken: Arc::default() }
    }

    /// A seat for a request of so many bytes to this app, if there is room.
    pub(super) fn take(&self, app: &str, bytes: u64) -> Option<Seat> {
        let mut taken = locked(&self.taken);
        let all = taken.bytes.checked_add(bytes)?;
        let free = self.bytes.checked_sub(all)?;
        let before = taken.apps.get(app).copied().unwrap_or_default();
        let own = Share { seats: before.seats + 1, bytes: before.bytes + bytes };
        if own.seats > self.seats || own.bytes > free {
            return None;
        }
        taken.bytes = all;
        taken.apps.insert(app.to_owned(), own);
        Some(Seat { app: app.to_owned(), bytes, taken: Arc::clone(&self.taken) })
    }

    /// How many more requests to this app may wait, if they are small.
    #[cfg(test)]
    pub(crate) fn left(&self, app: &str) -> u64 {
        u64::from(self.seats - locked(&self.taken).apps.get(app).map_or(0, |share| share.seats))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        taken.bytes -= self.bytes;
        let Some(share) = taken.apps.get_mut(&self.app) else { return };
        (share.seats, share.bytes) = (share.seats - 1, share.bytes - self.bytes);
        if share.seats == 0 {
            taken.apps.remove(&self.app);
        }
    }
}

fn locked(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn so_many_requests_to_each_app_wait_and_who_goes_gives_its_seat_back() {
        let room = WaitingRoom::new(2, 100);
        let first = room.take("a", 10).unwrap();
        let second = room.take("a", 10).unwrap();
        assert!(room.take("a", 0).is_none());
        let other = room.take("b", 0).unwrap();
        drop((first, other));
        assert!(room.take("a", 0).is_some());
        drop(second);
        assert!(locked(&room.taken).apps.is_empty() && locked(&room.taken).bytes == 0);
    }

    #[test]
    fn an_app_has_as_much_room_as_it_leaves_free() {
        let room = WaitingRoom::new(9, 100);
        let first = room.take("a", 30).unwrap();
        assert!(room.take("a", 21).is_none());
        let second = room.take("a", 20).unwrap();
        assert!(room.take("a", 1).is_none());
        assert!(room.take("b", 26).is_none());
        let third = room.take("b", 25).unwrap();
        assert!(room.take("c", 12).is_some(), "there is always some");
        drop((second, third));
        assert!(room.take("b", 35).is_some());
        assert!(room.take("b", u64::MAX).is_none());
        drop(first);
        assert!(room.take("a", 51).is_none() && room.take("a", 50).is_some());
    }
}
