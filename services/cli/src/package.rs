//! The archive that is uploaded. Of the same files it is the same archive, byte for byte, on every machine: names sorted, modes
//! kept, no times. So pushing twice what hasn't changed changes nothing. It is a tar.zst, since a developer waits for it: Zstandard
//! takes a sixth of the time of a zip's compression, and less room.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read},
    os::unix::fs::{FileExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use nexushub_chassis::{launch::secret::hex, names::PACKAGE_DEPTH};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};
use tokio::{sync::mpsc, task::spawn_blocking};
use zip::ZipArchive;

use crate::{failure::Failure, https::Pieces};

/// The executable that every package has.
const APP: &str = "bin/app";
/// What a tar.zst begins with.
const ZST: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Most files and folders; what debug-api takes.
const ENTRIES_MAX: usize = 20_000;
/// How hard Zstandard tries: its own default, beyond which each hundredth of the size costs a third of the time.
const LEVEL: i32 = 3;

/// Bytes read at once.
const PIECE: u64 = 256 << 10;
/// Pieces that are read ahead of what is sent.
const AHEAD: usize = 4;
/// Bytes at either end by which an archive is told from others at first sight.
const GLANCE: u64 = 1 << 20;

/// An archive, and its digest as far as it was read in order.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) len: u64,
    content: Arc<Mutex<Content>>,
}

#[derive(Debug)]
struct Content {
    file: File,
    digest: Sha256,
    /// Bytes that the digest is of.
    read: u64,
}

impl Package {
    /// A folder packed, or an archive as it is.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let found = fs::metadata(path).map_err(|error| Failure::io("read", path, &error))?;
        let file = if found.is_dir() {
            pack(path)?
        } else {
            let file = File::open(path).map_err(|error| Failure::io("read", path, &error))?;
            judge_archive(path, &file)?;
            file
        };
        let len = file.metadata().map_err(|error| Failure::io("read", path, &error))?.len();
        Ok(Self::of(file, len))
    }

    fn of(file: File, len: u64) -> Self {
        Self { len, content: Arc::new(Mutex::new(Content { file, digest: Sha256::new(), read: 0 })) }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SHA-256 of all of it, in lower-case hexadecimal digits: what the platform holds it to. What was not read yet is read now.
    pub(crate) async fn sha256(&self) -> io::Result<String> {
        let package = self.clone();
        let sum = move || {
            let mut content = package.content();
            while content.read < package.len {
                let at = content.read;
                content.piece(at, PIECE.min(package.len - at))?;
            }
            Ok(hex(&content.digest.clone().finalize()))
        };
        spawn_blocking(sum).await.map_err(io::Error::other)?
    }

    /// What tells it from others without all of it being read: its length and both of its ends. Which bytes are between them the
    /// digest says.
    pub(crate) fn glance(&self) -> io::Result<String> {
        let (mut sum, content) = (Sha256::new(), self.content());
        sum.update(self.len.to_be_bytes());
        for at in [0, self.len.saturating_sub(GLANCE)] {
            let mut end = vec![0; usize::try_from(GLANCE.min(self.len)).unwrap_or_default()];
            content.file.read_exact_at(&mut end, at)?;
            sum.update(&end);
        }
        Ok(hex(&sum.finalize()))
    }

    /// Whether it is as long as it was.
    pub(crate) fn is_there(&self) -> bool {
        self.content().file.metadata().is_ok_and(|file| file.len() == self.len)
    }

    /// So many bytes of it, read as they are taken; what is read in order its digest is made of.
    pub(crate) fn pieces(&self, at: u64, length: u64) -> Pieces {
        let (sender, pieces) = mpsc::channel(AHEAD);
        let (package, end) = (self.clone(), at + length);
        spawn_blocking(move || {
            let mut at = at;
            while at < end {
                let piece = package.content().piece(at, PIECE.min(end - at));
                at += PIECE.min(end - at);
                let failed = piece.is_err();
                if sender.blocking_send(piece).is_err() || failed {
                    return; // nobody takes any more, or there is none
                }
            }
        });
        Pieces::new(pieces, length)
    }
}

impl Content {
    fn piece(&mut self, at: u64, length: u64) -> io::Result<Bytes> {
        let mut piece = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut piece, at)?;
        if at == self.read {
            self.digest.update(&piece);
            self.read += length;
        }
        Ok(piece.into())
    }
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
    let mut compressed = zstd::Encoder::new(BufWriter::new(file), LEVEL).map_err(whole)?;
    // It says how much it holds, so that the platform knows of room for it before it writes any.
    compressed.set_pledged_src_size(Some(size(&entries).map_err(whole)?)).map_err(whole)?;
    let mut writer = tar::Builder::new(compressed);
    for entry in &entries {
        let path = folder.join(&entry.name);
        let added = if entry.folder {
            add(&mut writer, entry, io::empty())
        } else {
            File::open(&path).and_then(|content| add(&mut writer, entry, content))
        };
        added.map_err(|error| failed(&path, &error))?;
    }
    let compressed = writer.into_inner().map_err(whole)?;
    compressed.finish().and_then(|file| Ok(file.into_inner()?)).map_err(whole)
}

/// Bytes of the tar of these.
fn size(entries: &[Entry]) -> io::Result<u64> {
    let mut writer = tar::Builder::new(Counted(0));
    entries.iter().try_for_each(|entry| add(&mut writer, entry, io::repeat(0)))?;
    Ok(writer.into_inner()?.0)
}

/// What is only counted.
struct Counted(u64);

