//! Files that lie there compressed as well: `app.js.br`, `.zst`, `.gz` beside `app.js`. Which of them a client takes (RFC 9110
//! §12.5.3). Pure.

use http::{HeaderMap, header::ACCEPT_ENCODING};

use crate::headers::tokens;

/// A way to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Coding {
    /// As headers call it.
    pub(crate) name: &'static str,
    /// What is added to a file's name.
    pub(crate) suffix: &'static str,
}

/// The best first.
const CODINGS: [Coding; 3] = [
    Coding { name: "br", suffix: "br" },
    Coding { name: "zstd", suffix: "zst" },
    Coding { name: "gzip", suffix: "gz" },
];

/// Those that the client takes, the one first that it prefers, or else the best.
pub(crate) fn accepted(headers: &HeaderMap) -> Vec<Coding> {
    if !headers.contains_key(ACCEPT_ENCODING) {
        return Vec::new();
    }
    let mut taken: Vec<(u16, Coding)> =
        CODINGS.into_iter().map(|coding| (weight(headers, coding.name), coding)).collect();
    taken.retain(|(weight, _)| *weight > 0);
    taken.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight)); // stable: the best of those it likes alike
    taken.into_iter().map(|(_, coding)| coding).collect()
}

/// How much a client likes it, in thousandths; `*` stands for what isn't named.
fn weight(headers: &HeaderMap, name: &str) -> u16 {
    let of = |wanted: &str| {
        tokens(headers, &ACCEPT_ENCODING).filter_map(|item| str::from_utf8(item).ok()).find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            parts.next().filter(|named| named.eq_ignore_ascii_case(wanted))?;
            Some(parts.find_map(quality).unwrap_or(1000))
        })
    };
    of(name).or_else(|| of("*")).unwrap_or(0)
}

/// `q=0.5`, in thousandths; what is none counts as nothing.
fn quality(parameter: &str) -> Option<u16> {
    let value = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q="))?;
    let (whole, digits) = value.split_once('.').unwrap_or((value, ""));
    let plain = digits.len() <= 3 && digits.bytes().all(|byte| byte.is_ascii_digit());
    Some(match whole {
        "1" if plain => 1000,
        "0" if plain => format!("{digits:0<3}").parse().unwrap_or(0),
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names(accept: &str) -> Vec<&'static str> {
        let headers = HeaderMap::from_iter([(ACCEPT_ENCODING, accept.parse().unwrap())]);
        accepted(&headers).into_iter().map(|coding| coding.name).collect()
    }

    #[test]
    fn a_client_gets_what_it_prefers_of_what_it_takes() {
        assert_eq!(names("gzip, deflate, br, zstd"), ["br", "zstd", "gzip"]);
        assert_eq!(names("gzip;q=1.0, br;q=0.5"), ["gzip", "br"]);
        assert_eq!(names("GZIP"), ["gzip"]);
        assert_eq!(names("*"), ["br", "zstd", "gzip"]);
        assert_eq!(names("*;q=0.1, br;q=0, gzip; q=0.2"), ["gzip", "zstd"]);
        for none in ["", "identity", "br;q=0", "br;q=x", "br;q=2", "br;q=0.0001", "brx"] {
            assert_eq!(names(none), Vec::<&str>::new(), "{none}");
        }
        assert!(accepted(&HeaderMap::new()).is_empty());
    }
}
