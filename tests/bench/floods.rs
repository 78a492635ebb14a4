//! How a healthy client fares beside each flood: its requests' p50 and p99 alone and then, and what the proxy's memory came to. The
//! proxy has one core, the floods and everything else the other; there the floods yield to the healthy client and its app, so that
//! it is the proxy that is measured and not who gets the core.

use std::{
    process, thread,
    time::{Duration, Instant},
};

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{
    App, Https, Options, Platform, Protocol,
    flood::{ALL, Flood, ROOM},
    processes,
};
use nix::unistd::gettid;

use crate::{
    proxy::cost::{MEASURED, REST, bind_process},
    schedule,
};

/// The healthy client's app is busy enough to yield, and would to the floods as to an equal.
fn options() -> Options {
    let text =
        "[platform]\nlog_level = \"warn\"\n[procmgr]\nyield_percent = 0\n[proxy]\naccess_log = false\n";
    Options::of(&format!("{text}max_connections = {ROOM}\n"))
}
/// Requests that are measured beside each.
const REQUESTS: usize = 20_000;
/// A p99 beside a flood may be so many times the one without.
const GOAL: f64 = 2.0;
/// Where it is more, so many are measured and their median counts: one may be the machine's.
const TRIES: usize = 3;

/// The floods beside which a healthy client fared worse than the goal.
pub(crate) async fn measure() -> Vec<&'static str> {
    println!(
        "## beside each flood: p50 and p99 of a healthy client in µs, p99 to that without one; proxy's memory in KiB"
    );
    bind_process(process::id(), REST); // and all that is started from now on
    let platform = Platform::start_with(&options());
    for name in ["flooded", "well"] {
        platform.run_app(&App::named(name)).await;
    }
    let (https, proxy) = (platform.https(), platform.daemon("proxy").await.pid);
    bind_process(proxy, MEASURED);
    schedule("--idle", &["--all-tasks", "--pid"], process::id());
    let memory = || processes::field(proxy, "VmRSS").unwrap_or_default();
    let (middle, alone) = percentiles(&https);
    println!(
        "{:20} {:>8} {:>8} {:>8} {:>12}",
        "none",
        middle.as_micros(),
        alone.as_micros(),
        "1.00",
        memory()
    );
    let mut beyond = Vec::new();
    for attack in ALL {
        let mut ratios = Vec::new();
        while ratios.len() < TRIES && ratios.first().is_none_or(|first| *first > GOAL) {
            let flood = Flood::start(&https, attack);
            let (middle, most) = percentiles(&https);
            let (ratio, memory) = (most.as_secs_f64() / alone.as_secs_f64(), memory());
            let (middle, most) = (middle.as_micros(), most.as_micros());
            println!("{:20} {middle:>8} {most:>8} {ratio:>8.2} {memory:>12}", attack.name);
            ratios.push(ratio);
            flood.stop().await;
        }
        ratios.sort_by(f64::total_cmp);
        beyond.extend((ratios[ratios.len() / 2] > GOAL).then_some(attack.name));
    }
    beyond
}

/// Of one client's requests, one after the other on a kept connection, on a thread of its own.
fn percentiles(https: &Https) -> (Duration, Duration) {
    let https = https.clone();
    let client = thread::spawn(move || {
        schedule("--other", &["--pid"], gettid().as_raw().cast_unsigned());
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(ask(&https))
    });
    client.join().unwrap()
}

async fn ask(https: &Https) -> (Duration, Duration) {
    let mut connection = https.open(Protocol::Http1, "well").await.unwrap();
    let mut took = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let since = Instant::now();
        let answer = connection.send(Request::get("/echo").body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status, 200);
        took.push(since.elapsed());
    }
    took.sort();
    (took[REQUESTS / 2], took[REQUESTS * 99 / 100])
}
