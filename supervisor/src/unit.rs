//! One daemon and its processes, as a state machine without system calls: events and the time come in as arguments; what is to
//! be done is left in `start_at`, `wanted` and `signals`, for the event loop to carry out.
//!
//! ```text
//!            start                READY=1                 crash, hung
//! (nothing) ──────▶ starting ──────────────▶ ready ─────────────────────▶ waiting ──delay──▶ starting
//!                      └─ crash, too slow ─▶ waiting; too often: failed ──longest delay──▶ starting
//! any ──stop──▶ stopping ──exit──▶ stopped
//!
//! a roll:  stateful   current ─SIGTERM, exit─▶ start from the candidate
//!          overlaps   candidate ─start─▶ next ─READY=1─▶ current; the former current ─SIGTERM─▶ old ─drained─▶ gone
//!
//! told by others:     current ─STOPPING=1─▶ old, and another is started beside it, if it overlaps; else once it is gone
//! ```
//! Invariant: at most one current and one next generation, and only a daemon that overlaps has any but the current one. A roll
//! waits until no old one drains; who is told by others to stop takes nobody any more, so that there it would cost requests.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use nexushub_launch::daemon::Daemon;
use nexushub_launch::notify::parse;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::policy::{Moment, Restarts, Turn, hung};
use crate::{config::ms, inbox::Message, log, site::Build};

/// SIGTERM, to one that may be stopped, too.
const TERM: [Signal; 2] = [Signal::SIGTERM, Signal::SIGCONT];
/// Most descriptors that are kept for a daemon.
const MAX_STORE: usize = 64;
/// Most characters of what it says about itself.
const MAX_STATUS: usize = 256;

/// `Next` is started from the candidate and not ready yet; `Old` is replaced and drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Current,
    Next,
    Old,
}

/// One process.
pub(crate) struct Generation {
    pub(crate) pid: Pid,
    pub(crate) role: Role,
    pub(crate) ready: Option<SystemTime>,
    started: Moment,
    /// Last sign of life, and how old it may get: as it was told at its start.
    pub(crate) sign: Moment,
    watchdog: Duration,
    /// When it is killed: it must be ready, or gone once told to stop.
    deadline: Option<Moment>,
    told: bool,
    killed: Option<&'static str>,
}

/// A daemon.
pub(crate) struct Unit {
    pub(crate) daemon: &'static Daemon,
    pub(crate) build: Build,
    /// What it shall be rolled to, and its `--check` while that runs; none = accepted.
    pub(crate) candidate: Option<(Build, Option<Pid>)>,
    /// What it was rolled from, until what it was rolled to has been ready.
    fallback: Option<Build>,
    pub(crate) generations: Vec<Generation>,
    /// Descriptors left with us, for the next generation.
    pub(crate) store: Vec<(String, OwnedFd)>,
    pub(crate) restarts: Restarts,
    pub(crate) start_at: Option<Moment>,
    /// Until when it must be gone, in a stop of the platform: it isn't restarted any more.
    pub(crate) stop_at: Option<Moment>,
    /// Whether its last process ended as asked.
    pub(crate) clean: bool,
    pub(crate) signals: Vec<(Pid, Signal)>,
    /// What it says about itself, and why it isn't ready.
    pub(crate) status: String,
    pub(crate) reason: String,
    /// The state that was shown last, and since when.
    pub(crate) shown: (&'static str, SystemTime),
}

impl Unit {
    pub(crate) fn new(daemon: &'static Daemon, build: Build, now: Moment) -> Self {
        Self {
            daemon,
            build,
            candidate: None,
            fallback: None,
            generations: Vec::new(),
            store: Vec::new(),
            restarts: Restarts::default(),
            start_at: Some(now),
            stop_at: None,
            clean: false,
            signals: Vec::new(),
            status: String::new(),
            reason: String::new(),
            shown: ("", SystemTime::UNIX_EPOCH),
        }
    }

