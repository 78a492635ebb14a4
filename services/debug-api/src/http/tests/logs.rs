//! Log streams.

use super::*;

async fn frames(response: Response, count: usize) -> Vec<String> {
    let mut body = response.into_body().into_data_stream();
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        text += std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap();
    }
    text.split("\n\n").take(count).map(str::to_owned).collect()
}

async fn logs(world: &World, id: &str, last: Option<&str>) -> Response {
    let mut request = world.request("GET", &format!("/debug/application/{id}/logs"));
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test(start_paused = true)]
async fn a_log_stream_starts_with_the_platform_then_the_newest_then_keeps_alive() {
    let world = world();
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    world.fakes.logged(1, 80);
    let response = logs(&world, &id, None).await;
    assert_eq!(response.status(), OK);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
        ("connection", "keep-alive"),
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", "Cache-Control"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    let frames = frames(response, 52).await;
    let data = |frame: &str| {
        serde_json::from_str::<serde_json::Value>(frame.split_once("data: ").unwrap().1).unwrap()
    };
    let first = data(&frames[0]);
    assert_eq!((first["id"].as_u64(), first["source"].as_str()), (Some(0), Some("system")));
    assert_eq!(first["message"], format!("Log stream started for application {id}"));
    for (frame, cursor) in frames[1..51].iter().zip(31..) {
        assert!(frame.starts_with(&format!("event: log\nid: 1:{cursor}\ndata: ")), "{frame}");
        assert_eq!(data(frame)["message"], format!("line {cursor}"));
        assert_eq!(
            (data(frame)["level"].as_str(), data(frame)["source"].as_str(), data(frame)["pid"].as_u64()),
            (Some("info"), Some("stdout"), Some(42))
        );
    }
    assert_eq!(frames[51], "event: keepalive");
}

#[tokio::test(start_paused = true)]
async fn a_log_stream_is_resumed_by_its_last_event_and_waits_for_an_app_that_has_none_yet() {
    let world = World::new(Config { max_log_streams: 2, ..Config::default() });
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    let waiting = logs(&world, &id, None).await;
    world.fakes.logged(1, 9);
    assert!(frames(waiting, 2).await[1].contains("line 1"));
    for id_of_seven in ["7", "1:7"] {
        let resumed = frames(logs(&world, &id, Some(id_of_seven)).await, 3).await;
        assert!(resumed[1].contains("line 8") && resumed[2].contains("line 9"));
    }
    let new = frames(logs(&world, &id, Some("no id of ours")).await, 2).await;
    assert!(new[1].contains("line 1"), "an id that means nothing begins a new stream");
    let gap = frames(logs(&world, &id, Some("0")).await, 2).await;
    assert!(
        gap[1].contains("3 log lines are missing here")
            && gap[1].contains("\"source\":\"system\"")
            && gap[1].contains("\nid: 1:0\n"),
        "{}",
        gap[1]
    );
    let (one, two) = (logs(&world, &id, None).await, logs(&world, &id, None).await);
    let full = refused(StatusCode::SERVICE_UNAVAILABLE, "Too many streams of logs: the limit is 2");
    assert_eq!(read(logs(&world, &id, None).await).await, full);
    drop((one, two));
    world.fakes.log.lock().unwrap().clear();
    world.call("POST", &format!("/debug/application/{id}/stop"), "").await;
    let none = refused(StatusCode::NOT_FOUND, "Application not found in process manager");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(read(logs(&world, &id, None).await).await, none);
}

/// What a stream says until it ends.
async fn whole(world: &World, id: &str, query: &str, accept: &str) -> (StatusCode, String) {
    let path = format!("/debug/application/{id}/logs{query}");
    let ask = world.ask("GET", &path, &[("accept", accept)], "").await;
    (ask.status, ask.text)
}

/// An app that has logged this.
async fn logged(world: &World, lines: &[&str]) -> String {
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    world.fakes.logged(1, lines.len() as u64);
    for (entry, line) in world.fakes.log.lock().unwrap().iter_mut().zip(lines) {
        entry.line = line.as_bytes().to_vec();
        entry.unix_ms = i64::try_from(entry.cursor).unwrap() * 1000;
    }
    id
}

const NDJSON: &str = "application/x-ndjson";

fn object(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap()
}

