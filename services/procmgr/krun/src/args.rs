//! The command line. The process manager writes it; a mistake here is a mistake of ours, and is said with exit code 64.

use std::ffi::{OsStr, OsString};
use std::{path::PathBuf, time::Duration};

use nexushub_agent::config::WayOut;

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Run an app.
    Run(Options),
    /// Find out whether a guest boots here.
    Probe(Options),
}

/// How.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) release: Option<PathBuf>,
    pub(crate) data: Option<PathBuf>,
    pub(crate) ca: Option<PathBuf>,
    /// The generation's folder, for the app's socket.
    pub(crate) dir: Option<PathBuf>,
    /// The library with the guest's kernel; by default beside this program or where packages put it.
    pub(crate) kernel: Option<PathBuf>,
    pub(crate) memory_mib: u32,
    pub(crate) vcpus: u8,
    /// Bound of the data, which takes root; 0: none.
    pub(crate) data_bytes: u64,
    pub(crate) tmp_bytes: u64,
    pub(crate) open_files: u64,
    /// Processes and threads of the app; 0 = not bounded.
    pub(crate) processes: u64,
    pub(crate) hostname: String,
    pub(crate) hosts: Vec<String>,
    /// Its way out to the internet, which the process manager makes of the link that is made here.
    pub(crate) way_out: Option<WayOut>,
    /// First of the 65,536 host ids of this instance; the VMM runs as the one after the first thousand. Root only.
    pub(crate) uid: Option<u32>,
    /// How long the app's processes have after a stop.
    pub(crate) stop: Duration,
    /// How long a guest may take until it says its first word.
    pub(crate) boot: Duration,
    /// How long a guest may be silent.
    pub(crate) silence: Duration,
    /// The app's program and arguments.
    pub(crate) app: Vec<OsString>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            release: None,
            data: None,
            ca: None,
            dir: None,
            kernel: None,
            memory_mib: 512,
            vcpus: 1,
            data_bytes: 0,
            tmp_bytes: 0,
            open_files: 0,
            processes: 0,
            hostname: "app".into(),
            hosts: Vec::new(),
            way_out: None,
            uid: None,
            stop: Duration::from_secs(10),
            boot: Duration::from_secs(30),
            silence: Duration::from_secs(20),
            app: Vec::new(),
        }
    }
}

/// Reads the command line (without the program's name).
pub(crate) fn parse(args: &[OsString]) -> Result<Task, String> {
    let mut args = args.iter();
    let mut options = Options::default();
    let mut probe = false;
    while let Some(arg) = args.next() {
        let name = arg.to_str().unwrap_or_default();
        match name {
            "--" => {
                options.app = args.cloned().collect();
                break;
            }
            "--probe" => probe = true,
            _ => {
                let value = args.next().ok_or_else(|| format!("{} has no value", arg.display()))?;
                set(&mut options, name, value)
                    .ok_or_else(|| format!("{} {} is not understood", arg.display(), value.display()))?;
            }
        }
    }
    if probe {
        return Ok(Task::Probe(options));
    }
    let complete = [("--release", &options.release), ("--data", &options.data), ("--dir", &options.dir)];
    match complete.iter().find(|(_, value)| value.is_none()) {
        Some((name, _)) => Err(format!("{name} is missing")),
        None if options.app.is_empty() => Err("the app's program is missing after --".into()),
        None => Ok(Task::Run(options)),
    }
}

fn set(options: &mut Options, name: &str, value: &OsStr) -> Option<()> {
    let text = || value.to_str().filter(|text| !text.contains(char::is_control));
    let number = || text()?.parse::<u64>().ok();
    let small = || number().and_then(|number| u32::try_from(number).ok());
    let path = || Some(PathBuf::from(value)).filter(|path| path.is_absolute());
    let time = || number().map(Duration::from_millis);
    match name {
        "--release" => options.release = Some(path()?),
        "--data" => options.data = Some(path()?),
        "--ca" => options.ca = Some(path()?),
        "--dir" => options.dir = Some(path()?),
        "--kernel" => options.kernel = Some(path()?),
        "--memory-mib" => options.memory_mib = small().filter(|mib| (32..=1 << 20).contains(mib))?,
        "--vcpus" => options.vcpus = number().filter(|n| (1..=64).contains(n))?.try_into().ok()?,
        "--data-bytes" => options.data_bytes = number()?,
        "--tmp-bytes" => options.tmp_bytes = number()?,
        "--open-files" => options.open_files = number()?,
        "--processes" => options.processes = number()?,
        "--hostname" => options.hostname = text().filter(|text| (1..=64).contains(&text.len()))?.into(),
        "--host" => options.hosts.push(text()?.into()),
        "--way-out" => options.way_out = Some(text()?.parse().ok()?),
        "--uid" => options.uid = Some(small().filter(|base| (1 << 16..u32::MAX - (1 << 17)).contains(base))?),
        "--stop-ms" => options.stop = time()?,
        "--deadline-ms" | "--boot-ms" => options.boot = time()?,
        "--silence-ms" => options.silence = time()?,
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn a_whole_command_line_is_understood() {
        let line = "--release /r --data /d --ca /c --dir /g --memory-mib 128 --vcpus 2 --tmp-bytes 9 --open-files 8 --processes 7 \
                    --hostname shop --uid 200000 -- /app/bin/app --dir x";
        let mut words = words(line);
        words.splice(0..0, ["--host".into(), "127.0.0.1 internal.yesterday.localhost".into()]);
        words.splice(0..0, ["--way-out".into(), "198.18.0.2/30 198.18.0.1".into()]);
        let Task::Run(options) = parse(&words).unwrap() else { unreachable!() };
        assert_eq!((options.memory_mib, options.vcpus, options.uid), (128, 2, Some(200_000)));
        assert_eq!((options.tmp_bytes, options.open_files, options.processes), (9, 8, 7));
        assert_eq!(options.hosts, ["127.0.0.1 internal.yesterday.localhost"]);
        assert_eq!(options.way_out, "198.18.0.2/30 198.18.0.1".parse().ok());
        assert_eq!(options.app, ["/app/bin/app", "--dir", "x"]);
    }

    #[test]
    fn a_probe_needs_nothing_but_its_deadline() {
        let Task::Probe(options) = parse(&words("--probe --deadline-ms 2000")).unwrap() else {
            unreachable!()
        };
        assert_eq!(options.boot, Duration::from_secs(2));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, said) in [
            ("--release r", "--release r is not understood"),
            ("--release", "--release has no value"),
            ("--colour red", "--colour red is not understood"),
            ("--vcpus 0", "--vcpus 0 is not understood"),
            ("--way-out 198.18.0.2", "--way-out 198.18.0.2 is not understood"),
            ("--uid 0", "--uid 0 is not understood"),
            ("--hostname a\nb", "--hostname a\nb is not understood"),
            ("--release /r --data /d -- x", "--dir is missing"),
            ("--release /r --data /d --dir /g --", "the app's program is missing after --"),
        ] {
            assert_eq!(parse(&words(line)), Err(said.into()), "{line}");
        }
    }
}
