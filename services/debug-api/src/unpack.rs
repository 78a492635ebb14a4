//! An app package (zip) becomes a folder. Blocking; run on a blocking thread.
//!
//! The archive is hostile until proven otherwise: names that lead out of the folder, links and devices, duplicates, more
//! entries or bytes than allowed and archives that swell beyond the allowed ratio are refused, judged by what is really
//! there and not by what the archive says of itself. Files get mode 0755 or 0644 and are synced before this returns.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use nexushub_chassis::launch::durable;
use zip::{ZipArchive, read::ZipFile, result::ZipError};

/// What every app package must have.
pub(crate) const APP: &str = "bin/app";

const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const ZIP64_LOCATOR: [u8; 4] = *b"PK\x06\x07";
const END_SIZE: u64 = 22;
const MAX_COMMENT: u64 = u16::MAX as u64;
/// A directory record is 46 bytes and its name; this is generous for names and extra fields.
const MAX_RECORD: u64 = 1024;
const MAX_DEPTH: usize = 32;
const MAX_NAME: usize = 1024;
/// Small packages compress well without being bombs.
const RATIO_FREE: u64 = 1 << 20;
const BUFFER: usize = 128 << 10;

/// Bounds of one package.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) entries: u32,
    pub(crate) bytes: u64,
    pub(crate) ratio: u64,
}

/// Why a package was refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnpackError {
    #[error("not a readable zip archive: {0}")]
    Archive(String),
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
    #[error("could not unpack {entry}")]
    Read { entry: String, source: io::Error },
    #[error("could not write {path}")]
    Write { path: String, source: io::Error },
    #[error("cancelled: the application was deleted")]
    Cancelled,
}

/// Unpacks `archive` into the new folder `into`; whether there is a `bin/app` is the answer.
pub(crate) fn unpack(
    archive: &Path,
    into: &Path,
    limits: Limits,
    cancelled: &dyn Fn() -> bool,
) -> Result<bool, UnpackError> {
    let unreadable = |source| UnpackError::Read { entry: archive.display().to_string(), source };
    let mut file = File::open(archive).map_err(unreadable)?;
    let size = file.metadata().map_err(unreadable)?.len();
    let entries = judge_end(&mut file, size, limits.entries)?;
    let mut zip =
        ZipArchive::new(BufReader::new(file)).map_err(|error| UnpackError::Archive(error.to_string()))?;
    if zip.has_duplicate_names() || zip.len() as u64 != entries {
        return Err(UnpackError::Duplicate("a name occurs twice in the archive's directory".to_owned()));
    }
    let swollen = size.saturating_mul(limits.ratio).saturating_add(RATIO_FREE);
    let mut tree = Tree { root: into, folders: BTreeSet::new(), written: 0, swollen, limits, cancelled };
    tree.folder(Path::new(""))?;
    let mut has_app = false;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| broken(&format!("entry {index}"), error))?;
        has_app |= tree.add(&mut entry)?.as_deref() == Some(Path::new(APP));
    }
    tree.sync()?;
    Ok(has_app)
}

/// The end record, read by ourselves first: the directory's size bounds the memory that reading it takes. Strict on
/// purpose: no data before or behind, no zip64, so that nobody can read the archive in two ways.
fn judge_end(file: &mut File, size: u64, max_entries: u32) -> Result<u64, UnpackError> {
    let bad = |why: &str| UnpackError::Archive(why.to_owned());
    let tail_at = size.saturating_sub(END_SIZE + MAX_COMMENT);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(tail_at))
        .and_then(|_| file.read_to_end(&mut tail))
        .map_err(|source| UnpackError::Read { entry: "the end of the archive".to_owned(), source })?;
    let at = tail
        .windows(4)
        .rposition(|window| window == END_SIGNATURE)
        .ok_or_else(|| bad("it has no end record"))?;
    let record = tail[at..].first_chunk::<22>().ok_or_else(|| bad("its end record is cut off"))?;
    let short = |at: usize| u64::from(u16::from_le_bytes([record[at], record[at + 1]]));
    let long = |at: usize| {
        u64::from(u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]]))
    };
    let (entries, directory, offset, comment) = (short(10), long(12), long(16), short(20));
    let end_at = tail_at + at as u64;
    if entries > u64::from(max_entries) {
        return Err(UnpackError::Entries { found: entries, limit: max_entries });
    }
    let zip64 =
        at.checked_sub(20).and_then(|locator| tail.get(locator..locator + 4)) == Some(&ZIP64_LOCATOR[..]);
    if zip64 || directory == u64::from(u32::MAX) || offset == u64::from(u32::MAX) {
        return Err(bad("zip64 archives are not accepted"));
    }
    if end_at + END_SIZE + comment != size
        || offset + directory != end_at
        || short(4) != 0
        || short(8) != entries
    {
        return Err(bad("its end record doesn't fit the file"));
    }
    if directory > entries.saturating_mul(MAX_RECORD) {
        return Err(bad("its directory is oversized"));
    }
    file.rewind().map_err(|source| UnpackError::Read { entry: "the archive".to_owned(), source })?;
    Ok(entries)
}

