//! Apps that misbehave: each is replaced, says why it isn't up, and costs the others nothing.

use nexushub_e2e::{App, Options, Platform, Process, home::free_address};
use nexushub_proto::{
    procmgr::{
        InstanceStatus, RestartInstanceRequest, State, exit::How,
        procmgr_service_client::ProcmgrServiceClient,
    },
    provider::Health,
};
use tonic::Code;

async fn two_apps(options: &Options) -> (Platform, u32) {
    let platform = Platform::start_with(options);
    let other = platform.run_app(&App::named("other")).await.pid;
    (platform, other)
}

async fn untouched(platform: &Platform, other: u32) {
    assert_eq!(platform.running("other").await.pid, other);
    assert_eq!(platform.starts_of("other"), [other]);
    assert_eq!(platform.https().get("other", "/").await.json()["pid"], other);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_crashes_is_started_again_and_its_exit_is_known() {
    let (platform, other) = two_apps(&Options::default()).await;
    let old = platform.run_app(&App::named("hello")).await;
    let crash = platform.https().get("hello", "/crash?code=7").await;
    assert_eq!(crash.status, 502, "{}", crash.text());
    let new =
        platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != old.pid).await;
    assert_eq!(new.last_exit.unwrap().how, Some(How::Code(7)));
    assert_eq!(new.generation, old.generation + 1);
    assert_eq!(platform.https().get("hello", "/").await.json()["pid"], new.pid);
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loop_waits_longer_each_time_says_why_and_ends_when_the_cause_does() {
    let (platform, other) = two_apps(&Options::default()).await;
    platform.put(platform.instance(&App::named("hello").file("crash", "3"))).await.unwrap();
    let mut waits = Vec::new();
    for failures in 2..5 {
        let what = format!("has failed {failures} times");
        let waiting = |status: &InstanceStatus| status.restarts >= failures && status.retry_unix_ms > 0;
        let status = platform.instance_until("hello", &what, waiting).await;
        assert!(matches!(status.state(), State::Failed | State::Starting), "{status:?}");
        assert!(status.reason.contains('3'), "the reason names the exit code: {status:?}");
        assert_eq!(status.last_exit.unwrap().how, Some(How::Code(3)));
        assert!(!status.routed);
        waits.push(status.retry_unix_ms - status.since_unix_ms);
    }
    assert!(waits.iter().all(|wait| (1..=1000).contains(wait)), "{waits:?}");
    let answer = platform.https().get("hello", "/").await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    platform.untell("hello", "crash");
    platform.running("hello").await;
    assert_eq!(platform.https().get("hello", "/").await.status, 200);
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_answers_500_is_not_routed_and_replaced_until_it_is_well() {
    let (platform, other) = two_apps(&Options::default()).await;
    let old = platform.run_app(&App::named("hello")).await;
    let process = Process::open(old.pid).unwrap();
    platform.tell("hello", "status", "500");
    let told = |status: &InstanceStatus| !status.routed && status.reason.contains("500");
    platform.instance_until("hello", "is not routed, and says why", told).await;
    assert!(process.ended_within(nexushub_e2e::HANG), "the sick process is stopped");
    platform.untell("hello", "status");
    let new = platform.running("hello").await;
    assert_ne!(new.pid, old.pid);
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_whose_health_check_hangs_is_replaced() {
    let (platform, other) = two_apps(&Options::default()).await;
    let hasty = Health { timeout_ms: 300, ..Health::default() };
    let old = platform.run_app(&App::named("hello").health(hasty)).await;
    platform.tell("hello", "status", "hang");
    platform.instance_until("hello", "is not routed", |status| !status.routed).await;
    platform.untell("hello", "status");
    assert_ne!(platform.running("hello").await.pid, old.pid);
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failed_check_flags_an_app_and_keeps_it_in_service() {
    let platform = Platform::start_with(&Options::with("[procmgr]\nhealth_retry_ms = 1000\n"));
    let patient = Health { failures: 100, ..Health::default() };
    let app = platform.run_app(&App::named("hello").health(patient)).await;
    platform.tell("hello", "status", "500");
    let flagged = platform.instance_until("hello", "is flagged", |status| status.flagged).await;
    assert!(flagged.routed, "{flagged:?}");
    assert_eq!(platform.https().get("hello", "/").await.json()["pid"], app.pid);
    platform.untell("hello", "status");
    let well = platform.instance_until("hello", "is well", |status| !status.flagged).await;
    assert_eq!(well.pid, app.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_never_listens_is_given_up_after_its_start_deadline() {
    let (platform, other) = two_apps(&Options::default()).await;
    let hasty = Health { start_deadline_ms: 500, ..Health::default() };
    platform.put(platform.instance(&App::named("mute").env("PROBE_MUTE", "1").health(hasty))).await.unwrap();
    let failed = platform
        .instance_until("mute", "is given up", |status| status.restarts >= 1 && status.retry_unix_ms > 0)
        .await;
    assert!(!failed.reason.is_empty() && !failed.routed, "{failed:?}");
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_a_program_says_so() {
    let (platform, other) = two_apps(&Options::default()).await;
    let mut instance = platform.instance(&App::named("hollow"));
    let release = platform.home.path().join("releases/nothing");
    std::fs::create_dir_all(release.join("bin")).unwrap();
    std::fs::write(release.join("bin/app"), "not a program").unwrap();
    instance.release = release.display().to_string();
    platform.put(instance).await.unwrap();
    let failed =
        platform.instance_until("hollow", "has failed", |status| status.state() == State::Failed).await;
    assert!(!failed.reason.is_empty(), "{failed:?}");
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_ports_run_out_the_reason_names_range_and_holders() {
    let only = free_address().port().to_string();
    let ports = format!("[procmgr]\nport_first = {only}\nport_last = {only}\n");
    let (platform, other) = two_apps(&Options::with(&ports)).await;
    platform.put(platform.instance(&App::named("late"))).await.unwrap();
    let failed = platform
        .instance_until("late", "has no port", |status| !status.reason.is_empty() && status.retry_unix_ms > 0)
        .await;
    assert!(failed.reason.contains(&only) && failed.reason.contains("other"), "{}", failed.reason);
    untouched(&platform, other).await;
    platform.remove("other").await.unwrap();
    platform.running("late").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_that_is_taken_is_refused_and_both_owners_are_named() {
    let (platform, other) = two_apps(&Options::default()).await;
    let mut second = platform.instance(&App::named("second"));
    second.host_name = "other".to_owned();
    let refusal = platform.put(second).await.unwrap_err();
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert!(
        refusal.message().contains("second") && refusal.message().contains("other"),
        "{}",
        refusal.message()
    );
    untouched(&platform, other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_host_name_moves_the_route_and_keeps_the_process() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    let mut moved = platform.instance(&App::named("hello"));
    moved.host_name = "goodbye".to_owned();
    platform.put(moved).await.unwrap();
    platform
        .instance_until("hello", "runs under its new name", |status| {
            status.routed && status.host_name == "goodbye"
        })
        .await;
    platform.answers_as("goodbye", app.pid).await;
    assert_eq!(platform.https().get("hello", "/").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_can_restart_an_app() {
    let platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    procmgr.restart_instance(RestartInstanceRequest { id: "hello".to_owned() }).await.unwrap();
    platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != old.pid).await;
    let unknown =
        procmgr.restart_instance(RestartInstanceRequest { id: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_wish_twice_changes_nothing_and_a_removed_app_ends() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    let revision = platform.put(platform.instance(&App::named("hello"))).await.unwrap();
    assert_eq!(platform.put(platform.instance(&App::named("hello"))).await.unwrap(), revision);
    assert_eq!(platform.starts_of("hello"), [app.pid]);
    let process = Process::open(app.pid).unwrap();
    assert!(platform.remove("hello").await.unwrap());
    assert!(process.ended_within(nexushub_e2e::HANG));
    assert!(!platform.remove("hello").await.unwrap(), "there is none any more, which is no error");
}
