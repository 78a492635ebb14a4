//! What is ordered for instances, by people or because nobody asks for them: restarts, pauses and sleep.

use super::{Manager, adjust};
use crate::{
    clock::Now,
    driver::Missing,
    effects::{Effects, Kept},
    error::ProcmgrError,
    ids::InstanceId,
    orders::Pause,
    reconcile::Mode,
};

impl<E: Effects> Manager<E> {
    pub(super) fn restart(&mut self, id: InstanceId, kept: Kept, now: Now) -> Result<(), ProcmgrError> {
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
        self.orders.restart.insert(id.clone(), machine.current());
        self.effects.keep(&self.orders, Some(kept));
        self.touched.insert(id);
        Ok(())
    }

    pub(super) fn idle(&mut self, id: &InstanceId, generation: u64, holder: String, now: Now) {
        let Some(machine) = self.machines.get_mut(id) else { return };
        machine.said_idle(generation, holder, now);
        let Some(digest) = self.may_sleep(id, now) else { return };
        if self.orders.asleep.insert(id.clone(), digest).is_none() {
            self.effects.keep_asleep(&self.orders, id);
        }
    }

    /// That is kept before it is told, else it would be started again if procmgr were killed just then.
    pub(super) fn fall_asleep(&mut self, id: &InstanceId, now: Now) {
        if self.may_sleep(id, now).is_none() {
            return self.awake(id);
        }
        let rules = self.rules(id);
        self.machines.get_mut(id).into_iter().for_each(|machine| machine.fall_asleep(&rules, now));
        self.touched.insert(id.clone());
    }

    /// The digest of what would sleep, where that may.
    fn may_sleep(&self, id: &InstanceId, now: Now) -> Option<String> {
        let machine = self.machines.get(id).filter(|_| self.mode == Mode::Run)?;
        machine.idle_run(&self.holders.names(), now).map(|run| run.digest.clone())
    }

    /// What is started, or was found alive, sleeps no more.
    pub(super) fn awake(&mut self, id: &InstanceId) {
        if self.orders.asleep.remove(id).is_some() {
            self.effects.keep(&self.orders, None);
        }
    }

    pub(super) fn pause(
        &mut self,
        id: InstanceId,
        pause: Option<Pause>,
        kept: Kept,
    ) -> Result<bool, ProcmgrError> {
        if !self.machines.contains_key(&id) {
            return Err(ProcmgrError::UnknownInstance(id));
        }
        tracing::info!(instance = %id, paused = pause.is_some(), "an instance is paused or resumed");
        let before = match pause {
            Some(pause) => self.orders.paused.insert(id.clone(), pause),
            None => self.orders.paused.remove(&id),
        };
        self.effects.keep(&self.orders, Some(kept));
        self.touched.insert(id);
        Ok(before.is_some())
    }
}
