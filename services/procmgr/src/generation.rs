//! One start of one instance, and its folder:
//!
//! ```text
//! $STATE/instances/<id>/log/          segments over all generations
//! $STATE/instances/<id>/slot          which user ids its boxes have (`slots.rs`)
//! $STATE/instances/<id>/g<N>/lock     held by the kernel for as long as the shim lives (before: by procmgr)
//!                           record    intent, completed by the shim
//!                           note      what only procmgr needs to know again
//!                           shim.sock exit healthy oom_kills refused guest
//! ```
//! Order of a start: number, folder, lock, note, intent (all durable), then the fork that inherits the lock. So at whichever
//! step procmgr is killed, what is on disk and in the kernel tells its successor how far it came (`adopt.rs`).

use std::{
    ffi::OsString,
    fmt, fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::Child,
    sync::Arc,
    time::{Duration, Instant},
};

use nexushub_chassis::launch::{durable, lock::Lock, secret};
use nexushub_shim::{
    control::SOCKET,
    exit,
    identity::{self, Identity},
    record::{Process, Record},
    segment,
    spawn::{LOCK, launch},
    spec::Spec,
};

use crate::{
    cgroup, data::Watched, desired::Overrides, driver, egress::Router, ids::InstanceId, limits::Limits,
    note::Note, slots::Slots,
};

/// Longest time from the fork to the completed record.
const PATIENCE: Duration = Duration::from_secs(10);
const HEALTHY: &str = "healthy";
const RETIRED: &str = ".retired-";
/// Is in the folder of a cgroup that can bound processes.
const PIDS: &str = "pids.max";

/// Where a generation is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// On a port of 127.0.0.1.
    Port(u16),
    /// In a box, by way of its shim's control socket.
    Shim(PathBuf),
}

impl Endpoint {
    /// Its port of this machine, if it has one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Port(port) => Some(*port),
            Self::Shim(_) => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(port) => write!(f, "port {port}"),
            Self::Shim(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A live generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    /// Its instance.
    pub instance: InstanceId,
    /// Which of the instance's starts it is.
    pub number: u64,
    /// Its folder.
    pub dir: PathBuf,
    /// What it and its shim know, and nobody else.
    pub nonce: String,
    /// The shim.
    pub shim: Process,
    /// The app's main process.
    pub pid: u32,
    /// Where the app is reached.
    pub endpoint: Endpoint,
    /// The release it runs.
    pub release: PathBuf,
    /// The isolation in force.
    pub driver: String,
    /// What of its isolation and its bounds this machine doesn't enforce.
    pub not_enforced: Vec<String>,
    /// Whether its box has an id that an ordinary user gave it.
    pub given: bool,
    /// Its data, where no disk of their own bounds them.
    pub data: Option<Arc<Watched>>,
    /// Size of the disk of its data; 0 = they have none of their own.
    pub disk_bytes: u64,
    /// Its cgroups.
    pub cgroups: Vec<PathBuf>,
    /// Its own health check, where that is known.
    pub health: Option<Overrides>,
    /// Of what it was started from.
    pub digest: String,
    /// SHA-256 of its secret.
    pub secret_sha256: Vec<u8>,
    /// When it was started, wall clock.
    pub started_unix: i64,
}

impl Generation {
    /// From what is on disk; `None` where the record is an intent only, or its driver and its port don't go together.
    pub(crate) fn new(instance: &InstanceId, dir: &Path, record: Record, note: Note) -> Option<Self> {
        let endpoint = match (driver::boxes(&record.driver), record.port) {
            (true, None) => Endpoint::Shim(dir.join(SOCKET)),
            (false, Some(port)) => Endpoint::Port(port),
            (true, Some(_)) | (false, None) => return None,
        };
        let data = note.measured().map(Watched::new).map(Arc::new);
        let (disk_bytes, cgroups) = (note.disk_bytes(), note.folders());
        Some(Self {
            instance: instance.clone(),
            number: record.generation,
            dir: dir.to_owned(),
            nonce: record.nonce,
            shim: record.shim?,
            pid: record.app?.pid,
            endpoint,
            release: record.release,
            driver: record.driver,
            given: note.keeper.is_some(),
            not_enforced: note.not_enforced,
            data,
            disk_bytes,
            cgroups,
            health: note.health,
            digest: note.digest,
            secret_sha256: secret::from_hex(&note.secret_sha256).map(Vec::from).unwrap_or_default(),
            started_unix: note.started_unix,
        })
    }

