//! What many share: so many seats for each, and for all of them room for so many bytes. Each may have as much of that as it leaves
//! free, so that there is room for the next one however many have their share already.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Seats for each, and the room that there is.
#[derive(Debug)]
pub(crate) struct Shares<K: Eq + Hash> {
    seats: u32,
    bytes: u64,
    taken: Arc<Mutex<Taken<K>>>,
}

/// By all, and by each that has any.
#[derive(Debug)]
struct Taken<K> {
    bytes: u64,
    each: HashMap<K, Part>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Part {
    seats: u32,
    bytes: u64,
}

/// A seat, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat<K: Eq + Hash> {
    of: K,
    bytes: u64,
    taken: Arc<Mutex<Taken<K>>>,
}

impl<K: Eq + Hash> Shares<K> {
    /// So many seats for each, and for all together so many bytes.
    pub(crate) fn new(seats: u32, bytes: u64) -> Self {
        Self { seats, bytes, taken: Arc::new(Mutex::new(Taken { bytes: 0, each: HashMap::new() })) }
    }

    /// A seat of this one with so many bytes, if there is room.
    pub(crate) fn take<Q>(&self, of: &Q, bytes: u64) -> Option<Seat<K>>
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        let mut taken = locked(&self.taken);
        let all = taken.bytes.checked_add(bytes)?;
        let free = self.bytes.checked_sub(all)?;
        let before = taken.each.get(of).copied().unwrap_or_default();
        let own = Part { seats: before.seats + 1, bytes: before.bytes + bytes };
        if own.seats > self.seats || own.bytes > free {
            return None;
        }
        taken.bytes = all;
        taken.each.insert(of.to_owned(), own);
        Some(Seat { of: of.to_owned(), bytes, taken: Arc::clone(&self.taken) })
    }

    /// How many more seats it may have, if they are small.
    #[cfg(test)]
    pub(crate) fn left<Q: Eq + Hash + ?Sized>(&self, of: &Q) -> u64
    where
        K: Borrow<Q>,
    {
        u64::from(self.seats - locked(&self.taken).each.get(of).map_or(0, |part| part.seats))
    }
}

impl<K: Eq + Hash> Drop for Seat<K> {
    fn drop(&mut self) {
        let mut taken = locked(&self.taken);
        taken.bytes -= self.bytes;
        let Some(part) = taken.each.get_mut(&self.of) else { return };
        (part.seats, part.bytes) = (part.seats - 1, part.bytes - self.bytes);
        if part.seats == 0 {
            taken.each.remove(&self.of);
        }
    }
}

fn locked<K>(taken: &Mutex<Taken<K>>) -> MutexGuard<'_, Taken<K>> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_has_so_many_seats_and_who_goes_gives_its_own_back() {
        let shares = Shares::<String>::new(2, 100);
        let first = shares.take("a", 10).unwrap();
        let second = shares.take("a", 10).unwrap();
        assert!(shares.take("a", 0).is_none());
        let other = shares.take("b", 0).unwrap();
        drop((first, other));
        assert!(shares.take("a", 0).is_some());
        drop(second);
        assert!(locked(&shares.taken).each.is_empty() && locked(&shares.taken).bytes == 0);
    }

    #[test]
    fn each_has_as_much_room_as_it_leaves_free() {
        let shares = Shares::<String>::new(9, 100);
        let first = shares.take("a", 30).unwrap();
        assert!(shares.take("a", 21).is_none());
        let second = shares.take("a", 20).unwrap();
        assert!(shares.take("a", 1).is_none());
        assert!(shares.take("b", 26).is_none());
        let third = shares.take("b", 25).unwrap();
        assert!(shares.take("c", 12).is_some(), "there is always some");
        drop((second, third));
        assert!(shares.take("b", 35).is_some());
        assert!(shares.take("b", u64::MAX).is_none());
        drop(first);
        assert!(shares.take("a", 51).is_none() && shares.take("a", 50).is_some());
    }
}
