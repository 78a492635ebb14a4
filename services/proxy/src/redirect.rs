//! Plain HTTP: whoever comes that way is sent to the same place by HTTPS, and gets nothing else. Pure.

use http::{HeaderValue, Request, StatusCode, request::Parts};

use crate::{decide::authority, h1::Malformed, host, refusal::Refusal};

/// Where a request is sent, of which the listener for HTTPS has this port.
pub(crate) fn location<B>(asked: Result<Request<B>, Malformed>, port: u16) -> Result<HeaderValue, Refusal> {
    let (parts, _) = asked.map_err(Refusal::malformed)?.into_parts();
    let bad_host = || Refusal::bad_request("malformed host name");
    let authority = authority(&parts)?;
    let host = host::parse(authority.to_str().map_err(|_| bad_host())?).map_err(|_| bad_host())?;
    HeaderValue::try_from(url(&host, port, &parts)).map_err(|_| bad_host())
}

fn url(host: &str, port: u16, parts: &Parts) -> String {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let path = if path.starts_with('/') { path } else { "/" };
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match port {
        443 => format!("https://{host}{path}"),
        port => format!("https://{host}:{port}{path}"),
    }
}

/// The same method again, there, and for good (RFC 9110 §15.4.9).
pub(crate) fn refusal() -> Refusal {
    Refusal::new(StatusCode::PERMANENT_REDIRECT, "Permanent Redirect: this platform is reached by HTTPS")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn sent(target: &str, host: &str, port: u16) -> Option<String> {
        let request = Request::builder().uri(target).header("host", host).body(()).unwrap();
        Some(location(Ok(request), port).ok()?.to_str().unwrap().to_owned())
    }

    #[test]
    fn everybody_is_sent_to_the_same_place_by_https() {
        for (target, host, port, url) in [
            ("/a?b=c", "hello.localhost", 8443, "https://hello.localhost:8443/a?b=c"),
            ("/", "Hello.localhost:80", 443, "https://hello.localhost/"),
            ("http://hello.localhost/a", "hello.localhost", 443, "https://hello.localhost/a"),
            ("//evil.example", "hello.localhost", 443, "https://hello.localhost//evil.example"),
            ("*", "hello.localhost", 443, "https://hello.localhost/"),
            ("/", "[::1]:80", 8443, "https://[::1]:8443/"),
        ] {
            assert_eq!(sent(target, host, port).as_deref(), Some(url), "{target} {host}");
        }
    }

    #[test]
    fn nobody_is_sent_where_no_host_can_be() {
        for host in ["", "a b", "user@a", "a/b", "a\\b", "a..b"] {
            assert_eq!(sent("/", host, 443), None, "{host:?}");
        }
        assert!(location::<()>(Err(Malformed::FirstLine), 443).is_err());
    }
}
