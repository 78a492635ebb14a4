//! Many people follow the log of one app that talks, while everything that could stand between them and a line is killed or
//! replaced: each of them sees every line once, in order. `NEXUSHUB_SCALE` makes it two hundred followers and five rounds.

use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use nexushub_e2e::{
    HANG, Https, Options, Platform, Process, Protocol, Signal, package::Package, processes, rounds_up_to,
    soon,
};
use serde_json::Value;
use tokio::{task::JoinSet, time::timeout};

/// Each kill counts as the first after a stable run. There are places for all followers as it is shipped.
const MANY: &str = "[supervisor]\nstable_ms = 1\nburst = 1000\n\
    [debug-api]\ndriver = \"process\"\n";
/// Lines of one burst.
const BURST: usize = 200;
/// How long somebody waits who found nobody there.
const PAUSE: Duration = Duration::from_millis(50);

async fn pause() {
    let _ = timeout(PAUSE, std::future::pending::<()>()).await;
}

/// Of each process of the app how many lines it said, and what they were, in order.
type Heard = BTreeMap<u64, (usize, DefaultHasher)>;

/// Somebody who reads a log and comes back with the last cursor whenever the stream breaks.
struct Follower {
    https: Https,
    bearer: String,
    id: String,
    /// Reads server-sent events and says the cursor by `Last-Event-ID`; otherwise NDJSON, and by `after`.
    events: bool,
    cursor: String,
    heard: Heard,
    /// The lines themselves, which one of the many keeps.
    lines: Option<Vec<String>>,
    breaks: usize,
}

impl Follower {
    fn new(platform: &Platform, id: &str, number: usize) -> Self {
        let bearer = format!("Bearer {}", platform.operator("debug-api"));
        let (https, id, events) = (platform.https(), id.to_owned(), number % 2 == 1);
        let lines = (number == 0).then(Vec::new);
        Self { https, bearer, id, events, cursor: String::new(), heard: Heard::new(), lines, breaks: 0 }
    }

    /// Until the last line.
    async fn follow(mut self) -> Self {
        while !self.read().await {
            self.breaks += 1;
            pause().await;
        }
        self
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let accept = if self.events { "text/event-stream" } else { "application/x-ndjson" };
        let path = format!("/debug/application/{}/logs?tail=all", self.id);
        let request = Request::get(if self.events { path } else { format!("{path}&after={}", self.cursor) });
        let request = request.header("authorization", &self.bearer).header("accept", accept);
        let request = if self.events { request.header("last-event-id", &self.cursor) } else { request };
        request.body(Full::default()).unwrap()
    }

    /// Reads one stream until it breaks; whether the last line was among it.
    async fn read(&mut self) -> bool {
        let Ok(mut connection) = self.https.open(Protocol::Http1, "").await else { return false };
        let Ok(answer) = connection.begin(self.request()).await else { return false };
        if answer.status() != 200 {
            return false;
        }
        let (mut body, mut text) = (answer.into_body(), Vec::new());
        let apart: &[u8] = if self.events { b"\n\n" } else { b"\n" };
        while let Some(Ok(frame)) = soon("a sign of life", body.frame()).await {
            text.extend_from_slice(&frame.into_data().unwrap_or_default());
            while let Some(at) = text.windows(apart.len()).position(|window| window == apart) {
                let told: Vec<u8> = text.drain(..at + apart.len()).collect();
                if self.take(std::str::from_utf8(&told).unwrap().trim_end()) {
                    return true;
                }
            }
        }
        false
    }

    fn take(&mut self, told: &str) -> bool {
        let field = |name: &str| told.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let (data, cursor) = match self.events {
            true => (field("data: "), field("id: ")),
            false => (Some(told.to_owned()), None),
        };
        let Some(data) = data else { return false };
        let data: Value = serde_json::from_str(&data).unwrap();
        assert!(data.get("lost").is_none(), "lines are missing: {data}");
        let Some(cursor) = cursor.or_else(|| Some(data["cursor"].as_str()?.to_owned())) else { return false };
        self.cursor = cursor;
        let text = data["text"].as_str().or(data["message"].as_str()).unwrap_or_default();
        if text.starts_with("say") {
            let (count, lines) = self.heard.entry(data["pid"].as_u64().unwrap_or(0)).or_default();
            *count += 1;
            text.hash(lines);
            if let Some(lines) = &mut self.lines {
                lines.push(text.to_owned());
            }
        }
        text == "done 1"
    }
}