    /// Leaves word that its health check has answered, for a successor of procmgr.
    pub(crate) fn mark_healthy(&self) {
        // Not durable: after a loss of power nothing of it lives anyway.
        let _ = fs::write(self.dir.join(HEALTHY), "");
    }

    #[cfg(test)]
    pub(crate) fn sample(number: u64) -> Self {
        Self {
            instance: InstanceId::parse("a").expect("a proper id"),
            number,
            dir: PathBuf::from(format!("/nonexistent/g{number}")),
            nonce: "00".into(),
            shim: Process { pid: u32::MAX, start: 1 },
            pid: 4_000_000,
            endpoint: Endpoint::Port(10_000),
            release: "/srv/0".into(),
            driver: "process".into(),
            not_enforced: Vec::new(),
            given: false,
            data: None,
            disk_bytes: 0,
            cgroups: Vec::new(),
            health: None,
            digest: String::new(),
            secret_sha256: vec![1],
            started_unix: 1_000_000,
        }
    }
}

/// The folder of an instance's log.
pub(crate) fn log(instance: &Path) -> PathBuf {
    instance.join("log")
}

/// Whether a generation that has a successor may still write: whether its shim lives. It is asked of the record, since a lock
/// can't be looked at without being in the way of who wants it. While that can't be told, it may.
pub(crate) fn may_write(instance: &Path, number: u64) -> bool {
    match Record::read(&instance.join(format!("g{number}"))) {
        Ok(Some(record)) => !matches!(
            identity::verify(&record),
            Ok(Identity::Unstarted | Identity::Gone | Identity::Stranger)
        ),
        Ok(None) => false,
        Err(_) => true,
    }
}

/// Whether a generation's health check had answered.
pub(crate) fn was_healthy(dir: &Path) -> bool {
    dir.join(HEALTHY).exists()
}

/// Everything that a start needs, but number, folder and nonce.
#[derive(Debug)]
pub(crate) struct Order {
    /// The instance.
    pub id: InstanceId,
    /// For the note.
    pub note: Note,
    /// What the kernel shall bound; none where nothing is.
    pub host_limits: Limits,
    /// For the record.
    pub driver: &'static str,
    /// For the record.
    pub release: PathBuf,
    /// The app's data; made if it isn't there.
    pub data: PathBuf,
    /// Which way out to the internet its box gets, if one.
    pub way_out: Option<u32>,
    /// Where the app shall listen, if that is a port of this machine, and its reservation.
    pub port: Option<(u16, OwnedFd)>,
    /// What to run; folders, number, nonce and cgroups are filled in here.
    pub spec: Spec,
}

/// What starts have in common.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// `$STATE`.
    pub state: PathBuf,
    /// This boot.
    pub boot_id: String,
    /// The shim's executable: a path to a held descriptor.
    pub shim: PathBuf,
    /// Where cgroups are made.
    pub cgroups: cgroup::Cgroups,
    /// The ways out to the internet.
    pub router: Router,
    /// Who has which user ids; none for an ordinary user, who has none to give.
    pub slots: Option<Slots>,
    /// Generation folders kept.
    pub keep: usize,
}

/// A start that came to nothing.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Which start it would have been; 0 = it didn't get that far.
    pub number: u64,
    /// Why, for people.
    pub why: String,
}

impl Place {
    /// The ways out to the internet, for who may make them.
    pub(crate) fn root_router(&self) -> Option<Router> {
        self.slots.is_some().then(|| self.router.clone())
    }

    /// The folder of all instances.
    pub(crate) fn instances(&self) -> PathBuf {
        self.state.join("instances")
    }

    /// The folder of one instance.
    pub(crate) fn instance(&self, id: &InstanceId) -> PathBuf {
        self.instances().join(id.as_str())
    }

    /// The folder of its log.
    pub(crate) fn log(&self, id: &InstanceId) -> PathBuf {
        log(&self.instance(id))
    }

