//! How many connections each client has.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::Client;

/// The count, with a bound for each client.
#[derive(Debug)]
pub(crate) struct Census {
    most: u32,
    counts: Mutex<HashMap<Client, u32>>,
}

/// One connection counted; uncounted when dropped.
#[derive(Debug)]
pub(crate) struct Entry {
    census: Arc<Census>,
    client: Client,
}

impl Census {
    /// So many connections of each client at most.
    pub(crate) fn new(most: u32) -> Arc<Self> {
        Arc::new(Self { most, counts: Mutex::default() })
    }

    /// Counts one more; none when the client has as many as it may.
    pub(crate) fn enter(self: &Arc<Self>, client: Client) -> Option<Entry> {
        let mut counts = self.lock();
        let count = counts.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Entry { census: Arc::clone(self), client })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Client, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.census.lock();
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_and_no_other_feels_it() {
        let (census, one, other) = (Census::new(2), Client(1, false), Client(2, false));
        let (first, second) = (census.enter(one), census.enter(one));
        assert!(first.is_some() && second.is_some() && census.enter(one).is_none());
        assert!(census.enter(other).is_some());
        drop(first);
        assert!(census.enter(one).is_some());
        drop(second);
        assert!(census.lock().is_empty(), "who has no connection is forgotten");
    }
}