/// Has the app say a burst, as often as it takes until it has said that it did; which time it was.
async fn say(platform: &Platform, burst: usize) -> usize {
    for attempt in 0.. {
        let path = format!("/public/print?text=say{burst}.{attempt}&count={BURST}");
        let https = platform.https();
        let request = Request::get(path).body(Full::default()).unwrap();
        let said = https.send(Protocol::Http1, "chat.debug", request).await;
        if said.is_ok_and(|answer| answer.status == 200 && answer.text() == "printed") {
            return attempt;
        }
        pause().await;
    }
    unreachable!("it is tried for ever")
}

/// Memory and processor time of a daemon, now.
async fn used(platform: &Platform, daemon: &str) -> String {
    let pid = platform.daemon(daemon).await.pid;
    let memory = processes::field(pid, "VmHWM").unwrap_or_default();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit(") ").next().unwrap_or_default().to_owned();
    let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    format!("{daemon} at most {memory}, {ticks} ticks")
}

async fn running(platform: &Platform) -> u32 {
    let all = platform
        .instances_until("the app runs", |all| {
            all.values().any(|status| status.host_name == "chat.debug" && status.routed && status.pid != 0)
        })
        .await;
    all.values().find(|status| status.host_name == "chat.debug").unwrap().pid
}

/// Everything is killed once, one after the other, and the app gets another package.
async fn havoc(platform: &Platform, id: &str, round: usize) {
    for daemon in ["procmgr", "debug-api", "proxy", "provider"] {
        platform.kill(daemon).await;
    }
    if let Some(app) = Process::open(running(platform).await) {
        app.signal(Signal::KILL);
    }
    let package = Package::probe().file("round", round.to_string().as_bytes()).bytes();
    let developer = platform.developer();
    developer.upload(id, &package).await;
    assert_eq!(developer.post(id, "/install").await.status, 200);
    running(platform).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_followers_each_see_every_line_once_in_order_whatever_is_killed() {
    let (count, rounds, bursts) = (rounds_up_to(8, 200), rounds_up_to(1, 5), rounds_up_to(4, 130));
    let bounds = format!("[procmgr]\nlog_budget_bytes = 67108864\n{MANY}");
    let platform = Platform::start_with(&Options::with(&bounds));
    let id = platform.developer().push("chat", &Package::probe().bytes()).await;
    running(&platform).await;
    let since = Instant::now();
    let mut followers = JoinSet::new();
    for number in 0..count {
        followers.spawn(Follower::new(&platform, &id, number).follow());
    }
    let mut said = Vec::new();
    for round in 0..rounds {
        let speech = async {
            let mut said = Vec::new();
            for burst in round * bursts..(round + 1) * bursts {
                said.push((burst, say(&platform, burst).await));
            }
            said
        };
        let (more, ()) = tokio::join!(speech, havoc(&platform, &id, round));
        said.extend(more);
    }
    let last = Request::get("/public/print?text=done&count=1").body(Full::default()).unwrap();
    let last = platform.https().send(Protocol::Http1, "chat.debug", last).await;
    assert_eq!(last.unwrap().text(), "printed");
    let all = timeout(HANG * 4, followers.join_all()).await.expect("every follower has the last line");
    let took = since.elapsed();
    let kept = all.iter().find_map(|follower| follower.lines.as_ref()).unwrap();
    let mut bursts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (text, number) in kept.iter().filter_map(|line| line.split_once(' ')) {
        bursts.entry(text).or_default().push(number);
    }
    let whole: Vec<_> = (1..=BURST).map(|number| number.to_string()).collect();
    for (burst, attempt) in &said {
        let text = format!("say{burst}.{attempt}");
        assert_eq!(
            bursts[text.as_str()],
            whole,
            "what the app said it said is there, once and in order: {text}"
        );
    }
    let told = |follower: &Follower| -> Vec<(u64, usize, u64)> {
        follower.heard.iter().map(|(pid, (count, lines))| (*pid, *count, lines.finish())).collect()
    };
    assert!(all.iter().all(|follower| told(follower) == told(&all[0])), "all heard the same");
    let (lines, breaks) = (kept.len(), all.iter().map(|follower| follower.breaks).sum::<usize>());
    let figures = [used(&platform, "debug-api").await, used(&platform, "procmgr").await].join("; ");
    println!(
        "figure: followers: {count} read {lines} lines each over {rounds} rounds of kills in {took:.1?}, coming back \
         {breaks} times; since the last kill {figures}"
    );
}

/// The lines of a whole log, as text.
async fn lines(body: hyper::body::Incoming) -> Vec<String> {
    let text = timeout(HANG * 4, body.collect()).await.expect("it ends").unwrap().to_bytes();
    String::from_utf8(text.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_take_nothing_cost_nobody_else_and_little_memory_and_are_told_all_in_the_end() {
    let (count, total) = (rounds_up_to(20, 200), 10_000);
    let bounds = format!("[procmgr]\nlog_budget_bytes = 67108864\n{MANY}");
    let platform = Platform::start_with(&Options::with(&bounds));
    let id = platform.developer().push("chat", &Package::probe().bytes()).await;
    running(&platform).await;
    for burst in 0..10 {
        let path = format!("/public/print?text=say{burst}&count=1000&bytes=1000");
        assert_eq!(platform.https().get("chat.debug", &path).await.text(), "printed");
    }
    let bearer = format!("Bearer {}", platform.operator("debug-api"));
    let open = async || {
        let mut connection = platform.https().open(Protocol::Http1, "").await.unwrap();
        let request = Request::get(format!("/debug/application/{id}/logs?tail=all&follow=false"));
        let request = request.header("authorization", &bearer).header("accept", "text/plain");
        let answer = connection.begin(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(answer.status(), 200);
        (connection, answer.into_body())
    };
    let debug_api = platform.daemon("debug-api").await.pid;
    let before = processes::forget_peak(debug_api);
    let mut slow = Vec::new();
    for _ in 0..count {
        slow.push(open().await);
    }
    let (_connection, fast) = open().await;
    let whole = lines(fast).await;
    let said: Vec<_> = whole.iter().filter(|line| line.starts_with("say")).collect();
    assert!(said.len() == total && said.iter().all(|line| line.len() == 1000), "{} lines", said.len());
    let more = processes::kib(debug_api, "VmHWM").saturating_sub(before);
    println!("figure: {count} readers that take nothing of 10 MB: {more} KiB more than {before} KiB");
    assert!(
        more < (16 << 10) + count * 256,
        "{count} readers of 10 MB each, and debug-api takes {more} KiB more"
    );
    let (_connection, last) = slow.pop().unwrap();
    assert!(lines(last).await == whole, "each line once, in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_stream_tells_of_an_apps_death_with_its_reason_and_of_its_next_start() {
    let platform = Platform::start();
    let id = platform.developer().push("chat", &Package::probe().bytes()).await;
    let app = running(&platform).await;
    let mut connection = platform.https().open(Protocol::Http1, "").await.unwrap();
    let bearer = format!("Bearer {}", platform.operator("debug-api"));
    let request = Request::get(format!("/debug/application/{id}/status")).header("authorization", bearer);
    let request = request.header("accept", "text/event-stream").body(Full::default()).unwrap();
    let mut body = connection.begin(request).await.unwrap().into_body();
    let mut text = String::new();
    let mut next = async || loop {
        if let Some((event, rest)) = text.split_once("\n\n") {
            let data: Value = serde_json::from_str(event.split_once("data: ").unwrap().1).unwrap();
            text = rest.to_owned();
            return data;
        }
        let frame = soon("the next status", body.frame()).await.expect("the stream goes on").unwrap();
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    };
    let first = next().await;
    assert_eq!(
        (first["status"].as_str(), first["details"]["generation"].as_u64()),
        (Some("running"), Some(1))
    );
    Process::open(app).unwrap().signal(Signal::KILL);
    let again = loop {
        let told = next().await;
        if told["status"] == "running" && told["details"]["generation"] == 2 {
            break told["details"].clone();
        }
    };
    let moments = again["history"].as_array().unwrap();
    assert!(moments.iter().any(|moment| moment["reason"].as_str().unwrap().contains("SIGKILL")), "{again}");
    assert_eq!(again["lastExit"]["signal"], 9);
    let kept = platform.state().join("debug-api/history.json");
    let is_kept = async {
        while !std::fs::read_to_string(&kept).is_ok_and(|text| text.contains("SIGKILL")) {
            tokio::task::yield_now().await;
        }
    };
    soon("it is kept", is_kept).await;
    platform.kill("debug-api").await;
    let details = platform.developer().get(&id, "/status?details=true").await.json()["details"].clone();
    assert!(details["history"].to_string().contains("SIGKILL"), "whoever is killed: {details}");
}
