//! The table of verdicts, and the examination of folders as a killed procmgr leaves them.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::process::{Child, Command};

use nexushub_shim::record::Process;

use super::*;

fn id() -> InstanceId {
    InstanceId::parse("a").unwrap()
}

fn record(complete: bool) -> Record {
    let process = complete.then_some(Process { pid: 4_000_000, start: 1 });
    Record {
        instance: "a".into(),
        generation: 3,
        nonce: "00112233445566778899aabbccddeeff".into(),
        boot_id: "this".into(),
        release: "/srv/1".into(),
        port: Some(10_001),
        driver: "process".into(),
        shim: process,
        app: process,
        session: process.map(|p| p.pid),
    }
}

fn ended(nonce: &str) -> exit::Exit {
    exit::Exit { nonce: nonce.into(), end: End::Code(7), unix_ms: 5, reason: None }
}

fn judge(
    held: bool,
    record: Result<Option<Record>, String>,
    exit: Option<exit::Exit>,
    proof: Proof,
) -> Verdict {
    classify(&Facts { held, record, exit: Ok(exit) }, &id(), 3, "this", |_| proof)
}

fn unasked() -> Proof {
    Proof::No("nobody should have asked".into())
}

#[test]
fn a_free_lock_means_that_nothing_lives() {
    let nonce = record(true).nonce;
    assert_eq!(judge(false, Ok(None), None, unasked()), Verdict::NeverStarted);
    assert_eq!(judge(false, Ok(Some(record(false))), None, unasked()), Verdict::NeverStarted);
    assert_eq!(judge(false, Ok(Some(record(true))), None, unasked()), Verdict::Lost);
    let known = judge(false, Ok(Some(record(true))), Some(ended(&nonce)), unasked());
    assert_eq!(known, Verdict::Ended(ended(&nonce).into()));
    let failed = judge(false, Ok(Some(record(false))), Some(ended(&nonce)), unasked());
    assert_eq!(failed, Verdict::Ended(ended(&nonce).into()), "it could not be executed");
    assert_eq!(judge(false, Ok(Some(record(true))), Some(ended("ffff")), unasked()), Verdict::Lost);
    assert!(matches!(judge(false, Err("torn".into()), None, unasked()), Verdict::Garbage(_)));
    let other_boot = Record { boot_id: "before".into(), ..record(true) };
    assert_eq!(judge(false, Ok(Some(other_boot)), None, unasked()), Verdict::Lost);
}

#[test]
fn a_held_lock_lives_only_with_proof() {
    let ours = || Proof::Ours { ending: false };
    assert_eq!(judge(true, Ok(Some(record(true))), None, ours()), Verdict::Live { ending: false });
    let being_ended = judge(true, Ok(Some(record(true))), None, Proof::Ours { ending: true });
    assert_eq!(being_ended, Verdict::Live { ending: true });
    let nonce = record(true).nonce;
    let leaving = judge(true, Ok(Some(record(true))), Some(ended(&nonce)), unasked());
    assert_eq!(leaving, Verdict::Ended(ended(&nonce).into()));
    for (facts, what) in [
        (Err("torn".to_owned()), "garbage"),
        (Ok(None), "no record"),
        (Ok(Some(record(false))), "an intent"),
        (Ok(Some(Record { boot_id: "before".into(), ..record(true) })), "another boot"),
        (Ok(Some(Record { instance: "b".into(), ..record(true) })), "another instance"),
        (Ok(Some(Record { generation: 4, ..record(true) })), "another generation"),
    ] {
        assert!(matches!(judge(true, facts, None, ours()), Verdict::Unproven(_)), "{what}");
    }
    let refused = judge(true, Ok(Some(record(true))), None, Proof::No("wrong nonce".into()));
    assert_eq!(refused, Verdict::Unproven("wrong nonce".into()));
}

struct Stage {
    dir: tempfile::TempDir,
    place: Place,
}

