//! One instance's state machine. Pure: it is told what happened and when, and `reconcile.rs` reads from it what is to be done.
//!
//! ```text
//!            examined: nothing lives               answers its health check
//!  unknown ───────────────────────────> starting ───────────────────────────> running
//!     │ │                                ^  ^  │  <─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─    │    ^
//!     │ │ examined: a live generation    │  │  │    changed, restart asked,    │    │ answers again
//!     │ └── (running, if it had been) ───┘  │  │    and it has ended           v    │
//!     │                                     │  │                             unhealthy
//!     │ held, but not provably ours         │  │ exits, can't start, never      │
//!     v                          retry due  │  v answers                        v  sick, changed, restart asked,
//!   failed ──(examined again later)       failed <──── exits, if sick ─────── stopping  no longer wanted, stop all
//!                                                                               │
//!                                         stopped <── exits, if not wanted ─────┘
//! ```
//!
//! Where generations can live side by side, a running one that is to change or to be restarted stays as it is until the next one
//! answers, which is a machine like this one (`overlap.rs`).
//!
//! Invariant: a machine has at most one live generation. A start is only ever begun from idle, idle is only ever reached
//! by an exit or by an examination that proved that nothing lives.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::{
    backoff::{Backoff, Policy},
    clock::{Ms, Now},
    desired::Desired,
    exit::Exit,
    generation::Generation,
    health::{Check, Row, Verdict},
    overlap::Drain,
};

/// The state that others see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not looked at yet.
    Unknown,
    /// It runs, its health check has not answered yet.
    Starting,
    /// Its health check answers.
    Running,
    /// Its health check failed often enough.
    Unhealthy,
    /// It has been told to end.
    Stopping,
    /// It ended because it should.
    Stopped,
    /// It ended although it should not have, or could not start.
    Failed,
    /// It ended because nobody asked for it.
    Asleep,
}

/// What procmgr has in hand with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing is known.
    Unknown,
    /// Its folder is being examined.
    Examining,
    /// Something holds its lock and doesn't prove to be ours.
    Blocked,
    /// Nothing lives.
    Idle,
    /// A start is under way.
    Launching,
    /// A generation lives.
    Up,
    /// A generation lives and has been told to end.
    Stopping,
}

/// Why a generation is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The provider no longer wants it.
    Removed,
    /// The platform is being stopped.
    StopAll,
    /// Its release, environment or health check changed.
    Changed,
    /// Somebody asked for it.
    Restart,
    /// It didn't answer before its start deadline.
    NeverHealthy,
    /// It stopped answering.
    Unhealthy,
    /// It was being ended when it was found again.
    Ending,
}

impl Cause {
    /// Whether the instance, rather than somebody's wish, is to blame.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::NeverHealthy | Self::Unhealthy)
    }

    /// Whether no start follows.
    fn is_final(self) -> bool {
        matches!(self, Self::Removed | Self::StopAll)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Removed => "no longer wanted",
            Self::StopAll => "all instances are being stopped",
            Self::Changed => "its release, environment or health check changed",
            Self::Restart => "a restart was asked for",
            Self::NeverHealthy => "its health check did not answer before the start deadline",
            Self::Unhealthy => "its health check keeps failing",
            Self::Ending => "it was already being ended when it was found again",
        })
    }
}

/// What an examination of an instance's folder found.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Nothing lives; how the last generation ended, if there was one.
    Nothing(Option<Exit>),
    /// A live generation, proven ours.
    Live {
        /// The generation.
        run: Arc<Generation>,
        /// Whether its health check had answered before.
        was_healthy: bool,
        /// Whether it has been told to end.
        ending: bool,
    },
    /// Something holds the lock and doesn't prove to be ours.
    Unproven(String),
}

/// One health check's result: `Err` says why it counts as failed.
pub(crate) type Probed = Result<(), String>;

/// The numbers an event is judged by.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Restart policy.
    pub backoff: Policy,
    /// The instance's health check.
    pub check: Check,
    /// From SIGTERM to SIGKILL.
    pub stop_ms: Ms,
    /// Longest time that a generation whose place was taken has for what it has in hand.
    pub drain_ms: Ms,
    /// The same where the next one can't be started before it has ended.
    pub replace_drain_ms: Ms,
    /// Extra time for a shim to report before it is killed itself.
    pub grace_ms: Ms,
}

