//! The real program over daemons that do as they are told: what is promised of a start, a crash, a hang, a roll and a stop.
//! Waits are reads of the log or of the notify socket, with a bound that only a failure reaches.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const ALL_READY: &str = "STATUS=provider ready, procmgr ready, debug-api ready, proxy ready";
const DAEMONS: [&str; 4] = ["provider", "procmgr", "debug-api", "proxy"];

/// A home with executables and a configuration.
struct Home(TempDir);

impl Home {
    fn new(settings: &str) -> Self {
        let home = Self(tempfile::tempdir().unwrap());
        for folder in ["bin", "state"] {
            fs::create_dir(home.path(folder)).unwrap();
        }
        home.install(&DAEMONS);
        home.configure(&format!(
            "[platform]\nlisten = '127.0.0.1:0'\n[supervisor]\nbin_dir = 'bin'\n{settings}\n"
        ));
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn configure(&self, text: &str) {
        fs::write(self.path("nexushub.toml"), text).unwrap();
    }

    fn config(&self) -> String {
        fs::read_to_string(self.path("nexushub.toml")).unwrap()
    }

    /// Installs new executables as an upgrade does: another file under the same name. A process of its own writes it: one
    /// that another test forks meanwhile would inherit the descriptor, and what is open for writing can't be run.
    fn install(&self, daemons: &[&str]) {
        let fake = Path::new(env!("CARGO_BIN_EXE_nexushub-supervisor"))
            .with_file_name("examples")
            .join("fake-daemon");
        for daemon in daemons {
            let (new, path) = (self.path("bin/new"), self.path("bin").join(format!("nexushub-{daemon}")));
            assert!(Command::new("cp").arg(&fake).arg(&new).status().unwrap().success());
            fs::rename(new, path).unwrap();
        }
    }

    fn does(&self, daemon: &str, words: &str) {
        fs::write(self.path("state").join(format!("{daemon}.does")), words).unwrap();
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nexushub-supervisor"));
        command.args(args).arg("--home").arg(self.0.path()).current_dir(self.0.path()).stdin(Stdio::null());
        command
    }

    /// Runs a supervisor that is expected to end by itself.
    fn run(&self, args: &[&str]) -> (Output, Vec<Value>) {
        let output = self.command(args).output().unwrap();
        let lines = String::from_utf8_lossy(&output.stderr)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (output, lines)
    }

    fn start(&self) -> Platform<'_> {
        let path = self.path("upstream.sock");
        let _ = fs::remove_file(&path);
        let upstream = UnixDatagram::bind(&path).unwrap();
        upstream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut child = self
            .command(&[])
            .env("NOTIFY_SOCKET", path)
            .env("LEAK", "me")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stderr, (send, lines)) = (child.stderr.take().unwrap(), channel());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(Ok(line)) = line.map(|line| serde_json::from_str(&line)) else { break };
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Platform { home: self, child, lines, upstream, seen: Vec::new() }
    }

    fn ready(&self) -> Platform<'_> {
        let mut platform = self.start();
        platform.log("platform is ready", "");
        platform.heard_upstream(ALL_READY);
        platform.heard_upstream("READY=1");
        platform
    }
}

/// A running supervisor; it dies with the test, and its daemons with it.
struct Platform<'h> {
    home: &'h Home,
    child: Child,
    lines: Receiver<Value>,
    upstream: UnixDatagram,
    seen: Vec<Value>,
}

