//! Does everybody who stands behind the proxy read its messages as it does? Requests that can be read in several ways go through
//! it to nginx, HAProxy, Caddy and nghttpx, each of which says what it understood; answers of that kind come back through it, and
//! through them.
//!
//! Of each request: what an origin understood is what its client was answered, no more, no less, in that order; no origin
//! understood anything else than another; and the connection serves the next. `NEXUSHUB_SCALE` makes it thousands of random ones.

#![allow(clippy::unwrap_used, clippy::panic)] // as in the harness

mod answers;
mod cases;
mod echo;
mod heard;
mod origins;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use nexushub_e2e::{Https, Options, Platform, rounds_up_to, soon};
use nexushub_proto::proxy::{GetMetricsRequest, proxy_service_client::ProxyServiceClient};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

use crate::{
    answers::Then,
    cases::Case,
    echo::{Echo, Understood},
    heard::Heard,
};

/// A body that doesn't come is waited for in vain by many cases.
const IMPATIENT: &str = "[platform]\nlog_level = \"warn\"\n[proxy]\nbody_idle_ms = 400\n";
/// After each case: what a body that is longer than it seems can swallow, and then the end of every conversation.
const FILLER: usize = 1024;

/// Everything that is heard until the end of the conversation.
async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    let mut heard = Vec::new();
    let conversation = async {
        // Who is refused is not listened to any longer: what was answered counts, not how it ended.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let _ = stream.read_to_end(&mut heard).await;
    };
    soon("the end of a conversation", conversation).await;
    heard
}

async fn say_to(https: &Https, name: &str, bytes: &[u8]) -> Vec<u8> {
    say(https.tls(name, &[b"http/1.1"]).await.unwrap(), bytes).await
}

fn last(https: &Https, name: &str, path: &str) -> Vec<u8> {
    let host = https.authority(name);
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").into_bytes()
}

/// What the echo behind an origin understood, as its answers tell.
fn understood(heard: &[Heard]) -> Vec<Understood> {
    let by_echo = heard.iter().filter(|answer| !answer.line.is_empty());
    by_echo.map(|answer| Understood { line: answer.line.clone(), body: answer.body.clone() }).collect()
}

/// One origin, and what was heard of each case.
struct Asked {
    name: &'static str,
    host: String,
    heard: Vec<Vec<Heard>>,
    /// Requests that reached it.
    reached: u64,
}