/// One instance.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// What is in hand.
    pub phase: Phase,
    /// What others see.
    pub state: State,
    /// Why; empty only while running.
    pub reason: String,
    /// The last lines that it logged before it failed, until a start answers or fails without any.
    pub last_words: String,
    /// When `state` was entered, wall clock.
    pub since: i64,
    /// Number of the newest generation ever; 0 = none.
    pub generation: u64,
    /// What lives, while `Up` or `Stopping`.
    pub live: Option<Arc<Generation>>,
    /// The newest that the provider said of it; kept while it ends.
    pub desired: Option<Arc<Desired>>,
    /// How the last generation ended.
    pub last_exit: Option<Exit>,
    /// Starts since the last stable run.
    pub restarts: u32,
    /// One health check failed.
    pub flagged: bool,
    /// Idle: when the next start is due, if it is planned.
    pub start_at: Option<Ms>,
    /// The same on the wall clock, after a failure; 0 = none.
    pub retry_unix: i64,
    /// Blocked: when to examine again.
    pub recheck_at: Ms,
    /// Up: when the next health check is due.
    pub probe_at: Ms,
    /// Up: a health check is under way.
    pub probing: bool,
    /// Up: whose listener answers was judged.
    pub listener_known: bool,
    /// Up and starting: until when it must answer.
    pub deadline_at: Ms,
    /// Stopping: when the shim itself is killed.
    pub kill_at: Ms,
    /// Somebody asked for a restart. It stays until what runs has ended, however often the next one fails beside it.
    pub restart_asked: bool,
    /// It was sick then, and has not answered since: it is to be ended, whatever may follow.
    pub asked_while_sick: bool,
    /// A change is not applied because the new release can't run; says why.
    pub held_back: Option<String>,
    /// The digest that was started last.
    pub tried: Option<String>,
    /// The release that its state is said of: the one that was started last, or can't be.
    told_of: Option<PathBuf>,
    /// Its first health check since it was re-adopted is outstanding.
    pub unprobed: bool,
    /// Up: the generation that is to take its place, beside it.
    pub next: Option<Box<Machine>>,
    /// Generations whose place was taken.
    pub draining: Vec<Drain>,
    /// What is wanted now can't live beside what lives.
    pub alone: bool,
    /// Idle: what lived is finishing what it has in hand, the start waits for its end.
    pub gives_way: bool,
    /// Idle: nobody asked for it; the digest of what sleeps.
    pub asleep: Option<String>,
    /// Up: who has had no request for it for a while, and when that was said.
    pub idle: BTreeMap<String, Ms>,
    cause: Option<Cause>,
    started: Ms,
    /// When its health check answered first; what never did was never stable.
    healthy_from: Option<Ms>,
    attempts: u32,
    row: Row,
    backoff: Backoff,
}

impl Machine {
    /// An instance of which nothing is known.
    pub(crate) fn new(now: Now) -> Self {
        Self {
            phase: Phase::Unknown,
            state: State::Unknown,
            reason: "not looked at yet".into(),
            last_words: String::new(),
            since: now.unix,
            generation: 0,
            live: None,
            desired: None,
            last_exit: None,
            restarts: 0,
            flagged: false,
            start_at: None,
            retry_unix: 0,
            recheck_at: 0,
            probe_at: 0,
            probing: false,
            listener_known: false,
            deadline_at: 0,
            kill_at: 0,
            restart_asked: false,
            asked_while_sick: false,
            held_back: None,
            tried: None,
            told_of: None,
            unprobed: false,
            next: None,
            draining: Vec::new(),
            alone: false,
            gives_way: false,
            asleep: None,
            idle: BTreeMap::new(),
            cause: None,
            started: 0,
            healthy_from: None,
            attempts: 0,
            row: Row::default(),
            backoff: Backoff::default(),
        }
    }

    /// Whether requests may be sent to it.
    pub(crate) fn routed(&self) -> bool {
        self.state == State::Running
    }

    /// Whether it has answered and lives on, however well: then it is better than one that never did.
    pub(crate) fn runs_as_it_was(&self) -> bool {
        matches!(self.state, State::Running | State::Unhealthy)
    }

    /// Whether it was looked at, and what was found answered its first health check or failed it.
    pub(crate) fn looked_at(&self) -> bool {
        !matches!(self.phase, Phase::Unknown | Phase::Examining) && !self.unprobed
    }

