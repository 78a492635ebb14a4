//! Numbers of 64 bits, honest and forged, and archives that need them.

#![allow(clippy::unwrap_used)]

use std::{io::Cursor, os::unix::fs::FileExt, path::Path};

use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::unpack::{
    Limits, Room, Store, Unpacking,
    judge::Judge,
    tests::{Disk, refusal, try_unpack, zip_of},
    unread, zipped,
};

const ONES: u64 = u32::MAX as u64;

fn field(kind: u16, numbers: &[u64]) -> Vec<u8> {
    let content: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let length = u16::try_from(content.len()).unwrap();
    [&kind.to_le_bytes()[..], &length.to_le_bytes(), &content].concat()
}

#[test]
fn a_number_that_is_elsewhere_is_found_and_one_that_is_told_twice_is_told_alike() {
    let other = field(0x7875, &[7]);
    assert_eq!(numbers(&other, [1, 2, 3]), Ok([1, 2, 3]));
    let huge = u64::MAX - 1;
    for (said, told, all) in [
        ([ONES, 2, 3], &[huge][..], [huge, 2, 3]),
        ([1, ONES, 3], &[9], [1, 9, 3]),
        ([ONES, 2, ONES], &[8, 9], [8, 2, 9]),
        ([ONES, ONES, ONES], &[7, 8, 9], [7, 8, 9]),
        ([1, 2, 3], &[1, 2], [1, 2, 3]),
        ([1, 2, 3], &[1, 2, 3], [1, 2, 3]),
    ] {
        let fields = [&other[..], &field(FIELD, told)].concat();
        assert_eq!(numbers(&fields, said), Ok(all), "{said:?} {told:?}");
    }
}

#[test]
fn numbers_that_can_be_read_in_two_ways_are_refused() {
    let twice = [field(FIELD, &[7]), field(FIELD, &[8])].concat();
    assert!(numbers(&twice, [ONES, 2, 3]).unwrap_err().contains("two zip64 fields"));
    for (said, told) in [
        ([ONES, 2, 3], &[7, 8][..]),
        ([ONES, 2, 3], &[]),
        ([ONES, ONES, 3], &[7]),
        ([1, 2, ONES], &[1, 2, 3]),
    ] {
        let said = numbers(&field(FIELD, told), said).unwrap_err();
        assert!(said.contains("the numbers that are missing"), "{said}");
    }
    assert!(numbers(&[], [ONES, 2, 3]).is_err());
    for told in [&[7][..], &[1, 7], &[1, 2, 7]] {
        assert!(numbers(&field(FIELD, told), [1, 2, 3]).unwrap_err().contains("two different"), "{told:?}");
    }
    let cut = &field(FIELD, &[7])[..10];
    assert!(numbers(cut, [ONES, 2, 3]).unwrap_err().contains("cut off"));
}

/// Where the end record is in an archive without a comment, and those of zip64 before it; from its end.
const END: usize = 22;
const LOCATED: usize = END + LOCATOR as usize;
const RECORDED: usize = LOCATED + RECORD as usize;

