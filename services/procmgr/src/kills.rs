//! Processes of a generation that the kernel killed for want of memory, and whether that was its end. An app may lose a child and
//! live on for days: so a kill counts for an end only if it came after the last health check that was answered. How many had come
//! before that is on disk beside the generation, for a successor of procmgr.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{cgroup, guest};

/// How many there had been when its health check was answered last; not there: none.
const FILE: &str = "oom_kills";

/// How many there were ever, as its cgroups and its guest tell. Blocks.
pub(crate) fn count(dir: &Path, cgroups: &[PathBuf]) -> u64 {
    cgroup::oom_kills(cgroups).saturating_add(guest::of(dir).map_or(0, |guest| guest.oom_kills))
}

/// It has outlived so many. Blocks.
pub(crate) fn outlived(dir: &Path, kills: u64) {
    if kills != seen(dir) {
        let _ = fs::write(dir.join(FILE), kills.to_string()); // not durable: no generation outlives the machine
    }
}

/// Whether there were any that it is not known to have outlived. Blocks.
pub(crate) fn lately(dir: &Path, cgroups: &[PathBuf]) -> bool {
    count(dir, cgroups) > seen(dir)
}

fn seen(dir: &Path) -> u64 {
    fs::read_to_string(dir.join(FILE)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_it_has_outlived_counts_no_more_and_what_comes_then_does() {
        let (dir, group) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, groups) = (dir.path(), [group.path().to_owned()]);
        let kernel = |kills: u64| {
            fs::write(group.path().join("memory.events"), format!("oom 9\noom_kill {kills}\n")).unwrap();
        };
        assert!(!lately(dir, &groups), "nothing counts");
        kernel(2);
        assert!(lately(dir, &groups));
        outlived(dir, count(dir, &groups));
        assert!(!lately(dir, &groups));
        kernel(3);
        assert!(lately(dir, &groups));
        fs::write(dir.join(guest::FILE), "1 2 1\n").unwrap();
        assert_eq!(count(dir, &groups), 4, "a guest counts its own");
    }
}
