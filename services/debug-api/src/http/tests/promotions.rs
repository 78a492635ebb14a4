//! Applications that become permanent.

use nexushub_proto::{
    procmgr::{InstanceStatus, State},
    provider::{self, Driver, Origin},
};

use super::*;
use crate::{applications::App, record::Wanted};

/// With an application that runs, and an admin app that provider follows.
async fn with_app() -> (World, String) {
    let world = World::new(Config { expiry_s: 100, ..Config::default() });
    world.house.wanted.lock().unwrap().admin = Some(provider::Admin { followed: true, ..Default::default() });
    let id = world.create("shop-app", "shop.debug").await;
    assert_eq!(world.push(&id, &package("v1")).await.0, OK);
    (world, id)
}

async fn promote(world: &World, id: &str, wish: &str) -> (StatusCode, String) {
    world.call("POST", &format!("/debug/application/{id}/install-package"), wish.to_owned()).await
}

#[tokio::test(start_paused = true)]
async fn a_permanent_application_keeps_id_release_and_data_and_is_the_admin_apps_from_then_on() {
    let (world, id) = with_app().await;
    let before = world.fakes.instances.lock().unwrap()[&id].clone();
    let wish = r#"{"displayName":"The shop"}"#;
    let (code, text) = promote(&world, &id, wish).await;
    let reply = json(&text);
    assert_eq!(
        (code, reply["applicationId"].as_str(), reply["hostName"].as_str()),
        (OK, Some(&*id), Some("shop"))
    );
    let registered = world.fakes.adopted.lock().unwrap().clone();
    assert_eq!(registered.len(), 1);
    let one = &registered[0];
    assert_eq!(
        (one.instance_id.as_str(), one.app_id.as_str(), one.display_name.as_str(), one.by.as_str()),
        (&*id, "shop-app", "The shop", "operator")
    );
    let after = world.fakes.instances.lock().unwrap()[&id].clone();
    assert_eq!(
        (&after.release, &after.data, after.origin()),
        (&before.release, &before.data, Origin::Dynamic)
    );
    for _ in 0..2 {
        assert_eq!(promote(&world, &id, "").await.0, OK, "idempotent");
    }
    assert_eq!(world.fakes.adopted.lock().unwrap().len(), 1);
    let permanent =
        refused(StatusCode::CONFLICT, "Application is permanent: the admin app owns it; change it there");
    for (method, call) in [
        ("DELETE", ""),
        ("POST", "/upload"),
        ("POST", "/install"),
        ("POST", "/install-dev"),
        ("POST", "/stop"),
        ("POST", "/files"),
    ] {
        let answer = world.call(method, &format!("/debug/application/{id}{call}"), "").await;
        assert_eq!(answer, permanent, "{method} {call}");
    }
    assert_eq!(
        json(&world.call("GET", &format!("/debug/application/{id}/status"), "").await.1)["status"],
        "running"
    );
    let newer = InstanceStatus {
        id: id.clone(),
        state: State::Running.into(),
        release: "/packages/newer".to_owned(),
        ..InstanceStatus::default()
    };
    world.fakes.says(newer);
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    assert_eq!(world.hub.list().len(), 1, "it does not expire");
    world.until(&id, "running").await;
    let next = world.create("shop-app", "shop.debug").await;
    assert_ne!(next, id);
    assert_eq!(world.hub.find("shop-app").unwrap().id, next, "the developer goes on with another one");
    assert!(world.hub.find(&id).is_ok());
    let world = world.restarted();
    assert!(world.hub.find(&id).unwrap().is_promoted());
}

