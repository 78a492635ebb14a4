//! What clients do, well or badly, and what becomes of their connections.

use std::{convert::Infallible, pin::pin};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};

use super::*;
use crate::{counters::Stopped, turns};

pub(super) type TestBody = UnsyncBoxBody<Bytes, Infallible>;

fn none() -> TestBody {
    Empty::new().boxed_unsync()
}

fn h2(method: Method, path: &str) -> http::request::Builder {
    Request::builder().method(method).version(Version::HTTP_2).uri(format!("https://{HOST}{path}"))
}

/// A request without a body.
pub(super) fn ask_h2(path: &str) -> Request<TestBody> {
    h2(Method::GET, path).body(none()).unwrap()
}

#[tokio::test]
async fn http2_requests_share_a_connection_and_arrive_as_http1() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let cookies = h2(Method::GET, "/public/1").header("cookie", "a=1").header("cookie", "b=2");
    let first = client.send_request(cookies.body(none()).unwrap());
    let second =
        client.send_request(h2(Method::POST, "/public/2").body(Full::from("hi").boxed_unsync()).unwrap());
    let (first, second) = (tokio::spawn(first), tokio::spawn(second));
    for _ in 0..2 {
        let mut app = backend.accept().await;
        let request = app.head().await;
        assert!(request.has(&format!("host: {HOST}")), "{}", request.head);
        if request.head.starts_with("POST") {
            assert!(request.has("content-length: 2"), "{}", request.head);
            app.until("hi").await;
        } else {
            assert!(request.has("cookie: a=1; b=2") && request.field("transfer-encoding").is_none());
        }
        app.write(OK).await;
    }
    for answer in [patient(first).await.unwrap().unwrap(), patient(second).await.unwrap().unwrap()] {
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(answer.headers().contains_key("x-request-id"));
        assert_eq!(patient(answer.into_body().collect()).await.unwrap().to_bytes(), "ok");
    }
    assert_eq!(hub.proxy.counters.connections_accepted.get(), 1);
}

#[tokio::test]
async fn http2_bodies_of_unknown_length_are_streamed_and_trailers_pass() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let (send, receive) = tokio::sync::mpsc::unbounded_channel::<Result<Frame<Bytes>, Infallible>>();
    let stream = tokio_stream(receive);
    let request = h2(Method::POST, "/public/1").header("te", "trailers").body(stream).unwrap();
    let answered = tokio::spawn(client.send_request(request));
    send.send(Ok(Frame::data("one".into()))).unwrap();
    let mut app = backend.accept().await;
    assert!(app.head().await.has("te: trailers"));
    app.until("3\r\none\r\n").await;
    drop(send);
    app.until("0\r\n\r\n").await;
    app.write("HTTP/1.1 200 OK\r\nTrailer: x-sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 7\r\nconnection: x\r\n\r\n").await;
    let answer = patient(answered).await.unwrap().unwrap();
    let whole = patient(answer.into_body().collect()).await.unwrap();
    let trailers = whole.trailers().unwrap();
    assert_eq!(trailers["x-sum"], "7");
    assert!(!trailers.contains_key("connection"));
}

/// Larger than every window, both ways at once.
#[tokio::test]
async fn http2_bodies_are_as_large_as_they_are() {
    const SIZE: usize = 5_000_000;
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let bytes: Bytes = (0..SIZE).map(|number| number as u8 ^ (number >> 12) as u8).collect();
    let request = h2(Method::POST, "/public/1").body(Full::from(bytes.clone()).boxed_unsync()).unwrap();
    let answered = tokio::spawn(client.send_request(request));
    let mut app = backend.accept().await;
    assert!(app.head().await.has(&format!("content-length: {SIZE}")));
    app.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
    let echo = tokio::spawn(async move {
        let Peer { mut stream, read } = app;
        let mut left = SIZE - read.len();
        stream.write_all(&read).await.unwrap();
        let mut piece = vec![0; 30_000];
        while left > 0 {
            let length = stream.read(&mut piece).await.unwrap();
            assert!(length > 0 && length <= left);
            stream.write_all(&piece[..length]).await.unwrap();
            left -= length;
        }
        stream
    });
    let answer = patient(answered).await.unwrap().unwrap();
    assert!(patient(answer.into_body().collect()).await.unwrap().to_bytes() == bytes);
    patient(echo).await.unwrap();
}

