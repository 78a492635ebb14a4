//! The owner of everything, and its event loop: carry out what is due, publish, sleep, take in messages, signals and deaths.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use nexushub_launch::daemon::{DAEMONS, STOP_ALL};
use nexushub_launch::notify::Notifier;
use nexushub_launch::{Fault, durable, fds, lock::Lock};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::{sys::prctl, unistd};
use unistd::Pid;

use crate::policy::{Moment, next_round, now};
use crate::site::{Site, unusable};
use crate::sockets::{self, Socket};
use crate::unit::{Role, Unit};
use crate::{check, child::Program, inbox, log, status, stop::Stop};

/// How long a dead supervisor's daemons may take to follow it.
const PREDECESSOR: Duration = Duration::from_secs(5);
/// Messages that are read before anything else gets its turn.
const BATCH: usize = 256;

pub(crate) struct Supervisor {
    pub(crate) site: Site,
    pub(crate) units: Vec<Unit>,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) stop: Option<Stop>,
    /// `starting`, `ready`, `reloading` or `stopping`, and since when.
    pub(crate) phase: (&'static str, SystemTime),
    pub(crate) began: Moment,
    /// Whether a roll was asked for.
    pub(crate) reload: bool,
    /// Messages from processes that are no daemons of ours.
    pub(crate) strangers: u32,
    inbox: (UnixDatagram, String),
    signals: SignalFd,
    upstream: Option<Notifier>,
    /// Ours alone, and one that every daemon holds, too: free when the last one is gone.
    locks: (Lock, OwnedFd),
    /// When to look for hung daemons next.
    round: Moment,
    /// The status file and the line for systemd, as they were published last.
    published: (String, String),
}

impl Supervisor {
    /// Prepares everything that the daemons inherit; an exit code where a daemon's check says no.
    pub(crate) fn start(mut site: Site) -> Result<Result<Self, u8>, Fault> {
        let (began, run) = (now(), site.run.clone());
        let object = run.display().to_string();
        let broken = |error: io::Error| Fault::new("system_failed", error.to_string(), &*object, "");
        site.make_folders()?;
        let lock = Lock::try_acquire(&run.join("supervisor.lock")).map_err(|error| unusable(&run, &error))?;
        let lock = lock.ok_or_else(|| already_running(&run))?;
        let signals = detach().map_err(broken)?;
        let inherited = fds::take().map_err(broken)?;
        let builds = site.builds()?;
        match check::all(&site, &builds)? {
            0 => step("daemons are checked", began),
            code => return Ok(Err(code)),
        }
        let generation = Lock::acquire_within(&run.join("generation.lock"), PREDECESSOR).map_err(broken)?;
        let generation = generation.ok_or_else(|| {
            let (msg, hint) =
                ("daemons of an earlier supervisor are still there", "they hold generation.lock");
            Fault::new("predecessor_alive", msg, &*object, hint)
        })?;
        durable::remove(&run.join(STOP_ALL)).map_err(broken)?;
        site.write_credentials()?;
        let sockets = sockets::open(&site, inherited)?;
        site.bound = sockets.iter().find_map(|socket| socket.address.parse().ok());
        step("sockets are bound", began);
        let units = DAEMONS.iter().zip(builds);
        let units = units.map(|(daemon, build)| Unit::new(daemon, build, began)).collect();
        Ok(Ok(Self {
            units,
            sockets,
            stop: None,
            phase: ("starting", SystemTime::now()),
            began,
            reload: false,
            strangers: 0,
            inbox: inbox::bind(&run).map_err(broken)?,
            signals,
            upstream: Notifier::from_env().map_err(broken)?,
            locks: (lock, generation.share().map_err(broken)?),
            round: next_round(began, site.settings.watchdog()),
            published: Default::default(),
            site,
        }))
    }

