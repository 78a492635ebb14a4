//! Log segments and the one who writes them: `g<generation>-<index>.seg`, frames one after the other.
//!
//! Invariants: all segments of an instance together stay within the budget (while two generations write, a segment more),
//! the oldest going first; a generation's first segment is there before its app's first instruction; a failed write leaves
//! no half frame, is counted, and the count is written before the next line that can be; nobody waits for the disk on
//! purpose. Log lines are not synced one by one: a power cut may cost the last of them, never an earlier one.

use std::fs::{self, File, OpenOptions};
use std::{collections::VecDeque, fmt, io, io::Write as _, mem, os::unix::fs::OpenOptionsExt as _};
use std::{path::Path, path::PathBuf};

use crate::frame::{Frame, Stream};

/// The least budget: two of the least segments.
pub const BUDGET_MIN: u64 = 2 * SEGMENT_MIN;
/// The least size of a full segment: whatever is written at once fits.
const SEGMENT_MIN: u64 = 128 * 1024;
/// Frames are gathered up to here before they are written.
const BATCH: usize = 48 * 1024;
/// So that an app that writes one line and crashes, again and again, does not fill a folder with tiny segments.
const SEGMENTS_MAX: usize = 256;

/// Names a segment; ordered as written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The generation whose lines it holds.
    pub generation: u64,
    /// Counts the segments of the generation.
    pub index: u32,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g{:010}-{:06}.seg", self.generation, self.index)
    }
}

impl Name {
    /// From a file's name; none for other files.
    pub fn parse(file: &str) -> Option<Self> {
        let (generation, index) = file.strip_prefix('g')?.strip_suffix(".seg")?.split_once('-')?;
        let name = Self { generation: generation.parse().ok()?, index: index.parse().ok()? };
        (name.to_string() == file).then_some(name)
    }
}

/// The segments in a folder, oldest first, with their lengths. No folder, no segments.
///
/// # Errors
/// When the folder can't be read.
pub fn list(folder: &Path) -> io::Result<Vec<(Name, u64)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?.collect::<io::Result<Vec<_>>>()?,
    };
    // One that is deleted meanwhile is none.
    let segment =
        |entry: fs::DirEntry| Some((Name::parse(entry.file_name().to_str()?)?, entry.metadata().ok()?.len()));
    let mut found: Vec<_> = entries.into_iter().filter_map(segment).collect();
    found.sort_unstable();
    Ok(found)
}

/// Writes one generation's lines.
#[derive(Debug)]
pub struct Writer {
    folder: PathBuf,
    /// The present segment; at first the folder itself.
    file: File,
    /// `write_all`, but where a test fills the disk.
    append: fn(&mut File, &[u8]) -> io::Result<()>,
    budget: u64,
    segment: u64,
    pid: u32,
    /// The other segments, oldest first.
    closed: VecDeque<(Name, u64)>,
    /// The present segment and its length; none before the first and after one that could not be mended.
    open: Option<(Name, u64)>,
    next: Name,
    /// Bytes of all segments.
    total: u64,
    seq: u64,
    /// Encoded frames, and how many.
    pending: (Vec<u8>, u64),
    dropped: u64,
}

impl Writer {
    /// A writer for a generation beside the segments of earlier ones in a folder, which is made if needed. `pid` is the
    /// app's.
    ///
    /// # Errors
    /// When the folder can't be made or read.
    pub fn new(folder: &Path, generation: u64, pid: u32, budget: u64, segment: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let budget = budget.max(BUDGET_MIN);
        let mut writer = Self {
            folder: folder.to_owned(),
            file: File::open(folder)?,
            append: File::write_all,
            budget,
            segment: segment.clamp(SEGMENT_MIN, budget / 2),
            pid,
            total: 0,
            closed: VecDeque::new(),
            open: None,
            next: Name { generation, index: 0 },
            seq: 0,
            pending: (Vec::new(), 0),
            dropped: 0,
        };
        let _ = writer.turn(); // a full disk stops no app
        Ok(writer)
    }

    /// Begins the next segment, and sees anew what lies beside it: another generation may write there too.
    fn turn(&mut self) -> io::Result<()> {
        let name = self.next;
        self.next.index += 1; // whatever becomes of this one
        self.open = None;
        self.closed = list(&self.folder)?.into();
        self.total = self.closed.iter().map(|(_, length)| length).sum();
        while self.closed.len() >= SEGMENTS_MAX && self.drop_oldest() {}
        let path = self.folder.join(name.to_string());
        self.file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        self.open = Some((name, 0));
        Ok(())
    }

