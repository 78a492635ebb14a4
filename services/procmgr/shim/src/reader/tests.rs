//! The reader against a writer that goes on, rotates, deletes and leaves damage.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};

use super::*;
use crate::frame::{HEADER, cursor};
use crate::segment::{BUDGET_MIN, Writer, list};

struct Log {
    folder: tempfile::TempDir,
    writer: Writer,
}

impl Log {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let writer = generation(folder.path(), 1);
        Self { folder, writer }
    }

    fn next_generation(&mut self, number: u64) {
        self.writer = generation(self.folder.path(), number);
    }

    fn write(&mut self, text: &str) {
        self.writer.line(Stream::Stdout, false, 5, text.as_bytes());
        self.writer.flush(5);
    }

    /// Begins a new segment with the next line.
    fn fill_segment(&mut self) {
        let before = list(self.folder.path()).unwrap().len();
        let mut count = 0;
        while list(self.folder.path()).unwrap().len() == before {
            self.write(&"x".repeat(40_000));
            count += 1;
            assert!(count < 10);
        }
    }

    fn reader(&self) -> Reader {
        Reader::new(self.folder.path())
    }

    fn newest(&self) -> PathBuf {
        self.folder.path().join(list(self.folder.path()).unwrap().last().unwrap().0.to_string())
    }
}

fn generation(folder: &Path, number: u64) -> Writer {
    Writer::new(folder, number, 42, 4 * BUDGET_MIN, 0).unwrap()
}

/// Lines as text (cut to 9 bytes), gaps as `-<count>`.
fn words(batch: &Batch) -> Vec<String> {
    let word = |item: &Item| match item {
        Item::Entry(entry) => String::from_utf8_lossy(&entry.line).chars().take(9).collect(),
        Item::Gap(count) => format!("-{count}"),
    };
    batch.items.iter().map(word).collect()
}

#[test]
fn lines_are_followed_over_generations() {
    let mut log = Log::new();
    let mut reader = log.reader();
    assert_eq!(reader.read_after(0, 9).unwrap(), Batch::default());
    log.write("one");
    log.write("two");
    let first = reader.read_after(0, 1).unwrap();
    assert_eq!(words(&first), ["one"]);
    log.next_generation(4);
    log.write("three");
    let second = reader.read_after(first.cursor, 9).unwrap();
    assert_eq!(words(&second), ["two", "three"]);
    let Item::Entry(entry) = &second.items[1] else { unreachable!() };
    assert_eq!((entry.generation, entry.pid, entry.unix_ms), (4, 42, 5));
    assert!(reader.read_after(second.cursor, 9).unwrap().items.is_empty());
    log.write("four");
    assert_eq!(words(&reader.read_after(second.cursor, 9).unwrap()), ["four"]);
    assert_eq!(
        words(&log.reader().read_after(second.cursor, 9).unwrap()),
        ["four"],
        "a new reader finds the place too"
    );
}

#[test]
fn a_folder_that_is_not_there_is_an_empty_log() {
    let mut reader = Reader::new("/nonexistent/log");
    assert!(reader.read_after(7, 9).unwrap().items.is_empty());
    assert_eq!(reader.tail(5).unwrap(), 0);
}

#[test]
fn rotation_and_deletion_leave_a_counted_gap() {
    let mut log = Log::new();
    log.write("one");
    let mut reader = log.reader();
    let place = reader.read_after(0, 9).unwrap().cursor;
    log.fill_segment();
    log.write("later");
    let names = list(log.folder.path()).unwrap();
    let all = log.reader().read_after(place, 99).unwrap();
    assert!(!words(&all).iter().any(|word| word.starts_with('-')), "nothing is missing yet");
    fs::remove_file(log.folder.path().join(names[0].0.to_string())).unwrap();
    let rest = reader.read_after(place, 99).unwrap();
    assert_eq!(words(&rest).last().unwrap(), "later");
    assert_eq!(rest.items[0], Item::Gap((all.items.len() - (rest.items.len() - 1)) as u64));
    assert!(
        matches!(log.reader().read_after(0, 1).unwrap().items[0], Item::Entry(_)),
        "from the oldest kept"
    );
}

