//! A trial: a program of ours makes a box, or says why it can't. What it prints when it could is what of its isolation this
//! machine doesn't enforce.

use std::{path::Path, process::Stdio, time::Duration};

use tokio::process::Command;

/// Of what a trial says, no more lines are taken over.
const LINES: usize = 32;

/// Has the program at this path make a trial with these arguments.
pub(super) async fn run(program: &Path, args: &[String], patience: Duration) -> Result<Vec<String>, String> {
    let mut command = Command::new(program);
    command.args(args).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    judge(command, patience).await.map_err(|why| format!("{}: {why}", program.display()))
}

async fn judge(mut command: Command, patience: Duration) -> Result<Vec<String>, String> {
    // Who has no patience any more drops the child, which kills it; the runtime reaps it.
    let child = command.kill_on_drop(true).spawn().map_err(|error| error.to_string())?;
    let output = match tokio::time::timeout(patience, child.wait_with_output()).await {
        Err(_) => return Err(format!("its trial did not end within {} s", patience.as_secs())),
        Ok(output) => output.map_err(|error| format!("its trial is lost: {error}"))?,
    };
    let said = [output.stdout.as_slice(), &output.stderr].map(lines);
    if output.status.success() {
        let [properties, _] = said;
        return Ok(properties);
    }
    let first = said.into_iter().flatten().next();
    Err(first.unwrap_or_else(|| format!("its trial ended without a word ({})", output.status)))
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

    const PATIENCE: Duration = Duration::from_secs(60);

    async fn probing(script: &str, patience: Duration) -> Result<Vec<String>, String> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        judge(command, patience).await
    }

    #[tokio::test]
    async fn what_a_trial_says_is_what_is_not_enforced_or_why_there_is_no_box() {
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
    async fn a_trial_that_hangs_is_killed_and_there_is_no_box() {
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
        let error = run(Path::new("/nonexistent/nexushub-sandbox"), &[], PATIENCE).await.unwrap_err();
        assert!(error.contains("/nonexistent/nexushub-sandbox"), "{error}");
    }
}
