//! An upload's files after whatever came, and after a process that ended in the middle of it.

#![allow(clippy::unwrap_used)]

use md5::Digest;
use sha2::Sha256;

use super::*;
use crate::digests::Algorithm;

fn begun(folder: &Path) -> Sheet {
    Sheet::create(folder, "t", About::new(Ends::AtLength, Some(10), None)).unwrap()
}

fn again(folder: &Path) -> Sheet {
    Sheet::read(folder, "t").unwrap().unwrap()
}

fn pieces(all: &[&str], end: bool) -> mpsc::Receiver<Piece> {
    let (sender, receiver) = mpsc::channel(16);
    for piece in all {
        sender.try_send(Piece::Bytes(Bytes::copy_from_slice(piece.as_bytes()))).unwrap();
    }
    if end {
        sender.try_send(Piece::End).unwrap();
    }
    receiver
}

fn sum_of(text: &str) -> Option<Checksum> {
    Checksum::new(Algorithm::Sha256, Sha256::digest(text).to_vec())
}

fn sha256(sheet: &mut Sheet) -> String {
    sheet.digest(&|| false).unwrap().unwrap().to_string()
}

#[test]
fn what_came_is_kept_even_if_there_is_more_that_did_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut sheet = begun(folder.path());
    sheet.take_down(pieces(&["one", "two"], false), None).unwrap();
    drop(sheet);
    let mut sheet = again(folder.path());
    assert_eq!((sheet.length(), sheet.is_whole()), (6, false));
    sheet.take_down(pieces(&["last"], true), None).unwrap();
    assert_eq!((sheet.length(), sheet.is_whole()), (10, true));
    assert_eq!(sha256(&mut sheet), Sha256Hex::of(&Sha256::digest("onetwolast")).unwrap().to_string());
    assert_eq!(fs::read(&sheet.data_path).unwrap(), b"onetwolast");
}

#[test]
fn the_digest_is_of_all_bytes_whether_they_were_seen_or_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut sheet = begun(folder.path());
    sheet.take_down(pieces(&["onetwolast"], true), None).unwrap();
    assert_eq!(sheet.running.bytes(), 10, "seen");
    let seen = sheet.digest(&|| false).unwrap();
    let mut later = again(folder.path());
    assert_eq!(later.digest(&|| true).unwrap(), None, "given up");
    assert_eq!(later.digest(&|| false).unwrap(), seen);
    assert_eq!(later.digest(&|| false).unwrap(), seen, "and again");
}

#[test]
fn of_a_long_request_the_digest_is_there_with_its_last_byte() {
    let folder = tempfile::tempdir().unwrap();
    let mut sheet = Sheet::create(folder.path(), "t", About::new(Ends::AtLength, None, None)).unwrap();
    let (sender, receiver) = mpsc::channel(2);
    let piece = Bytes::from(vec![7; 1 << 20]);
    let sent = piece.clone();
    let sending = std::thread::spawn(move || {
        (0..70).for_each(|_| sender.blocking_send(Piece::Bytes(sent.clone())).unwrap());
        sender.blocking_send(Piece::End).unwrap();
    });
    sheet.take_down(receiver, None).unwrap();
    sending.join().unwrap();
    assert_eq!((sheet.length(), sheet.running.bytes()), (70 << 20, 70 << 20));
    let mut whole = Sha256::new();
    (0..70).for_each(|_| whole.update(&piece));
    assert_eq!(sha256(&mut sheet), Sha256Hex::of(&whole.finalize()).unwrap().to_string());
}

