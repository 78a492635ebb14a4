//! A process that stands still is as bad as a dead one, and is treated so.

use nexushub_e2e::{App, DAEMONS, HANG, Load, Options, Platform, Process, Signal};
use nexushub_proto::provider::Health;

/// Whoever shows no sign of life for so long hangs; a slow machine's stalls are shorter.
const WATCHED: &str = "[supervisor]\nwatchdog_ms = 8000\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_hangs_is_replaced_and_costs_no_request() {
    let platform = Platform::start_with(&Options::with(WATCHED));
    let app = platform.run_app(&App::named("hello")).await.pid;
    let load = Load::start(&platform.https(), "hello", 2, 1);
    for name in DAEMONS.into_iter().filter(|name| *name != "proxy") {
        let daemon = platform.daemon(name).await;
        daemon.signal(Signal::STOP);
        platform.replaced(name, daemon.pid).await;
        assert!(daemon.has_ended(), "the hung {name} is gone");
        load.goes_on(10).await;
    }
    let tally = load.stop().await;
    assert_eq!((tally.failed(), tally.retried), (0, 0), "{tally:?}");
    assert_eq!(platform.running("hello").await.pid, app);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_hangs_is_replaced_and_refuses_nobody() {
    let platform = Platform::start_with(&Options::with(WATCHED));
    let app = platform.run_app(&App::named("hello")).await.pid;
    let load = Load::start(&platform.https(), "hello", 2, 1);
    load.goes_on(10).await;
    let proxy = platform.daemon("proxy").await;
    proxy.signal(Signal::STOP);
    platform.replaced("proxy", proxy.pid).await;
    load.goes_on(10).await;
    let tally = load.stop().await;
    assert_eq!((tally.refused, tally.other.len()), (0, 0), "{tally:?}");
    assert!(tally.in_flight <= 3, "one for each client at most: {tally:?}");
    assert_eq!(platform.running("hello").await.pid, app);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_hangs_is_not_missed_by_requests() {
    let platform = Platform::start_with(&Options::with(WATCHED));
    platform.run_app(&App::named("hello")).await;
    let load = Load::start(&platform.https(), "hello", 2, 1);
    platform.supervisor().signal(Signal::STOP);
    load.goes_on(2000).await; // for long enough that nobody hears the daemons' signs of life
    platform.supervisor().signal(Signal::CONT);
    platform.kill("provider").await;
    let tally = load.stop().await;
    assert_eq!(tally.failed(), 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_hangs_is_replaced() {
    let platform = Platform::start();
    let hasty = Health { timeout_ms: 1000, ..Health::default() };
    let old = platform.run_app(&App::named("hello").health(hasty)).await.pid;
    let process = Process::open(old).unwrap();
    process.signal(Signal::STOP);
    let new =
        platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != old).await;
    assert!(process.ended_within(HANG));
    platform.answers_as("hello", new.pid).await;
}