    /// Runs the platform until it is told to stop.
    pub(crate) fn run(mut self) -> u8 {
        loop {
            let now = now();
            self.judge(now);
            self.roll(now);
            if let Some(code) = self.stopping(now) {
                return code;
            }
            (0..self.units.len()).for_each(|at| self.carry_out(at, now));
            self.publish();
            self.sleep(now);
            self.hear();
            self.reap();
            self.take_signals();
        }
    }

    pub(crate) fn tell_upstream(&self, message: &str) {
        if let Some(Err(error)) = self.upstream.as_ref().map(|upstream| upstream.send(message)) {
            log::trouble(log::WARN, "service manager is gone", &error);
        }
    }

    /// Kills what is overdue. The watchdog's round is one for all; when we were kept from it, by a signal or by load, nothing is
    /// known of anybody, and everybody begins anew.
    fn judge(&mut self, now: Moment) {
        let watchdog = self.site.settings.watchdog();
        let (due, late) = (now >= self.round, now >= self.round + watchdog / 8);
        if late {
            self.units.iter_mut().flat_map(|unit| &mut unit.generations).for_each(|g| g.sign = now);
        }
        self.units.iter_mut().for_each(|unit| unit.judge(now, due && !late));
        if due {
            self.round = next_round(now, watchdog);
            // Said again, should it have been missed.
            self.tell_upstream(if self.phase.0 == "ready" { "READY=1\nWATCHDOG=1" } else { "WATCHDOG=1" });
        }
    }

    /// Starts and signals as a daemon's state demands.
    fn carry_out(&mut self, at: usize, now: Moment) {
        if let Some(role) = self.units[at].wanted(now) {
            let (started, turn) = (self.spawn(at, role), self.site.settings.turn());
            let pid = *started.as_ref().unwrap_or(&Pid::from_raw(-1));
            self.units[at].started(pid, role, &turn);
            if let Err(error) = started {
                self.units[at].exited(pid, &format!("could not be started: {error}"), false, &turn);
            }
        }
        for (pid, signal) in self.units[at].signals.drain(..) {
            let _ = kill(pid, signal); // ours and not reaped, so it is nobody else's pid
        }
    }

    /// Starts a process of a daemon from what is held for it; its configuration is the text that was checked.
    fn spawn(&self, at: usize, role: Role) -> io::Result<Pid> {
        let (site, unit) = (&self.site, &self.units[at]);
        let (build, suffix) = match &unit.candidate {
            Some((build, _)) if role == Role::Next => (build, "-next"),
            _ => (&unit.build, ""),
        };
        let copy = self.copied(&format!("{}{suffix}", unit.daemon.name), &build.text)?;
        let mut env = site.env(unit.daemon, site.config.path.as_ref().map(|_| copy));
        env.push(("NOTIFY_SOCKET", self.inbox.1.clone().into()));
        env.push(("WATCHDOG_USEC", site.settings.watchdog().as_micros().to_string().into()));
        let sockets = self.sockets.iter().filter(|socket| socket.daemon == unit.daemon.name);
        let sockets = sockets.map(|socket| (socket.name, socket.fd.as_fd()));
        let store = unit.store.iter().map(|(name, fd)| (name.as_str(), fd.as_fd()));
        let fds: Vec<_> = sockets.chain([("generation", self.locks.1.as_fd())]).chain(store).collect();
        let name = format!("nexushub-{}", unit.daemon.name);
        let (exe, args, folder) = (&build.exe, &[&*name], &*site.config.root);
        Program { exe, args, env, folder, fds: &fds, alarm: 0 }.start()
    }

    /// A copy of the configuration as it was judged, for who reads it and for `nexushub plan`.
    fn copied(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let copy = self.site.run.join(format!("config/{name}.toml"));
        fs::create_dir_all(self.site.run.join("config"))?;
        // Written only if it must be: the disk may be full.
        let there = fs::read_to_string(&copy).is_ok_and(|held| held == text);
        if there { Ok(copy) } else { status::replace(&copy, text).map(|()| copy) }
    }

