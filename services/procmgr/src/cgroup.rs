//! A cgroup for each generation, where this process may make some: below its own in the unified hierarchy. They make it
//! possible to end everything that an app left behind, whatever it did to its sessions. Without any, everything else works.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use nexushub_chassis::launch::secret::hex;
use sha2::{Digest, Sha256};

use crate::ids::InstanceId;

/// A killed process leaves its cgroup within moments; so often and so long it is looked for.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

/// Where the generations' cgroups are made; `None`: nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cgroups(Option<PathBuf>);

impl Cgroups {
    /// Finds and makes the place for a platform with this state folder.
    pub(crate) fn find(state: &Path) -> Self {
        match Self::prepare(state) {
            Ok(base) => Self(Some(base)),
            Err(error) => {
                tracing::debug!(error = %error, "no cgroup can be made; instances run without");
                Self(None)
            }
        }
    }

    fn prepare(state: &Path) -> io::Result<PathBuf> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no unified cgroup hierarchy is mounted");
        let own = own_folder(&mounts, &own).ok_or_else(missing)?;
        // Who may not write here may make folders below, but move no process into them.
        fs::OpenOptions::new().write(true).open(own.join("cgroup.procs"))?;
        let base = own.join(base_name(state));
        make(&base)?;
        Ok(base)
    }

    /// Where the cgroup of a generation is, or would be.
    pub(crate) fn folder(&self, id: &InstanceId, generation: u64) -> Option<PathBuf> {
        Some(self.0.as_ref()?.join(name(id, generation)))
    }

    /// Removes the place itself, if nothing is left in it; made anew when it is needed.
    pub(crate) fn leave(&self) {
        self.0.iter().for_each(|base| drop(fs::remove_dir(base))); // busy: something of ours still runs
    }

    /// Makes the cgroup of a generation.
    pub(crate) fn make(&self, id: &InstanceId, generation: u64) -> Option<PathBuf> {
        let folder = self.folder(id, generation)?;
        match folder.parent().map_or(Ok(()), make).and_then(|()| make(&folder)) {
            Ok(()) => Some(folder),
            Err(error) => {
                tracing::debug!(instance = %id, generation, error = %error, "its cgroup can't be made; it runs without");
                None
            }
        }
    }
}

/// Ends whatever is left in a generation's cgroup and removes it. A path that isn't that of a generation of ours is left
/// alone; one that stays busy is removed another time. Blocks for a moment where something has to be ended.
pub(crate) fn clear(folder: &Path, state: &Path, id: &InstanceId, generation: u64) {
    if !folder.is_absolute() || !folder.ends_with(Path::new(&base_name(state)).join(name(id, generation))) {
        return;
    }
    if fs::remove_dir(folder).is_ok() || !folder.exists() {
        return;
    }
    let _ = fs::write(folder.join("cgroup.kill"), "1");
    for _ in 0..TRIES {
        if fs::remove_dir(folder).is_ok() {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn make(folder: &Path) -> io::Result<()> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::OpenOptions::new().write(true).open(folder.join("cgroup.procs"))?;
    match fs::read_to_string(folder.join("cgroup.type"))?.trim() {
        "domain" => Ok(()),
        other => Err(io::Error::other(format!("{} takes no processes: it is {other}", folder.display()))),
    }
}

fn base_name(state: &Path) -> String {
    let digest = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!("nexushub-{}", hex(&digest[..6]))
}

fn name(id: &InstanceId, generation: u64) -> String {
    format!("{id}.g{generation}")
}

/// The folder of this process's own cgroup in the unified hierarchy.
fn own_folder(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let below = if root == "/" { own } else { own.strip_prefix(root)? };
        Some(Path::new(point).join(below.trim_start_matches('/')))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MOUNTS: &str = "24 1 0:5 / /dev rw - devtmpfs devtmpfs rw
30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    #[test]
    fn the_own_cgroup_is_found_below_its_mount() {
        let at = |own: &str| own_folder(MOUNTS, own).map(|path| path.display().to_string());
        assert_eq!(at("9:cpu:/x\n0::/\n").unwrap(), "/sys/fs/cgroup/unified/");
        assert_eq!(
            at("0::/system.slice/a.service\n").unwrap(),
            "/sys/fs/cgroup/unified/system.slice/a.service"
        );
        assert_eq!(at("9:cpu:/x\n"), None);
        assert_eq!(own_folder("", "0::/\n"), None);
        let partial = MOUNTS.replace(" / /sys/fs/cgroup/unified", " /box /sys/fs/cgroup");
        assert_eq!(own_folder(&partial, "0::/box/a\n").unwrap(), Path::new("/sys/fs/cgroup/a"));
        assert_eq!(own_folder(&partial, "0::/elsewhere\n"), None);
    }

    #[test]
    fn a_folder_that_is_no_cgroup_of_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (state, id) = (Path::new("/state"), InstanceId::parse("a").unwrap());
        let foreign = dir.path().join("a.g1");
        fs::create_dir(&foreign).unwrap();
        clear(&foreign, state, &id, 1);
        assert!(foreign.exists());
        let own = dir.path().join(base_name(state)).join("a.g1");
        fs::create_dir_all(&own).unwrap();
        clear(&own, state, &id, 2);
        assert!(own.exists());
        clear(&own, state, &id, 1);
        assert!(!own.exists());
    }
}
