//! A box as a shim would start it, with scripts as the app: as root with ids of its own, and as an ordinary user with and without
//! ids to give away.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, lchown, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

const BASE: u32 = 1_000_000;
/// Far beyond what anything here takes.
const HANG: Duration = Duration::from_secs(60);

/// Who starts the box.
#[derive(Clone, Copy, Debug, PartialEq)]
enum As {
    Root,
    User,
    /// A user who has ids to give away.
    Giver,
}

/// The user's own id, and those that it may give away.
const NOBODY: u32 = 65_534;
const GIVEN: u32 = 3_000_000_000;
const GIVEN_COUNT: u32 = 65_536;

/// Who can be tried here. Who gives ids away needs a program of the system's.
fn all() -> Vec<As> {
    let gives = geteuid().is_root() && Path::new("/usr/bin/newuidmap").exists();
    if !gives {
        eprintln!("nobody gives ids away: that takes root, who plays an ordinary user, and newuidmap");
    }
    let root = geteuid().is_root().then_some(As::Root);
    root.into_iter().chain([As::User]).chain(gives.then_some(As::Giver)).collect()
}

/// The beginning of a command line that somebody who may give ids away runs, from a folder with `ids`: only there the system's files
/// say so.
const AS_GIVER: &str = r#"unshare --mount --propagation private sh -c '
  mount --bind "$0" /etc/subuid && mount --bind "$0" /etc/subgid && exec "$@"' "$0/ids" \
  setpriv --reuid 65534 --regid 65534 --clear-groups "#;

/// Copies a program by a process of its own: one that another test forks meanwhile would inherit a descriptor that writes the copy,
/// which can't be run for as long as anybody has that.
fn install(program: &Path, to: &Path) {
    assert!(Command::new("install").args(["-m", "755"]).arg(program).arg(to).status().unwrap().success());
}

struct Bench {
    who: As,
    folder: tempfile::TempDir,
}

impl Bench {
    /// A release whose program is this script.
    fn new(who: As, script: &str) -> Self {
        let bench = Self { who, folder: tempfile::tempdir().unwrap() };
        fs::set_permissions(bench.folder.path(), Permissions::from_mode(0o755)).unwrap();
        for name in ["release/bin", "data", "state"] {
            fs::create_dir_all(bench.path(name)).unwrap();
        }
        fs::write(bench.path("state/secret"), "s3cret").unwrap();
        fs::write(bench.path("ca"), "the ca").unwrap();
        install(Path::new(env!("CARGO_BIN_EXE_nexushub-sandbox")), &bench.path("sandbox"));
        fs::write(bench.path("ids"), format!("{NOBODY}:{GIVEN}:{GIVEN_COUNT}\n")).unwrap();
        bench.give("data");
        fs::write(bench.path("script"), format!("#!/bin/sh\n{script}\n")).unwrap();
        install(&bench.path("script"), &bench.path("release/bin/app"));
        bench
    }

    /// Makes this file that of who starts the box.
    fn give(&self, name: &str) {
        let owner = match self.who {
            As::Root => None,
            As::User => geteuid().is_root().then_some(1000),
            As::Giver => Some(NOBODY),
        };
        lchown(self.path(name), owner, owner).unwrap();
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// What a shim would exec, in the namespaces that a shim would make.
    fn command(&self, program: &str) -> Command {
        let mut line = String::from("exec 3>\"$0/report\"; exec ");
        if self.who == As::User {
            if geteuid().is_root() {
                line += "setpriv --reuid 1000 --regid 1000 --clear-groups ";
            }
            line += "unshare --user --map-current-user --keep-caps ";
        }
        if self.who == As::Giver {
            let map = format!("{GIVEN},{GIVEN},{GIVEN_COUNT}");
            line += AS_GIVER;
            line += &format!(
                "unshare --user --map-current-user --map-users={map} --map-groups={map} --keep-caps "
            );
        }
        line += "unshare --pid --net --fork --kill-child \"$0/sandbox\" \"$@\"";
        let mut command = Command::new("bash");
        command.args(["-c", &line]).arg(self.folder.path());
        for (option, name) in [("--release", "release"), ("--data", "data"), ("--ca", "ca")] {
            command.arg(option).arg(self.path(name));
        }
        if self.who == As::Root {
            command.args(["--uid", &BASE.to_string()]);
        }
        if self.who == As::Giver {
            command.args(["--slot", "0"]);
        }
        command.args(["--tmp-bytes", "1048576", "--open-files", "100", "--hostname", "shop"]);
        command.args(["--hosts", "127.0.0.1 more", "--", program, "one", "two words"]);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("INTERNAL_SECRET", "a=b c");
        command
    }

    fn run(&self) -> Output {
        self.command("/app/bin/app").stdin(Stdio::null()).output().unwrap()
    }

    fn report(&self) -> String {
        fs::read_to_string(self.path("report")).unwrap()
    }
}

/// Does something with the data of a giver's box. What is said.
fn keep(bench: &Bench, task: &[&str]) -> String {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{AS_GIVER} \"$0/sandbox\" \"$@\"")]).arg(bench.folder.path()).args(task);
    let output = command.arg("--folder").arg(bench.path("data")).output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}", said(&output.stderr));
    said(&output.stdout)
}

