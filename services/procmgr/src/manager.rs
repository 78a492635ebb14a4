//! The owner task: it alone holds the machines, the ports and the desired set. An event comes in, the machine concerned is told,
//! the plan for it is asked for and done, what changed is published. It never waits for anything but the next event or due time. Of
//! the file system it looks at no more than a release that is to replace a running one (`Drivers::judge`), and it renames the
//! folders of instances that are gone (`Effects::sweep`); whatever reads, writes or deletes more is done beside it.

mod event;
mod orders;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use crate::{
    adopt::Examination,
    agenda::Agenda,
    clock::{Clock, Ms, Now},
    config::Config,
    desired::{Desired, DesiredSet},
    driver::{self, Drivers},
    effects::Effects,
    exit::Exit,
    generation::{Failure, Generation},
    health::Check,
    holders::Holders,
    ids::InstanceId,
    orders::Orders,
    ports::Ports,
    reconcile::{Action, Mode, Plan, reconcile},
    state::{Machine, Phase, Probed, Rules, State},
    table::{self, Table},
};

pub(crate) use self::event::Event;

/// Extra time for a shim to report an end before it is killed itself.
const GRACE_MS: Ms = 2_000;

/// What the owner task starts from.
pub(crate) struct Start {
    /// `[procmgr]`.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// Where statuses are published.
    pub table: Table,
    /// Who sends requests to generations.
    pub holders: Holders,
    /// What was ordered when procmgr ran last.
    pub orders: Orders,
    /// What was desired when procmgr ran last.
    pub desired: Option<DesiredSet>,
    /// The instances that have a folder.
    pub known: Vec<InstanceId>,
    /// Whether instances run at all.
    pub mode: Mode,
    /// Tells the parent, in a line for people, what is going on.
    pub announce: Box<dyn Fn(&str) + Send>,
}

/// The owner of all state.
pub(crate) struct Manager<E: Effects> {
    config: Config,
    check: Check,
    clock: Clock,
    table: Table,
    holders: Holders,
    orders: Orders,
    effects: E,
    desired: Option<DesiredSet>,
    machines: BTreeMap<InstanceId, Machine>,
    ports: Ports,
    drivers: Drivers,
    mode: Mode,
    reconciled: bool,
    /// They may have changed since their status was published and their plan made.
    touched: BTreeSet<InstanceId>,
    /// When to look again at those that nothing touches.
    agenda: Agenda,
    stopped: u32,
    waiting: Vec<oneshot::Sender<u32>>,
    announce: Box<dyn Fn(&str) + Send>,
    /// What was announced last.
    said: String,
}

impl<E: Effects> Manager<E> {
    /// Nothing is done yet.
    pub(crate) fn new(start: Start, effects: E) -> Self {
        let now = start.clock.now();
        let machines: BTreeMap<_, _> = start.known.into_iter().map(|id| (id, Machine::new(now))).collect();
        let mut manager = Self {
            check: start.config.check(),
            ports: Ports::new(start.config.port_first, start.config.port_last),
            drivers: Drivers::looking(),
            config: start.config,
            clock: start.clock,
            table: start.table,
            holders: start.holders,
            orders: start.orders,
            effects,
            desired: None,
            touched: machines.keys().cloned().collect(),
            agenda: Agenda::default(),
            machines,
            mode: start.mode,
            reconciled: false,
            stopped: 0,
            waiting: Vec::new(),
            announce: start.announce,
            said: String::new(),
        };
        if let Some(set) = start.desired {
            manager.take_desired(set);
        }
        manager
    }

