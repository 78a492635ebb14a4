//! The command line: what box to build. A pure parse; nobody but the process manager writes it.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::{net::Ipv4Addr, path::PathBuf, str::FromStr};

use crate::{data::Task, report::Reason};

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// Build a box and run the app.
    Run(Box<Run>),
    /// Tell what can't be enforced on this machine.
    Probe {
        /// The first of the ids to try it with.
        uid: Option<u32>,
        /// The slot to try it with, as an ordinary user who may give ids away.
        slot: Option<u32>,
    },
    /// Map the ids of this process.
    Map(u32),
    /// Do something with these folders of data.
    Data(Task, Vec<PathBuf>),
}

/// A box and its app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// The release's folder: `/app`.
    pub release: PathBuf,
    /// The instance's data: `/db`.
    pub data: PathBuf,
    /// The platform's CA: `/etc/nexushub/ca.crt`.
    pub ca: Option<PathBuf>,
    /// The first of the box's 65,536 host ids; none as an ordinary user.
    pub uid: Option<u32>,
    /// Which of the ids that an ordinary user may give away the box has; none: the user's own.
    pub slot: Option<u32>,
    /// Bound of `/db`, which takes root; 0: none.
    pub data_bytes: u64,
    /// Bound of `/tmp`; 0: none.
    pub tmp_bytes: u64,
    /// Bound of a process's descriptors; 0: the inherited one.
    pub open_files: u64,
    /// Bound of the box's processes, where no cgroup has one.
    pub processes: Option<u64>,
    /// The box's host name.
    pub hostname: String,
    /// More lines of `/etc/hosts`.
    pub hosts: Vec<String>,
    /// Where the box's way out to the internet begins, and names are asked for; none: it has none.
    pub gateway: Option<Ipv4Addr>,
    /// The app's program inside the box, and its arguments.
    pub command: Vec<CString>,
}

/// Reads the arguments after the program's own name.
///
/// # Errors
/// When one is missing, unknown or no such value.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Order, Reason> {
    let mut args = args.into_iter();
    let (mut run, mut probe, mut map, mut task, mut folders) =
        (Run::default(), false, None, None, Vec::new());
    while let Some(arg) = args.next() {
        let name = text(arg, "an option")?;
        let mut value = || args.next().ok_or_else(|| Reason::new(format_args!("{name} has no value")));
        match name.as_str() {
            "--probe" => probe = true,
            "--map" => map = Some(number(value()?, "--map")?),
            "--measure" => task = Some(Task::Measure(number(value()?, "--measure")?)),
            "--reclaim" => task = Some(Task::Reclaim),
            "--remove" => task = Some(Task::Remove),
            "--folder" => folders.push(value()?.into()),
            "--release" => run.release = value()?.into(),
            "--data" => run.data = value()?.into(),
            "--ca" => run.ca = Some(value()?.into()),
            "--uid" => run.uid = Some(number(value()?, "--uid")?),
            "--slot" => run.slot = Some(number(value()?, "--slot")?),
            "--data-bytes" => run.data_bytes = number(value()?, "--data-bytes")?,
            "--tmp-bytes" => run.tmp_bytes = number(value()?, "--tmp-bytes")?,
            "--open-files" => run.open_files = number(value()?, "--open-files")?,
            "--processes" => run.processes = Some(number(value()?, "--processes")?),
            "--hostname" => run.hostname = text(value()?, "--hostname")?,
            "--gateway" => run.gateway = Some(address(value()?)?),
            "--hosts" => run.hosts.push(line(value()?)?),
            "--" => break,
            _ => return Err(Reason::new(format_args!("{name} is not an option"))),
        }
    }
    let words =
        args.map(|word| CString::new(word.into_vec()).map_err(|_| Reason::new("a NUL in an argument")));
    run.command = words.collect::<Result<_, _>>()?;
    Ok(match (map, task) {
        (Some(process), _) => Order::Map(process),
        (None, Some(task)) => Order::Data(task, folders),
        (None, None) if probe => Order::Probe { uid: run.uid, slot: run.slot },
        (None, None) => Order::Run(Box::new(complete(run)?)),
    })
}