/// What a script says; it has to end well.
fn said(who: As, script: &str) -> String {
    let bench = Bench::new(who, script);
    let output = bench.run();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(bench.report(), "code=0\n", "{who:?} {text} {}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn an_app_finds_its_arguments_environment_ids_and_files() {
    let script = r#"echo "$# $2 [$INTERNAL_SECRET] $PWD $(hostname) $(id -un):$(id -gn)"
        cat /etc/nexushub/ca.crt; echo; cat /etc/hosts; echo kept > /db/file; cat /db/file; ls -d /sys /old 2>&1 | wc -l
        ls -A / | tr '\n' ' '; ulimit -c; ulimit -n; ulimit -Hn; echo /proc/[0-9]*; echo x > /dev/null; head -c3 /dev/zero | wc -c
        ls /proc/self/fd | tr '\n' ' '"#;
    for who in all() {
        let text = said(who, script);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "2 two words [a=b c] /app shop app:app", "{text}");
        assert_eq!(
            &lines[1..6],
            ["the ca", "127.0.0.1 localhost internal.yesterday.localhost", "127.0.0.1 more", "kept", "2"]
        );
        let (names, core) = lines[6].rsplit_once(' ').unwrap();
        assert_eq!(core, "0");
        assert!(
            ["app", "db", "dev", "etc", "proc", "tmp", "usr"].iter().all(|name| names.contains(name)),
            "{names}"
        );
        assert!(
            ["home", "root", "old", "sys", "boot", "opt", "mnt"].iter().all(|name| !names.contains(name)),
            "{names}"
        );
        assert_eq!(&lines[7..9], ["100", "100"]);
        assert!(lines[9].starts_with("/proc/1 /proc/2") && lines[9].len() < 40, "{text}");
        assert_eq!(lines[10], "3");
        assert_eq!(lines[11].trim(), "0 1 2 3", "only ls's own folder besides the standard ones");
    }
}

#[test]
fn hosts_files_and_privileges_are_out_of_reach() {
    let tries = r#"
        cat /etc/shadow; cat /root/.profile; ls /root; cat STATE/secret; cat /db/../../STATE/secret; cat /db/link
        cat /proc/1/root/etc/shadow; ls /proc/1/fd/; cat /proc/1/environ; cat /proc/1/maps; ls /proc/1/cwd/
        echo x > /usr/x; echo x > /app/x; echo x > /etc/passwd; echo x > /x; echo x > /dev/x; mkdir /run/x
        echo x > /proc/sys/kernel/hostname; echo x > /proc/self/oom_score_adj; echo b > /proc/sysrq-trigger
        mount -t tmpfs none /tmp; mount -o remount,rw /; mount --bind /tmp /db; umount /tmp; umount -l /proc
        unshare -U true; unshare -m true; unshare -n true; chroot / true; hostname other; setpriv --reuid 0 true
        mknod /db/null c 1 3; mknod /tmp/disk b 8 0; nsenter -t 1 -m true; su -c true
        renice -n -5 -p $$; chown 0:0 /db; dmesg; swapon /db/x; date -s 12:00"#;
    for who in all() {
        let bench = Bench::new(who, "");
        symlink(bench.path("state/secret"), bench.path("data/link")).unwrap();
        bench.give("data/link");
        let tries = tries.replace("STATE", bench.path("state").to_str().unwrap());
        let tries = tries.split([';', '\n']).map(str::trim).filter(|one| !one.is_empty());
        let script: String =
            tries.map(|one| format!("( {one} ) >/dev/null 2>&1 && echo 'succeeded: {one}'\n")).collect();
        let script = format!(
            "#!/bin/sh\n{script}for signal in KILL STOP TERM HUP; do kill -$signal 1; done 2>/dev/null; grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status; head -c1 /proc/kcore 2>/dev/null; true\n"
        );
        fs::write(bench.path("release/bin/app"), script).unwrap();
        let output = bench.run();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(bench.report(), "code=0\n", "{who:?} {text}");
        assert!(!text.contains("succeeded"), "{who:?} {text}");
        for line in text.lines() {
            let (name, value) = line.split_once(":\t").unwrap();
            assert_eq!(
                value.trim_start_matches('0'),
                ["", "1", "2"][usize::from(name == "NoNewPrivs") + 2 * usize::from(name == "Seccomp")],
                "{line}"
            );
        }
        assert_eq!(text.lines().count(), 7, "{text}");
    }
}