/// The end records of an archive with a directory of so many entries and bytes at this place, which only those of zip64 tell.
fn ends(entries: u64, bytes: u64, at: u64) -> Vec<u8> {
    let mut ends = RECORD_SIGNATURE.to_vec();
    ends.extend_from_slice(&(RECORD - 12).to_le_bytes());
    ends.extend_from_slice(&[45, 0, 45, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    [entries, entries, bytes, at].iter().for_each(|number| ends.extend_from_slice(&number.to_le_bytes()));
    ends.extend_from_slice(&LOCATOR_SIGNATURE);
    ends.extend_from_slice(&[0; 4]);
    ends.extend_from_slice(&(at + bytes).to_le_bytes());
    ends.extend_from_slice(&[1, 0, 0, 0]);
    ends.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    ends.extend_from_slice(&[0xff; 12]);
    ends.extend_from_slice(&[0, 0]);
    ends
}

/// The same archive, but what its end record says is said by one of zip64.
fn widened(archive: &[u8]) -> Vec<u8> {
    let (body, end) = archive.split_at(archive.len() - END);
    [body, &ends(short(end, 10), long(end, 12), long(end, 16))].concat()
}

/// The same bytes with some replaced, so many from the end.
fn forged(archive: &[u8], from_end: usize, bytes: &[u8]) -> Vec<u8> {
    let (mut forged, at) = (archive.to_vec(), archive.len() - from_end);
    forged[at..at + bytes.len()].copy_from_slice(bytes);
    forged
}

#[test]
fn an_end_record_of_zip64_is_believed_and_one_that_can_be_read_in_two_ways_is_not() {
    let wide = widened(&zip_of(&[("bin/app", b"#!/bin/sh\n", 0o755), ("static/a", b"a", 0o644)]));
    assert!(try_unpack(&wide).1.unwrap().has_app);
    let alike = forged(&wide, END - 8, &[2, 0, 2, 0]);
    assert!(try_unpack(&alike).1.unwrap().has_app);
    let most = u64::MAX.to_le_bytes();
    for (from_end, bytes, why) in [
        (LOCATED, &b"PK\x06\x08"[..], "points at one of zip64 that is not there"),
        (LOCATED - 4, &[1], "doesn't fit the file"),
        (LOCATED - 8, &[0; 8], "doesn't fit the file"),
        (LOCATED - 8, &most, "doesn't fit the file"),
        (LOCATED - 16, &[2], "doesn't fit the file"),
        (RECORDED, b"PK\x06\x09", "not where it belongs"),
        (RECORDED - 4, &[45], "doesn't fit the file"),
        (RECORDED - 16, &[1], "doesn't fit the file"),
        (RECORDED - 24, &[1], "doesn't fit the file"),
        (RECORDED - 40, &most, "doesn't fit the file"),
        (RECORDED - 48, &most, "doesn't fit the file"),
        (RECORDED - 24, &[most, most].concat(), "too many entries: 18446744073709551615, the limit is 100"),
        (RECORDED - 24, &[3_u64.to_le_bytes(), 3_u64.to_le_bytes()].concat(), "has not the entries"),
        (END - 8, &[1, 0, 1, 0], "say different things"),
        (END - 12, &[1, 0, 0, 0], "say different things"),
        (END - 16, &[1, 0, 0, 0], "say different things"),
    ] {
        let said = refusal(&forged(&wide, from_end, bytes));
        assert!(said.contains(why), "{from_end}: {said}");
    }
}

/// What a header says of its entry's sizes and place, and the numbers in its field for them.
type Said<'a> = ([u64; 3], &'a [u64]);

fn longs(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| u32::try_from(*number).unwrap().to_le_bytes()).collect()
}

/// The header before a file's bytes and that in the directory, which say this; `sum` = CRC-32 of the bytes.
fn headers(name: &str, sum: u32, local: Said<'_>, listed: Said<'_>) -> [Vec<u8>; 2] {
    let header = |begin: &[u8], (said, told): Said<'_>, behind: &[u8]| {
        let fields = if told.is_empty() { Vec::new() } else { field(FIELD, told) };
        let lengths = [name.len(), fields.len()].map(|length| u16::try_from(length).unwrap().to_le_bytes());
        let mut header = [begin, &[0; 8], &sum.to_le_bytes(), &longs(&[said[1], said[0]])].concat();
        header.extend_from_slice(&lengths.concat());
        header.extend_from_slice(&[behind, name.as_bytes(), &fields].concat());
        header
    };
    let rights = 0o100_644_u32.rotate_left(16).to_le_bytes();
    let behind = [&[0; 6][..], &rights, &longs(&listed.0[2..])].concat();
    [header(b"PK\x03\x04\x2d\0", local, &[]), header(b"PK\x01\x02\x2d\x03\x2d\0", listed, &behind)]
}

/// An archive of one file of five bytes, of which the header before it and that in the directory say this.
fn archive(local: Said<'_>, listed: Said<'_>) -> Vec<u8> {
    let [header, directory] = headers("static/a", 0x3610_a686, local, listed);
    let zip = [&header[..], b"hello"].concat();
    let end = longs(&[directory.len() as u64, zip.len() as u64]);
    [&zip[..], &directory, b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &end, &[0, 0]].concat()
}

