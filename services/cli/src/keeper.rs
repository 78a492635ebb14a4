//! The keeper: what `nexushub up` stays for. It holds one supervisor up, passes signals on to it, and starts the next one when
//! it crashes; the next one finds every app where it was.
//!
//! ```text
//!             READY=1                       signal: passed on
//! starting ─────────────▶ up ──────────────────────────────────▶ (supervisor's own end) ─▶ keeper ends with its code
//!    │ exit 1 before the first READY, 64, 0    │ crash
//!    ▼                                         ▼
//! keeper ends with its code       waiting ──backoff, or a signal to stop──▶ starting
//! ```
//! A signal to stop that finds no supervisor waits for the next one to be ready, so that the apps are stopped in order, too.
//! The supervisor has a process group of its own: Ctrl-C reaches it once, through the keeper.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nexushub_launch::{clock, durable, lock::Lock, notify};
use tokio::{
    net::UnixDatagram,
    process::Child,
    signal::unix::{Signal as Listener, SignalKind, signal},
    time::{Interval, MissedTickBehavior, interval, sleep},
};

use crate::{
    failure::{FAILURE, Failure, OK},
    place::{Place, Record},
    process::{Process, Signal},
};

/// First delay of repeated restarts; it doubles with each.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest delay of a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// A supervisor that ran for so long before it crashed is restarted at once.
const STABLE: Duration = Duration::from_mins(1);
/// The supervisor's exit code for a configuration or command line that is wrong.
const BAD_CONFIG: u8 = 64;
/// How often the log file is looked at.
const TRIM_EVERY: Duration = Duration::from_mins(1);
/// Largest log file; one more of that size is kept.
const LOG_MAX: u64 = 16 << 20;
/// Longest path of a Unix socket.
const SOCKET_PATH_MAX: usize = 107;

/// What a keeper needs to know.
pub(crate) struct Plan {
    /// Program and arguments of the supervisor.
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    /// Working folder of the supervisor.
    pub(crate) folder: PathBuf,
    /// Whether our output goes to the log file, which is then ours to bound.
    pub(crate) detached: bool,
}

/// One keeper for a platform: the lock says so for as long as the process lives, the files beside it say who.
pub(crate) struct Post {
    run: PathBuf,
    _lock: Lock,
}

impl Post {
    /// Takes the post; none when it is taken.
    pub(crate) fn take(place: &Place, detached: bool) -> Result<Option<Self>, Failure> {
        let path = place.run.join("keeper.lock");
        let lock = Lock::try_acquire(&path).map_err(|error| Failure::io("lock", &path, &error))?;
        let Some(lock) = lock else { return Ok(None) };
        let pid = std::process::id();
        let start_time =
            clock::start_time(pid).map_err(|error| Failure::io("read", Path::new("/proc"), &error))?;
        let record = serde_json::to_string(&Record { pid, start_time, detached }).unwrap_or_default();
        for (name, text) in [("keeper.json", record), ("keeper.pid", pid.to_string())] {
            let path = place.run.join(name);
            durable::write(&path, format!("{text}\n").as_bytes(), 0o600)
                .map_err(|error| Failure::io("write", &path, &error))?;
        }
        Ok(Some(Self { run: place.run.clone(), _lock: lock }))
    }
}

impl Drop for Post {
    fn drop(&mut self) {
        for name in ["keeper.json", "keeper.pid", "keeper.sock"] {
            let _ = std::fs::remove_file(self.run.join(name)); // the lock is what counts
        }
    }
}

/// What the end of a supervisor means.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    End(u8),
    Again,
}

/// Judges an exit: its code, if it was not a signal; whether any supervisor of ours was ever ready; whether it was told to stop.
fn verdict(code: Option<i32>, ever_ready: bool, told: bool) -> Verdict {
    let code = code.and_then(|code| u8::try_from(code).ok());
    match code {
        Some(OK) => Verdict::End(OK),
        Some(BAD_CONFIG) => Verdict::End(BAD_CONFIG),
        Some(FAILURE) if !ever_ready || told => Verdict::End(FAILURE),
        _ => Verdict::Again,
    }
}