impl Drop for Platform<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Platform<'_> {
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE) {
            self.seen.push(line.clone());
            if wanted(&line) {
                return line;
            }
        }
        panic!("never logged; seen: {:#?}", self.seen);
    }

    /// The next log line of the supervisor with that message, about that daemon if one is named.
    fn log(&mut self, msg: &str, child: &str) -> Value {
        let about = |line: &Value| child.is_empty() || line["child"] == child;
        self.until(|line| line["daemon"] == "supervisor" && line["msg"] == msg && about(line))
    }

    /// The next line of a daemon.
    fn said(&mut self, daemon: &str, msg: &str) -> Value {
        self.until(|line| line["daemon"] == daemon && line["msg"] == msg)
    }

    fn heard_upstream(&self, wanted: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length =
                self.upstream.recv(&mut buffer).unwrap_or_else(|_| panic!("never told upstream: {wanted}"));
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == wanted) {
                return;
            }
        }
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&fs::read(self.home.path("run/status.json")).unwrap()).unwrap()
    }

    /// What the status file says of a daemon. Read after an upstream STATUS or a log line of a later turn of the loop.
    fn daemon(&self, name: &str) -> Value {
        self.status()["daemons"]
            .as_array()
            .unwrap()
            .iter()
            .find(|daemon| daemon["name"] == name)
            .unwrap()
            .clone()
    }

    fn pid(&self, name: &str) -> Pid {
        Pid::from_raw(i32::try_from(self.daemon(name)["pid"].as_i64().unwrap()).unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    fn exit_code(&mut self) -> i32 {
        self.until(|line| line["msg"].as_str().is_some_and(|msg| msg.starts_with("platform stopped")));
        self.child.wait().unwrap().code().unwrap()
    }
}

fn fault(lines: &[Value]) -> &Value {
    lines.iter().rfind(|line| line["level"] == "error").unwrap()
}

#[test]
fn a_start_ends_in_ready_and_a_status_file_that_says_so() {
    let home = Home::new("");
    let mut platform = home.start();
    let started = platform.said("proxy", "started");
    assert_eq!(started["fds"], "grpc:platform:https:generation");
    assert_eq!(started["cwd"], home.0.path().canonicalize().unwrap().to_str().unwrap());
    platform.heard_upstream(ALL_READY);
    platform.heard_upstream("READY=1");
    platform.heard_upstream("WATCHDOG=1");
    let status = platform.status();
    assert_eq!(status["supervisor"]["state"], "ready");
    assert_eq!(status["supervisor"]["pid"], platform.child.id());
    assert!(status["supervisor"]["listen"][0].as_str().unwrap().starts_with("127.0.0.1:"));
    for name in DAEMONS {
        let daemon = platform.daemon(name);
        assert_eq!((&daemon["state"], &daemon["restarts"]), (&"ready".into(), &0.into()), "{daemon}");
        assert_eq!(daemon["status"], "as good as it gets");
        assert!(
            daemon["ready_unix_ms"].as_i64() >= daemon["since_unix_ms"].as_i64().map(|since| since - 1000)
        );
        let environ = fs::read(format!("/proc/{}/environ", daemon["pid"])).unwrap();
        assert!(!String::from_utf8_lossy(&environ).contains("LEAK"), "the environment is a clean one");
    }
    let mode = |path| fs::metadata(home.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("run"), mode("run/proxy.sock"), mode("run/secret")), (0o700, 0o600, 0o600));
}

#[test]
fn a_killed_daemon_is_replaced_and_the_others_stay() {
    let home = Home::new("");
    let mut platform = home.ready();
    for name in DAEMONS {
        let (before, others) = (platform.pid(name), DAEMONS.map(|other| platform.pid(other)));
        kill(before, Signal::SIGKILL).unwrap();
        assert_eq!(platform.log("daemon crashed", name)["error"], "SIGKILL");
        let ready = platform.log("daemon is ready", name);
        platform.heard_upstream(ALL_READY);
        assert_ne!(platform.pid(name), before);
        assert_eq!(ready["pid"], platform.pid(name).as_raw());
        assert_eq!(platform.daemon(name)["restarts"], 1);
        let moved = DAEMONS.iter().zip(others).filter(|(other, pid)| platform.pid(other) != *pid).count();
        assert_eq!(moved, 1);
    }
}

#[test]
fn a_stopped_daemon_is_noticed_and_replaced() {
    let home = Home::new("watchdog_ms = 4000");
    let mut platform = home.ready();
    let before = platform.pid("provider");
    kill(before, Signal::SIGSTOP).unwrap();
    assert_eq!(platform.log("daemon crashed", "provider")["error"], "gave no sign of life: SIGKILL");
    assert_ne!(platform.log("daemon is ready", "provider")["pid"], before.as_raw());
}

