//! What people register in the admin app runs: its changes are followed, its lies change nothing, and its packages come and go.

use http::Method;
use nexushub_e2e::{
    Admin, Options, Platform,
    admin::{ADMIN, FOLLOWED, list},
    package::Package,
    processes, rounds_up_to, workshop,
};
use nexushub_proto::{
    procmgr::{State, StopAllInstancesRequest, procmgr_service_client::ProcmgrServiceClient},
    provider::ListInstancesResponse,
};

/// Applications beside the first: a list may have ten thousand.
const MANY: usize = 9_999;
/// What a daemon may take for it, in KiB.
const MOST_KIB: usize = 256 << 10;

/// A package that says why it can't go on, and doesn't.
fn broken() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("app");
    std::fs::write(&script, "#!/bin/sh\necho no such table: orders >&2\nexit 3\n").unwrap();
    Package::default().program("bin/app", &script).bytes()
}

async fn push(platform: &Platform, id: &str, package: Vec<u8>) -> serde_json::Value {
    let (status, said) = platform.facade(Method::POST, &format!("instances/{id}/package"), package).await;
    assert_eq!(status, 200, "{said}");
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_waits_for_its_package_runs_moves_without_a_restart_and_goes() {
    let (platform, admin) = Admin::followed().await;
    admin.lists(&[("shop", "shop-app", "shop")]);
    platform.asked_until("the shop waits", |asked| asked.waiting.iter().any(|one| one.id == "shop")).await;
    let (_, told) = platform.facade(Method::GET, "instances/shop", Vec::new()).await;
    assert_eq!(told["state"], "no package yet");

    let said = push(&platform, "shop", Package::probe().bytes()).await;
    assert_eq!(said["state"], "running", "{said}");
    let before = platform.running("shop").await;
    assert_eq!(platform.https().get("shop", "/").await.json()["pid"], before.pid);

    admin.lists(&[("shop", "shop-app", "store.yesterday.localhost:8443")]);
    platform.instance_until("shop", "has moved", |status| status.host_name == "store" && status.routed).await;
    platform.answers_as("store", before.pid).await; // the same process
    assert_eq!(platform.https().get("shop", "/").await.status, 404);

    admin.lists(&[]);
    platform.instances_until("the shop is gone", |all| !all.contains_key("shop")).await;
    assert!(platform.instance_now(ADMIN).await.is_some(), "who is configured stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_package_is_taken_back_with_its_last_words_and_the_one_before_serves_on() {
    let (platform, admin) = Admin::followed().await;
    admin.lists(&[("shop", "shop-app", "shop")]);
    platform.asked_until("the shop waits", |asked| !asked.waiting.is_empty()).await;
    let first = push(&platform, "shop", Package::probe().bytes()).await["release"].clone();
    let before = platform.running("shop").await;

    let said = push(&platform, "shop", broken()).await;
    assert_eq!(said["state"], "failed", "{said}");
    assert!(said["reason"].as_str().unwrap().contains('3'), "{said}");
    assert!(said["log"].as_array().unwrap().iter().any(|line| line == "no such table: orders"), "{said}");
    let after = platform.instance_until("shop", "is alone again", |status| status.next.is_none()).await;
    assert_eq!((after.pid, after.release), (before.pid, before.release));
    assert_eq!(platform.https().get("shop", "/").await.json()["pid"], before.pid);

    let next = push(&platform, "shop", Package::probe().file("static/new.txt", b"new").bytes()).await;
    assert_eq!(next["state"], "running");
    let (status, back) = platform.facade(Method::POST, "instances/shop/rollback", Vec::new()).await;
    assert_eq!((status, &back["release"], back["state"].as_str()), (200, &first, Some("running")));
    let (_, told) = platform.facade(Method::GET, "instances/shop/releases", Vec::new()).await;
    let states: Vec<_> =
        told["releases"].as_array().unwrap().iter().map(|one| one["state"].clone()).collect();
    assert_eq!(states, ["current", "earlier", "failed"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_deletion_is_held_over_a_restart_with_the_admin_app_away_until_it_is_confirmed() {
    let (platform, admin) = Admin::followed().await;
    let shops = ["a", "b", "c", "d"];
    admin.lists(&shops.map(|id| (id, "shop-app", id)));
    platform.asked_until("the shops wait", |asked| asked.waiting.len() == shops.len()).await;
    push(&platform, "a", Package::probe().bytes()).await;
    for id in shops {
        platform.running(id).await;
    }
    let plan = || workshop::nexushub(platform.home.path(), &["plan"]);
    assert_eq!(plan().status.code(), Some(0));
    admin.lists(&[]);
    let held =
        |asked: &ListInstancesResponse| asked.admin.as_ref().is_some_and(|admin| admin.held.len() == 4);
    platform.asked_until("they are held", held).await;
    drop(admin);
    platform.kill("provider").await;
    platform.asked_until("they are held still", held).await;
    for id in shops {
        assert_eq!(platform.instance_now(id).await.unwrap().state(), State::Running);
    }
    let told = plan();
    assert_eq!(told.status.code(), Some(2), "{}", String::from_utf8_lossy(&told.stdout));
    let confirmed = workshop::nexushub(platform.home.path(), &["apply", "--confirm-removals"]);
    assert_eq!(confirmed.status.code(), Some(0), "{}", String::from_utf8_lossy(&confirmed.stderr));
    platform.instances_until("they are gone", |all| shops.iter().all(|id| !all.contains_key(*id))).await;
    assert_eq!(plan().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_listed_last_runs_again_after_a_boot_with_the_admin_app_away() {
    let (mut platform, admin) = Admin::followed().await;
    admin.lists(&[("shop", "shop-app", "shop")]);
    platform.asked_until("the shop waits", |asked| asked.waiting.len() == 1).await;
    push(&platform, "shop", Package::probe().bytes()).await;
    let before = platform.running("shop").await;
    drop(admin);
    assert!(platform.stop().success());
    assert!(platform.left().is_empty());
    platform.start_supervisor();
    let after = platform.running("shop").await;
    assert!(after.generation > before.generation && after.pid != before.pid);
    assert_eq!(platform.https().get("shop", "/").await.json()["pid"], after.pid);
    let silent = |asked: &ListInstancesResponse| !asked.admin.as_ref().unwrap().trouble.is_empty();
    platform.asked_until("the admin app is away", silent).await;
    assert!(platform.instance_now("shop").await.unwrap().routed);
}

/// Ten thousand applications, each with the one package that there is. What they would take is not the question: procmgr has been
/// told to run nothing.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_applications_and_change_upon_change_are_followed_in_bounded_memory() {
    let (platform, admin) = Admin::followed().await;
    admin.lists(&[("first", "shop", "first")]);
    platform.asked_until("it waits", |asked| asked.waiting.len() == 1).await;
    push(&platform, "first", Package::probe().bytes()).await;
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    procmgr.stop_all_instances(StopAllInstancesRequest {}).await.unwrap();

    let names: Vec<String> = (0..MANY).map(|number| format!("many{number}")).collect();
    let rows = |host: &str| {
        let rest = names.iter().map(|name| (name.as_str(), "shop", name.as_str()));
        list(&rest.chain([("first", "shop", host)]).collect::<Vec<_>>())
    };
    admin.says(rows("first"));
    let all = |asked: &ListInstancesResponse| asked.instances.len() > MANY && asked.waiting.is_empty();
    platform.asked_until("all have their package", all).await;
    for change in 0..rounds_up_to(20, 1_000) {
        admin.says(rows(&format!("moved{change}")));
    }
    admin.says(rows("last"));
    platform.instance_until("first", "the last word counts", |status| status.host_name == "last").await;
    for name in ["provider", "procmgr", "proxy"] {
        let peak = processes::kib(platform.daemon(name).await.pid, "VmHWM");
        println!("figure: {name} with {MANY} applications: at most {peak} KiB");
        assert!(peak < MOST_KIB, "{name}: {peak} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_change_nothing_and_the_truth_is_heard_after_them() {
    let (platform, admin) = Admin::followed().await;
    admin.lists(&[("shop", "shop-app", "shop")]);
    platform.asked_until("the shop waits", |asked| asked.waiting.len() == 1).await;
    push(&platform, "shop", Package::probe().bytes()).await;
    let before = platform.running("shop").await;
    admin.says("<html>I am an error page".to_owned());
    let told = platform
        .asked_until("the lie is told", |asked| !asked.admin.as_ref().unwrap().trouble.is_empty())
        .await;
    assert!(told.admin.unwrap().trouble.contains("not what it should be"));
    assert_eq!(platform.https().get("shop", "/").await.json()["pid"], before.pid);
    admin.lists(&[("shop", "shop-app", "shop"), ("two", "shop-app", "two"), ("admin", "x", "login")]);
    platform.running("two").await;
    let asked = platform.asked_until("the conflict is told", |asked| !asked.conflicts.is_empty()).await;
    assert!(asked.conflicts[0].reason.contains("`login`"), "{:?}", asked.conflicts);
    assert_eq!(platform.instance_now("shop").await.unwrap().pid, before.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_app_that_the_platform_itself_runs_is_asked_through_the_proxy() {
    let mut platform = Platform::prepare(&Options::with(FOLLOWED));
    let _ = platform.release("admin");
    let data = platform.state().join("provider/data").join(ADMIN);
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("applications"), list(&[("shop", "shop-app", "shop")])).unwrap();
    platform.start_supervisor();
    platform.asked_until("the shop waits", |asked| asked.waiting.len() == 1).await;
    std::fs::write(data.join("applications"), list(&[("shop", "a", "shop"), ("two", "b", "two")])).unwrap();
    assert_eq!(platform.https().get("admin", "/go?key=events").await.status, 200);
    platform.asked_until("the second waits, too", |asked| asked.waiting.len() == 2).await;
}
