//! An app package (a zip, or a tar compressed with Zstandard: told by their first bytes) becomes a folder. Blocking; run on a blocking
//! thread.
//!
//! ```text
//! zipped.rs ─┐                                            ┌─▶ manifest.rs   what the package says of itself
//!            ├─▶ judge.rs ─▶ a folder nobody runs ────────┤
//! tarred.rs ─┘   every name, every byte                   └─▶ program.rs    whether bin/app can be started here
//! ```
//! The archive is hostile until proven otherwise, judged by what is really there and not by what it says of itself. Files get mode
//! 0755 or 0644 and are synced before this returns.

pub(crate) mod judge;
pub(crate) mod program;
pub(crate) mod tarred;
mod zip64;
pub(crate) mod zipped;

use std::{
    fmt,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufReader, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nexushub_chassis::launch::durable;

use crate::{
    error::StorageError,
    manifest::{Grants, Manifest, ManifestError},
};
pub(crate) use judge::place;
use judge::{Found, Judge, shown};

/// What every app package must have.
pub(crate) const APP: &str = "bin/app";
/// Where the proxy looks for files to serve.
const STATIC: &str = "static";
/// What the proxy answers with for pages that aren't there.
const FALLBACK: &str = "static/200.html";
const INDEX: &str = "static/index.html";

const BUFFER: usize = 128 << 10;

/// Bounds of one package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) entries: u32,
    pub(crate) bytes: u64,
    pub(crate) ratio: u64,
}

/// What packages are held to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    pub(crate) limits: Limits,
    pub(crate) grants: Grants,
}

/// What a package turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) has_app: bool,
    pub(crate) manifest: Manifest,
}

/// Why a package was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("not a readable {0} archive: {1}")]
    Archive(&'static str, String),
    #[error("illegal file path: {0}: {1}")]
    Path(String, &'static str),
    #[error("illegal entry: {0}: {1}")]
    Entry(String, &'static str),
    #[error("duplicate entry: {0}")]
    Duplicate(String),
    #[error("too many entries: {found}, the limit is {limit}")]
    Entries { found: u64, limit: u32 },
    #[error("unpacked size is over the limit of {0} bytes")]
    Size(u64),
    #[error("archive swells to more than {0} times its size")]
    Ratio(u64),
    #[error("not enough disk space: it unpacks to {needs} bytes, and {room}")]
    Room { needs: u64, room: Left },
    #[error("not enough disk space: it unpacks to more than {0}")]
    Full(Left),
    #[error(transparent)]
    Disk(StorageError),
    #[error("{APP} {0}")]
    Program(String),
    #[error(transparent)]
    Manifest(ManifestError),
    #[error("could not unpack {entry}")]
    Read { entry: String, source: io::Error },
    #[error("could not write {path}")]
    Write { path: String, source: io::Error },
    #[error("cancelled: the application was deleted")]
    Cancelled,
}

/// What the disk has for a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Bytes that it may take.
    pub(crate) bytes: u64,
    /// Bytes that others have set aside, which are being unpacked.
    pub(crate) others: u64,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bytes, others } = self;
        match others {
            0 => write!(f, "{bytes} may be taken; free some"),
            others => write!(
                f,
                "{bytes} may be taken beside the {others} of other packages that are being unpacked; \
                 try again once they are, or free some"
            ),
        }
    }
}

