//! Apps that speak h2c: what passes to and fro, who hears of whose leaving, and what is sent again.

use std::{convert::Infallible, future::poll_fn};

use ::h2::{
    Reason, RecvStream, SendStream,
    server::{self, SendResponse},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::{clients::TestBody, *};
use crate::table::tests::running;

/// A connection of the proxy to an app that speaks h2c.
struct App(server::Connection<TcpStream, Bytes>);

/// One request that came by it.
struct Asked {
    head: http::request::Parts,
    body: RecvStream,
    reply: SendResponse<Bytes>,
}

impl App {
    async fn accept(backend: &Backend) -> Self {
        let (stream, _) = patient(backend.listener.accept()).await.unwrap();
        Self(patient(server::handshake(stream)).await.unwrap())
    }

    async fn next(&mut self) -> Asked {
        let (request, reply) = patient(self.0.accept()).await.unwrap().unwrap();
        let (head, body) = request.into_parts();
        Asked { head, body, reply }
    }

    /// Sends what is due, and receives, until this is done.
    async fn while_it_lives<T>(&mut self, done: impl Future<Output = T>) -> T {
        let mut done = std::pin::pin!(done);
        patient(poll_fn(|cx| {
            let _ = self.0.poll_closed(cx);
            done.as_mut().poll(cx)
        }))
        .await
    }

    /// Serves nobody any more, but drives what there is.
    fn drive(mut self) {
        tokio::spawn(async move { poll_fn(|cx| self.0.poll_closed(cx)).await });
    }
}

impl Asked {
    fn answer(&mut self, ends: bool) -> SendStream<Bytes> {
        self.reply.send_response(Response::new(()), ends).unwrap()
    }

    async fn said(&mut self) -> Bytes {
        let piece = self.body.data().await.unwrap().unwrap();
        self.body.flow_control().release_capacity(piece.len()).unwrap();
        piece
    }
}

async fn hub(backend: &Backend, config: Config) -> Hub {
    let hub = Hub::start(config).await;
    hub.route(vec![Entry { h2c: true, ..running("h1", "hello", backend.port) }]);
    hub
}

/// A client of HTTP/2 that hears of interim answers.
async fn listener(hub: &Hub) -> ::h2::client::SendRequest<Bytes> {
    let (client, connection) =
        patient(::h2::client::handshake(hub.connect(&[b"h2"], HOST).await)).await.unwrap();
    tokio::spawn(connection);
    client
}

/// The links of an answer's interim answers, in their order, and its status.
async fn heard(client: &mut ::h2::client::SendRequest<Bytes>, path: &str) -> (Vec<String>, u16) {
    let request = Request::get(format!("https://{HOST}{path}")).body(()).unwrap();
    let (mut answer, _) = client.send_request(request, true).unwrap();
    let mut links = Vec::new();
    while let Some(interim) = patient(poll_fn(|cx| answer.poll_informational(cx))).await {
        let interim = interim.unwrap();
        assert_eq!((interim.status(), interim.headers().keys_len()), (StatusCode::EARLY_HINTS, 1));
        links.extend(interim.headers().get_all("link").iter().map(|link| link.to_str().unwrap().to_owned()));
    }
    (links, patient(answer).await.unwrap().status().as_u16())
}

/// A body whose frames the test sends.
fn piecemeal() -> (UnboundedSender<Frame<Bytes>>, TestBody) {
    let (send, mut receive) = unbounded_channel::<Frame<Bytes>>();
    let frames = futures_util::stream::poll_fn(move |cx| {
        receive.poll_recv(cx).map(|frame| frame.map(Ok::<_, Infallible>))
    });
    (send, StreamBody::new(frames).boxed_unsync())
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

fn call(body: TestBody) -> Request<TestBody> {
    let request = Request::builder().method(Method::POST).uri(format!("https://{HOST}/public/Call"));
    request.header("te", "trailers").header("content-type", "application/grpc").body(body).unwrap()
}

#[tokio::test]
async fn both_sides_of_a_call_speak_in_turn_and_trailers_end_it() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let (say, body) = piecemeal();
    let answered = tokio::spawn(client.send_request(call(body)));
    let mut app = App::accept(&backend).await;
    let mut asked = app.next().await;
    assert_eq!(asked.head.uri, format!("http://{HOST}/public/Call").as_str());
    assert_eq!(
        (&asked.head.headers["te"], asked.head.version),
        (&"trailers".parse().unwrap(), Version::HTTP_2)
    );
    assert!(!asked.head.headers.contains_key("connection") && !asked.head.headers.contains_key("host"));
    let mut reply = asked.answer(false);
    app.drive();
    let mut answer = patient(answered).await.unwrap().unwrap().into_body();
    for word in ["one", "two", "three"] {
        say.send(data(word)).unwrap();
        assert_eq!(patient(asked.said()).await, word);
        reply.send_data(word.into(), false).unwrap();
        assert_eq!(patient(answer.frame()).await.unwrap().unwrap().into_data().unwrap(), word);
    }
    drop(say);
    assert_eq!(patient(asked.said()).await, "", "the end of the stream");
    let status =
        HeaderMap::from_iter([(HeaderName::from_static("grpc-status"), HeaderValue::from_static("5"))]);
    reply.send_trailers(status).unwrap();
    let trailers = patient(answer.frame()).await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "5");
    assert!(patient(answer.frame()).await.is_none());
}

