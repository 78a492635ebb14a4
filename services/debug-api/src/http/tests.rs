//! The contract's calls against the daemon without its sockets.

#![allow(clippy::unwrap_used)]

use axum::body::Body;
use http::{Request, StatusCode};
use nexushub_proto::provider::{self, ListInstancesResponse, Origin};
use tokio_stream::StreamExt;
use tonic::Status;
use tower::ServiceExt;

mod draft;
mod installs;
mod logs;
mod promotions;
mod releases;
mod transfers;
mod tus;
mod uploads;

use super::*;
use crate::{
    auth::PROXY_TOKEN,
    config::Config,
    testing::{World, json, md5, names, read},
    unpack::tests::zip_of,
};

const OK: StatusCode = StatusCode::OK;
const BAD: StatusCode = StatusCode::BAD_REQUEST;

fn world() -> World {
    World::new(Config::default())
}

fn package(content: &str) -> Vec<u8> {
    zip_of(&[
        ("bin/app", format!("#!/bin/sh\n{content}").as_bytes(), 0o755),
        ("static/index.html", b"hello", 0o644),
    ])
}

fn refused(status: StatusCode, text: &str) -> (StatusCode, String) {
    (status, format!("{text}\n"))
}

#[tokio::test]
async fn only_the_proxy_and_only_from_its_own_user_is_served() {
    let world = world();
    let plain = || {
        Request::get("/debug/application").header("authorization", format!("Bearer {}", world.operator_token))
    };
    let forbidden = refused(StatusCode::FORBIDDEN, "Forbidden");
    for token in ["", "garbage", &world.operator_token, &world.proxy_token.to_uppercase()] {
        let request = plain().header(PROXY_TOKEN, token).body(Body::empty()).unwrap();
        assert_eq!(read(world.send(request).await).await, forbidden, "{token}");
    }
    assert_eq!(read(world.send(plain().body(Body::empty()).unwrap()).await).await, forbidden);
    let request = plain().header(PROXY_TOKEN, &world.proxy_token).body(Body::empty()).unwrap();
    assert_eq!(
        read(world.router(8).oneshot(request).await.unwrap()).await,
        forbidden,
        "another user's process"
    );
}

#[tokio::test]
async fn every_debug_call_needs_the_operators_bearer() {
    let world = world();
    let unauthorized = refused(StatusCode::UNAUTHORIZED, "Unauthorized");
    let bearers = [
        None,
        Some("Bearer x".to_owned()),
        Some(format!("Basic {}", world.operator_token)),
        Some(format!("Bearer {}", world.proxy_token)),
    ];
    let calls = [
        ("POST", ""),
        ("GET", ""),
        ("GET", "/x"),
        ("DELETE", "/x"),
        ("POST", "/x/upload"),
        ("GET", "/x/upload/status"),
        ("POST", "/x/install"),
        ("POST", "/x/install-dev"),
        ("POST", "/x/install-package"),
        ("GET", "/x/status"),
        ("GET", "/x/logs"),
        ("POST", "/x/stop"),
        ("GET", "/x/y/z"),
    ];
    for (method, path) in calls {
        for bearer in &bearers {
            let mut request = Request::builder()
                .method(method)
                .uri(format!("/debug/application{path}"))
                .header(PROXY_TOKEN, &world.proxy_token);
            if let Some(bearer) = bearer {
                request = request.header("authorization", bearer);
            }
            assert_eq!(
                read(world.send(request.body(Body::empty()).unwrap()).await).await,
                unauthorized,
                "{method} {path}"
            );
        }
    }
}

#[tokio::test]
async fn an_administrator_of_whom_the_proxy_speaks_needs_no_bearer_and_without_the_proxy_is_nobody() {
    let world = world();
    let ask = || Request::get("/debug/application").header("x-user-id", "7");
    let request = ask().header(PROXY_TOKEN, &world.proxy_token).body(Body::empty()).unwrap();
    assert_eq!(read(world.send(request).await).await.0, OK);
    let request = ask().body(Body::empty()).unwrap();
    assert_eq!(read(world.send(request).await).await, refused(StatusCode::FORBIDDEN, "Forbidden"));
}

