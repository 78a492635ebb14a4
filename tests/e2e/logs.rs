//! What an app prints is there once, in order, whoever died meanwhile.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use nexushub_e2e::{
    App, Options, Platform, Protocol, package::Package, soon, terminal::Terminal, workshop::nexushub,
};
use nexushub_proto::procmgr::{
    LogEntry, LogStream, ReadLogRequest, RestartInstanceRequest,
    procmgr_service_client::ProcmgrServiceClient, read_log_response::Event,
};
use serde_json::Value;

/// Reads an instance's log after a position, following, until a line holds the text; pieces of long lines are joined.
async fn read_until(platform: &Platform, id: &str, position: &str, last: &str) -> Vec<LogEntry> {
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    let (id, position) = (id.to_owned(), position.to_owned());
    let request = ReadLogRequest { id, follow: true, position, ..Default::default() };
    let mut stream = procmgr.read_log(request).await.unwrap().into_inner();
    let (mut entries, mut joined): (Vec<LogEntry>, Option<LogEntry>) = (Vec::new(), None);
    let read = async {
        loop {
            let Some(Event::Entry(entry)) =
                stream.message().await.unwrap().expect("the stream goes on").event
            else {
                panic!("nothing may be missing");
            };
            let whole = match joined.take() {
                Some(mut begun) => {
                    begun.line.extend(&entry.line);
                    LogEntry { line: begun.line, unix_ms: begun.unix_ms, ..entry }
                }
                None => entry,
            };
            if whole.partial {
                joined = Some(whole);
                continue;
            }
            let found = String::from_utf8_lossy(&whole.line).contains(last);
            entries.push(whole);
            if found {
                return;
            }
        }
    };
    soon("the log goes on", read).await;
    entries
}

/// An entry as it is whoever reads it when: its position says which generations could still write at that time.
fn unplaced(entry: LogEntry) -> LogEntry {
    LogEntry { position: String::new(), ..entry }
}

async fn print(platform: &Platform, host: &str, text: &str, count: usize, more: &str) {
    let answer = platform.https().get(host, &format!("/public/print?text={text}&count={count}{more}")).await;
    assert_eq!(answer.text(), "printed");
}

fn lines_of(entries: &[LogEntry], text: &str) -> Vec<String> {
    let lines = entries.iter().map(|entry| String::from_utf8_lossy(&entry.line).into_owned());
    lines.filter(|line| line.starts_with(&format!("{text} "))).collect()
}

