//! `nexushub check`: every daemon judges its part of the configuration, and the files that it names; nothing is changed.

use std::process::{Command, Stdio};

use nexushub_launch::handoff::Handoff;
use serde::Deserialize;

use crate::{
    args::DAEMONS,
    failure::{FAILURE, Failure, OK},
    out,
    place::Place,
    table::one_line,
    up::beside,
};

/// The line that a daemon prints about what is wrong.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Complaint {
    msg: String,
    object: String,
    hint: String,
}

/// `nexushub check`
pub(crate) fn run(place: &Place) -> Result<u8, Failure> {
    let config = place.config()?;
    let named = config
        .path
        .as_ref()
        .map_or_else(|| "built-in defaults".to_owned(), |path| path.display().to_string());
    out::say(&format!("configuration: {named}"))?;
    let handoff = Handoff {
        config: config.path.clone(),
        run: Some(place.run.clone()),
        state: Some(place.state.clone()),
        listen: None,
        credentials: None,
        watchdog: None,
    };
    let mut code = OK;
    for daemon in DAEMONS {
        let program = beside(&format!("nexushub-{daemon}"))?;
        let mut command = Command::new(&program);
        command.arg("--check").env_remove("NEXUSHUB_CONFIG").envs(handoff.to_env());
        command.current_dir(&config.root).stdin(Stdio::null());
        let output = command.output().map_err(|error| Failure::io("start", &program, &error))?;
        if output.status.success() {
            out::say(&format!("{daemon}: ok"))?;
        } else {
            code = FAILURE;
            out::say(&format!("{daemon}: {}", told(&output.stderr, output.status)))?;
        }
    }
    Ok(code)
}

/// What is wrong, for people; the daemon's last line says it.
fn told(stderr: &[u8], status: std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let complaint = text.lines().rev().find_map(|line| serde_json::from_str::<Complaint>(line).ok());
    match complaint {
        Some(Complaint { msg, object, hint }) => {
            let hint = if hint.is_empty() { hint } else { format!("\n  {}", one_line(&hint)) };
            format!("{}: {}{hint}", one_line(&object), one_line(&msg))
        }
        None => format!("{status}: {}", one_line(text.lines().next_back().unwrap_or("it said nothing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_complaint_is_told_with_its_object_and_what_to_do() {
        let status = std::process::ExitStatus::from_raw(1 << 8);
        let line = br#"{"ts":"x","level":"error","msg":"certificate has expired","object":"/c","hint":"make a new one"}"#;
        assert_eq!(told(line, status), "/c: certificate has expired\n  make a new one");
        assert_eq!(told(b"sh: boom\n", status), "exit status: 1: sh: boom");
        assert_eq!(told(b"", status), "exit status: 1: it said nothing");
    }
}
