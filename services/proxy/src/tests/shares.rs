//! Host names, paths and groups on real connections: who is asked, for what, and who is asked next.

use super::*;
use crate::{
    rules::Rules,
    table::{
        State,
        tests::{idle, running},
    },
};

const CLOSE: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

fn member(id: &str, port: u16) -> Entry {
    Entry { rules: Rules { group: "g".into(), ..Rules::default() }, ..running(id, "hello", port) }
}

#[tokio::test]
async fn an_app_below_a_path_is_asked_for_the_rest_of_it_if_it_wants_that() {
    let (root, shop) = (Backend::start().await, Backend::start().await);
    let hub = Hub::start(calm()).await;
    for (strip, target) in [(true, "/x?q=/shop"), (false, "/shop/x?q=/shop")] {
        let rules = Rules { prefix: "/shop".into(), strip, ..Rules::default() };
        hub.route(vec![
            running("h1", "hello", root.port),
            Entry { rules, ..running("s1", "hello", shop.port) },
        ]);
        let mut client = hub.client().await;
        client.write(&get("/shop/x?q=/shop")).await;
        let mut app = shop.accept().await;
        assert!(app.head().await.head.starts_with(&format!("GET {target} HTTP/1.1\r\n")));
        app.write(CLOSE).await;
        assert_eq!(client.message().await.status(), 200);
        let mut client = hub.client().await;
        client.write(&get("/shops")).await;
        let mut app = root.accept().await;
        assert!(app.head().await.head.starts_with("GET /shops "));
    }
}

#[tokio::test]
async fn a_wildcard_serves_every_name_below_it() {
    let backend = Backend::start().await;
    let hub = Hub::start(calm()).await;
    let rules = Rules { hosts: vec!["*.hello".into(), "*".into()], ..Rules::default() };
    hub.route(vec![Entry { rules, ..running("h1", "hello", backend.port) }]);
    let mut client = Peer::new(hub.connect(&[b"http/1.1"], "other.yesterday.localhost").await);
    client.write("GET /public/a HTTP/1.1\r\nHost: Other.yesterday.localhost\r\n\r\n").await;
    let mut app = backend.accept().await;
    assert!(app.head().await.has("host: Other.yesterday.localhost"));
    app.write(CLOSE).await;
    assert_eq!(client.message().await.status(), 200);
}

#[tokio::test]
async fn requests_are_shared_and_who_takes_no_connection_costs_nobody_his() {
    let (one, gone) = (Backend::start().await, Backend::nobody().await);
    let hub = Hub::start(calm()).await;
    hub.route(vec![member("a", gone), member("b", one.port)]);
    let serving = tokio::spawn(async move {
        loop {
            let mut app = one.accept().await;
            app.head().await;
            app.write(CLOSE).await;
        }
    });
    for _ in 0..12 {
        assert_eq!(hub.ask(&get("/public/a")).await.status(), 200);
    }
    assert_eq!(hub.proxy.counters.ejections.get(), 1);
    assert_eq!(hub.proxy.counters.responses_502.get(), 0);
    let told = metrics::text(&hub.publish.borrow(), &hub.proxy.counters);
    assert!(told.contains("nexushub_proxy_route_left_out{instance=\"a\",host=\"hello\"} 1"), "{told}");
    assert!(told.contains("nexushub_proxy_route_left_out{instance=\"b\",host=\"hello\"} 0"), "{told}");
    serving.abort();
}

#[tokio::test]
async fn garbage_counts_against_a_backend_and_a_group_that_fails_as_a_whole_is_asked_on() {
    let backend = Backend::start().await;
    let hub = Hub::start(calm()).await;
    hub.route(vec![member("a", backend.port), member("b", backend.port)]);
    for round in 0..14 {
        let mut client = hub.client().await;
        client.write(&get("/public/a")).await;
        let mut app = backend.accept().await;
        app.head().await;
        app.write("garbage\r\n\r\n").await;
        assert_eq!(client.message().await.status(), 502, "{round}");
    }
    assert_eq!(hub.proxy.counters.ejections.get(), 2);
}

#[tokio::test]
async fn a_request_that_waits_for_one_of_a_group_goes_to_whoever_is_ready_first() {
    let backend = Backend::start().await;
    let hub = Hub::start(calm()).await;
    let starting = |id: &str| Entry { rules: member(id, 1).rules, ..idle(id, "hello", State::Starting, "") };
    hub.route(vec![starting("a"), starting("b")]);
    let mut client = hub.client().await;
    client.write(&get("/public/a")).await;
    patient(async {
        let seats = u64::from(calm().hold_requests);
        while ["a", "b"].iter().all(|id| hub.proxy.waiting.left(*id) == seats) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    hub.change(Change::put(member("b", backend.port)));
    let mut app = backend.accept().await;
    app.head().await;
    app.write(CLOSE).await;
    assert_eq!(client.message().await.status(), 200);
}
