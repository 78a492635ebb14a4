//! Who sends requests to generations: each proxy that watches, under the name that it gives. What drains is not stopped before each
//! of them has let go of it or gone away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::manager::Event;

/// Longest name.
pub(crate) const NAME_BYTES: usize = 64;

/// The holders that watch now, with how many streams each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Holders(Arc<Mutex<BTreeMap<String, usize>>>);

impl Holders {
    /// One watches, until the presence is dropped; `events` learns of the end.
    pub(crate) fn enter(&self, name: String, events: mpsc::Sender<Event>) -> Presence {
        *self.lock().entry(name.clone()).or_default() += 1;
        Presence { holders: self.clone(), name, events }
    }

    /// All names.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A holder's stream.
#[derive(Debug)]
pub(crate) struct Presence {
    holders: Holders,
    name: String,
    events: mpsc::Sender<Event>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut names = self.holders.lock();
        match names.get_mut(&self.name) {
            Some(streams) if *streams > 1 => *streams -= 1,
            _ => drop(names.remove(&self.name)),
        }
        drop(names);
        let events = self.events.clone();
        // Outside of the runtime procmgr is ending, and nobody is left to tell.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { events.send(Event::HolderLeft).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_holder_is_there_as_long_as_one_of_its_streams_and_its_going_is_told() {
        let (events, mut told) = mpsc::channel(4);
        let holders = Holders::default();
        let first = holders.enter("p".into(), events.clone());
        let second = holders.enter("p".into(), events.clone());
        drop(first);
        assert_eq!(holders.names(), ["p".to_owned()].into());
        drop(second);
        assert!(holders.names().is_empty());
        assert!(matches!(told.recv().await, Some(Event::HolderLeft)));
    }
}
