//! Out of its box an app reaches the platform's internal entrance, as itself and as nobody else; and nothing else of the host.

use std::net::{TcpListener, UdpSocket};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use nexushub_e2e::{App, Options, Platform, Protocol, Signal, soon};
use nexushub_proto::{
    procmgr::InstanceStatus,
    provider::{Driver, Instance},
    proxy::{GetCountersRequest, GetCountersResponse, proxy_service_client::ProxyServiceClient},
};

/// Where an app finds the entrance, whatever port the platform itself listens on.
const ENTRANCE: &str = "internal.yesterday.localhost:8443";

/// An app in a box, whose `/api` these may ask for.
fn boxed_app(platform: &Platform, app: &App) -> Instance {
    let mut instance = platform.instance(app);
    instance.driver = Driver::Sandbox.into();
    instance.route.get_or_insert_default().callers = ["one", "plain"].map(str::to_owned).into();
    instance
}

/// Has an app run in a box, and waits for it.
async fn boxed(platform: &Platform, name: &str) -> InstanceStatus {
    let instance = boxed_app(platform, &App::named(name));
    platform.put(instance).await.unwrap();
    platform.running(name).await
}

async fn secret_of(platform: &Platform, name: &str) -> String {
    let portrait = platform.https().get(name, "/public/whoami").await.json();
    portrait["env"]["INTERNAL_SECRET"].as_str().unwrap().to_owned()
}

/// A request as an app writes it, with these further headers.
fn request(host: &str, path: &str, headers: &[(&str, &str)]) -> String {
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}\r\n")
}

/// The same as a call of another app.
fn call(path: &str, to: &str, secret: &str) -> String {
    let bearer = format!("Bearer {secret}");
    request(ENTRANCE, path, &[("X-Application-Id", to), ("Authorization", &bearer)])
}