impl Stage {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            state: dir.path().to_owned(),
            boot_id: nexushub_chassis::launch::clock::boot_id().unwrap(),
            shim: "/nonexistent".into(),
            cgroups: cgroup::Cgroups::default(),
            router: crate::egress::Router::new(dir.path(), [198, 18, 0, 0].into()),
            slots: None,
            keep: 3,
        };
        Self { dir, place }
    }

    fn folder(&self, number: u64) -> PathBuf {
        let folder = self.dir.path().join(format!("instances/a/g{number}"));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn write(&self, record: Record) -> PathBuf {
        let folder = self.folder(record.generation);
        Record { boot_id: self.place.boot_id.clone(), ..record }.write(&folder).unwrap();
        folder
    }

    async fn examine(&self) -> Examination {
        let place = self.place.clone();
        let asking = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || examine(&place, &id(), &asking)).await.unwrap()
    }
}

fn of(child: &Child) -> Process {
    Process { pid: child.id(), start: Stat::of(child.id()).unwrap().start }
}

#[tokio::test]
async fn an_instance_without_a_folder_is_nothing() {
    let examination = Stage::new().examine().await;
    assert!(matches!(examination.found, Found::Nothing(None)));
    assert_eq!(examination.newest, 0);
}

#[tokio::test]
async fn a_killed_shim_is_recorded_as_lost_once() {
    let stage = Stage::new();
    let folder = stage.write(record(true));
    let examination = stage.examine().await;
    assert!(matches!(examination.found, Found::Nothing(Some(Exit { how: How::Lost, .. }))));
    assert_eq!(examination.newest, 3);
    let first = exit::Exit::read(&folder).unwrap().unwrap();
    assert_eq!(first.end, End::Lost);
    stage.examine().await;
    assert_eq!(exit::Exit::read(&folder).unwrap().unwrap(), first);
}

