//! A daemon that does nothing but what `$STATE/<name>.does` says, in words: `check=N` fails its check, `exit=N` ends at once,
//! `unready` never says READY, `stubborn` ignores SIGTERM, `store` leaves a descriptor with its parent, `dies` is killed over
//! its first full stop. It says what happens to it on stderr.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    env, fs,
    io::{self, Read, Seek, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixDatagram,
    },
    process::ExitCode,
    time::Duration,
};

use nexushub_launch::{fds, handoff::Handoff, json::Object, notify::Notifier};
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::signal::{SigSet, Signal},
    sys::signalfd::{SfdFlags, SignalFd},
    sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg},
    time::{ClockId, clock_gettime},
};

struct Fake {
    name: String,
    handoff: Handoff,
    does: String,
}

impl Fake {
    fn does(&self, word: &str) -> bool {
        self.does.split_whitespace().any(|does| does == word)
    }

    fn number(&self, key: &str) -> Option<u8> {
        self.does.split_whitespace().find_map(|does| does.strip_prefix(key)?.strip_prefix('=')?.parse().ok())
    }

    fn say(&self, msg: &str, fields: impl FnOnce(Object) -> Object) {
        let line =
            Object::new().text("daemon", &self.name).number("pid", std::process::id()).text("msg", msg);
        io::stderr().write_all(format!("{}\n", fields(line).finish()).as_bytes()).unwrap();
    }
}

fn main() -> ExitCode {
    let name = env::args().next().unwrap().strip_prefix("nexushub-").unwrap().to_owned();
    let handoff = Handoff::from_env().unwrap();
    let state = handoff.state.clone().unwrap();
    let does = fs::read_to_string(state.join(format!("{name}.does"))).unwrap_or_default();
    let fake = Fake { name, handoff, does };
    if env::args().nth(1).as_deref() == Some("--check") {
        if let Some(code) = fake.number("check") {
            fake.say("check failed", |line| line.text("level", "error").text("code", "fake"));
            return ExitCode::from(code);
        }
        return ExitCode::SUCCESS;
    }
    run(&fake)
}

fn run(fake: &Fake) -> ExitCode {
    let mut mask = SigSet::empty();
    mask.extend([Signal::SIGTERM, Signal::SIGINT]);
    mask.thread_block().unwrap();
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC).unwrap();
    let inherited = fds::take().unwrap();
    let notifier = Notifier::from_env().unwrap().unwrap();
    let names: Vec<_> = inherited.iter().map(|(name, _)| name.as_str()).collect();
    let config =
        fake.handoff.config.as_ref().map(|path| fs::read_to_string(path).unwrap()).unwrap_or_default();
    let folder = env::current_dir().unwrap();
    fake.say("started", |line| {
        let line =
            line.text("fds", &names.join(":")).text("config", &config).text("cwd", &folder.to_string_lossy());
        line.number("variables", i64::try_from(env::vars_os().count()).unwrap())
    });
    if let Some(code) = fake.number("exit") {
        return ExitCode::from(code);
    }
    if fake.does("store") {
        match inherited.iter().find(|(name, _)| name == "kept") {
            Some((_, fd)) => {
                let mut file = fs::File::from(fd.try_clone().unwrap());
                let mut text = String::new();
                file.rewind().unwrap();
                file.read_to_string(&mut text).unwrap();
                fake.say("found", |line| line.text("text", &text));
                notifier.send("FDSTOREREMOVE=1\nFDNAME=kept").unwrap();
            }
            None => {
                let path = fake.handoff.state.clone().unwrap().join("kept");
                fs::write(&path, "left here").unwrap();
                leave(&fs::File::open(path).unwrap());
            }
        }
    }
    if !fake.does("unready") {
        notifier.send("READY=1\nSTATUS=as good as it gets").unwrap();
    }
    serve(fake, &signals, &notifier)
}

/// Leaves a descriptor with the parent, for the daemon's successor.
fn leave(file: &fs::File) {
    let path = env::var("NOTIFY_SOCKET").unwrap();
    let address = path
        .strip_prefix('@')
        .map_or_else(|| UnixAddr::new(&*path), |name| UnixAddr::new_abstract(name.as_bytes()));
    let (socket, fds) = (UnixDatagram::unbound().unwrap(), [file.as_raw_fd()]);
    let text = [io::IoSlice::new(b"FDSTORE=1\nFDNAME=kept")];
    let control = [ControlMessage::ScmRights(&fds)];
    sendmsg(socket.as_raw_fd(), &text, &control, MsgFlags::empty(), Some(&address.unwrap())).unwrap();
}

/// Pings until told to stop.
fn serve(fake: &Fake, signals: &SignalFd, notifier: &Notifier) -> ExitCode {
    let half = fake.handoff.watchdog.unwrap() / 2;
    loop {
        let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap());
        let rest = half.as_micros() - now.as_micros() % half.as_micros();
        let rest = Duration::from_micros(u64::try_from(rest).unwrap());
        let mut poll = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if ppoll(&mut poll, Some(rest.into()), None).unwrap() == 0 {
            notifier.send("WATCHDOG=1").unwrap();
            continue;
        }
        signals.read_signal().unwrap();
        let run = fake.handoff.run.clone().unwrap();
        let all = run.join("stop-all").exists();
        fake.say("told to stop", |line| line.raw("all", &all.to_string()));
        if fake.does("dies") && all {
            let died = run.join("died");
            if !died.exists() {
                fs::write(died, "").unwrap();
                std::process::abort();
            }
        }
        if !fake.does("stubborn") {
            return ExitCode::SUCCESS;
        }
    }
}
