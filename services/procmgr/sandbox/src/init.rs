//! The first process of a box: builds it, starts the app, reaps, passes SIGTERM on, reports the end.
//!
//! It has one thread, so the child may do anything between fork and exec. Once the app runs it holds the report and
//! nothing else: no capability, no descriptor of the app's, no memory that anybody in the box could read.
#![allow(unsafe_code)]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{convert::Infallible, fs, fs::File, io::Read as _, io::Write as _, mem};

use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, Signal, kill, signal};
use nix::unistd::{self, ForkResult, Pid, fork, pipe2};
use nix::{errno::Errno, fcntl::OFlag, libc, sys::prctl};

use crate::order::Run;
use crate::report::{Because as _, Reason, Report};
use crate::{filter, land, root, user, user::Ids};

/// What the child says when it is in its user namespace; no reason begins with it.
const MAP_ME: u8 = 0;
/// Memory that a process of the app may lock.
const LOCKED_BYTES: u64 = 64 * 1024;

/// Longest wait for the way out, which the process manager makes once it knows the box.
const WAY_OUT_PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks whether it is there.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// Somewhere on the internet; nothing is ever sent there.
const SOMEWHERE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);

/// What the app's process does once it is confined: execs the app, or looks around. It returns only why it can't.
pub(crate) type Begin = fn(&Run, note: Option<&str>) -> Result<Infallible, Reason>;

/// Builds the box around this process, runs the app in it, and tells the report how it ended or why it never began.
#[must_use]
pub fn run(run: &Run, report: Report) -> ExitCode {
    run_with(run, report, exec)
}

pub(crate) fn run_with(run: &Run, report: Report, begin: Begin) -> ExitCode {
    match start(run, &report, begin) {
        Err(reason) => report.failed(&reason),
        Ok(app) => report.ended(watch(app)),
    }
}

fn start(run: &Run, report: &Report, begin: Begin) -> Result<Pid, Reason> {
    let ids = Ids::of(run.uid, run.slot)?;
    prctl::set_no_new_privs().because(|| "renounce privileges")?;
    prctl::set_pdeathsig(Signal::SIGKILL).because(|| "be tied to the shim")?;
    // From here on signals wait until they are asked for.
    SigSet::all().thread_set_mask().because(|| "block signals")?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    let mut run = run.clone();
    for path in [&mut run.release, &mut run.data].into_iter().chain(&mut run.ca) {
        *path = fs::canonicalize(&*path).because(|| format!("find {}", path.display()))?;
    }
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWCGROUP;
    unshare(own).because(|| "make namespaces")?;
    unistd::sethostname(&run.hostname).because(|| "set the host name")?;
    root::keep_to_itself()?;
    nexushub_volume::bound(&run.data, run.data_bytes).map_err(Reason::new)?;
    ids.own(&run.data)?;
    ids.own_outputs();
    root::build(&root::plan(&run, ids.inside()))?;
    if run.gateway.is_some() {
        await_way_out()?;
    }
    let app = fork_app(&run, ids, report, begin)?;
    release_text();
    Ok(app)
}

/// Waits until the box has a way out: an app that asks for the internet finds it from its first instruction on.
fn await_way_out() -> Result<(), Reason> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).because(|| "make a socket")?;
    let deadline = Instant::now() + WAY_OUT_PATIENCE;
    // This sends nothing; it only asks for a route.
    while let Err(error) = socket.connect(SOMEWHERE) {
        if Instant::now() >= deadline {
            return Err(error).because(|| "find the way out to the internet");
        }
        sleep(LOOK_EVERY);
    }
    Ok(())
}

/// The app's process, which runs the app when this returns.
fn fork_app(run: &Run, ids: Ids, report: &Report, begin: Begin) -> Result<Pid, Reason> {
    let pipe = || pipe2(OFlag::O_CLOEXEC).because(|| "make a pipe");
    let ((said, say), (gate, open)) = (pipe()?, pipe()?);
    // SAFETY: this process has one thread: no lock is held by another.
    let ForkResult::Parent { child } = unsafe { fork() }.because(|| "fork")? else {
        report.close();
        drop((said, open));
        let mut say = File::from(say);
        let Err(reason) = become_app(run, ids, &mut say, gate.into(), begin);
        let _ = write!(say, "{reason}");
        // SAFETY: ends the child at once; nothing of its parent's is run or flushed a second time.
        unsafe { libc::_exit(127) }
    };
    drop((say, gate));
    let (mut said, mut first, mut rest) = (File::from(said), [0xff], String::new());
    if said.read(&mut first).because(|| "hear from the app's process")? == 1 && first == [MAP_ME] {
        ids.map(child)?;
        hide()?;
        File::from(open).write_all(b".").because(|| "let the app begin")?;
        said.read_to_string(&mut rest).because(|| "hear from the app's process")?;
        if rest.is_empty() {
            return Ok(child);
        }
    } else {
        said.read_to_string(&mut rest).because(|| "hear from the app's process")?;
        rest.insert(0, first[0].into());
    }
    Err(Reason::new(rest))
}

