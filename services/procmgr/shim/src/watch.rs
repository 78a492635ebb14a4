//! The shim's one loop: it sleeps in poll until a signal, output, a question or a deadline comes.
//!
//! ```text
//! running ──stop──► stopping ──deadline, kill──► killed
//!    │                 │                           │
//!    └───────── the app's main process ends ───────┘
//!                      ▼
//!                   ending  what is left of its tree is killed and reaped
//!                      ▼    (GRACE: the unkillable hold nobody up)
//!                   ended   output drained, exit record on disk, then told to all who wait
//! ```
//! Signals to the shim itself are logged and ignored: neither the end of a session nor of a unit ends an app, only the
//! control socket does. SIGKILL can't be ignored: the app goes with the shim (PDEATHSIG), and its end is lost.
#![allow(unsafe_code)]

use std::net::TcpListener;
use std::os::{fd::AsFd as _, fd::OwnedFd, unix::net::UnixListener, unix::process::ExitStatusExt as _};
use std::process::{ExitStatus, id};
use std::time::{Duration, Instant, SystemTime};
use std::{fs, fs::File, io, io::Read as _, io::Write as _, mem, ptr};

use nexushub_launch::clock::unix_ms;
use nexushub_shim::control::{self, Reply, Request};
use nexushub_shim::{exit::End, exit::Exit, frame::Stream, identity::Stat, record::Process, record::Record};
use nexushub_shim::{segment::Writer, spec::Spec};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::{prctl, resource, signal::SigSet, signalfd::SfdFlags, signalfd::SignalFd};
use nix::{libc, unistd::setsid};

use crate::{app, app::App, app::NOT_STARTED, entrance, lines::Lines, peer::Peer, tree};

/// How long to wait for processes that were killed and don't go (disk wait).
const GRACE: Duration = Duration::from_secs(5);
/// Connections at a time; others wait in the backlog.
const PEERS_MAX: usize = 64;
/// How long a connection may say nothing while others wait for its place.
const SILENCE: Duration = Duration::from_secs(1);
/// Bytes read from a pipe at once.
const CHUNK: usize = 16 * 1024;
/// A report is never longer.
const REPORT_MAX: u64 = 4096;
/// Reads while draining: more than a pipe holds, so somebody outside who goes on writing holds nobody up.
const DRAIN_READS: usize = 128;

enum Phase {
    Running,
    Stopping,
    Killed,
    Ending(ExitStatus, i64),
    Ended(End),
}

/// A pipe from the app.
struct Output {
    pipe: File,
    stream: Stream,
    lines: Lines,
    open: bool,
}

struct Watch<'a> {
    spec: &'a Spec,
    phase: Phase,
    /// Of stopping and ending.
    due: Option<Instant>,
    childless: bool,
    app: Process,
    failure: File,
    signals: SignalFd,
    door: UnixListener,
    /// Of a box: where it finds the platform.
    inward: Option<TcpListener>,
    outputs: [Output; 2],
    peers: Vec<Peer>,
    writer: Writer,
}

/// As many open files as programs expect that know no other limit (`select(2)`), whatever the process manager has; the app may
/// raise it to what the kernel lets it have.
const OPEN_FILES: u64 = 1024;

/// Runs the generation to its end. An error before the app could be started is an exit record too, unless the folder
/// belongs to another generation.
pub(crate) fn run(spec: &Spec) -> io::Result<()> {
    let intent =
        Record::read(&spec.dir)?.filter(|record| record.nonce == spec.nonce && record.shim.is_none());
    let refused = || io::Error::other("the folder holds no intent to start this generation");
    match Watch::begin(spec, intent.ok_or_else(refused)?) {
        Ok(mut watch) => {
            release_text();
            while watch.turn() {}
            watch.finish()
        }
        Err(error) => {
            let (end, reason) = (End::Code(NOT_STARTED), Some(format!("could not start: {error}")));
            Exit { nonce: spec.nonce.clone(), end, unix_ms: now(), reason }.write(&spec.dir)
        }
    }
}

