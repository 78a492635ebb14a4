//! Who guesses passwords waits, longer each time: by the name that is tried and by the address that tries. An attempt counts
//! before its answer is known, so that many at once are no way around; one that was right is taken back.

use std::{collections::HashMap, net::IpAddr};

use nexushub_applib::time::Unix;

/// Wrong attempts for one name that cost nothing: people mistype.
const FREE_NAME: u32 = 4;
/// The same from one address, behind which there may be many people.
const FREE_ADDRESS: u32 = 20;
/// The longest wait, in seconds.
const LONGEST: Unix = 900;
/// After so many quiet seconds an entry is forgotten.
const FORGOTTEN: Unix = 3600;
/// Entries; with one more the quietest is forgotten.
const ENTRIES: usize = 10_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    Name(String),
    Address(String),
}

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    attempts: u32,
    until: Unix,
    last: Unix,
}

/// What was tried of late.
#[derive(Debug, Default)]
pub(crate) struct Guesses(HashMap<Key, Entry>);

/// An attempt that was let through.
#[derive(Debug)]
pub(crate) struct Attempt([Key; 2]);

impl Guesses {
    /// An attempt begins, unless it has to wait so many seconds.
    pub(crate) fn begin(&mut self, name: &str, address: &str, now: Unix) -> Result<Attempt, Unix> {
        let keys = [Key::Name(name.trim().to_lowercase()), Key::Address(network(address))];
        let waits = keys.iter().filter_map(|key| self.0.get(key)).map(|entry| entry.until - now);
        if let Some(wait) = waits.max().filter(|wait| *wait > 0) {
            return Err(wait);
        }
        for key in &keys {
            self.count(key.clone(), now);
        }
        Ok(Attempt(keys))
    }

    /// The password was right. The name begins anew; of the address only this attempt is taken back, or whoever has one
    /// account could guess at all others.
    pub(crate) fn right(&mut self, attempt: &Attempt) {
        self.take_back(attempt);
        self.0.remove(&attempt.0[0]);
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
        let free = if matches!(key, Key::Name(_)) { FREE_NAME } else { FREE_ADDRESS };
        let entry = self.0.entry(key).or_default();
        if now - entry.last > FORGOTTEN {
            *entry = Entry::default();
        }
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last = now;
        if entry.attempts > free {
            let doublings = (entry.attempts - free - 1).min(10);
            entry.until = now + (1 << doublings).min(LONGEST);
        }
    }

    fn make_room(&mut self, now: Unix) {
        self.0.retain(|_, entry| now - entry.last <= FORGOTTEN);
        if self.0.len() >= ENTRIES {
            let quietest = self.0.iter().min_by_key(|(_, entry)| entry.last).map(|(key, _)| key.clone());
            quietest.map(|key| self.0.remove(&key));
        }
    }
}

/// An address as it is counted: of IPv6 the network of a household.
fn network(address: &str) -> String {
    match address.parse() {
        Ok(IpAddr::V6(v6)) => format!("{:x?}", &v6.segments()[..4]),
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
        for number in 0..20 {
            match guesses.begin("Zoe ", &format!("192.0.2.{number}"), now) {
                Ok(_) => {}
                Err(wait) => {
                    waits.push(wait);
                    now += wait;
                    guesses.begin("zoe", &format!("198.51.100.{number}"), now).unwrap();
                }
            }
        }
        assert_eq!(waits[..6], [1, 2, 4, 8, 16, 32]);
        assert_eq!(*waits.iter().max().unwrap(), LONGEST);
    }

    #[test]
    fn an_address_that_tries_many_names_waits_and_so_does_its_ipv6_network() {
        let mut guesses = Guesses::default();
        for number in 0..=FREE_ADDRESS {
            guesses.begin(&format!("n{number}"), &format!("2001:db8::{number}"), 0).unwrap();
        }
        assert_eq!(guesses.begin("another", "2001:db8::ffff", 0).unwrap_err(), 1);
        assert!(guesses.begin("another", "2001:db8:0:1::1", 0).is_ok());
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
        assert!(!guesses.0.contains_key(&Key::Name("own".into())));
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
        assert_eq!(guesses.0.len(), 2);
    }
}