    /// The release that runs, or ran last. One that is wanted instead is not told before its start: what is said of the one
    /// before would be taken for its own.
    pub(crate) fn release(&self) -> Option<&PathBuf> {
        let of_live = self.live.as_ref().map(|run| &run.release);
        of_live.or(self.told_of.as_ref()).or_else(|| self.wanted())
    }

    /// Whether what is said of it is said of the release that is wanted.
    pub(crate) fn tells_of_wanted(&self) -> bool {
        self.told_of.as_ref() == self.wanted()
    }

    fn wanted(&self) -> Option<&PathBuf> {
        self.desired.as_ref().map(|desired| &desired.release)
    }

    fn enter(&mut self, state: State, reason: impl Into<String>, now: Now) {
        if self.state != state {
            self.since = now.unix;
        }
        self.state = state;
        self.reason = reason.into();
        self.retry_unix = 0;
    }

    /// An examination of its folder begins: nothing is believed any more of what lives.
    pub(crate) fn examine(&mut self) {
        self.phase = Phase::Examining;
        self.live = None;
        self.told_of = None;
        self.next = None;
        self.draining.clear();
        self.gives_way = false;
    }

    /// An examination ended. `newest` is the highest generation number found.
    pub(crate) fn examined(&mut self, found: Found, newest: u64, rules: &Rules, now: Now) {
        self.generation = self.generation.max(newest);
        match found {
            Found::Nothing(exit) => {
                self.last_exit = exit.or(self.last_exit.take());
                self.phase = Phase::Idle;
                self.start_at = Some(now.mono);
                self.enter(State::Starting, "nothing of it runs; its start is due", now);
            }
            Found::Live { run, was_healthy, ending } => {
                self.found_starting(run, rules, now);
                self.unprobed = true;
                if ending {
                    self.stop(Cause::Ending, rules, now);
                } else if was_healthy {
                    self.healthy_from = Some(self.started);
                    self.enter(State::Running, "", now);
                }
            }
            Found::Unproven(why) => {
                self.phase = Phase::Blocked;
                self.recheck_at = now.mono + rules.backoff.max_ms;
                self.enter(State::Failed, why, now);
            }
        }
    }

    /// A generation was found that had not answered yet.
    pub(crate) fn found_starting(&mut self, run: Arc<Generation>, rules: &Rules, now: Now) {
        let started = now.mono_of_past(run.started_unix);
        self.tried = Some(run.digest.clone());
        self.go_up(run, started, rules, now);
        self.enter(State::Starting, "found alive; its health check has not answered yet", now);
    }

    /// A start of what is wanted, of this digest, begins.
    pub(crate) fn launch(&mut self, digest: String, now: Now) {
        self.told_of = self.wanted().cloned();
        if self.tried.as_ref().is_some_and(|tried| *tried != digest) {
            self.clear_failures();
        }
        self.tried = Some(digest);
        self.phase = Phase::Launching;
        self.restart_done();
        self.held_back = None;
        self.asleep = None;
        self.gives_way = false;
        self.start_at = None;
        self.enter(State::Starting, "being started", now);
    }

    /// A start ended well: the process exists.
    pub(crate) fn launched(&mut self, run: Arc<Generation>, rules: &Rules, now: Now) {
        self.go_up(run, now.mono, rules, now);
        self.enter(State::Starting, "started; its health check has not answered yet", now);
    }

    /// A start failed: no process exists. `number` is the generation that it would have been.
    pub(crate) fn launch_failed(&mut self, number: u64, why: &str, rules: &Rules, jitter: f64, now: Now) {
        self.generation = self.generation.max(number);
        self.phase = Phase::Idle;
        self.restarts = self.restarts.saturating_add(1);
        self.last_words.clear();
        let wait = self.backoff.after_run(0, &rules.backoff, jitter);
        self.plan_retry(&format!("could not be started: {why}"), wait, now);
    }

    fn go_up(&mut self, run: Arc<Generation>, started: Ms, rules: &Rules, now: Now) {
        self.phase = Phase::Up;
        self.generation = self.generation.max(run.number);
        self.told_of = Some(run.release.clone());
        self.live = Some(run);
        self.started = started;
        self.healthy_from = None;
        self.attempts = 0;
        self.row = Row::default();
        self.flagged = false;
        self.probing = false;
        self.listener_known = false;
        self.probe_at = now.mono;
        self.deadline_at = now.mono + rules.check.start_deadline_ms;
        self.cause = None;
        self.idle.clear();
    }