#[tokio::test]
async fn requests_of_several_clients_share_a_connection_and_http1_is_understood() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let (mut one, mut two) = (hub.client().await, hub.client().await);
    one.write(&format!("POST /public/1?a=b HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")).await;
    let mut app = App::accept(&backend).await;
    let mut first = app.next().await;
    two.write(&format!("HEAD /public/2 HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let mut second = app.next().await;
    assert_eq!(first.head.uri.path_and_query().unwrap(), "/public/1?a=b");
    assert_eq!(app.while_it_lives(first.said()).await, "hi");
    let mut reply = first.answer(false);
    reply.send_data("ok".into(), true).unwrap();
    second
        .reply
        .send_response(Response::builder().header("content-length", "7").body(()).unwrap(), true)
        .unwrap();
    app.drive();
    assert_eq!(one.until("0\r\n\r\n").await.split_once("\r\n\r\n").unwrap().1, "2\r\nok\r\n0\r\n\r\n");
    let head = two.head().await;
    assert_eq!((head.status(), head.field("content-length")), (200, Some("7")));
}

#[tokio::test]
async fn who_leaves_takes_its_stream_along_and_no_other() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let (_say, body) = piecemeal();
    let leaving = tokio::spawn(client.send_request(call(body)));
    let mut app = App::accept(&backend).await;
    let mut left = app.next().await;
    let (_say, body) = piecemeal();
    let staying = tokio::spawn(client.send_request(call(body)));
    let mut stays = app.next().await;
    leaving.abort();
    let reason = app.while_it_lives(poll_fn(|cx| left.reply.poll_reset(cx))).await.unwrap();
    assert_eq!(reason, Reason::CANCEL);
    let mut reply = stays.answer(false);
    reply.send_data("half".into(), false).unwrap();
    app.drive();
    let mut broken = patient(staying).await.unwrap().unwrap().into_body();
    assert_eq!(patient(broken.frame()).await.unwrap().unwrap().into_data().unwrap(), "half");
    reply.send_reset(Reason::INTERNAL_ERROR);
    assert!(patient(broken.frame()).await.unwrap().is_err());
    hub.until(|counters| counters.requests_in_flight.get(), 0).await;
}

#[tokio::test]
async fn what_an_app_did_not_touch_is_sent_again_and_nothing_else() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let mut client = hub.client_h2().await;
    let (say, body) = piecemeal();
    let answered = tokio::spawn(client.send_request(call(body)));
    let mut app = App::accept(&backend).await;
    app.next().await.reply.send_reset(Reason::REFUSED_STREAM);
    let mut again = app.next().await;
    again.answer(true);
    drop(say);
    app.while_it_lives(async {
        assert_eq!(patient(answered).await.unwrap().unwrap().status(), StatusCode::OK);
    })
    .await;

    let (say, body) = piecemeal();
    say.send(data("spent")).unwrap();
    let answered = tokio::spawn(client.send_request(call(body)));
    let mut asked = app.next().await;
    assert_eq!(app.while_it_lives(asked.said()).await, "spent");
    asked.reply.send_reset(Reason::REFUSED_STREAM);
    let answer = app.while_it_lives(async { patient(answered).await.unwrap().unwrap() }).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);

    let (_say, body) = piecemeal();
    let answered = tokio::spawn(client.send_request(call(body)));
    app.next().await.reply.send_reset(Reason::INTERNAL_ERROR);
    let answer = app.while_it_lives(async { patient(answered).await.unwrap().unwrap() }).await;
    assert_eq!(answer.status(), StatusCode::BAD_GATEWAY, "it may have been begun");
}