    /// Starts the next generation: returns when its app runs, or never will. Blocks.
    pub(crate) fn start(&self, order: Order) -> Result<(Generation, Child), Failure> {
        let early = |error: io::Error| Failure { number: 0, why: error.to_string() };
        let number = self.next_number(&order.id).map_err(early)?;
        let failed = |why: String| Failure { number, why };
        let id = order.id.clone();
        let (port, way_out) = (order.port.as_ref().map(|(port, _)| *port), order.way_out);
        let machine = order.spec.machine;
        let dir = self.instance(&id).join(format!("g{number}"));
        let (mut child, note) = self.spawn(order, &dir, number).map_err(|error| failed(error.to_string()))?;
        let begun = complete(&dir, &mut child).and_then(|record| {
            way_out.map_or(Ok(()), |slot| self.router.attach(slot, child.id(), machine))?;
            Ok(record)
        });
        let record = begun.map_err(|why| {
            // Ours, and not waited for yet: its pid is nobody else's.
            let _ = child.kill();
            let _ = child.wait();
            failed(why)
        })?;
        self.prune(&id, number);
        match Generation::new(&id, &dir, record, note) {
            Some(run) if run.endpoint.port() == port => Ok((run, child)),
            _ => Err(failed("its record is not what was written".into())),
        }
    }

    fn spawn(&self, order: Order, dir: &Path, number: u64) -> io::Result<(Child, Note)> {
        make(dir)?;
        make(&self.log(&order.id))?;
        make(&order.data).map_err(|error| named(&error, "data folder", &order.data))?;
        durable::sync_dir(&self.instance(&order.id))?;
        let busy = || io::Error::other("the lock of a new generation is taken");
        let lock = Lock::try_acquire(&dir.join(LOCK))?.ok_or_else(busy)?;
        let mut note = order.note;
        let groups = self.cgroups.make(&order.id, number, &order.host_limits);
        let mut spec = order.spec;
        bound(&mut spec, &mut note, groups, dir);
        spec.generation = number;
        spec.nonce = nonce()?;
        dir.clone_into(&mut spec.dir);
        spec.log_dir = self.log(&order.id);
        let intent = Record {
            instance: order.id.to_string(),
            generation: number,
            nonce: spec.nonce.clone(),
            boot_id: self.boot_id.clone(),
            release: order.release,
            port: order.port.as_ref().map(|(port, _)| *port),
            driver: order.driver.into(),
            shim: None,
            app: None,
            session: None,
        };
        note.write(dir)?;
        intent.write(dir)?;
        let child = launch(&self.shim, &spec, lock.share()?, order.port.map(|(_, reservation)| reservation))
            .map_err(|error| named(&error, "shim", &self.shim))?;
        Ok((child, note))
    }

    /// One more than any that has left a trace, in folders or in the log, whose cursors grow with it.
    fn next_number(&self, id: &InstanceId) -> io::Result<u64> {
        let folders = numbers(&self.instance(id))?.into_iter().max();
        let logged = segment::list(&self.log(id))?.into_iter().map(|(name, _)| name.generation).max();
        Ok(folders.max(logged).unwrap_or(0) + 1)
    }

    /// Removes the folders of generations that ended long ago.
    fn prune(&self, id: &InstanceId, newest: u64) {
        let folder = self.instance(id);
        let mut numbers = numbers(&folder).unwrap_or_default();
        numbers.sort_unstable_by(|a, b| b.cmp(a));
        for number in numbers.into_iter().skip(self.keep.max(1)).filter(|number| *number != newest) {
            let dir = folder.join(format!("g{number}"));
            // Whoever holds the lock still needs the folder.
            if !matches!(Lock::try_acquire(&dir.join(LOCK)), Ok(Some(_))) {
                continue;
            }
            self.clear_cgroup(id, number, &dir);
            if let Err(error) = fs::remove_dir_all(&dir) {
                tracing::warn!(instance = %id, generation = number, error = %error, "could not remove an old generation");
            }
        }
    }

    /// Ends what is left in the cgroups of a generation that no shim holds any more, and removes them: those that were noted,
    /// and those that were made just before a note could be.
    pub(crate) fn clear_cgroup(&self, id: &InstanceId, number: u64, dir: &Path) {
        let mut folders = Note::read(dir).map(|note| note.folders()).unwrap_or_default();
        let made = self.cgroups.folders(id, number);
        folders.extend(made.into_iter().filter(|made| !folders.contains(made)).collect::<Vec<_>>());
        cgroup::clear(&folders, &self.state, id, number);
    }