#[test]
fn bytes_with_a_checksum_count_all_or_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut sheet = begun(folder.path());
    sheet.take_down(pieces(&["one"], true), sum_of("one")).unwrap();
    assert_eq!(sheet.length(), 3);
    let wrong = sheet.take_down(pieces(&["t", "wo"], true), sum_of("two!"));
    assert!(matches!(wrong, Err(Unkept::Checksum)));
    let half = sheet.take_down(pieces(&["t", "wo"], false), sum_of("two"));
    assert!(matches!(half, Err(Unkept::Checksum)), "the end is missing");
    assert_eq!((sheet.length(), fs::read(&sheet.data_path).unwrap()), (3, b"one".to_vec()));
    sheet.take_down(pieces(&["two"], true), sum_of("two")).unwrap();
    assert_eq!(sha256(&mut sheet), Sha256Hex::of(&Sha256::digest("onetwo")).unwrap().to_string());
    assert_eq!(again(folder.path()).about.unproven_from, None);
}

#[test]
fn bytes_whose_checksum_was_not_found_right_before_a_crash_do_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let mut sheet = begun(folder.path());
    sheet.take_down(pieces(&["one"], true), None).unwrap();
    sheet.about.unproven_from = Some(3);
    sheet.keep_about().unwrap();
    sheet.write(b"unproven").unwrap();
    drop(sheet);
    assert_eq!(again(folder.path()).length(), 3);
    assert_eq!(fs::read(folder.path().join("t.data")).unwrap(), b"one");
    let text = fs::read_to_string(folder.path().join("t.json")).unwrap();
    assert!(text.contains("\"unproven_from\":null"), "{text}");
}

#[test]
fn a_place_is_taken_once_however_often_it_is_tried() {
    let folder = tempfile::tempdir().unwrap();
    let package = folder.path().join("package.zip");
    let mut sheet = begun(folder.path());
    sheet.take_down(pieces(&["onetwolast"], true), None).unwrap();
    let file = upload::File { hash: None, sha256: sheet.digest(&|| false).unwrap(), total: 1 };
    sheet.place(file.clone(), &folder.path().join("no/folder")).unwrap_err();
    assert!(sheet.is_whole(), "nothing is lost");
    sheet.place(file.clone(), &package).unwrap();
    let mut sheet = again(folder.path());
    assert_eq!((sheet.length(), sheet.is_open(), &sheet.about.stage), (10, false, &Stage::Placing(file)));
    sheet.take_place(&package).unwrap();
    assert_eq!(fs::read(&package).unwrap(), b"onetwolast");
    sheet.placed().unwrap();
    assert_eq!(again(folder.path()).about.stage, Stage::Placed);
    forget(folder.path(), "t").unwrap();
    assert!(Sheet::read(folder.path(), "t").is_err());
}

#[test]
fn what_can_not_be_gone_on_with_is_none_and_what_was_removed_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let mut sheet = begun(folder.path());
    fs::write(folder.path().join("torn.json"), "{").unwrap();
    assert!(Sheet::read(folder.path(), "torn").unwrap().is_none());
    fs::copy(folder.path().join("t.json"), folder.path().join("lost.json")).unwrap();
    assert!(Sheet::read(folder.path(), "lost").unwrap().is_none(), "without its bytes");
    sheet.remove().unwrap();
    assert!(sheet.is_removed() && Sheet::read(folder.path(), "t").is_err());
    assert!(!folder.path().join("t.data").exists());
    assert!(sheet.take_down(pieces(&["x"], true), None).is_err());
}

#[tokio::test]
async fn who_comes_later_ends_who_came_before() {
    let folder = tempfile::tempdir().unwrap();
    let transfer = Transfer::new("t".to_owned(), begun(folder.path()));
    let first = transfer.claim();
    let sheet = transfer.sheet().await;
    let second = transfer.claim();
    assert!(first.is_cancelled() && !second.is_cancelled());
    let waiting = tokio::spawn({
        let transfer = Arc::clone(&transfer);
        async move { transfer.sheet().await.length() }
    });
    drop(sheet);
    assert_eq!(waiting.await.unwrap(), 0);
    assert!(!second.is_cancelled());
}

#[test]
fn a_file_name_tells_of_an_upload_only_if_it_is_whole() {
    assert_eq!(id_of("x.json"), Some("x"));
    for name in ["x.data", "x", ".x.json.tmp", ".x.json"] {
        assert_eq!(id_of(name), None, "{name}");
    }
}
