//! `nexushub up`: in the foreground the keeper itself; with `--detach` a keeper of its own session, whose first word we wait for.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{BufRead, BufReader, Read, Seek, SeekFrom},
    net::SocketAddr,
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use nexushub_launch::lock::Lock;
use tokio::runtime::{Builder, Runtime};

use crate::{
    args::Up,
    board::Board,
    failure::{FAILURE, Failure, OK},
    keeper::{Keeper, Plan, Post},
    out,
    place::{Place, reachable},
};

/// What a keeper in the background says once the platform is ready.
const READY: &str = "ready";

/// A runtime on this thread.
pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(format!("could not start: {error}"), "see ulimit -n"))
}

/// `nexushub up`
pub(crate) fn run(place: &Place, args: &Up) -> Result<u8, Failure> {
    make_folders(place)?;
    if let Some(failure) = already_up(place)? {
        return unless_wanted(args, failure);
    }
    if args.detach {
        return detach(place, args.listen);
    }
    let Some(_post) = Post::take(place, false)? else { return unless_wanted(args, up_already(place, "")) };
    keep_up(place, args.listen, false, || drop(out::say(&welcome(place))))
}

/// That it is up already fails, but for those who only want it up.
fn unless_wanted(args: &Up, up_already: Failure) -> Result<u8, Failure> {
    if !args.if_down {
        return Err(up_already);
    }
    out::say(&up_already.message)?;
    Ok(OK)
}

/// `nexushub keep`: the keeper in the background. Its standard output leads to `up --detach`, and is used once.
pub(crate) fn keep(place: &Place, listen: Option<SocketAddr>) -> Result<u8, Failure> {
    let _ = rustix::process::setsid(); // fails only for a leader of a session, which is what it would make us
    let Some(_post) = Post::take(place, true)? else { return Err(up_already(place, "")) };
    keep_up(place, listen, true, || drop(out::say(READY)))
}

fn keep_up(
    place: &Place,
    listen: Option<SocketAddr>,
    detached: bool,
    announce: impl FnOnce(),
) -> Result<u8, Failure> {
    let plan = plan(place, listen, detached)?;
    runtime()?.block_on(async { Keeper::new(&plan, place, announce)?.keep().await })
}

fn plan(place: &Place, listen: Option<SocketAddr>, detached: bool) -> Result<Plan, Failure> {
    let program = beside("nexushub-supervisor")?;
    let mut arguments = Vec::new();
    let mut option = |name: &str, value: std::ffi::OsString| arguments.extend([name.into(), value]);
    if let Some(home) = &place.home {
        option("--home", home.into());
    }
    if let Some(listen) = listen {
        option("--listen", listen.to_string().into());
    }
    // A configuration that can't be read is the supervisor's to report, so that there is one way to say it.
    let config = place.config().ok();
    let root = config.as_ref().map_or_else(|| PathBuf::from("."), |config| config.root.clone());
    if let Some(path) = config.and_then(|config| config.path).or_else(|| place.named_config()) {
        option("--config", path.into());
    }
    Ok(Plan { program, arguments, folder: root, detached })
}

/// A program of the platform: beside this one.
pub(crate) fn beside(name: &str) -> Result<PathBuf, Failure> {
    let own =
        std::env::current_exe().map_err(|error| Failure::io("find", Path::new("/proc/self/exe"), &error))?;
    let program = own.with_file_name(name);
    if program.is_file() {
        return Ok(program);
    }
    Err(Failure::new(
        format!("{} is missing", program.display()),
        "build or install the whole platform: dist/build",
    ))
}

fn make_folders(place: &Place) -> Result<(), Failure> {
    let home = place.home.as_deref();
    for folder in home.into_iter().chain([place.run.as_path(), &place.state]) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| Failure::io("make", folder, &error))?;
    }
    Ok(())
}

/// Why the platform need not be started.
fn already_up(place: &Place) -> Result<Option<Failure>, Failure> {
    let free = |name: &str| {
        let path = place.run.join(name);
        Lock::try_acquire(&path)
            .map(|lock| lock.is_some())
            .map_err(|error| Failure::io("lock", &path, &error))
    };
    if !free("keeper.lock")? {
        return Ok(Some(up_already(place, "")));
    }
    if !free("supervisor.lock")? {
        return Ok(Some(up_already(place, ", with a supervisor that nothing keeps up")));
    }
    Ok(None)
}

