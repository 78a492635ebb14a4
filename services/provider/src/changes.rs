//! What a reader of the desired state has to be told to get from the state that it knows to the present one. A reader holds no
//! queue of its own: however slow it is, it costs one pointer, and what happened meanwhile reaches it as one difference.

use nexushub_chassis::names::InstanceId;

use crate::{desired::State, merge::Desired};

/// A reader this many revisions behind is told the whole anew.
const FAR_BEHIND: u64 = 64;

/// One message to a reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Forget what you know; this is all.
    Snapshot(Vec<Desired>),
    /// New or different.
    Put(Box<Desired>),
    /// No longer desired.
    Removed(InstanceId),
}

/// From `known` (none = nothing yet) to `now`: first what is gone, so that names are free before they are taken.
#[must_use]
pub fn between(known: Option<&State>, now: &State) -> Vec<Change> {
    let Some(known) = known.filter(|known| now.revision.saturating_sub(known.revision) <= FAR_BEHIND) else {
        return vec![Change::Snapshot(now.desired.values().cloned().collect())];
    };
    let gone = known.desired.keys().filter(|id| !now.desired.contains_key(*id));
    let put = now.desired.iter().filter(|(id, desired)| known.desired.get(*id) != Some(*desired));
    let gone = gone.map(|id| Change::Removed(id.clone()));
    gone.chain(put.map(|(_, desired)| Change::Put(Box::new(desired.clone())))).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{instance::Fields, merge::Origin};
    use nexushub_chassis::names::{HostName, Zone};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn state(revision: u64, instances: &BTreeMap<String, String>) -> State {
        let zone = Zone::new("b", 1);
        let desired = instances.iter().map(|(id, host)| {
            let id = InstanceId::parse(id).unwrap();
            let host_name = HostName::parse(host, &zone).ok();
            let fields = Fields { host_name, release: Some("/r".into()), ..Fields::default() };
            let instance = fields.complete(&id, "/d".as_ref()).unwrap();
            (id, Desired { instance, origin: Origin::Debug })
        });
        State { revision, desired: desired.collect(), ..State::default() }
    }

    fn apply(
        mut known: BTreeMap<InstanceId, Desired>,
        changes: Vec<Change>,
    ) -> BTreeMap<InstanceId, Desired> {
        for change in changes {
            match change {
                Change::Snapshot(all) => {
                    known = all.into_iter().map(|d| (d.instance.id.clone(), d)).collect();
                }
                Change::Put(desired) => drop(known.insert(desired.instance.id.clone(), *desired)),
                Change::Removed(id) => drop(known.remove(&id)),
            }
        }
        known
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(id, host)| ((*id).to_owned(), (*host).to_owned())).collect()
    }

    #[test]
    fn a_new_reader_and_one_far_behind_get_the_whole() {
        let now = state(100, &map(&[("a", "x")]));
        assert!(matches!(&between(None, &now)[..], [Change::Snapshot(all)] if all.len() == 1));
        let old = state(35, &map(&[]));
        assert!(matches!(&between(Some(&old), &now)[..], [Change::Snapshot(_)]));
        let near = state(36, &map(&[]));
        assert!(matches!(&between(Some(&near), &now)[..], [Change::Put(_)]));
    }

    #[test]
    fn a_name_is_freed_before_it_is_taken() {
        let changes = between(Some(&state(1, &map(&[("z", "x")]))), &state(2, &map(&[("a", "x")])));
        assert!(matches!(&changes[..], [Change::Removed(_), Change::Put(_)]));
    }

    proptest! {
        #[test]
        fn a_reader_that_applies_the_changes_knows_the_present_state(
            before in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
            after in prop::collection::btree_map("[a-c]", "[x-z]", 0..4),
            behind in 0..100_u64,
        ) {
            let (known, now) = (state(1, &before), state(1 + behind, &after));
            let changes = between(Some(&known), &now);
            prop_assert_eq!(apply(known.desired, changes), now.desired);
        }
    }
}