#[test]
fn sizes_and_places_of_64_bits_are_believed_and_those_that_are_told_in_two_ways_are_not() {
    let plain = ([5, 5, 0], &[][..]);
    for (local, listed) in [
        (plain, plain),
        (([ONES, ONES, 0], &[5, 5][..]), ([ONES, ONES, ONES], &[5, 5, 0][..])),
        (([ONES, ONES, 0], &[5, 5]), ([5, 5, ONES], &[0])),
        (plain, ([5, 5, 0], &[5, 5, 0])),
    ] {
        let (folder, result) = try_unpack(&archive(local, listed));
        assert!(result.is_ok(), "{local:?} {listed:?}: {result:?}");
        assert_eq!(std::fs::read(folder.path().join("out/static/a")).unwrap(), b"hello");
    }
    let most = u64::MAX;
    for (local, listed, why) in [
        (([ONES, ONES, 0], &[5, 6][..]), plain, "size mismatch"),
        (([ONES, ONES, 0], &[6, 5]), plain, "size mismatch"),
        (([4, 5, 0], &[]), plain, "size mismatch"),
        (([5, 5, 0], &[5, 6]), plain, "two different sizes"),
        (plain, ([5, 5, 0], &[5, 5, 1]), "two different sizes or places"),
        (plain, ([ONES, 5, 0], &[5, 5][..]), "numbers that are missing"),
        (plain, ([5, 5, ONES], &[most]), "not where it is said to be"),
        (plain, ([5, 5, ONES], &[most - 29]), "not where it is said to be"),
        (([ONES, ONES, 0], &[5, most]), ([5, ONES, 0], &[most]), "overflows"),
        (([ONES, ONES, 0], &[5, 6]), ([5, ONES, 0], &[6]), "overlapping"),
        (
            ([ONES, ONES, 0], &[most, 5]),
            ([ONES, 5, 0], &[most]),
            "has 5 bytes, and says that it has 18446744073709551615",
        ),
    ] {
        let said = refusal(&archive(local, listed));
        assert!(said.contains(why), "{local:?} {listed:?}: {said}");
    }
}

/// Keeps nothing but how much there was.
#[derive(Default)]
struct Counted {
    files: u64,
    bytes: u64,
}

impl Store for Counted {
    fn folder(&mut self, _: &Path) -> Result<(), UnpackError> {
        Ok(())
    }

    fn file(&mut self, path: &Path, _: u32, content: &mut dyn Read) -> Result<(), UnpackError> {
        self.files += 1;
        self.bytes += std::io::copy(content, &mut std::io::sink()).map_err(|error| unread(path, error))?;
        Ok(())
    }
}

fn counted(file: impl Read + Seek, size: u64, limits: Limits) -> Result<Counted, UnpackError> {
    let mut counted = Counted::default();
    let mut room = Disk(u64::MAX);
    let mut unpacking =
        Unpacking::new(Judge::new(limits, size), &mut room as &mut dyn Room, &mut counted, &|| false);
    zipped::read(file, size, &mut unpacking).map(|()| counted)
}

const LARGE: Limits = Limits { entries: 70_000, bytes: 5 << 30, ratio: 2 };

#[test]
fn more_entries_than_16_bits_can_count_are_counted() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let names: Vec<String> = (0..66_000).map(|number| format!("f{number}")).collect();
    names.iter().for_each(|name| zip.start_file(&**name, SimpleFileOptions::default()).unwrap());
    let archive = zip.finish().unwrap().into_inner();
    let read = |limits| counted(Cursor::new(&archive), archive.len() as u64, limits);
    assert_eq!(read(LARGE).unwrap().files, 66_000);
    let said = read(Limits { entries: 65_999, ..LARGE }).err().unwrap().to_string();
    assert_eq!(said, "too many entries: 66000, the limit is 65999");
}

#[test]
fn more_bytes_than_32_bits_can_count_are_counted() {
    let (bytes, sum) = ((1 << 32) + 1, 0x0db0_02a1); // zeros but for the last; nobody writes them, so they take no room
    let large = ([ONES, ONES, 0], &[bytes, bytes][..]);
    let [before, listed] = headers("large", sum, large, large);
    let at = before.len() as u64 + bytes;
    let [header, behind] = headers("behind", 0, ([0; 3], &[]), ([0, 0, ONES], &[at]));
    let directory = [listed, behind].concat();
    let ends = ends(2, directory.len() as u64, at + header.len() as u64);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&before, 0).unwrap();
    file.write_all_at(&[&b"!"[..], &header, &directory, &ends].concat(), at - 1).unwrap();
    let size = file.metadata().unwrap().len();
    let found = counted(&file, size, LARGE).unwrap();
    assert_eq!((found.files, found.bytes), (2, bytes));
    let mut judge = Judge::new(Limits { bytes: 1 << 32, ..LARGE }, size);
    judge.bytes(1 << 32).unwrap();
    let said = judge.bytes(1).unwrap_err().to_string();
    assert_eq!(said, "unpacked size is over the limit of 4294967296 bytes");
}