fn up_already(place: &Place, how: &str) -> Failure {
    let pid =
        Board::live(&place.run).map_or_else(String::new, |board| format!(" (pid {})", board.supervisor.pid));
    let hint = format!("see {}; stop it with {}", place.command("status"), place.command("down"));
    Failure::new(format!("{place} is up already{pid}{how}"), hint)
}

fn welcome(place: &Place) -> String {
    let listens = match place.platform() {
        Ok(platform) => {
            let at = reachable(platform.listen);
            format!("https://*.{}:{}/ at {at}", platform.base_domain, at.port())
        }
        Err(_) => "HTTPS".to_owned(),
    };
    format!("{place} is up and answers {listens}")
}

fn detach(place: &Place, listen: Option<SocketAddr>) -> Result<u8, Failure> {
    let path = place.log_file();
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
    let log = log.map_err(|error| Failure::io("open", &path, &error))?;
    let before = log.metadata().map_or(0, |file| file.len());
    let own =
        std::env::current_exe().map_err(|error| Failure::io("find", Path::new("/proc/self/exe"), &error))?;
    let mut command = Command::new(&own);
    command.arg("keep");
    if let Some(home) = &place.home {
        command.arg("--home").arg(home);
    }
    if let Some(config) = place.named_config() {
        command.arg("--config").arg(config);
    }
    if let Some(listen) = listen {
        command.arg("--listen").arg(listen.to_string());
    }
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
    let mut keeper = command.spawn().map_err(|error| Failure::io("start", &own, &error))?;
    let mut said = String::new();
    if let Some(stdout) = keeper.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut said); // no word is an answer, too
    }
    if said.trim_end() == READY {
        out::say(&welcome(place))?;
        return Ok(OK);
    }
    let status = keeper.wait().map_err(|error| Failure::io("wait for", &own, &error))?;
    out::tell(&complaints(&path, before));
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != OK);
    let hint = format!("the whole log: {}", path.display());
    Err(Failure { code: code.unwrap_or(FAILURE), ..Failure::new(format!("{place} did not start"), hint) })
}

/// What went wrong since the log had that length: its error lines, else its last few.
fn complaints(log: &Path, since: u64) -> String {
    const LAST: usize = 10;
    let mut text = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(since))?;
        file.take(1 << 20).read_to_end(&mut text)
    });
    if let Err(error) = read {
        return format!("could not read {}: {error}", log.display());
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let errors: Vec<&str> =
        lines.iter().copied().filter(|line| line.contains("\"level\":\"error\"")).collect();
    let shown = if errors.is_empty() { &lines[lines.len().saturating_sub(LAST)..] } else { &errors[..] };
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::args::Global;
    use std::fs;

    fn place(folder: &Path) -> Place {
        Place::find(&Global { home: Some(folder.to_owned()), ..Default::default() }).unwrap()
    }

    #[test]
    fn of_a_failed_start_the_errors_are_shown_and_nothing_older() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let old = "{\"level\":\"error\",\"msg\":\"old\"}\n";
        fs::write(&log, format!("{old}{{\"level\":\"info\"}}\n{{\"level\":\"error\",\"msg\":\"new\"}}\n"))
            .unwrap();
        assert_eq!(complaints(&log, old.len() as u64), "{\"level\":\"error\",\"msg\":\"new\"}");
        fs::write(&log, "a\nb\n").unwrap();
        assert_eq!(complaints(&log, 0), "a\nb");
        assert_eq!(complaints(&log, 99), "");
    }

    #[test]
    fn a_platform_that_is_up_is_not_started_again() {
        let folder = tempfile::tempdir().unwrap();
        let place = place(folder.path());
        make_folders(&place).unwrap();
        assert_eq!(already_up(&place).unwrap(), None);
        let lock = Lock::try_acquire(&place.run.join("supervisor.lock")).unwrap();
        assert!(already_up(&place).unwrap().unwrap().message.contains("nothing keeps up"));
        drop(lock);
        let _post = Post::take(&place, false).unwrap();
        let failure = already_up(&place).unwrap().unwrap();
        assert_eq!((failure.code, failure.message.contains("is up already")), (1, true));
        let asked = |if_down| Up { listen: None, detach: true, if_down };
        assert_eq!(run(&place, &asked(false)), Err(failure));
        assert_eq!(run(&place, &asked(true)), Ok(OK), "a script that wants it up has what it wants");
    }
}
