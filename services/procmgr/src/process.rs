//! Which processes belong to a generation: the members of its shim's session and all that descends from the shim. The shim is
//! a subreaper, so whatever the app starts stays below it for as long as it lives.

use std::collections::{BTreeMap, BTreeSet};

use nexushub_shim::identity::{self, Stat};

/// Every process that can be seen.
pub(crate) fn all() -> Vec<(u32, Stat)> {
    identity::processes().map(Iterator::collect).unwrap_or_default()
}

/// Everything that belongs to the generation of a shim.
pub(crate) fn family(all: &[(u32, Stat)], shim: u32) -> BTreeSet<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (pid, stat) in all {
        children.entry(stat.parent).or_default().push(*pid);
    }
    let mut family: BTreeSet<u32> =
        all.iter().filter(|(_, stat)| stat.session == shim).map(|(pid, _)| *pid).collect();
    family.insert(shim);
    let mut queue: Vec<u32> = family.iter().copied().collect();
    while let Some(pid) = queue.pop() {
        for child in children.get(&pid).into_iter().flatten() {
            if family.insert(*child) {
                queue.push(*child);
            }
        }
    }
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, session: u32) -> (u32, Stat) {
        (pid, Stat { state: b'S', parent, group: session, session, start: 1 })
    }

    #[test]
    fn a_family_is_the_session_and_every_descendant() {
        let all = [
            process(1, 0, 1),
            process(10, 1, 10),
            process(11, 10, 10),
            process(12, 11, 12),
            process(13, 12, 12),
            process(20, 1, 10),
            process(30, 1, 30),
        ];
        assert_eq!(family(&all, 10).into_iter().collect::<Vec<_>>(), [10, 11, 12, 13, 20]);
    }

    #[test]
    fn this_process_is_in_the_table() {
        assert!(all().iter().any(|(pid, _)| *pid == std::process::id()));
    }
}
