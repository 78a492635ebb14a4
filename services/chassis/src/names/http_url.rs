//! The address of a web server that a developer names, such as `http://localhost:5173`.

use super::{is_name, port};

/// The parts that count of an `http://` or `https://` URL. User info and anything but printable ASCII are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpUrl<'a> {
    /// Whether it begins with `https://`.
    pub tls: bool,
    /// A host name or an IPv4 address, as written.
    pub host: &'a str,
    /// The port, if it says one.
    pub port: Option<u16>,
}

impl<'a> HttpUrl<'a> {
    /// The longest URL, in bytes.
    pub const MAX: usize = 2048;

    /// The URL that the text is; none if it is none.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        if text.len() > Self::MAX || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        let (tls, rest) = match text.strip_prefix("http://") {
            Some(rest) => (false, rest),
            None => (true, text.strip_prefix("https://")?),
        };
        let authority = rest.split(['/', '?', '#']).next()?;
        let (host, port) = match authority.split_once(':') {
            Some((host, digits)) => (host, Some(port(digits)?)),
            None => (authority, None),
        };
        is_name(host).then_some(Self { tls, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_up_to_its_path() {
        for (text, tls, host, port) in [
            ("http://localhost:5173", false, "localhost", Some(5173)),
            ("http://127.0.0.1:80/x:1@y", false, "127.0.0.1", Some(80)),
            ("https://Vite.example?x#y", true, "Vite.example", None),
        ] {
            assert_eq!(HttpUrl::parse(text), Some(HttpUrl { tls, host, port }), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_of_a_web_server_is_refused() {
        let long = format!("http://a/{}", "x".repeat(HttpUrl::MAX));
        for text in [
            "",
            "ftp://a",
            "http://",
            "http:///x",
            "https://:80",
            "localhost:5173",
            "http://a b",
            "http://a\r\n",
            "http://a:0",
            "http://a:",
            "http://a:+80",
            "http://a:x",
            "http://u@a",
            "http://u:1@a",
            "http://a..b",
            "http://ä",
            "javascript:x",
            &long,
        ] {
            assert_eq!(HttpUrl::parse(text), None, "{text:?}");
        }
    }
}
