//! Bounds that operators set, each gone past.

use super::*;
use crate::counters::Stopped;

fn post(path: &str, rest: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\n{rest}")
}

#[tokio::test]
async fn a_client_has_as_many_connections_as_it_may() {
    let hub = Hub::start(Config { address_connections: 1, ..calm() }).await;
    let first = hub.client().await;
    let mut second = TcpStream::connect(hub.address).await.unwrap();
    assert_eq!(patient(second.read(&mut [0])).await.unwrap_or(0), 0);
    assert_eq!(hub.proxy.counters.connections_refused_address.get(), 1);
    drop(first);
    hub.until(|counters| counters.connections_open.get(), 0).await;
    hub.client().await;
}

#[tokio::test]
async fn nobody_alone_has_all_connections_but_a_trusted_proxy() {
    let few = || Config { max_connections: 8, ..calm() };
    let hub = Hub::start(few()).await;
    let mut held = Vec::new();
    for _ in 0..7 {
        held.push(hub.client().await);
    }
    let mut eighth = TcpStream::connect(hub.address).await.unwrap();
    assert_eq!(patient(eighth.read(&mut [0])).await.unwrap_or(0), 0);
    assert_eq!(hub.proxy.counters.connections_refused_address.get(), 1);
    let elsewhere = TcpSocket::new_v4().unwrap();
    elsewhere.bind("127.0.0.2:0".parse().unwrap()).unwrap();
    hub.shake(elsewhere.connect(hub.address).await.unwrap(), &[b"http/1.1"], HOST).await;

    let hub = Hub::start(Config { trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()], ..few() }).await;
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(hub.client().await);
    }
    assert_eq!(hub.proxy.counters.connections_open.get(), 8);
}

#[tokio::test]
async fn a_client_that_sends_too_fast_is_told_when_to_come_back() {
    let hub = Hub::start(Config { address_requests_per_second: 1, address_burst: 2, ..calm() }).await;
    hub.route(Vec::new());
    let mut client = hub.client().await;
    client.write(&get("/public/a").repeat(3)).await; // at once: nobody is too fast who takes a second
    for status in [404, 404, 429] {
        let answer = client.message().await;
        assert_eq!(answer.status(), status);
        assert_eq!(answer.field("retry-after"), (status == 429).then_some("1"));
    }
    assert_eq!(hub.proxy.counters.requests_limited.get(), 1);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_when_it_says_so_or_when_it_is() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { max_body_bytes: 4, ..calm() }).await;
    let mut client = hub.client().await;
    client.write(&post("/public/a", "Content-Length: 5\r\n\r\n12345")).await;
    assert_eq!(client.message().await.status(), 413);
    let mut client = hub.client().await;
    client.write(&post("/public/a", "Content-Length: 4\r\n\r\n1234")).await;
    let mut app = backend.accept().await;
    assert_eq!(app.message().await.body, "1234");
    app.write(OK).await;
    assert_eq!(client.message().await.status(), 200);
    client
        .write(&post("/public/a", "Transfer-Encoding: chunked\r\n\r\n3\r\n123\r\n2\r\n45\r\n0\r\n\r\n"))
        .await;
    assert_eq!(client.message().await.status(), 413);
    assert!(!app.rest().await.ends_with("0\r\n\r\n"), "the app hears no end of it");
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_broken_off_before_or_within_its_answer() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { whole_ms: 1, ..calm() }).await;
    assert_eq!(hub.ask(&get("/public/a")).await.status(), 504);
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { whole_ms: 50_000, ..calm() }).await;
    let mut client = hub.client().await;
    client.write(&get("/public/a")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    client.until("half").await;
    pass(50_000).await;
    assert_eq!(client.rest().await, "");
    assert_eq!(hub.proxy.counters.stopped[Stopped::Whole as usize].get(), 1);
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_let_go() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { taking_ms: 50, ..calm() }).await;
    let mut client = hub.client().await;
    client.write(&get("/public/a")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 200 OK\r\n\r\n").await;
    let piece = vec![b'x'; 1 << 20];
    while patient(app.stream.write_all(&piece)).await.is_ok() {}
    hub.until(|counters| counters.connections_open.get(), 0).await;
    assert_eq!(hub.proxy.counters.stopped[Stopped::NotTaking as usize].get(), 1);
}

