//! What lives of an instance beside the generation that is routed: the next one on its way up, and earlier ones on their way down.
//!
//! ```text
//! next      started beside ── answers ──> takes the place of the routed one
//!                 ^  └ exits, never answers: the routed one goes on, a next start is tried after a wait
//!                 └──────────┘
//! routed                        its place is taken ──> draining
//! draining  each proxy has let go of it, or its time is over ──> told to end ──> gone
//! ```
//! A next generation is a machine of its own, with failures and waits of its own. Invariant: at most one start of an instance is
//! under way, one generation is routed, and `MOST_DRAINING` drain; one more change waits until a place is free.

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    clock::{Ms, Now},
    desired::Desired,
    exit::Exit,
    generation::Generation,
    state::{Cause, Machine, Phase, Rules, State},
};

/// Generations of one instance that drain at once.
pub(crate) const MOST_DRAINING: usize = 3;
/// How long after procmgr was started proxies are given to say that they are there, before what drains is stopped.
const SETTLE_MS: Ms = 5_000;

/// A generation whose place was taken.
#[derive(Clone, Debug)]
pub(crate) struct Drain {
    /// The generation.
    pub run: Arc<Generation>,
    /// When it is told to end at the latest, on the wall clock.
    pub until_unix: i64,
    until: Ms,
    not_before: Ms,
    /// Who has let go of it.
    by: BTreeSet<String>,
    /// Everybody who could hold it has let go of it.
    released: bool,
    /// It was told to end; when its shim itself is killed.
    kill_at: Option<Ms>,
}

impl Drain {
    pub(crate) fn new(run: Arc<Generation>, limit: Ms, not_before: Ms, now: Now) -> Self {
        Self {
            run,
            until_unix: now.unix + limit,
            until: now.mono + limit,
            not_before: now.mono + not_before,
            by: BTreeSet::new(),
            released: false,
            kill_at: None,
        }
    }

    /// Whether it was told to end.
    pub(crate) fn is_ending(&self) -> bool {
        self.kill_at.is_some()
    }

    /// Its time is over by then, if it was to have more.
    fn shorten(&mut self, limit: Ms, now: Now) {
        self.until = self.until.min(now.mono + limit);
        self.until_unix = self.until_unix.min(now.unix + limit);
    }

    /// When something is to be done with it: told to end, or killed.
    pub(crate) fn due(&self) -> Ms {
        self.kill_at.unwrap_or(if self.released { self.not_before.min(self.until) } else { self.until })
    }

    /// It is told to end, or its shim is killed.
    pub(crate) fn end(&mut self, patience: Ms, now: Now) {
        self.kill_at = Some(now.mono + patience);
    }
}

/// A generation that was found again beside the one that counts.
#[derive(Clone, Debug)]
pub(crate) struct Survivor {
    /// The generation.
    pub run: Arc<Generation>,
    /// Whether it has been told to end.
    pub ending: bool,
}

impl Machine {
    /// The start of the next generation begins, beside this one. Of another digest it is another machine: it may fail before it
    /// has a number, and that of the one tried before it would be told as its own.
    pub(crate) fn start_beside(&mut self, desired: &Arc<Desired>, now: Now) {
        self.next.take_if(|next| next.tried.as_ref() != Some(&desired.digest));
        let next = self.next.get_or_insert_with(|| Box::new(Machine::new(now)));
        next.desired = Some(Arc::clone(desired));
        next.launch(desired.digest.clone(), now);
    }

    /// The machine of a start under way.
    pub(crate) fn launching(&mut self) -> Option<&mut Machine> {
        if self.phase == Phase::Launching {
            return Some(self);
        }
        self.next.as_deref_mut().filter(|next| next.phase == Phase::Launching)
    }

    /// The machine of a live generation that doesn't drain.
    pub(crate) fn of(&mut self, number: u64) -> Option<&mut Machine> {
        let is = |machine: &Machine| machine.live.as_ref().is_some_and(|run| run.number == number);
        if is(self) {
            return Some(self);
        }
        self.next.as_deref_mut().filter(|next| is(next))
    }

    /// The generation that counts: the one that lives, else the newest that there was.
    pub(crate) fn current(&self) -> u64 {
        self.live.as_ref().map_or(self.generation, |run| run.number)
    }

    /// Everything of it that lives.
    pub(crate) fn runs(&self) -> impl Iterator<Item = &Arc<Generation>> {
        let next = self.next.as_deref().and_then(|next| next.live.as_ref());
        self.live.iter().chain(next).chain(self.draining.iter().map(|drain| &drain.run))
    }

    /// The next generation answers: it takes the place of this one, which drains from now on.
    pub(crate) fn switch(&mut self, rules: &Rules, now: Now) {
        let old = self.live.take();
        self.succeed();
        self.draining.extend(old.map(|run| Drain::new(run, rules.drain_ms, 0, now)));
    }

