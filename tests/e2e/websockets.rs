//! WebSockets through the proxy (RFC 6455), a real library at both ends: whatever one side says reaches the other as it was said, and
//! the end of one is the end of the other.

use std::{
    io::Write,
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use http_body_util::Full;
use hyper_util::rt::TokioIo;
use nexushub_e2e::{App, HANG, Https, Options, Platform, Protocol, Signal, UNHURRIED, soon, workshop};
use nexushub_proto::proxy::{GetCountersRequest, proxy_service_client::ProxyServiceClient};
use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tungstenite::{
    Error, HandshakeError, Message, WebSocket,
    client::IntoClientRequest,
    protocol::{
        CloseFrame, WebSocketConfig,
        frame::{
            Frame,
            coding::{CloseCode, Control, Data, OpCode},
        },
    },
};

pub(crate) type Stream = StreamOwned<ClientConnection, TcpStream>;
pub(crate) type Socket = WebSocket<Stream>;

const APP: &str = "chat";
/// The largest frame that the library takes.
const LARGE: usize = 16 * 1024 * 1024;

async fn platform() -> Platform {
    platform_with("").await
}

async fn platform_with(more: &str) -> Platform {
    let platform = Platform::start_with(&Options::with(more));
    platform.run_app(&App::named(APP)).await;
    platform
}

fn connect(platform: &Platform, host: &str) -> Stream {
    let tcp = TcpStream::connect(platform.address).unwrap();
    tcp.set_read_timeout(Some(HANG)).unwrap();
    tcp.set_write_timeout(Some(HANG)).unwrap();
    let name = ServerName::try_from(Https::name(host)).unwrap();
    let config = Arc::new(platform.https().tls_config(&[b"http/1.1"]));
    StreamOwned::new(ClientConnection::new(config, name).unwrap(), tcp)
}

fn ask(platform: &Platform, path: &str) -> Result<Socket, Error> {
    ask_of(platform, APP, path)
}

/// A WebSocket of any app.
pub(crate) fn ask_of(platform: &Platform, host: &str, path: &str) -> Result<Socket, Error> {
    let request = format!("wss://{}{path}", platform.https().authority(host)).into_client_request().unwrap();
    let config = WebSocketConfig::default().accept_unmasked_frames(false);
    match tungstenite::client::client_with_config(request, connect(platform, host), Some(config)) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(error)) => Err(error),
        Err(HandshakeError::Interrupted(_)) => panic!("the stream blocks"),
    }
}

fn open(platform: &Platform) -> Socket {
    ask(platform, "/ws").unwrap()
}

/// Waits until the proxy has so many upgraded connections.
async fn upgrades(platform: &Platform, number: u64) {
    let mut proxy = ProxyServiceClient::new(platform.operate("proxy"));
    soon("as many upgraded connections", async {
        while proxy.get_counters(GetCountersRequest {}).await.unwrap().into_inner().upgrades_open != number {}
    })
    .await;
}

fn part(text: &'static str, kind: Data, last: bool) -> Message {
    Message::Frame(Frame::message(text, OpCode::Data(kind), last))
}

fn close(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code: CloseCode::from(code), reason: reason.into() }
}

