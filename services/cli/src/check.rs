//! `nexushub check`: every daemon judges its part of the configuration, and the files that it names; nothing is changed.

use std::{
    path::PathBuf,
    process::{Command, ExitStatus, Stdio},
};

use clap::Args;
use nexushub_launch::{
    config::{Config, ROOT},
    handoff::Handoff,
};
use serde::{Deserialize, Serialize};

use crate::{
    args::{DAEMONS, Output},
    failure::{FAILURE, Failure, OK},
    out,
    place::Place,
    table::one_line,
    up::beside,
};

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// How to write it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// The whole answer; its JSON form is for programs, so fields are only ever added.
#[derive(Debug, Serialize)]
struct Report {
    version: u32,
    file: Option<PathBuf>,
    well: bool,
    daemons: Vec<Judged>,
}

/// What a daemon says of its part.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Judged {
    name: &'static str,
    well: bool,
    object: String,
    says: String,
    next: String,
}

/// The line that a daemon prints about what is wrong.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Complaint {
    msg: String,
    object: String,
    hint: String,
}

/// `nexushub check`
pub(crate) fn run(place: &Place, args: &Check) -> Result<u8, Failure> {
    let config = place.config()?;
    let daemons =
        DAEMONS.iter().map(|daemon| judged(place, &config, daemon)).collect::<Result<Vec<_>, _>>()?;
    let well = daemons.iter().all(|judged| judged.well);
    let report = Report { version: 1, file: config.path, well, daemons };
    match args.output {
        Output::Json => out::say(&serde_json::to_string_pretty(&report).unwrap_or_default())?,
        Output::Table => out::say(&people(&report))?,
    }
    Ok(if well { OK } else { FAILURE })
}

/// Has every daemon judge its part of a configuration, wherever that is; the first that says no is why it can't be.
pub(crate) fn judge(place: &Place, config: &Config) -> Result<(), Failure> {
    let judged = DAEMONS.iter().map(|daemon| judged(place, config, daemon));
    for Judged { name, well, object, says, next } in judged.collect::<Result<Vec<_>, _>>()? {
        if !well {
            let what = if object.is_empty() { name.to_owned() } else { object };
            return Err(Failure::new(format!("{what}: {says}"), next));
        }
    }
    Ok(())
}

fn people(report: &Report) -> String {
    let named = report.file.as_ref();
    let named = named.map_or_else(|| "built-in defaults".to_owned(), |path| path.display().to_string());
    let lines = report.daemons.iter().map(|judged| match judged {
        Judged { name, well: true, .. } => format!("{name}: ok"),
        Judged { name, object, says, next, .. } => {
            let object = if object.is_empty() { String::new() } else { format!("{object}: ") };
            let next = if next.is_empty() { String::new() } else { format!("\n  {next}") };
            format!("{name}: {object}{says}{next}")
        }
    });
    std::iter::once(format!("configuration: {named}")).chain(lines).collect::<Vec<_>>().join("\n")
}

/// Has a daemon judge its part.
fn judged(place: &Place, config: &Config, daemon: &'static str) -> Result<Judged, Failure> {
    let handoff = Handoff {
        config: config.path.clone(),
        run: Some(place.run.clone()),
        state: Some(place.state.clone()),
        listen: None,
        credentials: None,
        watchdog: None,
    };
    let program = beside(&format!("nexushub-{daemon}"))?;
    let mut command = Command::new(&program);
    command.arg("--check").env_remove("NEXUSHUB_CONFIG").env(ROOT, &config.root).envs(handoff.to_env());
    command.current_dir(&config.root).stdin(Stdio::null());
    let output = command.output().map_err(|error| Failure::io("start", &program, &error))?;
    let well = output.status.success();
    let complaint = if well { Judged::default() } else { told(&output.stderr, output.status) };
    Ok(Judged { name: daemon, well, ..complaint })
}

/// What is wrong; the daemon's last line says it.
fn told(stderr: &[u8], status: ExitStatus) -> Judged {
    let text = String::from_utf8_lossy(stderr);
    let complaint = text.lines().rev().find_map(|line| serde_json::from_str::<Complaint>(line).ok());
    let (object, says, next) = match complaint {
        Some(Complaint { msg, object, hint }) => (one_line(&object), one_line(&msg), one_line(&hint)),
        None => {
            let last = one_line(text.lines().next_back().unwrap_or("it said nothing"));
            (String::new(), format!("{status}: {last}"), String::new())
        }
    };
    Judged { object, says, next, ..Judged::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shapes;
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn a_complaint_is_told_with_its_object_and_what_to_do() {
        let status = ExitStatus::from_raw(1 << 8);
        let line = br#"{"ts":"x","level":"error","msg":"certificate has expired","object":"/c","hint":"make a new one"}"#;
        let of = |stderr: &[u8]| Judged { name: "proxy", ..told(stderr, status) };
        let provider = Judged { name: "provider", well: true, ..Judged::default() };
        let daemons = vec![provider, of(line), of(b"sh: boom\n"), of(b"")];
        let report = Report { version: 1, file: None, well: false, daemons };
        let expected = "\
configuration: built-in defaults
provider: ok
proxy: /c: certificate has expired
  make a new one
proxy: exit status: 1: sh: boom
proxy: exit status: 1: it said nothing";
        assert_eq!(people(&report), expected);
        shapes::tests::is_as_told(shapes::CHECK, &report);
    }
}