    /// Runs until nobody can send events any more.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        loop {
            let due = self.settle(self.clock.now());
            let timer = async {
                match due {
                    Some(due) => tokio::time::sleep_until(self.clock.instant(due).into()).await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                event = events.recv() => event,
                () = timer => continue,
            };
            let Some(event) = event else { return };
            self.take(event, self.clock.now());
        }
    }

    /// Does and publishes all that is to be done, and says when to look again.
    fn settle(&mut self, now: Now) -> Option<Ms> {
        loop {
            let mut looked_at = self.publish();
            looked_at.extend(self.agenda.due(now.mono));
            if looked_at.is_empty() {
                self.milestones();
                return self.agenda.next();
            }
            self.judge_room(&looked_at);
            let plan = self.plan(&looked_at, now);
            looked_at.iter().for_each(|id| self.agenda.strike(id));
            for (id, due) in plan.waits {
                self.agenda.enter(id, due);
            }
            for (id, action) in plan.actions {
                self.act(&id, action, now);
            }
        }
    }

    fn plan(&self, ids: &BTreeSet<InstanceId>, now: Now) -> Plan {
        reconcile(ids, self.desired.as_ref(), &self.machines, &self.drivers, self.mode, now.mono)
    }

    /// Tells the machine concerned what happened.
    fn take(&mut self, event: Event, now: Now) {
        match event {
            Event::Desired(set) => self.take_desired(set),
            Event::Drivers(drivers) => self.take_drivers(drivers),
            Event::Examined { id, examination } => self.examined(&id, examination, now),
            Event::Started { id, port, result } => self.started(&id, port, result, now),
            Event::Ended { id, generation, exit } => self.ended(&id, generation, exit, now),
            Event::Probed { id, generation, result } => self.probed(&id, generation, &result, now),
            Event::Released { id, generation, holder } => {
                if let Some(machine) = self.machines.get_mut(&id) {
                    machine.released(generation, &holder);
                }
                self.judge_drains();
            }
            Event::HolderLeft => self.judge_drains(),
            Event::Idle { id, generation, holder } => self.idle(&id, generation, holder, now),
            Event::SleepKept(id) => self.fall_asleep(&id, now),
            Event::Wake(id) => {
                self.machines.get_mut(&id).into_iter().for_each(|machine| machine.wake(now));
                self.touched.insert(id);
            }
            Event::Restart { id, reply, kept } => {
                let _ = reply.send(self.restart(id, kept, now)); // an error says that the caller is gone
            }
            Event::Pause { id, pause, reply, kept } => {
                let _ = reply.send(self.pause(id, pause, kept)); // an error says that the caller is gone
            }
            Event::ListDrivers(reply) => {
                let _ = reply.send(self.drivers.inventory()); // an error says that the caller is gone
            }
            Event::StopAll(reply) => {
                self.mode = Mode::StopAll;
                self.waiting.push(reply);
                self.touched.extend(self.machines.keys().cloned());
            }
        }
    }

    fn take_desired(&mut self, set: DesiredSet) {
        for (id, desired) in &set {
            if let Some(machine) = self.machines.get_mut(id) {
                adjust(machine, desired, &self.drivers);
            }
        }
        self.touched.extend(self.machines.keys().chain(set.keys()).cloned());
        self.desired = Some(set);
    }

    fn take_drivers(&mut self, drivers: Drivers) {
        self.drivers = drivers;
        for machine in self.machines.values_mut() {
            if let Some(desired) = machine.desired.clone() {
                adjust(machine, &desired, &self.drivers);
            }
        }
        self.touched.extend(self.machines.keys().cloned());
    }

    fn examined(&mut self, id: &InstanceId, examination: Examination, now: Now) {
        let rules = self.rules(id);
        let Some(machine) = self.machines.get_mut(id) else { return };
        let Examination { found, newest, beside } = examination;
        machine.examined(found, newest, &rules, now);
        machine.rejoin(beside, &rules, now);
        machine.asleep = self.orders.asleep.get(id).filter(|_| machine.phase == Phase::Idle).cloned();
        machine.restart_asked = self.orders.is_to_go(id, machine.current());
        let lives = machine.live.is_some();
        for run in machine.runs() {
            tracing::info!(instance = %id, generation = run.number, pid = run.pid, endpoint = %run.endpoint, "adopted a live instance");
            run.endpoint.port().into_iter().for_each(|port| self.ports.adopt(port, id));
            self.effects.await_end(run);
        }
        if let Some(desired) = machine.desired.clone() {
            adjust(machine, &desired, &self.drivers);
        }
        if lives {
            self.awake(id);
        }
        self.touched.insert(id.clone());
    }

    fn started(
        &mut self,
        id: &InstanceId,
        port: Option<u16>,
        result: Result<Arc<Generation>, Failure>,
        now: Now,
    ) {
        let jitter = self.effects.jitter();
        let Some(machine) = self.machines.get_mut(id) else { return };
        let rules = rules_of(&self.config, &self.check, machine.launching().as_deref());
        if result.is_err() {
            port.into_iter().for_each(|port| self.ports.release(port, id));
        }
        result.iter().for_each(|run| self.effects.await_end(run));
        match (machine.launching(), result) {
            (Some(machine), Ok(run)) => machine.launched(run, &rules, now),
            (Some(machine), Err(failure)) => {
                machine.launch_failed(failure.number, &failure.why, &rules, jitter, now);
            }
            (None, Ok(run)) => machine.cast_out(run, now),
            (None, Err(_)) => {}
        }
        self.touched.insert(id.clone());
    }

    fn ended(&mut self, id: &InstanceId, generation: u64, exit: Exit, now: Now) {
        let (rules, jitter) = (self.rules(id), self.effects.jitter());
        let Some(machine) = self.machines.get_mut(id) else { return };
        let ended = machine.runs().find(|run| run.number == generation);
        let Some(port) = ended.map(|run| run.endpoint.port()) else { return };
        match machine.of(generation) {
            Some(one) => one.exited(exit, &rules, jitter, now),
            None => machine.drained(generation, exit),
        }
        if machine.phase == Phase::Idle {
            machine.succeed();
        }
        if let Some(port) = port {
            self.ports.release(port, id);
        }
        self.stopped += u32::from(self.mode == Mode::StopAll && machine.rests());
        self.touched.insert(id.clone());
    }

    fn probed(&mut self, id: &InstanceId, generation: u64, result: &Probed, now: Now) {
        let Some(one) = self.machines.get_mut(id).and_then(|machine| machine.of(generation)) else { return };
        let rules = rules_of(&self.config, &self.check, Some(one));
        let before = one.state;
        one.probed(result, &rules, now);
        let answered = before == State::Starting && one.state == State::Running;
        let run = one.live.clone().filter(|_| answered);
        run.iter().for_each(|run| self.effects.mark_healthy(run));
        if let (Some(run), Some(machine)) = (run, self.machines.get_mut(id))
            && machine.live.as_ref().is_some_and(|live| live.number != run.number)
        {
            machine.switch(&rules, now);
            tracing::info!(instance = %id, generation, "a new generation has taken the place of the one before, which drains");
        }
        self.touched.insert(id.clone());
    }

    /// Who could hold what drains has changed.
    fn judge_drains(&mut self) {
        let holders = self.holders.names();
        let draining = self.machines.iter_mut().filter(|(_, machine)| !machine.draining.is_empty());
        for (id, machine) in draining {
            machine.judge_drains(&holders);
            self.touched.insert(id.clone());
        }
    }

    /// Whether what is wanted of these can live beside what lives of them.
    fn judge_room(&mut self, ids: &BTreeSet<InstanceId>) {
        let limits = self.config.app_limits();
        for id in ids {
            let Some(machine) = self.machines.get_mut(id) else { continue };
            let desired = self.desired.as_ref().and_then(|set| set.get(id));
            let Some((desired, driver)) = desired.and_then(|d| Some((d, self.drivers.of(d).ok()?))) else {
                continue;
            };
            let alone = machine.runs().any(|run| !driver::overlaps(run, desired, driver.as_ref(), &limits));
            machine.alone = alone;
        }
    }

    fn act(&mut self, id: &InstanceId, action: Action, now: Now) {
        self.touched.insert(id.clone());
        let rules = self.rules(id);
        let desired = self.desired.as_ref().and_then(|set| set.get(id));
        let machine = self.machines.entry(id.clone()).or_insert_with(|| Machine::new(now));
        if let (None, Some(desired)) = (&machine.desired, desired) {
            machine.desired = Some(Arc::clone(desired));
        }
        match action {
            Action::Examine => {
                machine.examine();
                self.effects.examine(id);
            }
            Action::Start(desired) => {
                machine.desired = Some(Arc::clone(&desired));
                machine.launch(desired.digest.clone(), now);
                self.awake(id);
                self.start(id, &desired, &rules, now);
            }
            Action::StartBeside(desired) => {
                machine.start_beside(&desired, now);
                self.start(id, &desired, &rules, now);
            }
            Action::Hold(state, reason) => machine.hold(state, &reason, now),
            Action::Probe(run) => {
                let Some(one) = machine.of(run.number) else { return };
                one.probe();
                let check = rules_of(&self.config, &self.check, Some(one)).check;
                self.effects.probe(&run, check, !one.listener_known);
            }
            Action::Stop(cause, run) => {
                machine.of(run.number).into_iter().for_each(|one| one.stop(cause, &rules, now));
                self.effects.stop(&run, stop_patience(&rules));
            }
            Action::GiveWay(cause) => machine.give_way(cause, &rules, now),
            Action::Retire(run) => {
                tracing::info!(instance = %id, generation = run.number, "a generation has drained");
                machine.retire(run.number, &rules, now);
                self.effects.stop(&run, stop_patience(&rules));
            }
            Action::Kill(run) => {
                match machine.of(run.number) {
                    Some(one) => one.kill(&rules, now),
                    None => machine.retire(run.number, &Rules { stop_ms: 0, ..rules }, now),
                }
                self.effects.kill(&run);
            }
            Action::Abandon => machine.next = None,
            Action::Forget => self.forget(id),
        }
    }

    fn start(&mut self, id: &InstanceId, desired: &Arc<Desired>, rules: &Rules, now: Now) {
        let started = self.drivers.of(desired).map_err(|missing| missing.to_string());
        let started = started.and_then(|driver| {
            let reserve = || self.ports.reserve(id, |port| self.effects.reserve(port));
            let port = (!driver.boxes()).then(reserve).transpose().map_err(|error| error.to_string())?;
            let number = port.as_ref().map(|(port, _)| *port);
            tracing::info!(instance = %id, driver = driver.name(), port = number, release = %desired.release.display(), "starting an instance");
            self.effects.start(desired, driver, port);
            Ok(())
        });
        let launching = self.machines.get_mut(id).and_then(Machine::launching);
        if let (Err(why), Some(one)) = (started, launching) {
            one.launch_failed(0, &why, rules, self.effects.jitter(), now);
        }
    }

    fn forget(&mut self, id: &InstanceId) {
        self.machines.remove(id);
        self.table.remove(id);
        if self.orders.forget(id) {
            self.effects.keep(&self.orders, None);
        }
        tracing::info!(instance = %id, "an instance is gone");
        let (machines, desired) = (&self.machines, self.desired.as_ref());
        self.effects.sweep(&|name: &str| {
            let id = InstanceId::parse(name);
            id.is_ok_and(|id| machines.contains_key(&id) || desired.is_some_and(|set| set.contains_key(&id)))
        });
    }

    /// Publishes what changed, and logs each transition. Says what may have changed.
    fn publish(&mut self) -> BTreeSet<InstanceId> {
        let touched = std::mem::take(&mut self.touched);
        for id in &touched {
            let Some(machine) = self.machines.get(id) else { continue };
            let driver = machine.desired.as_ref().map_or("", |desired| self.drivers.name(desired));
            let status = table::status(id, machine, driver, self.orders.paused.get(id));
            let before = self.table.get(id).map(|status| status.state);
            if before != Some(status.state) {
                table::log_transition(id, machine);
            }
            self.table.put(id, status);
        }
        touched
    }

    fn milestones(&mut self) {
        let looked_at = || self.machines.values().all(Machine::looked_at);
        if !self.reconciled && self.desired.is_some() && looked_at() {
            self.reconciled = true;
            tracing::info!(
                instances = self.machines.len(),
                elapsed_ms = self.clock.now().mono,
                "first reconcile done"
            );
            self.table.reconciled();
        }
        match self.mode {
            Mode::StopAll => self.stopping(),
            Mode::Run if self.reconciled => {
                let running =
                    self.machines.values().filter(|machine| machine.state == State::Running).count();
                self.say(format!("{running} of {} instances running", self.machines.len()));
            }
            Mode::Run => {}
        }
    }

    fn say(&mut self, text: String) {
        if text != self.said {
            (self.announce)(&text);
            self.said = text;
        }
    }

    /// Says how far the stop of everything has come, and answers when it is done.
    fn stopping(&mut self) {
        let left = self.machines.values().filter(|machine| !machine.rests()).count();
        self.say(format!("stopping every instance, {left} left"));
        if left == 0 {
            for reply in self.waiting.drain(..) {
                let _ = reply.send(self.stopped); // an error says that the caller is gone
            }
        }
    }

    fn rules(&self, id: &InstanceId) -> Rules {
        rules_of(&self.config, &self.check, self.machines.get(id))
    }
}