    pub(crate) fn current(&self) -> Option<&Generation> {
        self.generations.iter().find(|g| g.role == Role::Current)
    }

    pub(crate) fn state(&self) -> &'static str {
        match self.current() {
            Some(current) if current.told => "stopping",
            Some(current) if current.ready.is_some() => "ready",
            None if self.stop_at.is_some() && self.start_at.is_none() => "stopped",
            _ if self.restarts.failed => "failed",
            Some(_) => "starting",
            None => "waiting",
        }
    }

    fn accepted(&self) -> bool {
        matches!(self.candidate, Some((_, None)))
    }

    /// The process to start now, if any.
    pub(crate) fn wanted(&self, now: Moment) -> Option<Role> {
        let single = self.generations.iter().all(|g| g.role == Role::Current);
        match self.start_at {
            Some(at) if at <= now => Some(Role::Current),
            _ if self.daemon.overlaps && self.accepted() && single => Some(Role::Next),
            _ => None,
        }
    }

    /// When something is due here.
    pub(crate) fn due(&self) -> Option<Moment> {
        let live = self.generations.iter().filter(|g| g.killed.is_none());
        live.filter_map(|g| g.deadline).chain(self.start_at).min()
    }

    /// Takes in a process that was started in that role.
    pub(crate) fn started(&mut self, pid: Pid, role: Role, turn: &Turn<'_>) {
        self.start_at = self.start_at.filter(|_| role != Role::Current);
        self.generations.push(Generation {
            pid,
            role,
            ready: None,
            started: turn.now,
            sign: turn.now,
            watchdog: turn.settings.watchdog(),
            deadline: Some(self.stop_at.unwrap_or(turn.now + ms(turn.settings.start_timeout_ms))),
            told: self.stop_at.is_some(),
            killed: None,
        });
        self.log(log::INFO, "daemon started", pid, "", Duration::ZERO);
    }

    /// Takes in a message of one of its processes.
    pub(crate) fn heard(&mut self, message: Message, turn: &Turn<'_>) {
        let (pid, mut name, mut fate) = (message.from, "stored", "");
        for (key, value) in parse(&message.text) {
            match (key, value) {
                ("READY", "1") => self.ready(pid, turn),
                ("STOPPING", "1") => self.leaves(pid, turn),
                ("STATUS", text) if self.generations.iter().any(|g| g.pid == pid && g.role != Role::Old) => {
                    self.status = text.chars().take(MAX_STATUS).collect();
                }
                ("FDNAME", text) if text.bytes().all(|b| b.is_ascii_graphic() && b != b':') => name = text,
                ("FDSTORE" | "FDSTOREREMOVE", _) => fate = key,
                _ => {}
            }
        }
        if fate == "FDSTOREREMOVE" {
            self.store.retain(|(kept, _)| kept != name);
        }
        let room = if fate == "FDSTORE" { MAX_STORE.saturating_sub(self.store.len()) } else { 0 };
        self.store.extend(message.fds.into_iter().take(room).map(|fd| (name.to_owned(), fd)));
        self.generations.iter_mut().filter(|g| g.pid == pid).for_each(|g| g.sign = turn.now);
    }

    /// One of its processes stops, for whatever reason: it is held to it. Clients of one that overlaps don't wait for its drain.
    fn leaves(&mut self, pid: Pid, turn: &Turn<'_>) {
        self.tell(|g| g.pid == pid, turn.limit(self.daemon.name), &[]);
        let runs_on = self.daemon.overlaps && self.stop_at.is_none();
        let mut current = self.generations.iter_mut().filter(|g| runs_on && g.role == Role::Current);
        let Some(g) = current.find(|g| g.pid == pid) else { return };
        g.role = Role::Old;
        let (ran, why) = (turn.now - g.started, "it leaves, and was not told to by us");
        let (level, msg) = self.lost(why, ran, turn);
        self.log(level, msg, pid, why, ran);
    }

