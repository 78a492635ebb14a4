//! Apps in boxes of their own: they work as without one, harm only themselves, and leave nothing behind.

use nexushub_e2e::{Options, Platform, Process, processes, rounds};
use nexushub_proto::{
    procmgr::{InstanceStatus, State, endpoint::Kind, exit::How},
    provider::{Driver, Limits},
};

async fn boxed(platform: &Platform, name: &str) -> InstanceStatus {
    platform.run_boxed(name, Driver::Sandbox, Limits::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_in_a_box_answers_and_takes_no_port_of_the_machine() {
    let platform = Platform::start();
    for (name, driver) in [("named", Driver::Sandbox), ("best", Driver::Auto)] {
        let status = platform.run_boxed(name, driver, Limits::default()).await;
        assert_eq!(status.driver, "sandbox");
        assert!(matches!(status.endpoint.unwrap().kind, Some(Kind::Shim(_))));
        println!("not enforced on this machine: {:?}", status.not_enforced);
        let whoami = platform.https().get(name, "/").await.json();
        assert_eq!((&whoami["env"]["PORT"], &whoami["env"]["NEXUSHUB_DATA"]), (&"80".into(), &"/db".into()));
    }
    assert_eq!(
        platform.says("named", "id -u; pwd; cat /proc/self/status | grep CapEff").await,
        "1000\n/app\nCapEff:\t0000000000000000"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn how_an_app_in_a_box_ended_is_known_and_it_is_started_again_with_its_data() {
    let platform = Platform::start();
    let mut last = boxed(&platform, "hello").await;
    platform.says("hello", "echo kept > /db/mine").await;
    // Told by the box, so a signal is not an exit code above 128; the app is the box's second process.
    for (deed, how) in [("/crash?code=137", How::Code(137)), ("/sh", How::Signal(9))] {
        platform.https().post("hello", deed, "kill -KILL $PPID").await;
        let fresh = |status: &InstanceStatus| status.routed && status.generation > last.generation;
        let next = platform.instance_until("hello", "runs anew", fresh).await;
        assert_eq!(next.last_exit.unwrap().how, Some(how));
        assert_eq!(platform.says("hello", "cat /db/mine").await, "kept");
        last = next;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_outlives_every_daemon() {
    let platform = Platform::start();
    let app = boxed(&platform, "hello").await;
    for daemon in ["procmgr", "proxy", "provider"] {
        platform.kill(daemon).await;
        let now = platform.running("hello").await;
        assert_eq!((now.pid, now.generation), (app.pid, app.generation), "{daemon} was killed");
        assert_eq!(platform.https().get("hello", "/").await.status, 200, "{daemon} was killed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_whose_shim_is_killed_goes_with_it_and_comes_back() {
    let platform = Platform::start();
    let app = boxed(&platform, "hello").await;
    let first = Process::open(app.pid).unwrap();
    Process::open(processes::parent(app.pid).unwrap()).unwrap().kill();
    assert!(first.ended_within(nexushub_e2e::HANG), "nothing of the box lives on");
    let next =
        platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != app.pid).await;
    assert_eq!(next.last_exit.unwrap().how, Some(How::Lost(true)));
    assert_eq!(platform.https().get("hello", "/").await.status, 200);
}

/// What an app might try, in its own words. `$STATE`, `$OTHER` and `$PORT_OUT` are told to it: they are no secrets.
const DEEDS: &[&str] = &[
    "cat /etc/shadow",
    "ls $STATE",
    "ls /db/../../../$STATE",
    "ln -sf / /db/out && ls /db/out/$STATE",
    "ls $OTHER",
    "ls /root",
    "ls /home/*/.ssh",
    "cat /proc/1/environ",
    "cat /proc/1/maps",
    "kill -9 1",
    "touch /app/x",
    "touch /usr/x",
    "touch /x",
    "echo 1 > /proc/sys/kernel/panic",
    "echo c > /proc/sysrq-trigger",
    "cat /proc/kcore",
    "mount -t tmpfs none /tmp",
    "umount /proc",
    "unshare --user true",
    "unshare --mount true",
    "nsenter --target 1 --net true",
    "chroot / true",
    "mknod /db/disk b 254 0",
    "cp /bin/sh /db/sh && chmod u+s /db/sh && test $(stat -c %u /db/sh) = 0",
    "timeout 2 bash -c ': < /dev/tcp/127.0.0.1/$PORT_OUT'",
    "timeout 2 bash -c ': < /dev/tcp/169.254.169.254/80'",
    "perl -MSocket -e 'socket(S, PF_INET, SOCK_RAW, 1) or exit 1'",
    "perl -MSocket -e 'socket(S, 17, SOCK_RAW, 3) or exit 1'",
    "perl -e 'exit(syscall(321, 0, 0, 0) < 0)'",    // bpf
    "perl -e 'exit(syscall(425, 8, 0) < 0)'",       // io_uring_setup
    "perl -e 'exit(syscall(250, 0, 0) < 0)'",       // keyctl
    "perl -e 'exit(syscall(323, 0) < 0)'",          // userfaultfd
    "perl -e 'exit(syscall(101, 16, 2) < 0)'",      // ptrace
    "perl -e 'exit(syscall(313, 0, \"\", 0) < 0)'", // finit_module
    "dd if=/dev/zero of=/tmp/full bs=1M count=200",
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_hostile_app_tries_fails_and_its_neighbour_never_notices() {
    let platform = Platform::start();
    let other = boxed(&platform, "other").await;
    boxed(&platform, "hostile").await;
    platform.says("other", "echo private > /db/secret").await;
    let told = format!(
        "STATE={} OTHER={} PORT_OUT={}; export STATE OTHER PORT_OUT; ",
        platform.state().display(),
        platform.data_of("other").display(),
        platform.address.port()
    );
    for deed in DEEDS {
        let (well, said) = platform.sh("hostile", &format!("{told}{deed}")).await;
        assert!(!well, "{deed} was done: {said}");
        assert!(!said.contains("not found"), "{deed} could not be tried: {said}");
    }
    let now = platform.running("other").await;
    assert_eq!((now.pid, now.restarts), (other.pid, other.restarts));
    assert_eq!(platform.says("other", "cat /db/secret").await, "private");
    assert_eq!(platform.running("hostile").await.state(), State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_box_uses_is_bounded_or_said_not_to_be() {
    let platform = Platform::start();
    let limits = Limits { memory_bytes: 64 << 20, processes: 40, open_files: 64, ..Limits::default() };
    let status = platform.run_boxed("greedy", Driver::Sandbox, limits).await;
    boxed(&platform, "other").await;
    assert_eq!(platform.says("greedy", "ulimit -n").await, "64");
    let bomb = "perl -e 'for (1..100) { $p = fork; defined $p or do { kill 9, @p; exit 1 }; $p or sleep 60; push @p, $p }'";
    assert!(!platform.sh("greedy", bomb).await.0, "the bound on processes, or its own limit, holds");
    let bounded = !status.not_enforced.iter().any(|line| line.starts_with("memory"));
    println!("memory is {}bounded on this machine", if bounded { "" } else { "not " });
    if bounded {
        assert!(!platform.sh("greedy", "perl -e '$x = \"a\" x 300_000_000'").await.0);
        platform.https().get("greedy", "/crash?code=3").await;
        let told = |status: &InstanceStatus| status.reason.contains("out of memory") || status.generation > 1;
        platform.instance_until("greedy", "says why", told).await;
    }
    assert_eq!(platform.https().get("other", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_come_and_go_and_leave_nothing() {
    let platform = Platform::start_with(&Options::tuned("keep_removed = 0", ""));
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    let before = mounts();
    let mut folders = Vec::new();
    for round in 0..rounds(10) {
        let name = format!("brief-{round}");
        let app = boxed(&platform, &name).await;
        let first = Process::open(app.pid).unwrap();
        folders.extend(groups_of(app.pid));
        assert!(platform.remove(&name).await.unwrap());
        assert!(first.ended_within(nexushub_e2e::HANG));
        platform.instances_until("forgets it", |all| !all.contains_key(&name)).await;
    }
    assert_eq!(mounts(), before);
    // Cleared when the shim has gone, which is after its end was told.
    let cleared = async {
        while folders.iter().any(|folder| std::path::Path::new(folder).exists()) {
            tokio::task::yield_now().await;
        }
    };
    nexushub_e2e::soon("the control groups vanish", cleared).await;
    assert!(platform.app_processes().is_empty());
}

/// The control groups of a process that the platform made.
fn groups_of(pid: u32) -> Vec<String> {
    let table = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let own = table
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .filter(|path| path.contains("/nexushub-"));
    let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/pids"];
    own.flat_map(|path| mounts.map(|mount| format!("{mount}{path}"))).collect()
}