/// In the child: confines itself and begins.
fn become_app(
    run: &Run,
    ids: Ids,
    say: &mut File,
    mut gate: File,
    begin: Begin,
) -> Result<Infallible, Reason> {
    // Mounts that are copied into the namespaces of another user are locked there.
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).because(|| "make a user namespace")?;
    say.write_all(&[MAP_ME]).because(|| "ask for its ids")?;
    if gate.read(&mut [0]).because(|| "wait for its ids")? == 0 {
        return Err(Reason::new("could not get its ids"));
    }
    ids.settle()?;
    limit(run)?;
    unistd::setsid().because(|| "begin a session")?;
    // SAFETY: sets the default disposition, which runs no code; the runtime had SIGPIPE ignored.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.because(|| "reset signals")?;
    unistd::chdir("/app").because(|| "enter /app")?;
    let note = land::restrict()?;
    SigSet::empty().thread_set_mask().because(|| "unblock signals")?;
    filter::install()?;
    begin(run, note)
}

fn exec(run: &Run, _: Option<&str>) -> Result<Infallible, Reason> {
    let program = &run.command[0];
    unistd::execv(program, &run.command).because(|| format!("start {}", program.to_string_lossy()))
}

fn limit(run: &Run) -> Result<(), Reason> {
    let files = Some(run.open_files).filter(|files| *files > 0);
    let limits = [
        (Resource::RLIMIT_CORE, Some(0)),
        (Resource::RLIMIT_MEMLOCK, Some(LOCKED_BYTES)),
        (Resource::RLIMIT_NOFILE, files),
        (Resource::RLIMIT_NPROC, run.processes),
    ];
    for (resource, bound) in limits {
        let Some(bound) = bound else { continue };
        let (_, hard) = getrlimit(resource).because(|| format!("read {resource:?}"))?;
        let bound = bound.min(hard);
        setrlimit(resource, bound, bound).because(|| format!("set {resource:?}"))?;
    }
    Ok(())
}

/// From here on this process can do little, and shows nothing of itself: before the app begins.
fn hide() -> Result<(), Reason> {
    // SAFETY: the three standard descriptors are the app's and nothing in this process owns them.
    unsafe { libc::syscall(libc::SYS_close_range, 0, 2, 0) };
    user::renounce()?;
    prctl::set_dumpable(false).because(|| "hide from the app").map(|_| ())
}

/// Lets go of the program's own pages; what the loop needs comes back from the page cache.
fn release_text() {
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let (begin, end) = (&raw const __executable_start, &raw const etext);
    // SAFETY: the linker puts only read-only segments between the two; nobody wrote to them, so the file still has them.
    unsafe { libc::madvise(begin.cast_mut().cast(), end.addr() - begin.addr(), libc::MADV_DONTNEED) };
}

/// Reaps until the app's main process has ended. The kernel ends the rest with this process.
fn watch(app: Pid) -> ExitStatus {
    loop {
        while let Some((pid, status)) = reap() {
            if pid == app.as_raw() {
                return status;
            }
        }
        // SAFETY: all zeros is a valid siginfo and a valid signal set.
        let (mut all, mut info): (libc::sigset_t, libc::siginfo_t) = unsafe { mem::zeroed() };
        // SAFETY: both are the caller's and outlive the call.
        let number = unsafe {
            libc::sigfillset(&raw mut all);
            libc::sigwaitinfo(&raw const all, &raw mut info)
        };
        // Who sends it from outside has no number in here; the app can't order its own end.
        // SAFETY: a signal that was sent has a sender.
        if number == libc::SIGTERM && unsafe { info.si_pid() } == 0 {
            let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        }
    }
}

/// The next child that has ended.
fn reap() -> Option<(i32, ExitStatus)> {
    let mut status = 0;
    // SAFETY: waitpid writes to the integer that it is given. (nix's own refuses real-time signals after having reaped.)
    match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
        Ok(pid @ 1..) => Some((pid, ExitStatus::from_raw(status))),
        _ => None,
    }
}
