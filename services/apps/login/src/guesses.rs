//! Who guesses passwords waits, longer each time: by the name that is tried from an address, and by the address for whatever name. For
//! one name from wherever they come attempts wait, too, but only once they are many, and never long: else anybody could keep
//! somebody out. An attempt counts before its answer is known, so that many at once are no way around; one that was right is taken back.
//! A restart forgets nobody: what the audit trail tells of the last hour is counted anew.

use std::{collections::HashMap, net::IpAddr};

use nexushub_applib::time::Unix;

/// Wrong attempts for one name from one address that cost nothing: people mistype.
const FREE_PAIR: u32 = 4;
/// The same from one address, behind which there may be many people.
const FREE_ADDRESS: u32 = 20;
/// The same for one name from anywhere.
const FREE_NAME: u32 = 50;
/// The first wait, in seconds; of the clock's whole seconds one could be over at once.
const FIRST: Unix = 2;
/// The longest wait, in seconds.
const LONGEST: Unix = 900;
/// The longest because of what others tried.
const LONGEST_NAME: Unix = 15;
/// After so many quiet seconds an entry is forgotten.
pub(crate) const FORGOTTEN: Unix = 3600;
/// Entries; with one more the quietest is forgotten.
const ENTRIES: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Pair(String, String),
    Address(String),
    Name(String),
    /// Of those who come back from an identity provider.
    Return(String),
}

