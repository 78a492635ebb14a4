//! Doors for the fuzzer (`tests/fuzz`), there with the feature `fuzzing` only: what clients say in header fields and in the forms of
//! their chunks, and what their packages hold, as functions of any bytes that panic where a promise is broken. The promises: nothing
//! panics, what was read reads the same once it is written again, and no package leaves its folder or outgrows its bounds.

use std::{
    collections::BTreeSet,
    io::{Cursor, Read},
    path::{Component, Path, PathBuf},
};

use data_encoding::{BASE64, HEXLOWER};

use crate::{
    config::Config,
    digests::Sha256Hex,
    fields,
    manifest::Manifest,
    receive,
    unpack::{Limits, Room, Store, UnpackError, Unpacking, judge::Judge, program, tarred, zipped},
};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every one, by its name.
pub const TARGETS: [(&str, Target); 7] = [
    ("items", items),
    ("tus", tus),
    ("claims", claims),
    ("zips", zips),
    ("tars", tars),
    ("manifests", manifests),
    ("programs", programs),
];

const LIMITS: Limits = Limits { entries: 20, bytes: 1 << 20, ratio: 10 };

fn bytes_of(digest: &Sha256Hex) -> Vec<u8> {
    HEXLOWER.decode(digest.to_string().as_bytes()).expect("a digest is hex")
}

/// Structured fields: what is an integer is no boolean, and neither is a list of digests.
fn items(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (integer, boolean, digest) =
        (fields::integer(text), fields::boolean(text), fields::sha256(text).flatten());
    let read = [integer.is_some(), boolean.is_some(), digest.is_some()];
    assert!(read.into_iter().filter(|read| *read).count() <= 1, "{text:?}");
    if let Some(number) = integer {
        assert_eq!(fields::integer(&number.to_string()), Some(number));
    }
    if let Some(truth) = boolean {
        assert_eq!(fields::boolean(if truth { "?1" } else { "?0" }), Some(truth));
    }
    if let Some(digest) = digest {
        let again = format!("sha-256=:{}:", BASE64.encode(&bytes_of(&digest)));
        assert_eq!(fields::sha256(&again), Some(Some(digest)));
    }
}

/// Fields of tus, and a moment as HTTP writes it.
fn tus(bytes: &[u8]) {
    let at = bytes.first_chunk().map_or(0, |at| i64::from_le_bytes(*at));
    assert!(fields::http_date(at).ends_with(" GMT"));
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Some(number) = fields::number(text) {
        assert_eq!(fields::number(&number.to_string()), Some(number));
        assert_eq!(fields::integer(text), Some(number), "the draft reads it the same");
    }
    if let Some(digest) = fields::metadata(text).flatten() {
        let again = format!("sha256 {}", BASE64.encode(digest.to_string().as_bytes()));
        assert_eq!(fields::metadata(&again), Some(Some(digest)));
    }
    if fields::checksum(text).is_ok() {
        assert!(fields::checksum(&format!("{text} ")).is_err(), "{text:?}");
        assert!(fields::number(text).is_none());
    }
}

/// What a chunk's form says of it.
fn claims(bytes: &[u8]) {
    const MOST: u32 = 100;
    let Ok(text) = str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n').map(str::to_owned);
    let said = [lines.next(), lines.next(), lines.next(), lines.next()];
    let Ok(claim) = receive::claimed(&said, MOST) else { return };
    assert!(claim.index < claim.file.total && claim.file.total <= MOST);
    let file = &claim.file;
    let sha256 = file.sha256.as_ref().map(ToString::to_string);
    let again = [
        Some(claim.index.to_string()),
        Some(file.total.to_string()),
        file.hash.as_ref().map(ToString::to_string),
        sha256,
    ];
    assert_eq!(receive::claimed(&again, MOST).ok().as_ref(), Some(&claim));
}

/// Keeps nothing, and sees to it that nothing is kept where it may not be.
#[derive(Default)]
struct Nowhere {
    known: BTreeSet<PathBuf>,
    bytes: u64,
}

impl Nowhere {
    fn add(&mut self, path: &Path) {
        assert!(path.components().all(|part| matches!(part, Component::Normal(_))), "{path:?}");
        assert!(path.to_str().is_some_and(|path| !path.is_empty() && !path.contains(char::is_control)));
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        assert!(above.is_none_or(|above| self.known.contains(above)), "{path:?} has no folder");
        assert!(self.known.insert(path.to_owned()), "{path:?} twice");
    }
}

