//! The sandbox: `nexushub-sandbox` builds a box of namespaces below the shim and is its first process. Whether this machine lets
//! it is found out once, by having it build one.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use nexushub_shim::control::APP_PORT;
use tokio::process::Command;

use super::{APP, Driver, Plan, Program};
use crate::{
    desired::Desired,
    env::{Inside, Surroundings},
    slots,
};

/// Longest time for a probe.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of what a probe says, no more is taken over.
const LINES: usize = 32;

/// Where a box has the app's data.
const DATA: &str = "/db";
/// Where a box has the CA certificate.
const CA_FILE: &str = "/etc/nexushub/ca.crt";
/// Where a box has the release.
const RELEASE: &str = "/app";

/// A sandbox program that can make boxes here.
#[derive(Debug)]
pub(crate) struct Sandbox {
    program: PathBuf,
    not_enforced: Vec<String>,
}

impl Sandbox {
    /// With what its probe said is not enforced.
    pub(crate) fn new(program: PathBuf, mut not_enforced: Vec<String>) -> Self {
        not_enforced.push("data_bytes: the disk that /db takes is not bounded".into());
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
        let ca_file = around.ca_file.is_some().then(|| CA_FILE.into());
        Inside { port: APP_PORT, data: DATA.into(), ca_file }
    }

    fn program(&self, plan: &Plan<'_>) -> Program {
        let Plan { desired, around, limits, uid } = *plan;
        let mut args: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: OsString| args.extend([name.into(), value]);
        option("--release", desired.release.clone().into());
        option("--data", desired.data.clone().into());
        if let Some(file) = &around.ca_file {
            option("--ca", file.into());
        }
        if let Some(uid) = uid {
            option("--uid", uid.to_string().into());
        }
        option("--tmp-bytes", limits.tmp_bytes.to_string().into());
        option("--open-files", limits.open_files.to_string().into());
        option("--hostname", desired.id.as_str().into());
        option("--hosts", format!("127.0.0.1 internal.{}", around.base_domain).into());
        args.extend(["--".into(), Path::new(RELEASE).join(APP).into()]);
        Program { path: self.program.clone(), args, cwd: "/".into(), boxed: true }
    }

    fn not_enforced(&self) -> &[String] {
        &self.not_enforced
    }
}

/// Has the program build a box. Says why there is none, if so.
pub(super) async fn find(program: PathBuf, root: bool) -> Result<Sandbox, String> {
    let mut command = Command::new(&program);
    command.arg("--probe").env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if root {
        command.args(["--uid", &slots::FIRST.to_string()]);
    }
    let not_enforced =
        probe(command, PATIENCE).await.map_err(|why| format!("{}: {why}", program.display()))?;
    Ok(Sandbox::new(program, not_enforced))
}

async fn probe(mut command: Command, patience: Duration) -> Result<Vec<String>, String> {
    // Who has no patience any more drops the child, which kills it; the runtime reaps it.
    let child = command.kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
    let output = match tokio::time::timeout(patience, child.wait_with_output()).await {
        Err(_) => return Err(format!("its probe did not end within {} s", patience.as_secs())),
        Ok(output) => output.map_err(|error| format!("its probe is lost: {error}"))?,
    };
    let said = [output.stdout.as_slice(), &output.stderr].map(lines);
    if output.status.success() {
        let [properties, _] = said;
        return Ok(properties);
    }
    let first = said.into_iter().flatten().next();
    Err(first.unwrap_or_else(|| format!("its probe ended without a word ({})", output.status)))
}

/// Lines for people, bounded: they end up in statuses.
fn lines(said: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    let clean = |line: &str| line.chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    text.lines().map(|line| clean(line.trim())).filter(|line| !line.is_empty()).take(LINES).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::{config::Config, desired::tests::proto};

    async fn probing(script: &str, patience: Duration) -> Result<Vec<String>, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        probe(command, patience).await
    }

    #[tokio::test]
    async fn what_a_probe_says_is_what_is_not_enforced_or_why_there_is_no_box() {
        assert_eq!(probing("exit 0", PATIENCE).await, Ok(vec![]));
        let lacks = probing("echo 'landlock: no'; echo; echo seccomp: no; echo x >&2", PATIENCE).await;
        assert_eq!(lacks, Ok(vec!["landlock: no".into(), "seccomp: no".into()]));
        assert_eq!(
            probing("echo no user namespaces; exit 1", PATIENCE).await,
            Err("no user namespaces".into())
        );
        assert_eq!(probing("echo on stderr >&2; exit 1", PATIENCE).await, Err("on stderr".into()));
        assert!(probing("kill -9 $$", PATIENCE).await.unwrap_err().contains("without a word"));
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_killed_and_there_is_no_box() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("echo $$ > {}; exec sleep 600", pid_file.display());
        let hung = probing(&script, Duration::from_millis(300)).await;
        assert!(hung.unwrap_err().contains("did not end within"));
        let Ok(text) = std::fs::read_to_string(&pid_file) else { return }; // killed before its first word
        let pid: u32 = text.trim().parse().unwrap();
        while nexushub_shim::identity::Stat::of(pid).is_ok_and(|stat| !stat.is_dead()) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = find("/nonexistent/nexushub-sandbox".into(), false).await.unwrap_err();
        assert!(error.contains("/nonexistent/nexushub-sandbox"), "{error}");
    }

    #[test]
    fn the_program_gets_the_bounds_and_folders_as_options_and_the_app_after_them() {
        let config = Config::default();
        let desired = Desired::from_proto(proto("a"), 1_000).unwrap();
        let around = Surroundings {
            ca_file: Some("/ca.crt".into()),
            ..Surroundings::new(&config, "yesterday.localhost", 8443, Path::new("/nonexistent"))
        };
        let sandbox = Sandbox::new("/opt/nexushub-sandbox".into(), vec![]);
        let limits = config.app_limits();
        let program =
            |uid| sandbox.program(&Plan { desired: &desired, around: &around, limits: &limits, uid });
        let args =
            |uid| program(uid).args.iter().map(|arg| arg.to_str().unwrap()).collect::<Vec<_>>().join(" ");
        assert_eq!(
            args(Some(slots::FIRST)),
            "--release /srv/app/1 --data /srv/data --ca /ca.crt --uid 1879048192 --tmp-bytes 67108864 --open-files 1024 \
             --hostname a --hosts 127.0.0.1 internal.yesterday.localhost -- /app/bin/app"
        );
        assert!(!args(None).contains("--uid"));
        assert!(program(None).boxed);
        let inside = sandbox.inside(&desired, &around, None);
        assert_eq!(
            (inside.port, inside.data.to_str(), inside.ca_file),
            (80, Some("/db"), Some(CA_FILE.into()))
        );
        let bare = Surroundings { ca_file: None, ..around };
        assert_eq!(sandbox.inside(&desired, &bare, None).ca_file, None);
    }
}