#[test]
fn what_only_landlock_refuses_is_refused_where_the_kernel_has_it() {
    // Anybody may make a process of theirs the first to be killed; the file is writable, and no mount says otherwise.
    let script = "(echo 500 > /proc/self/oom_score_adj) 2>/dev/null && echo written; true";
    let mut probe = Command::new(env!("CARGO_BIN_EXE_nexushub-sandbox"));
    probe.arg("--probe");
    if geteuid().is_root() {
        probe.args(["--uid", &BASE.to_string()]);
    }
    let probe = probe.output().unwrap();
    let missing = String::from_utf8_lossy(&probe.stdout).contains("landlock: not supported");
    println!("this kernel has {}Landlock", if missing { "no " } else { "" });
    let modules = fs::read_to_string("/sys/kernel/security/lsm").unwrap_or_default(); // not mounted everywhere
    assert!(!missing || !modules.contains("landlock"), "the kernel says that it has it: {modules}");
    for who in all() {
        assert_eq!(said(who, script), if missing { "written\n" } else { "" }, "{who:?}");
    }
}

#[test]
fn every_namespace_is_the_boxs_own() {
    let kinds = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];
    for who in all() {
        let text =
            said(who, &format!("for kind in {}; do readlink /proc/self/ns/$kind; done", kinds.join(" ")));
        let inside: Vec<_> = text.lines().collect();
        for (kind, inside) in kinds.iter().zip(&inside) {
            let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            assert_ne!(outside, Path::new(inside), "{who:?} {kind}");
        }
        assert_eq!(inside.len(), kinds.len(), "{text}");
    }
}

#[test]
fn neither_devices_nor_other_users_rights_are_to_be_had_from_what_the_app_writes() {
    let script =
        "while read -r id parent device root at flags rest; do echo $at $flags; done </proc/self/mountinfo";
    for who in all() {
        let text = said(who, script);
        for at in ["/db", "/tmp", "/dev/shm"] {
            let mount = text.lines().find_map(|line| line.strip_prefix(at)?.strip_prefix(' ')).unwrap();
            let flags: Vec<_> = mount.split(',').collect();
            assert!(flags.contains(&"nosuid") && flags.contains(&"nodev"), "{who:?} {at}: {mount}");
        }
    }
}

#[test]
fn an_end_is_told_as_it_was() {
    for who in all() {
        for (script, report, code) in [("exit 7", "code=7\n", 7), ("kill -9 $$", "signal=9\n", 137)] {
            let bench = Bench::new(who, script);
            assert_eq!((bench.run().status.code(), bench.report()), (Some(code), report.into()), "{who:?}");
        }
    }
}

#[test]
fn what_cannot_start_says_why_and_ends_with_127() {
    for who in all() {
        let bench = Bench::new(who, "");
        let output = bench.command("/app/bin/none").output().unwrap();
        assert_eq!(output.status.code(), Some(127));
        assert_eq!(bench.report(), "could not start /app/bin/none: No such file or directory\n");
        fs::remove_dir(bench.path("data")).unwrap();
        assert_eq!(bench.run().status.code(), Some(127));
        assert!(bench.report().starts_with("could not find /"), "{}", bench.report());
    }
}

#[test]
fn outputs_stay_apart_and_nobody_but_the_first_process_holds_the_report() {
    for who in all() {
        let bench = Bench::new(who, "echo out; echo err >&2; (echo forged >&3) 2>/dev/null; exit 0");
        let output = bench.run();
        assert_eq!(
            (output.stdout.as_slice(), output.stderr.as_slice()),
            (&b"out\n"[..], &b"err\n"[..]),
            "{who:?}"
        );
        assert_eq!(bench.report(), "code=0\n");
    }
}