#[test]
fn a_generation_that_is_gone_is_an_unknown_gap() {
    let mut log = Log::new();
    log.next_generation(5);
    log.write("five");
    assert_eq!(words(&log.reader().read_after(cursor(2, 3), 9).unwrap()), ["-0", "five"]);
}

#[test]
fn a_torn_frame_is_not_yet_in_the_newest_segment_and_a_gap_in_another() {
    let mut log = Log::new();
    log.write("one");
    log.write("two");
    let file = OpenOptions::new().write(true).open(log.newest()).unwrap();
    let whole = fs::read(log.newest()).unwrap();
    file.set_len(whole.len() as u64 - 2).unwrap();
    let mut reader = log.reader();
    let first = reader.read_after(0, 9).unwrap();
    assert_eq!(words(&first), ["one"]);
    fs::write(log.newest(), &whole).unwrap();
    assert_eq!(words(&reader.read_after(first.cursor, 9).unwrap()), ["two"]);
    file.set_len(whole.len() as u64 - 2).unwrap();
    log.next_generation(2);
    log.write("three");
    assert_eq!(words(&log.reader().read_after(0, 9).unwrap()), ["one", "-0", "three"]);
}

#[test]
fn damage_is_passed_over_up_to_the_next_segment() {
    let mut log = Log::new();
    for text in ["one", "two", "three"] {
        log.write(text);
    }
    let mut bytes = fs::read(log.newest()).unwrap();
    bytes[HEADER + 3 + HEADER] ^= 1;
    fs::write(log.newest(), bytes).unwrap();
    let mut reader = log.reader();
    let first = reader.read_after(0, 9).unwrap();
    assert_eq!(words(&first), ["one"]);
    assert!(reader.read_after(first.cursor, 9).unwrap().items.is_empty());
    log.fill_segment();
    log.write("last");
    let rest = words(&reader.read_after(first.cursor, 99).unwrap());
    assert!(rest[0].starts_with('-') && rest[0] != "-0", "{rest:?}");
    assert_eq!(rest.last().unwrap(), "last");
}

#[test]
fn dropped_lines_are_a_gap_wherever_one_begins_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = Vec::new();
    let frame = |seq, gap, payload| Frame {
        seq,
        unix_ms: 0,
        stream: Stream::System,
        partial: false,
        gap,
        pid: 1,
        payload,
    };
    frame(7, true, &[3, 0, 0, 0, 0, 0, 0, 0]).encode(&mut bytes);
    frame(8, false, b"eight").encode(&mut bytes);
    fs::write(folder.path().join(Name { generation: 1, index: 0 }.to_string()), bytes).unwrap();
    let after = |place| words(&Reader::new(folder.path()).read_after(place, 9).unwrap());
    assert_eq!(after(0), ["-3", "eight"]);
    assert_eq!(after(cursor(1, 4)), ["-3", "eight"]);
    assert_eq!(after(cursor(1, 7)), ["eight"]);
}

#[test]
fn the_newest_lines_are_found_from_behind() {
    let mut log = Log::new();
    for number in 0..5 {
        log.write(&format!("a{number}"));
    }
    log.next_generation(2);
    for number in 0..3 {
        log.write(&format!("b{number}"));
    }
    let tail = |count| {
        let mut reader = log.reader();
        let place = reader.tail(count).unwrap();
        words(&reader.read_after(place, 99).unwrap())
    };
    assert!(tail(0).is_empty());
    assert_eq!(tail(1), ["b2"]);
    assert_eq!(tail(3), ["b0", "b1", "b2"]);
    assert_eq!(tail(4), ["a4", "b0", "b1", "b2"]);
    assert_eq!(tail(8).len(), 8);
    assert_eq!(tail(99).len(), 8);
}

#[test]
fn batches_are_bounded_and_miss_nothing() {
    let mut log = Log::new();
    for number in 0..40 {
        log.write(&format!("{number:<60000}"));
    }
    let mut reader = log.reader();
    let (mut place, mut seen) = (0, Vec::new());
    loop {
        let batch = reader.read_after(place, 1000).unwrap();
        if batch.items.is_empty() {
            break;
        }
        assert!(batch.items.len() < 20);
        place = batch.cursor;
        seen.extend(words(&batch));
    }
    assert_eq!(seen.last().unwrap().trim(), "39");
    assert!(seen.len() < 41);
}
