//! An app in a microVM works as everywhere, harms only itself, and outlives whatever manages it.

use std::path::PathBuf;

use nexushub_e2e::{App, Options, Platform, Process, processes, until, workshop};
use nexushub_proto::{
    procmgr::{
        InstanceStatus, RestartInstanceRequest, endpoint::Kind, exit::How,
        procmgr_service_client::ProcmgrServiceClient,
    },
    provider::{Driver, Instance, Limits},
};

/// As small as a guest with the probe in it may be.
pub(crate) const SMALL: Limits = Limits {
    memory_bytes: 128 << 20,
    cpu_percent: 0,
    processes: 64,
    open_files: 128,
    data_bytes: 0,
    tmp_bytes: 1 << 20,
    log_bytes: 0,
};

/// One that gives the trial of a microVM the time that it takes in an emulated machine.
pub(crate) fn platform() -> Platform {
    Platform::start_with(&Options::with("[procmgr]\nkrun_boot_ms = 60000\n"))
}

pub(crate) async fn machine(platform: &Platform, name: &str) -> InstanceStatus {
    let status = platform.run_boxed(name, Driver::Krun, SMALL).await;
    assert_eq!(status.driver, "krun");
    status
}

/// The process of the virtual machine, below its keeper.
pub(crate) fn vmm(app: &InstanceStatus) -> Process {
    let below = |pid: &u32| processes::parent(*pid) == Some(app.pid);
    let found: Vec<u32> = processes::all().into_iter().filter(below).collect();
    Process::open(*found.first().expect("a keeper has a machine")).unwrap()
}