#[test]
fn temporary_files_are_bounded() {
    let script =
        "for at in /tmp /dev/shm; do head -c 3000000 /dev/zero > $at/x 2>/dev/null || stat -c %s $at/x; done";
    for who in all() {
        assert_eq!(said(who, script), "1048576\n1048576\n", "{who:?}");
    }
}

#[test]
fn orphans_are_reaped_and_the_rest_ends_with_the_app() {
    // The orphans' numbers go when they are reaped; a pipe's end tells when they have ended.
    let script = "for n in 1 2 3; do ( true & ); done; while grep -q '^State:.Z' /proc/[0-9]*/status; do :; done 2>/dev/null
        sleep 1000 & echo done";
    for who in all() {
        assert_eq!(said(who, script), "done\n", "the sleeper held the pipe open otherwise");
    }
}

/// The box's first process as the host counts: the child of the one that made its namespaces.
fn first_process(box_: &Child) -> Pid {
    let children = format!("/proc/{0}/task/{0}/children", box_.id());
    let text = fs::read_to_string(children).unwrap();
    Pid::from_raw(text.trim().parse().unwrap())
}

fn begun(bench: &Bench) -> (Child, BufReader<impl std::io::Read>) {
    let mut child =
        bench.command("/app/bin/app").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    (child, lines)
}

#[test]
fn a_request_to_stop_reaches_every_process_of_the_box() {
    let script = "trap 'wait; echo stopped; exit 3' TERM
        sh -c 'trap \"echo below; exit 0\" TERM; echo ready; while :; do sleep 0.01; done' & wait";
    for who in all() {
        let bench = Bench::new(who, script);
        let (mut child, mut lines) = begun(&bench);
        kill(first_process(&child), Signal::SIGTERM).unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("below") && rest.ends_with("stopped\n"), "{who:?} {rest}");
        assert_eq!(child.wait().unwrap().code(), Some(3));
        assert_eq!(bench.report(), "code=3\n");
    }
}

/// Descriptors that a process has open.
fn held(pid: Pid) -> Vec<OsString> {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(|fd| Some(fd.ok()?.file_name())).collect()
}