    /// What lives drains, and nothing takes its place yet.
    pub(crate) fn let_go(&mut self, limit: Ms, now: Now) {
        self.draining.extend(self.live.take().map(|run| Drain::new(run, limit, 0, now)));
        self.phase = Phase::Idle;
        self.flagged = false;
        self.probing = false;
        self.unprobed = false;
    }

    /// The next generation can't live beside this one: it has a short time for what it has in hand, since requests wait
    /// meanwhile, and the start waits for its end.
    pub(crate) fn give_way(&mut self, cause: Cause, rules: &Rules, now: Now) {
        let limit = rules.drain_ms.min(rules.replace_drain_ms);
        self.let_go(limit, now);
        self.draining.iter_mut().for_each(|drain| drain.shorten(limit, now));
        self.gives_way = true;
        self.announce_start(&format!("{cause}; the generation before finishes what it has in hand"), now);
    }

    /// This generation is gone: the next one, if there is one, counts from now on, however far it is.
    pub(crate) fn succeed(&mut self) {
        let Some(next) = self.next.take() else { return };
        let old = std::mem::replace(self, *next);
        self.generation = self.generation.max(old.generation);
        self.desired = old.desired.or(self.desired.take());
        self.last_exit = self.last_exit.take().or(old.last_exit);
        self.draining = old.draining;
        self.alone = old.alone;
    }

    /// What else was found alive: a newer one is on its way up, older ones drain.
    pub(crate) fn rejoin(&mut self, survivors: Vec<Survivor>, rules: &Rules, now: Now) {
        for Survivor { run, ending } in survivors {
            let newer = self.live.as_ref().is_some_and(|live| live.number < run.number);
            if newer && !ending && self.next.is_none() {
                let mut next = Machine::new(now);
                next.found_starting(run, rules, now);
                self.next = Some(Box::new(next));
            } else {
                self.generation = self.generation.max(run.number);
                let mut drain = Drain::new(run, rules.drain_ms, SETTLE_MS, now);
                if ending {
                    drain.end(rules.stop_ms + rules.grace_ms, now);
                }
                self.draining.push(drain);
            }
        }
    }

    /// A generation that nobody waits for is ended like one that has drained.
    pub(crate) fn cast_out(&mut self, run: Arc<Generation>, now: Now) {
        self.draining.push(Drain::new(run, 0, 0, now));
    }

    /// A generation that drains is told to end, or is to be killed.
    pub(crate) fn retire(&mut self, number: u64, rules: &Rules, now: Now) {
        let drain = self.draining.iter_mut().find(|drain| drain.run.number == number);
        drain.into_iter().for_each(|drain| drain.end(rules.stop_ms + rules.grace_ms, now));
    }

    /// A generation that drained has ended. That of one which gave way is how the instance ended last.
    pub(crate) fn drained(&mut self, number: u64, exit: Exit) {
        self.draining.retain(|drain| drain.run.number != number);
        if self.gives_way && number == self.generation {
            self.last_exit = Some(exit);
        }
    }

    /// Somebody has let go of a generation.
    pub(crate) fn released(&mut self, number: u64, holder: &str) {
        if let Some(drain) = self.draining.iter_mut().find(|drain| drain.run.number == number) {
            drain.by.insert(holder.to_owned());
        }
    }

    /// Judges what drains by who could hold it now.
    pub(crate) fn judge_drains(&mut self, holders: &BTreeSet<String>) {
        for drain in &mut self.draining {
            drain.released = !drain.by.is_empty() && holders.is_subset(&drain.by);
        }
    }

    /// What a next generation has come to, where that is worth telling of one that runs.
    pub(crate) fn trouble(&self) -> Option<String> {
        let next = self.next.as_deref()?;
        let failed = next.state == State::Failed || next.restarts > 0;
        failed.then(|| format!("runs as it was; the next generation: {}", next.reason))
    }

    /// Whether nothing of it lives or is being started.
    pub(crate) fn rests(&self) -> bool {
        let idle = matches!(self.phase, Phase::Idle | Phase::Blocked);
        idle && self.next.is_none() && self.draining.is_empty()
    }
}

