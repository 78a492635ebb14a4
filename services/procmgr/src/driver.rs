//! How a generation is isolated. A driver says what the shim shall execute and where the app finds its things; whatever else
//! there is to a start is the same for all. `process` isolates nothing and is only had by name; `sandbox` and `krun` are had
//! where a trial of theirs succeeded on this machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use nexushub_shim::control::{APP_PORT, INWARD_PORT};
use tokio::sync::mpsc;

use crate::{
    clock::Ms,
    data::{is_shared, resolved, stranger},
    desired::{Deploy, Desired, Egress, Isolation},
    egress::{Found, Router, WayOut},
    env::{Inside, Surroundings},
    generation::Generation,
    health::Check,
    limits::Limits,
    manager::Event,
};

mod inventory;
mod krun;
mod sandbox;
mod trial;

pub(crate) use krun::{Krun, PREFIX as KRUN_PREFIX};
pub(crate) use sandbox::Sandbox;

/// Why an instance waits while nobody knows yet which boxes this machine can make.
pub(crate) const LOOKING: &str = "looking for the best box of this machine";

/// What a program is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The app itself.
    App,
    /// What builds a box around the app.
    Box,
    /// What runs a virtual machine around it.
    Machine,
}

/// What the shim shall execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Executable.
    pub path: PathBuf,
    /// Its arguments after its own name; options first.
    pub args: Vec<OsString>,
    /// Working folder.
    pub cwd: PathBuf,
    /// Whether it is the app itself.
    pub form: Form,
    /// Whether the box's ids are others than those of who runs the platform, and mapped by this program.
    pub mapped: bool,
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
    /// The health check in force.
    pub check: &'a Check,
    /// From SIGTERM to SIGKILL.
    pub stop_ms: Ms,
    /// First of the instance's own user ids; none for an ordinary user, who has none to give.
    pub uid: Option<u32>,
    /// Its slot among the ids that an ordinary user may give away, if it has one.
    pub slot: Option<u32>,
    /// Its box's way out to the internet, if it has one.
    pub way_out: Option<WayOut>,
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
    /// The environment of what is executed, of the app's own.
    fn env(&self, env: BTreeMap<OsString, OsString>) -> Vec<(OsString, OsString)> {
        env.into_iter().collect()
    }
    /// What this machine's kernel has to bound, of the app's bounds.
    fn host_limits(&self, limits: &Limits) -> Limits {
        *limits
    }
    /// Whether two boxes of one instance can share its data and its network.
    fn shares(&self, _: &Desired) -> bool {
        true
    }
    /// How many boxes of an ordinary user can have ids of their own.
    fn slots(&self) -> u32 {
        0
    }
    /// What of its isolation this machine doesn't enforce.
    fn not_enforced(&self) -> &[String];
}

/// Name of the driver of microVMs.
pub(crate) const KRUN: &str = "krun";

/// Whether the driver of this name has boxes, as records of earlier starts name it.
pub(crate) fn boxes(name: &str) -> bool {
    matches!(name, "sandbox" | KRUN)
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
        Inside {
            port: port.unwrap_or_default(),
            entrance_port: around.public_port,
            data: desired.data.clone(),
            ca_file: around.ca_file.clone(),
        }
    }

    fn program(&self, plan: &Plan<'_>) -> Program {
        let release = &plan.desired.release;
        Program {
            path: release.join(APP),
            args: Vec::new(),
            cwd: release.clone(),
            form: Form::App,
            mapped: false,
        }
    }

    fn not_enforced(&self) -> &[String] {
        &[]
    }
}

/// The app's executable in a release.
const APP: &str = "bin/app";
/// Where a box has the release.
const RELEASE: &str = "/app";
/// Where a box has the app's data.
const DATA: &str = "/db";
/// Where a box has the CA certificate.
const CA_FILE: &str = "/etc/nexushub/ca.crt";

fn boxed_app() -> OsString {
    Path::new(RELEASE).join(APP).into()
}

/// Where an app finds its things in a box of any kind.
fn inside_box(around: &Surroundings) -> Inside {
    let ca_file = around.ca_file.is_some().then(|| CA_FILE.into());
    Inside { port: APP_PORT, entrance_port: INWARD_PORT, data: DATA.into(), ca_file }
}