    /// There is none any more that should run: what is started in its place, and what is said of that.
    fn lost(&mut self, why: &str, ran: Duration, turn: &Turn<'_>) -> (usize, &'static str) {
        if self.accepted() && self.generations.iter().all(|g| g.role == Role::Old) {
            // It was told to make way; or the roll waits for one that drains, and would for ever where they come and go.
            self.adopt(Some(turn.now));
            return (log::INFO, "old generation makes way");
        }
        why.clone_into(&mut self.reason);
        if let Some(former) = self.fallback.take() {
            (self.build, self.start_at) = (former, Some(turn.now));
            return (log::ERROR, "new build failed, back to the old one");
        }
        let failed = self.restarts.failed;
        self.start_at = Some(turn.now + self.restarts.crashed(ran, turn));
        match (failed, self.restarts.failed) {
            (false, true) => (log::ERROR, "daemon keeps crashing: failed, retried slowly"),
            _ => (log::WARN, "daemon crashed"),
        }
    }

    fn ready(&mut self, pid: Pid, turn: &Turn<'_>) {
        let Some(g) = self.generations.iter_mut().find(|g| g.pid == pid && g.ready.is_none()) else { return };
        (g.ready, g.deadline) = (Some(SystemTime::now()), g.deadline.filter(|_| g.told));
        let (role, took) = (g.role, turn.now - g.started);
        self.log(log::INFO, "daemon is ready", pid, "", took);
        self.reason.clear();
        self.fallback = self.fallback.take().filter(|_| role != Role::Current);
        if self.stop_at.is_some() {
            self.signals.extend(TERM.map(|signal| (pid, signal))); // it was started only to stop
        }
        if role == Role::Next {
            self.tell(|g| g.role == Role::Current, turn.limit(self.daemon.name), &TERM);
            for g in &mut self.generations {
                g.role = if g.pid == pid { Role::Current } else { Role::Old };
            }
            self.shown.0 = ""; // ready as before, but since now
            self.adopt(None);
        }
    }

    /// Takes in the end of one of its processes.
    pub(crate) fn exited(&mut self, pid: Pid, how: &str, clean: bool, turn: &Turn<'_>) {
        let Some(at) = self.generations.iter().position(|g| g.pid == pid) else { return };
        let gone = self.generations.remove(at);
        let (why, ran) = (gone.killed.map_or("", |why| why).to_owned() + how, turn.now - gone.started);
        self.clean = clean;
        let (level, msg) = match gone.role {
            _ if self.stop_at.is_some() => (log::INFO, "daemon stopped"),
            Role::Old => (log::INFO, "old generation is gone"),
            Role::Next => {
                self.candidate = None;
                (log::ERROR, "new generation failed, the old one stays")
            }
            Role::Current => self.lost(&why, ran, turn),
        };
        self.log(level, msg, pid, &why, ran);
    }

    /// Kills what is too slow, and in a round of the watchdog what is hung.
    pub(crate) fn judge(&mut self, now: Moment, round: bool) {
        for g in self.generations.iter_mut().filter(|g| g.killed.is_none()) {
            let hung = round && g.ready.is_some() && !g.told && hung(now, g.sign, g.watchdog);
            g.killed = match g.deadline.filter(|deadline| *deadline <= now) {
                Some(_) if g.told => Some("did not stop in time: "),
                Some(_) => Some("did not become ready in time: "),
                None => hung.then_some("gave no sign of life: "),
            };
            self.signals.extend(g.killed.map(|_| (g.pid, Signal::SIGKILL)));
        }
    }

    /// The candidate's check passed: replaces the daemon.
    pub(crate) fn accept(&mut self, turn: &Turn<'_>) {
        let Some((_, check)) = &mut self.candidate else { return };
        *check = None;
        match self.current() {
            None => self.adopt(Some(turn.now)),
            Some(_) if self.daemon.overlaps => {} // it is `wanted` once no older one drains
            Some(_) => self.tell(|_| true, turn.limit(self.daemon.name), &TERM),
        }
    }

