//! While a generation is drained its successor writes already: who reads their log gets each line of both once, wherever it
//! goes on and whoever dies meanwhile.

use std::collections::BTreeMap;

use nexushub_e2e::{Platform, soon};
use nexushub_launch::{clock, lock::Lock};
use nexushub_proto::procmgr::{
    LogEntry, ReadLogRequest, procmgr_service_client::ProcmgrServiceClient, read_log_response::Event,
};
use nexushub_shim::{
    frame::Stream,
    identity::Stat,
    record::{Process, Record},
    segment::Writer,
    spawn::LOCK,
};

const ID: &str = "pair";
/// Lines of each generation.
const LINES: usize = 300;
/// Of a line; a segment of the least size holds about forty.
const LENGTH: usize = 3000;

/// A generation whose shim is this test.
struct Generation {
    number: u64,
    writer: Writer,
    said: usize,
    _lock: Lock,
}

impl Generation {
    fn start(platform: &Platform, number: u64) -> Self {
        let instance = platform.state().join("instances").join(ID);
        let folder = instance.join(format!("g{number}"));
        std::fs::create_dir_all(&folder).unwrap();
        let lock = Lock::try_acquire(&folder.join(LOCK)).unwrap().unwrap();
        let pid = std::process::id();
        let me = Some(Process { pid, start: Stat::of(pid).unwrap().start });
        let record = Record {
            instance: ID.to_owned(),
            generation: number,
            nonce: "0123456789abcdef".to_owned(),
            boot_id: clock::boot_id().unwrap(),
            release: "/nowhere".into(),
            port: None,
            driver: "process".to_owned(),
            shim: me,
            app: me,
            session: None,
        };
        record.write(&folder).unwrap();
        let writer = Writer::new(&instance.join("log"), number, pid, 64 << 20, 0).unwrap();
        Self { number, writer, said: 0, _lock: lock }
    }

    fn say(&mut self) {
        let text = format!("{} {:0LENGTH$}", self.number, self.said);
        self.said += 1;
        let now = clock::unix_ms(std::time::SystemTime::now());
        self.writer.line(Stream::Stdout, false, now, text.as_bytes());
        self.writer.flush(now);
    }
}

/// Up to so many entries behind a position; fewer where procmgr dies or there are no more.
async fn read(platform: &Platform, position: &str, follow: bool, most: usize) -> Vec<LogEntry> {
    let mut procmgr = ProcmgrServiceClient::new(platform.operate("procmgr"));
    let (id, position) = (ID.to_owned(), position.to_owned());
    let request = ReadLogRequest { id, follow, position, ..Default::default() };
    let mut entries = Vec::new();
    let Ok(answer) = procmgr.read_log(request).await else { return entries };
    let mut stream = answer.into_inner();
    while entries.len() < most {
        match stream.message().await.map(|next| next.map(|next| next.event.unwrap())) {
            Ok(Some(Event::Entry(entry))) => entries.push(entry),
            Ok(Some(Event::Gap(gap))) => panic!("{} entries are missing", gap.dropped),
            Ok(None) | Err(_) => break,
        }
    }
    entries
}

/// Each generation's numbers, in the order read.
fn heard(entries: &[LogEntry]) -> BTreeMap<u64, Vec<usize>> {
    let mut heard: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for entry in entries {
        let text = str::from_utf8(&entry.line).unwrap();
        let (generation, number) = text.split_once(' ').unwrap();
        assert_eq!(generation, entry.generation.to_string());
        heard.entry(entry.generation).or_default().push(number.parse().unwrap());
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn two_generations_that_write_at_once_are_read_once_each_wherever_one_resumes() {
    let platform = Platform::start();
    let [mut old, mut new] = [1, 2].map(|number| Generation::start(&platform, number));
    let follower = async {
        let mut entries: Vec<LogEntry> = Vec::new();
        while entries.len() < 2 * LINES {
            let position = entries.last().map_or("", |entry| entry.position.as_str()).to_owned();
            let most = (2 * LINES - entries.len()).min(1 + entries.len() % 50);
            entries.extend(read(&platform, &position, true, most).await);
        }
        entries
    };
    let story = async {
        for round in 0..LINES {
            old.say();
            new.say();
            if round % 100 == 50 {
                platform.kill("procmgr").await;
            }
        }
    };
    let (entries, ()) = soon("every line", async { tokio::join!(follower, story) }).await;
    let all = || (0..LINES).collect::<Vec<_>>();
    assert_eq!(heard(&entries), BTreeMap::from([(1, all()), (2, all())]));
    assert!(entries.windows(2).any(|two| two[0].generation > two[1].generation), "they do overlap");
    for (at, entry) in entries.iter().enumerate().step_by(41) {
        let rest = soon("the rest", read(&platform, &entry.position, false, usize::MAX)).await;
        let mut whole = entries[..=at].to_vec();
        whole.extend(rest);
        assert_eq!(heard(&whole), BTreeMap::from([(1, all()), (2, all())]), "after {}", entry.position);
    }
}
