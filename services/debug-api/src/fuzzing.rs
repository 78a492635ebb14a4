//! Doors for the fuzzer (`tests/fuzz`), there with the feature `fuzzing` only: what clients of resumable uploads say in header fields,
//! as functions of any bytes that panic where a promise is broken. The promises: nothing panics, and what was read reads the same
//! once it is written again.

use data_encoding::{BASE64, HEXLOWER};

use crate::{digests::Sha256Hex, fields};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every one, by its name.
pub const TARGETS: [(&str, Target); 2] = [("items", items), ("tus", tus)];

fn bytes_of(digest: &Sha256Hex) -> Vec<u8> {
    HEXLOWER.decode(digest.to_string().as_bytes()).expect("a digest is hex")
}

/// Structured fields: what is an integer is no boolean, and neither is a list of digests.
fn items(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let (integer, boolean, digest) =
        (fields::integer(text), fields::boolean(text), fields::sha256(text).flatten());
    let read = [integer.is_some(), boolean.is_some(), digest.is_some()];
    assert!(read.into_iter().filter(|read| *read).count() <= 1, "{text:?}");
    if let Some(number) = integer {
        assert_eq!(fields::integer(&number.to_string()), Some(number));
    }
    if let Some(truth) = boolean {
        assert_eq!(fields::boolean(if truth { "?1" } else { "?0" }), Some(truth));
    }
    if let Some(digest) = digest {
        let again = format!("sha-256=:{}:", BASE64.encode(&bytes_of(&digest)));
        assert_eq!(fields::sha256(&again), Some(Some(digest)));
    }
}

/// Fields of tus, and a moment as HTTP writes it.
fn tus(bytes: &[u8]) {
    let at = bytes.first_chunk().map_or(0, |at| i64::from_le_bytes(*at));
    assert!(fields::http_date(at).ends_with(" GMT"));
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Some(number) = fields::number(text) {
        assert_eq!(fields::number(&number.to_string()), Some(number));
        assert_eq!(fields::integer(text), Some(number), "the draft reads it the same");
    }
    if let Some(digest) = fields::metadata(text).flatten() {
        let again = format!("sha256 {}", BASE64.encode(digest.to_string().as_bytes()));
        assert_eq!(fields::metadata(&again), Some(Some(digest)));
    }
    if fields::checksum(text).is_ok() {
        assert!(fields::checksum(&format!("{text} ")).is_err(), "{text:?}");
        assert!(fields::number(text).is_none());
    }
}
