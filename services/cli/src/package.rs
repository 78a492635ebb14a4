//! The archive that is uploaded. Of the same files it is the same archive, byte for byte, on every machine: names sorted, modes
//! kept, no times. So pushing twice what hasn't changed changes nothing. It is a tar.zst, since a developer waits for it: Zstandard
//! takes a sixth of the time of a zip's compression, and less room.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
};

use md5::{Digest, Md5};
use nexushub_chassis::launch::secret::hex;
use sha2::Sha256;
use tar::{EntryType, Header};
use zip::ZipArchive;

use crate::failure::Failure;

/// The executable that every package has.
const APP: &str = "bin/app";
/// What a tar.zst begins with.
const ZST: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Most files and folders; what debug-api takes.
const ENTRIES_MAX: usize = 20_000;
/// Deepest folder.
const DEPTH_MAX: usize = 64;
/// How hard Zstandard tries: its own default, beyond which each hundredth of the size costs a third of the time.
const LEVEL: i32 = 3;

/// An archive, with its digests.
#[derive(Debug)]
pub(crate) struct Package {
    pub(crate) file: File,
    pub(crate) len: u64,
    /// MD5 in lower-case hexadecimal digits: how the contract names an upload.
    pub(crate) hash: String,
    /// SHA-256, written likewise: what the platform holds it to.
    pub(crate) sha256: String,
}

impl Package {
    /// A folder packed, or an archive as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let found = fs::metadata(path).map_err(|error| Failure::io("read", path, &error))?;
        let mut file = if found.is_dir() {
            pack(path)?
        } else {
            let file = File::open(path).map_err(|error| Failure::io("read", path, &error))?;
            judge_archive(path, &file)?;
            file
        };
        let failed = |error| Failure::io("read", path, &error);
        let len = file.seek(SeekFrom::End(0)).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let (hash, sha256) = digests(&mut file).map_err(failed)?;
        Ok(Self { file, len, hash, sha256 })
    }

    /// A piece of it.
    pub(crate) fn piece(&mut self, at: u64, length: u64) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(at))?;
        let mut piece = Vec::new();
        self.file.by_ref().take(length).read_to_end(&mut piece)?;
        Ok(piece)
    }
}

fn digests(file: &mut File) -> io::Result<(String, String)> {
    let (mut md5, mut sha256) = (Md5::new(), Sha256::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => {
                md5.update(&buffer[..length]);
                sha256.update(&buffer[..length]);
            }
        }
    }
    Ok((hex(&md5.finalize()), hex(&sha256.finalize())))
}

/// A zip is looked into before it is sent; a tar.zst the platform judges alone.
fn judge_archive(path: &Path, file: &File) -> Result<(), Failure> {
    let mut magic = [0; 4];
    if file.read_exact_at(&mut magic, 0).is_ok() && magic == ZST {
        return Ok(());
    }
    let refused = |why: String| Failure::new(format!("{} is no app package: {why}", path.display()), HINT);
    let archive = ZipArchive::new(file).map_err(|error| refused(error.to_string()))?;
    if archive.index_for_name(APP).is_none() {
        return Err(refused(format!("there is no {APP} in it")));
    }
    Ok(())
}

const HINT: &str =
    "a package holds the executable bin/app at its top, and if it likes files to serve below static/";

fn pack(folder: &Path) -> Result<File, Failure> {
    let app = folder.join(APP);
    let executable =
        fs::metadata(&app).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if !executable {
        return Err(Failure::new(format!("there is no executable {}", app.display()), HINT));
    }
    let mut entries = Vec::new();
    list(folder, "", 0, &mut entries)?;
    let file =
        tempfile::tempfile().map_err(|error| Failure::io("make a file in", &std::env::temp_dir(), &error))?;
    let failed = |path: &Path, error: &io::Error| {
        Failure::new(format!("could not pack {}: {error}", path.display()), "")
    };
    let whole = |error: io::Error| failed(folder, &error);
    let compressed = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(whole)?;
    let mut writer = tar::Builder::new(compressed);
    for entry in &entries {
        let path = folder.join(&entry.name);
        add(&mut writer, entry, &path).map_err(|error| failed(&path, &error))?;
    }
    let compressed = writer.into_inner().map_err(whole)?;
    compressed.finish().and_then(|file| Ok(file.into_inner()?)).map_err(whole)
}

fn add(writer: &mut tar::Builder<impl io::Write>, entry: &Entry, path: &Path) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    if entry.folder {
        header.set_entry_type(EntryType::Directory);
        header.set_size(0);
        return writer.append_data(&mut header, &entry.name, io::empty());
    }
    let source = File::open(path)?;
    let length = source.metadata()?.len();
    header.set_size(length);
    let mut content = source.take(length);
    writer.append_data(&mut header, &entry.name, &mut content)?;
    match content.limit() {
        0 => Ok(()),
        _ => Err(io::Error::other("it became shorter meanwhile")),
    }
}

/// A file or folder of a package, by its name in it.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    name: String,
    folder: bool,
    mode: u32,
}

