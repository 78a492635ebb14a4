//! The admin app's calls against the daemon without its sockets: provider, procmgr and the proxy are one that does as it is told.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use axum::body::Body;
use http::Method;
use http_body_util::BodyExt;
use nexushub_chassis::names::{ADMIN_INSTANCE, LOGIN_INSTANCE};
use nexushub_proto::{
    procmgr::{InstanceStatus, NextGeneration, State as Stands},
    provider::{self, Application, ListInstancesResponse, Origin},
};
use serde_json::Value;
use tokio_stream::StreamExt;
use tonic::Status;

use super::*;
use crate::{
    auth::{CALLER, PROXY_TOKEN},
    config::Config,
    peers::Call,
    register::Registration,
    testing::{Fakes, World},
    unpack::tests::zip_of,
};

/// Provider as far as packages go, procmgr's orders, and the proxy's counts.
pub(crate) struct FakeHouse {
    fakes: Arc<Fakes>,
    pub(crate) wanted: Mutex<ListInstancesResponse>,
    pub(crate) shelf: Mutex<Vec<provider::Release>>,
    /// An application of which nothing is taken, told of before the other.
    refused: Mutex<Option<Application>>,
    /// Whether what is released comes up.
    breaks: Mutex<bool>,
    /// What was ordered.
    orders: Mutex<Vec<String>>,
    /// What the proxy counts besides; none = it is away.
    pub(crate) counted: Mutex<Option<String>>,
}

impl FakeHouse {
    pub(crate) fn new(fakes: Arc<Fakes>) -> Arc<Self> {
        Arc::new(Self {
            fakes,
            wanted: Mutex::default(),
            shelf: Mutex::default(),
            refused: Mutex::default(),
            breaks: Mutex::default(),
            orders: Mutex::default(),
            counted: Mutex::new(Some(String::new())),
        })
    }

    /// What another one was told.
    pub(crate) fn remember(&self, other: &Self) {
        *self.wanted.lock().unwrap() = other.wanted.lock().unwrap().clone();
        *self.shelf.lock().unwrap() = other.shelf.lock().unwrap().clone();
    }

    fn order(&self, order: String) -> Call<'_, ()> {
        let unknown = order.ends_with(" none");
        let refused = order.ends_with(": none");
        self.orders.lock().unwrap().push(order);
        Box::pin(async move {
            match (refused, unknown) {
                (true, _) => Err(Status::invalid_argument("that is no message")),
                (_, true) => Err(Status::not_found("there is none of that id")),
                _ => Ok(()),
            }
        })
    }

    pub(crate) fn orders(&self) -> Vec<String> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What procmgr says once `path` is to run in the place of what does.
    fn becomes(&self, path: &str) -> InstanceStatus {
        let was = self.shelf.lock().unwrap().iter().find(|one| one.current).map(|one| one.path.clone());
        let up = InstanceStatus {
            id: "shop".into(),
            state: Stands::Running.into(),
            release: path.to_owned(),
            generation: 1,
            ..InstanceStatus::default()
        };
        if !*self.breaks.lock().unwrap() {
            return up;
        }
        let (state, reason) = (Stands::Failed.into(), "exited with code 3".to_owned());
        let next = NextGeneration {
            state,
            reason,
            restarts: 2,
            release: path.into(),
            generation: 2,
            ..Default::default()
        };
        InstanceStatus { release: was.unwrap_or_default(), next: Some(next), ..up }
    }
}