#[test]
fn a_crash_loop_is_loud_while_the_others_run() {
    let home = Home::new("burst = 3\nbackoff_min_ms = 1\nbackoff_max_ms = 50");
    home.does("provider", "exit=3");
    let mut platform = home.start();
    let failed = platform.log("daemon keeps crashing: failed, retried slowly", "provider");
    assert_eq!((&failed["level"], &failed["error"]), (&"error".into(), &"exit code 3".into()));
    platform.heard_upstream("READY=1");
    platform.log("daemon crashed", "provider");
    let provider = platform.daemon("provider");
    assert_eq!((&provider["state"], &provider["reason"]), (&"failed".into(), &"exit code 3".into()));
    assert_eq!(platform.daemon("proxy")["state"], "ready");
    home.does("provider", "");
    platform.log("daemon is ready", "provider");
    platform.heard_upstream(ALL_READY);
}

#[test]
fn a_daemon_that_never_gets_ready_is_replaced() {
    let home = Home::new("start_timeout_ms = 300");
    home.does("debug-api", "unready");
    let mut platform = home.start();
    let crashed = platform.log("daemon crashed", "debug-api");
    assert_eq!(crashed["error"], "did not become ready in time: SIGKILL");
}

#[test]
fn a_bad_configuration_is_named_with_its_line_and_exits_64() {
    let home = Home::new("speed = 9");
    for args in [&["--check"][..], &[]] {
        let (output, lines) = home.run(args);
        assert_eq!(output.status.code(), Some(64));
        assert_eq!(fault(&lines)["code"], "config_invalid");
        assert!(
            fault(&lines)["object"].as_str().unwrap().ends_with("nexushub.toml:5: supervisor.speed"),
            "{lines:?}"
        );
    }
    assert!(!home.path("run").exists(), "nothing was made");
    let (output, lines) = home.run(&["--lisen"]);
    assert_eq!((output.status.code(), &fault(&lines)["object"]), (Some(64), &"--lisen".into()));
}

#[test]
fn a_daemon_that_refuses_its_check_ends_the_start_with_its_line_and_code() {
    let home = Home::new("");
    for code in [1, 64] {
        home.does("proxy", &format!("check={code}"));
        for args in [&["--check"][..], &[]] {
            let (output, lines) = home.run(args);
            assert_eq!(output.status.code(), Some(code));
            assert_eq!((&fault(&lines)["daemon"], &fault(&lines)["code"]), (&"proxy".into(), &"fake".into()));
        }
    }
    home.does("proxy", "");
    assert_eq!(home.run(&["--check"]).0.status.code(), Some(0));
    fs::remove_file(home.path("bin/nexushub-proxy")).unwrap();
    assert_eq!(fault(&home.run(&[]).1)["code"], "executable_missing");
    fs::write(home.path("bin/nexushub-proxy"), "#!/bin/sh\n").unwrap();
    assert_eq!(fault(&home.run(&["--check"]).1)["msg"], "program can't be executed on this machine");
}

#[test]
fn a_port_in_use_is_named_with_its_holder() {
    let home = Home::new("");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (output, lines) = home.run(&["--listen", &address]);
    assert_eq!(output.status.code(), Some(1));
    let fault = fault(&lines);
    assert_eq!((&fault["code"], &fault["object"]), (&"port_in_use".into(), &address.into()));
    assert!(fault["msg"].as_str().unwrap().contains(&format!("(pid {})", std::process::id())), "{fault}");
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let home = Home::new("");
    fs::write(home.path("run"), "a file").unwrap();
    let (output, lines) = home.run(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(fault(&lines)["code"], "folder_unwritable");
    assert!(fault(&lines)["object"].as_str().unwrap().ends_with("/run"));
}

#[test]
fn a_second_supervisor_is_told_of_the_first() {
    let home = Home::new("");
    let platform = home.ready();
    let (output, lines) = home.run(&[]);
    assert_eq!((output.status.code(), &fault(&lines)["code"]), (Some(1), &"already_running".into()));
    assert!(fault(&lines)["msg"].as_str().unwrap().contains(&platform.child.id().to_string()));
}

#[test]
fn a_stop_goes_in_order_and_leaves_nothing() {
    let home = Home::new("");
    let mut platform = home.ready();
    platform.signal(Signal::SIGTERM);
    for (name, all) in [("proxy", false), ("provider", false), ("debug-api", false), ("procmgr", true)] {
        assert_eq!(platform.until(|line| line["msg"] == "told to stop")["daemon"], name);
        assert_eq!(platform.seen.last().unwrap()["all"], all);
        platform.log(&format!("stopped {name}"), "");
    }
    assert_eq!(platform.exit_code(), 0);
    platform.heard_upstream("STOPPING=1");
    let left: Vec<_> =
        fs::read_dir(home.path("run")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_string_lossy().ends_with(".lock")), "{left:?}");
}

