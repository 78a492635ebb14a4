//! Reads an instance's log segments, over all generations, while they are written, rotated and deleted.
//!
//! Invariants: every entry once, by its cursor; those of a generation in their order, those of several that overlap in the
//! order in which they arrived at their shims. A frame without its end is *not yet* where somebody may still write, and the
//! end where nobody can. Holes in the sequence numbers, damage, and generations of which nothing is left become gaps.
//!
//! Order of a look: which segments there are, then who may still write, then the segments again. So of a generation that
//! was found ended all segments are known; and because a shim makes its first segment before its app's first instruction,
//! none of an earlier generation appears after one of a later.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::{fmt, io, path::Path, path::PathBuf};

use crate::frame::{Frame, Stream};
use crate::segment::{self, Name};

pub mod cursor;
mod source;

pub use cursor::{BadCursor, LogCursor};
use source::{Mark, Source};

/// A batch ends at about so many bytes of lines.
const BATCH_BYTES: usize = 256 * 1024;
/// Generations that are read side by side.
const ABREAST_MAX: usize = cursor::PAIRS_MAX;

/// One thing read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// To be read on from after this.
    pub cursor: LogCursor,
    /// What it is.
    pub event: Event,
}

/// What there is to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A line or a piece of one.
    Entry(Entry),
    /// So many entries are missing here; 0 = nobody knows how many.
    Gap(u64),
}

/// A line or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The start of the instance that it belongs to.
    pub generation: u64,
    /// Its number within the generation.
    pub seq: u64,
    /// When it was read from the app.
    pub unix_ms: i64,
    /// Where it came from.
    pub stream: Stream,
    /// Any bytes, without the newline.
    pub line: Vec<u8>,
    /// The line goes on in the next entry of the same stream and generation.
    pub partial: bool,
    /// The app's main process.
    pub pid: u32,
}

/// What was read, and where to go on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// In order; empty = nothing new.
    pub items: Vec<Item>,
    /// To be given to the next [`Reader::read_after`].
    pub cursor: LogCursor,
}

/// Whether a generation may still write; asked of those that a newer one has followed.
type MayWrite = Box<dyn Fn(u64) -> bool + Send>;

/// Reads the segments of one folder. It remembers its place, so going on costs only what is new.
pub struct Reader {
    folder: PathBuf,
    may_write: MayWrite,
    /// Generations that were found to write no more.
    ended: BTreeSet<u64>,
    /// Of each generation: everything up to a number ends at this place.
    places: BTreeMap<u64, (u64, Mark)>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.folder.display())
    }
}

impl Reader {
    /// A reader of a folder, which need not exist yet. `may_write` says of a generation that has a successor whether it may
    /// still write all the same, as one does that is being drained.
    pub fn new(folder: impl AsRef<Path>, may_write: impl Fn(u64) -> bool + Send + 'static) -> Self {
        let (folder, may_write) = (folder.as_ref().to_owned(), Box::new(may_write));
        Self { folder, may_write, ended: BTreeSet::new(), places: BTreeMap::new() }
    }

    /// About `max` items after a cursor, fewer when they are long. An empty batch says that there is nothing new.
    ///
    /// # Errors
    /// When the folder or a segment can't be read.
    pub fn read_after(&mut self, after: &LogCursor, max: usize) -> io::Result<Batch> {
        let mut merge = Merge::new(self, after)?;
        let mut bytes = 0;
        while merge.items.len() < max && bytes < BATCH_BYTES {
            match merge.step()? {
                Some(length) => bytes += length,
                None => break,
            }
        }
        let Merge { sources, cursor, items, .. } = merge;
        for source in sources {
            if let (Some(mark), Some(seq)) = (source.mark, cursor.seen(source.generation)) {
                self.places.insert(source.generation, (seq, mark));
            }
        }
        self.places.retain(|generation, _| cursor.seen(*generation).is_some());
        Ok(Batch { items, cursor })
    }

