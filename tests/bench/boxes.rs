//! What a box costs: to start, to keep, to reach and to find again. Every figure stands beside
//! that of the same app without a box (`process`), taken in the same run.

use std::{
    fs,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nexushub_e2e::{App, DAEMONS, Options, Platform, Protocol, processes, workshop};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{Driver, Limits},
};
use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};
use tokio::time;

use crate::{IDLE, neighbours, starts};

/// Health checks of what starts are a matter of a millisecond here, so that it is the start that is measured.
pub(crate) const QUICK: &str = "[platform]\nlog_level = \"info\"\n[procmgr]\nmax_instances = 4000\nstart_probe_first_ms = 1\n\
                     start_probe_max_ms = 1\n";
/// The shipped rhythm of health checks: of many apps that idle.
const USUAL: &str = "[supervisor]\nstable_ms = 1\nburst = 100000\n[platform]\nlog_level = \"info\"\n[procmgr]\n\
                     max_instances = 4000\n";
/// Of the apps that only have to be there, how many; and of those that are found again.
const FEW: (usize, usize) = (50, 50);
const MANY: (usize, usize) = (1000, 200);
/// Between requests that hurry.
const AT_ONCE: Duration = Duration::from_nanos(1);
/// The drivers that are compared.
const BOTH: [(&str, Driver); 2] = [("process", Driver::Process), ("sandbox", Driver::Sandbox)];

/// All of it, or the parts that are named.
pub(crate) async fn measure(long: bool, named: impl Fn(&str) -> bool) {
    let ((apps, found), all) = (if long { MANY } else { FEW }, named("boxes"));
    if all || named("start") {
        let rounds = if long { 200 } else { 40 };
        starts::measure(rounds);
        starts(rounds).await;
    }
    if all || named("reach") {
        reach(if long { 20_000 } else { 4_000 }).await;
    }
    if all || named("neighbour") {
        neighbours::measure(if long { 4_000 } else { 1_000 }).await;
    }
    if all || named("again") {
        again(found).await;
    }
    if all || named("idle") {
        many(apps).await;
    }
}

/// The middle one and the one that 99 of 100 don't exceed, in microseconds.
pub(crate) fn spread(took: &mut [Duration]) -> (u128, u128) {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)].as_micros();
    (at(50), at(99))
}

/// Thousandths, in units.
#[allow(clippy::cast_precision_loss)] // figures of a few digits
pub(crate) fn thousandth(number: u128) -> f64 {
    number as f64 / 1000.0
}

async fn put(platform: &Platform, name: &str, driver: Driver) {
    put_with(platform, name, driver, Limits::default()).await;
}

pub(crate) async fn put_with(platform: &Platform, name: &str, driver: Driver, limits: Limits) {
    let mut instance = platform.instance(&App::named(name));
    instance.driver = driver.into();
    instance.limits = Some(limits);
    instance.release = platform.release("all").display().to_string();
    platform.put(instance).await.unwrap();
}

pub(crate) async fn remove(platform: &Platform, name: &str) {
    platform.remove(name).await.unwrap();
    platform.instances_until("forgets it", |all| !all.contains_key(name)).await;
}

/// From the call that asks for it to the first 200, the same way for both: what differs is the box.
async fn starts(rounds: usize) {
    println!("## start, from asked for to the first 200, in ms: p50, p99, of {rounds}");
    let platform = Platform::start_with(&Options::of(QUICK));
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        for ((driver, kind), took) in BOTH.into_iter().zip(&mut took) {
            let name = format!("{driver}-{round}");
            let began = Instant::now();
            put(&platform, &name, kind).await;
            let status = platform.running(&name).await;
            took.push(began.elapsed());
            if round == rounds - 1 {
                weigh(driver, &status);
            }
            remove(&platform, &name).await;
        }
    }
    for ((driver, _), took) in BOTH.into_iter().zip(&mut took) {
        let (middle, most) = spread(took);
        println!("{driver:24} {:>8.1} {:>8.1}", thousandth(middle), thousandth(most));
    }
}

/// The platform's own processes around an app: its shim and, if it has a box, that one's first process.
fn around(status: &InstanceStatus) -> Vec<u32> {
    let first = (status.driver != "process").then_some(status.pid);
    processes::parent(status.pid).into_iter().chain(first).collect()
}

/// The app's own process.
fn own(status: &InstanceStatus) -> u32 {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", status.pid)).unwrap_or_default();
    let boxed = children.split_whitespace().next().and_then(|pid| pid.parse().ok());
    boxed.filter(|_| status.driver != "process").unwrap_or(status.pid)
}

