//! What clients of resumable uploads say in header fields: tus writes plain numbers and base64, the draft writes structured
//! fields (RFC 9651). Pure; what isn't exactly of its form is nothing, and what is made of that is the caller's to say.

use data_encoding::BASE64;
use nexushub_chassis::launch::clock;
use std::time::{Duration, UNIX_EPOCH};

use crate::digests::{Algorithm, Checksum, Sha256Hex};

/// Longest number of either protocol: what a structured field's integer may have.
const MAX_DIGITS: usize = 15;

/// A number as tus writes it: digits.
pub(crate) fn number(text: &str) -> Option<u64> {
    let digits = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// What tus knows of a file beyond its bytes: pairs of a key and a value in base64. Returns the digest among them; none of it
/// is used but that, and all of it is told again.
pub(crate) fn metadata(text: &str) -> Option<Option<Sha256Hex>> {
    let (mut keys, mut sha256) = (Vec::new(), None);
    for pair in text.split(',').map(str::trim) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if !plain || keys.contains(&key) {
            return None;
        }
        keys.push(key);
        let value = BASE64.decode(value.as_bytes()).ok()?;
        if key == "sha256" {
            sha256 = Some(Sha256Hex::parse(str::from_utf8(&value).ok()?)?);
        }
    }
    Some(sha256)
}

/// Why a checksum is none.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoChecksum {
    Malformed,
    UnknownAlgorithm,
}

/// A checksum as tus writes it: the algorithm's name and the digest in base64.
pub(crate) fn checksum(text: &str) -> Result<Checksum, NoChecksum> {
    let (name, digest) = text.split_once(' ').ok_or(NoChecksum::Malformed)?;
    let algorithm = Algorithm::named(name).ok_or(NoChecksum::UnknownAlgorithm)?;
    let digest = BASE64.decode(digest.as_bytes()).map_err(|_| NoChecksum::Malformed)?;
    Checksum::new(algorithm, digest).ok_or(NoChecksum::Malformed)
}

/// An item that is an integer from 0.
pub(crate) fn integer(text: &str) -> Option<u64> {
    match item(text)? {
        Bare::Integer(number) => u64::try_from(number).ok(),
        _ => None,
    }
}

/// An item that is a boolean.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match item(text)? {
        Bare::Boolean(truth) => Some(truth),
        _ => None,
    }
}

/// The SHA-256 among the digests of RFC 9530: none of that algorithm is no error, a field that is no list of digests is.
pub(crate) fn sha256(text: &str) -> Option<Option<Sha256Hex>> {
    let mut reader = Reader::of(text);
    let mut found = None;
    loop {
        let key = reader.key()?;
        let value = if reader.eat(b'=') { reader.bare()? } else { Bare::Boolean(true) };
        reader.parameters()?;
        let Bare::Bytes(digest) = value else { return None };
        if key == b"sha-256" {
            found = Some(Sha256Hex::of(&digest)?);
        }
        reader.take(is_blank);
        if reader.rest.is_empty() {
            return Some(found);
        }
        if !reader.eat(b',') {
            return None;
        }
        reader.take(is_blank);
    }
}

/// The moment as HTTP writes it: `Sun, 22 Nov 2026 01:25:00 GMT`.
pub(crate) fn http_date(unix_ms: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const YEAR_9999: Duration = Duration::from_secs(253_402_300_799);
    let since = Duration::from_millis(u64::try_from(unix_ms).unwrap_or(0)).min(YEAR_9999);
    let text = clock::rfc3339(UNIX_EPOCH + since);
    let weekday = DAYS[usize::try_from(since.as_secs() / 86_400 % 7).unwrap_or(0)];
    let month = MONTHS[text[5..7].parse::<usize>().map_or(0, |month| (month - 1) % 12)];
    format!("{weekday}, {} {month} {} {} GMT", &text[8..10], &text[..4], &text[11..19])
}

/// A value without its parameters; of those that are not asked for only the form is known.
#[derive(Debug, PartialEq, Eq)]
enum Bare {
    Integer(i64),
    Boolean(bool),
    Bytes(Vec<u8>),
    Other,
}

fn item(text: &str) -> Option<Bare> {
    let mut reader = Reader::of(text);
    let bare = reader.bare()?;
    reader.parameters()?;
    reader.rest.is_empty().then_some(bare)
}

/// A structured field from left to right.
struct Reader<'a> {
    rest: &'a [u8],
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

impl<'a> Reader<'a> {
    /// Without the blanks around it.
    fn of(text: &'a str) -> Self {
        Self { rest: text.trim_matches(' ').as_bytes() }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.rest.first() == Some(&byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    fn take(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        taken
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let begins = |byte: &u8| byte.is_ascii_lowercase() || *byte == b'*';
        self.rest.first().filter(|byte| begins(byte))?;
        let goes_on = |byte: u8| begins(&byte) || byte.is_ascii_digit() || b"_-.".contains(&byte);
        Some(self.take(goes_on))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.take(|byte| byte == b' ');
            self.key()?;
            if self.eat(b'=') {
                self.bare()?;
            }
        }
        Some(())
    }

    fn bare(&mut self) -> Option<Bare> {
        match self.rest.first()? {
            b'-' | b'0'..=b'9' => self.numeral(),
            b'?' => self.truth(),
            b':' => self.bytes(),
            b'"' => self.string(),
            b'*' | b'A'..=b'Z' | b'a'..=b'z' => {
                let goes_on = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte);
                self.take(goes_on);
                Some(Bare::Other)
            }
            _ => None,
        }
    }

