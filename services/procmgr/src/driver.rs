//! How a generation is isolated. A driver says what the shim shall execute and where the app finds its things; whatever else
//! there is to a start is the same for all. `process` isolates nothing and is only had by name; `sandbox` is had where its
//! probe made a box on this machine (`driver/sandbox.rs`); `krun` fits beside them.

use std::{
    collections::BTreeSet, ffi::OsString, fmt, fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc,
};

use tokio::sync::mpsc;

use crate::{
    desired::{Desired, Isolation},
    env::{Inside, Surroundings},
    limits::Limits,
    manager::Event,
};

mod sandbox;

pub(crate) use sandbox::Sandbox;

/// Why an instance waits while nobody knows yet which boxes this machine can make.
pub(crate) const LOOKING: &str = "looking for the best box of this machine";

/// What the shim shall execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Executable.
    pub path: PathBuf,
    /// Its arguments after its own name; options first.
    pub args: Vec<OsString>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Whether it builds a box, rather than being the app itself.
    pub boxed: bool,
}

/// What a program is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan<'a> {
    /// What should run.
    pub desired: &'a Desired,
    /// What every app is told.
    pub around: &'a Surroundings,
    /// The bounds in force.
    pub limits: &'a Limits,
    /// First of the instance's own user ids; none for an ordinary user, who has none to give.
    pub uid: Option<u32>,
}

/// One way to isolate.
pub(crate) trait Driver: fmt::Debug + Send + Sync {
    /// Its name, as statuses and records show it.
    fn name(&self) -> &'static str;
    /// Whether its apps are in boxes: bounded, with a network and user ids of their own, and reached through the shim. The
    /// others need a port of this machine.
    fn boxes(&self) -> bool;
    /// Where an app finds its things. `port` is the one that was reserved, if it needs one.
    fn inside(&self, desired: &Desired, around: &Surroundings, port: Option<u16>) -> Inside;
    /// What to execute. The release has been judged.
    fn program(&self, plan: &Plan<'_>) -> Program;
    /// What of its isolation this machine doesn't enforce.
    fn not_enforced(&self) -> &[String];
}

/// Whether the driver of this name has boxes, as records of earlier starts name it.
pub(crate) fn boxes(name: &str) -> bool {
    matches!(name, "sandbox" | "krun")
}

/// No isolation: the app is a child of the shim, on a port of the machine.
#[derive(Debug)]
struct Process;

impl Driver for Process {
    fn name(&self) -> &'static str {
        "process"
    }

    fn boxes(&self) -> bool {
        false
    }

    fn inside(&self, desired: &Desired, around: &Surroundings, port: Option<u16>) -> Inside {
        Inside { port: port.unwrap_or_default(), data: desired.data.clone(), ca_file: around.ca_file.clone() }
    }

    fn program(&self, plan: &Plan<'_>) -> Program {
        let release = &plan.desired.release;
        Program { path: release.join(APP), args: Vec::new(), cwd: release.clone(), boxed: false }
    }

    fn not_enforced(&self) -> &[String] {
        &[]
    }
}

/// The app's executable in a release.
const APP: &str = "bin/app";

/// Why there is no driver for a wanted isolation.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nobody knows yet.
    #[error("{LOOKING}")]
    Looking,
    /// This machine, or this build, has none.
    #[error("{0}; ask for `process` to run without isolation")]
    Refused(String),
}

/// The drivers that there are here: a value, which the owner task is told once the search for them ended.
#[derive(Clone, Debug)]
pub(crate) struct Drivers {
    sandbox: Result<Arc<Sandbox>, Missing>,
}

impl Drivers {
    /// While the search is under way.
    pub(crate) fn looking() -> Self {
        Self { sandbox: Err(Missing::Looking) }
    }

    /// What the search found: the sandbox, or why there is none.
    pub(crate) fn found(sandbox: Result<Sandbox, String>) -> Self {
        Self { sandbox: sandbox.map(Arc::new).map_err(Missing::Refused) }
    }

    /// The driver for a wanted isolation, or why there is none.
    pub(crate) fn resolve(&self, wanted: Isolation) -> Result<Arc<dyn Driver>, Missing> {
        let sandbox = || self.sandbox.clone().map(|sandbox| sandbox as Arc<dyn Driver>);
        let named = |name: &str, missing| match missing {
            Missing::Looking => Missing::Looking,
            Missing::Refused(why) => Missing::Refused(format!("driver {name} finds no box here: {why}")),
        };
        match wanted {
            Isolation::Process => Ok(Arc::new(Process)),
            // Never without a box unless that is asked for by name.
            Isolation::Auto => sandbox().map_err(|missing| named("auto", missing)),
            Isolation::Sandbox => sandbox().map_err(|missing| named("sandbox", missing)),
            Isolation::Krun => Err(Missing::Refused("driver krun is not built in yet".into())),
        }
    }