    /// Tells the world what changed: the status file, and systemd.
    fn publish(&mut self) {
        for unit in self.units.iter_mut().filter(|unit| unit.state() != unit.shown.0) {
            unit.shown = (unit.state(), SystemTime::now());
        }
        let settled = |unit: &Unit| unit.candidate.is_none() && ["ready", "failed"].contains(&unit.shown.0);
        let news = ["starting", "reloading"].contains(&self.phase.0) && self.units.iter().all(settled);
        if news {
            self.phase = ("ready", SystemTime::now());
            let _ = self.copied("supervisor", self.site.config.text());
            self.units.iter().for_each(|unit| drop(self.copied(unit.daemon.name, &unit.build.text)));
        }
        let (file, path) = (status::render(self), self.site.run.join("status.json"));
        let written = if file == self.published.0 { Ok(()) } else { status::replace(&path, &file) };
        if let Err(error) = written {
            log::trouble(log::WARN, "could not write the status file", &error);
        }
        let states = self.units.iter().map(|unit| format!("{} {}", unit.daemon.name, unit.shown.0));
        let states = states.collect::<Vec<_>>().join(", ");
        if states != self.published.1 {
            self.tell_upstream(&format!("STATUS={states}"));
        }
        self.published = (file, states);
        if news {
            step("platform is ready", self.began);
            self.tell_upstream("READY=1");
        }
    }

    /// Until a signal, a message, or the next deadline.
    fn sleep(&self, now: Moment) {
        let dues = self.units.iter().filter_map(Unit::due).chain(self.stop.as_ref().map(Stop::end));
        let due = dues.fold(self.round, Moment::min);
        let fds = [self.signals.as_fd(), self.inbox.0.as_fd()];
        let _ = ppoll(
            &mut fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)),
            Some(due.saturating_sub(now).into()),
            None,
        );
    }

    fn hear(&mut self) {
        let turn = self.site.settings.turn();
        for message in (0..BATCH).map_while(|_| inbox::receive(&self.inbox.0)) {
            match self.units.iter_mut().find(|unit| unit.generations.iter().any(|g| g.pid == message.from)) {
                Some(unit) => unit.heard(message, &turn),
                None => self.strangers = self.strangers.saturating_add(1),
            }
        }
    }

    /// Buries the dead: daemons, checks, and orphans that came to us because we are the subreaper.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            let (pid, how) = match status {
                WaitStatus::Exited(pid, code) => (pid, format!("exit code {code}")),
                WaitStatus::Signaled(pid, signal, _) => (pid, signal.to_string()),
                _ => break,
            };
            let (clean, turn) = (matches!(status, WaitStatus::Exited(_, 0)), self.site.settings.turn());
            self.units.iter_mut().for_each(|unit| unit.exited(pid, &how, clean, &turn));
            self.checked(pid, status);
        }
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGTERM | Signal::SIGINT) => self.begin_stop(now()),
                Ok(Signal::SIGHUP) => self.reload = true,
                _ => {}
            }
        }
    }
}

/// Makes this process a parent of daemons: orphans come to it, secrets don't leave it, signals arrive as messages.
fn detach() -> io::Result<SignalFd> {
    prctl::set_child_subreaper(true)?;
    prctl::set_dumpable(false)?;
    unistd::dup2_stdin(fs::File::open("/dev/null")?)?;
    let set = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGCHLD]);
    set.thread_block()?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn already_running(run: &Path) -> Fault {
    let status = fs::read_to_string(run.join("status.json")).unwrap_or_default();
    let pid = status.split_once("\"pid\":").and_then(|(_, rest)| rest.split(',').next()).unwrap_or("unknown");
    let msg = format!("a supervisor is already running (pid {pid})");
    Fault::new("already_running", msg, run.display().to_string(), "stop it first, or use another --home")
}

/// Logs a step of the start or of the stop.
pub(crate) fn step(msg: &str, began: Moment) {
    let elapsed = now().saturating_sub(began).as_millis() as i128;
    log::line(log::INFO, msg, |line| line.number("elapsed_ms", elapsed));
}