/// How the line of a trial begins that could not give an app's data a disk of their own.
const DATA_BYTES: &str = "data_bytes:";

/// Whether what an app keeps is measured, by these lines of its driver, since no disk of its own bounds it.
pub(crate) fn measures_data(not_enforced: &[String]) -> bool {
    not_enforced.iter().any(|line| line.starts_with(DATA_BYTES))
}

/// The options that builders of boxes have in common.
fn options(plan: &Plan<'_>, not_enforced: &[String]) -> Vec<OsString> {
    let Plan { desired, around, limits, uid, .. } = *plan;
    let mut args: Vec<OsString> = Vec::new();
    let mut option = |name: &str, value: OsString| args.extend([name.into(), value]);
    option("--release", desired.release.clone().into());
    option("--data", desired.data.clone().into());
    if let Some(file) = &around.ca_file {
        option("--ca", file.into());
    }
    if let Some(uid) = uid {
        option("--uid", uid.to_string().into());
        if !measures_data(not_enforced) {
            option("--data-bytes", limits.data_bytes.to_string().into());
        }
    }
    option("--tmp-bytes", limits.tmp_bytes.to_string().into());
    option("--open-files", limits.open_files.to_string().into());
    option("--hostname", desired.id.as_str().into());
    args
}

/// Why there is no driver for a wanted isolation.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nobody knows yet.
    #[error("{LOOKING}")]
    Looking,
    /// This machine, or this build, has none.
    #[error("{0}; ask for `process` to run without isolation")]
    Refused(String),
    /// Boxes of the wanted kind don't reach the internet here.
    #[error("egress \"internet\" {0}")]
    NoWayOut(String),
}

/// The drivers that there are here: a value, which the owner task is told when one more trial has ended.
#[derive(Clone, Debug)]
pub(crate) struct Drivers {
    sandbox: Result<Arc<Sandbox>, Missing>,
    krun: Result<Arc<Krun>, Missing>,
    /// Whether boxes can reach the internet, and whether microVMs can.
    egress: Result<(), Missing>,
    machine_egress: Result<(), Missing>,
}

impl Drivers {
    /// While the search is under way.
    pub(crate) fn looking() -> Self {
        let looking = || Missing::Looking;
        let (egress, machine_egress) = (Err(looking()), Err(looking()));
        Self { sandbox: Err(looking()), krun: Err(looking()), egress, machine_egress }
    }

    /// With the outcome of the sandbox's trial.
    pub(crate) fn with_sandbox(self, found: Result<Sandbox, String>) -> Self {
        Self { sandbox: found.map(Arc::new).map_err(Missing::Refused), ..self }
    }

    /// With the outcome of the microVM's trial.
    pub(crate) fn with_krun(self, found: Result<Krun, String>) -> Self {
        Self { krun: found.map(Arc::new).map_err(Missing::Refused), ..self }
    }

    /// Why nothing bounds what an app keeps, as the trial of a sandbox tells, which makes a disk for it.
    fn no_disk(&self) -> Option<String> {
        let untried = || {
            Some(format!(
                "{DATA_BYTES} what /db takes is measured, not bounded: no box tried to give it a disk"
            ))
        };
        let told = |lines: &[String]| lines.iter().find(|line| line.starts_with(DATA_BYTES)).cloned();
        self.sandbox.as_ref().map_or_else(|_| untried(), |sandbox| told(sandbox.not_enforced()))
    }

    /// With the outcome of the ways out's trials.
    pub(crate) fn with_egress(self, found: Found) -> Self {
        let [egress, machine_egress] =
            [found.boxes, found.machines].map(|found| found.map_err(Missing::NoWayOut));
        Self { egress, machine_egress, ..self }
    }

    /// The driver for an instance, or why there is none for what it asks. Where only a sandbox has a way out, that is the best box
    /// for who needs one; nothing holds back an app without a box.
    pub(crate) fn of(&self, desired: &Desired) -> Result<Arc<dyn Driver>, Missing> {
        match (desired.egress, desired.isolation) {
            (Egress::None, wanted) | (_, wanted @ Isolation::Process) => self.resolve(wanted),
            (Egress::Internet, wanted @ Isolation::Krun) => {
                self.machine_egress.clone().and_then(|()| self.resolve(wanted))
            }
            (Egress::Internet, Isolation::Auto) if self.machine_egress.is_ok() => {
                self.resolve(Isolation::Auto)
            }
            (Egress::Internet, Isolation::Auto | Isolation::Sandbox) => {
                self.egress.clone().and_then(|()| self.resolve(Isolation::Sandbox))
            }
        }
    }

