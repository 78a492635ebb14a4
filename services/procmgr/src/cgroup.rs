//! The cgroups of each generation, where this process may make some: below its own in every hierarchy that bounds or counts
//! something. They bound what an app uses, tell what it used, and make it possible to end everything that it left behind,
//! whatever it did to its sessions. Without any, everything else works.
//!
//! The unified hierarchy (version 2) does all of it where its controllers are passed on to this process's group, and no process
//! is in that group itself: under systemd it therefore uses the group of a unit that exists for this. The older ones
//! (version 1) bound and count, one folder for each. Which of them a machine has, alone or side by side, is found out.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nexushub_chassis::launch::secret::hex;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use sha2::{Digest, Sha256};

use crate::{ids::InstanceId, limits::Limits};

mod cores;
mod usage;

use usage::processor_usec;

pub(crate) use usage::{Usage, oom_kills, usage};

/// A killed process leaves its cgroup within moments; so often and so long it is looked for.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);
/// Controllers of use here.
const USED: [&str; 5] = ["cpu", "cpuacct", "cpuset", "memory", "pids"];
/// Over so many microseconds processor time is dealt out.
const PERIOD_USEC: u64 = 100_000;

/// The file by which a group yields to all others, of either version (Linux 5.15).
const IDLE: &str = "cpu.idle";

/// The unit whose group is there for those of the boxes (`dist/systemd`).
const UNIT: &str = "nexushub-boxes.service";

/// Where the generations' cgroups are made; empty: nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups(Vec<Place>);

/// A group to make others in, and what their names begin with.
#[derive(Clone, Debug)]
struct Place {
    own: PathBuf,
    prefix: String,
    /// Whether what is made here counts processor time.
    counts: bool,
}

impl Place {
    /// Of all generations that have a group here.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.own).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        names
            .filter(|name| name.strip_prefix(&self.prefix).is_some_and(|rest| rest.starts_with('.')))
            .collect()
    }
}

/// The cgroups of one generation.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Groups {
    /// To be joined: their `cgroup.procs`.
    pub procs: Vec<PathBuf>,
    /// Themselves.
    pub folders: Vec<PathBuf>,
    /// Which bounds nothing enforces here, for people.
    pub not_enforced: Vec<String>,
}

/// A hierarchy, and this process's own group in it.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    unified: bool,
    own: PathBuf,
}

impl Hierarchy {
    /// With the group that is kept for boxes, where there is one beside this process's own.
    fn beside(self) -> Self {
        let kept = self.own.with_file_name(UNIT);
        if self.unified && kept.join("cgroup.procs").exists() { Self { own: kept, ..self } } else { self }
    }
}

