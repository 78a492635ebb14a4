//! A box that keeps reaching its bound of processes, as a fork bomb does thousands of times a second. What it is refused is done in
//! the kernel, and there, within the processor time that every app may take, it makes its neighbours wait longer than an app does that
//! computes. So it gets a sliver of processor time until it has stopped, or is told to end. It is looked at with each health check,
//! and judged by how often a second it was refused since a look before. Whether it is held back is on disk beside the generation, for
//! a successor of procmgr; that counts anew.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{cgroup, note::Note};

/// Says whether it is held back; not there: no.
const FILE: &str = "refused";
/// So many a second begin it: far more than an app comes to that now and then tries for a thread, and far fewer than a fork bomb.
const BEGINS: u128 = 100;
/// Fewer a second end it: in its sliver even one whose attempts cost milliseconds makes as many.
const ENDS: u128 = 1;
/// No less time is judged by.
const WINDOW: Duration = Duration::from_secs(1);
/// The same of what is held back: it tries in fits.
const WINDOW_HELD: Duration = Duration::from_secs(5);
/// Of what begins more often, no more is logged.
const SAID: Duration = Duration::from_secs(60);
/// What it gets meanwhile, of a core.
pub(crate) const SLIVER_PERCENT: u32 = 2;

/// Whether it is held back now. Blocks.
pub(crate) fn is_held(dir: &Path) -> bool {
    fs::read_to_string(dir.join(FILE)).is_ok_and(|text| text.trim_end().ends_with("held")) // after a count, by an earlier version
}

/// Of one generation.
#[derive(Debug)]
pub(crate) struct Restraint {
    dir: PathBuf,
    cgroups: Vec<PathBuf>,
    course: Mutex<Course>,
}

/// What is known of it from earlier looks.
#[derive(Debug, Default)]
struct Course {
    /// How often it had been refused a process at the look that it is judged from.
    from: Option<(u64, Instant)>,
    /// When it was last said that it begins.
    said: Option<Instant>,
    /// Whether it is to be said when this ends.
    telling: bool,
    /// It has been told to end.
    over: bool,
}

impl Restraint {
    /// Nothing is known yet of the generation in this folder.
    pub(crate) fn new(dir: &Path, cgroups: &[PathBuf]) -> Self {
        Self { dir: dir.to_owned(), cgroups: cgroups.to_vec(), course: Mutex::default() }
    }

    /// Looks at it, holds it back or no longer does, and says which if that is worth a line. Blocks.
    pub(crate) fn look(&self, now: Instant) -> Option<bool> {
        let mut course = self.course();
        if course.over {
            return None;
        }
        let before = is_held(&self.dir);
        let held = course.judge(before, cgroup::refused_processes(&self.cgroups), now);
        (held != before && self.hold(held) && course.is_news(held, now)).then_some(held)
    }

    /// It is told to end, and needs its processor time for that: it gets it back, for good. Blocks.
    pub(crate) fn end(&self) {
        self.course().over = true;
        if is_held(&self.dir) {
            self.hold(false);
        }
    }

    /// Whether its processor time could be changed. One that has no more anyway keeps what it has.
    fn hold(&self, held: bool) -> bool {
        let Ok(note) = Note::read(&self.dir) else { return false };
        let own = note.limits.cpu_percent;
        let percent = if held { SLIVER_PERCENT } else { own };
        let done = !(1..=SLIVER_PERCENT).contains(&own) && cgroup::bound_processor(&self.cgroups, percent);
        if done {
            // Not durable: no generation outlives the machine.
            let _ = fs::write(self.dir.join(FILE), if held { "held\n" } else { "free\n" });
        }
        done
    }