    /// A health check is under way.
    pub(crate) fn probe(&mut self) {
        self.probing = true;
    }

    /// A health check ended.
    pub(crate) fn probed(&mut self, result: &Probed, rules: &Rules, now: Now) {
        self.probing = false;
        self.unprobed = false;
        if self.phase != Phase::Up {
            return;
        }
        match (self.state, result) {
            (State::Starting, Err(why)) => {
                self.probe_at = now.mono + rules.check.starting_pause(self.attempts);
                self.attempts = self.attempts.saturating_add(1);
                self.reason = format!("its health check has not answered yet: {why}");
            }
            (_, Ok(())) => self.answered(rules, now),
            (_, Err(why)) => self.unanswered(why, rules, now),
        }
    }

    fn answered(&mut self, rules: &Rules, now: Now) {
        self.row.record(true, rules.check.failures);
        self.flagged = false;
        self.asked_while_sick = false;
        self.listener_known = true;
        self.healthy_from.get_or_insert(now.mono);
        self.probe_at = now.mono + rules.check.interval_ms;
        self.last_words.clear();
        self.enter(State::Running, "", now);
    }

    fn unanswered(&mut self, why: &str, rules: &Rules, now: Now) {
        self.probe_at = now.mono + rules.check.retry_ms;
        self.listener_known = false;
        match self.row.record(false, rules.check.failures) {
            Verdict::Unhealthy => {
                self.flagged = false;
                self.enter(State::Unhealthy, format!("its health check fails: {why}"), now);
            }
            Verdict::Flagged | Verdict::Healthy => {
                self.flagged = true;
                self.reason = format!("one health check failed: {why}");
            }
        }
    }

    /// It is told to end.
    pub(crate) fn stop(&mut self, cause: Cause, rules: &Rules, now: Now) {
        self.phase = Phase::Stopping;
        self.flagged = false;
        self.unprobed = false;
        self.kill_at = now.mono + rules.stop_ms + rules.grace_ms;
        let reason = match cause {
            Cause::Unhealthy | Cause::NeverHealthy => format!("{cause}; {}", self.reason),
            _ => cause.to_string(),
        };
        self.cause = Some(cause);
        if cause == Cause::Restart {
            self.clear_failures();
        }
        self.restart_done();
        self.enter(State::Stopping, reason, now);
        if matches!(cause, Cause::Changed | Cause::Restart) {
            self.retry_unix = now.unix; // requests may wait: the next generation follows at once
        }
    }

    /// A start follows as soon as it can.
    pub(crate) fn announce_start(&mut self, reason: &str, now: Now) {
        self.start_at = Some(now.mono);
        self.enter(State::Starting, reason, now);
    }

    /// Its shim is killed because it doesn't do what it is told; done again, should that fail.
    pub(crate) fn kill(&mut self, rules: &Rules, now: Now) {
        self.kill_at = now.mono + rules.grace_ms;
        self.reason = "its shim does not answer and is being killed".into();
    }

    /// Its generation ended.
    pub(crate) fn exited(&mut self, exit: Exit, rules: &Rules, jitter: f64, now: Now) {
        let ran_for = (now.mono - self.started).max(0);
        self.phase = Phase::Idle;
        self.live = None;
        self.probing = false;
        self.unprobed = false;
        self.flagged = false;
        let (ended, never_ran) = (exit.to_string(), exit.reason.is_some());
        self.last_words.clone_from(&exit.last_words);
        self.last_exit = Some(exit);
        match self.cause.take() {
            Some(cause) if !cause.is_failure() => {
                self.last_words.clear();
                self.start_at = Some(now.mono);
                // A restart is no stop: nobody who waits for the instance shall take it for one.
                let next = if cause.is_final() { State::Stopped } else { State::Starting };
                self.enter(next, format!("{cause}; it ended"), now);
            }
            failure => {
                let healthy_for = self.healthy_from.map_or(0, |from| now.mono - from);
                let wait = self.backoff.after_run(healthy_for, &rules.backoff, jitter);
                self.restarts =
                    if healthy_for >= rules.backoff.stable_ms { 1 } else { self.restarts.saturating_add(1) };
                let seconds = seconds(ran_for);
                let why = match failure {
                    Some(cause) => format!("{cause}; it was ended after {seconds} s ({ended})"),
                    None if never_ran => ended,
                    None => format!("{ended} after {seconds} s"),
                };
                self.plan_retry(&why, wait, now);
            }
        }
    }

