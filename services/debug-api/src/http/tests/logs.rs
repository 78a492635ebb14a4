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
    assert_eq!(logs(&world, &id, None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    drop((one, two));
    world.fakes.log.lock().unwrap().clear();
    world.call("POST", &format!("/debug/application/{id}/stop"), "").await;
    let none = refused(StatusCode::NOT_FOUND, "Application not found in process manager");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(read(logs(&world, &id, None).await).await, none);
}