/// From here on signals come through the descriptor only. Dispositions are the default ones, for the app to inherit.
fn own_signals() -> io::Result<SignalFd> {
    SigSet::all().thread_set_mask()?;
    for signal in 1..=64 {
        // The kernel's struct sigaction: SIG_DFL, no flags, no mask. By hand, because the C library refuses the two
        // signals of its own, which posix_spawn leaves ignored.
        // SAFETY: sets a disposition that runs no code; the two numbers that can't be set are refused.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, [0_u64; 4].as_ptr(), ptr::null::<u64>(), 8) };
    }
    Ok(SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Lets go of the program's own pages, most of which only its start needed; what the loop needs comes back from the page
/// cache. Without it the C library alone keeps a third more of the shim resident.
fn release_text() {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let (begin, end) = (&raw const __executable_start, &raw const etext);
    // SAFETY: the linker puts only read-only segments between the two; nobody wrote to them, so the file still has them.
    unsafe { libc::madvise(begin.cast_mut().cast(), end.addr() - begin.addr(), libc::MADV_DONTNEED) };
}

fn now() -> i64 {
    unix_ms(SystemTime::now())
}

impl<'a> Watch<'a> {
    fn begin(spec: &'a Spec, intent: Record) -> io::Result<Self> {
        let signals = own_signals()?;
        let (_, hard) = resource::getrlimit(resource::Resource::RLIMIT_NOFILE)?;
        resource::setrlimit(resource::Resource::RLIMIT_NOFILE, hard.min(OPEN_FILES), hard)?;
        prctl::set_name(c"nexushub-shim")?;
        let _ = setsid(); // refused only when it leads a session already
        prctl::set_child_subreaper(true)?;
        for cgroup in &spec.cgroups {
            let failed = |error| io::Error::other(format!("could not join {}: {error}", cgroup.display()));
            fs::write(cgroup, "0").map_err(failed)?;
        }
        std::env::set_current_dir("/")?;
        let failed = |error| io::Error::other(format!("could not make the network of its box: {error}"));
        let inward = spec.boxed.then(|| entrance::enter(spec)).transpose().map_err(failed)?;
        let door = control::bind(&spec.dir)?;
        door.set_nonblocking(true)?;
        let App { pid, outputs: [stdout, stderr], mut gate, failure } = app::start(spec)?;
        let (budget, segment) = (spec.log_budget_bytes, spec.segment_bytes);
        let writer = Writer::new(&spec.log_dir, spec.generation, pid, budget, segment)?;
        let app = Process { pid, start: Stat::of(pid)?.start };
        let shim = Process { pid: id(), start: Stat::of(id())?.start };
        Record { shim: Some(shim), app: Some(app), session: Some(id()), ..intent }.write(&spec.dir)?;
        let _ = gate.write(b"!"); // fails only when the app is gone already, which is seen when it is reaped
        let output = |pipe, stream| Output { pipe, stream, lines: Lines::default(), open: true };
        let outputs = [output(stdout, Stream::Stdout), output(stderr, Stream::Stderr)];
        let (phase, due, childless, peers) = (Phase::Running, None, false, Vec::new());
        Ok(Self { spec, phase, due, childless, app, failure, signals, door, inward, outputs, peers, writer })
    }

    /// Sleeps and does what can be done without waiting; false when all of the app is gone.
    fn turn(&mut self) -> bool {
        self.sleep();
        self.take_signals();
        let _ = [0, 1].map(|at| (0..4).all(|_| self.read(at))); // what a pipe holds
        self.serve();
        let over = self.due.is_some_and(|due| Instant::now() >= due);
        if over && matches!(self.phase, Phase::Stopping) {
            (self.phase, self.due) = (Phase::Killed, None);
            tree::kill_children();
        }
        self.writer.flush(now());
        !matches!(self.phase, Phase::Ending(..) if over || self.childless)
    }

    /// Waits until there is something to do. Without a deadline nothing but an event wakes it.
    fn sleep(&self) {
        let mut sources = vec![self.signals.as_fd()];
        let full = self.peers.len() >= PEERS_MAX;
        sources.extend((!full).then_some(self.door.as_fd()));
        sources.extend(self.outputs.iter().filter(|output| output.open).map(|output| output.pipe.as_fd()));
        sources.extend(self.peers.iter().map(|peer| peer.reader.get_ref().as_fd()));
        let mut polled: Vec<_> = sources.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        let places = self.peers.iter().filter(|_| full).filter_map(|peer| peer.until);
        let timeout = self.due.into_iter().chain(places).min().map_or(PollTimeout::NONE, |due| {
            let left = due.saturating_duration_since(Instant::now()).as_millis() + 1;
            PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX))
        });
        let _ = poll(&mut polled, timeout); // whatever it says, nothing that follows waits
    }

    fn take_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match (signal.ssi_signo.cast_signed(), signal.ssi_pid) {
                (libc::SIGCHLD, _) => self.reap(),
                (libc::SIGPIPE, _) => {} // a peer left before its reply; told by the write too
                (number, by) => self.log(&format!("ignored signal {number} from process {by}"), now()),
            }
        }
    }

    fn log(&mut self, text: &str, unix_ms: i64) {
        self.writer.line(Stream::System, false, unix_ms, text.as_bytes());
    }

    fn reap(&mut self) {
        self.childless = loop {
            match tree::reap() {
                Ok(Some((pid, status))) if pid == self.app.pid => {
                    self.phase = Phase::Ending(status, now());
                    self.due = Some(Instant::now() + GRACE);
                }
                Ok(Some(_)) => {}
                none => break none.is_err(),
            }
        };
        if matches!(self.phase, Phase::Ending(..)) {
            tree::kill_children();
        }
    }

    /// Lets peers in as far as there is room and answers all as far as they have asked. Who talks nonsense is hung up on. For
    /// those in the backlog room is made by whoever has its answer or nothing to ask; who waits for the end keeps its place.
    fn serve(&mut self) {
        while self.peers.len() < PEERS_MAX
            && let Ok((stream, _)) = self.door.accept()
        {
            if control::is_trusted(&stream) && stream.set_nonblocking(true).is_ok() {
                self.peers.push(Peer::new(stream, Instant::now() + SILENCE));
            }
        }
        for mut peer in mem::take(&mut self.peers) {
            let left = loop {
                match peer.line().map(|line| self.answer(&line)) {
                    Err(error) => break error.kind() != io::ErrorKind::WouldBlock,
                    Ok(None) => peer.until = None,
                    Ok(Some((reply, with))) if peer.send(reply, with.as_ref()) => {}
                    Ok(Some(_)) => break true,
                }
            };
            self.peers.extend((!left).then_some(peer));
        }
        if self.peers.len() >= PEERS_MAX {
            let over = |peer: &Peer| peer.until.is_some_and(|until| until <= Instant::now());
            // Where all wait for the end, the last of them does so in vain: orders come through.
            let last = self.peers.iter().all(|peer| peer.until.is_none()).then_some(PEERS_MAX - 1);
            self.peers.iter().position(over).or(last).map(|at| self.peers.remove(at));
        }
    }

    /// None: when it has ended.
    fn answer(&mut self, line: &[u8]) -> Option<(Reply, Option<OwnedFd>)> {
        let plain = |reply| Some((reply, None));
        let Some((nonce, request)) = Request::parse(line) else { return plain(Reply::Malformed) };
        let now = Instant::now();
        match (request, &self.phase) {
            (Request::Connect | Request::Listener, _) => {
                return Some(entrance::open(self.spec, self.inward.as_ref(), request));
            }
            _ if nonce != self.spec.nonce => return plain(Reply::Refused),
            (_, Phase::Ended(end)) => return plain(Reply::Exited(*end)),
            (Request::Wait, _) => return None,
            (_, Phase::Ending(..)) => {}
            (Request::Status, _) => return plain(Reply::Running(self.app)),
            (Request::Kill, _) => (self.phase, self.due) = (Phase::Stopping, Some(now)),
            (Request::Stop(patience), Phase::Running) => {
                (self.phase, self.due) = (Phase::Stopping, Some(now + patience));
                tree::terminate(self.app.pid, self.spec.boxed);
            }
            // One SIGTERM only: to many programs a second one means "at once".
            (Request::Stop(patience), _) => {
                self.due = self.due.map(|until| until.min(now + patience));
            }
        }
        plain(Reply::Stopping)
    }

    /// Reads once from a pipe; whether there may be more.
    fn read(&mut self, at: usize) -> bool {
        let Output { pipe, stream, lines, open } = &mut self.outputs[at];
        let (mut chunk, time) = ([0; CHUNK], now());
        let keep = |line: &[u8], partial| self.writer.line(*stream, partial, time, line);
        match pipe.read(&mut chunk) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Ok(length @ 1..) => lines.feed(&chunk[..length], keep),
            _ => {
                *open = false;
                lines.finish(keep);
            }
        }
        *open
    }

    /// What remains to be done when nothing of the app is left.
    fn finish(mut self) -> io::Result<()> {
        let Phase::Ending(status, unix_ms) = self.phase else { return Ok(()) };
        for at in [0, 1] {
            let _ = (0..DRAIN_READS).all(|_| self.read(at));
            let Output { lines, stream, .. } = &mut self.outputs[at];
            lines.finish(|line, partial| self.writer.line(*stream, partial, unix_ms, line));
        }
        let mut report = Vec::new();
        let _ = (&mut self.failure).take(REPORT_MAX).read_to_end(&mut report);
        let report = String::from_utf8_lossy(&report).trim_end().replace('\n', " ");
        let told = report.parse().ok();
        let reason = Some(report).filter(|report| told.is_none() && !report.is_empty());
        reason.iter().for_each(|reason| self.log(reason, unix_ms));
        self.writer.flush(unix_ms);
        let seen = || status.code().map_or_else(|| End::Signal(status.signal().unwrap_or(0)), End::Code);
        let end = told.unwrap_or_else(seen);
        let exit = Exit { nonce: self.spec.nonce.clone(), end, unix_ms, reason };
        // How an app ended is worth more than its oldest lines.
        while let Err(error) = exit.write(&self.spec.dir) {
            if !self.writer.drop_oldest() {
                return Err(error);
            }
        }
        self.phase = Phase::Ended(end);
        self.serve();
        let _ = fs::remove_file(self.spec.dir.join(control::SOCKET));
        for peer in self.peers.iter_mut().filter(|peer| peer.until.is_none()) {
            peer.send(Reply::Exited(end), None);
        }
        Ok(())
    }
}
