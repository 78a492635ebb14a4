//! What this machine can enforce: a box around nothing is built, and says so itself.
#![allow(unsafe_code)]

use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode};
use std::{convert::Infallible, env, fs, fs::File, io::Read as _, io::Write as _, path::Path};
use std::{os::unix::fs::MetadataExt as _, time::Duration};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::sys::{signal, signal::Signal, wait::waitpid};
use nix::unistd::{self, ForkResult, fork, mkdtemp, pipe2};
use nix::{fcntl::OFlag, libc};

use crate::order::Run;
use crate::report::{Because as _, Reason, Report};
use crate::{init, subordinate, user::Ids};

/// How long a box may take to come up, in milliseconds. A machine that starts all at once is slow, and whoever is told that it has no
/// boxes asks no second time; two tries fit into the patience of who asks.
const PATIENCE: u16 = 20_000;
/// How the folders of probes are named.
const FOLDER: &str = "nexushub-probe-";
/// A probe's folder that is older belongs to none that lives.
const ABANDONED: Duration = Duration::from_secs(60);

/// Prints a line for each property that isn't enforced here, or why a box can't be made; of an ordinary user who may give ids to
/// its boxes also how many (`slots=65536`).
#[must_use]
pub fn run(uid: Option<u32>, slot: Option<u32>) -> ExitCode {
    // As a release is unpacked, whatever mask the service manager sets.
    umask(Mode::from_bits_truncate(0o022));
    let tried = match (uid, slot) {
        (None, None) if !unistd::geteuid().is_root() => with_ids_to_give().or_else(|why| {
            let notes = tried(None, None)?;
            Ok(format!("own ids: an ordinary user has one, and so its apps have it: {why}\n{notes}"))
        }),
        _ => tried(uid, slot),
    };
    let (text, code) = match tried {
        Ok(notes) => (notes, ExitCode::SUCCESS),
        Err(reason) => (format!("{reason}\n"), ExitCode::FAILURE),
    };
    let _ = std::io::stdout().write_all(text.as_bytes());
    code
}

/// Has another process try a box with the first of the ids that this user may give: what it then is in can't be left.
fn with_ids_to_give() -> Result<String, Reason> {
    let slots = subordinate::slots()?;
    let tried = Command::new("/proc/self/exe").args(["--probe", "--slot", "0"]).output();
    let output = tried.because(|| "try it with another id")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match output.status.success() {
        true => Ok(format!("slots={slots}\n{text}")),
        false => Err(Reason::new(text.trim_end())),
    }
}

/// Builds a box with these ids, and tells what isn't enforced of it.
fn tried(uid: Option<u32>, slot: Option<u32>) -> Result<String, Reason> {
    let ids = Ids::of(uid, slot)?;
    sweep(&env::temp_dir());
    let name = format!("{FOLDER}XXXXXX");
    let folder = mkdtemp(&env::temp_dir().join(name)).because(|| "make a folder")?;
    let disk = disk_note(ids, &folder);
    let told = enter(ids).and_then(|()| boxed(uid, slot, &folder));
    let _ = fs::remove_dir_all(&folder);
    told.map(|notes| notes + &disk)
}

/// Removes what probes left behind that were killed: folders of ours, too old to be in use.
fn sweep(within: &Path) {
    let is_left = |entry: &fs::DirEntry| {
        let old = |found: &fs::Metadata| {
            let age = found.modified().ok().and_then(|at| at.elapsed().ok());
            found.is_dir()
                && found.uid() == unistd::geteuid().as_raw()
                && age.is_some_and(|age| age > ABANDONED)
        };
        entry.file_name().as_encoded_bytes().starts_with(FOLDER.as_bytes())
            && entry.metadata().as_ref().is_ok_and(old) // of a link it tells of the link
    };
    for entry in fs::read_dir(within).into_iter().flatten().flatten().filter(is_left) {
        let _ = fs::remove_dir_all(entry.path()); // another probe may be doing the same
    }
}