impl UnpackError {
    /// Whether it is the disk that has too little, not the package that is wrong.
    pub(crate) fn is_of_room(&self) -> bool {
        match self {
            Self::Room { .. } | Self::Full(_) => true,
            Self::Write { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}

/// Unpacks `archive` into the new folder `into`, and says what it is. What can't be used is refused before anything is moved.
pub(crate) fn unpack(
    archive: &Path,
    into: &Path,
    rules: &Rules,
    room: &mut dyn Room,
    cancelled: &dyn Fn() -> bool,
) -> Result<Unpacked, UnpackError> {
    let unreadable = |source| UnpackError::Read { entry: archive.display().to_string(), source };
    let mut file = File::open(archive).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let mut magic = [0; 4];
    let known = file.read_at(&mut magic, 0).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    let mut tree = Tree::new(into)?;
    let mut unpacking = Unpacking::new(Judge::new(rules.limits, size), room, &mut tree, cancelled);
    if known < magic.len() || !(zipped::MAGIC.contains(&magic) || magic == tarred::MAGIC) {
        return Err(UnpackError::Archive("zip or tar.zst", "it begins like neither".to_owned()));
    }
    match magic {
        tarred::MAGIC => tarred::read(BufReader::new(file), &mut unpacking)?,
        _ => zipped::read(file, size, &mut unpacking)?,
    }
    let judge = unpacking.judge;
    let manifest = Manifest::of_package(into, rules.grants).map_err(UnpackError::Manifest)?;
    tree.arrange(&manifest)?;
    let has_app = judge.has(APP);
    if has_app {
        tree.judge_program(rules.grants.without_a_box())?;
    }
    tree.sync()?;
    Ok(Unpacked { has_app, manifest })
}

/// Entries on their way from an archive to where they are kept, each past the judge.
pub(crate) struct Unpacking<'a> {
    judge: Judge,
    room: &'a mut dyn Room,
    store: &'a mut dyn Store,
    cancelled: &'a dyn Fn() -> bool,
}

/// The disk's room for what comes of an archive.
pub(crate) trait Room {
    /// Sets so many bytes aside for it, all in all.
    fn set_aside(&mut self, bytes: u64) -> Result<(), UnpackError>;
    /// So many bytes more of it are written next.
    fn take(&mut self, more: u64) -> Result<(), UnpackError>;
}

/// Where entries are kept.
pub(crate) trait Store {
    fn folder(&mut self, path: &Path) -> Result<(), UnpackError>;
    fn file(&mut self, path: &Path, mode: u32, content: &mut dyn Read) -> Result<(), UnpackError>;
}

impl<'a> Unpacking<'a> {
    pub(crate) fn new(
        judge: Judge,
        room: &'a mut dyn Room,
        store: &'a mut dyn Store,
        cancelled: &'a dyn Fn() -> bool,
    ) -> Self {
        Self { judge, room, store, cancelled }
    }

    /// Bounds of this package.
    fn limits(&self) -> Limits {
        self.judge.limits()
    }

    /// Most bytes that its files may have.
    fn most(&self) -> u64 {
        self.judge.most()
    }

    /// Refuses what the disk has no room for, by what the archive says that it unpacks to; what it does unpack to is judged as it
    /// comes.
    fn ask_for_room(&mut self, bytes: u64) -> Result<(), UnpackError> {
        self.room.set_aside(bytes.min(self.most()))
    }

    /// Keeps one entry, and says how many bytes of content it had.
    fn take(&mut self, found: &Found<'_>, content: &mut dyn Read) -> Result<u64, UnpackError> {
        let placed = self.judge.entry(found)?;
        for folder in &placed.folders {
            self.store.folder(folder)?;
        }
        let Some((path, mode)) = placed.file else { return Ok(0) };
        let Self { judge, room, cancelled, .. } = self;
        let mut metered = Metered { content, judge, room: &mut **room, cancelled: *cancelled, read: 0 };
        self.store.file(&path, mode, &mut metered)?;
        Ok(metered.read)
    }
}

/// The content of a file, which ends where the package has too much.
struct Metered<'a> {
    content: &'a mut dyn Read,
    judge: &'a mut Judge,
    room: &'a mut dyn Room,
    cancelled: &'a dyn Fn() -> bool,
    read: u64,
}

impl Read for Metered<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.cancelled)() {
            return Err(io::Error::other(UnpackError::Cancelled));
        }
        let read = self.content.read(buffer)?;
        let judged = self.judge.bytes(read as u64).and_then(|()| self.room.take(read as u64));
        judged.map_err(io::Error::other)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// The folder that grows.
struct Tree<'a> {
    root: &'a Path,
    folders: Vec<PathBuf>,
}

impl<'a> Tree<'a> {
    fn new(root: &'a Path) -> Result<Self, UnpackError> {
        let mut tree = Self { root, folders: Vec::new() };
        tree.folder(Path::new(""))?;
        Ok(tree)
    }

