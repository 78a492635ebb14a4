//! What cgroups counted, of either version.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What the processes of one generation use; 0 where nothing counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Memory now.
    pub memory_bytes: u64,
    /// The most that it was.
    pub memory_peak_bytes: u64,
    /// Processor time, microseconds.
    pub cpu_usec: u64,
    /// Processes and threads now.
    pub processes: u64,
    /// How long they had to wait for their bound, microseconds.
    pub throttled_usec: u64,
    /// Processes that were killed because the bound on memory was reached.
    pub oom_kills: u64,
    /// How often one more process was refused because the bound on them was reached.
    pub refused_processes: u64,
}

/// A count: its file, the word before it in that file (none: the file is the number), and how many of its units are one.
type Source = (&'static str, Option<&'static str>, u64);

/// Where the kernel counts what it killed at the bound on memory.
const OOM_KILLS: [Source; 2] =
    [("memory.events", Some("oom_kill"), 1), ("memory.oom_control", Some("oom_kill"), 1)];

/// Where it counts processor time, in microseconds.
const PROCESSOR: [Source; 2] = [("cpu.stat", Some("usage_usec"), 1), ("cpuacct.usage", None, 1000)];

/// Reads the counts of a generation's cgroups.
pub(crate) fn usage(folders: &[PathBuf]) -> Usage {
    let first = |sources: &[Source]| first(folders, sources);
    Usage {
        memory_bytes: first(&[("memory.current", None, 1), ("memory.usage_in_bytes", None, 1)]),
        memory_peak_bytes: first(&[("memory.peak", None, 1), ("memory.max_usage_in_bytes", None, 1)]),
        cpu_usec: first(&PROCESSOR),
        processes: first(&[("pids.current", None, 1)]),
        throttled_usec: first(&[
            ("cpu.stat", Some("throttled_usec"), 1),
            ("cpu.stat", Some("throttled_time"), 1000),
        ]),
        oom_kills: first(&OOM_KILLS),
        refused_processes: first(&[("pids.events", Some("max"), 1)]),
    }
}

/// One of them alone.
pub(crate) fn oom_kills(folders: &[PathBuf]) -> u64 {
    first(folders, &OOM_KILLS)
}

/// Processor time, microseconds, where this group counts it.
pub(super) fn processor_usec(folder: &Path) -> Option<u64> {
    PROCESSOR.iter().find_map(|source| count(folder, source))
}

fn first(folders: &[PathBuf], sources: &[Source]) -> u64 {
    let counted = folders.iter().flat_map(|folder| sources.iter().map(move |source| count(folder, source)));
    counted.flatten().next().unwrap_or(0)
}

fn count(folder: &Path, (file, word, units): &Source) -> Option<u64> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    let number = match word {
        None => text.trim(),
        Some(word) => text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '))?,
    };
    Some(number.trim().parse::<u64>().ok()? / units)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn group(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, text)| fs::write(dir.path().join(file), text).unwrap());
        dir
    }

    #[test]
    fn both_versions_are_counted_alike() {
        let expected = Usage {
            memory_bytes: 10,
            memory_peak_bytes: 20,
            cpu_usec: 30,
            processes: 4,
            throttled_usec: 5,
            oom_kills: 1,
            refused_processes: 7,
        };
        let unified = group(&[
            ("memory.current", "10\n"),
            ("memory.peak", "20\n"),
            ("cpu.stat", "usage_usec 30\nuser_usec 1\nnr_throttled 2\nthrottled_usec 5\n"),
            ("pids.current", "4\n"),
            ("pids.events", "max 7\n"),
            ("memory.events", "low 0\noom 3\noom_kill 1\n"),
        ]);
        assert_eq!(usage(&[unified.path().into()]), expected);
        let memory = group(&[
            ("memory.usage_in_bytes", "10\n"),
            ("memory.max_usage_in_bytes", "20\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
        ]);
        let rest = group(&[
            ("cpuacct.usage", "30999\n"),
            ("cpu.stat", "nr_periods 1\nthrottled_time 5000\n"),
            ("pids.current", "4\n"),
            ("pids.events", "max 7\n"),
        ]);
        assert_eq!(usage(&[memory.path().into(), rest.path().into()]), expected);
        assert_eq!(usage(&[]), Usage::default());
    }
}