#[test]
fn the_first_process_is_small_and_holds_nothing_but_the_report() {
    for who in all() {
        let bench = Bench::new(who, "echo ready; sleep 1000");
        let (mut child, _lines) = begun(&bench);
        let first = first_process(&child);
        let status = fs::read_to_string(format!("/proc/{first}/status")).unwrap();
        let field =
            |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
        eprintln!("{who:?}: {} resident", field("VmRSS:"));
        assert!(field("CapEff:").chars().all(|digit| digit == '0'), "{status}");
        if geteuid().is_root() {
            // The pipes to the app's process are closed a moment after that one became the app.
            let deadline = Instant::now() + HANG;
            while held(first) != ["3"] {
                assert!(Instant::now() < deadline, "{:?}", held(first));
                thread::yield_now();
            }
        }
        kill(first, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn data_becomes_the_apps_own_but_links_are_left_alone() {
    if !geteuid().is_root() {
        return;
    }
    let bench = Bench::new(As::Root, "rm /db/sub/file");
    let outside = |name: &str| bench.path("state").join(name);
    let owner = |path: &Path| fs::symlink_metadata(path).unwrap().uid();
    File::create(outside("other")).unwrap();
    fs::create_dir(bench.path("data/sub")).unwrap();
    File::create(bench.path("data/sub/file")).unwrap();
    File::create(bench.path("data/mine")).unwrap();
    symlink(outside("secret"), bench.path("data/soft")).unwrap();
    symlink(bench.path("state"), bench.path("data/folder")).unwrap();
    fs::hard_link(outside("other"), bench.path("data/hard")).unwrap();
    bench.run();
    assert_eq!(bench.report(), "code=0\n");
    for mine in ["data", "data/sub", "data/mine", "data/soft", "data/folder"] {
        assert_eq!(owner(&bench.path(mine)), BASE + 1000, "{mine}");
    }
    for other in ["state", "state/other", "state/secret", "data/hard", "release/bin/app"] {
        assert_eq!(owner(&bench.path(other)), 0, "{other}");
    }
}

#[test]
fn what_a_user_gave_away_is_measured_taken_back_and_removed_by_that_user_alone() {
    if !all().contains(&As::Giver) {
        return;
    }
    let script = "grep ^Uid /proc/self/status; cat /db/earlier; mkdir -m 700 /db/deep; head -c 3000000 /dev/zero >/db/deep/file";
    let bench = Bench::new(As::Giver, script);
    fs::set_permissions(bench.folder.path(), Permissions::from_mode(0o777)).unwrap(); // the folder that the data are in is the user's
    fs::write(bench.path("data/earlier"), "earlier\n").unwrap();
    bench.give("data/earlier");
    let told = bench.run();
    let text = String::from_utf8_lossy(&told.stdout);
    assert!(text.starts_with("Uid:\t1000") && text.ends_with("earlier\n"), "{text} {}", bench.report());
    let owner = |name: &str| fs::symlink_metadata(bench.path(name)).unwrap().uid();
    let last = GIVEN + GIVEN_COUNT - 1;
    assert_eq!(["data", "data/earlier", "data/deep/file"].map(owner), [last; 3]);
    let bytes: u64 = keep(&bench, &["--measure", "100"]).trim().parse().unwrap();
    assert!((3_000_000..3_100_000).contains(&bytes), "{bytes}");
    keep(&bench, &["--reclaim"]);
    assert_eq!(["data", "data/earlier", "data/deep/file"].map(owner), [NOBODY; 3]);
    bench.run();
    assert_eq!(owner("data"), last, "given again");
    keep(&bench, &["--remove"]);
    assert!(!bench.path("data").exists());
}

#[test]
fn an_app_of_another_user_may_open_its_output_by_name() {
    if geteuid().is_root() {
        assert_eq!(said(As::Root, "echo named > /dev/stdout; echo > /dev/stderr"), "named\n");
    }
}

#[test]
fn a_probe_builds_a_box_and_leaves_nothing_behind() {
    for who in all() {
        let bench = Bench::new(who, "");
        let temporary = bench.path("data");
        let mut command = match who {
            As::Giver => {
                let mut command = Command::new("bash");
                command.args(["-c", &format!("{AS_GIVER} \"$0/sandbox\" \"$@\"")]).arg(bench.folder.path());
                command
            }
            As::User if geteuid().is_root() => {
                let mut command = Command::new("setpriv");
                command
                    .args(["--reuid", "1000", "--regid", "1000", "--clear-groups"])
                    .arg(bench.path("sandbox"));
                command
            }
            _ => Command::new(bench.path("sandbox")),
        };
        command.arg("--probe").env("TMPDIR", &temporary);
        if who == As::Root {
            command.args(["--uid", &BASE.to_string()]);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        eprint!("{who:?}: {text}");
        assert_eq!(output.status.code(), Some(0), "{text}");
        let why_not = "own ids: an ordinary user has one, and so its apps have it: /etc/subuid";
        assert_eq!(text.contains(why_not), who == As::User && geteuid().is_root(), "{text}");
        assert_eq!(text.contains("slots=65536\n"), who == As::Giver, "{text}");
        assert_eq!(fs::read_dir(temporary).unwrap().count(), 0);
    }
}

#[test]
fn programs_of_all_kinds_run() {
    // What isn't installed here isn't tried.
    let script = r#"command -v python3 >/dev/null && { python3 -c '
import threading, subprocess, socket, asyncio, tempfile, multiprocessing
t = threading.Thread(target=print, args=("thread",)); t.start(); t.join()
subprocess.check_call(["true"])
socket.create_server(("127.0.0.1", 8080)); socket.socketpair()
asyncio.run(asyncio.to_thread(int)); tempfile.TemporaryFile(); multiprocessing.Lock(); socket.if_nameindex()
for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW), (40, socket.SOCK_STREAM)):
    try: socket.socket(family, kind); print("opened", family)
    except PermissionError: pass
' || echo failed; }
    command -v node >/dev/null && { node -e 'require("fs").promises.readFile("/etc/hosts")' || echo failed; }
    true"#;
    for who in all() {
        let text = said(who, script);
        assert!(!text.contains("failed") && !text.contains("opened"), "{who:?} {text}");
    }
}

/// Root's data with a disk of this many bytes, and the script's report.
fn on_disk(bench: &Bench, bytes: u64, script: &str) -> String {
    fs::write(bench.path("release/bin/app"), format!("#!/bin/sh\n{script}\n")).unwrap();
    let mut command = Command::new("bash");
    let given = bench.command("/app/bin/app");
    for (at, word) in given.get_args().enumerate() {
        if word == "--hostname" && at > 0 {
            command.args(["--data-bytes", &bytes.to_string()]);
        }
        command.arg(word);
    }
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    let output = command.stdin(Stdio::null()).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), bench.report())
}

