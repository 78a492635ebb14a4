//! The reader against a writer that goes on, rotates, deletes and leaves damage.
#![allow(clippy::unwrap_used)]

use std::fs::{self, OpenOptions};

use proptest::prelude::*;

use super::*;
use crate::frame::HEADER;
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
        self.reader_while(|_| false)
    }

    /// One to which it is said which generations may still write.
    fn reader_while(&self, may_write: impl Fn(u64) -> bool + Send + 'static) -> Reader {
        Reader::new(self.folder.path(), may_write)
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
    let word = |item: &Item| match &item.event {
        Event::Entry(entry) => String::from_utf8_lossy(&entry.line).chars().take(9).collect(),
        Event::Gap(count) => format!("-{count}"),
    };
    batch.items.iter().map(word).collect()
}

fn start() -> LogCursor {
    LogCursor::default()
}

#[test]
fn lines_are_followed_over_generations() {
    let mut log = Log::new();
    let mut reader = log.reader();
    assert_eq!(reader.read_after(&start(), 9).unwrap(), Batch::default());
    log.write("one");
    log.write("two");
    let first = reader.read_after(&start(), 1).unwrap();
    assert_eq!(words(&first), ["one"]);
    log.next_generation(4);
    log.write("three");
    let second = reader.read_after(&first.cursor, 9).unwrap();
    assert_eq!(words(&second), ["two", "three"]);
    let Event::Entry(entry) = &second.items[1].event else { unreachable!() };
    assert_eq!((entry.generation, entry.pid, entry.unix_ms), (4, 42, 5));
    assert!(reader.read_after(&second.cursor, 9).unwrap().items.is_empty());
    log.write("four");
    assert_eq!(words(&reader.read_after(&second.cursor, 9).unwrap()), ["four"]);
    assert_eq!(
        words(&log.reader().read_after(&second.cursor, 9).unwrap()),
        ["four"],
        "a new reader finds the place too"
    );
}

#[test]
fn a_folder_that_is_not_there_is_an_empty_log() {
    let mut reader = Reader::new("/nonexistent/log", |_| false);
    assert!(reader.read_after(&LogCursor::after(7, 1), 9).unwrap().items.is_empty());
    assert!(reader.tail(5).unwrap().is_start());
}

#[test]
fn rotation_and_deletion_leave_a_counted_gap() {
    let mut log = Log::new();
    log.write("one");
    let mut reader = log.reader();
    let place = reader.read_after(&start(), 9).unwrap().cursor;
    log.fill_segment();
    log.write("later");
    let names = list(log.folder.path()).unwrap();
    let all = log.reader().read_after(&place, 99).unwrap();
    assert!(!words(&all).iter().any(|word| word.starts_with('-')), "nothing is missing yet");
    fs::remove_file(log.folder.path().join(names[0].0.to_string())).unwrap();
    let rest = reader.read_after(&place, 99).unwrap();
    assert_eq!(words(&rest).last().unwrap(), "later");
    assert_eq!(rest.items[0].event, Event::Gap((all.items.len() - (rest.items.len() - 1)) as u64));
    let behind = log.reader().read_after(&rest.items[0].cursor, 99).unwrap();
    assert_eq!(behind.items, rest.items[1..], "a gap is told once");
    assert!(
        matches!(log.reader().read_after(&start(), 1).unwrap().items[0].event, Event::Entry(_)),
        "from the oldest kept"
    );
}

