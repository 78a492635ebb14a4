//! The log against crashes, other generations, full files, and hands that change it.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, OpenOptions};
use std::io::Write;

use super::{entry::START, writer::Bounds, *};

const SMALL: Bounds = Bounds { bytes: 2_000, kept: 2 };

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn writer(&self, bounds: Bounds) -> Writer {
        Writer::new(self.0.path().into(), "provider", bounds)
    }

    fn log(&self) -> PathBuf {
        self.0.path().join("provider.log")
    }

    fn chain(&self) -> Chain {
        verify(self.0.path()).unwrap().remove(0)
    }

    /// The objects of the newest entries.
    fn objects(&self, count: usize) -> Vec<String> {
        tail(self.0.path(), count).unwrap().into_iter().map(|entry| entry.object).collect()
    }

    /// Changes the log's bytes by hand.
    fn change(&self, file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(file).unwrap();
        change(&mut bytes);
        fs::write(file, bytes).unwrap();
    }
}

fn entry(number: u32) -> Entry {
    let event = Event {
        who: "operator".into(),
        what: "instance.put",
        object: number.to_string(),
        ..Event::default()
    };
    Entry::new(format!("2026-01-01T00:00:{number:02}.000Z"), "provider", event)
}

fn fill(writer: &mut Writer, numbers: std::ops::Range<u32>) {
    numbers.for_each(|number| writer.append(vec![entry(number)]).unwrap());
}

#[test]
fn what_is_noted_is_there_in_order_once_the_last_hand_has_let_go() {
    let place = Place::new();
    let audit = Audit::of(place.0.path(), "debug-api");
    let other = audit.clone();
    for number in 0..50 {
        let (what, object) = ("application.stop", number.to_string());
        let outcome = if number == 7 { Outcome::Failed } else { Outcome::Done };
        let event = Event {
            who: "anna".into(),
            what,
            object,
            from: "192.0.2.1".into(),
            outcome,
            detail: "\"\n".into(),
        };
        other.note(event);
    }
    drop((audit, other));
    let entries = tail(&folder(place.0.path()), 100).unwrap();
    assert_eq!(entries.len(), 50);
    assert!(entries.iter().zip(0..).all(|(entry, number)| entry.object == number.to_string()));
    let seventh = &entries[7];
    let told =
        [&seventh.daemon, &seventh.who, &seventh.what, &seventh.from, &seventh.result, &seventh.detail];
    assert_eq!(told, ["debug-api", "anna", "application.stop", "192.0.2.1", "failed", "\"\n"]);
    let chain = verify(&folder(place.0.path())).unwrap().remove(0);
    assert!(chain.from_start && chain.broken.is_none() && chain.entries == 50 && chain.torn == 0);
    Audit::default().note(Event::default());
}

#[test]
fn the_chain_goes_on_over_files_of_which_only_the_newest_are_kept() {
    let place = Place::new();
    fill(&mut place.writer(SMALL), 0..60);
    let chain = place.chain();
    assert!(chain.broken.is_none() && !chain.from_start && chain.entries < 60, "{chain:?}");
    assert!(numbered(&place, 2).exists() && !numbered(&place, 3).exists());
    assert_eq!(place.objects(3), ["57", "58", "59"]);
    assert_eq!(place.objects(1000).len() as u64, chain.entries, "over all files");
    fill(&mut place.writer(SMALL), 60..61);
    assert_eq!(place.chain().broken, None, "whoever comes next goes on from there");
    fs::remove_file(numbered(&place, 1)).unwrap();
    let broken = place.chain().broken.expect("a file was taken out from among them");
    assert_eq!((broken.file, broken.line), (place.log(), 1));
}

fn numbered(place: &Place, number: u32) -> PathBuf {
    reader::numbered(&place.log(), number)
}

#[test]
fn a_line_that_a_crash_tore_is_taken_away_and_told() {
    let place = Place::new();
    fill(&mut place.writer(BOUNDS), 0..3);
    OpenOptions::new().append(true).open(place.log()).unwrap().write_all(b"{\"ts\":\"2026").unwrap();
    assert_eq!((place.chain().torn, place.chain().broken, place.chain().entries), (11, None, 3));
    fill(&mut place.writer(BOUNDS), 3..4);
    let entries = tail(place.0.path(), 2).unwrap();
    let mended = entries.iter().find(|entry| entry.what == "audit.mended").unwrap();
    assert_eq!(mended.detail, "a torn line of 11 bytes was taken away");
    assert_eq!((place.chain().torn, place.chain().broken, place.chain().entries), (0, None, 5));
    fs::write(place.log(), "torn from the start").unwrap();
    fill(&mut place.writer(BOUNDS), 0..1);
    assert!(place.chain().from_start && place.chain().entries == 2);
}

