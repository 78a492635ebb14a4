//! What a platform elsewhere says, and what must not be believed or repeated of it.

#![allow(clippy::unwrap_used)]

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use http::Response;
use http_body_util::Full;
use serde_json::{Value, json};

use super::*;
use crate::{
    https::{Bearer, Target},
    instances,
    session::tests::fake::{BASE, Fake, said},
};

fn listed() -> Value {
    json!({
        "id": "1-a", "appId": "debug-shop", "displayName": "Debug: shop", "hostName": "shop", "dbName": "x.db",
        "status": "running", "createdAt": "1970-01-01T00:00:01.000Z",
    })
}

fn standing() -> Value {
    json!({
        "applicationId": "1-a", "status": "running", "processId": 7, "healthCheck": "healthy",
        "details": {
            "current": true, "state": "running", "reason": "", "since": "1970-01-01T00:00:02.000Z", "generation": 3,
            "restarts": 1, "release": "ab-2", "driver": "sandbox", "notEnforced": ["x"], "draining": [], "history": [],
            "usage": {"memoryBytes": 5, "cpuUsec": 6, "dataBytes": 0},
        },
    })
}

fn instance(change: impl Fn(&mut Value)) -> Option<InstanceStatus> {
    let app: Listed = serde_json::from_value(listed()).unwrap();
    let mut standing = standing();
    change(&mut standing);
    serde_json::from_value::<Standing>(standing).unwrap().instance(app.into())
}

#[test]
fn an_app_is_told_as_procmgr_would_tell_it() {
    let expected = InstanceStatus {
        id: "1-a".into(),
        app_id: "debug-shop".into(),
        display_name: "Debug: shop".into(),
        host_name: "shop".into(),
        state: State::Running.into(),
        since_unix_ms: 2000,
        generation: 3,
        pid: 7,
        routed: true,
        restarts: 1,
        release: "ab-2".into(),
        driver: "sandbox".into(),
        not_enforced: vec!["x".into()],
        usage: Some(Usage { memory_bytes: 5, cpu_usec: 6, ..Usage::default() }),
        ..InstanceStatus::default()
    };
    assert_eq!(instance(|_| {}), Some(expected));
    let failed = instance(|said| {
        said["status"] = "failed".into();
        said["error"] = "exited with code 3\none\ntwo".into();
        said["healthCheck"] = Value::Null;
        said["details"]["state"] = "failed".into();
        said["details"]["reason"] = "exited with code 3".into();
        said["details"]["lastExit"] = json!({"code": 3, "at": "1970-01-01T00:00:01.000Z"});
        said["details"]["retryAt"] = "1970-01-01T00:00:09.000Z".into();
    })
    .unwrap();
    assert_eq!(
        (failed.state(), failed.routed, failed.last_words.as_str()),
        (State::Failed, false, "one\ntwo")
    );
    assert_eq!((instances::why(&failed, 0).as_str(), failed.retry_unix_ms), ("exited with code 3", 9000));
    let given_up = instance(|said| said["error"] = "exited with code 3\none".into()).unwrap();
    let told = (given_up.reason.as_str(), given_up.last_words.as_str());
    assert_eq!(told, ("runs as it was; the newest release failed: exited with code 3", "one"));
    let flagged = instance(|said| said["healthCheck"] = "unhealthy".into()).unwrap();
    assert!(flagged.flagged && !flagged.routed);
    assert_eq!(instance(|said| said["details"]["since"] = "".into()), None, "nothing of it runs");
    let given_up = instance(|said| {
        said["status"] = "failed".into();
        said["error"] = "exited with code 3\nno such table".into();
        (said["processId"], said["healthCheck"]) = (Value::Null, Value::Null);
        for (field, value) in [("processId", json!(7)), ("routed", json!(true)), ("flagged", json!(false))] {
            said["details"][field] = value;
        }
    })
    .unwrap();
    let runs = (given_up.state(), given_up.pid, given_up.routed, given_up.flagged);
    assert_eq!(runs, (State::Running, 7, true, false), "the one before serves");
    assert_eq!(given_up.last_words, "no such table");
}

#[test]
fn nothing_that_is_said_moves_a_terminal() {
    let evil = "\u{1b}[2Jx\ny";
    let told = instance(|said| {
        said["error"] = format!("first\n{evil}\u{1b}]0;t\u{7}").into();
        for field in ["reason", "release", "driver", "state"] {
            said["details"][field] = evil.into();
        }
    })
    .unwrap();
    let all = [told.reason, told.release, told.driver, told.last_words.replace('\n', "")].concat();
    assert!(!all.contains(char::is_control), "{all:?}");
}

#[test]
fn names_that_are_none_are_refused() {
    for (field, wrong) in [
        ("id", "../x"),
        ("id", ""),
        ("id", "a/b?c"),
        ("appId", "\u{1b}[2J"),
        ("hostName", "shop\nx"),
        ("hostName", "a b"),
    ] {
        let mut said = listed();
        said[field] = wrong.into();
        assert!(serde_json::from_value::<Listed>(said).is_err(), "{field}: {wrong:?}");
    }
    let mut said = listed();
    said["status"] = "run\u{1b}ning".into();
    assert_eq!(Application::from(serde_json::from_value::<Listed>(said).unwrap()).status, "unknown");
}

/// A client of a platform that answers every request so.
async fn client(status: u16, body: impl Into<Bytes>) -> (Fake, Client) {
    let body = body.into();
    let fake = Fake::start(move |_| ready(said(status, body.clone()))).await;
    let target = Target::at(format!("admin.{BASE}"), fake.port);
    let client = Client::new(target, &fake.kept("").roots(), Bearer::Operator("t".into())).unwrap();
    (fake, client)
}