fn tokio_stream(
    mut receive: tokio::sync::mpsc::UnboundedReceiver<Result<Frame<Bytes>, Infallible>>,
) -> TestBody {
    StreamBody::new(futures_util::stream::poll_fn(move |cx| receive.poll_recv(cx))).boxed_unsync()
}

#[tokio::test]
async fn an_http2_answer_that_breaks_off_resets_its_stream_only() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let answered = tokio::spawn(client.send_request(h2(Method::GET, "/public/1").body(none()).unwrap()));
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf").await;
    let answer = patient(answered).await.unwrap().unwrap();
    drop(app);
    assert!(patient(answer.into_body().collect()).await.is_err());
    let next = tokio::spawn(client.send_request(h2(Method::GET, "/public/2").body(none()).unwrap()));
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(patient(next).await.unwrap().unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_http2_client_that_resets_a_stream_takes_its_request_back() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let asking = tokio::spawn(client.send_request(h2(Method::GET, "/public/1").body(none()).unwrap()));
    let mut app = backend.accept().await;
    app.head().await;
    asking.abort();
    assert_eq!(app.rest().await, "");
    hub.until(|counters| counters.requests_in_flight.get(), 0).await;
}

#[tokio::test]
async fn refusals_have_a_status_a_text_and_the_request_id() {
    let hub = Hub::start(calm()).await;
    hub.route(vec![table::tests::running("h1", "hello", 1)]);
    for (request, status, text) in [
        (get("/internal/x"), 401, "Unauthorized\n"),
        (
            "GET / HTTP/1.1\r\nHost: nobody.yesterday.localhost\r\n\r\n".into(),
            404,
            "Service not found for host:nobody.yesterday.localhost\n",
        ),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), 400, "malformed host name\n"),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400, "missing Host\n"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"), 400, "more than one Host\n"),
        (
            "GET / HTTP/1.1\r\nHost: shop.debug.yesterday.localhost\r\n\r\n".into(),
            421,
            "the certificate of this connection does not cover host shop.debug.yesterday.localhost\n",
        ),
    ] {
        let answer = hub.ask(&request).await;
        assert_eq!((answer.status(), answer.body.as_str()), (status, text), "{request}");
        assert!(answer.has("x-content-type-options: nosniff") && answer.field("x-request-id").is_some());
    }
    hub.until(|counters| counters.responses_404.get(), 1).await;
}

#[tokio::test]
async fn of_the_ciphers_that_a_client_has_our_first_is_taken() {
    let hub = Hub::start(calm()).await;
    let mut provider = (*tls::provider()).clone();
    provider.cipher_suites.reverse();
    let config = ClientConfig::builder_with_provider(Arc::new(provider));
    let config =
        config.with_safe_default_protocol_versions().unwrap().with_root_certificates(hub.roots.clone());
    let stream = TcpStream::connect(hub.address).await.unwrap();
    let name = ServerName::try_from(HOST).unwrap();
    let connector = TlsConnector::from(Arc::new(config.with_no_client_auth()));
    let stream = patient(connector.connect(name, stream)).await.unwrap();
    let taken = stream.get_ref().1.negotiated_cipher_suite().map(|taken| taken.suite());
    assert_eq!(taken, Some(rustls::CipherSuite::TLS13_AES_128_GCM_SHA256));
}

