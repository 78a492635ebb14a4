//! Hostile and friendly archives, made here: what they come to on the disk.

#![allow(clippy::unwrap_used)]

use std::io::Cursor;

use proptest::prelude::*;
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::manifest::tests::grants;

const LIMITS: Limits = Limits { entries: 100, bytes: 8 << 20, ratio: 50 };

/// A disk that has room for so many bytes.
pub(super) struct Disk(pub(super) u64);

impl Room for Disk {
    fn set_aside(&mut self, needs: u64) -> Result<(), UnpackError> {
        let room = Left { bytes: self.0, others: 0 };
        if needs > self.0 { Err(UnpackError::Room { needs, room }) } else { Ok(()) }
    }

    fn take(&mut self, more: u64) -> Result<(), UnpackError> {
        self.0 = self.0.checked_sub(more).ok_or(UnpackError::Full(Left { bytes: self.0, others: 0 }))?;
        Ok(())
    }
}

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

/// A script that this machine can start.
const SCRIPT: &[u8] = b"#!/bin/sh\n";

/// A tar of `(name, content, mode)`.
pub(crate) fn tar_of(entries: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content, mode) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// A tar whose one entry is of another kind, at a name that a writer would not write.
fn odd(kind: tar::EntryType, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_cksum();
    let mut tar = tar::Builder::new(Vec::new());
    tar.append(&header, content).unwrap();
    tar.into_inner().unwrap()
}

/// Without the zeros at its end.
fn open_end(tar: &[u8]) -> &[u8] {
    &tar[..tar.len() - 1024]
}

fn zst(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 3).unwrap()
}

pub(super) fn try_unpack(archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    try_within(u64::MAX, archive)
}

fn try_within(room: u64, archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, UnpackError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("package.zip");
    fs::write(&path, archive).unwrap();
    let rules = Rules { limits: LIMITS, grants: grants() };
    let result = unpack(&path, &folder.path().join("out"), &rules, &mut Disk(room), &|| false);
    (folder, result)
}

pub(super) fn refusal(archive: &[u8]) -> String {
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
fn what_says_that_it_is_larger_than_there_is_room_for_is_refused_before_any_of_it_is_written() {
    let large = [("bin/app", SCRIPT, 0o755), ("static/large", &[7; 100_000][..], 0o644)];
    let tar = tar_of(&large);
    let mut sized = zstd::Encoder::new(Vec::new(), 3).unwrap();
    sized.set_pledged_src_size(Some(tar.len() as u64)).unwrap();
    sized.write_all(&tar).unwrap();
    for (archive, says) in [(zip_of(&large), 100_010), (sized.finish().unwrap(), tar.len() as u64)] {
        let (folder, result) = try_within(says - 1, &archive);
        let told = matches!(result, Err(UnpackError::Room { needs, room }) if (needs, room.bytes) == (says, says - 1));
        assert!(told, "{result:?}");
        assert_eq!(fs::read_dir(folder.path().join("out")).unwrap().count(), 0);
        assert!(try_within(says, &archive).1.is_ok());
    }
}

#[test]
fn what_does_not_say_or_lies_is_stopped_where_the_room_ends() {
    let large = [("bin/app", SCRIPT, 0o755), ("static/large", &[7; 100_000][..], 0o644)];
    let honest = zip_of(&large);
    let size = 100_000_u32.to_le_bytes();
    let mut lying = honest.clone();
    for at in (0..honest.len() - 4).filter(|at| honest[*at..*at + 4] == size) {
        lying[at..at + 4].copy_from_slice(&7_u32.to_le_bytes());
    }
    assert_ne!(lying, honest);
    for archive in [zst(&tar_of(&large)), lying] {
        let error = try_within(50_000, &archive).1.unwrap_err();
        assert!(matches!(error, UnpackError::Full(_)) || !error.is_of_room(), "{error}");
    }
    let error = try_within(50_000, &zst(&tar_of(&large))).1.unwrap_err();
    assert!(matches!(error, UnpackError::Full(_)) && error.is_of_room(), "{error}");
}

#[test]
fn a_package_is_unpacked_with_two_modes_only() {
    let entries: [(&str, &[u8], u32); 3] =
        [("bin/app", SCRIPT, 0o700), ("./bin/tool", b"x", 0o4777), ("static/a/b.txt", b"hello", 0o666)];
    for archive in [zip_of(&entries), zst(&tar_of(&entries))] {
        let (folder, result) = try_unpack(&archive);
        assert!(result.unwrap().has_app);
        let out = folder.path().join("out");
        let mode = |path: &str| fs::metadata(out.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            (mode("bin/app"), mode("bin/tool"), mode("static/a/b.txt"), mode("static/a")),
            (0o755, 0o755, 0o644, 0o755)
        );
        assert_eq!(fs::read(out.join("static/a/b.txt")).unwrap(), b"hello");
    }
}

#[test]
fn a_package_without_an_app_is_told_apart() {
    assert!(!try_unpack(&zip_of(&[("static/index.html", b"", 0o644)])).1.unwrap().has_app);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.add_directory("bin/app", options(0o755)).unwrap();
    assert!(!try_unpack(&zip.finish().unwrap().into_inner()).1.unwrap().has_app, "a folder is no app");
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
        assert!(refusal(bytes).starts_with("not a readable zip "));
    }
}

