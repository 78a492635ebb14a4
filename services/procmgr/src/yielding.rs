//! Who keeps a processor busy yields to all others. A box that has taken much of one of late goes to the kernel's idle class
//! (`cpu.idle`): all that nobody else wants is still its, and whoever else wakes up takes over at once. The scheduler lets who runs
//! use up its slice otherwise, and looks at that with each tick: beside a box that is busy on every core a request to a neighbour
//! waits 4 ms now and then. A box that is starved this way takes little, and by the next look is an equal again. As long as it yields
//! it has as many cores as its bound on processor time comes to, not all.
//!
//! The group's own file says who yields, so a successor of procmgr knows it, and nothing is to be undone when a box ends.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use tokio::time::{self, MissedTickBehavior};

use crate::cgroup::Cgroups;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Of what the kernel counts in `/proc/stat` (proc(5): on every Linux that we build for, 100 a second).
const TICK_USEC: u64 = 10_000;

/// Looks again and again. Ends never; at once where nothing is to yield.
pub(crate) async fn keep_looking(cgroups: Cgroups, percent: u32) {
    let mut clock = time::interval(EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut course = Course::new(percent, cgroups.yielding());
    while percent > 0 || !course.boxes.is_empty() {
        clock.tick().await;
        let (now, own) = (Instant::now(), cgroups.clone());
        let looked = tokio::task::spawn_blocking(move || {
            look(&own, &mut course, now);
            course
        });
        let Ok(back) = looked.await else { return }; // procmgr is ending
        course = back;
    }
}

fn look(cgroups: &Cgroups, course: &mut Course, now: Instant) {
    let did_much = course.did_much(machine_usec(), now);
    let changes = if did_much { course.judge(cgroups.processor_usec(), now) } else { course.rest() };
    for (name, yields) in changes {
        if cgroups.set_yielding(&name, yields, &course.yielding_but(&name)) {
            tracing::debug!(group = %name, yields, "it keeps a processor busy and yields to others, or no longer");
        }
    }
}

/// Processor time that everything on the machine has used, microseconds.
fn machine_usec() -> u64 {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    used_usec(text.lines().next().unwrap_or_default())
}

/// The same by its line `cpu`: user, nice, system, idle, iowait, irq, softirq.
fn used_usec(line: &str) -> u64 {
    let ticks =
        |at: usize| line.split_whitespace().nth(at).and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    [1, 2, 3, 6, 7].into_iter().map(ticks).sum::<u64>() * TICK_USEC
}

/// What is known from the look before.
#[derive(Debug)]
struct Course {
    /// So much of a core makes a box yield.
    percent: u32,
    /// What the machine had used, and when.
    machine: (u64, Instant),
    /// When the boxes were looked at, and what was seen; empty where the machine did little.
    at: Instant,
    boxes: HashMap<String, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Ever; not known of what has yielded since an earlier procmgr.
    used_usec: Option<u64>,
    yields: bool,
}

impl Course {
    /// These yield from before.
    fn new(percent: u32, yielding: Vec<String>) -> Self {
        let now = Instant::now();
        let seen = |name| (name, Seen { used_usec: None, yields: true });
        Self { percent, machine: (0, now), at: now, boxes: yielding.into_iter().map(seen).collect() }
    }

    /// Whether the machine did as much as makes one box yield; else none can have.
    fn did_much(&mut self, used_usec: u64, now: Instant) -> bool {
        let (before, since) = std::mem::replace(&mut self.machine, (used_usec, now));
        self.is_much(used_usec.saturating_sub(before), now.saturating_duration_since(since))
    }

    /// The machine did little: nobody yields any more. Without a look at each box, of which there may be a thousand that idle.
    fn rest(&mut self) -> Vec<(String, bool)> {
        let yielded = self.boxes.drain().filter(|(_, seen)| seen.yields);
        yielded.map(|(name, _)| (name, false)).collect()
    }

    /// Who yields by now, but for one.
    fn yielding_but(&self, name: &str) -> Vec<&str> {
        let yields = self.boxes.iter().filter(|(other, seen)| seen.yields && *other != name);
        yields.map(|(other, _)| other.as_str()).collect()
    }

    /// Whose standing changes, and to what.
    fn judge(&mut self, used: Vec<(String, u64)>, now: Instant) -> Vec<(String, bool)> {
        let passed = now.saturating_duration_since(std::mem::replace(&mut self.at, now));
        let mut before = std::mem::take(&mut self.boxes);
        let mut changes = Vec::new();
        for (name, used_usec) in used {
            let seen = before.remove(&name).unwrap_or_default();
            let yields = seen
                .used_usec
                .map_or(seen.yields, |before| self.is_much(used_usec.saturating_sub(before), passed));
            if yields != seen.yields {
                changes.push((name.clone(), yields));
            }
            self.boxes.insert(name, Seen { used_usec: Some(used_usec), yields });
        }
        changes
    }

    fn is_much(&self, used_usec: u64, passed: Duration) -> bool {
        let part = u128::from(used_usec) * 100;
        self.percent > 0 && part >= passed.as_micros() * u128::from(self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    /// Looks a second apart at a machine that has used so much ever, and at boxes `a`, `b`, … that have.
    struct Stage {
        course: Course,
        now: Instant,
    }

    impl Stage {
        fn new(percent: u32, yielding: &[&str]) -> Self {
            let course = Course::new(percent, yielding.iter().map(|name| (*name).to_owned()).collect());
            Self { now: course.at, course }
        }

        fn look(&mut self, machine: u64, boxes: &[u64]) -> Vec<(String, bool)> {
            self.now += EVERY;
            if !self.course.did_much(machine, self.now) {
                return self.course.rest();
            }
            let used =
                ["a", "b"].into_iter().zip(boxes).map(|(name, used)| (name.to_owned(), *used)).collect();
            self.course.judge(used, self.now)
        }
    }

    fn change(name: &str, yields: bool) -> Vec<(String, bool)> {
        vec![(name.to_owned(), yields)]
    }

    #[test]
    fn who_takes_much_yields_until_it_takes_less() {
        let mut stage = Stage::new(50, &[]);
        assert_eq!(stage.look(SECOND, &[7 * SECOND, 0]), [], "what came before counts for nothing");
        assert_eq!(stage.look(2 * SECOND, &[7 * SECOND + 500_000, 499_999]), change("a", true));
        assert_eq!(stage.look(3 * SECOND, &[8 * SECOND, SECOND]), change("b", true), "a goes on");
        assert_eq!(stage.course.yielding_but("b"), ["a"]);
        assert_eq!(stage.look(4 * SECOND, &[8 * SECOND, 2 * SECOND]), change("a", false));
        assert_eq!(stage.look(5 * SECOND, &[8 * SECOND]), [], "b is gone");
        assert_eq!(stage.look(6 * SECOND, &[8 * SECOND, 9 * SECOND]), [], "another of its name");
    }

    #[test]
    fn where_the_machine_does_little_nobody_yields_and_nothing_is_kept() {
        let mut stage = Stage::new(50, &[]);
        stage.look(SECOND, &[0, 0]);
        assert_eq!(stage.look(2 * SECOND, &[SECOND, 0]), change("a", true));
        assert_eq!(stage.look(2 * SECOND + 499_999, &[2 * SECOND, 0]), change("a", false));
        assert!(stage.course.boxes.is_empty());
        assert_eq!(stage.look(4 * SECOND, &[9 * SECOND, 0]), [], "it counts anew");
        assert_eq!(stage.look(5 * SECOND, &[10 * SECOND, 0]), change("a", true));
    }

    #[test]
    fn what_yields_already_goes_on_until_it_is_known_what_it_takes() {
        let mut stage = Stage::new(50, &["a", "b"]);
        assert_eq!(stage.look(SECOND, &[SECOND, SECOND]), []);
        assert_eq!(stage.look(2 * SECOND, &[2 * SECOND, SECOND]), change("b", false));
    }

    #[test]
    fn nobody_yields_where_none_is_to() {
        let mut stage = Stage::new(0, &["a"]);
        assert_eq!(stage.look(SECOND, &[SECOND]), change("a", false));
        assert_eq!(stage.look(2 * SECOND, &[2 * SECOND]), []);
    }

    #[test]
    fn what_the_machine_used_leaves_out_what_it_idled() {
        assert_eq!(used_usec("cpu  1 20 300 4000 50000 600000 7000000 8 9 10"), 7_600_321 * TICK_USEC);
        assert_eq!(used_usec("cpu"), 0);
        assert!(machine_usec() > 0);
    }
}
