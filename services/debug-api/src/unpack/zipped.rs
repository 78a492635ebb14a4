//! A package that is a zip archive, of any size (`zip64.rs`). Strict on purpose: no data before or behind, no name twice, no entries
//! that overlap or that the directory doesn't list, no number that is told in two ways, so that nobody can read it in two ways.

use std::io::{BufReader, Read, Seek, SeekFrom};

use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::{
    UnpackError, Unpacking,
    judge::{Found, Sort, shown},
    zip64::{self, Directory, bad, long, short},
};

/// What a zip archive begins with: its first entry, or the end record of one without entries.
pub(crate) const MAGIC: [[u8; 4]; 2] = [*b"PK\x03\x04", END_SIGNATURE];
const END_SIGNATURE: [u8; 4] = *b"PK\x05\x06";
const END_SIZE: u64 = 22;
const MAX_COMMENT: u64 = u16::MAX as u64;
/// A directory record is 46 bytes and its name; this is generous for names and extra fields.
const MAX_RECORD: u64 = 1024;

/// Reads all entries.
pub(crate) fn read<R: Read + Seek>(
    mut file: R,
    size: u64,
    unpacking: &mut Unpacking<'_>,
) -> Result<(), UnpackError> {
    let directory = judge_end(&mut file, size, unpacking.limits().entries)?;
    zip64::judge(&mut file, &directory)?;
    let whole = |error| broken("the archive", error);
    let mut zip = ZipArchive::new(BufReader::new(file)).map_err(whole)?;
    if zip.has_duplicate_names() || zip.len() as u64 != directory.entries {
        return Err(UnpackError::Duplicate("a name occurs twice in the archive's directory".to_owned()));
    }
    zip.validate_header_consistency().map_err(whole)?;
    let mut said = 0_u64;
    for index in 0..zip.len() {
        let entry = zip.by_index_raw(index).map_err(|error| broken(&format!("entry {index}"), error))?;
        said = said.saturating_add(entry.size());
    }
    unpacking.ask_for_room(said)?;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(|error| broken(&format!("entry {index}"), error))?;
        let (name, sort, mode) = (entry.name_raw().to_vec(), sort(&entry), mode(&entry));
        let said = entry.size();
        let had = unpacking.take(&Found { name: &name, sort, mode }, &mut entry)?;
        if had != said {
            let why = format!("{} has {had} bytes, and says that it has {said}", shown(&name));
            return Err(UnpackError::Archive("zip", why));
        }
    }
    Ok(())
}

fn sort<R: Read>(entry: &ZipFile<'_, R>) -> Sort {
    match entry.unix_mode().unwrap_or(0) & 0o170_000 {
        _ if entry.encrypted() => Sort::Encrypted,
        0o120_000 => Sort::Symlink,
        0o040_000 | 0 if entry.is_dir() => Sort::Folder,
        0o100_000 | 0 if !entry.is_dir() => Sort::File,
        _ => Sort::Other,
    }
}

/// Archives made elsewhere than on Unix say no rights; what the reader makes of theirs is a guess.
fn mode<R: Read>(entry: &ZipFile<'_, R>) -> Option<u32> {
    entry.unix_mode().filter(|mode| entry.system() == zip::System::Unix && mode & 0o777 != 0)
}

/// The end record, read by ourselves first: the directory's size bounds the memory that reading it takes.
fn judge_end<R: Read + Seek>(file: &mut R, size: u64, max_entries: u32) -> Result<Directory, UnpackError> {
    let tail_at = size.saturating_sub(END_SIZE + MAX_COMMENT + zip64::ENDS);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(tail_at))
        .and_then(|_| file.read_to_end(&mut tail))
        .map_err(|source| UnpackError::Read { entry: "the end of the archive".to_owned(), source })?;
    let at = tail
        .windows(4)
        .rposition(|window| window == END_SIGNATURE)
        .ok_or_else(|| bad("it has no end record; was it cut off?"))?;
    let record = tail[at..].first_chunk::<22>().ok_or_else(|| bad("its end record is cut off"))?;
    let plain = Directory { entries: short(record, 10), bytes: long(record, 12), at: long(record, 16) };
    let unfit = || bad("its end record doesn't fit the file");
    let end_at = tail_at + at as u64;
    if end_at + END_SIZE + short(record, 20) != size
        || (short(record, 4), short(record, 6), short(record, 8)) != (0, 0, plain.entries)
    {
        return Err(unfit());
    }
    let (directory, ends_at) = match zip64::end(&tail[..at], tail_at, &plain)? {
        Some(directory) => (directory, end_at - zip64::ENDS),
        None => (plain, end_at),
    };
    if directory.entries > u64::from(max_entries) {
        return Err(UnpackError::Entries { found: directory.entries, limit: max_entries });
    }
    if directory.place().is_none_or(|place| place.end != ends_at) {
        return Err(unfit());
    }
    if directory.bytes > directory.entries.saturating_mul(MAX_RECORD) {
        return Err(bad("its directory is oversized"));
    }
    Ok(directory)
}

fn broken(entry: &str, error: ZipError) -> UnpackError {
    match error {
        ZipError::Io(source) => UnpackError::Read { entry: entry.to_owned(), source },
        other => UnpackError::Archive("zip", format!("{entry}: {other}")),
    }
}