#[tokio::test]
async fn a_record_that_points_at_a_stranger_neither_signals_nor_adopts_it() {
    let stage = Stage::new();
    let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
    let process = Some(Process { start: of(&stranger).start + 1, ..of(&stranger) });
    let folder =
        stage.write(Record { shim: process, app: process, session: process.map(|p| p.pid), ..record(true) });
    assert!(matches!(stage.examine().await.found, Found::Nothing(_)), "its lock is free");
    fs::remove_file(folder.join(exit::FILE)).unwrap();
    let held = Lock::try_acquire(&folder.join(LOCK)).unwrap();
    let examination = stage.examine().await;
    let Found::Unproven(why) = examination.found else { panic!("{:?}", examination.found) };
    assert!(why.contains("stranger"), "{why}");
    assert!(stranger.try_wait().unwrap().is_none(), "it was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    drop(held);
}

/// A shim's control socket, answered by this process.
fn answer(folder: &Path, says: &'static str) -> std::thread::JoinHandle<()> {
    let listener = nexushub_shim::control::bind(folder).unwrap();
    std::thread::spawn(move || {
        use std::io::{BufRead, BufReader, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        writeln!(stream, "{says}").unwrap();
    })
}

fn me() -> Process {
    let pid = std::process::id();
    Process { pid, start: Stat::of(pid).unwrap().start }
}

#[tokio::test]
async fn a_shim_that_proves_itself_is_adopted_and_one_that_does_not_is_left_alone() {
    let stage = Stage::new();
    let app = Process { pid: 77, start: 9 };
    let folder =
        stage.write(Record { shim: Some(me()), app: Some(app), session: Some(me().pid), ..record(true) });
    fs::write(folder.join("note"), r#"{"digest":"d","secret_sha256":"","cgroup":null,"started_unix":4}"#)
        .unwrap();
    fs::write(folder.join("healthy"), "").unwrap();
    let _held = Lock::try_acquire(&folder.join(LOCK)).unwrap();
    let proving = answer(&folder, "running pid=77 start=9");
    let Found::Live { run, was_healthy, ending } = stage.examine().await.found else { panic!("not adopted") };
    proving.join().unwrap();
    assert_eq!(
        (run.number, run.pid, run.endpoint.port(), run.digest.as_str(), run.shim),
        (3, 77, Some(10_001), "d", me())
    );
    assert!(was_healthy && !ending);
    for says in ["running pid=78 start=9", "refused", "malformed", "nonsense"] {
        let proving = answer(&folder, says);
        assert!(matches!(stage.examine().await.found, Found::Unproven(_)), "{says}");
        proving.join().unwrap();
    }
    let proving = answer(&folder, "stopping");
    assert!(matches!(stage.examine().await.found, Found::Live { ending: true, .. }));
    proving.join().unwrap();
}

#[tokio::test]
async fn of_two_that_live_the_newest_that_answered_counts_and_the_other_is_kept_beside() {
    for (healthy, counts, other) in [(&[3][..], 3, 4), (&[3, 4], 4, 3), (&[], 4, 3)] {
        let stage = Stage::new();
        let app = Some(Process { pid: 77, start: 9 });
        let mut held = Vec::new();
        for generation in [3, 4] {
            let folder = stage.write(Record { generation, shim: Some(me()), app, ..record(true) });
            fs::write(folder.join("note"), "{}").unwrap();
            if healthy.contains(&generation) {
                fs::write(folder.join("healthy"), "").unwrap();
            }
            held.push((
                Lock::try_acquire(&folder.join(LOCK)).unwrap(),
                answer(&folder, "running pid=77 start=9"),
            ));
        }
        let examination = stage.examine().await;
        let Found::Live { run, .. } = examination.found else { panic!("not adopted") };
        let beside: Vec<_> = examination.beside.iter().map(|one| one.run.number).collect();
        assert_eq!((run.number, beside), (counts, vec![other]), "{healthy:?}");
        held.into_iter().for_each(|(_, proving)| proving.join().unwrap());
    }
}

#[tokio::test]
async fn a_box_is_adopted_without_a_port_and_what_it_lacks_is_known_again() {
    let stage = Stage::new();
    let app = Some(Process { pid: 77, start: 9 });
    let shim = Some(me());
    let boxed = Record { driver: "sandbox".into(), port: None, shim, app, ..record(true) };
    let folder = stage.write(boxed.clone());
    fs::write(folder.join("note"), r#"{"digest":"d","not_enforced":["landlock: no"]}"#).unwrap();
    let _held = Lock::try_acquire(&folder.join(LOCK)).unwrap();
    let proving = answer(&folder, "running pid=77 start=9");
    let Found::Live { run, .. } = stage.examine().await.found else { panic!("not adopted") };
    proving.join().unwrap();
    assert_eq!(run.endpoint, generation::Endpoint::Shim(folder.join("shim.sock")));
    assert_eq!(run.not_enforced, ["landlock: no"]);
    stage.write(Record { port: Some(10_001), ..boxed });
    let proving = answer(&folder, "running pid=77 start=9");
    let Found::Unproven(why) = stage.examine().await.found else { panic!("adopted") };
    proving.join().unwrap();
    assert!(why.contains("do not go together"), "{why}");
}

#[tokio::test]
async fn an_end_by_the_bound_on_memory_says_so_whoever_of_shim_and_app_was_killed() {
    let group = tempfile::tempdir().unwrap();
    fs::write(group.path().join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    let bound = crate::limits::Limits { memory_bytes: 512 << 20, ..Default::default() };
    let note = Note { cgroups: vec![group.path().into()], limits: bound, ..Note::default() };
    let killed = exit::Exit { end: End::Signal(9), ..ended(&record(true).nonce) };
    for known in [Some(killed), None] {
        let stage = Stage::new();
        let folder = stage.write(record(true));
        fs::write(folder.join("note"), serde_json::to_vec(&note).unwrap()).unwrap();
        known.iter().for_each(|exit| exit.write(&folder).unwrap());
        let Found::Nothing(Some(exit)) = stage.examine().await.found else { panic!("it has ended") };
        assert!(exit.to_string().starts_with("out of memory: its bound is 512 MiB"), "{exit}");
    }
}

#[tokio::test]
async fn an_end_long_after_a_child_was_killed_at_the_bound_on_memory_is_another() {
    let group = tempfile::tempdir().unwrap();
    fs::write(group.path().join("memory.events"), "oom 1\noom_kill 1\n").unwrap();
    let bound = crate::limits::Limits { memory_bytes: 512 << 20, ..Default::default() };
    let note = Note { cgroups: vec![group.path().into()], limits: bound, ..Note::default() };
    let stage = Stage::new();
    let folder = stage.write(record(true));
    fs::write(folder.join("note"), serde_json::to_vec(&note).unwrap()).unwrap();
    kills::outlived(&folder, 1); // its health check was answered since
    exit::Exit { end: End::Signal(9), ..ended(&record(true).nonce) }.write(&folder).unwrap();
    let Found::Nothing(Some(exit)) = stage.examine().await.found else { panic!("it has ended") };
    assert_eq!(exit.to_string(), "killed by SIGKILL");
}

#[tokio::test]
async fn garbage_records_are_passed_over_and_the_last_known_exit_is_found() {
    let stage = Stage::new();
    fs::write(stage.folder(5).join("record"), b"\x00\xff").unwrap();
    stage.folder(4);
    let folder = stage.write(record(true));
    ended(&record(true).nonce).write(&folder).unwrap();
    let examination = stage.examine().await;
    assert!(matches!(examination.found, Found::Nothing(Some(Exit { how: How::Code(7), .. }))));
    assert_eq!(examination.newest, 5);
}

#[test]
fn only_a_process_that_carries_the_instances_secret_is_a_leftover() {
    only_who_carries("INTERNAL_SECRET");
    only_who_carries("app_INTERNAL_SECRET"); // as the program around a microVM has it
}

fn only_who_carries(name: &str) {
    let mut child = Command::new("setsid").args(["sleep", "60"]).env(name, "s3cret").spawn().unwrap();
    let process = of(&child);
    // The shim is gone; what it left is in a session of its own.
    let shim = Process { pid: u32::MAX, start: process.start };
    let dead = Record { shim: Some(shim), app: Some(process), session: Some(shim.pid), ..record(true) };
    let note = |text: &str| Note { secret_sha256: secret::hex(&secret::digest(text)), ..Note::default() };
    // Until its last exec is over it shows another environment, or none.
    let sleeps = || fs::read_to_string(format!("/proc/{}/comm", process.pid)).unwrap() == "sleep\n";
    while !(sleeps() && carries_secret(process.pid, &note("s3cret").secret_sha256).unwrap()) {
        std::thread::yield_now();
    }
    assert_eq!(leftovers(&dead, &note("s3cret")), [process.pid]);
    assert_eq!(leftovers(&dead, &note("other")), Vec::<u32>::new());
    let later = Record { shim: Some(Process { start: process.start + 1, ..shim }), ..dead };
    assert_eq!(leftovers(&later, &note("s3cret")), Vec::<u32>::new());
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A generation as the owner task knows it, started with this record.
fn known(stage: &Stage, record: Record) -> Generation {
    let folder = stage.write(record.clone());
    Generation::new(&id(), &folder, record, Note::default()).unwrap()
}

#[test]
fn what_cannot_be_told_of_an_end_counts_as_alive_until_it_can() {
    let stage = Stage::new();
    let run = known(&stage, record(true));
    for file in [LOCK, exit::FILE, nexushub_shim::record::FILE] {
        // A folder in place of a file can't be opened for writing, or read: not even by root.
        let (path, aside) = (run.dir.join(file), run.dir.join("aside"));
        let there = fs::rename(&path, &aside).is_ok();
        fs::create_dir(&path).unwrap();
        assert_eq!(aftermath(&stage.place, &run), None, "{file}");
        fs::remove_dir(&path).unwrap();
        if there {
            fs::rename(&aside, &path).unwrap();
        }
    }
    assert!(exit::Exit::read(&run.dir).unwrap().is_none(), "nothing was declared lost");
    ended(&run.nonce).write(&run.dir).unwrap();
    assert_eq!(aftermath(&stage.place, &run), Some(ended(&run.nonce).into()));
    fs::write(run.dir.join(exit::FILE), "torn").unwrap();
    let lost = aftermath(&stage.place, &run).unwrap();
    assert_eq!(lost.how, How::Lost, "what makes no sense will not make any later either");
}

#[test]
fn without_its_folder_a_generation_lives_as_long_as_its_shim() {
    let stage = Stage::new();
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let process = Some(of(&child));
    let run = known(
        &stage,
        Record { shim: process, app: process, session: process.map(|p| p.pid), ..record(true) },
    );
    fs::remove_dir_all(&run.dir).unwrap();
    assert_eq!(aftermath(&stage.place, &run), None);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(aftermath(&stage.place, &run).unwrap().how, How::Lost);
}