/// Delays of repeated restarts.
#[derive(Debug, Default)]
struct Backoff {
    crashes: u32,
}

impl Backoff {
    /// How long to wait after a supervisor that ran for so long.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= STABLE {
            self.crashes = 0;
        }
        self.crashes = self.crashes.saturating_add(1);
        match self.crashes {
            1 => Duration::ZERO,
            n => BACKOFF_MIN.saturating_mul(1 << (n - 2).min(16)).min(BACKOFF_MAX),
        }
    }
}

/// The signals that are passed on.
struct Signals {
    terminate: Listener,
    interrupt: Listener,
    hangup: Listener,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

/// Where supervisors say that they are ready.
struct Inbox {
    socket: UnixDatagram,
    address: String,
}

impl Inbox {
    /// In the run folder, which is nobody else's; where that path is too long for a socket, under an abstract name.
    fn bind(run: &Path) -> std::io::Result<Self> {
        let path = run.join("keeper.sock");
        let text = path.to_string_lossy().into_owned();
        if text.len() <= SOCKET_PATH_MAX {
            let _ = std::fs::remove_file(&path);
            return Ok(Self { socket: UnixDatagram::bind(&path)?, address: text });
        }
        use std::os::linux::net::SocketAddrExt;
        let name = format!("nexushub-keeper-{}", uuid::Uuid::new_v4());
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name)?;
        let socket = std::os::unix::net::UnixDatagram::bind_addr(&address)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket: UnixDatagram::from_std(socket)?, address: format!("@{name}") })
    }

    /// The next message: whether it is READY=1. Every message is taken, however little it says, as a full queue would
    /// block the supervisor.
    async fn is_ready(&self) -> bool {
        let mut buffer = [0; notify::MAX_MESSAGE];
        match self.socket.recv(&mut buffer).await {
            Ok(length) => notify::parse(&buffer[..length]).any(|said| said == ("READY", "1")),
            Err(_) => std::future::pending().await,
        }
    }
}

/// What a supervisor's life was like.
struct Life {
    status: ExitStatus,
    ran: Duration,
}

/// A keeper at work.
pub(crate) struct Keeper<'a, F> {
    plan: &'a Plan,
    log: PathBuf,
    signals: Signals,
    inbox: Inbox,
    trim: Interval,
    /// Called when the first supervisor is ready.
    announce: Option<F>,
    /// Told to stop, and not passed on yet because nobody was there to take it.
    owed: Option<Signal>,
    told: bool,
}

