//! Zip64: where a zip has numbers that are too large for their places, or were not known yet when they were written. The place then
//! holds all ones, and the number is in a record or a field of its own.
//!
//! Readers differ in which of two numbers they believe. So a number is told once, or alike wherever it is told; what is left is held
//! to be what every reader makes of it.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

use super::UnpackError;

/// What is before the end record of an archive that has these: a record of 56 bytes, and where that is.
pub(super) const ENDS: u64 = RECORD + LOCATOR;
const RECORD: u64 = 56;
const LOCATOR: u64 = 20;
const RECORD_SIGNATURE: [u8; 4] = *b"PK\x06\x06";
const LOCATOR_SIGNATURE: [u8; 4] = *b"PK\x06\x07";
const ENTRY_SIGNATURE: [u8; 4] = *b"PK\x01\x02";
/// A header in the directory, and that before an entry's bytes, without name and further fields.
const ENTRY: usize = 46;
const LOCAL: usize = 30;
/// The further field that has numbers.
const FIELD: u16 = 1;

/// What an archive says of its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Directory {
    pub(super) entries: u64,
    pub(super) bytes: u64,
    pub(super) at: u64,
}

impl Directory {
    /// Where it is, if a file can have that place.
    pub(super) fn place(&self) -> Option<Range<u64>> {
        Some(self.at..self.at.checked_add(self.bytes)?)
    }
}

pub(super) fn bad(why: &str) -> UnpackError {
    UnpackError::Archive("zip", why.to_owned())
}

/// A number of two bytes.
pub(super) fn short(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from(u16::from_le_bytes(*bytes)))
}

/// A number of four bytes.
pub(super) fn long(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from(u32::from_le_bytes(*bytes)))
}