    /// An integer, or a decimal, which nobody asks for.
    fn numeral(&mut self) -> Option<Bare> {
        let negative = self.eat(b'-');
        let digits = self.take(|byte| byte.is_ascii_digit());
        if self.eat(b'.') {
            let fraction = self.take(|byte| byte.is_ascii_digit());
            let fits = (1..=12).contains(&digits.len()) && (1..=3).contains(&fraction.len());
            return fits.then_some(Bare::Other);
        }
        if digits.len() > MAX_DIGITS {
            return None;
        }
        let number: i64 = str::from_utf8(digits).ok()?.parse().ok()?;
        Some(Bare::Integer(if negative { -number } else { number }))
    }

    fn truth(&mut self) -> Option<Bare> {
        self.eat(b'?');
        match (self.eat(b'1'), self.eat(b'0')) {
            (true, false) => Some(Bare::Boolean(true)),
            (false, true) => Some(Bare::Boolean(false)),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<Bare> {
        self.eat(b':');
        let text = self.take(|byte| byte != b':');
        let bytes = BASE64.decode(text).ok()?;
        self.eat(b':').then_some(Bare::Bytes(bytes))
    }

    fn string(&mut self) -> Option<Bare> {
        self.eat(b'"');
        loop {
            self.take(|byte| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\');
            if self.eat(b'"') {
                return Some(Bare::Other);
            }
            if !(self.eat(b'\\') && (self.eat(b'"') || self.eat(b'\\'))) {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_number_of_tus_is_digits_and_nothing_else() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("999999999999999"), Some(999_999_999_999_999));
        for text in ["", "-1", "+1", " 1", "1 ", "1.0", "0x1", "1000000000000000", "١"] {
            assert_eq!(number(text), None, "{text:?}");
        }
    }

    #[test]
    fn metadata_is_pairs_of_which_each_key_comes_once() {
        let digest = "ab".repeat(32);
        let pair = format!("sha256 {}", BASE64.encode(digest.as_bytes()));
        assert_eq!(metadata("filename d29ybGQ=,is_confidential"), Some(None));
        assert_eq!(metadata(&format!("filename d29ybGQ=, {pair}")), Some(Sha256Hex::parse(&digest)));
        for text in ["", ",", "a ,", "a %", "a d29ybGQ", "a YQ==,a YQ==", "ä YQ==", "sha256 YQ==", "sha256"]
        {
            assert_eq!(metadata(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_checksum_is_a_known_name_and_a_digest_of_its_length() {
        assert!(checksum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").is_ok());
        assert_eq!(checksum("crc32 AAAAAA=="), Err(NoChecksum::UnknownAlgorithm));
        for text in ["", "sha1", "sha1 ", "sha1 Kq5s", "sha1  Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "md5 %"] {
            assert_eq!(checksum(text), Err(NoChecksum::Malformed), "{text:?}");
        }
    }

    #[test]
    fn items_are_read_as_the_rfc_writes_them() {
        for (text, number) in [
            ("0", Some(0)),
            ("  25  ", Some(25)),
            ("007", Some(7)),
            ("-0", Some(0)),
            ("1;a;b=2.5;c=\"\\\"x\";*d=?0;e=:YQ==:;f=token/x", Some(1)),
            ("999999999999999", Some(999_999_999_999_999)),
            ("1000000000000000", None),
            ("-1", None),
            ("1.5", None),
            ("1,2", None),
            ("1;", None),
            ("1;A", None),
            ("1;a=", None),
            ("?1", None),
            ("\"1\"", None),
            ("\t1", None),
            ("", None),
        ] {
            assert_eq!(integer(text), number, "{text:?}");
        }
        for (text, truth) in
            [("?1", Some(true)), ("?0", Some(false)), ("?1;x=1", Some(true)), ("?2", None), ("1", None)]
        {
            assert_eq!(boolean(text), truth, "{text:?}");
        }
        assert_eq!(boolean("?10"), None);
    }

    #[test]
    fn of_digests_the_sha_256_is_taken_and_what_is_no_list_of_digests_is_refused() {
        let digest = format!("sha-256=:{}:", BASE64.encode(&[7; 32]));
        let found = Sha256Hex::of(&[7; 32]);
        assert_eq!(sha256(&digest), Some(found.clone()));
        assert_eq!(sha256(&format!("sha-512=:AAAA:;x,\t{digest}")), Some(found));
        assert_eq!(sha256("sha-512=:AAAA:"), Some(None));
        for text in
            ["", "sha-256", "sha-256=YQ==", "sha-256=:YQ==:", "sha-256=:YQ==", "a=:YQ==:,", "A=:YQ==:"]
        {
            assert_eq!(sha256(text), None, "{text:?}");
        }
        assert_eq!(sha256(&format!("{digest} x")), None);
    }

    #[test]
    fn a_moment_is_written_as_http_writes_it() {
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(951_782_400_123), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(http_date(i64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }
}
