//! Where somebody is who reads an instance's log: one cursor for ever, over all generations, also while two of them write.
//!
//! ```text
//! 5:120,7:33    read: of generation 5 up to number 120, of 7 up to 33; of every other below 7, all; of those above, nothing
//! ```
//! So only a generation that may still write costs a pair; those that ended and were read to their end collapse. To whoever
//! keeps one a cursor is opaque. Pure: what there is to read is `reader.rs`'s.

use std::{error::Error, fmt, str::FromStr};

use crate::frame::GENERATION_MAX;

/// More generations of one instance than ever write at once. Of still more, the oldest count as read to their end.
pub const PAIRS_MAX: usize = 64;
/// A longer text is no cursor.
pub const TEXT_MAX: usize = PAIRS_MAX * "4294967295:18446744073709551615,".len();
/// An earlier form is one number: the generation above so many bits, the entry's number in them.
const SEQ_BITS: u32 = 40;
const SEQ_MAX: u64 = (1 << SEQ_BITS) - 1;

/// A place in the log of an instance; the default is its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogCursor {
    /// Generation and number, generations ascending.
    pairs: Vec<(u64, u64)>,
}

impl LogCursor {
    /// Right after an entry, with all of earlier generations read.
    pub fn after(generation: u64, seq: u64) -> Self {
        Self { pairs: vec![(generation, seq)] }
    }

    /// From the earlier form.
    pub fn from_number(number: u64) -> Self {
        if number == 0 { Self::default() } else { Self::after(number >> SEQ_BITS, number & SEQ_MAX) }
    }

    /// Whether nothing was read.
    pub fn is_start(&self) -> bool {
        self.pairs.is_empty()
    }

    /// How far a generation was read; none: to its end.
    pub fn seen(&self, generation: u64) -> Option<u64> {
        match self.pairs.binary_search_by_key(&generation, |(named, _)| *named) {
            Ok(at) => Some(self.pairs[at].1),
            Err(at) if at == self.pairs.len() => Some(0),
            Err(_) => None,
        }
    }

    /// The newest generation that it knows of; 0: none.
    pub fn newest(&self) -> u64 {
        self.pairs.last().map_or(0, |(generation, _)| *generation)
    }

    /// The generations that it names.
    pub fn named(&self) -> impl Iterator<Item = u64> {
        self.pairs.iter().map(|(generation, _)| *generation)
    }

    /// A generation was read up to a number. `open` are those that may hold, or get, more than was read: of the others below
    /// the newest all is.
    pub fn advance(&mut self, generation: u64, seq: u64, open: &[u64]) {
        let newest = self.newest().max(generation);
        let mut named: Vec<u64> = open.iter().copied().filter(|open| *open < newest).collect();
        named.extend([generation, newest]);
        named.sort_unstable();
        named.dedup();
        let pair = |of: u64| Some((of, if of == generation { seq } else { self.seen(of)? }));
        self.pairs = bounded(named.into_iter().filter_map(pair).collect());
    }

    /// Where all was read that was read at either.
    #[must_use]
    pub fn join(&self, other: &Self) -> Self {
        let mut named: Vec<u64> = self.named().chain(other.named()).collect();
        named.sort_unstable();
        named.dedup();
        let pair = |of: u64| Some((of, self.seen(of)?.max(other.seen(of)?)));
        Self { pairs: bounded(named.into_iter().filter_map(pair).collect()) }
    }
}

/// The earlier form of an entry's place: grows within a generation, and from one that ended to the next.
pub fn number(generation: u64, seq: u64) -> u64 {
    generation << SEQ_BITS | seq & SEQ_MAX
}

fn bounded(mut pairs: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    pairs.drain(..pairs.len().saturating_sub(PAIRS_MAX));
    pairs
}

impl FromIterator<(u64, u64)> for LogCursor {
    fn from_iter<T: IntoIterator<Item = (u64, u64)>>(pairs: T) -> Self {
        let mut pairs: Vec<_> = pairs.into_iter().collect();
        pairs.sort_unstable();
        pairs.dedup_by_key(|(generation, _)| *generation);
        Self { pairs: bounded(pairs) }
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (generation, seq)) in self.pairs.iter().enumerate() {
            write!(f, "{}{generation}:{seq}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCursor;

impl fmt::Display for BadCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a cursor of a log")
    }
}

impl Error for BadCursor {}

impl FromStr for LogCursor {
    type Err = BadCursor;

    /// Takes what was printed, and a plain number for one of the earlier form.
    fn from_str(text: &str) -> Result<Self, BadCursor> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        if text.len() > TEXT_MAX {
            return Err(BadCursor);
        }
        if let Some(number) = decimal(text) {
            return Ok(Self::from_number(number));
        }
        let pair = |part: &str| {
            let (generation, seq) = part.split_once(':')?;
            Some((decimal(generation).filter(|generation| *generation <= GENERATION_MAX)?, decimal(seq)?))
        };
        let pairs: Vec<_> = text.split(',').map(pair).collect::<Option<_>>().ok_or(BadCursor)?;
        let proper = pairs.len() <= PAIRS_MAX && pairs.is_sorted_by(|(one, _), (next, _)| one < next);
        if proper { Ok(Self { pairs }) } else { Err(BadCursor) }
    }
}