    fn course(&self) -> MutexGuard<'_, Course> {
        self.course.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PartialEq for Restraint {
    fn eq(&self, other: &Self) -> bool {
        self.dir == other.dir
    }
}

impl Eq for Restraint {}

impl Course {
    /// Whether it is to be held back, when it had been refused so often at this time. The first look only begins to count.
    fn judge(&mut self, held: bool, refused: u64, now: Instant) -> bool {
        let (before, since) = *self.from.get_or_insert((refused, now));
        let (window, least) = if held { (WINDOW_HELD, ENDS) } else { (WINDOW, BEGINS) };
        let passed = now.saturating_duration_since(since);
        if passed < window {
            return held;
        }
        self.from = Some((refused, now));
        u128::from(refused.saturating_sub(before)) * 1000 / passed.as_millis() >= least
    }

    /// Whether it is worth a line. An end is where its beginning was.
    fn is_news(&mut self, held: bool, now: Instant) -> bool {
        if held {
            self.telling = self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAID);
            self.said = if self.telling { Some(now) } else { self.said };
        }
        self.telling
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::limits::Limits;

    /// A generation with this bound on its processor time, in a group of the unified hierarchy.
    struct Stage {
        dir: tempfile::TempDir,
        restraint: Restraint,
        now: Instant,
    }

    impl Stage {
        fn new(cpu_percent: u32) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let group = dir.path().join("group");
            fs::create_dir(&group).unwrap();
            fs::write(group.join("cpu.max"), "unset").unwrap();
            let note = Note { limits: Limits { cpu_percent, ..Limits::default() }, ..Note::default() };
            note.write(dir.path()).unwrap();
            let restraint = Restraint::new(dir.path(), &[group]);
            Self { dir, restraint, now: Instant::now() }
        }

        /// A look after so long, at which it has been refused so often ever.
        fn look(&mut self, after: Duration, refused: u64) -> (Option<bool>, bool) {
            self.now += after;
            fs::write(self.group().join("pids.events"), format!("max {refused}\n")).unwrap();
            (self.restraint.look(self.now), is_held(self.dir.path()))
        }

        fn group(&self) -> &Path {
            &self.restraint.cgroups[0]
        }

        fn bound(&self) -> String {
            fs::read_to_string(self.group().join("cpu.max")).unwrap()
        }
    }

    const BOMB: u64 = 100_000;
    /// What it is; whether it is held back before; looks: milliseconds since the one before, and refused ever; whether it is after.
    type Row = (&'static str, bool, &'static [(u64, u64)], bool);

    #[test]
    fn how_often_a_second_it_is_refused_is_what_counts_and_never_how_often_it_is_looked_at() {
        let table: [Row; 12] = [
            ("what came before the first look", false, &[(0, 90_000), (1000, 90_000)], false),
            ("a bomb", false, &[(0, 0), (1000, 5000)], true),
            ("just enough", false, &[(0, 0), (1000, 100)], true),
            ("one less", false, &[(0, 0), (1000, 99)], false),
            ("ten a second, seldom looked at", false, &[(0, 0), (600_000, 6000)], false),
            ("a bomb, seldom looked at", false, &[(0, 0), (600_000, 90_000)], true),
            ("too short to judge by", false, &[(0, 0), (20, 500), (30, 900)], false),
            ("short looks add up", false, &[(0, 0), (20, 50), (30, 90), (950, 150)], true),
            ("between two attempts", true, &[(0, 0), (20, 0), (67, 0), (4900, 0)], true),
            ("it has stopped", true, &[(0, 0), (20, 0), (4980, 4)], false),
            ("it goes on, if slowly", true, &[(0, 0), (5000, 5)], true),
            ("another count", false, &[(0, 90_000), (1000, 10)], false),
        ];
        for (what, before, looks, after) in table {
            let (mut course, mut now) = (Course::default(), Instant::now());
            let held = looks.iter().fold(before, |held, (ms, refused)| {
                now += Duration::from_millis(*ms);
                course.judge(held, *refused, now)
            });
            assert_eq!(held, after, "{what}");
        }
    }

