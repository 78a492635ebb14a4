//! Reads an instance's log segments, over all generations in order, while they are written, rotated and deleted.
//!
//! A frame without its end is *not yet* in the newest segment and damage in any other. Damage is passed over up to the next
//! segment; holes in the sequence numbers become gaps. The newest segment is known before it is read, so a rotation
//! meanwhile is never taken for damage.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::{fs::File, path::Path, path::PathBuf};

use crate::frame::{self, Frame, Stream};
use crate::segment::{self, Name};

/// A batch ends at about so many bytes of lines.
const BATCH_BYTES: usize = 1024 * 1024;
/// Bytes read from a segment at once; several of the longest frames.
const CHUNK: u64 = 512 * 1024;

/// One thing read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A line or a piece of one.
    Entry(Entry),
    /// So many entries are missing here; 0 = nobody knows how many.
    Gap(u64),
}

/// A line or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place; grows from entry to entry.
    pub cursor: u64,
    /// The start of the instance that it belongs to.
    pub generation: u64,
    /// When it was read from the app.
    pub unix_ms: i64,
    /// Where it came from.
    pub stream: Stream,
    /// Any bytes, without the newline.
    pub line: Vec<u8>,
    /// The line goes on in the next entry of the same stream.
    pub partial: bool,
    /// The app's main process.
    pub pid: u32,
}

/// What was read, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Oldest first; empty = nothing new.
    pub items: Vec<Item>,
    /// To be given to the next [`Reader::read_after`].
    pub cursor: u64,
}

/// Reads the segments of one folder. It remembers its place, so going on costs only what is new.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// Everything up to a cursor ends in this segment at this offset.
    place: Option<(u64, Name, u64)>,
}

impl Reader {
    /// A reader of a folder, which need not exist yet.
    pub fn new(folder: impl AsRef<Path>) -> Self {
        Self { folder: folder.as_ref().to_owned(), place: None }
    }

    /// About `max` items after a cursor, fewer when they are long; 0 = from the oldest kept. An empty batch says that
    /// there is nothing new.
    ///
    /// # Errors
    /// When the folder or a segment can't be read.
    pub fn read_after(&mut self, after: u64, max: usize) -> io::Result<Batch> {
        let segments = segment::list(&self.folder)?;
        let (generation, _) = frame::split(after);
        let place = self.place.filter(|(cursor, ..)| *cursor == after);
        let (mut batch, mut bytes, mut full) = (Batch { items: Vec::new(), cursor: after }, 0, false);
        let mut damaged = after != 0 && !segments.iter().any(|(name, _)| name.generation == generation);
        for (name, _) in &segments {
            let start = match place {
                Some((_, segment, _)) if *name < segment => continue,
                Some((_, segment, offset)) if *name == segment => offset,
                _ if name.generation < generation => continue,
                _ => 0,
            };
            let (end, rest) = self.scan(*name, start, |frame| {
                full = batch.items.len() >= max || bytes >= BATCH_BYTES;
                if !full && frame::cursor(name.generation, frame.seq) > after {
                    bytes += frame.payload.len();
                    batch.take(name.generation, frame, std::mem::take(&mut damaged));
                }
                !full
            })?;
            // Not into one without frames: what lies before it would be forgotten.
            if end > start {
                self.place = Some((batch.cursor, *name, end));
            }
            if full {
                break;
            }
            damaged |= rest; // of the newest it means "not yet", and nothing follows it
        }
        Ok(batch)
    }

    /// The cursor after which the newest `count` entries are; found from the newest segment backwards.
    ///
    /// # Errors
    /// When the folder or a segment can't be read.
    pub fn tail(&self, count: usize) -> io::Result<u64> {
        let mut left = count;
        for (name, _) in segment::list(&self.folder)?.iter().rev() {
            let mut places = Vec::new();
            self.scan(*name, 0, |frame| {
                places.extend((!frame.gap).then(|| frame::cursor(name.generation, frame.seq)));
                true
            })?;
            match places.len().checked_sub(left) {
                Some(skipped) if left > 0 => return Ok(places[skipped].saturating_sub(1)),
                Some(skipped) if skipped > 0 => return Ok(places[skipped - 1]),
                _ => left -= places.len(),
            }
        }
        Ok(0)
    }

    /// Shows the frames of a segment from an offset on until one is refused. Where it stopped, and whether something lies
    /// there that is no frame. A segment deleted meanwhile has none.
    fn scan(
        &self,
        name: Name,
        start: u64,
        mut show: impl FnMut(&Frame<'_>) -> bool,
    ) -> io::Result<(u64, bool)> {
        let mut file = match File::open(self.folder.join(name.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((start, false)),
            file => file?,
        };
        let mut offset = start;
        loop {
            let (mut bytes, mut at) = (Vec::new(), 0);
            file.seek(SeekFrom::Start(offset))?;
            (&file).take(CHUNK).read_to_end(&mut bytes)?;
            while let Some((frame, length)) = frame::decode(&bytes[at..]) {
                if !show(&frame) {
                    return Ok((offset + at as u64, false));
                }
                at += length;
            }
            if at == 0 {
                return Ok((offset, !bytes.is_empty()));
            }
            offset += at as u64;
        }
    }
}

impl Batch {
    /// `damaged`: something unreadable lies before the frame.
    fn take(&mut self, generation: u64, frame: &Frame<'_>, damaged: bool) {
        let Frame { seq, unix_ms, stream, partial, gap, pid, payload } = *frame;
        // One more than was read last; in a new generation the first is 1; at the very beginning nothing is missed.
        let expected = match frame::split(self.cursor) {
            (0, 0) if gap => seq.saturating_add(1).saturating_sub(frame.dropped()),
            (0, 0) => seq,
            (last_generation, last) if last_generation == generation => last + 1,
            _ => 1,
        };
        let missing = seq.saturating_add(gap.into()).saturating_sub(expected);
        if missing > 0 || damaged {
            self.items.push(Item::Gap(missing));
        }
        self.cursor = frame::cursor(generation, seq);
        if !gap {
            let (cursor, line) = (self.cursor, payload.to_vec());
            self.items.push(Item::Entry(Entry { cursor, generation, unix_ms, stream, line, partial, pid }));
        }
    }
}

#[cfg(test)]
mod tests;
