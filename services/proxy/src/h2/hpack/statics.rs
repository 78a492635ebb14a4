//! The fields that everybody knows by number (RFC 7541, appendix A). Pure.

use std::sync::LazyLock;

use bytes::Bytes;

use super::Field;

/// How many there are; numbers begin at 1.
pub(super) const COUNT: usize = NAMED.len();

#[rustfmt::skip]
pub(super) const NAMED: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

static FIELDS: LazyLock<Vec<Field>> = LazyLock::new(|| {
    let of = |(name, value): &(&'static str, &'static str)| {
        Field::of(name.as_bytes(), Bytes::from_static(value.as_bytes()))
    };
    NAMED.iter().map(of).collect()
});

/// The field of this number.
pub(super) fn field(number: usize) -> Option<&'static Field> {
    FIELDS.get(number.checked_sub(1)?)
}

/// The number of the first field of this name, of those that an answer has.
pub(super) fn number(name: &str) -> Option<u8> {
    Some(match name {
        "accept-ranges" => 18,
        "access-control-allow-origin" => 20,
        "age" => 21,
        "allow" => 22,
        "cache-control" => 24,
        "content-disposition" => 25,
        "content-encoding" => 26,
        "content-language" => 27,
        "content-length" => 28,
        "content-location" => 29,
        "content-range" => 30,
        "content-type" => 31,
        "date" => 33,
        "etag" => 34,
        "expires" => 36,
        "last-modified" => 44,
        "link" => 45,
        "location" => 46,
        "refresh" => 52,
        "retry-after" => 53,
        "server" => 54,
        "set-cookie" => 55,
        "strict-transport-security" => 56,
        "vary" => 59,
        "via" => 60,
        "www-authenticate" => 61,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_agree() {
        let mut known = 0;
        for (place, (name, _)) in NAMED.iter().enumerate() {
            if let Some(number) = number(name) {
                assert_eq!(usize::from(number), place + 1, "{name}");
                known += 1;
            }
        }
        assert_eq!((known, COUNT), (26, 61));
    }
}