/// The texts of a whole answer, and the reason of its end.
fn texts(ndjson: &str) -> (Vec<String>, String) {
    let mut lines: Vec<_> = ndjson.lines().map(object).collect();
    let end = lines.pop().unwrap();
    assert_eq!(end["event"], "end");
    let text = |line: &serde_json::Value| line["text"].as_str().unwrap().to_owned();
    (lines.iter().map(text).collect(), end["reason"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_log_is_read_in_the_form_that_the_client_asks_for_and_ends_with_a_word() {
    let world = world();
    let id = logged(&world, &["INFO one", "WARN two"]).await;
    let (status, text) = whole(&world, &id, "?follow=false", NDJSON).await;
    assert_eq!(status, OK);
    let first = object(text.lines().next().unwrap());
    assert_eq!((first["text"].as_str(), first["level"].as_str()), (Some("INFO one"), Some("info")));
    assert_eq!((first["cursor"].as_str(), first["stream"].as_str()), (Some("1:1"), Some("stdout")));
    assert_eq!(texts(&text), (vec!["INFO one".to_owned(), "WARN two".to_owned()], "complete".to_owned()));
    let (_, plain) = whole(&world, &id, "?follow=false", "text/plain").await;
    assert_eq!(plain, "INFO one\nWARN two\n-- this is all that is kept --\n");
    let (_, events) = whole(&world, &id, "?follow=false", "").await;
    assert!(events.contains("event: end\ndata: {") && events.contains("\"reason\":\"complete\""), "{events}");
}

#[tokio::test(start_paused = true)]
async fn a_log_begins_where_the_client_wants_it_to_and_has_the_lines_that_it_wants() {
    let world = world();
    let id = logged(&world, &["ERROR 1", "INFO 2", "WARN 3 x", "ERROR 4", "INFO 5 x", "ERROR 6"]).await;
    for (query, expected) in [
        ("tail=2", &["INFO 5 x", "ERROR 6"][..]),
        ("tail=0", &[]),
        ("tail=all", &["ERROR 1", "INFO 2", "WARN 3 x", "ERROR 4", "INFO 5 x", "ERROR 6"]),
        ("level=error", &["ERROR 1", "ERROR 4", "ERROR 6"]),
        ("level=warn&tail=2", &["ERROR 4", "ERROR 6"]),
        ("grep=x", &["WARN 3 x", "INFO 5 x"]),
        ("grep=x&level=warn", &["WARN 3 x"]),
        ("since=1970-01-01T00:00:05Z", &["INFO 5 x", "ERROR 6"]),
        ("since=1970-01-01T00:00:03Z&tail=1&grep=x", &["INFO 5 x"]),
        ("since=1m", &[]),
        ("after=1:4", &["INFO 5 x", "ERROR 6"]),
        ("after=1:2&level=error&tail=1&since=1m", &["ERROR 4", "ERROR 6"]),
    ] {
        let (status, text) = whole(&world, &id, &format!("?follow=0&{query}"), NDJSON).await;
        assert_eq!(
            (status, texts(&text).0),
            (OK, expected.iter().map(ToString::to_string).collect()),
            "{query}"
        );
    }
    for (query, why) in [
        ("tail=-1", "Invalid parameter tail: use a number up to 10000, or all\n"),
        ("after=nonsense", "Invalid parameter after: use a cursor of this log\n"),
    ] {
        assert_eq!(whole(&world, &id, &format!("?{query}"), NDJSON).await, (BAD, why.to_owned()));
    }
    let (status, unknown) = whole(&world, &id, "?lines=5", NDJSON).await;
    assert!(status == BAD && unknown.contains("unknown field `lines`"), "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn a_whole_log_is_whole_though_procmgr_dies_while_it_is_read_and_while_its_end_is_searched_for() {
    let world = world();
    let id = logged(&world, &["ERROR 1", "INFO 2", "ERROR 3", "ERROR 4"]).await;
    for at in 0..4 {
        *world.fakes.breaks.lock().unwrap() = Some(at);
        let (_, text) = whole(&world, &id, "?follow=0&level=error", NDJSON).await;
        assert_eq!(texts(&text).0, ["ERROR 1", "ERROR 3", "ERROR 4"], "broken off after {at}");
        *world.fakes.breaks.lock().unwrap() = Some(at);
        let (_, text) = whole(&world, &id, "?follow=0&tail=all", NDJSON).await;
        assert_eq!(texts(&text).0.len(), 4, "broken off after {at}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_wants_little_is_told_how_far_its_log_was_read() {
    let world = world();
    let id = logged(&world, &["INFO 1", "INFO 2"]).await;
    let response = logs(&world, &id, Some("1:1")).await;
    assert_eq!(frames(response, 3).await[2], "event: keepalive", "the contract's own");
    let path = format!("/debug/application/{id}/logs?level=error&after=1:1");
    let filtered = world.send(world.request("GET", &path).body(Body::empty()).unwrap()).await;
    let told = frames(filtered, 2).await;
    assert_eq!(told[1], "event: keepalive\nid: 1:2");
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_why_it_ends() {
    let world = World::new(Config { expiry_s: 5, ..Config::default() });
    let id = logged(&world, &["one"]).await;
    let status = world.request("GET", &format!("/debug/application/{id}/status"));
    let status = status.header("accept", "text/event-stream").body(Body::empty()).unwrap();
    let stood = world.send(status).await;
    assert!(
        read(stood).await.1.contains("expired"),
        "who reads its log keeps an application, and nobody does"
    );
    let id = logged(&world, &["one"]).await;
    let path = format!("/debug/application/{id}/logs");
    let open = || world.request("GET", &path).header("accept", NDJSON).body(Body::empty()).unwrap();
    let deleted = world.send(open()).await;
    world.call("DELETE", &format!("/debug/application/{id}"), "").await;
    assert_eq!(texts(&read(deleted).await.1).1, "deleted");
    let id = logged(&world, &["one"]).await;
    let path = format!("/debug/application/{id}/logs");
    let open = world.request("GET", &path).header("accept", NDJSON).body(Body::empty()).unwrap();
    let left = world.send(open).await;
    let _next = world.restarted();
    assert_eq!(texts(&read(left).await.1).1, "restart");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_costs_little_and_gets_every_line_in_the_end() {
    use crate::outlet::{PIECE, QUEUE};
    use std::sync::atomic::Ordering::Relaxed;

    let world = world();
    let (lines, length) = (5000, 1000);
    let text = |number: usize| format!("{number} {}", "x".repeat(length));
    let all: Vec<String> = (0..lines).map(text).collect();
    let id = logged(&world, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let path = format!("/debug/application/{id}/logs?tail=all&follow=false");
    let slow =
        world.send(world.request("GET", &path).header("accept", "text/plain").body(Body::empty()).unwrap());
    let slow = slow.await;
    while world.fakes.taken.load(Relaxed) == 0 || world.fakes.readers.load(Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await; // the clock is the test's own
    }
    let most = PIECE * (QUEUE + 2);
    let taken = world.fakes.taken.load(Relaxed);
    assert!(taken * length <= most, "{taken} lines wait in memory");
    let fast = whole(&world, &id, "?tail=all&follow=false", NDJSON).await;
    assert_eq!(texts(&fast.1).0.len(), lines, "others are read meanwhile");
    let text = read(slow).await.1;
    let mut told = text.lines();
    assert!(all.iter().all(|line| told.next() == Some(line)), "each line once, in order");
    assert_eq!(told.collect::<Vec<_>>(), ["-- this is all that is kept --"]);
}

/// The events of a status stream, as they come.
struct Statuses(axum::body::BodyDataStream);

impl Statuses {
    async fn open(world: &World, id: &str) -> Self {
        Self::of(world, &format!("/debug/application/{id}/status")).await
    }

    async fn of(world: &World, path: &str) -> Self {
        let request = world.request("GET", path).header("accept", "text/event-stream");
        let response = world.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self(response.into_body().into_data_stream())
    }

    async fn next(&mut self) -> (String, serde_json::Value) {
        let event = self.0.next().await.unwrap().unwrap();
        let event = std::str::from_utf8(&event).unwrap();
        let (name, data) = event.split_once("\ndata: ").unwrap();
        (name.to_owned(), object(data))
    }

    async fn until(&mut self, pleases: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        loop {
            let (name, told) = self.next().await;
            assert_eq!(name, "event: status");
            if pleases(&told) {
                return told;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_status_stream_tells_every_change_lives_and_ends_with_a_word() {
    use nexushub_proto::procmgr::{InstanceStatus, State};

    let world = world();
    let id = world.create("a", "a").await;
    let mut told = Statuses::open(&world, &id).await;
    assert_eq!(told.next().await.1["status"], "pending");
    world.push(&id, &package("v1")).await;
    let runs = told.until(|told| told["status"] == "running").await;
    assert_eq!(
        (runs["healthCheck"].as_str(), runs["details"]["state"].as_str()),
        (Some("healthy"), Some("running"))
    );
    assert_eq!(runs["details"]["usage"]["memoryBytes"], 7);
    let reason = "exited with code 3".to_owned();
    let failed = InstanceStatus { id: id.clone(), state: State::Failed.into(), reason, ..Default::default() };
    world.fakes.says(InstanceStatus { generation: 4, restarts: 1, ..failed });
    let fails = told.until(|told| told["details"]["state"] == "failed").await;
    assert_eq!(
        (fails["details"]["restarts"].as_u64(), fails["details"]["generation"].as_u64()),
        (Some(1), Some(4))
    );
    let newest = &fails["details"]["history"][0];
    assert_eq!(
        (newest["state"].as_str(), newest["reason"].as_str()),
        (Some("failed"), Some("exited with code 3"))
    );
    let beat = told.next().await;
    assert_eq!((beat.0.as_str(), &beat.1["details"]["state"]), ("event: status", &"failed".into()));
    world.call("DELETE", &format!("/debug/application/{id}"), "").await;
    let end = loop {
        let next = told.next().await;
        if next.0 == "event: end" {
            break next.1;
        }
    };
    assert_eq!(end["reason"], "deleted");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_all_tells_what_there_is_what_comes_changes_and_goes() {
    let world = world();
    let first = world.create("a", "a").await;
    let mut told = Statuses::of(&world, "/debug/application").await;
    let (event, entry) = told.next().await;
    assert_eq!((event.as_str(), &entry["application"]["id"]), ("event: application", &first.as_str().into()));
    assert_eq!(
        (&entry["application"]["appId"], &entry["standing"]["status"]),
        (&"a".into(), &"pending".into())
    );
    assert_eq!(told.next().await.0, "event: whole");
    let second = world.create("b", "b").await;
    let (event, entry) = told.next().await;
    assert_eq!(
        (event.as_str(), &entry["application"]["id"]),
        ("event: application", &second.as_str().into())
    );
    world.push(&second, &package("v1")).await;
    let runs = loop {
        let (event, entry) = told.next().await;
        if event == "event: application" && entry["standing"]["status"] == "running" {
            break entry;
        }
    };
    assert_eq!(
        (&runs["application"]["id"], &runs["standing"]["details"]["usage"]["memoryBytes"]),
        (&second.as_str().into(), &7.into())
    );
    world.call("DELETE", &format!("/debug/application/{first}"), "").await;
    let gone = loop {
        let (event, data) = told.next().await;
        if event == "event: removed" {
            break data;
        }
    };
    assert_eq!(gone["id"], first);
    let beat = told.next().await;
    assert_eq!(
        (beat.0.as_str(), &beat.1["application"]["id"]),
        ("event: application", &second.as_str().into())
    );
    let _next = world.restarted();
    while told.next().await.0 != "event: end" {}
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_all_asks_what_they_use_of_all_at_once_and_has_all_that_the_list_has() {
    let world = world();
    for name in ["a", "b", "c"] {
        let id = world.create(name, name).await;
        world.push(&id, &package("v1")).await;
    }
    *world.fakes.together.lock().unwrap() = Some(Arc::new(tokio::sync::Barrier::new(3)));
    let mut told = Statuses::of(&world, "/debug/application").await;
    let list = json(&world.call("GET", "/debug/application", "").await.1);
    let keys = |application: &serde_json::Value| -> Vec<String> {
        application.as_object().unwrap().keys().cloned().collect()
    };
    for _ in 0..3 {
        let (event, entry) = told.next().await;
        assert_eq!(event, "event: application");
        assert_eq!(entry["standing"]["details"]["usage"]["memoryBytes"], 7, "{entry}");
        assert!(entry["application"]["expiresAt"].is_string(), "{entry}");
        assert_eq!(keys(&entry["application"]), keys(&list["applications"][0]));
    }
}

#[tokio::test(start_paused = true)]
async fn the_contracts_status_has_no_more_than_its_fields_unless_more_is_asked_for() {
    let world = World::new(Config { max_status_streams: 1, ..Config::default() });
    let id = world.create("a", "a").await;
    world.push(&id, &package("v1")).await;
    let path = format!("/debug/application/{id}/status");
    let plain = json(&world.call("GET", &path, "").await.1);
    assert!(plain.get("details").is_none() && plain["metadata"].is_object());
    let more = json(&world.call("GET", &format!("{path}?details=true"), "").await.1);
    assert!(more["details"]["history"].is_array() && more["status"] == plain["status"]);
    let _one = Statuses::open(&world, &id).await;
    let second = world.ask("GET", &path, &[("accept", "text/event-stream")], "").await;
    assert_eq!(
        (second.status, second.text.as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "Too many streams of statuses: the limit is 1\n")
    );
    world.fakes.logged(1, 1);
    let logs: Vec<_> = [logs(&world, &id, None).await, logs(&world, &id, None).await].into();
    let all = world.ask("GET", "/debug/application", &[("accept", "text/event-stream")], "").await;
    assert_eq!(all.status, StatusCode::SERVICE_UNAVAILABLE, "the stream of all takes a place as any other");
    assert!(logs.iter().all(|log| log.status() == OK), "logs have places of their own");
}