impl House for FakeHouse {
    fn wanted(&self) -> Call<'_, ListInstancesResponse> {
        let mut wanted = self.wanted.lock().unwrap().clone();
        let adopted = self.fakes.adopted.lock().unwrap();
        let instance = |one: &Registration| provider::Instance {
            id: one.instance_id.clone(),
            app_id: one.app_id.clone(),
            host_name: one.host_name.clone(),
            origin: Origin::Dynamic.into(),
            ..Default::default()
        };
        wanted.instances.extend(adopted.iter().map(instance));
        Box::pin(async { Ok(wanted) })
    }

    fn instances(&self) -> Call<'_, Vec<InstanceStatus>> {
        Box::pin(async { Err(Status::unavailable("procmgr is away")) })
    }

    fn metrics(&self) -> Call<'_, String> {
        let line = "nexushub_proxy_route_responses_total{instance=\"shop\",host=\"shop\",class=\"5xx\"} 4\n";
        let counted = self.counted.lock().unwrap().clone();
        Box::pin(async move {
            counted.map(|more| line.to_owned() + &more).ok_or_else(|| Status::unavailable("gone"))
        })
    }

    fn releases(&self, asked: String) -> Call<'_, Vec<Application>> {
        let (app_id, releases) = ("shop-app".to_owned(), self.shelf.lock().unwrap().clone());
        let refused = self.refused.lock().unwrap().clone().filter(|_| asked.is_empty());
        Box::pin(async { Ok(refused.into_iter().chain([Application { app_id, releases }]).collect()) })
    }

    fn set_release(&self, app_id: String, release: provider::Release) -> Call<'_, ()> {
        if self.refused.lock().unwrap().as_ref().is_some_and(|refused| refused.app_id == app_id) {
            return Box::pin(async { Err(Status::invalid_argument("no")) });
        }
        assert_eq!(app_id, "shop-app");
        let status = self.becomes(&release.path);
        let mut shelf = self.shelf.lock().unwrap();
        shelf.retain(|other| other.path != release.path);
        shelf.iter_mut().for_each(|other| other.current = false);
        let lesser = release.asks.as_ref().is_some_and(|asks| asks.driver() == provider::Driver::Sandbox);
        let ungranted = if lesser { "no sandbox" } else { "" }.to_owned();
        shelf.insert(0, provider::Release { current: true, failed: String::new(), ungranted, ..release });
        self.fakes.says(status);
        Box::pin(async { Ok(()) })
    }

    fn revert_release(&self, _: String, path: String, reason: String) -> Call<'_, ()> {
        for release in self.shelf.lock().unwrap().iter_mut() {
            let failed = release.path == path;
            release.current = !failed && release.failed.is_empty();
            if failed {
                release.failed.clone_from(&reason);
            }
        }
        Box::pin(async { Ok(()) })
    }

    fn confirm(&self, ids: Vec<String>) -> Call<'_, ()> {
        self.order(format!("confirm {}", ids.join(",")))
    }

    fn restart(&self, id: String) -> Call<'_, ()> {
        self.order(format!("restart {id}"))
    }

    fn pause(&self, id: String, message: String, closed: bool) -> Call<'_, ()> {
        let how = if closed { " closed" } else { "" };
        let said = if message.is_empty() { message } else { format!(": {message}") };
        self.order(format!("pause {id}{how}{said}"))
    }

    fn resume(&self, id: String) -> Call<'_, ()> {
        self.order(format!("resume {id}"))
    }
}

fn wanted(id: &str, origin: Origin) -> provider::Instance {
    let (id, app_id, host_name) = (id.to_owned(), format!("{id}-app"), id.to_owned());
    provider::Instance { id, app_id, host_name, origin: origin.into(), ..Default::default() }
}

/// A world in which the admin app lists a shop.
fn world() -> World {
    let world = World::new(Config { max_package_bytes: 10_000, ..Config::default() });
    *world.house.wanted.lock().unwrap() = ListInstancesResponse {
        instances: vec![wanted("fixed", Origin::Static)],
        waiting: vec![wanted("shop", Origin::Dynamic)],
        ..ListInstancesResponse::default()
    };
    world
}

/// What the admin app sends through the proxy.
async fn send(world: &World, method: Method, path: &str, body: impl Into<Body>) -> Response {
    let request = http::Request::builder().method(method).uri(format!("/internal/platform/{path}"));
    let request = request
        .header(PROXY_TOKEN, &world.proxy_token)
        .header(CALLER, ADMIN_INSTANCE)
        .header("x-acting-user", "ada")
        .body(body.into());
    world.send(request.unwrap()).await
}

