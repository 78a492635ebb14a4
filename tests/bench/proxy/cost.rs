//! What a process costs: processor time and memory; and on which core it runs.

use std::{fs, time::Duration};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::Pid,
};

/// The core of the one that is measured.
pub(crate) const MEASURED: usize = 0;
/// The core of everything else.
pub(crate) const REST: usize = 1;

/// Binds the calling thread, and what it will start, to a core.
pub(crate) fn bind(core: usize) {
    bind_thread(Pid::from_raw(0), core);
}

/// Binds every thread of a process to a core.
pub(crate) fn bind_process(pid: u32, core: usize) {
    for thread in fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten() {
        bind_thread(Pid::from_raw(thread.file_name().to_str().unwrap().parse().unwrap()), core);
    }
}

fn bind_thread(thread: Pid, core: usize) {
    let mut set = CpuSet::new();
    set.set(core).unwrap();
    sched_setaffinity(thread, &set).unwrap();
}

/// A process and its children, all that a contender is made of.
pub(crate) fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse().unwrap());
    std::iter::once(pid).chain(children).collect()
}

/// Processor time of processes, every thread of theirs, the kernel's work for them included: utime and stime of
/// `/proc/<pid>/stat`, but in nanoseconds.
pub(crate) fn of(pids: &[u32]) -> Duration {
    let time = |pid: &u32| {
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(*pid).unwrap())).unwrap();
        Duration::from(clock_gettime(clock).unwrap())
    };
    pids.iter().map(time).sum()
}

/// Processor time of the calling thread.
pub(crate) fn of_this_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap().into()
}

/// Memory of processes, what they share with others divided among those, in bytes.
pub(crate) fn memory(pids: &[u32]) -> u64 {
    let kib = |pid: &u32| -> u64 {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    pids.iter().map(kib).sum::<u64>() * 1024
}
