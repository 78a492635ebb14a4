//! More connections than there is room for: who makes way, and who never does.

use super::{
    clients::ask_h2,
    floods::{GET, PREFACE, frame, head},
    *,
};
use crate::{door::Outer, link::Link};

/// A proxy with one app and room for so many connections.
async fn room_for(max_connections: u32) -> (Hub, Backend) {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, Config { max_connections, ..calm() }).await;
    (hub, backend)
}

/// The connections that made way, and those that found no place.
fn counted(hub: &Hub) -> (u64, u64) {
    let counters = &hub.proxy.counters;
    (counters.connections_displaced.get(), counters.connections_refused.get())
}

/// A client whose request an app has in hand.
async fn busy(hub: &Hub, backend: &Backend) -> (Peer, Peer) {
    let mut client = hub.client().await;
    client.write(&get("/public/a")).await;
    let mut app = backend.accept().await;
    app.head().await;
    (client, app)
}

/// Whether one more finds a place where none is free.
async fn finds_a_place(hub: &Hub) -> bool {
    let (displaced, refused) = counted(hub);
    let _newcomer = TcpStream::connect(hub.address).await.unwrap();
    patient(async {
        while counted(hub) == (displaced, refused) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    counted(hub).0 > displaced
}

#[tokio::test]
async fn a_client_that_asks_for_nothing_makes_way_and_one_that_waits_for_its_answer_does_not() {
    let (hub, backend) = room_for(2).await;
    let (mut waiting, mut app) = busy(&hub, &backend).await;
    let mut idle = hub.client().await;
    let (mut second, mut second_app) = busy(&hub, &backend).await;
    assert!(!idle.fill().await, "its place is taken");
    assert!(!finds_a_place(&hub).await);
    assert_eq!(counted(&hub), (1, 1));
    for (client, app) in [(&mut waiting, &mut app), (&mut second, &mut second_app)] {
        app.write(OK).await;
        assert_eq!(client.message().await.body, "ok");
    }
}

#[tokio::test]
async fn a_client_whose_answer_has_ended_may_have_to_make_way_again() {
    let (hub, backend) = room_for(1).await;
    let (mut client, mut app) = busy(&hub, &backend).await;
    app.write(OK).await;
    client.message().await;
    patient(async { while !finds_a_place(&hub).await {} }).await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_client_that_has_said_nothing_yet_makes_way() {
    let (hub, _backend) = room_for(1).await;
    let mut silent = Peer::new(TcpStream::connect(hub.address).await.unwrap());
    hub.until(|counters| counters.connections_accepted.get(), 1).await;
    hub.client().await;
    assert!(!silent.fill().await);
    assert_eq!((counted(&hub), hub.proxy.counters.tls_failures.get()), ((1, 0), 0));
}

#[tokio::test]
async fn an_upgraded_connection_keeps_its_place() {
    let (hub, backend) = room_for(1).await;
    let (mut client, mut app) = upgrades::agreed(&hub, &backend).await;
    assert!(!finds_a_place(&hub).await);
    app.write("still here").await;
    client.until("still here").await;
    assert_eq!(counted(&hub), (0, 1));
}

#[tokio::test]
async fn an_http2_client_without_a_stream_is_told_and_makes_way() {
    let (hub, backend) = room_for(1).await;
    let mut client = Peer::new(hub.connect(&[b"h2"], HOST).await);
    let request = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &head(GET))].concat();
    client.stream.write_all(&request).await.unwrap();
    client.stream.flush().await.unwrap();
    let mut app = backend.accept().await;
    app.head().await;
    assert!(!finds_a_place(&hub).await, "a stream is open");
    app.write(OK).await;
    patient(async { while !finds_a_place(&hub).await {} }).await;
    while client.fill().await {}
    let farewell = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
    assert!(client.read.ends_with(&farewell), "no error; the first stream was served: {:?}", client.read);
}

/// What the client says meanwhile would have its connection reset, if nobody heard it, and what is under way to it lost.
#[tokio::test]
async fn an_http2_client_that_makes_way_gets_the_end_of_its_last_answer() {
    const LENGTH: usize = 600_000; // more than a client's kernel takes unread
    let (hub, backend) = room_for(1).await;
    let mut client = Peer::new(hub.connect(&[b"h2"], HOST).await);
    let granted = [frame(4, 0, 0, &[0, 4, 0, 16, 0, 0]), frame(8, 0, 0, &[0, 16, 0, 0])].concat();
    let request = [PREFACE.to_vec(), granted, frame(1, 5, 1, &head(GET))].concat();
    client.stream.write_all(&request).await.unwrap();
    client.stream.flush().await.unwrap();
    let mut app = backend.accept().await;
    app.head().await;
    let answer = "x".repeat(LENGTH);
    app.write(&format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{answer}")).await;
    patient(async { while !finds_a_place(&hub).await {} }).await;
    client.stream.write_all(&frame(6, 0, 0, b"12345678")).await.unwrap();
    client.stream.flush().await.unwrap();
    while client.fill().await {}
    assert!(client.read.iter().filter(|byte| **byte == b'x').count() >= LENGTH);
}

#[tokio::test]
async fn an_http2_client_with_a_stream_open_keeps_its_place() {
    let (hub, backend) = room_for(1).await;
    let mut client = hub.client_h2().await;
    let asked = tokio::spawn(client.send_request(ask_h2("/public/a")));
    let mut app = backend.accept().await;
    app.head().await;
    assert!(!finds_a_place(&hub).await);
    app.write(OK).await;
    assert_eq!(patient(asked).await.unwrap().unwrap().status(), 200);
}

/// Its place was taken just before: whoever asked may ask again, for nothing was done.
#[tokio::test]
async fn a_request_that_comes_too_late_is_not_begun() {
    let preface = [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 5, 1, &head(GET))].concat();
    for (is_h2, request) in [(false, get("/public/a").into_bytes()), (true, preface)] {
        let (hub, _backend) = room_for(2).await;
        let door = Door::outside(Outer::of(1), Arc::default(), CancellationToken::new());
        let link = Link::new("192.0.2.7:1".parse().unwrap(), None, is_h2, door.admit().unwrap()).trust(false);
        let _newcomer = door.admit().unwrap();
        let (mut client, server) = tokio::io::duplex(1 << 16);
        client.write_all(&request).await.unwrap();
        let speaking: Pin<Box<dyn Future<Output = _>>> = match is_h2 {
            true => Box::pin(hub.front.speak_h2(server, &link)),
            false => Box::pin(hub.front.speak_h1(server, &link)),
        };
        patient(speaking).await.unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).await.unwrap();
        let farewell = if is_h2 { frame(7, 0, 0, &[0; 8]) } else { Vec::new() };
        assert!(said.ends_with(&farewell) && (is_h2 || said.is_empty()), "{said:?}");
        assert_eq!(hub.proxy.counters.requests.get(), 0);
    }
}