/// Whether a generation is ended for a change that another would follow without a gap.
pub(crate) fn is_change(cause: Cause) -> bool {
    matches!(cause, Cause::Changed | Cause::Restart)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::{
        Found,
        tests::{at, exit, rules, run},
    };

    fn wanted(digest: &str) -> Arc<Desired> {
        let proto = crate::desired::tests::proto("a");
        Arc::new(Desired { digest: digest.into(), ..Desired::from_proto(proto, 1_000).unwrap() })
    }

    /// Generation 1 runs `d`, generation 2 of `e` was started beside it.
    fn overlapping() -> Machine {
        let mut m = Machine::new(at(0));
        m.examined(Found::Live { run: run(1, "d"), was_healthy: true, ending: false }, 1, &rules(), at(0));
        m.start_beside(&wanted("e"), at(10));
        m.launching().unwrap().launched(run(2, "e"), &rules(), at(20));
        m
    }

    fn switched() -> Machine {
        let mut m = overlapping();
        m.of(2).unwrap().probed(&Ok(()), &rules(), at(30));
        m.switch(&rules(), at(30));
        m
    }

    #[test]
    fn the_old_generation_stays_routed_until_the_next_answers_and_then_drains() {
        let m = overlapping();
        assert_eq!((m.routed(), m.live.as_ref().unwrap().number), (true, 1));
        let m = switched();
        assert_eq!((m.routed(), m.live.as_ref().unwrap().number, m.generation), (true, 2, 2));
        assert_eq!(m.draining.iter().map(|drain| drain.run.number).collect::<Vec<_>>(), [1]);
        assert!(m.next.is_none());
    }

    #[test]
    fn what_drains_ends_when_each_holder_has_let_go_of_it_or_its_time_is_over() {
        let mut m = switched();
        let holders = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let limit = 30 + rules().drain_ms;
        m.judge_drains(&holders(&[]));
        assert_eq!(m.draining[0].due(), limit, "nobody is there, as after a start of procmgr");
        m.released(1, "p");
        m.judge_drains(&holders(&["p", "q"]));
        assert_eq!(m.draining[0].due(), limit, "q may still hold it");
        m.judge_drains(&holders(&["p"]));
        assert_eq!(m.draining[0].due(), 30, "q has gone away");
    }

    #[test]
    fn what_gives_way_has_less_time_and_so_has_what_drains_already() {
        let mut m = switched();
        m.give_way(Cause::Restart, &rules(), at(100));
        let until = 100 + rules().replace_drain_ms;
        assert!(until < 30 + rules().drain_ms);
        assert_eq!(m.draining.iter().map(Drain::due).collect::<Vec<_>>(), [until, until]);
        assert_eq!((m.state, m.routed(), m.start_at), (State::Starting, false, Some(100)));
        assert!(m.reason.starts_with("a restart was asked for;"), "{}", m.reason);
        m.drained(2, exit(3));
        m.drained(1, exit(4));
        assert_eq!((m.draining.len(), m.last_exit), (0, Some(exit(3))));
    }

    #[test]
    fn a_next_generation_that_fails_leaves_the_routed_one_as_it_was_and_says_why() {
        let mut m = overlapping();
        m.of(2).unwrap().exited(exit(3), &rules(), 0.0, at(220));
        assert_eq!((m.routed(), m.restarts, m.draining.len()), (true, 0, 0));
        let next = m.next.as_ref().unwrap();
        assert_eq!(
            (next.start_at, next.restarts, next.last_words.as_str()),
            (Some(2_220), 1, "told to end with 3")
        );
        let told = m.trouble().unwrap();
        assert_eq!(
            told,
            "runs as it was; the next generation: exited with code 3 after 0.2 s; next start in 2 s"
        );
    }

    #[test]
    fn what_was_tried_before_it_is_not_said_of_a_next_generation_that_has_no_number_yet() {
        let mut m = overlapping();
        m.of(2).unwrap().exited(exit(3), &rules(), 0.0, at(220));
        for (digest, told) in [("e", (2, 2)), ("f", (0, 1)), ("f", (0, 2))] {
            m.start_beside(&wanted(digest), at(230));
            m.launching().unwrap().launch_failed(0, "no port is free", &rules(), 0.0, at(240));
            let next = m.next.as_ref().unwrap();
            assert_eq!((next.generation, next.restarts), told, "{digest}");
        }
    }

    #[test]
    fn when_the_routed_one_is_gone_first_the_next_counts_however_far_it_is() {
        let mut m = overlapping();
        m.exited(exit(1), &rules(), 0.0, at(25));
        m.succeed();
        assert_eq!((m.state, m.live.as_ref().unwrap().number), (State::Starting, 2));
        assert!(m.last_exit.is_some() && m.rests() == m.next.is_some());
    }

    #[test]
    fn of_two_found_alive_the_newer_goes_on_coming_up_and_older_ones_drain_once_proxies_could_speak() {
        let survivor = |number, ending| Survivor { run: run(number, "x"), ending };
        let mut m = Machine::new(at(0));
        let live = Found::Live { run: run(5, "d"), was_healthy: true, ending: false };
        m.examined(live, 6, &rules(), at(0));
        m.rejoin(vec![survivor(6, false), survivor(4, false), survivor(3, true)], &rules(), at(0));
        assert_eq!(m.next.as_ref().unwrap().live.as_ref().unwrap().number, 6);
        m.released(4, "p");
        m.judge_drains(&["p".to_owned()].into());
        assert_eq!(m.draining.iter().map(Drain::due).collect::<Vec<_>>(), [SETTLE_MS, 7_000]);
        assert_eq!(m.draining.iter().map(Drain::is_ending).collect::<Vec<_>>(), [false, true]);
    }
}