/// All cases to one origin.
async fn ask_all(https: Https, (name, host): (&'static str, String), echo: Echo, cases: Vec<Case>) -> Asked {
    let mut asked = Asked { name, host, heard: Vec::new(), reached: 0 };
    let (host, authority) = (&asked.host, https.authority(&asked.host));
    echo.noted();
    for case in cases {
        let (number, shown) = (case.number, case.shown());
        let next = last(&https, host, &format!("/next/{number}"));
        let bytes = [case.bytes(&authority), next, vec![b'x'; FILLER], b"\r\n\r\n".to_vec()].concat();
        let (heard, _) = heard::answers(&say_to(&https, host, &bytes).await, None);
        // Another conversation, most likely by the same connection between proxy and origin.
        let after = say_to(&https, host, &last(&https, host, &format!("/after/{number}"))).await;
        let (after, _) = heard::answers(&after, Some("GET"));
        let line = format!("GET /after/{number}");
        assert_eq!(understood(&after), [Understood { line, body: Vec::new() }], "{name}, after {shown}");
        let noted = echo.noted();
        let answered = [understood(&heard), understood(&after)].concat();
        assert_eq!(noted, answered, "{name} understood something else than was answered: {shown}");
        asked.reached += noted.len() as u64;
        asked.heard.push(heard.into_iter().map(|heard| heard.without(host)).collect());
    }
    asked
}

/// How often the proxy counted an answer of this class from this app.
async fn counted(platform: &Platform, host: &str, class: &str) -> u64 {
    let mut proxy = ProxyServiceClient::new(platform.operate("proxy"));
    let text = proxy.get_metrics(GetMetricsRequest {}).await.unwrap().into_inner().text;
    let (host, class) = (format!("host=\"{host}\""), format!("class=\"{class}\""));
    let is_it = |line: &&str| {
        line.starts_with("nexushub_proxy_route_responses_total{")
            && line.contains(&host)
            && line.contains(&class)
    };
    text.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_default()
}

/// Of one case, by two origins. One that refuses what the other takes says nothing about where it ends; else all is the same.
fn agree(one: &[Heard], other: &[Heard]) -> bool {
    let mut stricter = false;
    for (one, other) in one.iter().zip(other) {
        if one.is_refusal() != other.is_refusal() {
            stricter = true;
        } else if !one.is_refusal() && one != other {
            return false;
        }
    }
    stricter || one.len() == other.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_origin_reads_a_request_as_the_proxy_does() {
    let platform = Platform::start_with(&Options::with(IMPATIENT));
    let cases = cases::all(rounds_up_to(400, 10_000));
    let mut runs = Vec::new();
    for (number, (name, script)) in origins::ALL.into_iter().enumerate() {
        let (echo, host) = (Echo::start(), format!("origin{number}")); // as long as the others': bodies may hold it
        origins::run(&platform, &host, script, echo.port).await;
        runs.push(tokio::spawn(ask_all(platform.https(), (name, host), echo, cases.clone())));
    }
    let mut all = Vec::new();
    for run in runs {
        let asked = run.await.unwrap();
        let Asked { name, host, heard, reached } = &asked;
        let refused = heard.iter().filter(|heard| heard.first().is_some_and(Heard::is_refusal)).count();
        println!("figure: {name}: {} cases, {refused} refused, {reached} requests", cases.len());
        let every = async { while counted(&platform, host, "2xx").await < *reached {} };
        soon("every request is counted", every).await;
        assert_eq!(
            counted(&platform, host, "2xx").await,
            *reached,
            "{name}: counted by the proxy, and there"
        );
        all.push(asked);
    }
    let pairs =
        all.iter().enumerate().flat_map(|(at, one)| all[at + 1..].iter().map(move |other| (one, other)));
    let disagreements: Vec<String> =
        pairs.flat_map(|(one, other)| disagreements(&cases, one, other)).collect();
    let some = disagreements[..disagreements.len().min(10)].join("\n");
    assert!(disagreements.is_empty(), "{} disagreements, such as\n{some}", disagreements.len());
}

fn disagreements(cases: &[Case], one: &Asked, other: &Asked) -> Vec<String> {
    let heard = cases.iter().zip(one.heard.iter().zip(&other.heard));
    let differ = heard.filter(|(_, (by_one, by_other))| !agree(by_one, by_other));
    let told = differ.map(|(case, (by_one, by_other))| {
        let (names, shown) = ((one.name, other.name), case.shown());
        format!("{names:?} {shown}:\n  {by_one:?}\n  {by_other:?}")
    });
    told.collect()
}

/// What came of an odd answer and of the harmless one after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// Taken: status and body.
    Taken(u16, Vec<u8>),
    /// The reader said instead that there was none.
    Refused,
    /// Begun and not ended.
    Cut,
}

/// Asks for an odd answer, and on the same connection for a harmless one.
fn ask_for(number: usize, host: &str) -> Vec<u8> {
    let method = answers::ALL[number].0;
    let head = format!(" HTTP/1.1\r\nHost: {host}\r\n");
    format!("{method} /r/{number}{head}\r\nGET /safe{head}Connection: close\r\n\r\n").into_bytes()
}

fn outcome(number: usize, bytes: &[u8]) -> Outcome {
    let (method, then, text) = answers::ALL[number];
    let (heard, rest) = heard::answers(bytes, Some(method));
    let shown = format!("answer {number}, {then:?}, {}: {}", text.escape_debug(), bytes.escape_ascii());
    let Some((first, more)) = heard.split_first() else { return Outcome::Cut };
    let safe = |second: &Heard| second.status == 200 && second.body == b"safe";
    match more {
        [] => assert!(
            then == Then::Close || rest || first.status >= 500,
            "the connection should have served on: {shown}"
        ),
        [second] => assert!(safe(second), "the next answer is another's: {shown}"),
        _ => panic!("more answers than questions: {shown}"),
    }
    match first.status {
        502..=504 => Outcome::Refused,
        status => Outcome::Taken(status, first.body.clone()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_takes_no_answer_that_another_would_read_differently() {
    let platform = Platform::start_with(&Options::with(IMPATIENT));
    let behind = answers::start();
    origins::run(&platform, "relay", origins::RELAY, behind).await;
    let mut others = Vec::new();
    for (name, script) in origins::ALL {
        let port = origins::run(&platform, name, script, behind).await;
        others.push((name, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
    }
    let https = platform.https();
    let mut stricter = BTreeSet::new();
    for number in 0..answers::ALL.len() {
        let ours =
            outcome(number, &say_to(&https, "relay", &ask_for(number, &https.authority("relay"))).await);
        let after = say_to(&https, "relay", &last(&https, "relay", "/safe")).await;
        let (after, _) = heard::answers(&after, Some("GET"));
        assert!(matches!(&after[..], [safe] if safe.body == b"safe"), "after answer {number}: {after:?}");
        for (name, address) in &others {
            let stream = TcpStream::connect(address).await.unwrap();
            let (heard, _) =
                heard::answers(&say(stream, &ask_for(number, "x")).await, Some(answers::ALL[number].0));
            let theirs = heard.first().map(|first| (first.status, &first.body));
            match (&ours, theirs) {
                (Outcome::Taken(status, body), Some((their_status, their_body))) if their_status < 500 => {
                    let text = answers::ALL[number].2.escape_debug();
                    let same = (*status, body) == (their_status, their_body);
                    assert!(same, "answer {number}, {text}: {ours:?}, and by {name} {theirs:?}");
                }
                (Outcome::Refused | Outcome::Cut, Some((200, _))) => drop(stricter.insert(number)),
                _ => {}
            }
        }
    }
    println!("figure: {} answers, {} of them taken by others only", answers::ALL.len(), stricter.len());
}
