//! The sandbox: `nexushub-sandbox` builds a box of namespaces below the shim and is its first process. Whether this machine lets
//! it is found out once, by having it build one.

use std::{iter, path::PathBuf, time::Duration};

use super::{Driver, Form, Plan, Program, boxed_app, inside_box, options, trial};
use crate::{
    desired::{Desired, Egress},
    env::{Inside, Surroundings},
    slots,
};

/// Longest time for a probe: what is slow is not what can't be had, and without a box its apps don't run.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the line of a trial begins that tells how many boxes of an ordinary user can have ids of their own.
const SLOTS: &str = "slots=";

/// A sandbox program that can make boxes here.
#[derive(Debug)]
pub(crate) struct Sandbox {
    program: PathBuf,
    not_enforced: Vec<String>,
    /// Boxes of an ordinary user that can have ids of their own.
    slots: u32,
}

impl Sandbox {
    /// With what its trial printed.
    pub(crate) fn new(program: PathBuf, lines: Vec<String>) -> Self {
        let (slots, not_enforced): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|line| line.starts_with(SLOTS));
        let slots = slots.first().and_then(|line| line[SLOTS.len()..].parse().ok()).unwrap_or(0);
        Self { program, not_enforced, slots }
    }
}

impl Driver for Sandbox {
    fn name(&self) -> &'static str {
        "sandbox"
    }

    fn boxes(&self) -> bool {
        true
    }

    fn inside(&self, _: &Desired, around: &Surroundings, _: Option<u16>) -> Inside {
        inside_box(around)
    }

    fn program(&self, plan: &Plan<'_>) -> Program {
        let mut args = options(plan, &self.not_enforced);
        args.extend(plan.slot.iter().flat_map(|slot| ["--slot".into(), slot.to_string().into()]));
        args.extend(["--hosts".into(), plan.around.internal_host().into()]);
        args.extend(plan.way_out.iter().flat_map(|way| ["--gateway".into(), way.gateway.to_string().into()]));
        args.extend(["--".into(), boxed_app()]);
        Program {
            path: self.program.clone(),
            args,
            cwd: "/".into(),
            form: Form::Box,
            mapped: plan.slot.is_some(),
        }
    }

    fn shares(&self, desired: &Desired) -> bool {
        desired.egress == Egress::None // the way out is the instance's: a second box would take it from the first
    }

    fn slots(&self) -> u32 {
        self.slots
    }

    fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }
}

/// Has the program build a box. Says why there is none, if so.
pub(super) async fn find(program: PathBuf, root: bool) -> Result<Sandbox, String> {
    let own = root.then(|| ["--uid".to_owned(), slots::FIRST.to_string()]);
    let args: Vec<String> = iter::once("--probe".to_owned()).chain(own.into_iter().flatten()).collect();
    let lines = trial::run(&program, &args, PATIENCE).await?;
    Ok(Sandbox::new(program, lines))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::{super::CA_FILE, *};
    use crate::{config::Config, desired::tests::proto, egress::WayOut};

    #[test]
    fn the_program_gets_the_bounds_and_folders_as_options_and_the_app_after_them() {
        let config = Config::default();
        let desired = Desired::from_proto(proto("a"), 1_000).unwrap();
        let around = Surroundings {
            ca_file: Some("/ca.crt".into()),
            ..Surroundings::new(&config, "yesterday.localhost", 8443, Path::new("/nonexistent"))
        };
        let sandbox = Sandbox::new("/opt/nexushub-sandbox".into(), vec![]);
        let (limits, check) = (config.app_limits(), config.check());
        let program = |uid: Option<u32>| {
            let way_out =
                uid.map(|_| WayOut { address: [198, 18, 0, 2].into(), gateway: [198, 18, 0, 1].into() });
            sandbox.program(&Plan {
                desired: &desired,
                around: &around,
                limits: &limits,
                check: &check,
                stop_ms: 5000,
                uid,
                slot: None,
                way_out,
            })
        };
        let args =
            |uid| program(uid).args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            args(Some(slots::FIRST)),
            "--release /srv/app/1 --data /srv/data --ca /ca.crt --uid 1879048192 --data-bytes 1073741824 --tmp-bytes 67108864 \
             --open-files 1024 --hostname a --hosts 127.0.0.1 internal.yesterday.localhost --gateway 198.18.0.1 -- /app/bin/app"
        );
        let none = args(None);
        assert!(!["--uid", "--data-bytes", "--gateway"].iter().any(|option| none.contains(option)), "{none}");
        assert_eq!(program(None).form, Form::Box);
        let diskless =
            Sandbox::new("/opt/nexushub-sandbox".into(), vec!["data_bytes: no loop device".into()]);
        let (desired, around, limits, check) = (&desired, &around, &limits, &check);
        let uid = Some(slots::FIRST);
        let plan = Plan { desired, around, limits, check, stop_ms: 5000, uid, slot: None, way_out: None };
        assert!(
            !diskless.program(&plan).args.contains(&"--data-bytes".into()) && !diskless.program(&plan).mapped
        );
        let given = diskless.program(&Plan { uid: None, slot: Some(7), ..plan });
        assert!(given.mapped && given.args.windows(2).any(|two| two == ["--slot", "7"]), "{given:?}");
        let inside = sandbox.inside(desired, around, None);
        assert_eq!(
            (inside.port, inside.data.to_str(), inside.ca_file),
            (80, Some("/db"), Some(CA_FILE.into()))
        );
        let bare = Surroundings { ca_file: None, ..around.clone() };
        assert_eq!(sandbox.inside(desired, &bare, None).ca_file, None);
    }

    #[test]
    fn a_trial_tells_how_many_boxes_can_have_ids_of_their_own_beside_what_is_not_enforced() {
        let of =
            |lines: &[&str]| Sandbox::new("/opt/x".into(), lines.iter().map(ToString::to_string).collect());
        let some = of(&["slots=65536", "landlock: no"]);
        assert_eq!(some.slots(), 65_536);
        assert_eq!(some.not_enforced(), ["landlock: no"]);
        for lines in [&["own ids: none"][..], &["slots=0"], &["slots=-1"], &[]] {
            assert_eq!(of(lines).slots(), 0, "{lines:?}");
        }
    }
}