    /// Puts the files to serve where the proxy looks for them.
    fn arrange(&mut self, manifest: &Manifest) -> Result<(), UnpackError> {
        if let Some(folder) = manifest.served().filter(|folder| *folder != Path::new(STATIC)) {
            let refused = |why| UnpackError::Manifest(ManifestError::of_key("static", why));
            if !self.folders.iter().any(|known| known == folder) {
                return Err(refused(format!(
                    "there is no folder {}",
                    shown(folder.as_os_str().as_encoded_bytes())
                )));
            }
            let place = self.root.join(STATIC);
            if place.exists() {
                return Err(refused("there is a folder static beside it; name one of them".to_owned()));
            }
            fs::rename(self.root.join(folder), &place).map_err(|error| unwritten(folder, error))?;
            self.folders = self.folders.iter().map(|path| moved(path, folder)).collect();
        }
        if manifest.spa && !self.root.join(FALLBACK).exists() {
            let index = self.root.join(INDEX);
            if !index.is_file() {
                let why = format!("there is no {INDEX} to answer with");
                return Err(UnpackError::Manifest(ManifestError::of_key("spa", why)));
            }
            let path = Path::new(FALLBACK);
            fs::hard_link(&index, self.root.join(path)).map_err(|error| unwritten(path, error))?;
        }
        Ok(())
    }

    fn judge_program(&self, open: bool) -> Result<(), UnpackError> {
        let unread = |source| UnpackError::Read { entry: APP.to_owned(), source };
        let file = File::open(self.root.join(APP)).map_err(unread)?;
        let own = |path: &Path| path.strip_prefix("/app").ok().map(|path| self.root.join(path));
        let has = |path: &Path| own(path).unwrap_or_else(|| path.to_owned()).is_file();
        let machine = program::Machine { arch: std::env::consts::ARCH, open, has: &has };
        let read = |at: u64, buffer: &mut [u8]| read_at(&file, at, buffer);
        program::judge(&read, &machine).map_err(unread)?.map_err(UnpackError::Program)
    }

    fn sync(&self) -> Result<(), UnpackError> {
        self.folders.iter().try_for_each(|path| {
            durable::sync_dir(&self.root.join(path)).map_err(|error| unwritten(path, error))
        })
    }
}

impl Store for Tree<'_> {
    fn folder(&mut self, path: &Path) -> Result<(), UnpackError> {
        let full = self.root.join(path);
        DirBuilder::new()
            .mode(0o755)
            .create(&full)
            .and_then(|()| fs::set_permissions(&full, Permissions::from_mode(0o755)))
            .map_err(|error| unwritten(path, error))?;
        self.folders.push(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, content: &mut dyn Read) -> Result<(), UnpackError> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.root.join(path));
        let mut file = opened.map_err(|error| unwritten(path, error))?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let read = content.read(&mut buffer).map_err(|error| unread(path, error))?;
            if read == 0 {
                break;
            }
            file.write_all(&buffer[..read]).map_err(|error| unwritten(path, error))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
            .and_then(|()| file.sync_all())
            .map_err(|error| unwritten(path, error))
    }
}

/// Where a folder is once the one that is served has its place.
fn moved(path: &Path, served: &Path) -> PathBuf {
    path.strip_prefix(served).map_or_else(|_| path.to_owned(), |below| Path::new(STATIC).join(below))
}

/// All that a file has at a place, up to the buffer's length.
fn read_at(file: &File, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        let Some(at) = at.checked_add(length as u64).filter(|at| i64::try_from(*at).is_ok()) else { break };
        match file.read_at(&mut buffer[length..], at)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

/// What went wrong with the content of a file: one of our own reasons, or the archive's.
fn unread(path: &Path, error: io::Error) -> UnpackError {
    match error.downcast() {
        Ok(ours) => ours,
        Err(source) => UnpackError::Read { entry: path.display().to_string(), source },
    }
}

fn unwritten(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Write { path: path.display().to_string(), source }
}

#[cfg(test)]
pub(crate) mod tests;
