//! What is to be done: a pure function of the desired set, the machines, the drivers and the time. No tick drives it: it runs for
//! an instance after every event that concerns it and when what it waits for is due, and says itself when that is. What it says
//! of one instance depends on no other, so a thousand that idle cost nothing while one is looked at.
//!
//! Invariant: doing what a plan says and asking again at the same time yields nothing more to do for the same instance than
//! what the doing itself made necessary; with nothing changed, nothing is done.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    clock::Ms,
    desired::{Desired, DesiredSet},
    driver::{Drivers, Missing},
    generation::Generation,
    ids::InstanceId,
    overlap::{MOST_DRAINING, is_change},
    sleep::ASLEEP,
    state::{Cause, Machine, Phase, State},
};

/// Whether instances run at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As the provider wants.
    Run,
    /// Everything is stopped and nothing is started.
    StopAll,
}

/// One thing to do with one instance. Each carries what it is done with, so whatever is planned can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Find out what lives.
    Examine,
    /// Start the next generation.
    Start(Arc<Desired>),
    /// Start it beside the one that runs, whose place it is to take.
    StartBeside(Arc<Desired>),
    /// Check a live generation's health.
    Probe(Arc<Generation>),
    /// Tell a live generation to end.
    Stop(Cause, Arc<Generation>),
    /// Have the routed generation finish what it has in hand and end: the next one can't live beside it.
    GiveWay(Cause),
    /// Tell a generation whose place was taken to end.
    Retire(Arc<Generation>),
    /// Kill the shim that doesn't do what it is told.
    Kill(Arc<Generation>),
    /// No next generation is wanted any more, and none lives.
    Abandon,
    /// Plan no start; it rests in this state for this reason.
    Hold(State, String),
    /// Nothing lives and nobody wants it.
    Forget,
}

/// Everything to do now with the instances that were looked at, and when to look at the others of them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What to do.
    pub actions: Vec<(InstanceId, Action)>,
    /// When the passing of time alone will make for something to do; not in here: never.
    pub waits: Vec<(InstanceId, Ms)>,
}

/// What the provider wants of one instance.
#[derive(Clone, Copy)]
enum Want<'a> {
    /// Nobody knows: the provider has never been heard.
    Unknown,
    /// That it be gone.
    Absent,
    /// That it rest.
    Stopped,
    /// That it run.
    Run(&'a Arc<Desired>),
}

enum Step {
    Do(Action),
    Wait(Option<Ms>),
}

/// The plan for these instances. `desired` is `None` while the provider has never been heard, neither now nor before: then
/// nothing is started and nothing is stopped.
pub(crate) fn reconcile<'a>(
    ids: impl IntoIterator<Item = &'a InstanceId>,
    desired: Option<&DesiredSet>,
    machines: &BTreeMap<InstanceId, Machine>,
    drivers: &Drivers,
    mode: Mode,
    now: Ms,
) -> Plan {
    let mut plan = Plan::default();
    for id in ids {
        let wanted = desired.and_then(|set| set.get(id));
        let want = match (mode, desired) {
            (Mode::StopAll, _) => Want::Stopped,
            (Mode::Run, None) => Want::Unknown,
            (Mode::Run, Some(_)) => wanted.map_or(Want::Absent, Want::Run),
        };
        let step = match (machines.get(id), want) {
            (Some(machine), _) => step(machine, want, drivers, now),
            (None, Want::Run(_)) => Step::Do(Action::Examine),
            (None, _) => Step::Wait(None),
        };
        match step {
            Step::Do(action) => plan.actions.push((id.clone(), action)),
            Step::Wait(due) => plan.waits.extend(due.map(|due| (id.clone(), due))),
        }
    }
    plan
}

/// What is to be done with whatever of an instance needs it first, or when that is.
fn step(m: &Machine, want: Want<'_>, drivers: &Drivers, now: Ms) -> Step {
    let mut wait: Option<Ms> = None;
    for step in [drains(m, want, now), next(m, want, drivers, now), own(m, want, drivers, now)] {
        match step {
            Step::Do(action) => return Step::Do(action),
            Step::Wait(due) => wait = wait.into_iter().chain(due).min(),
        }
    }
    Step::Wait(wait)
}