    /// The cursor after which the newest `count` entries are, those of a newer generation counting as newer; found from the
    /// newest segment backwards.
    ///
    /// # Errors
    /// When the folder or a segment can't be read.
    pub fn tail(&mut self, count: usize) -> io::Result<LogCursor> {
        let segments = self.segments(&LogCursor::default())?;
        let (mut left, mut before) = (count, BTreeMap::new());
        for name in segments.iter().rev() {
            let known = before.contains_key(&name.generation);
            if left == 0 && (known || self.ended.contains(&name.generation)) {
                continue;
            }
            let (seqs, last) = self.numbers(*name)?;
            let taken = left.min(seqs.len());
            left -= taken;
            match seqs.get(seqs.len() - taken) {
                Some(first) => drop(before.insert(name.generation, first.saturating_sub(1))),
                None if !known && last > 0 => drop(before.insert(name.generation, last)),
                None => {}
            }
        }
        for name in segments.iter().filter(|name| !self.ended.contains(&name.generation)) {
            before.entry(name.generation).or_insert(0);
        }
        Ok(before.into_iter().collect())
    }

    /// The numbers of a segment's entries, and of its last frame.
    fn numbers(&self, name: Name) -> io::Result<(Vec<u64>, u64)> {
        let mut source = Source::new(name.generation, [name].into_iter(), None);
        let (mut seqs, mut last) = (Vec::new(), 0);
        while source.head(&self.folder)?.is_some() {
            let Some((frame, _)) = source.take() else { break };
            last = frame.seq;
            seqs.extend((!frame.gap).then_some(frame.seq));
        }
        Ok((seqs, last))
    }

    /// The segments that there are, once it is known which generations of them have ended (see above).
    fn segments(&mut self, after: &LogCursor) -> io::Result<Vec<Name>> {
        let first = names(&self.folder)?;
        let Some(newest) = first.last().map(|name| name.generation) else { return Ok(first) };
        let mut others: BTreeSet<u64> =
            first.iter().map(|name| name.generation).chain(after.named()).collect();
        others.remove(&newest);
        self.ended.retain(|generation| others.contains(generation));
        others.retain(|generation| after.seen(*generation).is_some() && !self.ended.contains(generation));
        if others.is_empty() {
            return Ok(first);
        }
        self.ended.extend(others.into_iter().filter(|generation| !(self.may_write)(*generation)));
        let mut names = names(&self.folder)?;
        names.retain(|name| name.generation <= newest);
        Ok(names)
    }
}

fn names(folder: &Path) -> io::Result<Vec<Name>> {
    Ok(segment::list(folder)?.into_iter().map(|(name, _)| name).collect())
}

/// Several generations on their way into one sequence.
struct Merge<'a> {
    folder: &'a Path,
    ended: &'a BTreeSet<u64>,
    /// Being read, ascending.
    sources: Vec<Source>,
    /// Newer ones, which were not looked at yet.
    waiting: VecDeque<Source>,
    /// Generations that may hold, or get, more than was read.
    open: Vec<u64>,
    /// What its oldest kept entry follows is nobody's loss: the reader began there.
    origin: Option<u64>,
    cursor: LogCursor,
    items: Vec<Item>,
}

impl<'a> Merge<'a> {
    fn new(reader: &'a mut Reader, after: &LogCursor) -> io::Result<Self> {
        let names = reader.segments(after)?;
        let mut kept: Vec<u64> = names.iter().map(|name| name.generation).collect();
        kept.dedup();
        let newest = kept.last().copied().unwrap_or(0);
        // One that is ahead of all there is was given for a log that is gone: this one is read from its beginning.
        let astray = !kept.is_empty() && after.newest() > newest && reader.ended.contains(&after.newest());
        let cursor = if astray { LogCursor::default() } else { after.clone() };
        let unread = kept.iter().copied().filter(|generation| cursor.seen(*generation).is_some());
        let waiting = unread.map(|generation| {
            let place =
                reader.places.get(&generation).filter(|(seq, _)| cursor.seen(generation) == Some(*seq));
            let own = names.iter().copied().filter(|name| name.generation == generation);
            Source::new(generation, own, place.map(|(_, mark)| *mark))
        });
        let waiting: VecDeque<Source> = waiting.collect();
        let mut open: Vec<u64> =
            waiting.iter().map(|source| source.generation).chain(cursor.named()).collect();
        open.sort_unstable();
        open.dedup();
        let origin = if after.is_start() { kept.first().copied() } else { None };
        let (ended, folder) = (&reader.ended, reader.folder.as_path());
        let mut merge =
            Self { folder, ended, sources: Vec::new(), waiting, open, origin, cursor, items: Vec::new() };
        let gone = merge.cursor.named().filter(|named| !kept.contains(named) && ended.contains(named));
        for generation in gone.collect::<Vec<_>>() {
            merge.close(generation, true);
        }
        if astray {
            merge.close(0, true);
        }
        Ok(merge)
    }