impl Key {
    /// Attempts that cost nothing, and the longest wait.
    fn terms(&self) -> (u32, Unix) {
        match self {
            Self::Pair(..) => (FREE_PAIR, LONGEST),
            Self::Address(_) | Self::Return(_) => (FREE_ADDRESS, LONGEST),
            Self::Name(_) => (FREE_NAME, LONGEST_NAME),
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    attempts: u32,
    until: Unix,
    last: Unix,
    /// The wait that was written down last.
    told: Unix,
}

/// What was tried of late.
#[derive(Debug, Default)]
pub(crate) struct Guesses(HashMap<Key, Entry>);

/// An attempt that was let through.
#[derive(Debug)]
pub(crate) struct Attempt(Vec<Key>);

impl Guesses {
    /// An attempt begins, unless it has to wait so many seconds.
    pub(crate) fn begin(&mut self, name: &str, address: &str, now: Unix) -> Result<Attempt, Unix> {
        self.attempt(keys(name, address), now)
    }

    /// Whether it is news that attempts for this name from there have to wait: once for each wait, however much is tried meanwhile.
    pub(crate) fn is_news(&mut self, name: &str, address: &str, now: Unix) -> bool {
        let waits = keys(name, address).into_iter().filter_map(|key| Some((self.0.get(&key)?.until, key)));
        let longest = waits.max_by_key(|(until, _)| *until).filter(|(until, _)| *until > now);
        let entry = longest.and_then(|(_, key)| self.0.get_mut(&key));
        entry.is_some_and(|entry| std::mem::replace(&mut entry.told, entry.until) != entry.until)
    }

    /// An attempt of before a restart, which was right or wrong.
    pub(crate) fn recall(&mut self, name: &str, address: &str, right: bool, at: Unix) {
        let attempt = Attempt(keys(name, address));
        for key in &attempt.0 {
            self.count(key.clone(), at);
        }
        if right {
            self.right(&attempt);
        }
    }

    /// Somebody comes back from an identity provider, to whom nothing is to be guessed, but who could fill the audit trail. Counted
    /// apart from passwords, so that a provider in trouble keeps nobody from those.
    pub(crate) fn begin_return(&mut self, address: &str, now: Unix) -> Result<Attempt, Unix> {
        self.attempt(vec![Key::Return(network(address))], now)
    }

    fn attempt(&mut self, keys: Vec<Key>, now: Unix) -> Result<Attempt, Unix> {
        let waits = keys.iter().filter_map(|key| self.0.get(key)).map(|entry| entry.until - now);
        if let Some(wait) = waits.max().filter(|wait| *wait > 0) {
            return Err(wait);
        }
        for key in &keys {
            self.count(key.clone(), now);
        }
        Ok(Attempt(keys))
    }

    /// The password was right. The name begins anew there; of the address only this attempt is taken back, or whoever has one
    /// account could guess at all others.
    pub(crate) fn right(&mut self, attempt: &Attempt) {
        self.take_back(attempt);
        for pair in attempt.0.iter().filter(|key| matches!(key, Key::Pair(..))) {
            self.0.remove(pair);
        }
    }

    /// Nobody could tell whether it was right.
    pub(crate) fn take_back(&mut self, attempt: &Attempt) {
        for key in &attempt.0 {
            if let Some(entry) = self.0.get_mut(key) {
                entry.attempts = entry.attempts.saturating_sub(1);
                entry.until = 0;
            }
        }
    }

    fn count(&mut self, key: Key, now: Unix) {
        if self.0.len() >= ENTRIES && !self.0.contains_key(&key) {
            self.make_room(now);
        }
        let (free, longest) = key.terms();
        let entry = self.0.entry(key).or_default();
        if now - entry.last > FORGOTTEN {
            *entry = Entry::default();
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last = now;
        if entry.attempts > free {
            let doublings = (entry.attempts - free - 1).min(10);
            entry.until = now + (FIRST << doublings).min(longest);
        }
    }

    fn make_room(&mut self, now: Unix) {
        self.0.retain(|_, entry| now - entry.last <= FORGOTTEN);
        if self.0.len() >= ENTRIES {
            // Who waits is forgotten last, or making many others would be a way out.
            let order = |(_, entry): &(&Key, &Entry)| (entry.until > now, entry.last);
            let quietest = self.0.iter().min_by_key(order).map(|(key, _)| key.clone());
            quietest.map(|key| self.0.remove(&key));
        }
    }
}

/// What an attempt by password counts for.
fn keys(name: &str, address: &str) -> Vec<Key> {
    let (name, network) = (name.trim().to_lowercase(), network(address));
    vec![Key::Pair(name.clone(), network.clone()), Key::Address(network), Key::Name(name)]
}

/// An address as it is counted: of IPv6 the network of a household.
pub(crate) fn network(address: &str) -> String {
    first(address, 4)
}

/// The same for what somebody may do who has as many such networks as a provider gives to one customer.
pub(crate) fn site(address: &str) -> String {
    first(address, 3)
}

fn first(address: &str, segments: usize) -> String {
    match address.parse() {
        Ok(IpAddr::V6(v6)) => format!("{:x?}", &v6.segments()[..segments]),
        _ => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn guessing_at_a_name_waits_twice_as_long_each_time_up_to_a_quarter_of_an_hour() {
        let (mut guesses, mut now, mut waits) = (Guesses::default(), 1000, Vec::new());
        for _ in 0..20 {
            if let Err(wait) = guesses.begin("Zoe ", "192.0.2.1", now) {
                waits.push(wait);
                now += wait;
                guesses.begin("zoe", "192.0.2.1", now).unwrap();
            }
        }
        assert_eq!(waits[..6], [2, 4, 8, 16, 32, 64]);
        assert_eq!(*waits.iter().max().unwrap(), LONGEST);
    }

    #[test]
    fn that_somebody_has_to_wait_is_news_once_each_time() {
        let (mut guesses, mut now, mut news) = (Guesses::default(), 1000, Vec::new());
        assert!(!guesses.is_news("zoe", "192.0.2.1", now));
        for _ in 0..30 {
            match guesses.begin("zoe", "192.0.2.1", now) {
                Ok(_) => {}
                Err(_) if guesses.is_news("zoe", "192.0.2.1", now) => news.push(now),
                Err(_) => now += 1,
            }
        }
        assert_eq!(news, [1000, 1002, 1006, 1014], "waits of 2, 4 and 8 seconds, and one that goes on");
        assert!(!guesses.is_news("bob", "192.0.2.1", now));
    }

    #[test]
    fn who_is_guessed_at_from_everywhere_waits_a_moment_and_is_not_kept_out() {
        let mut guesses = Guesses::default();
        for number in 0..FREE_NAME {
            guesses.begin("zoe", &format!("192.0.2.{number}"), 0).unwrap();
        }
        assert!(guesses.begin("zoe", "198.51.100.1", 0).is_ok());
        let (mut longest, mut now) = (0, 0);
        for number in 0..100 {
            if let Err(wait) = guesses.begin("zoe", &format!("203.0.113.{number}"), now) {
                (longest, now) = (longest.max(wait), now + wait);
                guesses.begin("zoe", &format!("203.0.113.{number}"), now).unwrap();
            }
        }
        assert!((1..=LONGEST_NAME).contains(&longest), "{longest}");
    }

    #[test]
    fn who_waits_is_not_forgotten_for_those_who_do_not() {
        let mut guesses = Guesses::default();
        while guesses.begin("zoe", "192.0.2.1", 0).is_ok() {}
        for number in 0..ENTRIES {
            guesses.begin(&format!("n{number}"), &format!("a{number}"), 0).unwrap();
        }
        assert!(guesses.begin("zoe", "192.0.2.1", 0).is_err());
    }

    #[test]
    fn an_address_that_tries_many_names_waits_and_so_does_its_ipv6_network() {
        let mut guesses = Guesses::default();
        for number in 0..=FREE_ADDRESS {
            guesses.begin(&format!("n{number}"), &format!("2001:db8::{number}"), 0).unwrap();
        }
        assert_eq!(guesses.begin("another", "2001:db8::ffff", 0).unwrap_err(), FIRST);
        assert!(guesses.begin("another", "2001:db8:0:1::1", 0).is_ok());
    }

    #[test]
    fn who_comes_back_again_and_again_for_nothing_waits_but_not_with_a_password() {
        let mut guesses = Guesses::default();
        for _ in 0..=FREE_ADDRESS {
            guesses.begin_return("192.0.2.1", 0).unwrap();
        }
        assert_eq!(guesses.begin_return("192.0.2.1", 0).unwrap_err(), FIRST);
        assert!(guesses.begin("zoe", "192.0.2.1", 0).is_ok() && guesses.begin_return("192.0.2.2", 0).is_ok());
        for _ in 0..FREE_ADDRESS * 2 {
            let attempt = guesses.begin_return("192.0.2.3", 0).unwrap();
            guesses.right(&attempt);
        }
    }

    #[test]
    fn many_attempts_at_once_are_no_way_around() {
        let mut guesses = Guesses::default();
        let let_through = (0..100).filter(|_| guesses.begin("zoe", "192.0.2.1", 0).is_ok()).count();
        assert_eq!(let_through, 5);
    }

    #[test]
    fn who_is_right_begins_anew_but_the_address_does_not() {
        let mut guesses = Guesses::default();
        for _ in 0..FREE_ADDRESS / 2 {
            guesses.begin(&format!("{:p}", &guesses), "192.0.2.1", 0).ok();
            let attempt = guesses.begin("own", "192.0.2.1", 0).unwrap();
            guesses.right(&attempt);
        }
        let address = &guesses.0[&Key::Address("192.0.2.1".into())];
        assert!(address.attempts >= 5, "{address:?}");
        assert!(!guesses.0.contains_key(&Key::Pair("own".into(), "192.0.2.1".into())));
    }

    #[test]
    fn the_table_is_bounded_and_what_is_old_is_forgotten() {
        let mut guesses = Guesses::default();
        for number in 0..ENTRIES {
            guesses
                .begin(&number.to_string(), &format!("a{number}"), i64::try_from(number).unwrap() / 100)
                .ok();
        }
        assert!(guesses.0.len() <= ENTRIES);
        guesses.begin("x", "y", 10_000).unwrap();
        assert_eq!(guesses.0.len(), 3);
    }
}
