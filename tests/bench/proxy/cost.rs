//! What a process costs: processor time and memory; and on which core it runs.

use std::{fs, process, time::Duration};

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

/// Clock ticks a second in `/proc/stat`, on every Linux that we build for.
const TICKS: f64 = 100.0;

/// Whose processor time is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Watch<'a> {
    /// The processes of the measured one; none where nobody is.
    pub(crate) measured: &'a [u32],
    /// The app behind it.
    pub(crate) backend: u32,
}

/// Processor time, in seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) measured: f64,
    pub(crate) generator: f64,
    /// What neither these two nor the backend used: whoever else is on the machine, or below it.
    pub(crate) others: f64,
}

impl Watch<'_> {
    /// What has been used so far.
    pub(crate) fn look(&self) -> Used {
        let (measured, own) = (of(self.measured), of(&[process::id()]));
        let others = of_machine() - measured - own - of(&[self.backend]);
        Used { measured, generator: of_this_thread(), others }
    }
}

impl Used {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            measured: self.measured - before.measured,
            generator: self.generator - before.generator,
            others: (self.others - before.others).max(0.0),
        }
    }
}

/// Time in which any core was not idle, or was taken away by the machine below.
fn of_machine() -> f64 {
    let text = fs::read_to_string("/proc/stat").unwrap();
    let fields = text.lines().next().unwrap().split_whitespace().skip(1);
    let ticks = fields.enumerate().filter(|(at, _)| matches!(at, 0..=2 | 5..=7));
    ticks.map(|(_, ticks)| ticks.parse::<f64>().unwrap()).sum::<f64>() / TICKS
}

/// Processor time of processes, every thread of theirs, the kernel's work for them included: utime and stime of
/// `/proc/<pid>/stat`, but in nanoseconds.
fn of(pids: &[u32]) -> f64 {
    let time = |pid: &u32| {
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(*pid).unwrap())).unwrap();
        Duration::from(clock_gettime(clock).unwrap()).as_secs_f64()
    };
    pids.iter().map(time).sum()
}

fn of_this_thread() -> f64 {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap()).as_secs_f64()
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
