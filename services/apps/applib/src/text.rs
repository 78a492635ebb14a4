//! Small text: what is random, what stands for a secret in a table, and how either is written in a URL or a header.

use aws_lc_rs::{constant_time, digest, rand};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A text as a sentence, with a capital and a full stop.
#[must_use]
pub fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}{}", chars.as_str(), if text.ends_with(['.', '?', '!']) { "" } else { "." })
}

/// 256 random bits as 43 characters of base64url: a token, a code, a state.
///
/// # Panics
/// When the kernel gives no random bytes, and nothing could be safe.
#[must_use]
pub fn random() -> String {
    let mut bytes = [0; 32];
    rand::fill(&mut bytes).expect("the kernel gives random bytes");
    base64url(&bytes)
}

/// The SHA-256 of a token: what is kept instead of it.
#[must_use]
pub fn digest(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

/// Whether two texts are equal, in a time that does not depend on where they differ.
#[must_use]
pub fn same(left: &[u8], right: &[u8]) -> bool {
    constant_time::verify_slices_are_equal(left, right).is_ok()
}

/// Base64 for URLs, without padding.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0_u32, |sum, at| sum << 8 | u32::from(group.get(at).copied().unwrap_or(0)));
        for place in 0..=group.len() {
            let six = number >> (18 - 6 * place) & 63;
            text.push(char::from(ALPHABET[six as usize]));
        }
    }
    text
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect()
}

fn digit(half: u8) -> char {
    char::from(b"0123456789abcdef"[usize::from(half)])
}

/// What [`hex`] wrote.
#[must_use]
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|char| char.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).unwrap_or(0)).collect())
}

/// Escapes all but letters, digits and `-._~`, as a part of a URL or a header has it.
#[must_use]
pub fn percent(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', digit(byte >> 4).to_ascii_uppercase(), digit(byte & 15).to_ascii_uppercase()]);
        }
    }
    out
}

/// Takes the escapes back; none where the result is no UTF-8 or an escape is broken.
#[must_use]
pub fn unpercent(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let pair = [bytes.next()?, bytes.next()?];
            out.extend(unhex(std::str::from_utf8(&pair).ok()?)?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// The value of a cookie among a request's.
#[must_use]
pub fn cookie<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(http::header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_sentence_has_a_capital_and_an_end() {
        for (text, told) in [("the name is taken", "The name is taken."), ("really?", "Really?"), ("", ".")] {
            assert_eq!(sentence(text), told);
        }
    }

    #[test]
    fn bytes_are_written_as_the_standards_have_it() {
        for (bytes, text) in
            [(&b""[..], ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (&[251, 255], "-_8")]
        {
            assert_eq!(base64url(bytes), text);
        }
        assert_eq!(hex(&[0, 15, 255]), "000fff");
        assert_eq!(unhex("000fFF"), Some(vec![0, 15, 255]));
        assert_eq!((unhex("0"), unhex("0g")), (None, None));
    }

    #[test]
    fn a_random_token_is_long_and_never_the_same() {
        let (one, other) = (random(), random());
        assert_eq!((one.len(), one == other), (43, false));
        assert_eq!(hex(&digest("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn what_was_escaped_comes_back_and_broken_escapes_do_not() {
        assert_eq!(percent("Zoë & co;"), "Zo%C3%AB%20%26%20co%3B");
        assert_eq!(unpercent(&percent("Zoë & co;")).unwrap(), "Zoë & co;");
        assert_eq!(
            (unpercent("%"), unpercent("%4"), unpercent("%zz"), unpercent("%ff")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = http::HeaderMap::new();
        headers.append("cookie", "a=1; YRT=x=y".parse().unwrap());
        headers.append("cookie", "b=2".parse().unwrap());
        assert_eq!(
            (cookie(&headers, "YRT"), cookie(&headers, "b"), cookie(&headers, "Y")),
            (Some("x=y"), Some("2"), None)
        );
    }
}
