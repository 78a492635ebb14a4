//! The owner task: it alone holds the machines, the ports and the desired set. An event comes in, the machine concerned is told,
//! the plan for it is asked for and done, what changed is published. It never waits for anything but the next event or due time. Of
//! the file system it looks at no more than a release that is to replace a running one (`Drivers::judge`), and it renames the
//! folders of instances that are gone (`Effects::sweep`); whatever reads, writes or deletes more is done beside it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use nexushub_proto::procmgr::ListDriversResponse;
use tokio::sync::{mpsc, oneshot};

use crate::{
    adopt::Examination,
    agenda::Agenda,
    clock::{Clock, Ms, Now},
    config::Config,
    desired::{Desired, DesiredSet},
    driver::{Drivers, Missing},
    effects::Effects,
    error::ProcmgrError,
    exit::Exit,
    generation::{Failure, Generation},
    health::Check,
    ids::InstanceId,
    ports::Ports,
    reconcile::{Action, Mode, Plan, reconcile},
    state::{Found, Machine, Phase, Probed, Rules, State},
    table::{self, Table},
};

/// Extra time for a shim to report an end before it is killed itself.
const GRACE_MS: Ms = 2_000;

/// Whatever happens.
#[derive(Debug)]
pub(crate) enum Event {
    /// The provider says what should exist.
    Desired(DesiredSet),
    /// The search for the drivers of this machine ended.
    Drivers(Drivers),
    /// An examination ended.
    Examined {
        /// Of this instance.
        id: InstanceId,
        /// What it found.
        examination: Examination,
    },
    /// A start ended.
    Started {
        /// Of this instance.
        id: InstanceId,
        /// On the port that was reserved for it, if one was.
        port: Option<u16>,
        /// The live generation, or why there is none.
        result: Result<Arc<Generation>, Failure>,
    },
    /// A generation ended.
    Ended {
        /// Of this instance.
        id: InstanceId,
        /// This one.
        generation: u64,
        /// So.
        exit: Exit,
    },
    /// A health check ended.
    Probed {
        /// Of this instance.
        id: InstanceId,
        /// Of this generation.
        generation: u64,
        /// So.
        result: Probed,
    },
    /// Somebody asks for a restart.
    Restart {
        /// Of this instance.
        id: InstanceId,
        /// The answer.
        reply: oneshot::Sender<Result<(), ProcmgrError>>,
    },
    /// Somebody asks what this machine has of each driver.
    ListDrivers(oneshot::Sender<ListDriversResponse>),
    /// Everything is to be stopped; answered with how many were, when they are.
    StopAll(oneshot::Sender<u32>),
}

/// What the owner task starts from.
pub(crate) struct Start {
    /// `[procmgr]`.
    pub config: Config,
    /// The time.
    pub clock: Clock,
    /// Where statuses are published.
    pub table: Table,
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
            Event::Restart { id, reply } => {
                let _ = reply.send(self.restart(id, now)); // an error says that the caller is gone
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
        let Examination { found, newest } = examination;
        if let Found::Live { run, .. } = &found {
            tracing::info!(instance = %id, generation = run.number, pid = run.pid, endpoint = %run.endpoint, "adopted a live instance");
            run.endpoint.port().into_iter().for_each(|port| self.ports.adopt(port, id));
            self.effects.await_end(run);
        }
        machine.examined(found, newest, &rules, now);
        if let Some(desired) = machine.desired.clone() {
            adjust(machine, &desired, &self.drivers);
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
        let (rules, jitter) = (self.rules(id), self.effects.jitter());
        let Some(machine) = self.machines.get_mut(id) else { return };
        match result {
            Ok(run) => {
                self.effects.await_end(&run);
                machine.launched(run, &rules, now);
            }
            Err(failure) => {
                port.into_iter().for_each(|port| self.ports.release(port, id));
                machine.launch_failed(failure.number, &failure.why, &rules, jitter, now);
            }
        }
        self.touched.insert(id.clone());
    }

    fn ended(&mut self, id: &InstanceId, generation: u64, exit: Exit, now: Now) {
        let (rules, jitter) = (self.rules(id), self.effects.jitter());
        let Some(machine) = self.live(id, generation) else { return };
        let port = machine.live.as_ref().and_then(|run| run.endpoint.port());
        machine.exited(exit, &rules, jitter, now);
        self.stopped += u32::from(self.mode == Mode::StopAll);
        if let Some(port) = port {
            self.ports.release(port, id);
        }
        self.touched.insert(id.clone());
    }

    fn probed(&mut self, id: &InstanceId, generation: u64, result: &Probed, now: Now) {
        let rules = self.rules(id);
        let Some(machine) = self.live(id, generation) else { return };
        let before = machine.state;
        machine.probed(result, &rules, now);
        if before == State::Starting && machine.state == State::Running {
            let run = machine.live.clone();
            run.iter().for_each(|run| self.effects.mark_healthy(run));
        }
        self.touched.insert(id.clone());
    }

    /// The machine of an instance, if this generation of it is the live one.
    fn live(&mut self, id: &InstanceId, generation: u64) -> Option<&mut Machine> {
        let machine = self.machines.get_mut(id)?;
        machine.live.as_ref().is_some_and(|run| run.number == generation).then_some(machine)
    }

    fn restart(&mut self, id: InstanceId, now: Now) -> Result<(), ProcmgrError> {
        let refuse = |id, why: &str| Err(ProcmgrError::CannotRestart(id, why.to_owned()));
        if self.mode == Mode::StopAll {
            return refuse(id, "all instances have been stopped; start the platform again");
        }
        let Some(machine) = self.machines.get_mut(&id) else { return Err(ProcmgrError::UnknownInstance(id)) };
        let Some(desired) = self.desired.as_ref().and_then(|set| set.get(&id)) else {
            return refuse(id, "the provider does not want it to run");
        };
        adjust(machine, desired, &self.drivers);
        if let Some(problem) = desired.problem.as_ref().or(machine.held_back.as_ref()) {
            return refuse(id, problem);
        }
        match self.drivers.of(desired) {
            Err(Missing::Refused(why)) => return refuse(id, &why),
            Err(no_way_out @ Missing::NoWayOut(_)) => return refuse(id, &no_way_out.to_string()),
            Ok(_) | Err(Missing::Looking) => {}
        }
        machine.ask_restart(now);
        self.touched.insert(id);
        Ok(())
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
            Action::Start(desired) => self.start(id, &desired, &rules, now),
            Action::Hold(state, reason) => machine.hold(state, &reason, now),
            Action::Probe(run) => {
                machine.probe();
                self.effects.probe(&run, rules.check, !machine.listener_known);
            }
            Action::Stop(cause, run) => {
                machine.stop(cause, &rules, now);
                self.effects.stop(&run, Duration::from_millis(u64::try_from(rules.stop_ms).unwrap_or(0)));
            }
            Action::Kill(run) => {
                machine.kill(&rules, now);
                self.effects.kill(&run);
            }
            Action::Forget => self.forget(id),
        }
    }

