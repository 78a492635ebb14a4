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

/// A sandbox program that can make boxes here.
#[derive(Debug)]
pub(crate) struct Sandbox {
    program: PathBuf,
    not_enforced: Vec<String>,
}

impl Sandbox {
    /// With what its probe said is not enforced.
    pub(crate) fn new(program: PathBuf, not_enforced: Vec<String>) -> Self {
        Self { program, not_enforced }
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
        args.extend(["--hosts".into(), plan.around.internal_host().into()]);
        args.extend(plan.way_out.iter().flat_map(|way| ["--gateway".into(), way.gateway.to_string().into()]));
        args.extend(["--".into(), boxed_app()]);
        Program { path: self.program.clone(), args, cwd: "/".into(), form: Form::Box }
    }

    fn shares(&self, desired: &Desired) -> bool {
        desired.egress == Egress::None // the way out is the instance's: a second box would take it from the first
    }

    fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }
}

/// Has the program build a box. Says why there is none, if so.
pub(super) async fn find(program: PathBuf, root: bool) -> Result<Sandbox, String> {
    let own = root.then(|| ["--uid".to_owned(), slots::FIRST.to_string()]);
    let args: Vec<String> = iter::once("--probe".to_owned()).chain(own.into_iter().flatten()).collect();
    let not_enforced = trial::run(&program, &args, PATIENCE).await?;
    Ok(Sandbox::new(program, not_enforced))
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
        let plan = Plan { desired, around, limits, check, stop_ms: 5000, uid, way_out: None };
        assert!(!diskless.program(&plan).args.contains(&"--data-bytes".into()));
        let inside = sandbox.inside(desired, around, None);
        assert_eq!(
            (inside.port, inside.data.to_str(), inside.ca_file),
            (80, Some("/db"), Some(CA_FILE.into()))
        );
        let bare = Surroundings { ca_file: None, ..around.clone() };
        assert_eq!(sandbox.inside(desired, &bare, None).ca_file, None);
    }
}
