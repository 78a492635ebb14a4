//! WebSocket and other upgrades.

use super::*;

const ASK: &str = "GET /api/socket HTTP/1.1\r\nHost: hello.yesterday.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[tokio::test]
async fn bytes_pass_both_ways_once_the_backend_agreed() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(ASK).await;
    client.write("early").await; // before the backend has agreed
    let mut app = backend.accept().await;
    let request = app.head().await;
    assert!(request.has("connection: upgrade") && request.has("upgrade: websocket"));
    assert!(request.has("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="));
    assert!(app.read.is_empty(), "nothing is passed on before the agreement");
    app.write(AGREE).await;
    let answer = client.head().await;
    assert_eq!(answer.status(), 101);
    assert!(
        answer.has("upgrade: websocket") && answer.has("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    app.until("early").await;
    app.write("pong").await;
    client.until("pong").await;
    client.write("ping").await;
    app.until("ping").await;
    hub.until(|counters| counters.upgrades_open.get(), 1).await;
    assert_eq!(hub.proxy.counters.connections_open.get(), 1, "it keeps its place");
    drop(app);
    assert_eq!(client.rest().await, "");
    drop(client);
    hub.until(|counters| counters.upgrades_open.get(), 0).await;
    hub.until(|counters| counters.connections_open.get(), 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_backends_side() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(ASK).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(AGREE).await;
    client.head().await;
    drop(client);
    assert_eq!(app.rest().await, "");
}

#[tokio::test]
async fn a_backend_that_declines_just_answers() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(ASK).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let answer = client.message().await;
    assert_eq!((answer.status(), answer.body.as_str()), (403, "no"));
}

#[tokio::test]
async fn a_change_that_was_not_asked_for_is_a_502() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    for ask in [
        get("/api/socket"),
        ASK.replace("websocket", "h2c"),
        ASK.replace("Upgrade: websocket", "Upgrade: other"),
    ] {
        let mut client = hub.client().await;
        client.write(&ask).await;
        let mut app = backend.accept().await;
        let request = app.head().await;
        assert!(!request.head.contains("h2c"), "{}", request.head);
        app.write(AGREE).await;
        assert_eq!(client.message().await.status(), 502, "{ask}");
    }
    assert_eq!(hub.proxy.counters.upgrades_open.get(), 0);
}

#[tokio::test]
async fn at_the_drains_limit_upgraded_connections_end() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(ASK).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(AGREE).await;
    client.head().await;
    hub.drain.cancel();
    client.write("still").await;
    app.until("still").await;
    drained(&hub.proxy, Duration::ZERO).await;
    assert_eq!(client.rest().await, "");
    patient(hub.proxy.tasks.wait()).await;
}