#[tokio::test]
async fn what_is_not_tls_is_counted_and_closed() {
    let hub = Hub::start(calm()).await;
    let mut plain = Peer::new(TcpStream::connect(hub.address).await.unwrap());
    plain.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    while plain.fill().await {} // an alert, and the end
    hub.until(|counters| counters.tls_failures.get(), 1).await;
    hub.until(|counters| counters.connections_open.get(), 0).await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_sent_away() {
    let hub = Hub::start(Config { tls_handshake_ms: 1, ..calm() }).await;
    let mut silent = Peer::new(TcpStream::connect(hub.address).await.unwrap());
    assert!(!silent.fill().await);
    assert_eq!(hub.proxy.counters.tls_failures.get(), 1);

    let hub = Hub::start(Config { header_ms: 1, ..calm() }).await;
    let mut slow = hub.client().await;
    let _ = slow.stream.write_all(b"GET / HT").await;
    assert!(!slow.fill().await);
    assert_eq!(hub.proxy.counters.stopped[Stopped::SlowHeader as usize].get(), 1);

    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { idle_ms: 1, ..calm() }).await;
    let mut idle = hub.client().await;
    idle.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(OK).await;
    assert_eq!(idle.message().await.status(), 200, "a request under way is not idleness");
    assert!(!idle.fill().await);
    hub.until(|counters| counters.connections_open.get(), 0).await;
    assert_eq!(hub.proxy.counters.stopped[Stopped::Idle as usize].get(), 1);
}

#[tokio::test]
async fn whole_handshakes_and_those_that_go_on_with_a_session_are_counted() {
    let hub = Hub::start(calm()).await;
    let config = Arc::new(hub.client_config(&[b"http/1.1"]));
    for _ in 0..2 {
        let stream = TcpStream::connect(hub.address).await.unwrap();
        let name = ServerName::try_from(HOST).unwrap();
        let shaken = TlsConnector::from(Arc::clone(&config)).connect(name, stream);
        let mut client = Peer::new(patient(shaken).await.unwrap());
        client.write("GET / HTTP/1.1\r\nHost: x\r\nX y\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 400); // and with it the session's ticket has come
    }
    assert_eq!((hub.proxy.counters.tls_full.get(), hub.proxy.counters.tls_resumed.get()), (1, 1));
}

#[tokio::test]
async fn a_handshake_waits_for_its_turn_and_who_has_shaken_hands_does_not() {
    let hub = Hub::start(calm()).await;
    hub.route(Vec::new());
    let mut client = hub.client().await;
    let turn = turns::next().await;
    let mut newcomer = pin!(hub.connect(&[b"http/1.1"], HOST));
    let asks = async {
        for _ in 0..10 {
            client.write(&get("/public/a")).await;
            assert_eq!(client.message().await.status(), 404);
        }
    };
    tokio::select! {
        _ = &mut newcomer => panic!("it is somebody else's turn"),
        () = asks => {}
    }
    drop(turn);
    newcomer.await;
    hub.until(|counters| counters.tls_full.get(), 2).await;
}

#[test]
fn a_configured_address_that_nobody_listens_at_is_told() {
    let listener = || std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    assert!(warn_of_unheld("redirect_listen", "0.0.0.0:80", &[]));
    assert!(!warn_of_unheld("redirect_listen", "", &[]));
    assert!(!warn_of_unheld("redirect_listen", "0.0.0.0:80", &[listener()]));
}

#[tokio::test]
async fn one_connection_too_many_is_closed_at_once() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { max_connections: 1, ..calm() }).await;
    let mut first = hub.client().await;
    first.write(&get("/public/a")).await;
    let mut app = backend.accept().await;
    app.head().await;
    let mut second = Peer::new(TcpStream::connect(hub.address).await.unwrap());
    assert!(!second.fill().await);
    assert_eq!(hub.proxy.counters.connections_refused.get(), 1);
    drop(first);
    hub.until(|counters| counters.connections_open.get(), 0).await;
    hub.client().await;
}

