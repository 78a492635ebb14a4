//! The end of a platform: daemon by daemon, and with procmgr every app. A step that hangs or fails doesn't stop the sequence;
//! a second signal hurries it; the whole of it has a deadline.

use std::fs;
use std::time::{Duration, SystemTime};

use nexushub_launch::daemon::{STOP_ALL, STOP_ORDER};
use nexushub_launch::durable;

use crate::config::{Settings, ms};
use crate::supervisor::{Supervisor, step};
use crate::{log, policy::Moment};

/// What is left for the last ones to die of SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// How far a stop has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Index in the order of the stop, and when that daemon's turn began (none = not yet).
    at: usize,
    begun: Option<Moment>,
    began: Moment,
    deadline: Moment,
    hurried: bool,
    /// Whether a procmgr that died over its work may be started to finish it.
    again: bool,
}

impl Stop {
    fn new(now: Moment, settings: &Settings) -> Self {
        let deadline = now + ms(settings.stop_total_ms);
        Self { at: 0, begun: None, began: now, deadline, hurried: false, again: true }
    }

    /// A second signal: whose turn it is gets a new, shorter one, and so do the others.
    fn hurry(&mut self, now: Moment, settings: &Settings) {
        (self.hurried, self.begun) = (true, None);
        self.deadline = self.deadline.min(now + ms(settings.stop_hurried_ms));
    }

    /// Until when a daemon whose turn begins now must be gone. procmgr alone has work that can't be skipped.
    fn limit(&self, daemon: &str, now: Moment, settings: &Settings) -> Moment {
        let skipped = self.hurried && daemon != "procmgr";
        let limit = if skipped { Duration::ZERO } else { settings.stop_limit(daemon) };
        self.deadline.min(now + limit)
    }

    /// When the platform ends, whatever is left of it.
    pub(crate) fn end(&self) -> Moment {
        self.deadline + GRACE
    }
}

impl Supervisor {
    pub(crate) fn begin_stop(&mut self, now: Moment) {
        if let Some(stop) = &mut self.stop {
            log::line(log::WARN, "stop is hurried", |line| line);
            return stop.hurry(now, &self.site.settings);
        }
        log::line(log::INFO, "stopping", |line| line);
        self.phase = ("stopping", SystemTime::now());
        self.stop = Some(Stop::new(now, &self.site.settings));
        self.tell_upstream("STOPPING=1");
    }

    /// Takes the stop as far as it goes now; the exit code at its end.
    pub(crate) fn stopping(&mut self, now: Moment) -> Option<u8> {
        let mut stop = self.stop.take()?;
        while let Some(name) = STOP_ORDER.get(stop.at)
            && now < stop.end()
        {
            let unit = self.units.iter_mut().find(|unit| unit.daemon.name == *name)?;
            let last = *name == "procmgr";
            if stop.begun.is_none() {
                stop.begun = Some(now);
                if last && let Err(error) = durable::write(&self.site.run.join(STOP_ALL), b"", 0o600) {
                    log::trouble(log::ERROR, "apps may outlive the platform", &error);
                }
                // Apps are procmgr's to stop: a dead one is started to do it.
                let start = (last && unit.generations.is_empty()).then_some(now);
                unit.stop(stop.limit(name, now, &self.site.settings), start);
            }
            if !unit.generations.is_empty() || unit.start_at.is_some() {
                self.stop = Some(stop);
                return None;
            }
            if last && !unit.clean && stop.again {
                (stop.again, stop.begun) = (false, None);
                continue;
            }
            // Nobody waits in the backlog of a daemon that won't come back.
            for path in
                self.sockets.extract_if(.., |socket| socket.daemon == *name).filter_map(|socket| socket.path)
            {
                let _ = fs::remove_file(path);
            }
            step(&format!("stopped {name}"), stop.begun.unwrap_or(now));
            (stop.at, stop.begun) = (stop.at + 1, None);
        }
        Some(self.clear_away(&stop))
    }

    /// Leaves nothing behind, unless apps may still run: then they keep the secret that they know.
    fn clear_away(&self, stop: &Stop) -> u8 {
        let run = &self.site.run;
        let clean = self.units.iter().any(|unit| unit.daemon.name == "procmgr" && unit.clean);
        for name in ["status.json", "notify.sock", STOP_ALL] {
            let _ = fs::remove_file(run.join(name)); // whoever comes next replaces what is left
        }
        let _ = fs::remove_dir_all(run.join("config"));
        if clean && let Err(fault) = self.site.forget_credentials() {
            log::raw(&fault.to_json_line("supervisor"));
        }
        step(if clean { "platform stopped" } else { "platform stopped, apps may be left" }, stop.began);
        u8::from(!clean)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn every_daemon_has_its_time_within_that_of_the_whole() {
        let settings = Settings::default();
        let stop = Stop::new(SECOND, &settings);
        assert_eq!(stop.limit("proxy", SECOND, &settings), 36 * SECOND);
        assert_eq!(stop.limit("procmgr", 60 * SECOND, &settings), 71 * SECOND);
        assert_eq!(stop.end(), 72 * SECOND);
    }

    #[test]
    fn a_second_signal_leaves_time_to_procmgr_alone() {
        let settings = Settings::default();
        let mut stop = Stop::new(SECOND, &settings);
        stop.hurry(2 * SECOND, &settings);
        assert_eq!(stop.limit("proxy", 2 * SECOND, &settings), 2 * SECOND);
        assert_eq!(stop.limit("procmgr", 2 * SECOND, &settings), 10 * SECOND);
        stop.hurry(9 * SECOND, &settings);
        assert_eq!(stop.end(), 11 * SECOND, "a third one doesn't prolong it");
    }
}