/// Has an app say something at the entrance: the status that it was answered and the answer's body.
async fn say(platform: &Platform, from: &str, request: String) -> (u16, String) {
    let told = platform.https().post(from, &format!("/tls?to={ENTRANCE}"), request).await;
    assert_eq!(told.status, 200, "{from} reaches the entrance: {}", told.text());
    let text = told.text();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// What the app that was reached saw of the request's headers.
fn seen(body: &str) -> Vec<(String, String)> {
    let portrait: serde_json::Value = serde_json::from_str(body).unwrap();
    serde_json::from_value(portrait["headers"].clone()).unwrap()
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// What the proxy counts; nothing while its generations change.
async fn counters(platform: &Platform) -> GetCountersResponse {
    let mut proxy = ProxyServiceClient::new(platform.operate("proxy"));
    proxy
        .get_counters(GetCountersRequest {})
        .await
        .map_or_else(|_| Default::default(), tonic::Response::into_inner)
}

/// Waits until the proxy holds the listeners of so many boxes.
async fn entrances(platform: &Platform, number: u64) {
    let counted = async {
        while counters(platform).await.inward_listeners_open != number {
            tokio::task::yield_now().await;
        }
    };
    soon("the proxy holds each box's listener", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_in_a_box_calls_others_which_know_who_calls_and_never_its_secret() {
    let platform = Platform::start();
    boxed(&platform, "one").await;
    boxed(&platform, "two").await;
    platform.run_app(&App::named("plain")).await;
    let secret = secret_of(&platform, "one").await;
    for (to, path) in [("two", "/api/whoami"), ("one", "/api/whoami"), ("plain", "/public/whoami")] {
        let (status, body) = say(&platform, "one", call(path, to, &secret)).await;
        assert_eq!(status, 200, "{to}: {body}");
        assert!(!seen(&body).iter().any(|(_, value)| value.contains(&secret)), "{body}");
        assert_eq!(header(&seen(&body), "x-caller-id"), Some("one"), "{body}");
        assert_eq!(header(&seen(&body), "authorization"), None);
    }
    let by_name = request("two.yesterday.localhost:8443", "/public/whoami", &[("X-Caller-Id", "two")]);
    let (status, body) = say(&platform, "one", by_name).await;
    assert_eq!((status, header(&seen(&body), "x-caller-id")), (200, None), "without a secret it is nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_is_not_for_a_caller_to_say() {
    let platform = Platform::start();
    boxed(&platform, "one").await;
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let request =
            Request::get("/public/whoami").header("x-caller-id", "admin").header("x_caller_id", "admin");
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = platform.https().send(protocol, "one", request).await.unwrap();
        assert!(!seen(&answer.text()).iter().any(|(name, _)| name.contains("caller")), "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_without_a_box_is_known_by_its_secret_alone() {
    let platform = Platform::start();
    platform.run_app(&App::named("plain")).await;
    boxed(&platform, "two").await;
    let secret = secret_of(&platform, "plain").await;
    for (path, status) in [("/api/whoami", 200), ("/internal/x", 403)] {
        let request = Request::get(path).header("x-application-id", "two");
        let request = request.header("authorization", format!("Bearer {secret}"));
        let request = request.body(Full::<Bytes>::default()).unwrap();
        let answer = platform.https().send(Protocol::Http1, "internal", request).await.unwrap();
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        if status == 200 {
            assert!(!answer.text().contains(&secret), "{}", answer.text());
            assert_eq!(header(&seen(&answer.text()), "x-caller-id"), Some("plain"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_is_refused_what_is_not_its_own() {
    let platform = Platform::start();
    boxed(&platform, "one").await;
    boxed(&platform, "two").await;
    platform.run_app(&App::named("plain")).await;
    let (own, other) = (secret_of(&platform, "one").await, secret_of(&platform, "two").await);
    let bearer = format!("Bearer {own}");
    let with = |host, path| request(host, path, &[("X-Application-Id", "two"), ("Authorization", &bearer)]);
    for (what, request, status) in [
        ("a guessed secret", call("/api/whoami", "two", "guess"), 401),
        ("another's secret", call("/api/whoami", "two", &other), 401),
        ("no secret", request(ENTRANCE, "/api/whoami", &[("X-Application-Id", "two")]), 401),
        ("no secret at all", request(ENTRANCE, "/", &[]), 401),
        ("no application", request(ENTRANCE, "/api/whoami", &[("Authorization", &bearer)]), 404),
        ("an application of nobody", call("/api/whoami", "nobody", &own), 404),
        ("the API of who names nobody", call("/api/whoami", "plain", &own), 403),
        ("what is internal to another", call("/internal/x", "two", &own), 403),
        ("the same by a detour", call("/public/%2e%2e/internal/x", "two", &own), 403),
        ("another's internal with its secret", call("/internal/x", "two", &other), 401),
        ("operators' paths", with(ENTRANCE, "/debug/application"), 404),
        ("no host", with("", "/api/whoami"), 400),
        ("a host that is none", with("a b", "/api/whoami"), 400),
    ] {
        let (answered, body) = say(&platform, "one", request).await;
        assert_eq!(answered, status, "{what}: {body}");
        assert!(!body.contains("INTERNAL_SECRET"), "{what}: {body}");
    }
    for host in ["localhost:8443", "127.0.0.1:8443", "169.254.169.254", "example.org"] {
        let answered = say(&platform, "one", request(host, "/", &[])).await;
        assert_eq!(answered.0, 421, "{host}: {}", answered.1);
    }
    let (status, body) = say(&platform, "one", call("/internal/x", "one", &own)).await;
    assert_eq!((status, body.as_str()), (404, "not found"), "its own is answered by the app itself");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_of_the_host_and_no_other_box_is_within_reach() {
    let platform = Platform::start();
    boxed(&platform, "one").await;
    boxed(&platform, "two").await;
    let local = TcpListener::bind("127.0.0.1:0").unwrap();
    let outward = TcpListener::bind("0.0.0.0:0").unwrap();
    let mut targets = vec![platform.address.to_string(), local.local_addr().unwrap().to_string()];
    targets
        .extend(own_address().map(|address| format!("{address}:{}", outward.local_addr().unwrap().port())));
    targets.extend(["169.254.169.254:80", "192.0.2.1:80", "[::1]:8443"].map(str::to_owned));
    for target in targets {
        let told = platform.https().post("one", &format!("/tls?to={target}"), "").await;
        assert_eq!(told.status, 502, "{target}: {}", told.text());
    }
    for listener in [local, outward] {
        listener.set_nonblocking(true).unwrap();
        assert!(listener.accept().is_err(), "nobody came");
    }
}

/// The address by which this machine would go out, if it could.
fn own_address() -> Option<std::net::IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").ok()?; // sends nothing
    socket.local_addr().ok().map(|address| address.ip())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_entrance_is_there_again_after_the_proxy_was_killed_or_replaced() {
    let mut platform = Platform::start();
    boxed(&platform, "one").await;
    boxed(&platform, "two").await;
    let secret = secret_of(&platform, "one").await;
    let reached = call("/api/whoami", "two", &secret);
    platform.kill("proxy").await;
    assert_eq!(say(&platform, "one", reached.clone()).await.0, 200, "after a kill");
    // What the proxy knows with procmgr away is enough.
    let procmgr = platform.daemon("procmgr").await;
    procmgr.signal(Signal::STOP);
    platform.kill("proxy").await;
    assert_eq!(say(&platform, "one", reached.clone()).await.0, 200, "without procmgr");
    procmgr.signal(Signal::CONT);
    platform.supervisor().signal(Signal::HUP);
    platform.await_ready();
    for _ in 0..20 {
        assert_eq!(say(&platform, "one", reached.clone()).await.0, 200, "while one proxy follows another");
    }
    entrances(&platform, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_generation_an_entrance_goes_and_the_next_has_its_own() {
    let platform = Platform::start_with(&Options::with("[procmgr]\nkeep_removed = 0\n"));
    boxed(&platform, "two").await;
    let first = boxed(&platform, "one").await;
    entrances(&platform, 2).await;
    let next = boxed_app(&platform, &App::named("one").env("ROUND", "2"));
    platform.put(next).await.unwrap();
    let newer = |status: &InstanceStatus| status.routed && status.generation > first.generation;
    platform.instance_until("one", "runs anew", newer).await;
    let secret = secret_of(&platform, "one").await;
    assert_eq!(say(&platform, "one", call("/api/whoami", "two", &secret)).await.0, 200);
    entrances(&platform, 2).await;
    assert!(platform.remove("one").await.unwrap());
    entrances(&platform, 1).await;
    assert!(platform.remove("two").await.unwrap());
    entrances(&platform, 0).await;
}
