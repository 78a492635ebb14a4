//! The shim as a process of its own, with `/bin/sh` as the app. Every wait is for a state: a reply, an end of file, a lock.
#![allow(clippy::unwrap_used, unsafe_code)]

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufReader, IoSliceMut, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::PermissionsExt as _,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use nexushub_launch::{clock, lock::Lock};
use nexushub_shim::{
    control::{self, Reply, Request},
    exit::{End, Exit},
    frame::Stream,
    identity::{Identity, Stat, verify},
    reader::{Event, Item, LogCursor, Reader},
    record::{Process, Record},
    segment::{self, BUDGET_MIN},
    spawn::{self, LOCK},
    spec::Spec,
};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
        stat::Mode,
    },
    unistd::{Pid, geteuid, mkfifo},
};
use tempfile::TempDir;

const NONCE: &str = "00112233445566778899aabbccddeeff";
/// Far more than anything here takes; only a hang meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// One generation in a folder of its own; ended with the test.
struct Generation {
    folder: TempDir,
    spec: Spec,
    shim: Option<Child>,
}

impl Generation {
    /// Nothing is started yet. `$FIFO` and `$BACK` are pipes between the app and the test.
    fn new(script: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("7");
        fs::create_dir(&dir).unwrap();
        for name in ["fifo", "back"] {
            mkfifo(&folder.path().join(name), Mode::S_IRWXU).unwrap();
        }
        let fifo = |name: &str| (OsString::from(name.to_uppercase()), folder.path().join(name).into());
        let spec = Spec {
            instance: "shop".into(),
            generation: 7,
            nonce: NONCE.into(),
            log_dir: folder.path().join("log"),
            log_budget_bytes: 64 << 20,
            segment_bytes: 1 << 20,
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            cwd: folder.path().to_owned(),
            env: vec![fifo("fifo"), fifo("back"), ("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
            mapped: false,
            boxed: false,
            machine: false,
            cgroups: Vec::new(),
            dir,
        };
        Self { folder, spec, shim: None }
    }

    fn run(script: &str) -> Self {
        Self::new(script).started()
    }

    fn started(mut self) -> Self {
        self.intend();
        self.launch(None);
        self
    }

    fn intend(&self) {
        let record = Record {
            instance: "shop".into(),
            generation: 7,
            nonce: NONCE.into(),
            boot_id: clock::boot_id().unwrap(),
            release: "/release".into(),
            port: None,
            driver: "process".into(),
            shim: None,
            app: None,
            session: None,
        };
        record.write(&self.spec.dir).unwrap();
    }

    fn launch(&mut self, port: Option<OwnedFd>) {
        let lock = self.free_lock().share().unwrap();
        let shim = Path::new(env!("CARGO_BIN_EXE_nexushub-shim"));
        self.shim = Some(spawn::launch(shim, &self.spec, lock, port).unwrap());
    }

    fn lock(&self) -> PathBuf {
        self.spec.dir.join(LOCK)
    }

    /// Not at once: a test that is starting its own shim may hold a copy of each descriptor until it has executed it.
    fn free_lock(&self) -> Lock {
        Lock::acquire_within(&self.lock(), PATIENCE).unwrap().expect("the shim has let go of it")
    }

    fn fifo(&self) -> BufReader<File> {
        BufReader::new(File::open(self.folder.path().join("fifo")).unwrap())
    }

    fn back(&self) -> File {
        File::options().write(true).open(self.folder.path().join("back")).unwrap()
    }

    fn shim_pid(&self) -> u32 {
        self.shim.as_ref().unwrap().id()
    }

    /// Only while the app runs: its record is complete, and the socket there, before its first instruction.
    fn connect(&self) -> BufReader<UnixStream> {
        let stream =
            UnixStream::connect(control::address(&File::open(&self.spec.dir).unwrap(), control::SOCKET))
                .unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(stream)
    }

    fn ask(&self, request: Request) -> Reply {
        self.ask_as(NONCE, request)
    }

    fn ask_as(&self, nonce: &str, request: Request) -> Reply {
        let mut stream = self.connect();
        stream.get_mut().write_all(request.encode(nonce).as_bytes()).unwrap();
        Reply::parse(first_line(&mut stream).as_bytes()).unwrap()
    }

    fn record(&self) -> Record {
        Record::read(&self.spec.dir).unwrap().unwrap()
    }

    /// Waits for the shim's own end; its exit code.
    fn ended(&mut self) -> Option<i32> {
        self.shim.as_mut().unwrap().wait().unwrap().code()
    }

    fn exit(&mut self) -> Exit {
        assert_eq!(self.ended(), Some(0));
        Exit::read(&self.spec.dir).unwrap().expect("an exit record")
    }

    fn items(&self) -> Vec<Item> {
        let (mut reader, mut after, mut all) =
            (Reader::new(&self.spec.log_dir, |_| false), LogCursor::default(), Vec::new());
        loop {
            let batch = reader.read_after(&after, 1000).unwrap();
            if batch.items.is_empty() {
                return all;
            }
            after = batch.cursor;
            all.extend(batch.items);
        }
    }

    fn lines(&self, of: Stream) -> Vec<Vec<u8>> {
        let line = |item: Item| match item.event {
            Event::Entry(entry) if entry.stream == of => Some(entry.line),
            _ => None,
        };
        self.items().into_iter().filter_map(line).collect()
    }

    fn text(&self, of: Stream) -> String {
        self.lines(of).into_iter().map(|line| String::from_utf8_lossy(&line).into_owned() + "\n").collect()
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if let Some(shim) = &mut self.shim {
            let _ = shim.kill();
            let _ = shim.wait();
        }
    }
}

fn first_line(reader: &mut impl io::BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[test]
fn output_is_kept_apart_and_the_exit_code_recorded() {
    let mut app = Generation::run("echo out; echo err >&2; echo $$; printf end; exit 3");
    let exit = app.exit();
    assert_eq!((exit.end, exit.nonce.as_str(), exit.reason), (End::Code(3), NONCE, None));
    let record = app.record();
    assert_eq!(app.text(Stream::Stdout), format!("out\n{}\nend\n", record.app.unwrap().pid));
    assert_eq!(app.text(Stream::Stderr), "err\n");
    assert_eq!(record.shim.unwrap().pid, app.shim_pid());
    assert_eq!(record.session, Some(app.shim_pid()));
    let Event::Entry(entry) = &app.items()[0].event else { unreachable!() };
    assert_eq!((entry.generation, entry.pid), (7, record.app.unwrap().pid));
    assert!(exit.unix_ms > 1_600_000_000_000 && entry.unix_ms > 1_600_000_000_000);
    assert!(!app.spec.dir.join(control::SOCKET).exists());
}

#[test]
fn a_signal_that_ended_the_app_is_recorded() {
    for (signal, number) in [("KILL", 9), ("SEGV", 11), ("34", 34)] {
        let mut app = Generation::run(&format!("kill -{signal} $$"));
        assert_eq!(app.exit().end, End::Signal(number));
    }
}

#[test]
fn a_line_of_a_megabyte_and_any_bytes_are_kept() {
    let mut app = Generation::run("head -c 1000000 /dev/zero; echo; printf '\\000\\377\\r\\n'; printf '\\n'");
    app.exit();
    let mut line = Vec::new();
    let mut whole = Vec::new();
    for item in app.items() {
        let Event::Entry(entry) = item.event else { unreachable!() };
        line.extend(entry.line);
        if !entry.partial {
            whole.push(std::mem::take(&mut line));
        }
    }
    assert_eq!(whole, [vec![0; 1_000_000], b"\0\xff\r".to_vec(), vec![]]);
}

#[test]
fn a_full_budget_drops_the_oldest() {
    let mut app =
        Generation::new("i=0; while [ $i -lt 40000 ]; do echo \"$i is a line of text\"; i=$((i+1)); done");
    app.spec.log_budget_bytes = BUDGET_MIN;
    app = app.started();
    app.exit();
    let bytes: u64 = segment::list(&app.spec.log_dir).unwrap().iter().map(|(_, length)| length).sum();
    assert!(bytes <= BUDGET_MIN, "{bytes}");
    let lines = app.lines(Stream::Stdout);
    assert_eq!(lines.last().unwrap(), b"39999 is a line of text");
    let first = 40_000 - lines.len();
    assert_eq!(lines[0], format!("{first} is a line of text").into_bytes(), "nothing is missing in between");
    let rest = Reader::new(&app.spec.log_dir, |_| false).read_after(&LogCursor::after(7, 1), 1).unwrap();
    assert_eq!(rest.items[0].event, Event::Gap(first as u64 - 1));
}

#[test]
fn an_app_that_ends_when_asked_is_not_killed() {
    let mut app = Generation::run("trap 'exit 7' TERM; sleep 1000 & echo up > $FIFO; wait");
    first_line(&mut app.fifo());
    assert_eq!(app.ask(Request::Stop(Duration::from_secs(3600))), Reply::Stopping);
    assert_eq!(app.exit().end, End::Code(7));
}

#[test]
fn an_app_that_ignores_the_request_is_killed_at_the_deadline() {
    let mut app = Generation::run("trap '' TERM; echo up > $FIFO; sleep 1000; sleep 1000");
    first_line(&mut app.fifo());
    assert_eq!(app.ask(Request::Stop(Duration::from_secs(3600))), Reply::Stopping);
    assert!(matches!(app.ask(Request::Status), Reply::Running(_)));
    assert_eq!(
        app.ask(Request::Stop(Duration::from_millis(50))),
        Reply::Stopping,
        "an earlier deadline counts"
    );
    assert_eq!(app.exit().end, End::Signal(9));
}

#[test]
fn all_of_the_session_is_asked_to_end() {
    // timeout(1) makes a process group of its own. The pipe is opened once: one that is opened for each line may still
    // have the first line's writer when it is opened for the second, and then ends with it.
    let inner = "exec 3> $FIFO; trap \"echo asked >&3; exit\" TERM; echo up >&3; while :; do sleep 1000 & wait $!; done";
    let app = Generation::run(&format!(
        "trap : TERM; timeout 1000 sh -c '{inner}' & wait; wait; read line < $BACK"
    ));
    let mut said = app.fifo();
    assert_eq!(first_line(&mut said), "up");
    assert_eq!(app.ask(Request::Stop(Duration::from_secs(3600))), Reply::Stopping);
    assert_eq!(first_line(&mut said), "asked");
}

#[test]
fn kill_ends_it_at_once() {
    let mut app = Generation::run("trap '' TERM; echo up > $FIFO; sleep 1000");
    first_line(&mut app.fifo());
    assert_eq!(app.ask(Request::Kill), Reply::Stopping);
    assert_eq!(app.exit().end, End::Signal(9));
}

#[test]
fn daemonized_grandchildren_are_gone_before_the_exit_is_told() {
    let daemon = "exec 3> $FIFO; trap \"\" TERM HUP; echo up >&3; sleep 1000; sleep 1000";
    let mut app = Generation::run(&format!("(setsid sh -c '{daemon}' &); read line < $BACK; exit 5"));
    let mut alive = app.fifo();
    assert_eq!(first_line(&mut alive), "up");
    let mut waiting = app.connect();
    waiting.get_mut().write_all(Request::Wait.encode(NONCE).as_bytes()).unwrap();
    writeln!(app.back(), "go").unwrap();
    assert_eq!(first_line(&mut waiting), "exited code=5");
    assert_eq!(alive.read(&mut [0]).unwrap(), 0, "nobody holds the pipe any more");
    assert_eq!(app.exit().end, End::Code(5));
}

#[test]
fn somebody_outside_who_holds_the_output_holds_nobody_up() {
    // The test itself opens the app's output by way of /proc, and keeps it.
    let mut app = Generation::run("echo up > $FIFO; read line < $BACK");
    first_line(&mut app.fifo());
    let Reply::Running(Process { pid, .. }) = app.ask(Request::Status) else { unreachable!() };
    let held = File::options().write(true).open(format!("/proc/{pid}/fd/2")).unwrap();
    writeln!(app.back(), "go").unwrap();
    assert_eq!(app.exit().end, End::Code(0));
    drop(held);
}

#[test]
fn a_killed_shim_takes_the_app_with_it_and_frees_the_lock() {
    let mut app = Generation::run("exec 3> $FIFO; echo up >&3; read line < $BACK");
    let mut alive = app.fifo();
    assert_eq!(first_line(&mut alive), "up");
    assert!(Lock::try_acquire(&app.lock()).unwrap().is_none());
    assert_eq!(verify(&app.record()).unwrap(), Identity::Alive);
    app.shim.as_mut().unwrap().kill().unwrap();
    assert_eq!(alive.read(&mut [0]).unwrap(), 0, "the app is gone");
    drop(app.free_lock());
    app.ended();
    assert_eq!(verify(&app.record()).unwrap(), Identity::Gone);
    assert_eq!(Exit::read(&app.spec.dir).unwrap(), None);
}

#[test]
fn a_status_names_the_process_and_everybody_who_waits_is_told() {
    let mut app = Generation::run("echo up > $FIFO; read line < $BACK; exit 4");
    first_line(&mut app.fifo());
    let running = app.record().app.unwrap();
    assert_eq!(running.start, Stat::of(running.pid).unwrap().start);
    assert_eq!(app.ask(Request::Status), Reply::Running(running));
    let waiting = [(); 5].map(|()| {
        let mut reader = app.connect();
        // The reply to the first line proves that the second has been read, too.
        write!(reader.get_mut(), "status {NONCE}\nwait {NONCE}\n").unwrap();
        assert!(first_line(&mut reader).starts_with("running "));
        reader
    });
    writeln!(app.back(), "go").unwrap();
    for mut reader in waiting {
        assert_eq!(first_line(&mut reader), "exited code=4");
    }
    assert_eq!(app.exit().end, End::Code(4));
}

#[test]
fn a_burst_is_answered_to_the_last_and_whoever_waits_keeps_its_place() {
    let mut app = Generation::run("echo up > $FIFO; read line < $BACK");
    first_line(&mut app.fifo());
    let wait = || {
        let mut reader = app.connect();
        write!(reader.get_mut(), "status {NONCE}\nwait {NONCE}\n").unwrap();
        assert!(first_line(&mut reader).starts_with("running "));
        reader
    };
    let mut first = wait();
    // All of the burst is there before any of it can be looked at.
    let shim = Pid::from_raw(app.shim_pid().cast_signed());
    kill(shim, Signal::SIGSTOP).unwrap();
    let mut burst: Vec<_> = (0..200).map(|_| app.connect()).collect();
    burst.iter_mut().for_each(|reader| writeln!(reader.get_mut(), "status {NONCE}").unwrap());
    kill(shim, Signal::SIGCONT).unwrap();
    for (number, reader) in burst.iter_mut().enumerate() {
        assert!(first_line(reader).starts_with("running "), "{number} was hung up on");
    }
    drop(burst);
    let waiting: Vec<_> = (0..100).map(|_| wait()).collect();
    assert!(matches!(app.ask(Request::Status), Reply::Running(_)), "who waits keeps nobody out");
    writeln!(app.back(), "go").unwrap();
    assert_eq!(first_line(&mut first), "exited code=0");
    let told = waiting.into_iter().map(|mut reader| first_line(&mut reader)).filter(|line| !line.is_empty());
    assert!(told.count() > 50);
    assert_eq!(app.exit().end, End::Code(0));
}

#[test]
fn garbage_on_the_socket_harms_nobody() {
    let mut app = Generation::run("echo up > $FIFO; read line < $BACK");
    first_line(&mut app.fifo());
    let replies = |bytes: &[u8]| {
        let mut stream = app.connect();
        let _ = stream.get_mut().write_all(bytes); // the shim may have hung up already
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        text
    };
    assert_eq!(replies(b"GET / HTTP/1.1\r\n\r\n"), "malformed\n");
    assert_eq!(replies(b"\n"), "malformed\n");
    assert_eq!(replies(b"\xff\0\n"), "malformed\n");
    assert_eq!(replies(&[b'x'; control::LINE_MAX]), "malformed\n");
    assert_eq!(replies(format!("stop {NONCE} soon\n").as_bytes()), "malformed\n");
    drop(app.connect());
    let idle: Vec<_> = (0..100).map(|_| app.connect()).collect();
    assert!(matches!(app.ask(Request::Status), Reply::Running(_)), "idle connections keep nobody out");
    drop(idle);
    writeln!(app.back(), "go").unwrap();
    assert_eq!(app.exit().end, End::Code(0));
}

#[test]
fn another_user_is_not_heard_whatever_it_knows() {
    let app = Generation::run("echo up > $FIFO; read line < $BACK");
    first_line(&mut app.fifo());
    if !geteuid().is_root() {
        return println!("only root can be somebody else");
    }
    let socket = app.spec.dir.join(control::SOCKET);
    for (path, mode) in [(app.folder.path(), 0o755), (&app.spec.dir, 0o755), (&socket, 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let path = socket.display();
    let ask = format!(
        "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un(q({path}))) or die; \
         $SIG{{PIPE}} = q(IGNORE); syswrite(S, qq(kill {NONCE}\\n)); print q(answered) if sysread(S, $b, 99); print q(connected)"
    );
    let somebody = |uid: &str| {
        let other = ["--reuid", uid, "--regid", uid, "--clear-groups", "perl", "-e", &ask];
        let done = std::process::Command::new("setpriv").args(other).output().unwrap();
        String::from_utf8(done.stdout).unwrap()
    };
    assert_eq!(somebody("65534"), "connected");
    assert!(matches!(app.ask(Request::Status), Reply::Running(_)), "it did not do as it was told");
    assert_eq!(somebody("0"), "answeredconnected", "its own user is heard");
}

#[test]
fn a_wrong_nonce_is_refused() {
    let app = Generation::run("echo up > $FIFO; read line < $BACK");
    first_line(&mut app.fifo());
    for request in [Request::Status, Request::Kill, Request::Stop(Duration::ZERO), Request::Wait] {
        assert_eq!(app.ask_as("another", request), Reply::Refused);
    }
    assert!(matches!(app.ask(Request::Status), Reply::Running(_)));
}

#[test]
fn an_app_that_can_not_be_started_says_why() {
    let why = |change: fn(&mut Spec)| {
        let mut app = Generation::new("");
        change(&mut app.spec);
        app = app.started();
        let exit = app.exit();
        assert_eq!(exit.end, End::Code(127));
        exit.reason.unwrap()
    };
    assert_eq!(
        why(|spec| spec.program = "/no/such".into()),
        "could not start /no/such: No such file or directory"
    );
    assert_eq!(
        why(|spec| spec.program = "/etc/passwd".into()),
        "could not start /etc/passwd: Permission denied"
    );
    assert_eq!(
        why(|spec| spec.cwd = "/no/such".into()),
        "could not enter /no/such: No such file or directory"
    );
    assert!(
        why(|spec| spec.cgroups = vec!["/no/such".into()])
            .starts_with("could not start: could not join /no/such: ")
    );
    assert!(why(|spec| spec.log_dir = "/dev/null/log".into()).starts_with("could not start: "));
}

#[test]
fn the_app_gets_its_own_environment_and_nothing_else() {
    let mut app = Generation::new("");
    (app.spec.program, app.spec.args) = ("/usr/bin/env".into(), vec![]);
    app.spec.env = vec![("B".into(), "x=y z".into()), ("A".into(), "".into())];
    app = app.started();
    app.exit();
    assert_eq!(app.text(Stream::Stdout), "B=x=y z\nA=\n");
}

#[test]
fn nothing_leaks_into_shim_or_app() {
    let leak = File::open("/etc/passwd").unwrap();
    fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let mut app = Generation::new("ls -l /proc/self/fd > $FIFO; read line < $BACK");
    app.intend();
    app.launch(Some(UnixStream::pair().unwrap().0.into()));
    let mut listed = String::new();
    app.fifo().read_to_string(&mut listed).unwrap();
    // The standard ones, and the folder that ls reads.
    assert_eq!(listed.matches(" -> ").count(), 4, "{listed}");
    assert!(!listed.contains("passwd") && !listed.contains("lock"), "{listed}");
    let shim = format!("/proc/{}", app.shim_pid());
    let links = fs::read_dir(format!("{shim}/fd"))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    let links: Vec<String> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    assert!(!links.iter().any(|link| link.contains("passwd")), "{links:?}");
    assert!(!links.iter().any(|link| link.contains("memfd")), "{links:?}");
    assert_eq!(links.iter().filter(|link| *link == "/dev/null").count(), 3, "{links:?}");
    assert_eq!(fs::read(format!("{shim}/environ")).unwrap(), b"");
    assert_eq!(fs::read(format!("{shim}/cmdline")).unwrap(), b"nexushub-shim\0shop\x007\0");
    assert_eq!(fs::read(format!("{shim}/comm")).unwrap(), b"nexushub-shim\n");
    drop(leak);
}

#[test]
fn the_app_begins_with_signals_as_they_are_by_default() {
    let mut app = Generation::new("");
    (app.spec.program, app.spec.args) =
        ("/bin/grep".into(), vec!["Sig[BI]".into(), "/proc/self/status".into()]);
    app = app.started();
    app.exit();
    let none = "0000000000000000";
    assert_eq!(app.text(Stream::Stdout), format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"));
}

#[test]
fn the_app_may_have_as_many_files_as_programs_expect_whatever_its_manager_has() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let mut app = Generation::run("ulimit -Sn; ulimit -Hn");
    app.exit();
    assert_eq!(app.text(Stream::Stdout), format!("{}\n{hard}\n", hard.min(1024)));
}

#[test]
fn signals_to_the_shim_are_logged_and_ignored() {
    let mut app = Generation::run("echo up > $FIFO; read line < $BACK; exit 2");
    first_line(&mut app.fifo());
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGUSR1] {
        kill(Pid::from_raw(app.shim_pid().cast_signed()), signal).unwrap();
        assert!(matches!(app.ask(Request::Status), Reply::Running(_)));
    }
    writeln!(app.back(), "go").unwrap();
    assert_eq!(app.exit().end, End::Code(2));
    let logged = app.text(Stream::System);
    assert_eq!(logged.lines().count(), 4, "{logged}");
    assert!(logged.starts_with("ignored signal 15 from process "), "{logged}");
}

/// A box that does what a script says, in bash.
fn boxed(script: &str) -> Generation {
    let mut app = Generation::new(script);
    (app.spec.boxed, app.spec.program) = (true, "/bin/bash".into());
    app.started()
}

/// What comes with a reply, if anything does.
fn passed(app: &Generation, request: Request) -> (Reply, Option<OwnedFd>) {
    let stream = app.connect().into_inner();
    (&stream).write_all(request.encode(NONCE).as_bytes()).unwrap();
    let (mut line, mut room) = ([0; 64], nix::cmsg_space!([RawFd; 1]));
    let mut text = [IoSliceMut::new(&mut line)];
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut text, Some(&mut room), MsgFlags::empty()).unwrap();
    let rights = message.cmsgs().unwrap().find_map(|cmsg| match cmsg {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    let length = message.bytes - 1;
    // SAFETY: the kernel has just made it for this process, and nobody else knows its number.
    let way = rights.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    (Reply::parse(&line[..length]).unwrap(), way)
}

#[test]
fn the_report_of_a_box_says_how_its_app_ended_and_its_own_exit_does_not() {
    for (report, end, reason) in [
        ("code=7", End::Code(7), None),
        ("signal=9", End::Signal(9), None),
        ("could not mount /proc", End::Code(127), Some("could not mount /proc".to_owned())),
        ("", End::Code(127), None),
    ] {
        let exit = boxed(&format!("printf '{report}\n' >&3; exit 127")).exit();
        assert_eq!((exit.end, exit.reason), (end, reason));
    }
}

#[test]
fn a_box_is_the_first_process_of_its_own_and_finds_only_its_own_network() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut app = boxed(&format!("echo $$; (: < /dev/tcp/127.0.0.1/{port}) 2>/dev/null || echo alone"));
    app.exit();
    assert_eq!(app.text(Stream::Stdout), "1\nalone\n");
}

#[test]
fn whoever_builds_a_box_may_mount_in_it() {
    let mut app = boxed("unshare --mount mount -t tmpfs none /mnt && echo mounted");
    app.exit();
    assert_eq!(app.text(Stream::Stdout), "mounted\n", "{}", app.text(Stream::Stderr));
}

#[test]
fn the_way_in_is_a_socket_of_the_boxs_network() {
    let app = boxed(
        "perl -MIO::Socket::INET -e '$l = IO::Socket::INET->new(Listen => 1, LocalAddr => \"127.0.0.1:80\") or die; \
         open(F, \">\", $ENV{FIFO}); print F \"up\\n\"; close F; $c = $l->accept; print $c \"hello\\n\"; close $c; \
         open(B, \"<\", $ENV{BACK}); <B>'",
    );
    first_line(&mut app.fifo());
    let (reply, way) = passed(&app, Request::Connect);
    assert_eq!(reply, Reply::Connected);
    let stream = TcpStream::from(way.unwrap());
    stream.set_nonblocking(false).unwrap();
    assert_eq!(first_line(&mut BufReader::new(stream)), "hello");
    writeln!(app.back(), "go").unwrap();
}

#[test]
fn the_way_out_is_a_listener_in_the_boxs_network() {
    let mut app = boxed("echo up > $FIFO; read line < /dev/tcp/127.0.0.1/8443; echo \"$line\"");
    first_line(&mut app.fifo());
    let (reply, way) = passed(&app, Request::Listener);
    assert_eq!(reply, Reply::Listening);
    let (mut stream, _) = TcpListener::from(way.unwrap()).accept().unwrap();
    stream.write_all(b"from outside\n").unwrap();
    drop(stream);
    app.exit();
    assert_eq!(app.text(Stream::Stdout), "from outside\n");
}

#[test]
fn without_a_listener_or_a_box_there_is_no_way_in() {
    let wait = "echo up > $FIFO; read line < $BACK";
    let app = boxed(wait);
    first_line(&mut app.fifo());
    let refused = match passed(&app, Request::Connect) {
        (Reply::Failed(errno), None) => errno,
        (_, way) => {
            let way = way.unwrap();
            poll(&mut [PollFd::new(way.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE).unwrap();
            TcpStream::from(way).take_error().unwrap().unwrap().raw_os_error().unwrap()
        }
    };
    assert_eq!(refused, nix::libc::ECONNREFUSED, "at once or a moment later");
    let plain = Generation::run(wait);
    first_line(&mut plain.fifo());
    assert_eq!(plain.ask(Request::Connect), Reply::Malformed);
    assert_eq!(plain.ask(Request::Listener), Reply::Malformed);
}

#[test]
fn the_way_into_a_machine_is_the_socket_in_its_folder() {
    let mut app = Generation::new("echo up > $FIFO; read line < $BACK");
    (app.spec.boxed, app.spec.machine) = (true, true);
    let app = app.started();
    first_line(&mut app.fifo());
    let (early, none) = passed(&app, Request::Connect);
    assert!(early == Reply::Failed(nix::libc::ECONNREFUSED) && none.is_none(), "the machine is not up yet");
    let machine = UnixListener::bind(app.spec.dir.join(control::MACHINE)).unwrap();
    let (reply, way) = passed(&app, Request::Connect);
    assert_eq!(reply, Reply::Connected);
    UnixStream::from(way.unwrap()).write_all(b"hello").unwrap();
    let mut heard = String::new();
    machine.accept().unwrap().0.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello");
}

#[test]
fn a_box_is_told_once_to_end_and_ends_with_its_shim() {
    let mut app =
        boxed("trap 'echo told; exit 5' TERM; echo up > $FIFO; while :; do read -t 60 line <> $BACK; done");
    first_line(&mut app.fifo());
    assert_eq!(app.ask(Request::Stop(PATIENCE)), Reply::Stopping);
    assert_eq!(app.exit().end, End::Code(5));
    assert_eq!(app.text(Stream::Stdout), "told\n");
}

#[test]
fn a_folder_of_another_generation_is_left_alone() {
    let mut app = Generation::new("echo never");
    app.launch(None);
    assert_eq!(app.ended(), Some(64), "no intent");
    app.intend();
    app.spec.nonce = "f".repeat(32);
    app.launch(None);
    assert_eq!(app.ended(), Some(64), "another's intent");
    app.spec.nonce = NONCE.into();
    app.launch(None);
    app.exit();
    app.launch(None);
    assert_eq!(app.ended(), Some(64), "an intent is used once");
    assert_eq!(app.text(Stream::Stdout), "never\n");
}

#[test]
fn paths_longer_than_a_socket_address_do() {
    let mut app = Generation::new("echo up > $FIFO; read line < $BACK");
    app.spec.dir = app.folder.path().join("d".repeat(200)).join("7");
    fs::create_dir_all(&app.spec.dir).unwrap();
    app = app.started();
    first_line(&mut app.fifo());
    assert_eq!(app.ask(Request::Kill), Reply::Stopping);
    assert_eq!(app.exit().end, End::Signal(9));
}

#[test]
fn one_log_goes_through_all_generations() {
    let mut app = Generation::run("echo first");
    app.exit();
    app.spec.generation = 8;
    app.spec.args[1] = "echo second".into();
    app.intend();
    Record { generation: 8, shim: None, app: None, session: None, ..app.record() }
        .write(&app.spec.dir)
        .unwrap();
    app.launch(None);
    app.exit();
    assert_eq!(app.text(Stream::Stdout), "first\nsecond\n");
}

#[test]
fn a_started_shim_without_a_spec_says_so() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_nexushub-shim")).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "nexushub-shim: spec is malformed: its end is missing\n"
    );
}
