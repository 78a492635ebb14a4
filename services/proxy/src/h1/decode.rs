//! A body's pieces: bytes in, data and trailers out, and nothing kept in between. Pure.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::{Limits, Malformed, framing::Length, head, lines::Scan};

/// No chunk's first line is longer, its extensions included.
const CHUNK_LINE: usize = 256;

/// What comes next of a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Some of it.
    Data(Bytes),
    /// Fields after it; the end comes next.
    Trailers(HeaderMap),
    /// Nothing: it has ended.
    End,
    /// Nothing can be said before more bytes are there.
    Starved,
}

#[derive(Debug)]
enum State {
    Exact(u64),
    UntilClose,
    /// Before a chunk's first line.
    ChunkLine,
    /// Within a chunk.
    Chunk(u64),
    /// Before the line end after a chunk's data.
    ChunkEnd,
    Trailers(Scan),
    Ended,
}

/// Cuts one body.
#[derive(Debug)]
pub(crate) struct Decoder {
    state: State,
    limits: Limits,
}

impl Decoder {
    /// For a body of this length.
    pub(crate) fn new(length: Length, limits: Limits) -> Self {
        let state = match length {
            Length::Exact(0) => State::Ended,
            Length::Exact(left) => State::Exact(left),
            Length::Chunked => State::ChunkLine,
            Length::UntilClose => State::UntilClose,
        };
        Self { state, limits }
    }

    /// Whether all of the body has been taken.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    /// Bytes still to come, where that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.state {
            State::Exact(left) => Some(left),
            State::Ended => Some(0),
            _ => None,
        }
    }

    /// Takes the next piece off the front of `bytes`; what follows the body stays.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut) -> Result<Item, Malformed> {
        loop {
            let found = match &mut self.state {
                State::Ended => Some(Item::End),
                State::UntilClose => Some(take(bytes, u64::MAX).0),
                State::Exact(left) => {
                    let (item, taken) = take(bytes, *left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::Ended;
                    }
                    Some(item)
                }
                State::Chunk(left) => {
                    let (item, taken) = take(bytes, *left);
                    *left -= taken;
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    Some(item)
                }
                State::ChunkLine => self.chunk_line(bytes)?,
                State::ChunkEnd => self.chunk_end(bytes)?,
                State::Trailers(_) => self.trailers(bytes)?,
            };
            if let Some(item) = found {
                return Ok(item);
            }
        }
    }

    /// The connection has ended: whether the body has, too.
    pub(crate) fn close(&mut self) -> bool {
        let whole = matches!(self.state, State::UntilClose | State::Ended);
        if whole {
            self.state = State::Ended;
        }
        whole
    }

    fn chunk_line(&mut self, bytes: &mut BytesMut) -> Result<Option<Item>, Malformed> {
        let Some(feed) = memchr::memchr(b'\n', bytes) else {
            return if bytes.len() > CHUNK_LINE { Err(Malformed::Chunk) } else { Ok(Some(Item::Starved)) };
        };
        if feed > CHUNK_LINE {
            return Err(Malformed::Chunk);
        }
        let line = bytes.split_to(feed + 1);
        let line = line.strip_suffix(b"\r\n").ok_or(Malformed::Chunk)?;
        self.state = match chunk_size(line)? {
            0 => State::Trailers(Scan::default()),
            size => State::Chunk(size),
        };
        Ok(None)
    }

    fn chunk_end(&mut self, bytes: &mut BytesMut) -> Result<Option<Item>, Malformed> {
        match bytes.as_ref() {
            [b'\r', b'\n', ..] => {
                drop(bytes.split_to(2));
                self.state = State::ChunkLine;
                Ok(None)
            }
            [] | [b'\r'] => Ok(Some(Item::Starved)),
            _ => Err(Malformed::Chunk),
        }
    }

    fn trailers(&mut self, bytes: &mut BytesMut) -> Result<Option<Item>, Malformed> {
        let State::Trailers(scan) = &mut self.state else { return Ok(None) };
        let Some(end) = scan.end(bytes)? else {
            return if bytes.len() > self.limits.head_bytes {
                Err(Malformed::TooLarge)
            } else {
                Ok(Some(Item::Starved))
            };
        };
        if end > self.limits.head_bytes {
            return Err(Malformed::TooLarge);
        }
        let section = bytes.split_to(end).freeze();
        self.state = State::Ended;
        if end == 2 {
            return Ok(None);
        }
        head::trailers(&section, &self.limits).map(|trailers| Some(Item::Trailers(trailers)))
    }
}

