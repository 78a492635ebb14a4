//! The first process of the machine's pid namespace: small, deaf to the guest but for the agent's lines (it passes on unread what the
//! guest says to the network, but for the kind of its frames), and the only one that has the report pipe. When it ends, the kernel
//! kills the VMM.
#![allow(unsafe_code)]

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use std::{convert::Infallible, fs::File, thread};

use nexushub_agent::word::{End, MAX_BYTES, Order, one_line};
use nexushub_agent::{INWARD_PORT, forward};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, pipe2};
use nix::{errno::Errno, libc};

use crate::args::Options;
use crate::jail::Jail;
use crate::machine::{self, Machine};
use crate::user::{self, Owner};
use crate::watch::{Outcome, Watch};
use crate::{bpf, files, link, plan};

/// The shim's report pipe.
const REPORT: i32 = 3;
/// What the frames of its network have in the VMM.
const NETWORK: i32 = 7;
/// The code when there was no app to have one.
const NOT_STARTED: u8 = 127;
/// How long a guest that has said its end may take to end; its last output is on its way meanwhile.
const LEAVE: Duration = Duration::from_secs(5);

/// Runs the app of a command line and reports its end.
pub(crate) fn main(options: &Options) -> ExitCode {
    // SAFETY: the shim hands over this descriptor, and nobody else here has it.
    let mut report = unsafe { File::from_raw_fd(REPORT) };
    let (text, code) = match keep(options) {
        Ok(Outcome::End(end)) => (end.to_string(), shell_code(end)),
        Ok(Outcome::Reason(reason)) => (reason, NOT_STARTED),
        Err(error) => (one_line(&error.to_string()), NOT_STARTED),
    };
    if report.write_all(text.as_bytes()).is_err() {
        eprintln!("nexushub-krun: {text}");
    }
    ExitCode::from(code)
}

fn shell_code(end: End) -> u8 {
    match end {
        End::Code(code) => code.to_le_bytes()[0],
        End::Signal(signal) => 128_u8.wrapping_add(signal.to_le_bytes()[0]),
    }
}

/// Starts the machine and watches it until its end. In the first process of a pid namespace.
pub(crate) fn keep(options: &Options) -> io::Result<Outcome> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGCHLD]);
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let owner = Owner::of(options.uid)?;
    let base = options.release.is_some() && plan::base();
    let tap = options.way_out.map(|_| link::open()).transpose()?; // before the jail, which has no such device
    let (network, frames) = tap.as_ref().map(|_| link::pair()).transpose()?.unzip();
    let machine = Machine {
        memory_mib: options.memory_mib,
        vcpus: options.vcpus,
        agent: files::agent()?,
        config: plan::config(options, base)?.encode(),
        shares: options.release.is_some(),
        base,
        outputs: [REPORT, REPORT + 1],
        network,
    };
    let mut jail = Jail::enter(options, &files::kernel(options.kernel.as_deref())?, base, owner)?;
    tap.as_ref().map_or(Ok(()), |tap| link::await_taken(tap, link::PATIENCE))?;
    let (vmm, errors) = start(machine, owner)?;
    // Threads after the fork, which needs a process of one.
    jail.inward.take().into_iter().for_each(inward);
    tap.zip(frames).map_or(Ok(()), |(tap, frames)| link::serve(tap, frames))?;
    let mut keeper = Keeper {
        watch: Watch::new(Instant::now(), options.boot, options.silence),
        jail,
        vmm,
        errors,
        signals,
        agent: None,
        heard: Vec::new(),
        last: String::new(),
    };
    let outcome = keeper.watch();
    keeper.end(matches!(outcome, Ok(Outcome::End(_))));
    outcome
}

