//! SIGHUP: forward to new executables and a new configuration, daemon by daemon, each only after its `--check` passed. Bad ones
//! are refused, and what runs keeps running from what it was started from.

use std::time::SystemTime;

use nexushub_launch::Fault;
use nix::{sys::wait::WaitStatus, unistd::Pid};

use crate::site::{Build, Site};
use crate::{check, log, policy::Moment, supervisor::Supervisor, unit::Unit};

impl Supervisor {
    /// Starts a roll that was asked for, once the one before is over.
    pub(crate) fn roll(&mut self, now: Moment) {
        if !self.reload || self.stop.is_some() || self.units.iter().any(|unit| unit.candidate.is_some()) {
            return;
        }
        (self.reload, self.phase, self.began) = (false, ("reloading", SystemTime::now()), now);
        self.tell_upstream(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
        log::line(log::INFO, "reloading", |line| line);
        match self.site.reread() {
            Ok(site) => {
                self.site = site;
                self.units.iter_mut().for_each(|unit| consider(unit, &self.site));
            }
            Err(fault) => refused("configuration is refused, nothing changes", "", &fault),
        }
    }

    /// Takes in the end of a check.
    pub(crate) fn checked(&mut self, pid: Pid, status: WaitStatus) {
        let checks = |unit: &&mut Unit| matches!(unit.candidate, Some((_, Some(check))) if check == pid);
        let Some(unit) = self.units.iter_mut().find(checks) else { return };
        let fault = match check::verdict(unit.daemon, status) {
            Ok(0) => return unit.accept(&self.site.settings.turn()),
            Ok(_) => Fault::new("check_failed", "check said no", unit.daemon.name, "see the line above"),
            Err(fault) => fault,
        };
        unit.candidate = None;
        refused("new build is refused, the old one stays", unit.daemon.name, &fault);
    }
}

/// Starts the check of a daemon's new build, if it is another one.
fn consider(unit: &mut Unit, site: &Site) {
    let other = |build: Build| Some(build).filter(|build| build.mark != unit.build.mark);
    let check = |build| check::begin(site, unit.daemon, &build).map(|check| (build, Some(check)));
    match site.build(unit.daemon).map(other).and_then(|build| build.map(check).transpose()) {
        Ok(candidate) => unit.candidate = candidate,
        Err(fault) => refused("new build is refused, the old one stays", unit.daemon.name, &fault),
    }
}

fn refused(msg: &str, child: &str, fault: &Fault) {
    log::line(log::ERROR, msg, |line| {
        let line = line.text("child", child).text("code", fault.code);
        line.text("error", &fault.to_string()).text("hint", &fault.hint)
    });
}
