//! Apps that answer badly: their clients get an error, never half an answer that looks whole, and nobody else notices.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use nexushub_e2e::{App, Failure, Https, Options, Platform, Protocol, soon};

const APP: &str = "hello";
const NEIGHBOUR: &str = "neighbour";
const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// Has the app say this, instead of an answer.
fn say(key: &str, what: &str) -> Request<Full<Bytes>> {
    Request::post(format!("/say?key={key}")).body(Full::new(what.to_owned().into())).unwrap()
}

async fn pid(https: &Https, host: &str) -> u64 {
    let answer = https.get(host, "/").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["pid"].as_u64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_takes_a_request_and_hangs_costs_that_request_alone() {
    let platform = Platform::start_with(&Options::with("[proxy]\nfirst_byte_ms = 15000\n"));
    let app = platform.run_app(&App::named(APP)).await;
    platform.run_app(&App::named(NEIGHBOUR)).await;
    let https = platform.https();
    for protocol in BOTH {
        let (hung, same, _) =
            tokio::join!(https.send(protocol, APP, say("k", "")), pid(&https, APP), pid(&https, NEIGHBOUR));
        let hung = hung.unwrap();
        assert_eq!(hung.status, StatusCode::GATEWAY_TIMEOUT, "{protocol:?}: {}", hung.text());
        assert_eq!(same, u64::from(app.pid));
    }
    https.get(APP, "/go?key=k").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_dies_amid_an_answer_never_makes_it_look_whole() {
    let platform = Platform::start();
    let https = platform.https();
    for protocol in BOTH {
        let app = platform.run_app(&App::named(APP)).await;
        let mut connection = https.open(protocol, APP).await.unwrap();
        let events = Request::get("/sse?key=k").body(Full::default()).unwrap();
        let mut events = connection.begin(events).await.unwrap().into_body();
        let first = soon("an event", events.frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "data: 1\n\n");
        let crash = Request::get("/crash").body(Full::default()).unwrap();
        let crash = https.send(protocol, APP, crash).await.unwrap();
        assert_eq!(crash.status, StatusCode::BAD_GATEWAY, "{protocol:?}: {}", crash.text());
        let end = soon("the end of the events", events.frame()).await;
        assert!(end.is_some_and(|frame| frame.is_err()), "{protocol:?}: a break, and no end");
        let anew = |now: &nexushub_proto::procmgr::InstanceStatus| now.routed && now.pid != app.pid;
        platform.instance_until(APP, "runs anew", anew).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_answer_is_answered_502_and_half_of_one_breaks_off() {
    let platform = Platform::start();
    platform.run_app(&App::named(APP)).await;
    let https = platform.https();
    for protocol in BOTH {
        for nonsense in [
            "",
            "HTTP/1.1 2",
            "nonsense\r\n\r\n",
            "HTTP/9.9 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nab",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\nab",
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
        ] {
            let answer = https.send(protocol, APP, say("", nonsense)).await.unwrap();
            assert_eq!(
                answer.status,
                StatusCode::BAD_GATEWAY,
                "{protocol:?} {nonsense:?}: {}",
                answer.text()
            );
        }
        for half in [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nmore\r\n",
        ] {
            let answer = https.send(protocol, APP, say("", half)).await;
            assert!(matches!(answer, Err(Failure::InFlight(_))), "{protocol:?} {half:?}: {answer:?}");
        }
        pid(&https, APP).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_app_sends_beyond_its_answer_is_nobodys() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named(APP)).await;
    let https = platform.https();
    let poison =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";
    for protocol in BOTH {
        let mut connection = https.open(protocol, APP).await.unwrap();
        let answer = connection.send(say("k", poison)).await.unwrap();
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok"), "{protocol:?}");
        for _ in 0..5 {
            let next = connection.send(Request::get("/").body(Full::default()).unwrap()).await.unwrap();
            assert_eq!(next.json()["pid"], app.pid, "{protocol:?}");
        }
    }
    https.get(APP, "/go?key=k").await;
}
