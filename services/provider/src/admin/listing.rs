//! What of the admin app's lists is in force: the last one, and besides it instances that are missing in it but are too many to
//! vanish unseen. Pure.
//!
//! ```text
//! in force = listed + held      next list: missing = in force - listed
//!                               few missing ──▶ they go      many ──▶ they are held ──(confirmed, or listed again)──▶ no more
//! ```
//! Invariant: no more is in force than `IN_FORCE_MAX`, whatever is listed how often. What is in force stays; new ones wait, and so do
//! those, and changes of the others, that no message would hold besides what comes before them.

use std::collections::{BTreeMap, BTreeSet};

use nexushub_chassis::names::InstanceId;

use crate::{
    admin::list::{APPLICATIONS_MAX, List},
    instance::Entry,
};

type ById = BTreeMap<InstanceId, Entry>;

/// Most instances in force: a whole list, and as many that are no longer listed and stay.
const IN_FORCE_MAX: usize = 2 * APPLICATIONS_MAX;

/// When missing instances are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Only if they are more than so many percent of those in force.
    pub share_percent: u32,
    /// Only if they are at least so many.
    pub least: usize,
}

impl Hold {
    fn holds(self, missing: usize, of: usize) -> bool {
        let share = usize::try_from(self.share_percent).unwrap_or(usize::MAX);
        missing > 0 && missing >= self.least && missing.saturating_mul(100) > of.saturating_mul(share)
    }
}

/// What is in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// As listed last.
    pub listed: ById,
    /// No longer listed, and kept.
    pub held: ById,
    /// What was left out of the last list, for people.
    pub refused: Vec<String>,
}

/// What people are told while an id can't be read.
fn stay(missing: usize) -> String {
    format!("nothing is removed while an entry has no id that can be read; {missing} are not listed and stay")
}

/// What they are told of new ones for which there is no room.
fn wait(new: usize) -> String {
    format!(
        "{new} new instances wait: {IN_FORCE_MAX} are in force, with those that are no longer listed and stay"
    )
}

/// What they are told of new ones and of changes that would make what is desired too large, of which this is the first.
fn wait_for_room(new: usize, changes: usize, first: &InstanceId) -> String {
    format!(
        "{new} new instances and {changes} changes wait, `{first}` first: no message would hold what would then be desired"
    )
}

