//! The doors that connections come in by: the platform's own, and one out of each box. A door bounds what comes in by it and
//! says who calls, so that a box can exhaust its own door and nobody else's.

mod seats;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::HeaderValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

pub(crate) use self::seats::Seat;
use self::seats::Seats;
use crate::{
    address::{Census, Client, Entry, Rates},
    clock,
    counters::Counters,
    h2,
};

/// An app that calls, by its instance id, which is fit to stand in a header. Made only of what was verified here: the listener
/// that a connection came by, or a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller(HeaderValue);

impl Caller {
    /// The instance of this id; none if no header could hold it.
    pub(crate) fn of(id: &str) -> Option<Self> {
        HeaderValue::from_str(id).ok().map(Self)
    }

    /// Whether it is this instance.
    pub(crate) fn is(&self, id: &str) -> bool {
        self.0 == *id
    }

    /// The id as a header's value.
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// The id as text.
    pub(crate) fn id(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// What bounds the platform's own door.
#[derive(Debug)]
pub(crate) struct Outer {
    /// Connections by this door.
    pub(crate) connections: usize,
    /// Connections of each client, if they are bounded.
    pub(crate) census: Option<Arc<Census>>,
    /// The pace of each client's requests, if it is bounded.
    pub(crate) rates: Option<Rates>,
    /// The pace of each client's errors in HTTP/2, on all its connections; none where no HTTP/2 is spoken.
    pub(crate) errors: Option<Rates>,
}

impl Outer {
    /// Nothing but so many connections.
    pub(crate) fn of(connections: usize) -> Self {
        Self { connections, census: None, rates: None, errors: None }
    }
}

/// What bounds a door out of a box.
#[derive(Debug, Clone)]
pub(crate) struct Bounds {
    /// Connections by this door.
    pub(crate) connections: usize,
    /// Requests at once by this door.
    pub(crate) requests: usize,
    /// Errors in HTTP/2 by this door, each second.
    pub(crate) errors_per_second: u32,
    /// Places that it shares with the doors of all other boxes.
    pub(crate) shared: Arc<Semaphore>,
}

/// What a door out of a box has and the platform's own has not.
#[derive(Debug)]
struct Inward {
    /// Whose box it is.
    caller: Caller,
    /// The places of all boxes.
    shared: Arc<Semaphore>,
    /// The turns of this one's requests.
    turns: Arc<Semaphore>,
}

/// A door.
#[derive(Debug)]
pub(crate) struct Door {
    inward: Option<Inward>,
    seats: Seats,
    census: Option<Arc<Census>>,
    rates: Option<Rates>,
    errors: Option<Rates>,
    /// The last connection was refused; said once, not for each.
    full: AtomicBool,
    /// No more requests by this door; those under way are finished.
    pub(crate) drain: CancellationToken,
    counters: Arc<Counters>,
}

impl Door {
    /// The platform's own.
    pub(crate) fn outside(bounds: Outer, counters: Arc<Counters>, drain: CancellationToken) -> Arc<Self> {
        Self::new(None, bounds, counters, drain)
    }

    /// The one out of this caller's box.
    pub(crate) fn of_box(
        caller: Caller,
        bounds: &Bounds,
        counters: Arc<Counters>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        let (shared, turns) = (Arc::clone(&bounds.shared), semaphore(bounds.requests));
        let errors = Some(Rates::new(bounds.errors_per_second, h2::ERRORS));
        let outer = Outer { errors, ..Outer::of(bounds.connections) };
        Self::new(Some(Inward { caller, shared, turns }), outer, counters, drain)
    }

    fn new(
        inward: Option<Inward>,
        bounds: Outer,
        counters: Arc<Counters>,
        drain: CancellationToken,
    ) -> Arc<Self> {
        let Outer { connections, census, rates, errors } = bounds;
        let (seats, full) = (Seats::new(connections), AtomicBool::new(false));
        Arc::new(Self { inward, seats, census, rates, errors, full, drain, counters })
    }

    /// Whose box it leads out of.
    pub(crate) fn caller(&self) -> Option<&Caller> {
        self.inward.as_ref().map(|inward| &inward.caller)
    }

    /// A place for one more connection; none when as many are open as may be, and none of them makes way.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Place> {
        self.counters.connections_accepted.up();
        let shared = self.inward.as_ref().map(|inward| Arc::clone(&inward.shared).try_acquire_owned());
        let Ok(shared) = shared.transpose() else {
            self.refuse();
            return None;
        };
        let Some(seat) = self.seat() else {
            self.refuse();
            return None;
        };
        self.counters.connections_open.up();
        if self.inward.is_some() {
            self.counters.inward_connections_open.up();
        }
        Some(Place { door: Arc::clone(self), seat, _shared: shared, _entry: None })
    }

    /// A free seat, or that of whoever is to make way. Out of a box nobody makes way: whose app has so many open has them all.
    fn seat(&self) -> Option<Arc<Seat>> {
        let now_ms = clock::about_ms();
        if let Some(seat) = self.seats.take(now_ms) {
            self.full.store(false, Ordering::Relaxed);
            return Some(seat);
        }
        let seat = if self.inward.is_none() { self.seats.displace(now_ms) } else { None }?;
        self.counters.connections_displaced.up();
        Some(seat)
    }

    /// Whether this client may send one more request now; else after how long.
    pub(crate) fn pace(&self, client: Client) -> Result<(), Duration> {
        let Some(rates) = &self.rates else { return Ok(()) };
        rates.ask(client, clock::since_start()).inspect_err(|_| self.counters.requests_limited.up())
    }

    /// Whether one more error of this client is borne.
    fn bears(&self, client: Client) -> bool {
        self.errors.as_ref().is_none_or(|errors| errors.ask(client, clock::since_start()).is_ok())
    }

    fn refuse(&self) {
        let counter = match self.inward {
            Some(_) => &self.counters.inward_refused,
            None => &self.counters.connections_refused,
        };
        counter.up();
        if !self.full.swap(true, Ordering::Relaxed) {
            let caller = self.caller().map(Caller::id);
            tracing::warn!(caller, "connections are refused: as many are open as may be");
        }
    }

    /// A turn for one more request; none when as many are under way as may be. The outside needs none.
    pub(crate) fn turn(&self) -> Option<Turn> {
        let Some(inward) = &self.inward else { return Some(Turn { _permit: None }) };
        match Arc::clone(&inward.turns).try_acquire_owned() {
            Ok(permit) => Some(Turn { _permit: Some(permit) }),
            Err(_) => {
                self.counters.inward_refused.up();
                None
            }
        }
    }
}

fn semaphore(places: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
}

/// Who makes the errors of a connection: its client, who may make more of them on others.
#[derive(Debug, Clone)]
pub(crate) struct Culprit {
    door: Arc<Door>,
    client: Client,
}

impl Culprit {
    /// Whether one more error is borne.
    pub(crate) fn is_borne(&self) -> bool {
        self.door.bears(self.client)
    }
}

/// A request's turn at its door; given up when its answer has ended.
#[derive(Debug)]
pub(crate) struct Turn {
    _permit: Option<OwnedSemaphorePermit>,
}

/// A connection's place among those that may be open; given up when the last that needs the connection is gone, which for
/// an upgraded one is after its copying ended.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) door: Arc<Door>,
    pub(crate) seat: Arc<Seat>,
    _shared: Option<OwnedSemaphorePermit>,
    /// Its client's among those of the same address.
    _entry: Option<Entry>,
}