impl Cgroups {
    /// Finds and makes the places for a platform with this state folder.
    pub(crate) fn find(state: &Path) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let prepared = hierarchies(&mounts, &own).into_iter().filter_map(|hierarchy| {
            let hierarchy = hierarchy.beside();
            let own = hierarchy.own.clone();
            let made = prepare(hierarchy, state);
            if let Err(error) = &made {
                tracing::debug!(folder = %own.display(), error = %error, "no cgroup can be made here; instances run without");
            }
            made.ok()
        });
        Self(prepared.collect())
    }

    /// Where the cgroups of a generation are, or would be.
    pub(crate) fn folders(&self, id: &InstanceId, generation: u64) -> Vec<PathBuf> {
        let own = |place: &Place| place.own.join(format!("{}.{}", place.prefix, name(id, generation)));
        self.0.iter().map(own).collect()
    }

    /// Processor time that each generation with cgroups has used ever, microseconds, by the names of these. Blocks.
    pub(crate) fn processor_usec(&self) -> Vec<(String, u64)> {
        let Some(counts) = self.0.iter().find(|place| place.counts) else { return Vec::new() };
        let each = counts.names().into_iter();
        each.filter_map(|name| processor_usec(&counts.own.join(&name)).map(|usec| (name, usec))).collect()
    }

    /// The names of those that yield to all others. Blocks.
    pub(crate) fn yielding(&self) -> Vec<String> {
        let yields = |place: &Place, name: &String| yields(&[place.own.join(name)]);
        self.0.iter().flat_map(|place| place.names().into_iter().filter(|name| yields(place, name))).collect()
    }

    /// Has one yield to all others, or no longer; whether that could be done. These others yield already. Blocks.
    pub(crate) fn set_yielding(&self, name: &str, yields: bool, others: &[&str]) -> bool {
        let folders: Vec<PathBuf> = self.0.iter().map(|place| place.own.join(name)).collect();
        let elsewhere = self.0.iter().flat_map(|place| others.iter().map(|other| place.own.join(other)));
        let kept = if yields { cores::keep(&folders, elsewhere) } else { cores::free(&folders) };
        if let Err(error) = kept {
            tracing::debug!(group = %name, yields, error = %error, "its cores stay as they were");
        }
        let files = folders.iter().map(|folder| folder.join(IDLE)).filter(|file| file.exists());
        files.into_iter().any(|file| fs::write(file, if yields { "1" } else { "0" }).is_ok())
    }

    /// Makes the cgroups of a generation and sets its bounds.
    pub(crate) fn make(&self, id: &InstanceId, generation: u64, limits: &Limits) -> Groups {
        let mut groups = Groups::default();
        for folder in self.folders(id, generation) {
            match make(&folder) {
                Ok(()) => {
                    groups.procs.push(folder.join("cgroup.procs"));
                    groups.folders.push(folder);
                }
                Err(error) => {
                    tracing::debug!(instance = %id, generation, error = %error, "a cgroup of it can't be made; it runs without");
                }
            }
        }
        groups.not_enforced =
            bounds(limits).iter().filter_map(|bound| bound.enforce(&groups.folders)).collect();
        groups
    }
}

