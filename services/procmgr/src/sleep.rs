//! Instances that nobody asks for: stopped after a time without a request, started by the next one.
//!
//! ```text
//! running ── every proxy says: no request for idle_stop_ms ──> asleep, its generation drains
//! asleep  ── a request comes, its definition changes, a restart is asked for ──> starting
//! ```
//! A request that comes just then loses nothing: the generation is stopped only when every proxy has let go of it. That an
//! instance sleeps is kept, with what of it sleeps (`orders.rs`), before anybody is told.

use std::collections::BTreeSet;

use crate::{
    clock::{Ms, Now},
    generation::Generation,
    overlap::MOST_DRAINING,
    state::{Machine, Phase, Rules, State},
};

/// Why an instance that sleeps is not running.
pub(crate) const ASLEEP: &str = "nobody asked for it; its next request starts it";

impl Machine {
    /// A proxy has had no request for this generation for a while.
    pub(crate) fn said_idle(&mut self, generation: u64, holder: String, now: Now) {
        if self.live.as_ref().is_some_and(|run| run.number == generation) {
            self.idle.insert(holder, now.mono);
        }
    }

    /// What of it may fall asleep: every proxy has said so not long ago, and nothing else is in hand with it.
    pub(crate) fn idle_run(&self, holders: &BTreeSet<String>, now: Now) -> Option<&Generation> {
        let (run, desired) = (self.live.as_ref()?, self.desired.as_ref()?);
        let idle_stop_ms = Ms::from(desired.idle_stop_ms);
        let quiet = self.phase == Phase::Up
            && self.state == State::Running
            && self.next.is_none()
            && !self.restart_asked
            && self.draining.len() < MOST_DRAINING;
        let fresh = |holder| self.idle.get(holder).is_some_and(|said| now.mono - said <= 2 * idle_stop_ms);
        let all = !holders.is_empty() && holders.iter().all(fresh);
        (quiet && all && idle_stop_ms > 0 && run.digest == desired.digest).then_some(run)
    }

    /// It falls asleep: what lives of it drains.
    pub(crate) fn fall_asleep(&mut self, rules: &Rules, now: Now) {
        let Some(run) = &self.live else { return };
        self.asleep = Some(run.digest.clone());
        self.let_go(rules.drain_ms, now);
        self.hold(State::Asleep, ASLEEP, now);
    }

    /// Somebody asks for it.
    pub(crate) fn wake(&mut self, now: Now) {
        if self.asleep.take().is_some() && self.phase == Phase::Idle {
            self.start_at = Some(now.mono);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use super::*;
    use crate::{
        desired::{Desired, tests::proto},
        state::{
            Found,
            tests::{at, rules, run},
        },
    };

    fn running() -> Machine {
        let mut m = Machine::new(at(0));
        m.examined(Found::Live { run: run(1, "d"), was_healthy: true, ending: false }, 1, &rules(), at(0));
        let desired = Desired::from_proto(proto("a"), 1_000).unwrap();
        m.desired = Some(Arc::new(Desired { digest: "d".into(), idle_stop_ms: 1_000, ..desired }));
        m
    }

    fn holders(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn it_is_idle_when_every_proxy_has_said_so_of_this_generation_not_long_ago() {
        let mut m = running();
        m.said_idle(1, "p".into(), at(5_000));
        assert!(m.idle_run(&holders(&["p"]), at(5_000)).is_some());
        assert!(m.idle_run(&holders(&["p", "q"]), at(5_000)).is_none(), "q has requests");
        assert!(m.idle_run(&holders(&[]), at(5_000)).is_none(), "nobody could have any");
        assert!(m.idle_run(&holders(&["p"]), at(7_001)).is_none(), "that was long ago");
        m.said_idle(2, "q".into(), at(5_000));
        assert!(m.idle_run(&holders(&["p", "q"]), at(5_000)).is_none(), "of another generation");
        m.ask_restart(at(5_000));
        assert!(m.idle_run(&holders(&["p"]), at(5_000)).is_none());
    }

    #[test]
    fn one_that_falls_asleep_drains_and_one_that_is_woken_is_started_at_once() {
        let mut m = running();
        m.fall_asleep(&rules(), at(5_000));
        assert_eq!((m.state, m.routed(), m.draining.len()), (State::Asleep, false, 1));
        m.wake(at(6_000));
        assert_eq!((m.asleep.as_ref(), m.start_at), (None, Some(6_000)));
        m.wake(at(7_000));
        assert_eq!(m.start_at, Some(6_000), "one start");
    }
}