/// Bytes that are not all the same.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_every_length_and_kind_come_back() {
    let platform = platform().await;
    let mut socket = open(&platform);
    for length in [0, 1, 125, 126, 127, 65_535, 65_536, 1_000_000, LARGE] {
        socket.send(Message::binary(bytes(length))).unwrap();
        assert!(socket.read().unwrap() == Message::binary(bytes(length)), "{length} bytes");
    }
    for text in ["", "hello", "grüße, 你好", "\0"] {
        socket.send(Message::text(text)).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text(text));
    }
    for number in 0..5_000 {
        socket.write(Message::text(number.to_string())).unwrap();
    }
    socket.flush().unwrap();
    for number in 0..5_000 {
        assert_eq!(socket.read().unwrap(), Message::text(number.to_string()), "in their order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn fragments_pass_with_control_frames_between_them() {
    let platform = platform().await;
    let mut socket = open(&platform);
    socket.write(part("hel", Data::Text, false)).unwrap();
    socket.write(Message::Ping(bytes(125).into())).unwrap();
    socket.write(part("", Data::Continue, false)).unwrap();
    socket.flush().unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(bytes(125).into()), "before the message is whole");
    socket.write(part("l", Data::Continue, false)).unwrap();
    socket.write(Message::Pong("unasked".into())).unwrap();
    socket.write(part("o", Data::Continue, true)).unwrap();
    socket.flush().unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("hello"));
    socket.send(Message::Ping("".into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong("".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_closes_with_its_code_and_reason() {
    let platform = platform().await;
    for (code, reason) in
        [(1000, ""), (1000, "done"), (1001, "going"), (1011, "broken"), (3001, ""), (4999, "own")]
    {
        let mut socket = open(&platform);
        socket.close(Some(close(code, reason))).unwrap();
        let answer = socket.read().unwrap();
        assert!(
            matches!(&answer, Message::Close(Some(frame)) if frame.code == code.into()),
            "{code}: {answer:?}"
        );
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)), "{code}: the app ends the connection");

        let mut socket = open(&platform);
        socket.send(Message::text(format!("close {code} {reason}"))).unwrap();
        assert_eq!(socket.read().unwrap(), Message::Close(Some(close(code, reason))));
        socket.flush().ok(); // the library answers it by itself
        assert!(matches!(socket.read(), Err(Error::ConnectionClosed)), "{code}: both have said it");
    }
    let mut socket = open(&platform);
    socket.close(None).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(None));
    drop(socket);
    upgrades(&platform, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_says_of_a_broken_frame_reaches_its_client() {
    let platform = platform().await;
    let mut reserved = Frame::message("x", OpCode::Data(Data::Text), true);
    reserved.header_mut().rsv1 = true;
    let unexpected = Frame::message("x", OpCode::Data(Data::Continue), true);
    let split = Frame::message("", OpCode::Control(Control::Ping), false);
    for broken in [reserved, unexpected, split] {
        let shown = format!("{broken:?}");
        let mut socket = open(&platform);
        socket.send(Message::Frame(broken)).unwrap();
        // It is the app that judges, and it hangs up or says 1002: the proxy passes on both.
        match socket.read() {
            Ok(Message::Close(Some(frame))) => assert_eq!(frame.code, CloseCode::Protocol, "{shown}"),
            Err(Error::Protocol(_) | Error::ConnectionClosed | Error::Io(_)) => {}
            other => panic!("{shown}: {other:?}"),
        }
    }
    upgrades(&platform, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_said_all_still_hears_the_rest() {
    let platform = platform_with("[proxy]\nupgrade_linger_ms = 600000\n").await;
    let mut socket = open(&platform);
    socket.send(Message::binary(bytes(LARGE))).unwrap();
    let stream = socket.get_mut();
    stream.conn.send_close_notify();
    stream.flush().unwrap();
    stream.sock.shutdown(Shutdown::Write).unwrap();
    assert!(socket.read().unwrap() == Message::binary(bytes(LARGE)));
    assert!(socket.read().is_err(), "and then the end");
    upgrades(&platform, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_without_a_word_is_told_to_the_other_side() {
    let platform = platform().await;
    let mut socket = open(&platform);
    socket.send(Message::text("drop")).unwrap();
    let end = socket.read();
    assert!(matches!(end, Err(Error::Protocol(_) | Error::Io(_))), "not closed as it should be: {end:?}");
    drop(socket);
    let sockets = [open(&platform), open(&platform), open(&platform)];
    upgrades(&platform, 3).await;
    for socket in sockets {
        socket.get_ref().sock.shutdown(Shutdown::Both).unwrap();
    }
    upgrades(&platform, 0).await;
    let mut socket = open(&platform);
    let process = platform.running(APP).await.pid;
    nexushub_e2e::Process::open(process).unwrap().kill();
    let end = socket.read();
    assert!(matches!(end, Err(Error::Protocol(_) | Error::Io(_))), "its app was killed: {end:?}");
    drop(socket);
    upgrades(&platform, 0).await;
}

/// A request for a WebSocket by extended CONNECT (RFC 8441), on a connection on which one answer has come.
async fn ask_over_h2(platform: &Platform, path: &str) -> http::Response<hyper::body::Incoming> {
    let mut connection = platform.https().open(Protocol::Http2, APP).await.unwrap();
    let first = connection.send(http::Request::get("/").body(Full::default()).unwrap()).await.unwrap();
    assert_eq!(first.status, 200, "by now the client has heard what it may ask");
    let request = http::Request::connect(path).header("sec-websocket-version", "13");
    let request = request.extension(hyper::ext::Protocol::from_static("websocket"));
    connection.begin(request.body(Full::default()).unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_over_http2_is_one_to_the_app_and_outlives_an_upgrade_of_the_proxy() {
    let platform = platform_with(UNHURRIED).await;
    let answer = ask_over_h2(&platform, "/ws").await;
    assert_eq!(answer.status(), 200);
    let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    upgrades(&platform, 1).await;
    for number in 0..100 {
        let text = format!("message {number}");
        echoes(&mut socket, &text).await;
    }
    let old = platform.daemon("proxy").await;
    platform.home.configure_more("proxy", "access_log = false");
    platform.supervisor().signal(Signal::HUP);
    platform.replaced("proxy", old.pid).await;
    echoes(&mut socket, "by the old proxy").await;
    drop(socket);
    assert!(old.ended_within(HANG), "it has nothing left to do");
    let answer = ask_over_h2(&platform, "/whoami").await;
    assert_eq!(answer.status(), 502, "an app that answers 200 has not agreed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_proxy_leaves_no_new_client_waiting_for_a_websocket_that_is_open() {
    let platform = platform_with(UNHURRIED).await;
    let mut socket = open(&platform);
    for _ in 0..2 {
        let old = platform.daemon("proxy").await;
        let restarted = workshop::nexushub(platform.home.path(), &["restart", "proxy"]);
        assert!(restarted.status.success(), "{restarted:?}");
        assert_ne!(platform.daemon("proxy").await.pid, old.pid);
        assert_eq!(platform.https().get(APP, "/whoami").await.status, 200);
    }
    socket.send(Message::text("by the first")).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text("by the first"), "it drains on");
}

/// Says a short text in one frame, which comes back.
async fn echoes(socket: &mut (impl AsyncRead + AsyncWrite + Unpin), text: &str) {
    let length = u8::try_from(text.len()).unwrap();
    let masked_by_nothing = [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat();
    socket.write_all(&masked_by_nothing).await.unwrap();
    let mut back = vec![0; 2 + text.len()];
    soon("the echo", socket.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, [&[0x81, length], text.as_bytes()].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_does_not_agree_just_answers() {
    let platform = platform().await;
    match ask(&platform, "/whoami") {
        Err(Error::Http(answer)) => assert_eq!(answer.status(), 200),
        other => panic!("{:?}", other.map(|_| "a WebSocket")),
    }
    upgrades(&platform, 0).await;
}