    /// The name of the driver that a wanted isolation leads to; empty if there is none.
    pub(crate) fn name(&self, wanted: Isolation) -> &'static str {
        self.resolve(wanted).map_or("", |driver| driver.name())
    }

    /// Whether it could be started, judged from the drivers and its files.
    pub(crate) fn judge(&self, desired: &Desired) -> Result<(), String> {
        self.resolve(desired.isolation).map_err(|missing| missing.to_string())?;
        judge_release(desired)
    }

    fn log(&self) {
        match self.resolve(Isolation::Auto) {
            Ok(driver) => {
                let not_enforced = driver.not_enforced().join("; ");
                tracing::info!(driver = driver.name(), not_enforced, "the best box of this machine is found");
            }
            Err(error) => tracing::warn!(error = %error, "this machine has no box; only `process` can run"),
        }
    }
}

/// Whether a release can be executed.
pub(crate) fn judge_release(desired: &Desired) -> Result<(), String> {
    let release = &desired.release;
    if !release.is_dir() {
        return Err(format!("release {} is not there", release.display()));
    }
    let path = release.join(APP);
    let meta = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 {
        return Err(format!("{} is not an executable file", path.display()));
    }
    Ok(())
}

/// Searches for the drivers of this machine, says once what was found, and tells the owner task.
pub(crate) async fn search(program: PathBuf, root: bool, events: mpsc::Sender<Event>) {
    let drivers = Drivers::found(sandbox::find(program, root).await);
    drivers.log();
    let _ = events.send(Event::Drivers(drivers)).await; // an error says that procmgr is ending
}

/// Both lists, each line once.
pub(crate) fn all_not_enforced(driver: &[String], groups: Vec<String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    driver.iter().cloned().chain(groups).filter(|line| seen.insert(line.clone())).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// As if the probe had found a sandbox that lacks this.
    pub(crate) fn with_sandbox(not_enforced: &[&str]) -> Drivers {
        let lines = not_enforced.iter().map(ToString::to_string).collect();
        Drivers::found(Ok(Sandbox::new("/opt/nexushub-sandbox".into(), lines)))
    }

    #[test]
    fn a_release_runs_only_with_an_executable_bin_app() {
        let dir = tempfile::tempdir().unwrap();
        let mut proto = crate::desired::tests::proto("a");
        proto.release = dir.path().join("r1").display().to_string();
        let desired = Desired::from_proto(proto, 1_000).unwrap();
        let judge = |desired| Drivers::looking().judge(desired);
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
    fn auto_is_the_sandbox_where_a_box_could_be_made() {
        let drivers = with_sandbox(&["landlock: not supported by this kernel"]);
        for wanted in [Isolation::Auto, Isolation::Sandbox] {
            let driver = drivers.resolve(wanted).unwrap();
            assert_eq!((driver.name(), driver.boxes()), ("sandbox", true));
            assert_eq!(driver.not_enforced()[0], "landlock: not supported by this kernel");
        }
    }

    #[test]
    fn nothing_runs_without_a_box_unless_that_was_asked_for_by_name() {
        let drivers = Drivers::found(Err("user namespaces are switched off".into()));
        assert_eq!(drivers.name(Isolation::Process), "process");
        let refusal = drivers.resolve(Isolation::Auto).unwrap_err().to_string();
        assert!(refusal.contains("driver auto") && refusal.contains("switched off"), "{refusal}");
        assert!(refusal.contains("ask for `process`"), "{refusal}");
        assert_eq!(drivers.name(Isolation::Sandbox), "");
        let krun = with_sandbox(&[]).resolve(Isolation::Krun).unwrap_err();
        assert!(krun.to_string().contains("driver krun is not built in yet"));
    }

    #[test]
    fn only_what_needs_a_box_waits_for_the_search() {
        let drivers = Drivers::looking();
        let awaited = [Isolation::Auto, Isolation::Sandbox, Isolation::Krun, Isolation::Process]
            .map(|wanted| drivers.resolve(wanted).is_err_and(|missing| missing == Missing::Looking));
        assert_eq!(awaited, [true, true, false, false]);
    }

    #[test]
    fn drivers_and_records_agree_on_who_has_boxes() {
        for wanted in [Isolation::Auto, Isolation::Process] {
            let driver = with_sandbox(&[]).resolve(wanted).unwrap();
            assert_eq!(boxes(driver.name()), driver.boxes());
        }
    }
}