    /// Adds a line, or a piece of one. It is written when enough has come together, and at the next [`Writer::flush`].
    pub fn line(&mut self, stream: Stream, partial: bool, unix_ms: i64, payload: &[u8]) {
        self.seq += 1;
        self.pending.1 += 1;
        let frame = Frame { seq: self.seq, unix_ms, stream, partial, gap: false, pid: self.pid, payload };
        frame.encode(&mut self.pending.0);
        if self.pending.0.len() >= BATCH {
            self.flush(unix_ms);
        }
    }

    /// Writes what has come together, and how much was dropped before it.
    pub fn flush(&mut self, unix_ms: i64) {
        let (mut bytes, count) = mem::take(&mut self.pending);
        if self.dropped > 0 {
            let (seq, payload) = (self.seq - count, &self.dropped.to_le_bytes());
            let (stream, pid, mut gap) = (Stream::System, self.pid, Vec::new());
            Frame { seq, unix_ms, stream, partial: false, gap: true, pid, payload }.encode(&mut gap);
            bytes.splice(..0, gap);
        }
        if !bytes.is_empty() {
            self.dropped = self.write(&bytes).map_or(self.dropped + count, |()| 0);
        }
        bytes.clear();
        self.pending.0 = bytes; // its memory is used again
    }

    /// Deletes the oldest other segment; whether there was one.
    pub fn drop_oldest(&mut self) -> bool {
        let Some((name, length)) = self.closed.pop_front() else { return false };
        let _ = fs::remove_file(self.folder.join(name.to_string()));
        self.total -= length;
        true
    }

    /// All of it or nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let need = bytes.len() as u64;
        if !self.open.is_some_and(|(_, length)| length == 0 || length + need <= self.segment) {
            self.turn()?;
        }
        while self.total + need > self.budget && self.drop_oldest() {}
        let written = (self.append)(&mut self.file, bytes);
        let length = self.open.as_mut().map_or(&mut self.total, |(_, length)| length);
        if written.is_ok() {
            *length += need;
            self.total += need;
        } else if self.file.set_len(*length).is_err() {
            self.open = None;
        }
        written
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::*;
    use crate::frame::decode;

    thread_local! {
        /// How many bytes the disk takes before it is full.
        static ROOM: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    fn append(file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let fits = bytes.len().min(ROOM.get());
        ROOM.set(ROOM.get() - fits);
        file.write_all(&bytes[..fits])?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn writer(folder: &tempfile::TempDir, room: usize) -> Writer {
        ROOM.set(room);
        Writer { append, ..Writer::new(folder.path(), 3, 9, 0, 0).unwrap() }
    }

    fn write(writer: &mut Writer, text: &str) {
        writer.line(Stream::Stdout, false, 0, text.as_bytes());
        writer.flush(0);
    }

    fn bytes(folder: &tempfile::TempDir) -> u64 {
        list(folder.path()).unwrap().iter().map(|(_, length)| length).sum()
    }

    /// `seq` of each line, and the counts of gaps.
    fn entries(folder: &tempfile::TempDir) -> (Vec<u64>, Vec<u64>) {
        let (mut lines, mut gaps) = (Vec::new(), Vec::new());
        for (name, _) in list(folder.path()).unwrap() {
            let bytes = fs::read(folder.path().join(name.to_string())).unwrap();
            let mut rest = bytes.as_slice();
            while let Some((frame, length)) = decode(rest) {
                let place = if frame.gap { &mut gaps } else { &mut lines };
                place.push(if frame.gap { frame.dropped() } else { frame.seq });
                rest = &rest[length..];
            }
            assert!(rest.is_empty(), "no half frame is left");
        }
        (lines, gaps)
    }

    #[test]
    fn segment_names_are_read_as_written_and_nothing_else_is() {
        let name = Name { generation: 12, index: 3 };
        assert_eq!(name.to_string(), "g0000000012-000003.seg");
        assert_eq!(Name::parse(&name.to_string()), Some(name));
        for other in
            ["g12-3.seg", "g0000000012-000003", "record", "g+000000012-000003.seg", "g0000000012-00003é.seg"]
        {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_full_disk_drops_and_counts_and_says_so_first_thing() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder, 100);
        write(&mut writer, "one");
        write(&mut writer, "two");
        writer.line(Stream::Stdout, false, 0, b"this one does not fit any more");
        write(&mut writer, "nor does this");
        writer.flush(0);
        ROOM.set(1000);
        write(&mut writer, "five");
        assert_eq!(entries(&folder), (vec![1, 2, 5], vec![2]));
        write(&mut writer, "six");
        assert_eq!(entries(&folder), (vec![1, 2, 5, 6], vec![2]), "told once");
    }

    #[test]
    fn what_was_dropped_last_is_told_without_another_line() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder, 0);
        write(&mut writer, "lost");
        ROOM.set(1000);
        writer.flush(0);
        assert_eq!(entries(&folder), (vec![], vec![1]));
    }

