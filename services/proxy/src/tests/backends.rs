//! What backends do, well or badly.

use super::*;
use crate::table::{
    State,
    tests::{idle, running},
};

#[tokio::test]
async fn a_request_reaches_its_app_and_the_answer_its_client() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&format!("GET /public/a?b=c HTTP/1.1\r\nHost: {HOST}:8443\r\nX-Forwarded-For: 6.6.6.6\r\nConnection: x-y\r\nX-Y: 1\r\n\r\n")).await;
    let mut app = backend.accept().await;
    let request = app.head().await;
    assert!(request.head.starts_with("GET /public/a?b=c HTTP/1.1\r\n"), "{}", request.head);
    assert!(request.has(&format!("host: {HOST}:8443")));
    assert!(request.has("x-forwarded-for: 127.0.0.1"));
    assert!(request.has("x-forwarded-proto: https"));
    assert!(request.has(&format!("x-forwarded-host: {HOST}:8443")));
    assert_eq!(request.field("x-request-id"), request.field("x-trace-id"));
    assert!(request.field("x-y").is_none() && request.field("connection").is_none());
    app.write("HTTP/1.1 201 Made\r\nContent-Length: 2\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nX-App: yes\r\nX-Request-Id: its own\r\n\r\nok").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.body.as_str()), (201, "ok"));
    assert!(answer.has("x-app: yes") && answer.field("x-hop").is_none());
    assert_eq!(answer.field("x-request-id"), request.field("x-request-id"));
    assert_eq!(answer.head.to_ascii_lowercase().matches("x-request-id").count(), 1, "{}", answer.head);
}

#[tokio::test]
async fn a_backend_connection_serves_one_request_after_another() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    for _ in 0..3 {
        app.head().await;
        app.write(OK).await;
        assert_eq!(client.message().await.body, "ok");
        idle_connections(&hub, 1).await;
        client.write(&get("/public/n")).await;
    }
    app.head().await;
}

