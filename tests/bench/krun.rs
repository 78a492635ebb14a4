//! What a microVM costs: the machine around a guest until that begins, which can be told wherever there is a `/dev/kvm`; and its
//! start to the app's first answer, which only a processor that runs guests itself can tell.
#![allow(unsafe_code)]

use std::{
    fs,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use nexushub_e2e::{Options, Platform, processes, workshop};
use nexushub_proto::provider::{Driver, Limits};
use nix::{
    errno::Errno,
    libc,
    sys::{
        ptrace,
        signal::{Signal, kill},
    },
    unistd::{Pid, geteuid},
};

use crate::boxes::{pss, put_with, spread, thousandth};

/// `KVM_RUN`, with which a processor of a guest goes on.
const KVM_RUN: u32 = 0xae80;
/// A guest's memory, in MiB.
const MEMORY: [u32; 2] = [128, 512];

/// All of it.
pub(crate) async fn measure(rounds: usize) {
    println!(
        "## microVM: VMM from its start to the first entry of its guest, in ms: p50, p99, of {rounds}; its PSS then, in KiB"
    );
    if cfg!(target_arch = "x86_64") && geteuid().is_root() && Path::new("/dev/kvm").exists() {
        MEMORY.iter().for_each(|mib| entries(*mib, rounds));
    } else {
        println!("not measurable here: needs an x86-64, root and /dev/kvm");
    }
    println!("## microVM: from asked for to the app's first 200, in ms: p50, p99, of {rounds}");
    match probe() {
        Ok(()) => starts(rounds).await,
        Err(why) => println!("not measurable here: {why}"),
    }
}

/// Whether guests boot here, in time.
fn probe() -> Result<(), String> {
    let asked = Command::new(workshop::program("nexushub-krun"))
        .args(["--probe", "--deadline-ms", "2000"])
        .stdin(Stdio::null())
        .output();
    let output = asked.map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

async fn starts(rounds: usize) {
    let platform =
        Platform::start_with(&Options::of("[procmgr]\nstart_probe_first_ms = 1\nstart_probe_max_ms = 1\n"));
    let limits = Limits { memory_bytes: 128 << 20, ..Limits::default() };
    let mut took = Vec::new();
    for round in 0..rounds {
        let name = format!("vm-{round}");
        let began = Instant::now();
        put_with(&platform, &name, Driver::Krun, limits).await;
        let status = platform.running(&name).await;
        took.push(began.elapsed());
        if round == 0 {
            let vmm = processes::all().into_iter().find(|pid| processes::parent(*pid) == Some(status.pid));
            vmm.iter()
                .for_each(|vmm| println!("PSS of the VMM beyond its guest's memory: {} KiB", beyond(*vmm)));
        }
        platform.remove(&name).await.unwrap();
    }
    let (middle, most) = spread(&mut took);
    println!("{:24} {:>8.1} {:>8.1}", "128 MiB", thousandth(middle), thousandth(most));
}

/// What a VMM holds beside what its guest was given: its memory, and the kernel in it.
fn beyond(vmm: u32) -> u64 {
    let maps = fs::read_to_string(format!("/proc/{vmm}/smaps")).unwrap_or_default();
    let (mut own, mut sum) = (true, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or_default();
        let number: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match first {
            _ if first.contains('-') => own = !line.contains("libkrunfw"),
            "Size:" => own &= number < 32 << 10,
            "Pss:" if own => sum += number,
            _ => {}
        }
    }
    sum
}

/// Machines that are ended as soon as their guest would begin.
fn entries(mib: u32, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    for name in ["release/bin", "data", "run"] {
        fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    let measured: Result<Vec<_>, String> = (0..rounds).map(|_| entry(mib, folder.path())).collect();
    match measured {
        Err(why) => println!("{:24} not measurable here: {why}", format!("{mib} MiB")),
        Ok(measured) => {
            let mut took: Vec<Duration> = measured.iter().map(|(took, _)| *took).collect();
            let most_pss = measured.iter().map(|(_, pss)| *pss).max().unwrap_or(0);
            let (middle, most) = spread(&mut took);
            println!(
                "{:24} {:>8.1} {:>8.1} {most_pss:>8}",
                format!("{mib} MiB"),
                thousandth(middle),
                thousandth(most)
            );
        }
    }
}

/// Starts a machine as the shim would, and watches it until its first `KVM_RUN`: how long that took from its program's start, and
/// its share of memory then.
fn entry(mib: u32, folder: &Path) -> Result<(Duration, u64), String> {
    let mut command = Command::new("unshare");
    command.args(["--net", "--pid", "--kill-child", "--"]).arg(workshop::program("nexushub-krun"));
    for (option, name) in [("--release", "release"), ("--data", "data"), ("--dir", "run")] {
        command.arg(option).arg(folder.join(name));
    }
    command.args(["--memory-mib", &mib.to_string(), "--uid", "200000", "--tmp-bytes", "1048576"]);
    command
        .args(["--", "/app/bin/app"])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec only system calls are made.
    unsafe { command.pre_exec(|| watched().map_err(std::io::Error::from)) };
    let child = command.spawn().map_err(|error| error.to_string())?;
    let first = Pid::from_raw(child.id().cast_signed());
    let seen = watch(first).map_err(|error| error.to_string());
    let _ = kill(first, Signal::SIGKILL);
    while let Ok(Some(_)) = next() {} // all that are traced end with it, as the first process of their own
    seen?.ok_or_else(|| "the machine ended before its guest began".to_owned())
}

/// In the child: traced, and stopped by the kernel at each `KVM_RUN`.
fn watched() -> nix::Result<()> {
    ptrace::traceme()?;
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = |offset: u32| step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset);
    let equal = |k: u32, no: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, no, k);
    let answer = |k: u32| step(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let mut program = [
        load(0),
        equal(libc::SYS_ioctl as u32, 3),
        load(24),
        equal(KVM_RUN, 1),
        answer(libc::SECCOMP_RET_TRACE),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the filter and its program live during the call, and the kernel copies them.
    let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    Errno::result(done).map(drop)
}

/// Follows all that comes of a process, to the first guest.
fn watch(first: Pid) -> nix::Result<Option<(Duration, u64)>> {
    use ptrace::Options as Follow;
    let all = Follow::PTRACE_O_TRACESECCOMP
        | Follow::PTRACE_O_TRACEFORK
        | Follow::PTRACE_O_TRACEVFORK
        | Follow::PTRACE_O_TRACECLONE
        | Follow::PTRACE_O_TRACEEXEC
        | Follow::PTRACE_O_EXITKILL;
    let (mut began, mut followed) = (Instant::now(), false);
    while let Some((pid, status)) = next()? {
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        match status >> 16 {
            libc::PTRACE_EVENT_SECCOMP => {
                return Ok(Some((began.elapsed(), pss(pid.as_raw().cast_unsigned()))));
            }
            libc::PTRACE_EVENT_EXEC => began = Instant::now(),
            0 if pid == first && !followed => {
                ptrace::setoptions(pid, all)?;
                followed = true;
            }
            _ => {}
        }
        // Signals of its own it gets; a stop is what each new process or thread begins with here.
        let signal =
            Some(libc::WSTOPSIG(status)).filter(|signal| !matches!(*signal, libc::SIGSTOP | libc::SIGTRAP));
        // SAFETY: goes on with a thread that is stopped.
        let done = unsafe { libc::ptrace(libc::PTRACE_CONT, pid.as_raw(), 0, signal.unwrap_or(0)) };
        match Errno::result(done) {
            Ok(_) | Err(Errno::ESRCH) => {} // killed meanwhile
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The next thread of which there is news, and its status: as numbers, since threads also use signals without a name.
fn next() -> nix::Result<Option<(Pid, i32)>> {
    let mut status = 0;
    // SAFETY: the status is this function's own.
    match Errno::result(unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) }) {
        Ok(pid) => Ok(Some((Pid::from_raw(pid), status))),
        Err(Errno::ECHILD) => Ok(None),
        Err(error) => Err(error),
    }
}