/// Those whose place was taken.
fn drains(m: &Machine, want: Want<'_>, now: Ms) -> Step {
    // What sleeps and must be alone is in the way of its own next start, once that is asked for. What gives way is about to end.
    let in_the_way = m.alone && m.phase == Phase::Idle && m.asleep.is_none() && !m.gives_way;
    let hurry = in_the_way || matches!(want, Want::Absent | Want::Stopped);
    let Some(first) = m.draining.iter().min_by_key(|drain| drain.due()) else { return Step::Wait(None) };
    let ending = m.draining.iter().find(|drain| hurry && !drain.is_ending()).unwrap_or(first);
    let run = Arc::clone(&ending.run);
    match ending.is_ending() {
        true => at(ending.due(), now, Action::Kill(run)),
        false if hurry => Step::Do(Action::Retire(run)),
        false => at(ending.due(), now, Action::Retire(run)),
    }
}

/// The one that is to take the place of the one that runs.
fn next(m: &Machine, want: Want<'_>, drivers: &Drivers, now: Ms) -> Step {
    let Some(next) = m.next.as_deref() else { return Step::Wait(None) };
    match (next.phase, &next.live) {
        (Phase::Up, Some(run)) => up(next, run, want, drivers, now),
        (Phase::Stopping, Some(run)) => at(next.kill_at, now, Action::Kill(Arc::clone(run))),
        (Phase::Launching, _) => Step::Wait(None),
        // The place is about to be free: then what is wanted is judged anew.
        _ if m.phase != Phase::Up => Step::Wait(None),
        _ => match replacement(m, want, drivers, now) {
            Some(desired) if next.tried.as_ref() != Some(&desired.digest) => {
                Step::Do(Action::StartBeside(Arc::clone(desired)))
            }
            Some(desired) => at(next.start_at.unwrap_or(now), now, Action::StartBeside(Arc::clone(desired))),
            None => Step::Do(Action::Abandon),
        },
    }
}

/// What is to be started beside the one that runs, if something is.
fn replacement<'a>(m: &Machine, want: Want<'a>, drivers: &Drivers, now: Ms) -> Option<&'a Arc<Desired>> {
    let (Want::Run(desired), Some(run)) = (want, &m.live) else { return None };
    reason_to_end(m, run, want, drivers, now).is_some_and(|cause| stays(m, cause)).then_some(desired)
}

/// Whether it is left as it is until the next answers. A sick one is, too: the next has not shown that it is better. It is ended
/// first where somebody asked for a restart because it is sick, or nothing was tried beside it yet; but never while a start is on
/// its way.
fn stays(m: &Machine, cause: Cause) -> bool {
    let underway = m.next.as_ref().is_some_and(|next| next.phase != Phase::Idle);
    let worth_it = match m.state {
        State::Running => true,
        State::Unhealthy if m.asked_while_sick => underway,
        State::Unhealthy => cause == Cause::Changed || m.next.is_some(),
        _ => false,
    };
    is_change(cause) && worth_it && (underway || !m.alone)
}

fn own(m: &Machine, want: Want<'_>, drivers: &Drivers, now: Ms) -> Step {
    match (m.phase, &m.live) {
        (Phase::Unknown, _) => Step::Do(Action::Examine),
        (Phase::Examining | Phase::Launching, _) => Step::Wait(None),
        (Phase::Blocked, _) => at(m.recheck_at, now, Action::Examine),
        (Phase::Idle, None) => idle(m, want, drivers, now),
        (Phase::Up, Some(run)) => up(m, run, want, drivers, now),
        (Phase::Stopping, Some(run)) => at(m.kill_at, now, Action::Kill(Arc::clone(run))),
        // What doesn't go together isn't believed: what is on disk decides, and the examination waits for nothing here.
        (Phase::Idle, Some(_)) | (Phase::Up | Phase::Stopping, None) => Step::Do(Action::Examine),
    }
}

fn at(due: Ms, now: Ms, action: Action) -> Step {
    if due <= now { Step::Do(action) } else { Step::Wait(Some(due)) }
}

