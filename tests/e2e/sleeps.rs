//! An app that nobody asks for is stopped, and its next requests start it: once, however many they are and whoever died meanwhile.

use http::Request;
use http_body_util::Full;
use nexushub_e2e::{App, Https, Options, Platform, Process, Protocol, soon};
use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::Instance,
};
use tokio::task::JoinSet;

const SHOP: &str = "shop";
/// First requests at once.
const STORM: usize = 1_000;
/// So long without a request is the end of them.
const LULL_MS: u32 = 3_000;
/// A storm has lulls on a slow machine, and a start takes its time: neither is the end of it.
const LULL_OF_A_STORM_MS: u32 = 10_000;
/// Nothing here is about how long a request or a connection waits, or how often a daemon may die.
const PATIENT: &str = "[supervisor]\nstable_ms = 1\nburst = 1000\n[proxy]\nhold_ms = 600000\nhold_requests = 2000\n\
     connect_ms = 600000\n";

async fn drowsy(idle_stop_ms: u32) -> (Platform, InstanceStatus) {
    let platform = Platform::start_with(&Options::with(PATIENT));
    let first = platform.run_app(&App::named(SHOP)).await;
    let app = Instance { idle_stop_ms, ..platform.instance(&App::named(SHOP)) };
    platform.put(app).await.unwrap();
    (platform, first)
}

async fn asleep(platform: &Platform) {
    let asleep = |now: &InstanceStatus| now.state() == State::Asleep && now.draining.is_empty();
    let now = platform.instance_until(SHOP, "is asleep", asleep).await;
    assert!(!now.routed && now.pid == 0 && !now.reason.is_empty(), "{now:?}");
}

/// The process that answered a request on a connection of its own, if it went well.
async fn ask(https: Https, protocol: Protocol) -> Option<u64> {
    let mut connection = https.open(protocol, SHOP).await.unwrap();
    let answer = connection.send(Request::get("/").body(Full::default()).unwrap()).await.unwrap();
    if answer.status == 200 { answer.json()["pid"].as_u64() } else { None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_first_requests_wake_an_app_once_and_are_all_answered() {
    let (platform, first) = drowsy(LULL_OF_A_STORM_MS).await;
    let old = Process::open(first.pid).unwrap();
    asleep(&platform).await;
    assert!(old.ended_within(nexushub_e2e::HANG));
    let mut storm = JoinSet::new();
    for number in 0..STORM {
        let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
        storm.spawn(ask(platform.https(), protocol));
    }
    let mut pids = Vec::new();
    while let Some(answered) = soon("all are answered", storm.join_next()).await {
        pids.extend(answered.unwrap());
    }
    let mut failed = platform.logged_by("proxy");
    failed.retain(|line| line["status"].as_u64() >= Some(500));
    assert_eq!((pids.len(), failed), (STORM, vec![]), "every one is answered; if not, the proxy says why");
    pids.dedup();
    assert_eq!((pids.len(), platform.starts_of(SHOP).len()), (1, 2), "one start");
    asleep(&platform).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_sleeps_on_whoever_dies_and_is_woken_by_whoever_is_there() {
    let (mut platform, _) = drowsy(LULL_MS).await;
    for (starts, step) in ["procmgr", "proxy", "everybody"].into_iter().enumerate() {
        asleep(&platform).await;
        match step {
            "everybody" => {
                platform.kill_supervisor().await;
                platform.start_supervisor();
            }
            daemon => drop(platform.kill(daemon).await),
        }
        asleep(&platform).await;
        assert_eq!(platform.starts_of(SHOP).len(), starts + 1, "{step}");
        assert_eq!(platform.https().get(SHOP, "/").await.status, 200, "{step}");
        assert_eq!(platform.starts_of(SHOP).len(), starts + 2, "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_an_app_that_sleeps_wakes_it() {
    let (platform, _) = drowsy(LULL_MS).await;
    asleep(&platform).await;
    let changed = App::named(SHOP).env("VERSION", "2");
    platform.put(Instance { idle_stop_ms: 600_000, ..platform.instance(&changed) }).await.unwrap();
    platform.running(SHOP).await;
}