impl Listing {
    /// All that is in force.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.listed.values().chain(self.held.values())
    }

    /// Whether this instance is in force.
    #[must_use]
    pub fn has(&self, id: &InstanceId) -> bool {
        self.listed.contains_key(id) || self.held.contains_key(id)
    }

    /// After this list. An instance of which it says what can't be stays as it was, and so do all while it can't be told of
    /// which it says that.
    #[must_use]
    pub fn after(&self, list: List, hold: Hold) -> Self {
        let List { entries: mut listed, garbled, nameless, mut refused } = list;
        for id in garbled {
            if let Some(known) = self.entry(&id) {
                listed.entry(id).or_insert_with(|| known.clone());
            }
        }
        let missing = |of: &ById| -> ById {
            let of = of.iter().filter(|(id, _)| !listed.contains_key(*id));
            of.map(|(id, entry)| (id.clone(), entry.clone())).collect()
        };
        let (unlisted, mut held) = (missing(&self.listed), missing(&self.held));
        if nameless {
            refused.insert(0, stay(unlisted.len() + held.len()));
            listed.extend(unlisted);
            return self.within_bounds(listed, held, refused);
        }
        held.extend(unlisted);
        if !hold.holds(held.len(), self.entries().count()) {
            held.clear();
        }
        self.within_bounds(listed, held, refused)
    }

    /// Of what comes after this: all but those of the new ones that are too many.
    fn within_bounds(&self, mut listed: ById, held: ById, mut refused: Vec<String>) -> Self {
        let surplus = (listed.len() + held.len()).saturating_sub(IN_FORCE_MAX);
        if surplus > 0 {
            let new: Vec<InstanceId> = listed.keys().filter(|id| !self.has(id)).cloned().collect();
            new.iter().rev().take(surplus).for_each(|id| drop(listed.remove(id)));
            refused.insert(0, wait(surplus));
        }
        Self { listed, held, refused }
    }

    /// How many come after `before`, or change.
    #[must_use]
    pub fn news(&self, before: &Self) -> usize {
        self.listed.iter().filter(|(id, entry)| before.entry(id) != Some(entry)).count()
    }

    /// Of what comes after `before`: what goes, and of what comes or changes the first so many, by their ids.
    #[must_use]
    pub fn with_news(&self, before: &Self, mut most: usize) -> Self {
        let (mut listed, mut new, mut changes, mut first) = (ById::new(), 0, 0, None);
        for (id, entry) in &self.listed {
            let known = before.entry(id);
            let is_news = known != Some(entry);
            if !is_news || most > 0 {
                most -= usize::from(is_news);
                listed.insert(id.clone(), entry.clone());
                continue;
            }
            first = first.or(Some(id));
            *known.map_or(&mut new, |_| &mut changes) += 1;
            listed.extend(known.map(|entry| (id.clone(), entry.clone())));
        }
        let told = first.map(|first| wait_for_room(new, changes, first));
        let refused = told.into_iter().chain(self.refused.iter().cloned()).collect();
        Self { listed, held: self.held.clone(), refused }
    }

    fn entry(&self, id: &InstanceId) -> Option<&Entry> {
        self.listed.get(id).or_else(|| self.held.get(id))
    }

    /// Without those of these that are held, and which they were; none when there is none.
    #[must_use]
    pub fn confirmed(&self, ids: &BTreeSet<InstanceId>) -> Option<(Self, Vec<InstanceId>)> {
        let mut next = self.clone();
        let removed: Vec<InstanceId> =
            next.held.extract_if(.., |id, _| ids.contains(id)).map(|(id, _)| id).collect();
        (!removed.is_empty()).then_some((next, removed))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;
    use crate::instance::{Fields, Source};

    const HOLD: Hold = Hold { share_percent: 50, least: 3 };

    fn id(n: u32) -> InstanceId {
        InstanceId::parse(&format!("i{n}")).unwrap()
    }

    fn list(ids: impl IntoIterator<Item = u32>) -> List {
        let entry = |n| Entry {
            id: id(n),
            fields: Fields::default(),
            pins: BTreeSet::new(),
            source: Source::Dynamic,
        };
        List { entries: ids.into_iter().map(|n| (id(n), entry(n))).collect(), ..List::default() }
    }

    fn first(count: u32) -> Listing {
        Listing::default().after(list(0..count), HOLD)
    }

    fn sizes(listing: &Listing) -> (usize, usize) {
        (listing.listed.len(), listing.held.len())
    }

    #[test]
    fn a_few_go_at_once_and_many_are_held() {
        assert_eq!(sizes(&first(10).after(list(0..5), HOLD)), (5, 0), "half is not more than half");
        assert_eq!(sizes(&first(10).after(list(0..4), HOLD)), (4, 6));
        assert_eq!(sizes(&first(10).after(list([]), HOLD)), (0, 10));
        assert_eq!(sizes(&first(2).after(list([]), HOLD)), (0, 0), "fewer than three are few");
        assert_eq!(sizes(&first(10).after(list(100..110), HOLD)), (10, 10), "new ones don't hide it");
        let never = Hold { share_percent: 100, least: 1 };
        assert_eq!(sizes(&first(10).after(list([]), never)), (0, 0), "more than all is never");
    }

    #[test]
    fn what_is_held_stays_held_until_it_is_listed_again_or_confirmed() {
        let held = first(10).after(list(0..2), HOLD);
        assert_eq!(sizes(&held.after(list(0..2), HOLD)), (2, 8), "the same list again");
        assert_eq!(sizes(&held.after(list(0..10), HOLD)), (10, 0), "it was a mistake");
        let (confirmed, removed) = held.confirmed(&(0..6).map(id).collect()).unwrap();
        assert_eq!((sizes(&confirmed), removed.len()), ((2, 4), 4));
        assert!(
            confirmed.confirmed(&(0..6).map(id).collect()).is_none(),
            "what is listed is not confirmed away"
        );
        assert_eq!(confirmed.entries().count(), 6);
    }

    #[test]
    fn where_there_is_no_room_what_goes_goes_and_the_others_stay_as_they_were_or_come_in_order() {
        let before = first(10).after(list(0..3), HOLD);
        let mut next = before.after(list([0, 1, 5, 77]), Hold { share_percent: 100, least: 1 });
        next.listed.get_mut(&id(1)).unwrap().fields.app_id = Some("another".to_owned());
        assert_eq!(next.news(&before), 2);
        let after = next.with_news(&before, 0);
        assert_eq!(sizes(&after), (3, 0));
        assert!(after.listed[&id(1)] == before.listed[&id(1)] && after.has(&id(5)) && !after.has(&id(77)));
        assert!(
            after.refused[0].starts_with("1 new instances and 1 changes wait, `i1` first"),
            "{:?}",
            after.refused
        );
        let after = next.with_news(&before, 1);
        assert!(after.listed[&id(1)] == next.listed[&id(1)] && !after.has(&id(77)));
        assert!(
            after.refused[0].starts_with("1 new instances and 0 changes wait, `i77` first"),
            "{:?}",
            after.refused
        );
        assert_eq!(next.with_news(&before, 2), next);
    }

    #[test]
    fn an_instance_of_which_nonsense_is_said_stays_as_it_was() {
        let garbled = List { garbled: vec![id(1), id(77)], ..list([0]) };
        let after = first(2).after(garbled, HOLD);
        assert!(after.listed.contains_key(&id(1)) && !after.listed.contains_key(&id(77)));
    }

    #[test]
    fn while_an_id_can_not_be_read_nothing_goes_however_few_and_that_is_said() {
        let nameless =
            || List { nameless: true, refused: vec!["entry ``: it is no application".into()], ..list([5]) };
        let after = first(2).after(nameless(), HOLD);
        assert_eq!(sizes(&after), (3, 0), "the two that are missing stay, and the new one comes");
        assert!(after.refused[0].contains("2 are not listed and stay"), "{:?}", after.refused);
        assert_eq!(after.refused.len(), 2);
        assert_eq!(sizes(&after.after(list([5]), HOLD)), (1, 0), "once every id can be read they go");
        let held = first(10).after(list([]), HOLD).after(nameless(), HOLD);
        assert_eq!(sizes(&held), (1, 9), "what waits to be confirmed waits on");
    }

    #[test]
    fn however_often_other_instances_are_listed_what_is_in_force_is_bounded_and_stays() {
        let most = u32::try_from(APPLICATIONS_MAX).unwrap();
        let lists = |nameless| (0..4).map(move |n| List { nameless, ..list(n * most..(n + 1) * most) });
        for nameless in [false, true] {
            let mut listing = Listing::default();
            for list in lists(nameless) {
                listing = listing.after(list, HOLD);
            }
            assert_eq!(listing.entries().count(), IN_FORCE_MAX, "{nameless}");
            assert!((0..2 * most).all(|n| listing.has(&id(n))), "those that came first");
            let told = listing.refused.iter().filter(|told| told.contains("10000 new instances wait"));
            assert_eq!(told.count(), 1, "{:?}", listing.refused);
            let first = listing.after(List { nameless, ..list([0, 4 * most]) }, HOLD);
            assert!(first.has(&id(0)) && !first.has(&id(4 * most)));
        }
    }

    proptest! {
        #[test]
        fn nothing_goes_unseen_that_is_many(
            before in prop::collection::btree_set(0..20_u32, 0..20),
            lists in prop::collection::vec(prop::collection::btree_set(0..20_u32, 0..20), 1..6),
        ) {
            let mut listing = Listing::default().after(list(before), HOLD);
            for next in lists {
                let known: BTreeSet<InstanceId> = listing.entries().map(|entry| entry.id.clone()).collect();
                listing = listing.after(list(next), HOLD);
                let kept = listing.entries().map(|entry| entry.id.clone()).collect::<BTreeSet<_>>();
                let gone = known.difference(&kept).count();
                prop_assert!(gone < HOLD.least || gone * 2 <= known.len());
            }
        }
    }
}
