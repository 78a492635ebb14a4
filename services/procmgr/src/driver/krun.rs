//! The microVM: `nexushub-krun` runs a virtual machine below the shim, with an agent of ours in it as its first process. A
//! `/dev/kvm` that opens proves nothing; whether machines boot here is found out once, by having one boot.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, time::Duration};

use super::{Driver, Form, KRUN, Plan, Program, boxed_app, inside_box, options, trial};
use crate::{
    desired::Desired,
    env::{Inside, Surroundings},
    limits::Limits,
};

/// What a trial may take beside its guest's boot and end.
const MARGIN: Duration = Duration::from_secs(5);
/// The program passes on to the app what has this before its name, and nothing else: `LD_PRELOAD` of an app is not its own.
pub(crate) const PREFIX: &str = "app_";
/// Memory of a guest without a bound.
const MEMORY: u64 = 512 << 20;
/// A guest's kernel needs so much to start at all.
const MEMORY_MIN: u64 = 64 << 20;
const MIB: u64 = 1 << 20;
/// Memory that a machine takes beside its guest's: the program, and the guest's kernel as it is read.
const AROUND: u64 = 64 << 20;
/// Threads of a machine: two for each connection, and a dozen.
const THREADS: u32 = 4096;

/// A machine program whose guests boot here.
#[derive(Debug)]
pub(crate) struct Krun {
    program: PathBuf,
    not_enforced: Vec<String>,
}

impl Krun {
    /// With this program; `no_disk` says why the data can't be bounded.
    pub(crate) fn new(program: PathBuf, no_disk: Option<String>) -> Self {
        Self { program, not_enforced: no_disk.into_iter().collect() }
    }
}

impl Driver for Krun {
    fn name(&self) -> &'static str {
        KRUN
    }

    fn boxes(&self) -> bool {
        true
    }

    fn inside(&self, _: &Desired, around: &Surroundings, _: Option<u16>) -> Inside {
        inside_box(around)
    }

    fn program(&self, plan: &Plan<'_>) -> Program {
        let mut args = options(plan, &self.not_enforced);
        let mut option = |name: &str, value: String| args.extend([name.into(), value.into()]);
        option("--host", plan.around.internal_host());
        plan.way_out.iter().for_each(|way| option("--way-out", way.to_string()));
        option("--memory-mib", memory(plan.limits).div_ceil(MIB).to_string());
        option("--vcpus", plan.limits.cpu_percent.div_ceil(100).clamp(1, 64).to_string());
        option("--processes", plan.limits.processes.to_string());
        option("--boot-ms", plan.check.start_deadline_ms.to_string());
        // Ends before the shim's own deadline does: then it is known how the app ended.
        option("--stop-ms", (plan.stop_ms - plan.stop_ms / 8).to_string());
        args.extend(["--".into(), boxed_app()]);
        Program { path: self.program.clone(), args, cwd: "/".into(), form: Form::Machine, mapped: false }
    }

    fn env(&self, env: BTreeMap<OsString, OsString>) -> Vec<(OsString, OsString)> {
        let prefixed = |name: OsString| [OsString::from(PREFIX), name].into_iter().collect();
        env.into_iter().map(|(name, value)| (prefixed(name), value)).collect()
    }

    fn host_limits(&self, limits: &Limits) -> Limits {
        Limits { memory_bytes: memory(limits) + AROUND, processes: THREADS, ..*limits }
    }

    fn shares(&self, _: &Desired) -> bool {
        false // a guest keeps what it has read of its data, and doesn't learn that another wrote
    }

    fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }
}

fn memory(limits: &Limits) -> u64 {
    if limits.memory_bytes == 0 { MEMORY } else { limits.memory_bytes.max(MEMORY_MIN) }
}

/// Has the program boot a guest. Says why there is none, if so.
pub(super) async fn find(program: PathBuf, boot_ms: u32) -> Result<PathBuf, String> {
    let args = ["--probe".to_owned(), "--deadline-ms".into(), boot_ms.to_string()];
    let patience = Duration::from_millis(boot_ms.into()) * 2 + MARGIN;
    trial::run(&program, &args, patience).await.map(|_| program)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::*;
    use crate::{config::Config, desired::tests::proto, egress::WayOut, slots};

    fn krun() -> Krun {
        Krun::new("/opt/nexushub-krun".into(), None)
    }

    #[test]
    fn the_program_gets_the_bounds_of_the_guest_as_options_and_the_app_after_them() {
        let config = Config::default();
        let desired = Desired::from_proto(proto("a"), 1_000).unwrap();
        let around = Surroundings::new(&config, "yesterday.localhost", 8443, Path::new("/nonexistent"));
        let limits = Limits { memory_bytes: (128 << 20) + 1, cpu_percent: 250, ..config.app_limits() };
        let (check, uid) = (config.check(), Some(slots::FIRST));
        let (desired, around, limits, check) = (&desired, &around, &limits, &check);
        let plan = Plan { desired, around, limits, check, stop_ms: 5000, uid, slot: None, way_out: None };
        let program = krun().program(&plan);
        let args = program.args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            args,
            "--release /srv/app/1 --data /srv/data --uid 1879048192 --data-bytes 1073741824 --tmp-bytes 67108864 \
             --open-files 1024 --hostname a --host 127.0.0.1 internal.yesterday.localhost --memory-mib 129 --vcpus 3 --processes 512 --boot-ms 60000 \
             --stop-ms 4375 -- /app/bin/app"
        );
        assert_eq!(program.form, Form::Machine);
        let way = WayOut { address: [198, 18, 0, 2].into(), gateway: [198, 18, 0, 1].into() };
        let args = krun().program(&Plan { way_out: Some(way), ..plan }).args;
        assert!(args.windows(2).any(|two| two == ["--way-out", "198.18.0.2/30 198.18.0.1"]), "{args:?}");
    }

    #[test]
    fn what_an_app_is_told_is_nothing_to_the_program_around_it() {
        let env = krun().env([("LD_PRELOAD".into(), "/x".into())].into());
        assert_eq!(env, [("app_LD_PRELOAD".into(), "/x".into())]);
    }

    #[test]
    fn the_host_bounds_the_machine_and_leaves_it_room_around_its_guest() {
        let limits = Limits { memory_bytes: 1, processes: 2, open_files: 3, ..Limits::default() };
        let host = krun().host_limits(&limits);
        assert_eq!((host.memory_bytes, host.processes), (MEMORY_MIN + AROUND, THREADS));
        assert_eq!(krun().host_limits(&Limits::default()).memory_bytes, MEMORY + AROUND);
    }
}
