//! The end of a platform: in order, and with nothing left.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use nexushub_e2e::{App, DAEMONS, Options, Platform, Process, Protocol, Signal, soon};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_ends_everything_in_order_even_an_app_that_ignores_sigterm() {
    let mut platform = Platform::start_with(&Options::with("[procmgr]\nstop_deadline_ms = 500\n"));
    platform.run_app(&App::named("polite")).await;
    let stubborn = platform.run_app(&App::named("stubborn").env("PROBE_IGNORE_TERM", "1")).await;
    let stubborn = Process::open(stubborn.pid).unwrap();
    let seen = platform.journal.position();
    let status = platform.stop();
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(stubborn.ended_within(nexushub_e2e::HANG));
    assert!(platform.left().is_empty(), "{:?}", platform.processes());
    let lines = platform.journal.lines();
    let entries =
        lines[seen..].iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let steps = entries
        .filter(|entry| entry["daemon"] == "supervisor")
        .map(|entry| entry["msg"].as_str().unwrap().to_owned());
    let order: Vec<String> =
        steps.filter_map(|step| step.strip_prefix("stopped ").map(str::to_owned)).collect();
    assert_eq!(order, ["proxy", "provider", "debug-api", "procmgr"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_before_a_stop_runs_again_after_the_next_start() {
    let mut platform = Platform::start();
    let old = platform.run_app(&App::named("hello")).await;
    assert!(platform.stop().success());
    assert!(platform.left().is_empty());
    platform.start_supervisor();
    let new = platform.running("hello").await;
    assert!(new.generation > old.generation && new.pid != old.pid);
    assert_eq!(platform.https().get("hello", "/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_the_proxy_finishes_the_requests_in_flight() {
    let mut platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    let port = platform.https().get("hello", "/").await.json()["env"]["PORT"]
        .as_str()
        .unwrap()
        .parse::<u16>()
        .unwrap();
    let mut connection = platform.https().open(Protocol::Http2, "hello").await.unwrap();
    let request = http::Request::get("/slow?key=a").body(Full::<Bytes>::default()).unwrap();
    let mut body = connection.begin(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun\n");
    platform.supervisor().signal(Signal::TERM);
    platform.board.wait("the proxy stops", |status| !status.is_ready("proxy")).await;
    let mut app = TcpStream::connect(("127.0.0.1", port)).unwrap();
    app.write_all(b"GET /go?key=a HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    app.read_exact(&mut [0; 12]).unwrap();
    assert_eq!(soon("the rest", body.collect()).await.unwrap().to_bytes(), "done\n");
    assert!(platform.wait_end().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_cuts_what_is_in_flight_and_still_leaves_no_app() {
    let patient = "[procmgr]\nstop_deadline_ms = 500\n[supervisor]\nstop_hurried_ms = 60000\n";
    let mut platform = Platform::start_with(&Options::with(patient));
    platform.run_app(&App::named("stubborn").env("PROBE_IGNORE_TERM", "1")).await;
    let mut connection = platform.https().open(Protocol::Http1, "stubborn").await.unwrap();
    let request = http::Request::get("/slow?key=never").body(Full::<Bytes>::default()).unwrap();
    let mut body = connection.begin(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "begun\n");
    platform.supervisor().signal(Signal::TERM);
    platform.board.wait("the proxy stops", |status| !status.is_ready("proxy")).await;
    platform.supervisor().signal(Signal::TERM);
    assert_eq!(platform.wait_end().code(), Some(0));
    assert!(platform.left().is_empty(), "{:?}", platform.processes());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_to_a_daemon_alone_leaves_the_apps_running() {
    let platform = Platform::start();
    let app = platform.run_app(&App::named("hello")).await;
    for name in DAEMONS {
        let old = platform.daemon(name).await;
        old.signal(Signal::TERM);
        platform.replaced(name, old.pid).await;
    }
    assert_eq!(platform.running("hello").await.pid, app.pid);
    assert_eq!(platform.starts_of("hello"), [app.pid]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_while_a_daemon_hangs_still_ends() {
    let mut platform = Platform::start_with(&Options::with("[supervisor]\nstop_other_ms = 500\n"));
    platform.run_app(&App::named("hello")).await;
    platform.daemon("provider").await.signal(Signal::STOP);
    platform.supervisor().signal(Signal::TERM);
    platform.wait_end();
    assert!(platform.left().is_empty(), "{:?}", platform.processes());
}