async fn read(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

async fn read_all(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn get(world: &World, path: &str) -> (u16, Value) {
    read(send(world, Method::GET, path, "").await).await
}

async fn post(world: &World, path: &str, body: impl Into<Body>) -> (u16, Value) {
    read(send(world, Method::POST, path, body).await).await
}

fn package(content: &str) -> Vec<u8> {
    zip_of(&[("bin/app", format!("#!/bin/sh\n{content}").as_bytes(), 0o755)])
}

#[tokio::test]
async fn only_the_admin_app_is_served_and_only_through_the_proxy() {
    let world = world();
    let asked = |token: &str, callers: &[&str]| {
        let mut request = http::Request::get("/internal/platform/instances").header(PROXY_TOKEN, token);
        for caller in callers {
            request = request.header(CALLER, *caller);
        }
        request
            .header("authorization", format!("Bearer {}", world.operator_token))
            .body(Body::empty())
            .unwrap()
    };
    let good = world.send(asked(&world.proxy_token, &[ADMIN_INSTANCE])).await;
    assert_eq!(good.status(), StatusCode::OK);
    let callers: [&[&str]; 4] = [&[], &["another"], &["@provider"], &["another", ADMIN_INSTANCE]];
    for callers in callers {
        let refused = world.send(asked(&world.proxy_token, callers)).await;
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{callers:?}");
    }
    let direct = world.send(asked(&world.operator_token, &[ADMIN_INSTANCE])).await;
    assert_eq!(direct.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_package_says_its_version_and_what_it_asks_for_which_may_be_no_more_than_is_granted() {
    let world = world();
    let with = |manifest: &str| {
        let own = ("nexushub.toml", manifest.as_bytes(), 0o644);
        zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), own])
    };
    for time in ["the first", "again"] {
        let (status, said) = post(&world, "instances/shop/package", with("version = \"1.4.0\"")).await;
        assert_eq!((status, said["state"].as_str()), (200, Some("running")), "{time}: {said}");
        let (_, told) = get(&world, "instances/shop/releases").await;
        assert_eq!(told["releases"][0]["version"], "1.4.0", "{time}");
    }
    let manifest =
        "driver = \"sandbox\"\nlimits = { cpu_percent = 5 }\nhealth = { failures = 1 }\nenv = { A = \"b\" }";
    let (status, said) = post(&world, "instances/shop/package", with(manifest)).await;
    assert_eq!(
        (status, said["ungranted"].as_str()),
        (200, Some("no sandbox")),
        "what provider does not grant"
    );
    let (_, told) = get(&world, "instances/shop/releases").await;
    assert_eq!(
        [0_usize, 1].map(|at| told["releases"][at]["ungranted"].as_str()),
        [Some("no sandbox"), Some("")]
    );
    let asks = world.house.shelf.lock().unwrap()[0].asks.clone().unwrap();
    assert_eq!((asks.driver(), asks.env["A"].as_str()), (provider::Driver::Sandbox, "b"));
    assert_eq!((asks.limits.unwrap().cpu_percent, asks.health.unwrap().failures), (5, 1));
    for (key, manifest) in [
        ("driver", "driver = \"process\""),
        ("limits.memory_bytes", "limits = { memory_bytes = 9223372036854775807 }"),
    ] {
        let (status, said) = post(&world, "instances/shop/package", with(manifest)).await;
        let why = said["error"].as_str().unwrap();
        assert!(status == 422 && why.contains(&format!("key `{key}`: packages may")), "{why}");
    }
    assert_eq!(crate::testing::names(&world.hub.folders.tmp()), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_granted_no_more_is_taken_back_when_the_daemon_starts_and_when_a_package_comes_again() {
    let world = world();
    let asking = |version: &str| {
        let manifest = format!("version = \"{version}\"\nlimits = {{ processes = 100 }}");
        zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), ("nexushub.toml", manifest.as_bytes(), 0o644)])
    };
    for version in ["1", "2"] {
        assert_eq!(post(&world, "instances/shop/package", asking(version)).await.0, 200);
    }
    let given = |world: &World| {
        let shelf = world.house.shelf.lock().unwrap();
        shelf.iter().map(|one| one.asks.as_ref().unwrap().limits.unwrap().processes).collect::<Vec<_>>()
    };
    assert_eq!(given(&world), [100, 100]);
    let strict = world.restarted_with(|config| config.max_app_processes = 9);
    let facade = Facade::new(Arc::clone(&strict.hub), strict.house.clone(), strict.state.path());
    let asks = Some(provider::Asks { env: [("A".into(), "b".into())].into(), ..Default::default() });
    let release = provider::Release { path: "/nowhere".into(), current: true, asks, ..Default::default() };
    let other = Application { app_id: "other-app".into(), releases: vec![release] };
    *strict.house.refused.lock().unwrap() = Some(other);
    let telling = tokio::spawn(asking::retell(facade));
    while given(&strict) != [9, 100] {
        tokio::task::yield_now().await; // the current one
    }
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(!telling.is_finished(), "the daemon ends with it");
    assert_eq!(post(&strict, "instances/shop/rollback", Vec::new()).await.0, 200);
    assert_eq!(given(&strict), [9, 9]);
}