impl Place {
    /// This client, as who makes errors.
    pub(crate) fn culprit(&self, client: Client) -> Culprit {
        Culprit { door: Arc::clone(&self.door), client }
    }

    /// The same for this client; nothing if it has as many connections as it may.
    pub(crate) fn of(mut self, client: Client) -> Option<Self> {
        let _ = self.seat.client.set(client); // it is told once
        if let Some(census) = &self.door.census {
            match census.enter(client) {
                Some(entry) => self._entry = Some(entry),
                None => {
                    self.door.counters.connections_refused_address.up();
                    return None;
                }
            }
        }
        Some(self)
    }

    /// One of its own, for tests.
    #[cfg(test)]
    pub(crate) fn single() -> Self {
        let door = Door::outside(Outer::of(1), Arc::default(), CancellationToken::new());
        door.admit().expect("it was just made")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.door.seats.give_back(&self.seat);
        let counters = &self.door.counters;
        counters.connections_open.down();
        if self.door.inward.is_some() {
            counters.inward_connections_open.down();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn bounds(connections: usize, requests: usize, shared: usize) -> Bounds {
        Bounds { connections, requests, errors_per_second: 1, shared: semaphore(shared) }
    }

    fn of_box(id: &str, bounds: &Bounds, counters: &Arc<Counters>) -> Arc<Door> {
        Door::of_box(Caller::of(id).unwrap(), bounds, Arc::clone(counters), CancellationToken::new())
    }

    #[test]
    fn a_box_fills_its_own_door_and_no_other() {
        let counters = Arc::new(Counters::default());
        let outside = Door::outside(Outer::of(1), Arc::clone(&counters), CancellationToken::new());
        let bounds = bounds(2, 1, 3);
        let (greedy, modest) = (of_box("greedy", &bounds, &counters), of_box("modest", &bounds, &counters));
        let held: Vec<_> = (0..5).filter_map(|_| greedy.admit()).collect();
        assert_eq!((held.len(), counters.inward_refused.get()), (2, 3));
        assert!(modest.admit().is_some() && outside.admit().is_some());
        drop(held);
        assert!(greedy.admit().is_some());
        assert_eq!((counters.connections_open.get(), counters.inward_connections_open.get()), (0, 0));
        assert_eq!(counters.connections_refused.get(), 0);
    }

    #[test]
    fn all_boxes_together_have_a_bound_that_the_outside_does_not_feel() {
        let counters = Arc::new(Counters::default());
        let outside = Door::outside(Outer::of(1), Arc::clone(&counters), CancellationToken::new());
        let bounds = bounds(2, 1, 1);
        let one = of_box("one", &bounds, &counters).admit();
        assert!(one.is_some() && of_box("two", &bounds, &counters).admit().is_none());
        assert!(outside.admit().is_some());
    }

    #[test]
    fn a_box_has_so_many_requests_at_once_and_the_outside_any_number() {
        let counters = Arc::new(Counters::default());
        let door = of_box("one", &bounds(1, 1, 1), &counters);
        let turn = door.turn();
        assert!(turn.is_some() && door.turn().is_none());
        drop(turn);
        assert!(door.turn().is_some());
        let outside = Door::outside(Outer::of(1), counters, CancellationToken::new());
        let turns: Vec<_> = (0..9).filter_map(|_| outside.turn()).collect();
        assert_eq!(turns.len(), 9);
    }

    #[test]
    fn what_no_header_could_hold_is_no_caller() {
        assert!(Caller::of("a\nb").is_none());
        let caller = Caller::of("hello").unwrap();
        assert!(caller.is("hello") && !caller.is("Hello") && !caller.is("hell"));
    }
}
