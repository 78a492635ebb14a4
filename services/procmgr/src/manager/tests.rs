//! The owner task with effects that only note what they were asked for.
#![allow(clippy::unwrap_used)]

use std::{
    io,
    sync::{Mutex, PoisonError},
};

use nexushub_proto::{
    procmgr::{State as Shown, endpoint::Kind},
    provider,
};

use super::*;
use crate::{
    desired::tests::proto,
    driver::{Driver, LOOKING, tests::with_sandbox, tests::without_boxes},
    effects::Kept,
    error::ProcmgrError,
    generation::Endpoint,
    health::Check,
    orders::Pause,
    state::Found,
};

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<String>>>);

impl Notes {
    fn add(&self, text: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Fake(Notes);

impl Effects for Fake {
    type Reservation = ();
    fn reserve(&self, _: u16) -> io::Result<()> {
        Ok(())
    }
    fn examine(&self, id: &InstanceId) {
        self.0.add(format!("examine {id}"));
    }
    fn start(&self, desired: &Arc<Desired>, driver: Arc<dyn Driver>, port: Option<(u16, ())>) {
        let port = port.map_or_else(|| driver.name().to_owned(), |(port, ())| port.to_string());
        self.0.add(format!("start {} {port}", desired.id));
    }
    fn await_end(&self, run: &Arc<Generation>) {
        self.0.add(format!("await {}", run.number));
    }
    fn probe(&self, run: &Arc<Generation>, _: Check, judge: bool) {
        self.0.add(format!("probe {} {judge}", run.number));
    }
    fn mark_healthy(&self, run: &Arc<Generation>) {
        self.0.add(format!("healthy {}", run.number));
    }
    fn stop(&self, run: &Arc<Generation>, deadline: Duration) {
        self.0.add(format!("stop {} {}", run.number, deadline.as_millis()));
    }
    fn kill(&self, run: &Arc<Generation>) {
        self.0.add(format!("kill {}", run.number));
    }
    fn sweep(&self, known: &dyn Fn(&str) -> bool) {
        self.0.add(format!("sweep {}", known("a")));
    }
    fn keep(&self, orders: &Orders, _: Option<Kept>) {
        self.0.add(format!("keep {}", orders.paused.len()));
    }
    fn keep_asleep(&self, orders: &Orders, id: &InstanceId) {
        self.0.add(format!("keep asleep {}", orders.asleep.contains_key(id)));
    }
    fn jitter(&self) -> f64 {
        0.0
    }
}

struct Stage {
    manager: Manager<Fake>,
    notes: Notes,
    table: Table,
    now: Now,
}

fn id() -> InstanceId {
    InstanceId::parse("a").unwrap()
}

fn set() -> DesiredSet {
    [(id(), Arc::new(Desired::from_proto(proto("a"), 1_000).unwrap()))].into()
}

impl Stage {
    fn new(config: Config, desired: Option<DesiredSet>, known: Vec<InstanceId>, mode: Mode) -> Self {
        let (notes, table) = (Notes::default(), Table::default());
        let start = Start {
            config,
            clock: Clock::start(),
            table: table.clone(),
            holders: Holders::default(),
            orders: Orders::default(),
            desired,
            known,
            mode,
            announce: Box::new(|_| ()),
        };
        let manager = Manager::new(start, Fake(notes.clone()));
        let mut stage = Self { manager, notes, table, now: Now { mono: 0, unix: 1_000_000 } };
        stage.settle();
        stage
    }

    /// Looking at what was touched or due leaves nothing to do that a look at everything would find.
    fn settle(&mut self) {
        self.manager.settle(self.now);
        let ids = self.manager.machines.keys().chain(set().keys()).cloned().collect();
        assert_eq!(self.manager.plan(&ids, self.now).actions, []);
    }

    fn event(&mut self, event: Event) -> Vec<String> {
        self.manager.take(event, self.now);
        self.settle();
        self.notes.take()
    }

    fn wait(&mut self, ms: Ms) -> Vec<String> {
        self.now = Now { mono: self.now.mono + ms, unix: self.now.unix + ms };
        self.settle();
        self.notes.take()
    }

    fn run(&self, number: u64) -> Arc<Generation> {
        Arc::new(Generation {
            digest: set()[&id()].digest.clone(),
            release: set()[&id()].release.clone(),
            endpoint: Endpoint::Port(10_000),
            started_unix: self.now.unix,
            ..Generation::sample(number)
        })
    }

    fn found(&mut self, found: Found) -> Vec<String> {
        self.event(Event::Examined {
            id: id(),
            examination: Examination { found, beside: vec![], newest: 0 },
        })
    }

    fn launched(&mut self, number: u64) -> Vec<String> {
        let result = Ok(self.run(number));
        self.event(Event::Started { id: id(), port: Some(10_000), result })
    }

    fn probed(&mut self, generation: u64, result: Probed) -> Vec<String> {
        self.event(Event::Probed { id: id(), generation, result })
    }

    fn ended(&mut self, generation: u64) -> Vec<String> {
        let exit = crate::state::tests::exit(3);
        self.event(Event::Ended { id: id(), generation, exit })
    }

    fn state(&self) -> Shown {
        self.table.get(&id()).unwrap().state()
    }

    fn reconciled(&self) -> bool {
        self.table.list().1
    }
}

fn running() -> Stage {
    let mut stage = Stage::new(Config::default(), Some(set()), vec![], Mode::Run);
    assert_eq!(stage.notes.take(), ["examine a"]);
    assert_eq!(stage.found(Found::Nothing(None)), ["start a 10000"]);
    assert!(stage.reconciled(), "every instance was looked at");
    assert_eq!(stage.launched(1), ["await 1", "probe 1 true"]);
    assert_eq!(stage.state(), Shown::Starting);
    assert_eq!(stage.probed(1, Ok(())), ["healthy 1"]);
    assert_eq!(stage.state(), Shown::Running);
    stage
}

#[test]
fn a_desired_instance_is_examined_started_and_running_once_its_health_check_answers() {
    let mut stage = running();
    assert_eq!(stage.wait(10_000), ["probe 1 false"]);
}

#[test]
fn without_ever_having_heard_the_provider_what_lives_is_adopted_and_left_alone() {
    let mut stage = Stage::new(Config::default(), None, vec![id()], Mode::Run);
    assert_eq!(stage.notes.take(), ["examine a"]);
    let run = stage.run(7);
    assert_eq!(
        stage.found(Found::Live { run, was_healthy: true, ending: false }),
        ["await 7", "probe 7 true"]
    );
    stage.probed(7, Ok(()));
    assert!(!stage.reconciled(), "the provider was not heard");
    stage.event(Event::Desired(set()));
    assert!(stage.reconciled());
    assert_eq!(stage.state(), Shown::Running);
    assert_eq!(stage.ended(7), Vec::<String>::new());
    assert_eq!(stage.wait(2_000), ["start a 10001"]);
}

#[test]
fn the_first_reconcile_waits_for_the_first_health_check_of_what_was_adopted() {
    let mut stage = Stage::new(Config::default(), Some(set()), vec![id()], Mode::Run);
    let run = stage.run(7);
    stage.found(Found::Live { run, was_healthy: true, ending: false });
    assert_eq!((stage.state(), stage.reconciled()), (Shown::Running, false));
    stage.probed(7, Ok(()));
    assert!(stage.reconciled());
}

#[test]
fn a_machine_that_does_not_go_together_is_examined_anew_once_and_nothing_else_is_done_with_it() {
    for (phase, live) in [(Phase::Up, false), (Phase::Stopping, false), (Phase::Idle, true)] {
        let mut stage = running();
        let machine = stage.manager.machines.get_mut(&id()).unwrap();
        machine.phase = phase;
        machine.live.take_if(|_| !live);
        assert_eq!(stage.wait(99_000), ["examine a"], "{phase:?}");
        assert_eq!(stage.wait(99_000), Vec::<String>::new(), "{phase:?}");
        let run = stage.run(1);
        stage.found(Found::Live { run, was_healthy: true, ending: false });
        assert_eq!(stage.state(), Shown::Running);
    }
}

#[test]
fn news_of_an_older_generation_changes_nothing() {
    let mut stage = running();
    assert_eq!(stage.ended(9), Vec::<String>::new());
    assert_eq!(stage.probed(9, Err("no".into())), Vec::<String>::new());
    assert_eq!(stage.state(), Shown::Running);
}

#[test]
fn a_renamed_host_is_published_without_a_restart() {
    let mut stage = running();
    let mut renamed = proto("a");
    renamed.host_name = "shop".into();
    let set: DesiredSet = [(id(), Arc::new(Desired::from_proto(renamed, 1_000).unwrap()))].into();
    assert_eq!(stage.event(Event::Desired(set)), Vec::<String>::new());
    assert_eq!(stage.table.get(&id()).unwrap().host_name, "shop");
}

#[test]
fn a_changed_release_that_is_not_there_leaves_the_running_one_alone_and_says_so() {
    let mut stage = running();
    let mut changed = proto("a");
    changed.release = "/nonexistent/release".into();
    let set: DesiredSet = [(id(), Arc::new(Desired::from_proto(changed, 1_000).unwrap()))].into();
    assert_eq!(stage.event(Event::Desired(set)), Vec::<String>::new());
    let status = stage.table.get(&id()).unwrap();
    assert!(status.reason.contains("/nonexistent/release"), "{}", status.reason);
    assert_eq!(status.release, "/srv/app/1");
}

/// Another release, which is not there.
fn other() -> Event {
    let wanted = provider::Instance { release: "/srv/other".into(), ..proto("a") };
    Event::Desired([(id(), Arc::new(Desired::from_proto(wanted, 1_000).unwrap()))].into())
}

/// What is published between an event and what is done about it: others see that, too.
fn seen(stage: &mut Stage, event: Event) -> (Shown, String) {
    stage.manager.take(event, stage.now);
    stage.manager.publish();
    let status = stage.table.get(&id()).unwrap();
    stage.manager.touched.insert(id());
    stage.settle();
    (status.state(), status.release)
}

#[test]
fn what_a_release_came_to_is_never_told_as_that_of_the_one_that_is_wanted_instead() {
    let mut stage = running();
    stage.ended(1);
    assert_eq!(seen(&mut stage, other()), (Shown::Failed, "/srv/app/1".to_owned()));
    assert_eq!(
        (stage.state(), stage.notes.take().pop()),
        (Shown::Starting, Some("start a 10001".to_owned()))
    );
    assert_eq!(stage.table.get(&id()).unwrap().release, "/srv/other");

    let mut stage = running();
    stage.ended(1);
    stage.wait(2_000);
    stage.event(other());
    let fails = |number| {
        let result = Err(Failure { number, why: "no room".into() });
        Event::Started { id: id(), port: Some(10_001), result }
    };
    let failed = seen(&mut stage, fails(2));
    assert_eq!(failed, (Shown::Failed, "/srv/app/1".to_owned()), "a start that was under way");

    let wanted = |release: &str| {
        let wanted = provider::Instance { release: release.into(), debug_port: 99_999, ..proto("a") };
        Event::Desired([(id(), Arc::new(Desired::from_proto(wanted, 1_000).unwrap()))].into())
    };
    stage.event(fails(3));
    stage.event(wanted("/srv/1"));
    assert_eq!(seen(&mut stage, wanted("/srv/2")), (Shown::Failed, "/srv/1".to_owned()));
    assert_eq!(stage.table.get(&id()).unwrap().release, "/srv/2", "it can't run, for the same reason");
}

#[test]
fn one_no_longer_wanted_is_stopped_then_forgotten_and_a_hung_shim_is_killed() {
    let mut stage = running();
    assert_eq!(stage.event(Event::Desired(DesiredSet::new())), ["stop 1 5000"]);
    assert_eq!(stage.state(), Shown::Stopping);
    assert_eq!(stage.wait(7_000), ["kill 1"]);
    assert_eq!(stage.wait(1_000), Vec::<String>::new());
    assert_eq!(stage.ended(1), ["sweep false"]);
    assert!(stage.table.get(&id()).is_none());
}

#[test]
fn an_exhausted_range_fails_the_instance_and_is_tried_again() {
    let config = Config { port_first: 10_000, port_last: 10_000, ..Config::default() };
    let mut stage = Stage::new(config, Some(set()), vec![], Mode::Run);
    let other = InstanceId::parse("other").unwrap();
    stage.manager.ports.adopt(10_000, &other);
    stage.found(Found::Nothing(None));
    let status = stage.table.get(&id()).unwrap();
    assert_eq!(status.state(), Shown::Failed);
    assert!(status.reason.contains("10000-10000") && status.reason.contains("(other)"), "{}", status.reason);
    stage.manager.ports.release(10_000, &other);
    stage.notes.take();
    assert_eq!(stage.wait(2_000), ["start a 10000"]);
}

fn boxed() -> DesiredSet {
    let wanted = provider::Instance { driver: provider::Driver::Auto.into(), ..proto("a") };
    [(id(), Arc::new(Desired::from_proto(wanted, 1_000).unwrap()))].into()
}

#[test]
fn one_that_needs_a_box_is_held_until_the_drivers_are_known_and_gets_no_port() {
    let mut stage = Stage::new(Config::default(), Some(boxed()), vec![], Mode::Run);
    stage.notes.take();
    assert_eq!(stage.found(Found::Nothing(None)), Vec::<String>::new());
    let status = stage.table.get(&id()).unwrap();
    assert_eq!((status.state(), status.reason.as_str()), (Shown::Starting, LOOKING));
    assert_eq!(stage.event(Event::Drivers(with_sandbox(&["landlock: no"]))), ["start a sandbox"]);
    let endpoint = Endpoint::Shim("/i/a/g1/shim.sock".into());
    let not_enforced = vec!["landlock: no".to_owned()];
    let digest = boxed()[&id()].digest.clone();
    let run =
        Generation { endpoint, not_enforced, digest, driver: "sandbox".into(), ..Generation::sample(1) };
    let started = Event::Started { id: id(), port: None, result: Ok(Arc::new(run)) };
    assert_eq!(stage.event(started), ["await 1", "probe 1 true"]);
    let status = stage.table.get(&id()).unwrap();
    assert_eq!(status.endpoint.unwrap().kind, Some(Kind::Shim("/i/a/g1/shim.sock".into())));
    assert_eq!((status.driver.as_str(), status.not_enforced), ("sandbox", vec!["landlock: no".to_owned()]));
}

#[test]
fn where_no_box_can_be_made_it_is_refused_with_the_reason_and_never_run_without() {
    let mut stage = Stage::new(Config::default(), Some(boxed()), vec![], Mode::Run);
    stage.notes.take();
    stage.found(Found::Nothing(None));
    let none = without_boxes("user namespaces are switched off");
    assert_eq!(stage.event(Event::Drivers(none)), Vec::<String>::new());
    let status = stage.table.get(&id()).unwrap();
    assert_eq!(status.state(), Shown::Failed);
    assert!(status.reason.contains("user namespaces are switched off"), "{}", status.reason);
    assert_eq!(stage.wait(99_000), Vec::<String>::new(), "only a restart of procmgr looks again");
    let (reply, mut answer) = oneshot::channel();
    stage.event(restart(reply));
    let refusal = answer.try_recv().unwrap().unwrap_err().to_string();
    assert!(refusal.contains("user namespaces are switched off"), "{refusal}");
}

#[test]
fn a_change_to_a_box_leaves_the_running_one_alone_until_it_is_known_that_there_are_boxes() {
    let dir = tempfile::tempdir().unwrap();
    let app = dir.path().join("bin/app");
    std::fs::create_dir_all(app.parent().unwrap()).unwrap();
    std::fs::copy("/bin/true", &app).unwrap();
    let mut stage = running();
    let release = dir.path().display().to_string();
    let wanted = provider::Instance { driver: provider::Driver::Auto.into(), release, ..proto("a") };
    let set: DesiredSet = [(id(), Arc::new(Desired::from_proto(wanted, 1_000).unwrap()))].into();
    assert_eq!(stage.event(Event::Desired(set)), Vec::<String>::new());
    assert!(stage.table.get(&id()).unwrap().reason.contains(LOOKING));
    assert_eq!(stage.event(Event::Drivers(with_sandbox(&[]))), Vec::<String>::new(), "it has work");
    assert_eq!(stage.wait(2_000), ["stop 1 5000"]);
}

fn restart(reply: oneshot::Sender<Result<(), ProcmgrError>>) -> Event {
    Event::Restart { id: id(), reply, kept: oneshot::channel().0 }
}

#[test]
fn a_restart_that_was_asked_for_outlives_procmgr_until_a_newer_generation_runs() {
    let mut stage = running();
    stage.event(restart(oneshot::channel().0));
    let orders = stage.manager.orders.clone();
    for (found, started) in [(1, true), (2, false)] {
        let mut stage = Stage::new(Config::default(), Some(set()), vec![id()], Mode::Run);
        stage.manager.orders = orders.clone();
        stage.notes.take();
        let live = Found::Live { run: stage.run(found), was_healthy: true, ending: false };
        assert_eq!(stage.found(live).contains(&"start a 10001".to_owned()), started, "{found}");
    }
}

#[test]
fn a_restart_is_only_for_what_is_wanted_and_can_run() {
    let mut stage = running();
    let (reply, mut answer) = oneshot::channel();
    assert_eq!(stage.event(restart(reply)), ["keep 0", "start a 10001"]);
    assert!(answer.try_recv().unwrap().is_ok());
    let (reply, mut answer) = oneshot::channel();
    stage.event(Event::Restart {
        id: InstanceId::parse("nobody").unwrap(),
        reply,
        kept: oneshot::channel().0,
    });
    assert!(matches!(answer.try_recv().unwrap(), Err(ProcmgrError::UnknownInstance(_))));
}

/// Generation 1 drains, generation 2 has taken its place; `p` watches.
fn switched() -> (Stage, crate::holders::Presence) {
    let mut stage = running();
    let holder = stage.manager.holders.enter("p".into(), mpsc::channel(1).0);
    let (reply, _) = oneshot::channel();
    stage.event(restart(reply));
    let run = Generation { endpoint: Endpoint::Port(10_001), ..Arc::unwrap_or_clone(stage.run(2)) };
    let started = Event::Started { id: id(), port: Some(10_001), result: Ok(Arc::new(run)) };
    assert_eq!(stage.event(started), ["await 2", "probe 2 true"]);
    let status = stage.table.get(&id()).unwrap();
    assert_eq!((status.generation, status.routed, status.draining.len()), (1, true, 0));
    assert_eq!(status.next.unwrap().generation, 2);
    assert_eq!(stage.probed(2, Ok(())), ["healthy 2"]);
    (stage, holder)
}

fn released(generation: u64, holder: &str) -> Event {
    Event::Released { id: id(), generation, holder: holder.into() }
}

#[test]
fn an_old_generation_is_stopped_when_the_proxy_has_let_go_of_it_and_its_port_is_free_again() {
    let (mut stage, _holder) = switched();
    let status = stage.table.get(&id()).unwrap();
    assert_eq!((status.generation, status.routed, status.next), (2, true, None));
    assert_eq!(status.draining.iter().map(|one| one.generation).collect::<Vec<_>>(), [1]);
    assert_eq!(stage.event(released(2, "p")), Vec::<String>::new(), "which doesn't drain");
    assert_eq!(stage.event(released(1, "p")), ["stop 1 5000"]);
    assert_eq!(stage.wait(7_000), ["kill 1"]);
    assert_eq!(stage.ended(1), Vec::<String>::new());
    assert!(stage.table.get(&id()).unwrap().draining.is_empty());
    assert_eq!(stage.manager.ports.reserve(&id(), Ok).unwrap().0, 10_002, "in turn");
}

#[test]
fn an_old_generation_waits_for_every_proxy_that_is_there_and_for_none_that_is_gone() {
    let (mut stage, _holder) = switched();
    let other = stage.manager.holders.enter("q".into(), mpsc::channel(1).0);
    assert_eq!(stage.event(released(1, "p")), Vec::<String>::new());
    drop(other);
    assert_eq!(stage.event(Event::HolderLeft), ["stop 1 5000"]);
}

fn drowsy() -> DesiredSet {
    let wanted = provider::Instance { idle_stop_ms: 1_000, ..proto("a") };
    [(id(), Arc::new(Desired::from_proto(wanted, 1_000).unwrap()))].into()
}

#[test]
fn one_that_nobody_asks_for_falls_asleep_over_a_restart_of_procmgr_and_is_woken_once() {
    let mut stage = running();
    stage.event(Event::Desired(drowsy()));
    let _holder = stage.manager.holders.enter("p".into(), mpsc::channel(1).0);
    let idle = || Event::Idle { id: id(), generation: 1, holder: "p".into() };
    assert_eq!(stage.event(idle()), ["keep asleep true"]);
    assert_eq!(stage.event(idle()), Vec::<String>::new(), "that is being kept");
    assert_eq!(stage.state(), Shown::Running, "procmgr may be killed before it is");
    assert_eq!(stage.event(Event::SleepKept(id())), Vec::<String>::new());
    assert_eq!(stage.state(), Shown::Asleep);
    assert_eq!(stage.event(released(1, "p")), ["stop 1 5000"]);
    stage.ended(1);
    assert_eq!(stage.wait(99_000), Vec::<String>::new(), "it sleeps");
    let orders = stage.manager.orders.clone();
    assert_eq!(seen(&mut stage, other()), (Shown::Asleep, "/srv/app/1".to_owned()), "the other never ran");
    assert_eq!((stage.state(), stage.notes.take().len()), (Shown::Starting, 2));
    let mut stage = Stage::new(Config::default(), Some(drowsy()), vec![id()], Mode::Run);
    stage.manager.orders = orders;
    stage.notes.take();
    assert_eq!(stage.found(Found::Nothing(None)), Vec::<String>::new());
    assert_eq!(stage.state(), Shown::Asleep);
    assert_eq!(stage.event(Event::Wake(id())), ["keep 0", "start a 10000"]);
    assert_eq!(stage.event(Event::Wake(id())), Vec::<String>::new());
}

#[test]
fn what_changes_before_it_is_kept_that_it_sleeps_does_not_fall_asleep() {
    let mut stage = running();
    stage.event(Event::Desired(drowsy()));
    let _holder = stage.manager.holders.enter("p".into(), mpsc::channel(1).0);
    stage.event(Event::Idle { id: id(), generation: 1, holder: "p".into() });
    stage.event(Event::Desired(set()));
    assert_eq!(stage.event(Event::SleepKept(id())), ["keep 0"]);
    assert_eq!((stage.state(), stage.manager.orders.asleep.len()), (Shown::Running, 0));
}

fn pause(pause: Option<Pause>) -> Event {
    Event::Pause { id: id(), pause, reply: oneshot::channel().0, kept: oneshot::channel().0 }
}

#[test]
fn a_pause_is_kept_and_told_changes_nothing_of_what_runs_and_ends_with_the_instance() {
    let mut stage = running();
    let order = Pause { message: "back at noon".into(), closed: false, since_unix: 7 };
    assert_eq!(stage.event(pause(Some(order.clone()))), ["keep 1"]);
    let status = stage.table.get(&id()).unwrap();
    assert_eq!((status.routed, status.pause.unwrap().message.as_str()), (true, "back at noon"));
    assert_eq!(stage.event(pause(None)), ["keep 0"]);
    assert!(stage.table.get(&id()).unwrap().pause.is_none());
    stage.event(pause(Some(order)));
    stage.event(Event::Desired(DesiredSet::new()));
    assert_eq!(stage.ended(1), ["keep 0", "sweep false"]);
}

#[test]
fn each_generation_is_judged_by_the_health_check_that_it_was_started_with() {
    let mut stage = running();
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("bin")).unwrap();
    std::fs::copy("/bin/true", dir.path().join("bin/app")).unwrap();
    let health = Some(provider::Health { start_deadline_ms: 300, ..Default::default() });
    let wanted = provider::Instance { health, release: dir.path().display().to_string(), ..proto("a") };
    let desired = Arc::new(Desired::from_proto(wanted, 1_000).unwrap());
    let digest = desired.digest.clone();
    assert_eq!(stage.event(Event::Desired([(id(), desired)].into())), ["start a 10001"]);
    let run = Generation { digest, ..Arc::unwrap_or_clone(stage.run(2)) };
    let started = Event::Started { id: id(), port: Some(10_001), result: Ok(Arc::new(run)) };
    assert_eq!(stage.event(started), ["await 2", "probe 2 true"]);
    assert_eq!(stage.wait(300), ["stop 2 5000"], "it had not answered");
    assert!(stage.table.get(&id()).unwrap().routed);
}

#[test]
fn two_generations_that_a_killed_procmgr_left_behind_finish_their_switch() {
    let mut stage = Stage::new(Config::default(), Some(set()), vec![id()], Mode::Run);
    let found = Found::Live { run: stage.run(1), was_healthy: true, ending: false };
    let beside = vec![crate::overlap::Survivor { run: stage.run(2), ending: false }];
    let examination = Examination { found, beside, newest: 2 };
    stage.notes.take();
    let done = stage.event(Event::Examined { id: id(), examination });
    assert_eq!(done, ["await 1", "await 2", "probe 2 true", "probe 1 true"]);
    assert!(stage.table.get(&id()).unwrap().routed);
    stage.probed(2, Ok(()));
    assert_eq!(stage.wait(30_000), ["stop 1 5000", "probe 2 false"]);
}

#[test]
fn stop_all_answers_when_the_last_one_has_ended_and_again_at_once() {
    let mut stage = running();
    let (reply, mut answer) = oneshot::channel();
    assert_eq!(stage.event(Event::StopAll(reply)), ["stop 1 5000"]);
    assert!(answer.try_recv().is_err());
    assert_eq!(stage.ended(1), Vec::<String>::new());
    assert_eq!(answer.try_recv().unwrap(), 1);
    assert_eq!((stage.state(), stage.wait(99_000)), (Shown::Stopped, vec![]));
    let (reply, mut again) = oneshot::channel();
    stage.event(Event::StopAll(reply));
    assert_eq!(again.try_recv().unwrap(), 1);
}

#[test]
fn started_while_the_platform_is_stopped_it_ends_what_lives_and_starts_nothing() {
    let mut stage = Stage::new(Config::default(), Some(set()), vec![id()], Mode::StopAll);
    assert_eq!(stage.notes.take(), ["examine a"]);
    let run = stage.run(7);
    assert_eq!(
        stage.found(Found::Live { run, was_healthy: true, ending: false }),
        ["await 7", "stop 7 5000"]
    );
    assert_eq!(stage.ended(7), Vec::<String>::new());
}

#[test]
fn one_that_is_not_provably_ours_is_failed_and_never_started_beside() {
    let mut stage = Stage::new(Config::default(), Some(set()), vec![], Mode::Run);
    stage.notes.take();
    assert_eq!(stage.found(Found::Unproven("its lock is held".into())), Vec::<String>::new());
    assert_eq!(stage.state(), Shown::Failed);
    assert_eq!(stage.wait(15_000), ["examine a"]);
}