/// Waits until so many connections to the app are ready for a request.
async fn idle_connections(hub: &Hub, number: usize) {
    let pool = Arc::clone(hub.publish.borrow().by_id("h1").unwrap().app.as_ref().unwrap());
    patient(async {
        while pool.idle_count() != number {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_between_requests_is_not_used() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    client.message().await;
    drop(app);
    idle_connections(&hub, 0).await;
    client.write(&format!("POST /public/2 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nhi")).await;
    let mut app = backend.accept().await;
    assert_eq!(app.message().await.body, "hi");
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn a_request_on_a_connection_that_closes_at_that_moment_is_repeated_only_if_that_is_safe() {
    for (method, repeated) in [("GET", true), ("DELETE", true), ("POST", false)] {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, calm()).await;
        let mut client = hub.client().await;
        client.write(&get("/public/1")).await;
        let mut app = backend.accept().await;
        app.head().await;
        app.write(OK).await;
        client.message().await;
        idle_connections(&hub, 1).await;
        client.write(&format!("{method} /public/2 HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        app.head().await;
        drop(app); // read, and closed without an answer
        if repeated {
            let mut app = backend.accept().await;
            assert!(app.head().await.head.starts_with(&format!("{method} /public/2 ")));
            app.write(OK).await;
        }
        assert_eq!(client.message().await.status(), if repeated { 200 } else { 502 }, "{method}");
    }
}

#[tokio::test]
async fn a_first_connection_that_breaks_is_a_502() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    for garbage in ["", "garbage\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Len", "HTTP/1.1 999999\r\n\r\n"] {
        client.write(&get("/public/1")).await;
        let mut app = backend.accept().await;
        app.head().await;
        app.write(garbage).await;
        drop(app);
        assert_eq!(client.message().await.status(), 502, "{garbage:?}");
    }
    hub.until(|counters| counters.responses_502.get(), 4).await;
}

#[tokio::test]
async fn a_backend_that_nobody_answers_at_is_a_502() {
    let hub = Hub::start(calm()).await;
    hub.route(vec![running("h1", "hello", Backend::nobody().await)]);
    assert_eq!(hub.ask(&get("/public/1")).await.status(), 502);
}

#[tokio::test]
async fn a_refused_connection_waits_for_the_switch_and_goes_to_the_new_backend() {
    let hub = Hub::start(Config { switch_ms: 60_000, ..calm() }).await;
    hub.route(vec![running("h1", "hello", Backend::nobody().await)]);
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    hub.until(|counters| counters.requests_in_flight.get(), 1).await;
    let backend = Backend::start().await;
    let next = Entry { generation: 2, ..running("h1", "hello", backend.port) };
    hub.change(Change::put(next));
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn requests_wait_for_a_starting_app_within_their_number_and_time() {
    let hub = Hub::start(Config { hold_ms: 60_000, hold_requests: 1, ..calm() }).await;
    hub.route(vec![
        idle("h1", "hello", State::Starting, "health check has not answered yet"),
        idle("s1", "slow", State::Starting, ""),
    ]);
    let mut first = hub.client().await;
    first.write(&format!("POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\n\r\nhi")).await;
    hub.until(|_| hub.proxy.waiting.left("h1"), 0).await;
    let refused = hub.ask(&get("/public/2")).await;
    assert_eq!((refused.status(), refused.field("retry-after")), (503, Some("1")));
    assert_eq!(refused.body, "Service Unavailable: hello is starting: health check has not answered yet\n");
    let mut elsewhere = hub.client().await;
    elsewhere.write("GET /public/3 HTTP/1.1\r\nHost: slow.yesterday.localhost\r\n\r\n").await;
    hub.until(|_| hub.proxy.waiting.left("s1"), 0).await; // another app has seats of its own
    hub.change(Change::put(running("other", "other", 1))); // news of another app change nothing
    let backend = Backend::start().await;
    hub.change(Change::put(running("h1", "hello", backend.port)));
    let mut app = backend.accept().await;
    assert_eq!(app.message().await.body, "hi");
    assert_eq!(hub.proxy.waiting.left("h1"), 1);
    app.write(OK).await;
    assert_eq!(first.message().await.status(), 200);
}

#[tokio::test]
async fn who_gives_up_while_its_request_waits_leaves_its_place_although_nobody_reads_its_body() {
    let hub = Hub::start(Config { hold_ms: 60_000, hold_requests: 1, ..calm() }).await;
    hub.route(vec![idle("h1", "hello", State::Starting, "")]);
    let places = |number| hub.until(|_| hub.proxy.waiting.left("h1"), number);
    for (length, sent) in [(2, "hi"), (5, "hi"), (10_000, "")] {
        let mut client = hub.client().await;
        let head = format!("POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n");
        client.write(&format!("{head}{sent}")).await;
        places(0).await;
        drop(client);
        places(1).await;
    }
    let body = "0123456789abcdef".repeat(4_000);
    let mut client = hub.client().await;
    let head = format!("POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write(&format!("{head}{body}")).await;
    places(0).await;
    let backend = Backend::start().await;
    hub.change(Change::put(running("h1", "hello", backend.port)));
    assert_eq!(backend.accept().await.message().await.body, body, "what was read ahead is the body's");
}

#[tokio::test]
async fn requests_that_wait_for_an_app_go_to_it_in_the_order_in_which_they_came() {
    let hub = Hub::start(Config { hold_ms: 60_000, hold_requests: 16, backend_requests: 1, ..calm() }).await;
    hub.route(vec![idle("h1", "hello", State::Starting, "")]);
    let mut waiting = Vec::new();
    for number in 0..16 {
        let mut client = hub.client().await;
        client.write(&get(&format!("/public/{number}"))).await;
        hub.until(|_| hub.proxy.waiting.left("h1"), 15 - number).await;
        waiting.push(client);
    }
    let backend = Backend::start().await;
    hub.change(Change::put(running("h1", "hello", backend.port)));
    for (number, mut client) in waiting.into_iter().enumerate() {
        let mut app = backend.accept().await;
        let asked = app.head().await.head;
        assert!(asked.starts_with(&format!("GET /public/{number} ")), "{asked}");
        app.write(&OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(client.message().await.status(), 200);
    }
}

#[tokio::test]
async fn a_request_that_comes_before_anything_is_known_waits_for_that() {
    let hub = Hub::start(Config { hold_ms: 60_000, ..calm() }).await;
    let (mut known, mut unknown) = (hub.client().await, hub.client().await);
    known.write(&get("/public/1")).await;
    unknown.write("GET / HTTP/1.1\r\nHost: nobody.yesterday.localhost\r\n\r\n").await;
    hub.until(|counters| counters.requests_in_flight.get(), 2).await;
    let backend = Backend::start().await;
    hub.route(vec![running("h1", "hello", backend.port)]);
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(known.message().await.status(), 200);
    assert_eq!(unknown.message().await.status(), 404);
}

#[tokio::test]
async fn a_wait_that_is_over_is_a_503() {
    let hub = Hub::start(Config { hold_ms: 1, ..calm() }).await;
    assert_eq!(hub.ask(&get("/public/1")).await.status(), 503, "nothing is known");
    hub.route(vec![idle("h1", "hello", State::Starting, "slow")]);
    assert_eq!(hub.ask(&get("/public/1")).await.status(), 503);
}

#[tokio::test]
async fn a_waiting_request_hears_that_its_app_has_failed() {
    let hub = Hub::start(Config { hold_ms: 60_000, ..calm() }).await;
    hub.route(vec![idle("h1", "hello", State::Starting, "slow")]);
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    hub.until(|counters| counters.requests_in_flight.get(), 1).await;
    hub.change(Change::put(idle("h1", "hello", State::Failed, "exited with code 3")));
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.body.contains("exited with code 3")), (503, true));
}

#[tokio::test]
async fn answers_and_requests_are_streamed() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client
        .write(&format!(
            "POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
        ))
        .await;
    let mut app = backend.accept().await;
    app.until("\r\n3\r\none\r\n").await;
    client.write("3\r\ntwo\r\n").await;
    app.until("3\r\ntwo\r\n").await;
    app.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n").await;
    client.until("5\r\nfirst\r\n").await;
    app.write("6\r\nsecond\r\n").await;
    client.until("6\r\nsecond\r\n").await;
    client.write("0\r\n\r\n").await;
    app.until("0\r\n\r\n").await;
    app.write("0\r\n\r\n").await;
    client.until("0\r\n\r\n").await;
    idle_connections(&hub, 1).await;
}

#[tokio::test]
async fn a_get_with_a_chunked_body_keeps_it() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n")).await;
    let mut app = backend.accept().await;
    assert!(app.head().await.has("transfer-encoding: chunked"));
    app.until("3\r\none\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_made_whole() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    for begun in ["Content-Length: 100\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let mut client = hub.client().await;
        client.write(&get("/public/1")).await;
        let mut app = backend.accept().await;
        app.head().await;
        app.write(&format!("HTTP/1.1 200 OK\r\n{begun}")).await;
        client.until("half").await;
        drop(app);
        let rest = client.rest().await;
        assert!(!rest.contains("0\r\n\r\n"), "{rest:?}");
    }
    hub.until(|counters| counters.requests_in_flight.get(), 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_back() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    for begun in [None, Some("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")] {
        let mut client = hub.client().await;
        client.write(&get("/public/1")).await;
        let mut app = backend.accept().await;
        app.head().await;
        if let Some(begun) = begun {
            app.write(begun).await;
            client.until("x\r\n").await;
        }
        drop(client);
        assert_eq!(app.rest().await, "");
        hub.until(|counters| counters.requests_in_flight.get(), 0).await;
    }
}

#[tokio::test]
async fn a_backend_that_says_nothing_is_a_504_and_a_client_that_stops_a_408() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { first_byte_ms: 1, ..calm() }).await;
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    assert_eq!(client.message().await.status(), 504);
    assert!(app.rest().await.starts_with("GET "), "its connection is closed");

    let hub = Hub::with(&backend, Config { body_idle_ms: 1, ..calm() }).await;
    let slow = format!("POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nha");
    assert_eq!(hub.ask(&slow).await.status(), 408);
}

#[tokio::test]
async fn answers_without_a_body_stay_without() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&format!("HEAD /public/1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    assert!(client.head().await.has("content-length: 5"));
    for status in ["204 No Content", "304 Not Modified"] {
        idle_connections(&hub, 1).await;
        client.write(&get("/public/2")).await;
        app.head().await;
        app.write(&format!("HTTP/1.1 {status}\r\nEtag: \"x\"\r\n\r\n")).await;
        assert!(client.head().await.has("etag: \"x\""));
    }
    client.write(&get("/nothing/%00")).await;
    app.head().await;
}

#[tokio::test]
async fn a_client_is_told_to_continue_once_the_backend_is_there() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client
        .write(&format!(
            "POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
    let mut app = backend.accept().await;
    assert!(client.head().await.head.starts_with("HTTP/1.1 100 "));
    client.write("hi").await;
    let request = app.message().await;
    assert_eq!((request.body.as_str(), request.field("expect")), ("hi", None));
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
    let refused = format!(
        "POST /internal/x HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    );
    assert_eq!(hub.ask(&refused).await.status(), 401, "not told to send what nobody wants");
}

#[tokio::test]
async fn an_app_with_a_static_folder_serves_it_and_its_api() {
    let backend = Backend::start().await;
    let hub = Hub::start(calm()).await;
    let release = hub.folder.path().join("release");
    std::fs::create_dir_all(release.join("static")).unwrap();
    std::fs::write(release.join("static/index.html"), "<h1>hello</h1>").unwrap();
    hub.route(vec![Entry { release, ..running("h1", "hello", backend.port) }]);
    let mut client = hub.client().await;
    client.write(&get("/")).await;
    let page = client.message().await;
    assert_eq!((page.status(), page.body.as_str()), (200, "<h1>hello</h1>"));
    client.write(&get("/%2e%2e/release/static/index.html")).await;
    assert_eq!(client.message().await.status(), 404);
    client.write(&get("/public/x")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(client.message().await.body, "ok");
}

#[tokio::test]
async fn a_development_server_gets_what_is_not_the_apps() {
    let (app, dev) = (Backend::start().await, Backend::start().await);
    let hub = Hub::start(calm()).await;
    hub.route(vec![Entry { debug_port: dev.port, ..running("h1", "hello", app.port) }]);
    for (path, backend) in [("/src/main.ts", &dev), ("/public/x", &app)] {
        let mut client = hub.client().await;
        client.write(&get(path)).await;
        let mut server = backend.accept().await;
        server.head().await;
        server.write(OK).await;
        assert_eq!(client.message().await.status(), 200);
    }
}

#[tokio::test]
async fn a_development_server_may_listen_at_either_loopback_address_and_takes_websockets() {
    let (app, hub) = (Backend::start().await, Hub::start(calm()).await);
    let listener = TcpListener::bind(("::1", 0)).await.unwrap();
    let dev = Backend { port: listener.local_addr().unwrap().port(), listener };
    hub.route(vec![Entry { debug_port: dev.port, ..running("h1", "hello", app.port) }]);
    let mut client = hub.client().await;
    client.write(&format!("GET /?token=x HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: vite-hmr\r\n\r\n")).await;
    let mut server = dev.accept().await;
    let asked = server.head().await;
    assert!(asked.has("upgrade: websocket") && asked.has("sec-websocket-protocol: vite-hmr"), "{asked:?}");
    server.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 101);
    server.write("update").await;
    client.until("update").await;
    client.write("seen").await;
    server.until("seen").await;
}

#[tokio::test]
async fn as_many_requests_reach_an_app_as_may() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { backend_requests: 1, hold_ms: 60_000, ..calm() }).await;
    let (mut first, mut second) = (hub.client().await, hub.client().await);
    first.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    app.head().await;
    second.write(&get("/public/2")).await;
    hub.until(|counters| counters.requests_in_flight.get(), 2).await;
    app.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    first.message().await;
    let mut app = backend.accept().await;
    assert!(app.head().await.head.starts_with("GET /public/2 "));
}

#[tokio::test]
async fn debug_paths_go_to_debug_api_with_the_proxys_own_token() {
    let hub = Hub::start(calm()).await;
    let listener = debug_api(&hub);
    let mut client = hub.client().await;
    client.write("GET /debug/application/1/logs HTTP/1.1\r\nHost: localhost:8443\r\nNexushub-Proxy-Token: guess\r\n\r\n").await;
    let mut debug = accept_unix(&listener).await;
    let request = debug.head().await;
    assert_eq!(request.field("nexushub-proxy-token"), Some("the-token"));
    assert!(request.has("host: localhost:8443") && !request.head.contains("guess"));
    debug.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nevent: x\r\n").await;
    client.until("event: x\r\n").await;
    debug.write("8\r\nevent: y\r\n").await;
    client.until("event: y\r\n").await;
}

/// Whom debug-api is told of, for requests with these further lines.
async fn told(hub: &Hub, listener: &UnixListener, host: &str, lines: &str) -> Option<String> {
    let mut client = hub.client().await;
    client.write(&format!("GET /debug/application HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).await;
    let mut debug = accept_unix(listener).await;
    let request = debug.head().await;
    debug.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    client.message().await;
    request.field("x-caller-id").map(str::to_owned)
}

#[tokio::test]
async fn a_program_on_this_machine_needs_no_token_only_where_the_configuration_says_so() {
    let hub = Hub::start(calm()).await;
    let listener = debug_api(&hub);
    assert_eq!(told(&hub, &listener, "localhost:8443", "").await, None, "off by default");
    assert_eq!(told(&hub, &listener, "localhost:8443", "X-Caller-Id: @loopback\r\n").await, None);
    let hub = Hub::start(Config { debug_without_token: true, ..calm() }).await;
    let listener = debug_api(&hub);
    for host in ["localhost:8443", "127.0.0.1:1", "[::1]", HOST, "yesterday.localhost"] {
        assert_eq!(told(&hub, &listener, host, "").await.as_deref(), Some("@loopback"), "{host}");
    }
    for lines in [
        "X-Forwarded-For: 127.0.0.1\r\n",
        "X-Real-IP: 127.0.0.1\r\n",
        "Forwarded: for=127.0.0.1\r\n",
        "Via: 1.1 a\r\n",
        "Origin: https://localhost:8443\r\n",
        "Sec-Fetch-Site: none\r\n",
        "Authorization: Bearer x\r\n",
        "Authorization: Basic x\r\n",
    ] {
        assert_eq!(told(&hub, &listener, "localhost", lines).await, None, "{lines}");
    }
    assert_eq!(told(&hub, &listener, "elsewhere.example", "").await, None, "a name that was led here");
}

#[tokio::test]
async fn who_comes_by_a_proxy_before_this_one_is_no_program_on_this_machine() {
    let trusting = Config { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..calm() };
    let hub = Hub::start(Config { debug_without_token: true, ..trusting }).await;
    let listener = debug_api(&hub);
    for lines in ["", "X-Forwarded-For: 127.0.0.1\r\n"] {
        assert_eq!(told(&hub, &listener, "localhost", lines).await, None, "{lines}");
    }
    let announced = Config { proxy_protocol_from: vec!["127.0.0.0/8".parse().unwrap()], ..calm() };
    let hub = Hub::start(Config { debug_without_token: true, ..announced }).await;
    let listener = debug_api(&hub);
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    stream.write_all(b"PROXY TCP4 127.0.0.1 127.0.0.1 4000 8443\r\n").await.unwrap();
    let mut client = Peer::new(hub.shake(stream, &[b"http/1.1"], HOST).await);
    client.write("GET /debug/application HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert!(accept_unix(&listener).await.head().await.field("x-caller-id").is_none());
}

#[tokio::test]
async fn apps_never_see_the_token_of_debug_api() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client
        .write(&format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\nNexushub-Proxy-Token: guess\r\n\r\n"))
        .await;
    assert!(backend.accept().await.head().await.field("nexushub-proxy-token").is_none());
}

#[tokio::test]
async fn hints_reach_an_http1_client_before_the_answer_and_other_interim_answers_do_not() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 102 Processing\r\nLink: </no>\r\n\r\n").await;
    app.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nlink: </b.js>\r\nSet-Cookie: a=b\r\nContent-Length: 5\r\n\r\n").await;
    let hints = client.head().await;
    assert_eq!(
        hints.head,
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n"
    );
    app.write("HTTP/1.1 103 Early Hints\r\nX-None: 1\r\n\r\n").await;
    app.write(&format!("HTTP/1.1 103 Early Hints\r\nLink: </c>\r\n\r\n{OK}")).await;
    assert_eq!(client.head().await.head, "HTTP/1.1 103 Early Hints\r\nlink: </c>\r\n\r\n");
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.body.as_str()), (200, "ok"));
}

#[tokio::test]
async fn hints_and_an_invitation_to_send_the_body_stand_one_after_the_other() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client
        .write(&format!(
            "POST /public/1 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        ))
        .await;
    let mut app = backend.accept().await;
    app.head().await;
    assert_eq!(client.head().await.head, "HTTP/1.1 100 Continue\r\n\r\n");
    app.write("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
    assert_eq!(client.head().await.head, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    client.write("hi").await;
    app.until("hi").await;
    app.write(OK).await;
    assert_eq!(client.message().await.body, "ok");
}

#[tokio::test]
async fn nobody_who_knows_no_hints_is_told_any_and_their_number_is_bounded() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&format!("GET /public/1 HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    let mut app = backend.accept().await;
    app.head().await;
    let last = OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let hint = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    app.write(&format!("{hint}{last}")).await;
    assert_eq!(client.message().await.status(), 200);
    let mut client = hub.client().await;
    client.write(&get("/public/3")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(&hint.repeat(17)).await;
    loop {
        let head = client.head().await;
        if head.status() != 103 {
            assert_eq!(head.status(), 502);
            break;
        }
    }
}