fn take(bytes: &mut BytesMut, most: u64) -> (Item, u64) {
    let length = bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    if length == 0 {
        return (Item::Starved, 0);
    }
    (Item::Data(bytes.split_to(length).freeze()), length as u64)
}

/// `1*HEXDIG [chunk-ext]`: sixteen digits at most, and extensions that are some.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extensions) = line.split_at(digits);
    if !(1..=16).contains(&digits) || !are_extensions(extensions) {
        return Err(Malformed::Chunk);
    }
    let size = str::from_utf8(size).map_err(|_| Malformed::Chunk)?;
    u64::from_str_radix(size, 16).map_err(|_| Malformed::Chunk)
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )` (RFC 9112 §7.1.1). Nobody needs them and they are not
/// passed on; but one that is none is how a chunk is hidden in another.
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        let Some(after) = blank(rest).strip_prefix(b";") else { return false };
        let Some(after) = token(blank(after)) else { return false };
        rest = match blank(after).strip_prefix(b"=") {
            None => after,
            Some(value) => match token(blank(value)).or_else(|| quoted(blank(value))) {
                Some(after) => after,
                None => return false,
            },
        };
    }
    true
}

fn blank(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    &text[blanks..]
}

/// What follows a token; none if there is none.
fn token(text: &[u8]) -> Option<&[u8]> {
    let of_token = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = text.iter().take_while(of_token).count();
    (length > 0).then(|| &text[length..])
}

/// What follows a quoted string; none if there is none.
fn quoted(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.strip_prefix(b"\"")?;
    loop {
        rest = match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', escaped, after @ ..] if !escaped.is_ascii_control() || *escaped == b'\t' => after,
            [b'\\', ..] | [] => return None,
            [plain, after @ ..] if !plain.is_ascii_control() || *plain == b'\t' => after,
            _ => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { head_bytes: 128, fields: 4, target_bytes: 64 };

    /// The data, what is left over, and how it ended.
    fn cut(length: Length, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>, Result<bool, Malformed>) {
        let (mut decoder, mut bytes, mut data) = (Decoder::new(length, LIMITS), BytesMut::new(), Vec::new());
        for piece in pieces {
            bytes.extend_from_slice(piece);
            loop {
                match decoder.next(&mut bytes) {
                    Ok(Item::Data(some)) => data.extend_from_slice(&some),
                    Ok(Item::Trailers(_)) => {}
                    Ok(Item::End | Item::Starved) => break,
                    Err(error) => return (data, bytes.to_vec(), Err(error)),
                }
            }
        }
        (data, bytes.to_vec(), Ok(decoder.is_ended()))
    }

    fn chunked(text: &str) -> (String, Result<bool, Malformed>) {
        let (data, _, ended) = cut(Length::Chunked, &[text.as_bytes()]);
        (String::from_utf8(data).unwrap(), ended)
    }

    #[test]
    fn a_body_ends_where_it_says_and_what_follows_stays() {
        let next = &b"GET / HTTP/1.1"[..];
        for (length, body) in
            [(Length::Exact(5), &b"hello"[..]), (Length::Chunked, b"5\r\nhello\r\n0\r\n\r\n")]
        {
            let (data, rest, ended) = cut(length, &[body, next]);
            assert_eq!((data.as_slice(), rest.as_slice(), ended), (&b"hello"[..], next, Ok(true)));
        }
        assert_eq!(cut(Length::Exact(9), &[b"hello"]).2, Ok(false));
    }

    #[test]
    fn only_a_body_that_the_close_delimits_ends_with_it() {
        for (length, whole) in [
            (Length::UntilClose, true),
            (Length::Exact(0), true),
            (Length::Exact(1), false),
            (Length::Chunked, false),
        ] {
            assert_eq!(Decoder::new(length, LIMITS).close(), whole, "{length:?}");
        }
    }

    #[test]
    fn extensions_are_read_over_if_they_are_some() {
        for line in
            ["2;a", "2;a=b", "2;a=\"b;\\\"c\"", "2 ; a = b", "2;a;b=c;d", "02", "0000000000000002", "2\t;a"]
        {
            let (data, ended) = chunked(&format!("{line}\r\nok\r\n0\r\n\r\n"));
            assert_eq!((data.as_str(), ended), ("ok", Ok(true)), "{line:?}");
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for body in [
            "2\nok\r\n0\r\n\r\n",
            "2\r\nok\n0\r\n\r\n",
            "2\r\nokay\r\n0\r\n\r\n",
            "\r\n2\r\nok\r\n",
            " 2\r\nok\r\n",
            "2 \r\nok\r\n",
            "0x2\r\nok\r\n",
            "+2\r\nok\r\n",
            "-2\r\nok\r\n",
            "2;\r\nok\r\n",
            "2;=a\r\nok\r\n",
            "2;a=\r\nok\r\n",
            "2;a=\"b\r\nok\r\n",
            "2;a\rb\r\nok\r\n",
            "2;a\nb\r\nok\r\n",
            "2;\0\r\nok\r\n",
            "2 a\r\nok\r\n",
            "2,2\r\nok\r\n",
            "g\r\n",
            "00000000000000002\r\nok\r\n",
            ";a\r\n",
            "\r\n",
        ] {
            assert_eq!(chunked(body).1, Err(Malformed::Chunk), "{body:?}");
        }
        let long = format!("2;{}\r\nok\r\n", "a".repeat(CHUNK_LINE));
        assert_eq!(chunked(&long).1, Err(Malformed::Chunk));
        assert_eq!(chunked(&"1".repeat(CHUNK_LINE + 1)).1, Err(Malformed::Chunk));
    }

    #[test]
    fn trailers_are_fields_and_bounded() {
        let mut bytes = BytesMut::from("0\r\nx-sum: 7\r\n\r\nrest");
        let mut decoder = Decoder::new(Length::Chunked, LIMITS);
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "7".parse().unwrap())]);
        assert_eq!(decoder.next(&mut bytes), Ok(Item::Trailers(trailers)));
        assert_eq!((decoder.next(&mut bytes), &bytes[..]), (Ok(Item::End), &b"rest"[..]));
        for (section, error) in [
            ("a b: c\r\n\r\n", Malformed::Field),
            ("a: b\n\r\n", Malformed::BareLineFeed),
            ("a : b\r\n\r\n", Malformed::Field),
            (" a: b\r\n\r\n", Malformed::Field),
            ("a: b\r\n c\r\n\r\n", Malformed::Field),
            ("a:1\r\na:2\r\na:3\r\na:4\r\na:5\r\n\r\n", Malformed::TooManyFields),
        ] {
            assert_eq!(chunked(&format!("0\r\n{section}")).1, Err(error), "{section:?}");
        }
        let large = format!("0\r\na: {}\r\n\r\n", "b".repeat(128));
        assert_eq!(chunked(&large).1, Err(Malformed::TooLarge));
        assert_eq!(chunked(&large[..135]).1, Err(Malformed::TooLarge));
    }

    proptest! {
        #[test]
        fn in_how_many_pieces_a_body_comes_changes_nothing(
            body in "([0-9a-f]{1,2}(;[a-z=\"]{0,3})?\r\n[a-z]{0,9}\r\n){0,4}0\r\n(a: b\r\n)?\r\n",
            cuts in prop::collection::vec(0_usize..64, 0..6),
        ) {
            let bytes = body.as_bytes();
            let mut at: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            at.extend([0, bytes.len()]);
            at.sort_unstable();
            let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let (whole, parts) = (cut(Length::Chunked, &[bytes]), cut(Length::Chunked, &pieces));
            prop_assert_eq!((&whole.0, &whole.2), (&parts.0, &parts.2));
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in prop::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b';'), any::<u8>()], 0..64)) {
            let _ = cut(Length::Chunked, &[&bytes]);
        }
    }
}