    /// The driver for a wanted isolation, or why there is none.
    pub(crate) fn resolve(&self, wanted: Isolation) -> Result<Arc<dyn Driver>, Missing> {
        let sandbox = || self.sandbox.clone().map(|sandbox| sandbox as Arc<dyn Driver>);
        let krun = || self.krun.clone().map(|krun| krun as Arc<dyn Driver>);
        let named = |name: &str, missing| match missing {
            Missing::Looking => Missing::Looking,
            Missing::Refused(why) => Missing::Refused(format!("driver {name} finds no box here: {why}")),
            no_way_out @ Missing::NoWayOut(_) => no_way_out,
        };
        match wanted {
            Isolation::Process => Ok(Arc::new(Process)),
            // Never without a box unless that is asked for by name.
            Isolation::Auto => krun()
                .or_else(|missing| if missing == Missing::Looking { Err(missing) } else { sandbox() })
                .map_err(|missing| named("auto", missing)),
            Isolation::Sandbox => sandbox().map_err(|missing| named("sandbox", missing)),
            Isolation::Krun => krun().map_err(|missing| named("krun", missing)),
        }
    }

    /// The name of the driver that an instance would have; empty if there is none.
    pub(crate) fn name(&self, desired: &Desired) -> &'static str {
        self.of(desired).map_or("", |driver| driver.name())
    }

    /// Whether it could be started, judged from the drivers and its files.
    pub(crate) fn judge(&self, desired: &Desired) -> Result<(), String> {
        self.of(desired).map_err(|missing| missing.to_string())?;
        judge_release(desired)
    }

    fn log(&self) {
        let why = |missing: Option<&Missing>| missing.map(ToString::to_string).unwrap_or_default();
        let (no_krun, no_sandbox) = (why(self.krun.as_ref().err()), why(self.sandbox.as_ref().err()));
        let no_egress = why(self.egress.as_ref().and(self.machine_egress.as_ref()).err());
        match self.resolve(Isolation::Auto) {
            Ok(driver) => {
                let not_enforced = driver.not_enforced().join("; ");
                tracing::info!(
                    driver = driver.name(),
                    not_enforced,
                    no_krun,
                    no_sandbox,
                    no_egress,
                    "the best box of this machine is found"
                );
            }
            Err(_) => tracing::warn!(no_krun, no_sandbox, "this machine has no box; only `process` can run"),
        }
    }
}

/// Whether what is wanted can be started beside a generation that lives.
pub(crate) fn overlaps(run: &Generation, desired: &Desired, driver: &dyn Driver, limits: &Limits) -> bool {
    if desired.deploy == Deploy::Replace || run.driver == KRUN || !driver.shares(desired) {
        return false;
    }
    // Two boxes of different users can't share the data.
    if run.given != (driver.slots() > 0 && no_id_to_give(desired, run.given).is_none()) {
        return false;
    }
    // The disk of the data can't be made or grown while it is in use.
    let bounded = driver.boxes() && !measures_data(driver.not_enforced());
    let bytes = if bounded { desired.limits_in_force(limits).data_bytes } else { 0 };
    bytes <= run.disk_bytes
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

/// Why an app runs as the user that runs the platform even where that one may give ids away, if so. `has_one`: it was given one
/// before, whose its data are then.
pub(crate) fn no_id_to_give(desired: &Desired, has_one: bool) -> Option<String> {
    let (release, data) = (desired.release.display(), desired.data.display());
    if !is_public(&desired.release) {
        return Some(format!(
            "own ids: it has the user's, since no other may read its release (chmod -R go+rX {release})"
        ));
    }
    let shared = !has_one && is_shared(&desired.data);
    shared.then(|| format!("own ids: it has the user's, since its data are somebody else's ({data})"))
}

/// The same, judged from all of its data, which takes too long for a plan. Blocks.
pub(crate) fn no_data_to_give(desired: &Desired) -> Option<String> {
    let folder = resolved(&desired.data);
    stranger(&folder).map(|name| {
        let folder = folder.display();
        format!(
            "own ids: it has the user's, since {name:?} among its data is of another user or group ({folder})"
        )
    })
}

/// Whether another user can start an app from this release, judged from what is needed at once.
fn is_public(release: &Path) -> bool {
    let app = release.join(APP);
    let open = |path: &Path| fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o5 == 0o5);
    [Some(release), app.parent(), Some(&app)].into_iter().flatten().all(open)
}

