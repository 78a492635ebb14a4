//! Many apps that say much, while procmgr is killed again and again and readers dawdle: every byte arrives once.
//! `NEXUSHUB_SCALE=50` makes it fifty apps, a million lines and twenty kills.

use std::{collections::BTreeMap, path::Path, time::Instant};

use nexushub_e2e::{
    App, FORGIVING, HANG, Options, Platform, Signal, grpc::Credentialed, noise, rounds, soon, until,
};
use nexushub_proto::procmgr::{
    LogEntry, LogStream, ReadLogRequest, State, procmgr_service_client::ProcmgrServiceClient,
    read_log_response::Event,
};
use nexushub_proto::provider::{Instance, Limits};
use nexushub_shim::frame::PAYLOAD_MAX;
use tokio::{sync::watch, task::JoinSet};

/// A daemon that the story has stand still for a while is not to be ended for it.
const PATIENT: &str = "[supervisor]\nwatchdog_ms = 600000\n";

/// One app's log, as a reader knows it so far.
struct Tail {
    procmgr: Credentialed,
    app: usize,
    lines: u64,
    position: String,
    /// The next line's number, and what came of it already.
    next: u64,
    begun: Vec<u8>,
}

impl Tail {
    fn new(platform: &Platform, app: usize, lines: u64) -> Self {
        let procmgr = platform.operate("procmgr");
        Self { procmgr, app, lines, position: String::new(), next: 0, begun: Vec::new() }
    }

    fn is_done(&self) -> bool {
        self.next == self.lines
    }

    /// Reads on, no more than so many entries; fewer when there are no more now, all is read, or procmgr dies.
    async fn read(&mut self, follow: bool, most: usize) {
        let (id, position) = (name(self.app), self.position.clone());
        let request = ReadLogRequest { id, follow, position, ..Default::default() };
        let Ok(answer) = ProcmgrServiceClient::new(self.procmgr.clone()).read_log(request).await else {
            return;
        };
        let mut stream = answer.into_inner();
        for _ in 0..most {
            match stream.message().await.map(|next| next.map(|next| next.event.unwrap())) {
                Ok(Some(Event::Entry(entry))) => self.take(entry),
                Ok(Some(Event::Gap(gap))) => panic!("{}: {} entries are missing", self.app, gap.dropped),
                Ok(None) | Err(_) => return,
            }
            if self.is_done() {
                return;
            }
        }
    }

    fn take(&mut self, entry: LogEntry) {
        self.position = entry.position;
        let own_words = self.next == 0 && entry.line.starts_with(b"probe: listening");
        if own_words || entry.stream != i32::from(LogStream::Stdout) {
            return;
        }
        self.begun.extend(entry.line);
        if !entry.partial {
            let expected = noise::line(self.app as u64, self.next);
            assert!(std::mem::take(&mut self.begun) == expected, "{} {} is not as said", self.app, self.next);
            self.next += 1;
        }
    }
}

fn name(app: usize) -> String {
    format!("app{app}")
}

/// A reader that goes from app to app and takes a little of each.
async fn hop(mut tails: Vec<Tail>, most: usize) {
    while tails.iter().any(|tail| !tail.is_done()) {
        for tail in tails.iter_mut().filter(|tail| !tail.is_done()) {
            tail.read(false, most).await;
        }
    }
}

/// A reader that follows all apps at once, takes some of each, and lets the stream stand until something dies again.
async fn dawdle(tails: Vec<Tail>, deaths: watch::Receiver<usize>) {
    let mut all = JoinSet::new();
    for mut tail in tails {
        let mut deaths = deaths.clone();
        all.spawn(async move {
            while !tail.is_done() {
                tail.read(true, 800).await;
                let _ = deaths.changed().await; // an error: nothing dies any more
            }
        });
    }
    all.join_all().await;
}

async fn start(platform: &Platform, apps: usize) {
    platform.hand_over();
    for app in 0..apps {
        platform.put(platform.instance(&App::named(&name(app)))).await.unwrap();
    }
    let runs = |app: usize, all: &nexushub_e2e::app::Instances| {
        all.get(&name(app)).is_some_and(|status| status.state() == State::Running && status.routed)
    };
    platform.instances_until("all run", |all| (0..apps).all(|app| runs(app, all))).await;
    for app in 0..apps {
        assert_eq!(platform.https().get(&name(app), "/").await.status, 200);
    }
}

