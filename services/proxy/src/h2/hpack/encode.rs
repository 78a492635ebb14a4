//! Writing header blocks: the static table's numbers, and text as it is.
//!
//! Our blocks use no dynamic table, which the first of them says: that saves its memory on both sides and the search in it, and
//! an answer's fields are few. Nor are they in the Huffman code, whose gain (a fifth of some 100 bytes) costs more time than it
//! saves.

use bytes::{BufMut, BytesMut};
use http::{HeaderName, StatusCode, header::SET_COOKIE};

use super::statics;

/// A table of no size (RFC 7541 §6.3): what our first block begins with.
pub(in super::super) const NO_TABLE: u8 = 0x20;

const INDEXED: u8 = 0x80;
const PLAIN: u8 = 0;
/// To be kept in no table by anybody on the way.
const SECRET: u8 = 0x10;

/// An answer's status.
pub(in super::super) fn put_status(to: &mut BytesMut, status: StatusCode) {
    let number = match status.as_u16() {
        200 => 8,
        204 => 9,
        206 => 10,
        304 => 11,
        400 => 12,
        404 => 13,
        500 => 14,
        _ => {
            to.put_u8(PLAIN | 8);
            return put_string(to, status.as_str().as_bytes());
        }
    };
    to.put_u8(INDEXED | number);
}

/// A field.
pub(in super::super) fn put_field(to: &mut BytesMut, name: &HeaderName, value: &[u8]) {
    let kind = if *name == SET_COOKIE { SECRET } else { PLAIN };
    match statics::number(name.as_str()) {
        Some(number) => put_number(to, kind, 4, number.into()),
        None => {
            to.put_u8(kind);
            put_string(to, name.as_str().as_bytes());
        }
    }
    put_string(to, value);
}

fn put_string(to: &mut BytesMut, bytes: &[u8]) {
    put_number(to, 0, 7, bytes.len());
    to.put_slice(bytes);
}

/// A number whose first so many bits go into the first byte, beside what else that says (§5.1).
fn put_number(to: &mut BytesMut, first: u8, bits: u8, number: usize) {
    let full = (1usize << bits) - 1;
    if number < full {
        return to.put_u8(first | number as u8);
    }
    to.put_u8(first | full as u8);
    let mut rest = number - full;
    while rest >= 0x80 {
        to.put_u8(rest as u8 | 0x80);
        rest >>= 7;
    }
    to.put_u8(rest as u8);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{
        super::{Decoder, Pseudo, Said},
        *,
    };

    #[test]
    fn what_is_written_is_read() {
        for (name, value) in [
            ("content-type", "text/plain".to_owned()),
            ("set-cookie", "a=b".to_owned()),
            ("x-request-id", String::new()),
            ("www-authenticate", "x".repeat(126)),
            ("vary", "x".repeat(127)),
            ("x-long", "x".repeat(70_000)),
        ] {
            let mut block = BytesMut::from(&[NO_TABLE][..]);
            put_field(&mut block, &HeaderName::from_static(name), value.as_bytes());
            let mut read = Vec::new();
            Decoder::default()
                .decode(&block, |field| {
                    read.push(field.said);
                    true
                })
                .unwrap();
            assert!(matches!(&read[..], [Said::Field(n, v)] if n == name && *v == value), "{name}");
        }
    }

    #[test]
    fn every_status_is_written() {
        for code in 100..600 {
            let mut block = BytesMut::new();
            put_status(&mut block, StatusCode::from_u16(code).unwrap());
            let mut read = Vec::new();
            Decoder::default()
                .decode(&block, |field| {
                    read.push(field.said);
                    true
                })
                .unwrap();
            let status = code.to_string().into();
            assert_eq!(read, [Said::Pseudo(Pseudo::Other, status)]);
        }
    }
}
