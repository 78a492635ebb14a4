//! One platform: supervisor, daemons, shims and apps, and the end of them all.

use std::{
    fmt::Write,
    fs,
    net::SocketAddr,
    ops::Range,
    os::unix::{net::UnixDatagram, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use crate::{
    HANG,
    board::Board,
    home::{Home, free_address},
    journal::Journal,
    processes::{self, Process, Signal},
    workshop,
};

/// Health checks and backoffs a test can wait for. What is only slow, because the machine is, counts as neither hung nor ill:
/// a story of something that hangs says how soon that is to be seen.
const BRISK: &str = "
[supervisor]
watchdog_ms = 30000
start_timeout_ms = 120000
stop_proxy_ms = 620000
stop_procmgr_ms = 120000
stop_other_ms = 120000
stop_total_ms = 900000

[proxy]
tls_handshake_ms = 600000
header_ms = 600000

[procmgr]
health_interval_ms = 400
health_timeout_ms = 10000
health_retry_ms = 100
backoff_first_ms = 100
backoff_max_ms = 400
";

/// For stories that kill daemons more often than a platform should put up with.
pub const FORGIVING: &str = "[supervisor]\nstable_ms = 1\nburst = 1000\n";

/// For stories of what goes on while a generation drains: an end of what it has in hand ends that, and no limit.
pub const UNHURRIED: &str = "[procmgr]\ndrain_ms = 600000\n[proxy]\ndrain_ms = 600000\n";

/// For stories of why an app failed: it stays so, until somebody has read it.
pub const AT_REST: &str =
    "[procmgr]\nbackoff_first_ms = 600000\nbackoff_max_ms = 600000\nstable_ms = 3600000\n";

/// Pushed apps run without a box where a story doesn't say otherwise, so that it sees the processes that they see themselves.
const UNBOXED: &str = "
[debug-api]
driver = \"process\"
";

/// How a platform differs from the usual.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration file's text.
    pub config: String,
    /// Folder of the programs.
    pub programs: PathBuf,
    /// Where it listens; none = a free port.
    pub listen: Option<SocketAddr>,
    /// Whose processes it is made of; none = our own user's.
    pub user: Option<u32>,
    /// Whether that user has ids to give to its boxes: `GIVEN`.
    pub gives: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            config: BRISK.to_owned(),
            programs: workshop::bin_dir(),
            listen: None,
            user: None,
            gives: false,
        }
    }
}

impl Options {
    /// The usual configuration and more: whole tables, of which each key takes the place of a usual one.
    ///
    /// # Panics
    /// When it is no TOML.
    #[must_use]
    pub fn with(more: &str) -> Self {
        let mut tables: toml::Table = BRISK.parse().expect("the usual configuration is TOML");
        for (name, value) in more.parse::<toml::Table>().unwrap_or_else(|error| panic!("{error}: {more}")) {
            match (tables.get_mut(&name), value) {
                (Some(toml::Value::Table(table)), toml::Value::Table(more)) => table.extend(more),
                (_, value) => drop(tables.insert(name, value)),
            }
        }
        Self::of(&tables.to_string())
    }

    /// A configuration of its own.
    #[must_use]
    pub fn of(config: &str) -> Self {
        Self { config: config.to_owned(), ..Self::default() }
    }

    /// Of a platform that root doesn't run, but somebody who may run these programs.
    #[must_use]
    pub fn of_no_root(programs: &Path) -> Self {
        let user = nix::unistd::geteuid().is_root().then_some(65_534);
        Self { programs: programs.to_owned(), user, ..Self::default() }
    }
}

/// The ids that a user who gives some to boxes has.
pub const GIVEN: Range<u32> = 3_000_000_000..3_000_065_536;
/// Runs a program as the user of its first argument, for whom the file of its name says that it may give ids away: only to that
/// program the machine's own files say so.
const AS_GIVER: &str = r#"mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && user=$1 && shift &&
  exec setpriv --reuid "$user" --regid "$user" --clear-groups "$@""#;

/// How long what has been killed may be seen.
const LAST_BREATH: Duration = Duration::from_secs(20);

/// The notice that a supervisor has ended.
const ENDED: &str = "the supervisor has ended: ";

fn ended(pid: u32) -> String {
    format!("{ENDED}{pid}")
}