/// The numbers for one machine. A generation is judged by the health check that it was started with.
fn rules_of(config: &Config, check: &Check, machine: Option<&Machine>) -> Rules {
    let own = machine.and_then(|m| {
        let of_live = m.live.as_ref().and_then(|run| run.health.as_ref());
        of_live.or_else(|| m.desired.as_ref().map(|desired| &desired.health))
    });
    Rules {
        backoff: config.backoff(),
        check: own.map_or_else(|| check.clone(), |own| own.apply(check)),
        stop_ms: config.stop_ms(),
        drain_ms: config.drain_ms.into(),
        replace_drain_ms: config.replace_drain_ms.into(),
        grace_ms: GRACE_MS,
    }
}

fn stop_patience(rules: &Rules) -> Duration {
    Duration::from_millis(u64::try_from(rules.stop_ms).unwrap_or(0))
}

/// Takes over what the provider says of an instance. A change that can't run doesn't end what runs.
fn adjust(machine: &mut Machine, desired: &Arc<Desired>, drivers: &Drivers) {
    let changes = machine.live.as_ref().is_some_and(|run| run.digest != desired.digest);
    machine.held_back = changes.then(|| drivers.judge(desired).err()).flatten();
    machine.desired = Some(Arc::clone(desired));
}

#[cfg(test)]
mod tests;