/// What makes trials.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// Builds sandboxes.
    pub sandbox: PathBuf,
    /// Runs microVMs.
    pub krun: PathBuf,
    /// Longest time for a microVM's guest to boot in its trial.
    pub krun_boot_ms: u32,
}

/// Searches for the drivers of this machine, says once what was found, and tells the owner task of each outcome: the trial of a
/// microVM takes longer, and who wants a sandbox does not wait for it. An ordinary user has no router.
pub(crate) async fn search(programs: Programs, router: Option<Router>, events: mpsc::Sender<Event>) {
    let root = router.is_some();
    let sandbox = async {
        let some = Drivers::looking().with_sandbox(sandbox::find(programs.sandbox, root).await);
        let _ = events.send(Event::Drivers(some.clone())).await; // an error says that procmgr is ending
        some
    };
    let krun = krun::find(programs.krun, programs.krun_boot_ms);
    let (some, egress, krun) = tokio::join!(sandbox, Router::find(router), krun);
    let krun = krun.map(|program| Krun::new(program, some.no_disk()));
    let all = some.with_egress(egress).with_krun(krun);
    all.log();
    let _ = events.send(Event::Drivers(all)).await;
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

    /// As if the trial of a sandbox had succeeded but for this, and that of a microVM had failed.
    pub(crate) fn with_sandbox(not_enforced: &[&str]) -> Drivers {
        let lines = not_enforced.iter().map(ToString::to_string).collect();
        let sandbox = Sandbox::new("/opt/nexushub-sandbox".into(), lines);
        Drivers::looking().with_sandbox(Ok(sandbox)).with_krun(Err("no /dev/kvm".into()))
    }

    /// As if every trial had failed, the sandbox's for this reason.
    pub(crate) fn without_boxes(why: &str) -> Drivers {
        Drivers::looking().with_sandbox(Err(why.into())).with_krun(Err("no /dev/kvm".into()))
    }

    fn with_krun() -> Drivers {
        with_sandbox(&[]).with_krun(Ok(Krun::new("/opt/nexushub-krun".into(), None)))
    }

    fn name(drivers: &Drivers, wanted: Isolation) -> &'static str {
        drivers.resolve(wanted).map_or("", |driver| driver.name())
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
    fn auto_is_a_microvm_where_one_booted_and_waits_until_that_is_known() {
        let drivers = with_krun();
        let names =
            [Isolation::Auto, Isolation::Krun, Isolation::Sandbox].map(|wanted| name(&drivers, wanted));
        assert_eq!(names, ["krun", "krun", "sandbox"]);
        let some = Drivers::looking().with_sandbox(Ok(Sandbox::new("/opt/nexushub-sandbox".into(), vec![])));
        assert_eq!(some.resolve(Isolation::Auto).unwrap_err(), Missing::Looking);
        assert_eq!(name(&some, Isolation::Sandbox), "sandbox");
    }

    #[test]
    fn nothing_runs_without_a_box_unless_that_was_asked_for_by_name() {
        let drivers = without_boxes("user namespaces are switched off");
        assert_eq!(name(&drivers, Isolation::Process), "process");
        let refusal = drivers.resolve(Isolation::Auto).unwrap_err().to_string();
        assert!(refusal.contains("driver auto") && refusal.contains("switched off"), "{refusal}");
        assert!(refusal.contains("ask for `process`"), "{refusal}");
        assert_eq!(name(&drivers, Isolation::Sandbox), "");
        let krun = with_sandbox(&[]).resolve(Isolation::Krun).unwrap_err();
        assert!(krun.to_string().contains("driver krun finds no box here: no /dev/kvm"), "{krun}");
    }

    #[test]
    fn only_what_needs_a_box_waits_for_the_search() {
        let drivers = Drivers::looking();
        let awaited = [Isolation::Auto, Isolation::Sandbox, Isolation::Krun, Isolation::Process]
            .map(|wanted| drivers.resolve(wanted).is_err_and(|missing| missing == Missing::Looking));
        assert_eq!(awaited, [true, true, true, false]);
    }

    #[test]
    fn the_internet_is_reached_out_of_the_best_box_that_can_and_nobody_runs_without_the_way_out_that_it_asks_for()
     {
        let asking = |isolation, egress| Desired {
            isolation,
            egress,
            ..Desired::from_proto(crate::desired::tests::proto("a"), 1_000).unwrap()
        };
        let name = |drivers: &Drivers, isolation| {
            let driver = drivers.of(&asking(isolation, Egress::Internet));
            driver.map(|driver| driver.name()).map_err(|missing| missing.to_string())
        };
        let all = with_krun().with_egress(Found { boxes: Ok(()), machines: Ok(()) });
        assert_eq!(
            [Isolation::Auto, Isolation::Krun].map(|wanted| name(&all, wanted)),
            [Ok("krun"), Ok("krun")]
        );
        assert_eq!(name(&all, Isolation::Sandbox), Ok("sandbox"));
        let some = with_krun()
            .with_egress(Found { boxes: Ok(()), machines: Err("can't be had in a microVM".into()) });
        assert_eq!(name(&some, Isolation::Auto).as_deref(), Ok("sandbox"));
        assert_eq!(some.name(&asking(Isolation::Auto, Egress::None)), "krun");
        let refused = name(&some, Isolation::Krun).unwrap_err();
        assert!(refused.starts_with("egress \"internet\" can't be had in a microVM"), "{refused}");
        let why = || Err("needs root".to_owned());
        let none = with_krun().with_egress(Found { boxes: why(), machines: why() });
        for isolation in [Isolation::Auto, Isolation::Sandbox, Isolation::Krun] {
            assert_eq!(name(&none, isolation), Err("egress \"internet\" needs root".into()));
            assert_ne!(none.name(&asking(isolation, Egress::None)), "");
        }
        assert_eq!(name(&none, Isolation::Process).as_deref(), Ok("process"), "which nothing holds back");
        assert_eq!(name(&with_krun(), Isolation::Auto), Err(LOOKING.into()), "before the trial has ended");
    }

    #[test]
    fn what_shares_its_data_and_its_network_can_be_started_beside_what_lives() {
        let limits = crate::config::Config::default().app_limits();
        let boxed =
            |bytes| Generation { driver: "sandbox".into(), disk_bytes: bytes, ..Generation::sample(1) };
        let beside = |run: &Generation, isolation, change: fn(&mut Desired)| {
            let mut desired = Desired::from_proto(crate::desired::tests::proto("a"), 1_000).unwrap();
            change(&mut desired);
            overlaps(run, &desired, with_krun().resolve(isolation).unwrap().as_ref(), &limits)
        };
        let (run, all) = (boxed(limits.data_bytes), Isolation::Sandbox);
        assert!(beside(&run, all, |_| ()));
        assert!(beside(&Generation::sample(1), Isolation::Process, |_| ()));
        assert!(!beside(&run, all, |d| d.deploy = Deploy::Replace), "as it asks");
        assert!(!beside(&run, all, |d| d.egress = Egress::Internet), "one way out");
        assert!(!beside(&run, all, |d| d.limits.data_bytes = 1 << 40), "a disk in use does not grow");
        assert!(!beside(&boxed(0), all, |_| ()), "a folder in use does not become a disk");
        assert!(!beside(&run, Isolation::Krun, |_| ()));
        assert!(!beside(&Generation { given: true, ..run.clone() }, all, |_| ()), "another user's data");
        assert!(!beside(&Generation { driver: "krun".into(), ..run }, all, |_| ()));
    }

    #[test]
    fn drivers_and_records_agree_on_who_has_boxes() {
        for wanted in [Isolation::Krun, Isolation::Sandbox, Isolation::Process] {
            let driver = with_krun().resolve(wanted).unwrap();
            assert_eq!(boxes(driver.name()), driver.boxes());
        }
    }
}
