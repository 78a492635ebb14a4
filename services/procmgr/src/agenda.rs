//! Which instance is to be looked at when, though nothing happens to it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::{clock::Ms, ids::InstanceId};

/// At most one time for each instance.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    times: BTreeMap<InstanceId, Ms>,
    /// The same, soonest first.
    order: BTreeSet<(Ms, InstanceId)>,
}

impl Agenda {
    /// Enters an instance, in place of what was entered for it before.
    pub(crate) fn enter(&mut self, id: InstanceId, due: Ms) {
        self.strike(&id);
        self.order.insert((due, id.clone()));
        self.times.insert(id, due);
    }

    /// Strikes an instance out.
    pub(crate) fn strike(&mut self, id: &InstanceId) {
        if let Some(entry) = self.times.remove_entry(id) {
            self.order.remove(&(entry.1, entry.0));
        }
    }

    /// Those whose time has come. They stay entered.
    pub(crate) fn due(&self, now: Ms) -> impl Iterator<Item = InstanceId> {
        self.order.iter().take_while(move |(due, _)| *due <= now).map(|(_, id)| id.clone())
    }

    /// The soonest time of all.
    pub(crate) fn next(&self) -> Option<Ms> {
        self.order.first().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_soonest_comes_first_and_a_new_time_takes_the_place_of_the_old() {
        let [a, b] = ["a", "b"].map(|id| InstanceId::parse(id).unwrap());
        let mut agenda = Agenda::default();
        assert_eq!(agenda.next(), None);
        agenda.enter(a.clone(), 10);
        agenda.enter(b.clone(), 20);
        assert_eq!(agenda.due(9).count(), 0);
        assert_eq!(agenda.due(20).collect::<Vec<_>>(), [a.clone(), b.clone()]);
        agenda.enter(a.clone(), 30);
        assert_eq!((agenda.next(), agenda.due(20).collect::<Vec<_>>()), (Some(20), vec![b.clone()]));
        agenda.strike(&b);
        assert_eq!(agenda.next(), Some(30));
        agenda.strike(&a);
        assert_eq!((agenda.next(), agenda.due(Ms::MAX).count()), (None, 0));
    }
}
