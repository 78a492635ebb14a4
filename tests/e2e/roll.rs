//! SIGHUP: forward to new programs and a new configuration without losing a request; never to bad ones.

use std::fs;

use nexushub_e2e::{App, DAEMONS, Load, Options, Platform, Signal, UNHURRIED, workshop};
use tempfile::TempDir;

/// A platform whose programs may be replaced.
fn upgradable(more: &str) -> (TempDir, Platform) {
    let programs = tempfile::Builder::new().prefix("nhbin").tempdir_in("/tmp").unwrap();
    workshop::copy_programs(programs.path());
    let platform =
        Platform::start_with(&Options { programs: programs.path().to_owned(), ..Options::with(more) });
    (programs, platform)
}

/// Sends SIGHUP and waits until the supervisor says that it is through.
fn roll(platform: &mut Platform) {
    platform.supervisor().signal(Signal::HUP);
    platform.await_ready();
}

async fn pids(platform: &Platform) -> Vec<u32> {
    let mut pids = Vec::new();
    for name in DAEMONS {
        pids.push(platform.daemon(name).await.pid);
    }
    pids
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_to_new_programs_costs_no_request_and_keeps_the_app() {
    let (programs, mut platform) = upgradable("");
    let app = platform.run_app(&App::named("hello")).await.pid;
    let load = Load::start(&platform.https(), "hello", 3, 2);
    load.goes_on(20).await;
    let old = pids(&platform).await;
    for name in DAEMONS {
        workshop::rebuild(&programs.path().join(format!("nexushub-{name}")));
    }
    platform.supervisor().signal(Signal::HUP);
    for (name, old) in DAEMONS.iter().zip(old) {
        platform.replaced(name, old).await;
    }
    platform.await_ready();
    load.goes_on(50).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    assert_eq!(platform.running("hello").await.pid, app);
    assert_eq!(platform.starts_of("hello"), [app]);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_changed_is_rolled() {
    let (programs, mut platform) = upgradable("");
    let old = pids(&platform).await;
    workshop::rebuild(&programs.path().join("nexushub-provider"));
    platform.supervisor().signal(Signal::HUP);
    platform.replaced("provider", old[0]).await;
    platform.await_ready();
    let new = pids(&platform).await;
    assert_ne!(new[0], old[0]);
    assert_eq!(new[1..], old[1..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_program_is_refused_and_the_old_one_is_restarted_from_what_it_was() {
    let (programs, mut platform) = upgradable("");
    platform.run_app(&App::named("hello")).await;
    let load = Load::start(&platform.https(), "hello", 2, 1);
    let old = pids(&platform).await;
    let seen = platform.journal.position();
    for name in DAEMONS {
        workshop::put_program(&programs.path().join(format!("nexushub-{name}")), b"no program at all");
    }
    roll(&mut platform);
    platform.journal.wait(seen, "the refusal is logged", |line| line.contains("\"error\"")).await;
    load.goes_on(20).await;
    assert_eq!(pids(&platform).await, old, "nothing was touched");
    let tally = load.stop().await;
    assert_eq!(tally.failed(), 0, "{tally:?}");
    for name in DAEMONS {
        platform.kill(name).await;
    }
    assert_eq!(platform.https().get("hello", "/").await.status, 200, "restarted from the held programs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_table_rolls_its_daemon_and_a_bad_one_is_refused_with_its_line() {
    let (_programs, mut platform) = upgradable("");
    let old = pids(&platform).await;
    let text = fs::read_to_string(platform.home.config()).unwrap();
    let seen = platform.journal.position();
    let line = platform.home.configure_more("proxy", "no_such_key = 1");
    roll(&mut platform);
    let refusal =
        platform.journal.wait(seen, "the refusal is logged", |line| line.contains("no_such_key")).await;
    assert!(refusal.contains(&format!("nexushub.toml:{line}")), "{refusal}");
    assert_eq!(pids(&platform).await, old);
    platform.home.configure(&text);
    platform.home.configure_more("proxy", "access_log = false");
    platform.supervisor().signal(Signal::HUP);
    platform.replaced("proxy", old[3]).await;
    platform.await_ready();
    assert_eq!(pids(&platform).await[..3], old[..3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_lets_requests_in_flight_finish() {
    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    let (programs, mut platform) = upgradable(UNHURRIED);
    platform.run_app(&App::named("hello")).await;
    let old = platform.daemon("proxy").await;
    let mut connection = platform.https().open(nexushub_e2e::Protocol::Http1, "hello").await.unwrap();
    let request = http::Request::get("/slow?key=a").body(Full::<Bytes>::default()).unwrap();
    let mut body = connection.begin(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun\n");
    workshop::rebuild(&programs.path().join("nexushub-proxy"));
    platform.supervisor().signal(Signal::HUP);
    platform.replaced("proxy", old.pid).await;
    platform.https().get("hello", "/go?key=a").await;
    assert_eq!(nexushub_e2e::soon("the rest", body.collect()).await.unwrap().to_bytes(), "done\n");
    platform.await_ready();
    assert!(old.ended_within(nexushub_e2e::HANG), "the old generation ends when it has drained");
}