#[test]
fn a_deleted_application_stops_its_unpacking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("package.zip");
    for archive in [zip_of(&[("bin/app", SCRIPT, 0o755)]), zst(&tar_of(&[("bin/app", SCRIPT, 0o755)]))] {
        fs::write(&path, archive).unwrap();
        let into = tempfile::tempdir().unwrap();
        let rules = Rules { limits: LIMITS, grants: grants() };
        let result = unpack(&path, &into.path().join("out"), &rules, &mut Disk(u64::MAX), &|| true);
        assert!(matches!(result, Err(UnpackError::Cancelled)));
    }
}

#[test]
fn the_form_is_told_by_the_first_bytes() {
    let (_, result) = try_unpack(&zst(&tar_of(&[("bin/app", SCRIPT, 0o755)])));
    assert!(result.unwrap().has_app, "whatever the file is called");
    let said = refusal(&tar_of(&[("bin/app", SCRIPT, 0o755)]));
    assert_eq!(said, "not a readable zip or tar.zst archive: it begins like neither");
}

#[test]
fn what_tars_have_besides_files_and_folders_is_refused() {
    use tar::EntryType;
    for (kind, word) in [
        (EntryType::Symlink, "symbolic links"),
        (EntryType::Link, "hard links"),
        (EntryType::Char, "only files and folders"),
        (EntryType::Block, "only files and folders"),
        (EntryType::Fifo, "only files and folders"),
        (EntryType::GNUSparse, "sparse files"),
        (EntryType::new(b'K'), "only files and folders"),
        (EntryType::new(b'V'), "only files and folders"),
    ] {
        let said = refusal(&zst(&odd(kind, b"static/x", b"")));
        assert!(said.starts_with("illegal entry: static/x: ") && said.contains(word), "{kind:?}: {said}");
    }
    for (name, word) in [
        (&b"../../pwned"[..], "leads out"),
        (b"/tmp/pwned", "absolute"),
        (b"a\\b", "backslash"),
        (b"caf\xe9", "not UTF-8"),
    ] {
        let said = refusal(&zst(&odd(EntryType::Regular, name, b"x")));
        assert!(said.starts_with("illegal file path: ") && said.contains(word), "{said}");
    }
    assert!(refusal(&zst(&odd(EntryType::Regular, b"a/", b"x"))).contains("only files and folders"));
    assert!(refusal(&zst(&odd(EntryType::Directory, b"a/", b"x"))).contains("a folder has no content"));
    let twice = tar_of(&[("a", b"1", 0o644), ("./a", b"2", 0o644)]);
    assert_eq!(refusal(&zst(&twice)), "duplicate entry: a");
}