#[test]
fn a_hung_step_does_not_stop_the_sequence_and_a_second_signal_hurries_it() {
    let home = Home::new("stop_proxy_ms = 100\nstop_other_ms = 600000\nstop_total_ms = 1200000");
    home.does("proxy", "stubborn");
    home.does("debug-api", "stubborn");
    let mut platform = home.ready();
    platform.signal(Signal::SIGINT);
    assert_eq!(platform.log("daemon stopped", "proxy")["error"], "did not stop in time: SIGKILL");
    platform.said("debug-api", "told to stop");
    platform.signal(Signal::SIGTERM);
    platform.log("stop is hurried", "");
    assert_eq!(platform.log("daemon stopped", "debug-api")["error"], "did not stop in time: SIGKILL");
    assert_eq!(platform.said("procmgr", "told to stop")["all"], true);
    assert_eq!(platform.exit_code(), 0);
}

#[test]
fn a_procmgr_that_dies_over_a_stop_is_started_to_finish_it() {
    let home = Home::new("");
    home.does("procmgr", "dies");
    let mut platform = home.ready();
    platform.signal(Signal::SIGTERM);
    assert_eq!(platform.log("daemon stopped", "procmgr")["error"], "SIGABRT");
    platform.log("daemon started", "procmgr");
    platform.said("procmgr", "told to stop");
    assert_eq!(platform.exit_code(), 0);
}

#[test]
fn a_procmgr_that_cannot_stop_its_apps_keeps_the_secret_and_says_so() {
    let home = Home::new("stop_procmgr_ms = 100");
    home.does("procmgr", "stubborn");
    let mut platform = home.ready();
    platform.signal(Signal::SIGTERM);
    assert_eq!(platform.exit_code(), 1);
    assert!(home.path("run/secret").exists());
}

#[test]
fn a_roll_replaces_what_changed_and_nothing_else() {
    let home = Home::new("");
    let mut platform = home.ready();
    let before = DAEMONS.map(|name| platform.pid(name).as_raw());
    home.install(&["proxy", "provider"]);
    platform.signal(Signal::SIGHUP);
    platform.log("platform is ready", "");
    platform.heard_upstream("READY=1");
    let at = |wanted: &dyn Fn(&Value) -> bool| platform.seen.iter().rposition(wanted).unwrap();
    let new = at(&|line| line["msg"] == "daemon is ready" && line["child"] == "proxy");
    let gone = |line: &Value| line["msg"] == "old generation is gone" && line["child"] == "proxy";
    if !platform.seen.iter().any(gone) {
        platform.until(gone);
    }
    let old = platform
        .seen
        .iter()
        .rposition(|line| line["daemon"] == "proxy" && line["msg"] == "told to stop")
        .unwrap();
    assert!(new < old, "a new proxy is ready before the old one drains");
    let after = DAEMONS.map(|name| platform.pid(name).as_raw());
    let changed: Vec<_> = DAEMONS
        .iter()
        .enumerate()
        .filter(|(at, _)| before[*at] != after[*at])
        .map(|(_, name)| *name)
        .collect();
    assert_eq!(changed, ["provider", "proxy"]);
    assert_eq!(platform.daemon("proxy")["restarts"], 0, "a roll is no crash");
}