    #[test]
    fn what_keeps_reaching_its_bound_is_held_back_until_it_has_stopped() {
        let mut stage = Stage::new(150);
        assert_eq!(stage.look(WINDOW, 0), (None, false));
        assert_eq!((stage.look(WINDOW, 50), stage.bound().as_str()), ((None, false), "unset"));
        assert_eq!(stage.look(WINDOW, BOMB), (Some(true), true));
        assert_eq!(stage.bound(), "2000 100000");
        assert_eq!(stage.look(WINDOW, BOMB), (None, true), "it may only rest");
        assert_eq!(stage.look(WINDOW_HELD, BOMB + 50), (None, true), "it goes on, if slowly");
        assert_eq!(stage.look(WINDOW_HELD, BOMB + 50), (Some(false), false));
        assert_eq!(stage.bound(), "150000 100000");
        assert_eq!(stage.look(WINDOW, BOMB + 50), (None, false));
    }

    #[test]
    fn a_successor_counts_anew_and_holds_back_what_was() {
        let mut stage = Stage::new(150);
        for text in ["held\n", "100000 held\n"] {
            fs::write(stage.dir.path().join(FILE), text).unwrap();
            stage.restraint = Restraint::new(stage.dir.path(), &stage.restraint.cgroups);
            assert_eq!(stage.look(WINDOW, 2 * BOMB), (None, true), "{text}");
            stage.look(WINDOW_HELD, 2 * BOMB);
            assert_eq!(
                (is_held(stage.dir.path()), stage.bound().as_str()),
                (false, "150000 100000"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_begins_again_and_again_is_logged_once_a_minute_and_so_is_its_end() {
        let mut stage = Stage::new(0);
        let (mut refused, mut lines) = (0, Vec::new());
        stage.look(WINDOW, 0);
        for _ in 0..11 {
            refused += BOMB;
            lines.push(stage.look(WINDOW, refused));
            lines.push(stage.look(WINDOW_HELD, refused));
        }
        let news: Vec<_> =
            lines.iter().enumerate().filter_map(|(at, (news, _))| Some((at, (*news)?))).collect();
        assert_eq!(
            news,
            [(0, true), (1, false), (20, true), (21, false)],
            "the 20th is a minute after the first"
        );
        assert!(lines.iter().enumerate().all(|(at, (_, held))| *held == (at % 2 == 0)));
    }

    #[test]
    fn what_is_told_to_end_has_its_own_bound_again_for_good() {
        let mut stage = Stage::new(150);
        stage.look(WINDOW, 0);
        stage.look(WINDOW, BOMB);
        stage.restraint.end();
        assert_eq!((stage.bound().as_str(), is_held(stage.dir.path())), ("150000 100000", false));
        assert_eq!(stage.look(WINDOW_HELD, 9 * BOMB), (None, false), "by a look that was under way");
        let stage = Stage::new(150);
        stage.restraint.end();
        assert_eq!(stage.bound(), "unset", "it had it");
    }

    #[test]
    fn one_without_a_bound_has_none_again_and_one_that_can_get_no_less_is_left_alone() {
        let mut stage = Stage::new(0);
        stage.look(WINDOW, 0);
        assert_eq!(stage.look(WINDOW, BOMB), (Some(true), true));
        assert_eq!(stage.look(WINDOW_HELD, BOMB), (Some(false), false));
        assert_eq!(stage.bound(), "max 100000");
        let mut stage = Stage::new(SLIVER_PERCENT);
        stage.look(WINDOW, 0);
        assert_eq!((stage.look(WINDOW, BOMB), stage.bound().as_str()), ((None, false), "unset"));
    }

    #[test]
    fn where_nothing_bounds_processor_time_it_is_not_said_to_be_held_back() {
        let mut stage = Stage::new(100);
        fs::remove_file(stage.group().join("cpu.max")).unwrap();
        stage.look(WINDOW, 0);
        assert_eq!(stage.look(WINDOW, BOMB), (None, false));
        let older = stage.group().join("cpu.cfs_quota_us");
        fs::write(&older, "").unwrap();
        assert_eq!(stage.look(WINDOW, 2 * BOMB), (Some(true), true), "but the older hierarchies do it alike");
        assert_eq!(fs::read_to_string(older).unwrap(), "2000");
    }
}
