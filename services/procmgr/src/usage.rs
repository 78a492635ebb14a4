//! What the processes of a generation use, and the bounds that are in force on that, as its cgroups tell, and where it has none its
//! guest; and what its instance's log takes.

use std::path::{Path, PathBuf};

use nexushub_proto::procmgr::Usage;
use nexushub_shim::segment;

use crate::{cgroup, cgroup::Usage as Counted, data, generation, guest, kills, note::Note};

/// The usage of the generations in these folders; nothing where nothing of one is counted. Blocks.
pub(crate) fn of_all(dirs: &[PathBuf]) -> Vec<Option<Usage>> {
    let notes: Vec<Option<Note>> = dirs.iter().map(|dir| Note::read(dir).ok()).collect();
    let kept: Vec<_> = notes.iter().map(|note| note.as_ref().map(Note::data).unwrap_or_default()).collect();
    let all = dirs.iter().zip(notes).zip(data::used(&kept));
    all.map(|((dir, note), data_bytes)| of(dir, &note?, data_bytes)).collect()
}

fn of(dir: &Path, note: &Note, data_bytes: u64) -> Option<Usage> {
    let folders = note.folders();
    let log_bytes = log(dir);
    let (counted, guest) = (folders.iter().any(|folder| folder.exists()), guest::of(dir));
    if data_bytes | log_bytes == 0 && !counted && guest.is_none() {
        return None;
    }
    let used = match guest {
        Some(guest) if !counted => {
            Counted { memory_bytes: guest.memory_bytes, processes: guest.processes, ..Counted::default() }
        }
        _ => cgroup::usage(&folders),
    };
    let limits = &note.limits;
    Some(Usage {
        memory_bytes: used.memory_bytes,
        memory_peak_bytes: used.memory_peak_bytes,
        cpu_usec: used.cpu_usec,
        processes: used.processes,
        throttled_usec: used.throttled_usec,
        oom_kills: kills::count(dir, &folders),
        memory_limit_bytes: in_force(&folders, &["memory.max", "memory.limit_in_bytes"], limits.memory_bytes),
        cpu_limit_percent: in_force(&folders, &["cpu.max", "cpu.cfs_quota_us"], limits.cpu_percent),
        processes_limit: in_force(&folders, &["pids.max"], limits.processes),
        data_bytes,
        data_limit_bytes: limits.data_bytes,
        log_bytes,
        log_limit_bytes: limits.log_bytes,
        refused_processes: used.refused_processes,
        yields: cgroup::yields(&folders),
    })
}

/// What the segments of all the instance's generations take, which is what its bound is on.
fn log(dir: &Path) -> u64 {
    let folder = dir.parent().map(generation::log);
    let segments = folder.and_then(|folder| segment::list(&folder).ok()).unwrap_or_default();
    segments.iter().map(|(_, length)| length).sum()
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
        let (instance, group) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let dir = instance.path().join("g2");
        fs::create_dir(&dir).unwrap();
        let of = |dir: &PathBuf| of_all(std::slice::from_ref(dir)).remove(0);
        assert_eq!(of(&dir), None, "there is no note");
        let limits = Limits { memory_bytes: 1 << 20, processes: 9, log_bytes: 100, ..Limits::default() };
        let mut note = Note { limits, ..Note::default() };
        let write = |note: &Note| fs::write(dir.join("note"), serde_json::to_vec(note).unwrap()).unwrap();
        write(&note);
        assert_eq!(of(&dir), None, "nothing counts it");
        fs::create_dir(instance.path().join("log")).unwrap();
        for (segment, length) in [("g0000000001-000003.seg", 20), ("g0000000002-000000.seg", 7), ("x", 5)] {
            fs::write(instance.path().join("log").join(segment), "x".repeat(length)).unwrap();
        }
        let told = of(&dir).unwrap();
        assert_eq!(
            (told.log_bytes, told.log_limit_bytes, told.memory_bytes),
            (27, 100, 0),
            "but its log is there"
        );
        fs::write(dir.join(guest::FILE), "7 5 1\n").unwrap();
        let told = of(&dir).unwrap();
        assert_eq!((told.memory_bytes, told.processes, told.oom_kills), (7, 5, 1), "a guest does");
        note.cgroups = vec![group.path().into()];
        write(&note);
        fs::write(group.path().join("pids.max"), "9").unwrap();
        let usage = of(&dir).unwrap();
        assert_eq!((usage.memory_limit_bytes, usage.processes_limit, usage.memory_bytes), (0, 9, 0));
    }
}
