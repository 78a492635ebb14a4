//! How a generation is isolated. A driver judges whether a release can run and says what the shim shall execute; whatever
//! else there is to a start is the same for all. Here is `process`, which isolates nothing; `sandbox` and `krun` fit beside it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use crate::desired::{Desired, Isolation};

/// What the shim shall execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Executable.
    pub path: PathBuf,
    /// Working folder.
    pub cwd: PathBuf,
}

/// One way to isolate.
pub(crate) trait Driver: Send + Sync {
    /// Its name, as statuses and records show it.
    fn name(&self) -> &'static str;
    /// What to execute, or why this release can't run.
    fn program(&self, desired: &Desired) -> Result<Program, String>;
}

/// No isolation: the app is a child of the shim, on a port of the machine.
#[derive(Debug)]
struct Process;

impl Driver for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn program(&self, desired: &Desired) -> Result<Program, String> {
        let release = &desired.release;
        if !release.is_dir() {
            return Err(format!("release {} is not there", release.display()));
        }
        let path = release.join("bin/app");
        let meta = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
            return Err(format!("{} is not an executable file", path.display()));
        }
        Ok(Program { path, cwd: release.clone() })
    }
}

/// The driver for a wanted isolation, or why there is none.
pub(crate) fn resolve(wanted: Isolation) -> Result<&'static dyn Driver, String> {
    match wanted {
        Isolation::Process => Ok(&Process),
        // Never without a box unless that is asked for by name.
        Isolation::Auto => {
            Err("driver auto finds no box here yet; ask for `process` to run without isolation".into())
        }
        Isolation::Krun => {
            Err("driver krun is not built in; ask for `process` to run without isolation".into())
        }
        Isolation::Sandbox => {
            Err("driver sandbox is not built in; ask for `process` to run without isolation".into())
        }
    }
}

/// The name of the driver that a wanted isolation leads to; empty if there is none.
pub(crate) fn name(wanted: Isolation) -> &'static str {
    resolve(wanted).map_or("", Driver::name)
}

/// Whether it could be started, judged from its files.
pub(crate) fn judge(desired: &Desired) -> Result<(), String> {
    resolve(desired.isolation)?.program(desired).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_release_runs_only_with_an_executable_bin_app() {
        let dir = tempfile::tempdir().unwrap();
        let mut proto = crate::desired::tests::proto("a");
        proto.release = dir.path().join("r1").display().to_string();
        let desired = Desired::from_proto(proto, 1_000).unwrap();
        assert!(judge(&desired).unwrap_err().contains("is not there"));
        fs::create_dir_all(desired.release.join("bin")).unwrap();
        assert!(judge(&desired).unwrap_err().contains("bin/app"));
        let app = desired.release.join("bin/app");
        fs::write(&app, "").unwrap();
        fs::set_permissions(&app, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(judge(&desired).unwrap_err().contains("not an executable"));
        fs::set_permissions(&app, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(judge(&desired), Ok(()));
    }

    #[test]
    fn nothing_runs_without_a_box_unless_that_was_asked_for_by_name() {
        assert_eq!(name(Isolation::Process), "process");
        assert!(resolve(Isolation::Auto).err().unwrap().contains("ask for `process`"));
        assert!(resolve(Isolation::Krun).err().unwrap().contains("not built in"));
        assert_eq!(name(Isolation::Sandbox), "");
    }
}
