//! Lines put together from the pieces in which procmgr sends long ones.

use std::time::Duration;

use nexushub_proto::procmgr::LogEntry;

/// Lines that wait behind an open one, at most.
const HELD: usize = 1024;

/// Makes whole lines of pieces. While a line is open, whatever else comes waits behind it, for a short time and within the
/// bound; then everything goes out in the order in which it came to its end. So the last position sent is always the place to
/// go on from: nothing before it is still held back.
#[derive(Debug)]
pub struct Joiner {
    max: usize,
    /// In order. A line that was continued has the position of its last piece.
    held: Vec<LogEntry>,
}

impl Joiner {
    /// How long a line may stay open, counted from the last piece of anything; then the caller flushes.
    pub const HOLD: Duration = Duration::from_millis(500);

    /// For lines of up to so many bytes; a longer one is cut.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, held: Vec::new() }
    }

    /// Takes the next entry; returns what is to be told now.
    pub fn push(&mut self, entry: LogEntry) -> Vec<LogEntry> {
        let origin = |entry: &LogEntry| (entry.stream, entry.generation, entry.pid);
        let open = self.held.iter().position(|held| held.partial && origin(held) == origin(&entry));
        let entry = match open.map(|at| self.held.remove(at)) {
            Some(mut begun) => {
                begun.line.extend_from_slice(&entry.line);
                LogEntry { line: begun.line, unix_ms: begun.unix_ms, ..entry }
            }
            None => entry,
        };
        self.held.push(entry);
        let full =
            self.held.len() > HELD || self.held.iter().map(|held| held.line.len()).sum::<usize>() >= self.max;
        if full || !self.held.iter().any(|held| held.partial) { self.flush() } else { Vec::new() }
    }

    /// Whether anything is held back.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// What is held back, whole or not.
    pub fn flush(&mut self) -> Vec<LogEntry> {
        std::mem::take(&mut self.held)
    }

    /// Drops what is held back: it will be read again from the last position told.
    pub fn forget(&mut self) {
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use nexushub_proto::procmgr::LogStream;
    use proptest::prelude::*;

    use super::*;

    fn entry(cursor: u64, stream: LogStream, line: &str, partial: bool) -> LogEntry {
        LogEntry {
            cursor,
            stream: stream.into(),
            line: line.into(),
            partial,
            generation: 1,
            pid: 7,
            unix_ms: 1_700_000_000_123,
            position: format!("1:{cursor}"),
            release: String::new(),
        }
    }

    fn lines(entries: &[LogEntry]) -> Vec<(u64, String)> {
        entries
            .iter()
            .map(|entry| (entry.cursor, String::from_utf8_lossy(&entry.line).into_owned()))
            .collect()
    }

    #[test]
    fn pieces_of_a_line_are_joined_up_to_the_bound() {
        let mut joiner = Joiner::new(6);
        assert!(joiner.push(entry(1, LogStream::Stdout, "abc", true)).is_empty());
        assert_eq!(lines(&joiner.push(entry(2, LogStream::Stdout, "de", false))), [(2, "abcde".to_owned())]);
        assert!(joiner.push(entry(3, LogStream::Stdout, "abc", true)).is_empty());
        assert_eq!(
            lines(&joiner.push(entry(4, LogStream::Stdout, "defg", true))),
            [(4, "abcdefg".to_owned())]
        );
        assert_eq!(lines(&joiner.push(entry(5, LogStream::Stdout, "h", false))), [(5, "h".to_owned())]);
    }

    #[test]
    fn what_comes_between_the_pieces_of_a_line_waits_for_it() {
        let mut joiner = Joiner::new(100);
        assert!(joiner.push(entry(1, LogStream::Stdout, "out", true)).is_empty());
        assert!(joiner.push(entry(2, LogStream::Stderr, "err", false)).is_empty());
        let sent = joiner.push(entry(3, LogStream::Stdout, "put", false));
        assert_eq!(lines(&sent), [(2, "err".to_owned()), (3, "output".to_owned())]);
        joiner.push(entry(4, LogStream::Stdout, "never ends", true));
        assert_eq!(lines(&joiner.flush()), [(4, "never ends".to_owned())]);
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_once_and_in_order(
            pieces in proptest::collection::vec((any::<bool>(), "[a-z]{0,5}", any::<bool>()), 0..50),
            max in 1_usize..12,
        ) {
            let mut joiner = Joiner::new(max);
            let (mut sent, mut out, mut errors) = (Vec::new(), Vec::new(), Vec::new());
            for (index, (err, text, partial)) in pieces.iter().enumerate() {
                let stream = if *err { LogStream::Stderr } else { LogStream::Stdout };
                if *err { &mut errors } else { &mut out }.extend_from_slice(text.as_bytes());
                sent.extend(joiner.push(entry(index as u64 + 1, stream, text, *partial)));
            }
            sent.extend(joiner.flush());
            prop_assert!(sent.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
            for (err, all) in [(false, out), (true, errors)] {
                let stream = if err { LogStream::Stderr } else { LogStream::Stdout };
                let lines = sent.iter().filter(|entry| entry.stream() == stream);
                prop_assert_eq!(lines.flat_map(|entry| entry.line.clone()).collect::<Vec<_>>(), all);
            }
        }
    }
}
