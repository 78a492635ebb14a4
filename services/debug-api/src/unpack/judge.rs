//! The one judge of what an archive holds, whatever its form: names that lead out, what is neither file nor folder, duplicates, and more
//! than is allowed of anything. Pure.
//!
//! Invariant: a path that got through here lies below the package's folder, and no path got through twice.

use std::{
    collections::BTreeMap,
    path::{Component, Path, PathBuf},
};

use nexushub_chassis::names::PACKAGE_DEPTH;

use super::{APP, Limits, UnpackError};

const MAX_NAME: usize = 1024;
/// Longest name of one file or folder, in bytes: what file systems take.
const MAX_PART: usize = 255;
/// Small packages compress well without being bombs.
const RATIO_FREE: u64 = 1 << 20;

/// What an archive says that an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    File,
    Folder,
    Symlink,
    HardLink,
    Sparse,
    Encrypted,
    Other,
}

impl Sort {
    /// Why a package may hold no such entry, and what to do.
    fn refusal(self) -> Option<&'static str> {
        match self {
            Self::File | Self::Folder => None,
            Self::Symlink => Some("symbolic links are not accepted; put a copy of the file there"),
            Self::HardLink => Some(
                "hard links are not accepted; pack it so that each name is a file of its own (tar --hard-dereference)",
            ),
            Self::Sparse => Some("sparse files are not accepted; pack it without --sparse"),
            Self::Encrypted => Some("it is encrypted; pack it without a password"),
            Self::Other => Some("only files and folders are accepted; leave it out"),
        }
    }
}

/// One entry, as it was found.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) sort: Sort,
    /// Its rights, where the archive knows those of Unix.
    pub(crate) mode: Option<u32>,
}

/// What is to be made of an entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Folders that were not there yet, outer ones first.
    pub(crate) folders: Vec<PathBuf>,
    /// Path and mode.
    pub(crate) file: Option<(PathBuf, u32)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    File,
    Folder,
}

/// What is known of a package so far.
#[derive(Debug)]
pub(crate) struct Judge {
    limits: Limits,
    swollen: u64,
    known: BTreeMap<PathBuf, Known>,
    entries: u64,
    bytes: u64,
}

impl Judge {
    /// Of an archive of so many bytes.
    pub(crate) fn new(limits: Limits, archive: u64) -> Self {
        let swollen = archive.saturating_mul(limits.ratio).saturating_add(RATIO_FREE);
        Self { limits, swollen, known: BTreeMap::new(), entries: 0, bytes: 0 }
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Most bytes that this archive may unpack to.
    pub(crate) fn most(&self) -> u64 {
        self.swollen.min(self.limits.bytes)
    }

    pub(crate) fn entry(&mut self, found: &Found<'_>) -> Result<Placed, UnpackError> {
        self.entries += 1;
        self.few(self.entries, 1)?;
        let shown = shown(found.name);
        let path = place(found.name).map_err(|why| UnpackError::Path(shown.clone(), why))?;
        if let Some(why) = found.sort.refusal() {
            return Err(UnpackError::Entry(shown, why));
        }
        let folder = found.sort == Sort::Folder;
        let Some(path) = path else {
            let why = "it names the package's folder, but is a file; give it a name";
            return if folder { Ok(Placed::default()) } else { Err(UnpackError::Path(shown, why)) };
        };
        let above = if folder { &*path } else { path.parent().unwrap_or(Path::new("")) };
        let folders = self.folders(above)?;
        if folder {
            return Ok(Placed { folders, file: None });
        }
        if path == Path::new(APP) && found.mode.is_some_and(|mode| mode & 0o111 == 0) {
            return Err(UnpackError::Entry(shown, "it is not executable; chmod +x it and pack again"));
        }
        match self.known.insert(path.clone(), Known::File) {
            None => {}
            Some(Known::File) => return Err(UnpackError::Duplicate(shown)),
            Some(Known::Folder) => return Err(both(&path)),
        }
        let runnable = path == Path::new(APP) || found.mode.is_some_and(|mode| mode & 0o111 != 0);
        Ok(Placed { folders, file: Some((path, if runnable { 0o755 } else { 0o644 })) })
    }

    /// So many bytes more of what files hold.
    pub(crate) fn bytes(&mut self, more: u64) -> Result<(), UnpackError> {
        self.bytes = self.bytes.saturating_add(more);
        if self.bytes > self.limits.bytes {
            return Err(UnpackError::Size(self.limits.bytes));
        }
        if self.bytes > self.swollen {
            return Err(UnpackError::Ratio(self.limits.ratio));
        }
        Ok(())
    }

    /// Whether there is a file of this name.
    pub(crate) fn has(&self, file: &str) -> bool {
        self.known.get(Path::new(file)) == Some(&Known::File)
    }

    fn folders(&mut self, path: &Path) -> Result<Vec<PathBuf>, UnpackError> {
        let ancestors: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
        let mut new = Vec::new();
        for ancestor in ancestors.into_iter().rev() {
            match self.known.get(ancestor) {
                Some(Known::Folder) => continue,
                Some(Known::File) => return Err(both(ancestor)),
                None => {}
            }
            self.few(self.known.len() as u64 + 1, 2)?;
            self.known.insert(ancestor.to_owned(), Known::Folder);
            new.push(ancestor.to_owned());
        }
        Ok(new)
    }

    fn few(&self, found: u64, times: u64) -> Result<(), UnpackError> {
        let limit = self.limits.entries;
        if found > times * u64::from(limit) { Err(UnpackError::Entries { found, limit }) } else { Ok(()) }
    }
}

fn both(path: &Path) -> UnpackError {
    UnpackError::Duplicate(format!("{} is a file and a folder; rename one of them", path.display()))
}

/// Where an entry belongs below the folder; `None` for the folder itself.
pub(crate) fn place(name: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    let name = std::str::from_utf8(name).map_err(|_| "it is not UTF-8; rename the file")?;
    if name.is_empty() || name.len() > MAX_NAME {
        return Err("it is empty or longer than 1024 bytes; use shorter names");
    }
    if name.starts_with('/') {
        return Err("it is absolute; pack the folder's content by names below it");
    }
    if name.contains(['\\', ':']) || name.chars().any(char::is_control) {
        return Err("it has a backslash, a colon or a control character; rename the file");
    }
    let mut path = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) if part.len() <= MAX_PART => path.push(part),
            Component::Normal(_) => return Err("a part of it is too long, over 255 bytes; rename the file"),
            Component::CurDir => {}
            Component::ParentDir => return Err("it leads out of the package; use names without `..`"),
            Component::RootDir | Component::Prefix(_) => return Err("it is absolute"),
        }
    }
    if path.components().count() > PACKAGE_DEPTH {
        return Err("it is too deep, over 32 folders; move the file up");
    }
    Ok(Some(path).filter(|path| !path.as_os_str().is_empty()))
}

