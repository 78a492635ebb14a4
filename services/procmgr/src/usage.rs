//! What the processes of a generation use, and the bounds that are in force on that, as its cgroups tell, and where it has none its
//! guest.

use std::path::{Path, PathBuf};

use nexushub_proto::procmgr::Usage;

use crate::{
    cgroup, cgroup::Usage as Counted, data, guest, kills, note::Note, restraint, restraint::SLIVER_PERCENT,
};

/// The usage of the generation in this folder; nothing where nothing of it is counted. Blocks.
pub(crate) fn of(dir: &Path) -> Option<Usage> {
    let note = Note::read(dir).ok()?;
    let folders = note.folders();
    let data_bytes = data::used(&note.data);
    let (counted, guest) = (folders.iter().any(|folder| folder.exists()), guest::of(dir));
    if data_bytes == 0 && !counted && guest.is_none() {
        return None;
    }
    let used = match guest {
        Some(guest) if !counted => {
            Counted { memory_bytes: guest.memory_bytes, processes: guest.processes, ..Counted::default() }
        }
        _ => cgroup::usage(&folders),
    };
    let (limits, held_back) = (&note.limits, restraint::is_held(dir));
    let cpu_percent = if held_back { SLIVER_PERCENT } else { limits.cpu_percent };
    Some(Usage {
        memory_bytes: used.memory_bytes,
        memory_peak_bytes: used.memory_peak_bytes,
        cpu_usec: used.cpu_usec,
        processes: used.processes,
        throttled_usec: used.throttled_usec,
        oom_kills: kills::count(dir, &folders),
        memory_limit_bytes: in_force(&folders, &["memory.max", "memory.limit_in_bytes"], limits.memory_bytes),
        cpu_limit_percent: in_force(&folders, &["cpu.max", "cpu.cfs_quota_us"], cpu_percent),
        processes_limit: in_force(&folders, &["pids.max"], limits.processes),
        data_bytes,
        data_limit_bytes: limits.data_bytes,
        refused_processes: used.refused_processes,
        held_back,
    })
}

/// A bound, where one of the cgroups has the file that holds it.
fn in_force<T: Default>(folders: &[PathBuf], files: &[&str], bound: T) -> T {
    let there = folders.iter().any(|folder| files.iter().any(|file| folder.join(file).exists()));
    if there { bound } else { T::default() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;

    use super::*;
    use crate::limits::Limits;

    #[test]
    fn only_a_bound_that_a_cgroup_holds_is_shown() {
        let (dir, group) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(of(dir.path()), None, "there is no note");
        let limits = Limits { memory_bytes: 1 << 20, processes: 9, ..Limits::default() };
        let mut note = Note { limits, ..Note::default() };
        let write =
            |note: &Note| fs::write(dir.path().join("note"), serde_json::to_vec(note).unwrap()).unwrap();
        write(&note);
        assert_eq!(of(dir.path()), None, "nothing counts it");
        fs::write(dir.path().join(guest::FILE), "7 5 1\n").unwrap();
        let told = of(dir.path()).unwrap();
        assert_eq!((told.memory_bytes, told.processes, told.oom_kills), (7, 5, 1), "but a guest does");
        note.cgroups = vec![group.path().into()];
        write(&note);
        fs::write(group.path().join("pids.max"), "9").unwrap();
        let usage = of(dir.path()).unwrap();
        assert_eq!((usage.memory_limit_bytes, usage.processes_limit, usage.memory_bytes), (0, 9, 0));
    }
}
