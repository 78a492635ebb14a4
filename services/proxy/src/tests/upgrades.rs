//! WebSocket and other upgrades.

use super::*;

const ASK: &str = "GET /public/socket HTTP/1.1\r\nHost: hello.yesterday.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
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

/// A client and an app that have left HTTP.
pub(super) async fn agreed(hub: &Hub, backend: &Backend) -> (Peer, Peer) {
    let mut client = hub.client().await;
    client.write(ASK).await;
    let mut app = backend.accept().await;
    app.head().await;
    app.write(AGREE).await;
    client.head().await;
    (client, app)
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_backends_side() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let (client, mut app) = agreed(&hub, &backend).await;
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
        get("/public/socket"),
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

/// A WebSocket that a client of HTTP/2 asks for by extended CONNECT.
mod over_h2 {
    use http::{Request, Response, header::HeaderName};
    use http_body_util::{BodyExt, Empty};
    use hyper::{body::Incoming, client::conn::http2::SendRequest, ext::Protocol};
    use hyper_util::rt::TokioIo;

    use super::{super::clients::TestBody, *};

    fn connect(protocol: &'static str) -> Request<TestBody> {
        let request = Request::connect(format!("https://{HOST}/public/socket?a=b"));
        let request = request.header("sec-websocket-version", "13").header("sec-websocket-protocol", "chat");
        request.extension(Protocol::from_static(protocol)).body(Empty::new().boxed_unsync()).unwrap()
    }

    /// A client that has heard what the proxy grants, for which it asks once.
    async fn client(hub: &Hub, backend: &Backend) -> SendRequest<TestBody> {
        let mut client = hub.client_h2().await;
        let first = Request::get(format!("https://{HOST}/public/a")).body(Empty::new().boxed_unsync());
        let answered = tokio::spawn(client.send_request(first.unwrap()));
        let mut app = backend.accept().await;
        app.head().await;
        app.write("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        assert_eq!(patient(answered).await.unwrap().unwrap().status(), 204);
        client
    }

    /// What the app's key is answered with.
    fn agreed(request: &Message, more: &str) -> String {
        let key = request.field("sec-websocket-key").unwrap();
        let accept = answer_to(key);
        format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n{more}\r\n"
        )
    }

    fn answer_to(key: &str) -> String {
        let accept = websocket::accept(&HeaderValue::try_from(key).unwrap());
        accept.to_str().unwrap().to_owned()
    }

    /// An open one: the answer's head, the client's side, and the app's.
    async fn open(hub: &Hub, backend: &Backend) -> (Response<()>, Peer, Peer) {
        let mut client = client(hub, backend).await;
        let answered = tokio::spawn(client.send_request(connect("websocket")));
        let mut app = backend.accept().await;
        let request = app.head().await;
        assert!(request.head.starts_with("GET /public/socket?a=b HTTP/1.1\r\n"), "{}", request.head);
        for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"] {
            assert!(request.has(line), "{line}: {}", request.head);
        }
        assert!(!request.head.contains("content-length") && !request.head.contains("transfer-encoding"));
        app.write(&agreed(&request, "Sec-WebSocket-Protocol: chat\r\n")).await;
        let mut answer: Response<Incoming> = patient(answered).await.unwrap().unwrap();
        let stream = patient(hyper::upgrade::on(&mut answer)).await.unwrap();
        tokio::spawn(async move { client.ready().await }); // the connection lives on
        (answer.map(drop), Peer::new(TokioIo::new(stream)), app)
    }

    #[tokio::test]
    async fn bytes_pass_both_ways_once_the_app_has_answered_the_key() {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, calm()).await;
        let (answer, mut client, mut app) = open(&hub, &backend).await;
        assert_eq!(
            (answer.status(), &answer.headers()["sec-websocket-protocol"]),
            (http::StatusCode::OK, &"chat".parse().unwrap())
        );
        for gone in ["sec-websocket-accept", "upgrade", "connection", "content-length"] {
            assert!(!answer.headers().contains_key(HeaderName::from_static(gone)), "{gone}");
        }
        for word in ["one", "two", "three"] {
            client.write(word).await;
            app.until(word).await;
            app.write(word).await;
            client.until(word).await;
        }
        hub.until(|counters| counters.upgrades_open.get(), 1).await;
        drop(app);
        assert_eq!(client.rest().await, "");
        hub.until(|counters| counters.upgrades_open.get(), 0).await;
        hub.until(|counters| counters.requests_in_flight.get(), 0).await;
    }

    #[tokio::test]
    async fn one_direction_goes_on_while_nobody_takes_the_other() {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, calm()).await;
        let (_, mut client, mut app) = open(&hub, &backend).await;
        // More than the client's window and every buffer on the way: it stands until the client reads.
        let much = "x".repeat(8 << 20);
        let (mut app_reads, mut app_writes) = tokio::io::split(app.stream);
        let (say, expected) = (much.clone(), much.len());
        let saying =
            tokio::spawn(async move { app_writes.write_all(say.as_bytes()).await.map(|()| app_writes) });
        let hearing = tokio::spawn(async move {
            let mut heard = vec![0; 8 << 20];
            app_reads.read_exact(&mut heard).await.map(|_| app_reads)
        });
        client.write(&much).await;
        let app_reads = patient(hearing).await.unwrap().unwrap();
        let mut heard = 0;
        while heard < expected {
            assert!(client.fill().await, "ended after {heard} bytes");
            heard += std::mem::take(&mut client.read).len();
        }
        let app_writes = patient(saying).await.unwrap().unwrap();
        app = Peer::new(app_reads.unsplit(app_writes));
        client.write("still").await;
        app.until("still").await;
    }

    #[tokio::test]
    async fn each_side_hears_of_the_others_end() {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, calm()).await;
        let (_, mut client, mut app) = open(&hub, &backend).await;
        patient(client.stream.shutdown()).await.unwrap();
        assert_eq!(app.rest().await, "", "the client has said all");
        app.write("last words").await;
        drop(app);
        assert_eq!(client.rest().await, "last words");
        let (_, client, mut app) = open(&hub, &backend).await;
        drop(client); // its stream is reset
        assert_eq!(app.rest().await, "");
        hub.until(|counters| counters.upgrades_open.get(), 0).await;
    }

    #[tokio::test]
    async fn an_app_that_does_not_agree_is_never_taken_for_one_that_does() {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, calm()).await;
        let mut client = client(&hub, &backend).await;
        let foreign = AGREE; // the answer to another key
        for (said, status) in [
            ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
            ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302),
            (OK, 502),
            (foreign, 502),
            ("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 502),
        ] {
            let answered = tokio::spawn(client.send_request(connect("websocket")));
            let mut app = backend.accept().await;
            app.head().await;
            app.write(said).await;
            drop(app);
            assert_eq!(patient(answered).await.unwrap().unwrap().status(), status, "{said}");
        }
        let answer = patient(client.send_request(connect("connect-udp"))).await.unwrap();
        assert_eq!(answer.status(), 501);
        assert_eq!(hub.proxy.counters.upgrades_open.get(), 0);
    }

    #[tokio::test]
    async fn at_the_drains_limit_it_ends_and_not_before() {
        let backend = Backend::start().await;
        let hub = Hub::with(&backend, calm()).await;
        let (_, mut client, mut app) = open(&hub, &backend).await;
        hub.drain.cancel();
        client.write("still").await;
        app.until("still").await;
        drained(&hub.proxy, Duration::ZERO).await;
        client.rest().await;
        patient(hub.proxy.tasks.wait()).await;
    }
}
