//! Where a header section ends: at its first empty line, every line ending in CR LF.

use memchr::memchr;

use super::Malformed;

/// A search that goes on where it left off when more bytes are there.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Bytes looked at.
    seen: usize,
    /// Where the line begins that has not ended yet.
    line: usize,
    /// The first line's length, once it has ended.
    first: Option<usize>,
}

impl Scan {
    /// The length of the section with its empty line, once that is there. `bytes` are those of the last call and more.
    pub(crate) fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        while let Some(at) = memchr(b'\n', bytes.get(self.seen..).unwrap_or_default()) {
            let feed = self.seen + at;
            if feed == self.line || bytes[feed - 1] != b'\r' {
                return Err(Malformed::BareLineFeed);
            }
            let empty = feed - 1 == self.line;
            self.first.get_or_insert(feed - 1);
            (self.seen, self.line) = (feed + 1, feed + 1);
            if empty {
                return Ok(Some(feed + 1));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }

    /// The length of the first line without what ends it, as far as it is among these bytes of the last call.
    pub(crate) fn first_line(&self, bytes: &[u8]) -> usize {
        self.first.unwrap_or_else(|| bytes.strip_suffix(b"\r").unwrap_or(bytes).len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn end(text: &str) -> Result<Option<usize>, Malformed> {
        Scan::default().end(text.as_bytes())
    }

    #[test]
    fn a_section_ends_at_its_first_empty_line() {
        for (text, length) in [
            ("GET / HTTP/1.1\r\n\r\nbody\r\n\r\n", Some(18)),
            ("a\r\nb: c\r\n\r\n", Some(11)),
            ("\r\n", Some(2)),
            ("a\r\nb: c\r\n", None),
            ("a\r\n\r", None),
            ("", None),
        ] {
            assert_eq!(end(text), Ok(length), "{text:?}");
        }
    }

    #[test]
    fn a_line_feed_alone_ends_nothing() {
        for text in ["a\n", "\n", "a\r\n\n", "a\r\nb\n\r\n", "a\r\nb: c\nd: e\r\n\r\n"] {
            assert_eq!(end(text), Err(Malformed::BareLineFeed), "{text:?}");
        }
    }

    #[test]
    fn a_first_line_is_as_long_as_it_is_however_much_has_come_behind_it() {
        for (text, length) in
            [("", 0), ("GET", 3), ("GET /\r", 5), ("GET /\r\n", 5), ("GET /\r\na: b", 5), ("\r\n", 0)]
        {
            let mut scan = Scan::default();
            let _ = scan.end(text.as_bytes());
            assert_eq!(scan.first_line(text.as_bytes()), length, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn in_how_many_pieces_bytes_come_changes_nothing(text in "([ab:]|\r\n|\r|\n){0,20}", cut in 0_usize..40) {
            let bytes = text.as_bytes();
            let mut scan = Scan::default();
            let first = scan.end(&bytes[..cut.min(bytes.len())]);
            let both = if first == Ok(None) { scan.end(bytes) } else { first };
            prop_assert_eq!(both, Scan::default().end(bytes));
        }
    }
}