#[tokio::test]
async fn a_program_on_this_machine_of_which_the_proxy_speaks_needs_no_bearer() {
    let world = world();
    let ask = |path: &str, callers: &[&str]| {
        let request = Request::get(path).header(PROXY_TOKEN, &world.proxy_token);
        let request = callers.iter().fold(request, |request, caller| request.header("x-caller-id", *caller));
        request.body(Body::empty()).unwrap()
    };
    let list = "/debug/application";
    assert_eq!(read(world.send(ask(list, &["@loopback"])).await).await.0, OK);
    for callers in [&["loopback"][..], &["@loopback", "@loopback"], &["an-app"]] {
        assert_eq!(
            read(world.send(ask(list, callers)).await).await.0,
            StatusCode::UNAUTHORIZED,
            "{callers:?}"
        );
    }
    let platform = ask("/internal/platform/instances", &["@loopback"]);
    assert_eq!(read(world.send(platform).await).await.0, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn the_room_of_the_login_answers_without_a_bearer() {
    let world = world();
    for (path, what) in
        [("login", "login"), ("logout", "logout"), ("access_token", "the exchange of access tokens")]
    {
        let request = Request::post(format!("/public/{path}"))
            .header("host", "any")
            .header(PROXY_TOKEN, &world.proxy_token);
        let answer = read(world.send(request.body(Body::from("{}")).unwrap()).await).await;
        let text = format!(
            "{what} is not installed yet; use the operator token (nexushub secret debug-api) as bearer"
        );
        assert_eq!(answer, refused(StatusCode::SERVICE_UNAVAILABLE, &text));
    }
}

#[tokio::test]
async fn an_application_is_created_shown_listed_and_deleted() {
    let world = world();
    let body = r#"{"appId":"debug-a","displayName":"Debug: A","hostName":"A.debug.yesterday.localhost:8443","dbName":"debug_a.db","staticServiceUrl":"http://localhost:5173","more":1}"#;
    let (status, text) = world.call("POST", "/debug/application", body).await;
    assert_eq!(status, StatusCode::CREATED);
    let made = json(&text);
    assert_eq!(
        (made["appId"].as_str(), made["hostName"].as_str(), made["status"].as_str()),
        (Some("debug-a"), Some("a.debug"), Some("pending"))
    );
    assert_eq!(made["staticServiceUrl"], "http://localhost:5173");
    assert!(made["createdAt"].as_str().unwrap().ends_with('Z'));
    let id = made["id"].as_str().unwrap();
    for name in [id, "debug-a"] {
        let mut shown = json(&world.call("GET", &format!("/debug/application/{name}"), "").await.1);
        assert!(shown["expiresAt"].take().as_str().unwrap() > made["createdAt"].as_str().unwrap());
        shown.as_object_mut().unwrap().remove("expiresAt");
        assert_eq!(shown, made);
    }
    let listed = json(&world.call("GET", "/debug/application", "").await.1);
    assert_eq!(listed["applications"][0]["id"], made["id"]);
    assert_eq!(
        world.call("DELETE", &format!("/debug/application/{id}"), "").await,
        (StatusCode::NO_CONTENT, String::new())
    );
    let gone = refused(StatusCode::NOT_FOUND, "Debug application not found");
    assert_eq!(world.call("DELETE", &format!("/debug/application/{id}"), "").await, gone);
    assert_eq!(
        json(&world.call("GET", "/debug/application", "").await.1)["applications"],
        serde_json::json!([])
    );
}

#[tokio::test]
async fn who_watches_from_elsewhere_is_told_what_is_counted_of_the_pushed_and_of_nobody_else() {
    let world = world();
    let id = world.create("a", "one").await;
    let line = format!("nexushub_proxy_route_responses_total{{instance=\"{id}\",class=\"2xx\"}} 7\n");
    *world.house.counted.lock().unwrap() = Some(line.clone());
    assert_eq!(world.call("GET", "/debug/metrics", "").await, (OK, line));
    *world.house.counted.lock().unwrap() = None;
    let away = refused(StatusCode::SERVICE_UNAVAILABLE, "proxy does not say what it counts: gone; try again");
    assert_eq!(world.call("GET", "/debug/metrics", "").await, away);
    let request = Request::get("/debug/metrics").header(PROXY_TOKEN, &world.proxy_token);
    let request = request.body(Body::empty()).unwrap();
    assert_eq!(read(world.send(request).await).await, refused(StatusCode::UNAUTHORIZED, "Unauthorized"));
}

#[tokio::test]
async fn an_older_application_of_the_same_app_id_is_removed_first() {
    let world = world();
    let older = world.create("a", "one").await;
    let newer = world.create("a", "one").await;
    assert_ne!(older, newer);
    assert_eq!(world.call("GET", &format!("/debug/application/{older}"), "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(world.hub.list().len(), 1);
}

#[tokio::test]
async fn a_create_call_is_refused_in_the_contracts_words() {
    let world = World::new(Config { max_applications: 2, ..Config::default() });
    let create = |body: &'static str| world.call("POST", "/debug/application", body);
    for body in ["", "{", "[]", "null,", r#"{"appId":1}"#] {
        assert_eq!(create(body).await, refused(BAD, "Invalid request body"), "{body}");
    }
    let big = format!("{{\"appId\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(world.call("POST", "/debug/application", big).await, refused(BAD, "Invalid request body"));
    let missing = refused(BAD, "Missing required fields: appId, displayName, hostName, dbName");
    assert_eq!(create("{}").await, missing);
    assert_eq!(create(r#"{"appId":"a","displayName":"","hostName":"a","dbName":"d"}"#).await, missing);
    let (status, text) =
        create(r#"{"appId":"debug-../../../pwn","displayName":"A","hostName":"a","dbName":"d"}"#).await;
    assert!(status == BAD && text.starts_with("Invalid appId"), "{text}");
    let (status, text) = create(r#"{"appId":"a","displayName":"A","hostName":"a b","dbName":"d"}"#).await;
    assert!(status == BAD && text.starts_with("Invalid hostName"), "{text}");
    let (status, text) = create(r#"{"appId":"a","displayName":"A","hostName":"admin","dbName":"d"}"#).await;
    assert!(status == StatusCode::CONFLICT && text.contains("reserved"), "{text}");
    world.create("a", "one").await;
    let (status, text) = create(r#"{"appId":"b","displayName":"A","hostName":"ONE","dbName":"d"}"#).await;
    assert!(status == StatusCode::CONFLICT && text.contains("taken by debug application a"), "{text}");
    world.create("b", "two").await;
    let (status, text) = create(r#"{"appId":"c","displayName":"A","hostName":"three","dbName":"d"}"#).await;
    assert!(status == StatusCode::TOO_MANY_REQUESTS && text.contains("the limit is 2"), "{text}");
}

#[tokio::test]
async fn a_host_name_of_the_configuration_or_of_the_admin_app_is_refused_before_anything_is_uploaded() {
    let world = world();
    let given = |origin: Origin, host_name: &str| provider::Instance {
        id: format!("its-{host_name}"),
        host_name: host_name.to_owned(),
        origin: origin.into(),
        ..Default::default()
    };
    *world.house.wanted.lock().unwrap() = ListInstancesResponse {
        instances: vec![given(Origin::Static, "fixed"), given(Origin::Debug, "gone")],
        waiting: vec![given(Origin::Dynamic, "shop.debug")],
        ..ListInstancesResponse::default()
    };
    for host in ["fixed", "FIXED", "shop.debug"] {
        let body = format!(r#"{{"appId":"a","displayName":"A","hostName":"{host}","dbName":"d"}}"#);
        let host = host.to_ascii_lowercase();
        let text = format!("Host name {host} is taken by instance its-{host}; choose another");
        let answer = world.call("POST", "/debug/application", body).await;
        assert_eq!(answer, refused(StatusCode::CONFLICT, &text));
    }
    let body = r#"{"appId":"debug-shop","displayName":"A","dbName":"d"}"#;
    let (status, text) = world.call("POST", "/debug/application", body).await;
    assert_eq!((status, json(&text)["hostName"].as_str()), (StatusCode::CREATED, Some("shop-2.debug")));
    world.create("b", "gone").await;
}

#[tokio::test]
async fn an_application_is_restarted_paused_and_resumed_by_procmgr_and_noted() {
    let world = world();
    let id = world.create("a", "a").await;
    let path = |call: &str| format!("/debug/application/a/{call}");
    for call in ["restart", "pause", "pause?message=back%20soon&closed=true", "resume"] {
        let (code, text) = world.call("POST", &path(call), "").await;
        assert_eq!((code, &*text), (StatusCode::NO_CONTENT, ""), "{call}");
    }
    let ordered = [
        format!("restart {id}"),
        format!("pause {id}"),
        format!("pause {id} closed: back soon"),
        format!("resume {id}"),
    ];
    assert_eq!(world.house.orders(), ordered);
    for (query, text) in [
        ("pause?closed=7", "Invalid query: use ?message=TEXT&closed=true"),
        ("pause?message=none", "Invalid parameters: that is no message"),
    ] {
        assert_eq!(world.call("POST", &path(query), "").await, refused(BAD, text));
    }
    let folder = nexushub_chassis::audit::folder(world.state.path());
    let noted = || nexushub_chassis::audit::tail(&folder, 9).unwrap_or_default();
    while noted().len() < 6 {
        tokio::task::yield_now().await;
    }
    let noted = noted();
    let what: Vec<_> = noted.iter().map(|entry| (entry.what.as_str(), entry.result.as_str())).collect();
    let done = ["restart", "pause", "pause", "resume"].map(|what| (format!("application.{what}"), "ok"));
    assert!(
        what[1..5].iter().zip(&done).all(|(one, other)| (one.0, one.1) == (&*other.0, other.1)),
        "{what:?}"
    );
    assert_eq!(what[5].0, "application.pause");
}

#[tokio::test]
async fn a_missing_host_name_is_made_of_the_app_id_and_nobody_elses() {
    let world = world();
    let body = |app_id: &str| format!(r#"{{"appId":"{app_id}","displayName":"A","dbName":"d"}}"#);
    for (app_id, host) in
        [("debug-shop", "shop.debug"), ("shop", "shop-2.debug"), ("debug-shop", "shop.debug")]
    {
        let (status, text) = world.call("POST", "/debug/application", body(app_id)).await;
        assert_eq!((status, json(&text)["hostName"].as_str()), (StatusCode::CREATED, Some(host)), "{text}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_forwarded_to_is_refused_and_one_that_is_goes_to_provider() {
    let world = world();
    for url in ["http://localhost:22", "http://db:5173", "https://localhost:5173"] {
        let body = format!(
            r#"{{"appId":"a","displayName":"A","hostName":"a","dbName":"d","staticServiceUrl":"{url}"}}"#
        );
        let (status, text) = world.call("POST", "/debug/application", body).await;
        assert!(status == BAD && text.starts_with("Invalid staticServiceUrl: "), "{url}: {text}");
    }
    let body = r#"{"appId":"a","displayName":"A","hostName":"a","dbName":"d","staticServiceUrl":"http://localhost:5173"}"#;
    let id = json(&world.call("POST", "/debug/application", body).await.1)["id"].as_str().unwrap().to_owned();
    world.push(&id, &package("v1")).await;
    let instance = world.fakes.instances.lock().unwrap()[&id].clone();
    assert_eq!((instance.debug_port, instance.static_service_url.as_str()), (5173, "http://localhost:5173"));
}

#[tokio::test]
async fn unknown_applications_paths_and_methods_have_their_texts() {
    let world = world();
    let unknown = refused(StatusCode::NOT_FOUND, "Debug application not found");
    for (method, call) in [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/upload"),
        ("GET", "/upload/status"),
        ("POST", "/install"),
        ("POST", "/install-dev"),
        ("POST", "/install-package"),
        ("GET", "/status"),
        ("GET", "/logs"),
        ("POST", "/stop"),
    ] {
        assert_eq!(
            world.call(method, &format!("/debug/application/none{call}"), "").await,
            unknown,
            "{call}"
        );
        assert_eq!(
            world.call(method, &format!("/debug/application/..%2F..%2Fx{call}"), "").await,
            unknown,
            "{call}"
        );
    }
    for path in
        ["/debug", "/debug/", "/debug/application/x/y", "/debug/application/x/upload/y", "/", "/public/x"]
    {
        assert_eq!(world.call("GET", path, "").await, refused(StatusCode::NOT_FOUND, "Not Found"), "{path}");
    }
    let id = world.create("a", "a").await;
    for (method, path) in
        [("PUT", "".to_owned()), ("GET", format!("/{id}/install")), ("POST", format!("/{id}/status"))]
    {
        let answer = world.call(method, &format!("/debug/application{path}"), "").await;
        assert_eq!(answer, refused(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"), "{path}");
    }
    let none = refused(StatusCode::NOT_FOUND, "Upload session not found");
    assert_eq!(world.call("GET", &format!("/debug/application/{id}/upload/status"), "").await, none);
    assert_eq!(
        world.call("POST", &format!("/debug/application/{id}/install"), "").await,
        refused(BAD, "No package uploaded for this application")
    );
    assert_eq!(
        world.call("GET", &format!("/debug/application/{id}/logs"), "").await,
        refused(BAD, "Application is not running")
    );
}