/// Reads all notices in a thread of their own, as a service manager does: a supervisor never waits for the test.
fn listen(path: &Path) -> (Sender<String>, Receiver<String>) {
    let socket = UnixDatagram::bind(path).unwrap();
    let (sender, receiver) = channel();
    let ours = sender.clone();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            if ours.send(String::from_utf8_lossy(&buffer[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    (sender, receiver)
}

/// A platform. Dropping it ends every process of it, and fails the test when one was left behind.
pub struct Platform {
    /// Its folder.
    pub home: Home,
    /// What its processes logged.
    pub journal: Journal,
    /// What `status.json` says.
    pub board: Board,
    /// Where it serves HTTPS.
    pub address: SocketAddr,
    programs: PathBuf,
    user: Option<u32>,
    /// Whether that user has ids to give to boxes from the next start of a supervisor on.
    pub gives: bool,
    /// What supervisors tell their parent, the last word being our own: that one ended.
    notices: (Sender<String>, Receiver<String>),
    supervisor: Option<(Child, Process)>,
    /// A supervisor was killed and none took its place: shims and apps are left, as they should be.
    orphaned: bool,
}

impl Platform {
    /// A platform that is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&Options::default())
    }

    /// A platform with options, ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_with(options: &Options) -> Self {
        let mut platform = Self::prepare(options);
        platform.start_supervisor();
        platform
    }

    /// A platform of which nothing runs yet.
    ///
    /// # Panics
    /// When its folder can't be made.
    #[must_use]
    pub fn prepare(options: &Options) -> Self {
        workshop::open_as_many_files_as_may_be();
        let own = options.config.contains("[debug-api]");
        let home = Home::make(&format!("{}{}", options.config, if own { "" } else { UNBOXED }));
        let notices = listen(&home.path().join("notify.sock"));
        let board = Board::follow(&home.run());
        let address = options.listen.unwrap_or_else(free_address);
        Self {
            home,
            journal: Journal::default(),
            board,
            address,
            programs: options.programs.clone(),
            user: options.user,
            gives: options.gives,
            notices,
            supervisor: None,
            orphaned: false,
        }
    }

    /// The command that starts the supervisor.
    #[must_use]
    pub fn supervisor_command(&self) -> Command {
        let program = self.programs.join("nexushub-supervisor");
        let user = self.user;
        let mut command = match user.filter(|_| self.gives) {
            Some(user) => self.giver(user, &program),
            None => Command::new(&program),
        };
        command.arg("--home").arg(self.home.path()).arg("--listen").arg(self.address.to_string());
        command.arg("--config").arg(self.home.config());
        command
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.hand_over();
        if let Some(user) = user.filter(|_| !self.gives) {
            command.uid(user).gid(user);
        }
        command
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("NOTIFY_SOCKET", self.home.path().join("notify.sock"));
        command
    }

    /// A command that runs a program as a user who has ids to give to boxes.
    fn giver(&self, user: u32, program: &Path) -> Command {
        let ids = self.home.path().join("ids");
        fs::write(&ids, format!("{user}:{}:{}\n", GIVEN.start, GIVEN.len())).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", AS_GIVER]);
        command.arg(ids).arg(user.to_string()).arg(program);
        command
    }

    /// Gives what the test made to the platform's user, if it has one of its own.
    pub fn hand_over(&self) {
        if let Some(user) = self.user {
            self.home.give_to(user);
        }
    }

    /// Starts a supervisor and waits until it is ready: the first one, or the next after one that died.
    ///
    /// # Panics
    /// When it ends, or does not become ready.
    pub fn start_supervisor(&mut self) {
        self.spawn_supervisor();
        self.await_ready();
    }

    /// Starts a supervisor and waits for nothing.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn spawn_supervisor(&mut self) {
        let mut child = self.supervisor_command().spawn().unwrap();
        self.journal.collect(child.stderr.take().unwrap());
        self.journal.collect(child.stdout.take().unwrap());
        let process = Process::open(child.id()).unwrap();
        let (end, sender) = (Process::open(child.id()).unwrap(), self.notices.0.clone());
        while self.notices.1.try_recv().is_ok() {} // what is left of the one before
        thread::spawn(move || end.ended_within(Duration::MAX) && sender.send(ended(end.pid)).is_ok());
        self.supervisor = Some((child, process));
        self.orphaned = false;
    }

    /// Waits for the supervisor's READY.
    ///
    /// # Panics
    /// When it ends, or does not become ready.
    pub fn await_ready(&mut self) {
        while !self.notice().lines().any(|line| line == "READY=1") {}
    }

    /// The next message of the supervisor to its parent.
    ///
    /// # Panics
    /// When it ends before it says anything, or says nothing.
    pub fn notice(&mut self) -> String {
        let own_end = ended(self.supervisor().pid);
        loop {
            match self.notices.1.recv_timeout(HANG) {
                Ok(notice) if notice == own_end => panic!("{notice}\n{}", self.journal.lines().join("\n")),
                Ok(notice) if notice.starts_with(ENDED) => {} // one before this one
                Ok(notice) => return notice,
                Err(error) => {
                    panic!("the supervisor says nothing: {error}\n{}", self.journal.lines().join("\n"))
                }
            }
        }
    }

    /// `$RUN`.
    #[must_use]
    pub fn run(&self) -> PathBuf {
        self.home.run()
    }

    /// `$STATE`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.state()
    }

    /// The supervisor's process.
    ///
    /// # Panics
    /// When none was started.
    #[must_use]
    pub fn supervisor(&self) -> &Process {
        &self.supervisor.as_ref().expect("a supervisor was started").1
    }

    /// Where the programs of this platform lie.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// The process of a daemon that is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    pub async fn daemon(&self, name: &str) -> Process {
        let status = self.board.wait(&format!("{name} is ready"), |status| status.is_ready(name)).await;
        let pid = status.daemon(name).pid.expect("ready means that there is a process");
        Process::open(pid)
            .unwrap_or_else(|| panic!("{name} is said to be process {pid}, which does not exist"))
    }

    /// Waits until a daemon is ready as another process than this one.
    ///
    /// # Panics
    /// When it isn't.
    pub async fn replaced(&self, name: &str, old: u32) -> Process {
        let what = format!("{name} is ready again");
        self.board.wait(&what, |status| status.is_ready(name) && status.daemon(name).pid != Some(old)).await;
        self.daemon(name).await
    }

    /// Kills a daemon and waits until it is ready again.
    ///
    /// # Panics
    /// When it isn't.
    pub async fn kill(&self, name: &str) -> Process {
        let old = self.daemon(name).await;
        old.kill();
        self.replaced(name, old.pid).await
    }

    /// Kills the supervisor and waits until its daemons are gone with it.
    ///
    /// # Panics
    /// When one of them stays.
    pub async fn kill_supervisor(&mut self) {
        let mut daemons = Vec::new();
        for name in crate::DAEMONS {
            daemons.extend(self.board.now().daemon(name).pid.and_then(Process::open));
        }
        let (mut child, process) = self.supervisor.take().expect("a supervisor was started");
        process.kill();
        child.wait().unwrap();
        self.orphaned = true;
        for daemon in daemons {
            assert!(daemon.ended_within(HANG), "{} outlived its supervisor", processes::command(daemon.pid));
        }
    }

    /// Asks for a full stop and waits for it.
    ///
    /// # Panics
    /// When it does not end.
    pub fn stop(&mut self) -> ExitStatus {
        self.supervisor().signal(Signal::TERM);
        self.wait_end()
    }

    /// Waits for the supervisor's own end.
    ///
    /// # Panics
    /// When it does not end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let (mut child, process) = self.supervisor.take().expect("a supervisor was started");
        if !process.ended_within(HANG) {
            process.kill();
            panic!("the supervisor did not end\n{}", self.journal.lines().join("\n"));
        }
        let status = child.wait().unwrap();
        self.journal.is_whole();
        status
    }

    /// Every process of this platform with its command line.
    #[must_use]
    pub fn processes(&self) -> std::collections::BTreeMap<u32, String> {
        processes::programs_below(self.home.path())
    }

    /// Every log line of a daemon, as JSON.
    #[must_use]
    pub fn logged_by(&self, daemon: &str) -> Vec<serde_json::Value> {
        self.journal.entries().into_iter().filter(|entry| entry["daemon"] == daemon).collect()
    }

    /// The processes of this platform that do not end, of those that it has now: what was just killed is seen for a moment more.
    #[must_use]
    pub fn left(&self) -> Vec<Process> {
        let until = Instant::now() + LAST_BREATH;
        let ends = |process: &Process| process.ended_within(until.saturating_duration_since(Instant::now()));
        self.held().into_iter().filter(|process| !ends(process)).collect()
    }

    fn held(&self) -> Vec<Process> {
        self.processes().into_keys().filter_map(Process::open).collect()
    }

    fn end(&mut self) -> String {
        let mut complaint = String::new();
        if let Some((mut child, process)) = self.supervisor.take() {
            process.signal(Signal::TERM);
            if !process.ended_within(HANG) {
                complaint.push_str("the supervisor did not end after SIGTERM; ");
                process.kill();
            }
            match child.wait() {
                Ok(status) if status.success() => {}
                status => write!(complaint, "the supervisor ended with {status:?}; ").unwrap(),
            }
        }
        // Without its supervisor, shims and apps live on: nothing to wait for.
        for process in if self.orphaned { self.held() } else { self.left() } {
            let command = processes::command(process.pid);
            process.signal(Signal::KILL);
            if !process.ended_within(HANG) || !self.orphaned {
                write!(complaint, "left behind: {} {command}; ", process.pid).unwrap();
            }
        }
        if let Some(line) = self.journal.lines().iter().find(|line| line.contains("panicked")) {
            write!(complaint, "a panic: {line}; ").unwrap();
        }
        complaint
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let complaint = self.end();
        if thread::panicking() {
            let lines = self.journal.lines();
            let shown = lines.len().saturating_sub(150);
            eprintln!("--- {} {complaint}\n{}", self.address, lines[shown..].join("\n"));
            if let Ok(status) = fs::read_to_string(self.run().join("status.json")) {
                eprintln!("--- status.json {status}");
            }
        } else {
            assert!(complaint.is_empty(), "{complaint}\n{}", self.journal.lines().join("\n"));
        }
    }
}