#[test]
fn a_roll_follows_the_configuration_of_each_daemon() {
    let home = Home::new("");
    let mut platform = home.ready();
    let before = DAEMONS.map(|name| platform.pid(name).as_raw());
    home.configure(&format!("{}[procmgr]\nanything = 1\n", home.config()));
    platform.signal(Signal::SIGHUP);
    assert!(platform.said("procmgr", "started")["config"].as_str().unwrap().contains("anything"));
    platform.log("platform is ready", "");
    platform.heard_upstream("RELOADING=1");
    platform.heard_upstream(ALL_READY);
    let after = DAEMONS.map(|name| platform.pid(name).as_raw());
    assert_eq!(before.iter().zip(after).filter(|(before, after)| *before != after).count(), 1);
}

#[test]
fn a_bad_roll_is_refused_and_a_crash_afterwards_restarts_what_ran_before() {
    let home = Home::new("");
    let mut platform = home.ready();
    let (good, before) = (home.config(), platform.pid("proxy"));
    home.configure(&format!("{good}[porxy]\n"));
    platform.signal(Signal::SIGHUP);
    let refused = platform.log("configuration is refused, nothing changes", "");
    assert!(refused["error"].as_str().unwrap().contains("nexushub.toml:6"), "{refused}");
    platform.log("platform is ready", "");
    home.configure(&format!("{good}[proxy]\nnew = 1\n"));
    home.install(&["proxy"]);
    home.does("proxy", "check=64");
    platform.signal(Signal::SIGHUP);
    platform.log("new build is refused, the old one stays", "proxy");
    platform.log("platform is ready", "");
    assert_eq!(platform.pid("proxy"), before);
    kill(before, Signal::SIGKILL).unwrap();
    assert_eq!(
        platform.said("proxy", "started")["config"],
        good.as_str(),
        "restarted with the configuration that it had"
    );
    home.configure(&good.replace("127.0.0.1:0", "127.0.0.1:1"));
    platform.signal(Signal::SIGHUP);
    assert_eq!(platform.log("configuration is refused, nothing changes", "")["code"], "restart_needed");
}

#[test]
fn a_new_proxy_that_fails_leaves_the_old_one_serving() {
    let home = Home::new("start_timeout_ms = 10000");
    let mut platform = home.ready();
    let before = platform.pid("proxy");
    home.install(&["proxy"]);
    home.does("proxy", "unready");
    platform.signal(Signal::SIGHUP);
    let failed = platform.log("new generation failed, the old one stays", "proxy");
    assert_eq!(failed["error"], "did not become ready in time: SIGKILL");
    platform.log("platform is ready", "");
    assert_eq!(platform.pid("proxy"), before);
}

#[test]
fn a_descriptor_left_behind_is_found_by_the_successor() {
    let home = Home::new("");
    home.does("proxy", "store");
    let mut platform = home.ready();
    kill(platform.pid("proxy"), Signal::SIGKILL).unwrap();
    assert_eq!(platform.said("proxy", "started")["fds"], "grpc:platform:https:generation:kept");
    assert_eq!(platform.said("proxy", "found")["text"], "left here");
    platform.log("daemon is ready", "proxy");
    platform.heard_upstream(ALL_READY);
    kill(platform.pid("proxy"), Signal::SIGKILL).unwrap();
    assert_eq!(
        platform.said("proxy", "started")["fds"],
        "grpc:platform:https:generation",
        "it was removed when found"
    );
}