#[test]
fn a_generation_that_is_gone_is_an_unknown_gap() {
    let mut log = Log::new();
    log.next_generation(5);
    log.write("five");
    fs::remove_file(log.folder.path().join(Name { generation: 1, index: 0 }.to_string())).unwrap();
    let batch = log.reader().read_after(&LogCursor::after(2, 3), 9).unwrap();
    assert_eq!(words(&batch), ["-0", "five"]);
    assert_eq!(words(&log.reader().read_after(&batch.items[0].cursor, 9).unwrap()), ["five"], "told once");
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
    let first = reader.read_after(&start(), 9).unwrap();
    assert_eq!(words(&first), ["one"]);
    fs::write(log.newest(), &whole).unwrap();
    assert_eq!(words(&reader.read_after(&first.cursor, 9).unwrap()), ["two"]);
    file.set_len(whole.len() as u64 - 2).unwrap();
    log.next_generation(2);
    log.write("three");
    assert_eq!(words(&log.reader().read_after(&start(), 9).unwrap()), ["one", "-0", "three"]);
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
    let first = reader.read_after(&start(), 9).unwrap();
    assert_eq!(words(&first), ["one"]);
    assert!(reader.read_after(&first.cursor, 9).unwrap().items.is_empty());
    log.fill_segment();
    log.write("last");
    let rest = words(&reader.read_after(&first.cursor, 99).unwrap());
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
    let after = |place| words(&Reader::new(folder.path(), |_| false).read_after(&place, 9).unwrap());
    assert_eq!(after(start()), ["-3", "eight"]);
    assert_eq!(after(LogCursor::after(1, 4)), ["-3", "eight"]);
    assert_eq!(after(LogCursor::after(1, 7)), ["eight"]);
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
        words(&reader.read_after(&place, 99).unwrap())
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
    let (mut place, mut seen) = (start(), Vec::new());
    loop {
        let batch = reader.read_after(&place, 1000).unwrap();
        if batch.items.is_empty() {
            break;
        }
        assert!(batch.items.len() < 20);
        seen.extend(words(&batch));
        place = batch.cursor;
    }
    assert_eq!(seen.last().unwrap().trim(), "39");
    assert!(seen.len() < 41);
}

#[test]
fn a_generation_that_is_drained_is_read_to_its_end_beside_its_successor() {
    let mut log = Log::new();
    log.write("old 1");
    let mut new = generation(log.folder.path(), 2);
    let mut say = |text: &str, time| {
        new.line(Stream::Stdout, false, time, text.as_bytes());
        new.flush(time);
    };
    say("new 1", 6);
    let mut reader = log.reader_while(|_| true);
    let first = reader.read_after(&start(), 9).unwrap();
    assert_eq!(
        (words(&first), first.cursor.to_string().as_str()),
        (vec!["old 1".into(), "new 1".into()], "1:1,2:1")
    );
    log.writer.line(Stream::Stdout, false, 8, b"old 2");
    log.writer.flush(8);
    say("new 2", 7);
    say("new 3", 9);
    let second = reader.read_after(&first.cursor, 9).unwrap();
    assert_eq!(words(&second), ["new 2", "old 2", "new 3"], "as they arrived");
    for (at, item) in second.items.iter().enumerate() {
        let rest = log.reader_while(|_| true).read_after(&item.cursor, 9).unwrap();
        assert_eq!(rest.items, second.items[at + 1..], "resumed after any of them");
    }
    let mut ended = log.reader();
    let end = ended.read_after(&second.cursor, 9).unwrap();
    assert!(end.items.is_empty());
    say("new 4", 10);
    let last = ended.read_after(&end.cursor, 9).unwrap();
    assert_eq!(
        (words(&last), last.cursor.to_string().as_str()),
        (vec!["new 4".to_owned()], "2:4"),
        "collapsed"
    );
}

#[test]
fn what_a_silent_generation_says_after_its_successor_is_not_lost() {
    let mut log = Log::new();
    let _silent = generation(log.folder.path(), 2);
    let mut newest = generation(log.folder.path(), 3);
    newest.line(Stream::Stdout, false, 1, b"third");
    newest.flush(1);
    let first = log.reader_while(|generation| generation == 1).read_after(&start(), 9).unwrap();
    assert_eq!((words(&first), first.cursor.to_string().as_str()), (vec!["third".to_owned()], "1:0,3:1"));
    log.write("first");
    assert_eq!(words(&log.reader().read_after(&first.cursor, 9).unwrap()), ["first"]);
}

