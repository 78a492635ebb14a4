//! The figures that are reported with a result: how fast the platform is there, how fast it is there again, and what it
//! costs while nothing happens. Measures the programs in `NEXUSHUB_BIN_DIR` and prints one table; asserts nothing.
//!
//! `--help` says what there is to ask for. `admin`: what following the admin app costs; `sign-in`: what that costs; `tokens`: what the token of a request does; `floods`: how a healthy client fares beside
//! each flood; `uploads`: how fast a package goes up, beside a copy; `develop`: from a key press to the changed app; `proxy` is another matter: it measures others, too (`proxy.rs`).

#![allow(clippy::unwrap_used, clippy::panic)] // a figure that can't be had ends the program, and the message says which

mod admin;
mod boxes;
mod develop;
mod floods;
mod krun;
mod logs;
mod neighbours;
mod proxy;
mod sign_in;
mod starts;
mod tokens;
mod uploads;

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use nexushub_e2e::{App, DAEMONS, Load, Options, Platform, processes, workshop};

/// What there is to ask for.
const USAGE: &str = "\
nexushub-bench [KILLS] [--long] [PART...]   KILLS of each daemon (50); --long: everything at full size
    PART: platform, logs, krun, boxes (start, reach, neighbour, again, idle), admin, sign-in, tokens, floods, uploads, develop
nexushub-bench proxy [--rows NAME,...] [--runs N] [--seconds S]   beside nginx, HAProxy and Caddy
Measures the programs in NEXUSHUB_BIN_DIR.
";
/// Each kill counts as the first after a stable run.
const FORGIVING: &str = "[supervisor]\nstable_ms = 1\nburst = 100000\n[platform]\nlog_level = \"info\"\n";
/// How long idling is watched.
const IDLE: Duration = Duration::from_secs(30);
/// Clock ticks a second in `/proc/<pid>/stat`, on every Linux that we build for.
const TICKS: f64 = 100.0;

