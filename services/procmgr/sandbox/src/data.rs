//! An app's data, for an ordinary user who gave the app an id of its own: what that user may no longer do to them itself is done in a
//! user namespace with the ids of all its boxes.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::unistd::{getegid, geteuid};

use crate::report::{Reason, Report};
use crate::subordinate;

/// What is to be done with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Tell the bytes of the disk that it takes, of at most so many entries.
    Measure(usize),
    /// Make it the user's own again.
    Reclaim,
    /// Remove it with all in it.
    Remove,
}

/// Does it to each of these folders. What was measured is printed, a line each.
#[must_use]
pub fn run(task: Task, folders: &[PathBuf], report: Report) -> ExitCode {
    let done = subordinate::enter().and_then(|()| folders.iter().try_for_each(|folder| one(task, folder)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => report.failed(&reason),
    }
}

fn one(task: Task, folder: &Path) -> Result<(), Reason> {
    let done = match task {
        Task::Measure(entries) => {
            println!("{}", nexushub_volume::taken(folder, entries));
            Ok(())
        }
        Task::Reclaim => nexushub_volume::own(folder, geteuid().as_raw(), getegid().as_raw()),
        Task::Remove => nexushub_volume::remove(folder)
            .map_err(|error| io::Error::other(format!("could not remove {}: {error}", folder.display()))),
    };
    done.map_err(Reason::new)
}
