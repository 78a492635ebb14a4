//! What the proxy makes of a request: the right app, the right headers, streams both ways, and an honest status where there
//! is no app to answer.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use nexushub_e2e::{
    App, Connection, Https, Options, Platform, Protocol, Signal, raw::noise, soon, until, workshop,
};
use nexushub_proto::proxy::{
    GetCountersRequest, GetCountersResponse, proxy_service_client::ProxyServiceClient,
};
use serde_json::Value;
use tungstenite::{Message, WebSocket, handshake::derive_accept_key, protocol::Role};

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_host_is_404_and_a_known_one_that_is_down_503_with_a_time_to_come_back() {
    let platform = Platform::start();
    platform.put(platform.instance(&App::named("down").file("crash", "3"))).await.unwrap();
    platform.instance_until("down", "waits", |status| status.restarts >= 3).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let unknown = platform.https().send(protocol, "nobody", get("/")).await.unwrap();
        assert_eq!(unknown.status, 404, "{}", unknown.text());
        let down = platform.https().send(protocol, "down", get("/")).await.unwrap();
        assert_eq!(down.status, 503, "{}", down.text());
        assert!(down.header("retry-after").parse::<u32>().is_ok(), "{:?}", down.headers);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_an_app_that_starts_waits_for_it() {
    let platform = Platform::start_with(&Options::with("[proxy]\nhold_ms = 600000\n"));
    platform.put(platform.instance(&App::named("hello").file("status", "500"))).await.unwrap();
    platform.instance_until("hello", "has a process", |status| status.pid > 0).await;
    let https = platform.https();
    until("the proxy knows it", || {
        let metrics = workshop::nexushub(platform.home.path(), &["metrics"]).stdout;
        String::from_utf8_lossy(&metrics).contains("instance=\"hello\"").then_some(())
    })
    .await;
    let (answer, ()) = tokio::join!(https.get("hello", "/"), async { platform.untell("hello", "status") });
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_learns_who_asked_for_what_and_nothing_that_is_between_client_and_proxy() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let request = Request::get("/public/whoami?a=b")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-forwarded-proto", "gopher")
        .header("x-forwarded-host", "evil.example")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("proxy-authorization", "Basic eDp5")
        .header("te", "trailers")
        .header("x-kept", "yes");
    let answer = platform
        .https()
        .send(Protocol::Http1, "hello", request.body(Full::default()).unwrap())
        .await
        .unwrap();
    let portrait = answer.json();
    let headers = portrait["headers"].as_array().unwrap();
    let values = |name: &str| -> Vec<String> {
        let found = headers.iter().filter(|pair| pair[0] == name);
        found.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(values("x-forwarded-for").join(", ").split(", ").last(), Some("127.0.0.1"));
    assert_eq!(values("x-forwarded-proto"), ["https"]);
    assert_eq!(values("x-forwarded-host"), [platform.https().authority("hello")]);
    assert_eq!(values("x-kept"), ["yes"]);
    for hidden in ["x-private", "proxy-authorization", "keep-alive", "upgrade"] {
        assert!(values(hidden).is_empty(), "{hidden}: {headers:?}");
    }
    assert_eq!(values("host").len(), 1);
    assert!(
        headers.iter().any(|pair| ["x-request-id", "x-trace-id"].iter().any(|name| pair[0] == *name)),
        "{headers:?}"
    );
    let ids: Vec<Value> =
        headers.iter().filter(|pair| pair[0] == "x-request-id").map(|pair| pair[1].clone()).collect();
    assert_eq!(
        ids,
        [Value::from(answer.header("x-request-id"))],
        "client and app know the request by the same id"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_pass_unchanged_in_both_directions() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let body = Bytes::from(noise(3, 8 << 20));
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let request = Request::post("/echo").body(Full::new(body.clone())).unwrap();
        let answer = platform.https().send(protocol, "hello", request).await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{protocol:?}: {} bytes came back", answer.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_streamed_as_it_is_written() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let key = format!("{protocol:?}");
        let mut connection = platform.https().open(protocol, "hello").await.unwrap();
        let mut body = connection.begin(get(&format!("/sse?key={key}"))).await.unwrap().into_body();
        for number in 1..=3 {
            let frame = soon("an event", body.frame()).await.unwrap().unwrap();
            assert_eq!(
                frame.into_data().unwrap(),
                format!("data: {number}\n\n"),
                "before the next one is written"
            );
            platform.https().get("hello", &format!("/go?key={key}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_has_begun_outlives_provider_procmgr_and_debug_api() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let mut connection = platform.https().open(Protocol::Http2, "hello").await.unwrap();
    let mut body = connection.begin(get("/slow?key=a")).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun\n");
    for name in ["provider", "procmgr", "debug-api"] {
        platform.kill(name).await;
    }
    platform.https().get("hello", "/go?key=a").await;
    assert_eq!(soon("the rest", body.collect()).await.unwrap().to_bytes(), "done\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_and_outlives_provider_procmgr_and_debug_api() {
    use hyper_util::rt::TokioIo;
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let request = Request::get("/ws").header("connection", "upgrade").header("upgrade", "websocket");
    let request = request
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", key)
        .body(Full::default())
        .unwrap();
    let mut connection = platform.https().open(Protocol::Http1, "hello").await.unwrap();
    let answer = connection.begin(request).await.unwrap();
    assert_eq!(answer.status(), 101);
    assert_eq!(answer.headers()["sec-websocket-accept"], derive_accept_key(key.as_bytes()).as_str());
    let upgraded = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    let bridge = tokio_util::io::SyncIoBridge::new(upgraded);
    let (say, said) = std::sync::mpsc::channel::<Message>();
    let (hear, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let client = tokio::task::spawn_blocking(move || {
        let mut socket = WebSocket::from_raw_socket(bridge, Role::Client, None);
        for message in said {
            socket.send(message).unwrap();
            hear.send(socket.read().unwrap()).unwrap();
        }
        socket.close(None).unwrap();
        while socket.read().is_ok() {}
    });
    let large = Message::binary(noise(5, 300_000));
    for message in [Message::text("hello"), Message::binary(vec![0, 255]), large] {
        say.send(message.clone()).unwrap();
        assert!(soon("an echo", heard.recv()).await.unwrap() == message);
    }
    for name in ["provider", "procmgr", "debug-api"] {
        platform.kill(name).await;
        say.send(Message::text(name)).unwrap();
        assert_eq!(soon("an echo", heard.recv()).await.unwrap(), Message::text(name));
    }
    drop(say);
    soon("the client closes", client).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_procmgr_away_the_last_table_is_served_and_unknown_hosts_are_not_404_before_the_first() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    let procmgr = platform.daemon("procmgr").await;
    procmgr.signal(Signal::STOP);
    let proxy = platform.daemon("proxy").await;
    proxy.kill();
    platform.replaced("proxy", proxy.pid).await;
    assert_eq!(
        platform.https().get("hello", "/").await.json()["pid"],
        app.pid,
        "from the table that was kept"
    );
    procmgr.signal(Signal::CONT);
    platform.daemon("procmgr").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn internal_paths_need_an_apps_secret_and_static_files_come_from_the_release() {
    let platform = Platform::start();
    let release = platform.release("hello");
    std::fs::create_dir_all(release.join("static/deep")).unwrap();
    std::fs::write(release.join("static/index.html"), "<p>index").unwrap();
    std::fs::write(release.join("static/deep/page.css"), "p{}").unwrap();
    platform.put(platform.instance(&App::named("hello"))).await.unwrap();
    platform.running("hello").await;
    let https = platform.https();
    assert_eq!(https.get("hello", "/").await.text(), "<p>index");
    let page = https.get("hello", "/deep/page.css").await;
    assert_eq!(
        (page.status.as_u16(), page.text().as_str(), page.header("content-type")),
        (200, "p{}", "text/css; charset=utf-8")
    );
    for path in
        ["/no", "/deep", "/../bin/app", "/%2e%2e/bin/app", "/deep/%2e%2e/%2e%2e/bin/app", "/..%2fbin%2fapp"]
    {
        let answer = https.get("hello", path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    for guarded in ["/api/whoami", "/internal/x"] {
        assert_eq!(https.get("hello", guarded).await.status, 401, "{guarded}");
    }
    let secret = https.get("hello", "/public/whoami").await.json()["env"]["INTERNAL_SECRET"]
        .as_str()
        .unwrap()
        .to_owned();
    for (token, status) in [("nonsense", 401), (secret.as_str(), 404)] {
        let request = Request::get("/internal/x")
            .header("authorization", format!("Bearer {token}"))
            .body(Full::default())
            .unwrap();
        assert_eq!(
            https.send(Protocol::Http1, "hello", request).await.unwrap().status,
            status,
            "404 is the app's own"
        );
    }
}

async fn counters(platform: &Platform) -> GetCountersResponse {
    let mut proxy = ProxyServiceClient::new(platform.operate("proxy"));
    proxy.get_counters(GetCountersRequest {}).await.unwrap().into_inner()
}

/// A connection on which an answer has begun, once there is a place for it.
async fn in_use(https: &Https, protocol: Protocol, key: &str) -> (Connection, Incoming) {
    let begun = async {
        loop {
            if let Ok(mut connection) = https.open(protocol, "hello").await
                && let Ok(answer) = connection.begin(get(&format!("/slow?key={key}"))).await
            {
                return (connection, answer.into_body());
            }
        }
    };
    let (connection, mut body) = soon("an answer", begun).await;
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun\n");
    (connection, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_too_many_connections_an_idle_one_makes_way_and_none_that_is_in_use() {
    let platform = Platform::start_with(&Options::with("[proxy]\nmax_connections = 2\n"));
    platform.run_app(&App::named("hello")).await;
    let https = platform.https();
    for (number, protocol) in [(1, Protocol::Http1), (2, Protocol::Http2)] {
        let gone = async { while counters(&platform).await.connections_open > 0 {} };
        soon("the connections of before are gone", gone).await;
        let (_used, body) = in_use(&https, protocol, &format!("first-{number}")).await;
        let mut idle = https.open(protocol, "hello").await.unwrap();
        assert_eq!(idle.send(get("/")).await.unwrap().status, 200);
        let also = in_use(&https, protocol, &format!("second-{number}")).await;
        assert!(idle.send(get("/")).await.is_err(), "it made way");
        assert!(https.send(protocol, "hello", get("/")).await.is_err(), "all are in use");
        assert_eq!(counters(&platform).await.connections_displaced, number);
        drop(also);
        let go = format!("/go?key=first-{number}");
        let room = async { while https.send(protocol, "hello", get(&go)).await.is_err() {} };
        soon("there is room again", room).await;
        assert_eq!(soon("the rest", body.collect()).await.unwrap().to_bytes(), "done\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_whose_kept_table_is_noise_starts_without_it() {
    let mut platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    platform.kill_supervisor().await;
    let mut spoiled = 0;
    for file in std::fs::read_dir(platform.state().join("proxy")).unwrap().flatten() {
        std::fs::write(file.path(), noise(13, 3000)).unwrap();
        spoiled += 1;
    }
    assert!(spoiled > 0, "the table is kept in a file");
    platform.start_supervisor();
    platform.running("hello").await;
    // Without a table it knows no app until it has heard procmgr, and says so.
    let known = async {
        loop {
            let answer = platform.https().get("hello", "/").await;
            if answer.status != 503 {
                return answer;
            }
        }
    };
    assert_eq!(soon("the proxy hears of its apps", known).await.json()["pid"], app.pid);
}