#[tokio::test]
async fn a_package_that_can_not_be_read_now_keeps_what_it_was_granted_until_it_can() {
    let world = world();
    let own = ("nexushub.toml", &b"limits = { processes = 100 }"[..], 0o644);
    let asking = zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), own]);
    assert_eq!(post(&world, "instances/shop/package", asking).await.0, 200);
    let given =
        |world: &World| world.house.shelf.lock().unwrap()[0].asks.as_ref().unwrap().limits.unwrap().processes;
    let path = std::path::PathBuf::from(world.house.shelf.lock().unwrap()[0].path.clone());
    let (manifest, aside) = (path.join("nexushub.toml"), path.join("aside"));
    std::fs::rename(&manifest, &aside).unwrap();
    std::os::unix::fs::symlink("nexushub.toml", &manifest).unwrap(); // can't be opened: it leads to itself
    let strict = world.restarted_with(|config| config.max_app_processes = 9);
    let facade = Facade::new(Arc::clone(&strict.hub), strict.house.clone(), strict.state.path());
    assert!(facade.retell().await.is_err(), "it is tried again");
    assert_eq!(given(&strict), 100);
    std::fs::rename(&aside, &manifest).unwrap();
    facade.retell().await.unwrap();
    assert_eq!(given(&strict), 9);
}

#[tokio::test]
async fn a_package_comes_up_and_a_broken_one_leaves_it_running_and_says_why() {
    let world = world();
    let (status, first) = post(&world, "instances/shop/package", package("one")).await;
    assert_eq!((status, first["state"].as_str()), (200, Some("running")), "{first}");
    let place = world.hub.folders.packages().join(first["release"].as_str().unwrap());
    assert_eq!(std::fs::read_to_string(place.join("bin/app")).unwrap(), "#!/bin/sh\none");

    *world.house.breaks.lock().unwrap() = true;
    let says = |generation, line: &str| nexushub_proto::procmgr::LogEntry {
        generation,
        cursor: generation,
        line: line.into(),
        ..Default::default()
    };
    *world.fakes.log.lock().unwrap() = vec![says(1, "all is well"), says(2, "no such table")];
    let (status, second) = post(&world, "instances/shop/package", package("two")).await;
    assert_eq!((status, second["state"].as_str()), (200, Some("failed")), "{second}");
    assert_eq!(second["reason"], "exited with code 3");
    assert_eq!(second["log"], serde_json::json!(["no such table"]), "its own last words and nobody else's");

    let (_, told) = get(&world, "instances/shop/releases").await;
    let states: BTreeMap<_, _> = told["releases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|release| {
            (
                release["id"].as_str().unwrap(),
                (release["state"].as_str().unwrap(), release["by"].as_str().unwrap()),
            )
        })
        .collect();
    assert_eq!(states[first["release"].as_str().unwrap()], ("current", "ada"));
    assert_eq!(states[second["release"].as_str().unwrap()].0, "failed");
}