/// Everything below a folder, in the order of names; what begins with a dot at the top (`.git`) is no part of an app.
fn list(root: &Path, below: &str, depth: usize, entries: &mut Vec<Entry>) -> Result<(), Failure> {
    let folder = root.join(below);
    let failed = |error| Failure::io("read", &folder, &error);
    let mut names = Vec::new();
    for found in fs::read_dir(&folder).map_err(failed)? {
        let name = found.map_err(failed)?.file_name();
        let name = name.into_string().map_err(|name| {
            Failure::new(format!("the name of {} is not UTF-8", folder.join(name).display()), "rename it")
        })?;
        if !(depth == 0 && name.starts_with('.')) {
            names.push(name);
        }
    }
    names.sort();
    for name in names {
        let name = if below.is_empty() { name } else { format!("{below}/{name}") };
        let path = root.join(&name);
        let found = fs::symlink_metadata(&path).map_err(|error| Failure::io("read", &path, &error))?;
        if !found.is_dir() && !found.is_file() {
            let hint = "a package holds files and folders only; put a copy there, or move it away";
            return Err(Failure::new(format!("{} is neither", path.display()), hint));
        }
        let mode = found.permissions().mode() & 0o777;
        entries.push(Entry { name: name.clone(), folder: found.is_dir(), mode });
        if entries.len() > ENTRIES_MAX || depth > DEPTH_MAX {
            let message =
                format!("{} holds more than {ENTRIES_MAX} files or {DEPTH_MAX} levels", root.display());
            return Err(Failure::new(message, "push a folder that holds the package and nothing else"));
        }
        if found.is_dir() {
            list(root, &name, depth + 1, entries)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::symlink;

    fn app() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32| {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, name).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        put("static/z.txt", 0o644);
        put("bin/app", 0o755);
        put("static/.well-known/a", 0o600);
        put(&long(), 0o644);
        put(".git/config", 0o644);
        folder
    }

    #[test]
    fn a_folder_is_packed_in_order_with_its_modes() {
        let mut package = Package::open(app().path()).unwrap();
        package.file.rewind().unwrap();
        let mut archive = tar::Archive::new(zstd::Decoder::new(&package.file).unwrap());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let name = entry.path().unwrap().to_str().unwrap().to_owned();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
                (name, entry.header().mode().unwrap(), content)
            })
            .filter(|(_, _, content)| !content.is_empty())
            .map(|(name, mode, content)| (name == content, name, mode))
            .collect();
        let expected =
            [("bin/app", 0o755), ("static/.well-known/a", 0o600), (&long(), 0o644), ("static/z.txt", 0o644)];
        assert_eq!(names, expected.map(|(name, mode)| (true, name.to_owned(), mode)));
    }

    /// A name that is longer than a tar's header has room for.
    fn long() -> String {
        format!("static/{}/{}", "n".repeat(200), "m".repeat(200))
    }

    #[test]
    fn the_same_files_make_the_same_package() {
        let (first, second) = (app(), app());
        let hash = Package::open(first.path()).unwrap().hash;
        assert_eq!(Package::open(second.path()).unwrap().hash, hash);
        fs::write(second.path().join("bin/app"), "other").unwrap();
        assert_ne!(Package::open(second.path()).unwrap().hash, hash);
    }

    #[test]
    fn a_folder_without_an_executable_is_no_app() {
        let folder = app();
        fs::set_permissions(folder.path().join("bin/app"), fs::Permissions::from_mode(0o644)).unwrap();
        let failure = Package::open(folder.path()).unwrap_err();
        assert!(failure.message.contains("bin/app") && failure.hint.contains("static/"));
    }

    #[test]
    fn links_are_refused_by_name() {
        let folder = app();
        symlink("/etc/passwd", folder.path().join("static/link")).unwrap();
        assert!(Package::open(folder.path()).unwrap_err().message.contains("static/link"));
    }

    #[test]
    fn an_archive_is_taken_as_it_is_if_it_holds_an_app() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.zip");
        fs::write(&path, "garbage").unwrap();
        assert!(Package::open(&path).is_err());
        let mut packed = Package::open(app().path()).unwrap();
        let bytes = packed.piece(0, u64::MAX).unwrap();
        assert_eq!(bytes.len() as u64, packed.len);
        fs::write(&path, &bytes).unwrap();
        assert_eq!(Package::open(&path).unwrap().hash, packed.hash);
        fs::write(&path, [&ZST[..], b"more"].concat()).unwrap();
        assert_eq!(Package::open(&path).unwrap().len, 8, "the platform judges it");
    }

    #[test]
    fn pieces_are_what_they_say() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "0123456789").unwrap();
        let mut package =
            Package { file: File::open(&path).unwrap(), len: 10, hash: String::new(), sha256: String::new() };
        assert_eq!(package.piece(8, 4).unwrap(), b"89");
        assert_eq!(package.piece(2, 3).unwrap(), b"234");
        let (hash, sha256) = digests(&mut File::open(&path).unwrap()).unwrap();
        assert_eq!(hash, "781e5e245d69b566979b86e28d23f2c7");
        assert_eq!(sha256, "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882");
    }
}
