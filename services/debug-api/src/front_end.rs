//! Developers' front-end servers (`staticServiceUrl`): who asks for an app gets from there what is not the app's API. Pure.
//!
//! Invariant: such a server speaks plain HTTP on this machine's own loopback address, at a port that the configuration leaves to
//! developers, and never at one of the platform's own or of its apps'. Whoever may ask for the app asks that server, so anything else
//! would be a way to what only this machine can reach.

use std::{fmt, ops::RangeInclusive};

use nexushub_chassis::{Fault, launch::config::Platform, names::HttpUrl, setup::Setup};

use crate::config::Config;

/// Why requests can't be forwarded to an address; the message says what can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadFrontEnd {
    #[error("use an address such as http://localhost:5173, with a port and without a path")]
    Form,
    #[error("only a server on this machine is forwarded to, over plain HTTP: use http://localhost:<port>")]
    Elsewhere,
    #[error("port {port} is none for front-end servers; use one of {granted} (debug-api.static_ports)")]
    Port { port: u16, granted: Ports },
    #[error("port {0} is the platform's own")]
    Own(u16),
    #[error("port {0} is one of those that apps are given")]
    Apps(u16),
}

/// Ports and ranges of them, as the configuration says them: `3000`, `5173-5199`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ports(Vec<RangeInclusive<u16>>);

impl Ports {
    /// What is said; else which of them is none.
    pub(crate) fn parse(said: &[String]) -> Result<Self, String> {
        said.iter().map(|said| range(said).ok_or_else(|| said.clone())).collect::<Result<_, _>>().map(Self)
    }

    fn hold(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, range) in self.0.iter().enumerate() {
            let (before, first, last) = (if at > 0 { ", " } else { "" }, range.start(), range.end());
            write!(f, "{before}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
        }
        if self.0.is_empty() { f.write_str("none") } else { Ok(()) }
    }
}

fn range(said: &str) -> Option<RangeInclusive<u16>> {
    let port = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        digits.parse().ok().filter(|port: &u16| plain && *port > 0)
    };
    let (first, last) = said.split_once('-').unwrap_or((said, said));
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

/// Which ports may be forwarded to.
#[derive(Debug, Clone)]
pub(crate) struct FrontEnds {
    granted: Ports,
    /// Where the platform itself listens.
    own: Vec<u16>,
    /// Where its apps do.
    apps: RangeInclusive<u16>,
}

impl FrontEnds {
    /// As this platform's configuration has it.
    pub(crate) fn held(setup: &Setup<Config>) -> Result<Self, Fault> {
        Ok(Self::of(setup.config.static_ports()?, own_ports(&setup.platform), setup.app_ports()?))
    }

    pub(crate) fn of(granted: Ports, own: Vec<u16>, apps: impl Into<RangeInclusive<u16>>) -> Self {
        Self { granted, own, apps: apps.into() }
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
        match port {
            own if self.own.contains(&own) => Err(BadFrontEnd::Own(own)),
            app if self.apps.contains(&app) => Err(BadFrontEnd::Apps(app)),
            port if self.granted.hold(port) => Ok(port),
            port => Err(BadFrontEnd::Port { port, granted: self.granted.clone() }),
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
    use nexushub_chassis::setup::AppPorts;

    use super::*;

    fn judged_by(config: &Config, url: &str) -> Result<u16, BadFrontEnd> {
        let platform = Platform { metrics_listen: "127.0.0.1:8081".to_owned(), ..Platform::default() };
        let granted = config.static_ports().expect("they are ports");
        FrontEnds::of(granted, own_ports(&platform), AppPorts::default()).port(url)
    }

    fn judged(url: &str) -> Result<u16, BadFrontEnd> {
        judged_by(&Config::default(), url)
    }

    #[test]
    fn a_server_on_this_machines_loopback_is_forwarded_to() {
        for (url, port) in [("http://localhost:5173", 5173), ("http://127.0.0.1:3000/", 3000)] {
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
    }

    /// What listens on many a developer's machine and is nobody's front end: databases, caches, brokers and their like.
    const OTHERS: [u16; 32] = [
        22, 80, 443, 1433, 1521, 2181, 2375, 2379, 3306, 3389, 4222, 5000, 5432, 5433, 5672, 5900, 5984,
        6379, 7474, 7687, 8086, 8123, 8200, 8443, 8500, 9000, 9042, 9090, 9092, 9200, 11_211, 27_017,
    ];

    #[test]
    fn where_databases_apps_and_the_platform_listen_nothing_is_forwarded_to() {
        for port in OTHERS {
            assert!(judged(&format!("http://localhost:{port}")).is_err(), "{port}");
        }
        let told = judged("http://localhost:5432").expect_err("a database").to_string();
        assert!(told.contains("port 5432 is none") && told.contains("5173-5199"), "{told}");
        for port in [3000, 3099, 4173, 4200, 4321, 5173, 5199, 8000, 8080, 8085] {
            assert_eq!(judged(&format!("http://localhost:{port}")), Ok(port));
        }
        for past in [2999, 3100, 4172, 4174, 4199, 4210, 4320, 4322, 5172, 5200, 7999, 8010, 8079, 8086] {
            assert!(
                matches!(judged(&format!("http://localhost:{past}")), Err(BadFrontEnd::Port { .. })),
                "{past}"
            );
        }
        assert_eq!(judged("http://127.0.0.1:8081"), Err(BadFrontEnd::Own(8081)), "though it is granted");
    }

    #[test]
    fn what_an_operator_grants_is_open_but_for_the_platforms_own_and_that_of_apps() {
        let with = |said: &[&str], port: u16| {
            let static_ports = said.iter().map(ToString::to_string).collect();
            let config = Config { static_ports, ..Config::default() };
            judged_by(&config, &format!("http://localhost:{port}"))
        };
        for port in [1, 5432, 9999, 20_000, 65_535] {
            assert_eq!(with(&["1-65535"], port), Ok(port));
        }
        assert_eq!(with(&["1-65535"], 8443), Err(BadFrontEnd::Own(8443)));
        for port in [10_000, 19_999] {
            assert_eq!(with(&["1-65535"], port), Err(BadFrontEnd::Apps(port)));
        }
        assert_eq!(with(&["7000", "9-10"], 10), Ok(10));
        let none = with(&[], 5173).expect_err("nothing is granted").to_string();
        assert!(none.contains("use one of none"), "{none}");
    }

    #[test]
    fn ports_that_are_none_are_named() {
        for none in ["", "0", "0-5", "5-4", "-5", "5-", "+5", "5-+6", "1-65536", "a", "5 - 6", "5-6-7", "٥"]
        {
            assert_eq!(Ports::parse(&["80".to_owned(), none.to_owned()]), Err(none.to_owned()), "{none}");
        }
        let all = ["80".to_owned(), "8000-8080".to_owned(), "9-9".to_owned()];
        assert_eq!(Ports::parse(&all).map(|ports| ports.to_string()).as_deref(), Ok("80, 8000-8080, 9"));
    }
}
