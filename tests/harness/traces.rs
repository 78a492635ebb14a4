//! What instances leave on a machine: compared before and after, so that a leak of any kind has a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use crate::{DAEMONS, Platform};

/// Everything of a platform that an instance adds to while it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traces {
    /// Its processes, by command line.
    pub processes: BTreeMap<String, usize>,
    /// Descriptors of each daemon: connections, sockets that reserve ports, files; and of the supervisor.
    pub descriptors: BTreeMap<String, usize>,
    /// Mounts that the daemons see.
    pub mounts: BTreeSet<String>,
    /// Namespaces that its processes are in.
    pub namespaces: BTreeSet<PathBuf>,
    /// Control groups of its instances.
    pub groups: BTreeSet<PathBuf>,
    /// Files in its state.
    pub files: BTreeSet<PathBuf>,
    /// Devices that stand for a file of its state.
    pub devices: BTreeSet<PathBuf>,
}

impl Traces {
    /// Whether there is nothing that was not there before; what was brief then is gone by now.
    #[must_use]
    pub fn no_more_than(&self, before: &Self) -> bool {
        fewer(&self.processes, &before.processes)
            && fewer(&self.descriptors, &before.descriptors)
            && self.mounts.is_subset(&before.mounts)
            && self.namespaces.is_subset(&before.namespaces)
            && self.groups.is_subset(&before.groups)
            && self.files.is_subset(&before.files)
            && self.devices.is_subset(&before.devices)
    }
}

impl Platform {
    /// What there is of it now. `groups` are the folders of an instance's control groups: all of it have theirs beside them.
    ///
    /// # Panics
    /// When a daemon is not ready.
    pub async fn traces(&self, groups: &BTreeSet<PathBuf>) -> Traces {
        let mut daemons = BTreeMap::from([("supervisor".to_owned(), self.supervisor().pid)]);
        for name in DAEMONS {
            daemons.insert(name.to_owned(), self.daemon(name).await.pid);
        }
        let all = self.processes();
        let mut counted = BTreeMap::new();
        all.values().for_each(|command| *counted.entry(command.clone()).or_default() += 1);
        let own = |link: PathBuf| fs::read_link(link).ok();
        let namespaces =
            all.keys().flat_map(|pid| entries(Path::new(&format!("/proc/{pid}/ns")))).filter_map(own);
        let mounts =
            daemons.values().map(|pid| fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap_or_default());
        Traces {
            processes: counted,
            descriptors: daemons
                .iter()
                .map(|(name, pid)| (name.clone(), entries(Path::new(&format!("/proc/{pid}/fd"))).len()))
                .collect(),
            mounts: mounts.flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>()).collect(),
            namespaces: namespaces.collect(),
            groups: groups.iter().flat_map(|group| siblings(group)).filter(|path| path.is_dir()).collect(),
            files: below(&self.state()),
            devices: devices(&self.state()),
        }
    }

    /// An app's control groups, as its process tells.
    #[must_use]
    pub fn groups_around(pid: u32) -> BTreeSet<PathBuf> {
        let table = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = table.lines().filter_map(|line| line.splitn(3, ':').nth(2)?.rsplit_once("/nexushub-"));
        let names: Vec<_> = own
            .filter_map(|(above, name)| Some(format!("{above}/nexushub-{}", name.split('/').next()?)))
            .collect();
        let hierarchies = entries(Path::new("/sys/fs/cgroup")).into_iter().chain(["/sys/fs/cgroup".into()]);
        let hierarchies = hierarchies.collect::<Vec<PathBuf>>();
        let found = names
            .iter()
            .flat_map(|name| hierarchies.iter().map(move |top| top.join(name.trim_start_matches('/'))));
        found.filter(|path| path.is_dir()).collect()
    }
}

fn fewer(now: &BTreeMap<String, usize>, before: &BTreeMap<String, usize>) -> bool {
    now.iter().all(|(name, count)| before.get(name).is_some_and(|then| count <= then))
}

/// What is beside a group and named for the same platform.
fn siblings(group: &Path) -> Vec<PathBuf> {
    let platform = |path: &Path| path.file_name()?.to_str()?.split('.').next().map(str::to_owned);
    let all = group.parent().map(entries).unwrap_or_default();
    all.into_iter().filter(|path| platform(path) == platform(group)).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Every path below a folder.
fn below(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for path in entries(folder) {
        if path.is_dir() && !path.is_symlink() {
            found.extend(below(&path));
        }
        found.insert(path);
    }
    found
}

/// Loop devices whose file lies below a folder.
fn devices(folder: &Path) -> BTreeSet<PathBuf> {
    let file = |device: &PathBuf| fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
    entries(Path::new("/sys/block"))
        .into_iter()
        .filter(|device| Path::new(&file(device)).starts_with(folder))
        .collect()
}