    /// Takes one more frame; the length of its line, or none when there is no more now.
    fn step(&mut self) -> io::Result<Option<usize>> {
        while let Some(at) = self.oldest()? {
            let source = &mut self.sources[at];
            let generation = source.generation;
            let Some((frame, damaged)) = source.take() else { break };
            let Some(seen) = self.cursor.seen(generation).filter(|seen| frame.seq > *seen) else { continue };
            let expected = match frame.gap {
                _ if seen > 0 || self.origin != Some(generation) => seen + 1,
                true => frame.seq.saturating_add(1).saturating_sub(frame.dropped()),
                false => frame.seq,
            };
            let missing = frame.seq.saturating_add(frame.gap.into()).saturating_sub(expected);
            let entry = (!frame.gap).then(|| Entry::new(generation, &frame));
            if missing > 0 || damaged {
                let last = entry.as_ref().map_or(frame.seq, |entry| entry.seq - 1);
                self.push(generation, last, Event::Gap(missing));
            }
            let Some(entry) = entry else { continue };
            let length = entry.line.len();
            self.push(generation, entry.seq, Event::Entry(entry));
            return Ok(Some(length));
        }
        Ok(None)
    }

    /// The source whose next frame has arrived before those of all others. It is found among those looked at, and one more
    /// is looked at for as long as the last of them is the one.
    fn oldest(&mut self) -> io::Result<Option<usize>> {
        loop {
            let (mut at, mut oldest) = (0, None);
            while at < self.sources.len() {
                let source = &mut self.sources[at];
                match source.head(self.folder)?.map(|frame| frame.unix_ms) {
                    Some(time) if oldest.is_none_or(|(oldest, _)| time < oldest) => oldest = Some((time, at)),
                    None if self.ended.contains(&source.generation) => {
                        let source = self.sources.remove(at);
                        self.close(source.generation, source.is_torn());
                        continue;
                    }
                    _ => {}
                }
                at += 1;
            }
            let is_last = oldest.is_none_or(|(_, at)| at + 1 == self.sources.len());
            if self.waiting.is_empty() || !is_last || oldest.is_some() && at == ABREAST_MAX {
                return Ok(oldest.map(|(_, at)| at));
            }
            if at == ABREAST_MAX {
                let given_up = self.sources.remove(0);
                self.close(given_up.generation, true);
            }
            self.sources.extend(self.waiting.pop_front());
        }
    }

    /// A generation was read to its end. `lost`: to what is left of it, and there was more.
    fn close(&mut self, generation: u64, lost: bool) {
        self.open.retain(|open| *open != generation);
        if lost {
            let newest = self.cursor.newest();
            let next = self.open.iter().copied().find(|open| *open > generation);
            let on = if newest > generation { newest } else { next.unwrap_or(newest) };
            let seen = self.cursor.seen(on).unwrap_or(0);
            self.push(on, seen, Event::Gap(0));
        }
    }

    fn push(&mut self, generation: u64, seq: u64, event: Event) {
        self.cursor.advance(generation, seq, &self.open);
        self.items.push(Item { cursor: self.cursor.clone(), event });
    }
}

impl Entry {
    fn new(generation: u64, frame: &Frame<'_>) -> Self {
        let Frame { seq, unix_ms, stream, partial, pid, payload, .. } = *frame;
        Self { generation, seq, unix_ms, stream, line: payload.to_vec(), partial, pid }
    }
}

#[cfg(test)]
mod tests;