fn idle(m: &Machine, want: Want<'_>, drivers: &Drivers, now: Ms) -> Step {
    match want {
        Want::Unknown => Step::Wait(None),
        Want::Absent if !m.rests() => Step::Wait(None),
        Want::Absent => Step::Do(Action::Forget),
        Want::Stopped => rest(m, State::Stopped, "all instances have been stopped"),
        Want::Run(desired) => match &desired.problem {
            Some(problem) => rest(m, State::Failed, &format!("cannot run: {problem}")),
            None if sleeps(m, desired) => rest(m, State::Asleep, ASLEEP),
            None => match drivers.of(desired) {
                Err(Missing::Looking) => rest(m, State::Starting, &Missing::Looking.to_string()),
                Err(refused) => rest(m, State::Failed, &format!("cannot run: {refused}")),
                // Its end is news.
                Ok(_) if m.alone && !m.draining.is_empty() => Step::Wait(None),
                Ok(_) if m.restart_asked || m.tried.as_ref() != Some(&desired.digest) => {
                    Step::Do(Action::Start(Arc::clone(desired)))
                }
                Ok(_) => at(m.start_at.unwrap_or(now), now, Action::Start(Arc::clone(desired))),
            },
        },
    }
}

/// Whether it goes on sleeping.
fn sleeps(m: &Machine, desired: &Desired) -> bool {
    m.asleep.as_ref() == Some(&desired.digest) && desired.idle_stop_ms > 0 && !m.restart_asked
}

fn rest(m: &Machine, state: State, reason: &str) -> Step {
    if m.state == state && m.reason == reason && m.start_at.is_none() && m.tells_of_wanted() {
        return Step::Wait(None);
    }
    Step::Do(Action::Hold(state, reason.to_owned()))
}

fn up(m: &Machine, run: &Arc<Generation>, want: Want<'_>, drivers: &Drivers, now: Ms) -> Step {
    match (reason_to_end(m, run, want, drivers, now), want) {
        (Some(cause), Want::Run(desired)) if stays(m, cause) => {
            if m.next.is_none() && m.draining.len() < MOST_DRAINING {
                return Step::Do(Action::StartBeside(Arc::clone(desired)));
            }
        }
        (Some(cause), _) if gives_way(m, cause) => return Step::Do(Action::GiveWay(cause)),
        (Some(cause), _) => return Step::Do(Action::Stop(cause, Arc::clone(run))),
        (None, _) => {}
    }
    if !m.probing && m.probe_at <= now {
        return Step::Do(Action::Probe(Arc::clone(run)));
    }
    let probe = (!m.probing).then_some(m.probe_at);
    let deadline = (m.state == State::Starting && m.deadline_at > now).then_some(m.deadline_at);
    Step::Wait(probe.into_iter().chain(deadline).min())
}

/// Whether it is let finish what it has in hand before it ends for the next one, which can't live beside it.
fn gives_way(m: &Machine, cause: Cause) -> bool {
    let alone = m.alone && m.next.is_none() && m.draining.len() < MOST_DRAINING;
    is_change(cause) && alone && m.routed()
}