/// Has an app say so many lines.
async fn say(platform: &Platform, app: usize, from: u64, count: u64) {
    let path = format!("/public/noise?seed={app}&from={from}&count={count}");
    assert_eq!(platform.https().get(&name(app), &path).await.text(), "said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_lines_reaches_slow_readers_byte_by_byte_over_deaths_of_procmgr() {
    let apps = rounds(20).min(50);
    let kills = (apps * 2 / 5) as u64;
    let share = 400 * apps as u64 / kills;
    let lines = share * kills;
    let bounds = "log_budget_bytes = 67108864";
    let platform = Platform::start_with(&Options::with(&format!("[procmgr]\n{bounds}\n{FORGIVING}")));
    start(&platform, apps).await;
    let since = Instant::now();
    let (die, deaths) = watch::channel(0);
    let tails = || (0..apps).map(|app| Tail::new(&platform, app, lines)).collect::<Vec<_>>();
    let mut readers = JoinSet::new();
    readers.spawn(hop(tails(), 700));
    readers.spawn(hop(tails(), 3000));
    readers.spawn(dawdle(tails(), deaths));
    for kill in 0..kills {
        let speech = async {
            for app in 0..apps {
                say(&platform, app, kill * share, share).await;
            }
        };
        tokio::join!(speech, platform.kill("procmgr"));
        die.send_modify(|deaths| *deaths += 1);
    }
    let said = since.elapsed();
    drop(die);
    tokio::time::timeout(HANG * 5, readers.join_all()).await.expect("every reader has read every line");
    let all = lines * apps as u64;
    println!(
        "figure: storm: {apps} apps, {all} lines, {kills} kills of procmgr: said in {said:.1?}, \
         read by 3 in {:.1?}; none missing, none twice, none changed",
        since.elapsed()
    );
}

/// What the log takes at one moment: files come and go while they are looked at, and only a look amid which none did saw them all.
fn kept(folder: &Path) -> u64 {
    let files = || -> BTreeMap<_, _> {
        let files = std::fs::read_dir(folder).unwrap().flatten();
        files.filter_map(|file| Some((file.file_name(), file.metadata().ok()?.len()))).collect()
    };
    loop {
        let (before, after) = (files(), files());
        if before.keys().eq(after.keys()) {
            return before.values().sum();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_waits_for_no_reader_stays_within_its_bound_and_every_lost_line_is_counted() {
    let (budget, count) = (512 << 10, 20_001);
    let bounds = format!("log_budget_bytes = {budget}\nlog_segment_bytes = 131072");
    let platform = Platform::start_with(&Options::with(&format!("[procmgr]\n{bounds}\n{PATIENT}")));
    start(&platform, 1).await;
    let mut first = Tail::new(&platform, 0, 1);
    soon("its first word", first.read(true, 1)).await;
    let reader = platform.daemon("procmgr").await;
    reader.signal(Signal::STOP);
    let folder = platform.state().join("instances").join(name(0)).join("log");
    let flood = say(&platform, 0, 0, count);
    tokio::pin!(flood);
    let watched = async {
        loop {
            tokio::select! {
                biased;
                () = &mut flood => return,
                () = tokio::task::yield_now() => assert!(kept(&folder) <= budget, "{} bytes", kept(&folder)),
            }
        }
    };
    soon("the app is done, though nobody reads", watched).await;
    reader.signal(Signal::CONT);
    let pieces = (0..count).map(|number| noise::line(0, number).len().div_ceil(PAYLOAD_MAX).max(1) as u64);
    let (mut heard, mut lost, mut last) = (0, 0, Vec::new());
    let request =
        ReadLogRequest { id: name(0), follow: true, position: first.position, ..Default::default() };
    let read = async {
        let mut stream = ProcmgrServiceClient::new(platform.operate("procmgr"))
            .read_log(request)
            .await
            .unwrap()
            .into_inner();
        while last != noise::line(0, count - 1) {
            match stream.message().await.unwrap().unwrap().event.unwrap() {
                Event::Gap(gap) => lost += gap.dropped,
                Event::Entry(entry) => {
                    heard += 1;
                    last = entry.line;
                }
            }
        }
    };
    soon("the last line", read).await;
    assert!(lost > 0, "the bound was reached");
    assert_eq!(heard + lost, pieces.sum::<u64>(), "{heard} heard, {lost} counted as lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_apps_own_bound_on_its_log_goes_before_the_platforms() {
    let (own, count) = (512 << 10, 20_001);
    let platform = Platform::start_with(&Options::with("[procmgr]\nlog_budget_bytes = 67108864\n"));
    let limits = Limits { log_bytes: own, ..Limits::default() };
    platform.hand_over();
    platform
        .put(Instance { limits: Some(limits), ..platform.instance(&App::named(&name(0))) })
        .await
        .unwrap();
    platform.put(platform.instance(&App::named(&name(1)))).await.unwrap();
    for app in 0..2 {
        platform.running(&name(app)).await;
        say(&platform, app, 0, count).await;
    }
    let log = |app| kept(&platform.state().join("instances").join(name(app)).join("log"));
    until("all that the second said is on disk", || (log(1) > 2 * own).then_some(())).await;
    assert!(log(0) <= own, "{} bytes", log(0));
}