/// The folder that grows.
struct Tree<'a> {
    root: &'a Path,
    folders: BTreeSet<PathBuf>,
    written: u64,
    swollen: u64,
    limits: Limits,
    cancelled: &'a dyn Fn() -> bool,
}

impl Tree<'_> {
    /// Adds one entry and says which file it was, if it was one.
    fn add<R: Read>(&mut self, entry: &mut ZipFile<'_, R>) -> Result<Option<PathBuf>, UnpackError> {
        let shown = shown(entry.name_raw());
        let Some(path) = place(entry.name_raw()).map_err(|why| UnpackError::Path(shown.clone(), why))? else {
            return Ok(None);
        };
        let mode = entry.unix_mode().unwrap_or(0);
        match mode & 0o170_000 {
            _ if entry.encrypted() => return Err(UnpackError::Entry(shown, "it is encrypted")),
            0o120_000 => return Err(UnpackError::Entry(shown, "symbolic links are not accepted")),
            0o040_000 | 0 if entry.is_dir() => return self.folder(&path).map(|()| None),
            0o100_000 | 0 if !entry.is_dir() => {}
            _ => return Err(UnpackError::Entry(shown, "only files and folders are accepted")),
        }
        self.folder(path.parent().unwrap_or(Path::new("")))?;
        let runnable = mode & 0o111 != 0 || path == Path::new(APP);
        self.file(&path, shown, if runnable { 0o755 } else { 0o644 }, entry)?;
        Ok(Some(path))
    }

    fn folder(&mut self, path: &Path) -> Result<(), UnpackError> {
        for ancestor in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if self.folders.contains(ancestor) {
                continue;
            }
            if self.folders.len() as u64 >= 2 * u64::from(self.limits.entries) {
                return Err(UnpackError::Entries {
                    found: self.folders.len() as u64 + 1,
                    limit: self.limits.entries,
                });
            }
            let full = self.root.join(ancestor);
            let made = DirBuilder::new().mode(0o755).create(&full);
            made.and_then(|()| fs::set_permissions(&full, Permissions::from_mode(0o755))).map_err(
                |error| match error.kind() {
                    io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
                        UnpackError::Duplicate(format!("{} is a file and a folder", ancestor.display()))
                    }
                    _ => unwritten(ancestor, error),
                },
            )?;
            self.folders.insert(ancestor.to_owned());
        }
        Ok(())
    }

    fn file(
        &mut self,
        path: &Path,
        shown: String,
        mode: u32,
        content: &mut dyn Read,
    ) -> Result<(), UnpackError> {
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(self.root.join(path));
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(UnpackError::Duplicate(shown));
            }
            other => other.map_err(|error| unwritten(path, error))?,
        };
        let mut buffer = vec![0; BUFFER];
        loop {
            if (self.cancelled)() {
                return Err(UnpackError::Cancelled);
            }
            let read = content
                .read(&mut buffer)
                .map_err(|source| UnpackError::Read { entry: shown.clone(), source })?;
            if read == 0 {
                break;
            }
            self.written += read as u64;
            if self.written > self.limits.bytes {
                return Err(UnpackError::Size(self.limits.bytes));
            }
            if self.written > self.swollen {
                return Err(UnpackError::Ratio(self.limits.ratio));
            }
            file.write_all(&buffer[..read]).map_err(|error| unwritten(path, error))?;
        }
        file.set_permissions(Permissions::from_mode(mode))
            .and_then(|()| file.sync_all())
            .map_err(|error| unwritten(path, error))
    }

    fn sync(&self) -> Result<(), UnpackError> {
        self.folders.iter().try_for_each(|path| {
            durable::sync_dir(&self.root.join(path)).map_err(|error| unwritten(path, error))
        })
    }
}

fn unwritten(path: &Path, source: io::Error) -> UnpackError {
    UnpackError::Write { path: path.display().to_string(), source }
}

fn broken(entry: &str, error: ZipError) -> UnpackError {
    match error {
        ZipError::Io(source) => UnpackError::Read { entry: entry.to_owned(), source },
        other => UnpackError::Archive(format!("{entry}: {other}")),
    }
}

/// Where an entry belongs below the folder; `None` for the folder itself.
fn place(name: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "it is not UTF-8")?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("it is empty or too long");
    }
    if name.starts_with('/') {
        return Err("it is absolute");
    }
    if name.contains(['\\', ':']) || name.chars().any(char::is_control) {
        return Err("it has a backslash, a colon or a control character");
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) if part.len() <= 255 => path.push(part),
            Component::Normal(_) => return Err("a part of it is too long"),
            Component::CurDir => {}
            Component::ParentDir => return Err("it leads out of the package"),
            Component::RootDir | Component::Prefix(_) => return Err("it is absolute"),
        }
    }
    if path.components().count() > MAX_DEPTH {
        return Err("it is too deep");
    }
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
pub(crate) mod tests;
