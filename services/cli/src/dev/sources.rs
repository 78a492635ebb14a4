//! Changes of files below a folder, told once each burst of them is over. What builds write is no source: it is not looked at.

use std::{
    collections::HashMap,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    thread,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::failure::Failure;

/// Milliseconds without a change after which a burst is over: an editor writes a file in several steps.
const QUIET_MS: u16 = 60;
/// Most folders that are watched.
const FOLDERS_MAX: usize = 4096;
/// Folders that builds write.
const BUILT: [&str; 3] = ["target", "node_modules", "dist"];

/// What counts as a change. That a file was made says nothing: it is written then.
fn changes() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_ONLYDIR
        | AddWatchFlags::IN_DONT_FOLLOW
}

/// Tells of changes below a folder for as long as the receiver is held; `built` is the package, which is none of the sources.
pub(crate) fn watch(folder: &Path, built: &Path) -> Result<Receiver<()>, Failure> {
    let mut sources = Sources::new(folder, built)?;
    let (sender, changed) = channel(1);
    thread::spawn(move || sources.tell(&sender));
    Ok(changed)
}

struct Sources {
    inotify: Inotify,
    folders: HashMap<WatchDescriptor, PathBuf>,
    built: PathBuf,
}

impl Sources {
    fn new(folder: &Path, built: &Path) -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            Failure::new(
                format!("could not watch {}: {error}", folder.display()),
                "name a smaller folder: --watch=DIR; see fs.inotify.max_user_watches",
            )
        };
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK);
        let inotify = inotify.map_err(|error| failed(error.into()))?;
        let mut sources = Self { inotify, folders: HashMap::new(), built: built.to_owned() };
        sources.add(folder).map_err(failed)?;
        Ok(sources)
    }

    /// A folder and those below it. One that vanishes meanwhile is none.
    fn add(&mut self, folder: &Path) -> io::Result<()> {
        if self.folders.len() >= FOLDERS_MAX {
            return Err(io::Error::other(format!("it holds more than {FOLDERS_MAX} folders")));
        }
        let watched = self.inotify.add_watch(folder, changes())?;
        self.folders.insert(watched, folder.to_owned());
        for entry in fs::read_dir(folder)?.flatten() {
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && self.is_source(&entry.path()) {
                self.add(&entry.path())?;
            }
        }
        Ok(())
    }

    fn is_source(&self, path: &Path) -> bool {
        let name = path.file_name().map(std::ffi::OsStr::to_string_lossy).unwrap_or_default();
        let beside = name.starts_with('.') || name.ends_with('~');
        !(beside || BUILT.contains(&&*name) || path == self.built)
    }

    /// Waits for changes and tells of them, burst by burst, until nobody listens.
    fn tell(&mut self, sender: &Sender<()>) {
        let mut pending = false;
        while !sender.is_closed() {
            match self.readable(if pending {
                PollTimeout::from(QUIET_MS)
            } else {
                PollTimeout::from(1000u16)
            }) {
                Ok(true) => pending |= self.read(),
                Ok(false) if pending => {
                    pending = false;
                    let _ = sender.try_send(()); // one that was not heard yet says the same
                }
                Ok(false) => {}
                Err(_) => return,
            }
        }
    }

    fn readable(&self, patience: PollTimeout) -> nix::Result<bool> {
        let mut fds = [PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, patience) {
            Err(nix::errno::Errno::EINTR) => Ok(false),
            other => other.map(|ready| ready > 0),
        }
    }

    /// Whether a source changed; folders that are new are watched from now on.
    fn read(&mut self) -> bool {
        let mut changed = false;
        for event in self.inotify.read_events().unwrap_or_default() {
            if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                changed = true;
                continue;
            }
            if event.mask.contains(AddWatchFlags::IN_IGNORED) {
                self.folders.remove(&event.wd);
                continue;
            }
            let (Some(folder), Some(name)) = (self.folders.get(&event.wd), event.name) else { continue };
            let path = folder.join(name);
            if !self.is_source(&path) {
                continue;
            }
            let folder = event.mask.contains(AddWatchFlags::IN_ISDIR);
            if folder && event.mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO) {
                let _ = self.add(&path); // what can't be watched is not; the next push takes it all the same
            }
            changed |= folder || !event.mask.contains(AddWatchFlags::IN_CREATE);
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_changed_file_is_told_wherever_it_is_and_what_builds_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["src/deep", "target", ".git", "package"] {
            fs::create_dir_all(at(name)).unwrap();
        }
        let mut sources = Sources::new(folder.path(), &at("package")).unwrap();
        for name in ["target/x", ".git/x", "package/x", ".swap", "backup~"] {
            fs::write(at(name), "x").unwrap();
        }
        assert!(!sources.readable(PollTimeout::ZERO).unwrap() || !sources.read());
        for name in ["src/deep/main.rs", "top"] {
            fs::write(at(name), "x").unwrap();
            assert!(sources.read(), "{name}");
        }
        fs::create_dir(at("new")).unwrap();
        assert!(sources.read());
        fs::write(at("new/file"), "x").unwrap();
        assert!(sources.read(), "a folder that came later is watched");
        fs::remove_file(at("new/file")).unwrap();
        assert!(sources.read());
    }

    #[test]
    fn a_burst_is_told_once_and_the_next_one_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut changed = watch(folder.path(), Path::new("/none")).unwrap();
        for name in ["a", "b", "c"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        assert_eq!(changed.blocking_recv(), Some(()));
        fs::write(folder.path().join("a"), "y").unwrap();
        assert_eq!(changed.blocking_recv(), Some(()));
    }

    #[test]
    fn a_folder_that_is_not_there_is_said() {
        let failure = watch(Path::new("/nowhere/at/all"), Path::new("/none")).unwrap_err();
        assert!(failure.message.contains("/nowhere/at/all") && failure.hint.contains("--watch=DIR"));
    }
}