impl<'a, F: FnOnce()> Keeper<'a, F> {
    /// Prepares everything that may fail before a supervisor is started.
    pub(crate) fn new(plan: &'a Plan, place: &Place, announce: F) -> Result<Self, Failure> {
        let system = |error| Failure::io("prepare", &place.run, &error);
        let mut trim = interval(TRIM_EVERY);
        trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            plan,
            log: place.log_file(),
            signals: Signals::listen().map_err(system)?,
            inbox: Inbox::bind(&place.run).map_err(system)?,
            trim,
            announce: Some(announce),
            owed: None,
            told: false,
        })
    }

    /// Keeps a supervisor up until there is no more reason to; the exit code.
    pub(crate) async fn keep(mut self) -> Result<u8, Failure> {
        let mut backoff = Backoff::default();
        loop {
            let life = self.live().await?;
            match verdict(life.status.code(), self.announce.is_none(), self.told) {
                Verdict::End(code) => return Ok(code),
                Verdict::Again => {}
            }
            let delay = backoff.after(life.ran);
            self.say("warn", &format!("supervisor crashed ({}); starting the next one", life.status));
            self.wait(delay).await;
        }
    }

    /// One supervisor, from start to end.
    async fn live(&mut self) -> Result<Life, Failure> {
        let began = Instant::now();
        let (mut child, process) = self.spawn()?;
        loop {
            tokio::select! {
                status = child.wait() => {
                    let status = status.map_err(|error| Failure::io("wait for", &self.plan.program, &error))?;
                    return Ok(Life { status, ran: began.elapsed() });
                }
                ready = self.inbox.is_ready() => {
                    if let Some(announce) = self.announce.take_if(|_| ready) {
                        announce();
                    }
                    if let Some(owed) = self.owed.take_if(|_| ready) {
                        self.pass_on(&process, owed);
                    }
                }
                signal = self.signals.next() => {
                    self.told |= signal != Signal::HUP;
                    self.pass_on(&process, signal);
                }
                _ = self.trim.tick() => self.trim_log(),
            }
        }
    }

    /// Waits between two supervisors; a signal to stop ends the wait and is owed to the next one.
    async fn wait(&mut self, delay: Duration) {
        let pause = sleep(delay);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => return,
                signal = self.signals.next() => {
                    if signal != Signal::HUP { // the next one reads everything anew anyway
                        self.owed = Some(signal);
                        self.told = true;
                        return;
                    }
                }
            }
        }
    }

    fn spawn(&self) -> Result<(Child, Process), Failure> {
        let failed = |error| Failure::io("start", &self.plan.program, &error);
        let mut command = std::process::Command::new(&self.plan.program);
        command
            .args(&self.plan.arguments)
            .current_dir(&self.plan.folder)
            .env("NOTIFY_SOCKET", &self.inbox.address);
        command.env_remove("LISTEN_PID").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID");
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        let child = tokio::process::Command::from(command).spawn().map_err(failed)?;
        let pid = child.id().unwrap_or_default();
        let process = Process::open_any(pid).map_err(failed)?;
        Ok((child, process))
    }

    fn pass_on(&self, process: &Process, signal: Signal) {
        if let Err(error) = process.signal(signal) {
            self.say("error", &format!("could not signal the supervisor: {error}"));
        }
    }

    /// Says something in the form of the daemons' log lines where the output is the log file, else for people.
    fn say(&self, level: &str, text: &str) {
        if self.plan.detached {
            let ts = clock::rfc3339(std::time::SystemTime::now());
            let line = serde_json::json!({"ts": ts, "level": level, "daemon": "keeper", "msg": text});
            crate::out::tell(&line.to_string());
        } else {
            crate::out::tell(&format!("nexushub: {text}"));
        }
    }

    /// Everybody appends to one file, so it is copied and cut rather than renamed; lines written between the two steps are
    /// lost, which a log may.
    fn trim_log(&self) {
        let too_large = || std::fs::metadata(&self.log).is_ok_and(|file| file.len() > LOG_MAX);
        if self.plan.detached && too_large() {
            let cut = std::fs::copy(&self.log, self.log.with_extension("log.1"))
                .and_then(|_| std::fs::OpenOptions::new().write(true).open(&self.log))
                .and_then(|file| file.set_len(0));
            if let Err(error) = cut {
                self.say("warn", &format!("could not cut the log: {error}"));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn only_a_crash_is_mended_by_a_new_supervisor() {
        assert_eq!(verdict(Some(0), true, false), Verdict::End(0));
        assert_eq!(verdict(Some(64), true, false), Verdict::End(64), "a wrong configuration stays wrong");
        assert_eq!(verdict(Some(1), false, false), Verdict::End(1), "it could not start");
        assert_eq!(verdict(Some(1), true, false), Verdict::Again, "it ran, so it may run again");
        assert_eq!(verdict(Some(1), true, true), Verdict::End(1), "it was told to stop");
        assert_eq!(verdict(Some(101), false, false), Verdict::Again);
        assert_eq!(verdict(None, false, false), Verdict::Again, "killed by a signal");
        assert_eq!(
            verdict(None, true, true),
            Verdict::Again,
            "killed while it stopped: the apps are still to be stopped"
        );
    }

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_longer_and_longer() {
        let mut backoff = Backoff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<_> = (0..12).map(|_| backoff.after(short).as_millis()).collect();
        assert_eq!(waits[..5], [0, 100, 200, 400, 800]);
        assert_eq!(waits[11], 15_000);
        assert_eq!(backoff.after(STABLE), Duration::ZERO);
    }

    #[test]
    fn a_platform_has_one_keeper_and_its_files_go_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::args::Global { home: Some(folder.path().to_owned()), ..Default::default() };
        let place = Place::find(&home).unwrap();
        std::fs::create_dir(&place.run).unwrap();
        let post = Post::take(&place, true).unwrap().unwrap();
        assert!(Post::take(&place, true).unwrap().is_none());
        let record = place.record();
        assert!(record.pid == std::process::id() && record.detached);
        drop(post);
        assert_eq!(place.record(), Record::default());
        in_the_end(|| Post::take(&place, false).unwrap().is_some());
    }

    /// Waits until a lock that was let go of is free: a child that another test forks has a copy of it until it is its own program.
    pub(crate) fn in_the_end(is_free: impl Fn() -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !is_free() {
            assert!(Instant::now() < end, "it is never free");
            std::thread::yield_now();
        }
    }

    fn plan(script: &str) -> Plan {
        let arguments = vec!["-c".into(), script.into()];
        Plan { program: "/bin/sh".into(), arguments, folder: "/".into(), detached: false }
    }

    async fn keep(plan: &Plan) -> (Result<u8, Failure>, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::args::Global { home: Some(folder.path().to_owned()), ..Default::default() };
        let place = Place::find(&home).unwrap();
        std::fs::create_dir(&place.run).unwrap();
        let keeper = Keeper::new(plan, &place, || {}).unwrap();
        (keeper.keep().await, folder)
    }

    #[tokio::test]
    async fn a_supervisor_that_can_not_start_ends_its_keeper_with_its_code() {
        for code in [0, 1, 64] {
            assert_eq!(keep(&plan(&format!("exit {code}"))).await.0, Ok(code));
        }
    }

    #[tokio::test]
    async fn a_crashed_supervisor_is_followed_by_the_next() {
        let script = "cd \"${NOTIFY_SOCKET%/*}\"; echo x >> lives; test $(wc -l < lives) -ge 3 || kill -9 $$";
        let (code, folder) = keep(&plan(script)).await;
        assert_eq!(code, Ok(0));
        assert_eq!(std::fs::read_to_string(folder.path().join("run/lives")).unwrap().lines().count(), 3);
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let plan = Plan { program: "/nowhere/nexushub-supervisor".into(), ..plan("") };
        assert!(keep(&plan).await.0.unwrap_err().message.contains("/nowhere/nexushub-supervisor"));
    }

    /// A queue of messages that nobody takes would block the supervisor for good.
    #[tokio::test]
    async fn a_supervisor_may_go_on_talking_for_as_long_as_it_likes() {
        let said = std::cell::Cell::new(0);
        let folder = tempfile::tempdir().unwrap();
        let home = crate::args::Global { home: Some(folder.path().to_owned()), ..Default::default() };
        let place = Place::find(&home).unwrap();
        std::fs::create_dir(&place.run).unwrap();
        let end = place.run.join("end");
        assert!(std::process::Command::new("mkfifo").arg(&end).status().unwrap().success());
        let plan = plan(&format!("read _ < {}", end.display()));
        let keeper = Keeper::new(&plan, &place, || said.set(said.get() + 1)).unwrap();
        let supervisor = notify::Notifier::to(&keeper.inbox.address).unwrap();
        let talk = tokio::task::spawn_blocking(move || {
            supervisor.send("READY=1").unwrap();
            (0..2000).for_each(|_| supervisor.send("WATCHDOG=1").unwrap());
            std::fs::write(end, "\n").unwrap();
        });
        assert_eq!(keeper.keep().await, Ok(0));
        talk.await.unwrap();
        assert_eq!(said.get(), 1);
    }

    #[tokio::test]
    async fn readiness_is_heard_among_other_messages() {
        let folder = tempfile::tempdir().unwrap();
        let inbox = Inbox::bind(folder.path()).unwrap();
        let supervisor = notify::Notifier::to(&inbox.address).unwrap();
        for message in ["STATUS=x", "garbage", "STATUS=y\nREADY=1"] {
            supervisor.send(message).unwrap();
        }
        assert!(!inbox.is_ready().await && !inbox.is_ready().await && inbox.is_ready().await);
        let deep = folder.path().join("x".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        assert!(Inbox::bind(&deep).unwrap().address.starts_with('@'));
    }
}