/// Its window is full, and it widens it no more; its connection is well, and so are other streams on it.
#[tokio::test]
async fn an_http2_client_that_takes_nothing_of_one_answer_has_that_stream_reset() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { taking_ms: 50, ..calm() }).await;
    let mut client = hub.client_h2().await;
    let stalled = tokio::spawn(client.send_request(clients::ask_h2("/public/a")));
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 200 OK\r\n\r\n").await;
    let answer = patient(stalled).await.unwrap().unwrap();
    let piece = vec![b'x'; 1 << 20];
    while patient(app.stream.write_all(&piece)).await.is_ok() {}
    hub.until(|counters| counters.requests_in_flight.get(), 0).await;
    let other = tokio::spawn(client.send_request(clients::ask_h2("/public/b")));
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(patient(other).await.unwrap().unwrap().status(), 200);
    drop(answer); // until here nobody has read it
    assert_eq!(hub.proxy.counters.connections_accepted.get(), 1);
    assert_eq!(hub.proxy.counters.stopped[Stopped::NotTaking as usize].get(), 1);
}

#[tokio::test]
async fn each_limit_that_is_reached_is_counted_by_its_name() {
    let backend = Backend::start().await;
    let hub = Hub::start(Config { max_body_bytes: 4, body_idle_ms: 1, hold_requests: 0, ..calm() }).await;
    let starting = table::tests::idle("h2", "starting", table::State::Starting, "");
    hub.route(vec![table::tests::running("h1", "hello", backend.port), starting]);
    for (why, request, status) in [
        ("target", get(&format!("/{}", "a".repeat(9_000))), 414),
        ("header", format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{}\r\n", "X: y\r\n".repeat(100)), 431),
        ("body", post("/public/a", "Content-Length: 5\r\n\r\n12345"), 413),
        ("slow_body", post("/public/a", "Content-Length: 4\r\n\r\nha"), 408),
        ("holds", "GET / HTTP/1.1\r\nHost: starting.yesterday.localhost\r\n\r\n".to_owned(), 503),
    ] {
        let counted = format!("nexushub_proxy_stopped_total{{why=\"{why}\"}} 1");
        let is_told =
            || metrics::text(&hub.publish.borrow(), &hub.proxy.counters).lines().any(|line| line == counted);
        assert!(!is_told(), "{why}");
        assert_eq!(hub.ask(&request).await.status(), status);
        assert!(is_told(), "{why}");
    }
}

/// What a limit of time or of places is set to, so that a request for this app reaches it: its name, and the answer then.
type Reached = (&'static str, Config, Entry, u16);

#[tokio::test]
async fn each_request_that_waited_in_vain_or_took_too_long_is_counted_by_the_limit_that_it_reached() {
    let (silent, busy, full) = (Backend::start().await, Backend::start().await, Backend::full().await);
    let coming = || table::tests::idle("h1", "hello", table::State::Starting, "");
    let app = |backend: &Backend| table::tests::running("h1", "hello", backend.port);
    let paused = || {
        let pause = Some(table::Pause { message: String::new(), closed: false });
        Entry { pause, ..app(&silent) }
    };
    let cases: [Reached; 7] = [
        ("hold", Config { hold_ms: 1, ..calm() }, coming(), 503),
        ("holds", Config { hold_ms: 60_000, hold_bytes: 9, ..calm() }, coming(), 503),
        ("pause", Config { pause_ms: 1, ..calm() }, paused(), 503),
        ("backend", Config { hold_ms: 1, backend_requests: 1, ..calm() }, app(&busy), 503),
        ("connect", Config { connect_ms: 1, ..calm() }, app(&full), 502),
        ("first_byte", Config { first_byte_ms: 1, ..calm() }, app(&silent), 504),
        ("whole", Config { whole_ms: 1, ..calm() }, app(&silent), 504),
    ];
    for (why, config, entry, status) in cases {
        let hub = Hub::start(config).await;
        hub.route(vec![entry]);
        let (mut first, mut taken) = (hub.client().await, None);
        if why == "backend" {
            first.write(&get("/public/1")).await;
            taken.insert(busy.accept().await).head().await;
        }
        assert_eq!(hub.ask(&get("/public/a")).await.status(), status, "{why}");
        let told = metrics::text(&hub.publish.borrow(), &hub.proxy.counters);
        let counted = told.lines().filter(|line| line.contains("stopped_total{") && !line.ends_with(" 0"));
        let expected = format!("nexushub_proxy_stopped_total{{why=\"{why}\"}} 1");
        assert_eq!(counted.collect::<Vec<_>>(), [expected]);
    }
}

#[tokio::test]
async fn a_proxy_before_this_one_is_believed_if_it_is_named() {
    let told =
        "X-Forwarded-For: 192.0.2.7, 192.0.2.8\r\nX-Forwarded-Proto: http\r\nForwarded: for=6.6.6.6\r\n\r\n";
    for (trusted, path, scheme, forwarded) in [
        (vec![], "127.0.0.1", "https", "for=127.0.0.1;host=hello.yesterday.localhost;proto=https"),
        (
            vec!["127.0.0.0/8".parse().unwrap()],
            "192.0.2.7, 192.0.2.8, 127.0.0.1",
            "http",
            "for=192.0.2.7;host=hello.yesterday.localhost;proto=http, for=192.0.2.8, for=127.0.0.1",
        ),
    ] {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, Config { trusted_proxies: trusted, ..calm() }).await;
        let mut client = hub.client().await;
        client.write(&post("/public/a", told)).await;
        let mut app = backend.accept().await;
        let request = app.head().await;
        let fields = ["x-forwarded-for", "x-forwarded-proto", "forwarded"].map(|name| request.field(name));
        assert_eq!(fields, [Some(path), Some(scheme), Some(forwarded)]);
    }
}

#[tokio::test]
async fn connections_that_are_passed_on_say_whose_they_are() {
    let backend = Backend::start().await;
    let named = vec!["127.0.0.1/32".parse().unwrap()];
    let hub = Hub::with(&backend, Config { proxy_protocol_from: named, ..calm() }).await;
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    stream.write_all(b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n").await.unwrap();
    let mut client = Peer::new(hub.shake(stream, &[b"http/1.1"], HOST).await);
    client.write(&get("/public/a")).await;
    let mut app = backend.accept().await;
    assert!(app.head().await.has("x-forwarded-for: 192.0.2.7"));
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    // Version 2: its signature, PROXY, TCP over IPv4, 12 bytes; then both addresses and both ports.
    stream
        .write_all(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x08\xc6\x33\x64\x01\xdc\x04\x01\xbb")
        .await
        .unwrap();
    let mut client = Peer::new(hub.shake(stream, &[b"http/1.1"], HOST).await);
    client.write(&get("/public/a")).await;
    app.write(OK).await;
    assert!(app.head().await.has("x-forwarded-for: 192.0.2.8"));
    let mut stream = TcpStream::connect(hub.address).await.unwrap();
    stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(patient(stream.read(&mut [0])).await.unwrap_or(0), 0, "without it, it is closed");
}

#[tokio::test]
async fn an_app_may_bound_its_bodies_otherwise_than_the_proxy() {
    let backend = Backend::start().await;
    let hub = Hub::start(Config { max_body_bytes: 4, ..calm() }).await;
    for (bound, length, refused) in
        [(Some(2), 3, true), (Some(2), 2, false), (Some(6), 6, false), (None, 5, true)]
    {
        let rules = rules::Rules { body_bytes: bound, ..rules::Rules::default() };
        hub.route(vec![Entry { rules, ..table::tests::running("h1", "hello", backend.port) }]);
        let body = "x".repeat(length);
        let mut client = hub.client().await;
        client.write(&post("/public/a", &format!("Content-Length: {length}\r\n\r\n{body}"))).await;
        if !refused {
            let mut app = backend.accept().await;
            assert_eq!(app.message().await.body, body);
            app.write(&OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await;
        }
        assert_eq!(client.message().await.status(), if refused { 413 } else { 200 }, "{bound:?} {length}");
    }
}

#[tokio::test]
async fn a_body_that_grows_past_its_apps_bound_is_cut_off() {
    let backend = Backend::start().await;
    let hub = Hub::start(calm()).await;
    let rules = rules::Rules { body_bytes: Some(4), ..rules::Rules::default() };
    hub.route(vec![Entry { rules, ..table::tests::running("h1", "hello", backend.port) }]);
    let mut client = hub.client().await;
    client.write(&post("/public/a", "Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n")).await;
    assert_eq!(client.message().await.status(), 413);
}

#[tokio::test]
async fn many_that_come_at_once_are_let_in_a_few_at_a_time() {
    let hub = Hub::start(Config::default()).await;
    let clients: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(hub.address).unwrap()).collect();
    let mut accepted = vec![0];
    let all = async {
        while accepted.last() != Some(&64) {
            tokio::task::yield_now().await;
            accepted.push(hub.proxy.counters.connections_accepted.get());
        }
    };
    patient(all).await;
    assert!(accepted.windows(2).all(|two| two[1] - two[0] <= 4), "{accepted:?}");
    drop(clients);
}