    /// Puts the folders of instances that are gone out of the way, but for the `keep` newest, and says which to delete. It
    /// only renames: deleting takes long, and is the caller's. `known` are the ids that are not gone.
    pub(crate) fn retire(&self, keep: usize, known: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.instances()).into_iter().flatten().flatten();
        let mut gone = Vec::new();
        let mut retired = Vec::new();
        for entry in entries {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(RETIRED) {
                retired.push(entry.path());
            } else if InstanceId::parse(&name).is_ok() && !known(&name) {
                let age = entry.metadata().and_then(|meta| meta.modified()).ok();
                gone.push((age, name));
            }
        }
        gone.sort();
        let surplus = gone.len().saturating_sub(keep);
        for (_, name) in gone.into_iter().take(surplus) {
            let away = self.instances().join(format!("{RETIRED}{name}"));
            // Fails while an earlier one of that name is still being deleted: then it is put away another time.
            if fs::rename(self.instances().join(&name), &away).is_ok() && !retired.contains(&away) {
                retired.push(away);
            }
        }
        retired
    }

    /// The instances that have a folder.
    pub(crate) fn known(&self) -> io::Result<Vec<InstanceId>> {
        let names = fs::read_dir(self.instances())?.flatten().map(|entry| entry.file_name());
        Ok(names.filter_map(|name| InstanceId::parse(name.to_str()?).ok()).collect())
    }
}

/// Has a generation join its cgroups. Only a box has bounds, and only of a box is said which are not enforced; where no cgroup
/// bounds its processes, it does so itself. A machine is told its folder, where its socket is to be.
fn bound(spec: &mut Spec, note: &mut Note, groups: cgroup::Groups, dir: &Path) {
    if spec.boxed {
        let bounded = groups.folders.iter().any(|folder| folder.join(PIDS).exists());
        let option: Option<[OsString; 2]> = match spec.machine {
            true => Some(["--dir".into(), dir.into()]),
            false if bounded || note.limits.processes == 0 => None,
            false => Some(["--processes".into(), note.limits.processes.to_string().into()]),
        };
        spec.args.splice(0..0, option.into_iter().flatten());
        note.not_enforced = driver::all_not_enforced(&note.not_enforced, groups.not_enforced);
    }
    spec.cgroups = groups.procs;
    note.cgroups = groups.folders;
}

/// The numbers of the generations that have a folder. None, if there is no folder of the instance.
pub(crate) fn numbers(instance: &Path) -> io::Result<Vec<u64>> {
    let entries = match fs::read_dir(instance) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let number = |name: &str| {
        let number = name.strip_prefix('g')?.parse().ok()?;
        (name == format!("g{number}")).then_some(number)
    };
    Ok(entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect())
}

/// Makes a folder, and those above it, for this user only.
pub(crate) fn make(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Waits until the shim has completed the record, which it does before the app's first instruction.
fn complete(dir: &Path, child: &mut Child) -> Result<Record, String> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let ended = child.try_wait().map_err(|error| format!("its shim is lost: {error}"))?;
        let record = Record::read(dir).map_err(|error| format!("its record: {error}"))?;
        match record {
            Some(record) if record.shim.is_some() => return Ok(record),
            _ if ended.is_none() && Instant::now() < deadline => std::thread::sleep(pause),
            _ => {}
        }
        if let Some(status) = ended {
            let reason = exit::Exit::read(dir).ok().flatten().and_then(|exit| exit.reason);
            return Err(reason.unwrap_or_else(|| format!("its shim ended at once ({status})")));
        }
        if Instant::now() >= deadline {
            return Err(format!("its shim did not start it within {} s", PATIENCE.as_secs()));
        }
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn nonce() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(secret::hex(&bytes))
}