#[tokio::test]
async fn answers_that_are_none_are_failures_in_words() {
    for (status, body, words) in [
        (200, "<html>".to_owned(), "is not understood"),
        (200, "{\"applications\":[{}]}".to_owned(), "is not understood"),
        (307, String::new(), "(307)"),
        (403, "Forbidden\n".to_owned(), "Forbidden (403)"),
        (200, format!("{{\"applications\":[], \"x\":\"{}\"}}", "x".repeat(2 << 20)), "length limit exceeded"),
    ] {
        let (_fake, client) = client(status, body).await;
        let failure = list(&client).await.unwrap_err();
        assert!(failure.message.contains(words), "{failure}");
    }
}

#[tokio::test]
async fn one_that_is_removed_meanwhile_is_left_out() {
    let fake = Fake::start(|asked| {
        let list = json!({ "applications": [listed()] }).to_string();
        ready(if asked.line == "GET /debug/application" { said(200, list) } else { said(404, "gone\n") })
    })
    .await;
    let target = Target::at(format!("admin.{BASE}"), fake.port);
    let client = Client::new(target, &fake.kept("").roots(), Bearer::Operator("t".into())).unwrap();
    let known = instances(&client, |_| true).await.unwrap();
    assert!(known.whole && known.all.is_empty());
    assert_eq!(fake.asked()[1].line, "GET /debug/application/1-a/status?details=true");
}

#[tokio::test]
async fn a_log_that_is_of_another_form_is_not_shown() {
    let fake = Fake::start(|_| {
        ready(Response::builder().header("content-type", "text/html").body(Full::from("<html>")).unwrap())
    })
    .await;
    let target = Target::at(format!("admin.{BASE}"), fake.port);
    let client = Client::new(target, &fake.kept("").roots(), Bearer::Operator("t".into())).unwrap();
    let wish = log::tests::wish(&["-f"]);
    let failure = log::follow(&client, "1", &wish).await.unwrap_err();
    assert!(failure.message.contains("is of another form"), "{failure}");
}

/// What is told of an app `shop` by a platform that answers so.
async fn feed(
    answer: impl Fn(&str) -> Response<Full<Bytes>> + Clone + Send + Sync + 'static,
) -> (Fake, feed::Feed) {
    let fake = Fake::start(move |asked| ready(answer(&asked.line))).await;
    let target = Target::at(format!("admin.{BASE}"), fake.port);
    let client = Client::new(target, &fake.kept("").roots(), Bearer::Operator("t".into())).unwrap();
    (fake, feed::Feed::new(client, Some("shop"), &nexushub_chassis::names::Zone::new(BASE, 8443)))
}

#[tokio::test]
async fn a_stream_tells_of_the_app_that_is_meant_and_is_asked_for_again_when_it_breaks_off() {
    let mut other = listed();
    (other["id"], other["appId"], other["hostName"]) = ("2-b".into(), "debug-other".into(), "other".into());
    let entry = |listed: Value| {
        let entry = json!({ "application": listed, "standing": standing() });
        format!("event: application\ndata: {entry}\n\n")
    };
    let text = [entry(listed()), entry(other), "event: whole\ndata: {}\n\n".to_owned()].concat();
    let (fake, mut feed) = feed(move |_| {
        let events = Response::builder().header("content-type", "text/event-stream");
        events.body(Full::from(text.clone())).unwrap()
    })
    .await;
    for _ in 0..2 {
        let known = feed.next().await.unwrap();
        assert!(known.whole);
        assert_eq!(known.all.keys().collect::<Vec<_>>(), ["1-a"]);
        assert!(feed.next().await.is_err_and(|failure| failure.passing), "it broke off");
    }
    let lines: Vec<_> = fake.asked().into_iter().map(|asked| asked.line).collect();
    assert_eq!(lines, ["GET /debug/application", "GET /debug/application"]);
}

#[tokio::test]
async fn a_platform_with_no_place_for_another_reader_is_asked_instead_until_it_refuses() {
    let count = Arc::new(AtomicUsize::new(0));
    let fake = Fake::start(move |_| {
        ready(match count.fetch_add(1, Ordering::Relaxed) {
            0 => said(503, "Too many streams of statuses\n"),
            1 | 3 => said(200, json!({ "applications": [listed()] }).to_string()),
            2 | 4 => said(200, standing().to_string()),
            5 => said(403, "Forbidden\n"),
            _ => {
                let events = Response::builder().header("content-type", "text/event-stream");
                events.body(Full::from("event: whole\ndata: {}\n\n")).unwrap()
            }
        })
    })
    .await;
    let target = Target::at(format!("admin.{BASE}"), fake.port);
    let client = Client::new(target, &fake.kept("").roots(), Bearer::Operator("t".into())).unwrap();
    let zone = nexushub_chassis::names::Zone::new(BASE, 8443);
    let mut feed = feed::Feed::new(client, Some("shop"), &zone);
    for _ in 0..2 {
        assert_eq!(feed.next().await.unwrap().all.keys().collect::<Vec<_>>(), ["1-a"]);
    }
    assert!(feed.next().await.is_err_and(|failure| !failure.passing), "a refusal does not pass");
    assert!(feed.next().await.unwrap().all.is_empty(), "the stream is asked for again");
}

#[tokio::test]
async fn a_platform_that_has_no_such_stream_is_asked_again_and_again() {
    let (fake, mut feed) = feed(|line| match line {
        "GET /debug/application" => said(200, json!({ "applications": [listed()] }).to_string()),
        _ => said(200, standing().to_string()),
    })
    .await;
    for _ in 0..2 {
        assert_eq!(feed.next().await.unwrap().all.keys().collect::<Vec<_>>(), ["1-a"]);
    }
    assert_eq!(fake.asked().len(), 5, "once for the stream, then for the list and the app");
}
