//! Apps in boxes of their own: they work as without one, harm only themselves, and leave nothing behind.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    App, Load, Options, Platform, Process, Protocol, Traces, machine, platform::AT_REST, processes,
    rounds_up_to, soon, workshop,
};
use nexushub_proto::{
    procmgr::{InstanceStatus, State, endpoint::Kind, exit::How},
    provider::{Driver, Health, Instance, Limits},
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};
use tokio::task::JoinSet;

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
async fn two_hundred_first_requests_at_once_all_find_their_way_into_a_box() {
    let platform = Platform::start_with(&Options::with("[proxy]\nconnect_ms = 600000\n"));
    boxed(&platform, "hello").await;
    let mut all = JoinSet::new();
    for _ in 0..200 {
        let https = platform.https();
        all.spawn(async move {
            let mut connection = https.open(Protocol::Http1, "hello").await.unwrap();
            connection.send(Request::get("/").body(Full::default()).unwrap()).await.unwrap().status
        });
    }
    let answers = soon("all are answered", all.join_all()).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_and_the_status_say_which_box_apps_get_here_and_why_no_better_one() {
    let platform = Platform::start();
    let app = platform.run_boxed("best", Driver::Auto, Limits::default()).await;
    let doctor = workshop::nexushub(platform.home.path(), &["doctor", "-o", "json"]);
    // Whether all else is well with this machine is nobody's business here.
    let report: serde_json::Value = serde_json::from_slice(&doctor.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let says = |what: &str| findings.iter().filter(|found| found["what"] == what).collect::<Vec<_>>();
    assert_eq!(says("driver auto")[0]["says"], format!("is {}", app.driver));
    let sandbox = says("driver sandbox");
    assert!(sandbox.iter().all(|found| found["verdict"] != "bad"), "{report}");
    assert!(sandbox.iter().any(|found| found["verdict"] == "ok") || sandbox.len() <= app.not_enforced.len());
    assert_eq!((says("driver krun").len(), says("egress internet").len()), (1, 1));
    let status = workshop::nexushub(platform.home.path(), &["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains(&format!("auto is {} here", app.driver)), "{status}");
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

/// Calls that are refused whatever they are asked, each so that the kernel does it for anybody whom nothing keeps from it: as an expression
/// of perl, in which `$room` is room for what the kernel reads or writes.
const CALLS: &[(&str, &str)] = &[
    ("bpf", "syscall(321, 0, $room = pack(\"L4 x112\", 2, 4, 4, 1), 128)"),
    ("io_uring_setup", "syscall(425, 8, $room)"),
    ("keyctl", "syscall(250, 0, -3, 1)"),
    ("userfaultfd", "syscall(323, 1)"),
    ("ptrace", "syscall(101, 0, 0, 0, 0)"),
    ("finit_module", "syscall(313, 0, $room, 0)"),
];

/// What an app might try, in its own words. What it is told of the machine around it is no secret.
const DEEDS: &[&str] = &[
    "cat /etc/shadow",
    "ls $STATE",
    "ls $RUN",
    "cat $RUN/operator/* $RUN/status.json",
    "ls /db/../../../$STATE",
    "ls /tmp/../../$STATE",
    "ls /app/../../$STATE",
    "ls /usr/../../$STATE",
    "ln -sf / /db/out && ls /db/out/$STATE",
    "ln -sf / /tmp/out && ls /tmp/out/$RUN",
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
    "kill -9 $MANAGER",
    "dd if=/dev/zero of=/tmp/full bs=1M count=200",
];

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_hostile_app_tries_fails_and_its_neighbour_never_notices() {
    let platform = Platform::start();
    let other = boxed(&platform, "other").await;
    boxed(&platform, "hostile").await;
    platform.says("other", "echo private > /db/secret").await;
    let told = format!(
        "STATE={} RUN={} OTHER={} PORT_OUT={} MANAGER={}; export STATE RUN OTHER PORT_OUT MANAGER; ",
        platform.state().display(),
        platform.run().display(),
        platform.data_of("other").display(),
        platform.address.port(),
        platform.daemon("procmgr").await.pid
    );
    for deed in DEEDS {
        let (well, said) = platform.sh("hostile", &format!("{told}{deed}")).await;
        assert!(!well, "{deed} was done: {said}");
        assert!(!said.contains("not found"), "{deed} could not be tried: {said}");
    }
    for (name, call) in CALLS {
        let asks = format!("perl -e '$room = \"\\0\" x 128; print {call} < 0 ? $! + 0 : \"done\"'");
        let said = platform.says("hostile", &asks).await;
        assert!(["1", "38"].contains(&said.as_str()), "{name}: refused with EPERM, or not there: {said}");
    }
    let now = platform.running("other").await;
    assert_eq!((now.pid, now.restarts), (other.pid, other.restarts));
    assert_eq!(platform.says("other", "cat /db/secret").await, "private");
    assert_eq!(platform.running("hostile").await.state(), State::Running);
}

/// Whether this is bounded here, by one of these files; what the platform says of it has to be true.
fn bounds(status: &InstanceStatus, what: &str, unified: &str, older: &str) -> bool {
    let says = !status.not_enforced.iter().any(|line| line.starts_with(what));
    machine::enforces(what, says, [unified, older].into_iter().any(machine::has_groups_with))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_box_uses_is_bounded_or_said_not_to_be() {
    let platform = Platform::start_with(&Options::with(AT_REST));
    let limits = Limits { memory_bytes: 64 << 20, processes: 40, open_files: 64, ..Limits::default() };
    let status = platform.run_boxed("greedy", Driver::Sandbox, limits).await;
    boxed(&platform, "other").await;
    assert_eq!(platform.says("greedy", "ulimit -n").await, "64");
    platform.says("greedy", "dd if=/dev/zero of=/db/kept bs=1M count=3 && sync /db/kept").await;
    let usage = platform.instance_now("greedy").await.unwrap().usage.unwrap();
    assert!(usage.data_bytes >= 3 << 20, "what it keeps is counted: {usage:?}");
    let bomb = "perl -e 'for (1..100) { $p = fork; defined $p or do { kill 9, @p; exit 1 }; $p or sleep 60; push @p, $p }'";
    assert!(!platform.sh("greedy", bomb).await.0, "the bound on processes, or its own limit, holds");
    if bounds(&status, "memory", "memory.max", "memory.limit_in_bytes") {
        assert!(!platform.sh("greedy", "perl -e '$x = \"a\" x 300_000_000'").await.0);
        let lives = platform.instance_now("greedy").await.unwrap();
        assert!(lives.usage.unwrap().oom_kills > 0, "that a child of its was killed is told");
        let said = workshop::nexushub(platform.home.path(), &["status", "greedy"]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("killed at its bound on memory of 64.0 MiB"), "{said}");
        platform.https().get("greedy", "/crash?code=3").await;
        let ended = |status: &InstanceStatus| status.state() == State::Failed;
        let ended = platform.instance_until("greedy", "has ended", ended).await;
        let its_own = ended.reason.contains("exited with code 3") && !ended.reason.contains("out of memory");
        assert!(its_own, "{}", ended.reason);
        platform.run_boxed("hungry", Driver::Sandbox, limits).await;
        platform.https().get("hungry", "/eat?mib=300").await;
        let told = |status: &InstanceStatus| status.reason.contains("out of memory: its bound is 64 MiB");
        platform.instance_until("hungry", "says why", told).await;
    }
    assert_eq!(platform.https().get("other", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_on_processor_time_holds_a_box_back_and_that_is_told() {
    let platform = Platform::start();
    let limits = Limits { cpu_percent: 10, ..Limits::default() };
    let status = platform.run_boxed("busy", Driver::Sandbox, limits).await;
    if !bounds(&status, "processor time", "cpu.max", "cpu.cfs_quota_us") {
        return;
    }
    let told = || {
        let said = workshop::nexushub(platform.home.path(), &["status", "busy", "-o", "json"]);
        let json: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
        json["instances"][0]["usage"].clone()
    };
    let before = told();
    platform.says("busy", "perl -e '$i++ while $i < 5e6'").await;
    let after = told();
    let figure = |told: &serde_json::Value, name: &str| told[name].as_u64().unwrap();
    assert_eq!(figure(&after, "cpu_limit_percent"), 10, "{after}");
    assert!(figure(&after, "throttled_usec") > figure(&before, "throttled_usec"), "{before} {after}");
    let said = workshop::nexushub(platform.home.path(), &["status", "busy"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("busy uses:") && said.contains("bound to 10 % of a core"), "{said}");
}

/// Until it is told to stop, busy on as many cores as a machine may have for it.
const BUSY: &str = "for i in 1 2 3 4; do (while [ ! -e /tmp/stop ]; do :; done) & done; wait";

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_keeps_a_processor_busy_yields_until_it_takes_less() {
    // Little is much here: beside other stories it gets no more.
    let platform = Platform::start_with(&Options::with("[procmgr]\nyield_percent = 5\n"));
    let status = platform.run_boxed("busy", Driver::Sandbox, Limits::default()).await;
    let groups = Platform::groups_around(status.pid);
    let file = groups.iter().map(|group| group.join("cpu.idle")).find(|file| file.exists());
    if !machine::enforces("yielding", file.is_some(), machine::has_groups_with("cpu.idle")) {
        return;
    }
    let file = file.unwrap();
    let is = || fs::read_to_string(&file).unwrap().trim().to_owned();
    let cores = || {
        let told = fs::read_to_string(format!("/proc/{}/status", status.pid)).unwrap();
        told.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:\t")).unwrap().to_owned()
    };
    let bounded = groups.iter().any(|group| group.join("cpuset.cpus").exists());
    let kept = machine::enforces("cores", bounded, machine::has_groups_with("cpuset.cpus"));
    let all = cores();
    let yields = async |expected: bool| {
        let all = async {
            loop {
                match platform.instance_now("busy").await {
                    Some(status) if status.usage.is_some_and(|usage| usage.yields == expected) => {
                        return status.pid;
                    }
                    _ => tokio::task::yield_now().await,
                }
            }
        };
        soon("it yields, or not", all).await
    };
    assert_eq!(is(), "0");
    let https = platform.https();
    let deed = tokio::spawn(async move {
        let request = Request::post("/sh").body(Full::from(BUSY)).unwrap();
        https.send(Protocol::Http1, "busy", request).await
    });
    yields(true).await;
    assert_eq!(is(), "1");
    if kept {
        assert!(cores().parse::<u32>().is_ok(), "its bound is one core: {}", cores());
    }
    platform.kill("procmgr").await;
    assert_eq!(yields(true).await, status.pid, "a successor leaves it there");
    platform.says("busy", "touch /tmp/stop").await;
    deed.await.unwrap().unwrap();
    yields(false).await;
    assert_eq!((is(), cores()), ("0".to_owned(), all));
}

#[tokio::test(flavor = "multi_thread")]
async fn boxes_come_and_go_and_leave_nothing() {
    let platform = Platform::start_with(&Options::with("[procmgr]\nkeep_removed = 0\n"));
    let come_and_go = async |name: &str| {
        let app = boxed(&platform, name).await;
        assert_eq!(platform.https().get(name, "/").await.status, 200);
        let first = Process::open(app.pid).unwrap();
        let groups = Platform::groups_around(app.pid);
        assert!(platform.remove(name).await.unwrap());
        assert!(first.ended_within(nexushub_e2e::HANG));
        platform.instances_until("forgets it", |all| !all.contains_key(name)).await;
        groups
    };
    // What stays may stay once: folders, connections among the daemons.
    come_and_go("first").await;
    let groups = come_and_go("second").await;
    let settled = |traces: &Traces| {
        let is_brief = |name: &str| name.contains("/.retired-") || name.ends_with(".tmp");
        let brief = traces.files.iter().any(|file| is_brief(&file.to_string_lossy()));
        traces.groups.is_empty() && traces.namespaces.len() < NAMESPACES && !brief
    };
    let before = until(&platform, &groups, settled).await;
    for round in 0..rounds_up_to(10, 1000) {
        come_and_go(&format!("brief-{round}")).await;
    }
    let after = until(&platform, &groups, |traces| traces.no_more_than(&before)).await;
    assert!(after.no_more_than(&before), "{after:#?} is more than {before:#?}");
}

/// The kinds of namespaces, and some more for how they are counted: a box adds more than these.
const NAMESPACES: usize = 13;

/// Looks until what is left of the platform's instances pleases, for as long as a connection may be kept idle and more: what an
/// app's end lets go of goes a moment after that is told. Then it is what it is.
async fn until(platform: &Platform, groups: &BTreeSet<PathBuf>, pleases: impl Fn(&Traces) -> bool) -> Traces {
    let looking = async {
        loop {
            let traces = platform.traces(groups).await;
            if pleases(&traces) {
                return traces;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(LINGERING, looking).await {
        Ok(traces) => traces,
        Err(_) => platform.traces(groups).await,
    }
}

/// Far beyond the few seconds that the proxy keeps an idle connection to an app.
const LINGERING: Duration = Duration::from_secs(40);

/// What a box does at its worst: a request to it.
const WORST: &[(&str, &str)] = &[
    ("/sh", "perl -e 'while (1) { fork }'"),
    ("/sh", "perl -e '$x .= \"a\" x 1e6 while 1'"),
    ("/sh", "while :; do dd if=/dev/zero of=/tmp/full bs=1M count=200; done"),
    ("/sh", "while :; do rm -f /db/full; dd if=/dev/zero of=/db/full bs=1M count=300; done"),
    ("/print?text=flood&count=20000&bytes=1000", ""),
    ("/sh", "perl -e 'while (1) { open(my $f, q(<), q(/dev/null)) or next; push @f, $f }'"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_box_at_its_worst_is_not_noticed_next_door() {
    let platform = Platform::start();
    // The bombs have the processor to themselves now and then: that its checks wait makes nobody ill.
    let patient = App::named("other").health(Health { failures: 100, ..Health::default() });
    let other = Instance { driver: Driver::Sandbox.into(), ..platform.instance(&patient) };
    platform.put(other).await.unwrap();
    let other = platform.running("other").await;
    let load = Load::start(&platform.https(), "other", 2, 1);
    for (round, (path, script)) in WORST.iter().enumerate() {
        let name = format!("worst-{round}");
        let limits = Limits { memory_bytes: 256 << 20, processes: 200, ..Limits::default() };
        let status = platform.run_boxed(&name, Driver::Sandbox, limits).await;
        if script.contains("x .=") && !bounds(&status, "memory", "memory.max", "memory.limit_in_bytes") {
            continue; // its bomb is left out
        }
        let https = platform.https();
        let host = name.clone();
        let deed = tokio::spawn(async move {
            loop {
                let request = Request::post(*path).body(Full::from(*script)).unwrap();
                drop(https.send(Protocol::Http1, &host, request).await); // whatever it answers
            }
        });
        load.goes_on(100).await;
        deed.abort();
        assert!(platform.remove(&name).await.unwrap());
        platform.instances_until("forgets it", |all| !all.contains_key(&name)).await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.failed(), tally.retried), (0, 0), "{tally:?}");
    let now = platform.instance_until("other", "is well", |now| now.routed && !now.flagged).await;
    assert_eq!((now.pid, now.generation), (other.pid, other.generation));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_reaches_no_host_of_another_network_and_no_second_box() {
    let platform = Platform::start();
    boxed(&platform, "hostile").await;
    boxed(&platform, "other").await;
    for port in [80, 8443] {
        let whom =
            platform.says("hostile", &format!("cat /proc/net/tcp | grep -c ':{port:04X} .* 0A '")).await;
        assert_eq!(whom, "1", "port {port} is its own, and there is no other");
    }
    let shim = match platform.running("other").await.endpoint.unwrap().kind {
        Some(Kind::Shim(path)) => path,
        other => panic!("{other:?}"),
    };
    let knock = format!(
        "perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un(\"{shim}\")) or exit 1'"
    );
    assert!(!platform.sh("hostile", &knock).await.0, "the second box has no door in the first");
    let Some(host) = Host::make() else {
        machine::untold("no network namespace can be made: no host of another network was tried");
        return;
    };
    let greets = |stream: TcpStream| {
        let mut greeting = String::new();
        let mut stream = stream;
        stream.read_to_string(&mut greeting).is_ok_and(|_| greeting == GREETING)
    };
    assert!(TcpStream::connect(host.address).is_ok_and(greets), "this machine reaches it");
    let dial = format!("timeout 60 bash -c 'cat < /dev/tcp/{}/{}'", host.address.ip(), host.address.port());
    let (well, said) = platform.sh("hostile", &dial).await;
    assert!(!well && said.contains("unreachable"), "{said}");
}

const GREETING: &str = "a host of another network\n";

/// A host in a network namespace of its own, which a cable joins to this one's. Both go with it.
struct Host {
    address: SocketAddr,
    end: Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Host {
    /// None where that is not permitted, or there is no `ip`.
    fn make() -> Option<Self> {
        let number = std::process::id() % 200;
        let (here, there) = (format!("10.213.{number}.1"), format!("10.213.{number}.2"));
        let (cable, plug) = (format!("nhc{number}"), format!("nhp{number}"));
        let (sender, made) = channel();
        let (end, ended) = channel::<()>();
        let address = SocketAddr::new(there.parse().ok()?, 7000);
        let own = plug.clone();
        let thread = thread::spawn(move || {
            let joined = unshare(CloneFlags::CLONE_NEWNET).is_ok() && sender.send(Some(gettid())).is_ok();
            // The other end tells by way of a second message that the cable is in.
            if !joined || ended.recv().is_err() {
                return;
            }
            let up =
                ip(&["addr", "add", &format!("{there}/24"), "dev", &own]) && ip(&["link", "set", &own, "up"]);
            let listener = TcpListener::bind(address);
            let Some(listener) = listener.ok().filter(|_| up && sender.send(None).is_ok()) else { return };
            for stream in listener.incoming().flatten() {
                let mut stream = stream;
                let _ = stream.write_all(GREETING.as_bytes());
                if ended.try_recv().is_ok() {
                    return;
                }
            }
        });
        let tid = made.recv().ok()??;
        let joined =
            ip(&["link", "add", &cable, "type", "veth", "peer", "name", &plug, "netns", &tid.to_string()])
                && ip(&["addr", "add", &format!("{here}/24"), "dev", &cable])
                && ip(&["link", "set", &cable, "up"])
                && end.send(()).is_ok()
                && made.recv().is_ok();
        joined.then_some(Self { address, end, thread: Some(thread) })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end.send(()).ok();
        TcpStream::connect(self.address).ok(); // it looks whether it is to end after each greeting
        self.thread.take().map(thread::JoinHandle::join);
    }
}

fn ip(words: &[&str]) -> bool {
    Command::new("ip").args(words).status().is_ok_and(|status| status.success())
}