fn wide(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Whether four bytes say that the number is elsewhere.
fn is_elsewhere(number: u64) -> bool {
    number == u64::from(u32::MAX)
}

/// What the records of zip64 say of the directory, of an archive of which `before` is what comes before the end record, as far as it was
/// read from `from` on, and `plain` what that says. None if there are no such records.
pub(super) fn end(before: &[u8], from: u64, plain: &Directory) -> Result<Option<Directory>, UnpackError> {
    let locator = before.last_chunk::<{ LOCATOR as usize }>().filter(|it| it.starts_with(&LOCATOR_SIGNATURE));
    let Some(locator) = locator else {
        let missing = is_elsewhere(plain.bytes) || is_elsewhere(plain.at);
        return if missing {
            Err(bad("its end record points at one of zip64 that is not there"))
        } else {
            Ok(None)
        };
    };
    let before = &before[..before.len() - locator.len()];
    let record = before.last_chunk::<{ RECORD as usize }>().filter(|it| it.starts_with(&RECORD_SIGNATURE));
    let record = record.ok_or_else(|| bad("its zip64 end record is not where it belongs"))?;
    let at = from + (before.len() - record.len()) as u64;
    let told = Directory { entries: wide(record, 32), bytes: wide(record, 40), at: wide(record, 48) };
    let whole = wide(record, 4) == RECORD - 12 // it does not count its first two fields
        && (long(record, 16), long(record, 20), wide(record, 24)) == (0, 0, told.entries)
        && (long(locator, 4), wide(locator, 8)) == (0, at)
        && long(locator, 16) <= 1;
    if !whole {
        return Err(bad("its zip64 end record doesn't fit the file"));
    }
    let alike = |plain: u64, told: u64| is_elsewhere(plain) || plain == told;
    let counted = plain.entries == u64::from(u16::MAX) || plain.entries == told.entries;
    if !counted || !alike(plain.bytes, told.bytes) || !alike(plain.at, told.at) {
        return Err(bad("its two end records say different things"));
    }
    Ok(Some(told))
}

/// Reads over the directory, and refuses what says one number in two ways.
pub(super) fn judge<R: Read + Seek>(file: &mut R, directory: &Directory) -> Result<(), UnpackError> {
    let place = directory.place().ok_or_else(|| bad("its directory is nowhere"))?;
    let (mut at, mut found) = (place.start, 0);
    while at < place.end {
        let header: [u8; ENTRY] = read(file, at, place.end)?;
        if !header.starts_with(&ENTRY_SIGNATURE) {
            return Err(bad("its directory holds something else than entries"));
        }
        let (name, further) = (short(&header, 28), short(&header, 30));
        let said = [long(&header, 24), long(&header, 20), long(&header, 42)];
        let fields = read_fields(file, at + ENTRY as u64 + name, further, place.end)?;
        let [_, _, local] = numbers(&fields, said).map_err(bad)?;
        judge_local(file, local, place.start)?;
        at += ENTRY as u64 + name + further + short(&header, 32);
        found += 1;
    }
    if (at, found) == (place.end, directory.entries) {
        return Ok(());
    }
    Err(bad("its directory has not the entries that its end record counts"))
}

/// The header before an entry's bytes, which has to be before the directory.
fn judge_local<R: Read + Seek>(file: &mut R, at: u64, end: u64) -> Result<(), UnpackError> {
    let header: [u8; LOCAL] = read(file, at, end)?;
    let (name, further) = (short(&header, 26), short(&header, 28));
    let fields = read_fields(file, at + LOCAL as u64 + name, further, end)?;
    numbers(&fields, [long(&header, 22), long(&header, 18), 0]).map(drop).map_err(bad)
}

/// The numbers of a header: size, size as it is packed, place. Those that are elsewhere are in its field for them, in this order; one that
/// isn't may be there, too, if all are.
fn numbers(mut fields: &[u8], said: [u64; 3]) -> Result<[u64; 3], &'static str> {
    let mut found = None;
    while fields.len() >= 4 {
        let (kind, length) = (short(fields, 0), usize::from(fields[2]) | usize::from(fields[3]) << 8);
        let (content, after) =
            fields[4..].split_at_checked(length).ok_or("a further field of it is cut off")?;
        if kind == u64::from(FIELD) && found.replace(content).is_some() {
            return Err("an entry of it has two zip64 fields");
        }
        fields = after;
    }
    let missing = said.iter().filter(|number| is_elsewhere(**number)).count();
    let told = found.unwrap_or_default();
    let mut numbers = said;
    if missing > 0 && told.len() != 8 * missing {
        return Err("an entry of it has a zip64 field that doesn't have the numbers that are missing");
    }
    let mut told = told.chunks_exact(8).map(|bytes| wide(bytes, 0));
    for number in numbers.iter_mut().filter(|number| missing == 0 || is_elsewhere(**number)) {
        match told.next() {
            Some(other) if missing == 0 && other != *number => {
                return Err("an entry of it has two different sizes or places");
            }
            Some(other) => *number = other,
            None => break,
        }
    }
    Ok(numbers)
}

fn read<const N: usize>(file: &mut (impl Read + Seek), at: u64, end: u64) -> Result<[u8; N], UnpackError> {
    let mut bytes = [0; N];
    read_into(file, at, &mut bytes, end).map(|()| bytes)
}

fn read_fields(
    file: &mut (impl Read + Seek),
    at: u64,
    length: u64,
    end: u64,
) -> Result<Vec<u8>, UnpackError> {
    let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
    read_into(file, at, &mut bytes, end).map(|()| bytes)
}

/// Reads what has to be before `end`.
fn read_into(file: &mut (impl Read + Seek), at: u64, bytes: &mut [u8], end: u64) -> Result<(), UnpackError> {
    if at.checked_add(bytes.len() as u64).is_none_or(|after| after > end) {
        return Err(bad("a header of it is not where it is said to be"));
    }
    let done = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(bytes));
    done.map_err(|source| UnpackError::Read { entry: "the archive's directory".to_owned(), source })
}

#[cfg(test)]
mod tests;
