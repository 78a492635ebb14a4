//! A developer pushes an app: steps 3 to 9 of the contract.

use std::fs;

use nexushub_e2e::{
    FORGIVING, Options, Platform,
    package::{Package, md5},
    processes::Process,
    raw::noise,
    soon, until,
    upload::pieces,
    workshop,
};
use nexushub_proto::procmgr::{InstanceStatus, State};

/// A package of several pieces, with a page that tells it apart.
pub(crate) fn package(page: &str) -> Vec<u8> {
    Package::probe().file("static/page.txt", page.as_bytes()).file("ballast", &noise(9, 5 << 20)).bytes()
}

pub(crate) async fn runs_at(platform: &Platform, host: &str, not: Option<u32>) -> InstanceStatus {
    let there =
        |status: &InstanceStatus| status.host_name == host && status.routed && Some(status.pid) != not;
    let all =
        platform.instances_until(&format!("an app runs at {host}"), |all| all.values().any(there)).await;
    all.into_values().find(there).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zip_is_uploaded_in_any_order_installed_and_answers_by_its_host_name() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.created("shop").await;
    let package = package("one");
    let (hash, pieces) = (md5(&package), pieces(&package));
    let total = i64::try_from(pieces.len()).unwrap();
    assert!(total >= 3, "the story needs several pieces");
    let order: Vec<usize> = (0..pieces.len()).rev().chain([pieces.len() - 1, 0, 0]).collect();
    let mut left: std::collections::BTreeSet<usize> = (0..pieces.len()).collect();
    for index in order {
        left.remove(&index);
        let answer = developer.chunk(&id, i64::try_from(index).unwrap(), total, &hash, pieces[index]).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["status"], if left.is_empty() { "completed" } else { "received" });
        if left.is_empty() {
            break;
        }
        let progress = developer.get(&id, "/upload/status").await.json();
        assert_eq!(
            (progress["completed"].as_bool(), progress["totalChunks"].as_i64()),
            (Some(false), Some(total))
        );
    }
    assert_eq!(developer.get(&id, "/upload/status").await.json()["completed"], true);
    let installed = developer.post(&id, "/install").await;
    assert_eq!(installed.status, 200, "{}", installed.text());
    let app = runs_at(&platform, "shop.debug", None).await;
    developer.until(&id, "running").await;
    let status = developer.status(&id).await;
    assert_eq!(status["healthCheck"], "healthy", "{status}");
    assert_eq!(status["metadata"]["hostName"], "shop.debug");
    assert_eq!(platform.https().get("shop.debug", "/public/whoami").await.json()["pid"], app.pid);
    assert_eq!(platform.https().get("shop.debug", "/page.txt").await.text(), "one");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_piece_changes_nothing_and_a_wrong_digest_can_be_followed_by_the_right_one() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.created("shop").await;
    let package = package("one");
    let pieces = pieces(&package);
    let total = i64::try_from(pieces.len()).unwrap();
    let wrong = md5(b"something else");
    for (index, piece) in (0..).zip(&pieces) {
        let first = developer.chunk(&id, index, total, &wrong, piece).await;
        if index + 1 < total {
            assert_eq!(first.status, 200);
            assert_eq!(developer.chunk(&id, index, total, &wrong, piece).await.status, 200, "the same again");
        } else {
            assert!(!first.status.is_success(), "the digest does not fit: {}", first.text());
        }
    }
    assert_eq!(developer.post(&id, "/install").await.status, 400, "nothing was uploaded yet");
    developer.upload(&id, &package).await;
    assert_eq!(developer.post(&id, "/install").await.status, 200);
    runs_at(&platform, "shop.debug", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_install_of_the_same_package_is_cheap_and_keeps_the_process() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.push("shop", &package("one")).await;
    let app = runs_at(&platform, "shop.debug", None).await;
    assert_eq!(developer.post(&id, "/install").await.status, 200);
    let after = runs_at(&platform, "shop.debug", None).await;
    assert_eq!((after.pid, after.generation), (app.pid, app.generation));
}