    fn plan_retry(&mut self, why: &str, wait: Ms, now: Now) {
        self.start_at = Some(now.mono + wait);
        let next = if wait == 0 {
            "next start at once".into()
        } else {
            format!("next start in {} s", seconds(wait))
        };
        self.enter(State::Failed, format!("{why}; {next}"), now);
        self.retry_unix = now.unix + wait;
    }

    /// Somebody asks for a restart.
    pub(crate) fn ask_restart(&mut self, now: Now) {
        self.restart_asked = true;
        self.asked_while_sick = self.state == State::Unhealthy;
        self.clear_failures();
        if let Some(next) = &mut self.next {
            next.clear_failures();
            next.start_at = None;
        }
        if self.phase == Phase::Blocked {
            self.recheck_at = now.mono;
        }
    }

    /// It can't be started as the provider wants it, or must not be started any more: nothing is planned.
    pub(crate) fn hold(&mut self, state: State, reason: &str, now: Now) {
        self.start_at = None;
        self.told_of = self.wanted().cloned();
        self.last_words.clear();
        self.enter(state, reason, now);
    }

    fn restart_done(&mut self) {
        (self.restart_asked, self.asked_while_sick) = (false, false);
    }

    fn clear_failures(&mut self) {
        self.last_words.clear();
        self.backoff.reset();
        self.restarts = 0;
    }
}

