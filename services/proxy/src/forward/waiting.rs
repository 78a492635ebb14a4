//! Where requests wait for an app: a seat for so many of them, and room for so many bytes of what they hold in memory meanwhile.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

/// Seats, and the room that there is.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    seats: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    _one: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
}

/// A request that waits.
pub(super) struct Held {
    pub(super) seat: Seat,
    pub(super) until: Instant,
    /// For the end of a pause.
    pub(super) paused: bool,
}

impl WaitingRoom {
    /// For so many requests of together so many bytes.
    pub(crate) fn new(seats: u32, bytes: u64) -> Self {
        let semaphore = |permits: u64| {
            let most = Semaphore::MAX_PERMITS;
            Arc::new(Semaphore::new(usize::try_from(permits).unwrap_or(most).min(most)))
        };
        Self { seats: semaphore(seats.into()), bytes: semaphore(bytes) }
    }

    /// One for a request of so many bytes, if there is room.
    pub(super) fn take(&self, bytes: u64) -> Option<Seat> {
        let one = Arc::clone(&self.seats).try_acquire_owned().ok()?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = Arc::clone(&self.bytes).try_acquire_many_owned(bytes).ok()?;
        Some(Seat { _one: one, _bytes: bytes })
    }

    /// How many more requests may wait, if they are small.
    #[cfg(test)]
    pub(crate) fn left(&self) -> u64 {
        self.seats.available_permits() as u64
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn there_is_room_for_so_many_requests_of_so_many_bytes_and_what_goes_gives_it_back() {
        let room = WaitingRoom::new(2, 100);
        let first = room.take(60).unwrap();
        assert!(room.take(41).is_none(), "too many bytes");
        assert_eq!(room.left(), 1, "who found no room for its bytes takes no seat either");
        let second = room.take(40).unwrap();
        assert!(room.take(0).is_none(), "too many requests");
        drop((first, second));
        assert!(room.take(100).is_some());
        assert!(room.take(u64::MAX).is_none());
    }
}
