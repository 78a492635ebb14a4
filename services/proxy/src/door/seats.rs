//! The connections that a door has open, and which of them makes way when there are as many as may be: of the client that has most of
//! them the one that has been idle longest, so who comes again and again takes its own places first. A connection owns its seat's
//! state but for one step, by which whoever looks for a place takes it over while it is idle: so a request that has begun is never
//! cut off, and one that comes after that step is never begun.
//!
//! ```text
//! idle since a time <--its last answer ended-- busy
//!      |            --a request's head is there-->
//!      +--another connection takes its place--> displaced
//! ```

use std::{
    cmp::Reverse,
    collections::HashMap,
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

use crate::address::Client;

/// A request is under way, or what an upgrade made of one.
const BUSY: u64 = 0;
/// Its place is another's.
const DISPLACED: u64 = u64::MAX;
/// So many at most that are to make way are found by one look at all.
const FOUND: usize = 256;
/// A look takes its time from everybody who comes or goes: of fewer seats there is one each time, of more one in as many milliseconds
/// as there are times so many. Who comes meanwhile, and finds that all who were found are gone, is refused.
const LOOKED: usize = 512;
/// It has no place among those that are open.
const NOWHERE: usize = usize::MAX;

/// One connection's.
#[derive(Debug)]
pub(crate) struct Seat {
    /// Since when it is idle, in milliseconds of `clock`; or `BUSY`, or `DISPLACED`.
    state: AtomicU64,
    /// Where it is among those that are open; changed under their lock.
    at: AtomicUsize,
    waker: AtomicWaker,
    /// It was displaced and says so to its client, within a time of its own.
    parts: AtomicBool,
    /// Whose it is, once that is known; nobody's if it comes by one who passes others' on.
    pub(super) client: OnceLock<Client>,
}

impl Seat {
    /// Whether its connection may go on with a request that has come: if so, nobody takes its place until it rests.
    pub(crate) fn occupy(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        let goes_on =
            || self.state.compare_exchange(state, BUSY, Ordering::AcqRel, Ordering::Acquire).is_ok();
        state == BUSY || state != DISPLACED && goes_on()
    }

    /// Nothing is under way any more, since that time.
    pub(crate) fn rest(&self, since_ms: u64) {
        if self.state.load(Ordering::Relaxed) == BUSY {
            self.state.store(since_ms, Ordering::Release);
        }
    }

    /// It is idle no longer than since that time: a part of a request has come.
    pub(crate) fn stir(&self, since_ms: u64) {
        let state = self.state.load(Ordering::Relaxed);
        if state != BUSY && state != DISPLACED {
            // If that fails it was displaced just now.
            let _ = self.state.compare_exchange(state, since_ms, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Whether its place is another's.
    pub(crate) fn is_displaced(&self) -> bool {
        self.state.load(Ordering::Acquire) == DISPLACED
    }

    /// Its connection, which was displaced, takes its leave.
    pub(crate) fn part(&self) {
        self.parts.store(true, Ordering::Relaxed);
    }

    /// Drives a task's whole future to its end; drops it when its place is another's, once it had its last turn and doesn't take its
    /// leave. It lies in a box, else the task had room for it at each step on its way here.
    pub(crate) async fn hold(self: Arc<Self>, mut connection: Pin<Box<impl Future<Output = ()>>>) {
        let mut watched = false;
        poll_fn(|cx: &mut Context<'_>| {
            if !std::mem::replace(&mut watched, true) {
                self.waker.register(cx.waker()); // a task has one for all its life
            }
            match connection.as_mut().poll(cx) {
                Poll::Pending if self.is_displaced() && !self.parts.load(Ordering::Relaxed) => {
                    Poll::Ready(())
                }
                polled => polled,
            }
        })
        .await;
    }

    /// Takes its place, if it has been idle since just that time.
    fn displace(&self, since_ms: u64) -> bool {
        let taken = self.state.compare_exchange(since_ms, DISPLACED, Ordering::AcqRel, Ordering::Relaxed);
        if taken.is_ok() {
            self.waker.wake();
        }
        taken.is_ok()
    }
}

/// All seats of a door.
#[derive(Debug)]
pub(super) struct Seats {
    most: usize,
    /// Locked when a connection comes or goes.
    hall: Mutex<Hall>,
}

#[derive(Debug, Default)]
struct Hall {
    open: Vec<Arc<Seat>>,
    /// Those that were to make way when all were looked at, the first last; some may no longer be idle.
    found: Vec<(u64, Arc<Seat>)>,
    /// When all are looked at again.
    look_ms: u64,
}

impl Seats {
    /// So many at most.
    pub(super) fn new(most: usize) -> Self {
        Self { most, hall: Mutex::default() }
    }

    /// One for a connection that has just come, if one is free.
    pub(super) fn take(&self, now_ms: u64) -> Option<Arc<Seat>> {
        let mut hall = self.lock();
        (hall.open.len() < self.most).then(|| hall.add(now_ms))
    }

    /// The same in the place of the connection that is to make way; none if all are busy.
    pub(super) fn displace(&self, now_ms: u64) -> Option<Arc<Seat>> {
        let mut hall = self.lock();
        let idle = hall.who_makes_way(now_ms)?;
        hall.remove(&idle);
        Some(hall.add(now_ms))
    }

    /// Its connection is closed.
    pub(super) fn give_back(&self, seat: &Seat) {
        seat.state.store(BUSY, Ordering::Release); // whoever has found it doesn't displace it any more
        self.lock().remove(seat);
    }

    fn lock(&self) -> MutexGuard<'_, Hall> {
        self.hall.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hall {
    fn add(&mut self, now_ms: u64) -> Arc<Seat> {
        let (state, at) = (AtomicU64::new(now_ms), AtomicUsize::new(self.open.len()));
        let (waker, parts, client) = (AtomicWaker::new(), AtomicBool::new(false), OnceLock::new());
        let seat = Arc::new(Seat { state, at, waker, parts, client });
        self.open.push(Arc::clone(&seat));
        seat
    }

    /// Removes it, if it has a place.
    fn remove(&mut self, seat: &Seat) {
        let at = seat.at.swap(NOWHERE, Ordering::Relaxed);
        if at == NOWHERE {
            return;
        }
        self.open.swap_remove(at);
        if let Some(moved) = self.open.get(at) {
            moved.at.store(at, Ordering::Relaxed);
        }
    }

    /// The one that is to make way, displaced.
    fn who_makes_way(&mut self, now_ms: u64) -> Option<Arc<Seat>> {
        if now_ms >= self.look_ms {
            self.look();
            let pause_ms = (self.open.len() / LOOKED) as u64;
            self.look_ms = now_ms + pause_ms.max(u64::from(self.found.is_empty()));
        }
        while let Some((since_ms, seat)) = self.found.pop() {
            if seat.displace(since_ms) {
                return Some(seat);
            }
        }
        None
    }

    /// Looks for those that are to make way: idle ones of whoever has most. Who is not known yet, or nobody's, goes last.
    fn look(&mut self) {
        // Once for each: it may become known meanwhile.
        let whose: Vec<Option<Client>> = self.open.iter().map(|seat| seat.client.get().copied()).collect();
        let mut has = HashMap::<Client, usize>::new();
        for client in whose.iter().flatten() {
            *has.entry(*client).or_default() += 1;
        }
        let turn = |(seat, client): (&Arc<Seat>, &Option<Client>)| {
            let since_ms = seat.state.load(Ordering::Acquire);
            (Reverse(client.map_or(0, |client| has[&client])), since_ms, Arc::clone(seat))
        };
        let idle = self.open.iter().zip(&whose).map(turn).filter(|(_, since_ms, _)| *since_ms != BUSY);
        let mut idle: Vec<_> = idle.collect();
        let first = |(most, since_ms, _): &(Reverse<usize>, u64, Arc<Seat>)| (*most, *since_ms);
        if idle.len() > FOUND {
            idle.select_nth_unstable_by_key(FOUND, first);
            idle.truncate(FOUND);
        }
        idle.sort_by_key(|seat| Reverse(first(seat)));
        // When those are gone who have as many as the first, somebody else may have more.
        let most = idle.last().map(|(most, ..)| *most);
        idle.retain(|(has, ..)| Some(*has) == most);
        self.found = idle.into_iter().map(|(_, since_ms, seat)| (since_ms, seat)).collect();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn who_has_been_idle_longest_makes_way_and_who_is_busy_never() {
        let seats = Seats::new(3);
        let [first, second, third] = [1, 2, 3].map(|now| seats.take(now).unwrap());
        assert!(seats.take(4).is_none(), "as many as may be");
        assert!(first.occupy() && third.occupy());
        third.rest(5);
        let _fourth = seats.displace(6).unwrap();
        assert!(second.is_displaced() && !second.occupy(), "no request is begun there");
        second.rest(7);
        second.stir(7);
        assert!(second.is_displaced());
        let fifth = seats.displace(7).unwrap();
        assert!(third.is_displaced(), "the fourth came later than it had its rest");
        fifth.occupy();
        assert!(seats.displace(8).is_some(), "the fourth");
        assert!(!first.is_displaced() && !fifth.is_displaced());
    }

    #[test]
    fn of_the_client_that_has_most_one_makes_way_first() {
        let seats = Seats::new(6);
        let _nobodys = seats.take(0).unwrap();
        let all = [1, 2, 3, 4, 5].map(|now| seats.take(now).unwrap());
        let whose = [[10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 2]];
        for (seat, address) in all.iter().zip(whose) {
            seat.client.set(Client::at(address.into())).unwrap();
        }
        all[1].occupy();
        seats.displace(6).unwrap();
        assert!(all[3].is_displaced(), "the first has been idle longer, and is one of two only");
        seats.displace(6).unwrap();
        assert!(all[0].is_displaced() && !all[4].is_displaced(), "now both have as many");
    }

    #[test]
    fn where_all_are_busy_none_makes_way_until_one_rests() {
        let seats = Seats::new(1);
        let seat = seats.take(1).unwrap();
        seat.occupy();
        assert!(seats.displace(2).is_none());
        seat.rest(3);
        assert!(seats.displace(2).is_none(), "it was looked for just now");
        assert!(seats.displace(3).is_some());
    }

    #[test]
    fn a_part_of_a_request_makes_a_connection_young_again() {
        let seats = Seats::new(2);
        let [first, second] = [1, 2].map(|now| seats.take(now).unwrap());
        first.stir(3);
        assert!(seats.displace(4).is_some() && second.is_displaced() && !first.is_displaced());
    }

    #[test]
    fn who_is_found_and_then_is_busy_or_gone_or_was_idle_again_is_passed_by() {
        let seats = Seats::new(4);
        let [busy, gone, again, idle] = [1, 2, 3, 4].map(|now| seats.take(now).unwrap());
        let look = |hall: &mut Hall| {
            hall.look();
            hall.look_ms = u64::MAX;
            hall.found.len()
        };
        assert_eq!(look(&mut seats.lock()), 4, "all of them are found");
        assert!(busy.occupy() && again.occupy());
        seats.give_back(&gone);
        again.rest(5);
        assert!(seats.displace(6).is_some() && idle.is_displaced());
        assert!(!busy.is_displaced() && !gone.is_displaced() && !again.is_displaced());
    }

    #[test]
    fn places_that_were_given_back_are_free_and_those_that_were_taken_over_are_not() {
        let seats = Seats::new(2);
        let [first, second] = [1, 2].map(|now| seats.take(now).unwrap());
        let third = seats.displace(3).unwrap();
        seats.give_back(&first);
        assert!(first.at.load(Ordering::Relaxed) == NOWHERE && seats.take(4).is_none());
        for seat in [&second, &third] {
            seats.give_back(seat);
        }
        assert!(seats.lock().open.is_empty());
    }

    #[test]
    fn of_many_those_idle_longest_are_found() {
        let number = 10 * FOUND as u64;
        let seats = Seats::new(usize::MAX);
        let all: Vec<_> = (1..=number).rev().map(|since| seats.take(since).unwrap()).collect();
        for _ in 0..FOUND {
            seats.displace(number).unwrap();
        }
        assert!(seats.displace(number).is_none(), "all of so many aren't looked at all the time");
        let later = number + number / LOOKED as u64;
        for _ in 0..FOUND {
            seats.displace(later).unwrap();
        }
        let displaced = all.iter().rev().take_while(|seat| seat.is_displaced()).count();
        assert_eq!(
            (displaced, all.iter().filter(|seat| seat.is_displaced()).count()),
            (2 * FOUND, 2 * FOUND)
        );
    }

    #[test]
    fn who_becomes_known_while_all_are_looked_at_does_no_harm() {
        let seats = Seats::new(600);
        let open: Vec<_> = (1..=600).map(|since| seats.take(since).unwrap()).collect();
        std::thread::scope(|scope| {
            let known = scope.spawn(|| {
                for (number, seat) in open.iter().enumerate() {
                    seat.client.set(Client::at(Ipv4Addr::from_bits(number as u32).into())).unwrap();
                    std::thread::yield_now();
                }
            });
            while !known.is_finished() {
                seats.lock().look();
            }
        });
        seats.lock().look();
        assert_eq!(seats.lock().found.len(), FOUND);
    }

    #[tokio::test]
    async fn a_connection_whose_place_is_taken_ends_at_once_and_has_its_last_turn() {
        let seats = Seats::new(1);
        let seat = seats.take(1).unwrap();
        let mut turns = 0;
        let holding = seat.hold(Box::pin(poll_fn(|_| {
            turns += 1;
            Poll::<()>::Pending
        })));
        let displacing = async { drop(seats.displace(2)) };
        tokio::join!(holding, displacing);
        assert_eq!(turns, 2);
    }
}