/// A line where nothing bounds what an app keeps.
fn disk_note(ids: Ids, folder: &Path) -> String {
    let disk = folder.join("disk");
    let why = match ids {
        Ids::One(..) | Ids::Given(..) => {
            Err("only root can give an app's data a disk of their own".to_owned())
        }
        Ids::Range(_) => fs::create_dir(&disk)
            .and_then(|()| nexushub_volume::trial(&disk))
            .map_err(|error| error.to_string()),
    };
    why.err().map_or_else(String::new, |why| {
        format!("data_bytes: what /db takes is measured, not bounded: {why}\n")
    })
}

/// What a shim does before it starts a box.
fn enter(ids: Ids) -> Result<(), Reason> {
    match ids {
        Ids::One(..) => {
            unshare(CloneFlags::CLONE_NEWUSER).because(|| "make a user namespace")?;
            ids.map(unistd::getpid())?;
        }
        Ids::Given(..) => subordinate::enter()?,
        Ids::Range(_) => {}
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID).because(|| "make pid and net namespaces")
}

fn boxed(uid: Option<u32>, slot: Option<u32>, folder: &Path) -> Result<String, Reason> {
    let [release, data] = ["release", "data"].map(|name| folder.join(name));
    for made in [&release, &data] {
        fs::create_dir(made).because(|| format!("make {}", made.display()))?;
    }
    let hostname = "probe".into();
    let order =
        Run { release, data, uid, slot, tmp_bytes: 1 << 20, open_files: 64, hostname, ..Run::default() };
    let pipe = || pipe2(OFlag::O_CLOEXEC).because(|| "make a pipe");
    let ((told, report), (seen, notes)) = (pipe()?, pipe()?);
    // SAFETY: this process has one thread: no lock is held by another.
    let ForkResult::Parent { child } = unsafe { fork() }.because(|| "fork")? else {
        let done = unistd::dup2_stdout(notes);
        let code = done.map_or(1, |()| {
            init::run_with(&order, Report::to(report.into()), look_around);
            0
        });
        // SAFETY: ends the child at once; nothing of its parent's is run or flushed a second time.
        unsafe { libc::_exit(code) }
    };
    drop((report, notes));
    let up = poll(&mut [PollFd::new(told.as_fd(), PollFlags::POLLIN)], PollTimeout::from(PATIENCE));
    let _ = signal::kill(child, Signal::SIGKILL);
    let (mut end, mut text) = (String::new(), String::new());
    let _ = waitpid(child, None);
    if up != Ok(1) {
        return Err(Reason::new("could not build a box: it took too long"));
    }
    File::from(told).read_to_string(&mut end).because(|| "read the box's report")?;
    File::from(seen).read_to_string(&mut text).because(|| "read the box's notes")?;
    match end.trim_end() {
        "code=0" => Ok(text),
        other => {
            Err(Reason::new(if other.is_empty() { "could not build a box: it ended at once" } else { other }))
        }
    }
}

/// In the box, in the place of an app.
fn look_around(_: &Run, note: Option<&str>) -> Result<Infallible, Reason> {
    let text: String = note.iter().flat_map(|note| [note, "\n"]).collect();
    std::io::stdout().write_all(text.as_bytes()).because(|| "tell what it sees")?;
    // SAFETY: ends the process at once, as the app would.
    unsafe { libc::_exit(0) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn what_a_killed_probe_left_is_removed_and_nothing_else() {
        let within = mkdtemp(&env::temp_dir().join("sweep-XXXXXX")).unwrap();
        for (name, age) in [("nexushub-probe-old", 3600), ("nexushub-probe-new", 0), ("another-old", 3600)] {
            fs::create_dir_all(within.join(name).join("data")).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            File::open(within.join(name)).unwrap().set_modified(then).unwrap();
        }
        sweep(&within);
        let left = ["nexushub-probe-old", "nexushub-probe-new", "another-old"]
            .map(|name| within.join(name).exists());
        fs::remove_dir_all(&within).unwrap();
        assert_eq!(left, [false, true, true]);
    }
}