#[test]
fn long_names_come_in_two_ways_and_in_bounded_ones() {
    let name = format!("static/{}/{}", "x".repeat(120), "y".repeat(90));
    let (folder, result) = try_unpack(&zst(&tar_of(&[(&name, b"z", 0o644)])));
    assert!(!result.unwrap().has_app && folder.path().join("out").join(&name).is_file(), "GNU's");
    let pax = |records: &[(&str, &[u8])], kind: Option<u8>| {
        let mut tar = tar::Builder::new(Vec::new());
        tar.append_pax_extensions(records.iter().copied()).unwrap();
        let mut head = tar.into_inner().unwrap();
        head.truncate(head.len() - 1024);
        if let Some(kind) = kind {
            let mut header = tar::Header::new_ustar();
            header.as_mut_bytes().copy_from_slice(&head[..512]);
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_cksum();
            head[..512].copy_from_slice(header.as_bytes());
        }
        zst(&[&head[..], &tar_of(&[("short", b"z", 0o644)])].concat())
    };
    let (folder, result) = try_unpack(&pax(&[("mtime", b"1.5"), ("path", name.as_bytes())], None));
    assert!(result.is_ok() && folder.path().join("out").join(&name).is_file(), "pax's");
    let (folder, result) = try_unpack(&pax(&[("comment", b"abc")], Some(b'g')));
    assert!(result.is_ok() && folder.path().join("out/short").is_file(), "git's");
    assert!(refusal(&pax(&[("path", b"a")], Some(b'g'))).contains("pax sets path"), "of all entries");
    assert!(refusal(&pax(&[("path", b"../a")], None)).contains("leads out"));
    assert!(refusal(&pax(&[("path", b"a"), ("path", b"b")], None)).contains("pax sets path"));
    assert!(refusal(&pax(&[("size", b"0")], None)).contains("pax sets size; pack it with --format=gnu"));
    assert!(refusal(&pax(&[("GNU.sparse.major", b"1")], None)).contains("sparse files"));
    assert!(refusal(&pax(&[("path", b"a\n\nb")], None)).contains("malformed pax extension"));
    let long = odd(tar::EntryType::GNULongName, b"././@LongLink", &vec![b'x'; (64 << 10) + 1]);
    assert!(refusal(&zst(&long)).contains("a header is longer than 65536 bytes"));
    let name = odd(tar::EntryType::GNULongName, b"././@LongLink", b"abc\0");
    assert!(refusal(&zst(&name)).contains("it ends after a name"));
    let twice = [open_end(&name), &name].concat();
    assert!(refusal(&zst(&twice)).contains("abc: it is named twice"));
    let (folder, result) = try_unpack(&zst(&[open_end(&name), &tar_of(&[("b", b"", 0o644)])].concat()));
    assert!(result.is_ok() && folder.path().join("out/abc").is_file());
}