#[test]
fn a_torn_end_is_waited_for_while_its_shim_lives_and_then_told_once() {
    let mut log = Log::new();
    log.write("one");
    log.write("two");
    let path = log.newest();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 2]).unwrap();
    log.next_generation(2);
    log.write("three");
    let mut alive = log.reader_while(|_| true);
    let first = alive.read_after(&start(), 9).unwrap();
    assert_eq!(words(&first), ["one", "three"]);
    let torn = log.reader().read_after(&first.cursor, 9).unwrap();
    assert_eq!((words(&torn), torn.cursor.to_string().as_str()), (vec!["-0".to_owned()], "2:1"));
    fs::write(&path, &whole).unwrap();
    assert_eq!(words(&alive.read_after(&first.cursor, 9).unwrap()), ["two"]);
}

#[test]
fn a_cursor_of_a_log_that_is_gone_begins_the_present_one_and_says_so() {
    let mut log = Log::new();
    log.write("one");
    let batch = log.reader().read_after(&LogCursor::after(9, 9), 9).unwrap();
    assert_eq!(words(&batch), ["-0", "one"]);
    assert_eq!(words(&log.reader().read_after(&batch.items[0].cursor, 9).unwrap()), ["one"]);
}

#[test]
fn the_newest_lines_of_two_that_write_at_once_leave_out_none_that_follow() {
    let mut log = Log::new();
    log.write("old 1");
    let mut new = generation(log.folder.path(), 2);
    new.line(Stream::Stdout, false, 5, b"new 1");
    new.flush(5);
    let mut reader = log.reader_while(|_| true);
    for (count, cursor) in [(0, "1:1,2:1"), (1, "1:1,2:0"), (2, "1:0,2:0"), (9, "1:0,2:0")] {
        assert_eq!(reader.tail(count).unwrap().to_string(), cursor, "{count}");
    }
    log.write("old 2");
    assert_eq!(
        words(&reader.read_after(&"1:1,2:0".parse().unwrap(), 9).unwrap()),
        ["old 2", "new 1"],
        "at once"
    );
}

#[test]
fn no_number_of_generations_that_write_at_once_holds_up_the_newest() {
    let log = Log::new();
    let writers: Vec<_> = (2..100).map(|number| generation(log.folder.path(), number)).collect();
    let mut newest = generation(log.folder.path(), 100);
    newest.line(Stream::Stdout, false, 5, b"here");
    newest.flush(5);
    let batch = log.reader_while(|_| true).read_after(&start(), 99).unwrap();
    assert_eq!(words(&batch).last().unwrap(), "here");
    assert!(batch.cursor.named().count() <= cursor::PAIRS_MAX && writers.len() == 98);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Three generations; a step writes to one, ends one for good, or reads some with a new reader.
    #[test]
    fn whoever_resumes_anywhere_gets_every_line_once_and_each_generation_in_order(
        steps in proptest::collection::vec((0..3_usize, 0..5_u8, 1..7_usize), 1..60),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut writers: Vec<_> = (1..=3).map(|number| Some(generation(folder.path(), number))).collect();
        let (mut written, mut read) = (vec![Vec::new(); 3], vec![Vec::new(); 3]);
        let mut cursor = start();
        for (time, (which, what, count)) in steps.into_iter().chain([(0, 4, 1000)]).enumerate() {
            let live: BTreeSet<u64> = (1..=3).filter(|number| writers[*number as usize - 1].is_some()).collect();
            match (what, &mut writers[which]) {
                (0..3, Some(writer)) => {
                    let text = format!("{time}{}", "x".repeat(count * 3000));
                    writer.line(Stream::Stdout, false, time as i64, text.as_bytes());
                    writer.flush(time as i64);
                    written[which].push(text);
                }
                (3, writer) => *writer = None,
                _ => {
                    let mut reader = Reader::new(folder.path(), move |number| live.contains(&number));
                    for item in reader.read_after(&cursor, count).unwrap().items {
                        let Event::Entry(entry) = item.event else { unreachable!("nothing is missing") };
                        read[entry.generation as usize - 1].push(String::from_utf8(entry.line).unwrap());
                        cursor = item.cursor.to_string().parse().unwrap();
                    }
                }
            }
        }
        prop_assert_eq!(read, written);
    }
}
