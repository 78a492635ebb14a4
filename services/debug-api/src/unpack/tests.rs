//! Hostile and friendly archives, made here.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use proptest::prelude::*;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;

const LIMITS: Limits = Limits { entries: 100, bytes: 8 << 20, ratio: 50 };

fn options(mode: u32) -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Deflated).unix_permissions(mode)
}

/// A zip of `(name, content, mode)`.
pub(crate) fn zip_of(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content, mode) in entries {
        zip.start_file(*name, options(*mode)).unwrap();
        zip.write_all(content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn try_unpack(archive: &[u8]) -> (tempfile::TempDir, Result<bool, UnpackError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("package.zip");
    fs::write(&path, archive).unwrap();
    let result = unpack(&path, &folder.path().join("out"), LIMITS, &|| false);
    (folder, result)
}

fn refusal(archive: &[u8]) -> String {
    let (folder, result) = try_unpack(archive);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "out" || name == "package.zip"), "something escaped: {names:?}");
    nexushub_chassis::chain(&result.unwrap_err())
}

/// The same bytes with every `from` replaced: names a writer would refuse to write.
fn forged(archive: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = archive.to_vec();
    for at in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[at..].starts_with(from.as_bytes()) {
            bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
    }
    bytes
}

#[test]
fn a_package_is_unpacked_with_two_modes_only() {
    let archive = zip_of(&[
        ("bin/app", b"#!", 0o600),
        ("./bin/tool", b"x", 0o4777),
        ("static/a/b.txt", b"hello", 0o666),
    ]);
    let (folder, result) = try_unpack(&archive);
    assert!(result.unwrap());
    let out = folder.path().join("out");
    let mode = |path: &str| fs::metadata(out.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("bin/app"), mode("bin/tool"), mode("static/a/b.txt"), mode("static/a")),
        (0o755, 0o755, 0o644, 0o755)
    );
    assert_eq!(fs::read(out.join("static/a/b.txt")).unwrap(), b"hello");
}

#[test]
fn a_package_without_an_app_is_told_apart() {
    assert!(!try_unpack(&zip_of(&[("static/index.html", b"", 0o644)])).1.unwrap());
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_directory("bin/app", options(0o755)).unwrap();
    assert!(!try_unpack(&zip.finish().unwrap().into_inner()).1.unwrap(), "a folder is no app");
}

#[test]
fn names_that_lead_out_are_refused() {
    let plain = zip_of(&[("bin/app", b"", 0o755), ("aaa/bbb/pwned", b"x", 0o644)]);
    for (name, why) in [
        ("../..//pwned_", "illegal file path"),
        ("/tmp/bb/pwned", "it is absolute"),
        ("aaa/../../pwn", "it leads out"),
        ("aaa\\..\\..\\pwn", "backslash"),
        ("C:/aaaa/pwned", "colon"),
        ("aaa/\u{1}bb/pwned", "control character"),
    ] {
        let said = refusal(&forged(&plain, "aaa/bbb/pwned", name));
        assert!(said.contains("illegal file path") && said.contains(why), "{name:?}: {said}");
    }
}

#[test]
fn links_and_devices_are_refused() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_symlink("bin/app", "/bin/sh", options(0o777)).unwrap();
    let said = refusal(&zip.finish().unwrap().into_inner());
    assert!(said.contains("symbolic links are not accepted"), "{said}");
    // A fifo: the file type sits in the upper half of the external attributes of the directory's record.
    let mut archive = zip_of(&[("bin/app", b"x", 0o755)]);
    let record = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    archive[record + 40..record + 42].copy_from_slice(&0o010_644_u16.to_le_bytes());
    let said = refusal(&archive);
    assert!(said.contains("only files and folders"), "{said}");
}

#[test]
fn a_bomb_is_refused_by_ratio_and_by_size() {
    let said = refusal(&zip_of(&[("bin/app", &vec![0; 4 << 20], 0o755)]));
    assert_eq!(said, "archive swells to more than 50 times its size");
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = options(0o644).compression_method(CompressionMethod::Stored);
    zip.start_file("big", stored).unwrap();
    zip.write_all(&vec![1; 9 << 20]).unwrap();
    assert_eq!(
        refusal(&zip.finish().unwrap().into_inner()),
        "unpacked size is over the limit of 8388608 bytes"
    );
}

#[test]
fn an_archive_that_lies_about_its_sizes_is_refused() {
    let mut archive = zip_of(&[("bin/app", &vec![0; 4 << 20], 0o755)]);
    let record = archive.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    archive[record + 24..record + 28].copy_from_slice(&1_u32.to_le_bytes());
    refusal(&archive);
}

#[test]
fn too_many_entries_are_refused_before_they_are_read() {
    let names: Vec<_> = (0..101).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..], 0o644)).collect();
    assert_eq!(refusal(&zip_of(&entries)), "too many entries: 101, the limit is 100");
}

#[test]
fn one_name_twice_is_refused_however_it_is_spelled() {
    let twice = zip_of(&[("bin/app", b"1", 0o755), ("bin/apq", b"2", 0o755)]);
    assert!(refusal(&forged(&twice, "bin/apq", "bin/app")).contains("duplicate entry"));
    assert!(refusal(&zip_of(&[("a/b", b"", 0o644), ("./a/b", b"", 0o644)])).contains("duplicate entry"));
    assert!(refusal(&zip_of(&[("a", b"", 0o644), ("a/b", b"", 0o644)])).contains("duplicate entry"));
    assert!(refusal(&zip_of(&[("a/b", b"", 0o644), ("a", b"", 0o644)])).contains("duplicate entry"));
}

#[test]
fn a_flipped_byte_is_noticed() {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("bin/app", options(0o755).compression_method(CompressionMethod::Stored)).unwrap();
    zip.write_all(b"content").unwrap();
    let archive = forged(&zip.finish().unwrap().into_inner(), "content", "contend");
    assert!(refusal(&archive).contains("could not unpack bin/app"));
}

#[test]
fn what_is_no_archive_is_refused() {
    let whole = zip_of(&[("bin/app", b"x", 0o755)]);
    for bytes in [
        &b""[..],
        b"PK",
        b"hello, world",
        &whole[..whole.len() - 1],
        &whole[1..],
        &[whole.clone(), b"x".to_vec()].concat(),
    ] {
        assert!(refusal(bytes).contains("not a readable zip archive"));
    }
}

#[test]
fn a_deleted_application_stops_its_unpacking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("package.zip");
    fs::write(&path, zip_of(&[("bin/app", b"x", 0o755)])).unwrap();
    let result = unpack(&path, &folder.path().join("out"), LIMITS, &|| true);
    assert!(matches!(result, Err(UnpackError::Cancelled)));
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

    #[test]
    fn garbage_never_panics(at in 0_usize..400, value in any::<u8>(), cut in 0_usize..400) {
        let mut archive = zip_of(&[("bin/app", b"hello", 0o755), ("static/x", b"world", 0o644)]);
        let length = archive.len();
        archive[at % length] = value;
        archive.truncate(length - cut % length * usize::from(value > 250));
        let (folder, _) = try_unpack(&archive);
        prop_assert!(fs::read_dir(folder.path()).unwrap().count() <= 2);
    }
}
