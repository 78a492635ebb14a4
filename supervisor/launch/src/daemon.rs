//! Which daemons a platform has, and the sockets that are bound for each before it starts.

/// A daemon of the platform, as its parent sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Daemon {
    /// Its short name: `provider`. The program is `nexushub-provider`.
    pub name: &'static str,
    /// Unix sockets below the run folder: (name of the descriptor, file name).
    pub sockets: &'static [(&'static str, &'static str)],
    /// Whether it is handed the HTTPS listener.
    pub https: bool,
    /// Whether a new generation may start while the old one drains.
    pub overlaps: bool,
}

/// The proxy's sockets; by the second the platform's own daemons ask for apps.
const PROXY: [(&str, &str); 2] = [("grpc", "proxy.sock"), ("platform", "proxy.http.sock")];

/// Every daemon, in the order in which they are started. The order saves time; nothing depends on it.
pub const DAEMONS: [Daemon; 4] = [
    Daemon { name: "provider", sockets: &[("grpc", "provider.sock")], https: false, overlaps: false },
    Daemon { name: "procmgr", sockets: &[("grpc", "procmgr.sock")], https: false, overlaps: false },
    Daemon {
        name: "debug-api",
        sockets: &[("grpc", "debug-api.sock"), ("http", "debug-api.http.sock")],
        https: false,
        overlaps: false,
    },
    Daemon { name: "proxy", sockets: &PROXY, https: true, overlaps: true },
];

/// The order of a full stop: no new requests, no new wishes, no new uploads, and then the apps.
pub const STOP_ORDER: [&str; 4] = ["proxy", "provider", "debug-api", "procmgr"];

/// Name of the file in the run folder by which procmgr learns that SIGTERM means: stop every instance.
pub const STOP_ALL: &str = "stop-all";

/// The daemon of a name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Daemon> {
    DAEMONS.iter().find(|daemon| daemon.name == name)
}