#[tokio::test]
async fn an_app_that_goes_away_finishes_what_it_has_and_the_rest_goes_to_a_new_connection() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let (mut one, mut two) = (hub.client().await, hub.client().await);
    one.write(&get("/public/1")).await;
    let mut app = App::accept(&backend).await;
    let mut first = app.next().await;
    app.0.graceful_shutdown();
    app.while_it_lives(async {
        // The first GOAWAY only warns, the second one counts; a PING goes between them.
        tokio::task::yield_now().await;
    })
    .await;
    first.answer(true);
    app.drive();
    assert_eq!(one.head().await.status(), 200);
    two.write(&get("/public/2")).await;
    let mut app = App::accept(&backend).await;
    app.next().await.answer(true);
    app.drive();
    assert_eq!(two.head().await.status(), 200);
}

#[tokio::test]
async fn an_app_that_does_not_answer_is_a_504_and_its_connection_is_given_nobody_else() {
    let backend = Backend::start().await;
    let hub = hub(&backend, Config { first_byte_ms: 50_000, body_idle_ms: 3_600_000, ..calm() }).await;
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    let mut silent = App::accept(&backend).await;
    let unheard = silent.next().await;
    pass(50_000).await;
    assert_eq!(client.head().await.status(), 504);
    // Its body is still to come: what has passed by now is not its app's time but its client's.
    let mut client = hub.client().await;
    client.write(&format!("POST /public/2 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\n\r\n")).await;
    let mut app = App::accept(&backend).await;
    app.next().await.answer(true);
    app.drive();
    assert_eq!(client.head().await.status(), 200);
    drop((silent, unheard));
}

#[tokio::test]
async fn an_app_that_speaks_something_else_is_a_502() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let mut client = hub.client().await;
    client.write(&get("/public/1")).await;
    let mut app = backend.accept().await;
    app.write("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.message().await.status(), 502);
    drop(app);
    let nobody = Backend::nobody().await;
    hub.route(vec![Entry { h2c: true, ..running("h2", "hello", nobody) }]);
    assert_eq!(hub.ask(&get("/public/1")).await.status(), 502);
}

#[tokio::test]
async fn hints_of_an_app_reach_an_http2_client_on_their_own_stream_before_the_answer() {
    let backend = Backend::start().await;
    let hub = Hub::with(&backend, calm()).await;
    let mut client = listener(&hub).await;
    let hint = |link: &str| format!("HTTP/1.1 103 Early Hints\r\nLink: <{link}>\r\nX-None: 1\r\n\r\n");
    for path in ["/public/1", "/public/2"] {
        let (mut asking, backend) = (client.clone(), &backend);
        let app = async {
            let mut app = backend.accept().await;
            assert!(app.head().await.head.contains(path));
            app.write(&hint("/a")).await;
            app.write(&format!("{}{}", hint(path), OK.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")))
                .await;
        };
        let ((links, status), ()) = tokio::join!(heard(&mut asking, path), app);
        assert_eq!((links.last().unwrap().as_str(), status), (format!("<{path}>").as_str(), 200));
        assert!(links.iter().all(|link| link == "</a>" || *link == format!("<{path}>")), "{links:?}");
    }
    let mute = async {
        let mut app = backend.accept().await;
        app.head().await;
        app.write(&hint("/a").repeat(17)).await;
        app
    };
    let ((_, status), _app) = tokio::join!(heard(&mut client, "/public/3"), mute);
    assert_eq!(status, 502, "their number is bounded");
}

#[tokio::test]
async fn hints_of_an_app_that_speaks_h2c_are_passed_on_and_bounded() {
    let backend = Backend::start().await;
    let hub = hub(&backend, calm()).await;
    let mut client = listener(&hub).await;
    let hints = |asked: &mut Asked, number: usize| {
        for _ in 0..number {
            let hint = Response::builder().status(103).header("link", "</a>").header("x-none", "1");
            asked.reply.send_informational(hint.body(()).unwrap()).unwrap();
        }
    };
    let app = async {
        let mut app = App::accept(&backend).await;
        let mut asked = app.next().await;
        hints(&mut asked, 1);
        asked.answer(true);
        let mut asked = app.next().await;
        hints(&mut asked, 17);
        app.drive();
        asked
    };
    let asking = async {
        assert_eq!(heard(&mut client, "/public/1").await, (vec!["</a>".to_owned()], 200));
        heard(&mut client, "/public/2").await.1
    };
    let (status, _asked) = tokio::join!(asking, app);
    assert_eq!(status, 502);
}
