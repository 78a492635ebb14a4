//! Developers' front-end servers (`staticServiceUrl`): who asks for an app gets from there what is not the app's API. Pure.
//!
//! Invariant: such a server speaks plain HTTP on this machine's own loopback address, at a port that the configuration leaves to
//! developers, and never at one of the platform's own. Whoever may ask for the app asks that server, so anything else would be a
//! way to what only this machine can reach.

use nexushub_chassis::{launch::config::Platform, names::HttpUrl};

use crate::config::Config;

/// Why requests can't be forwarded to an address; the message says what can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrontEnd {
    #[error("use an address such as http://localhost:5173, with a port and without a path")]
    Form,
    #[error("only a server on this machine is forwarded to, over plain HTTP: use http://localhost:<port>")]
    Elsewhere,
    #[error("port {port} is none for front-end servers; use one from {first} to {last}")]
    Port { port: u16, first: u16, last: u16 },
    #[error("port {0} is the platform's own")]
    Own(u16),
}

/// Which ports may be forwarded to.
#[derive(Debug, Clone)]
pub(crate) struct FrontEnds {
    first: u16,
    last: u16,
    /// Where the platform itself listens.
    own: Vec<u16>,
}

impl FrontEnds {
    pub(crate) fn of(config: &Config, own: impl IntoIterator<Item = u16>) -> Self {
        Self {
            first: config.static_port_first,
            last: config.static_port_last,
            own: own.into_iter().collect(),
        }
    }

    /// The port of the server that a developer names.
    pub(crate) fn port(&self, url: &str) -> Result<u16, BadFrontEnd> {
        let read = HttpUrl::parse(url).ok_or(BadFrontEnd::Form)?;
        if read.tls || !["localhost", "127.0.0.1"].contains(&read.host) {
            return Err(BadFrontEnd::Elsewhere);
        }
        let port = read.port.ok_or(BadFrontEnd::Form)?;
        let whole = format!("http://{}:{port}", read.host);
        if url.strip_suffix('/').unwrap_or(url) != whole {
            return Err(BadFrontEnd::Form);
        }
        let Self { first, last, .. } = *self;
        match port {
            own if self.own.contains(&own) => Err(BadFrontEnd::Own(own)),
            port if !(first..=last).contains(&port) => Err(BadFrontEnd::Port { port, first, last }),
            port => Ok(port),
        }
    }
}

/// Where the platform listens on the network.
pub(crate) fn own_ports(platform: &Platform) -> Vec<u16> {
    let said = [&platform.redirect_listen, &platform.metrics_listen];
    let port = |address: &&String| address.rsplit_once(':')?.1.parse().ok();
    [platform.listen.port()].into_iter().chain(said.iter().filter_map(port)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(url: &str) -> Result<u16, BadFrontEnd> {
        let platform = Platform { metrics_listen: "127.0.0.1:9100".to_owned(), ..Platform::default() };
        FrontEnds::of(&Config::default(), own_ports(&platform)).port(url)
    }

    #[test]
    fn a_server_on_this_machines_loopback_is_forwarded_to() {
        for (url, port) in [
            ("http://localhost:5173", 5173),
            ("http://127.0.0.1:1024/", 1024),
            ("http://localhost:9999", 9999),
        ] {
            assert_eq!(judged(url), Ok(port), "{url}");
        }
    }

    #[test]
    fn nothing_else_is() {
        for url in [
            "",
            "http://",
            "http://localhost",
            "http://localhost:5173/x",
            "http://localhost:5173//",
            "http://localhost:5173?x",
            "http://localhost:05173",
            "http://u@localhost:5173",
            "http://[::1]:5173",
        ] {
            assert_eq!(judged(url), Err(BadFrontEnd::Form), "{url}");
        }
        for url in [
            "https://localhost:5173",
            "http://other:5173",
            "http://127.0.0.2:5173",
            "http://0.0.0.0:5173",
            "http://169.254.169.254:5173",
            "http://2130706433:5173",
            "http://localhost.example:5173",
            "http://admin.yesterday.localhost:5173",
        ] {
            assert_eq!(judged(url), Err(BadFrontEnd::Elsewhere), "{url}");
        }
        for port in [1, 22, 80, 1023, 10_000, 19_999, 65_535] {
            let refused = BadFrontEnd::Port { port, first: 1024, last: 9999 };
            assert_eq!(judged(&format!("http://localhost:{port}")), Err(refused));
        }
        for port in [8443, 9100] {
            assert_eq!(judged(&format!("http://127.0.0.1:{port}")), Err(BadFrontEnd::Own(port)));
        }
    }
}