#[test]
fn a_killed_supervisor_takes_its_daemons_along_and_the_next_one_keeps_the_secret() {
    let home = Home::new("");
    let mut first = home.ready();
    let (pids, secret) = (DAEMONS.map(|name| first.pid(name)), fs::read(home.path("run/secret")).unwrap());
    let address = first.status()["supervisor"]["listen"][0].as_str().unwrap().to_owned();
    first.signal(Signal::SIGKILL);
    first.child.wait().unwrap();
    home.configure(&home.config().replace("127.0.0.1:0", &address));
    let mut second = home.ready();
    assert_eq!(second.status()["supervisor"]["listen"][0], address.as_str(), "the port was free again");
    assert_eq!(fs::read(home.path("run/secret")).unwrap(), secret);
    for pid in pids {
        assert!(
            kill(pid, None).is_err()
                || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().contains(") Z")
        );
    }
    second.signal(Signal::SIGTERM);
    assert_eq!(second.exit_code(), 0);
    assert!(!home.path("run/secret").exists(), "a clean stop ends the secret's life");
}

#[test]
fn a_service_manager_that_reads_nothing_holds_nothing_up() {
    let home = Home::new("");
    let mut platform = home.ready();
    for _ in 0..8 {
        platform.signal(Signal::SIGHUP);
        platform.log("platform is ready", "");
    }
    platform.signal(Signal::SIGTERM);
    assert_eq!(platform.exit_code(), 0);
}

#[test]
fn a_stopped_supervisor_finds_its_daemons_alive_when_it_goes_on() {
    let home = Home::new("watchdog_ms = 60000");
    let mut platform = home.ready();
    platform.signal(Signal::SIGSTOP);
    let pinged = UnixDatagram::unbound().unwrap();
    pinged.set_nonblocking(true).unwrap();
    while pinged.send_to(b"", home.path("run/notify.sock")).is_ok() {} // until its queue is full
    platform.signal(Signal::SIGCONT);
    platform.signal(Signal::SIGHUP);
    platform.log("platform is ready", "");
    assert!(platform.seen.iter().all(|line| line["msg"] != "daemon crashed"), "{:#?}", platform.seen);
}

#[test]
fn strangers_and_garbage_on_the_notify_socket_change_nothing() {
    let home = Home::new("");
    home.does("proxy", "unready");
    let mut platform = home.start();
    platform.log("daemon is ready", "debug-api");
    let stranger = UnixDatagram::unbound().unwrap();
    for message in [&b"READY=1"[..], b"\xff\xfe\0\n=\n", b"FDSTORE=1", &[b'x'; 9000], b""] {
        stranger.send_to(message, home.path("run/notify.sock")).unwrap();
    }
    kill(platform.pid("debug-api"), Signal::SIGKILL).unwrap();
    platform.log("daemon is ready", "debug-api");
    platform.signal(Signal::SIGHUP);
    platform.log("reloading", "");
    assert!(platform.status()["supervisor"]["strangers"].as_u64() >= Some(5));
    assert_eq!(platform.daemon("proxy")["state"], "starting");
}

#[test]
fn credentials_are_written_for_units_that_run_without_a_supervisor() {
    let home = Home::new("");
    assert_eq!(home.run(&["--write-credentials"]).0.status.code(), Some(0));
    let token = fs::read(home.path("run/operator/procmgr")).unwrap();
    assert_eq!(home.run(&["--write-credentials"]).0.status.code(), Some(0));
    assert_eq!(
        fs::read(home.path("run/operator/procmgr")).unwrap(),
        token,
        "a restart within one boot keeps them"
    );
    assert!(home.path("run/credentials/procmgr/app-key").exists());
    assert_eq!(home.run(&["--forget-credentials"]).0.status.code(), Some(0));
    assert!(!home.path("run/operator").exists() && !home.path("run/secret").exists());
}

#[test]
fn a_home_with_a_long_name_works() {
    let home = Home::new("");
    let long = home.path(&"x".repeat(120));
    fs::create_dir(&long).unwrap();
    for name in ["bin", "nexushub.toml"] {
        fs::rename(home.path(name), long.join(name)).unwrap();
    }
    let mut child = home.command(&[]);
    let child = child.arg("--home").arg(&long).current_dir(&long).stderr(Stdio::piped()).spawn().unwrap();
    let mut platform = Platform {
        home: &home,
        child,
        lines: channel().1,
        upstream: UnixDatagram::unbound().unwrap(),
        seen: Vec::new(),
    };
    let lines = BufReader::new(platform.child.stderr.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("platform is ready")));
}
