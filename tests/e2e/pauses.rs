//! A paused app gets no requests: they wait for it, or are told to come back, through the death of whoever knows of the pause.

use http::{Request, header::ACCEPT};
use http_body_util::Full;
use nexushub_e2e::{App, Https, Load, Options, Platform, Protocol, soon, workshop::nexushub};
use nexushub_proto::proxy::{GetCountersRequest, proxy_service_client::ProxyServiceClient};
use tokio::task::JoinSet;

/// Requests that wait at once.
const WAITING: usize = 200;
/// Nothing here is about how long a request or a connection waits, or how often a daemon may die.
const PATIENT: &str =
    "[supervisor]\nstable_ms = 1\nburst = 1000\n[proxy]\npause_ms = 600000\nconnect_ms = 600000\n";

/// Runs the command that people type; it must do.
fn order(platform: &Platform, arguments: &[&str]) -> String {
    let output = nexushub(platform.home.path(), arguments);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The process that answered.
async fn ask(https: Https, protocol: Protocol) -> u64 {
    let request = Request::get("/").body(Full::default()).unwrap();
    let answer = https.open(protocol, "shop").await.unwrap().send(request).await.unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["pid"].as_u64().unwrap()
}

/// Waits until so many requests are under way.
async fn under_way(platform: &Platform, requests: u64) {
    let mut proxy = ProxyServiceClient::new(platform.operate("proxy"));
    let counted = async {
        loop {
            let counters = proxy.get_counters(GetCountersRequest {}).await.unwrap().into_inner();
            if counters.requests_in_flight >= requests {
                return;
            }
        }
    };
    soon("the requests are under way", counted).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_paused_app_wait_and_go_to_whatever_runs_when_it_is_resumed() {
    let platform = Platform::start_with(&Options::with(PATIENT));
    let old = platform.run_app(&App::named("shop")).await;
    platform.run_app(&App::named("neighbour")).await;
    let load = Load::start(&platform.https(), "neighbour", 2, 1);
    assert!(order(&platform, &["pause", "shop", "--message", "moving"]).contains("its requests wait"));
    platform.instance_until("shop", "is paused", |now| now.pause.is_some()).await;
    let mut waiting = JoinSet::new();
    for number in 0..WAITING {
        let protocol = if number % 2 == 0 { Protocol::Http1 } else { Protocol::Http2 };
        waiting.spawn(ask(platform.https(), protocol));
    }
    under_way(&platform, WAITING as u64).await;
    platform.kill("procmgr").await;
    let wanted = platform.instance(&App::named("shop").env("VERSION", "2"));
    platform.put(wanted).await.unwrap();
    let new = platform.instance_until("shop", "is new", |now| now.routed && now.pid != old.pid).await;
    assert_eq!(new.pause.unwrap().message, "moving", "procmgr was killed");
    assert!(waiting.try_join_next().is_none(), "none was answered");
    assert_eq!(order(&platform, &["resume", "shop"]), "shop is resumed\n");
    while let Some(pid) = soon("all are answered", waiting.join_next()).await {
        assert_eq!(pid.unwrap(), u64::from(new.pid));
    }
    assert_eq!(order(&platform, &["resume", "shop"]), "shop was not paused\n");
    let tally = load.stop().await;
    assert_eq!((tally.failed(), tally.retried), (0, 0), "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_app_says_so_at_once_in_the_form_that_is_asked_for_whoever_dies() {
    let mut platform = Platform::start_with(&Options::with(PATIENT));
    platform.run_app(&App::named("shop")).await;
    order(&platform, &["pause", "shop", "--stop", "--message", "back at <noon>"]);
    platform.instance_until("shop", "is paused", |now| now.pause.is_some()).await;
    for step in ["nobody", "procmgr", "proxy", "everybody"] {
        match step {
            "nobody" => {}
            "everybody" => {
                platform.kill_supervisor().await;
                platform.start_supervisor();
            }
            daemon => drop(platform.kill(daemon).await),
        }
        for (accept, words) in [
            ("text/html", "<p>Service Unavailable: shop is paused: back at &lt;noon&gt;</p>"),
            ("application/json", "\"Service Unavailable: shop is paused: back at <noon>\""),
            ("*/*", "Service Unavailable: shop is paused: back at <noon>\n"),
        ] {
            let request = Request::get("/").header(ACCEPT, accept).body(Full::default()).unwrap();
            // Until the table is there again, the old one counts.
            let answer = platform.https().send(Protocol::Http1, "shop", request).await.unwrap();
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "10"), "{step}");
            assert!(answer.text().contains(words), "{step}: {}", answer.text());
        }
    }
    order(&platform, &["resume", "shop"]);
    platform.instance_until("shop", "is resumed", |now| now.pause.is_none() && now.routed).await;
    soon("it answers", async { while platform.https().get("shop", "/").await.status != 200 {} }).await;
}