    fn start(&mut self, id: &InstanceId, desired: &Arc<Desired>, rules: &Rules, now: Now) {
        let machine = self.machines.entry(id.clone()).or_insert_with(|| Machine::new(now));
        machine.launch(desired.digest.clone(), now);
        machine.desired = Some(Arc::clone(desired));
        let started = self.drivers.of(desired).map_err(|missing| missing.to_string());
        let started = started.and_then(|driver| {
            let reserve = || self.ports.reserve(id, |port| self.effects.reserve(port));
            let port = (!driver.boxes()).then(reserve).transpose().map_err(|error| error.to_string())?;
            let number = port.as_ref().map(|(port, _)| *port);
            tracing::info!(instance = %id, driver = driver.name(), port = number, release = %desired.release.display(), "starting an instance");
            self.effects.start(desired, driver, port);
            Ok(())
        });
        if let Err(why) = started {
            machine.launch_failed(0, &why, rules, self.effects.jitter(), now);
        }
    }

    fn forget(&mut self, id: &InstanceId) {
        self.machines.remove(id);
        self.table.remove(id);
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
            let status = table::status(id, machine, driver);
            let before = self.table.get(id).map(|status| status.state);
            if before != Some(status.state) {
                log_transition(id, machine);
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
        let busy = |machine: &&Machine| !matches!(machine.phase, Phase::Idle | Phase::Blocked);
        let left = self.machines.values().filter(busy).count();
        self.say(format!("stopping every instance, {left} left"));
        if left == 0 {
            for reply in self.waiting.drain(..) {
                let _ = reply.send(self.stopped); // an error says that the caller is gone
            }
        }
    }

    fn rules(&self, id: &InstanceId) -> Rules {
        let desired = self.machines.get(id).and_then(|machine| machine.desired.as_ref());
        Rules {
            backoff: self.config.backoff(),
            check: desired.map_or_else(|| self.check.clone(), |desired| desired.health.apply(&self.check)),
            stop_ms: self.config.stop_ms(),
            grace_ms: GRACE_MS,
        }
    }
}

/// Takes over what the provider says of an instance. A change that can't run doesn't end what runs.
fn adjust(machine: &mut Machine, desired: &Arc<Desired>, drivers: &Drivers) {
    let changes = machine.live.as_ref().is_some_and(|run| run.digest != desired.digest);
    machine.held_back = changes.then(|| drivers.judge(desired).err()).flatten();
    machine.desired = Some(Arc::clone(desired));
}

fn log_transition(id: &InstanceId, machine: &Machine) {
    let (generation, reason) = (machine.generation, &machine.reason);
    let state = format!("{:?}", machine.state).to_lowercase();
    match machine.state {
        State::Failed | State::Unhealthy => {
            tracing::warn!(instance = %id, generation, state, reason, "an instance changed its state");
        }
        _ => tracing::info!(instance = %id, generation, state, reason, "an instance changed its state"),
    }
}

#[cfg(test)]
mod tests;