/// A number as it is printed: no sign, no leading zero.
fn decimal(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn cursor() -> impl Strategy<Value = LogCursor> {
        proptest::collection::btree_map(0..12_u64, 0..100_u64, 0..5)
            .prop_map(|pairs| pairs.into_iter().collect())
    }

    #[test]
    fn a_cursor_is_read_as_it_was_printed() {
        for text in ["", "5:120", "5:120,7:33", "0:0,16777215:18446744073709551615"] {
            assert_eq!(text.parse::<LogCursor>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_was_never_printed_is_refused() {
        let long = (0..=PAIRS_MAX).map(|generation| format!("{generation}:1")).collect::<Vec<_>>().join(",");
        for text in [
            "x",
            ":",
            ",",
            "5:",
            ":5",
            "5:1,",
            "5:1,5:2",
            "7:1,5:1",
            "+5:1",
            "05:1",
            "5:-1",
            "5:1 ",
            "5:1:1",
            "16777216:1",
            "5:18446744073709551616",
            "18446744073709551616",
            "５:1",
            long.as_str(),
            &"1".repeat(5000),
        ] {
            assert_eq!(text.parse::<LogCursor>(), Err(BadCursor), "{text}");
        }
    }

    #[test]
    fn the_earlier_form_means_the_same_entry() {
        let cursor: LogCursor = number(GENERATION_MAX, 9).to_string().parse().unwrap();
        assert_eq!(cursor, LogCursor::after(GENERATION_MAX, 9));
        assert!("0".parse::<LogCursor>().unwrap().is_start());
        assert!(number(1, (1 << 40) - 1) < number(2, 1), "it grows over generations");
    }

    #[test]
    fn a_generation_that_ended_collapses_and_one_that_goes_on_keeps_its_pair() {
        let mut cursor = LogCursor::default();
        cursor.advance(5, 1, &[5]);
        cursor.advance(7, 1, &[5, 6, 7]);
        assert_eq!(cursor.to_string(), "5:1,6:0,7:1");
        cursor.advance(5, 2, &[5, 7]);
        assert_eq!((cursor.to_string().as_str(), cursor.seen(6)), ("5:2,7:1", None));
        cursor.advance(7, 2, &[7]);
        assert_eq!((cursor.to_string().as_str(), cursor.seen(5), cursor.seen(8)), ("7:2", None, Some(0)));
    }

    #[test]
    fn its_length_is_bounded() {
        let mut cursor = LogCursor::default();
        let open: Vec<u64> = (GENERATION_MAX - 200..GENERATION_MAX).collect();
        for generation in &open {
            cursor.advance(*generation, u64::MAX, &open);
        }
        let text = cursor.to_string();
        assert_eq!((cursor.named().count(), text.parse()), (PAIRS_MAX, Ok(cursor)));
        assert!(text.len() <= TEXT_MAX);
    }

    proptest! {
        #[test]
        fn any_cursor_is_read_as_it_was_printed(cursor in cursor()) {
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn no_text_is_a_crash_and_what_is_taken_is_printed_as_it_was(text in "[0-9:,x]{0,30}") {
            if let (Ok(cursor), true) = (text.parse::<LogCursor>(), text.contains(':')) {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }

        #[test]
        fn joined_is_read_what_either_has_read(one in cursor(), other in cursor(), generation in 0..14_u64) {
            let either = match (one.seen(generation), other.seen(generation)) {
                (Some(one), Some(other)) => Some(one.max(other)),
                _ => None,
            };
            prop_assert_eq!(one.join(&other).seen(generation), either);
        }

        #[test]
        fn a_cursor_knows_of_every_generation_how_far_it_was_read(
            steps in proptest::collection::vec((0..9_u64, any::<bool>()), 0..60),
        ) {
            // Nine generations, all open at first; a step reads one entry of an open generation or ends it.
            let mut open: Vec<u64> = (0..9).collect();
            let (mut cursor, mut read) = (LogCursor::default(), BTreeMap::new());
            for (generation, ends) in steps {
                if !open.contains(&generation) {
                    continue;
                }
                if ends && open.len() > 1 && cursor.newest() > generation {
                    open.retain(|other| *other != generation);
                    cursor.advance(cursor.newest(), cursor.seen(cursor.newest()).unwrap(), &open);
                } else {
                    let count = read.entry(generation).or_insert(0);
                    *count += 1;
                    cursor.advance(generation, *count, &open);
                }
                for generation in 0..9 {
                    let expected = open.contains(&generation).then(|| read.get(&generation).copied().unwrap_or(0));
                    prop_assert_eq!(cursor.seen(generation), expected);
                }
            }
        }
    }
}