/// Whether this machine gives disks to root's boxes.
fn has_disks() -> bool {
    let probe = Command::new(env!("CARGO_BIN_EXE_nexushub-sandbox"))
        .args(["--probe", "--uid", &BASE.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&probe.stdout).into_owned();
    let has = geteuid().is_root() && probe.status.success() && !said.contains("data_bytes");
    println!("data have {}disk of their own here: {said}", if has { "a " } else { "no " });
    let could = geteuid().is_root() && File::options().write(true).open("/dev/loop-control").is_ok();
    assert!(has || !could || std::env::var_os("CI").is_none(), "this machine could: {said}");
    has
}

#[test]
fn data_have_a_disk_of_their_own_which_takes_in_what_was_there_and_grows() {
    if !has_disks() {
        return;
    }
    let bench = Bench::new(As::Root, "");
    fs::write(bench.path("data/old"), "of before").unwrap();
    fs::create_dir(bench.path("data/below")).unwrap();
    symlink("../old", bench.path("data/below/link")).unwrap();
    let filled = on_disk(
        &bench,
        8 << 20,
        "cat /db/below/link; dd if=/dev/zero of=/db/full bs=1M 2>&1 | grep -o 'No space.*'; exit 3",
    );
    assert_eq!(filled, "of beforeNo space left on device\ncode=3\n");
    let names: Vec<_> =
        fs::read_dir(bench.path("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [".image"], "the rest is in it");
    let again = on_disk(
        &bench,
        64 << 20,
        "ls -A /db; cat /db/old; dd if=/dev/zero of=/db/more bs=1M count=40 2>/dev/null && echo; stat -c %u /db",
    );
    assert_eq!(again, "below\nfull\nold\nof before\n1000\ncode=0\n");
    let smaller = on_disk(&bench, 1 << 20, "cat /db/old; stat -c %s /db/more");
    assert_eq!(smaller, "of before41943040\ncode=0\n", "nothing is lost where the bound becomes smaller");
    assert_eq!(on_disk(&bench, 0, "cat /db/old"), "of beforecode=0\n", "nor where there is none any more");
}

#[test]
fn a_start_that_was_killed_while_it_made_the_disk_is_taken_up_and_a_forged_disk_is_not() {
    if !has_disks() {
        return;
    }
    let bench = Bench::new(As::Root, "");
    // Some of it was put aside, and a file system was begun.
    fs::create_dir(bench.path("data/.plain")).unwrap();
    fs::write(bench.path("data/.plain/one"), "1").unwrap();
    fs::write(bench.path("data/two"), "2").unwrap();
    fs::write(bench.path("data/.image.new"), "torn").unwrap();
    assert_eq!(on_disk(&bench, 8 << 20, "cat /db/one /db/two; ls -A /db"), "12one\ntwo\ncode=0\n");
    // All of it was in, and not all of what was put aside was removed.
    fs::create_dir(bench.path("data/.plain")).unwrap();
    fs::write(bench.path("data/.plain/one"), "1").unwrap();
    assert_eq!(on_disk(&bench, 8 << 20, "ls -A /db"), "one\ntwo\ncode=0\n");
    assert!(!bench.path("data/.plain").exists());
    chown(bench.path("data/.image"), Some(BASE + 1000), None).unwrap();
    let refused = on_disk(&bench, 8 << 20, "true");
    assert!(refused.contains("is not the platform's"), "{refused}");
}

#[test]
fn two_boxes_of_one_folder_write_to_one_disk() {
    if !has_disks() {
        return;
    }
    let bench = Bench::new(As::Root, "");
    on_disk(&bench, 8 << 20, "mkfifo /db/go");
    // Whichever comes first waits for the other.
    let meet = "if mkdir /db/first 2>/dev/null; then cat /db/go; else echo heard > /db/go; fi";
    thread::scope(|scope| {
        let boxes = [0, 1].map(|_| scope.spawn(|| on_disk(&bench, 8 << 20, meet)));
        let said: String = boxes.map(|one| one.join().unwrap()).concat();
        assert_eq!(said.matches("heard").count(), 1, "{said}");
    });
}