impl Store for Nowhere {
    fn folder(&mut self, path: &Path) -> Result<(), UnpackError> {
        self.add(path);
        Ok(())
    }

    fn file(&mut self, path: &Path, mode: u32, content: &mut dyn Read) -> Result<(), UnpackError> {
        self.add(path);
        assert!([0o755, 0o644].contains(&mode));
        let mut buffer = [0; 512];
        loop {
            match content.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.bytes += read as u64,
                Err(source) => return Err(UnpackError::Read { entry: String::new(), source }),
            }
            assert!(self.bytes <= LIMITS.bytes);
        }
    }
}

/// A disk without an end.
struct Endless;

impl Room for Endless {
    fn set_aside(&mut self, _: u64) -> Result<(), UnpackError> {
        Ok(())
    }

    fn take(&mut self, _: u64) -> Result<(), UnpackError> {
        Ok(())
    }
}

fn unpacked(size: usize, read: impl FnOnce(&mut Unpacking<'_>) -> Result<(), UnpackError>) {
    let mut nowhere = Nowhere::default();
    let judge = Judge::new(LIMITS, size as u64);
    if let Err(error) = read(&mut Unpacking::new(judge, &mut Endless, &mut nowhere, &|| false)) {
        assert!(!error.to_string().is_empty());
    }
    assert!(nowhere.known.len() <= 3 * LIMITS.entries as usize);
}

fn zips(bytes: &[u8]) {
    unpacked(bytes.len(), |unpacking| zipped::read(Cursor::new(bytes), bytes.len() as u64, unpacking));
}

/// A tar as it is, and one whose headers are made of the bytes: the search does not guess checksums.
fn tars(bytes: &[u8]) {
    unpacked(bytes.len(), |unpacking| tarred::walk(bytes, unpacking));
    unpacked(bytes.len(), |unpacking| tarred::read(bytes, unpacking));
    let mut tar = Vec::new();
    let mut rest = bytes;
    while let [kind, named, length, after @ ..] = rest {
        let (name, after) = after.split_at(after.len().min(usize::from(*named % 100)));
        let (content, after) = after.split_at(after.len().min(usize::from(*length)));
        rest = after;
        let mut header = if kind & 0x80 == 0 { tar::Header::new_gnu() } else { tar::Header::new_ustar() };
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(tar::EntryType::new(kind & 0x7f));
        header.set_mode(u32::from(*named) << 2);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.extend_from_slice(header.as_bytes());
        tar.extend_from_slice(content);
        tar.resize(tar.len().next_multiple_of(512), 0);
    }
    unpacked(tar.len(), |unpacking| tarred::walk(&tar[..], unpacking));
}

/// What a package says of itself is told in one line if it can't be, and asks for no more than is granted if it can.
fn manifests(bytes: &[u8]) {
    let grants = Config::default().grants();
    match Manifest::parse(bytes, grants) {
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
        Ok(manifest) => {
            let mut instance = nexushub_proto::provider::Instance::default();
            manifest.apply(&mut instance, grants);
            let limits = instance.limits.unwrap_or_default();
            assert!(limits.memory_bytes <= grants.memory_bytes && limits.cpu_percent <= grants.cpu_percent);
            assert_ne!(instance.driver(), nexushub_proto::provider::Driver::Process);
            let again = serde_json::to_vec(&manifest).expect("it is text and numbers");
            assert_eq!(serde_json::from_slice::<Manifest>(&again).ok(), Some(manifest));
        }
    }
}

/// The first bytes of `bin/app`.
fn programs(bytes: &[u8]) {
    let has = |path: &Path| path == Path::new("/bin/sh");
    let read = |at: u64, buffer: &mut [u8]| {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    };
    let machine = program::Machine { arch: "x86_64", open: false, has: &has };
    match program::judge(&read, &machine).expect("what is in memory can be read") {
        Ok(()) => assert!(bytes.starts_with(b"#!") || bytes.starts_with(b"\x7fELF\x02\x01")),
        Err(why) => assert!(!why.is_empty() && !why.contains(char::is_control), "{why:?}"),
    }
}
