//! The frames of one generation in order, from its segments, while they are written, rotated and deleted.
//!
//! The segments were listed before the first of them is read; so what lies behind the last frame of one that has a successor
//! is damage, and behind that of the last one it is *not yet* as long as somebody may still write.

use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::{collections::VecDeque, fs::File, mem, path::Path};

use crate::frame::{self, Frame};
use crate::segment::Name;

/// Bytes read from a segment at once; more than the longest frame.
const CHUNK: u64 = 128 * 1024;

/// A place between two frames.
pub(super) type Mark = (Name, u64);

/// Reads one generation.
pub(super) struct Source {
    /// Which.
    pub(super) generation: u64,
    /// Behind the last frame that was taken or passed over.
    pub(super) mark: Option<Mark>,
    /// Still to be read, oldest first; the first of them is being read.
    segments: VecDeque<Name>,
    file: Option<File>,
    /// Where in the segment the buffer begins.
    offset: u64,
    buffer: Vec<u8>,
    /// Where in the buffer the next frame begins.
    at: usize,
    /// Whether something that is no frame lies before the next one.
    damaged: bool,
    /// The next frame without its payload, and its length.
    head: Option<(Frame<'static>, usize)>,
    /// There was no further frame when it was looked for.
    dry: bool,
}

impl Source {
    /// From a place on, or from the beginning.
    pub(super) fn new(generation: u64, names: impl Iterator<Item = Name>, from: Option<Mark>) -> Self {
        let segments: VecDeque<Name> =
            names.skip_while(|name| from.is_some_and(|(marked, _)| *name < marked)).collect();
        let offset = match (from, segments.front()) {
            (Some((marked, offset)), Some(first)) if *first == marked => offset,
            _ => 0,
        };
        Self {
            generation,
            mark: None,
            segments,
            file: None,
            offset,
            buffer: Vec::new(),
            at: 0,
            damaged: false,
            head: None,
            dry: false,
        }
    }

    /// The next frame without its payload; none when there is none now, and then no more from this source.
    pub(super) fn head(&mut self, folder: &Path) -> io::Result<Option<&Frame<'static>>> {
        while self.head.is_none() && !self.dry {
            if let Some((frame, length)) = frame::decode(&self.buffer[self.at..]) {
                self.head = Some((Frame { payload: &[], ..frame }, length));
            } else if !self.fill(folder)? {
                self.dry = !self.turn_page();
            }
        }
        Ok(self.head.as_ref().map(|(frame, _)| frame))
    }

    /// Takes the frame that [`Source::head`] has shown, and whether something lies before it that is no frame.
    pub(super) fn take(&mut self) -> Option<(Frame<'_>, bool)> {
        let (frame, length) = self.head.take()?;
        let payload = &self.buffer[self.at + frame::HEADER..self.at + length];
        self.at += length;
        self.mark = self.segments.front().map(|name| (*name, self.offset + self.at as u64));
        Some((Frame { payload, ..frame }, mem::take(&mut self.damaged)))
    }

    /// Whether something lies behind the last frame that is none.
    pub(super) fn is_torn(&self) -> bool {
        self.damaged || self.at < self.buffer.len()
    }

    /// Reads on in the segment; whether there was more than is known already. A segment deleted meanwhile is empty.
    fn fill(&mut self, folder: &Path) -> io::Result<bool> {
        let Some(name) = self.segments.front() else { return Ok(false) };
        let known = self.buffer.len() - self.at;
        if self.file.is_none() {
            self.file = match File::open(folder.join(name.to_string())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                file => Some(file?),
            };
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        self.offset += self.at as u64;
        self.at = 0;
        self.buffer.clear();
        file.seek(SeekFrom::Start(self.offset))?;
        file.take(CHUNK).read_to_end(&mut self.buffer)?;
        Ok(self.buffer.len() > known)
    }

    /// Goes on with the next segment, if there is one. What was left of this one is noted.
    fn turn_page(&mut self) -> bool {
        if self.segments.len() < 2 {
            return false;
        }
        self.damaged = self.is_torn();
        self.segments.pop_front();
        (self.file, self.offset, self.at) = (None, 0, 0);
        self.buffer.clear();
        true
    }
}
