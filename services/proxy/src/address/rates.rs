//! How fast each client's requests come: a steady rate and a burst, by the generic cell rate algorithm. Of a client only one
//! instant is kept, the one from which on its requests would be at their rate; once it is past, nothing.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use super::Client;

/// Clients are spread over so many locks.
const SHARDS: usize = 16;
/// No more clients are kept in one shard: a megabyte and a half in all.
const CLIENTS: usize = 4096;

/// Nanoseconds since any fixed instant.
type Nanos = u64;

/// The pace of every client.
#[derive(Debug)]
pub(crate) struct Rates {
    /// Between two requests at the steady rate.
    period: Nanos,
    /// How far ahead of its rate a client may be.
    ahead: Nanos,
    hasher: RandomState,
    shards: [Mutex<HashMap<Client, Nanos>>; SHARDS],
}

impl Rates {
    /// So many requests a second of each client, and so many at once; both at least 1.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self::every(1_000_000_000 / u64::from(per_second.max(1)), burst)
    }

    /// So many requests a minute of each client, of which any number may come at once.
    pub(crate) fn per_minute(number: u32) -> Self {
        Self::every(60_000_000_000 / u64::from(number.max(1)), number)
    }

    fn every(period: Nanos, burst: u32) -> Self {
        let ahead = period * u64::from(burst.max(1) - 1);
        Self { period, ahead, hasher: RandomState::new(), shards: Default::default() }
    }

    /// One more request of this client: allowed, or after how long it would be. `now`: since any fixed instant.
    pub(crate) fn ask(&self, client: Client, now: Duration) -> Result<(), Duration> {
        let now = Nanos::try_from(now.as_nanos()).unwrap_or(Nanos::MAX / 2);
        let shard = usize::try_from(self.hasher.hash_one(client)).unwrap_or(0) % SHARDS;
        let mut clients = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        let due = clients.get(&client).copied().unwrap_or(0).max(now);
        if due > now + self.ahead {
            return Err(Duration::from_nanos(due - self.ahead - now));
        }
        if clients.len() >= CLIENTS {
            make_room(&mut clients, now);
        }
        clients.insert(client, due + self.period);
        Ok(())
    }
}

/// Forgets whose pace is past; if nobody's is, those who have been the slowest.
fn make_room(clients: &mut HashMap<Client, Nanos>, now: Nanos) {
    clients.retain(|_, due| *due > now);
    if clients.len() >= CLIENTS {
        let mut dues: Vec<Nanos> = clients.values().copied().collect();
        let (_, median, _) = dues.select_nth_unstable(CLIENTS / 2);
        let median = *median;
        clients.retain(|_, due| *due > median);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Client = Client(1, false);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(1_000_000 + millis)
    }

    #[test]
    fn a_burst_passes_at_once_and_then_the_rate_counts() {
        let rates = Rates::new(10, 3);
        let passed = (0..5).filter(|_| rates.ask(ONE, at(0)).is_ok()).count();
        assert_eq!(passed, 3);
        assert_eq!(rates.ask(ONE, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rates.ask(ONE, at(100)), Ok(()));
        assert_eq!(rates.ask(ONE, at(101)), Err(Duration::from_millis(99)));
        assert_eq!(rates.ask(Client(2, false), at(101)), Ok(()));
    }

    #[test]
    fn who_rested_has_its_burst_again_and_no_more() {
        let rates = Rates::new(10, 3);
        for start in [0, 10_000] {
            assert_eq!((0..9).filter(|_| rates.ask(ONE, at(start)).is_ok()).count(), 3);
        }
    }

    #[test]
    fn however_many_clients_come_what_is_kept_is_bounded_and_the_greedy_stay_known() {
        let rates = Rates::new(1, 1_000);
        for _ in 0..1_000 {
            assert_eq!(rates.ask(ONE, at(0)), Ok(()));
        }
        for number in 2..200_000 {
            assert_eq!(rates.ask(Client(number, true), at(1)), Ok(()));
        }
        let kept: usize = rates.shards.iter().map(|shard| shard.lock().map_or(0, |all| all.len())).sum();
        assert!(kept <= SHARDS * CLIENTS, "{kept}");
        assert!(rates.ask(ONE, at(2)).is_err());
    }
}