#[tokio::test(flavor = "multi_thread")]
async fn new_content_for_the_same_application_replaces_the_process() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.push("shop", &package("one")).await;
    let old = runs_at(&platform, "shop.debug", None).await;
    let old_process = Process::open(old.pid).unwrap();
    developer.upload(&id, &package("two")).await;
    assert_eq!(developer.post(&id, "/install").await.status, 200);
    let new = runs_at(&platform, "shop.debug", Some(old.pid)).await;
    assert_ne!(new.release, old.release);
    assert!(old_process.ended_within(nexushub_e2e::HANG));
    assert_eq!(platform.https().get("shop.debug", "/page.txt").await.text(), "two");
    assert_eq!(platform.https().get("shop.debug", "/public/whoami").await.json()["pid"], new.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_application_says_so_and_a_deleted_one_is_gone() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.push("shop", &package("one")).await;
    let app = runs_at(&platform, "shop.debug", None).await;
    let process = Process::open(app.pid).unwrap();
    let stopped = developer.post(&id, "/stop").await;
    assert!(stopped.status.is_success(), "{}", stopped.text());
    assert!(process.ended_within(nexushub_e2e::HANG));
    developer.until(&id, "stopped").await;
    assert_eq!(developer.post(&id, "/install").await.status, 200);
    let app = runs_at(&platform, "shop.debug", Some(app.pid)).await;
    let process = Process::open(app.pid).unwrap();
    assert_eq!(developer.delete(&id).await.status, 204);
    assert!(process.ended_within(nexushub_e2e::HANG));
    assert_eq!(developer.get(&id, "/status").await.status, 404);
    assert_eq!(developer.delete(&id).await.status, 404);
    let gone =
        |all: &nexushub_e2e::app::Instances| all.values().all(|status| status.state() == State::Stopped);
    platform.instances_until("the instance is gone", gone).await;
    soon("the host is forgotten", until_unknown(&platform, "shop.debug")).await;
}