/// A name as people may see it.
pub(crate) fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(120).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { entries: 4, bytes: 1 << 30, ratio: 10 };

    fn found(name: &str, sort: Sort) -> Found<'_> {
        Found { name: name.as_bytes(), sort, mode: None }
    }

    fn judged(entries: &[(&str, Sort)]) -> Result<Placed, String> {
        let mut judge = Judge::new(LIMITS, 100);
        let mut last = Ok(Placed::default());
        for (name, sort) in entries {
            last = judge.entry(&found(name, *sort)).map_err(|error| error.to_string());
        }
        last
    }

    #[test]
    fn folders_are_made_once_and_before_what_is_in_them() {
        let first = judged(&[("a/b/c", Sort::File)]).unwrap();
        assert_eq!(first.folders, [Path::new("a"), Path::new("a/b")]);
        assert_eq!(first.file, Some((PathBuf::from("a/b/c"), 0o644)));
        let again = judged(&[("a/b/c", Sort::File), ("./a/b/", Sort::Folder)]).unwrap();
        assert_eq!(again, Placed::default());
        assert_eq!(judged(&[("./", Sort::Folder)]).unwrap(), Placed::default());
    }

    #[test]
    fn everything_but_files_and_folders_is_refused_with_its_name_and_what_to_do() {
        for (sort, word) in [
            (Sort::Symlink, "symbolic links"),
            (Sort::HardLink, "--hard-dereference"),
            (Sort::Sparse, "without --sparse"),
            (Sort::Encrypted, "without a password"),
            (Sort::Other, "only files and folders"),
        ] {
            let said = judged(&[("static/x", sort)]).unwrap_err();
            assert!(said.starts_with("illegal entry: static/x: ") && said.contains(word), "{said}");
        }
        assert!(judged(&[(".", Sort::File)]).unwrap_err().contains("give it a name"));
    }

    #[test]
    fn names_are_the_same_byte_by_byte_only() {
        assert!(judged(&[("a", Sort::File), ("A", Sort::File)]).is_ok(), "Linux tells cases apart");
        for twice in [["a/b", "./a//b"], ["a", "a/b"], ["a/b", "a"]] {
            let said = judged(&twice.map(|name| (name, Sort::File))).unwrap_err();
            assert!(said.starts_with("duplicate entry: "), "{said}");
        }
    }

    #[test]
    fn each_bound_is_met_and_not_passed() {
        let four = ["a", "b", "c", "d"].map(|name| (name, Sort::File));
        assert!(judged(&four).is_ok());
        let said = judged(&[&four[..], &[("e", Sort::File)]].concat()).unwrap_err();
        assert_eq!(said, "too many entries: 5, the limit is 4");
        assert!(judged(&[("a/b/c/d/e/f/g/h/i", Sort::File)]).is_ok(), "folders are half free");
        assert!(judged(&[("a/b/c/d/e/f/g/h/i/j", Sort::File)]).unwrap_err().contains("too many entries"));
        let deep = |parts: usize| place("x/".repeat(parts).as_bytes());
        assert!(deep(32).is_ok() && deep(33).unwrap_err().contains("too deep"));
        let long = |length: usize| place("x".repeat(length).as_bytes());
        assert!(long(255).is_ok() && long(256).unwrap_err().contains("too long"));
        let whole = |length: usize| place("xy/".repeat(length / 3).as_bytes());
        assert!(whole(1026).unwrap_err().contains("longer than 1024 bytes"));
        let mut judge = Judge::new(Limits { bytes: 5 << 20, ..LIMITS }, 300 << 10);
        assert!(judge.bytes(3 << 20).is_ok());
        assert!(matches!(judge.bytes(1 << 20), Err(UnpackError::Ratio(10))));
        assert!(matches!(judge.bytes(u64::MAX), Err(UnpackError::Size(_))));
    }

    #[test]
    fn the_app_is_executable_where_the_archive_knows() {
        let entry =
            |mode| Judge::new(LIMITS, 100).entry(&Found { name: APP.as_bytes(), sort: Sort::File, mode });
        assert!(entry(Some(0o644)).unwrap_err().to_string().contains("not executable; chmod +x"));
        for mode in [None, Some(0o700)] {
            assert_eq!(entry(mode).unwrap().file, Some((PathBuf::from(APP), 0o755)));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn a_place_is_always_below_the_folder(name in "[./a\\\\:\u{0}-\u{7f}]{0,24}") {
            if let Ok(Some(path)) = place(name.as_bytes()) {
                prop_assert!(path.is_relative());
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
            }
        }
    }
}