    #[test]
    fn a_segment_that_can_not_be_mended_is_left_for_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder, usize::MAX);
        write(&mut writer, "one");
        writer.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
        write(&mut writer, "two");
        write(&mut writer, "three");
        assert_eq!(list(folder.path()).unwrap().len(), 2);
        assert_eq!(entries(&folder), (vec![1, 3], vec![1]));
    }

    #[test]
    fn a_segment_that_can_not_be_made_drops_and_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer { open: None, ..writer(&folder, usize::MAX) };
        fs::remove_dir_all(folder.path()).unwrap();
        write(&mut writer, "one");
        fs::create_dir(folder.path()).unwrap();
        write(&mut writer, "two");
        assert_eq!(entries(&folder), (vec![2], vec![1]));
    }

    #[test]
    fn the_budget_holds_and_the_oldest_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder, usize::MAX);
        for _ in 0..2000 {
            writer.line(Stream::Stdout, false, 0, &[b'x'; 1000]);
            assert!(bytes(&folder) <= BUDGET_MIN);
        }
        writer.flush(0);
        let (lines, _) = entries(&folder);
        assert_eq!(lines.last(), Some(&2000));
        assert!(lines.len() > 100 && lines.is_sorted() && lines[0] == 2001 - lines.len() as u64);
    }

    #[test]
    fn the_greatest_frames_keep_the_budget_too() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(&folder, usize::MAX);
        for _ in 0..50 {
            writer.line(Stream::Stdout, false, 0, &[0; BATCH - 100]);
            writer.line(Stream::Stdout, true, 0, &[0; crate::frame::PAYLOAD_MAX]);
            assert!(bytes(&folder) <= BUDGET_MIN);
        }
        assert_eq!(entries(&folder).0.last(), Some(&100));
    }

    #[test]
    fn segments_of_earlier_generations_count_and_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let old = folder.path().join(Name { generation: 1, index: 0 }.to_string());
        fs::write(&old, vec![0; 200_000]).unwrap();
        let mut writer = writer(&folder, usize::MAX);
        write(&mut writer, &"x".repeat(60_000));
        assert!(old.exists());
        write(&mut writer, &"x".repeat(60_000));
        assert!(!old.exists());
    }

    #[test]
    fn two_generations_that_write_at_once_keep_the_budget_together() {
        let folder = tempfile::tempdir().unwrap();
        let mut draining = writer(&folder, usize::MAX);
        let mut fresh = Writer { append, ..Writer::new(folder.path(), 4, 9, 0, 0).unwrap() };
        for _ in 0..2000 {
            draining.line(Stream::Stdout, false, 0, &[b'x'; 1000]);
            fresh.line(Stream::Stdout, false, 0, &[b'x'; 500]);
            assert!(bytes(&folder) <= BUDGET_MIN + SEGMENT_MIN);
        }
    }

    #[test]
    fn a_segment_tells_of_a_generation_that_has_said_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let _silent = writer(&folder, 0);
        assert_eq!(list(folder.path()).unwrap(), [(Name { generation: 3, index: 0 }, 0)]);
    }

    #[test]
    fn a_crash_loop_does_not_fill_the_folder_with_tiny_segments() {
        let folder = tempfile::tempdir().unwrap();
        for generation in 0..300 {
            write(&mut Writer::new(folder.path(), generation, 1, 0, 0).unwrap(), "panicked");
        }
        let left = list(folder.path()).unwrap();
        assert_eq!(left.len(), SEGMENTS_MAX);
        assert_eq!(left.last().map(|(name, _)| name.generation), Some(299));
    }
}