/// Passes what the app says to the platform on to its internal entrance, which is the only listener in this network namespace.
fn inward(listener: UnixListener) {
    let accept = move || listener.accept().map(|(guest, _)| File::from(OwnedFd::from(guest)));
    let connect =
        || TcpStream::connect((Ipv4Addr::LOCALHOST, INWARD_PORT)).map(|to| File::from(OwnedFd::from(to)));
    thread::spawn(move || forward::serve(accept, connect));
}

/// Forks the VMM; says its process and what it complains to.
fn start(machine: Machine, owner: Owner) -> io::Result<(Pid, File)> {
    let (errors, errors_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (parted, parted_end) = pipe2(OFlag::O_CLOEXEC)?;
    let (gate_end, gate) = pipe2(OFlag::O_CLOEXEC)?;
    fcntl(&errors, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: this process has one thread: no lock is held by another.
    let ForkResult::Parent { child } = (unsafe { fork() })? else {
        drop((errors, parted, gate));
        let Err(error) = become_vmm(machine, owner, errors_end, parted_end, gate_end);
        eprintln!("{error}");
        // SAFETY: ends the child at once; nothing of the keeper's is run or flushed a second time.
        unsafe { libc::_exit(1) }
    };
    drop((errors_end, parted_end, gate_end));
    // Without the byte it could not make its namespaces, and says so itself.
    if File::from(parted).read(&mut [0])? == 1 {
        user::map(child, owner)?;
        File::from(gate).write_all(b"1")?;
    }
    Ok((child, errors.into()))
}

/// In the child: its own standard error, the app's outputs at 3 and 4, its network's frames, if it has one, at 7, nothing else;
/// then another user, and the machine.
fn become_vmm(
    mut machine: Machine,
    owner: Owner,
    errors: OwnedFd,
    parted: OwnedFd,
    gate: OwnedFd,
) -> io::Result<Infallible> {
    // SAFETY: the app's outputs come to 3 and 4, in place of the report pipe, which this process must not have, and of
    // whatever is at 4; those that are still needed are moved above them first.
    let [errors, parted, gate] = unsafe {
        let high = |fd: OwnedFd| Errno::result(libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 10));
        let [errors, parted, gate] = [high(errors)?, high(parted)?, high(gate)?];
        let network = machine.network.take().map(high).transpose()?;
        Errno::result(libc::dup2(libc::STDOUT_FILENO, REPORT))?;
        Errno::result(libc::dup2(libc::STDERR_FILENO, REPORT + 1))?;
        Errno::result(libc::dup2(errors, libc::STDOUT_FILENO))?;
        Errno::result(libc::dup2(errors, libc::STDERR_FILENO))?;
        Errno::result(libc::dup2(parted, 5))?;
        Errno::result(libc::dup2(gate, 6))?;
        let first_free = match network {
            Some(network) => {
                machine.network = Some(OwnedFd::from_raw_fd(Errno::result(libc::dup2(network, NETWORK))?));
                NETWORK + 1
            }
            None => NETWORK,
        };
        Errno::result(libc::syscall(libc::SYS_close_range, first_free, u32::MAX, 0))?;
        [OwnedFd::from_raw_fd(libc::STDERR_FILENO), OwnedFd::from_raw_fd(5), OwnedFd::from_raw_fd(6)]
    };
    std::mem::forget(errors);
    user::part()?;
    File::from(parted).write_all(b"1")?;
    if File::from(gate).read(&mut [0])? == 0 {
        return Err(io::Error::other("its keeper could not map its user"));
    }
    user::become_owner(owner)
        .map_err(|error| io::Error::other(format!("could not become its user: {error}")))?;
    machine.outputs = [REPORT, REPORT + 1];
    bpf::refuse().map_err(|error| io::Error::other(format!("could not refuse system calls: {error}")))?;
    Err(machine::run(machine))
}

struct Keeper {
    watch: Watch,
    jail: Jail,
    vmm: Pid,
    errors: File,
    signals: SignalFd,
    agent: Option<UnixStream>,
    heard: Vec<u8>,
    last: String,
}

impl Keeper {
    fn watch(&mut self) -> io::Result<Outcome> {
        loop {
            self.wait()?;
            let now = Instant::now();
            self.complaints();
            if let Some(outcome) = self.accept().and_then(|()| self.hear(now))? {
                return Ok(outcome);
            }
            while let Some(signal) = self.signals.read_signal()? {
                if signal.ssi_signo == Signal::SIGTERM as u32 {
                    self.watch.stop();
                }
            }
            if let Some(order) = self.watch.order() {
                self.say(order);
            }
            if self.gone() {
                self.complaints();
                return Ok(self.hear(now)?.unwrap_or_else(|| self.watch.gone(&self.last)));
            }
            if let Some(outcome) = self.watch.tick(now) {
                return Ok(outcome);
            }
        }
    }

    fn wait(&self) -> io::Result<()> {
        let left = self.watch.deadline().saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let talk = self.agent.as_ref().map_or_else(|| self.jail.control.as_fd(), |agent| agent.as_fd());
        let mut waited =
            [talk, self.signals.as_fd(), self.errors.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        match poll(&mut waited, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The first connection is the agent's: it starts before any app. There is no second.
    fn accept(&mut self) -> io::Result<()> {
        if self.agent.is_some() {
            return Ok(());
        }
        match self.jail.control.accept() {
            Ok((agent, _)) => {
                agent.set_nonblocking(true)?;
                self.agent = Some(agent);
                self.jail.publish()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn hear(&mut self, now: Instant) -> io::Result<Option<Outcome>> {
        let mut buffer = [0; MAX_BYTES];
        while let Some(agent) = &mut self.agent {
            match agent.read(&mut buffer) {
                Ok(length @ 1..) => self.heard.extend_from_slice(&buffer[..length]),
                Ok(0) => {
                    // The guest is going; its VMM follows or the deadline comes. An end of file would wake us for ever.
                    thread::sleep(Duration::from_millis(10));
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            if self.heard.len() > 2 * MAX_BYTES {
                break;
            }
        }
        while let Some(end) = self.heard.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.heard.drain(..=end).collect();
            let before = self.watch.guest;
            let outcome = self.watch.line(now, String::from_utf8_lossy(&line).trim_end());
            if self.watch.guest != before {
                self.jail.note(self.watch.guest);
            }
            if outcome.is_some() {
                return Ok(outcome);
            }
        }
        if self.heard.len() > MAX_BYTES {
            return Ok(Some(Outcome::Reason("the virtual machine said a line without end".into())));
        }
        Ok(None)
    }

    fn say(&mut self, order: Order) {
        if let Some(agent) = &mut self.agent {
            let _ = agent.write_all(format!("{order}\n").as_bytes());
        }
    }

    /// Keeps the end of what the VMM complains about.
    fn complaints(&mut self) {
        let mut buffer = [0; MAX_BYTES];
        while let Ok(length @ 1..) = self.errors.read(&mut buffer) {
            self.last.push_str(&String::from_utf8_lossy(&buffer[..length]));
            let start = self.last.ceil_char_boundary(self.last.len().saturating_sub(MAX_BYTES));
            self.last.drain(..start);
        }
    }

    fn gone(&self) -> bool {
        !matches!(waitpid(self.vmm, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
    }

    /// The guest reboots by itself once it has been heard; what does not is killed.
    fn end(&mut self, heard: bool) {
        if heard {
            self.say(Order::Bye);
            let until = Instant::now() + LEAVE;
            while Instant::now() < until && !self.gone() {
                let left = until.saturating_duration_since(Instant::now()).min(Duration::from_millis(50));
                let mut ended = [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut ended, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO));
                self.complaints();
                let _ = self.signals.read_signal();
            }
        }
        let _ = kill(self.vmm, Signal::SIGKILL);
        let _ = waitpid(self.vmm, None);
        self.jail.withdraw();
    }
}