fn main() -> ExitCode {
    if env::var_os(proxy::backend::ROLE).is_some() {
        proxy::backend::serve(env::var("PORT").unwrap().parse().unwrap()).unwrap();
        return ExitCode::SUCCESS;
    }
    let words: Vec<String> = env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    if words.first().is_some_and(|word| word == "proxy") {
        proxy::main(&words[1..]);
        return ExitCode::SUCCESS;
    }
    let kills = words.iter().find_map(|word| word.parse().ok()).unwrap_or(50);
    let long = words.iter().any(|word| word == "--long");
    let parts: Vec<&str> =
        words.iter().map(String::as_str).filter(|word| word.starts_with(char::is_alphabetic)).collect();
    let named = |part: &str| {
        parts.contains(&part) || (parts.is_empty() && matches!(part, "platform" | "logs" | "krun" | "boxes"))
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if named("platform") {
        sizes();
        lines();
        runtime.block_on(async {
            cold_start().await;
            idle().await;
            recovery(kills).await;
        });
    }
    if named("logs") {
        runtime.block_on(logs::throughput());
    }
    if named("admin") {
        runtime.block_on(admin::measure());
    }
    if named("sign-in") {
        runtime.block_on(sign_in::measure());
    }
    if named("tokens") {
        tokens::measure();
    }
    let beyond = if named("floods") { runtime.block_on(floods::measure()) } else { Vec::new() };
    if named("uploads") {
        runtime.block_on(uploads::measure());
    }
    if named("develop") {
        runtime.block_on(develop::measure());
    }
    if named("krun") {
        runtime.block_on(krun::measure(if long { 100 } else { 20 }));
    }
    runtime.block_on(boxes::measure(long, named));
    if beyond.is_empty() {
        return ExitCode::SUCCESS;
    }
    eprintln!("beyond the goal: a healthy client's p99 beside {}", beyond.join(", "));
    ExitCode::FAILURE
}

/// Gives a process of ours, or one of its threads, another way to be scheduled: nice values alone don't have it go before others at once.
fn schedule(policy: &str, how: &[&str], who: u32) {
    let priority = if policy == "--fifo" { "1" } else { "0" };
    let done = Command::new("chrt").arg(policy).args(how).args([priority, &who.to_string()]).status();
    assert!(done.unwrap().success(), "needs root");
}

fn sizes() {
    println!("## size of each program, in KiB");
    let names = DAEMONS.map(|daemon| format!("nexushub-{daemon}"));
    for name in names.iter().map(String::as_str).chain([
        "nexushub-supervisor",
        "nexushub-shim",
        "nexushub",
        "nexushub-hello",
    ]) {
        if let Ok(file) = fs::metadata(workshop::program(name)) {
            println!("{name:24} {:>8}", file.len() / 1024);
        }
    }
}

fn lines() {
    println!("## lines of each crate, neither blank nor comment: program, tests");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let crates = [
        "supervisor",
        "supervisor/launch",
        "services/chassis",
        "services/provider",
        "services/procmgr",
        "services/procmgr/shim",
        "services/proxy",
        "services/debug-api",
        "services/cli",
        "services/apps/hello",
        "tests",
    ];
    for name in crates {
        let (mut program, mut tests) = (0, 0);
        for file in sources(&root.join(name), &crates.map(|other| root.join(other))) {
            let (own, of_tests) = count(&fs::read_to_string(&file).unwrap());
            let is_test =
                file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests");
            if is_test {
                tests += own + of_tests;
            } else {
                (program, tests) = (program + own, tests + of_tests);
            }
        }
        println!("{name:24} {program:>8} {tests:>8}");
    }
}

/// Rust files below a folder that are in no crate below it.
fn sources(folder: &Path, crates: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && !crates.contains(&path) {
            found.extend(sources(&path, crates));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn count(text: &str) -> (usize, usize) {
    let (program, tests) = text.split_once("\n#[cfg(test)]\n").unwrap_or((text, ""));
    let counts = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//")).count()
    };
    (counts(program), counts(tests))
}

/// From the start of the supervisor to the first answer of an app that is wanted from the beginning.
async fn cold_start() {
    println!("## cold start, in ms: ready, first HTTPS answer of an app");
    for _ in 0..5 {
        let mut platform = Platform::prepare(&Options::of(FORGIVING));
        let release = platform.release("hello").display().to_string();
        let instance = format!(
            "[[provider.instance]]\nid = \"hello\"\nhost_name = \"hello\"\nrelease = \"{release}\"\ndriver = \"process\"\n"
        );
        platform.home.configure(&format!("{FORGIVING}{instance}"));
        let began = Instant::now();
        platform.start_supervisor();
        let ready = began.elapsed();
        while platform.https().get("hello", "/").await.status != 200 {}
        println!("{:>8} {:>8}", ready.as_millis(), began.elapsed().as_millis());
    }
}

/// What a process has used so far: processor time in clock ticks, and how often each of its threads has slept.
#[derive(Debug, Clone, Default)]
struct Used {
    ticks: u64,
    sleeps: BTreeMap<String, u64>,
}

impl Used {
    fn by(pid: u32) -> Self {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = [11, 12].into_iter().filter_map(|at| fields.get(at)?.parse::<u64>().ok()).sum();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let sleeps = threads.filter_map(|thread| {
            let text = fs::read_to_string(thread.path().join("status")).ok()?;
            let count = text
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?
                .trim()
                .parse()
                .ok()?;
            Some((thread.file_name().into_string().ok()?, count))
        });
        Self { ticks, sleeps: sleeps.collect() }
    }

    /// Ticks and sleeps since an earlier look.
    fn since(&self, before: &Self) -> (u64, u64) {
        let slept =
            self.sleeps.iter().map(|(thread, count)| count - before.sleeps.get(thread).copied().unwrap_or(0));
        (self.ticks - before.ticks, slept.sum())
    }
}

async fn idle() {
    println!("## idle for {} s with one app: resident KiB, CPU %, wake-ups a second", IDLE.as_secs());
    let platform = Platform::start_with(&Options::of("[platform]\nlog_level = \"info\"\n"));
    let app = platform.run_app(&App::named("hello")).await.pid;
    let mut pids = BTreeMap::from([
        ("supervisor", platform.supervisor().pid),
        ("shim", processes::parent(app).unwrap()),
    ]);
    for name in DAEMONS {
        pids.insert(name, platform.daemon(name).await.pid);
    }
    let before: BTreeMap<&str, Used> = pids.iter().map(|(name, pid)| (*name, Used::by(*pid))).collect();
    let mut clock = tokio::time::interval(IDLE);
    clock.tick().await;
    clock.tick().await;
    for (name, pid) in pids {
        let (ticks, sleeps) = Used::by(pid).since(&before[name]);
        let resident = processes::field(pid, "VmRSS").unwrap_or_default();
        let seconds = IDLE.as_secs_f64();
        let share = |more: u64| f64::from(u32::try_from(more).unwrap_or(u32::MAX)) / seconds;
        let cpu = share(ticks) / TICKS * 100.0;
        println!("{name:24} {resident:>12} {cpu:>8.2} {:>8.2}", share(sleeps));
    }
}

/// From SIGKILL to READY of the next one, under load.
async fn recovery(kills: usize) {
    println!(
        "## {kills} kills of each under load, in ms: p50, max; requests answered, lost in flight, refused"
    );
    let mut platform = Platform::start_with(&Options::of(FORGIVING));
    platform.run_app(&App::named("hello")).await;
    for name in DAEMONS {
        let load = Load::start(&platform.https(), "hello", 3, 2);
        let mut took = Vec::new();
        for _ in 0..kills {
            let old = platform.daemon(name).await;
            let since = Instant::now();
            old.kill();
            platform.replaced(name, old.pid).await;
            took.push(since.elapsed());
            load.goes_on(5).await;
        }
        report(name, took, load).await;
    }
    let load = Load::start(&platform.https(), "hello", 3, 2);
    let mut took = Vec::new();
    for _ in 0..kills {
        let since = Instant::now();
        platform.kill_supervisor().await;
        platform.start_supervisor();
        took.push(since.elapsed());
        load.goes_on(5).await;
    }
    report("supervisor", took, load).await;
}

async fn report(name: &str, mut took: Vec<Duration>, load: Load) {
    took.sort();
    let tally = load.stop().await;
    let (middle, most) = (took[took.len() / 2].as_millis(), took[took.len() - 1].as_millis());
    println!("{name:24} {middle:>6} {most:>6} {:>8} {:>4} {:>4}", tally.ok, tally.in_flight, tally.refused);
}
