//! What the neighbours of a box at its worst feel: how long requests to a second app take, by way of the proxy, while the box does its
//! deed and, in turns with that, while it is frozen. So both figures are of the same minutes of the same machine.

use std::{fs, path::PathBuf, process, time::Duration};

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{Https, Platform, Protocol, until};
use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{Driver, Limits},
};

use crate::{
    boxes::{QUICK, ask, put_with, remove, spread, thousandth},
    schedule,
};

/// Between two requests.
const PACE: Duration = Duration::from_millis(5);
/// Requests of one turn: shorter than a health check may wait.
const TURN: usize = 250;
/// Requests until the deed is well under way again and procmgr has looked at it twice, a second apart.
const BEFORE: usize = 600;
/// Nothing yields.
const EQUALS: &str = "yield_percent = 0\n";

/// A deed: its name, a request to the box that does it, made again whenever that ends, and what procmgr is told of boxes.
type Deed = (&'static str, &'static str, &'static str, &'static str);

const COMPUTES: &str = "perl -e '1 while 1'";
const EVERYWHERE: &str = "for i in 1 2 3 4; do perl -e '1 while 1' & done; wait";
const FORK: &str = "perl -e 'while (1) { fork }'";
const MEMORY: &str = "perl -e '$x .= \"a\" x 1e6 while 1'";
const TMP: &str = "while :; do dd if=/dev/zero of=/tmp/full bs=1M; done";
/// To its bound, and from the beginning.
const DB: &str = "while :; do rm -f /db/full; dd if=/dev/zero of=/db/full bs=1M; done";
const FILES: &str = "perl -e 'while (1) { open(my $f, q(<), q(/dev/null)) or next; push @f, $f }'";

/// The first are no deeds but the measure of all others: what any app may do with its share of a processor.
const DEEDS: [Deed; 10] = [
    ("an app that computes", "/sh", COMPUTES, ""),
    ("one on every core", "/sh", EVERYWHERE, ""),
    ("the same as an equal", "/sh", EVERYWHERE, EQUALS),
    ("fork bomb", "/sh", FORK, ""),
    ("the same as an equal", "/sh", FORK, EQUALS),
    ("memory bomb", "/sh", MEMORY, ""),
    ("filler of /tmp", "/sh", TMP, ""),
    ("filler of /db", "/sh", DB, ""),
    ("log flood", "/print?text=x&count=20000&bytes=1000", "", ""),
    ("descriptors", "/sh", FILES, ""),
];

pub(crate) async fn measure(requests: usize) {
    println!(
        "## request to a neighbour, each 5 ms, in us: p50, p99 beside it frozen; p50, p99 beside it; ratio of p99; of {requests} each"
    );
    // It is not held up by the deed itself, as a client elsewhere isn't; what it starts is as it would be.
    schedule("--fifo", &["--all-tasks", "--reset-on-fork", "--pid"], process::id());
    for deed in DEEDS {
        beside(Driver::Sandbox, deed, requests).await;
    }
    println!("### the same beside a microVM");
    if !runs_machines().await {
        return println!("not measurable here: this machine can't run guests, or interprets them");
    }
    for deed in DEEDS {
        beside(Driver::Krun, deed, requests).await;
    }
}

/// Whether `auto` is a microVM here, which it is where the machine runs guests itself.
async fn runs_machines() -> bool {
    let platform = Platform::start_with(&nexushub_e2e::Options::of(QUICK));
    put_with(&platform, "trial", Driver::Auto, Limits::default()).await;
    platform.running("trial").await.driver == "krun"
}

async fn beside(driver: Driver, (what, path, body, told): Deed, requests: usize) {
    let platform = Platform::start_with(&nexushub_e2e::Options::of(&format!("{QUICK}{told}")));
    put_with(&platform, "neighbour", Driver::Sandbox, Limits::default()).await;
    platform.running("neighbour").await;
    let limits = Limits { memory_bytes: 256 << 20, ..Limits::default() };
    put_with(&platform, "hostile", driver, limits).await;
    platform.running("hostile").await;
    let deed = tokio::spawn(again_and_again(platform.https(), path, body));
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let requests_of = async |number| ask(&platform, "neighbour", "/echo", number, PACE).await;
    for _ in 0..requests.div_ceil(TURN) {
        requests_of(BEFORE).await;
        beside.extend(requests_of(TURN).await);
        let frozen = freeze(&platform).await;
        alone.extend(requests_of(TURN).await);
        frozen.iter().for_each(|file| drop(fs::write(file, "0"))); // gone: so is what was frozen
    }
    deed.abort();
    let ((calm, alone), (middle, most)) = (spread(&mut alone), spread(&mut beside));
    println!("{what:24} {calm:>8} {alone:>8} {middle:>8} {most:>8} {:>8.2}", thousandth(most * 1000 / alone));
    remove(&platform, "hostile").await;
}

/// Stops all that is in the box, once there is one, without its knowing.
async fn freeze(platform: &Platform) -> Option<PathBuf> {
    let there = |status: &InstanceStatus| status.pid != 0;
    let pid = platform.instance_until("hostile", "is there", there).await.pid;
    let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let own = table.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let places = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|top| PathBuf::from(top).join(&own));
    let group = places.into_iter().find(|place| place.join("cgroup.freeze").exists())?;
    fs::write(group.join("cgroup.freeze"), "1").ok()?;
    let moves =
        || fs::read_to_string(group.join("cgroup.events")).is_ok_and(|text| text.contains("frozen 0"));
    until("it is frozen", || (!moves()).then_some(())).await;
    Some(group.join("cgroup.freeze"))
}

async fn again_and_again(https: Https, path: &'static str, body: &'static str) {
    loop {
        let request = Request::post(path).body(Full::from(body)).unwrap();
        drop(https.send(Protocol::Http1, "hostile", request).await); // what it answers is its own affair
    }
}