#[test]
fn a_tar_that_swells_is_stopped_wherever_it_does() {
    assert_eq!(
        refusal(&zst(&tar_of(&[("bin/app", &vec![0; 4 << 20], 0o755)]))),
        "archive swells to more than 50 times its size"
    );
    let random: Vec<u8> =
        (0..9_u32 << 18).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    assert_eq!(
        refusal(&zst(&tar_of(&[("bin/app", &random, 0o755)]))),
        "unpacked size is over the limit of 8388608 bytes"
    );
    let zeros = [tar_of(&[("a", b"", 0o644)]), vec![0; 64 << 20]].concat();
    assert_eq!(refusal(&zst(&zeros)), "archive swells to more than 50 times its size");
    let names: Vec<_> = (0..101).map(|n| format!("f{n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| (name.as_str(), &b""[..], 0o644)).collect();
    assert_eq!(refusal(&zst(&tar_of(&entries))), "too many entries: 101, the limit is 100");
    let page = odd(tar::EntryType::XGlobalHeader, b"g", b"");
    let pages = open_end(&page).repeat(201);
    assert_eq!(refusal(&zst(&pages)), "too many entries: 201, the limit is 100");
}

#[test]
fn a_window_that_takes_much_memory_is_refused() {
    let tar = tar_of(&[("bin/app", SCRIPT, 0o755)]);
    let packed = |log: u32| {
        let mut encoder = zstd::Encoder::new(Vec::new(), 3).unwrap();
        encoder.window_log(log).unwrap();
        encoder.write_all(&tar).unwrap();
        encoder.finish().unwrap()
    };
    assert!(try_unpack(&packed(23)).1.is_ok());
    let said = refusal(&packed(24));
    assert!(said.contains("a window of more than 8 MiB") && said.contains("without --long"), "{said}");
}

#[test]
fn a_tar_that_is_cut_off_or_goes_on_behind_its_end_is_refused() {
    let tar = tar_of(&[("bin/app", SCRIPT, 0o755), ("b", &[7; 600], 0o644)]);
    for length in [100, 512 + 5, 1024 + 512 + 5] {
        assert!(refusal(&zst(&tar[..length])).starts_with("not a readable tar.zst archive: "), "{length}");
    }
    let whole = zst(&tar);
    for length in 4..whole.len() {
        assert!(try_unpack(&whole[..length]).1.is_err(), "{length}");
    }
    let said = refusal(&zst(&[&tar[..], b"more"].concat()));
    assert!(said.contains("there is something behind its end"), "{said}");
    for more in [b"more".to_vec(), zst(&[]), zst(&tar)] {
        let said = refusal(&[&whole[..], &more].concat());
        assert!(said.contains("there is something behind its first frame"), "{said}");
    }
    assert!(try_unpack(&[zst(&tar[..700]), zst(&tar[700..])].concat()).1.is_err());
    let mut bad = tar;
    bad[148] ^= 1;
    assert!(refusal(&zst(&bad)).contains("checksum"));
}

#[test]
fn an_app_that_cannot_be_started_is_refused_with_the_reason() {
    let other = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let said = refusal(&zip_of(&[("bin/app", &program::tests::elf(other, None), 0o755)]));
    assert!(said.starts_with("bin/app is for ") && said.contains("this machine is"), "{said}");
    let said = refusal(&zip_of(&[("bin/app", b"echo hello", 0o755)]));
    assert!(said.starts_with("bin/app is neither a program"), "{said}");
    let said = refusal(&zip_of(&[("bin/app", SCRIPT, 0o644)]));
    assert!(said.starts_with("illegal entry: bin/app: it is not executable"), "{said}");
    let own = "#!/app/bin/own\n".as_bytes();
    assert!(refusal(&zip_of(&[("bin/app", own, 0o755)])).contains("needs the interpreter /app/bin/own"));
    let with = zip_of(&[("bin/app", own, 0o755), ("bin/own", SCRIPT, 0o755)]);
    assert!(try_unpack(&with).1.is_ok(), "an interpreter of its own");
}

#[test]
fn the_files_to_serve_are_where_the_manifest_says() {
    let with = |manifest: &str, more: &[(&str, &[u8], u32)]| {
        let own = ("nexushub.toml", manifest.as_bytes(), 0o644);
        try_unpack(&zip_of(&[&[("bin/app", SCRIPT, 0o755), own], more].concat()))
    };
    let page: (&str, &[u8], u32) = ("web/dist/index.html", b"<html>", 0o644);
    let (folder, result) = with("static = \"web/dist\"\nspa = true\nversion = \"7\"", &[page]);
    assert_eq!(result.unwrap().manifest.version.as_deref(), Some("7"));
    let read = |name: &str| fs::read(folder.path().join("out").join(name)).unwrap();
    assert_eq!((read("static/index.html"), read("static/200.html")), (page.1.to_vec(), page.1.to_vec()));
    let said = |manifest: &str, more: &[(&str, &[u8], u32)]| with(manifest, more).1.unwrap_err().to_string();
    let both = [page, ("static/x", b"", 0o644)];
    assert!(said("static = \"web/dist\"", &both).contains("there is a folder static beside it"));
    assert!(said("static = \"dist\"", &[page]).contains("there is no folder dist"));
    assert!(said("spa = true", &[page]).contains("there is no static/index.html to answer with"));
    let own = [("static/200.html", &b"own"[..], 0o644), ("static/index.html", b"", 0o644)];
    let (folder, result) = with("spa = true", &own);
    assert!(result.is_ok());
    assert_eq!(fs::read(folder.path().join("out/static/200.html")).unwrap(), b"own");
    assert!(said("port = 80", &[]).starts_with("nexushub.toml, line 1: unknown field `port`"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn garbage_never_panics(at in 0_usize..400, value in any::<u8>(), cut in 0_usize..400) {
        let mut archive = zip_of(&[("bin/app", SCRIPT, 0o755), ("static/x", b"world", 0o644)]);
        let length = archive.len();
        archive[at % length] = value;
        archive.truncate(length - cut % length * usize::from(value > 250));
        let (folder, _) = try_unpack(&archive);
        prop_assert!(fs::read_dir(folder.path()).unwrap().count() <= 2);
    }

    #[test]
    fn garbage_in_a_tar_never_panics(at in 0_usize..2048, value in any::<u8>(), cut in 0_usize..2048) {
        let mut tar = tar_of(&[("bin/app", SCRIPT, 0o755), ("static/x", b"world", 0o644)]);
        tar[at] = value;
        tar.truncate(if value > 250 { cut } else { tar.len() });
        let (folder, _) = try_unpack(&zst(&tar));
        prop_assert!(fs::read_dir(folder.path()).unwrap().count() <= 2);
    }
}