fn named(error: &io::Error, what: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{what} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn place(state: &Path) -> Place {
        Place {
            state: state.to_owned(),
            boot_id: "boot".into(),
            shim: "/nonexistent/shim".into(),
            cgroups: cgroup::Cgroups::default(),
            router: Router::new(state, [198, 18, 0, 0].into()),
            slots: None,
            keep: 2,
        }
    }

    fn id(text: &str) -> InstanceId {
        InstanceId::parse(text).unwrap()
    }

    #[test]
    fn only_plain_generation_folders_count_and_the_log_keeps_the_count_too() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        assert_eq!(place.next_number(&id("a")).unwrap(), 1);
        for name in ["g1", "g07", "g3", "g-1", "gx", "log"] {
            fs::create_dir_all(place.instance(&id("a")).join(name)).unwrap();
        }
        assert_eq!(place.next_number(&id("a")).unwrap(), 4);
        let segment = segment::Name { generation: 9, index: 0 }.to_string();
        fs::write(place.log(&id("a")).join(segment), "").unwrap();
        assert_eq!(place.next_number(&id("a")).unwrap(), 10);
    }

    #[test]
    fn a_generation_may_write_for_as_long_as_its_shim_lives() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("g3");
        assert!(!may_write(dir.path(), 3), "it was pruned long ago");
        fs::create_dir(&folder).unwrap();
        let boot_id = nexushub_chassis::launch::clock::boot_id().unwrap();
        let written = |shim: Option<Process>| {
            let record = Record {
                instance: "a".into(),
                generation: 3,
                nonce: "0123456789abcdef".into(),
                boot_id: boot_id.clone(),
                release: "/srv".into(),
                port: None,
                driver: "process".into(),
                shim,
                app: shim,
                session: None,
            };
            record.write(&folder).unwrap();
            may_write(dir.path(), 3)
        };
        assert!(!written(None), "a later one was started, so this one never will be");
        let me = std::process::id();
        let start = identity::Stat::of(me).unwrap().start;
        assert!(written(Some(Process { pid: me, start })));
        assert!(!written(Some(Process { pid: me, start: start + 1 })), "another has its number now");
        fs::write(folder.join(nexushub_shim::record::FILE), "torn").unwrap();
        assert!(may_write(dir.path(), 3), "nobody knows");
    }

    #[test]
    fn old_generations_are_pruned_unless_somebody_holds_them() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let folder = |n: u64| place.instance(&id("a")).join(format!("g{n}"));
        for n in 1..=5 {
            fs::create_dir_all(folder(n)).unwrap();
        }
        let held = Lock::try_acquire(&folder(2).join(LOCK)).unwrap().unwrap();
        place.prune(&id("a"), 5);
        let mut left = numbers(&place.instance(&id("a"))).unwrap();
        left.sort_unstable();
        assert_eq!(left, [2, 4, 5]);
        drop(held);
    }

    #[test]
    fn folders_of_instances_that_are_gone_are_kept_up_to_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        for name in ["a", "b", "c", "d"] {
            fs::create_dir_all(place.instance(&id(name))).unwrap();
        }
        let away = place.retire(1, |name| name == "d");
        assert_eq!(away.len(), 2);
        assert_eq!(place.known().unwrap().len(), 2);
        assert!(place.instance(&id("d")).exists());
        assert_eq!(place.retire(1, |name| name == "d").len(), 2, "what was not deleted yet is named again");
    }

    #[test]
    fn retiring_deletes_nothing_itself_and_leaves_alone_what_it_cannot_put_away_yet() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let earlier = place.instances().join(format!("{RETIRED}a"));
        for folder in [earlier.join("log"), place.instance(&id("a")).join("log")] {
            fs::create_dir_all(folder).unwrap();
        }
        assert_eq!(place.retire(0, |_| false), std::slice::from_ref(&earlier));
        assert!(earlier.join("log").exists() && place.instance(&id("a")).join("log").exists());
        fs::remove_dir_all(&earlier).unwrap();
        assert_eq!(place.retire(0, |_| false), std::slice::from_ref(&earlier));
        assert!(earlier.join("log").exists() && !place.instance(&id("a")).exists());
    }

    fn order(data: &Path) -> Order {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Order {
            id: id("a"),
            note: Note { digest: "d".into(), ..Note::default() },
            host_limits: Limits::default(),
            driver: "process",
            release: "/srv/1".into(),
            data: data.to_owned(),
            way_out: None,
            port: Some((10_000, listener.into())),
            spec: Spec {
                instance: "a".into(),
                generation: 0,
                nonce: String::new(),
                dir: "/".into(),
                log_dir: "/".into(),
                log_budget_bytes: 1 << 20,
                segment_bytes: 1 << 16,
                program: "/srv/1/bin/app".into(),
                args: Vec::new(),
                cwd: "/srv/1".into(),
                env: Vec::new(),
                mapped: false,
                boxed: false,
                machine: false,
                cgroups: Vec::new(),
            },
        }
    }

    #[test]
    fn a_start_without_a_shim_fails_by_name_and_leaves_an_intent_with_a_free_lock() {
        let dir = tempfile::tempdir().unwrap();
        let place = place(dir.path());
        let failure = place.start(order(&dir.path().join("data"))).unwrap_err();
        assert_eq!(failure.number, 1);
        assert!(failure.why.contains("/nonexistent/shim"), "{}", failure.why);
        let folder = place.instance(&id("a")).join("g1");
        let record = Record::read(&folder).unwrap().unwrap();
        assert_eq!((record.shim, record.port), (None, Some(10_000)));
        // A child that another test forks has a copy of it until it is its own program.
        let patience = Duration::from_secs(60);
        assert!(Lock::acquire_within(&folder.join(LOCK), patience).unwrap().is_some());
        assert!(dir.path().join("data").is_dir());
    }

    #[test]
    fn a_record_and_its_driver_have_to_agree_whether_there_is_a_port() {
        let endpoint = |driver: &str, port| {
            let process = Some(Process { pid: 10, start: 1 });
            let record = Record {
                instance: "a".into(),
                generation: 1,
                nonce: "00".into(),
                boot_id: "boot".into(),
                release: "/srv/1".into(),
                port,
                driver: driver.into(),
                shim: process,
                app: process,
                session: None,
            };
            Generation::new(&id("a"), Path::new("/i/a/g1"), record, Note::default()).map(|run| run.endpoint)
        };
        assert_eq!(endpoint("process", Some(80)), Some(Endpoint::Port(80)));
        assert_eq!(endpoint("sandbox", None), Some(Endpoint::Shim("/i/a/g1/shim.sock".into())));
        assert_eq!(endpoint("process", None), None);
        assert_eq!(endpoint("sandbox", Some(80)), None);
    }

    #[test]
    fn a_box_without_a_cgroup_for_it_bounds_its_processes_itself_and_all_that_is_not_enforced_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let groups = || cgroup::Groups {
            procs: vec![dir.path().join("cgroup.procs")],
            folders: vec![dir.path().into()],
            not_enforced: vec!["memory: no cgroup".into(), "landlock: no".into()],
        };
        let made = |boxed, machine| {
            let mut spec = Spec { boxed, machine, ..order(dir.path()).spec };
            let limits = Limits { processes: 7, ..Limits::default() };
            let mut note = Note { limits, not_enforced: vec!["landlock: no".into()], ..Note::default() };
            bound(&mut spec, &mut note, groups(), Path::new("/g1"));
            assert_eq!((spec.cgroups, note.folders()), (groups().procs, groups().folders));
            (spec.args, note.not_enforced)
        };
        let (args, not_enforced) = made(true, false);
        assert_eq!((args, not_enforced.len()), (vec!["--processes".into(), "7".into()], 2));
        assert_eq!(made(false, false), (vec![], vec!["landlock: no".into()]));
        fs::write(dir.path().join(PIDS), "7").unwrap();
        assert_eq!(made(true, false).0, Vec::<OsString>::new());
        assert_eq!(made(true, true).0, ["--dir", "/g1"], "what is in a machine is bounded there");
    }

    #[test]
    fn the_note_of_an_earlier_version_still_names_its_cgroup() {
        let old = r#"{"digest":"d","secret_sha256":"","cgroup":"/sys/fs/cgroup/a","started_unix":4}"#;
        let note: Note = serde_json::from_str(old).unwrap();
        assert_eq!((note.folders(), note.digest.as_str()), (vec!["/sys/fs/cgroup/a".into()], "d"));
        let again: Note = serde_json::from_slice(&serde_json::to_vec(&Note::default()).unwrap()).unwrap();
        assert_eq!(again, Note::default());
    }

    #[test]
    fn a_shim_that_ends_at_once_is_a_failed_start() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place { shim: "/bin/false".into(), ..place(dir.path()) };
        let failure = place.start(order(&dir.path().join("data"))).unwrap_err();
        assert!(failure.why.contains("ended at once"), "{}", failure.why);
    }
}