#[tokio::test]
async fn there_is_a_way_back_to_the_last_good_package_or_to_the_one_that_is_named() {
    let world = world();
    let mut releases = Vec::new();
    for content in ["one", "two", "three"] {
        releases.push(post(&world, "instances/shop/package", package(content)).await.1["release"].clone());
    }
    let (status, back) = post(&world, "instances/shop/rollback", "").await;
    assert_eq!((status, &back["release"]), (200, &releases[1]));
    let body = serde_json::json!({"release": releases[0]}).to_string();
    assert_eq!(post(&world, "instances/shop/rollback", body).await.1["release"], releases[0]);
    assert_eq!(post(&world, "instances/shop/rollback", r#"{"release":"none"}"#).await.0, 404);
    assert_eq!(post(&world, "instances/shop/rollback", "{").await.0, 400);
}

#[tokio::test]
async fn the_same_package_again_is_one_folder_and_what_nobody_knows_is_removed() {
    let world = world();
    let packages = world.hub.folders.packages();
    std::fs::create_dir_all(packages.join("stranger/bin")).unwrap();
    let first = post(&world, "instances/shop/package", package("one")).await.1;
    let again = post(&world, "instances/shop/package", package("one")).await.1;
    assert_eq!(first, again);
    assert_eq!(crate::testing::names(&packages), [first["release"].as_str().unwrap()]);
}

#[tokio::test]
async fn one_package_of_an_application_is_on_its_way_at_a_time() {
    let world = world();
    let (sender, body) = tokio::sync::mpsc::channel::<Result<Vec<u8>, std::io::Error>>(1);
    let slow = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
    let uploads = async {
        let finish = async {
            while world.hub.uploads.available_permits() == world.hub.config.max_uploads {
                tokio::task::yield_now().await;
            }
            let (status, said) = post(&world, "instances/shop/package", package("two")).await;
            assert_eq!(status, 409, "{said}");
            sender.send(Ok(package("one"))).await.unwrap();
            drop(sender);
        };
        tokio::join!(post(&world, "instances/shop/package", slow), finish).0
    };
    assert_eq!(uploads.await.1["state"], "running");
    assert_eq!(post(&world, "instances/shop/package", package("two")).await.0, 200, "and then the next");
}

#[tokio::test]
async fn what_is_no_package_is_refused_and_leaves_nothing_behind() {
    let world = world();
    let cases = [
        (b"garbage".to_vec(), 422),
        (zip_of(&[("static/index.html", b"x", 0o644)]), 422),
        (zip_of(&[("../bin/app", b"x", 0o755)]), 422),
        (vec![0; 10_001], 413),
    ];
    for (body, expected) in cases {
        let (status, said) = post(&world, "instances/shop/package", body).await;
        assert_eq!(status, expected, "{said}");
        assert!(!said["error"].as_str().unwrap().is_empty());
    }
    assert!(world.house.shelf.lock().unwrap().is_empty());
    let folders = &world.hub.folders;
    assert!(
        crate::testing::names(&folders.tmp()).is_empty()
            && crate::testing::names(&folders.packages()).is_empty()
    );
}

#[tokio::test]
async fn only_what_the_admin_app_gave_is_changed_here() {
    let world = world();
    let conflict =
        provider::Conflict { id: "lost".into(), reason: "its name is taken".into(), ..Default::default() };
    world.house.wanted.lock().unwrap().conflicts.push(conflict);
    for (id, expected) in [("fixed", 409), ("lost", 409), ("nobody", 404), ("..%2Fx", 404)] {
        assert_eq!(post(&world, &format!("instances/{id}/package"), package("x")).await.0, expected, "{id}");
        assert_eq!(post(&world, &format!("instances/{id}/rollback"), "").await.0, expected, "{id}");
    }
}

#[tokio::test]
async fn an_instance_is_told_with_its_state_its_counts_and_its_history() {
    let world = world();
    assert_eq!(get(&world, "instances/shop").await.1["state"], "no package yet");
    let shop = wanted("shop", Origin::Dynamic);
    *world.house.wanted.lock().unwrap() =
        ListInstancesResponse { instances: vec![shop], ..ListInstancesResponse::default() };
    let release = post(&world, "instances/shop/package", package("one")).await.1["release"].clone();
    let (status, told) = get(&world, "instances/shop").await;
    assert_eq!(
        (status, told["state"].as_str(), told["healthy"].as_bool()),
        (200, Some("running"), Some(true))
    );
    assert_eq!((told["errors"].as_u64(), &told["release"]), (Some(4), &release));
    assert_eq!(told["history"][0]["state"], "running", "{told}");
    assert_eq!(get(&world, "instances/nobody").await.0, 404);
}

#[tokio::test]
async fn orders_are_passed_on_and_their_refusals_are_told() {
    let world = world();
    world.house.wanted.lock().unwrap().admin =
        Some(provider::Admin { held: vec![wanted("gone", Origin::Dynamic)], ..Default::default() });
    for call in ["restart", "pause", "resume"] {
        assert_eq!(post(&world, &format!("instances/shop/{call}"), "").await.0, 204);
    }
    assert_eq!(post(&world, "held/confirm", "").await.0, 204);
    assert_eq!(world.house.orders(), ["restart shop", "pause shop", "resume shop", "confirm gone"]);
    let (status, said) = post(&world, "instances/none/restart", "").await;
    assert_eq!((status, said["error"].as_str()), (404, Some("there is none of that id")));
    assert_eq!(post(&world, "instances/shop/fly", "").await.0, 404);
    assert_eq!(get(&world, "instances/shop/restart").await.0, 405);
    let noted = [
        ("instance.restart", "none", "failed"),
        ("removals.confirm", "gone", "ok"),
        ("instance.resume", "shop", "ok"),
        ("instance.pause", "shop", "ok"),
        ("instance.restart", "shop", "ok"),
    ];
    let noted = noted.map(|(what, object, result)| serde_json::json!([what, object, result]));
    loop {
        let (status, told) = get(&world, "audit?tail=9").await; // it is written after the answer
        let entries = told["entries"].as_array().unwrap().iter();
        let entries: Vec<_> =
            entries.map(|one| serde_json::json!([one["what"], one["object"], one["result"]])).collect();
        if entries.len() == noted.len() {
            assert_eq!((status, entries.as_slice()), (200, noted.as_slice()));
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn changes_of_the_admin_app_are_in_the_trail_before_it_hears_so() {
    let world = world();
    let change = |id: u32, what: &str, said: Value| serde_json::json!({ "id": id, "at": "2026-01-02T03:04:05Z", "by": "ada", "what": what, "said": said });
    let changes = [
        change(2, "CreateApplication", serde_json::json!({ "instanceId": "shop", "hostName": "shop" })),
        change(3, "DeleteUserAccessRule", serde_json::json!({ "ruleId": 1, "applicationId": "shop" })),
        change(4, "UpdateUserPassword", serde_json::json!({ "userId": 7 })),
        change(5, "SomethingNew", Value::Null),
    ];
    let (status, _) = post(&world, "audit", serde_json::json!({ "changes": changes }).to_string()).await;
    assert_eq!(status, 204);
    let (_, told) = get(&world, "audit").await;
    let entries = told["entries"].as_array().unwrap().iter().rev();
    let told: Vec<_> = entries.map(|one| [&one["who"], &one["what"], &one["object"]]).collect();
    assert_eq!(
        serde_json::json!(told),
        serde_json::json!([
            ["ada", "application.create", "shop"],
            ["ada", "rule.delete", "shop"],
            ["ada", "user.password", "user 7"],
            ["ada", "admin.change", ""],
        ])
    );
    for nonsense in ["", "{}", r#"{"changes":[{"id":1}]}"#, r#"{"changes":[],"more":1}"#] {
        assert_eq!(post(&world, "audit", nonsense).await.0, 400, "{nonsense}");
    }
}

#[tokio::test]
async fn the_login_app_tells_the_trail_and_nothing_else_and_not_in_the_words_of_the_admin_app() {
    let world = world();
    let line = |id: u32, by: &str, what: &str, from: &str| {
        serde_json::json!({ "id": id, "at": "2026-01-02T03:04:05Z", "by": by,
        "what": what, "said": { "name": "zoe" }, "from": from, "refused": by.is_empty() })
    };
    let lines = [
        line(1, "zoe", "login", "192.0.2.1"),
        line(2, "", "login", "2001:db8::1"),
        line(3, "", "lockout", "nowhere"),
        line(4, "zoe", "DeleteUser", ""),
    ];
    let told = serde_json::json!({ "changes": lines }).to_string();
    let asked = async |method: Method, path: &str, body: String| {
        let request = http::Request::builder().method(method).uri(format!("/internal/platform/{path}"));
        let request = request.header(PROXY_TOKEN, &world.proxy_token).header(CALLER, LOGIN_INSTANCE);
        world.send(request.body(Body::from(body)).unwrap()).await.status()
    };
    assert_eq!(asked(Method::POST, "audit", told).await, StatusCode::NO_CONTENT);
    for (method, path) in [
        (Method::GET, "audit"),
        (Method::GET, "instances"),
        (Method::POST, "held/confirm"),
        (Method::POST, "audit/x"),
    ] {
        assert_eq!(asked(method, path, String::new()).await, StatusCode::FORBIDDEN, "{path}");
    }
    let (_, told) = get(&world, "audit").await;
    let entries = told["entries"].as_array().unwrap().iter().rev();
    let told: Vec<_> = entries
        .map(|one| [&one["who"], &one["what"], &one["object"], &one["from"], &one["result"]])
        .collect();
    assert_eq!(
        serde_json::json!(told),
        serde_json::json!([
            ["zoe", "session.begin", "\"zoe\"", "192.0.2.1", "ok"],
            ["login", "session.begin", "\"zoe\"", "2001:db8::1", "refused"],
            ["login", "session.lock_out", "\"zoe\"", "login app", "refused"],
            ["zoe", "login.note", "\"zoe\"", "login app", "ok"],
        ])
    );
}

#[tokio::test]
async fn a_trail_that_cannot_be_read_or_written_is_not_an_empty_one() {
    let world = world();
    std::fs::write(nexushub_chassis::audit::folder(world.state.path()), "no folder").unwrap();
    assert_eq!(get(&world, "audit").await.0, 500);
    let change = r#"{"changes":[{"id":1,"at":"","by":"","what":"","said":null}]}"#;
    assert_eq!(post(&world, "audit", change).await.0, 503);
}

#[tokio::test]
async fn a_log_ends_or_goes_on_and_is_resumed_where_the_client_left_off() {
    let world = world();
    assert_eq!(get(&world, "instances/shop/logs").await.0, 404);
    world.fakes.logged(1, 5);
    let mut first = send(&world, Method::GET, "instances/shop/logs?tail=2&follow=1", "").await;
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    assert!(!first.headers().contains_key("access-control-allow-origin"));
    let mut frames = std::mem::take(first.body_mut()).into_data_stream();
    let frame = frames.next().await.unwrap().unwrap();
    let (frame, _) = std::str::from_utf8(&frame).unwrap().split_once("\n\n").unwrap();
    let (id, data) = frame.split_once("\ndata: ").unwrap();
    assert_eq!(id, "id: 1:4");
    let line: Value = serde_json::from_str(data).unwrap();
    let whole = read_all(send(&world, Method::GET, "instances/shop/logs?tail=2", "").await).await;
    assert_eq!(whole.matches("\n\n").count(), 2, "it ends without being followed: {whole}");
    assert_eq!((line["level"].as_str(), line["source"].as_str()), (Some("info"), Some("stdout")));
    assert_eq!(line["message"], "line 4");
    let request = http::Request::get("/internal/platform/instances/shop/logs?follow=1")
        .header(PROXY_TOKEN, &world.proxy_token)
        .header(CALLER, ADMIN_INSTANCE)
        .header("last-event-id", "1:4");
    let resumed = world.send(request.body(Body::empty()).unwrap()).await;
    let frame = resumed.into_body().into_data_stream().next().await.unwrap().unwrap();
    assert!(frame.starts_with(b"id: 1:5\n"), "{frame:?}");
}