impl io::Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn add(writer: &mut tar::Builder<impl io::Write>, entry: &Entry, content: impl Read) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(entry.length);
    if entry.folder {
        header.set_entry_type(EntryType::Directory);
    }
    let mut content = content.take(entry.length);
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
    /// Bytes; 0 of a folder.
    length: u64,
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
        let length = if found.is_dir() { 0 } else { found.len() };
        entries.push(Entry { name: name.clone(), folder: found.is_dir(), mode, length });
        if depth >= PACKAGE_DEPTH {
            let message =
                format!("{} is too deep: a package has up to {PACKAGE_DEPTH} levels", path.display());
            return Err(Failure::new(
                message,
                "move it up, or push a folder that holds the package and nothing else",
            ));
        }
        if entries.len() > ENTRIES_MAX {
            let message = format!("{} holds more than {ENTRIES_MAX} files", root.display());
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
    use std::{io::Seek, os::unix::fs::symlink};

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
        let package = Package::open(app().path()).unwrap();
        let mut content = package.content();
        content.file.rewind().unwrap();
        let mut archive = tar::Archive::new(zstd::Decoder::new(&content.file).unwrap());
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

    #[test]
    fn it_says_how_much_it_holds() {
        let package = Package::open(app().path()).unwrap();
        let mut bytes = vec![0; usize::try_from(package.len).unwrap()];
        package.content().file.read_exact_at(&mut bytes, 0).unwrap();
        let said = zstd::zstd_safe::get_frame_content_size(&bytes).unwrap().unwrap();
        assert_eq!(zstd::decode_all(&bytes[..]).unwrap().len() as u64, said);
    }

    /// A name that is longer than a tar's header has room for.
    fn long() -> String {
        format!("static/{}/{}", "n".repeat(200), "m".repeat(200))
    }

    async fn digest(path: &Path) -> String {
        Package::open(path).unwrap().sha256().await.unwrap()
    }

    #[tokio::test]
    async fn the_same_files_make_the_same_package() {
        let (first, second) = (app(), app());
        let hash = digest(first.path()).await;
        assert_eq!(digest(second.path()).await, hash);
        fs::write(second.path().join("bin/app"), "other").unwrap();
        assert_ne!(digest(second.path()).await, hash);
    }

    #[test]
    fn a_folder_without_an_executable_is_no_app() {
        let folder = app();
        fs::set_permissions(folder.path().join("bin/app"), fs::Permissions::from_mode(0o644)).unwrap();
        let failure = Package::open(folder.path()).unwrap_err();
        assert!(failure.message.contains("bin/app") && failure.hint.contains("static/"));
    }

    #[test]
    fn a_folder_is_packed_as_deep_as_the_platform_unpacks_and_no_deeper() {
        let folder = app();
        let deepest = folder.path().join(vec!["d"; PACKAGE_DEPTH].join("/"));
        fs::create_dir_all(&deepest).unwrap();
        assert!(Package::open(folder.path()).is_ok());
        fs::write(deepest.join("f"), "").unwrap();
        let failure = Package::open(folder.path()).unwrap_err();
        let file = deepest.join("f").display().to_string();
        assert_eq!(failure.message, format!("{file} is too deep: a package has up to 32 levels"));
    }

    #[test]
    fn links_are_refused_by_name() {
        let folder = app();
        symlink("/etc/passwd", folder.path().join("static/link")).unwrap();
        assert!(Package::open(folder.path()).unwrap_err().message.contains("static/link"));
    }

    #[tokio::test]
    async fn an_archive_is_taken_as_it_is_if_it_holds_an_app() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.zip");
        fs::write(&path, "garbage").unwrap();
        assert!(Package::open(&path).is_err());
        let packed = Package::open(app().path()).unwrap();
        fs::write(&path, taken(&packed, 0, packed.len).await.unwrap()).unwrap();
        assert_eq!(digest(&path).await, packed.sha256().await.unwrap());
        fs::write(&path, [&ZST[..], b"more"].concat()).unwrap();
        assert_eq!(Package::open(&path).unwrap().len, 8, "the platform judges it");
    }

    async fn taken(package: &Package, at: u64, length: u64) -> io::Result<Vec<u8>> {
        use http_body_util::BodyExt;
        Ok(package.pieces(at, length).collect().await?.to_bytes().to_vec())
    }

    /// An archive of these bytes.
    fn of(bytes: &[u8]) -> Package {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        Package::of(file, bytes.len() as u64)
    }

    #[tokio::test]
    async fn pieces_are_what_they_say_and_the_digest_is_of_all_whichever_were_taken() {
        let sha256 = "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882";
        for asked in [&[][..], &[(0, 10)], &[(0, 4), (4, 6)], &[(2, 3), (0, 3), (8, 2)], &[(0, 4), (0, 4)]] {
            let package = of(b"0123456789");
            for (at, length) in asked {
                let piece = taken(&package, *at, *length).await.unwrap();
                let (from, to) = (usize::try_from(*at).unwrap(), usize::try_from(at + length).unwrap());
                assert_eq!(piece, b"0123456789"[from..to]);
            }
            assert_eq!(package.sha256().await.unwrap(), sha256, "{asked:?}");
        }
        let shorter = Package { len: 12, ..of(b"0123456789") };
        assert!(taken(&shorter, 8, 4).await.is_err() && !shorter.is_there());
    }

    #[test]
    fn at_first_sight_archives_differ_by_length_and_ends() {
        let glance = |bytes: &[u8]| of(bytes).glance().unwrap();
        assert_eq!(glance(b"one"), glance(b"one"));
        assert_ne!(glance(b"one"), glance(b"two"));
        let long = |first: u8, last: u8| {
            let mut bytes = vec![0; 3 << 20];
            bytes[0] = first;
            bytes[(3 << 20) - 1] = last;
            glance(&bytes)
        };
        assert!(long(0, 0) != long(1, 0) && long(0, 0) != long(0, 1));
    }
}
