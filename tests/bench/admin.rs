//! What following the admin app costs: a list of ten thousand applications, a thousand changes a minute, and how soon a new
//! application is live.

use std::time::{Duration, Instant};

use http::Method;
use nexushub_e2e::{Admin, Platform, package::Package, processes};

/// Applications in a long list.
const MANY: usize = 10_000;
/// Changes of the thousand a minute, and the time between two of them.
const CHANGES: usize = 500;
const BETWEEN: Duration = Duration::from_millis(60);
/// Registered one after the other.
const TRIES: usize = 20;

pub(crate) async fn measure() {
    let (platform, admin) = Admin::followed().await;
    println!("## the admin app: from its change to what it leads to");
    live(&platform, &admin).await;
    many(&platform, &admin).await;
}

/// From a registration to the first answer over HTTPS.
async fn live(platform: &Platform, admin: &Admin) {
    admin.lists(&[("first", "shop", "first")]);
    platform.asked_until("it waits", |asked| asked.waiting.len() == 1).await;
    let package = Package::probe().bytes();
    let began = Instant::now();
    platform.facade(Method::POST, "instances/first/package", package).await;
    println!("package to running                     {:>8.0} ms", began.elapsed().as_secs_f64() * 1e3);
    let mut times = Vec::new();
    for number in 0..TRIES {
        let name = format!("app{number}");
        let began = Instant::now();
        admin.lists(&[("first", "shop", "first"), (&name, "shop", &name)]);
        platform.running(&name).await;
        assert_eq!(platform.https().get(&name, "/").await.status, 200);
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!("registered to live, {TRIES} times: median      {:>8.0} ms", times[TRIES / 2]);
    println!("                              longest  {:>8.0} ms", times[TRIES - 1]);
}

async fn many(platform: &Platform, admin: &Admin) {
    let rows: Vec<String> = (0..MANY).map(|number| format!("many{number}")).collect();
    let list = |extra: &'static str| {
        let all = rows.iter().map(|row| (row.as_str(), "another", row.as_str()));
        all.chain([("first", "shop", "first"), (extra, "shop", extra)]).skip(2).collect::<Vec<_>>()
    };
    let pid = platform.daemon("provider").await.pid;
    let before = resident(pid);
    let (long, longer) = (list("x0"), list("x1"));
    let began = Instant::now();
    admin.lists(&long);
    platform.asked_until("they wait", |asked| asked.waiting.len() >= MANY - 2).await;
    println!("list of {MANY} applied                  {:>8.0} ms", began.elapsed().as_secs_f64() * 1e3);
    println!("provider's memory before, after       {before:>8} {} KiB", resident(pid));
    let (used, began) = (cpu(pid), Instant::now());
    let mut pace = tokio::time::interval(BETWEEN);
    for number in 0..CHANGES {
        pace.tick().await;
        admin.lists(if number % 2 == 0 { &longer } else { &long });
    }
    let share = (cpu(pid) - used) / began.elapsed().as_secs_f64() * 100.0;
    println!("provider at 1000 such lists a minute  {share:>8.0} % of a core, {} KiB", resident(pid));
}

fn resident(pid: u32) -> u64 {
    let field = processes::field(pid, "VmRSS").unwrap_or_default();
    field.split_whitespace().next().and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

/// Seconds of a processor that a process has used.
fn cpu(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
    ticks / super::TICKS
}