/// The proxy learns of a removal by its own stream; there is nothing to wait on but its answers.
async fn until_unknown(platform: &Platform, host: &str) {
    while platform.https().get(host, "/").await.status != 404 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_pushed_before_every_daemon_was_killed_is_still_there() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.push("shop", &package("one")).await;
    let app = runs_at(&platform, "shop.debug", None).await;
    for name in nexushub_e2e::DAEMONS {
        platform.kill(name).await;
    }
    assert_eq!(runs_at(&platform, "shop.debug", None).await.pid, app.pid);
    developer.until(&id, "running").await;
    assert_eq!(platform.https().get("shop.debug", "/public/whoami").await.json()["pid"], app.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_pushes_a_folder_and_waits_until_it_answers() {
    let platform = Platform::start();
    let home = platform.home.path().to_owned();
    let source = platform.release("source");
    let push = |args: &[&str]| {
        let args = [&["push", source.to_str().unwrap(), "--name", "shop"], args].concat();
        let output = workshop::nexushub(&home, &args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    push(&["--host-name", "market"]);
    assert_eq!(platform.https().get("market", "/").await.status, 200);
    let ids =
        async || platform.instances_until("it is told of", |_| true).await.into_keys().collect::<Vec<_>>();
    let before = ids().await;
    let again = push(&[]);
    assert!(again.contains("https://market."), "it keeps its host name: {again}");
    assert_eq!(ids().await, before, "and its id");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_version_is_refused_with_its_last_words_and_the_old_one_goes_on_serving() {
    let platform = Platform::start();
    let home = platform.home.path().to_owned();
    let source = platform.release("source");
    let push = || workshop::nexushub(&home, &["push", source.to_str().unwrap(), "--name", "shop"]);
    assert!(push().status.success());
    let old = platform.https().get("shop", "/").await.json()["pid"].clone();
    let broken = "#!/bin/sh\necho starting\necho 'no such table: carts' >&2\nexit 3\n";
    fs::write(source.join("bin/app"), broken).unwrap();
    let output = push();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("exited with code 3") && told.contains("no such table: carts"), "{told}");
    assert_eq!(platform.https().get("shop", "/").await.json()["pid"], old, "the old version goes on");
    let status = workshop::nexushub(&home, &["status", "--output", "json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let instance = &status["instances"][0];
    assert_eq!(instance["last_words"], "starting\nno such table: carts", "{instance}");
    let standing = platform.developer().status(instance["id"].as_str().unwrap()).await;
    let error = standing["error"].as_str().unwrap();
    assert!(
        standing["status"] == "failed" && error.ends_with("\nstarting\nno such table: carts"),
        "{standing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_push_that_is_refused_leaves_nothing_one_that_fails_says_why_and_the_next_just_works() {
    let platform = Platform::start_with(&Options::with(FORGIVING));
    let home = platform.home.path().to_owned();
    let run = |args: &[&str], code: i32| {
        let output = workshop::nexushub(&home, args);
        let said =
            [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        said
    };
    let apps = || -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&run(&["apps", "-o", "json"], 0)).unwrap()["apps"].take()
    };
    let source = platform.release("source");
    let push =
        |code: i32| run(&["push", source.to_str().unwrap(), "--name", "shop", "--timeout", "20"], code);
    let good = fs::read(source.join("bin/app")).unwrap();
    workshop::put_program(&source.join("bin/app"), b"no program at all");
    let refused = push(1);
    assert!(refused.contains("bin/app") && refused.contains("mend the package"), "{refused}");
    assert_eq!(apps(), serde_json::json!([]), "nothing of it is left");

    workshop::put_program(&source.join("bin/app"), b"#!/bin/sh\necho 'no such table: carts'\nexit 3\n");
    let failed = push(1);
    assert!(failed.contains("no such table: carts"), "{failed}");
    let listed = apps();
    assert!(listed[0]["reason"].as_str().unwrap().contains("exited with code 3"), "{listed}");
    workshop::put_program(&source.join("bin/app"), &good);
    push(0);
    assert_eq!(platform.https().get("shop", "/").await.status, 200);
    let app = apps()[0]["id"].as_str().unwrap().to_owned();
    let files = platform.state().join("debug-api/apps").join(&app);
    assert!(app == listed[0]["id"] && files.join("db").exists(), "it kept its id");

    workshop::put_program(&source.join("bin/app"), b"no program at all");
    push(1);
    assert_eq!(platform.https().get("shop", "/").await.status, 200, "what ran before is no first push's");
    workshop::put_program(&source.join("bin/app"), &good);
    let elsewhere = run(&["push", source.to_str().unwrap(), "--name", "shop", "--host-name", "moved"], 1);
    assert!(elsewhere.contains("answers at shop, which it keeps"), "{elsewhere}");
    assert_eq!((apps()[0]["id"].as_str(), files.exists()), (Some(app.as_str()), true), "with its data");

    assert!(run(&["remove", "shop"], 2).contains("--yes"));
    assert_eq!(platform.https().get("shop", "/").await.status, 200);
    assert!(run(&["remove", "shop", "--yes"], 0).contains("with its releases and its data"));
    assert_eq!(apps(), serde_json::json!([]));
    until("its files are gone", || (!files.exists()).then_some(())).await;
    assert!(run(&["remove", "shop", "--yes"], 1).contains("there is no app `shop`"));

    let developer = platform.developer();
    let pending = developer.created("half").await; // whoever began was ended before there was a package
    assert!(apps()[0]["reason"].as_str().unwrap().contains("no package of it was installed"), "{}", apps());
    run(&["remove", &pending, "--yes"], 0);
    assert_eq!(apps(), serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_goes_on_where_it_was_after_debug_api_was_killed() {
    let platform = Platform::start();
    let developer = platform.developer();
    let id = developer.created("shop").await;
    let package = package("one");
    let (hash, pieces) = (md5(&package), pieces(&package));
    let total = i64::try_from(pieces.len()).unwrap();
    for (index, piece) in (0..).zip(&pieces) {
        let answer = developer.chunk(&id, index, total, &hash, piece).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        platform.kill("debug-api").await;
    }
    assert_eq!(developer.get(&id, "/upload/status").await.json()["completed"], true);
    assert_eq!(developer.post(&id, "/install").await.status, 200);
    runs_at(&platform, "shop.debug", None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_install_comes_to_its_end_whoever_is_killed_meanwhile() {
    let platform = Platform::start_with(&Options::with(FORGIVING));
    let developer = platform.developer();
    let id = developer.created("shop").await;
    let mut old = None;
    for (round, victim) in ["debug-api", "provider", "procmgr"].into_iter().cycle().take(6).enumerate() {
        developer.upload(&id, &package(&format!("round {round}"))).await;
        let (_, _) = tokio::join!(developer.post(&id, "/install"), platform.kill(victim));
        assert_eq!(developer.post(&id, "/install").await.status, 200, "again, and idempotent");
        let app = runs_at(&platform, "shop.debug", old).await;
        let page = format!("round {round}");
        let new = async { while platform.https().get("shop.debug", "/page.txt").await.text() != page {} };
        soon("the new page", new).await;
        old = Some(app.pid);
    }
    platform.instances_until("nothing drains", |all| all.values().all(|one| one.draining.is_empty())).await;
    // A start that was cut off may still be ending.
    until("one process is left", || (platform.app_processes().len() == 1).then_some(())).await;
}