#[tokio::test]
async fn a_draining_proxy_finishes_what_it_has_and_takes_nothing_new() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { drain_idle_ms: 60_000, ..calm() }).await;
    let mut busy = hub.client().await;
    busy.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    app.head().await;
    let mut late = hub.client().await; // connected, its request still on the way
    let mut busy_h2 = hub.client_h2().await;
    let asked = tokio::spawn(busy_h2.send_request(h2(Method::GET, "/public/2").body(none()).unwrap()));
    let mut app_h2 = backend.accept().await;
    app_h2.head().await;

    hub.drain.cancel();
    patient(hub.accepting).await.unwrap();
    assert!(TcpStream::connect(hub.address).await.is_err(), "the listener is closed");
    hub.proxy.tasks.close();

    app_h2.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(patient(asked).await.unwrap().unwrap().status(), StatusCode::OK);
    late.write(&get("/public/3")).await;
    let mut app_late = backend.accept().await;
    app_late.head().await;
    for (client, app) in [(&mut busy, &mut app), (&mut late, &mut app_late)] {
        app.write(OK).await;
        let answer = client.message().await;
        assert_eq!((answer.status(), answer.field("connection")), (200, Some("close")));
        assert!(!client.fill().await);
    }
    patient(hub.proxy.tasks.wait()).await;
}

#[tokio::test]
async fn a_draining_proxy_closes_quiet_connections() {
    let hub = Hub::start(Config { drain_idle_ms: 1, ..calm() }).await;
    let mut quiet = hub.client().await;
    let quiet_h2 = hub.client_h2().await;
    hub.drain.cancel();
    assert!(!quiet.fill().await);
    hub.proxy.tasks.close();
    patient(hub.proxy.tasks.wait()).await;
    drop(quiet_h2);
}

#[tokio::test]
async fn a_refusal_is_written_for_its_reader_with_the_number_of_the_request() {
    let hub = Hub::start(calm()).await;
    hub.route(Vec::new());
    let ask = async |accept: &str| {
        hub.ask(&format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nAccept: {accept}\r\n\r\n")).await
    };
    let json = ask("application/json").await;
    assert_eq!((json.status(), json.field("content-type")), (404, Some("application/json")));
    assert!(json.body.contains(json.field("x-request-id").unwrap()), "{}", json.body);
    let page = ask("text/html,*/*;q=0.8").await;
    assert_eq!(page.field("content-type"), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("404 Not Found") && page.body.contains(page.field("x-request-id").unwrap()));
    assert!(
        page.field("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
    let line = ask("*/*").await;
    assert_eq!(line.body, format!("Service not found for host:{HOST}\n"));
}

#[tokio::test]
async fn the_number_of_a_request_goes_on_if_a_trusted_proxy_gave_it_and_else_it_gets_one() {
    let request = format!("GET /public/1 HTTP/1.1\r\nHost: {HOST}\r\nX-Request-Id: theirs-7\r\n\r\n");
    for trusted in ["127.0.0.0/8", "192.0.2.0/24"] {
        let backend = Backend::start().await;
        let config = Config { trusted_proxies: vec![trusted.parse().unwrap()], ..calm() };
        let hub = Hub::with(&backend, config).await;
        let mut client = hub.client().await;
        client.write(&request).await;
        let mut app = backend.accept().await;
        let asked = app.head().await;
        app.write(OK).await;
        let answer = client.message().await;
        assert_eq!(asked.field("x-request-id"), answer.field("x-request-id"));
        assert_eq!(answer.field("x-request-id") == Some("theirs-7"), trusted.starts_with("127."));
    }
}

#[tokio::test]
async fn browsers_are_told_to_come_by_https_only_unless_the_app_says_otherwise() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { hsts_seconds: 600, ..calm() }).await;
    let mut client = hub.client().await;
    let mut said = Vec::new();
    for own in ["", "Strict-Transport-Security: max-age=7\r\n"] {
        client.write(&get("/public/1")).await;
        let mut app = backend.accept().await;
        app.head().await;
        app.write(&format!("HTTP/1.1 200 OK\r\n{own}Connection: close\r\nContent-Length: 2\r\n\r\nok")).await;
        said.push(client.message().await.field("strict-transport-security").map(str::to_owned));
    }
    assert_eq!(said, [Some("max-age=600".to_owned()), Some("max-age=7".to_owned())]);
    let refused = hub.ask("GET / HTTP/1.1\r\nHost: nobody.yesterday.localhost\r\n\r\n").await;
    assert_eq!(refused.field("strict-transport-security"), Some("max-age=600"));
}