/// A bound, and the files that enforce it: those of either version, each with its value, the first of a version first.
struct Bound {
    what: &'static str,
    wanted: bool,
    unified: Vec<(&'static str, String)>,
    older: Vec<(&'static str, String)>,
}

fn bounds(limits: &Limits) -> [Bound; 3] {
    let memory = limits.memory_bytes.to_string();
    let processes = limits.processes.to_string();
    [
        Bound {
            what: "memory",
            wanted: limits.memory_bytes > 0,
            unified: vec![("memory.max", memory.clone()), ("memory.swap.max", "0".into())],
            older: vec![("memory.limit_in_bytes", memory.clone()), ("memory.memsw.limit_in_bytes", memory)],
        },
        processor(limits.cpu_percent),
        Bound {
            what: "processes",
            wanted: limits.processes > 0,
            unified: vec![("pids.max", processes.clone())],
            older: vec![("pids.max", processes)],
        },
    ]
}

fn processor(percent: u32) -> Bound {
    let quota = (percent > 0).then(|| (PERIOD_USEC * u64::from(percent) / 100).to_string());
    let or = |none: &str| quota.clone().unwrap_or_else(|| none.to_owned());
    Bound {
        what: "processor time",
        wanted: percent > 0,
        unified: vec![("cpu.max", format!("{} {PERIOD_USEC}", or("max")))],
        older: vec![("cpu.cfs_quota_us", or("-1")), ("cpu.cfs_period_us", PERIOD_USEC.to_string())],
    }
}

/// Gives a generation that runs its bound on processor time again, 0 = none: an earlier version took of it from what kept reaching its
/// bound of processes. Blocks.
pub(crate) fn bound_processor(folders: &[PathBuf], percent: u32) {
    let _ = processor(percent).set(folders);
}

/// Whether what is in these groups of a generation yields to all others. Blocks.
pub(crate) fn yields(folders: &[PathBuf]) -> bool {
    folders.iter().any(|folder| fs::read_to_string(folder.join(IDLE)).is_ok_and(|text| text.trim() == "1"))
}

impl Bound {
    /// Sets it, where it is wanted.
    fn enforce(&self, folders: &[PathBuf]) -> Option<String> {
        if self.wanted { self.set(folders) } else { None }
    }

    /// Sets it in the first folder that has its file; else says that nothing enforces it.
    fn set(&self, folders: &[PathBuf]) -> Option<String> {
        let found = folders.iter().find_map(|folder| {
            let files =
                [&self.unified, &self.older].into_iter().find(|files| folder.join(files[0].0).exists())?;
            Some((folder, files))
        });
        let Some((folder, files)) = found else {
            return Some(format!(
                "{}: no control group that bounds it is passed on to the platform",
                self.what
            ));
        };
        for (at, (file, value)) in files.iter().enumerate() {
            match fs::write(folder.join(file), value) {
                // What a kernel has besides the bound itself, it may have or not.
                Err(error) if at == 0 => return Some(format!("{}: {file}: {error}", self.what)),
                _ => {}
            }
        }
        None
    }
}

/// Ends whatever is left in a generation's cgroups and removes them. A path that isn't that of a generation of ours is left
/// alone; one that stays busy is removed another time. Blocks for a moment where something has to be ended.
pub(crate) fn clear(folders: &[PathBuf], state: &Path, id: &InstanceId, generation: u64) {
    let (prefix, name) = (prefix(state), name(id, generation));
    let own = [PathBuf::from(format!("{prefix}.{name}")), Path::new(&prefix).join(name)]; // the second: of an earlier version
    let is_ours = |folder: &&PathBuf| folder.is_absolute() && own.iter().any(|own| folder.ends_with(own));
    for folder in folders.iter().filter(is_ours) {
        for _ in 0..TRIES {
            if fs::remove_dir(folder).is_ok() || !folder.exists() {
                break;
            }
            end_all(folder);
            std::thread::sleep(PAUSE);
        }
    }
}

/// SIGKILL to everything in a group: by one write, or to each process where there is no such file. Whoever calls it knows by
/// the folder's name that it's a group of ours.
fn end_all(folder: &Path) {
    let at_once = folder.join("cgroup.kill");
    if at_once.exists() {
        let _ = fs::write(at_once, "1");
        return;
    }
    let members = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for pid in members.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn prepare(hierarchy: Hierarchy, state: &Path) -> io::Result<Place> {
    // Who may not write here may make folders below, but move no process into them.
    fs::OpenOptions::new().write(true).open(hierarchy.own.join("cgroup.procs"))?;
    let prefix = prefix(state);
    let trial = hierarchy.own.join(&prefix);
    if hierarchy.unified {
        pass_on(&hierarchy.own);
    }
    make(&trial)?;
    let counts = processor_usec(&trial).is_some();
    let _ = fs::remove_dir(&trial); // busy: an earlier version's boxes are in it
    Ok(Place { own: hierarchy.own, prefix, counts })
}

/// Lets groups below this one use its controllers. The kernel refuses where processes are in it, which is then as it is.
fn pass_on(folder: &Path) {
    for controller in USED {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
    cores::inherit(folder)?;
    match fs::read_to_string(folder.join("cgroup.type")) {
        Ok(kind) if kind.trim() != "domain" => {
            Err(io::Error::other(format!("{} takes no processes: it is {}", folder.display(), kind.trim())))
        }
        _ => Ok(()), // the older hierarchies have no such file
    }
}

fn prefix(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!("nexushub-{}", hex(&digest[..6]))
}

fn name(id: &InstanceId, generation: u64) -> String {
    format!("{id}.g{generation}")
}

/// The hierarchies that are of use, from the kernel's two tables; each once, however often it is mounted.
fn hierarchies(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else { continue };
        let unified = controllers.is_empty();
        if !unified && !controllers.split(',').any(|controller| USED.contains(&controller)) {
            continue;
        }
        let own = mountinfo.lines().find_map(|mount| own_folder(mount, controllers, own));
        found.extend(own.map(|own| Hierarchy { unified, own }));
    }
    found
}

/// The folder of a group, if this is the mount of its hierarchy.
fn own_folder(mount: &str, controllers: &str, own: &str) -> Option<PathBuf> {
    let (mount, kind) = mount.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (version, options) = (kind.next()?, kind.nth(1)?);
    let fits = match controllers {
        "" => version == "cgroup2",
        _ => {
            version == "cgroup"
                && controllers.split(',').all(|one| options.split(',').any(|option| option == one))
        }
    };
    let mut fields = mount.split(' ').skip(3);
    let (root, point) = (fields.next()?, fields.next()?);
    let below = if root == "/" { own } else { own.strip_prefix(root)? };
    fits.then(|| Path::new(point).join(below.trim_start_matches('/')))
}

#[cfg(test)]
mod tests;
