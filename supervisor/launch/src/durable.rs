//! Files that load as the old or the new content after a crash, never as something between: temp, fsync, rename, fsync of
//! the folder. The temporary file has one name, which its writers lock: what a killed one left there, the next one takes. Where it
//! is another user's, as root's, or no file but a link, a user has one of their own: nobody's that may be in use is removed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{libc, unistd::Uid};

/// Replaces a file's content in one step. `mode` is given to a new file, less the umask.
///
/// # Errors
/// Any step's error; the old content is then still there.
pub fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let (temporary, mut draft) = draft(path, mode)?;
    let written = draft.write_all(content).and_then(|()| draft.sync_all());
    let placed = written.and_then(|()| fs::rename(&temporary, path));
    placed.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync_dir(parent(path))
}

/// Removes a file for good; one that isn't there is no error.
///
/// # Errors
/// When it can't be removed or the folder can't be synced.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync_dir(parent(path)),
    }
}

/// Makes what happened to the names in a folder durable.
///
/// # Errors
/// When the folder can't be opened or synced.
pub fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The temporary file of a file and where it is: the one that all share, or else the user's own.
fn draft(path: &Path, mode: u32) -> io::Result<(PathBuf, File)> {
    let shared = beside(path, ".tmp")?;
    match open_alone(&shared, mode) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EACCES | libc::ELOOP)) => {
            let own = beside(path, &format!(".{}.tmp", Uid::effective()))?;
            open_alone(&own, mode).map(|file| (own, file))
        }
        opened => Ok((shared, opened?)),
    }
}

/// A temporary file, empty, and nobody else's until it is closed; never what a link leads to.
fn open_alone(path: &Path, mode: u32) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(mode).custom_flags(libc::O_NOFOLLOW);
    loop {
        let file = options.open(path)?;
        file.lock()?;
        // Who held it until now may have put it in its place: then it is no longer the temporary file, and has to stay whole.
        let ours = file.metadata()?;
        let still = |there: fs::Metadata| (there.dev(), there.ino()) == (ours.dev(), ours.ino());
        if fs::symlink_metadata(path).is_ok_and(still) {
            file.set_len(0)?;
            return Ok(file);
        }
    }
}

fn beside(path: &Path, end: &str) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(path.with_file_name(std::ffi::OsString::from_iter([".".as_ref(), name, end.as_ref()])))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent != "").unwrap_or(Path::new("."))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::{
        ffi::{OsStr, OsString},
        os::unix::{
            ffi::OsStrExt,
            fs::{PermissionsExt, symlink},
        },
        thread,
    };

    use nix::unistd::setfsuid;

    use super::*;

    /// An empty folder of a test's own; not below `TMPDIR`, where another user may reach nothing.
    fn folder(name: &str) -> PathBuf {
        let folder = Path::new("/tmp").join(format!("nexushub-durable-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    /// What lies there.
    fn names(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[test]
    fn what_a_killed_writer_left_is_taken_and_nothing_of_it_stays() {
        let folder = folder("killed");
        fs::write(folder.join(".state.json.tmp"), "much longer than what is written now").unwrap();
        write(&folder.join("state.json"), b"new", 0o600).unwrap();
        assert_eq!(fs::read(folder.join("state.json")).unwrap(), b"new");
        assert_eq!(names(&folder), ["state.json"]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_name_that_is_no_text_has_a_temporary_file_of_its_own() {
        let folder = folder("bytes");
        let names_of = [b"\xfe.json", b"\xff.json"].map(|name| OsStr::from_bytes(name).to_owned());
        fs::write(folder.join(OsStr::from_bytes(b".\xff.json.tmp")), "left").unwrap();
        for name in &names_of {
            write(&folder.join(name), name.as_bytes(), 0o600).unwrap();
        }
        let mut there = names(&folder);
        there.sort();
        assert_eq!(there, names_of, "what was left is the draft of the one that it is named after");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_link_that_was_planted_is_neither_written_through_nor_in_the_way() {
        let folder = folder("planted");
        fs::write(folder.join("victim"), "precious").unwrap();
        symlink("victim", folder.join(".state.json.tmp")).unwrap();
        for content in [b"one", b"two"] {
            write(&folder.join("state.json"), content, 0o600).unwrap();
            assert_eq!(fs::read(folder.join("state.json")).unwrap(), content);
        }
        assert_eq!(fs::read(folder.join("victim")).unwrap(), b"precious");
        symlink("victim", folder.join(format!(".state.json.{}.tmp", Uid::effective()))).unwrap();
        write(&folder.join("state.json"), b"three", 0o600).unwrap_err();
        assert_eq!(fs::read(folder.join("victim")).unwrap(), b"precious");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_another_user_left_or_is_writing_is_not_in_the_way_and_stays_whole() {
        let folder = folder("anothers");
        let theirs = folder.join(".state.json.tmp");
        fs::write(&theirs, "half of it").unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o400)).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let file = folder.join("state.json");
        // Of this thread alone, and for files alone: root may open whatever it likes.
        let writing = move || {
            setfsuid(Uid::from_raw(65534));
            write(&file, b"whole", 0o644)
        };
        thread::spawn(writing).join().unwrap().unwrap();
        assert_eq!(fs::read(folder.join("state.json")).unwrap(), b"whole");
        assert_eq!(fs::read(theirs).unwrap(), b"half of it");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn of_many_writers_each_writes_the_whole_file_and_none_tears_anothers() {
        let folder = folder("many");
        let file = folder.join("state.json");
        let whole = |content: &[u8]| content.len() == usize::from(content[0]) * 1000;
        thread::scope(|scope| {
            for writer in 1..=8_u8 {
                let (file, content) = (&file, vec![writer; usize::from(writer) * 1000]);
                scope.spawn(move || {
                    for _ in 0..50 {
                        write(file, &content, 0o600).unwrap();
                        assert!(whole(&fs::read(file).unwrap()));
                    }
                });
            }
        });
        assert_eq!(names(&folder), ["state.json"]);
        fs::remove_dir_all(folder).unwrap();
    }
}
