//! Reading a log over however many streams of procmgr's: what to ask for next, and what to tell of what came. Each wanted line
//! once and in order, wherever a stream breaks off.
//!
//! ```text
//!            tail without filter: procmgr finds where to begin
//!   anew ──┬──────────────────────────────────────────────────────▶ telling ◀── after a cursor
//!          └─▶ searching: over all there is, places only ──ended──▶   │ ▲
//!                                                                     └─┘ broken off: asked for again from the position
//! ```

use std::mem;

use nexushub_proto::procmgr::{LogEntry, LogGap, ReadLogRequest, read_log_response::Event};

use super::{
    filter::{Filter, Ring},
    joiner::Joiner,
};

/// Where to begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Begin {
    /// With the newest so many wanted lines; none = with all.
    pub tail: Option<u32>,
    /// With the first line of this moment or later.
    pub since: Option<i64>,
}

/// What there is to tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A whole line that is wanted.
    Line(LogEntry),
    /// Lines are missing here.
    Gap(LogGap),
}

/// One reader's state.
#[derive(Debug)]
pub struct Reading {
    filter: Filter,
    since: Option<i64>,
    /// After which line to go on.
    position: String,
    /// While there is no position: begin with so many of the newest entries; 0 = with all.
    newest: u32,
    /// While it is searched for where to begin.
    ring: Option<Ring>,
    joiner: Joiner,
}

impl Reading {
    /// From the beginning that is asked for; lines of up to `max_line` bytes are kept whole.
    #[must_use]
    pub fn anew(begin: Begin, filter: Filter, max_line: usize) -> Self {
        let searched = !filter.is_open() || begin.since.is_some();
        let (newest, ring) = match begin.tail {
            None => (0, None),
            Some(count) if !searched && count > 0 => (count, None),
            // To pass over one line is enough to be behind all.
            Some(0) => (1, Some(Ring::new(0))),
            Some(count) => (0, Some(Ring::new(usize::try_from(count).unwrap_or(usize::MAX)))),
        };
        let (since, joiner) = (begin.since, Joiner::new(max_line));
        Self { filter, since, position: String::new(), newest, ring, joiner }
    }

    /// After a cursor.
    #[must_use]
    pub fn after(cursor: String, filter: Filter, max_line: usize) -> Self {
        Self { position: cursor, ..Self::anew(Begin::default(), filter, max_line) }
    }

    /// What to ask procmgr for.
    #[must_use]
    pub fn request(&self, id: &str, follow: bool) -> ReadLogRequest {
        let follow = follow && !self.is_searching();
        ReadLogRequest {
            id: id.to_owned(),
            after: 0,
            tail: self.newest,
            follow,
            position: self.position.clone(),
        }
    }

    /// After which line it goes on; empty = at the beginning.
    #[must_use]
    pub fn position(&self) -> &str {
        &self.position
    }

    /// Whether it is still searched for where to begin.
    #[must_use]
    pub fn is_searching(&self) -> bool {
        self.ring.is_some()
    }

    /// Whether lines may be passed over without a word.
    #[must_use]
    pub fn passes_over(&self) -> bool {
        !self.filter.is_open() || self.since.is_some()
    }