fn numbered(text: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{text} {number}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_there_exactly_once_over_restarts_of_the_app_and_deaths_of_procmgr() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    print(&platform, "hello", "first", 500, "").await;
    let old = platform.running("hello").await;
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    procmgr.restart_instance(RestartInstanceRequest { id: "hello".to_owned() }).await.unwrap();
    let anew =
        platform.instance_until("hello", "runs anew", |status| status.routed && status.pid != old.pid).await;
    platform.answers_as("hello", anew.pid).await;
    print(&platform, "hello", "second", 500, "&stream=err").await;
    let killed = platform.daemon("procmgr").await;
    killed.kill();
    print(&platform, "hello", "third", 500, "").await;
    platform.replaced("procmgr", killed.pid).await;
    print(&platform, "hello", "fourth", 1, "").await;
    let entries = read_until(&platform, "hello", "", "fourth 1").await;
    for (text, count) in [("first", 500), ("second", 500), ("third", 500), ("fourth", 1)] {
        assert_eq!(lines_of(&entries, text), numbered(text, count));
    }
    assert!(entries.windows(2).all(|pair| pair[0].cursor < pair[1].cursor), "cursors grow");
    let of = |text: &str| entries.iter().find(|entry| entry.line.starts_with(text.as_bytes())).unwrap();
    assert_eq!((of("first").stream(), of("second").stream()), (LogStream::Stdout, LogStream::Stderr));
    assert_eq!((of("first").pid, of("first").generation), (old.pid, old.generation));
    assert!(of("second").generation > old.generation);
    let middle = &entries[entries.len() / 2];
    for place in [middle.position.clone(), middle.cursor.to_string()] {
        let rest = read_until(&platform, "hello", &place, "fourth 1").await;
        let rest = rest.into_iter().map(unplaced);
        assert!(
            rest.eq(entries[entries.len() / 2 + 1..].iter().cloned().map(unplaced)),
            "{place} goes on after it"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_a_million_bytes_is_kept_whole_and_what_follows_too() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    print(&platform, "hello", "long", 1, "&bytes=1000000").await;
    print(&platform, "hello", "after", 3, "").await;
    let entries = read_until(&platform, "hello", "", "after 3").await;
    let long = entries.iter().find(|entry| entry.line.starts_with(b"long 1")).unwrap();
    assert_eq!(long.line.len(), 1_000_000);
    assert!(long.line[6..].iter().all(|byte| *byte == b'x'));
    assert_eq!(lines_of(&entries, "after"), numbered("after", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_terminal_a_line_has_its_time_and_its_stream_and_in_a_pipe_it_is_as_it_was_said() {
    let platform = Platform::start();
    platform.run_app(&App::named("hello")).await;
    print(&platform, "hello", "fine", 1, "").await;
    print(&platform, "hello", "broken", 1, "&stream=err").await;
    read_until(&platform, "hello", "", "broken 1").await;
    let home = platform.home.path();
    let mut terminal = Terminal::start(home, home, &["logs", "hello"]);
    let shown = terminal.reads("out fine 1") + &terminal.reads("err broken 1");
    assert!(shown.contains("\u{1b}[31merr"), "{shown:?}");
    let digits = shown.replace(|char: char| char.is_ascii_digit(), "0");
    assert!(digits.contains("0000-00-00 00:00:00.000"), "{shown:?}");
    assert_eq!(terminal.end().code(), Some(0));
    let piped = |more: &[&str]| {
        let words = ["logs", "hello", "--grep", "broken 1"].iter().chain(more).copied().collect::<Vec<_>>();
        String::from_utf8(nexushub(home, &words).stdout).unwrap()
    };
    assert_eq!(piped(&[]), "broken 1\n");
    let dated = piped(&["--timestamps"]).replace(|char: char| char.is_ascii_digit(), "0");
    assert_eq!(dated, "0000-00-00T00:00:00.000Z broken 0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_an_app_that_never_comes_up_says_why() {
    let platform = Platform::start();
    platform.put(platform.instance(&App::named("hello").file("crash", "3"))).await.unwrap();
    platform.instance_until("hello", "has failed", |status| status.restarts >= 2).await;
    let entries = read_until(&platform, "hello", "", "told to crash").await;
    assert!(entries.iter().any(|entry| entry.line == b"probe: told to crash"));
}

/// Log events of a debug app's stream until one's message holds the text.
async fn events_until(
    platform: &Platform,
    id: &str,
    resume: Option<&str>,
    last: &str,
) -> Vec<(String, Value)> {
    let mut connection = platform.https().open(Protocol::Http1, "").await.unwrap();
    let bearer = format!("Bearer {}", platform.operator("debug-api"));
    let mut request = Request::get(format!("/debug/application/{id}/logs")).header("authorization", bearer);
    if let Some(position) = resume {
        request = request.header("last-event-id", position);
    }
    let answer = connection.begin(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/event-stream".parse().unwrap())
    );
    let (mut body, mut text, mut events) = (answer.into_body(), String::new(), Vec::new());
    loop {
        while let Some((event, rest)) = text.split_once("\n\n") {
            let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            if let (Some("log"), Some(data)) = (field("event:"), field("data:")) {
                let data: Value = serde_json::from_str(data).unwrap();
                let id = field("id:").unwrap_or_default().to_owned();
                let found = data["message"].as_str().unwrap().contains(last);
                events.push((id, data));
                if found {
                    return events;
                }
            }
            text = rest.to_owned();
        }
        let frame = soon("the next event", body.frame()).await.expect("the stream goes on").unwrap();
        text.push_str(&String::from_utf8_lossy(&frame.into_data().unwrap_or_default()));
    }
}

fn messages(events: &[(String, Value)], text: &str) -> Vec<String> {
    let messages = events.iter().map(|(_, data)| data["message"].as_str().unwrap().to_owned());
    messages.filter(|message| message.starts_with(&format!("{text} "))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_stream_resumes_after_the_last_event_and_survives_procmgr() {
    let platform = Platform::start();
    let id = platform.developer().push("shop", &Package::probe().bytes()).await;
    platform
        .instances_until("the app runs", |all| {
            all.values().any(|status| status.host_name == "shop.debug" && status.routed)
        })
        .await;
    print(&platform, "shop.debug", "first", 30, "").await;
    let first = events_until(&platform, &id, None, "first 30").await;
    assert_eq!(first[0].1["source"], "system");
    assert_eq!(messages(&first, "first"), numbered("first", 30));
    let last = &first.last().unwrap().0;
    print(&platform, "shop.debug", "second", 200, "").await;
    let second = events_until(&platform, &id, Some(last), "second 200").await;
    assert_eq!(
        messages(&second, "second"),
        numbered("second", 200),
        "more than a new stream would start with"
    );
    assert!(messages(&second, "first").is_empty(), "and nothing twice");
    let last = &second.last().unwrap().0;
    let (third, ()) = tokio::join!(events_until(&platform, &id, Some(last), "third 20"), async {
        platform.kill("procmgr").await;
        print(&platform, "shop.debug", "third", 20, "").await;
    });
    assert_eq!(
        messages(&third, "third"),
        numbered("third", 20),
        "the same stream goes on over procmgr's death"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_keeps_to_its_budget_loses_the_oldest_and_says_so() {
    let budget = 512 << 10;
    let bounds = format!("log_budget_bytes = {budget}\nlog_segment_bytes = 131072");
    let platform = Platform::start_with(&Options::with(&format!("[procmgr]\n{bounds}\n")));
    platform.run_app(&App::named("hello")).await;
    for _ in 0..3 {
        print(&platform, "hello", "flood", 1000, "&bytes=1000").await;
    }
    print(&platform, "hello", "last", 1, "").await;
    // Once to wait until all of it is written, once more to see what is kept of it.
    count_until_last(&platform).await;
    let (lines, gaps) = count_until_last(&platform).await;
    assert!(gaps > 0, "what is lost is told");
    assert!(lines < budget / 1000 + 10, "{lines} lines of 1000 bytes in {budget} bytes");
    let folder = platform.state().join("instances/hello/log");
    let kept: u64 =
        std::fs::read_dir(folder).unwrap().flatten().map(|file| file.metadata().unwrap().len()).sum();
    assert!(kept <= budget, "{kept} bytes are kept");
}

/// Reads from the beginning to the line `last 1`: how many lines and how many gaps came before.
async fn count_until_last(platform: &Platform) -> (u64, u64) {
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    let request = ReadLogRequest { id: "hello".to_owned(), after: 1, follow: true, ..Default::default() };
    let mut stream = procmgr.read_log(request).await.unwrap().into_inner();
    let (mut lines, mut gaps) = (0, 0);
    let read = async {
        loop {
            match stream.message().await.unwrap().expect("the stream goes on").event {
                Some(Event::Gap(_)) => gaps += 1,
                Some(Event::Entry(entry)) if entry.line == b"last 1" => return,
                _ => lines += 1,
            }
        }
    };
    soon("the newest line", read).await;
    (lines, gaps)
}