/// Only what could be started again is ended for being sick: of anything else, a sick one is better than none.
fn reason_to_end(m: &Machine, run: &Generation, want: Want<'_>, drivers: &Drivers, now: Ms) -> Option<Cause> {
    let desired = match want {
        Want::Unknown => return None,
        Want::Absent => return Some(Cause::Removed),
        Want::Stopped => return Some(Cause::StopAll),
        Want::Run(desired) => desired,
    };
    let startable = desired.problem.is_none() && drivers.of(desired).is_ok();
    if !startable || m.held_back.is_some() {
        return None;
    }
    if run.digest != desired.digest {
        return Some(Cause::Changed);
    }
    if m.restart_asked {
        return Some(Cause::Restart);
    }
    match m.state {
        State::Unhealthy => Some(Cause::Unhealthy),
        State::Starting if m.deadline_at <= now => Some(Cause::NeverHealthy),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::collections::BTreeSet;

    use nexushub_proto::provider;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        desired::tests::proto,
        driver,
        overlap::Survivor,
        state::{
            Found,
            tests::{at as time, exit, rules, run},
        },
    };

    const IDS: [&str; 3] = ["a", "b", "c"];

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    fn want(name: &str, release: u8, broken: bool) -> Arc<Desired> {
        let mut instance = proto(name);
        instance.release = format!("/srv/{release}");
        // One of the three is for a box, and has to wait until it is known whether there is any.
        let isolation = if name == "c" { provider::Driver::Auto } else { provider::Driver::Process };
        instance.driver = isolation.into();
        instance.debug_port = if broken { 99_999 } else { 0 };
        Arc::new(Desired::from_proto(instance, 1_000).unwrap())
    }

    /// What really lives, and what has been asked of it.
    #[derive(Default)]
    struct World {
        desired: Option<DesiredSet>,
        machines: BTreeMap<InstanceId, Machine>,
        live: BTreeMap<InstanceId, BTreeMap<u64, String>>,
        launching: BTreeMap<InstanceId, String>,
        examining: Vec<InstanceId>,
        probing: Vec<(InstanceId, u64)>,
        ending: Vec<(InstanceId, u64)>,
        stop_all: bool,
        /// The drivers of this machine are known.
        searched: bool,
        /// Nothing can live side by side.
        apart: bool,
        /// Starts ever.
        starts: u64,
        now: Ms,
    }

    impl World {
        fn mode(&self) -> Mode {
            if self.stop_all { Mode::StopAll } else { Mode::Run }
        }

        fn plan(&self) -> Plan {
            let drivers = if self.searched { driver::tests::with_sandbox(&[]) } else { Drivers::looking() };
            let ids: BTreeSet<_> =
                self.machines.keys().chain(self.desired.iter().flat_map(BTreeMap::keys)).collect();
            let mut machines = self.machines.clone();
            machines.values_mut().for_each(|m| m.alone = self.apart && m.runs().next().is_some());
            reconcile(ids, self.desired.as_ref(), &machines, &drivers, self.mode(), self.now)
        }

        /// When the plan is to be asked for again.
        fn due(&self) -> Option<Ms> {
            self.plan().waits.into_iter().map(|(_, due)| due).min()
        }

        /// Why the plan ends what it ends, if that is all it does.
        fn ends(&self) -> Vec<Cause> {
            let ends = self.plan().actions.into_iter().map(|(_, action)| match action {
                Action::Stop(cause, _) => cause,
                other => panic!("{other:?} is planned"),
            });
            ends.collect()
        }

        /// Does what the plan says until it says nothing more, as the owner task does.
        fn settle(&mut self) {
            for round in 0.. {
                assert!(round < 20, "the plan never ends");
                let plan = self.plan();
                assert!(plan.waits.iter().all(|(_, due)| *due > self.now), "due now, but not done");
                if plan.actions.is_empty() {
                    break;
                }
                plan.actions.into_iter().for_each(|(id, action)| self.act(&id, action));
            }
        }

        fn act(&mut self, id: &InstanceId, action: Action) {
            let now = time(self.now);
            let m = self.machines.entry(id.clone()).or_insert_with(|| Machine::new(now));
            match action {
                Action::Examine => {
                    m.examine();
                    self.examining.push(id.clone());
                }
                Action::Start(desired) => {
                    assert!(m.live.is_none() && m.next.is_none(), "a second generation of {id}");
                    assert!(!self.apart || !self.live.contains_key(id), "a second {id}, which must be alone");
                    assert!(self.searched || id.as_str() != "c", "started before its driver is known");
                    let digest = desired.digest.clone();
                    m.launch(digest.clone(), now);
                    assert!(self.launching.insert(id.clone(), digest).is_none(), "two starts of {id}");
                }
                Action::StartBeside(desired) => {
                    assert!(m.runs_as_it_was() && !self.apart, "{id} is not left as it is");
                    assert!(m.draining.len() < MOST_DRAINING, "{id} has no place for one more");
                    m.start_beside(&desired, now);
                    let digest = desired.digest.clone();
                    assert!(self.launching.insert(id.clone(), digest).is_none(), "two starts of {id}");
                }
                Action::Probe(run) => {
                    m.of(run.number).unwrap().probe();
                    self.probing.push((id.clone(), run.number));
                }
                Action::Stop(cause, run) => {
                    let one = m.of(run.number).unwrap();
                    let kept = one.runs_as_it_was() && !one.asked_while_sick;
                    let better = one.routed() || cause == Cause::Changed && kept;
                    let gap = is_change(cause) && better && !self.apart;
                    assert!(!gap, "{id} is ended before the next answers");
                    one.stop(cause, &rules(), now);
                    self.ending.push((id.clone(), run.number));
                }
                Action::GiveWay(cause) => {
                    assert!(self.apart && m.routed(), "{id} need not end before the next answers");
                    m.give_way(cause, &rules(), now);
                }
                Action::Retire(run) => {
                    m.retire(run.number, &rules(), now);
                    self.ending.push((id.clone(), run.number));
                }
                Action::Kill(run) => match m.of(run.number) {
                    Some(one) => one.kill(&rules(), now),
                    None => m.retire(run.number, &rules(), now),
                },
                Action::Abandon => m.next = None,
                Action::Hold(state, reason) => m.hold(state, &reason, now),
                Action::Forget => {
                    assert!(!self.live.contains_key(id), "forgot a live {id}");
                    self.machines.remove(id);
                }
            }
        }

        fn finish_examining(&mut self, which: u8) {
            let now = time(self.now);
            for id in std::mem::take(&mut self.examining) {
                let m = self.machines.get_mut(&id).unwrap();
                let mut alive: Vec<_> =
                    self.live.get(&id).into_iter().flatten().map(|(n, d)| run(*n, d)).collect();
                // The newest, or the one before it, had answered.
                let counts = alive.len().checked_sub(1 + usize::from(which % 8 > 3 && alive.len() > 1));
                let found = match (counts, which % 4) {
                    (Some(_), 3) => Found::Unproven("its shim does not answer".into()),
                    (Some(at), odd) => {
                        Found::Live { run: alive.remove(at), was_healthy: odd == 1, ending: false }
                    }
                    (None, _) => Found::Nothing(None),
                };
                if !matches!(found, Found::Live { .. }) {
                    alive.clear();
                }
                m.examined(found, 0, &rules(), now);
                let survivors = alive.into_iter().map(|run| Survivor { run, ending: false }).collect();
                m.rejoin(survivors, &rules(), now);
            }
        }

        fn finish_launching(&mut self, fails: bool) {
            let now = time(self.now);
            for (id, digest) in std::mem::take(&mut self.launching) {
                self.starts += 1;
                let number = self.starts;
                let m = self.machines.get_mut(&id).unwrap();
                match (m.launching(), fails) {
                    (Some(one), true) => one.launch_failed(number, "no", &rules(), 0.0, now),
                    (None, true) => continue,
                    (Some(one), false) => one.launched(run(number, &digest), &rules(), now),
                    (None, false) => m.cast_out(run(number, &digest), now),
                }
                if !fails {
                    self.live.entry(id).or_default().insert(number, digest);
                }
            }
        }

        fn finish_probing(&mut self, ok: bool) {
            let now = time(self.now);
            for (id, number) in std::mem::take(&mut self.probing) {
                let Some(m) = self.machines.get_mut(&id) else { continue };
                let beside = m.live.as_ref().is_some_and(|run| run.number != number);
                if let Some(one) = m.of(number) {
                    one.probed(&if ok { Ok(()) } else { Err("no".to_owned()) }, &rules(), now);
                    if beside && one.routed() {
                        m.switch(&rules(), now);
                    }
                }
            }
        }

        /// The newest of it ends.
        fn end(&mut self, id: &InstanceId) {
            let newest = self.live.get(id).and_then(|live| live.keys().last().copied());
            newest.into_iter().for_each(|number| self.end_one(id, number));
        }

        fn end_one(&mut self, id: &InstanceId, number: u64) {
            let Some(live) = self.live.get_mut(id) else { return };
            live.remove(&number);
            if live.is_empty() {
                self.live.remove(id);
            }
            let m = self.machines.get_mut(id).unwrap();
            match m.of(number) {
                Some(one) => one.exited(exit(1), &rules(), 0.0, time(self.now)),
                None => m.draining.retain(|drain| drain.run.number != number),
            }
            if m.phase == Phase::Idle {
                m.succeed();
            }
        }

        fn event(&mut self, kind: u8, which: u8) {
            let name = IDS[usize::from(which) % IDS.len()];
            match kind % 10 {
                0 => {
                    let set = self.desired.get_or_insert_default();
                    set.insert(id(name), want(name, which % 2, which % 7 == 6));
                }
                1 => drop(self.desired.as_mut().and_then(|set| set.remove(&id(name)))),
                2 => self.finish_examining(which),
                3 => self.finish_launching(which.is_multiple_of(3)),
                4 => self.finish_probing(which.is_multiple_of(2)),
                5 => std::mem::take(&mut self.ending).iter().for_each(|(id, n)| self.end_one(id, *n)),
                6 if !self.machines.get(&id(name)).is_some_and(|m| m.phase == Phase::Blocked) => {
                    self.end(&id(name));
                }
                7 => self.now += [1, 500, 2_000, 70_000][usize::from(which) % 4],
                8 => drop(self.machines.get_mut(&id(name)).map(|m| m.ask_restart(time(0)))),
                9 if which.is_multiple_of(16) => self.restart(),
                9 => self.searched = true,
                _ => {}
            }
        }

        /// procmgr is killed and started again: the machines are gone, what lives goes on living. A start under way had
        /// made its process, or not.
        fn restart(&mut self) {
            self.finish_launching(false);
            let ids = self.live.keys().cloned().collect::<Vec<_>>();
            self.machines = ids.into_iter().map(|id| (id, Machine::new(time(self.now)))).collect();
            self.examining.clear();
            self.probing.clear();
            self.ending.clear();
            self.searched = false;
        }

        /// Everything that is under way ends well, over and over, until time passes without news.
        fn converge(&mut self) {
            self.searched = true;
            for _ in 0..40 {
                self.finish_examining(1);
                self.finish_launching(false);
                self.finish_probing(true);
                for (id, number) in std::mem::take(&mut self.ending) {
                    self.end_one(&id, number);
                }
                self.settle();
                self.now += 20_000;
                self.settle();
            }
        }
    }

    proptest! {
        #[test]
        fn no_story_makes_two_generations_of_an_instance_and_every_story_converges(
            events in prop::collection::vec((any::<u8>(), any::<u8>()), 0..120),
            stop_all in any::<bool>(),
            apart in any::<bool>(),
        ) {
            let mut world = World { apart, ..World::default() };
            for (kind, which) in events {
                world.event(kind, which);
                world.settle();
            }
            world.stop_all = stop_all;
            world.converge();
            let wanted: DesiredSet = match (&world.desired, stop_all) {
                (Some(set), false) => set.clone(),
                _ => DesiredSet::new(),
            };
            for (id, desired) in &wanted {
                let m = &world.machines[id];
                if desired.problem.is_none() {
                    prop_assert_eq!(m.state, State::Running, "{} is {:?}: {}", id, m.phase, m.reason);
                    let live: Vec<_> = world.live[id].values().collect();
                    prop_assert_eq!(live, [&desired.digest]);
                }
            }
            if world.desired.is_some() || stop_all {
                let broken = |id: &InstanceId| wanted.get(id).is_some_and(|d| d.problem.is_some());
                for id in world.live.keys() {
                    prop_assert!(wanted.contains_key(id) || broken(id), "{} lives on unwanted", id);
                }
            }
        }
    }

    fn world_running(name: &str) -> World {
        let desired = Some([(id(name), want(name, 0, false))].into());
        let mut world = World { desired, searched: true, ..World::default() };
        world.settle();
        world.finish_examining(0);
        world.settle();
        world.finish_launching(false);
        world.settle();
        world.finish_probing(true);
        world.settle();
        assert_eq!(world.machines[&id(name)].state, State::Running);
        world
    }

    #[test]
    fn with_nothing_changed_nothing_is_done_until_the_next_health_check() {
        let world = world_running("a");
        assert_eq!(world.plan(), Plan { actions: vec![], waits: vec![(id("a"), 10_000)] });
    }

    #[test]
    fn a_provider_that_was_never_heard_starts_and_stops_nothing() {
        let mut world = world_running("a");
        world.desired = None;
        assert_eq!(world.plan().actions, []);
    }

    #[test]
    fn a_new_release_is_started_beside_the_old_generation_which_drains_once_it_answers() {
        let mut world = world_running("a");
        world.desired = Some([(id("a"), want("a", 1, false))].into());
        world.settle();
        world.finish_launching(false);
        world.settle();
        assert_eq!((world.live[&id("a")].len(), world.ending.len()), (2, 0));
        world.finish_probing(true);
        world.settle();
        let m = &world.machines[&id("a")];
        assert_eq!((m.routed(), m.draining.len(), world.ending.len()), (true, 1, 0));
        world.now += rules().drain_ms;
        world.settle();
        assert_eq!(world.ending, [(id("a"), 1)], "at its limit");
    }

    #[test]
    fn a_new_release_that_never_answers_is_tried_again_and_the_old_generation_stays_routed() {
        let mut world = world_running("a");
        world.desired = Some([(id("a"), want("a", 1, false))].into());
        world.settle();
        world.finish_launching(false);
        world.settle();
        world.now += rules().check.start_deadline_ms;
        world.settle();
        assert_eq!(world.ending, [(id("a"), 2)]);
        world.end(&id("a"));
        world.settle();
        assert!(world.machines[&id("a")].routed() && world.launching.is_empty());
        world.now += 2_000;
        world.settle();
        assert_eq!(world.launching.len(), 1);
    }

    #[test]
    fn one_that_is_sick_for_a_moment_is_not_ended_in_favour_of_one_that_never_answered() {
        let mut world = world_running("a");
        world.desired = Some([(id("a"), want("a", 1, false))].into());
        world.settle();
        world.finish_launching(false);
        world.settle();
        // Neither while the next comes up, nor after that has failed.
        for _ in 0..3 {
            world.now += 10_000;
            world.settle();
            world.finish_probing(false);
            world.settle();
        }
        assert_eq!(world.machines[&id("a")].state, State::Unhealthy);
        assert_eq!(world.ending, []);
        world.end(&id("a"));
        world.settle();
        world.now += 1_000;
        world.settle();
        assert_eq!((world.live[&id("a")].len(), world.ending.len()), (1, 0));
        world.finish_probing(true);
        world.settle();
        let m = &world.machines[&id("a")];
        assert!(m.routed() && m.live.as_ref().unwrap().number == 1, "it has recovered");
    }

    #[test]
    fn one_that_is_sick_and_asked_to_start_again_is_ended_at_once_unless_its_next_start_is_on_its_way() {
        let mut world = world_running("a");
        for _ in 0..2 {
            world.now += 10_000;
            world.settle();
            world.finish_probing(false);
        }
        let m = world.machines.get_mut(&id("a")).unwrap();
        assert_eq!(m.state, State::Unhealthy);
        m.ask_restart(time(world.now));
        assert_eq!(world.ends(), [Cause::Restart]);
    }

    /// Generation 1 is sick, and what is to take its place has failed beside it.
    fn sick_beside_one_that_fails() -> World {
        let mut world = world_running("a");
        world.desired = Some([(id("a"), want("a", 1, false))].into());
        world.settle();
        world.finish_launching(false);
        world.settle();
        for _ in 0..2 {
            world.now += 10_000;
            world.settle();
            world.finish_probing(false);
        }
        world.end(&id("a"));
        let m = &world.machines[&id("a")];
        assert_eq!((m.state, m.next.as_ref().unwrap().state), (State::Unhealthy, State::Failed));
        world
    }

    #[test]
    fn a_sick_one_beside_one_that_keeps_failing_is_ended_if_that_is_asked_for_while_it_is_sick() {
        let mut world = sick_beside_one_that_fails();
        assert!(world.plan().actions.is_empty());
        let now = time(world.now);
        world.machines.get_mut(&id("a")).unwrap().ask_restart(now);
        world.settle();
        assert_eq!((world.ending.last(), world.launching.len()), (Some(&(id("a"), 1)), 0));
        world.end(&id("a"));
        world.settle();
        assert_eq!(world.launching.len(), 1, "at once");
    }

    #[test]
    fn a_restart_that_was_asked_for_ends_no_generation_that_was_well_then_or_has_been_since() {
        for while_sick in [false, true] {
            let mut world = sick_beside_one_that_fails();
            let now = time(world.now);
            let m = world.machines.get_mut(&id("a")).unwrap();
            if !while_sick {
                m.probed(&Ok(()), &rules(), now);
            }
            m.ask_restart(now);
            m.probed(&Ok(()), &rules(), now);
            for _ in 0..2 {
                m.probed(&Err("no".into()), &rules(), now);
            }
            assert_eq!((m.state, m.restart_asked), (State::Unhealthy, true));
            let starts = |action: &(InstanceId, Action)| matches!(action.1, Action::StartBeside(_));
            assert!(world.plan().actions.iter().all(starts), "{:?}", world.plan());
        }
    }

    #[test]
    fn a_change_that_is_taken_back_ends_the_next_generation_and_nothing_else() {
        let mut world = world_running("a");
        let before = world.desired.clone();
        world.desired = Some([(id("a"), want("a", 1, false))].into());
        world.settle();
        world.finish_launching(false);
        world.desired = before;
        assert_eq!(world.ends(), [Cause::Changed]);
        world.settle();
        world.end(&id("a"));
        world.settle();
        let m = &world.machines[&id("a")];
        assert!(m.next.is_none() && m.routed());
    }

    #[test]
    fn a_new_release_that_must_be_alone_is_started_when_the_old_generation_has_done_its_work_and_ended() {
        let mut world = World { apart: true, ..world_running("a") };
        world.desired = Some([(id("a"), want("a", 1, false))].into());
        world.settle();
        let m = world.machines.get_mut(&id("a")).unwrap();
        assert_eq!((m.state, m.draining.len(), world.ending.len()), (State::Starting, 1, 0), "it has work");
        m.released(1, "p");
        m.judge_drains(&["p".to_owned()].into());
        world.settle();
        assert_eq!(world.ending, [(id("a"), 1)], "its work is done");
        assert!(world.launching.is_empty());
        world.end(&id("a"));
        world.settle();
        assert_eq!(world.launching.len(), 1);
    }

    #[test]
    fn a_change_that_cannot_run_leaves_the_old_generation_alone() {
        let mut world = world_running("a");
        world.desired = Some([(id("a"), want("a", 1, true))].into());
        assert_eq!(world.plan().actions, []);
    }

    #[test]
    fn one_that_cannot_run_says_why_and_waits_for_a_change() {
        let mut world = World { desired: Some([(id("a"), want("a", 0, true))].into()), ..World::default() };
        world.settle();
        world.finish_examining(0);
        world.settle();
        let m = &world.machines[&id("a")];
        assert_eq!((m.state, m.start_at), (State::Failed, None));
        assert!(m.reason.contains("debug port"), "{}", m.reason);
    }

    #[test]
    fn one_that_needs_a_box_says_that_it_waits_for_the_search_and_starts_when_that_ends() {
        let mut world = World { desired: Some([(id("c"), want("c", 0, false))].into()), ..World::default() };
        world.settle();
        world.finish_examining(0);
        world.settle();
        let m = &world.machines[&id("c")];
        assert_eq!((m.state, m.reason.as_str()), (State::Starting, driver::LOOKING));
        assert_eq!(world.plan(), Plan::default(), "nothing but the search ends the wait");
        world.searched = true;
        world.settle();
        assert_eq!(world.launching.len(), 1);
    }

    #[test]
    fn one_whose_box_cannot_be_made_again_is_not_ended_for_being_sick() {
        let mut world = world_running("c");
        world.searched = false;
        world.now = 10_000;
        world.settle();
        world.finish_probing(false);
        world.now = 11_000;
        world.settle();
        world.finish_probing(false);
        assert_eq!(world.machines[&id("c")].state, State::Unhealthy);
        assert_eq!(world.plan().actions, []);
        world.searched = true;
        assert_eq!(world.ends(), [Cause::Unhealthy]);
    }

    #[test]
    fn the_start_deadline_is_part_of_what_is_due() {
        let mut world = world_running("a");
        world.end(&id("a"));
        world.now += 2_000;
        world.settle();
        world.finish_launching(false);
        world.settle();
        assert_eq!(world.due(), Some(62_000), "the health check is under way");
        world.now = 62_000;
        assert_eq!(world.ends(), [Cause::NeverHealthy]);
    }

    #[test]
    fn stop_all_ends_what_lives_and_starts_nothing() {
        let mut world = world_running("a");
        world.stop_all = true;
        assert_eq!(world.ends(), [Cause::StopAll]);
        world.settle();
        world.end(&id("a"));
        world.settle();
        let m = &world.machines[&id("a")];
        assert_eq!((m.state, m.reason.as_str()), (State::Stopped, "all instances have been stopped"));
        assert_eq!(world.plan(), Plan::default());
    }
}