fn complete(run: Run) -> Result<Run, Reason> {
    for (missing, name) in [
        (run.release.as_os_str().is_empty(), "--release"),
        (run.data.as_os_str().is_empty(), "--data"),
        (run.hostname.is_empty(), "--hostname"),
        (run.command.is_empty(), "the app's program after --"),
        (run.data_bytes > 0 && run.uid.is_none(), "--uid, without which there is no --data-bytes,"),
    ] {
        if missing {
            return Err(Reason::new(format_args!("{name} is missing")));
        }
    }
    Ok(run)
}

fn text(value: OsString, of: &str) -> Result<String, Reason> {
    value.into_string().map_err(|value| Reason::new(format_args!("{of} is not text: {}", value.display())))
}

fn line(value: OsString) -> Result<String, Reason> {
    let line = text(value, "--hosts")?;
    match line.contains(|c: char| c.is_control()) {
        true => Err(Reason::new("--hosts is not one line")),
        false => Ok(line),
    }
}

fn address(value: OsString) -> Result<Ipv4Addr, Reason> {
    let value = text(value, "--gateway")?;
    value.parse().map_err(|_| Reason::new(format_args!("--gateway is not an address: {value}")))
}

fn number<N: FromStr>(value: OsString, of: &str) -> Result<N, Reason> {
    let value = text(value, of)?;
    value.parse().map_err(|_| Reason::new(format_args!("{of} is not a number: {value}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parsed(line: &str) -> Result<Order, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|reason| reason.to_string())
    }

    const LEAST: &str = "--release /r --data /d --tmp-bytes 4096 --open-files 64 --hostname shop";

    #[test]
    fn a_full_command_line_is_read_and_the_apps_own_options_stay_its_own() {
        let line = format!(
            "{LEAST} --ca /ca --uid 100000 --data-bytes 8192 --processes 9 --gateway 198.18.0.1 \
             -- /app/bin/app --data x --probe"
        );
        let Ok(Order::Run(run)) = parsed(&line) else { unreachable!("{line}") };
        let expected = Run {
            release: "/r".into(),
            data: "/d".into(),
            ca: Some("/ca".into()),
            uid: Some(100_000),
            slot: None,
            data_bytes: 8192,
            tmp_bytes: 4096,
            open_files: 64,
            processes: Some(9),
            hostname: "shop".into(),
            hosts: Vec::new(),
            gateway: Some(Ipv4Addr::new(198, 18, 0, 1)),
            command: [c"/app/bin/app", c"--data", c"x", c"--probe"].map(Into::into).into(),
        };
        assert_eq!(*run, expected);
    }

    #[test]
    fn a_probe_needs_nothing_else() {
        assert_eq!(parsed("--probe"), Ok(Order::Probe { uid: None, slot: None }));
        assert_eq!(parsed("--probe --uid 65536"), Ok(Order::Probe { uid: Some(65536), slot: None }));
        assert_eq!(parsed("--probe --slot 0"), Ok(Order::Probe { uid: None, slot: Some(0) }));
    }

    #[test]
    fn what_is_to_be_done_beside_boxes_is_read() {
        assert_eq!(parsed("--map 17"), Ok(Order::Map(17)));
        let data = |task| Ok(Order::Data(task, ["/a", "/b"].map(PathBuf::from).into()));
        assert_eq!(parsed("--measure 9 --folder /a --folder /b"), data(Task::Measure(9)));
        assert_eq!(parsed("--reclaim --folder /a --folder /b"), data(Task::Reclaim));
        assert_eq!(parsed("--remove --folder /a --folder /b"), data(Task::Remove));
        let Ok(Order::Run(run)) = parsed(&format!("{LEAST} --slot 3 -- /app/bin/app")) else {
            unreachable!()
        };
        assert_eq!((run.uid, run.slot), (None, Some(3)));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (line, reason) in [
            (String::new(), "--release is missing"),
            (LEAST.into(), "the app's program after -- is missing"),
            (format!("{LEAST} --uid"), "--uid has no value"),
            (
                format!("{LEAST} --data-bytes 1 -- /app/bin/app"),
                "--uid, without which there is no --data-bytes, is missing",
            ),
            (format!("{LEAST} --uid -1"), "--uid is not a number: -1"),
            (format!("{LEAST} --gateway x"), "--gateway is not an address: x"),
            (format!("{LEAST} --host x"), "--host is not an option"),
        ] {
            assert_eq!(parsed(&line), Err(reason.into()));
        }
        let hosts = ["--hosts", "127.0.0.1 a\n1.2.3.4 b"].map(OsString::from);
        assert_eq!(parse(hosts), Err(Reason::new("--hosts is not one line")));
    }
}