    /// Whether anything waits for the end of a line; then [`Self::release`] after [`Joiner::HOLD`].
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.joiner.is_holding()
    }

    /// Takes what procmgr said.
    pub fn take(&mut self, event: Option<Event>) -> Vec<Told> {
        match event {
            Some(Event::Entry(entry)) => {
                let whole = self.joiner.push(entry);
                self.judge(whole)
            }
            Some(Event::Gap(gap)) => {
                let mut told = self.release(); // all of it lies before the gap
                self.passed(gap.position.clone());
                if !self.is_searching() {
                    told.push(Told::Gap(gap));
                }
                told
            }
            None => Vec::new(),
        }
    }

    /// Tells what waits for the end of a line, which may not come.
    pub fn release(&mut self) -> Vec<Told> {
        let held = self.joiner.flush();
        self.judge(held)
    }

    /// A stream without `follow` has come to its end. If it was searched for where to begin, that is known now.
    pub fn ended(&mut self) -> Vec<Told> {
        let rest = self.release();
        if let Some(ring) = self.ring.take() {
            self.position = ring.start(mem::take(&mut self.position));
            self.newest = 0;
        }
        rest
    }

    /// A stream was broken off, or let go of: what was not told will be read again.
    pub fn broke(&mut self) {
        self.joiner.forget();
    }

    /// The log is gone; the next one under its name is read from its beginning.
    pub fn lost(&mut self) {
        self.joiner.forget();
        self.position.clear();
    }

    fn judge(&mut self, entries: Vec<LogEntry>) -> Vec<Told> {
        let mut told = Vec::new();
        for entry in entries {
            let place = mem::replace(&mut self.position, entry.position.clone());
            self.newest = 0;
            if self.wants(&entry) {
                match &mut self.ring {
                    Some(ring) => ring.found(&place),
                    None => told.push(Told::Line(entry)),
                }
            }
        }
        told
    }

    /// `since` is where to begin: after the first line of its time or later no clock that is set back hides one.
    fn wants(&mut self, entry: &LogEntry) -> bool {
        if self.since.is_some_and(|since| entry.unix_ms < since) {
            return false;
        }
        self.since = None;
        self.filter.passes(entry)
    }

    fn passed(&mut self, position: String) {
        self.position = position;
        self.newest = 0;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use nexushub_proto::procmgr::LogStream;
    use proptest::prelude::*;

    use super::*;

    /// A log of so many lines, of which every third is an error and every fifth comes in two pieces.
    fn log(lines: u64) -> Vec<LogEntry> {
        let mut log = Vec::new();
        for line in 1..=lines {
            let level = if line % 3 == 0 { "ERROR" } else { "INFO" };
            let text = format!("{level} {line}");
            let (first, rest) = text.split_at(if line % 5 == 0 { 3 } else { text.len() });
            for (piece, partial) in [(first, !rest.is_empty()), (rest, false)] {
                if !piece.is_empty() {
                    let position = format!("1:{}", log.len() + 1);
                    let (stream, unix_ms) = (LogStream::Stdout.into(), i64::try_from(line).unwrap());
                    let line = piece.as_bytes().to_vec();
                    log.push(LogEntry { line, partial, position, stream, unix_ms, ..LogEntry::default() });
                }
            }
        }
        log
    }

    /// What procmgr would say.
    fn answer(log: &[LogEntry], request: &ReadLogRequest) -> Vec<LogEntry> {
        let after = request.position.strip_prefix("1:").map_or(0, |number| number.parse().unwrap());
        let rest = &log[after..];
        let skipped = if request.tail == 0 { 0 } else { rest.len().saturating_sub(request.tail as usize) };
        rest[skipped..].to_vec()
    }

    /// Reads to the end, over streams that break off after so many entries each; later ones don't.
    fn read(mut reading: Reading, log: &[LogEntry], breaks: &[usize]) -> Vec<String> {
        let (mut told, mut breaks) = (Vec::new(), breaks.iter());
        loop {
            let request = reading.request("a", false);
            let entries = answer(log, &request);
            let cut = breaks.next().copied().unwrap_or(usize::MAX);
            for entry in entries.iter().take(cut) {
                told.extend(reading.take(Some(Event::Entry(entry.clone()))));
            }
            let searching = reading.is_searching();
            if cut < entries.len() {
                reading.broke();
            } else {
                told.extend(reading.ended());
                if !searching {
                    break;
                }
            }
        }
        let text = |told: Told| match told {
            Told::Line(entry) => String::from_utf8(entry.line).unwrap(),
            Told::Gap(gap) => format!("gap {}", gap.dropped),
        };
        told.into_iter().map(text).collect()
    }

    proptest! {
        #[test]
        fn wherever_streams_break_off_the_same_lines_are_told_once_and_in_order(
            lines in 0_u64..40,
            tail in proptest::option::of(0_u32..50),
            since in proptest::option::of(0_i64..45),
            errors in any::<bool>(),
            breaks in proptest::collection::vec(0_usize..30, 0..6),
        ) {
            let filter = Filter::new(errors.then_some("error"), None).unwrap();
            // Without a filter procmgr counts pieces, which is what is asked of it.
            prop_assume!(errors || since.is_some() || tail.is_none() || tail == Some(0));
            let whole = (1..=lines).filter(|line| !errors || line % 3 == 0);
            let recent = whole.filter(|line| since.is_none_or(|since| i64::try_from(*line).unwrap() >= since));
            let all: Vec<String> = recent
                .map(|line| format!("{} {line}", if line % 3 == 0 { "ERROR" } else { "INFO" }))
                .collect();
            let skipped = tail.map_or(0, |tail| all.len().saturating_sub(tail as usize));
            let reading = Reading::anew(Begin { tail, since }, filter, 1000);
            prop_assert_eq!(read(reading, &log(lines), &breaks), &all[skipped..]);
        }

        #[test]
        fn from_any_cursor_a_filter_passes_exactly_what_follows(lines in 1_u64..40, at in 0_usize..60) {
            let log = log(lines);
            let at = at % log.len();
            prop_assume!(!log[at].partial);
            let filter = || Filter::new(Some("error"), None).unwrap();
            let all = read(Reading::anew(Begin::default(), filter(), 1000), &log, &[]);
            let first = read(Reading::anew(Begin::default(), filter(), 1000), &log[..=at], &[]);
            let rest = read(Reading::after(log[at].position.clone(), filter(), 1000), &log, &[]);
            prop_assert_eq!([first, rest].concat(), all);
        }
    }

    #[test]
    fn a_gap_is_told_after_what_lies_before_it_and_once() {
        let gap = LogGap { dropped: 3, position: "1:9".to_owned() };
        let mut reading = Reading::anew(Begin::default(), Filter::default(), 1000);
        let begun = LogEntry { partial: true, position: "1:1".to_owned(), ..LogEntry::default() };
        assert!(reading.take(Some(Event::Entry(begun.clone()))).is_empty() && reading.is_holding());
        assert_eq!(reading.take(Some(Event::Gap(gap.clone()))), [Told::Line(begun), Told::Gap(gap.clone())]);
        assert_eq!(reading.request("a", true).position, "1:9");
        let mut searching = Reading::anew(Begin { tail: Some(1), since: Some(0) }, Filter::default(), 1000);
        assert!(searching.take(Some(Event::Gap(gap))).is_empty() && !searching.request("a", true).follow);
    }

    #[test]
    fn a_clock_that_is_set_back_hides_nothing_that_is_new() {
        let at = |unix_ms, position: &str| {
            let entry = LogEntry { unix_ms, position: position.to_owned(), ..LogEntry::default() };
            Some(Event::Entry(entry))
        };
        let mut reading = Reading::anew(Begin { tail: None, since: Some(5) }, Filter::default(), 1000);
        assert!(reading.take(at(4, "1:1")).is_empty() && reading.passes_over());
        assert_eq!(reading.take(at(5, "1:2")).len(), 1);
        assert_eq!(reading.take(at(1, "1:3")).len(), 1);
        reading.lost();
        assert_eq!(reading.position(), "");
    }
}
