//! The command line. What it says counts before the environment, and that before the configuration file.

use std::{ffi::OsString, path::PathBuf};

use nexushub_launch::{Fault, fault::EXIT_USAGE, handoff::Handoff};

pub(crate) const USAGE: &str = include_str!("usage.txt");
const ACTIONS: [&str; 5] = ["--check", "--write-credentials", "--forget-credentials", "--help", "--version"];

/// What is to be done (empty = run the platform), and where.
type Job = (&'static str, Handoff);

/// Lays the options over the environment; paths become absolute.
pub(crate) fn read(mut args: impl Iterator<Item = OsString>, mut handoff: Handoff) -> Result<Job, Fault> {
    let mut action = "";
    while let Some(arg) = args.next() {
        let name = arg.to_string_lossy();
        let mut value = || args.next().ok_or_else(|| usage("option needs a value", &name));
        let path = |value: OsString| std::path::absolute(value).map_err(|_| usage("not a path", &name));
        match &*name {
            "--config" => handoff.config = Some(path(value()?)?),
            "--home" => {
                let home: PathBuf = path(value()?)?;
                (handoff.run, handoff.state) = (Some(home.join("run")), Some(home.join("state")));
                let config = Some(home.join("nexushub.toml")).filter(|path| path.is_file());
                handoff.config = config.or(handoff.config);
            }
            "--listen" => {
                let address = value()?.to_string_lossy().parse();
                handoff.listen = Some(address.map_err(|_| usage("not an address with a port", &name))?);
            }
            _ => {
                let known = ACTIONS.iter().find(|known| **known == name);
                action = known.ok_or_else(|| usage("unknown option", &name))?;
            }
        }
    }
    Ok((action, handoff))
}

fn usage(msg: &str, option: &str) -> Fault {
    Fault { exit: EXIT_USAGE, ..Fault::new("usage", msg, option, "see --help") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NONE: Handoff =
        Handoff { config: None, run: None, state: None, listen: None, credentials: None, watchdog: None };

    fn over(env: Handoff, args: &[&str]) -> Result<Job, Fault> {
        read(args.iter().map(OsString::from), env)
    }

    #[test]
    fn the_command_line_counts_before_the_environment() {
        let env = Handoff { config: Some("/e.toml".into()), run: Some("/e".into()), ..NONE };
        let (action, read) = over(env.clone(), &["--home", "/h", "--listen", "[::1]:9", "--check"]).unwrap();
        assert_eq!((read.run.unwrap(), read.state.unwrap()), ("/h/run".into(), "/h/state".into()));
        assert_eq!((action, read.listen), ("--check", Some("[::1]:9".parse().unwrap())));
        assert_eq!(read.config, Some("/e.toml".into()), "there is no /h/nexushub.toml");
        assert_eq!(over(env.clone(), &[]).unwrap(), ("", env));
    }

    #[test]
    fn nonsense_is_named_and_exits_64() {
        for (args, object) in [
            (&["--conf"][..], "--conf"),
            (&["--home"], "--home"),
            (&["--listen", "8443"], "--listen"),
            (&["run"], "run"),
        ] {
            let fault = over(NONE, args).unwrap_err();
            assert_eq!((fault.object.as_str(), fault.exit), (object, 64));
        }
    }
}