#[test]
fn generations_that_overlap_write_one_chain() {
    let place = Place::new();
    let (mut old, mut new) = (place.writer(SMALL), place.writer(SMALL));
    for number in 0..20 {
        fill(&mut old, number..number + 1);
        fill(&mut new, number..number + 1);
    }
    assert_eq!(place.chain().broken, None);
    assert_eq!(place.objects(4), ["18", "18", "19", "19"]);
}

#[test]
fn any_byte_that_was_changed_breaks_it_at_that_very_line() {
    let place = Place::new();
    fill(&mut place.writer(BOUNDS), 0..4);
    let good = fs::read(place.log()).unwrap();
    let ends: Vec<usize> =
        good.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at).collect();
    for at in (0..good.len()).filter(|at| !ends.contains(at)) {
        place.change(&place.log(), |bytes| bytes[at] ^= 1);
        let line = ends.iter().filter(|end| **end < at).count() as u64 + 1;
        let broken = place.chain().broken.unwrap_or_else(|| panic!("byte {at} is not missed"));
        assert_eq!(
            (broken.file.as_path(), broken.line),
            (place.log().as_path(), line),
            "byte {at}: {}",
            broken.why
        );
        fs::write(place.log(), &good).unwrap();
    }
    assert_eq!(place.chain().broken, None);
}

#[test]
fn lines_taken_out_put_in_or_moved_break_it() {
    let place = Place::new();
    fill(&mut place.writer(BOUNDS), 0..4);
    let good = fs::read_to_string(place.log()).unwrap();
    let lines: Vec<&str> = good.lines().collect();
    let forged = entry(9).line(START).0;
    for (order, line) in [
        (vec![lines[0], lines[2], lines[3]], 2),
        (vec![lines[0], lines[2], lines[1], lines[3]], 2),
        (vec![lines[0], lines[1], lines[1], lines[2]], 3),
        (vec![lines[0], lines[1], forged.trim_end(), lines[2]], 3),
        (vec![lines[0], "", lines[1]], 2),
    ] {
        fs::write(place.log(), order.join("\n") + "\n").unwrap();
        assert_eq!(place.chain().broken.unwrap().line, line, "{order:?}");
    }
    fs::write(place.log(), &good).unwrap();
    let kept = place.chain().last;
    fs::write(place.log(), lines[..3].join("\n") + "\n").unwrap();
    assert!(
        place.chain().broken.is_none() && place.chain().last != kept,
        "the end is proven by who kept its digest"
    );
}

#[test]
fn what_somebody_else_has_kept_is_written_before_they_hear_so_and_not_counted_where_it_is_not() {
    let place = Place::new();
    let audit = Audit::of(place.0.path(), "provider");
    let all = || ["one", "two"].map(|object| Event { object: object.into(), ..Event::default() }).to_vec();
    let trail = folder(place.0.path());
    fs::write(&trail, "no folder").unwrap();
    assert!(!audit.keep(all()));
    fs::remove_file(&trail).unwrap();
    assert!(audit.keep(all()));
    let objects: Vec<String> = tail(&trail, 9).unwrap().into_iter().map(|entry| entry.object).collect();
    assert_eq!(objects, ["one", "two"], "nothing was lost, since they have it still");
}

#[test]
fn what_could_not_be_written_is_counted_and_told() {
    let place = Place::new();
    let state = place.0.path().join("state");
    fs::write(folder(place.0.path()), "no folder").unwrap();
    let audit = Audit::of(place.0.path(), "provider");
    audit.note(Event { object: "lost".into(), ..Event::default() });
    drop(audit);
    assert!(!state.exists());
    let lost = AtomicU64::new(3);
    let (to, from) = sync_channel(4);
    to.send(Noted { entries: vec![entry(1)], heard: None }).unwrap();
    drop(to);
    write(Writer::new(state.clone(), "provider", BOUNDS), &from, &lost);
    let entries = tail(&state, 9).unwrap();
    assert!(entries.iter().any(|entry| entry.what == "audit.lost" && entry.detail.starts_with("3 entries")));
    assert_eq!((entries.len(), lost.into_inner()), (2, 0));
}

#[test]
fn of_several_daemons_entries_are_told_by_their_time() {
    let place = Place::new();
    fill(&mut place.writer(BOUNDS), 0..3);
    let mut other = Writer::new(place.0.path().into(), "debug-api", BOUNDS);
    other
        .append(vec![Entry { ts: "2026-01-01T00:00:01.500Z".into(), object: "x".into(), ..entry(1) }])
        .unwrap();
    assert_eq!(place.objects(3), ["1", "x", "2"]);
    assert_eq!(verify(place.0.path()).unwrap().len(), 2);
    assert_eq!(tail(&place.0.path().join("nowhere"), 5).unwrap(), []);
}
