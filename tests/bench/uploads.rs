//! How fast a package goes up by the command line, beside a plain copy of the same bytes on the same disk; what that costs each
//! daemon in processor time, and what its memory came to.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use nexushub_e2e::{Options, Platform, processes, raw::noise, workshop};

use crate::{TICKS, Used};

/// Sent in each measurement.
const MIB: u32 = 2048;
/// Measurements, each with a copy before it.
const RUNS: usize = 3;
/// So much may come.
const ROOM: &str = "[platform]\nlog_level = \"warn\"\n[debug-api]\nmax_package_bytes = 68719476736\n";
/// What an archive begins with that the platform alone judges.
const ZST: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The goal: so much of a plain copy's rate.
const GOAL: f64 = 0.9;

pub(crate) async fn measure() {
    println!(
        "## upload of {MIB} MiB by the command line, in MB/s: upload, plain copy, the same and sync, shares"
    );
    println!("   processor time in ms/GB and growth of memory in KiB: proxy, debug-api");
    let platform = Platform::start_with(&Options::of(ROOM));
    let source = platform.home.path().join("package.tar.zst");
    write(&source);
    let pids = [platform.daemon("proxy").await.pid, platform.daemon("debug-api").await.pid];
    for run in 0..RUNS {
        let (plain, synced) = copies(&source);
        let before = pids.map(Used::by);
        let idle = pids.map(|pid| processes::kib(pid, "VmRSS"));
        let upload = rate(push(&platform, &source, &format!("run{run}")));
        let cost =
            [0, 1].map(|at| Used::by(pids[at]).since(&before[at]).0 as f64 / TICKS / gigabytes() * 1000.0);
        let grown = [0, 1].map(|at| processes::kib(pids[at], "VmHWM").saturating_sub(idle[at]));
        let (of_plain, of_synced) = (upload / plain, upload / synced);
        let verdict = if of_synced >= GOAL { "goal met" } else { "below goal" };
        println!(
            "{upload:>6.0} {plain:>6.0} {synced:>6.0} {:>4.0} % {:>4.0} %  cpu {:>5.0} {:>5.0}  memory {:>6} {:>6}  {verdict}",
            of_plain * 100.0,
            of_synced * 100.0,
            cost[0],
            cost[1],
            grown[0],
            grown[1],
        );
    }
}

/// Bytes that are no archive but for how they begin: they are taken as a package, and refused when they are to be installed.
fn write(path: &Path) {
    let mut file = File::create(path).unwrap();
    file.write_all(&ZST).unwrap();
    let block = noise(1, 1 << 20);
    for _ in 0..MIB {
        file.write_all(&block).unwrap();
    }
    file.sync_all().unwrap();
}

/// The rate of a copy, and of one that is on the disk when it is over.
fn copies(source: &Path) -> (f64, f64) {
    let copy = source.with_extension("copy");
    let since = Instant::now();
    fs::copy(source, &copy).unwrap();
    let plain = rate(since.elapsed());
    File::open(&copy).unwrap().sync_all().unwrap();
    let synced = rate(since.elapsed());
    fs::remove_file(copy).unwrap();
    (plain, synced)
}

/// Until it is up and was refused as the archive that it is not.
fn push(platform: &Platform, source: &Path, name: &str) -> Duration {
    let since = Instant::now();
    let output =
        workshop::nexushub(platform.home.path(), &["push", source.to_str().unwrap(), "--name", name]);
    let took = since.elapsed();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("could not install the package"), "{said}");
    took
}

fn gigabytes() -> f64 {
    f64::from(MIB) * 1.048_576 / 1000.0
}

fn rate(took: Duration) -> f64 {
    gigabytes() * 1000.0 / took.as_secs_f64()
}