#[tokio::test]
async fn who_can_not_or_will_not_take_it_over_leaves_a_debug_application() {
    let (world, id) = with_app().await;
    let status = |says: Status| world.fakes.admin_says.lock().unwrap().push(says);
    status(Status::failed_precondition("the host name `shop` is taken"));
    let (code, text) = promote(&world, &id, "").await;
    assert_eq!(
        (code, text.as_str()),
        (StatusCode::CONFLICT, "Admin app refuses the application: the host name `shop` is taken\n")
    );
    status(Status::unavailable("it is starting"));
    let (code, text) = promote(&world, &id, "").await;
    assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.starts_with("Admin app can't take the application over: it is starting"), "{text}");
    assert!(!world.hub.find(&id).unwrap().is_promoted());
    world.house.wanted.lock().unwrap().admin = None;
    let (code, text) = promote(&world, &id, "").await;
    assert!(code == StatusCode::SERVICE_UNAVAILABLE && text.contains("provider.follow_admin"), "{text}");
    for body in ["[]", "{", "null", r#"{"name":1}"#] {
        assert_eq!(promote(&world, &id, body).await, refused(BAD, "Invalid request body"), "{body}");
    }
    let (code, _) = promote(&world, &id, r#"{"hostName":"admin"}"#).await;
    assert_eq!(code, StatusCode::CONFLICT, "reserved");
    assert_eq!(promote(&world, &id, r#"{"name":"../x"}"#).await.0, BAD);
    let fresh = world.create("fresh", "fresh").await;
    assert_eq!(promote(&world, &fresh, "").await, refused(BAD, "No package uploaded for this application"));
    assert!(world.fakes.adopted.lock().unwrap().is_empty());
    assert_eq!(world.call("DELETE", &format!("/debug/application/{id}"), "").await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_host_name_or_an_application_of_somebody_elses_is_not_taken_along() {
    let (world, id) = with_app().await;
    let other = |app_id: &str, host_name: &str, origin: Origin| provider::Instance {
        id: "other".into(),
        app_id: app_id.into(),
        host_name: host_name.into(),
        origin: origin.into(),
        ..Default::default()
    };
    for (other, why) in [
        (other("x", "shop", Origin::Static), "host name shop is taken by instance other"),
        (other("shop-app", "x", Origin::Dynamic), "application shop-app is there already, as instance other"),
    ] {
        world.house.wanted.lock().unwrap().instances = vec![other];
        let text = format!("Admin app refuses the application: {why}");
        assert_eq!(promote(&world, &id, "").await, refused(StatusCode::CONFLICT, &text));
    }
    world.house.wanted.lock().unwrap().instances = vec![other("shop-app", "x", Origin::Debug)];
    assert_eq!(promote(&world, &id, "").await.0, OK);
}

/// What the audit log says of promotions, once it says something: who, from where, what came of it.
async fn noted(world: &World) -> Vec<(String, String, String)> {
    let path = world.state.path().join("audit/debug-api.log");
    let text = |entry: &serde_json::Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    loop {
        let entries = std::fs::read_to_string(&path).unwrap_or_default();
        let entries = entries.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let promotions = entries.filter(|entry| entry["what"] == "application.promote");
        let told =
            promotions.map(|entry| (text(&entry, "who"), text(&entry, "from"), text(&entry, "result")));
        let told: Vec<_> = told.collect();
        if !told.is_empty() {
            return told;
        }
        tokio::task::yield_now().await; // it is written after the answer
    }
}

fn once(result: &str) -> [(String, String, String); 1] {
    [("operator".to_owned(), "192.0.2.7".to_owned(), result.to_owned())]
}

/// Asked for from a place that is known.
async fn promote_from_afar(world: &World, id: &str) -> (StatusCode, String) {
    let path = format!("/debug/application/{id}/install-package");
    let answer = world.ask("POST", &path, &[("x-forwarded-for", "192.0.2.7")], "").await;
    (answer.status, answer.text)
}

async fn until_permanent(world: &World, id: &str) {
    until(world, id, |app| app.record().promotion.is_some_and(|promotion| promotion.done)).await;
}

/// Waits for a change of an application's record after which it is so.
async fn until(world: &World, id: &str, is_so: impl Fn(&App) -> bool) {
    let (app, mut changed) = (world.hub.find(id).unwrap(), world.hub.changed.subscribe());
    let waiting = changed.wait_for(|()| is_so(&app));
    tokio::time::timeout(Duration::from_secs(600), waiting).await.unwrap().unwrap();
}

/// It is a debug application again, which is noted, and may be deleted.
async fn until_let_go(world: &World, id: &str) {
    until(world, id, |app| !app.is_promoted()).await;
    assert_eq!(noted(world).await, once("failed"));
    assert_eq!(world.call("DELETE", &format!("/debug/application/{id}"), "").await.0, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn one_that_the_admin_app_has_although_it_did_not_say_so_is_looked_up() {
    let (world, id) = with_app().await;
    world.fakes.admin_says.lock().unwrap().push(Status::unknown("it answered 503"));
    let (code, text) = promote_from_afar(&world, &id).await;
    assert_eq!((code, json(&text)["status"].as_str()), (OK, Some("running")), "{text}");
    assert_eq!(world.fakes.adopted.lock().unwrap().len(), 1, "it was asked once");
    assert_eq!(noted(&world).await, once("ok"));
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_can_tell_of_is_told_as_under_way_and_goes_on_until_that_is_known() {
    let (world, id) = with_app().await;
    let unclear = (0..60).map(|_| Status::deadline_exceeded("no answer"));
    let away = Status::unavailable("the proxy can't be reached");
    world.fakes.admin_says.lock().unwrap().extend([away].into_iter().chain(unclear));
    let (code, text) = promote_from_afar(&world, &id).await;
    assert_eq!((code, json(&text)["status"].as_str()), (StatusCode::ACCEPTED, Some("pending")), "{text}");
    let deleted = world.call("DELETE", &format!("/debug/application/{id}"), "").await;
    assert_eq!(deleted.0, StatusCode::CONFLICT, "it may be the admin app's");
    until_permanent(&world, &id).await;
    assert_eq!(world.fakes.adopted.lock().unwrap().len(), 1);
    assert_eq!(noted(&world).await, once("ok"));
}

#[tokio::test(start_paused = true)]
async fn one_that_the_admin_app_refuses_later_is_a_debug_application_again_and_that_is_noted() {
    let (world, id) = with_app().await;
    let refusal = Status::failed_precondition("the host name `shop` is taken");
    let unclear = (0..60).map(|_| Status::deadline_exceeded("no answer"));
    world.fakes.admin_says.lock().unwrap().extend([refusal].into_iter().chain(unclear));
    assert_eq!(promote_from_afar(&world, &id).await.0, StatusCode::ACCEPTED);
    until_let_go(&world, &id).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_an_admin_app_that_is_no_more_is_a_debug_application_again() {
    let (world, id) = with_app().await;
    let unclear = (0..999).map(|_| Status::deadline_exceeded("no answer"));
    world.fakes.admin_says.lock().unwrap().extend(unclear);
    assert_eq!(promote_from_afar(&world, &id).await.0, StatusCode::ACCEPTED);
    world.house.wanted.lock().unwrap().admin = None;
    until_let_go(&world, &id).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_went_on_after_a_restart_is_noted_as_one_that_did_not() {
    let (world, id) = with_app().await;
    let unclear = (0..99).map(|_| Status::deadline_exceeded("no answer"));
    world.fakes.admin_says.lock().unwrap().extend(unclear);
    assert_eq!(promote_from_afar(&world, &id).await.0, StatusCode::ACCEPTED);
    let world = world.restarted();
    world.house.wanted.lock().unwrap().admin = Some(provider::Admin { followed: true, ..Default::default() });
    world.fakes.admin_says.lock().unwrap().clear();
    until_permanent(&world, &id).await;
    assert_eq!(noted(&world).await, once("ok"));
}

#[tokio::test]
async fn one_that_the_admin_app_lets_go_of_is_a_stopped_debug_application_with_its_data() {
    let (world, id) = with_app().await;
    assert_eq!(promote(&world, &id, "").await.0, OK);
    let data = world.hub.folders.data(&id);
    world.fakes.adopted.lock().unwrap().clear();
    world.fakes.gone(&id);
    let app = world.hub.find(&id).unwrap();
    while app.is_promoted() || !app.record().settled {
        tokio::task::yield_now().await;
    }
    assert_eq!(app.record().wanted, Wanted::Stopped);
    assert!(data.is_dir() && !world.fakes.instances.lock().unwrap().contains_key(&id));
    assert_eq!(world.install(&id).await.0, OK, "its developer may go on with it");
    world.until(&id, "running").await;
    assert_eq!(world.call("DELETE", &format!("/debug/application/{id}"), "").await.0, StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn what_provider_does_not_let_go_of_keeps_its_files() {
    let (world, id) = with_app().await;
    let app = world.hub.find(&id).unwrap();
    let no = || Status::failed_precondition("instance is dynamic, from the admin app");
    world.fakes.refusals.lock().unwrap().extend((0..9).map(|_| no()));
    world.hub.delete(&app).await.unwrap();
    Arc::clone(&world.hub).bury(Arc::clone(&app), false).await;
    assert!(world.hub.folders.app(&id).is_dir());
}

#[tokio::test]
async fn what_a_package_asks_for_goes_with_it_when_it_is_made_permanent_as_far_as_it_is_granted() {
    let (world, id) = with_app().await;
    let manifest = b"driver = \"sandbox\"\nlimits = { memory_bytes = 33554432 }\nhealth = { path = \"/well\" }\nenv = { MODE = \"demo\" }\n";
    let own = ("nexushub.toml", &manifest[..], 0o644);
    assert_eq!(world.push(&id, &zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), own])).await.0, OK);
    assert_eq!(promote(&world, &id, "").await.0, OK);
    let told = world.house.shelf.lock().unwrap().remove(0);
    let asks = told.asks.unwrap();
    assert_eq!((asks.driver(), asks.env["MODE"].as_str()), (Driver::Sandbox, "demo"));
    assert_eq!(
        (asks.limits.unwrap().memory_bytes, asks.health.unwrap().path),
        (32 << 20, "/well".to_owned())
    );
}