/// Milliseconds as people read seconds: `0.2`, `4`, `75`.
fn seconds(ms: Ms) -> String {
    if ms < 9_950 && (ms + 50) / 100 % 10 != 0 {
        let tenths = (ms + 50) / 100;
        return format!("{}.{}", tenths / 10, tenths % 10);
    }
    ((ms + 500) / 1_000).to_string()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{config::Config, exit::How};

    pub(crate) fn rules() -> Rules {
        let config = Config::default();
        Rules {
            backoff: config.backoff(),
            check: config.check(),
            stop_ms: 5_000,
            drain_ms: 30_000,
            replace_drain_ms: 2_000,
            grace_ms: 2_000,
        }
    }

    pub(crate) fn at(mono: Ms) -> Now {
        Now { mono, unix: mono + 1_000_000 }
    }

    pub(crate) fn run(number: u64, digest: &str) -> Arc<Generation> {
        Arc::new(Generation { digest: digest.into(), ..Generation::sample(number) })
    }

    pub(crate) fn exit(code: i32) -> Exit {
        let last_words = format!("told to end with {code}");
        Exit { how: How::Code(code), unix_ms: 0, reason: None, out_of_memory: None, last_words }
    }

    fn up(at_ms: Ms) -> Machine {
        let mut m = Machine::new(at(at_ms));
        m.examined(Found::Nothing(None), 0, &rules(), at(at_ms));
        m.launch("d".into(), at(at_ms));
        m.launched(run(1, "d"), &rules(), at(at_ms));
        m
    }

    fn running(at_ms: Ms) -> Machine {
        let mut m = up(at_ms);
        m.probed(&Ok(()), &rules(), at(at_ms));
        m
    }

    #[test]
    fn started_is_not_running_until_the_health_check_answers() {
        let mut m = up(0);
        assert_eq!((m.state, m.routed()), (State::Starting, false));
        m.probed(&Err("refused".into()), &rules(), at(5));
        assert_eq!((m.state, m.probe_at), (State::Starting, 25));
        assert!(m.reason.contains("refused"));
        m.probed(&Ok(()), &rules(), at(30));
        assert_eq!((m.state, m.routed(), m.reason.as_str(), m.probe_at), (State::Running, true, "", 10_030));
    }

    #[test]
    fn one_failed_check_flags_and_still_routes_and_the_second_does_not() {
        let mut m = running(0);
        m.probed(&Err("timeout".into()), &rules(), at(10_000));
        assert_eq!((m.state, m.flagged, m.routed(), m.probe_at), (State::Running, true, true, 11_000));
        m.probed(&Err("timeout".into()), &rules(), at(11_000));
        assert_eq!((m.state, m.routed()), (State::Unhealthy, false));
        m.probed(&Ok(()), &rules(), at(12_000));
        assert_eq!((m.state, m.flagged, m.routed()), (State::Running, false, true));
    }

    #[test]
    fn a_crash_says_how_it_ended_and_when_it_is_tried_again() {
        let mut m = up(0);
        m.exited(exit(3), &rules(), 0.0, at(200));
        assert_eq!(m.state, State::Failed);
        assert_eq!(m.reason, "exited with code 3 after 0.2 s; next start in 2 s");
        assert_eq!((m.start_at, m.restarts), (Some(2_200), 1));
        assert_eq!(m.last_words, "told to end with 3");
        m.launch("d".into(), at(2_200));
        m.launched(run(2, "d"), &rules(), at(2_200));
        m.exited(exit(3), &rules(), 0.0, at(2_300));
        assert_eq!((m.start_at, m.restarts), (Some(6_300), 2));
        m.launch("e".into(), at(6_300));
        assert_eq!(m.last_words, "", "another version said nothing yet");
    }

    #[test]
    fn after_a_stable_run_the_restart_is_at_once() {
        let mut m = running(0);
        m.exited(exit(1), &rules(), 0.0, at(75_000));
        assert_eq!(m.reason, "exited with code 1 after 75 s; next start at once");
        assert_eq!((m.start_at, m.restarts), (Some(75_000), 1));
    }

    #[test]
    fn a_long_run_without_a_healthy_answer_is_not_stable() {
        let mut m = up(0);
        m.stop(Cause::NeverHealthy, &rules(), at(70_000));
        m.exited(exit(0), &rules(), 0.0, at(70_000));
        assert_eq!(m.start_at, Some(72_000));
    }

    #[test]
    fn what_is_stopped_on_purpose_is_no_failure() {
        let mut m = running(0);
        m.stop(Cause::Changed, &rules(), at(50));
        assert_eq!((m.state, m.routed(), m.kill_at), (State::Stopping, false, 7_050));
        assert_ne!(m.retry_unix, 0, "it comes back at once");
        m.exited(exit(0), &rules(), 0.0, at(60));
        assert_eq!((m.state, m.start_at, m.restarts), (State::Starting, Some(60), 0));
        let mut m = running(0);
        m.stop(Cause::Removed, &rules(), at(50));
        assert_eq!(m.retry_unix, 0, "it does not come back");
        m.exited(exit(0), &rules(), 0.0, at(60));
        assert_eq!(m.state, State::Stopped);
    }

    #[test]
    fn an_unhealthy_instance_is_ended_and_waits_like_a_crashed_one() {
        let mut m = running(0);
        m.probed(&Err("status 500".into()), &rules(), at(10));
        m.probed(&Err("status 500".into()), &rules(), at(20));
        m.stop(Cause::Unhealthy, &rules(), at(20));
        assert!(m.reason.contains("status 500"), "{}", m.reason);
        m.exited(exit(0), &rules(), 0.0, at(30));
        assert_eq!((m.state, m.start_at), (State::Failed, Some(2_030)));
    }

    #[test]
    fn a_new_release_does_not_pay_for_the_failures_of_the_old_one() {
        let mut m = up(0);
        for n in 0..4 {
            m.exited(exit(1), &rules(), 0.0, at(n));
            m.launch("d".into(), at(n));
            m.launched(run(2, "d"), &rules(), at(n));
        }
        m.exited(exit(1), &rules(), 0.0, at(10));
        m.launch("e".into(), at(10));
        assert_eq!(m.restarts, 0);
        m.launch_failed(7, "no bin/app", &rules(), 0.0, at(10));
        assert_eq!((m.start_at, m.generation), (Some(2_010), 7));
        assert_eq!(m.reason, "could not be started: no bin/app; next start in 2 s");
    }

    #[test]
    fn an_adopted_instance_that_was_healthy_is_running_and_its_first_check_is_awaited() {
        let mut m = Machine::new(at(0));
        m.examine();
        m.examined(Found::Live { run: run(4, "d"), was_healthy: true, ending: false }, 4, &rules(), at(0));
        assert_eq!((m.state, m.generation, m.looked_at()), (State::Running, 4, false));
        m.probed(&Err("busy".into()), &rules(), at(1));
        assert_eq!((m.state, m.flagged, m.looked_at()), (State::Running, true, true));
    }

    #[test]
    fn seconds_are_short() {
        assert_eq!(
            [0, 40, 200, 1_949, 2_000, 9_900, 75_400].map(seconds),
            ["0", "0", "0.2", "1.9", "2", "9.9", "75"]
        );
    }
}