/// Memory that a process has to itself and its share of what it has with others, in KiB.
pub(crate) fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let field = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    field.and_then(|field| field.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn weigh(driver: &str, status: &InstanceStatus) {
    let each: Vec<u64> = around(status).into_iter().map(pss).collect();
    println!("  PSS around one app, {driver}: {each:?} KiB, together {}", each.iter().sum::<u64>());
}

/// A request on a kept connection of a client, over and over, in turns with and without a box.
async fn reach(requests: usize) {
    println!("## request by way of the proxy, in us: p50, p99, of {requests}");
    let platform = Platform::start_with(&Options::of(QUICK));
    for (name, driver) in BOTH {
        put(&platform, name, driver).await;
        platform.running(name).await;
    }
    for (what, path) in [("kept connection to app", "/echo"), ("fresh connection to app", "/once")] {
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..requests.div_ceil(100) {
            for ((name, _), took) in BOTH.into_iter().zip(&mut took) {
                took.extend(ask(&platform, name, path, 100, AT_ONCE).await);
            }
        }
        let middles = BOTH.into_iter().zip(&mut took).map(|((name, _), took)| {
            let (middle, most) = spread(took);
            println!("{what:24} {name:12} {middle:>8} {most:>8}");
            middle
        });
        let middles: Vec<u128> = middles.collect();
        println!("{what:24} ratio of p50 {:>8.3}", thousandth(middles[1] * 1000 / middles[0]));
    }
}

/// So many requests, one after the other on one connection, none before its time, and how long each took.
pub(crate) async fn ask(
    platform: &Platform,
    host: &str,
    path: &str,
    requests: usize,
    pace: Duration,
) -> Vec<Duration> {
    let mut connection = platform.https().open(Protocol::Http1, host).await.unwrap();
    let mut clock = time::interval(pace);
    clock.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    let mut took = Vec::with_capacity(requests);
    for _ in 0..requests {
        clock.tick().await;
        let request = Request::get(path).body(Full::<Bytes>::default()).unwrap();
        let began = Instant::now();
        let answer = connection.send(request).await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        took.push(began.elapsed());
    }
    took
}

/// A platform whose configuration wants so many apps, in boxes.
fn crowd(apps: usize) -> Platform {
    let platform = Platform::prepare(&Options::of(USUAL));
    let release = platform.home.path().join("releases/hello");
    fs::create_dir_all(release.join("bin")).unwrap();
    fs::copy(workshop::program("nexushub-hello"), release.join("bin/app")).unwrap();
    let entries = (0..apps).map(|number| {
        format!("[[provider.instance]]\nid = \"idle-{number}\"\nhost_name = \"idle-{number}\"\nrelease = {release:?}\ndriver = \"sandbox\"\n")
    });
    platform.home.configure(&format!("{USUAL}{}", entries.collect::<String>()));
    platform
}

/// Waits until all of a crowd run, for as long as that takes.
async fn all_run(platform: &Platform, apps: usize) -> Vec<InstanceStatus> {
    let runs = |status: &InstanceStatus| status.state() == State::Running && status.routed;
    let all = platform.instances_until("all run", |all| all.len() == apps && all.values().all(runs)).await;
    all.into_values().collect()
}

/// From the SIGKILL of procmgr to every app known to run again.
async fn again(apps: usize) {
    println!(
        "## {apps} boxed apps found again after SIGKILL of procmgr, in ms: procmgr ready, all known to run"
    );
    let mut platform = crowd(apps);
    platform.start_supervisor();
    let before = all_run(&platform, apps).await;
    for _ in 0..5 {
        let began = Instant::now();
        platform.kill("procmgr").await;
        let ready = began.elapsed();
        let after = all_run(&platform, apps).await;
        let all = began.elapsed();
        let pids = |all: &[InstanceStatus]| all.iter().map(|status| status.pid).collect::<Vec<_>>();
        let same = if pids(&before) == pids(&after) { "the same processes" } else { "OTHER PROCESSES" };
        println!("{:>8} {:>8} {same}", ready.as_millis(), all.as_millis());
    }
}

/// Processor time of a process so far, its ended threads included.
fn used(pid: u32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed()));
    clock.and_then(ClockId::now).map_or(Duration::ZERO, Duration::from)
}

/// Who is watched while nothing happens: each kind's processes.
async fn cast(platform: &Platform, all: &[InstanceStatus]) -> Vec<(&'static str, Vec<u32>)> {
    let around: Vec<Vec<u32>> = all.iter().map(around).collect();
    let mut cast = vec![
        ("apps", all.iter().map(own).collect()),
        ("shims", around.iter().filter_map(|pids| pids.first().copied()).collect()),
        ("first processes of boxes", around.iter().filter_map(|pids| pids.get(1).copied()).collect()),
        ("supervisor", vec![platform.supervisor().pid]),
    ];
    for name in DAEMONS {
        cast.push((name, vec![platform.daemon(name).await.pid]));
    }
    cast
}

/// Many apps that nobody calls.
async fn many(apps: usize) {
    println!("## {apps} boxed apps that idle");
    let available = || -> u64 {
        let text = fs::read_to_string("/proc/meminfo").unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let (mut platform, before) = (crowd(apps), available());
    let began = Instant::now();
    platform.start_supervisor();
    let all = all_run(&platform, apps).await;
    println!("all run after {} ms", began.elapsed().as_millis());
    println!("memory of the machine: {} MiB less available", before.saturating_sub(available()) / 1024);
    let cast = cast(&platform, &all).await;
    let sum = |pids: &[u32]| pids.iter().map(|pid| used(*pid)).sum::<Duration>();
    let then: Vec<Duration> = cast.iter().map(|(_, pids)| sum(pids)).collect();
    let mut clock = time::interval(IDLE);
    clock.tick().await;
    clock.tick().await;
    println!("PSS in KiB, all and each; CPU over {} s in %", IDLE.as_secs());
    for ((name, pids), then) in cast.iter().zip(then) {
        let (kib, cpu) = (pids.iter().map(|pid| pss(*pid)).sum::<u64>(), sum(pids).saturating_sub(then));
        let percent = cpu.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
        println!("{name:26} {kib:>10} {:>8} {percent:>8.2}", kib / pids.len().max(1) as u64);
    }
    let began = Instant::now();
    platform.kill("procmgr").await;
    all_run(&platform, apps).await;
    println!("found again after SIGKILL of procmgr within {} ms", began.elapsed().as_millis());
    let began = Instant::now();
    platform.stop();
    println!("all stopped after {} ms", began.elapsed().as_millis());
}
