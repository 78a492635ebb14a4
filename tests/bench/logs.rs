//! How fast an app's output goes through its shim into segments, beside what the same disk takes from a plain write.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use nexushub_e2e::{App, Options, Platform};

/// Written in each measurement.
const MIB: u32 = 512;
/// All of it is kept: nothing is deleted before it would have to go to the disk.
const ROOM: &str = "[procmgr]\nlog_budget_bytes = 8589934592\nlog_segment_bytes = 16777216\n";
/// The goal: this, or so much of a plain write, whichever is lower.
const GOAL: (f64, f64) = (300.0, 0.7);

/// MB/s of an app, by the length of its lines.
pub(crate) async fn throughput() {
    println!(
        "## log throughput in MB/s, {MIB} MiB each: app through shim, plain write, plain write and sync, share"
    );
    for line in [60, 100, 200, 1000, 16_000] {
        let platform = Platform::start_with(&Options::of(ROOM));
        platform.run_app(&App::named("hello")).await;
        let plain = write(platform.home.path(), false);
        let path = format!("/public/flood?mib={MIB}&line={line}");
        let answer = platform.https().get("hello", &path).await;
        let app = rate(Duration::from_micros(answer.text().parse().unwrap()));
        let synced = write(platform.home.path(), true);
        let (least, share) = GOAL;
        let verdict = if app >= least.min(share * plain.min(synced)) { "goal met" } else { "below goal" };
        println!(
            "lines of {line:>6} B {app:>8.0} {plain:>8.0} {synced:>8.0} {:>5.0} % {verdict}",
            app / plain.min(synced) * 100.0
        );
    }
}

fn rate(took: Duration) -> f64 {
    f64::from(MIB) * 1.048_576 / took.as_secs_f64()
}

/// The same bytes, written as fast as it goes.
fn write(folder: &Path, sync: bool) -> f64 {
    let path = folder.join("plain");
    let block = vec![b'x'; 64 * 1024];
    let since = Instant::now();
    let mut file = File::create(&path).unwrap();
    for _ in 0..MIB * 16 {
        file.write_all(&block).unwrap();
    }
    if sync {
        file.sync_all().unwrap();
    }
    let took = since.elapsed();
    std::fs::remove_file(path).unwrap();
    rate(took)
}
