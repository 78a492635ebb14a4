//! A box that keeps reaching its bound of processes, as a fork bomb does thousands of times a second. What it is refused is done in
//! the kernel, and there, within the processor time that every app may take, it makes its neighbours wait longer than an app does that
//! computes. So it gets a sliver of processor time until it has stopped. It is looked at with each health check; what was counted
//! then is on disk beside the generation, for a successor of procmgr.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{cgroup, note::Note};

/// How often it had been refused a process at the last look, and whether it is held back; not there: never, and no.
const FILE: &str = "refused";
/// So many between two looks are no accident.
const MANY: u64 = 100;
/// What it gets meanwhile, of a core.
pub(crate) const SLIVER_PERCENT: u32 = 2;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    refused: u64,
    held: bool,
}

/// Whether it is held back now. Blocks.
pub(crate) fn is_held(dir: &Path) -> bool {
    Seen::read(dir).held
}

/// Looks at a generation, holds it back or no longer does, and says which if that is news. Blocks.
pub(crate) fn look(dir: &Path, cgroups: &[PathBuf]) -> Option<bool> {
    let (before, refused) = (Seen::read(dir), cgroup::refused_processes(cgroups));
    let held = judge(refused.saturating_sub(before.refused), before.held);
    let news = held != before.held && hold(dir, cgroups, held);
    let now = Seen { refused, held: before.held != news };
    if now != before {
        now.write(dir);
    }
    news.then_some(held)
}

/// Many begin it, none at all ends it.
fn judge(more: u64, held: bool) -> bool {
    more >= MANY || (held && more > 0)
}

/// Whether its processor time could be changed. One that has no more anyway keeps what it has.
fn hold(dir: &Path, cgroups: &[PathBuf], held: bool) -> bool {
    let Ok(note) = Note::read(dir) else { return false };
    let own = note.limits.cpu_percent;
    !(1..=SLIVER_PERCENT).contains(&own)
        && cgroup::bound_processor(cgroups, if held { SLIVER_PERCENT } else { own })
}

impl Seen {
    fn read(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let mut words = text.split_whitespace();
        let refused = words.next().and_then(|count| count.parse().ok()).unwrap_or(0);
        Self { refused, held: words.next() == Some("held") }
    }

    fn write(self, dir: &Path) {
        let text = format!("{} {}\n", self.refused, if self.held { "held" } else { "free" });
        let _ = fs::write(dir.join(FILE), text); // not durable: no generation outlives the machine
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::Limits;

    /// A generation with this bound on its processor time, in a group of the unified hierarchy.
    fn generation(cpu_percent: u32) -> (tempfile::TempDir, [PathBuf; 1]) {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("group");
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cpu.max"), "unset").unwrap();
        let note = Note { limits: Limits { cpu_percent, ..Limits::default() }, ..Note::default() };
        note.write(dir.path()).unwrap();
        (dir, [group])
    }

    fn refuse(group: &[PathBuf], times: u64) {
        fs::write(group[0].join("pids.events"), format!("max {times}\n")).unwrap();
    }

    fn bound(group: &[PathBuf]) -> String {
        fs::read_to_string(group[0].join("cpu.max")).unwrap()
    }

    #[test]
    fn what_keeps_reaching_its_bound_is_held_back_until_it_has_stopped() {
        let (dir, group) = generation(150);
        let look = || look(dir.path(), &group);
        assert_eq!(look(), None, "nothing counts it");
        refuse(&group, MANY - 1);
        assert_eq!((look(), bound(&group).as_str()), (None, "unset"), "that may happen");
        refuse(&group, 2 * MANY - 1);
        assert_eq!((look(), bound(&group).as_str()), (Some(true), "2000 100000"));
        assert!(is_held(dir.path()));
        refuse(&group, 2 * MANY);
        assert_eq!((look(), is_held(dir.path())), (None, true), "it goes on, if slowly");
        assert_eq!((look(), bound(&group).as_str()), (Some(false), "150000 100000"));
        assert!(!is_held(dir.path()));
        assert_eq!(look(), None);
    }

    #[test]
    fn one_without_a_bound_has_none_again_and_one_that_can_get_no_less_is_left_alone() {
        let (dir, group) = generation(0);
        refuse(&group, MANY);
        assert_eq!(look(dir.path(), &group), Some(true));
        assert_eq!((look(dir.path(), &group), bound(&group).as_str()), (Some(false), "max 100000"));
        let (dir, group) = generation(SLIVER_PERCENT);
        refuse(&group, MANY);
        assert_eq!((look(dir.path(), &group), bound(&group).as_str()), (None, "unset"));
        assert!(!is_held(dir.path()));
    }

    #[test]
    fn where_nothing_bounds_processor_time_it_is_not_said_to_be_held_back() {
        let (dir, group) = generation(100);
        fs::remove_file(group[0].join("cpu.max")).unwrap();
        refuse(&group, MANY);
        assert_eq!((look(dir.path(), &group), is_held(dir.path())), (None, false));
        fs::write(group[0].join("cpu.cfs_quota_us"), "").unwrap();
        refuse(&group, 2 * MANY);
        assert_eq!(look(dir.path(), &group), Some(true), "but the older hierarchies do it alike");
        assert_eq!(fs::read_to_string(group[0].join("cpu.cfs_quota_us")).unwrap(), "2000");
    }

    #[test]
    fn what_is_not_understood_counts_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "x held", "-1 free", "held"] {
            fs::write(dir.path().join(FILE), text).unwrap();
            assert_eq!(Seen::read(dir.path()).refused, 0, "{text}");
        }
    }
}