    /// Makes the candidate what the daemon is started from.
    fn adopt(&mut self, start_at: Option<Moment>) {
        if let Some((build, _)) = self.candidate.take() {
            let former = std::mem::replace(&mut self.build, build);
            // One that overlaps has been ready already; what never was is nothing to fall back to.
            self.fallback = start_at.map(|_| self.fallback.take().unwrap_or(former));
            self.start_at = start_at;
            self.restarts.forgive();
        }
    }

    /// Part of a stop of the platform: all of it is to be gone by then.
    pub(crate) fn stop(&mut self, deadline: Moment, start_at: Option<Moment>) {
        (self.stop_at, self.start_at, self.candidate, self.clean) = (Some(deadline), start_at, None, false);
        self.tell(|_| true, deadline, &TERM);
    }

    fn tell(&mut self, which: impl Fn(&Generation) -> bool, deadline: Moment, signals: &[Signal]) {
        for g in self.generations.iter_mut().filter(|g| which(g)) {
            self.signals.extend(signals.iter().map(|signal| (g.pid, *signal)));
            let earlier = g.deadline.filter(|_| g.told).unwrap_or(deadline);
            (g.told, g.deadline) = (true, Some(deadline.min(earlier)));
        }
    }

    fn log(&self, level: usize, msg: &str, pid: Pid, error: &str, elapsed: Duration) {
        log::line(level, msg, |line| {
            let line = line.text("child", self.daemon.name).number("pid", pid.as_raw());
            let line = if error.is_empty() { line } else { line.text("error", error) };
            line.number("elapsed_ms", elapsed.as_millis() as i128)
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::Settings;

    /// A daemon in the hands of the tests: pids are counted from 1, time stands still unless it is moved.
    struct Hand {
        unit: Unit,
        settings: Settings,
        now: Moment,
        pids: i32,
    }

    fn build(mark: &str) -> Build {
        Build { exe: std::fs::File::open("/dev/null").unwrap(), text: String::new(), mark: mark.to_owned() }
    }

    impl Hand {
        fn new(daemon: &str) -> Self {
            let daemon = nexushub_launch::daemon::by_name(daemon).unwrap();
            let (unit, settings) = (Unit::new(daemon, build("old"), Moment::ZERO), Settings::default());
            Self { unit, settings, now: Moment::ZERO, pids: 0 }
        }

        fn ready(daemon: &str) -> Self {
            let mut hand = Self::new(daemon);
            hand.start();
            hand.says(1, "READY=1");
            hand
        }

        fn does(&mut self, act: impl FnOnce(&mut Unit, &Turn<'_>)) {
            act(&mut self.unit, &Turn { now: self.now, chance: u32::MAX, settings: &self.settings });
        }

        /// Starts what is wanted, as the event loop does.
        fn start(&mut self) -> Option<Role> {
            let role = self.unit.wanted(self.now)?;
            self.pids += 1;
            let pid = Pid::from_raw(self.pids);
            self.does(|unit, turn| unit.started(pid, role, turn));
            Some(role)
        }

        fn says(&mut self, pid: i32, text: &str) {
            let message = Message { from: Pid::from_raw(pid), text: text.into(), fds: Vec::new() };
            self.does(|unit, turn| unit.heard(message, turn));
        }

        fn dies(&mut self, pid: i32) {
            self.does(|unit, turn| unit.exited(Pid::from_raw(pid), "died", false, turn));
        }

        fn candidate(&mut self) {
            self.unit.candidate = Some((build("new"), Some(Pid::from_raw(99))));
            assert_eq!(self.start(), None, "nothing happens before the check passed");
            self.does(Unit::accept);
        }

        fn signals(&mut self) -> Vec<(i32, Signal)> {
            let signals = self.unit.signals.drain(..).filter(|(_, signal)| *signal != Signal::SIGCONT);
            signals.map(|(pid, signal)| (pid.as_raw(), signal)).collect()
        }

        fn after(&mut self, ms: u64) -> Vec<(i32, Signal)> {
            self.now += Duration::from_millis(ms);
            self.unit.judge(self.now, false);
            self.signals()
        }
    }

    #[test]
    fn a_crash_leads_back_to_ready_by_way_of_waiting() {
        let mut hand = Hand::new("procmgr");
        assert_eq!(
            (hand.unit.state(), hand.start(), hand.unit.state()),
            ("waiting", Some(Role::Current), "starting")
        );
        hand.says(1, "STATUS=two apps\nREADY=1");
        assert_eq!((hand.unit.state(), &*hand.unit.status), ("ready", "two apps"));
        hand.dies(1);
        assert_eq!(hand.start(), Some(Role::Current), "the first restart is at once");
        hand.dies(2);
        assert_eq!((hand.start(), hand.unit.state(), &*hand.unit.reason), (None, "waiting", "died"));
        hand.after(100);
        assert_eq!((hand.start(), hand.unit.restarts.total), (Some(Role::Current), 2));
        hand.says(3, "READY=1");
        assert_eq!((hand.unit.state(), &*hand.unit.reason), ("ready", ""));
    }

    #[test]
    fn only_one_that_is_ready_and_silent_is_hung() {
        let mut hand = Hand::ready("provider");
        hand.unit.judge(Duration::from_secs(3), true);
        assert_eq!(hand.signals(), []);
        hand.unit.judge(Duration::from_millis(3001), true);
        assert_eq!(hand.signals(), [(1, Signal::SIGKILL)]);
        hand.unit.judge(Duration::from_secs(9), true);
        assert_eq!(hand.signals(), [], "killed once");
        let mut starting = Hand::new("provider");
        starting.start();
        starting.unit.judge(Duration::from_secs(9), true);
        assert_eq!(starting.signals(), [], "one that starts has the start's own limit");
        assert_eq!(starting.after(30_000), [(1, Signal::SIGKILL)]);
    }

    #[test]
    fn a_stateful_daemon_is_stopped_before_its_successor_starts() {
        let mut hand = Hand::ready("provider");
        hand.candidate();
        assert_eq!((hand.start(), hand.signals()), (None, vec![(1, Signal::SIGTERM)]));
        assert_eq!(hand.after(5000), [(1, Signal::SIGKILL)], "within its limit");
        hand.dies(1);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "new"));
        assert_eq!(hand.unit.restarts.total, 0);
    }

    #[test]
    fn a_new_build_that_never_gets_ready_gives_way_to_the_old_one() {
        let mut hand = Hand::ready("procmgr");
        hand.candidate();
        assert_eq!(hand.signals(), [(1, Signal::SIGTERM)]);
        hand.dies(1);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "new"));
        assert_eq!(hand.after(30_000), [(2, Signal::SIGKILL)], "too slow");
        hand.dies(2);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "old"));
        hand.says(3, "READY=1");
        hand.candidate();
        hand.dies(3);
        hand.start();
        hand.says(4, "READY=1");
        hand.dies(4);
        assert_eq!(&*hand.unit.build.mark, "new", "ready once, it stays");
    }

    #[test]
    fn what_a_draining_generation_says_is_not_the_daemons_word() {
        let mut hand = Hand::ready("proxy");
        hand.candidate();
        hand.start();
        hand.says(2, "STATUS=serving\nREADY=1");
        hand.says(1, "STATUS=draining\nSTOPPING=1");
        assert_eq!(&*hand.unit.status, "serving");
    }

    #[test]
    fn a_new_proxy_is_ready_before_the_old_one_is_told() {
        let mut hand = Hand::ready("proxy");
        hand.candidate();
        assert_eq!((hand.start(), hand.signals()), (Some(Role::Next), vec![]));
        assert_eq!((hand.start(), hand.unit.state()), (None, "ready"));
        hand.says(2, "READY=1");
        assert_eq!(hand.signals(), [(1, Signal::SIGTERM)]);
        assert_eq!(hand.unit.current().unwrap().pid.as_raw(), 2);
        assert_eq!(hand.unit.build.mark, "new");
    }

    #[test]
    fn a_second_roll_waits_until_the_first_has_drained() {
        let mut hand = Hand::ready("proxy");
        hand.candidate();
        hand.start();
        hand.says(2, "READY=1");
        assert_eq!(hand.signals(), [(1, Signal::SIGTERM)]);
        hand.candidate();
        assert_eq!((hand.start(), hand.after(34_999)), (None, vec![]), "what drains has all its time");
        assert_eq!(hand.after(1), [(1, Signal::SIGKILL)]);
        hand.dies(1);
        assert_eq!(hand.start(), Some(Role::Next));
        hand.says(3, "READY=1");
        assert_eq!(hand.signals(), [(2, Signal::SIGTERM)]);
        assert_eq!((hand.unit.state(), hand.unit.restarts.total), ("ready", 0));
    }

    #[test]
    fn a_proxy_that_others_tell_to_stop_is_replaced_while_it_drains() {
        let mut hand = Hand::ready("proxy");
        hand.says(1, "STOPPING=1");
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "old"));
        hand.says(2, "READY=1");
        assert_eq!((hand.unit.state(), hand.signals()), ("ready", vec![]), "the old one drains on");
        hand.says(2, "STOPPING=1");
        assert_eq!((hand.start(), hand.unit.state()), (None, "waiting"), "over and over it is a crash loop");
        hand.after(100);
        assert_eq!(hand.start(), Some(Role::Current));
        hand.dies(1);
        hand.dies(2);
        assert_eq!((hand.start(), hand.unit.restarts.total), (None, 2), "each counts once");
        hand.unit.stop(Duration::from_secs(60), None);
        hand.says(3, "STOPPING=1");
        assert_eq!((hand.start(), hand.unit.current().unwrap().pid.as_raw()), (None, 3));
    }

    #[test]
    fn one_that_leaves_over_and_over_is_failed_with_the_reason() {
        let mut hand = Hand::ready("proxy");
        for pid in 1.. {
            hand.says(pid, "STOPPING=1");
            assert!(hand.unit.reason.contains("it leaves"), "{}", hand.unit.reason);
            hand.dies(pid);
            if hand.unit.restarts.failed {
                break;
            }
            hand.now = hand.unit.start_at.unwrap();
            assert_eq!(hand.start(), Some(Role::Current));
            hand.says(pid + 1, "READY=1");
        }
        assert_eq!(hand.unit.state(), "failed");
    }

    #[test]
    fn a_roll_does_not_wait_for_ever_while_generations_come_and_go() {
        let mut hand = Hand::ready("proxy");
        hand.says(1, "STOPPING=1");
        hand.start();
        hand.says(2, "READY=1");
        hand.candidate();
        assert_eq!(hand.start(), None, "the first drains");
        hand.says(2, "STOPPING=1");
        assert_eq!(
            (hand.start(), &*hand.unit.build.mark),
            (Some(Role::Current), "new"),
            "nothing to wait for"
        );
        assert!(hand.unit.candidate.is_none(), "so the next roll may begin");
        hand.says(3, "STOPPING=1");
        assert_eq!(
            (hand.start(), &*hand.unit.build.mark),
            (Some(Role::Current), "old"),
            "it was never ready"
        );
    }

    #[test]
    fn what_was_never_ready_is_nothing_to_fall_back_to() {
        let mut hand = Hand::ready("procmgr");
        hand.candidate();
        hand.dies(1);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "new"));
        hand.unit.candidate = Some((build("newer"), None));
        hand.dies(2);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "newer"));
        hand.dies(3);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "old"));
    }

    #[test]
    fn a_proxy_that_dies_during_a_roll_is_restarted_and_the_roll_goes_on() {
        let mut hand = Hand::ready("proxy");
        hand.candidate();
        hand.start();
        hand.dies(1);
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "old"));
        hand.says(2, "READY=1");
        assert_eq!((hand.unit.current().unwrap().pid.as_raw(), &*hand.unit.build.mark), (2, "new"));
        let mut hand = Hand::ready("proxy");
        hand.candidate();
        hand.start();
        hand.dies(2);
        assert_eq!((hand.start(), hand.unit.state(), &*hand.unit.build.mark), (None, "ready", "old"));
    }

    #[test]
    fn a_daemon_that_is_down_takes_a_roll_as_a_new_beginning() {
        let mut hand = Hand::ready("proxy");
        for pid in 1..9 {
            hand.dies(pid);
            hand.after(15_000);
            hand.start();
        }
        hand.dies(9);
        assert_eq!(hand.start(), None);
        hand.candidate();
        assert_eq!((hand.start(), &*hand.unit.build.mark), (Some(Role::Current), "new"));
    }

    #[test]
    fn nothing_is_restarted_in_a_stop() {
        let mut hand = Hand::ready("proxy");
        hand.candidate();
        hand.start();
        hand.unit.stop(Duration::from_secs(30), None);
        assert_eq!(hand.signals(), [(1, Signal::SIGTERM), (2, Signal::SIGTERM)]);
        hand.dies(1);
        assert_eq!(hand.after(30_000), [(2, Signal::SIGKILL)]);
        hand.dies(2);
        assert_eq!((hand.start(), hand.unit.state()), (None, "stopped"));
    }

    #[test]
    fn one_that_is_started_only_to_stop_is_told_so_when_it_is_ready() {
        let mut hand = Hand::ready("procmgr");
        hand.dies(1);
        hand.unit.stop(Duration::from_secs(15), Some(Moment::ZERO));
        assert_eq!(hand.start(), Some(Role::Current));
        hand.says(2, "READY=1");
        assert_eq!(hand.signals(), [(2, Signal::SIGTERM)]);
        assert_eq!(hand.after(15_000), [(2, Signal::SIGKILL)], "and has no more time than the stop");
    }

    #[test]
    fn what_a_daemon_leaves_with_us_is_bounded() {
        let mut hand = Hand::ready("proxy");
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        for _ in 0..70 {
            let (from, text) = (Pid::from_raw(1), b"FDSTORE=1\nFDNAME=table".to_vec());
            let message = Message { from, text, fds: vec![fd(), fd()] };
            hand.does(|unit, turn| unit.heard(message, turn));
        }
        assert_eq!(hand.unit.store.len(), MAX_STORE);
        hand.says(1, "FDSTOREREMOVE=1\nFDNAME=other");
        hand.says(1, "FDSTOREREMOVE=1\nFDNAME=ta:ble");
        assert_eq!(hand.unit.store.len(), MAX_STORE);
        hand.says(1, &format!("FDSTOREREMOVE=1\nFDNAME=table\nSTATUS={}", "x".repeat(999)));
        assert_eq!((hand.unit.store.len(), hand.unit.status.len()), (0, MAX_STATUS));
    }

    #[test]
    fn a_daemon_that_says_it_stops_is_held_to_it() {
        let mut hand = Hand::ready("provider");
        hand.says(1, "STOPPING=1");
        assert_eq!((hand.unit.state(), hand.after(5000)), ("stopping", vec![(1, Signal::SIGKILL)]));
        hand.dies(1);
        assert_eq!(hand.start(), Some(Role::Current), "nobody asked it to");
    }
}