/// The next run of an instance.
pub(crate) async fn next(platform: &Platform, last: &InstanceStatus) -> InstanceStatus {
    let fresh = |status: &InstanceStatus| status.routed && status.generation > last.generation;
    platform.instance_until(&last.id, "runs anew", fresh).await
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_is_a_microvm_here_and_its_app_finds_what_it_was_promised() {
    let platform = platform();
    let app = platform.run_boxed("shop", Driver::Auto, SMALL).await;
    assert_eq!(app.driver, "krun");
    assert!(matches!(app.endpoint.as_ref().unwrap().kind, Some(Kind::Shim(_))));
    let whoami = platform.https().get("shop", "/").await.json();
    let env = &whoami["env"];
    assert_eq!((&env["PORT"], &env["NEXUSHUB_DATA"]), (&"80".into(), &"/db".into()));
    assert!(env["HOST"].as_str().unwrap().starts_with("shop.yesterday.localhost"), "{env}");
    assert!(env["INTERNAL_SECRET"].as_str().is_some_and(|secret| secret.len() >= 32));
    assert_eq!(platform.says("shop", "id -u; pwd; ulimit -n").await, "1000\n/app\n128");
    assert!(platform.says("shop", "cat /etc/hosts").await.contains("127.0.0.1 internal.yesterday.localhost"));
    let first = Process::open(app.pid).unwrap();
    let machine = vmm(&app);
    assert!(platform.remove("shop").await.unwrap());
    assert!(first.ended_within(nexushub_e2e::HANG) && machine.ended_within(nexushub_e2e::HANG));
}

#[tokio::test(flavor = "multi_thread")]
async fn how_an_app_in_a_microvm_ended_is_known_and_it_is_started_again_with_its_data() {
    let platform = platform();
    let mut last = machine(&platform, "shop").await;
    platform.says("shop", "echo kept > /db/mine").await;
    for (deed, how) in [("/crash?code=137", How::Code(137)), ("/sh", How::Signal(9))] {
        platform.https().post("shop", deed, "kill -KILL $PPID").await;
        let anew = next(&platform, &last).await;
        assert_eq!(anew.last_exit.unwrap().how, Some(how));
        assert_eq!(platform.says("shop", "cat /db/mine").await, "kept");
        last = platform.running("shop").await;
    }
    let machine = vmm(&last);
    machine.kill();
    next(&platform, &last).await;
    let log = log_of(&platform, "shop");
    assert!(log.contains("the virtual machine ended without word of its app"), "{log}");
    assert_eq!(platform.says("shop", "cat /db/mine").await, "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_microvm_outlives_every_daemon_and_goes_with_its_shim() {
    let platform = platform();
    let app = machine(&platform, "shop").await;
    for daemon in ["procmgr", "proxy", "provider"] {
        platform.kill(daemon).await;
        let now = platform.running("shop").await;
        assert_eq!((now.pid, now.generation), (app.pid, app.generation), "{daemon} was killed");
        assert_eq!(platform.https().get("shop", "/").await.status, 200, "{daemon} was killed");
    }
    let machine = vmm(&app);
    Process::open(processes::parent(app.pid).unwrap()).unwrap().kill();
    assert!(machine.ended_within(nexushub_e2e::HANG), "nothing of the machine lives on");
    let anew = next(&platform, &app).await;
    assert_eq!(anew.last_exit.unwrap().how, Some(How::Lost(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_in_a_microvm_prints_is_in_its_log_each_stream_apart() {
    let platform = platform();
    machine(&platform, "shop").await;
    for stream in ["out", "err"] {
        platform.https().get("shop", &format!("/public/print?text={stream}&count=500&stream={stream}")).await;
    }
    let all: Vec<String> = (1..=500).map(|number| number.to_string()).collect();
    for stream in ["out", "err"] {
        // What an app has printed is on its way out of the machine for a while.
        until(&format!("std{stream} is in the log, whole and in order"), || {
            let log = log_of(&platform, "shop");
            let numbers = log.lines().filter_map(|line| line.split_once(&format!("{stream} ")));
            numbers.map(|(_, number)| number).eq(&all).then_some(())
        })
        .await;
    }
}

fn log_of(platform: &Platform, name: &str) -> String {
    let output = workshop::nexushub(platform.home.path(), &["logs", name, "--tail", "5000"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_on_processor_time_holds_a_microvm_back_and_that_is_told() {
    let platform = platform();
    let limits = Limits { cpu_percent: 50, ..SMALL };
    let status = platform.run_boxed("busy", Driver::Krun, limits).await;
    assert!(!status.not_enforced.iter().any(|line| line.starts_with("processor")), "{status:?}");
    let usage = async || platform.instance_now("busy").await.unwrap().usage.unwrap();
    let before = usage().await;
    platform.says("busy", "i=0; while [ $i -lt 20000 ]; do i=$((i + 1)); done").await;
    let after = usage().await;
    assert!(after.throttled_usec > before.throttled_usec, "{before:?} {after:?}");
    assert_eq!(after.cpu_limit_percent, 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_ate_more_than_its_guest_has_is_told_to_have() {
    let platform = platform();
    machine(&platform, "hungry").await;
    platform.https().get("hungry", "/eat?mib=400").await;
    let told = |status: &InstanceStatus| status.reason.contains("out of memory: its bound is 128 MiB");
    platform.instance_until("hungry", "says why", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_floods_its_log_waits_for_nobody_and_fills_no_more_than_its_bound() {
    let platform = platform();
    let other = platform.run_boxed("other", Driver::Sandbox, Limits::default()).await;
    let bound = 256 << 10;
    let limits = Limits { log_bytes: bound, ..SMALL };
    let flooding = platform.run_boxed("flooding", Driver::Krun, limits).await;
    let answer = platform.https().get("flooding", "/flood?mib=4&line=200").await;
    assert_eq!(answer.status, 200, "it has said all that it wanted to");
    let log = platform.state().join("instances/flooding/log");
    let kept = || {
        let files = log.read_dir().unwrap().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.len())).sum::<u64>() // the oldest go while it is looked
    };
    // It arrives behind the answer: until as much is there as there may be, and is.
    until("the log is full", || (kept() > bound / 2).then_some(())).await;
    assert!(kept() <= bound, "{} bytes", kept());
    assert_eq!(platform.running("flooding").await.generation, flooding.generation);
    let now = platform.running("other").await;
    assert_eq!((now.pid, now.restarts), (other.pid, other.restarts));
    assert_eq!(platform.https().get("other", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_in_a_microvm_keeps_is_bounded_by_a_disk_of_its_own() {
    let platform = platform();
    let limits = Limits { data_bytes: 16 << 20, ..SMALL };
    let app = platform.run_boxed("shop", Driver::Krun, limits).await;
    assert!(!app.not_enforced.iter().any(|line| line.starts_with("data")), "{:?}", app.not_enforced);
    let (well, said) = platform.sh("shop", "dd if=/dev/zero of=/db/full bs=1M count=20").await;
    assert!(!well && said.contains("No space left on device"), "{said}");
    assert_eq!(platform.says("shop", "rm /db/full; echo kept > /db/mine; cat /db/mine").await, "kept");
    assert!(!platform.data_of("shop").join("mine").exists(), "it is on a disk that only the box sees");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_itself_is_bounded_too() {
    let platform = platform();
    let app = machine(&platform, "shop").await;
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", vmm(&app).pid)).unwrap();
    let group = PathBuf::from(format!("/sys/fs/cgroup{}", own.trim().strip_prefix("0::").unwrap()));
    let bound = |file: &str| std::fs::read_to_string(group.join(file)).unwrap().trim().to_owned();
    let around_the_guest = SMALL.memory_bytes + (64 << 20);
    assert_eq!((bound("memory.max"), bound("pids.max")), (around_the_guest.to_string(), "4096".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_will_not_stop_is_killed_at_its_deadline_inside() {
    // Of the deadline an eighth is for the guest's report: seconds, as an emulated guest may take them.
    let patient = "[procmgr]\nkrun_boot_ms = 60000\nstop_deadline_ms = 40000\n";
    let platform = Platform::start_with(&Options::with(patient));
    let stubborn = App::named("stubborn").env("PROBE_IGNORE_TERM", "1");
    let stubborn =
        Instance { driver: Driver::Krun.into(), limits: Some(SMALL), ..platform.instance(&stubborn) };
    platform.put(stubborn).await.unwrap();
    let last = platform.running("stubborn").await;
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    procmgr.restart_instance(RestartInstanceRequest { id: "stubborn".to_owned() }).await.unwrap();
    let anew = next(&platform, &last).await;
    // Told by its guest: the machine was not torn away from around it.
    assert_eq!(anew.last_exit.unwrap().how, Some(How::Signal(9)));
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_its_microvm_an_app_reaches_another_as_itself() {
    let platform = platform();
    platform.run_boxed("other", Driver::Sandbox, Limits::default()).await;
    machine(&platform, "shop").await;
    let portrait = platform.https().get("shop", "/").await.json();
    let entrance = "internal.yesterday.localhost:8443";
    let call = format!(
        "GET /public/whoami HTTP/1.1\r\nHost: {entrance}\r\nConnection: close\r\nX-Application-Id: other\r\n\
         Authorization: Bearer {}\r\n\r\n",
        portrait["env"]["INTERNAL_SECRET"].as_str().unwrap()
    );
    let told = platform.https().post("shop", &format!("/tls?to={entrance}"), call).await.text();
    assert!(told.starts_with("HTTP/1.1 200") && told.contains(r#"["x-caller-id","shop"]"#), "{told}");
}
